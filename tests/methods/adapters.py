"""Random adapters as the composing methods take them: module path -> branch."""

import torch

from taskit.zoo.lora_branch import Branch

MODULES = {"one": (6, 5), "two": (4, 7)}  # (in, out)


def random_adapter(seed, rank=2, scaling=1.0, modules=tuple(MODULES)):
    choose = torch.Generator().manual_seed(seed)
    made = {}
    for name in modules:
        inner, outer = MODULES[name]
        a, b = (torch.randn(shape, generator=choose, dtype=torch.float64) for shape in ((rank, inner), (outer, rank)))
        made[name] = Branch(a, b, scaling)
    return made


def updates(adapter):
    """dW of every module, as a matrix (out, in)."""
    return {name: one.scaling * one.b @ one.a for name, one in adapter.items()}
