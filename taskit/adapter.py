"""One learned task's LoRA: read from files that a stranger may have written, attached to the base model by hooks.

Nothing in an adapter folder is executed, and no tensor of it is ever copied into the base model, so no base
weight can be overwritten.  The tensor names in the safetensors header say which modules are adapted; the
patterns of ``adapter_config.json`` are compared as strings and never run as regular expressions.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from taskit.errors import ZooError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_RANK = 1024
MAX_JSON_BYTES = 1 << 20
MAX_HEADER_BYTES = 16 << 20
PREFIX, A_SUFFIX, B_SUFFIX = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})

# Read below, or without effect on what an existing LoRA computes in evaluation.
UNDERSTOOD = frozenset(
    "peft_type base_model_name_or_path r lora_alpha rank_pattern alpha_pattern use_rslora modules_to_save bias "
    "init_lora_weights target_modules task_type auto_mapping peft_version revision inference_mode lora_dropout "
    "exclude_modules layers_to_transform layers_pattern fan_in_fan_out megatron_core qalora_group_size".split()
)


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What an adapter_config.json says about ranks, scaling and heads; patterns keep the order of the file."""

    backbone: str
    rank: int
    alpha: float
    rank_pattern: tuple[tuple[str, int], ...]
    alpha_pattern: tuple[tuple[str, float], ...]
    rslora: bool
    heads: tuple[str, ...]

    def rank_of(self, module: str) -> int:
        """Rank that the configuration gives to ``module`` (a full path)."""
        return next((rank for key, rank in self.rank_pattern if _names(key, module)), self.rank)

    def scaling(self, module: str) -> float:
        """Factor on B(A(x)), as PEFT defines it: alpha/r, or alpha/sqrt(r) with rank-stabilised LoRA."""
        alpha = next((alpha for key, alpha in self.alpha_pattern if _names(key, module)), self.alpha)
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


@dataclass(frozen=True, slots=True)
class Branch:
    """One LoRA branch w_i^k: x -> scaling * B(A(x)), with ``a`` (r, in) and ``b`` (out, r) in float32."""

    a: Tensor
    b: Tensor
    scaling: float

    def __call__(self, x: Tensor) -> Tensor:
        """Output (..., out) of the branch on its input ``x`` (..., in), in the order in which PEFT multiplies."""
        return F.linear(F.linear(x.to(self.a.dtype), self.a), self.b) * self.scaling


