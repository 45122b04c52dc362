"""Greedy: from nothing, again and again the step that earns most per byte of those that fit."""

from taskit.scheduler.leftover import spend_leftover
from taskit.scheduler.options import Problem


def greedy(problem: Problem, room: int) -> list[int]:
    return spend_leftover(problem.least_ranks, room, problem, problem.options())
