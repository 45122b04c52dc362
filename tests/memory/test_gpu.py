"""What only a GPU can show; skipped where there is none."""

import pytest
import torch

from taskit.memory.conditions import BatchShape, Conditions
from taskit.memory.device import runtime_bytes, training_device
from taskit.memory.rehearsal import rehearse
from taskit.step.lora import adapt
from taskit.step.step import make_optimizer, train_step
from tests.memory.test_trace import CASES, on_meta, profile_of, without_dropout

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")


def test_a_machine_without_a_gpu_trains_on_its_cpu():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert training_device() == expected
    assert runtime_bytes("cpu") == 0


@needs_gpu
@pytest.mark.parametrize("name", ["vit", "llama"])
def test_the_predicted_peak_is_the_allocators(name):
    profile, batch, heads = profile_of(name)
    ranks = dict.fromkeys(profile.locations, 8)
    conditions = Conditions(BatchShape.of(batch), device="cuda", runtime_bytes=runtime_bytes("cuda"))
    predicted = rehearse(lambda: on_meta(name), ranks, heads, CASES[name], conditions)
    model = adapt(without_dropout(name), ranks, heads, CASES[name]).cuda()
    model.train()
    torch.cuda.reset_peak_memory_stats()
    micro, _ahead = [{k: v.cuda() for k, v in batch.items()} for _ in range(2)]
    optimizer = make_optimizer("adamw", [p for p in model.parameters() if p.requires_grad], 1e-3, 0.0)
    for _ in range(2):
        train_step(model, optimizer, [micro])
    assert predicted == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.03)
