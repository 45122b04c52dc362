"""Vision-language models at the sizes people fine-tune, and batches of images with text for them."""

from typing import Any

import torch

Batch = dict[str, torch.Tensor]

JANUS_PRO_1B = {
    "text_config": {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "vocab_size": 102400,
    }
}
SMOLVLM_256M = {
    "text_config": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49280,
    },
    "vision_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    },
    "scale_factor": 4,
    "image_token_id": 49190,
    "tie_word_embeddings": True,
}
QWEN25_VL_3B = {
    "text_config": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "patch_size": 14,
        "out_hidden_size": 2048,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "window_size": 112,
    },
    "image_token_id": 151655,
    "tie_word_embeddings": True,
}
TILES = (5, 3)  # of the images in turn, as SmolVLM cuts them
GRIDS = ((28, 36), (24, 28))  # patches of the images in turn, high and wide, as Qwen2.5-VL takes them


def janus(config: Any, rows: int, length: int) -> Batch:
    vision = config.vision_config
    side = vision.image_size
    text = _text(config, [(side // vision.patch_size) ** 2] * rows, length)
    return {**text, "pixel_values": torch.ones(rows, 3, side, side)}


def smolvlm(config: Any, rows: int, length: int) -> Batch:
    vision, tiles = config.vision_config, [TILES[row % len(TILES)] for row in range(rows)]
    side, most = vision.image_size, max(tiles)
    tokens = (side // vision.patch_size // config.scale_factor) ** 2
    there = torch.arange(most) < torch.tensor(tiles)[:, None]
    mask = there[..., None, None].expand(rows, most, side, side).long()
    pixels = mask[:, :, None].expand(rows, most, 3, side, side).float()
    return {
        **_text(config, [tokens * n for n in tiles], length),
        "pixel_values": pixels,
        "pixel_attention_mask": mask,
    }


def qwen(config: Any, rows: int, length: int) -> Batch:
    vision, grids = config.vision_config, [GRIDS[row % len(GRIDS)] for row in range(rows)]
    merged = vision.spatial_merge_size**2
    text = _text(config, [high * wide // merged for high, wide in grids], length)
    numbers = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return {
        **text,
        "mm_token_type_ids": (text["input_ids"] == config.image_token_id).long(),
        "pixel_values": torch.ones(sum(high * wide for high, wide in grids), numbers),
        "image_grid_thw": torch.tensor([[1, high, wide] for high, wide in grids]),
    }


def _text(config: Any, counts: list[int], length: int) -> Batch:
    """Rows of so many image tokens and ``length`` others, the last row one fewer, padded to the longest."""
    longest = max(counts) + length
    lengths = torch.tensor([count + length for count in counts])
    lengths[-1] -= 1
    positions = torch.arange(longest).expand(len(counts), longest)
    ids = torch.full_like(positions, 3)
    ids[positions < torch.tensor(counts)[:, None]] = config.image_token_id
    mask = (positions < lengths[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": ids * mask}
