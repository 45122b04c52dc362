"""EVA (Paischer et al., 2024) by PEFT: lora_A starts with the main directions of what flows into each location."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from taskit.methods.method import MethodContext, Option, Options, ResolvedMethod, chosen_by, the_same
from taskit.step.parametrization import Decisions, Parametrization, Preparation, lora_pair

BATCHES = 64  # that are gone through again until the directions no longer move


@dataclass(frozen=True, slots=True)
class Eva:
    """LoRA of one rank everywhere with EVA's start; its redistribution of ranks would not keep the plan."""

    name: str = "eva"
    explanation: str = (
        "EVA is the usual LoRA of one rank everywhere with a better start: before training it looks at what flows "
        "into each matrix on your data, and points the LoRA along the main directions."
    )

    @property
    def options(self) -> Mapping[str, Option]:
        return {}

    def resolve(self, context: MethodContext, given: Options) -> ResolvedMethod:  # noqa: ARG002
        return ResolvedMethod(**chosen_by(importance=False), options=partial(the_same, {}))

    def parametrization(self, options: Options) -> Parametrization:  # noqa: ARG002
        return Directed()


class Directed(Parametrization):
    """Plain LoRA from EVA's start."""

    def prepare(self, preparation: Preparation) -> Decisions:
        import torch
        from peft import EvaConfig, get_eva_state_dict

        model = preparation.model
        config = copy(model.peft_config["default"])
        config.eva_config, config.rank_pattern = EvaConfig(rho=1.0), {}  # one rank everywhere, and it stays
        directions = get_eva_state_dict(
            model,
            list(islice(preparation.batches(), BATCHES)),
            peft_config=config,
            prepare_model_inputs_fn=_mask,
            prepare_layer_inputs_fn=_tokens,
            gather_distributed_inputs=False,  # every process sees all of them
            show_progress_bar=False,
        )
        with torch.no_grad():
            for name, found in directions.items():
                lora_pair(model, name.removeprefix("base_model.model."))[0].weight.copy_(found)
        return {}


def _mask(batch: Mapping[str, Any], _: Any) -> Any:
    return batch.get("attention_mask")


def _tokens(inputs: Any, mask: Any, _: str) -> Any:
    """The inputs of a layer (n, d), without padding."""
    x = inputs[0] if isinstance(inputs, tuple) else inputs
    if mask is not None and x.shape[:-1] == mask.shape:
        return x[mask.bool()]
    return x.flatten(0, -2)
