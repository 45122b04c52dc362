"""From a zip of images with questions to an adapter and its answers, and back into the next plan as a zoo."""

import json

import pytest
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from taskit.backbone.loading import load_model
from taskit.backbone.sources import find_backbone
from taskit.backbone.target_modules import find_locations
from taskit.errors import BackboneError, DataError, TaskITError
from taskit.planning.plan import Plan
from taskit.planning.planner import make_plan
from taskit.planning.recipe import Recipe
from taskit.scheduler import Constraints
from taskit.training.inference import compare, evaluate_run, predict
from taskit.training.trainer import train
from taskit.transfer.importance import TRIAL
from tests.visual import FAMILIES, picture, write_questions, write_visual
from tests.world import write_llama

RECIPE = Recipe(epochs=1, batch_size=4, learning_rate=1e-2)
TOWERS = {"janus": "vision_model", "smolvlm": "vision_model", "qwen": "visual"}
LANGUAGE = {"janus": "*language_model*", "smolvlm": "*text_model*", "qwen": "*language_model*"}


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request, tmp_path_factory):
    """(folder with model, data and run; the plan; its result)."""
    folder = tmp_path_factory.mktemp(request.param)
    write_visual(folder / "model", request.param)
    data = write_questions(folder / "questions.zip", rows=20)
    plan = make_plan(data, str(folder / "model"), "60%", recipe=RECIPE)
    return folder, plan, train(plan, folder / "zoo" / "run")


def test_a_run_learns_inside_its_budget(trained):
    _, plan, result = trained
    assert plan.data.task == "image-text-to-text"
    assert plan.memory.peak_bytes <= plan.budget_bytes
    assert (result.metric, result.details_after.perplexity) == ("loss", pytest.approx(2.718281828**result.after))
    assert result.after < result.before
    assert None not in (result.details_after.exact_match, result.details_after.rouge_l)
    # never below the truth; above it by the mask that this run's longest batch, all of one length, does without
    assert -0.01 <= result.predicted_peak_bytes / result.measured_peak_bytes - 1 <= 0.05


def test_the_adapter_is_plain_peft_on_the_language_model(trained):
    folder, plan, result = trained
    adapter = folder / "zoo" / "run" / "adapter"
    base = AutoModelForImageTextToText.from_pretrained(folder / "model")
    model = PeftModel.from_pretrained(base, adapter)
    loaded = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if "lora_A" in name}
    assert {name.removeprefix("base_model.model.") for name in loaded} == {n for n, r in plan.ranks.items() if r}
    assert not any(tower in name for name in loaded for tower in TOWERS.values())
    assert json.loads((adapter / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"
    assert "AutoModelForImageTextToText.from_pretrained(" in (adapter / "README.md").read_text()
    assert evaluate_run(folder / "zoo" / "run")[:2] == ("loss", pytest.approx(result.after, rel=1e-5))


def test_an_image_and_a_prompt_are_answered(trained, tmp_path):
    folder, _, _ = trained
    picture("red").save(tmp_path / "red.png")
    asked = f"{tmp_path / 'red.png'}\twhat colour is it ?"
    run = folder / "zoo" / "run"
    adapted, bare = compare(run, asked)
    assert adapted.input == bare.input == asked
    assert adapted.probability is bare.probability is None
    with pytest.raises(DataError, match=r"is no image that can be read.*\.$"):
        predict(run, ["what colour is it ?"])


def test_its_adapter_is_a_learned_task_of_the_next_plan(trained):
    folder, _, _ = trained
    plan = make_plan(folder / "questions.zip", str(folder / "model"), "40%", zoo=folder / "zoo", recipe=RECIPE)
    assert not plan.skipped
    (found,) = plan.similarity
    assert (found.adapter, found.used) == ("run/adapter", True)
    assert found.phi > 0.05, "it was learned on this very task"
    assert {source for place in plan.locations for source in place.sources} == {"run/adapter", TRIAL}


def test_the_vision_tower_is_chosen_from_where_it_is_asked_for(trained):
    folder, plan, _ = trained
    name = folder.name.rstrip("0")
    wide = make_plan(
        folder / "questions.zip",
        str(folder / "model"),
        "100%",
        recipe=RECIPE,
        constraints=Constraints(vision_tower=True, exclude=(LANGUAGE[name],)),
    )
    inserted = {place for place, rank in wide.ranks.items() if rank}
    assert inserted
    assert all(TOWERS[name] in place for place in inserted)
    assert set(plan.ranks) < set(wide.ranks)
    assert Plan.from_dict(wide.to_dict()) == wide


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_of_the_tower_come_before_those_of_the_language_model(name, tmp_path):
    model = load_model(find_backbone(str(write_visual(tmp_path / name, name))), task="image-text-to-text", labels=())
    own, both = find_locations(model), find_locations(model, vision_tower=True)
    assert [place.name for place in both[-len(own) :]] == [place.name for place in own]
    tower = both[: -len(own)]
    assert {TOWERS[name] in place.name for place in tower} == {True}
    assert [place.block for place in both] == sorted(place.block for place in both)
    assert own[0].block == 0
    assert {place.block for place in tower} == {0, 1}


def test_a_backbone_that_cannot_see_is_refused(tmp_path):
    write_llama(tmp_path / "llama")
    data = write_questions(tmp_path / "questions.zip", rows=6)
    with pytest.raises(BackboneError, match=r"is a text model .* cannot do image-text-to-text: choose another"):
        make_plan(data, str(tmp_path / "llama"), "60%")


def test_a_backbone_without_its_processor_is_refused(tmp_path):
    folder = write_visual(tmp_path / "qwen", "qwen")
    (folder / "preprocessor_config.json").unlink()
    data = write_questions(tmp_path / "questions.zip", rows=6)
    with pytest.raises(TaskITError, match=r"has no usable processor of images with text \(processor_config\.json\)"):
        make_plan(data, str(folder), "60%")
