"""C.1 of the paper: what a plan by one learned task alone gains, to be held against the task's similarity."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.nn.functional import cross_entropy

from benchmarks.transferring.bench import Batch, Bench, logits
from benchmarks.transferring.plans import step_spec_of, strategies
from benchmarks.transferring.predict import branch_measures
from benchmarks.transferring.truth import correct
from taskit.files import write_json

SHARE = 40  # per cent of the way from no update to LoRA r = 8 everywhere; above it all importances plan much alike
RATE = 1e-3


def alone(bench: Bench, source: Path, evidence: Any, out: Path, on_progress: Callable[[str], None]) -> None:
    """Train the plan that each learned task leads to by itself, its importance being the norms of its updates.

    ``out`` is a JSON file of the fitted ``head``'s accuracy and loss on test rows, how many those are (``tested``),
    and the ``plans``, in the order of the evidence, with their ``ranks``, accuracy (``test``) and ``loss``.
    """
    rows, names = branch_measures(evidence)["update"], evidence["adapters"].tolist()
    importances = {name: (row / row.mean()).tolist() for name, row in zip(names, rows, strict=False)}
    plans = []
    for name, ranks in strategies(step_spec_of(bench, source), importances, SHARE, others=False).items():
        model = bench.train({place: rank for place, rank in zip(bench.names, ranks, strict=True) if rank}, lr=RATE)
        plans.append({"learned": name, "ranks": ranks} | scored(model, bench.test))
        on_progress(f"{name} alone: {plans[-1]['test']:.3f}")
    tested = sum(len(batch["labels"]) for batch in bench.test)
    write_json(out, {"head": scored(bench.model, bench.test), "tested": tested, "plans": plans})


def scored(model: Any, batches: list[Batch]) -> dict[str, float]:
    """Accuracy (``test``) and cross-entropy (``loss``) on ``batches``."""
    scores, labels = logits(model, batches)
    return {"test": correct(scores, labels), "loss": float(cross_entropy(scores, labels))}
