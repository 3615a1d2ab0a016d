"""Corners of a function (ReLU, maxout) near a point, from numbers whose zeros are the corners."""

from collections.abc import Callable

import jax
import numpy as np

from mlp_jax.critical.evidence.jumps import Jump
from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.evidence.slopes import nudges


def corner_within(problem: Problem, kinks: Callable[..., jax.Array] | None, step: np.ndarray) -> Jump | None:
    """Return how many corners of `fun` lie within twice the Newton step, or a rounding, of params; None if none do.

    A corner counts when its number is at most twice its change over moves of that length.
    """
    if kinks is None:
        return None
    moves = nudges(problem)
    moves = moves * max(1.0, 2 * float(np.linalg.norm(step) / np.linalg.norm(moves[0])))
    moves = np.concatenate([moves, 2 * step[None]])

    def values(vector: np.ndarray) -> np.ndarray:
        found = kinks(problem.unravel(vector), *problem.args)
        return np.concatenate([np.zeros(0), *(np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(found))])

    here = values(problem.vector)
    if here.size == 0:
        return None
    if not np.all(np.isfinite(here)):
        raise ValueError("kinks: got numbers that are NaN or infinite, expected finite numbers.")
    change = np.max([np.abs(values(problem.vector + move) - here) for move in (*moves, *-moves)], axis=0)
    near = int(np.sum(np.abs(here) <= 2 * change))
    if not near:
        return None
    return Jump(f"{near} corners of fun lie within {2 * np.linalg.norm(step):.1e} of params or its rounding", False)
