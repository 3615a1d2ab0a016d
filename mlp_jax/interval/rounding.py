"""Balls, and the rounding error of an operation on them.

A ball (m, r) holds the real numbers x with |x − m| ≤ r. Midpoints are computed to nearest, and radii are grown by
what that may have lost: with u = 2⁻⁵³ and τ = 2⁻¹⁰²², the smallest normal number, below which numbers may even be
flushed, |fl(a ∘ b) − a ∘ b| ≤ u |fl(a ∘ b)| + τ. Radii are sums and products of non-negative numbers in fewer than 60
operations, which lose less than the factor 1 + 2⁻⁴⁷ and 64 τ, and these are added at the end of each operation (Rump
1999, "Fast and parallel interval arithmetic"). Sums of n terms use γ = n u / (1 − n u), in any order (Higham
2002, section 3.1), so the matrix product may be any classical one (not Strassen's), with or without FMA.

Balls are finite: what would overflow, divide by zero or leave a function's domain raises `Refusal`. One kind of number
is excepted: exact infinities among constants, which `max` and comparisons understand.
"""

from __future__ import annotations

import dataclasses

import numpy as np

UNIT = 2.0**-53
TINY = 2.0**-1022
_GROW = 1 + 2.0**-47

Array = np.ndarray
# Overflow and invalid operations show in the results, which `outward` looks at.
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


def require_ieee() -> None:
    """Raise Refusal unless numpy's arithmetic rounds to nearest and keeps subnormal numbers."""
    one, small = np.ones(4), np.full(4, TINY)
    nearest = np.all(one + UNIT == 1) and np.all(one + 3 * UNIT == 1 + 4 * UNIT) and np.all(-one - UNIT == -1)
    gradual = np.all(small * 0.5 > 0) and np.all((small * 0.5) * 2 == small) and np.all(np.eye(4) @ (small / 4) > 0)
    if not (nearest and gradual):
        raise Refusal("this machine's arithmetic does not round to nearest, or flushes subnormal numbers")


@quiet
def outward(mid: Array, rad: Array, terms: int = 1, what: str = "arithmetic") -> Ball:
    """Return the ball, its radius grown by what computing it lost; `rad` is overwritten.

    `rad` came from non-negative numbers in fewer than 60 operations, or from sums of `terms` such products.

    Raises
    ------
    Refusal
        Something overflowed, or was not a number.
    """
    rad = np.asarray(rad)
    rad *= _GROW + 4 * terms * UNIT
    rad += 64 * terms * TINY
    # A midpoint that is not finite has made its radius so: u |mid| is part of it, or u times what |mid| is less than.
    if rad.size and not np.isfinite(np.max(rad)):
        raise Refusal(f"{what}: a number overflows, is undefined, or divides by something that may be 0")
    return Ball(mid, rad)


def gamma(terms: int) -> float:
    """Bound the relative error of a sum or dot product of `terms` terms: a little more than n u/(1 − n u)."""
    if terms > 2**40:
        raise Refusal(f"a sum of {terms} terms is too long for the error bounds, which need fewer than 2^40")
    return (terms + 4) * UNIT * (1 + 2.0**-10)
