"""A LoRA of lower rank in the place of another: truncated singular values, and what they discard."""

from typing import Any

import torch
from torch import Tensor, nn

from taskit.step.lora import lora_config
from taskit.step.parametrization import lora_pair


@torch.no_grad()
def truncate(model: Any, rank: int) -> float:
    """Give every LoRA of the adapted ``model`` at most ``rank``; returns the discarded part of sum_k ||dW_k||_F^2."""
    from peft.tuners.lora import LoraLayer

    ranks, kept, whole = {}, 0.0, 0.0
    for path, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            name = path.removeprefix("base_model.model.")
            a, b = lora_pair(model, name)
            new_a, new_b, energies = truncated(a.weight, b.weight, rank)
            a.weight, b.weight = nn.Parameter(new_a.to(a.weight)), nn.Parameter(new_b.to(b.weight))
            a.out_features = b.in_features = layer.r["default"] = len(new_a)
            whole, kept = whole + float(energies.sum()), kept + float(energies[: len(new_a)].sum())
            ranks[name] = len(new_a)
    config = model.peft_config["default"]
    fresh = lora_config(model.get_base_model(), ranks, config.modules_to_save or (), "image-classification")
    for field in ("r", "lora_alpha", "rank_pattern", "alpha_pattern"):
        setattr(config, field, getattr(fresh, field))
    return 1 - kept / whole if whole else 0.0


def truncated(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """(A, B) of the best approximation of B A of at most ``rank``, and the squared singular values of B A.

    ``a`` is (r, in), ``b`` (out, r), themselves where nothing is cut off.  The product is never made: its singular
    values are those of R_b R_a^T, r x r.
    """
    qb, rb = torch.linalg.qr(b.double())
    qa, ra = torch.linalg.qr(a.double().T)
    u, s, vt = torch.linalg.svd(rb @ ra.T)
    if rank >= len(a):
        return a, b, s.square()
    root = s[:rank].sqrt()
    return (root[:, None] * vt[:rank]) @ qa.T, (qb @ u[:, :rank]) * root, s.square()
