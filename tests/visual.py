"""Tiny random vision-language models on disk, with their processors, and pictures to ask them about."""

import json
import random
import zipfile
from pathlib import Path

import torch
import transformers as t
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.tiny import SIZES

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "black": (10, 10, 10)}
WORDS = [
    "[PAD]",
    "[UNK]",
    "<s>",
    "</s>",
    "User",
    "Assistant",
    ":",
    "?",
    "is",
    "it",
    "what",
    "colour",
    "answer",
    *COLOURS,
]
IMAGE, START, END = "<image>", "<image_start>", "<image_end>"
TILES = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)] + ["<global-img>"]
SPECIAL = [IMAGE, START, END, "<video>", *TILES]
TEXT = {"vocab_size": len(WORDS) + len(SPECIAL), "max_position_embeddings": 256}
TEXT |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
IMAGE_ID = len(WORDS)
VQ = {"embed_dim": 8, "num_embeddings": 16, "base_channels": 32, "num_res_blocks": 1, "channel_multiplier": [1]}
TEMPLATE = (
    "<s>{% for m in messages %}{{ m.role | capitalize }} : {% for part in m.content %}"
    "{% if part.type == 'image' %}" + IMAGE + "{% else %} {{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} Assistant :{% endif %}"
)


def janus() -> t.JanusForConditionalGeneration:
    vision = t.JanusVisionConfig(**SIZES, image_size=16, patch_size=8, projection_dim=16)
    vq = t.JanusVQVAEConfig(**VQ, projection_dim=16, image_token_embed_dim=16)
    text = t.LlamaConfig(**SIZES, **TEXT)
    config = t.JanusConfig(text_config=text, vision_config=vision, vq_config=vq, image_token_id=IMAGE_ID)
    return t.JanusForConditionalGeneration(config)


def smolvlm() -> t.SmolVLMForConditionalGeneration:
    config = t.SmolVLMConfig(
        text_config={"model_type": "llama", **SIZES, **TEXT},
        vision_config={**SIZES, "image_size": 16, "patch_size": 4},
        scale_factor=2,
        image_token_id=IMAGE_ID,
        pad_token_id=0,
    )
    return t.SmolVLMForConditionalGeneration(config)


def qwen() -> t.Qwen2_5_VLForConditionalGeneration:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4}
    vision |= {"spatial_merge_size": 2, "out_hidden_size": 16, "fullatt_block_indexes": [1], "window_size": 16}
    config = t.Qwen2_5_VLConfig(
        text_config={**SIZES, **TEXT, "num_key_value_heads": 2, "rope_parameters": rope},
        vision_config=vision,
        image_token_id=IMAGE_ID,
        video_token_id=IMAGE_ID + 3,
        vision_start_token_id=IMAGE_ID + 1,
        vision_end_token_id=IMAGE_ID + 2,
    )
    return t.Qwen2_5_VLForConditionalGeneration(config)


# name: (model, image processor, processor_config.json, whether it has a chat template)
FAMILIES = {
    "janus": (
        janus,
        lambda: t.JanusImageProcessorPil(size={"height": 16, "width": 16}),
        {"processor_class": "JanusProcessor", "num_image_tokens": 4},
        False,
    ),
    "smolvlm": (
        smolvlm,
        lambda: t.SmolVLMImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16}),
        {"processor_class": "SmolVLMProcessor", "image_seq_len": 4},
        True,
    ),
    "qwen": (
        qwen,
        lambda: t.Qwen2VLImageProcessorPil(
            patch_size=4, merge_size=2, size={"shortest_edge": 16 * 16, "longest_edge": 32 * 32}
        ),
        {"processor_class": "Qwen2_5_VLProcessor"},
        True,
    ),
}


def write_visual(folder: Path, name: str) -> Path:
    """A model of the family ``name`` with all its files, as the Hub serves them."""
    build, image_processor, settings, has_template = FAMILIES[name]
    torch.manual_seed(0)
    build().save_pretrained(folder)
    tokens = {word: position for position, word in enumerate([*WORDS, *SPECIAL])}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": IMAGE, "boi_token": START, "eoi_token": END, "fake_image_token": START}
        | {"video_token": "<video>", **{f"tile_{n}_token": tile for n, tile in enumerate(TILES)}},
        model_max_length=200,
    ).save_pretrained(folder)
    image_processor().save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(settings))
    if has_template:
        (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def picture(colour: str, size: tuple[int, int] = (20, 20)) -> Image.Image:
    return Image.new("RGB", size, COLOURS[colour])


def write_questions(path: Path, rows: int = 24, sizes: tuple[tuple[int, int], ...] = ((20, 20),)) -> Path:
    """A zip of images and a JSONL with a question and an answer about each."""
    choose, lines = random.Random(0), []
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(rows):
            colour = choose.choice(list(COLOURS))
            with archive.open(f"pictures/{n}.png", "w") as file:
                picture(colour, sizes[n % len(sizes)]).save(file, "PNG")
            words = "what colour is it ?" if n % 3 else "what colour ?"
            lines.append(json.dumps({"file": f"pictures/{n}.png", "question": words, "answer": colour}))
        archive.writestr("questions.jsonl", "\n".join(lines))
    return path
