"""Tables that name the image files beside them, as captions and questions about images come."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pandas import DataFrame, Series

from taskit.data.cells import is_missing
from taskit.data.images import SUFFIXES
from taskit.data.tables import Table
from taskit.errors import DataError

Images = Mapping[PurePosixPath, bytes | None]  # by their path; None where the file is damaged


def names_images(values: Sequence[object]) -> bool:
    """Whether every cell that is not blank ends like the name of an image file, and there is one."""
    present = [cell for cell in values if not is_missing(cell)]
    return bool(present) and all(isinstance(cell, str) and _suffix(cell) in SUFFIXES for cell in present)


def with_images(path: PurePosixPath, table: Table, images: Images) -> DataFrame | None:
    """The table at ``path`` with images where it names them, None where no column does.

    A name counts from the table's own folder, or from the top.  A name without a file stays as {"bytes": None,
    "path": name}, so that the row is dropped with its reason.  Raises DataError where no name at all has a file.
    """
    columns = [column for column in table.frame.columns if names_images(table.frame[column].tolist())]
    if not columns:
        return None
    frame = table.frame.copy()
    for column in columns:
        found = [_look_up(cell, path.parent, images) for cell in frame[column]]
        if all(isinstance(cell, dict) or cell is None for cell in found):
            example = next(cell for cell in frame[column] if not is_missing(cell))
            raise DataError(
                f"None of the images that {path.name} names in the column '{column}' is there (such as "
                f"'{example}'): put them beside the table, in one folder or zip."
            )
        frame[column] = Series(found, index=frame.index, dtype=object)
    return frame


def _look_up(cell: object, folder: PurePosixPath, images: Images) -> object:
    if is_missing(cell):
        return None
    name = PurePosixPath(str(cell).strip().replace("\\", "/"))
    found = next((path for path in (folder / name, name) if path in images), None)
    return {"bytes": None, "path": str(cell)} if found is None else images[found]


def _suffix(cell: str) -> str:
    return PurePosixPath(cell.strip().replace("\\", "/")).suffix.lower()
