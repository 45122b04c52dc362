"""The zoo: learned tasks in a folder or on the Hub, each a plain PEFT adapter with an optional taskit.json."""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskit.errors import ZooError
from taskit.files import BUNDLED_ZOO
from taskit.zoo.adapter import CONFIG, NOTES, AdapterConfig, read_config, read_json, read_ranks, require_backbone
from taskit.zoo.hub.source import is_hub

if TYPE_CHECKING:
    from taskit.backbone.sources import Backbone

_COMMIT, _HASH = re.compile(r"[0-9a-f]{40}"), re.compile(r"sha256:[0-9a-f]{64}")
BUNDLED = BUNDLED_ZOO / "adapters"  # one folder for each backbone, by the end of its id


@dataclass(frozen=True, slots=True)
class LearnedTask:
    """One learned task t_i; everything from ``labels`` on comes from its taskit.json and may be empty."""

    task: str
    adapter: str  # folder relative to the zoo, or id on the Hub: how plans name it
    folder: str  # where its files are; never written to a plan
    backbone: str
    ranks: tuple[tuple[str, int], ...]  # (module path, rank)
    labels: tuple[str, ...] = ()
    metric: str = ""
    value: float | None = None
    head_alone: float | None = None
    licence: str = ""
    source: str = ""
    revision: str = ""  # commit on the Hub
    embedding: tuple[float, ...] = ()  # mean feature of its data, see `taskit.transfer.embedding`
    gains: tuple[tuple[str, float], ...] = ()  # (module path, what a LoRA there took off the loss)


@dataclass(frozen=True, slots=True)
class Zoo:
    """The learned tasks that fit one backbone, and (name, reason) of each adapter that was skipped.

    ``note`` is a sentence where the zoo is not the one requested, as without a network.
    """

    tasks: tuple[LearnedTask, ...]
    skipped: tuple[tuple[str, str], ...]
    note: str = ""


def open_zoo(
    source: str | Path, backbone_id: str, *, revision: str | None = None, token: str | None = None, ask: bool = False
) -> Zoo:
    """Learned tasks for ``backbone_id`` in ``source``: a folder, or a source that `taskit.zoo.hub.source` parses.

    In a folder every folder up to two levels down with an adapter_config.json counts.  From the Hub adapters are
    pulled into a cache, from which the next call takes them without any request for an hour, unless ``ask``, and
    for good without a network; ``token`` defaults to the one of hf auth login.  Only headers are read, no tensor.
    An adapter that cannot be used is skipped with its reason, one for another ``revision`` of the backbone
    included.  Raises ZooError when ``source`` is no folder, HubError when the Hub refuses.

        zoo = open_zoo("zoo/adapters", "taskit/tiny-vit")
        [task.task for task in zoo.tasks]
    """
    if is_hub(source):
        return _hub_zoo(str(source), backbone_id, revision, token, ask)
    root = Path(source)
    if not root.is_dir():
        raise ZooError(f"The zoo {str(source)!r} is not a folder; name a folder that holds adapters.")
    tasks, skipped = [], []
    for folder in _adapter_folders(root):
        name = folder.relative_to(root).as_posix()
        try:
            tasks.append(_learned_task(folder, name, (backbone_id,), revision))
        except ZooError as error:
            skipped.append((name, str(error)))
    return Zoo(tuple(tasks), tuple(skipped))


def _hub_zoo(source: str, backbone_id: str, revision: str | None, token: str | None, ask: bool) -> Zoo:
    from taskit.zoo.hub.listing import hub_listing
    from taskit.zoo.hub.pulling import token_in_use

    token = token_in_use(token)
    listing = hub_listing(source, backbone_id, token, ask=ask)
    tasks, skipped = [], list(listing.skipped)
    for pin in listing.pins:
        try:
            task = _learned_task(pin.folder(token), pin.id, listing.backbones, revision)
            tasks.append(replace(task, revision=pin.revision))
        except ZooError as error:
            skipped.append((pin.id, str(error)))
    return Zoo(tuple(tasks), tuple(skipped), listing.note)


