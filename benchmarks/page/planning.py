"""What planning takes beside training: benchmarks/planning.py."""

from benchmarks.page.markdown import percent, seconds, table
from benchmarks.page.section import Found, Section

PAPER = 0.044  # Table 6: importance 1.4 %, profiling 2.3 %, scheduling 0.7 % of a run


def section(found: Found) -> Section:
    rows, summary = found["tasks"], found["summary"]
    verdict = (
        f"Over {len(rows)} tasks planning takes {percent(summary['share'])} of the training that it plans (paper "
        f"{percent(PAPER)}), {percent(summary['share_of_everywhere'])} of that of LoRA r = 8 everywhere, and from "
        f"one learned task to twenty its memory grows by at most {percent(summary['growth'])}."
    )
    longer, again = summary["epochs_by_full"], sum(row["plan_recomputes"] for row in rows)
    verdict += (
        f" An epoch of the plan at 60 %, which recomputes blocks on {again} of the tasks, takes "
        f"{longer['plan']:.2f} times as long as one of LoRA r = 8 everywhere; of a plan that keeps its activations, "
        f"{longer['keeping']:.2f}."
    )
    return Section(verdict, summary["holds"], (_times(rows), _sizes(summary)), verdict)


def _times(rows: list) -> str:
    lines = [
        [
            row["task"], str(row["learned_tasks"]), seconds(row["trace_seconds"]),
            seconds(row["usual_survey_seconds"]), seconds(row["usual_plan_seconds"]),
            seconds(row["planned_seconds"]), percent(row["share"]),
            *(f"{row[f'{name}_epoch_seconds'] / row['full_epoch_seconds']:.2f}" for name in ("plan", "keeping")),
        ]
        for row in rows
    ]  # fmt: skip
    head = ("task", "learned tasks", "trace", "comparison", "plan", "training", "share", "epoch", "keeping")
    told = (
        "Processor time; of an epoch of the plan, and of one that keeps its activations, by that of LoRA everywhere."
    )
    return f"{told}\n\n{table(head, lines)}"


def _sizes(summary: dict) -> str:
    sizes = {name: summary[name] for name in ("usual", "double")}
    lines = [
        [name, seconds(one["survey_seconds"]), f"{one['within']:.2f}", f"{one['pearson']:.2f}"]
        for name, one in sizes.items()
    ]
    text = "A comparison with the zoo on twice the rows, and Pearson r of predicted and true similarity."
    return f"{text}\n\n{table(('rows', 'comparison', 'within a task', 'all pairs'), lines)}"
