"""Value and gradient at a point, with what rounding may change them by, and what in them jumps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlp_jax.critical.problem import Problem

# Times the largest change seen: the probes are a sample of the roundings, not their maximum.
SAFETY = 4.0
_PROBES = 8
# Sizes of the moves that look for jumps, in roundings.
_SIZES = (1.0, 8.0, 64.0, 512.0)
# Below this a parameter counts as zero: a rounding of it would not be a number.
_ZERO = 1e-150


class Slope(NamedTuple):
    """What is known of a function to first order at a point.

    value, value_error
        f, and what rounding may have changed it by.
    gradient, gradient_error
        g, and a bound on each component's error.
    value_jump
        What the value jumps by when params move by a rounding; 0 where it does not.
    gradient_jump
        (P,) the part of the gradient's change that does not grow with the move.
    """

    value: float
    value_error: float
    gradient: np.ndarray
    gradient_error: np.ndarray
    value_jump: float
    gradient_jump: np.ndarray


def nudges(problem: Problem) -> np.ndarray:
    """Return moves of one to two units in the last place with random signs; zeros move by that of a typical size.

    Equal parameters move by different amounts, so that no move keeps them equal.

    Examples
    --------
    >>> moves = nudges(Problem(lambda x: jnp.sum(x**2), np.array([4.0]), (), None, 2.0**-53))
    >>> moves.shape, bool(np.all((2.0**-50 <= abs(moves)) & (abs(moves) <= 2.0**-49)))
    ((8, 1), True)
    """
    size = np.where(np.abs(problem.vector) > _ZERO, np.abs(problem.vector), 0)
    generator = np.random.default_rng(0)
    sides = generator.choice([-1.0, 1.0], size=(_PROBES, size.size)) * generator.uniform(1, 2, (_PROBES, size.size))
    return 2 * problem.unit * np.where(size > 0, size, typical_size(problem)) * sides


def typical_size(problem: Problem) -> float:
    """Return the mean size of the parameters that are not zero; 1 where all are.

    Examples
    --------
    >>> typical_size(Problem(lambda x: jnp.sum(x**2), np.array([4.0, 0.0]), (), None, 2.0**-53))
    4.0
    """
    size = np.abs(problem.vector)
    return float(np.mean(size[size > _ZERO])) if np.any(size > _ZERO) else 1.0


def length(vector: np.ndarray) -> float:
    """Return the Euclidean norm, of numbers too whose squares are none.

    Examples
    --------
    >>> round(length(np.array([3e200, 4e200])) / 1e200, 9)
    5.0
    """
    largest = float(np.max(np.abs(vector)))
    return largest * float(np.linalg.norm(vector / largest)) if 0 < largest < np.inf else largest


def measure_slope(problem: Problem, moves: np.ndarray) -> Slope:
    """Return value and gradient with their errors: 73 gradients. Host-level.

    Raises
    ------
    ValueError
        The value or the gradient is not finite.

    Examples
    --------
    >>> with jax.enable_x64(True):
    ...     problem = Problem(lambda x: jnp.sum(x**2), jnp.ones(2), (), None, 2.0**-53)
    ...     slope = measure_slope(problem, nudges(problem))
    >>> slope.value, slope.gradient.tolist(), bool(np.all((0 < slope.gradient_error) & (slope.gradient_error < 1e-14)))
    (2.0, [2.0, 2.0], True)
    """
    vector, count = problem.vector, len(moves)
    sizes = np.array([side * size for size in _SIZES for side in (1.0, -1.0)])
    offsets = (sizes[:, None, None] * moves).reshape(-1, len(vector))
    values, rows = problem.slopes(vector + np.concatenate([0 * moves[:1], offsets]))
    other_values, other_rows = problem.slopes(vector + moves, np.arange(1, count + 1))
    if not np.isfinite(values[0]):
        raise ValueError(
            f"fun: got a value of {values[0]} at params, expected a finite number (a label that is no class, or a"
            " number outside the domain of a function?)."
        )
    if not np.all(np.isfinite(rows[0])):
        raise ValueError(f"fun: got {np.sum(~np.isfinite(rows[0]))} gradient components that are NaN or infinite.")
    changes = (rows[1:] - rows[0]).reshape(len(_SIZES), 2 * count, -1)
    near, far = changes[0], changes[1]
    same = np.abs(far - near) <= np.abs(near) / 4
    rounded = np.concatenate([near, other_rows - rows[0]])
    change = np.max(np.where(np.isfinite(rounded), np.abs(rounded), 0), axis=0)
    along = offsets @ rows[0]
    left = (values[1:] - values[0] - along).reshape(len(_SIZES), 2 * count)
    rounding = problem.unit * problem.growth * np.max(np.abs(values[np.isfinite(values)]))
    noise = np.abs(other_values - values[0] - moves @ rows[0])
    return Slope(
        value=float(values[0]),
        value_error=SAFETY * float(np.max(np.where(np.isfinite(noise), noise, 0)) + rounding),
        gradient=rows[0],
        gradient_error=SAFETY * (change + problem.unit * np.abs(rows[0])),
        value_jump=_constant(left, 64 * rounding),
        gradient_jump=np.max(np.where(same, np.abs(near), 0), axis=0),
    )


def _constant(left: np.ndarray, rounding: float) -> float:
    """Return the largest change of the value that is the same for moves of all sizes, and no rounding; else 0."""
    nearest = left[0]
    with np.errstate(invalid="ignore"):
        same = np.all(np.abs(left - nearest) <= np.abs(nearest) / 4, axis=0) & (np.abs(nearest) > rounding)
    return float(np.max(np.where(same, np.abs(nearest), 0)))
