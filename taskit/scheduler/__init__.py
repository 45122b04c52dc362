"""Importance, memory profile and budget in; the best strategy out. Numpy only."""

from taskit.scheduler.gain import RANKS, rank_gain
from taskit.scheduler.search import Schedule, cheapest_insertion, frontier, schedule

__all__ = ["RANKS", "Schedule", "cheapest_insertion", "frontier", "rank_gain", "schedule"]
