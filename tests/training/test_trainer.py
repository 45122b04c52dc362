"""Real runs of a small model: what is trained, what is written, what a stop leaves."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from taskit.backbone.processors import make_collator
from taskit.cli.tables import result_tables
from taskit.data import load
from taskit.errors import RunError
from taskit.planning.planner import make_plan
from taskit.training.inference import compare, evaluate_run, load_run, predict
from taskit.training.results import Result
from taskit.training.trainer import train
from tests.training.conftest import RECIPE
from tests.world import TOPICS, write_llama, write_rhymes


def test_the_run_learns_and_says_so(run):
    folder, result, events = run
    losses = [e.loss for e in events if e.kind == "step"]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    assert json.loads((folder / "state.json").read_text())["state"] == "done"
    assert json.loads((folder / "result.json").read_text())["after"] == result.after
    assert [e.epoch for e in events if e.kind == "epoch"] == [1, 2, 3]
    assert len([e for e in events if e.kind == "step"]) == result.steps
    assert len((folder / "events.jsonl").read_text().splitlines()) == len(events)


def test_the_result_says_where_the_model_errs(run, plan):
    """In result.json, where the app finds it: both confusion matrices, and the rows of the evaluation split."""
    folder, result, _ = run
    written = json.loads((folder / "result.json").read_text())
    evaluation = load(plan.data.source, seed=plan.seed).evaluation
    truth = [evaluation["label"].count(k) for k in range(2)]
    for details, value in (("details_before", result.before), ("details_after", result.after)):
        matrix = written[details]["confusion"]
        assert [sum(row) for row in matrix] == truth
        assert sum(matrix[k][k] for k in range(2)) / 24 == pytest.approx(value)
        assert 0 <= written[details]["macro_f1"] <= 1
    assert written["imbalance"] == pytest.approx(1.0, abs=0.1)
    hardest = written["details_after"]["hardest"]
    assert [row["label"] for row in hardest] == [plan.data.labels[evaluation[row["row"]]["label"]] for row in hardest]
    assert [row["loss"] for row in hardest] == sorted((row["loss"] for row in hardest), reverse=True)
    assert Result.from_dict(written) == result


def test_the_measured_peak_is_predicted_and_within_the_budget(run, plan):
    _, result, _ = run
    assert result.measured_with == "cpu-storages"
    assert 0.97 * result.measured_peak_bytes <= result.predicted_peak_bytes
    assert result.measured_peak_bytes <= plan.budget_bytes


def test_exactly_the_plan_is_trained(run, plan):
    folder, result, _ = run
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    ranks = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): len(tensor)
        for name, tensor in tensors.items()
        if name.endswith("lora_A.weight")
    }
    assert ranks == {name: rank for name, rank in plan.ranks.items() if rank}
    assert config["r"] == max(ranks.values())
    assert sorted(config["rank_pattern"].values()) == sorted(ranks.values())
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert sum(t.numel() for t in tensors.values()) == result.trainable_parameters == plan.trainable_parameters


def test_the_terminal_shows_scores_before_and_after_where_classes_are_mistaken_and_the_hardest_rows(run, plan):
    _, result, _ = run
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(result_tables(result, plan.data.labels))
    shown = console.export_text()
    for part in ("linear head only", "macro-F1", "Confusion", "Hardest evaluation rows", "largest class / smallest"):
        assert part in shown
    for value in (result.before, result.after, result.details_after.macro_f1, result.details_before.macro_f1):
        assert f"{value:.4f}" in shown
    assert "perplexity" not in shown


def test_plain_peft_in_another_process_gives_the_same_logits(run, world):
    folder, _, _ = run
    made, model = load_run(folder)
    batch = make_collator(made.backbone, made.data.task, None)([{"text": "the old cat near a dog", "label": 0}])
    with torch.no_grad():
        ours = model(**batch).logits
    script = (
        "import sys, torch\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        "from peft import PeftModel\n"
        "base = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], num_labels=2)\n"
        "model = PeftModel.from_pretrained(base, sys.argv[2]).eval()\n"
        "inputs = AutoTokenizer.from_pretrained(sys.argv[1])('the old cat near a dog', return_tensors='pt')\n"
        "print(*model(**inputs).logits[0].tolist())\n"
        "assert 'taskit' not in sys.modules\n"
    )
    command = [sys.executable, "-c", script, str(world / "bert"), str(folder / "adapter")]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert torch.allclose(ours[0], torch.tensor([float(x) for x in theirs]), atol=1e-5)


def test_the_reloaded_run_scores_what_the_result_says(run):
    folder, result, _ = run
    metric, value, rows = evaluate_run(folder)
    assert (metric, value) == ("accuracy", result.after)
    assert rows == 24


def test_predictions_are_labels(run):
    folder, _, _ = run
    cat, red = predict(folder, ["the old cat and dog", "a red and blue"])
    assert {cat.answer, red.answer} <= {"animals", "colours"}
    assert 0 <= cat.probability <= 1


def test_the_same_seed_gives_the_same_weights(run, plan, tmp_path):
    folder, result, _ = run
    again = train(plan, tmp_path / "run")
    assert again.after == result.after
    ours = load_file(folder / "adapter" / "adapter_model.safetensors")
    theirs = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_stopped_run_resumes_to_the_same_weights(run, plan, tmp_path):
    def stop(event):
        if event.kind == "step" and event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "run", watch=stop)
    assert json.loads((tmp_path / "run" / "state.json").read_text())["state"] == "stopped"
    assert not (tmp_path / "run" / "result.json").exists()
    result = train(plan, tmp_path / "run", resume=True)
    assert result.after == run[1].after
    ours = load_file(run[0] / "adapter" / "adapter_model.safetensors")
    theirs = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)


def test_a_finished_run_is_not_resumed(run, plan):
    with pytest.raises(RunError, match="finished"):
        train(plan, run[0], resume=True)


def test_a_folder_in_use_is_not_overwritten(plan, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        train(plan, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_resuming_nothing_is_refused(plan, tmp_path):
    with pytest.raises(RunError, match=r"plan\.json"):
        train(plan, tmp_path / "nowhere", resume=True)


def test_a_run_in_bfloat16_is_planned_and_trained_in_it(world, tmp_path):
    """NumPy and scikit-learn know no bfloat16, the head before the LoRA needs both."""
    recipe = replace(RECIPE, epochs=1)
    plan = make_plan(world / "topics.csv", str(world / "bert"), "60%", recipe=recipe, dtype="bfloat16")
    result = train(plan, tmp_path / "run")
    assert result.before > 0.5
    assert 0.97 * result.measured_peak_bytes <= result.predicted_peak_bytes
    assert result.measured_peak_bytes <= plan.budget_bytes
    tensors = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_generation_runs_end_to_end(tmp_path):
    write_llama(tmp_path / "llama")
    write_rhymes(tmp_path / "rhymes.jsonl")
    recipe = replace(RECIPE, epochs=2, gradient_accumulation=2, gradient_checkpointing=True)
    plan = make_plan(tmp_path / "rhymes.jsonl", str(tmp_path / "llama"), "80%", recipe=recipe)
    result = train(plan, tmp_path / "run")
    assert result.metric == "loss"
    assert result.after < result.before
    assert 0 <= result.details_after.exact_match <= result.details_after.rouge_l <= 1
    assert result.details_after.perplexity < result.details_before.perplexity
    assert {row.label for row in result.details_after.hardest} <= set(TOPICS["colours"].split())
    assert result.measured_peak_bytes <= plan.budget_bytes
    (answer,) = predict(tmp_path / "run", ["the old cat"])
    assert isinstance(answer.answer, str)


def test_beside_the_adapter_answers_the_model_without_its_lora(run, tmp_path):
    loud, zeroed = (shutil.copytree(run[0], tmp_path / name) for name in ("loud", "zeroed"))
    for folder, size in ((loud, 1.0), (zeroed, 0.0)):  # this toy may keep its first epoch, with B = 0
        weights = folder / "adapter" / "adapter_model.safetensors"
        tensors = {n: size * torch.ones_like(t) if "lora_B" in n else t for n, t in load_file(weights).items()}
        save_file(tensors, weights, metadata={"format": "pt"})
    adapted, bare = compare(loud, "the old cat near a dog")
    assert (adapted,) == predict(loud, ["the old cat near a dog"])
    assert (bare,) == predict(zeroed, ["the old cat near a dog"])
    assert bare != adapted
