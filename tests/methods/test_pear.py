"""Pruning and sharing: the matching by hand, tied gradients, and copies in the export."""

import pytest
import torch

from taskit.backbone.target_modules import Location
from taskit.errors import PlanError
from taskit.methods.pear import _require
from taskit.methods.shared import Shared, _take_over, classes_of, contributions, match
from taskit.step.parametrization import lora_pair
from tests.methods.adapted import QUERY, VALUE, adapted, logits, places_of, reloaded, trained, update

KEY = QUERY.replace("query", "key")
RANKS = {QUERY: 2, KEY: 2, VALUE: 2}
SHAPES = dict.fromkeys(RANKS, (16, 16))


def shared(ratio=0.5, checkpoint="none"):
    return Shared(SHAPES, ratio, 0.1, checkpoint)


def test_the_matching_by_hand():
    """The scores of six pairs, matched by hand."""
    scores = {str(score): score for score in (0.1, 0.5, 0.2, 0.3, 0.9, 0.7)}
    assert match(scores, 0.5) == {"0.3": "0.9", "0.2": "0.7", "0.1": "0.5"}
    assert match(scores, 0.34) == {"0.2": "0.9", "0.1": "0.7"}
    assert match(scores, 0.7) == {"0.5": "0.9", "0.3": "0.7", "0.2": "0.9", "0.1": "0.7"}
    assert match(scores, 0.1) == {}


def test_ties_fall_by_position():
    assert match({"first": 1.0, "second": 1.0, "third": 1.0, "fourth": 1.0}, 0.5) == {
        "third": "first",
        "fourth": "second",
    }


def test_only_equal_shapes_and_ranks_are_shared():
    shapes = {"a": (4, 4), "b": (4, 8), "c": (4, 4), "d": (4, 4), "e": (4, 4)}
    assert classes_of(shapes, {"a": 2, "b": 2, "c": 2, "d": 4, "e": 0}) == [["a", "c"], ["b"], ["d"]]


def test_a_plan_without_two_of_a_kind_is_refused():
    places = [Location("a", 0, "q", 4, 4), Location("b", 0, "fc1", 4, 8), Location("c", 1, "q", 4, 4)]
    _require(0.5, places, {"a": 2, "b": 2, "c": 2})
    for ranks in ({"a": 2, "b": 0, "c": 0}, {"a": 2, "b": 2, "c": 4}):
        with pytest.raises(PlanError, match="too few"):
            _require(0.5, places, ranks)


def test_the_score_is_the_product_of_update_and_gradient(tiny_bert, sentences):
    """|<dW, dL/d dW>|, the gradient of the dense update taken by autograd; averaged over two batches."""
    model = adapted(tiny_bert, shared(), RANKS)
    halves = [{name: tensor[rows] for name, tensor in sentences.items()} for rows in (slice(6), slice(6, 12))]
    found = contributions(model, list(RANKS), iter(halves))
    layer = model.get_submodule(f"base_model.model.{QUERY}")
    expected = 0.0
    for batch in halves:
        extra = torch.zeros(16, 16, requires_grad=True)
        hook = layer.register_forward_hook(lambda _, inputs, output, extra=extra: output + inputs[0] @ extra.T)
        model(**batch).loss.backward()
        hook.remove()
        expected += abs(float((update(model, QUERY).detach() * extra.grad).sum())) / 2
    assert found[QUERY] == pytest.approx(expected, rel=1e-4)
    assert expected > 0


def tie(model, parametrization=None):
    (parametrization or shared()).begin(model, {"sharing": {VALUE: QUERY}})
    return model


def test_a_tied_gradient_is_the_sum_of_two(tiny_bert, sentences):
    apart, tied = adapted(tiny_bert, shared(), RANKS), tie(adapted(tiny_bert, shared(), RANKS))
    with torch.no_grad():
        for ours, theirs in zip(lora_pair(apart, VALUE), lora_pair(apart, QUERY), strict=True):
            ours.weight.copy_(theirs.weight)
    for model in (apart, tied):
        model(**sentences).loss.backward()
    for side in range(2):
        both = sum(lora_pair(apart, name)[side].weight.grad for name in (QUERY, VALUE))
        torch.testing.assert_close(lora_pair(tied, QUERY)[side].weight.grad, both, rtol=1e-4, atol=1e-6)


def test_the_export_holds_copies_that_compute_the_same(tiny_bert, sentences, tmp_path):
    model = tie(adapted(tiny_bert, shared(), RANKS))
    before = logits(model, sentences)
    shared().collapse(model)
    assert lora_pair(model, VALUE)[0].weight is not lora_pair(model, QUERY)[0].weight
    plain = reloaded(tiny_bert, model, tmp_path)
    torch.testing.assert_close(logits(plain, sentences), before, rtol=0, atol=1e-5)
    assert not torch.allclose(before, logits(tiny_bert, sentences), atol=1e-3)


def test_the_plan_knows_how_many_parameters_are_trained(tiny_bert):
    whole = trained(adapted(tiny_bert, shared(), RANKS))
    assert trained(tie(adapted(tiny_bert, shared(), RANKS))) == shared().parameters(
        places_of(tiny_bert, RANKS), RANKS
    )
    assert shared().parameters([], RANKS) == whole * 2 // 3
    assert shared(0.1).parameters([], RANKS) == whole


@pytest.mark.parametrize(("keep", "take"), [(1.0, 1.0), (0.5, 0.5)])
def test_the_knowledge_checkpoint_adds_factors(keep, take, tiny_bert):
    model = adapted(tiny_bert, shared(), RANKS)
    before = [[side.weight.detach().clone() for side in lora_pair(model, name)] for name in (QUERY, VALUE)]
    _take_over(model, VALUE, QUERY, keep, take)
    for side in range(2):
        expected = keep * before[0][side] + take * before[1][side]
        torch.testing.assert_close(lora_pair(model, QUERY)[side].weight.detach(), expected)


def test_the_warm_up_takes_its_epochs_from_the_plan():
    assert [shared().epochs(total) for total in (1, 2, 10, 100)] == [1, 1, 9, 90]
