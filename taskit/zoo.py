"""The zoo: learned tasks in a folder, each a plain PEFT adapter with an optional taskit.json beside it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskit.adapter import CONFIG, read_config, read_json, read_ranks
from taskit.errors import ZooError

NOTES = "taskit.json"
BUNDLED = Path(__file__).parents[1] / "zoo" / "adapters"  # one folder for each backbone, by the end of its id


@dataclass(frozen=True, slots=True)
class LearnedTask:
    """One learned task t_i; everything from ``labels`` on comes from its taskit.json and may be empty."""

    task: str
    adapter: str  # folder relative to the zoo: how plans name it
    folder: str  # where its files are; never written to a plan
    backbone: str
    ranks: tuple[tuple[str, int], ...]  # (module path, rank)
    labels: tuple[str, ...] = ()
    metric: str = ""
    value: float | None = None
    head_alone: float | None = None
    licence: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Zoo:
    """The learned tasks that fit one backbone, and (name, reason) of each adapter that was skipped."""

    tasks: tuple[LearnedTask, ...]
    skipped: tuple[tuple[str, str], ...]


def open_zoo(source: str | Path, backbone_id: str) -> Zoo:
    """Learned tasks for ``backbone_id`` in ``source``: each folder up to two levels down with an adapter_config.json.

    Only headers are read, no tensor.  An adapter that cannot be used is skipped with its reason.  Raises
    ZooError when ``source`` is no folder.

        zoo = open_zoo("zoo/adapters", "taskit/tiny-vit")
        [task.task for task in zoo.tasks]
    """
    root = Path(source)
    if not root.is_dir():
        raise ZooError(f"The zoo {str(source)!r} is not a folder; name a folder that holds adapters.")
    tasks, skipped = [], []
    for folder in _adapter_folders(root):
        name = folder.relative_to(root).as_posix()
        try:
            tasks.append(_learned_task(folder, name, backbone_id))
        except ZooError as error:
            skipped.append((name, str(error)))
    return Zoo(tuple(tasks), tuple(skipped))


def bundled_zoo(backbone_id: str) -> Zoo:
    """The learned tasks that come with TaskIT for a backbone; an empty zoo where there are none."""
    folder = BUNDLED / backbone_id.rpartition("/")[2]
    return open_zoo(folder, backbone_id) if folder.is_dir() else Zoo((), ())


def _adapter_folders(root: Path) -> list[Path]:
    configs = {path for pattern in (f"*/{CONFIG}", f"*/*/{CONFIG}") for path in root.glob(pattern)}
    return sorted(path.parent for path in configs)


def _learned_task(folder: Path, name: str, backbone_id: str) -> LearnedTask:
    if folder.is_symlink() or folder.parent.is_symlink():
        raise ZooError("Its folder is a symbolic link; put the folder itself into the zoo.")
    config = read_config(folder)
    if config.backbone != backbone_id:
        raise ZooError(
            f"It was learned on {config.backbone[:120]!r}, not on {backbone_id!r}; choose that backbone to use it."
        )
    ranks = read_ranks(folder, config)
    notes = read_json(folder / NOTES) if (folder / NOTES).exists() else {}
    return LearnedTask(
        task=_text(notes, "name") or folder.name,
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
    )


def _labels(notes: dict[str, Any]) -> tuple[str, ...]:
    labels = notes.get("labels") or []
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ZooError(f"{NOTES} has labels that are no list of texts; correct or delete the file.")
    return tuple(labels)


def _text(notes: dict[str, Any], field: str) -> str:
    text = notes.get(field) or ""
    if not isinstance(text, str):
        raise ZooError(f"{NOTES} has a {field} that is no text; correct or delete the file.")
    return text


def _number(notes: dict[str, Any], field: str) -> float | None:
    number = notes.get(field)
    if number is None:
        return None
    if type(number) not in (int, float) or abs(number) > 1e300 or not math.isfinite(number):
        raise ZooError(f"{NOTES} has a {field} that is no finite number; correct or delete the file.")
    return float(number)
