"""Tables for the terminal: similarity, importance and ranks, memory, and what a run gave."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from taskit.planning.plan import Plan
from taskit.planning.rank_grid import rank_grid
from taskit.terminal import show_bytes, show_saving
from taskit.training.inference import Prediction
from taskit.training.run_folder import LIVE
from taskit.transfer.importance import attribution

if TYPE_CHECKING:
    from taskit.data.info import Report
    from taskit.methods.method import Method
    from taskit.together.plan import JointPlan
    from taskit.training.results import Result, Scores
    from taskit.training.runs import RunSummary
    from taskit.zoo.zoo import Zoo

BAR = 30
MOST_BLOCKS = 16  # rows of the memory table
MOST_CLASSES = 20  # rows of the class table, and of the confusion matrix
SCORES = {"macro_f1": "macro-F1", "perplexity": "perplexity", "exact_match": "exact match", "rouge_l": "ROUGE-L"}


def plan_tables(plan: Plan, *, explain: bool = False) -> RenderableType:
    """All that a plan decides, on one screen; with ``explain`` also why, one line for each location."""
    explanations = ("", explanation_table(plan)) if explain else ()
    missing = f"Nothing fits: the cheapest LoRA takes {show_bytes(plan.shortfall_bytes)} more than the budget"
    missing += "; --method soup composes learned ones without training." if plan.similarity else "."
    shortfall = ("", Text(missing, "yellow")) if plan.shortfall_bytes else ()
    fitting = ("", savings_table(plan)) if plan.savings else ()
    return Group(
        similarity_table(plan), "", rank_table(plan), *shortfall, *explanations, *fitting, "", memory_table(plan)
    )


def savings_table(plan: Plan) -> RenderableType:
    """What was done to fit, cheapest first, each with its bytes."""
    table = Table(title="What was done to fit, cheapest first", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for one in plan.savings:
        table.add_row(one.sentence, show_saving(one.bytes))
    table.caption, table.caption_justify = f"The longest micro-batch takes {plan.longest}.", "left"
    return table


def explanation_table(plan: Plan) -> RenderableType:
    if plan.explanation is None:
        return Text(
            f"The ranks of this plan were not chosen one by one (method {plan.method}), so none has a reason."
        )
    price = plan.explanation.price * 2**20
    table = Table(title=f"Why each location got its rank; memory costs {price:.4g} a MiB", title_justify="left")
    for name in ("block", "role", "importance", "from", "adds", "why"):
        table.add_column(name, justify="right" if name in ("block", "importance", "adds") else "left")
    for location, one in zip(plan.locations, plan.explanation.locations, strict=True):
        size = show_bytes(one.marginal_bytes)
        table.add_row(
            str(location.block),
            location.role,
            f"{one.importance:.3g}",
            attribution(location.sources),
            size,
            one.reason,
        )
    return table


def similarity_table(plan: Plan) -> RenderableType:
    if not plan.similarity:
        return Text("No learned task on this backbone: a trial on the new data alone says what matters.")
    table = Table(title=f"Similarity to the learned tasks ({plan.similarity_measure})", title_justify="left")
    for name in ("learned task", "φ", "", "used"):
        table.add_column(name, justify="right" if name == "φ" else "left")
    largest = max(abs(s.phi) for s in plan.similarity) or 1.0
    for s in sorted(plan.similarity, key=lambda s: -s.phi):
        bar = "█" * round(max(s.phi, 0) / largest * BAR)
        table.add_row(s.task, f"{s.phi:+.3f}", Text(bar, "cyan" if s.used else "dim"), "yes" if s.used else "no")
    return table


def rank_table(plan: Plan) -> RenderableType:
    """Blocks down, roles across; each cell is the rank on a background as bright as the importance."""
    grid = rank_grid(plan)
    table = Table(title="Rank of each location, brighter = more important", title_justify="left")
    table.add_column("block", justify="right")
    for role in grid.roles:
        table.add_column(role, justify="center")
    for block in grid.blocks:
        found = (grid.cells.get((block, role)) for role in grid.roles)
        row = [Text(f" {cell.text:>3} ", f"{cell.ink} on {cell.shade}") if cell else Text("") for cell in found]
        table.add_row(str(block), *row)
    return table


def memory_table(plan: Plan) -> RenderableType:
    memory = plan.memory
    table = Table(title="Predicted peak memory of training", title_justify="left")
    for name in ("", "bytes", " ", "  "):
        table.add_column(name, justify="right" if name in ("bytes", " ") else "left")
    scale = max(memory.full_lora_bytes, plan.budget_bytes, memory.peak_bytes)
    parts = {
        "weights and batch": memory.constant_bytes,
        "adapters and optimizer": memory.module_bytes,
        "activations kept": memory.activation_bytes,
        "temporary": memory.transient_bytes,
    }
    for name, size in parts.items():
        table.add_row(name, f"{size:,}", show_bytes(size), Text("█" * round(size / scale * BAR), "cyan"))
        if name == "activations kept":
            for label, part in _by_block(memory.block_bytes):
                bar = Text("█" * round(part / scale * BAR), "dim")
                table.add_row(Text(f"  {label}", "dim"), Text(f"{part:,}", "dim"), show_bytes(part), bar)
    table.add_section()
    totals = {"peak of this plan": memory.peak_bytes, "budget": plan.budget_bytes}
    totals |= {"saved against LoRA r = 8 everywhere": memory.full_lora_bytes - memory.peak_bytes}
    totals |= {"no update": memory.no_update_bytes, "LoRA r = 8 everywhere": memory.full_lora_bytes}
    for name, size in totals.items():
        bold = "bold" if name.startswith("peak") else ""
        table.add_row(
            Text(name, bold), Text(f"{size:,}", bold), show_bytes(size), Text("█" * round(size / scale * BAR), "blue")
        )
    return table


def _by_block(sizes: Sequence[int]) -> list[tuple[str, int]]:
    """(label, bytes) of the blocks, neighbours taken together where there are more than MOST_BLOCKS."""
    step = -(-len(sizes) // MOST_BLOCKS) or 1
    starts = range(0, len(sizes), step)
    ends = [min(start + step, len(sizes)) - 1 for start in starts]
    labels = [f"block {a}" if a == b else f"blocks {a} to {b}" for a, b in zip(starts, ends, strict=True)]
    return [(label, sum(sizes[a : b + 1])) for label, a, b in zip(labels, starts, ends, strict=True)]


def result_tables(result: "Result", labels: Sequence[str]) -> RenderableType:
    """What a run gave: scores before and after, memory, where classes are mistaken, the hardest rows."""
    facts = Table(title="Run", title_justify="left", show_header=False)
    facts.add_column()
    facts.add_column(justify="right")
    facts.add_row("predicted peak", show_bytes(result.predicted_peak_bytes))
    facts.add_row(f"measured peak ({result.measured_with})", show_bytes(result.measured_peak_bytes))
    facts.add_row("trained parameters", f"{result.trainable_parameters:,}")
    facts.add_row("time", f"{result.train_seconds:.0f} s")
    if result.discarded_energy:
        facts.add_row("of the update, left out by the export", f"{result.discarded_energy:.2%}")
    if result.imbalance is not None:
        facts.add_row("largest class / smallest", f"{result.imbalance:.1f}")
    after = result.details_after
    more = (confusion_table(after.confusion, labels), hardest_table(after)) if after else ()
    return Group(score_table(result, bool(labels)), facts, *more)


def together_table(plan: "JointPlan", results: "Sequence[Result]") -> RenderableType:
    """What a joint training gave: the similarity of the tasks, their scores, and the memory of the whole."""
    names = plan.tree.tasks
    alike = Table(title="Similarity of the tasks' gradients", title_justify="left")
    for name in ("", *names):
        alike.add_column(Text(name), justify="right" if name else "left")
    for name, row in zip(names, plan.tree.similarity, strict=True):
        alike.add_row(Text(name), *(f"{value:+.3f}" for value in row))
    table = Table(title="Results", title_justify="left")
    for name in ("task", "metric", "without", "with the adapter"):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right")
    for name, one in zip(names, results, strict=True):
        table.add_row(Text(name), one.metric, f"{one.before:.4f}", Text(f"{one.after:.4f}", "bold"))
    sizes = (results[0].predicted_peak_bytes, results[0].measured_peak_bytes)
    peaks = "predicted peak {}, measured {} ({})".format(*map(show_bytes, sizes), results[0].measured_with)
    return Group(alike, "", table, peaks)


def score_table(result: "Result", classes: bool) -> RenderableType:
    table = Table(title="Result", title_justify="left")
    for name in ("", "linear head only" if classes else "base model", "with the adapter"):
        table.add_column(name, justify="right" if name else "left")
    rows: dict[str, tuple] = {result.metric: (result.before, result.after)}
    before, after = result.details_before, result.details_after
    if before and after:
        rows |= {name: (getattr(before, field), getattr(after, field)) for field, name in SCORES.items()}
    for name, (one, two) in rows.items():
        if one is not None and two is not None:
            table.add_row(name, f"{one:.4f}", Text(f"{two:.4f}", "bold"))
    return table


def confusion_table(confusion: Sequence[Sequence[int]] | None, labels: Sequence[str]) -> RenderableType:
    """True classes down, answers across; nothing where the classes are too many for a terminal."""
    if confusion is None or len(confusion) > MOST_CLASSES:
        return ""
    table = Table(title="Confusion: true class down, answer across", title_justify="left")
    for name in ("", *labels):
        table.add_column(Text(name), justify="right" if name else "left")
    for true, (label, row) in enumerate(zip(labels, confusion, strict=True)):
        cells = [Text(str(n) if n else "·", "bold" if n and k == true else "") for k, n in enumerate(row)]
        table.add_row(Text(label), *cells)
    return table


def hardest_table(scores: "Scores") -> RenderableType:
    table = Table(title="Hardest evaluation rows, with the adapter", title_justify="left")
    for name in ("row", "loss", "true", "answer"):
        table.add_column(name, justify="right" if name in ("row", "loss") else "left", overflow="fold")
    for hard in scores.hardest:
        table.add_row(str(hard.row), f"{hard.loss:.3f}", Text(hard.label), Text(hard.answer))
    return table


def runs_table(runs: "Sequence[RunSummary]") -> RenderableType:
    table = Table(title="Runs", title_justify="left")
    for name in ("run", "state", "epoch", "step", "metric", "time left", ""):
        right = name in ("epoch", "step", "metric", "time left")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for run in runs:
        at = run.progress
        metric = "" if at.metric is None else f"{at.metric:.4f}"
        left = "" if run.state not in LIVE or at.seconds_left is None else f"{at.seconds_left:.0f} s"
        table.add_row(run.path, run.state, str(at.epoch), f"{at.step}/{at.steps}", metric, left, run.message)
    return table


def methods_table(methods: "Mapping[str, Method]") -> RenderableType:
    table = Table(title="Methods", title_justify="left", show_lines=True)
    for name in ("method", "what it does", "options"):
        table.add_column(name)
    for name, method in methods.items():
        options = "\n".join(f"{option}={spec.default}" for option, spec in method.options.items())
        table.add_row(name, method.explanation, options)
    return table


def zoo_table(zoo: "Zoo") -> RenderableType:
    table = Table(title="Learned tasks", title_justify="left")
    for name in ("task", "labels", "metric", "linear head only", "with LoRA", "licence", "source"):
        table.add_column(name, justify="right" if name in ("labels", "linear head only", "with LoRA") else "left")
    for task in zoo.tasks:
        scores = ["" if x is None else f"{x:.3f}" for x in (task.head_alone, task.value)]
        table.add_row(task.task, str(len(task.labels) or ""), task.metric, *scores, task.licence, task.source)
    skipped = [Text(f"skipped {name}: {reason}", "yellow") for name, reason in zoo.skipped]
    return Group(table, *skipped)


def prediction_table(predictions: Sequence[Prediction]) -> RenderableType:
    table = Table(title="Predictions", title_justify="left")
    for name in ("input", "answer", "probability"):
        table.add_column(name, justify="right" if name == "probability" else "left")
    for p in predictions:
        table.add_row(p.input, p.answer, "" if p.probability is None else f"{p.probability:.1%}")
    return table


def report_table(report: "Report") -> RenderableType:
    info = report.info
    facts = Table(title=f"{info.source}: {info.task}", title_justify="left", show_header=False)
    facts.add_column()
    facts.add_column(justify="right")
    facts.add_row("rows read", f"{report.rows:,}")
    facts.add_row("training / evaluation rows", f"{info.train_rows:,} / {info.eval_rows:,}")
    facts.add_row("columns", ", ".join(f"{role} = {name}" for role, name in info.columns))
    for spread in report.spreads:
        values = f"{spread.minimum} … {spread.median} … {spread.p95} … {spread.maximum}"
        facts.add_row(f"{spread.field}, {spread.unit} (least, median, p95, most)", values)
    if report.imbalance is not None:
        facts.add_row("largest class / smallest", f"{report.imbalance:.1f}")
    facts.add_row("duplicates in training / evaluation", f"{report.train_duplicates} / {report.eval_duplicates}")
    facts.add_row("evaluation rows that also train", str(report.leakage_rows))
    dropped = [Text(f"dropped {d.count}: {d.reason} ({', '.join(d.examples)})", "yellow") for d in report.dropped]
    warnings = [Text(warning, "yellow") for warning in report.warnings]
    return Group(facts, *([class_table(report)] if report.classes else []), *dropped, *warnings)


def class_table(report: "Report") -> RenderableType:
    table = Table(title="Classes", title_justify="left")
    for name in ("class", "training", "evaluation", ""):
        table.add_column(name, justify="right" if name in ("training", "evaluation") else "left")
    largest = max(one.train for one in report.classes) or 1
    for one in report.classes[:MOST_CLASSES]:
        bar = Text("█" * round(one.train / largest * BAR), "cyan")
        table.add_row(one.label, str(one.train), str(one.evaluation), bar)
    if len(report.classes) > MOST_CLASSES:
        table.add_row(f"… and {len(report.classes) - MOST_CLASSES} more", "", "", "")
    return table
