"""Zip archives of images and tables, judged by their directory before a byte is expanded, never written to disk."""

import stat
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from zlib import error as ZlibError

from taskit.data.images import is_image
from taskit.data.tables import is_table
from taskit.errors import DataError

MAX_MEMBERS = 200_000
MAX_MEMBER_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 4 * 2**30
MAX_RATIO = 100  # images hardly shrink: a hundredfold expansion is a bomb
FREE_BYTES = 2**20  # what any archive may expand to, whatever its ratio
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def read_zip(path: Path) -> list[tuple[PurePosixPath, bytes | None]]:
    """Every image and table in a zip, by name: (path inside, content), content None where the member is damaged.

    Raises DataError when the file is no zip, could harm (see `_refuse_danger`), or holds no image.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _refuse_danger(path.name, members)
            _refuse_bomb(path, members)
            wanted = [(name, member) for member in members if is_image(name := _inside(member)) or is_table(name)]
            if not any(is_image(name) for name, _ in wanted):
                raise DataError(
                    f"{path.name} holds no image: zip one folder of images per class, or a table with the images "
                    "that it names."
                )
            return [(name, _content(archive, member)) for name, member in sorted(wanted, key=lambda one: one[0])]
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, UnicodeDecodeError, struct.error) as error:
        raise DataError(f"{path.name} is not a zip archive, or is damaged: make it again and retry.") from error


def _inside(member: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(member.filename.replace("\\", "/"))  # some Windows programs write backslashes


def _refuse_danger(name: str, members: Sequence[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{name} holds {len(members)} files, over {MAX_MEMBERS}: choose a part of them.")
    for member in members:
        inside = _inside(member)
        if ".." in inside.parts or inside.is_absolute() or inside.as_posix()[1:2] == ":":
            raise DataError(f"{name} holds '{member.filename}', which points outside the archive: make it again.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(f"{name} holds the symbolic link '{member.filename}': replace it by the file itself.")
        if inside.suffix.lower() in ARCHIVES:
            raise DataError(f"{name} holds another archive, '{member.filename}': unpack it and zip the images.")
        if member.flag_bits & 1:
            raise DataError(f"{name} is protected by a password: make it again without one.")


def _refuse_bomb(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    # zipfile stops reading at the declared size, so that what is declared is what can be expanded.
    total = sum(member.file_size for member in members)
    largest = max(members, key=lambda member: member.file_size, default=None)
    if largest and largest.file_size > MAX_MEMBER_BYTES:
        raise DataError(f"{path.name} holds '{largest.filename}', over 64 MiB when expanded: leave it out.")
    if total > MAX_TOTAL_BYTES:
        raise DataError(f"{path.name} expands to over 4 GiB: choose a part of it.")
    if total > FREE_BYTES and total > MAX_RATIO * path.stat().st_size:
        raise DataError(f"{path.name} expands to over {MAX_RATIO} times its size: zip the images alone.")


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | None:
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, ZlibError, EOFError):
        return None
