"""Boxes made smaller by equations in slope form: F(x) = F(c) + S (x − c) for all x in a box, so that F(x) = 0 bounds x.

Multiplied by an approximate inverse Y of the middle of S, each equation is solved for its own coordinate (interval
Gauss–Seidel; Neumaier 1990, "Interval methods for systems of equations", chapter 4). Nothing is assumed of Y.
"""

from typing import NamedTuple

import numpy as np

from mlp_jax.interval import ball
from mlp_jax.interval.ball import Array, Ball, part

# Of coordinates with equal shares, the widest is bisected.
_TIES = 1e-6


class Contracted(NamedTuple):
    """What is left of boxes, (count, n).

    low, high
        Every zero in the box is between them.
    empty
        (count,): the box has no zero.
    share
        How much each coordinate adds to the width of the equations: the largest is bisected.
    """

    low: Array
    high: Array
    empty: Array
    share: Array


def contract(low: Array, high: Array, center: Array, values: Ball, slopes: Ball) -> Contracted:
    """Return what n or more equations leave of boxes; the first n are solved for the coordinates.

    low, high, center
        (count, n), the centres inside the boxes.
    values, slopes
        F at the centres, (count, m), and the slopes, (count, m, n).
    """
    size = low.shape[1]
    square = Ball(slopes.mid[:, :size], slopes.radius[:, :size])
    near = ball.exact(inverse(square.mid))
    matrix = ball.matmul(near, square)
    right = ball.matmul(near, Ball(values.mid[:, :size, None], values.radius[:, :size, None]))
    low, high, empty = _solve(low, high, center, matrix, Ball(right.mid[..., 0], right.radius[..., 0]))
    radius = np.maximum(np.abs(high - center), np.abs(center - low)) * (1 + 4 * ball.UNIT)
    spread = _size(slopes) * radius[:, None, :]
    reach = np.sum(spread, axis=-1) * (1 + (size + 4) * ball.UNIT) + ball.TINY
    empty |= np.any(np.abs(values.mid) * (1 - 4 * ball.UNIT) > reach + values.radius * (1 + 4 * ball.UNIT), axis=-1)
    adds = _size(square) * np.maximum(high - low, 0)[:, None, :]
    share = np.sum(adds / (np.sum(adds, axis=-1, keepdims=True) + ball.TINY), axis=1) + _TIES * (high - low)
    return Contracted(low, high, empty, share)


def _size(a: Ball) -> Array:
    return (np.abs(a.mid) + a.radius) * (1 + 4 * ball.UNIT)


@ball.quiet
def inverse(matrices: Array) -> Array:
    """Return inverses in floating point; those of nearby matrices where one is singular, and I where that overflows."""
    size = matrices.shape[-1]
    scale = np.max(np.abs(matrices), axis=(1, 2), keepdims=True)
    usable = (scale > 1e-100) & (scale < 1e100)
    scaled = np.where(usable, matrices / scale, np.eye(size))
    found: Array
    try:
        found = np.linalg.inv(scaled)
    except np.linalg.LinAlgError:
        found = np.linalg.inv(scaled + 1e-12 * np.random.default_rng(0).standard_normal((size, size)))
    return np.where(usable & np.all(np.abs(found) < 1e100, axis=(1, 2), keepdims=True), found / scale, np.eye(size))


@ball.quiet
def _solve(low: Array, high: Array, center: Array, matrix: Ball, right: Ball) -> tuple[Array, Array, Array]:
    """Return the ends of boxes after a sweep of Gauss–Seidel, and which are empty."""
    low, high, center = (np.array(x.T, order="C") for x in (low, high, center))  # the boxes last: faster
    rows, right = (
        ball.move(lambda x: np.ascontiguousarray(np.moveaxis(x, 0, 2)), matrix),
        ball.move(np.transpose, right),
    )
    size, empty = len(low), np.zeros(low.shape[1], bool)
    away = ball.sub(ball.between(low, high), ball.exact(center))
    mid, rad = away.mid, away.radius.copy()
    for k in reversed(range(size)):
        row, others = part(rows, k), np.arange(size) != k
        here = part(right, k)
        if size > 1:
            here = ball.add(here, ball.total(ball.product(part(row, others), Ball(mid[others], rad[others])), (0,)))
        own = part(row, k)
        regular = np.abs(own.mid) - own.radius * (1 + 4 * ball.UNIT) > 2.0**-500
        divisor = Ball(np.where(regular, own.mid, 1.0), np.where(regular, own.radius, 0.0))
        found = ball.sub(ball.exact(center[k]), ball.product(here, ball.inverse(divisor)))
        lo, hi = ball.bounds(found)
        low[k] = np.where(regular, np.maximum(low[k], lo), low[k])
        high[k] = np.where(regular, np.minimum(high[k], hi), high[k])
        empty |= low[k] > high[k]
        ends = np.where(empty, center[k], low[k]), np.where(empty, center[k], high[k])
        moved = ball.sub(ball.between(*ends), ball.exact(center[k]))
        mid[k], rad[k] = moved.mid, moved.radius
    return low.T, high.T, empty
