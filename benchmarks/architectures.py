"""Real architectures at the sizes people fine-tune, from their configurations alone: no weight is needed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as t

from benchmarks import pictures
from taskit.backbone.loading import as_loaded
from taskit.memory.conditions import BatchShape

GENERATION = "text-generation"
TEXT_CLASSES = "text-classification"
IMAGE_CLASSES = "image-classification"
ABOUT_IMAGES = "image-text-to-text"


@dataclass(frozen=True, slots=True)
class Architecture:
    """How to build one model on the meta device, and a batch it is trained with.

    ``tokens`` is (rows, length), beside the tokens of images where ``pictures`` makes the batch.
    """

    task: str
    config: type[t.PreTrainedConfig]
    settings: Mapping[str, Any] = field(default_factory=dict)
    tokens: tuple[int, int] = (4, 128)
    dtype: torch.dtype = torch.float32
    model: Any = None  # a class, where no Auto class has the model
    pictures: Callable[[Any, int, int], dict[str, torch.Tensor]] | None = None
    vision_tower: bool = False  # whether its locations are candidates too

    def build(self) -> t.PreTrainedModel:
        """The model without weights, frozen, dropout off: what `empty_model` makes of a checkpoint."""
        own = {} if self.task == ABOUT_IMAGES else {"attention_dropout": 0.0}
        config = self.config(**{**self.settings, **own})
        for part in (config, config.get_text_config()):
            for name, value in part.to_dict().items():
                if "drop" in name and isinstance(value, float):
                    setattr(part, name, 0.0)
        config.architectures = []
        if config.is_encoder_decoder:
            config.decoder_start_token_id = 0
        if self.task == TEXT_CLASSES and config.pad_token_id is None:
            config.pad_token_id = 0
        auto = {
            GENERATION: t.AutoModelForSeq2SeqLM if config.is_encoder_decoder else t.AutoModelForCausalLM,
            TEXT_CLASSES: t.AutoModelForSequenceClassification,
            IMAGE_CLASSES: t.AutoModelForImageClassification,
            ABOUT_IMAGES: t.AutoModelForImageTextToText,
        }[self.task]
        with torch.device("meta"):
            made = self.model(config).to(self.dtype) if self.model else auto.from_config(config, dtype=self.dtype)
        return as_loaded(made).requires_grad_(False).eval()

    def batch(self) -> BatchShape:
        rows, length = self.tokens
        if self.pictures:
            return BatchShape.of(self.pictures(self.config(**self.settings), rows, length))
        if self.task == IMAGE_CLASSES:
            side = self.settings.get("image_size", 224)
            return BatchShape((("pixel_values", (rows, 3, side, side), "float32"), ("labels", (rows,), "int64")))
        labels = (rows, length) if self.task == GENERATION else (rows,)
        return BatchShape(
            (
                ("input_ids", (rows, length), "int64"),
                ("attention_mask", (rows, length), "int64"),
                ("labels", labels, "int64"),
            )
        )


LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
LLAMA_70B = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
QWEN3 = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
GEMMA3 = {
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "num_hidden_layers": 26,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 262144,
}
PHI3 = {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32}
MIXTRAL = {
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
T5 = {
    "d_model": 768,
    "d_ff": 3072,
    "d_kv": 64,
    "num_layers": 12,
    "num_decoder_layers": 12,
    "num_heads": 12,
    "vocab_size": 32128,
}
BF16 = torch.bfloat16

ARCHITECTURES = {
    "ViT-B/16": Architecture(IMAGE_CLASSES, t.ViTConfig),
    "DeiT-S": Architecture(
        IMAGE_CLASSES, t.DeiTConfig, {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
    ),
    "Swin-T": Architecture(IMAGE_CLASSES, t.SwinConfig),
    "DINOv2-B": Architecture(IMAGE_CLASSES, t.Dinov2Config, {"image_size": 224, "patch_size": 14}),
    "BERT-base": Architecture(TEXT_CLASSES, t.BertConfig),
    "RoBERTa-base": Architecture(
        TEXT_CLASSES, t.RobertaConfig, {"vocab_size": 50265, "max_position_embeddings": 514}
    ),
    "DistilBERT": Architecture(TEXT_CLASSES, t.DistilBertConfig),
    "ModernBERT-base": Architecture(TEXT_CLASSES, t.ModernBertConfig),
    "GPT-2": Architecture(GENERATION, t.GPT2Config),
    "Llama-1B": Architecture(GENERATION, t.LlamaConfig, LLAMA_1B, dtype=BF16),
    "Qwen3-0.6B": Architecture(GENERATION, t.Qwen3Config, QWEN3, dtype=BF16),
    "Gemma3-1B": Architecture(GENERATION, t.Gemma3TextConfig, GEMMA3, dtype=BF16),
    "Phi-3-mini": Architecture(GENERATION, t.Phi3Config, PHI3, dtype=BF16),
    "Mixtral-small": Architecture(GENERATION, t.MixtralConfig, MIXTRAL, dtype=BF16),
    "T5-base": Architecture(GENERATION, t.T5Config, T5),
    "Janus-Pro-1B": Architecture(
        GENERATION, t.JanusConfig, pictures.JANUS_PRO_1B, dtype=BF16, model=t.JanusForConditionalGeneration
    ),
    "Janus-Pro-1B, images": Architecture(
        ABOUT_IMAGES, t.JanusConfig, pictures.JANUS_PRO_1B, (2, 64), BF16, pictures=pictures.janus
    ),
    "SmolVLM-256M": Architecture(
        ABOUT_IMAGES, t.SmolVLMConfig, pictures.SMOLVLM_256M, (2, 64), BF16, pictures=pictures.smolvlm
    ),
    "SmolVLM-256M, tower": Architecture(
        ABOUT_IMAGES, t.SmolVLMConfig, pictures.SMOLVLM_256M, (2, 64), BF16, None, pictures.smolvlm, True
    ),
    "Qwen2.5-VL-3B": Architecture(
        ABOUT_IMAGES, t.Qwen2_5_VLConfig, pictures.QWEN25_VL_3B, (2, 64), BF16, pictures=pictures.qwen
    ),
    "Qwen2.5-VL-3B, tower": Architecture(
        ABOUT_IMAGES, t.Qwen2_5_VLConfig, pictures.QWEN25_VL_3B, (2, 64), BF16, None, pictures.qwen, True
    ),
}
LLAMA_70B_BASE = Architecture(GENERATION, t.LlamaConfig, LLAMA_70B, tokens=(1, 512), dtype=BF16)
