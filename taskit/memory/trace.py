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
from torch.utils._pytree import tree_leaves

from taskit.backbone.target_modules import Location
from taskit.memory.conditions import Conditions
from taskit.memory.graph import grad_nodes, needed_by, nodes_between, saved_tensors, storage_key, upstream_masks
from taskit.memory.live import standing_tensors
from taskit.memory.profile import MemoryProfile, RecomputableBlock, Storage
from taskit.memory.rehearsal import Batch, StepObserver, rehearse
from taskit.step.recompute import named_blocks

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
        chosen = conditions.recomputed
        names = [block.name for block in profile.recomputable]
        profile = profile.recomputing([i for i, name in enumerate(names) if chosen is None or name in chosen])
    profile = replace(profile, transient_bytes=max(peak - profile.bytes(tuple(full.values())), 0))
    return _with_momentary_bytes(profile)


def _with_momentary_bytes(profile: MemoryProfile) -> MemoryProfile:
    """Count with the inputs of recomputed blocks what the backward pass brings back of them.

    It goes from the last block to the first.  The inside of a block is back while the blocks before it still keep
    theirs, and the inputs of those after it, at least, are gone.  Only the largest of these moments counts; so each
    block is given what it has more than those after it.
    """
    blocks, gone, most = list(profile.recomputable), profile.transient_bytes, 0  # the loss's own is over by then
    for i in range(len(blocks) - 1, -1, -1):
        block = blocks[i]
        inside = sum(storage.bytes for storage in profile.storages if storage.block == i)
        inside += TRACE_RANK * sum(profile.kept_rank_bytes[block.first : block.last + 1])
        more = max(inside - gone - most, 0)
        gone, most = gone + block.input_bytes, most + more
        blocks[i] = replace(block, input_bytes=block.input_bytes + more)
    return replace(profile, recomputable=tuple(blocks))


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
        self.recomputable = _Blocks(model, self.names)

    def before_backward(self, loss: torch.Tensor) -> None:
        if self.profile is None:  # of several micro-batches, the first
            self.profile = self._read_profile(loss)
            self.branches.forget_graph()
            self.recomputable.forget_graph()

    def _read_profile(self, loss: torch.Tensor) -> MemoryProfile:
        count, always = len(self.names), 1 << len(self.names)
        kept = _kept_bytes(loss, self.model, self.batch, self.branches, self.recomputable)
        constant = _constant_bytes(self.model, self.branches, self.batch, self.conditions)
        constant += sum(size for (mask, _), size in kept.items() if mask & always)
        saved = [self.branches.saved_per_rank(i) for i in range(count)]
        return MemoryProfile(
            locations=tuple(self.names),
            blocks=tuple(self.blocks),
            constant_bytes=constant,
            rank_bytes=tuple(self.branches.rank_bytes(i, self.conditions) for i in range(count)),
            fixed_bytes=(0,) * count,
            storages=tuple(
                Storage(size, tuple(i for i in range(count) if mask >> i & 1), None if block < 0 else block)
                for (mask, block), size in sorted(kept.items())
                if mask and not mask & always
            ),
            transient_bytes=0,
            kept_rank_bytes=tuple(size if self.recomputable.holds(i) else 0 for i, size in enumerate(saved)),
            recomputable=tuple(self.recomputable.found),
        )


def _kept_bytes(
    loss: torch.Tensor,
    model: torch.nn.Module,
    batch: Batch,
    branches: "_Branches",
    blocks: "_Blocks",
) -> dict[tuple[int, int], int]:
    """Bytes saved for backward, by the bits of the locations that need them and the block that they are made in.

    The bit after the last location stands for the heads, which are always trained; the block is -1 for what is made
    outside of all, passed into one, or saved by several.
    """
    always = 1 << len(branches.parameters)
    leaves = {id(p): always for p in model.parameters() if p.requires_grad} | branches.leaves
    masks = upstream_masks(loss.grad_fn, leaves)
    standing = {storage_key(t) for t in (*standing_tensors(model), *batch.values())}
    sizes: dict[int, int] = {}
    needs: dict[int, int] = {}
    made_in: dict[int, int] = {}
    for node in masks:
        block = blocks.inside.get(node, -1)
        for attribute, tensor in saved_tensors(node):
            key = storage_key(tensor)
            if key not in standing and key not in branches.rank_sized:
                inside = branches.nodes.get(node)
                sizes[key] = tensor.untyped_storage().nbytes()
                needs[key] = needs.get(key, 0) | (
                    needed_by(node, attribute, masks) if inside is None else 1 << inside
                )
                made_in[key] = block if made_in.setdefault(key, block) == block else -1
    kept: dict[tuple[int, int], int] = {}
    for key, mask in needs.items():
        where = mask, -1 if key in blocks.passed_in else made_in[key]
        kept[where] = kept.get(where, 0) + sizes[key]
    return kept


def _constant_bytes(model: torch.nn.Module, branches: "_Branches", batch: Batch, conditions: Conditions) -> int:
    """Frozen weights, buffers, the runtime, all batches, and the trained heads with gradient and optimizer state."""
    lora = set(branches.leaves)
    weights = {storage_key(t): t.untyped_storage().nbytes() for t in standing_tensors(model) if id(t) not in lora}
    batches = 2 * conditions.gradient_accumulation * sum(t.untyped_storage().nbytes() for t in batch.values())
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
        return -(-trained // TRACE_RANK) + self.saved_per_rank(i)

    def saved_per_rank(self, i: int) -> int:
        """Bytes of the activations that one more rank at location i keeps."""
        return -(-sum(size for owner, size in self.rank_sized.values() if owner == i) // TRACE_RANK)


class _Blocks:
    """Notes, while the model runs, inputs and nodes of the blocks that gradient checkpointing can recompute."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str]) -> None:
        self.inside: dict[Any, int] = {}  # node of the graph -> its block
        self.found: list[RecomputableBlock] = []
        self.passed_in: set[int] = set()  # storages that blocks are given beside their input
        for path, module in named_blocks(model).items():
            held = [i for i, name in enumerate(names) if name.startswith(f"{path}.")]
            if held:
                module.register_forward_hook(self._note(len(self.found)), with_kwargs=True)
                self.found.append(RecomputableBlock(path, held[0], held[-1], 0))

    def _note(self, i: int) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            hidden, *others = (t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor))
            nodes = nodes_between(grad_nodes(output), grad_nodes((args, kwargs)))
            self.inside.update(dict.fromkeys(nodes, i))
            self.passed_in.update(map(storage_key, others))
            self.found[i] = replace(self.found[i], input_bytes=hidden.untyped_storage().nbytes())

        return hook

    def holds(self, i: int) -> bool:
        """Whether the location i lies in one of the blocks."""
        return any(block.first <= i <= block.last for block in self.found)

    def forget_graph(self) -> None:
        """Drop the references to nodes of the graph, which the backward pass is to free."""
        self.inside.clear()
