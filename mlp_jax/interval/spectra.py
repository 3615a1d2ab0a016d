"""Verified linear algebra: enclosures of eigenvalues of symmetric matrices of balls, norms and products.

Eigenpairs are estimated in floating point and then verified, from one side by a vector v, from the other by counting
(see `factorisation`). The smallest eigenvalue of H is at most vᵀHv / vᵀv, and at least σ if all P are above σ. Some
eigenvalue is within ‖Hv − λv‖ / ‖v‖ of λ, and none is within σ of 0 if those above σ and below −σ are all.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse.linalg

from mlp_jax.interval import ball, factorisation
from mlp_jax.interval.ball import TINY, UNIT, Array, Ball, Refusal, quiet
from mlp_jax.interval.certificate import Interval
from mlp_jax.interval.factorisation import Bounded, Gap

# Computed sums of fewer than 2^32 non-negative numbers: growing them by this bounds them.
_UP = 1 + 2.0**-20
# Size up to which all eigenpairs are cheaper than an iteration.
_SMALL = 300
# Restarts of ARPACK, each of about 20 products.
_RESTARTS = 100
# Rows of a block of a product of a matrix and a vector.
_ROWS = 256


class Spectrum(NamedTuple):
    """Enclosures of eigenvalues: the smallest, one nearest to 0 (to within its enclosure), and the largest."""

    smallest: Interval
    nearest: Interval
    largest: Interval


class Pair(NamedTuple):
    """An estimate of an eigenpair of H, verified: for every H an eigenvalue is within `residual` of `value`.

    quotient
        An enclosure of the Rayleigh quotients of the vector.
    """

    value: float
    vector: Array
    residual: float
    quotient: Interval

    @property
    def enclosure(self) -> Interval:
        """An interval that contains an eigenvalue."""
        low, high = ball.bounds(Ball(np.array(self.value), np.array(self.residual)))
        return float(low), float(high)


def pair(matrix: Ball, value: float, vector: Array) -> Pair:
    """Verify an estimate of an eigenpair of the symmetric matrices in a matrix of balls."""
    v = ball.exact(vector / np.linalg.norm(vector))
    product_, squares = product(matrix, v), ball.total(ball.mul(v, v), (0,))
    rest = ball.sub(product_, ball.mul(ball.exact(value), v))
    residual = length(rest) / (float(squares.mid) * (1 - 2.0**-20))
    quotient = ball.div(ball.total(ball.mul(v, product_), (0,)), squares)
    low, high = ball.bounds(quotient)
    return Pair(value, v.mid, residual * _UP, (float(low), float(high)))


def nearest(matrix: Ball, solve: Callable[[Array], Array], normals: Array | None) -> Pair:
    """Return an eigenpair nearest to 0 among those across the normals (P, s), given v ↦ M⁻¹v; of equal ones, the first.

    So rounding does not choose.
    """

    def inverse(v: Array) -> Array:
        return _across(normals, solve(_across(normals, v)))

    values, vectors = _largest(inverse, len(matrix.mid), 2)
    equal = np.flatnonzero(np.abs(values) >= (1 - 2.0**-30) * np.max(np.abs(values)))
    k = equal[np.argmin(values[equal])]
    return pair(matrix, float(1 / values[k]), vectors[:, k])


def _across(normals: Array | None, v: Array) -> Array:
    return v if normals is None else v - normals @ (normals.T @ v)


def decide(bounds: Bounded, near: Pair, null: int = 0) -> Gap:
    """Return the numbers of eigenvalues on both sides of 0, and the gap between them but for `null` of them, or refuse.

    `near` estimates an eigenvalue next to the gap. Several levels are tried, the closest to it first.
    """
    size, error, level = len(bounds.scale), bounds.rounding, abs(near.value)
    for wanted in (level - 2 * (near.residual + _moved(near, bounds, error)), level / 2, level / 64):
        if not wanted > 0:
            continue
        found = factorisation.gap(bounds, wanted, error)
        if found.negative + found.positive == size - null and found.level > 0:
            return found
        error = max(error, 2 * found.error) if np.isfinite(found.error) else error
    raise undecided(size - null, near)


def undecided(number: int, near: Pair) -> Refusal:
    """Return the refusal where one of the eigenvalues may be 0."""
    return Refusal(
        f"{number} eigenvalues are not all proved to differ from 0 (the nearest is about {near.value:.3g}):"
        " degenerate, or too close to it for float64"
    )


def _moved(of: Pair, bounds: Bounded, error: float) -> float:
    """Return how far an eigenvalue of M may move under errors within the bounds, to first order."""
    return float((of.vector / bounds.scale) ** 2 @ (bounds.spread + error))


def enclose(matrix: Ball, bounds: Bounded, found: Gap, near: Pair, null: int) -> Spectrum:
    """Return enclosures of eigenvalues, given that only `null` of them are within the gap about 0, and these are 0."""
    low, high = near.enclosure
    if low > 0:
        gap = found.level, high if found.negative else min(high, near.quotient[1])
    elif high < 0:
        gap = low if found.positive else max(low, near.quotient[0]), -found.level
    else:
        # The eigenvalue in the enclosure may be a 0 that does not count.
        most = norm(matrix) if null else max(high, -low)
        gap = -most, most
    extreme = gap if null == 0 else (0.0, 0.0)
    error = max(bounds.rounding, 2 * found.error)
    smallest = _lowest(matrix, bounds, 1, error) if found.negative else extreme
    largest = _lowest(matrix, bounds, -1, error) if found.positive else extreme
    return Spectrum(smallest, gap, largest)


def _lowest(matrix: Ball, bounds: Bounded, sign: int, error: float) -> Interval:
    """Return an enclosure of the smallest eigenvalue of H (sign 1) or of the largest (sign −1)."""
    end, which = (0, "SA") if sign > 0 else (-1, "LA")
    values, vectors = _largest(lambda v: matrix.mid @ v, len(matrix.mid), 1, which)
    last = pair(matrix, float(values[end]), vectors[:, end])
    reach = last.residual + _moved(last, bounds, error)
    for factor in (2, 2**10, 2**20):
        wanted = sign * last.value - factor * reach
        found = factorisation.above(bounds, sign, wanted * bounds.scale**2 + bounds.spread + error)
        if found.number == len(matrix.mid):
            break
    level = found.level if found.number == len(matrix.mid) else -norm(matrix)
    low, high = last.quotient
    return (level, high) if sign > 0 else (low, -level)


def _largest(
    operator: Callable[[Array], Array], size: int, count: int, which: str = "LM", tolerance: float = 1e-10
) -> tuple[Array, Array]:
    """Return estimates of eigenpairs of a symmetric operator on columns: `which` as in ARPACK, all if it is small."""
    if size <= _SMALL:
        matrix = operator(np.eye(size))
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        return values, vectors
    start = np.random.default_rng(0).standard_normal(size)
    linear = scipy.sparse.linalg.LinearOperator((size, size), matvec=operator, dtype=np.float64)
    try:
        return scipy.sparse.linalg.eigsh(linear, count, which=which, v0=start, tol=tolerance, maxiter=_RESTARTS)
    except scipy.sparse.linalg.ArpackNoConvergence:
        # Any vector gives valid bounds, if wide ones.
        return np.array([start @ operator(start) / (start @ start)]), start[:, None]


def growth(bounds: Bounded, solve: Callable[[Array], Array]) -> float:
    """Return an estimate of μ for which M is singular within the bounds on H − M divided by μ."""
    weights = np.sqrt(bounds.spread) / bounds.scale
    values, _ = _largest(lambda v: (weights * solve((weights * v.T).T).T).T, len(weights), 1, tolerance=1e-2)
    return float(np.max(np.abs(values)))


def product(matrix: Ball, vector: Ball) -> Ball:
    """Return A·g for all A and g in the balls, some rows at a time."""
    column = Ball(vector.mid[:, None], vector.radius[:, None])
    mid, rad = np.empty(len(matrix.mid)), np.empty(len(matrix.mid))
    for first in range(0, len(mid), _ROWS):
        rows = slice(first, first + _ROWS)
        part = ball.matmul(Ball(matrix.mid[rows], matrix.radius[rows]), column)
        mid[rows], rad[rows] = part.mid[:, 0], part.radius[:, 0]
    return Ball(mid, rad)


def upper(values: Ball) -> Array:
    """Return an upper bound on |x| for all x in the balls."""
    return (np.abs(values.mid) + values.radius) * (1 + 4 * UNIT)


@quiet
def length(vector: Ball) -> float:
    """Return an upper bound on the 2-norm of all vectors in the balls."""
    size = upper(vector)
    largest = float(np.max(size, initial=0.0)) + TINY
    return largest * float(np.sqrt(np.sum((size / largest) ** 2) + len(size) * TINY)) * _UP + TINY


@quiet
def norm(matrix: Ball) -> float:
    """Return an upper bound on the 2-norm of all matrices in a matrix of balls: (‖·‖₁ ‖·‖∞)^½, or Frobenius."""
    size = np.abs(matrix.mid) + matrix.radius
    sums = float(np.max(size.sum(axis=0))) * float(np.max(size.sum(axis=1)))
    # The second term covers squares of tiny numbers, which underflow.
    squares = float(np.sum(size * size)) + size.size * TINY
    least = min(np.sqrt(sums), np.sqrt(squares)) * _UP + size.shape[0] * TINY
    if not np.isfinite(least):
        raise Refusal("a norm overflows")
    return float(least)
