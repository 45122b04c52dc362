"""What single modules gained in a learned task goes into the notes of its adapter in the zoo, for plans to come."""

import json
from pathlib import Path

import numpy as np

from benchmarks.transferring.families import Family
from benchmarks.transferring.tables import gains_of
from taskit.zoo.adapter import NOTES
from taskit.zoo.zoo import BUNDLED


def lend(work: Path, family: Family) -> None:
    """Write the gains that ``work`` holds into the bundled zoo: by location, in cross-entropy on test rows."""
    for task, gains in gains_of(work, family).items():
        path = BUNDLED / family.backbone.rpartition("/")[2] / task / NOTES
        if path.exists():
            names = np.load(work / family.name / "seed0" / task / "evidence.npz")["locations"]
            notes = json.loads(path.read_text(encoding="utf-8"))
            notes["gains"] = {str(name): round(float(gain), 5) for name, gain in zip(names, gains, strict=True)}
            path.write_text(json.dumps(notes, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"{path.relative_to(BUNDLED.parent)}: {len(names)} gains")
