"""Midpoint–radius arrays in float64: every operation returns balls that contain all exact results.

A ball (m, r) holds the real numbers x with |x − m| ≤ r. Midpoints are rounded to nearest, and radii are grown by the
error of that: with u = 2⁻⁵³ and τ = 2⁻¹⁰²², the smallest normal number, below which numbers may even be
flushed, |fl(a ∘ b) − a ∘ b| ≤ u |fl(a ∘ b)| + τ. Radii are sums and products of non-negative numbers in fewer than 60
operations, which lose less than the factor 1 + 2⁻⁴⁷ and 64 τ; these are added at the end of each operation (Rump
1999, "Fast and parallel interval arithmetic"). Sums of n terms use γ = n u / (1 − n u), in any order (Higham
2002, section 3.1), so the matrix product may be any classical one (not Strassen's), with or without FMA.

Balls are finite: overflow, division by zero and arguments outside a domain raise `Refusal`. The one exception is exact
infinities among constants, which `max` and comparisons understand.

`ball` and `multiprecision` have the same functions, on `Ball` and on arrays of arb: the two scalars of `interpreter`.
Host-level: numpy, because XLA flushes subnormal numbers and guarantees no rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

UNIT = 2.0**-53
TINY = 2.0**-1022
_GROW = 1 + 2.0**-47
# Multiply-adds above which the rounding of a product is bounded by norms.
_SMALL_PRODUCT = 2**14

Array = np.ndarray
# Overflow and invalid operations show in the results, which `outward` checks.
quiet = np.errstate(all="ignore")


class Refusal(Exception):
    """Why a proof is refused, in one sentence."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ball:
    """An array of balls.

    mid
        Midpoints, float64.
    rad
        Radii ≥ 0 that broadcast to the shape of mid; None where all are exactly 0.
    zero
        True only where every number is exactly 0, so that products with it need no work.
    """

    mid: Array
    rad: Array | None = None
    zero: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.mid.shape

    @property
    def radius(self) -> Array:
        """Radii as an array of the shape of mid."""
        return np.zeros(self.shape) if self.rad is None else np.broadcast_to(self.rad, self.shape)


@quiet
def outward(mid: Array, rad: Array, terms: int = 1, what: str = "arithmetic") -> Ball:
    """Return the ball with its radius grown by the error of computing it; raise Refusal if it is not finite.

    `rad`, which is overwritten, came from non-negative numbers in fewer than 60 operations, or from sums of `terms`
    such products.
    """
    rad = np.asarray(rad)
    rad *= _GROW + 4 * terms * UNIT
    rad += 64 * terms * TINY
    # The radius is not finite where the midpoint is not: it contains u |mid|, or u times a bound on |mid|.
    if rad.size and not np.isfinite(np.max(rad)):
        raise Refusal(f"{what}: a number overflows, is undefined, or divides by something that may be 0")
    return Ball(mid, rad)


def gamma(terms: int) -> float:
    """Return a bound on the relative error of a sum or dot product: a little more than n u/(1 − n u)."""
    if terms > 2**40:
        raise Refusal(f"a sum of {terms} terms is too long for the error bounds, which need fewer than 2^40")
    return (terms + 4) * UNIT * (1 + 2.0**-10)


def exact(values: Any) -> Ball:
    """Return float64 numbers as balls of radius 0."""
    return Ball(np.asarray(values, dtype=np.float64))


def zeros(shape: tuple[int, ...]) -> Ball:
    """Return exact zeros, as a view that takes no memory."""
    return Ball(np.broadcast_to(np.float64(0), shape), None, True)


def is_zero(a: Ball) -> bool:
    """Return whether every number is known to be 0."""
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
def product(a: Ball, b: Ball) -> Ball:
    """Return a · b in balls that are as narrow as they can be, also where both are wide.

    With t = min(|a| r_b, rₐ |b|, rₐ r_b) and s the sum of the three, the products are within s − t of ab ± t, with the
    sign of ab.
    """
    if a.rad is None or b.rad is None:
        return mul(a, b)
    size, other = np.abs(a.mid), np.abs(b.mid)
    parts = size * b.rad, a.rad * other, a.rad * b.rad
    shift = np.minimum(np.minimum(parts[0], parts[1]), parts[2])
    mid = np.asarray(a.mid * b.mid)
    rad = np.abs(mid) + shift
    mid += np.copysign(shift, mid)
    rad *= 2 * UNIT  # of the product, and of the sum with the shift
    for part_ in parts:
        rad += part_
    # At most a third of the sum: the difference keeps the relative error of a sum of non-negative numbers.
    rad -= shift
    return outward(mid, rad)


@quiet
def square(a: Ball) -> Ball:
    """Return a², which is not negative."""
    if a.rad is None:
        return mul(a, a)
    size = np.abs(a.mid)
    low, high = np.maximum(size - a.rad, 0), size + a.rad
    mid = (low * low + high * high) / 2
    return outward(mid, (high * high - low * low) / 2 + 8 * UNIT * mid)


