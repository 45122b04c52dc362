"""The loss in chunks against the model's own, or against the literal mean over the learned tokens."""

from functools import wraps

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import BambaConfig, BambaForCausalLM, BartConfig, BartForCausalLM

from taskit.backbone.target_modules import find_locations
from taskit.errors import BackboneError
from taskit.memory.graph import saved_tensors
from taskit.memory.simulated_device import simulated_device
from taskit.step.lora import adapt
from taskit.step.loss import CHUNK_BYTES, LEAST_CHUNK, loss_chunk, loss_of, row_losses
from taskit.step.recompute import use_checkpointing
from tests.step.text_models import BART, MODELS, SEQ2SEQ, text_batch, text_model
from tests.tiny import HEADS, SIZES, tiny_model

TASK = "text-generation"
SAME = 1e-6  # relative, in float32


def adapted(name, head="", **changes):
    """A model with LoRA everywhere; its head as it is, with "lora", in a trained copy ("saved"), or "trained"."""
    model = text_model(name)
    for key, value in changes.items():
        setattr(model.config, key, value)
    ranks = {place.name: 4 for place in find_locations(model)} | ({"lm_head": 4} if head == "lora" else {})
    peft = adapt(model, ranks, ("lm_head",) if head == "saved" else (), TASK)
    if head == "trained":
        model.get_output_embeddings().weight.requires_grad_(True)
    for path, parameter in peft.named_parameters():
        if ".lora_B." in path:
            torch.nn.init.normal_(parameter, std=0.3)
    return peft


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {path: p.grad.clone() for path, p in model.named_parameters() if p.grad is not None}


def distance(found, true):
    """Norm of the difference of two gradients by that of the true one."""
    assert found.keys() == true.keys()
    norms = [torch.cat([(g - h).flatten() for g, h in zip(found.values(), true.values(), strict=True)]).norm()]
    norms.append(torch.cat([g.flatten() for g in true.values()]).norm())
    return (norms[0] / norms[1]).item()


@pytest.mark.parametrize("head", ["", "lora", "saved", "trained"])
@pytest.mark.parametrize("name", MODELS)
def test_value_and_gradients_are_those_of_the_models_own_loss(name, head):
    model, batch = adapted(name, head), text_batch(name)
    own = model(**batch).loss
    true = gradients(model, own)
    for chunk in (4, 7, loss_chunk(model)):
        loss = loss_of(model, batch, chunk)
        assert loss.item() == pytest.approx(own.item(), rel=SAME)
        found = gradients(model, loss)
        assert distance(found, true) < SAME
        for path, gradient in true.items():
            torch.testing.assert_close(found[path], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_the_head_is_as_before_and_computes_all_logits(name):
    model, batch = text_model(name), text_batch(name)
    with torch.no_grad():
        before = model(**batch).logits
        loss_of(model, batch, 4)
        loss_chunk(model)
        assert torch.equal(model(**batch).logits, before)
    assert "forward" not in vars(model.get_output_embeddings())


@pytest.mark.parametrize("name", ["llama", "gemma2", "t5", "mixtral"])
def test_without_a_learned_token_the_loss_is_zero_and_has_a_graph(name):
    model, batch = adapted(name, "lora", output_router_logits=False), text_batch(name)
    some = gradients(model, loss_of(model, batch, 4))
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss = loss_of(model, batch, 4)
    assert loss.item() == 0
    none = gradients(model, loss)
    assert none.keys() == some.keys()
    assert all(bool((gradient == 0).all()) for gradient in none.values())


@pytest.mark.parametrize("name", ["gemma2", "bart"])
def test_smoothed_labels_give_the_loss_of_torch(name):
    model, batch = adapted(name, "lora"), text_batch(name)
    logits, labels = model(**batch).logits, batch["labels"]
    if name == "gemma2":
        logits, labels = logits[:, :-1], labels[:, 1:]
    own = cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.2)
    true = gradients(model, own)
    loss = loss_of(model, batch, 4, smoothing=0.2)
    assert loss.item() == pytest.approx(own.item(), rel=SAME)
    assert distance(gradients(model, loss), true) < SAME


@pytest.mark.parametrize("name", ["llama", "gemma3", "t5"])
def test_recomputed_blocks_change_nothing(name):
    model, batch = adapted(name), text_batch(name)
    true = gradients(model, loss_of(model, batch, 4))
    use_checkpointing(model)
    model.train()
    assert distance(gradients(model, loss_of(model, batch, 4)), true) < SAME


def test_shares_of_micro_batches_make_the_loss_of_the_whole():
    model, batch = adapted("llama"), text_batch("llama")
    true = gradients(model, loss_of(model, batch, 4))
    counts = (batch["labels"][:, 1:] != -100).sum(1)
    model.zero_grad()
    for row, count in enumerate(counts):
        one = {key: value[row : row + 1] for key, value in batch.items()}
        (loss_of(model, one, 4) * count / counts.sum()).backward()
    found = {path: p.grad for path, p in model.named_parameters() if p.grad is not None}
    assert distance(found, true) < SAME


def test_a_graph_that_is_kept_gives_the_same_gradient_again():
    model, batch = adapted("llama", "lora"), text_batch("llama")
    trained = [p for p in model.parameters() if p.requires_grad]
    loss = loss_of(model, batch, 4)
    once, again = (torch.autograd.grad(loss, trained, retain_graph=True) for _ in range(2))
    assert all(torch.equal(first, second) for first, second in zip(once, again, strict=True))


