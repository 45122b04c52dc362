"""All that a run needs on another machine, in one archive: plan, data, a local backbone, and this copy of TaskIT."""

import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import taskit
from taskit.backbone.sources import source_of
from taskit.data.sources import PREFIX
from taskit.errors import PlanError
from taskit.files import INSTALLED_ZOO, as_json
from taskit.planning.plan import Plan
from taskit.zoo.hub.source import is_hub
from taskit.zoo.zoo import find_zoo

IMAGE = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"  # the wheels of PyTorch bring CUDA along
LOCAL_ONLY = ("gradio",)  # no run needs the web app
SKIPPED = ("__pycache__", "ui", INSTALLED_ZOO)


def pack(plan: Plan, archive: Path) -> None:
    """Write the archive; inside it, the plan names its data and a local backbone by paths within.

    Raises:
        BackboneError: the weights are not those that the plan pins.
        PlanError: the adapters that the method mixes cannot be taken along.
    """
    with ZipFile(archive, "w", ZIP_DEFLATED) as packed:
        _add_folder(packed, Path(taskit.__file__).parent, "taskit", SKIPPED)
        plan = _with_experts(packed, plan)
        packed.writestr("requirements.txt", "\n".join(pinned_requirements()) + "\n")
        if not plan.data.source.startswith(PREFIX):
            source = Path(plan.data.source).expanduser()
            inside = f"data/{source.name}"
            _add_folder(packed, source, inside) if source.is_dir() else packed.write(source, inside)
            plan = replace(plan, data=replace(plan.data, source=inside))
        if (plan.backbone.revision or "").startswith("sha256:"):
            folder = source_of(plan.backbone)
            id = Path(plan.backbone.id).name if Path(plan.backbone.id).is_absolute() else plan.backbone.id
            _add_folder(packed, folder, id)
            plan = replace(plan, backbone=replace(plan.backbone, id=id))
        packed.writestr("plan.json", as_json(plan.to_dict()))


def _with_experts(packed: ZipFile, plan: Plan) -> Plan:
    """The plan with the adapters that its method mixes, where they lie in a folder of this machine.

    Raises:
        PlanError: they were learned on a folder of this machine, whose name is another one there.
    """
    options = plan.method_options
    names, zoo = {expert["adapter"] for expert in options.get("experts", ())}, options.get("zoo")
    if not names or (zoo and is_hub(zoo)):
        return plan
    if Path(plan.backbone.id).is_absolute():
        raise PlanError(
            f"The method {plan.method} mixes adapters of {plan.backbone.id}, a folder of this machine; "
            "train it here, or push the backbone and the adapters to the Hub."
        )
    for task in find_zoo(zoo, plan.backbone).tasks:
        if task.adapter in names:
            _add_folder(packed, Path(task.folder), f"zoo/{task.adapter}")
    return replace(plan, method_options={**options, "zoo": "zoo"})


def pinned_requirements() -> list[str]:
    """Every package that a run needs, at the version it has here."""
    names = {found[0] for line in _requirements() if "extra ==" not in line and (found := re.match(r"[\w.-]+", line))}
    return [f"{name}=={version(name).partition('+')[0]}" for name in sorted(names) if name not in LOCAL_ONLY]


def _requirements() -> list[str]:
    """What an installed TaskIT requires; on a Space and in a container it is not installed, but beside its list."""
    try:
        return requires("taskit") or []
    except PackageNotFoundError:
        return (Path(taskit.__file__).parents[1] / "requirements.txt").read_text(encoding="utf-8").splitlines()


def _add_folder(packed: ZipFile, folder: Path, inside: str, skipped: Iterable[str] = ()) -> None:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not set(relative.parts) & set(skipped):
            packed.write(path, f"{inside}/{relative.as_posix()}")
