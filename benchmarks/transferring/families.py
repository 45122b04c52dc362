"""The backbones and real tasks of the transfer benchmark, and the rows that a seed draws of each."""

import random
import shutil
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas


@dataclass(frozen=True, slots=True)
class Family:
    """Tasks on one backbone; rows are per part, a new task is never its own learned one."""

    name: str
    backbone: str
    learned: tuple[str, ...]
    new: tuple[str, ...]
    train_rows: int
    test_rows: int
    epochs: int
    max_length: int | None = None
    batch_size: int = 16

    @property
    def similarity_only(self) -> bool:
        """Whether importances are left out: on ViT-tiny the trainings that show them take hours of a processor."""
        return self.name == "vit-tiny"

    @property
    def unseen(self) -> tuple[str, ...]:
        """Learned tasks that no measure was found on, and which a measure may be tried on as if they were new."""
        return tuple(task for task in self.learned if task not in self.new)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.learned, *self.new)))


IMAGES_LEARNED = ("gtsrb", "mnist", "omniglot97", "satellite_rsscn7", "sign_digits", "sketch_pacs7", "textures_dtd10")
IMAGES_NEW = ("flowers5", "trash6", "cifar10", "handdrawn_shapes4")


def families(data: Path) -> dict[str, Family]:
    """By name; ``data`` is the folder of datasets, whose neighbour holds the pretrained ViT-tiny."""
    learned = ("ag_news", "banking77", "goemotions_ekman7", "mr_sentiment", "sick_nli", "snips_intent7", "subj")
    new = ("trec_question", "cola_acceptability", "mpqa_opinion", "cr_customer_reviews", "sms_spam")
    text = Family(
        "text",
        "sentence-transformers/all-MiniLM-L6-v2",
        learned=(*learned, "cr_customer_reviews", "trec_question"),
        new=(*new, "snips_intent7"),
        train_rows=600,
        test_rows=600,
        epochs=3,
        max_length=64,
    )
    image = Family("image", "vit-mini-tiny32", IMAGES_LEARNED, IMAGES_NEW, 480, 480, 4)
    tiny = str(data.parent / "weights" / "vit_tiny_patch16_224")
    return {one.name: one for one in (text, image, Family("vit-tiny", tiny, IMAGES_LEARNED, IMAGES_NEW, 200, 300, 3))}


def draw(data: Path, task: str, rows: tuple[int, int], seed: int, folder: Path, spare: bool = False) -> Path:
    """Write ``rows`` (train, test) of a task into ``folder``; test rows are the same for every seed.

    With ``spare`` the test rows are such of the data's training rows as were not drawn: what may choose something.
    """
    archive = data / f"{task}.zip"
    if archive.exists():
        _draw_images(archive, rows, seed, folder, spare)
        return folder
    train, test = (pandas.read_csv(data / f"{task}_{part}.csv", keep_default_na=False) for part in ("train", "test"))
    drawn = train.sample(min(rows[0], len(train)), random_state=seed)
    held = train.drop(drawn.index) if spare else test
    held = held.sample(min(rows[1], len(held)), random_state=0)
    folder.mkdir(parents=True, exist_ok=True)
    drawn.to_csv(folder / "train.csv", index=False)
    held[held["label"].isin(drawn["label"])].to_csv(folder / "test.csv", index=False)  # of 77 intents one may be rare
    return folder


def _draw_images(archive: Path, rows: tuple[int, int], seed: int, folder: Path, spare: bool) -> None:
    """As many images of every class of ``archive`` (train|test/CLASS/IMAGE)."""
    with zipfile.ZipFile(archive) as images:
        drawn = _some(_by_class(images, "train"), rows[0], random.Random(seed))
        held = _by_class(images, "train" if spare else "test")
        left = {label: [name for name in names if name not in drawn.get(label, ())] for label, names in held.items()}
        held = _some(left, rows[1], random.Random(0))
        for part, classes in (("train", drawn), ("test", held)):
            for label, names in classes.items():
                for name in names:
                    target = folder / part / label / Path(name).name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with images.open(name) as source, target.open("wb") as copy:
                        shutil.copyfileobj(source, copy)


def _by_class(images: zipfile.ZipFile, part: str) -> dict[str, list[str]]:
    classes = defaultdict(list)
    for name in sorted(images.namelist()):
        place = name.split("/")
        if len(place) >= 3 and place[-1] and place[-3] == part:
            classes[place[-2]].append(name)
    return classes


def _some(classes: dict[str, list[str]], rows: int, choose: random.Random) -> dict[str, list[str]]:
    each = max(2, rows // len(classes))
    return {label: choose.sample(names, min(len(names), each)) for label, names in classes.items()}
