"""Rebuild all that zoo/ holds from the datasets in a folder (see zoo/README.md).

    python zoo/build.py backbone --data FOLDER     # pre-train the bundled backbone, about an hour on 2 cores
    python zoo/build.py adapters --data FOLDER     # learn every task below, a few minutes each
    python zoo/build.py embeddings --data FOLDER   # say of learned tasks that do not yet what their data look like
    python zoo/build.py catalog                    # rewrite catalog.json and README.md's table from what is there

A task that is already learned is skipped, so a stopped build goes on where it was.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas
from pretrain import pretrain

from taskit.backbone.loading import load_model
from taskit.backbone.sources import find_backbone
from taskit.data import load
from taskit.planning.planner import make_collator, uniform_plan
from taskit.planning.recipe import Recipe
from taskit.training.run_folder import Event
from taskit.training.trainer import train
from taskit.transfer.embedding import embed_rows

ZOO = Path(__file__).parent
VIT, MINILM = "vit-mini-tiny32", "sentence-transformers/all-MiniLM-L6-v2"
RANK = 8
ROWS = 2000  # training rows of a text task: enough to learn where LoRA is loud
RECIPES = {
    VIT: Recipe(epochs=6, batch_size=32, learning_rate=2e-3),
    MINILM: Recipe(epochs=3, batch_size=32, max_length=64, learning_rate=2e-3),
}


@dataclass(frozen=True, slots=True)
class Lesson:
    """One task of the zoo: its backbone, and its name in the data folder's MANIFEST.json."""

    backbone: str
    name: str


LESSONS = (
    Lesson(VIT, "gtsrb"),
    Lesson(VIT, "mnist"),
    Lesson(VIT, "omniglot97"),
    Lesson(VIT, "satellite_rsscn7"),
    Lesson(VIT, "sign_digits"),
    Lesson(VIT, "sketch_pacs7"),
    Lesson(VIT, "textures_dtd10"),
    Lesson(MINILM, "banking77"),
    Lesson(MINILM, "goemotions_ekman7"),
    Lesson(MINILM, "mr_sentiment"),
    Lesson(MINILM, "sick_nli"),
    Lesson(MINILM, "snips_intent7"),
    Lesson(MINILM, "subj"),
)


def folder_of(lesson: Lesson) -> Path:
    return ZOO / "adapters" / lesson.backbone.rpartition("/")[2] / lesson.name


def learn(lesson: Lesson, data: Path, scratch: Path) -> None:
    """Train LoRA of rank 8 at every location and keep the adapter, its card and its notes."""
    plan = uniform_plan(source_of(lesson, data, scratch), lesson.backbone, RANK, recipe=RECIPES[lesson.backbone])

    def watch(event: Event) -> None:
        if event.kind in ("note", "epoch"):
            print(f"  {event.kind} {event.epoch or ''} {event.message} {event.metric or ''}", flush=True)

    train(plan, scratch / lesson.name, watch=watch)
    target = folder_of(lesson)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(scratch / lesson.name / "adapter", target)
    notes = json.loads((target / "taskit.json").read_text())
    entry = manifest(data)[lesson.name]
    notes |= {"source": entry["source_repository"], "licence": entry["licence_stated"]}
    (target / "taskit.json").write_text(json.dumps(notes, indent=2, ensure_ascii=False) + "\n")


def embed(lesson: Lesson, data: Path, scratch: Path) -> None:
    """Add to the notes of a learned task the mean feature of its data, where they do not hold it yet."""
    path = folder_of(lesson) / "taskit.json"
    notes = json.loads(path.read_text())
    if notes.get("embedding"):
        return
    recipe, backbone = RECIPES[lesson.backbone], find_backbone(lesson.backbone)
    rows = load(source_of(lesson, data, scratch))
    model = load_model(backbone, task=rows.info.task, labels=rows.info.labels)
    collator = make_collator(backbone, rows.info.task, recipe.max_length)
    notes["embedding"] = embed_rows(model, rows.train, collator, recipe.batch_size, seed=0)
    path.write_text(json.dumps(notes, indent=2, ensure_ascii=False) + "\n")


