"""The tasks of the table in groups, as VTAB has them, and the zoos that each is planned with."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

from benchmarks.transferring.families import Family

IMAGES = {
    "photographs": ("flowers5", "trash6", "cifar10", "sign_digits"),
    "surfaces": ("satellite_rsscn7", "textures_dtd10"),
    "drawings": ("handdrawn_shapes4", "mnist"),
}
TEXTS = {
    "topics": ("trec_question", "snips_intent7"),
    "opinions": ("mpqa_opinion", "cr_customer_reviews", "subj"),
    "forms": ("cola_acceptability", "sms_spam", "sick_nli"),
}
GROUPS = {"text": TEXTS, "image": IMAGES, "vit-tiny": IMAGES}
QUICK = {"train_rows": 96, "test_rows": 96, "epochs": 1}


def suite(family: Family, quick: bool) -> Family:
    """The family with the tasks of the table as its new ones; in quick form one of them, on few rows."""
    tasks = tuple(task for group in GROUPS[family.name].values() for task in group)
    return replace(family, new=tasks[:1], **QUICK) if quick else replace(family, new=tasks)


def group_of(family: str, task: str) -> str:
    return next(name for name, tasks in GROUPS[family].items() if task in tasks)


def zoo_without(zoo: Path, task: str, most: int | None, seed: int, folder: Path) -> Path:
    """A copy of ``zoo`` without the task's own adapter; of the others ``most``, which the seed draws."""
    names = sorted(path.parent.name for path in zoo.glob("*/adapter_config.json") if path.parent.name != task)
    chosen = names if most is None else random.Random(f"{seed} {task}").sample(names, min(most, len(names)))
    folder.mkdir(exist_ok=True)
    for name in chosen:
        shutil.copytree(zoo / name, folder / name, dirs_exist_ok=True)
    return folder
