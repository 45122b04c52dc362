"""Let a model answer prompts, and compare its answers with the true ones."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from taskit.backbone.config import quiet
from taskit.data import Collator
from taskit.training.results import HardRow, Scores

COMPARED_ROWS = 32  # the first ones: writing an answer takes as long as many training steps


@torch.no_grad()
def answer(model: Any, collator: Collator, row: Mapping[str, Any], longest: int = 128) -> str:
    """What ``model`` writes about the `prompt` or `image` of ``row``, greedily, at most ``longest`` tokens."""
    device = next(model.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in collator.question(dict(row)).items()}
    with quiet():  # some models have a default length, and warn at every answer
        tokens = model.generate(**inputs, max_new_tokens=longest, do_sample=False)
    skip = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    return collator.tokenizer.decode(tokens[0, skip:], skip_special_tokens=True).strip()


def with_answers(scores: Scores, model: Any, collator: Collator, rows: Any) -> Scores:
    """``scores`` of a model that writes, with its answers to the hardest rows and a comparison on the first ones."""
    scores = replace(scores, hardest=answer_hardest(model, collator, rows, scores.hardest))
    compared = compare_answers(model, collator, rows)
    return replace(scores, exact_match=compared[0], rouge_l=compared[1]) if compared else scores


def compare_answers(model: Any, collator: Collator, rows: Any) -> tuple[float, float] | None:
    """(exact match, ROUGE-L) over the first rows, both 0 to 1; None where rows have no completion."""
    if "completion" not in rows.column_names:
        return None
    chosen = rows.select(range(min(COMPARED_ROWS, len(rows))))
    longest = 1 + max(len(collator.tokenizer(text)["input_ids"]) for text in chosen["completion"])
    pairs = [(answer(model, collator, row, longest), row["completion"].strip()) for row in chosen]
    exact = sum(given == true for given, true in pairs) / len(pairs)
    return exact, sum(rouge_l(given, true) for given, true in pairs) / len(pairs)


def answer_hardest(model: Any, collator: Collator, rows: Any, hardest: Sequence[HardRow]) -> tuple[HardRow, ...]:
    """The same rows with what should have been written and what the model writes, where rows have a completion."""
    if "completion" not in rows.column_names:
        return tuple(hardest)
    found = []
    for hard in hardest:
        row = rows[hard.row]
        longest = 1 + len(collator.tokenizer(row["completion"])["input_ids"])
        found.append(replace(hard, label=row["completion"].strip(), answer=answer(model, collator, row, longest)))
    return tuple(found)


def rouge_l(given: str, true: str) -> float:
    """The F1 of the longest common subsequence of words, whatever their case (Lin 2004, equations 2 to 4, beta 1)."""
    one, two = given.lower().split(), true.lower().split()
    common = _longest_common(one, two)
    return 2 * common / (len(one) + len(two)) if common else 0.0


def _longest_common(one: Sequence[str], two: Sequence[str]) -> int:
    lengths = [0] * (len(two) + 1)  # of the subsequences common to what is read of one and to two[:j]
    for word in one:
        before = lengths[:]
        for j, other in enumerate(two, 1):
            lengths[j] = before[j - 1] + 1 if word == other else max(before[j], lengths[j - 1])
    return lengths[-1]
