"""A small but real world for whole runs: a backbone folder on disk and datasets it can learn."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

TOPICS = {"animals": "cat dog horse cow sheep goat", "colours": "red green blue white black brown"}
FILLERS = ["the", "a", "some", "very", "old", "new", "big", "small", "and", "with", "near", "of"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def sentence(label: str, choose: random.Random) -> str:
    words = choose.choices(FILLERS, k=choose.randint(2, 8)) + choose.choices(TOPICS[label].split(), k=2)
    choose.shuffle(words)
    return " ".join(words)


def write_topics(path: Path, rows: int = 120, seed: int = 0) -> Path:
    """A CSV of sentences about animals or colours."""
    choose = random.Random(seed)
    lines = []
    for n in range(rows):
        label = sorted(TOPICS)[n % 2]
        lines.append(f"{sentence(label, choose)} {n},{label}\n")
    path.write_text("text,label\n" + "".join(lines))
    return path


def write_rhymes(path: Path, rows: int = 60) -> Path:
    """A JSONL of prompts and completions."""
    choose = random.Random(0)
    pairs = [(sentence("animals", choose), choose.choice(TOPICS["colours"].split())) for _ in range(rows)]
    path.write_text("".join(f'{{"prompt": "{p} {n}", "completion": "{c}"}}\n' for n, (p, c) in enumerate(pairs)))
    return path


def write_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    words = SPECIAL + sorted({*FILLERS, *(w for topic in TOPICS.values() for w in topic.split())})
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
        model_max_length=32,
    )
    fast.save_pretrained(folder)
    return fast


def write_bert(folder: Path) -> Path:
    size = len(write_tokenizer(folder))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        pad_token_id=0,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def write_llama(folder: Path) -> Path:
    size = len(write_tokenizer(folder))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