# Called for each attached module at each forward: name, module, output of the base, output of the branch.
Observer = Callable[[str, nn.Module, Tensor, Tensor], None]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small JSON file; raises ZooError for anything else, links and oversized files included."""
    _plain_file(path)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ZooError(f"{path.name} is larger than {MAX_JSON_BYTES} bytes; it is not the file that PEFT writes.")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ZooError(f"{path.name} is not valid JSON; save the adapter again with PEFT.") from error
    if not isinstance(content, dict):
        raise ZooError(f"{path.name} holds no JSON object; save the adapter again with PEFT.")
    return content


def read_config(folder: str | Path) -> AdapterConfig:
    """The LoRA configuration in ``folder``, under the strict schema of plain LoRA.

    Raises ZooError, one sentence, for another PEFT type, for an option that changes what a LoRA computes
    (DoRA, biases, replicated layers, ...), for ranks outside 1..1024, infinite alphas and unreadable patterns.
    """
    raw = read_json(Path(folder) / CONFIG)
    _refuse_variants(raw)
    backbone, heads = raw.get("base_model_name_or_path"), raw.get("modules_to_save") or []
    if not isinstance(backbone, str) or not backbone:
        raise ZooError(f"{CONFIG} names no base model; set base_model_name_or_path to the backbone's id.")
    if not isinstance(heads, list) or not all(isinstance(name, str) and name for name in heads):
        raise ZooError(f"{CONFIG} has modules_to_save that is no list of names; save the adapter again with PEFT.")
    return AdapterConfig(
        backbone=backbone,
        rank=_rank(raw.get("r", 8)),  # 8 and 8: the defaults of PEFT
        alpha=_alpha(raw.get("lora_alpha", 8)),
        rank_pattern=_pattern(raw, "rank_pattern", _rank),
        alpha_pattern=_pattern(raw, "alpha_pattern", _alpha),
        rslora=raw.get("use_rslora") is True,
        heads=tuple(heads),
    )


def read_ranks(folder: str | Path, config: AdapterConfig) -> tuple[tuple[str, int], ...]:
    """(module path, rank) of each adapted module, sorted, from the safetensors header alone: no tensor is loaded.

    Raises ZooError for tensors beyond LoRA pairs and declared heads, or that contradict the configuration.
    """
    with _opened(Path(folder) / WEIGHTS) as file:
        return tuple((module, a[0]) for module, (a, _) in _pairs(file, config).items())


def read_tensors(
    folder: str | Path, config: AdapterConfig, shapes: Mapping[str, tuple[int, int]]
) -> dict[str, Branch]:
    """The LoRA branches in ``folder`` by module path, on the CPU; tensors of the head are left in the file.

    ``shapes`` maps each linear module of the base to (in, out), see `linear_shapes`.  The header is checked in
    full before a tensor is loaded.  Raises ZooError for an unknown module, another shape, a value that is not
    finite, or an adapter whose B are all zero.
    """
    with _opened(Path(folder) / WEIGHTS) as file:
        for module, (a, b) in _pairs(file, config).items():
            if module not in shapes:
                raise ZooError(f"It adapts {module}, which the backbone lacks; use one made for this backbone.")
            if (a[1], b[0]) != tuple(shapes[module]):
                raise ZooError(
                    f"It adapts {module} as {a[1]} -> {b[0]} where the backbone has {shapes[module][0]} -> "
                    f"{shapes[module][1]}; use an adapter made for this backbone."
                )
        branches = {module: _branch(file, module, config) for module in _pairs(file, config)}
    if not any(branch.b.any() for branch in branches.values()):
        raise ZooError("Every lora_B in it is zero, so it changes nothing; train it first.")
    return branches


def linear_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """(in, out) of every linear module of ``model``, GPT-2's transposed Conv1D and quantised layers included."""
    shapes = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            shapes[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            shapes[name] = (module.nx, module.nf)
    return shapes


@contextmanager
def attached(
    model: nn.Module, branches: Mapping[str, Branch], observe: Observer | None = None
) -> Iterator[dict[str, Branch]]:
    """Let ``model`` compute W_k x + s B A x at each module of ``branches``; afterwards it is what it was.

    Forward hooks only: no module is replaced and no parameter is touched.  Yields the branches as moved to
    their modules' devices; ``observe`` sees every base output and branch output on its way.
    """
    here = {}
    with ExitStack() as stack:
        for name, branch in branches.items():
            module = model.get_submodule(name)
            device = next(module.parameters()).device
            here[name] = Branch(branch.a.to(device), branch.b.to(device), branch.scaling)
            handle = module.register_forward_hook(_hook(name, here[name], observe))
            stack.callback(handle.remove)
        yield here


def _hook(name: str, branch: Branch, observe: Observer | None) -> Callable[..., Tensor]:
    def add_branch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        addition = branch(inputs[0])
        if observe is not None:
            observe(name, module, output, addition)
        return (output + addition).to(output.dtype)

    return add_branch


def _refuse_variants(raw: Mapping[str, Any]) -> None:
    if raw.get("peft_type") != "LORA":
        raise ZooError(f"It is of PEFT type {str(raw.get('peft_type'))[:40]!r}; only LORA can be used.")
    if raw.get("bias", "none") != "none":
        raise ZooError("It trains biases of the base; only a LoRA with bias 'none' can be used.")
    if raw.get("init_lora_weights", True) not in (True, False, "gaussian"):
        # pissa, olora, corda and loftq subtract their start from the base weights when they are loaded.
        raise ZooError("Its init_lora_weights changes the base weights; convert it to a plain LoRA with PEFT first.")
    unknown = sorted(key for key, value in raw.items() if key not in UNDERSTOOD and value)
    if unknown:
        raise ZooError(f"It sets {unknown[0][:40]!r}, which a plain LoRA does not have; convert it to a plain LoRA.")


def _rank(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MAX_RANK:
        raise ZooError(f"It has rank {str(value)[:40]}; ranks from 1 to {MAX_RANK} can be used.")
    return value


def _alpha(value: Any) -> float:
    if type(value) not in (int, float) or abs(value) > 1e9 or not math.isfinite(value):
        raise ZooError(f"It has alpha {str(value)[:40]}; an alpha must be a finite number.")
    return float(value)


def _pattern(raw: Mapping[str, Any], field: str, check: Callable[[Any], Any]) -> tuple[tuple[str, Any], ...]:
    pattern = raw.get(field) or {}
    if not isinstance(pattern, dict):
        raise ZooError(f"{CONFIG} has a {field} that is no object; save the adapter again with PEFT.")
    return tuple((_literal(key), check(value)) for key, value in pattern.items())


def _literal(key: str) -> str:
    """The pattern key as plain text, "^" kept in front of a full path; a true regular expression is refused."""
    anchor, name = ("^", key[1:]) if key.startswith("^") else ("", key)
    plain = name.replace("\\.", ".").replace("\\-", "-")
    if not plain or not all(c.isalnum() or c in "._-" for c in plain):
        raise ZooError(f"Its pattern {key[:60]!r} is a regular expression, which is never run; name modules in full.")
    return anchor + plain


def _names(key: str, module: str) -> bool:
    """PEFT's ``(.*\\.)?(KEY)$`` for a literal key: the whole path after "^", else the path or its last parts."""
    return module == key[1:] if key.startswith("^") else f".{module}".endswith(f".{key}")


def _plain_file(path: Path) -> None:
    if path.is_symlink():
        raise ZooError(f"{path.name} is a symbolic link; put the file itself into the folder.")
    if not path.is_file():
        raise ZooError(f"{path.name} is missing; save the adapter with PEFT as safetensors (a .bin is never opened).")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The safetensors file with its header parsed, its length capped before that."""
    _plain_file(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise ZooError(f"{path.name} has a header of {length} bytes; save the adapter again with PEFT.")
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ZooError(f"{path.name} is damaged; download it again or save the adapter again with PEFT.") from error


def _pairs(file: Any, config: AdapterConfig) -> dict[str, tuple[list[int], list[int]]]:
    """Shapes of A and B by module, sorted; every tensor in the header is one of a pair or of a declared head."""
    a, b, rest = {}, {}, []
    for key in file.keys():  # noqa: SIM118 - a safetensors handle is not iterable
        side = a if key.endswith(A_SUFFIX) else b if key.endswith(B_SUFFIX) else None
        if side is None or not key.startswith(PREFIX):
            rest.append(key)
            continue
        part = file.get_slice(key)
        if part.get_dtype() not in FLOATS or len(part.get_shape()) != 2:
            raise ZooError(f"Its tensor {key[:80]} is no floating-point matrix; save the adapter again with PEFT.")
        side[key[len(PREFIX) : -len(A_SUFFIX)]] = part.get_shape()
    if not a or a.keys() != b.keys():
        raise ZooError(f"{WEIGHTS} holds no complete pairs of lora_A and lora_B; save the adapter again with PEFT.")
    for module in a:
        if not a[module][0] == b[module][1] == config.rank_of(module):
            raise ZooError(f"Its ranks at {module[:80]} contradict {CONFIG}; save the adapter again with PEFT.")
    _check_heads(rest, config, a)
    return {module: (a[module], b[module]) for module in sorted(a)}


def _check_heads(keys: list[str], config: AdapterConfig, adapted: Mapping[str, Any]) -> None:
    """Beyond LoRA only tensors of declared heads are allowed, and a head never lies among the adapted blocks."""
    stacks = tuple({match[0] for name in adapted if (match := re.match(r".*?\.(?=\d+\.)", name))})
    for key in keys:
        path = key.removeprefix(PREFIX)
        declared = any(f".{head}." in f".{path}" for head in config.heads)
        if not (key.startswith(PREFIX) and declared) or path.startswith(stacks):
            raise ZooError(f"{WEIGHTS} holds {key[:80]}, which belongs to no LoRA and no head; remove that tensor.")


def _branch(file: Any, module: str, config: AdapterConfig) -> Branch:
    a, b = (file.get_tensor(f"{PREFIX}{module}{suffix}").float() for suffix in (A_SUFFIX, B_SUFFIX))
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise ZooError(f"Its tensors at {module} hold NaN or infinity; train it again.")
    return Branch(a, b, config.scaling(module))
