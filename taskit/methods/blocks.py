"""Compact blocks of every location for every gamma, from the sensitivity of single entries (CDRA-SPT Eq. 3)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from taskit.methods.cdra import Granted, eq7_rank
from taskit.methods.compact import Block
from taskit.methods.method import MethodContext
from taskit.transfer.sensitivity import entry_sensitivities


def granted_blocks(context: MethodContext, gammas: Sequence[float]) -> dict[str, tuple[Granted, ...]]:
    """What each location is granted at each of ``gammas``, which ascend: sensitivity of the probe's rows."""
    names, probe_context = [place.name for place in context.places], context.probe_context
    found = entry_sensitivities(probe_context.model, probe_context.probes, probe_context.read_graph, names)
    sensitivity = {
        place.name: found.get(place.name, torch.zeros(place.out_features, place.in_features)).float()
        for place in context.places
    }
    limits = thresholds(sensitivity, gammas)
    return {name: tuple(granted(entries, limit) for limit in limits) for name, entries in sensitivity.items()}


def thresholds(sensitivity: Mapping[str, Tensor], gammas: Sequence[float]) -> list[float]:
    """The least sensitivity that is among the share gamma of the largest of all locations, for each gamma."""
    entries = torch.cat([one.flatten() for one in sensitivity.values()]).sort(descending=True).values
    return [float(entries[max(1, min(len(entries), round(gamma * len(entries)))) - 1]) for gamma in gammas]


def granted(entries: Tensor, limit: float) -> Granted:
    """Block and rank of one matrix of sensitivities (out, in); an entry of 0 is never sensitive."""
    mask = (entries >= limit) & (entries > 0)
    rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
    rank = eq7_rank(int(mask.sum()), len(rows), len(columns), *entries.shape)
    return Granted(rank, Block.of(rows, columns))
