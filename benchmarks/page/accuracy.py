"""Accuracy at every budget: benchmarks/accuracy.py."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.page.markdown import accuracy, mib, points, table
from benchmarks.page.section import Found, Section
from benchmarks.page.svg import lines
from taskit.planning.recipe import Recipe

BAR_SHARE = 60  # per cent of the way from no update to LoRA r = 8 everywhere
BATCH = 16  # rows of a step in all of them
TIGHT_SHARE = 20  # where memory is scarce even for what recomputes blocks
HIGHEST = 64  # of the ranks that plans may have
OURS, EVERYWHERE, UNIFORM, LAST, RANDOM = "taskit", "everywhere", "uniform", "last-blocks", "random"
KEEPING, BOTH, BLIND = "taskit-keeping", "uniform-checkpointing", "random-checkpointing"
WAYS = {
    EVERYWHERE: "LoRA r = 8 everywhere",
    UNIFORM: "uniform LoRA that fits",
    LAST: "the last blocks at the largest rank that fits",
}
RIVALS = (RANDOM, "sensitivity", "oracle", UNIFORM, LAST)  # of an importance, where activations are kept
BEHIND, AHEAD = 0.002, 0.01  # of accuracy: at most behind LoRA everywhere, at least ahead of uniform LoRA
PAPER = {40: 78.3, 50: 78.9, 60: 79.3}  # Table 4, VTAB-1K, cold start; AutoLoRA 79.5, LoRA 74.5
Cell = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Gap:
    """TaskIT's accuracy above another way's: the ``mean`` over ``pairs`` of task and seed, and its standard error."""

    mean: float
    error: float | None
    pairs: int

    def __str__(self) -> str:
        return points(self.mean) + (f" ± {accuracy(self.error)}" if self.error is not None else "")


def section(found: Found) -> Section:
    cells = [cell for cell in found["cells"] if "test" in cell and not cell["variant"]]
    bounded = _families(cell for cell in cells if cell["share"] is not None)
    pictures = {f"accuracy-{family}.svg": _picture(family, cells) for family in bounded}
    gaps = {other: gap(cells, other) for other in (EVERYWHERE, UNIFORM, LAST)}
    if not all(gaps.values()):
        return Section(
            f"Not all ways have been trained at {BAR_SHARE} % yet.", None, _body(found, cells), pictures=pictures
        )
    bars = {EVERYWHERE: -BEHIND, UNIFORM: AHEAD, LAST: 0.0}
    holds = all(one is not None and one.mean >= bars[other] for other, one in gaps.items())
    told = ", ".join(f"{one} against {WAYS[other]}" for other, one in gaps.items())
    pairs = min(one.pairs for one in gaps.values() if one)
    figure = f"At a budget of {BAR_SHARE} % TaskIT's accuracy is, in points ± a standard error, {told}"
    figure += f" ({pairs} pairs of task and seed).{_recomputing(cells)}{_tight(cells)}"
    bar = f" The bar is {', '.join(f'{points(value)} against {other}' for other, value in bars.items())}."
    return Section(figure + bar, holds, _body(found, cells), figure, pictures)


def _recomputing(cells: Sequence[Cell]) -> str:
    """What recomputing blocks has to do with it."""
    plans = [cell for cell in cells if cell["way"] == OURS and cell["share"] == BAR_SHARE]
    told = [f" {sum(cell.get('recomputes', False) for cell in plans)} of its {len(plans)} plans recompute blocks"]
    smaller = sum(cell.get("micro_batch", BATCH) < BATCH for cell in plans)
    told += [f"{smaller} pass smaller micro-batches, which train the same"]
    others = {EVERYWHERE: "LoRA everywhere", LAST: "the last blocks", RANDOM: "a random importance"}
    kept = [f"{one} against {name}" for other, name in others.items() if (one := gap(cells, other, KEEPING))]
    told += [f"where none may, it is {', '.join(kept)}"] if kept else []
    alike = gap(cells, BOTH)
    told += [f"against uniform LoRA that recomputes them too it is {alike}"] if alike else []
    return "; ".join(told) + "."


def _tight(cells: Sequence[Cell]) -> str:
    """What is left of it where ranks are few."""
    others = {
        EVERYWHERE: "LoRA r = 8 everywhere",
        LAST: "the last blocks",
        BOTH: "uniform LoRA that recomputes them",
        BLIND: "a random importance that recomputes",
    }
    gaps = {name: gap(cells, other, share=TIGHT_SHARE) for other, name in others.items()}
    told = [f"{one} against {name}" for name, one in gaps.items() if one]
    pairs = [one.pairs for one in gaps.values() if one]
    return f" At {TIGHT_SHARE} % it is {', '.join(told)} ({min(pairs)} pairs)." if told else ""


def gap(cells: Sequence[Cell], other: str, ours: str = OURS, share: int = BAR_SHARE) -> Gap | None:
    """TaskIT above another way at a budget, that of the bar if none is named, over tasks and seeds that have both."""

    def of(way: str) -> dict[tuple, float]:
        return {
            (cell["family"], cell["task"], cell["seed"]): cell["test"]
            for cell in cells
            if cell["way"] == way and cell["share"] in (None, share)
        }

    mine, theirs = of(ours), of(other)
    gains = [mine[key] - theirs[key] for key in sorted(mine.keys() & theirs.keys())]
    if not gains:
        return None
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else None
    return Gap(statistics.fmean(gains), error, len(gains))


def _families(cells: Iterable[Cell]) -> list[str]:
    return list(dict.fromkeys(cell["family"] for cell in cells))


def _shares(cells: Iterable[Cell]) -> list[int]:
    return sorted({cell["share"] for cell in cells if cell["share"] is not None})


def _whole(cells: Iterable[Cell], family: str) -> list[Cell]:
    """The cells of a family but those of a way and budget that not all its tasks have: they would not compare."""
    some = [cell for cell in cells if cell["family"] == family]
    tasks: dict[tuple, set[str]] = {}
    for cell in some:
        tasks.setdefault((cell["way"], cell["share"]), set()).add(cell["task"])
    most = max(map(len, tasks.values()))
    return [cell for cell in some if len(tasks[cell["way"], cell["share"]]) == most]


def mean(cells: Sequence[Cell], **key: Any) -> tuple[float, float | None] | None:
    """Mean accuracy over tasks of the cells that match, and its spread over the seeds that have all tasks."""
    by_task: dict[tuple, dict[int, float]] = {}
    for cell in cells:
        if key.items() <= cell.items():
            by_task.setdefault((cell["family"], cell["task"]), {})[cell["seed"]] = cell["test"]
    if not by_task:
        return None
    tasks = by_task.values()
    seeds = [seed for seed in next(iter(tasks)) if all(seed in task for task in tasks)]
    means = [statistics.fmean(task[seed] for task in tasks) for seed in seeds]
    value = statistics.fmean(statistics.fmean(task.values()) for task in tasks)
    return value, statistics.stdev(means) if len(means) > 1 else None


def _shown(found: tuple[float, float | None] | None) -> str:
    if found is None:
        return ""
    return accuracy(found[0]) + (f" ± {accuracy(found[1])}" if found[1] is not None else "")


def _body(found: Found, cells: Sequence[Cell]) -> tuple[str, ...]:
    parts = [
        "Mean test accuracy ± its spread over the seeds that have all tasks; what has no budget stands in the first "
        "column, and `uniform` is the linear head only where not even rank 1 everywhere fits.  TaskIT's plans may "
        "recompute blocks in the backward pass, and so does what ends in `-checkpointing`; all else keeps its "
        "activations.  The budget is on the scale of training that keeps them, so that all have the same bytes.  "
        f"Plans of `{KEEPING}` are today's; those of `{OURS}` are of an earlier trial, and without the gains that "
        f"the zoo knows.  {_filled(cells)}"
    ]
    for family in _families(cells):
        some = _whole(cells, family)
        tasks = list(dict.fromkeys(cell["task"] for cell in some))
        parts += [f"### {family}, {len(tasks)} tasks", _by_budget(some)]
        if _shares(some):
            parts.append(f"![Accuracy by budget](evidence/accuracy-{family}.svg)")
        parts += [f"Each task and group at {BAR_SHARE} %, or without a budget.", _by_task(some, tasks)]
        parts += ["TaskIT above the other ways, in points.", *(_gaps(some, share) for share in _shares(some))]
        if rates := [table for share in _shares(some) if (table := _rates(some, share))]:
            parts += [
                "Mean accuracy at every rate that was tried: on the rows that chose the rate, and on "
                "the test rows, over the tasks on which all these ways have tried them; beside it the sum of ranks, "
                "and the rate that a plan of these ranks has by itself.  Where validation hardly tells rates apart, "
                "part of a gap above is the rate's.",
                *rates,
            ]
    variants = [cell for cell in found["cells"] if "test" in cell and cell["variant"]]
    if variants:
        parts += ["### The paper's smaller tables", _variants(variants)]
    if any(cell["way"] == RANDOM for cell in cells):
        parts += ["### What an importance is worth", _worth(cells)]
    told = ", ".join(f"{value} at {share} %" for share, value in PAPER.items())
    parts.append(f"The paper (Table 4, VTAB-1K on ViT-B, one learned task): {told}; AutoLoRA 79.5, LoRA 74.5.")
    return tuple(parts)


def _filled(cells: Sequence[Cell]) -> str:
    """How many of TaskIT's plans no importance would change."""
    some = [cell for cell in cells if cell["way"] == OURS and cell["share"] == BAR_SHARE]
    plans = [cell["ranks"] for cell in some if cell.get("ranks")]
    full = sum(min(ranks) == HIGHEST for ranks in plans)
    return f"At {BAR_SHARE} % {full} of its {len(plans)} have the highest rank everywhere, whatever the importance."


