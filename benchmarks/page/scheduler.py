"""How good and how fast the schedules are: benchmarks/scheduler.py."""

from benchmarks.page.markdown import percent, seconds, table
from benchmarks.page.section import Found, Section

PAPER = {  # Table 8: seconds and accuracy of the paper's schedulers
    "TaskIT": "13.2 s, 80.4",
    "greedy": "1.2 s, 77.5",
    "evolutionary": "628.5 s, 80.1",
}


def section(found: Found) -> Section:
    timings, beside, milp = found["timings"], found["side by side, 168 locations"], found["mixed-integer"]
    small = found["exhaustive"]
    parts = [*timings, *beside, *milp, small, found["properties"]]
    worst = min(row["to_milp"] for row in milp)
    over = sum(row["over_budget"] for row in milp) + small["over_budget"]
    slowest = max(row["seconds"] for row in timings if row["bar_seconds"] and "frontier" not in row["case"])
    figure = (
        f"A plan takes at most {seconds(slowest)} for up to 560 locations, {over} plans of "
        f"{len(milp) + small['budgets']} are over budget, and HiGHS finds none more than {percent(max(-worst, 0))} "
        "better."
    )
    exact = (
        f"On {small['instances']} small instances the worst ratio to the best of all strategies is "
        f"{small['worst_ratio']:.6f}."
    )
    joint, joint_times = found.get("joint", []), found.get("joint, timings", [])
    body = (exact, _timings(timings), _beside(beside), _milp(milp), *_joint(joint, joint_times))
    if joint:
        behind = min(row["score"] / row["milp"] - 1 for row in joint)
        figure += (
            f" Ranks, recomputed blocks and micro-batch together, on {len(joint)} problems, are at most "
            f"{percent(max(-behind, 0))} below what HiGHS finds."
        )
    parts += [*joint, *joint_times]
    return Section(figure, all(row["holds"] for row in parts), body, figure)


def _joint(rows: list, timings: list) -> tuple[str, ...]:
    """The search over a whole step beside HiGHS, one problem for each micro-batch."""
    if not rows:
        return ()
    lines = [
        [
            row["architecture"],
            f"{row['share']} %",
            str(row["micro_batch"]),
            f"{row['recomputed']} of {row['blocks']}",
            f"{row['score']:.5f}",
            f"{row['milp']:.5f}",
            seconds(row["seconds"]),
            str(row["over_budget"]).lower(),
        ]
        for row in rows
    ]
    head = ("the whole step", "budget", "rows at once", "recomputed", "objective", "HiGHS", "processor time", "over")
    times = [
        [row["case"], seconds(row["seconds"]), seconds(row["bar_seconds"]) if row["bar_seconds"] else ""]
        for row in timings
        if "seconds" in row
    ]
    return table(head, lines), table(("the whole step", "processor time", "bar"), times)


def _timings(rows: list) -> str:
    lines = [
        [row["case"], seconds(row["seconds"]), seconds(row["bar_seconds"]) if row["bar_seconds"] else "",
         f"{row['peak_bytes'] / 1e6:.0f} MB"]
        for row in rows
    ]  # fmt: skip
    return table(("case", "processor time", "bar", "memory"), lines)


def _beside(rows: list) -> str:
    lines = [
        [
            row["scheduler"],
            seconds(row["seconds"]),
            f"{row['objective']:.2f}",
            percent(row["bytes_used"]),
            next((figure for name, figure in PAPER.items() if row["scheduler"].startswith(name)), ""),
        ]
        for row in rows
    ]
    head = ("scheduler, 168 locations at 60 %", "processor time", "objective", "budget used", "paper: time, accuracy")
    return table(head, lines)


def _milp(rows: list) -> str:
    by_name: dict[str, list[dict]] = {}
    for row in rows:
        by_name.setdefault(row["architecture"], []).append(row)
    lines = [
        [
            name,
            str(some[0]["locations"]),
            seconds(max(row["seconds"] for row in some)),
            percent(min(row["to_milp"] for row in some)),
            percent(min(row["to_bound"] for row in some)),
        ]
        for name, some in by_name.items()
    ]
    head = ("architecture", "locations", "slowest", "to HiGHS, worst", "to its bound, worst")
    return f"Against HiGHS, worst of all budgets.\n\n{table(head, lines)}"
