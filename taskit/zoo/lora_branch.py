"""One LoRA branch, and forward hooks with which a base model computes with it, nothing replaced or copied."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch w_i^k: x -> scaling * B(A(x)), with ``a`` (r, in) and ``b`` (out, r)."""

    a: Tensor
    b: Tensor
    scaling: float

    @property
    def norm(self) -> float:
        """||dW||_F of the update scaling * B A, which is never made."""
        squared = ((self.b.T @ self.b) * (self.a @ self.a.T)).sum().clamp_min(0)
        return abs(self.scaling) * float(squared.sqrt())

    def scaled(self, factor: float) -> "Branch":
        """The branch with ``factor`` times its output."""
        return Branch(self.a, self.b, self.scaling * factor)

    def __call__(self, x: Tensor) -> Tensor:
        """Output (..., out) of the branch on its input ``x`` (..., in), in the order in which PEFT multiplies."""
        return F.linear(F.linear(x.to(self.a.dtype), self.a), self.b) * self.scaling


# Called for each attached module at each forward: name, module, output of the base, output of the branch.
Observer = Callable[[str, nn.Module, Tensor, Tensor], None]


def linear_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """(in, out) of every linear module of ``model``, GPT-2's transposed Conv1D and quantised layers included."""
    from transformers.pytorch_utils import Conv1D

    shapes = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            shapes[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            shapes[name] = (module.nx, module.nf)
    return shapes


def current_name(model: nn.Module) -> Callable[[str], str]:
    """From the path of a module in an adapter to its path in ``model``, which may have been renamed since.

    The rules are those by which Transformers loads old checkpoints: ``vit.encoder.layer.0.attention.attention.query``
    is ``vit.layers.0.attention.q_proj`` today, and the prefix of the base model is added or removed.
    """
    # Imported here, since they load half of Transformers, which reading headers does not need.
    from transformers import PreTrainedModel
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    if not isinstance(model, PreTrainedModel):
        return str
    renamings = [rule for rule in get_model_conversion_mapping(model) if isinstance(rule, WeightRenaming)]
    known = dict.fromkeys((f"{name}.weight" for name, _ in model.named_modules()), True)

    def rename(module: str) -> str:
        name, _ = rename_source_key(f"{module}.weight", renamings, [], model.base_model_prefix, known)
        return name.removesuffix(".weight")

    return rename


@contextmanager
def attached(model: nn.Module, branches: Mapping[str, Branch], observe: Observer | None = None) -> Iterator[None]:
    """Let ``model`` compute W_k x + s B A x at each module path of ``branches``; afterwards it is what it was.

    ``observe`` sees the output of the base and of the branch at every such module, in every forward.
    """
    with ExitStack() as stack:
        for name, branch in branches.items():
            module = model.get_submodule(name)
            device = next(module.parameters()).device
            here = Branch(branch.a.to(device), branch.b.to(device), branch.scaling)
            stack.callback(module.register_forward_hook(_hook(name, here, observe)).remove)
        yield


def _hook(name: str, branch: Branch, observe: Observer | None) -> Callable[..., Tensor]:
    def add_branch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        addition = branch(inputs[0])
        if observe is not None:
            observe(name, module, output, addition)
        return (output + addition).to(output.dtype)

    return add_branch
