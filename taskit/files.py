"""JSON files that are whole at every moment: written beside their name and renamed."""

import json
import os
from pathlib import Path

from taskit.errors import RunError


def write_atomically(path: Path, text: str) -> None:
    """Write beside ``path`` and rename, so that a reader never sees half a file, and two writers no mixture."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)  # noqa: PTH105
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: dict) -> None:
    write_atomically(path, as_json(value))


def as_json(value: dict) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> dict:
    """Raises RunError when there is no such file or it holds no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path.parent} holds no readable {path.name}; give the folder of a TaskIT run.") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} holds no JSON object; give the folder of a TaskIT run.")
    return value
