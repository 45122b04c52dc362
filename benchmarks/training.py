"""Claim: a run survives every kill, costs what a bare loop costs, fits its plan, and trains alike in two processes.

    OMP_NUM_THREADS=1 python -m benchmarks.training [--parts kills steps …] [--data FOLDER --weights FOLDER]
                                                    [--seeds 0 1] [--quick] [--out FILE]

kills: ``kill -9`` at 30 random moments, in checkpoints and in the final save among them; the weights of the resumed
runs beside those of one left alone, and the steps that each kill cost.
steps: CPU time of a step of TaskIT's loop, of a bare PyTorch loop over the same PEFT model, batches and optimizer,
in turns; and of the bare loop at a 60 % budget and with LoRA of rank 8 everywhere, in turns.
hardest: one row twenty times longer than the rest.
quantised: a small Llama in 8 and 4 bits, real weights and data where --weights and --data name their folders.
processes: two processes beside one, with as many rows a step; this goes over all seeds, the others take the first.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from benchmarks.common import Results, Row, options
from benchmarks.runs.hardest import hardest
from benchmarks.runs.kills import kills
from benchmarks.runs.processes import processes
from benchmarks.runs.quantised import quantised
from benchmarks.runs.step_time import step_time

KILLS, QUICK_KILLS = 30, 6
EPOCHS, QUICK_EPOCHS = 3, 1  # of which every step is timed
PARTS = ("steps", "hardest", "quantised", "processes", "kills")


def timed(part: Callable[[Path], Row]) -> Row:
    """What the part found, in an empty folder, and its CPU seconds."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        found = part(Path(scratch))
    print("holds" if found["holds"] else "FAILS", flush=True)
    return found | {"cpu_seconds": round(time.process_time() - began, 1)}


def main() -> None:
    quick, data = (
        f"{QUICK_KILLS} kills, steps of one epoch, the first seed alone",
        "e2e_nlg_train.jsonl, for the quantised Llama",
    )
    parser = options("training", __doc__, quick=quick, data=data, seeds=(0, 1))
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="a folder with stories260K_llama/")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    chosen = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)  # forks of a process with several would hang, and CPU time would not be time
    seeds = chosen.seeds[:1] if chosen.quick else chosen.seeds
    seed, wanted = seeds[0], QUICK_KILLS if chosen.quick else KILLS
    parts: dict[str, Callable[[Path], Row]] = {
        "steps": lambda scratch: step_time(scratch, seed, QUICK_EPOCHS if chosen.quick else EPOCHS),
        "hardest": lambda scratch: hardest(scratch, seed),
        "quantised": lambda scratch: quantised(scratch, seed, chosen.weights, chosen.data),
        "processes": lambda scratch: processes(scratch, seeds),
        "kills": lambda scratch: kills(scratch, wanted, seed),
    }
    results = Results(parser, chosen, quick=chosen.quick, seeds=seeds)
    for name in chosen.parts:
        results.part(name, lambda part=parts[name]: timed(part))
    results.end()


if __name__ == "__main__":
    main()
