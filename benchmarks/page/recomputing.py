"""Blocks recomputed one by one: benchmarks/recomputing.py."""

from benchmarks.page.markdown import counted, mib, percent, table
from benchmarks.page.section import Found, Section


def section(found: Found) -> Section:
    steps, profiles = found["steps"], found["profiles"]
    missed = [row["architecture"] for row in steps if not row["holds"]]
    subsets = sum(row["subsets"] for row in steps)
    verdict = (
        f"Over {counted(subsets, 'subset')} of the blocks of {counted(len(steps), 'architecture')} gradients differ "
        f"from those of keeping all by at most {max(row['gradient'] for row in steps):.1e}, and the rehearsed peak "
        f"from that of real steps by at most {percent(max(abs(row['peak']) for row in steps))}."
    )
    if missed:
        verdict += f" The bar is missed by {', '.join(missed)}."
    names = list(_errors(profiles[0]))
    lines = [
        [row["architecture"], str(row["blocks"]), str(row["subsets"]), f"{row['gradient']:.1e}", percent(row["peak"])]
        for row in steps
    ]
    real = table(("small size, real steps", "blocks", "subsets", "gradients", "peak"), lines)
    lines = [
        [row["architecture"], str(row["blocks"]), mib(row["none"]["rehearsed"]), mib(row["all"]["rehearsed"])]
        + [f"{100 * error:+.2f} %" for error in _errors(row).values()]
        for row in profiles
    ]
    told = (
        "The additive profile, by which a plan is sought, over the rehearsed peak that it is checked with: LoRA "
        "r = 8 everywhere at the sizes people fine-tune. There is no bar: what it misses, the search makes up for."
    )
    columns = ("blocks recomputed", "blocks", "none, rehearsed", "all, rehearsed", *names)
    return Section(verdict, not missed, (real, f"{told}\n\n{table(columns, lines)}"), verdict)


def _errors(row: dict) -> dict[str, float]:
    return {name: value["error"] for name, value in row.items() if isinstance(value, dict)}