def bundled_zoo(backbone_id: str, revision: str | None = None) -> Zoo:
    """The learned tasks that come with TaskIT for a backbone; an empty zoo where there are none."""
    folder = BUNDLED / backbone_id.rpartition("/")[2]
    return open_zoo(folder, backbone_id, revision=revision) if folder.is_dir() else Zoo((), ())


def find_zoo(zoo: str | Path | None, backbone: "Backbone", token: str | None = None, *, ask: bool = False) -> Zoo:
    """The zoo that a person named, or the bundled one, for exactly this backbone."""
    if zoo is None:
        return bundled_zoo(backbone.id, backbone.revision)
    return open_zoo(zoo, backbone.id, revision=backbone.revision, token=token, ask=ask)


def _adapter_folders(root: Path) -> list[Path]:
    configs = {path for pattern in (f"*/{CONFIG}", f"*/*/{CONFIG}") for path in root.glob(pattern)}
    return sorted(path.parent for path in configs)


def _learned_task(folder: Path, name: str, backbones: Collection[str], revision: str | None) -> LearnedTask:
    if folder.is_symlink() or folder.parent.is_symlink():
        raise ZooError("Its folder is a symbolic link; put the folder itself into the zoo.")
    config = read_config(folder)
    require_backbone(config.backbone, backbones)
    ranks = read_ranks(folder, config)
    notes = read_json(folder / NOTES) if (folder / NOTES).exists() else {}
    _require_revision(config, notes, revision)
    return LearnedTask(
        task=_text(notes, "name") or name.rpartition("/")[2],
        adapter=name,
        folder=str(folder),
        backbone=config.backbone,
        ranks=ranks,
        labels=_labels(notes),
        metric=_text(notes, "metric"),
        value=_number(notes, "value"),
        head_alone=_number(notes, "head_alone"),
        licence=_text(notes, "licence"),
        source=_text(notes, "source"),
        embedding=_embedding(notes),
        gains=_gains(notes),
    )


def _require_revision(config: AdapterConfig, notes: dict[str, Any], revision: str | None) -> None:
    """Two commits, or two content hashes, can be compared; one of each says nothing."""
    backbone = notes.get("backbone")
    learned = backbone.get("revision") if isinstance(backbone, dict) else None
    learned = learned or config.revision
    if not revision or not isinstance(learned, str) or learned == revision:
        return
    if all(_COMMIT.fullmatch(one) for one in (learned, revision)):
        again = f"plan with {config.backbone}@{learned}"
    elif all(_HASH.fullmatch(one) for one in (learned, revision)):
        again = "bring those weights back"
    else:
        return
    raise ZooError(f"It was learned on another revision of the backbone; {again} to use it.")


def _labels(notes: dict[str, Any]) -> tuple[str, ...]:
    labels = notes.get("labels") or []
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ZooError(f"{NOTES} has labels that are no list of texts; correct or delete the file.")
    return tuple(labels)


def _embedding(notes: dict[str, Any]) -> tuple[float, ...]:
    values = notes.get("embedding") or []
    if not isinstance(values, list) or not all(_is_number(value) for value in values):
        raise ZooError(f"{NOTES} has an embedding that is no list of finite numbers; correct or delete the file.")
    return tuple(map(float, values))


def _gains(notes: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    gains = notes.get("gains") or {}
    if not isinstance(gains, dict) or not all(_is_number(gain) and gain >= 0 for gain in gains.values()):
        raise ZooError(f"{NOTES} has gains that are no numbers from 0 by module; correct or delete the file.")
    return tuple((name, float(gain)) for name, gain in gains.items())


def _text(notes: dict[str, Any], field: str) -> str:
    text = notes.get(field) or ""
    if not isinstance(text, str):
        raise ZooError(f"{NOTES} has a {field} that is no text; correct or delete the file.")
    return text


def _number(notes: dict[str, Any], field: str) -> float | None:
    number = notes.get(field)
    if number is None:
        return None
    if not _is_number(number):
        raise ZooError(f"{NOTES} has a {field} that is no finite number; correct or delete the file.")
    return float(number)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 1e300 and math.isfinite(value)
