"""Trace one training step without weights and read from its autograd graph which locations need which bytes.

The model gets a LoRA at *every* candidate location and is run forward once on meta tensors, which have
shapes, storages and the attention kernels of the training device but no memory behind them.  Each node of
the resulting autograd graph holds the tensors it saved for the backward pass:

* a node inside a LoRA branch exists if and only if its location is inserted;
* any other node exists once a location upstream of it is inserted, which the edges of the graph show.

So one trace gives, for every saved storage, the set of locations that need it, and with that the bytes of
any strategy.  For two locations with an activation between them, x -> W0 -> h -> GELU -> g -> W1 -> loss:

    x  saved by lora_A of location 0                       needed by (0,)
    h  saved by GELU, whose only trained input is LoRA 0   needed by (0,)
    g  saved by lora_A of location 1                       needed by (1,)

LoRA at 0 alone keeps x and h, at 1 alone g, at both all three.  (What ranks size, A(x), is counted per rank.)

The short-lived rest of the peak comes from the rehearsal that the trace observes (rehearsal.py).

Left out: what a kernel allocates and frees inside one operator; the allocator's rounding; the
Python process itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from taskit.backbone.target_modules import Location
from taskit.memory.conditions import Conditions
from taskit.memory.graph import grad_nodes, needed_by, nodes_between, saved_tensors, storage_key, upstream_masks
from taskit.memory.live import standing_tensors
from taskit.memory.profile import MemoryProfile, Storage
from taskit.memory.rehearsal import Batch, StepObserver, rehearse

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRACE_RANK = 8
STATE_BYTES = {  # optimizer state for one trained number of n bytes
    "adamw": lambda n: 2 * n,
    "adamw8bit": lambda _: 2,
    "sgd": lambda n: n,
}


def trace(
    build: "Callable[[], PreTrainedModel]",
    locations: Sequence[Location],
    heads: Sequence[str],
    task: str,
    conditions: Conditions,
) -> MemoryProfile:
    """The memory profile of ``build()``, a model on the meta device, under ``conditions``.

    ``transient_bytes`` is what the peak of LoRA everywhere, rehearsed on the way, has beyond the sum of its parts.

    Raises RuntimeError where the model does something that needs real numbers.
    """
    names = [location.name for location in locations]
    full = dict.fromkeys(names, TRACE_RANK)
    tracer = _Tracer(names, [location.block for location in locations], conditions)
    # a checkpointed forward has no graph inside its blocks, so that it is rehearsed without and then with
    peak = rehearse(build, full, heads, task, replace(conditions, gradient_checkpointing=False), tracer)
    profile = tracer.profile
    assert profile is not None
    del tracer  # and with it the model, before another one is built
    if conditions.gradient_checkpointing:
        peak = rehearse(build, full, heads, task, conditions)
    return replace(profile, transient_bytes=max(peak - profile.bytes(tuple(full.values())), 0))


class _Tracer(StepObserver):
    """Notes in the forward pass what belongs to which LoRA branch and block, then reads the graph of the loss.

    ``profile`` is there after the step; its transient bytes are 0.
    """

    def __init__(self, names: Sequence[str], blocks: Sequence[int], conditions: Conditions) -> None:
        self.names, self.blocks, self.conditions = names, blocks, conditions
        self.profile: MemoryProfile | None = None

    def before_forward(self, model: torch.nn.Module, batch: Batch) -> None:
        self.model, self.batch = model, batch
        self.branches = _Branches(model, self.names)
        self.checkpointed = _CheckpointedBlocks(model, self.names)

    def before_backward(self, loss: torch.Tensor) -> None:
        if self.profile is None:  # of several micro-batches, the first
            self.profile = self._read_profile(loss)
            self.branches.forget_graph()
            self.checkpointed.forget_graph()

    def _read_profile(self, loss: torch.Tensor) -> MemoryProfile:
        count, always = len(self.names), 1 << len(self.names)
        checkpointed = self.checkpointed if self.conditions.gradient_checkpointing else None
        kept = _kept_bytes(loss, self.model, self.batch, self.branches, checkpointed)
        constant = _constant_bytes(self.model, self.branches, self.batch, self.conditions)
        constant += sum(size for mask, size in kept.items() if mask & always)
        return MemoryProfile(
            locations=tuple(self.names),
            blocks=tuple(self.blocks),
            constant_bytes=constant,
            rank_bytes=tuple(self.branches.rank_bytes(i, self.conditions) for i in range(count)),
            fixed_bytes=(0,) * count,
            storages=tuple(
                Storage(bytes=size, needed_by=tuple(i for i in range(count) if mask >> i & 1))
                for mask, size in sorted(kept.items())
                if mask and not mask & always
            ),
            transient_bytes=0,
        )


def _kept_bytes(
    loss: torch.Tensor,
    model: torch.nn.Module,
    batch: Batch,
    branches: "_Branches",
    checkpointed: "_CheckpointedBlocks | None",
) -> dict[int, int]:
    """Bytes saved for backward, by the bits of the locations that need them.

    The bit after the last location stands for the heads, which are always trained.
    """
    always = 1 << len(branches.parameters)
    leaves = {id(p): always for p in model.parameters() if p.requires_grad} | branches.leaves
    masks = upstream_masks(loss.grad_fn, leaves)
    standing = {storage_key(t) for t in (*standing_tensors(model), *batch.values())}
    sizes: dict[int, int] = {}
    needs: dict[int, int] = {}
    for node in masks:
        if checkpointed and node in checkpointed.inside:
            continue
        for attribute, tensor in saved_tensors(node):
            key = storage_key(tensor)
            if key not in standing and key not in branches.rank_sized:
                inside = branches.nodes.get(node)
                sizes[key] = tensor.untyped_storage().nbytes()
                needs[key] = needs.get(key, 0) | (
                    needed_by(node, attribute, masks) if inside is None else 1 << inside
                )
    if checkpointed:
        sizes |= checkpointed.inputs
        needs |= checkpointed.needs
    kept: dict[int, int] = {}
    for key, mask in needs.items():
        kept[mask] = kept.get(mask, 0) + sizes[key]
    return kept


def _constant_bytes(model: torch.nn.Module, branches: "_Branches", batch: Batch, conditions: Conditions) -> int:
    """Frozen weights, buffers, the runtime, all batches, and the trained heads with gradient and optimizer state."""
    lora = set(branches.leaves)
    weights = {storage_key(t): t.untyped_storage().nbytes() for t in standing_tensors(model) if id(t) not in lora}
    batches = (conditions.gradient_accumulation + 1) * sum(t.untyped_storage().nbytes() for t in batch.values())
    heads = [p for p in model.parameters() if p.requires_grad and id(p) not in lora]
    trained = sum(p.numel() * _training_bytes(p, conditions.optimizer) for p in heads)
    return sum(weights.values()) + batches + trained + conditions.runtime_bytes


def _training_bytes(parameter: torch.nn.Parameter, optimizer: str) -> int:
    """Gradient and optimizer state per trained number, in bytes."""
    return parameter.element_size() + STATE_BYTES[optimizer](parameter.element_size())


class _Branches:
    """Notes, while the model runs, which graph nodes and storages belong to which LoRA branch."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str]) -> None:
        self.nodes: dict[Any, int] = {}
        self.rank_sized: dict[int, tuple[int, int]] = {}  # storage -> (location, bytes)
        self.parameters: list[list[torch.nn.Parameter]] = []
        modules: dict[str, Any] = {path.removeprefix("base_model.model."): m for path, m in model.named_modules()}
        for i, name in enumerate(names):
            down, up = modules[name].lora_A["default"], modules[name].lora_B["default"]
            self.parameters.append([*down.parameters(), *up.parameters()])
            down.register_forward_hook(self._note(i, rank_sized=True))
            up.register_forward_hook(self._note(i, rank_sized=False))
        self.leaves = {id(p): 1 << i for i, owned in enumerate(self.parameters) for p in owned}

    def _note(self, i: int, rank_sized: bool) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            self.nodes.update(dict.fromkeys(nodes_between(grad_nodes(output), grad_nodes(inputs)), i))
            if rank_sized:
                self.rank_sized[storage_key(output)] = (i, output.untyped_storage().nbytes())

        return hook

    def forget_graph(self) -> None:
        """Drop the references to nodes of the graph, which the backward pass is to free."""
        self.nodes.clear()

    def rank_bytes(self, i: int, conditions: Conditions) -> int:
        """Bytes of one more rank at location i: weights, gradients, optimizer state and rank-sized activations."""
        trained = sum(
            p.numel() * (p.element_size() + _training_bytes(p, conditions.optimizer)) for p in self.parameters[i]
        )
        saved = (
            0 if conditions.gradient_checkpointing else sum(n for owner, n in self.rank_sized.values() if owner == i)
        )
        return -(-(trained + saved) // TRACE_RANK)


class _CheckpointedBlocks:
    """Notes, while the model runs, inputs and nodes of the blocks that gradient checkpointing recomputes."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str]) -> None:
        from transformers.modeling_layers import GradientCheckpointingLayer

        self.inside: set[Any] = set()
        self.inputs: dict[int, int] = {}
        self.needs: dict[int, int] = {}
        for path, module in model.named_modules():
            prefix = path.removeprefix("base_model.model.") + "."
            held = [i for i, name in enumerate(names) if name.startswith(prefix)]
            if held and isinstance(module, GradientCheckpointingLayer):
                module.register_forward_hook(self._note((2 << held[-1]) - 1))

    def _note(self, up_to_here: int) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self.inside.update(nodes_between(grad_nodes(output), grad_nodes(inputs)))
            hidden = next(t for t in inputs if isinstance(t, torch.Tensor))
            key = storage_key(hidden)
            self.inputs[key] = hidden.untyped_storage().nbytes()
            self.needs[key] = self.needs.get(key, 0) | up_to_here

        return hook

    def forget_graph(self) -> None:
        """Drop the references to nodes of the graph, which the backward pass is to free."""
        self.inside.clear()
