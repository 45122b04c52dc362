"""Files: where the bundled zoo lies, and JSON that is written beside its name and renamed, so never half of it."""

import json
import os
from pathlib import Path

from taskit.errors import RunError

INSTALLED_ZOO = "bundled_zoo"
"""The folder of this package where a wheel has the zoo; setup.py puts it there."""


def _bundled_zoo() -> Path:
    package = Path(__file__).resolve().parent
    installed = package / INSTALLED_ZOO
    return installed if installed.is_dir() else package.parent / "zoo"


BUNDLED_ZOO = _bundled_zoo()
"""`backbones/`, `adapters/` and `catalog.json`: in the installed package, else in the checkout beside it.

In the archive of a Job neither is there, or `zoo/` holds only the adapters that a plan mixes.
"""


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
