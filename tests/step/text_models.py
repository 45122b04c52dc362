"""Small random models that write text, with logits far enough from zero that caps and scales of them tell."""

from typing import Any

import torch
import transformers as t

from tests import tiny

COMMON = {**tiny.SIZES, **tiny.TEXT}
GROUPED = {**COMMON, **tiny.HEADS}
SEQ2SEQ = {"vocab_size": 50, "d_model": 16, "pad_token_id": 0, "decoder_start_token_id": 0}
BART = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "encoder_layers": 1, "decoder_layers": 1}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 32}
EXPERTS = {"output_router_logits": True, "router_aux_loss_coef": 0.3, "num_experts_per_tok": 1}
SMOLVLM = {
    "text_config": {"model_type": "llama", **COMMON},
    "vision_config": {**tiny.SIZES, **tiny.IMAGE},
    "image_token_id": 49,
    "scale_factor": 2,
    "pad_token_id": 0,
}
OPT = {"ffn_dim": 32, "word_embed_proj_dim": 16, "vocab_size": 50, "max_position_embeddings": 32}
T5 = {**tiny.T5, "decoder_start_token_id": 0}

# name: (model class, configuration class, its settings)
MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (t.LlamaForCausalLM, t.LlamaConfig, COMMON),
    "llama, tied": (t.LlamaForCausalLM, t.LlamaConfig, {**COMMON, "tie_word_embeddings": True}),
    "qwen3": (t.Qwen3ForCausalLM, t.Qwen3Config, GROUPED),
    "gemma2": (t.Gemma2ForCausalLM, t.Gemma2Config, {**GROUPED, "final_logit_softcapping": 2.0}),
    "gemma3": (t.Gemma3ForCausalLM, t.Gemma3TextConfig, GROUPED),
    "mixtral": (t.MixtralForCausalLM, t.MixtralConfig, {**GROUPED, **EXPERTS, "num_local_experts": 2}),
    "qwen3-moe": (
        t.Qwen3MoeForCausalLM,
        t.Qwen3MoeConfig,
        {**GROUPED, **EXPERTS, "num_experts": 2, "moe_intermediate_size": 16, "mlp_only_layers": [0]},
    ),
    "gpt2": tiny.ARCHITECTURES["gpt2"],
    "opt": (t.OPTForCausalLM, t.OPTConfig, {**tiny.SIZES, **OPT}),
    "cohere": (t.CohereForCausalLM, t.CohereConfig, {**COMMON, "logit_scale": 0.3}),
    "granite": (t.GraniteForCausalLM, t.GraniteConfig, {**COMMON, "logits_scaling": 3.0}),
    "mamba": tiny.ARCHITECTURES["mamba"],
    "janus": tiny.ARCHITECTURES["janus"],
    "smolvlm": (t.SmolVLMForConditionalGeneration, t.SmolVLMConfig, SMOLVLM),
    "t5": (t.T5ForConditionalGeneration, t.T5Config, {**T5, "tie_word_embeddings": True}),
    "bart": (t.BartForConditionalGeneration, t.BartConfig, {**SEQ2SEQ, **BART}),
}


def text_model(name: str, **changed: Any) -> Any:
    """A random model with a few thousand parameters, no dropout, in eval mode; some of its settings ``changed``."""
    torch.manual_seed(0)
    kind, configure, settings = MODELS[name]
    config = configure(**settings | changed)
    config.architectures = []
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    model = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim == 2:
                tensor.mul_(1.0 if name == "t5" else 4.0)  # T5 does not divide its attention's logits by anything
        if name == "bart":
            model.final_logits_bias.normal_()
    return model.eval()


def text_batch(name: str, rows: int = 3, tokens: int = 9) -> dict[str, torch.Tensor]:
    """Rows with padding and tokens that are not learned; SmolVLM's first ones stand for an image."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 49, (rows, tokens), generator=generator)
    mask, labels = torch.ones_like(ids), ids.clone()
    ids[0, 6:] = mask[0, 6:] = 0
    labels[0, 6:] = labels[1, :3] = -100
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if name == "smolvlm":
        ids[:, 0] = 49
        labels[:, 0] = -100
        batch["pixel_values"] = torch.rand(rows, 1, 3, 16, 16, generator=generator)
    return batch
