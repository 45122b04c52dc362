"""Greedy: from nothing, again and again the step that earns most per byte of those that fit."""

from taskit.scheduler.options import rank_options
from taskit.scheduler.problem import Problem
from taskit.scheduler.solvers import spend_leftover


def greedy(problem: Problem, free_bytes: int) -> list[int]:
    return spend_leftover(problem.least_plan, free_bytes, problem, rank_options(problem))
