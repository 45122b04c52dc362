"""The gradient at the features, against the model's own loss."""

import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2ForSequenceClassification

from taskit.errors import DataError
from taskit.transfer.probe import class_probes, example_features, frozen, held_out_gradient, text_probes
from taskit.transfer.ridge_head import SOFTENED, fit_head


def test_equals_the_models_own_backward_with_held_out_logits(tiny_bert, sentences):
    (probe,), _ = class_probes(tiny_bert, [sentences], tiny_bert.classifier)
    head = fit_head(probe.x, sentences["labels"], 3)
    for row in range(12):
        tiny_bert.classifier.weight.data = SOFTENED * head.weight
        tiny_bert.classifier.bias.data = SOFTENED * (head.held_out[row] - head.weight @ probe.x[row])
        leaf = []

        def keep(_, inputs, leaf=leaf):
            leaf.append(inputs[0].detach().requires_grad_())
            return (leaf[0],)

        handle = tiny_bert.classifier.register_forward_pre_hook(keep)
        tiny_bert(**{key: value[row : row + 1] for key, value in sentences.items()}).loss.backward()
        handle.remove()
        assert torch.allclose(probe.gradient[row], leaf[0].grad[0] / 12, atol=1e-6)  # the mean is over the probe


def test_a_gradient_stays_where_the_head_would_explain_everything():
    x, labels = torch.randn(20, 60, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    assert held_out_gradient(fit_head(x, labels, 2), labels).norm() > 0
    assert torch.equal(
        held_out_gradient(fit_head(x, labels, 2), labels), held_out_gradient(fit_head(x, labels, 2), labels)
    )


def test_it_leads_towards_the_own_class():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) + F.one_hot(torch.arange(40) // 10, 4) * 3
    step = -held_out_gradient(fit_head(x, torch.arange(40) // 10, 4), torch.arange(40) // 10)
    own = F.one_hot(torch.arange(40) // 10, 4).bool()
    assert step[own].mean() > 0 > step[~own].mean()


def test_further_rows_fit_the_head_and_are_no_probes(tiny_bert, sentences):
    first, rest = ({key: value[rows] for key, value in sentences.items()} for rows in (slice(4), slice(4, 12)))
    (whole,), _ = class_probes(tiny_bert, [sentences], tiny_bert.classifier)
    (probe,), _ = class_probes(tiny_bert, [first], tiny_bert.classifier, [rest])
    assert len(probe.x) == 4
    assert torch.allclose(probe.gradient * 4, whole.gradient[:4] * 12, atol=1e-6)


def test_a_decoder_is_read_at_its_last_token(sentences):
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, num_labels=3, pad_token_id=0)
    model = GPT2ForSequenceClassification(config).eval()
    inputs = {key: sentences[key] for key in ("input_ids", "attention_mask")}
    x = example_features(model, model.score, inputs)
    with torch.no_grad():
        assert torch.allclose(model.score(x), model(**inputs).logits, atol=1e-6)


def test_the_gradient_of_a_language_model(tiny_gpt2, sentences):
    tokens = sentences["input_ids"]
    batch = {**sentences, "labels": tokens.masked_fill(sentences["attention_mask"] == 0, -100)}
    with frozen(tiny_gpt2):
        (probe,) = text_probes(tiny_gpt2, [batch], tiny_gpt2.lm_head)
    x = probe.x.clone().requires_grad_()
    logits = tiny_gpt2.lm_head(x)[:, :-1]
    F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100).backward()
    assert torch.allclose(probe.gradient, x.grad, atol=1e-7)
    assert torch.equal(probe.mask, sentences["attention_mask"])
    assert all(parameter.grad is None for parameter in tiny_gpt2.transformer.h.parameters())


def test_bad_probes_are_one_sentence(tiny_vit, tiny_gpt2, images, sentences):
    for labels, reason in ((torch.ones(12).long(), "single class"), (torch.arange(12), "outside 0..2")):
        with pytest.raises(DataError, match=reason):
            class_probes(tiny_vit, [images | {"labels": labels}], tiny_vit.classifier)
    quiet = sentences | {"labels": torch.full((12, 9), -100)}
    with pytest.raises(DataError, match="no finite loss"):
        text_probes(tiny_gpt2, [quiet], tiny_gpt2.lm_head)