def source_of(lesson: Lesson, data: Path, scratch: Path) -> Path:
    """The zip of images, or a folder in which the two CSV files are called train and test."""
    archive = data / f"{lesson.name}.zip"
    if archive.exists():
        return archive
    folder = scratch / "data" / lesson.name
    folder.mkdir(parents=True)
    shutil.copy(data / f"{lesson.name}_test.csv", folder / "test.csv")
    table = pandas.read_csv(data / f"{lesson.name}_train.csv", keep_default_na=False)
    table.sample(min(ROWS, len(table)), random_state=0).to_csv(folder / "train.csv", index=False)
    return folder


def manifest(data: Path) -> dict[str, dict]:
    return {entry["task"]: entry for entry in json.loads((data / "MANIFEST.json").read_text())["entries"]}


def write_catalog() -> None:
    """catalog.json: every backbone and learned task with its measured value, data source and licence."""
    catalog = {"schema": 1, "backbones": [backbone_entry()], "learned_tasks": []}
    for lesson in LESSONS:
        path = folder_of(lesson) / "taskit.json"
        if path.exists():
            notes = json.loads(path.read_text())
            kept = ("name", "task", "labels", "metric", "value", "head_alone", "source", "licence")
            where = {"backbone": lesson.backbone, "folder": folder_of(lesson).relative_to(ZOO).as_posix()}
            catalog["learned_tasks"].append(where | {key: notes[key] for key in kept})
    (ZOO / "catalog.json").write_text(json.dumps(catalog, indent=2, ensure_ascii=False) + "\n")
    write_table(catalog["learned_tasks"])


def write_table(tasks: list[dict]) -> None:
    """The table of README.md, between its header and the next empty line."""
    rows = [
        f"| {t['backbone'].rpartition('/')[2]} | {t['name']} | {t['head_alone']:.3f} | {t['value']:.3f} "
        f"| {t['source']} | {t['licence']} |\n"
        for t in tasks
    ]
    before, rule, after = (ZOO / "README.md").read_text().partition("|---|---|---|---|---|---|\n")
    (ZOO / "README.md").write_text(before + rule + "".join(rows) + "\n" + after.partition("\n\n")[2])


def backbone_entry() -> dict:
    from taskit.backbone.sources import find_backbone

    folder = ZOO / "backbones" / VIT
    return {
        "id": VIT,
        "revision": find_backbone(VIT).revision,
        "modality": "image",
        "task": "image-classification",
        "licence": "Apache-2.0 (weights); trained on Tiny-ImageNet, whose images are for non-commercial research",
        "source": "trained from scratch by zoo/build.py backbone",
        **json.loads((folder / "pretraining.json").read_text()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("backbone", "adapters", "embeddings", "catalog"))
    parser.add_argument("--data", type=Path, help="the folder with the datasets and their MANIFEST.json")
    parser.add_argument("--only", nargs="*", default=[], metavar="TASK", help="learn these tasks only")
    options = parser.parse_args()
    if options.part != "catalog" and not (options.data and (options.data / "MANIFEST.json").exists()):
        sys.exit("build.py: --data must name a folder with MANIFEST.json.")
    if options.part == "backbone":
        pretrain(options.data, ZOO / "backbones" / VIT, epochs=7, seed=0)
    if options.part == "adapters":
        for lesson in LESSONS:
            if not folder_of(lesson).exists() and (not options.only or lesson.name in options.only):
                print(f"learning {lesson.name} on {lesson.backbone}", flush=True)
                with tempfile.TemporaryDirectory() as scratch:
                    learn(lesson, options.data, Path(scratch))
    if options.part == "embeddings":
        for lesson in LESSONS:
            if not options.only or lesson.name in options.only:
                with tempfile.TemporaryDirectory() as scratch:
                    embed(lesson, options.data, Path(scratch))
    write_catalog()


if __name__ == "__main__":
    main()
