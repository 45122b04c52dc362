"""What a meter counts on a CPU: storages that live, and nothing that only looks like one."""

import torch

from taskit.training.peak import PeakMeter


def test_the_largest_sum_of_live_storages_is_kept():
    meter = PeakMeter(torch.device("cpu"))
    with meter:
        kept = torch.zeros(100)
        gone = torch.zeros(200)
        del gone
        torch.zeros(50)
    torch.zeros(1000)
    assert meter.peak == (4 * 300, "cpu-storages")
    assert len(kept) == 100


def test_tensors_without_memory_are_not_counted():
    meter = PeakMeter(torch.device("cpu"))
    with meter:
        empty = torch.zeros(1000, device="meta")
        real = torch.zeros(10)
    assert meter.peak[0] == 40
    assert empty.is_meta
    assert len(real) == 10
