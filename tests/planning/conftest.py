"""The tiny world with learned tasks, of the tests of methods; a module may have another world."""

from tests.methods.conftest import world

__all__ = ["world"]
