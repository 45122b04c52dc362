"""The paper's own predictors of activation memory, as the baselines that the trace has to beat.

TaskIT (CVPR 2026), A.2 and A.3: a binary mask over hand-made units of one kind of block says what each location
needs, and M_x(s) = g_x(s)^T m_x with g_x(s) the union over inserted locations.  Intra-block, with role:

    q: K, V, x_in      k: Q, V, x_in      v: Q, K, x_in      o: Attn(Q, K, V)
    fc1 (gate, up): Norm(x_out1)          fc2 (down): psi(W_FFN1 Norm(x_out1))

Inter-block: every block after the first inserted one keeps its Q, K, V and its attention weights, blocks before
it keep nothing.  Left out by the masks: softmax statistics, the input of psi, norms, the LoRA's
own activations, logits and loss, gated MLPs (read here as fc1 and fc2), any kernel but the plain one.

The linear index ("w/o memory model" of the ablation): memory linear in how deep the first insertion lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from taskit.backbone.target_modules import Location

Q, K, V, INPUT, ATTENDED, WEIGHTS, NORM, HIDDEN = range(8)
NEEDS = {
    "q": (K, V, INPUT),
    "k": (Q, V, INPUT),
    "v": (Q, K, INPUT),
    "qkv": (Q, K, V, INPUT),
    "o": (ATTENDED,),
    "fc1": (NORM,),
    "gate": (NORM,),
    "up": (NORM,),
    "gate_up": (NORM,),
    "fc2": (HIDDEN,),
    "down": (HIDDEN,),
}
CROSSED = (Q, K, V, WEIGHTS)  # what a gradient that passes through a block keeps, by the inter-block rule


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the unit sizes depend on besides the widths: rows, tokens a row, heads, bytes a number."""

    rows: int
    length: int
    heads: int
    number_bytes: int


def masked_bytes(locations: Sequence[Location], ranks: Sequence[int], tokens: Tokens) -> int:
    """M_x(s) in bytes by the masks of A.2 and A.3; roles that the paper does not know need their input."""
    inserted = [place for place, rank in zip(locations, ranks, strict=True) if rank]
    if not inserted:
        return 0
    first = min(place.block for place in inserted)
    units: set[tuple[int, int]] = set()
    for place in inserted:
        units.update((place.block, unit) for unit in NEEDS.get(place.role.removeprefix("cross_"), (INPUT,)))
    units.update((place.block, unit) for place in locations if place.block > first for unit in CROSSED)
    sizes = {block: _unit_bytes([p for p in locations if p.block == block], tokens) for block, _ in units}
    return sum(sizes[block][unit] for block, unit in units)


def linear_index(locations: Sequence[Location], ranks: Sequence[int]) -> int:
    """How many locations lie from the first inserted one to the loss; a least-squares line makes bytes of it."""
    first = next((k for k, rank in enumerate(ranks) if rank), len(locations))
    return len(locations) - first


def _unit_bytes(block: Sequence[Location], tokens: Tokens) -> dict[int, int]:
    """m_x of one block: the size of each unit by the widths of its projections."""
    role = {place.role.removeprefix("cross_"): place for place in reversed(block)}
    fused = role.get("qkv")
    hidden = next((role[name].in_features for name in ("q", "qkv", "fc1", "gate", "gate_up") if name in role), 0)
    out = {name: role[name].out_features if name in role else hidden for name in "qkv"}
    inner = next((role[name].in_features for name in ("fc2", "down") if name in role), 0)
    attended = role["o"].in_features if "o" in role else hidden
    count = tokens.rows * tokens.length * tokens.number_bytes
    widths = {Q: out["q"], K: out["k"], V: out["v"], INPUT: hidden, ATTENDED: attended, NORM: hidden, HIDDEN: inner}
    if fused is not None:
        widths |= dict.fromkeys((Q, K, V), fused.out_features // 3)
    weights = tokens.rows * tokens.heads * tokens.length**2 * tokens.number_bytes
    return {unit: width * count for unit, width in widths.items()} | {WEIGHTS: weights}
