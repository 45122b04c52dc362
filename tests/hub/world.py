"""People on the local hub: a lab with two backbones, and finished runs of one of its users."""

from dataclasses import dataclass
from pathlib import Path

from taskit.planning.planner import make_plan
from taskit.planning.recipe import Recipe
from taskit.training.trainer import train
from tests.hub.server import LocalHub
from tests.hub.state import Repo, State
from tests.world import write_bert, write_llama, write_rhymes, write_topics

BASE, WRITER = "lab/tiny-bert", "lab/tiny-llama"
CARD = b"---\nlicense: apache-2.0\nlibrary_name: transformers\n---\n# Tiny\n"


def backbone(id: str, folder: Path) -> Repo:
    """A public backbone of the lab."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return State().add_repo(id, files | {"README.md": CARD})


@dataclass(frozen=True, slots=True)
class Lab:
    """Two backbones, and one finished run on each: sentences about topics, and rhymes."""

    repos: tuple[Repo, Repo]
    topics: Path
    rhymes: Path

    def join(self, hub: LocalHub) -> None:
        """Put the backbones onto ``hub``."""
        for repo in self.repos:
            hub.state.repos["model", repo.id] = repo
            hub.state.blobs.update({file.sha256: file.data for file in repo.tree("main").values()})


def open_lab(hub: LocalHub, scratch: Path) -> Lab:
    """Plan and train with an empty zoo, from files with telling names."""
    repos = backbone(BASE, write_bert(scratch / "bert")), backbone(WRITER, write_llama(scratch / "llama"))
    lab = Lab(repos, scratch / "topics", scratch / "rhymes")
    lab.join(hub)
    (scratch / "nothing").mkdir()
    learn(write_topics(scratch / "acme_secret_topics.csv", rows=48), BASE, lab.topics)
    learn(write_rhymes(scratch / "acme_secret_rhymes.jsonl", rows=48), WRITER, lab.rhymes)
    return lab


def learn(data: Path, base: str, run: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=8)
    train(make_plan(data, base, "100%", zoo=data.parent / "nothing", recipe=recipe), run)
