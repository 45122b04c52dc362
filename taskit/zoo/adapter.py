"""One learned task's LoRA, read from files that a stranger may have written.

Nothing in an adapter folder is executed, and no tensor of it is copied into the base model, so no base weight
can be overwritten.  The tensor names in the safetensors header say which modules are adapted; the patterns of
``adapter_config.json`` are compared as strings and never run as regular expressions.
"""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from taskit.errors import ZooError
from taskit.zoo.lora_branch import Branch

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NOTES = "taskit.json"  # what TaskIT writes beside them
MAX_RANK = 1024
MAX_JSON_BYTES = 1 << 20
MAX_WEIGHT_BYTES = 1 << 30
MAX_HEADER_BYTES = 4 << 20  # some 25 000 tensors
MAX_NAME = 256  # characters in the name of a tensor
MAX_HEADS = 16
PREFIX, A_SUFFIX, B_SUFFIX = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})

READ = {"peft_type", "base_model_name_or_path", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"}
READ |= {"modules_to_save", "bias", "init_lora_weights", "revision"}
# Without effect on what an existing LoRA computes in evaluation, or (targets) given by the tensors themselves.
HARMLESS = {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"}
HARMLESS |= {"task_type", "auto_mapping", "peft_version", "inference_mode", "lora_dropout"}
HARMLESS |= {"megatron_core", "qalora_group_size"}  # set in every file of recent PEFT; inert without their switch


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What an adapter_config.json says about ranks, scaling and heads."""

    backbone: str
    rank: int
    alpha: float
    rank_pattern: Mapping[str, tuple[int, int]]  # key -> (position in the file, rank)
    alpha_pattern: Mapping[str, tuple[int, float]]
    rslora: bool
    heads: tuple[str, ...]
    revision: str | None = None  # of the backbone

    def rank_of(self, module: str) -> int:
        """Rank that the configuration gives to ``module`` (a full path)."""
        return _first(self.rank_pattern, module, self.rank)

    def scaling(self, module: str) -> float:
        """Factor on B(A(x)), as PEFT defines it: alpha/r, or alpha/sqrt(r) with rank-stabilised LoRA."""
        alpha = _first(self.alpha_pattern, module, self.alpha)
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


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
    if not isinstance(heads, list) or len(heads) > MAX_HEADS or not all(isinstance(h, str) and h for h in heads):
        raise ZooError(f"{CONFIG} has modules_to_save that is no short list of names; save the adapter with PEFT.")
    return AdapterConfig(
        backbone=backbone,
        rank=_rank(raw.get("r", 8)),  # 8 and 8: the defaults of PEFT
        alpha=_alpha(raw.get("lora_alpha", 8)),
        rank_pattern=_pattern(raw, "rank_pattern", _rank),
        alpha_pattern=_pattern(raw, "alpha_pattern", _alpha),
        rslora=bool(raw.get("use_rslora")),
        heads=tuple(heads),
        revision=raw["revision"] if isinstance(raw.get("revision"), str) else None,
    )


def require_backbone(learned_on: str, backbones: Collection[str]) -> None:
    """Raise ZooError unless ``learned_on`` is among ``backbones``, whose first is the requested one."""
    if learned_on not in backbones:
        wanted = next(iter(backbones))
        raise ZooError(f"It was learned on {learned_on[:120]!r}, not on {wanted!r}; choose that backbone to use it.")


def read_ranks(folder: str | Path, config: AdapterConfig) -> tuple[tuple[str, int], ...]:
    """(module path, rank) of each adapted module, sorted, from the safetensors header alone: no tensor is loaded.

    Raises ZooError for tensors beyond LoRA pairs and declared heads, or that contradict the configuration.
    """
    with _opened(Path(folder) / WEIGHTS) as file:
        return tuple((module, a[0]) for module, (a, _) in _pairs(file, config).items())


def read_tensors(
    folder: str | Path,
    config: AdapterConfig,
    shapes: Mapping[str, tuple[int, int]],
    current: Callable[[str], str] = str,
) -> dict[str, Branch]:
    """The LoRA branches in ``folder`` by module path, on the CPU; tensors of the head are left in the file.

    ``shapes`` maps each linear module of the base to (in, out), see `linear_shapes`; ``current`` gives the name
    that a module bears there today, see `current_name`.  The header is checked in full before a tensor is
    loaded.  Raises ZooError for an unknown module, another shape, a value that is not finite, or an adapter
    whose B are all zero.
    """
    with _opened(Path(folder) / WEIGHTS) as file:
        pairs = _pairs(file, config)
        modules: dict[str, str] = {}  # in the backbone -> in the file
        for module, (a, b) in pairs.items():
            name = module if module in shapes else current(module)
            _check_shape(name, (a[1], b[0]), shapes)
            if modules.setdefault(name, module) != module:
                raise ZooError(f"It adapts {name!r} under two names; save the adapter again with PEFT.")
        branches = {name: _branch(file, module, config) for name, module in modules.items()}
    if not any(branch.b.any() for branch in branches.values()):
        raise ZooError("Every lora_B in it is zero, so it changes nothing; train it first.")
    return branches


def _refuse_variants(raw: Mapping[str, Any]) -> None:
    if raw.get("peft_type") != "LORA":
        raise ZooError(f"It is of PEFT type {str(raw.get('peft_type'))[:40]!r}; only LORA can be used.")
    if raw.get("bias", "none") != "none":
        raise ZooError("It trains biases of the base; only a LoRA with bias 'none' can be used.")
    if raw.get("init_lora_weights", True) not in (True, False, "gaussian"):
        # pissa, olora, corda and loftq subtract their start from the base weights when they are loaded.
        raise ZooError("Its init_lora_weights changes the base weights; convert it to a plain LoRA with PEFT first.")
    unknown = sorted(key for key, value in raw.items() if key not in READ | HARMLESS and value)
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


def _pattern(raw: Mapping[str, Any], field: str, check: Callable[[Any], Any]) -> dict[str, tuple[int, Any]]:
    pattern = raw.get(field) or {}
    if not isinstance(pattern, dict):
        raise ZooError(f"{CONFIG} has a {field} that is no object; save the adapter again with PEFT.")
    found: dict[str, tuple[int, Any]] = {}
    for position, (key, value) in enumerate(pattern.items()):
        found.setdefault(_literal(key), (position, check(value)))
    return found


def _literal(key: str) -> str:
    """The pattern key as plain text, "^" kept in front of a full path; a true regular expression is refused."""
    anchor, name = ("^", key[1:]) if key.startswith("^") else ("", key)
    plain = name.replace("\\.", ".").replace("\\-", "-")
    if not plain or not all(c.isalnum() or c in "._-" for c in plain):
        raise ZooError(f"Its pattern {key[:60]!r} is a regular expression, which is never run; name modules in full.")
    return anchor + plain


def _first(pattern: Mapping[str, tuple[int, Any]], module: str, default: Any) -> Any:
    """PEFT's ``(.*\\.)?(KEY)$`` for literal keys, first match wins: the whole path after "^", or its last parts."""
    tails = (module[i + 1 :] for i, character in enumerate(module) if character == ".")
    found = [pattern[key] for key in (f"^{module}", module, *tails) if key in pattern]
    return min(found)[1] if found else default


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
        if path.stat().st_size > MAX_WEIGHT_BYTES:
            raise ZooError(f"{path.name} is larger than {MAX_WEIGHT_BYTES} bytes; use an adapter of lower rank.")
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
        if len(key) > MAX_NAME:
            raise ZooError(f"Its tensor {key[:80]!r}... has a name too long; save the adapter again with PEFT.")
        side = a if key.endswith(A_SUFFIX) else b if key.endswith(B_SUFFIX) else None
        if side is None or not key.startswith(PREFIX):
            rest.append(key)
            continue
        part = file.get_slice(key)
        if part.get_dtype() not in FLOATS or len(part.get_shape()) != 2:
            raise ZooError(f"Its tensor {key!r} is no floating-point matrix; save the adapter again with PEFT.")
        side[key[len(PREFIX) : -len(A_SUFFIX)]] = part.get_shape()
    if not a or a.keys() != b.keys():
        raise ZooError(f"{WEIGHTS} holds no complete pairs of lora_A and lora_B; save the adapter again with PEFT.")
    for module in a:
        if not a[module][0] == b[module][1] == config.rank_of(module):
            raise ZooError(f"Its ranks at {module!r} contradict {CONFIG}; save the adapter again with PEFT.")
    _check_heads(rest, config, a)
    return {module: (a[module], b[module]) for module in sorted(a)}


def _check_heads(keys: list[str], config: AdapterConfig, adapted: Mapping[str, Any]) -> None:
    """Beyond LoRA only tensors of declared heads are allowed, and a head never lies among the adapted blocks."""
    stacks = {next(_stacks(name), None) for name in adapted} - {None}
    for key in keys:
        path = key.removeprefix(PREFIX)
        declared = any(f".{head}." in f".{path}" for head in config.heads)
        if not (key.startswith(PREFIX) and declared) or not stacks.isdisjoint(_stacks(path)):
            raise ZooError(f"{WEIGHTS} holds {key[:80]!r}, which belongs to no LoRA and no head; remove that tensor.")


def _stacks(path: str) -> Iterator[str]:
    """The paths of the numbered lists that ``path`` runs through, the outermost first."""
    parts = path.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts) - 1) if parts[n].isdigit())


def _check_shape(module: str, found: tuple[int, int], shapes: Mapping[str, tuple[int, int]]) -> None:
    if module not in shapes:
        raise ZooError(f"It adapts {module!r}, which the backbone lacks; use an adapter made for this backbone.")
    if found != tuple(shapes[module]):
        (a, b), (c, d) = found, shapes[module]
        raise ZooError(f"It adapts {module!r} as {a} -> {b}, not {c} -> {d}; use an adapter made for this backbone.")


def _branch(file: Any, module: str, config: AdapterConfig) -> Branch:
    a, b = (file.get_tensor(f"{PREFIX}{module}{suffix}").float() for suffix in (A_SUFFIX, B_SUFFIX))
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise ZooError(f"Its tensors at {module!r} hold NaN or infinity; train it again.")
    return Branch(a, b, config.scaling(module))
