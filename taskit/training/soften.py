"""Soft targets for classifiers: label smoothing, Mixup and CutMix, each reproducible from seed and step.

Szegedy et al. 2016 (section 7); Zhang et al. 2018, equation 1; Yun et al. 2019, equations 1 and 2.
"""

import numpy as np
import torch
from torch.nn.functional import one_hot

from taskit.planning.recipe import Recipe

Batch = dict[str, torch.Tensor]


def soften(micro_batches: list[Batch], classes: int, recipe: Recipe, seed: np.random.SeedSequence) -> list[Batch]:
    """The micro-batches of a step with ``labels`` (rows, classes) that add up to 1, where the recipe asks for them.

    Images are mixed with any of the step, so that it does not matter how many pass through the model at once.  They
    are mixed in place: the micro-batches are the step's own.
    """
    if not (recipe.label_smoothing or recipe.mixup or recipe.cutmix):
        return micro_batches
    sizes = [len(batch["labels"]) for batch in micro_batches]
    targets = one_hot(torch.cat([batch["labels"] for batch in micro_batches]), classes).float()
    targets = (1 - recipe.label_smoothing) * targets + recipe.label_smoothing / classes
    if recipe.mixup or recipe.cutmix:
        images = [batch["pixel_values"] for batch in micro_batches]
        targets = _mix(images, targets, recipe, np.random.default_rng(seed))
    return [{**batch, "labels": part} for batch, part in zip(micro_batches, targets.split(sizes), strict=True)]


def _mix(
    parts: list[torch.Tensor], targets: torch.Tensor, recipe: Recipe, choose: np.random.Generator
) -> torch.Tensor:
    """Mix every image of ``parts`` (rows, C, H, W) with a partner, by one of the two rules; returns mixed targets."""
    images = parts[0] if len(parts) == 1 else torch.cat(parts)
    partner = torch.from_numpy(choose.permutation(len(images))).to(images.device)
    cut = bool(recipe.cutmix) and (not recipe.mixup or choose.random() < 0.5)
    alpha = recipe.cutmix if cut else recipe.mixup
    share = float(choose.beta(alpha, alpha))  # lambda: what is left of the image itself
    if cut:
        rows, columns = _box(images.shape[-2], images.shape[-1], share, choose)
        images[..., rows, columns] = images[partner][..., rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - area / (images.shape[-2] * images.shape[-1])
    else:
        others = images[partner]
        images.mul_(share).add_(others, alpha=1 - share)
    if len(parts) > 1:
        for part, mixed in zip(parts, images.split([len(part) for part in parts]), strict=True):
            part.copy_(mixed)
    return share * targets + (1 - share) * targets[partner]


def _box(height: int, width: int, share: float, choose: np.random.Generator) -> tuple[slice, slice]:
    """A box of (1 - share) of the area around a random centre, cut off at the edges."""
    sides = (side * (1 - share) ** 0.5 / 2 for side in (height, width))
    spans = []
    for side, half in zip((height, width), sides, strict=True):
        centre = choose.uniform(0, side)
        spans.append(slice(round(max(centre - half, 0)), round(min(centre + half, side))))
    return spans[0], spans[1]
