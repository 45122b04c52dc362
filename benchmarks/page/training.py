"""What a run survives and costs: benchmarks/training.py."""

from benchmarks.page.markdown import mib, percent, points, table
from benchmarks.page.section import Found, Section

PARTS = ("kills", "steps", "hardest", "quantised", "processes")


def section(found: Found) -> Section:
    here = [part for part in PARTS if part in found]
    told = {part: TOLD[part](found[part]) for part in here}
    failing = [part for part in here if not found[part]["holds"]]
    decided = len(here) == len(PARTS)
    verdict = f"{len(here) - len(failing)} of {len(here)} parts hold" + (
        f"; {', '.join(failing)} does not." if failing else "."
    )
    body = tuple(f"**{part}.** {text}" for part, text in told.items())
    first = told.get("kills", "").split("\n\n")[0]
    return Section(verdict, not failing if decided else None, body, first)


def _kills(found: dict) -> str:
    where = ", ".join(f"{count} {place}" for place, count in found["killed_inside"].items())
    return (
        f"Runs killed {len(found['kills'])} times ({where}) end with weights at most "
        f"{max(found['differences']):.1g} from those of one left alone, and lose at most {found['most_steps_lost']} "
        "steps."
    )


def _steps(found: dict) -> str:
    return (
        f"A step of TaskIT's loop takes {found['against_bare_loop']:.3f} times the CPU time of a bare PyTorch loop; "
        f"at a budget of 60 % a step takes {found['against_lora_everywhere']:.2f} times that of LoRA r = 8 "
        "everywhere."
    )


def _hardest(found: dict) -> str:
    kept = sum(row["holds"] for row in found["rows"])
    return f"One row twenty times longer than the rest: {kept} of {len(found['rows'])} cases end as they should."


def _quantised(found: dict) -> str:
    lines = [
        [row["bits"], f"{row['before']:.3f}", f"{row['after']:.3f}", mib(row["predicted"]), mib(row["measured"]),
         mib(row["budget"])]
        for row in found["rows"]
    ]  # fmt: skip
    head = ("bits", "loss before", "loss after", "predicted", "measured", "budget")
    paper = "The paper (Table 5, Janus-Pro 1B in 8 bits on a Jetson): 76.4 at 6.5 GB on CIFAR, LoRA 76.2 at 8.9 GB."
    return f"{found['backbone']} on {found['data']}.  {paper}\n\n{table(head, lines)}"


def _processes(found: dict) -> str:
    worst = max(row["peak_over_prediction"] for row in found["rows"])
    return (
        f"Two processes against one: {points(found['difference'])} points, noise {points(found['noise'])}; the peak "
        f"of each is at most {percent(worst)} of its prediction."
    )


TOLD = {"kills": _kills, "steps": _steps, "hardest": _hardest, "quantised": _quantised, "processes": _processes}
