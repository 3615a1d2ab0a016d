"""Midpoint–radius arrays in float64: every operation returns balls that contain all exact results (see `rounding`).

`ball` and `multiprecision` have the same functions, on `Ball` and on arrays of arb: the two scalars of `interpreter`.
Host-level: numpy, because XLA flushes subnormal numbers and promises no rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_jax.interval.rounding import (
    TINY,
    UNIT,
    Array,
    Ball,
    Refusal,
    gamma,
    outward,
    quiet,
    require_ieee,
)

__all__ = ["TINY", "UNIT", "Array", "Ball", "Refusal", "gamma", "outward", "require_ieee"]

# Multiply-adds above which the rounding of a product is bounded by norms.
_SMALL_PRODUCT = 2**14


def exact(values: Any) -> Ball:
    """Return float64 numbers as balls of radius 0."""
    return Ball(np.asarray(values, dtype=np.float64))


def zeros(shape: tuple[int, ...]) -> Ball:
    """Return exact zeros, which take no memory."""
    return Ball(np.broadcast_to(np.float64(0), shape), None, True)


def is_zero(a: Ball) -> bool:
    """Return whether every number is known to be exactly 0."""
    return a.zero


@quiet
def add(a: Ball, b: Ball) -> Ball:
    """Return a + b."""
    return _sum(a.mid + b.mid, a, b)


@quiet
def sub(a: Ball, b: Ball) -> Ball:
    """Return a − b."""
    return _sum(a.mid - b.mid, a, b)


def _sum(mid: Array, a: Ball, b: Ball) -> Ball:
    rad = np.abs(mid)
    rad *= UNIT
    for term in (a, b):
        if term.rad is not None:
            rad += term.rad
    return outward(mid, rad)


def neg(a: Ball) -> Ball:
    """Return −a, exactly."""
    return Ball(-a.mid, a.rad)


@quiet
def mul(a: Ball, b: Ball) -> Ball:
    """Return a · b: |a'b' − ab| ≤ rₐ|b| + |a| r_b + rₐ r_b."""
    mid = a.mid * b.mid
    rad = np.abs(mid)
    rad *= UNIT
    if a.rad is not None:
        size = np.abs(b.mid)
        rad += a.rad * (size if b.rad is None else size + b.rad)
    if b.rad is not None:
        rad += np.abs(a.mid) * b.rad
    return outward(mid, rad)


@quiet
def div(a: Ball, b: Ball) -> Ball:
    """Return a / b, where no b is 0: |a'/b' − a/b| ≤ (rₐ + |a/b| r_b) / (|b| − r_b)."""
    mid = a.mid / b.mid
    size = np.abs(mid)
    rad = size * UNIT
    if a.rad is not None or b.rad is not None:
        least = np.abs(b.mid) if b.rad is None else (np.abs(b.mid) - b.rad) * (1 - 8 * UNIT)
        # Far above the subnormal numbers, so that the factor above did round down.
        least = np.where(least > 2.0**-960, least, np.nan)
        spread = TINY if a.rad is None else a.rad + TINY
        if b.rad is not None:
            spread = spread + (size * (1 + 8 * UNIT) + TINY) * b.rad
        rad = rad + spread / least
    return outward(mid, np.broadcast_to(rad, mid.shape).copy(), what="division")


@quiet
def matmul(a: Ball, b: Ball) -> Ball:
    """Return the matrix products a (…, m, k) @ b (…, k, n).

    The radius is |A| R_B + R_A (|B| + R_B), and for rounding |fl(AB) − AB| ≤ γ_k |A||B| + k τ. The last is bounded by
    the norms of a row and a column, |A||B| ≤ ‖Aᵢ‖ ‖Bⱼ‖ (Cauchy and Schwarz), where that saves a large product.
    """
    terms = a.shape[-1]
    a, b = Ball(_dense(a.mid), a.rad), Ball(_dense(b.mid), b.rad)
    mid = a.mid @ b.mid
    rad = _rounding(a.mid, b.mid, mid.size)
    if b.rad is not None:
        rad += np.abs(a.mid) @ _dense(b.radius)
    if a.rad is not None:
        size = np.abs(b.mid)
        rad += _dense(a.radius) @ (size if b.rad is None else size + b.rad)
    rad += UNIT * np.abs(mid)
    return outward(mid, rad, 2 * terms + 2, "matrix product")


def _rounding(a: Array, b: Array, size: int) -> Array:
    """Return a bound on the rounding of a @ b but for the relative error of a sum of non-negative numbers."""
    unit = gamma(a.shape[-1])
    if size * a.shape[-1] > _SMALL_PRODUCT:
        # Squares that underflow lose less than τ each.
        rows = np.sqrt(np.einsum("...ik,...ik->...i", a, a) + a.size * TINY)
        columns = np.sqrt(np.einsum("...kj,...kj->...j", b, b) + b.size * TINY)
        rad = (unit * rows)[..., :, None] * columns[..., None, :]
        if np.isfinite(np.max(rad, initial=0.0)):
            return rad
    return np.abs(a) @ (unit * np.abs(b))


def _dense(values: Array) -> Array:
    # BLAS does not take views that repeat numbers, and numpy's own product is slow.
    return np.ascontiguousarray(values) if 0 in values.strides else values


@quiet
def total(a: Ball, axes: tuple[int, ...]) -> Ball:
    """Return the sum over some axes."""
    terms = int(np.prod([a.shape[axis] for axis in axes]))
    mid = np.sum(a.mid, axis=axes)
    rad = np.sum(np.abs(a.mid), axis=axes) * gamma(terms)
    if a.rad is not None:
        rad = rad + np.sum(np.broadcast_to(a.rad, a.shape), axis=axes)
    return outward(mid, np.asarray(rad), terms + 1, "sum")


def move(function: Callable[..., Array], *balls: Ball) -> Ball:
    """Apply a function that only rearranges numbers to midpoints and to radii."""
    mid = _contiguous(function(*(a.mid for a in balls)))
    if all(a.rad is None for a in balls):
        return Ball(mid)
    return Ball(mid, _contiguous(function(*(a.radius for a in balls))))


def _contiguous(values: Array) -> Array:
    # Broadcast views stay views; transposed ones are copied once, because numpy is slow on them every time.
    return values if 0 in values.strides else np.asarray(values, order="C")


@quiet
def scatter_add(a: Ball, positions: Array, updates: Ball) -> Ball:
    """Return a with updates added at flat positions; negative positions are dropped."""
    kept = positions.ravel() >= 0
    where = positions.ravel()[kept]
    most = int(np.max(np.bincount(where), initial=1))
    mid, size, rad = a.mid.ravel().copy(), np.abs(a.mid).ravel(), a.radius.ravel().copy()
    values = updates.mid.ravel()[kept]
    np.add.at(mid, where, values)
    np.add.at(size, where, np.abs(values))
    np.add.at(rad, where, updates.radius.ravel()[kept])
    rad += gamma(most + 1) * size
    return outward(mid.reshape(a.shape), rad.reshape(a.shape), most + 2, "scatter")


@quiet
def bounds(a: Ball) -> tuple[Array, Array]:
    """Return float64 arrays lo and hi with lo ≤ x ≤ hi for all x in the balls."""
    if a.rad is None:
        return a.mid, a.mid
    lo, hi = a.mid - a.rad, a.mid + a.rad
    return lo - (4 * UNIT * np.abs(lo) + TINY), hi + (4 * UNIT * np.abs(hi) + TINY)


@quiet
def between(lo: Array, hi: Array) -> Ball:
    """Return balls that contain the intervals [lo, hi]."""
    mid = np.asarray(lo + (hi - lo) / 2)
    rad = np.maximum(hi - mid, mid - lo) + UNIT * np.abs(mid)
    return outward(mid, np.asarray(rad), what="hull")


def compare(a: Ball, b: Ball) -> Array:
    """Return 1 where every a > b, −1 where every a < b, 0 where both are exact and equal, 2 where undecided."""
    (lo_a, hi_a), (lo_b, hi_b) = bounds(a), bounds(b)
    order = np.where(lo_a > hi_b, 1, np.where(hi_a < lo_b, -1, 2)).astype(np.int8)
    same = (lo_a == hi_a) & (lo_b == hi_b) & (lo_a == lo_b)
    return np.where(same, np.int8(0), order)


def select(choice: Array, *cases: Ball) -> Ball:
    """Return cases[choice], elementwise."""
    shape = np.broadcast_shapes(choice.shape, *(c.shape for c in cases))
    mid = np.choose(choice, [np.broadcast_to(c.mid, shape) for c in cases])
    if all(c.rad is None for c in cases):
        return Ball(mid)
    return Ball(mid, np.choose(choice, [np.broadcast_to(c.radius, shape) for c in cases]))


def hull_of_maximum(a: Ball, b: Ball) -> Ball:
    """Return balls that contain the larger of a and b, as values."""
    (lo_a, hi_a), (lo_b, hi_b) = bounds(a), bounds(b)
    return between(np.maximum(lo_a, lo_b), np.maximum(hi_a, hi_b))