def test_half_precision_loses_no_more_than_the_models_own_loss():
    """Measured at the gradient of LoRA on the head, against the same weights in float32."""
    half, batch = adapted("llama", "lora").bfloat16(), text_batch("llama", rows=8, tokens=20)
    own = gradients(half, half(**batch).loss)
    ours = gradients(half, loss_of(half, batch, 4))
    true = gradients(half.float(), half(**batch).loss)
    lost, ours_lost = (
        distance({path: g.float() for path, g in found.items() if "lm_head" in path},
                 {path: g for path, g in true.items() if "lm_head" in path})
        for found in (own, ours)
    )  # fmt: skip
    assert ours_lost < 1.5 * lost


@pytest.mark.parametrize("name", ["llama", "gemma2", "smolvlm", "t5", "bart"])
def test_the_losses_of_rows(name):
    model, batch = text_model(name), text_batch(name)
    whole, parts = row_losses(model, batch, None), row_losses(model, batch, 4)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        own = model(**batch).loss
    assert (parts[0].sum() / parts[1].sum()).item() == pytest.approx(own.item(), rel=1e-5)


def test_nothing_is_learned_in_a_row():
    model, batch = text_model("llama"), text_batch("llama")
    batch["labels"][1] = -100
    for chunk in (None, 4):
        sums, counts = row_losses(model, batch, chunk)
        assert (sums[1].item(), counts[1].item()) == (0, 0)


def test_a_chunk_holds_32_mib_of_logits_or_64_tokens():
    words = text_model("llama").config.vocab_size
    chunk = loss_chunk(text_model("llama"))
    assert chunk & (chunk - 1) == 0
    assert chunk * words * 4 <= CHUNK_BYTES < 2 * chunk * words * 4
    assert loss_chunk(text_model("llama", vocab_size=300_000)) == LEAST_CHUNK


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", MODELS)
def test_the_chunk_is_known_without_weights(name, device):
    with torch.device("meta"):
        model = text_model(name)
    bare = adapt(model, {place.name: 4 for place in find_locations(model)}, (), TASK)
    with simulated_device(device):
        assert loss_chunk(bare) == loss_chunk(model) == 131_072  # 32 MiB by 4 bytes and 50 words are 167,772


@pytest.mark.parametrize("name", ["vit", "bert", "swin", "clip"])
def test_a_classifier_has_no_chunk(name):
    assert loss_chunk(tiny_model(name)) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: logits - logits.mean(1, keepdim=True),
        lambda logits: logits.sort(-1).values,
        lambda logits: logits.index_fill_(2, torch.tensor([0]), 0.0),
        lambda logits: logits.__setitem__((..., 0), 0.0) or logits,
        lambda logits: logits * torch.ones(3, 9, 1),
        lambda logits: logits * logits,
        lambda _: torch.zeros(3, 9, 50),
    ],
)
def test_a_model_that_does_more_to_its_logits_keeps_its_own_loss(monkeypatch, change):
    model, batch = text_model("opt"), text_batch("opt")
    forward = type(model).forward

    @wraps(forward)
    def changed(self, *args, labels=None, **kwargs):
        output = forward(self, *args, **kwargs)
        output.logits = change(output.logits)
        if labels is not None:
            output.loss = self.loss_function(output.logits, labels, 50)
        return output

    monkeypatch.setattr(type(model), "forward", changed)
    own = model(**batch).loss
    with pytest.raises(BackboneError, match="cannot be taken in chunks"):
        loss_of(model, batch, 4)
    assert "forward" not in vars(model.lm_head)
    assert loss_of(model, batch, None).item() == own.item()


@pytest.mark.parametrize(
    "model",
    [
        BartForCausalLM(BartConfig(**SEQ2SEQ, **BART)),  # its labels are not shifted
        BambaForCausalLM(BambaConfig(**SIZES, **HEADS, vocab_size=50, mamba_n_heads=4, mamba_d_head=8)),  # z-loss
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_decoder_of_another_loss_keeps_it(model):
    assert loss_chunk(model) is None


def test_an_auxiliary_loss_that_is_not_in_the_output_stays_the_models(monkeypatch):
    model = text_model("mixtral")
    forward = type(model).forward

    @wraps(forward)
    def silent(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        output.aux_loss = None
        return output

    monkeypatch.setattr(type(model), "forward", silent)
    assert loss_chunk(model) is None
    model.config.output_router_logits = False
    assert loss_chunk(model)


def test_soft_labels_and_classes_are_as_before():
    model = tiny_model("vit")
    images, soft = torch.rand(4, 3, 16, 16), torch.rand(4, 2).softmax(-1)
    logits = model(images).logits
    assert loss_of(model, {"pixel_values": images, "labels": soft}).item() == pytest.approx(
        -(soft * logits.log_softmax(-1)).sum(1).mean().item(), rel=1e-5
    )
    labels = torch.tensor([0, 1, 1, 0])
    own = model(pixel_values=images, labels=labels).loss
    assert loss_of(model, {"pixel_values": images, "labels": labels}, 64).item() == own.item()


def test_what_is_kept_for_the_backward_pass_is_seen():
    """The memory profile reads it off the graph: the gradient at the learned tokens, where they are, and LoRA's."""
    model, batch = adapted("llama", "lora"), text_batch("llama")
    node = loss_of(model, batch, 4).grad_fn
    shapes = sorted(tuple(tensor.shape) for _, tensor in saved_tensors(node))
    learned = int((batch["labels"][:, 1:] != -100).sum())
    assert set(shapes) == {(learned,), (learned, 16), (4, 16), (50, 4)}
