"""What of a run may leave this machine: never a path, a token, or the name of anything that is not public."""

import json
import shutil
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from taskit.backbone.sources import PACKAGED, bundled_names
from taskit.errors import HubError, RunError
from taskit.files import BUNDLED_ZOO
from taskit.planning.plan import Plan
from taskit.training.card import Licence, Publication, draw_plan, write_card
from taskit.training.export import write_notes
from taskit.training.results import Result
from taskit.training.runs import Run
from taskit.zoo.adapter import CONFIG, NOTES, WEIGHTS, read_config, read_json, read_ranks
from taskit.zoo.hub.failures import patiently
from taskit.zoo.hub.listing import WORKERS
from taskit.zoo.hub.source import is_hub
from taskit.zoo.zoo import bundled_zoo

PICTURE, UNPUBLISHED = "plan.png", "unpublished"
HUB_DATA = "hub:"


def gather_files(run: str | Path, repo: str, token: str, folder: Path) -> None:
    """Write everything that a push of ``run`` uploads into the empty ``folder``.

    Raises RunError for a run that is not finished, HubError for a backbone that is not public.
    """
    plan, result, adapter = _finished(Run(run))
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(adapter / name, folder / name)
    read_ranks(folder, read_config(folder))  # raises for what others could not read
    publication = _publication(plan, repo, token)
    public = publishable(plan, publication)
    more: dict[str, Any] = {"licence": str(publication.licence or ""), "source": publication.dataset or ""}
    if publication.dataset:  # what unpublished data look like stays here
        more["embedding"] = read_json(adapter / NOTES).get("embedding", [])
    write_notes(public, result, publication.name, folder, **more)
    public.save(folder / "plan.json")
    draw_plan(public, folder / PICTURE)
    write_card(public, result, folder, publication)
    _require_no_leak(folder, (str(Path(run).resolve()), str(Path.home()), str(Path.cwd()), token))


def publishable(plan: Plan, publication: Publication) -> Plan:
    """The plan without the names of unpublished data and of learned tasks that are not public."""
    known = publication.pinned
    source = plan.data.source if publication.dataset else UNPUBLISHED
    similar = (s if s.adapter in known else replace(s, task="", adapter="", revision="") for s in plan.similarity)
    skipped = (s for s in plan.skipped if s.adapter in known)
    return replace(
        plan,
        data=replace(plan.data, source=source),
        similarity=tuple(similar),
        skipped=tuple(skipped),
        method_options=_public_options(plan.method_options, known),
    )


def _public_options(options: Mapping[str, Any], known: Container[str]) -> Mapping[str, Any]:
    """The options without a folder of this machine, and without the names of adapters that are not public."""
    if "experts" not in options:
        return options
    experts = [e if e["adapter"] in known else {**e, "adapter": "", "revision": ""} for e in options["experts"]]
    zoo = options["zoo"]
    return {**options, "experts": experts, "zoo": zoo if zoo and is_hub(zoo) else None}


def _finished(run: Run) -> tuple[Plan, Result, Path]:
    result, adapter = run.result, run.folder.adapter
    if result is None or not (adapter / WEIGHTS).exists():
        raise RunError(f"The run in {run.path} is not finished; finish it with taskit train plan.json --resume.")
    return run.plan, result, adapter


def _publication(plan: Plan, repo: str, token: str) -> Publication:
    base = plan.backbone
    bundled = base.id in bundled_names()
    if (base.revision or "").startswith("sha256:") and not bundled and base.id not in PACKAGED:
        raise HubError(
            f"The backbone {base.id} is a folder of this machine, which nobody else has; push it to the Hub, "
            "plan with its id and train again."
        )
    return Publication(
        name=repo.rpartition("/")[2],
        repo=repo,
        dataset=_public_dataset(plan.data.source),
        licence=_bundled_licence(base.id) if bundled else _licence(base.id, token),
        base_on_hub=not bundled,
        pinned=_public_adapters(plan),
        picture=PICTURE,
    )


def _public_dataset(source: str) -> str | None:
    """The id in "hub:OWNER/NAME[:config]" if it is public, else None."""
    name = source.removeprefix(HUB_DATA).partition(":")[0]
    return name if source.startswith(HUB_DATA) and _is_public(name, "dataset") else None


def _public_adapters(plan: Plan) -> dict[str, str]:
    """Adapter -> revision of those learned tasks that are public, "" for the bundled ones."""
    pinned = {s.adapter: s.revision for s in plan.similarity if s.revision}
    bundled = {task.adapter for task in bundled_zoo(plan.backbone.id).tasks}
    here = {s.adapter: "" for s in plan.similarity if not s.revision and s.adapter in bundled}
    return here | {id: pinned[id] for id in _only_public(pinned)}


def _only_public(ids: Iterable[str]) -> tuple[str, ...]:
    ids = tuple(ids)
    with ThreadPoolExecutor(WORKERS) as pool:
        return tuple(id for id, public in zip(ids, pool.map(_is_public, ids), strict=True) if public)


def _is_public(id: str, kind: str = "model") -> bool:
    """Whether the Hub shows it without a token; False after an error."""
    with suppress(HubError):
        info = patiently(lambda: HfApi(token=False).repo_info(id, repo_type=kind), f"looking at {id}", id)
        return info.private is False
    return False


def _licence(base: str, token: str) -> Licence | None:
    """The licence that the base model states on the Hub, None where it states none or cannot be read."""
    with suppress(HubError):
        info = patiently(lambda: HfApi(token=token).model_info(base), f"looking at {base}", base)
        card = info.card_data.to_dict() if info.card_data else {}
        if isinstance(card.get("license"), str):
            return Licence(card["license"], card.get("license_name") or "", card.get("license_link") or "")
    return None


def _bundled_licence(base: str) -> Licence | None:
    catalog = json.loads((BUNDLED_ZOO / "catalog.json").read_text(encoding="utf-8"))
    stated = {entry["id"]: entry["licence"] for entry in catalog["backbones"]}
    return Licence("other", f"{base}-licence", text=stated[base]) if base in stated else None


def _require_no_leak(folder: Path, secrets: Iterable[str]) -> None:
    """Raise HubError if a file holds one of ``secrets``: a defect above must not publish a path or the token."""
    for path in folder.iterdir():
        content = path.read_bytes()
        for secret in secrets:
            if len(secret) > 3 and secret.encode() in content:
                raise HubError(f"{path.name} would have published something private; nothing was sent, report this.")
