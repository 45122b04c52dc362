"""Small random models of many architectures, built from their configurations alone."""

import torch
import transformers as t

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
HEADS = {"num_key_value_heads": 2, "head_dim": 8}
TEXT = {"vocab_size": 50, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
IMAGE = {"image_size": 16, "patch_size": 8}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4}
DINO = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, **IMAGE}
T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
CLIP_TOWER = {**SIZES, **IMAGE}
VQ = {"embed_dim": 8, "num_embeddings": 16, "base_channels": 32, "num_res_blocks": 1, "channel_multiplier": [1]}

# name: (Auto or model class, configuration class, its settings)
ARCHITECTURES = {
    "vit": (t.AutoModelForImageClassification, t.ViTConfig, {**SIZES, **IMAGE}),
    "deit": (t.AutoModelForImageClassification, t.DeiTConfig, {**SIZES, **IMAGE}),
    "swin": (t.AutoModelForImageClassification, t.SwinConfig, SWIN),
    "swinv2": (t.AutoModelForImageClassification, t.Swinv2Config, SWIN),
    "dinov2": (t.AutoModelForImageClassification, t.Dinov2Config, DINO),
    "dinov2-swiglu": (t.AutoModelForImageClassification, t.Dinov2Config, {**DINO, "use_swiglu_ffn": True}),
    "bert": (t.AutoModelForSequenceClassification, t.BertConfig, {**SIZES, **TEXT}),
    "roberta": (t.AutoModelForSequenceClassification, t.RobertaConfig, {**SIZES, **TEXT}),
    "albert": (t.AutoModelForSequenceClassification, t.AlbertConfig, {**SIZES, **TEXT, "embedding_size": 8}),
    "distilbert": (
        t.AutoModelForSequenceClassification,
        t.DistilBertConfig,
        {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    ),
    "modernbert": (
        t.AutoModelForSequenceClassification,
        t.ModernBertConfig,
        {**SIZES, **TEXT, "cls_token_id": 1, "sep_token_id": 2},
    ),
    "gpt2": (
        t.AutoModelForCausalLM,
        t.GPT2Config,
        {
            "vocab_size": 50,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 32,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "llama": (t.AutoModelForCausalLM, t.LlamaConfig, {**SIZES, **TEXT}),
    "qwen3": (t.AutoModelForCausalLM, t.Qwen3Config, {**SIZES, **HEADS, **TEXT}),
    "gemma3": (t.AutoModelForCausalLM, t.Gemma3TextConfig, {**SIZES, **HEADS, **TEXT}),
    "phi3": (t.AutoModelForCausalLM, t.Phi3Config, {**SIZES, **TEXT}),
    "mixtral": (t.AutoModelForCausalLM, t.MixtralConfig, {**SIZES, **HEADS, **TEXT, "num_local_experts": 2}),
    "qwen2-moe": (
        t.AutoModelForCausalLM,
        t.Qwen2MoeConfig,
        {
            **SIZES,
            **TEXT,
            "num_key_value_heads": 2,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "qwen3-moe": (  # its first block without experts
        t.AutoModelForCausalLM,
        t.Qwen3MoeConfig,
        {
            **SIZES,
            **HEADS,
            **TEXT,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 16,
            "mlp_only_layers": [0],
        },
    ),
    "mamba": (t.AutoModelForCausalLM, t.MambaConfig, {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2}),
    "t5": (t.AutoModelForSeq2SeqLM, t.T5Config, T5),
    "t5-gated": (t.AutoModelForSeq2SeqLM, t.T5Config, {**T5, "feed_forward_proj": "gated-gelu"}),
    "clip-vision": (t.CLIPVisionModel, t.CLIPVisionConfig, CLIP_TOWER),
    "clip": (
        t.AutoModelForImageClassification,
        t.CLIPConfig,
        {"text_config": SIZES, "vision_config": CLIP_TOWER},
    ),
    "janus": (
        t.JanusForConditionalGeneration,
        t.JanusConfig,
        {
            "text_config": t.LlamaConfig(**SIZES, **TEXT),
            "vision_config": t.JanusVisionConfig(**SIZES, **IMAGE, projection_dim=16),
            "vq_config": t.JanusVQVAEConfig(**VQ, projection_dim=16, image_token_embed_dim=16),
        },
    ),
}


def tiny_model(name: str) -> t.PreTrainedModel:
    """A random model of the architecture `name`, a few thousand parameters large, in eval mode."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kind, configure, settings = ARCHITECTURES[name]
    config = configure(**settings)
    config.architectures = []  # else Transformers cannot choose between the two classes of DeiT
    return (kind.from_config(config) if hasattr(kind, "from_config") else kind(config)).eval()
