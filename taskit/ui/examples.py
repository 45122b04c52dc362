"""Datasets that come with the app, so that a visitor can try it with one click and without a network."""

from pathlib import Path

from taskit.data import write_digits

EXAMPLES = ("handwritten digits (images)", "requests to a shop (text)")


def example(name: str, root: Path) -> Path:
    """The path of an example; the digits are drawn beside the runs, so that a run can go on after a restart."""
    if name == EXAMPLES[0]:
        return write_digits(root / "examples" / "digits")
    return Path(__file__).with_name("requests.csv")
