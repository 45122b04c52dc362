"""Adapters that mean harm: every vector known, each as a change to a good adapter; and random ones."""

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load, save

from taskit.zoo.adapter import CONFIG, PREFIX, WEIGHTS

Change = Callable[[Path], None]
NAUGHTY = (None, True, -1, 0, 20_000_000, 10**400, 1e308, float("nan"), "", "x" * 5000, [], {}, [[1]], {"a": 1})
NAUGHTY += ("(a+)+$", "../../etc/passwd", "/etc/passwd", "\x00", "__import__('os')", {"q_proj": {}}, ["(.*)*"] * 50)
FIELDS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "peft_type", "base_model_name_or_path", "bias")
FIELDS += ("use_rslora", "use_dora", "modules_to_save", "target_modules", "init_lora_weights", "layer_replication")
FIELDS += (
    "auto_mapping",
    "megatron_config",
    "target_parameters",
    "trainable_token_indices",
    "loftq_config",
    "revision",
)
FIELDS += ("exclude_modules", "runtime_config", "eva_config", "lora_bias", "task_type", "inference_mode", "unknown")


def config(**changes) -> Change:
    def change(folder: Path) -> None:
        path = folder / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def raw(name: str, data: bytes) -> Change:
    return lambda folder: write(folder / name, data)


def write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def tensor(key: str, value: torch.Tensor) -> Change:
    def change(folder: Path) -> None:
        tensors = load((folder / WEIGHTS).read_bytes())
        write(folder / WEIGHTS, save(tensors | {PREFIX + key: value}))

    return change


def header(entries: dict, data: bytes = b"") -> Change:
    text = json.dumps(entries).encode()
    return raw(WEIGHTS, struct.pack("<Q", len(text)) + text + data)


