"""Value and gradient at a point, with bounds on their rounding, and their jumps."""

from typing import NamedTuple

import numpy as np

from mlp_jax.critical.evidence.problem import Problem

# Factor on the largest change seen, because the probes are only a sample of the roundings.
SAFETY = 4.0
_PROBES = 8
# Moves that look for jumps grow by this factor, this many times, up to this share of params: where params are added to
# large numbers, small moves change nothing.
_GROWTH, _MOST_SIZES, _LONGEST = 8.0, 9, 1e-4
# Moves of each size.
_MOVES = 2
# Numbers of other roundings evaluated with a move of params, and without.
_SEEDS, _STILL = 5, 3
# A jump of the value is the same for this many sizes in a row.
_SAME = 4
# Relative distance from params at which values show how large the terms of the function are.
_NEARBY = 2.0**-10
# Errors are sampled, so that none counts as smaller than this share of the median.
_TYPICAL = 1 / 16
# Below this a parameter counts as zero, because its rounding would underflow.
_ZERO = 1e-150


class NotFinite(ValueError):
    """The function has no finite value, or no finite gradient."""


class Slope(NamedTuple):
    """What is known of a function to first order at a point.

    value, value_error
        f, and a bound on its rounding.
    gradient, gradient_error
        g, and a bound on each component's error.
    roundings
        (n, P) changes of g over moves of a unit in the last place, divided by √12, because a rounding is uniform over
        half a unit to either side.
    value_jump
        Jump of the value when params move by a rounding; 0 where there is none.
    gradient_jump, gradient_noise
        (P,) the part of the gradient's change that does not grow with the move, and the change by other roundings of
        data and operations alone.
    """

    value: float
    value_error: float
    gradient: np.ndarray
    gradient_error: np.ndarray
    roundings: np.ndarray
    value_jump: float
    gradient_jump: np.ndarray
    gradient_noise: np.ndarray

    @property
    def typical_rounding(self) -> np.ndarray:
        """A change of the gradient of the size of the measured roundings in every direction."""
        sides = np.random.default_rng(8).choice([-1.0, 1.0], len(self.roundings))
        return sides @ self.roundings / np.sqrt(len(sides))


def nudges(problem: Problem) -> np.ndarray:
    """Return (8, P) moves of one to two units in the last place with random signs; zeros move by those of typical size.

    Equal parameters move by different amounts.
    """
    size = np.where(np.abs(problem.vector) > _ZERO, np.abs(problem.vector), 0)
    generator = np.random.default_rng(0)
    sides = generator.choice([-1.0, 1.0], size=(_PROBES, size.size)) * generator.uniform(1, 2, (_PROBES, size.size))
    return 2 * problem.unit * np.where(size > 0, size, typical_size(problem)) * sides


def move_sizes(problem: Problem) -> np.ndarray:
    """Return the sizes of the moves that look for jumps, in roundings."""
    count = int(np.log(_LONGEST / (4 * problem.unit)) / np.log(_GROWTH)) + 1 if 4 * problem.unit < _LONGEST else 0
    return _GROWTH ** np.arange(np.clip(count, 2, _MOST_SIZES))


def typical_size(problem: Problem) -> float:
    """Return the mean size of the nonzero parameters; 1 if there are none."""
    size = np.abs(problem.vector)
    return float(np.mean(size[size > _ZERO])) if np.any(size > _ZERO) else 1.0


def length(vector: np.ndarray) -> float:
    """Return the Euclidean norm, also where squares overflow or underflow."""
    largest = float(np.max(np.abs(vector)))
    return largest * float(np.linalg.norm(vector / largest)) if 0 < largest < np.inf else largest


def within(scale: np.ndarray, values: np.ndarray, error: np.ndarray) -> bool:
    """Return whether each scaled value is within its error, or within a share of the median error."""
    allowed = scale * error
    return bool(np.all(scale * np.abs(values) <= np.maximum(allowed, _TYPICAL * np.median(allowed))))


def measure_slope(problem: Problem, moves: np.ndarray) -> Slope:
    """Return value and gradient with their errors: 59 gradients. Host-level. NotFinite where they are not finite."""
    vector = problem.vector
    sizes = move_sizes(problem)
    ladder = (sizes[:, None, None] * np.concatenate([moves[:_MOVES], -moves[:_MOVES]])).reshape(-1, len(vector))
    draws = np.random.default_rng(3).standard_normal((2, len(vector)))
    nearby = _NEARBY * np.maximum(np.abs(vector), typical_size(problem)) * draws
    small = np.concatenate([moves[_MOVES:], -moves[_MOVES:]])
    offsets = np.concatenate([0 * moves[:1], ladder, small, nearby])
    values, rows = problem.slopes(vector + offsets)
    # Other roundings of data and operations, with a move of params and without.
    still = np.concatenate([moves[:_SEEDS], 0 * moves[:_STILL]])
    other_values, other_rows = problem.slopes(vector + still, np.arange(1, len(still) + 1))
    if not np.isfinite(values[0]):
        raise NotFinite(
            f"fun: got a value of {values[0]} at params, expected a finite number (a label that is no class, or a"
            " number outside the domain of a function?)."
        )
    if not np.all(np.isfinite(rows[0])):
        raise NotFinite(f"fun: got {np.sum(~np.isfinite(rows[0]))} gradient components that are NaN or infinite.")
    changes = rows[1 : 1 + len(ladder)].reshape(len(sizes), 2 * _MOVES, -1) - rows[0]
    rounded = np.concatenate([changes[0], rows[1 + len(ladder) : -2] - rows[0], other_rows - rows[0]])
    rounded = np.where(np.isfinite(rounded), rounded, 0)
    left = (values[1 : 1 + len(ladder)] - values[0] - ladder @ rows[0]).reshape(len(sizes), -1)
    # Terms of the value may be much larger than their sum.
    terms = np.abs(vector) @ (np.abs(rows[0]) + np.abs(problem.product(vector)))
    rounding = problem.unit * problem.growth * (np.max(np.abs(values[np.isfinite(values)])) + terms)
    noise = np.abs(other_values - values[0] - still @ rows[0])
    return Slope(
        value=float(values[0]),
        value_error=SAFETY * float(np.max(np.where(np.isfinite(noise), noise, 0)) + rounding),
        gradient=rows[0],
        gradient_error=SAFETY * (np.max(np.abs(rounded), axis=0) + problem.unit * np.abs(rows[0])),
        roundings=rounded / np.sqrt(12),
        value_jump=_constant(left, 64 * rounding),
        gradient_jump=_same(changes),
        gradient_noise=np.max(np.abs(other_rows[_SEEDS:] - rows[0]), axis=0),
    )


def _same(changes: np.ndarray) -> np.ndarray:
    """Return the largest part of the changes, (sizes, moves, P), that two sizes in a row have in common."""
    with np.errstate(invalid="ignore"):
        near = np.abs(changes[:-1])
        common = np.where(np.abs(np.diff(changes, axis=0)) <= near / 4, near, 0)
    return np.max(common, axis=(0, 1))


def _constant(left: np.ndarray, rounding: float) -> float:
    """Return the largest change of the value, (sizes, moves), that several sizes have in common, above rounding."""
    windows = np.lib.stride_tricks.sliding_window_view(left, min(_SAME, len(left)), axis=0)
    with np.errstate(invalid="ignore"):
        nearest = np.abs(windows[..., :1])
        same = np.all(np.abs(windows - windows[..., :1]) <= nearest / 4, axis=-1) & (nearest[..., 0] > rounding)
    return float(np.max(np.where(same, nearest[..., 0], 0)))
