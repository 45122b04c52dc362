"""A planning context made by hand: twelve locations in three blocks, two learned tasks, sizes easy to add."""

from taskit.backbone.sources import Backbone
from taskit.backbone.target_modules import Location
from taskit.data import DataInfo
from taskit.memory.conditions import BatchShape, Conditions
from taskit.methods import find_method
from taskit.planning.context import PlanningContext
from taskit.planning.micro_batches import MicroBatch
from taskit.planning.pricing import Pricing
from taskit.planning.recipe import Recipe
from taskit.planning.step_spec import StepSpec
from taskit.scheduler import ANY, Step
from taskit.transfer.similarity import TaskSimilarity
from taskit.ui.lever_fields import RECOMPUTING
from tests.profiles import make_profile

MIB = 2**20
IMAGES = BatchShape((("pixel_values", (16, 3, 8, 8), "float32"), ("labels", (16,), "int64")))
AUTO = next(iter(RECOMPUTING))  # what the field of checkpointing stands at first
ROLES = ("q", "k", "v", "<o>")  # a role from outside may hold anything


def make_context(importance=None, similarity=None, method="taskit", source="/tmp/secret/photos.zip"):
    locations = tuple(Location(f"location.{k}", k // 4, ROLES[k % 4], 8, 8) for k in range(12))
    storages = {tuple(range(k + 1)): MIB for k in range(len(locations))} | {(k,): MIB for k in range(len(locations))}
    blocks = [location.block for location in locations]
    profile = make_profile([MIB // 8] * 12, storages, blocks, constant=10 * MIB, transient=MIB)
    full = profile.bytes((8,) * 12)
    if similarity is None:
        similarity = (TaskSimilarity("<b>digits</b>", "a", 0.05, True), TaskSimilarity("roads", "b", -0.02, False))
    return PlanningContext(
        backbone=Backbone("tiny", None),
        data=DataInfo(source, "f" * 64, "image", "image-classification", (("image", "image"),), ("x", "y"), 100, 20),
        recipe=Recipe(),
        step_spec=StepSpec(
            None,
            locations,
            ("head",),
            18,
            "image-classification",
            Conditions(IMAGES),
            rows=16,
            micro_batches=(MicroBatch(16, IMAGES, IMAGES),),
            training_rows=90,
        ),
        pricing=Pricing(profile, profile.bytes((0,) * 12), full),
        steps=(Step(profile, 16, 1.0),),
        similarity_measure="delta",
        importance_measure="ratio",
        similarity=similarity,
        skipped=(),
        sources=tuple({"a <b>": value} for value in importance or [k / 12 for k in range(1, 13)]),
        method=method,
        resolved=find_method(method).resolve(None, {}),
        gain="sqrt_ln1p",
        constraints=ANY,
        solver_options={"constraints": ANY, "gain": "sqrt_ln1p", "rank_parameters": [16] * 12},
        seed=0,
    )
