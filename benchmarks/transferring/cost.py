"""What planning costs beside training: time of every part, and memory with one learned task and with twenty."""

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.transferring.bench import Bench
from taskit.backbone import find_backbone
from taskit.data import load
from taskit.memory.live import LiveStorages, standing_tensors
from taskit.planning import set_stage
from taskit.pricing import price
from taskit.processor import make_collator
from taskit.scheduler import schedule
from taskit.training.recipe import Recipe
from taskit.transfer import measure
from taskit.zoo import open_zoo

EPOCHS, ALL_ROWS = 10, 4000
MANY = 20


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """(processor seconds of this process, result)."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def cost_row(bench: Bench, source: Path, adapters: Mapping[str, Path]) -> dict[str, Any]:
    """Processor seconds of planning's parts, and their share of ten epochs of LoRA r = 8 everywhere.

    The training is that of ALL_ROWS rows, as many as the text tasks have; an epoch of the bench's rows is timed.
    """
    recipe = Recipe(epochs=EPOCHS, batch_size=bench.family.batch_size, max_length=bench.family.max_length)
    data, backbone = load(source, seed=0), find_backbone(bench.family.backbone)
    with TemporaryDirectory() as zoo:
        for name, folder in adapters.items():
            shutil.copytree(folder, Path(zoo) / name)
        return _row(bench, data, backbone, recipe, open_zoo(zoo, backbone.id).tasks)


def _row(bench: Bench, data: Any, backbone: Any, recipe: Recipe, tasks: Any) -> dict[str, Any]:
    many = (tasks * MANY)[:MANY]
    compare, found = timed(
        lambda: measure(bench.model, bench.probe(), bench.names, bench.head, tasks, bench.further())
    )
    collator = make_collator(backbone, data.info.task, recipe.max_length)
    tracing, pricing = timed(lambda: price(set_stage(backbone, data, recipe, collator)))
    middle = (pricing.no_update_bytes + pricing.full_lora_bytes) // 2
    planning, _ = timed(lambda: schedule(pricing.profile, found.importances[0].values, middle))
    epoch, _ = timed(lambda: bench.train(bench.full(), epochs=1))
    training = epoch * EPOCHS * ALL_ROWS / len(bench.train_rows)
    peaks = [peak(bench, some) for some in (tasks[:1], many)]
    return {
        "task": bench.task,
        "learned_tasks": len(tasks),
        "compare_seconds": compare,
        "trace_seconds": tracing,
        "schedule_seconds": planning,
        "training_seconds": training,
        "share": (compare + tracing + planning) / training,
        "peak_bytes_one": peaks[0],
        "peak_bytes_twenty": peaks[1],
        "growth": peaks[1] / peaks[0] - 1,
    }


def peak(bench: Bench, tasks: Any) -> int:
    """Most bytes of live storages, the frozen model's included, while the tasks are compared."""
    live = LiveStorages()
    with live:
        live.follow(standing_tensors(bench.model))
        measure(bench.model, bench.probe(), bench.names, bench.head, tasks)
    return live.peak
