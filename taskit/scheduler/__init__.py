"""Importance, memory profile and budget in; the best strategy out. Numpy only."""

from taskit.scheduler.constraints import ANY, Constraints
from taskit.scheduler.explanation import Explanation, LocationReason, explain, sole_bytes
from taskit.scheduler.gain import RANKS, objective, rank_gain
from taskit.scheduler.joint import TIME_PRICE, JointSchedule, Step, joint_frontier, joint_schedule
from taskit.scheduler.levers import cheapest_lever
from taskit.scheduler.search import Schedule, frontier, schedule, schedule_uniform

__all__ = [
    "ANY",
    "RANKS",
    "TIME_PRICE",
    "Constraints",
    "Explanation",
    "JointSchedule",
    "LocationReason",
    "Schedule",
    "Step",
    "cheapest_lever",
    "explain",
    "frontier",
    "joint_frontier",
    "joint_schedule",
    "objective",
    "rank_gain",
    "schedule",
    "schedule_uniform",
    "sole_bytes",
]