def _by_budget(cells: Sequence[Cell]) -> str:
    shares = _shares(cells)
    rows = []
    for way in dict.fromkeys(cell["way"] for cell in cells):
        row = [_shown(mean(cells, way=way, share=share)) for share in (None, *shares)]
        peaks = [cell["peak_bytes"] for cell in cells if cell["way"] == way and cell["share"] in (None, BAR_SHARE)]
        known = [peak for peak in peaks if peak is not None]
        rows.append([way, *row, mib(statistics.fmean(known)) if known else ""])
    return table(("way", "no budget", *(f"{share} %" for share in shares), f"peak, {BAR_SHARE} %"), rows)


def _by_task(cells: Sequence[Cell], tasks: Sequence[str]) -> str:
    at = [cell for cell in cells if cell["share"] in (None, BAR_SHARE)]
    ways = dict.fromkeys(cell["way"] for cell in at)
    rows = [[task, *(_shown(mean(at, way=way, task=task)) for way in ways)] for task in tasks]
    for group in dict.fromkeys(cell["group"] for cell in at):
        rows.append([f"**{group}**", *(_shown(mean(at, way=way, group=group)) for way in ways)])
    return table(("task", *ways), rows)


def _gaps(cells: Sequence[Cell], share: int) -> str:
    """TaskIT above each other way at a budget, by group of tasks and over all."""
    ways = dict.fromkeys(cell["way"] for cell in cells)
    others = [way for way in ways if way != OURS and gap(cells, way, share=share)]
    groups = {group: [c for c in cells if c["group"] == group] for group in dict.fromkeys(c["group"] for c in cells)}
    rows = [
        [name, *(str(gap(some, way, share=share) or "") for way in others)]
        for name, some in {**groups, "**all**": cells}.items()
    ]
    return table((f"tasks, {share} %", *others), rows)


