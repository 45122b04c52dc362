"""Memory profiles for tests: hand-made, random, and shaped like real networks."""

from dataclasses import replace

from taskit.memory.profile import MemoryProfile, RecomputableBlock, Storage


def make_profile(rank_bytes, storages, blocks=None, constant=0, fixed=None, transient=0):
    n = len(rank_bytes)
    return MemoryProfile(
        locations=tuple(f"location.{k}" for k in range(n)),
        blocks=tuple(blocks or [0] * n),
        constant_bytes=constant,
        rank_bytes=tuple(int(b) for b in rank_bytes),
        fixed_bytes=tuple(fixed or [0] * n),
        storages=tuple(Storage(int(size), tuple(needed_by)) for needed_by, size in storages.items()),
        transient_bytes=transient,
    )


def in_blocks(profile, spared=0.25, input_share=1.0):
    """The same network with every block recomputable, as if it had been traced so.

    What a location at the end of its block needs is made inside it, alone or with all before; what several blocks
    read (the encoder's output) is not, nor what everything needs (the loss). A block's input is as large as that of
    its first location.
    """
    n = len(profile.locations)
    ranges = [
        (min(k for k in range(n) if profile.blocks[k] == b), max(k for k in range(n) if profile.blocks[k] == b))
        for b in sorted(set(profile.blocks))
    ]
    home = {k: b for b, (first, last) in enumerate(ranges) for k in range(first, last + 1)}
    storages, inputs = [], [0] * len(ranges)
    for storage in profile.storages:
        readers = storage.needed_by
        b = home[readers[-1]]
        first, _ = ranges[b]
        inside = readers[0] in (0, first) or readers[0] >= first
        storages.append(replace(storage, block=b if inside and len(readers) < n else None))
        if readers[0] == first:
            inputs[b] = max(inputs[b], int(storage.bytes * input_share))
    return replace(
        profile,
        storages=tuple(storages),
        kept_rank_bytes=tuple(int(size * spared) for size in profile.rank_bytes),
        recomputable=tuple(
            RecomputableBlock(f"block.{b}", first, last, inputs[b]) for b, (first, last) in enumerate(ranges)
        ),
    )


def of_rows(profile, share):
    """The profile of a step that takes this share of the rows at once: activations shrink, weights do not."""
    spared = [int(size * share) for size in profile.kept_rank_bytes]
    return replace(
        profile,
        storages=tuple(replace(s, bytes=int(s.bytes * share)) for s in profile.storages),
        rank_bytes=tuple(
            size - all_of_it + part
            for size, all_of_it, part in zip(profile.rank_bytes, profile.kept_rank_bytes, spared, strict=True)
        ),
        kept_rank_bytes=tuple(spared),
        recomputable=tuple(replace(b, input_bytes=int(b.input_bytes * share)) for b in profile.recomputable),
    )


def hand_profile():
    """By hand: a1 = 1, rest = 6, p2 = 2, a2 = 1, one unit per module."""
    return make_profile([1, 1], {(0,): 1 + 6, (0, 1): 2, (1,): 1})


def sequential_profile(rng, blocks, unit=1):
    """A random small network: q, k, v share their input and may have a branch each; then o or a gated MLP."""
    storages, rank_bytes, block_of = {}, [], []

    def save(needed_by, high=9):
        if needed_by:
            key = tuple(sorted(needed_by))
            storages[key] = storages.get(key, 0) + int(rng.integers(0, high * unit))

    for block in range(blocks):
        before = tuple(range(len(rank_bytes)))
        members = int(rng.integers(1, 4))
        group = tuple(range(len(before), len(before) + members))
        save(before)
        save(group)
        for k in group:
            save((*before, k), 4)
            rank_bytes.append(int(rng.integers(1, 6 * unit)))
            block_of.append(block)
        save((*before, *group))
    save(tuple(range(len(rank_bytes))))
    return make_profile(rank_bytes, storages, block_of, constant=int(rng.integers(0, 50)), transient=7)


def random_profile(rng, locations, storages):
    """Any needed_by sets: parallel branches, encoder-decoder links, and stranger."""
    sets = {}
    for _ in range(storages):
        members = rng.choice(locations, int(rng.integers(1, locations + 1)), replace=False)
        sets[tuple(sorted(members.tolist()))] = int(rng.integers(0, 40))
    rank_bytes = rng.integers(0, 6, locations)
    return make_profile(rank_bytes, sets, fixed=rng.integers(0, 3, locations).tolist())


def llama_profile(blocks, width=512, inner=1408, kv=128, tokens=1024):
    """A gated decoder in bf16 with flash attention: 7 locations per block, RoPE, grouped queries."""
    storages, rank_bytes = {}, []

    def save(needed_by, size):
        if needed_by:
            storages[needed_by] = storages.get(needed_by, 0) + size

    hidden, wide = 2 * tokens * width, 2 * tokens * inner
    for start in range(0, 7 * blocks, 7):
        before = tuple(range(start))
        q, k, v, o, gate, up, down = range(start, start + 7)
        shapes = [
            (width, width),
            (width, kv),
            (width, kv),
            (width, width),
            (width, inner),
            (width, inner),
            (inner, width),
        ]
        rank_bytes += [12 * (i + out) + 2 * tokens for i, out in shapes]
        for inputs, size in (((q, k, v), hidden), ((o,), hidden), ((gate, up), hidden), ((down,), wide)):
            save(inputs, size)
        save(before, 2 * hidden)
        save((*before, q), 2 * tokens * 64)
        save((*before, k), 2 * tokens * 32)
        save((*before, q, k, v), 3 * hidden // 2 + 4 * tokens * 8)
        save((*before, q, k, v, o), 2 * hidden)
        save((*before, q, k, v, o, gate), wide)
        save((*before, q, k, v, o, up), wide)
        save((*before, q, k, v, o, gate, up), wide)
    save(tuple(range(7 * blocks)), 4 * tokens * 3000)
    return make_profile(rank_bytes, storages, [k // 7 for k in range(7 * blocks)], constant=10**8, transient=12_345)


def encoder_decoder_profile(blocks):
    """Like T5: cross-attention keys and values of every decoder block read the one encoder output."""
    encoder = tuple(range(2 * blocks))
    storages, last = {}, 6 * blocks
    for k in encoder:
        storages[(k,)] = 1000
        storages[encoder[: k + 1]] = 700 + k
    cross = tuple(k for start in range(2 * blocks, last, 4) for k in (start + 1, start + 2))
    storages[cross] = 5000
    for start in range(2 * blocks, last, 4):
        own, key, value, mlp = range(start, start + 4)
        before = tuple(range(2 * blocks, start))
        storages[(own,)], storages[(mlp,)] = 900, 1800
        storages[(*before, own)] = 400
        storages[(*encoder, *before, own, key, value)] = 1500
        storages[(*encoder, *before, own, key, value, mlp)] = 600
    block_of = [k // 2 if k in encoder else blocks + (k - 2 * blocks) // 4 for k in range(last)]
    return make_profile([37 + k for k in range(last)], storages, block_of)
