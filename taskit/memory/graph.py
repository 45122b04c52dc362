"""Read an autograd graph: what each node saved for its backward pass, and which LoRA it depends on."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

# Products save each factor for the other one's gradient: attribute -> the input whose gradient needs it.
FACTORS = {
    "MulBackward0": {"_saved_self": 1, "_saved_other": 0},
    "MmBackward0": {"_saved_self": 1, "_saved_mat2": 0},
    "BmmBackward0": {"_saved_self": 1, "_saved_mat2": 0},
}
Node = Any  # torch.autograd.graph.Node, whose saved attributes no stub knows


def storage_key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def grad_nodes(values: Any) -> set[Node]:
    """The graph nodes that made the tensors in ``values``, a tensor or any nesting of them."""
    return {t.grad_fn for t in tree_leaves(values) if isinstance(t, torch.Tensor) and t.grad_fn is not None}


def nodes_between(outputs: set[Node], inputs: set[Node]) -> Iterator[Node]:
    """Every node behind ``outputs``, ``outputs`` included, as far as ``inputs``, which are not."""
    seen, stack = set(inputs), list(outputs)
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(previous for previous, _ in node.next_functions)


def saved_tensors(node: Node) -> Iterator[tuple[str, torch.Tensor]]:
    """(attribute, tensor) of everything that a node keeps for its backward pass.

    A Python function (bitsandbytes' products) may keep tensors as plain attributes, which no hook sees.
    """
    kept = {name: getattr(node, name) for name in dir(node) if name.startswith("_saved_") or name == "saved_tensors"}
    for name, values in (kept | getattr(node, "__dict__", {})).items():
        for value in tree_leaves(values):
            if isinstance(value, torch.Tensor):
                yield name, value


def upstream_masks(root: Node, leaves: dict[int, int]) -> dict[Node, int]:
    """For every node, the bits of the leaves (id of a parameter -> bit) that it depends on."""
    masks: dict[Node, int] = {}
    stack = [root]
    while stack:
        node = stack[-1]
        previous = [p for p, _ in node.next_functions if p is not None]
        waiting = [p for p in previous if p not in masks]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        leaf = leaves.get(id(getattr(node, "variable", None)), 0)
        masks[node] = leaf | union(masks[p] for p in previous)
    return masks


def needed_by(node: Node, attribute: str, masks: dict[Node, int]) -> int:
    """The bits of the locations whose insertion makes ``node`` keep what it saved as ``attribute``."""
    factor = FACTORS.get(type(node).__name__, {}).get(attribute)
    if factor is None or factor >= len(node.next_functions):
        return masks[node]
    return masks.get(node.next_functions[factor][0], 0)


def union(masks: Iterable[int]) -> int:
    result = 0
    for mask in masks:
        result |= mask
    return result
