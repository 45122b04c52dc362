"""The fields become a recipe, and each says what turning it would do."""

import pytest

from taskit.errors import PlanError
from taskit.planning.levers import BATCH, CHECKPOINTING, QUANTIZATION, Effect
from taskit.planning.recipe import Recipe
from taskit.ui.lever_fields import infos, read_levers
from tests.ui.world import AUTO, MIB


def test_fields_become_a_recipe_and_a_quantization():
    assert read_levers(16, None, 10, None, "adamw", "none", AUTO, "taskit") == (
        Recipe(),
        None,
        "taskit",
    )
    assert read_levers(16, 0, 10, 0, "adamw", "none", AUTO, "taskit")[0] == Recipe()
    recipe, bits, method = read_levers(4, 64, 2, 1e-3, "sgd", "4bit", "on", "pi")
    assert method == "pi"
    assert (recipe.batch_size, recipe.max_length, recipe.gradient_checkpointing, bits) == (4, 64, True, "4bit")
    assert recipe.learning_rate == 1e-3


def test_an_empty_field_is_one_sentence():
    with pytest.raises(PlanError, match="fill them in"):
        read_levers(None, None, 10, None, "adamw", "none", AUTO, "taskit")


def test_each_effect_stands_under_its_field():
    found = (
        Effect(BATCH, "8", -3 * MIB),
        Effect(CHECKPOINTING, "on", MIB),
        Effect(QUANTIZATION, "8bit", -MIB),
        Effect(QUANTIZATION, "4bit", None, "It needs bitsandbytes."),
    )
    assert infos(found) == ("8: −3 MiB", "", "8bit: −1 MiB · 4bit: not possible here", "on: +1 MiB")