@quiet
def inverse(a: Ball) -> Ball:
    """Return 1 / a, for a that exclude 0, in balls that are as narrow as they can be."""
    if a.rad is None:
        return div(exact(np.ones(a.shape)), a)
    lo, hi = bounds(a)
    same = (lo > 2.0**-960) | (hi < -(2.0**-960))
    lo, hi = np.where(same, 1 / hi, np.nan), np.where(same, 1 / lo, np.nan)
    return between(lo - 2 * UNIT * np.abs(lo), hi + 2 * UNIT * np.abs(hi))


@quiet
def div(a: Ball, b: Ball) -> Ball:
    """Return a / b, for b that exclude 0: |a'/b' − a/b| ≤ (rₐ + |a/b| r_b) / (|b| − r_b)."""
    mid = a.mid / b.mid
    size = np.abs(mid)
    rad = size * UNIT
    if a.rad is not None or b.rad is not None:
        least = np.abs(b.mid) if b.rad is None else (np.abs(b.mid) - b.rad) * (1 - 8 * UNIT)
        # Far above the subnormal numbers the factor rounds down.
        least = np.where(least > 2.0**-960, least, np.nan)
        spread = TINY if a.rad is None else a.rad + TINY
        if b.rad is not None:
            spread = spread + (size * (1 + 8 * UNIT) + TINY) * b.rad
        rad = rad + spread / least
    return outward(mid, np.broadcast_to(rad, mid.shape).copy(), what="division")


@quiet
def matmul(a: Ball, b: Ball) -> Ball:
    """Return the matrix products a (…, m, k) @ b (…, k, n).

    The radius is |A| R_B + R_A (|B| + R_B) plus the rounding, |fl(AB) − AB| ≤ γ_k |A||B| + k τ. In large products
    |A||B| is bounded by the norms of a row and a column, ‖Aᵢ‖ ‖Bⱼ‖ (Cauchy–Schwarz), which saves a product.
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
    """Return a bound on the rounding of a @ b, to the relative error of a sum of non-negative numbers."""
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
    # BLAS does not accept views that repeat numbers, and numpy's own product is slow.
    return np.ascontiguousarray(values) if 0 in values.strides else values


@quiet
def total(a: Ball, axes: tuple[int, ...]) -> Ball:
    """Return the sum over some axes."""
    terms = int(np.prod([a.shape[axis] for axis in axes]))
    mid = np.sum(a.mid, axis=axes)
    rad = np.abs(a.mid)
    rad *= gamma(terms)
    if a.rad is not None:
        rad += a.rad
    return outward(mid, np.asarray(np.sum(rad, axis=axes)), terms + 1, "sum")


def move(function: Callable[..., Array], *balls: Ball) -> Ball:
    """Apply a function that only rearranges numbers to midpoints and to radii."""
    mid = _contiguous(function(*(a.mid for a in balls)))
    if all(a.rad is None for a in balls):
        return Ball(mid)
    return Ball(mid, _contiguous(function(*(a.radius for a in balls))))


def part(a: Ball, *index: Any) -> Ball:
    """Return a[index], with new axes for None."""
    return Ball(a.mid[index], None if a.rad is None else a.radius[index])


def _contiguous(values: Array) -> Array:
    # Broadcast views stay views; transposed ones are copied once, because numpy is slow on them.
    return values if 0 in values.strides else np.asarray(values, order="C")


@quiet
def scatter_add(a: Ball, positions: Array, updates: Ball) -> Ball:
    """Return a with updates added at flat positions; negative positions are dropped."""
    kept = positions.ravel() >= 0
    where = positions.ravel()[kept]
    places, number, times = np.unique(where, return_inverse=True, return_counts=True)
    most = int(np.max(times, initial=1))
    mid, rad = a.mid.flatten(), a.radius.flatten()
    values, radii = updates.mid.ravel()[kept], updates.radius.ravel()[kept]
    size = np.abs(mid[places]) + np.bincount(number, np.abs(values), len(places))
    np.add.at(mid, where, values)
    rad[places] += np.bincount(number, radii, len(places)) + gamma(most + 1) * size
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


def hull(a: Ball, b: Ball) -> Ball:
    """Return balls that contain those of a and of b."""
    (lo_a, hi_a), (lo_b, hi_b) = bounds(a), bounds(b)
    return between(np.minimum(lo_a, lo_b), np.maximum(hi_a, hi_b))


def intersection(a: Ball, b: Ball) -> Ball:
    """Return balls that contain what balls with a common number have in common."""
    (lo_a, hi_a), (lo_b, hi_b) = bounds(a), bounds(b)
    return between(np.maximum(lo_a, lo_b), np.minimum(hi_a, hi_b))


def is_finite(a: Ball) -> Array:
    """Return where numbers are finite."""
    return np.isfinite(a.mid)


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