def link(name: str, target: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return change


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/taskit-pwned'\ntR.")


def both(first: Change, second: Change) -> Change:
    return lambda folder: (first(folder), second(folder))[0]


def entry(shape: list[int], start: int, stop: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


FLOOD = {f"{PREFIX}m{n}.0.x.lora_{side}.weight": entry([1, 0], 0, 0) for n in range(9000) for side in "AB"}
DOTS = {f"{PREFIX}{'1.' * 100}{n}.lora_{side}.weight": entry([1, 0], 0, 0) for n in range(5000) for side in "AB"}
MANY_KEYS = {f"{'a.' * 100}{n}": 1 for n in range(4000)}
Q, FC1 = "vit.layers.0.attention.q_proj", "vit.layers.0.mlp.fc1.weight"

# Those of the survey of PEFT's weak points, in its order, then what a reader of files must stand.
VECTORS: dict[str, Change] = {
    "pickle": pickled,
    "base weight fc1": tensor(FC1, torch.ones(24, 16)),
    "base layer weight": tensor(f"{Q}.base_layer.weight", torch.ones(16, 16)),
    "base bias": tensor(f"{Q}.bias", torch.ones(16)),
    "undeclared head": tensor("pooler.weight", torch.ones(3, 16)),
    "class token": tensor("vit.embeddings.cls_token", torch.ones(1, 1, 16)),
    "head in a block": both(config(modules_to_save=["fc1"]), tensor(FC1, torch.ones(24, 16))),
    "pissa": config(init_lora_weights="pissa"),
    "olora": config(init_lora_weights="olora"),
    "corda": config(init_lora_weights="corda", corda_config={"a": 1}),
    "loftq": config(init_lora_weights="loftq", loftq_config={"loftq_bits": 4}),
    "biases": config(bias="all"),
    "regex target": config(target_modules="(([a-z])+.)+[A-Z]([a-z])+$" * 20),
    "regex rank": config(rank_pattern={"(a|a)*$": 4}),
    "regex alpha": config(alpha_pattern={"(.*)*q": 4}),
    "regex head": config(modules_to_save=["(a+)+$"]),
    "invalid regex": config(rank_pattern={"((": 4}),
    "huge rank": config(r=20_000_000),
    "huge rank of a module": config(rank_pattern={"q_proj": 20_000_000}),
    "huge alpha": config(lora_alpha=10**400),
    "auto mapping": config(auto_mapping={"parent_library": "os", "base_model_class": "system"}, use_dora=True),
    "megatron": config(megatron_config={"a": 1}, megatron_core="os"),
    "runtime config": config(runtime_config={"ephemeral_gpu_offload": True}),
    "unknown type": config(peft_type="NOTHING"),
    "prompt tuning": config(peft_type="PROMPT_TUNING", tokenizer_name_or_path="evil/repo"),
    "multitask prompt": config(peft_type="MULTITASK_PROMPT_TUNING", prompt_tuning_init_state_dict_path="/etc/passwd"),
    "x-lora": config(peft_type="XLORA", adapters={"0": "evil/repo"}),
    "another base": config(base_model_name_or_path="evil/base"),
    "path as base": config(base_model_name_or_path="/etc"),
    "replicated layers": config(layer_replication=[[0, 10**9]]),
    "target parameters": config(target_parameters=["experts"]),
    "token indices": config(trainable_token_indices=[1]),
    "truncated": lambda folder: write(folder / WEIGHTS, (folder / WEIGHTS).read_bytes()[:-7]),
    "header of a tebibyte": raw(WEIGHTS, struct.pack("<Q", 1 << 40) + b"{}"),
    "header that lies": header({f"{PREFIX}{Q}.lora_A.weight": entry([1024, 1 << 40], 0, 1 << 52)}),
    "negative offsets": raw(
        WEIGHTS, struct.pack("<Q", 60) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}     '
    ),
    "overlapping offsets": header({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"\0" * 4),
    "flood of tensors": header(FLOOD),
    "flood of dots": header(DOTS),
    "many pattern keys": both(config(rank_pattern=MANY_KEYS), header(DOTS)),
    "link to weights": link(WEIGHTS, "/etc/passwd"),
    "link to config": link(CONFIG, "/etc/passwd"),
    "link to a device": link(WEIGHTS, "/dev/zero"),
    "pipe as weights": both(lambda folder: (folder / WEIGHTS).unlink(), lambda folder: os.mkfifo(folder / WEIGHTS)),
    "archive as weights": raw(WEIGHTS, b"PK\x03\x04" + b"\0" * 500),
    "deep JSON": raw(CONFIG, b"[" * 100_000),
    "large JSON": raw(CONFIG, b'{"a": "' + b"x" * (2 << 20) + b'"}'),
    "integers": tensor(f"{Q}.lora_A.weight", torch.zeros(1, 16, dtype=torch.int64)),
    "infinite": tensor(f"{Q}.lora_A.weight", torch.full((1, 16), torch.inf)),
    "wrong shape": tensor(f"{Q}.lora_A.weight", torch.zeros(1, 17)),
    "notes in the wrong shape": raw("taskit.json", b'{"labels": {"a": 1}, "backbone": [1]}'),
}


def random_change(choose: random.Random) -> Change:
    """One of: fields of the configuration set to nonsense, bytes of a file flipped, a header entry made up."""
    kind = choose.randrange(4)
    if kind == 0:
        return config(**{field: choose.choice(NAUGHTY) for field in choose.sample(FIELDS, choose.randint(1, 3))})
    if kind == 1:
        return flip(choose.choice((CONFIG, WEIGHTS)), choose)
    if kind == 2:
        shape = [choose.choice((0, 1, 4, 16, 1 << 31, 1 << 62)) for _ in range(choose.randint(0, 4))]
        name = PREFIX * choose.randint(0, 1) + choose.choice((Q, "", "x" * 300, "classifier", "..", "\u202e"))
        made = entry(
            shape, choose.choice((0, 4, 1 << 40)), choose.choice((0, 64, 1 << 41)), choose.choice(("F32", "I8", "X"))
        )
        return header({name + choose.choice((".lora_A.weight", ".lora_B.weight", ".weight", "")): made}, b"\0" * 64)
    return lambda folder: write(folder / WEIGHTS, (folder / WEIGHTS).read_bytes()[: choose.randrange(2000)])


def flip(name: str, choose: random.Random) -> Change:
    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        for _ in range(choose.randint(1, 8)):
            data[choose.randrange(min(len(data), 2500))] = choose.randrange(256)
        write(folder / name, bytes(data))

    return change
