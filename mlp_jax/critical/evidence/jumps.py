"""Jumps of value, gradient and Hessian under moves by a rounding: the point may lie on a corner of the function."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.evidence.slopes import Slope, move_sizes

# A change of the gradient that does not grow with the move is a jump if it exceeds H times the move by this factor.
JUMP = 512.0
# A jump larger by this factor than the change by other roundings of data and operations is not rounding.
_CLEAR = 64.0
# The share of the gradient's natural size that may be rounding.
_TINY = 1e-8
# Moves that look for jumps of the Hessian, and their sizes, in pairs.
MOVES = 2
_PAIRS = (0, 1), (7, 8)


class Jump(NamedTuple):
    """What jumps, in words, and whether it may also be the rounding of numbers much larger than params."""

    words: str
    may_be_rounding: bool


def nonsmooth(jump: Jump) -> tuple[str, str]:
    """Return the kind of a point where something jumps, and why."""
    if jump.may_be_rounding:
        return "undetermined", f"{jump.words}: a corner, or the rounding of numbers much larger than params"
    return "nonsmooth", jump.words


def first_order_jump(slope: Slope, level: float | np.ndarray, natural: float | np.ndarray) -> Jump | None:
    """Return a jump of the value, or one of the gradient above a level; None where there is none.

    A jump of the gradient no larger than its rounding, and far below its natural size, is that rounding.
    """
    if slope.value_jump > 0:
        return Jump(f"fun jumps by {slope.value_jump:.2g} when params move by a rounding", False)
    clear = slope.gradient_jump > _CLEAR * slope.gradient_noise
    jumps = (slope.gradient_jump > level) & (clear | (slope.gradient_jump > _TINY * natural))
    if not np.any(jumps):
        return None
    largest = float(np.max(slope.gradient_jump[jumps]))
    return Jump(f"the gradient jumps by {largest:.2g} when params move by a rounding", not np.any(clear & jumps))


def hessian_jump(
    problem: Problem,
    vectors: np.ndarray,
    moves: np.ndarray,
    scale: np.ndarray,
    here: np.ndarray,
    noise: Callable[[], np.ndarray],
) -> Jump | None:
    """Return a jump of the Hessian: a change of much more than rounding that does not grow with the move.

    `here` are its products with the first vectors, `MOVES` at least, `noise()` the changes of those with all of them by
    other roundings of data and operations.
    """
    sizes = move_sizes(problem)
    chosen = [sizes[k] for pair in _PAIRS if pair[1] < len(sizes) for k in pair]
    offsets = np.concatenate([size * side * moves[:MOVES] for size in chosen for side in (1.0, -1.0)])
    vectors, here = vectors[:MOVES], here[:MOVES]
    there = problem.products(problem.vector + offsets, np.tile(vectors, (len(offsets) // MOVES, 1)))
    changes = there.reshape(len(chosen) // 2, 2, 2 * MOVES, -1) - np.tile(here, (2, 1))
    near, far = changes[:, 0], changes[:, 1]
    # Rows of rounding only are scaled up: a change that is rounding relative to the largest entry does not count.
    is_jump = (np.abs(far - near) <= np.abs(near) / 4) & (np.abs(near) > JUMP * problem.unit * np.max(np.abs(here)))
    jump = np.where(is_jump, np.abs(near), 0)
    if np.max(scale * jump) <= np.sqrt(problem.unit) * max(1.0, float(np.max(scale * np.abs(here)))):
        return None
    unclear = np.max(scale * jump) <= _CLEAR * np.max(scale * np.abs(noise()))
    return Jump(f"the Hessian jumps by {np.max(jump):.2g} when params move by a rounding", bool(unclear))
