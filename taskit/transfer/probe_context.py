"""A frozen model with a probe of the new task: what every measure, and every method, looks at."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial

from torch import Tensor, nn
from transformers import PreTrainedModel

from taskit.errors import BackboneError
from taskit.step.loss import loss_chunk, loss_of
from taskit.transfer.probe import (
    Probe,
    class_probes,
    example_features,
    frozen,
    hidden_states,
    stand_in_loss,
    text_probes,
    token_features,
)
from taskit.transfer.sensitivity import Read, rows_of
from taskit.transfer.trial import Loss, Trial, run_trial


@dataclass(frozen=True)
class ProbeContext:
    """A frozen model and a probe of the new task; ``rows`` are all batches, those of the probe last.

    ``unexplained`` is rho of `taskit.transfer.ridge_head`, one half where no head is fitted.
    """

    model: PreTrainedModel
    locations: Sequence[str]
    probes: Sequence[Probe]
    read: Read
    read_graph: Read  # the same features with their graph
    loss: Loss
    rows: Sequence[Mapping[str, Tensor]]
    unexplained: float = 0.5

    @cached_property
    def trial(self) -> Trial:
        """Run when it is first used, and kept."""
        return run_trial(self.model, self.rows, self.loss, self.locations)

    def examples(self) -> Iterator[Mapping[str, Tensor]]:
        """The rows of the probe, one at a time, labels included."""
        for probe, batch in zip(self.probes, self.rows[-len(self.probes) :], strict=True):
            yield from (rows_of(batch, slice(row, row + 1), len(probe.x)) for row in range(len(probe.x)))


@contextmanager
def open_probe(
    model: PreTrainedModel,
    batches: Sequence[Mapping[str, Tensor]],
    locations: Sequence[str],
    final_linear: nn.Linear | None,
    more: Sequence[Mapping[str, Tensor]] = (),
) -> Iterator[ProbeContext]:
    """The probe that ``batches`` are, with ``model`` frozen inside; arguments and errors as of `measure.measure`."""
    device = next(model.parameters()).device
    moved, others = (
        [{key: value.to(device) for key, value in batch.items()} for batch in some] for some in (batches, more)
    )
    rows = (*others, *moved)
    with frozen(model):
        if final_linear is not None:
            read: partial[Tensor] = partial(example_features, model, final_linear)
            probes, fitted = class_probes(model, moved, final_linear, others)
            loss: Loss = partial(stand_in_loss, read, fitted)
            yield ProbeContext(
                model, locations, probes, read, partial(read, graph=True), loss, rows, fitted.unexplained
            )
        elif (embedding := model.get_output_embeddings()) is not None:
            chunk = loss_chunk(model)
            read = partial(token_features, model, embedding) if chunk is None else partial(hidden_states, model)
            loss = partial(loss_of, model, chunk=chunk)
            probes = text_probes(model, moved, embedding)
            yield ProbeContext(model, locations, probes, read, partial(read, graph=True), loss, rows)
        else:
            raise BackboneError("The backbone has no head to read the features from; load it for a task.")
