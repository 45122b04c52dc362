"""Claim: a run survives every kill, costs what a bare loop costs, fits its plan, and trains alike in two processes.

    OMP_NUM_THREADS=1 python -m benchmarks.training [--parts kills steps …] [--data FOLDER --weights FOLDER]

kills: ``kill -9`` at 30 random moments, in checkpoints and in the final save among them; the weights of the resumed
runs beside those of one left alone, and the steps that each kill cost.
steps: CPU time of a step of TaskIT's loop, of a bare PyTorch loop over the same PEFT model, batches and optimizer,
in turns; and of the bare loop at a 60 % budget and with LoRA of rank 8 everywhere, in turns.
hardest: one row twenty times longer than the rest.
quantised: a small Llama in 8 and 4 bits, real weights and data where --weights and --data name their folders.
processes: two processes beside one, with as many rows a step.

Prints tables and writes training.json; parts that are not asked for keep what the file holds of them.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch
import transformers

from benchmarks.runs.hardest import hardest
from benchmarks.runs.kills import kills
from benchmarks.runs.processes import processes
from benchmarks.runs.quantised import quantised
from benchmarks.runs.step_time import step_time

SEED = 0
KILLS = 30
SEEDS = 2  # of the comparison of one process with two
PACKAGES = ("taskit", "torch", "transformers", "peft", "accelerate", "bitsandbytes")


def main() -> None:
    parts = {
        "steps": lambda scratch, _: step_time(scratch, SEED),
        "hardest": lambda scratch, _: hardest(scratch, SEED),
        "quantised": lambda scratch, options: quantised(scratch, SEED, options.weights, options.data),
        "processes": lambda scratch, _: processes(scratch, SEEDS),
        "kills": lambda scratch, _: kills(scratch, KILLS, SEED),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=tuple(parts), default=list(parts))
    parser.add_argument("--data", type=Path, help="a folder with e2e_nlg_train.jsonl")
    parser.add_argument("--weights", type=Path, help="a folder with stories260K_llama/")
    parser.add_argument("--out", type=Path, default=Path("training.json"))
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)  # forks of a process with several would hang, and CPU time would not be time
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    found |= {"command": "python -m benchmarks.training --data FOLDER --weights FOLDER", "seed": SEED}
    found |= {"versions": {name: version(name) for name in PACKAGES}, "machine": platform.machine()}
    for name in options.parts:
        print(f"== {name}", flush=True)
        began = time.process_time()
        with tempfile.TemporaryDirectory() as scratch:
            found[name] = parts[name](Path(scratch), options)
        found[name]["cpu_seconds"] = round(time.process_time() - began, 1)
        options.out.write_text(json.dumps(found, indent=2) + "\n")
        print(f"{name}: {'holds' if found[name]['holds'] else 'FAILS'}", flush=True)
    sys.exit(0 if all(found[part]["holds"] for part in options.parts) else 1)


if __name__ == "__main__":
    main()
