"""Pull one adapter of a stranger into the cache: pinned to a commit, sizes checked first, weights last."""

import hashlib
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token, hf_hub_download

from taskit.errors import ZooError
from taskit.zoo.adapter import (
    CONFIG,
    MAX_JSON_BYTES,
    MAX_WEIGHT_BYTES,
    NOTES,
    WEIGHTS,
    read_config,
    read_ranks,
    require_backbone,
)
from taskit.zoo.hub.failures import patiently

CAPS = {CONFIG: MAX_JSON_BYTES, NOTES: MAX_JSON_BYTES, WEIGHTS: MAX_WEIGHT_BYTES}  # nothing else is downloaded


def token_in_use(token: str | None) -> str | None:
    """``token``, or the one that the user logged in with, unless HF_HUB_DISABLE_IMPLICIT_TOKEN forbids it."""
    return token or (None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token())


def cache_of(token: str | None) -> Path:
    """The folder of pulled adapters that ``token`` may read, or everybody without one.

    What not everybody may see lies in a folder for its token only; the token itself is not written anywhere.
    """
    whose = "public" if token is None else hashlib.sha256(token.encode()).hexdigest()[:32]
    hub = hashlib.sha256(constants.ENDPOINT.encode()).hexdigest()[:8]
    return Path(constants.HF_HOME) / "taskit" / hub / whose


@dataclass(frozen=True, slots=True)
class Pin:
    """One adapter on the Hub at one commit; ``public`` when everybody may read it."""

    id: str
    revision: str
    public: bool

    def folder(self, token: str | None) -> Path:
        """Where its files are kept; the folder exists only once it is complete."""
        return cache_of(None if self.public else token) / self.id.replace("/", "--") / self.revision


def pull(pin: Pin, backbones: Collection[str], token: str | None) -> Path:
    """The folder with the adapter's files, downloaded unless they are there; an interrupted download goes on.

    ``backbones`` are the ids that its configuration may name.  Raises ZooError for an adapter that cannot be
    used, HubError for one that cannot be had.
    """
    folder = pin.folder(token)
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{folder.name}.part")
    files = _files(pin, token)
    _download(pin, CONFIG, part, token)
    config = read_config(part)
    require_backbone(config.backbone, backbones)
    if NOTES in files:
        _download(pin, NOTES, part, token)
    _download(pin, WEIGHTS, part, token)
    _require_content(part / WEIGHTS, files[WEIGHTS])
    read_ranks(part, config)
    shutil.rmtree(part / ".cache", ignore_errors=True)
    if not folder.is_dir():  # another process may have been faster
        part.rename(folder)
    return folder


def _files(pin: Pin, token: str | None) -> dict[str, Any]:
    """The files of `CAPS` that the repository has, with their sizes checked."""
    doing = f"looking at {pin.id}"
    options: dict[str, Any] = {"revision": pin.revision, "files_metadata": True, "token": token or False}
    siblings = patiently(lambda: HfApi().model_info(pin.id, **options), doing, pin.id).siblings or ()
    names = {file.rfilename for file in siblings}
    for name in (CONFIG, WEIGHTS):
        if name not in names:
            pickled = " (a .bin is never opened)" if any(other.endswith(".bin") for other in names) else ""
            raise ZooError(f"It has no {name}{pickled}; ask its author to save it with PEFT as safetensors.")
    files = {file.rfilename: file for file in siblings if file.rfilename in CAPS}
    for name, file in files.items():
        if file.size is None or file.size > CAPS[name]:
            raise ZooError(f"Its {name} has {file.size} bytes, more than {CAPS[name]}; leave it out.")
    return files


def _download(pin: Pin, name: str, part: Path, token: str | None) -> None:
    options: dict[str, Any] = {"revision": pin.revision, "local_dir": part, "token": token or False}
    patiently(lambda: hf_hub_download(pin.id, name, **options), f"downloading {pin.id}", pin.id)


def _require_content(path: Path, file: Any) -> None:
    """Raise ZooError, and forget the file, unless it is what the Hub listed."""
    expected = file.lfs.sha256 if file.lfs else None
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if path.stat().st_size != file.size or expected not in (None, found):
        shutil.rmtree(path.parent)
        raise ZooError(f"Its {path.name} arrived with another content than the Hub lists; list the zoo again.")