def _worth(cells: Sequence[Cell]) -> str:
    """TaskIT that keeps its activations above the same scheduler with another importance, and what needs none."""
    rows = []
    for share in _shares(cells):
        for family in _families(cells):
            some = [cell for cell in cells if cell["family"] == family]
            gaps = [gap(some, other, KEEPING, share) for other in (*RIVALS, EVERYWHERE)]
            if gaps[0]:
                rows.append([f"{share} %", family, *(f"{one} ({one.pairs})" if one else "" for one in gaps)])
    told = (
        "`taskit-keeping` above what the same scheduler makes of a random importance, of SPT's sensitivity and of "
        "the ablated truth (`oracle`, which knows the test rows), and above uniform LoRA, the last blocks and LoRA "
        "r = 8 everywhere: points ± a standard error, and over how many pairs of task and seed.  None recomputes "
        "blocks.  A way's rate is the one that is best over all its tasks."
    )
    return f"{told}\n\n{table(('budget', 'family', *RIVALS, EVERYWHERE), rows)}"


def _rates(cells: Sequence[Cell], share: int) -> str:
    """Each way at every rate at one budget; what tried one alone, or others than TaskIT, is left out."""
    shares = (share, None) if share == BAR_SHARE else (share,)
    trials = [cell for cell in cells if len(cell.get("tried", ())) > 1 and cell["share"] in shares]
    tried = {(c["way"], c["task"]): {o["learning_rate"]: o for o in c["tried"]} for c in trials}
    rates = sorted({rate for (way, _), found in tried.items() if way == OURS for rate in found})
    alike = {key: found for key, found in tried.items() if sorted(found) == rates}
    ways = list(dict.fromkeys(way for way, _ in alike))
    tasks = [task for task in dict.fromkeys(task for _, task in alike) if all((way, task) in alike for way in ways)]
    if not tasks:
        return ""

    def shown(way: str, rate: float) -> str:
        parts = ("validation", "test")
        return ", ".join(accuracy(statistics.fmean(alike[way, task][rate][part] for task in tasks)) for part in parts)

    def own(way: str) -> tuple[str, str]:
        ranks = [cell["ranks"] for cell in trials if cell["way"] == way and cell.get("ranks")]
        if not ranks:
            return "", ""  # no plain LoRA
        return f"{statistics.fmean(map(sum, ranks)):.0f}", f"{statistics.fmean(map(Recipe().rate, ranks)):.2g}"

    rows = [[way, *own(way), *(shown(way, rate) for rate in rates)] for way in ways]
    head = (f"way, {share} %, {len(tasks)} tasks", "sum of ranks", "own rate")
    return table((*head, *(f"{rate:g}" for rate in rates)), rows)


def _variants(cells: Sequence[Cell]) -> str:
    keys = sorted({(cell["family"], cell["variant"], cell["share"]) for cell in cells})
    rows = [
        [variant, family, f"{share} %", _shown(mean(cells, family=family, variant=variant, share=share))]
        for family, variant, share in keys
    ]
    return table(("TaskIT with", "family", "budget", "accuracy"), rows)


def _picture(family: str, cells: Sequence[Cell]) -> str:
    some = _whole(cells, family)
    shares = _shares(some)
    series: dict[str, list[tuple[float, float]]] = {}
    for way in dict.fromkeys(cell["way"] for cell in some):
        level = mean(some, way=way, share=None)
        for share in shares:
            found = level or mean(some, way=way, share=share)
            if found:
                series.setdefault(way, []).append((share, 100 * found[0]))
    return lines(f"{family}: accuracy by budget", "budget, per cent", "accuracy, per cent", series)
