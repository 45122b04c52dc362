"""C.1 of the paper: what a plan by one learned task alone gains, to be held against the task's similarity."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.transferring.bench import Bench, accuracy
from benchmarks.transferring.plans import stage_of, strategies
from benchmarks.transferring.predict import branch_measures
from taskit.training.files import write_json

SHARE = 60  # per cent of the way from no update to LoRA r = 8 everywhere
RATE = 1e-3


def alone(bench: Bench, source: Path, evidence: Any, out: Path, tell: Callable[[str], None]) -> None:
    """Train the plan that each learned task leads to by itself, its importance being the norms of its updates.

    ``out`` is a JSON file of the fitted ``head``'s accuracy on test rows, how many those are (``tested``), and the
    ``plans``, in the order of the evidence, with their ``ranks`` and accuracy (``test``).
    """
    rows, names = branch_measures(evidence)["update"], evidence["adapters"].tolist()
    importances = {name: (row / row.mean()).tolist() for name, row in zip(names, rows, strict=False)}
    plans = []
    for name, ranks in strategies(stage_of(bench, source), importances, SHARE, others=False).items():
        model = bench.train({place: rank for place, rank in zip(bench.names, ranks, strict=True) if rank}, lr=RATE)
        plans.append({"learned": name, "ranks": ranks, "test": accuracy(model, bench.test)})
        tell(f"{name} alone: {plans[-1]['test']:.3f}")
    tested = sum(len(batch["labels"]) for batch in bench.test)
    write_json(out, {"head": accuracy(bench.model, bench.test), "tested": tested, "plans": plans})
