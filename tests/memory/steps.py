"""Slow, literal counts of a training step's memory on real tensors; nothing here shares code with taskit.memory."""

import torch
from torch.profiler import ProfilerActivity, profile


def saved_bytes(model, batch):
    """Bytes of the distinct storages that the forward pass really saves, parameters and batch left out."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), *batch.values())}
    held = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = (storage.nbytes(), tensor)  # holding it keeps the address from being reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(**batch).loss
    del loss
    return sum(size for size, _ in held.values())


def allocated_peak(standing, work):
    """Bytes of ``standing`` tensors plus the most that ``work()`` had allocated at once, by the CPU allocator."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    now = most = 0
    for event in sorted(
        (e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()
    ):
        now += event.nbytes()
        most = max(most, now)
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in standing}.values()) + most
