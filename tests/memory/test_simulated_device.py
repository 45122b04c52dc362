"""Meta tensors that pass for a device's, and what the attention kernels of that device keep."""

import pytest
import torch
import torch.nn.functional as F

from taskit.memory.live import LiveStorages
from taskit.memory.shapes import RULES
from taskit.memory.simulated_device import simulated_device

CPU = torch.device("cpu")


def test_tensors_say_they_are_on_the_device_and_have_no_memory():
    with simulated_device("cuda"):
        made = torch.zeros(2, 3, device="cuda").to("cuda")
        assert (made.device.type, made.is_cuda, made.is_cpu, made.is_meta) == ("cuda", True, False, False)
    assert made.is_meta
    assert made.shape == (2, 3)


def test_nothing_of_it_is_left_afterwards():
    before = torch.autograd._engine_run_backward
    with pytest.raises(ZeroDivisionError), simulated_device("cpu"):
        raise ZeroDivisionError
    assert torch.autograd._engine_run_backward is before
    assert torch.ones(1).device.type == "cpu"
    assert torch.ones(1).item() == 1


def kept_by_attention(device, dtype, mask):
    """Bytes saved by one attention of 2 x 4 heads x 32 tokens x 16, beside q, k, v and the mask."""
    q, k, v = (torch.empty(2, 4, 32, 16, dtype=dtype, device=device, requires_grad=True) for _ in range(3))
    attn_mask = torch.ones(2, 1, 32, 32, dtype=torch.bool, device=device) if mask else None
    own = {t.untyped_storage()._cdata for t in (q, k, v)}
    held = {}

    def pack(t):
        if t.untyped_storage()._cdata not in own:
            held[t.untyped_storage()._cdata] = t.untyped_storage()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        F.scaled_dot_product_attention(q, k, v, attn_mask)
    return sum(storage.nbytes() for storage in held.values())


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_keeps_what_the_cpu_kernel_keeps(dtype, mask):
    with simulated_device("cpu"):
        posed = kept_by_attention("meta", dtype, mask)
    assert posed == kept_by_attention("cpu", dtype, mask)


@pytest.mark.parametrize(("dtype", "mask"), [(torch.bfloat16, False), (torch.float32, False), (torch.bfloat16, True)])
def test_a_gpu_keeps_no_attention_matrix(dtype, mask):
    with simulated_device("cuda"):
        kept = kept_by_attention("meta", dtype, mask)
    output, matrix = 2 * 4 * 32 * 16 * dtype.itemsize, 2 * 4 * 32 * 32 * dtype.itemsize
    assert output <= kept < output + matrix + (matrix if mask else 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("left", "right"), [((6, 8), (2, 8, 16)), ((8, 8), (8, 16))])
def test_grouped_products_have_the_shape_of_the_real_ones(dtype, left, right):
    offsets = torch.tensor([2, 6], dtype=torch.int32)
    real = torch._grouped_mm(torch.ones(left, dtype=dtype), torch.ones(right, dtype=dtype), offsets)
    with LiveStorages(rules=RULES), torch.device("meta"):
        ruled = torch._grouped_mm(torch.ones(left, dtype=dtype), torch.ones(right, dtype=dtype), torch.ones(2).int())
    assert (ruled.shape, ruled.dtype) == (real.shape, real.dtype)


def test_an_operator_without_a_rule_says_which_it_is():
    with simulated_device("cpu"), pytest.raises(RuntimeError, match="nonzero"):
        torch.ones(3).nonzero()
