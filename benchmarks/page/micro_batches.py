"""Micro-batches beside the whole batch: benchmarks/micro_batches.py."""

from collections.abc import Iterable, Mapping

from benchmarks.page.markdown import counted, table
from benchmarks.page.section import Found, Section


def section(found: Found) -> Section:
    one, two, single = found["one_process"], found.get("two_processes", []), found["rounding"]
    rows = (*one, *two)
    within = sum(row["within"] for row in single)
    verdict = (
        f"In double precision {counted(len(one), 'run')} in one process and {len(two)} in two end with weights that "
        f"differ from those of the whole batch by at most {worst(rows, 'weight'):.1e}, and all losses by at most "
        f"{worst(rows, 'loss'):.1e}. In single precision, where the order of sums tells, "
        f"{within} of {counted(len(single), 'run')} stay within 1e-5."
    )
    body = [
        "Largest difference of the losses of the steps, which are written with six digits, and of a final weight. "
        "What stands out in float32 is the linear head that a classifier begins with: on the features of the random "
        "Bert, which hardly differ, its weights are above a thousand, and rounding in the features moves them. "
        "Of MiniLM it is the LoRA, by AdamW, and its losses agree all the same."
    ]
    body.append(_table(one, "one process, float64"))
    if two:
        body.append(_table(two, "two processes, float64", processes=True))
    body.append(_table(single, "one process, float32"))
    return Section(verdict, all(row["holds"] for row in rows), tuple(body), verdict)


def worst(rows: Iterable[Mapping], name: str) -> float:
    return max(row[name] for row in rows)


def _table(rows: list, head: str, *, processes: bool = False) -> str:
    lines = []
    for model, size in dict.fromkeys((row["model"], row["size"]) for row in rows):
        mine = [row for row in rows if (row["model"], row["size"]) == (model, size)]
        line = [model, _sizes(size), str(len(mine)), f"{worst(mine, 'loss'):.1e}", f"{worst(mine, 'weight'):.1e}"]
        if processes:
            pairs = [pair for row in mine for pair in row["targets"]]
            line.append(f"{max(max(pair) / min(pair) for pair in pairs):.2f}")
        lines.append(line)
    columns = [head, "rows at once", "runs", "losses", "weights"]
    return table([*columns, "most targets of one process over the other's"] if processes else columns, lines)


def _sizes(size: int) -> str:
    count, rest = divmod(32, size)
    return " + ".join([str(size)] * count + [str(rest)]) if rest else f"{count} x {size}"
