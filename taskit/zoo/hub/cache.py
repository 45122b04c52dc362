"""Where pulled adapters are kept.  What not everybody may see lies in a folder of its token alone."""

import hashlib
import os
from pathlib import Path

from huggingface_hub import constants, get_token


def token_in_use(token: str | None) -> str | None:
    """``token``, or the one that the user logged in with, unless HF_HUB_DISABLE_IMPLICIT_TOKEN forbids it."""
    return token or (None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token())


def cache_of(token: str | None) -> Path:
    """The folder for ``token``, or for everybody without one; the token itself is not written anywhere."""
    whose = "public" if token is None else hashlib.sha256(token.encode()).hexdigest()[:32]
    hub = hashlib.sha256(constants.ENDPOINT.encode()).hexdigest()[:8]
    return Path(constants.HF_HOME) / "taskit" / hub / whose


def write_whole(path: Path, text: str) -> None:
    """Write by rename, so that several processes may share the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
