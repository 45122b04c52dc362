"""The small world and the plan of the tests of training: an adapter is inserted as the plan says."""

from tests.training.conftest import plan, world

__all__ = ["plan", "world"]
