"""Sensitivity of every location for the new task itself: squared gradients, as SPT and CDRA-SPT (Eq. 3) take them.

    s_k = (1 / n) sum_j || dL_j / dW_k ||_F^2

summed over the entries of W_k, one example j at a time.  For a linear layer the gradient of one example is
D^T X, with the gradients D (t, out) at its output and its inputs X (t, in); its squared norm is also
the sum of (D D^T) * (X X^T), so that for few tokens no matrix of the size of W_k is made.  Blocks are recomputed in
the backward pass where the model can do that: the memory is one example's, one block at a time.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import set_checkpoint_early_stop
from transformers import PreTrainedModel

from taskit.step.recompute import recomputed
from taskit.transfer.probe import Probe

Read = Callable[[Mapping[str, Tensor]], Tensor]
Measure = Callable[[Tensor, Tensor], Tensor]  # of D (t, out) and X (t, in) of one example


def sensitivities(
    model: PreTrainedModel, probes: Sequence[Probe], read: Read, locations: Sequence[str]
) -> tuple[float, ...]:
    """s_k of each of ``locations``, linear modules of ``model``, whose parameters need no gradient.

    ``read`` gives the features x of some inputs *with* their graph; the loss is the one whose gradient at x the
    probes hold.  0 for a location that the features do not depend on.
    """
    found = _means(model, _features(probes, read), locations, _squared_norm)
    return tuple(float(found[name]) if name in found else 0.0 for name in locations)


def entry_sensitivities(
    model: PreTrainedModel, probes: Sequence[Probe], read: Read, locations: Sequence[str]
) -> dict[str, Tensor]:
    """The addends of `sensitivities`, (1 / n) sum_j (dL_j / dW_k)^2 of every entry, (out, in), by location."""
    return _means(model, _features(probes, read), locations, lambda d, x: (d.T @ x).square())


def fisher_filters(
    model: PreTrainedModel,
    examples: Iterable[Mapping[str, Tensor]],
    loss: Callable[[Mapping[str, Tensor]], Tensor],
    locations: Sequence[str],
) -> dict[str, Tensor]:
    """Diagonal Fisher information of each location's matrix, averaged over the inputs of each output, (out,).

    ``examples`` are batches of one row, ``loss`` gives their loss with its graph.
    """
    roots = ((loss(example), torch.ones(())) for example in examples)
    return _means(model, roots, locations, _filter_norms)


def _features(probes: Sequence[Probe], read: Read) -> Iterator[tuple[Tensor, Tensor]]:
    """Features x of each example, and the gradient of its own loss at them."""
    count = sum(len(probe.x) for probe in probes)
    for probe in probes:
        for row in range(len(probe.x)):
            yield (
                read(rows_of(probe.inputs, slice(row, row + 1), len(probe.x))),
                probe.gradient[row : row + 1] * count,
            )


def _means(
    model: PreTrainedModel, roots: Iterable[tuple[Tensor, Tensor]], locations: Sequence[str], measure: Measure
) -> dict[str, Tensor]:
    """The mean of ``measure`` over the examples, by location; a location that no root depends on is left out.

    ``roots`` are made one at a time: where a backward pass starts, and the gradient there.
    """
    with recomputed(model) as recomputing:
        squares = _Squares(recomputing, measure)
        # no early stop: a block's last linear needs no recomputed input for the backward pass, but we do
        with squares.listening(model, locations), torch.enable_grad(), set_checkpoint_early_stop(False):
            count = 0
            for root, gradient in roots:
                squares.backward(root, gradient.to(root))
                count += 1
    return {name: total / count for name, total in squares.sums.items()}


class _Squares:
    """Inputs X and output gradients D of every call of a location, kept until all calls of an example are there."""

    def __init__(self, recomputing: bool, measure: Measure) -> None:
        self.recomputing, self.measure = recomputing, measure
        self.sums: dict[str, Tensor] = {}
        self.calls: dict[str, int] = defaultdict(int)  # of one example: more than one where blocks share weights
        self.inputs: dict[str, list[Tensor]] = defaultdict(list)
        self.gradients: dict[str, list[Tensor]] = defaultdict(list)
        self.going_back = False

    @contextmanager
    def listening(self, model: nn.Module, locations: Sequence[str]) -> Iterator[None]:
        with ExitStack() as stack:
            for name in locations:
                hook = partial(self._called, name)
                stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
            yield

    def backward(self, x: Tensor, gradient: Tensor) -> None:
        self.going_back = True
        if x.requires_grad:
            x.backward(gradient)
        self.going_back = False
        for kept in (self.calls, self.inputs, self.gradients):
            kept.clear()

    def _called(self, name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not output.requires_grad:
            output.requires_grad_()  # the first location of all: nothing before it has a gradient
        if not self.going_back:  # the graph is that of the first forward; a recomputed one only gives its tensors
            self.calls[name] += 1
            output.register_hook(partial(self._arrived, name))
        if self.going_back or not self.recomputing:
            self.inputs[name].append(inputs[0].detach())
            self._meet(name)

    def _arrived(self, name: str, gradient: Tensor) -> None:
        self.gradients[name].append(gradient)
        self._meet(name)

    def _meet(self, name: str) -> None:
        xs, ds = self.inputs[name], self.gradients[name]
        if len(xs) == len(ds) == self.calls[name]:
            ordered = xs if self.recomputing else xs[::-1]  # gradients, and what is recomputed, come last call first
            x, d = (torch.cat([one.flatten(0, -2) for one in many]).double() for many in (ordered, ds))
            value = self.measure(d, x)
            self.sums[name] = self.sums[name] + value if name in self.sums else value


def rows_of(batch: Mapping[str, Tensor], some: slice, count: int) -> Mapping[str, Tensor]:
    """Some of the ``count`` rows of a batch; an only one whole, as its image may be several tiles or patches."""
    if count == 1:
        return batch
    return {name: tensor[some] for name, tensor in batch.items()}


def _squared_norm(d: Tensor, x: Tensor) -> Tensor:
    """|| D^T X ||_F^2 by the smaller of two products: of tokens with tokens, or of features with features."""
    if len(x) ** 2 > d.shape[1] * x.shape[1]:
        return (d.T @ x).square().sum()
    return ((d @ d.T) * (x @ x.T)).sum()


def _filter_norms(d: Tensor, x: Tensor) -> Tensor:
    """The mean square of each row of D^T X, (out,), by the smaller of the same two products."""
    if len(x) ** 2 > d.shape[1] * x.shape[1]:
        return (d.T @ x).square().mean(1)
    return ((x @ x.T @ d) * d).sum(0) / x.shape[1]
