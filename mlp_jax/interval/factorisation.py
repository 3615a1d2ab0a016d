"""How many eigenvalues lie above a level, for all symmetric matrices in a matrix of balls: LDLᵀ, its error verified.

Let H be symmetric with |H − M| ≤ R entrywise, and S = diag(s), s powers of two. Since 2|yᵢyⱼ| ≤ yᵢ² + yⱼ²,

    −diag(b) ≤ S(H − M)S ≤ diag(b),    b = S R s,

in the order of symmetric matrices. Take a shift t (P,), W = S M S − diag(t), and any floating-point lower triangular
L with a positive diagonal, block diagonal D and permutation, with W = L D Lᵀ + E after it (LAPACK's Cholesky factor and
D = I, or where there is none, Bunch–Kaufman factors). Row sums d ≥ |E| 1 give −diag(d) ≤ E ≤ diag(d) likewise. So where
σ sᵢ² ≤ tᵢ − bᵢ − dᵢ for all i,

    S(H − σI)S  ≥  W + diag(t − b) − σS²  ≥  L D Lᵀ + diag(t − b − d) − σS²  ≥  L D Lᵀ,

and H has at least as many eigenvalues above σ as D has positive ones (Sylvester, Weyl). The same holds for −H. No
matrix is inverted, and nothing is assumed of the factorisation (compare Rump 2006, "Verification of positive
definiteness"): E is computed, as W minus the products of blocks of LD and of Lᵀ, k = min(P, 384) columns at a time in
p = ⌈P / 384⌉ parts. With u, γ and τ as in `ball`, d contains the row sums of |E| as computed and

- γ |L| |D| |L|ᵀ 1, γ of k + 2p + 8 terms: three terms in an entry of LD, k in one of a product, and the rounding of p
  differences, each at most |W| + |L| |D| |L|ᵀ ≤ 2 |L| |D| |L|ᵀ + |E|;
- 2u |W|ᵢᵢ for the shift of the diagonal; scaling by powers of two is exact but for underflow;
- τ (P² + 3 · 1ᵀ|L|1 + P + 1ᵀs) for underflow in products, differences and scaling;
- a share of 2⁻²⁰ of all this, which covers p u |E| and the rounding of sums of fewer than 2³² non-negative numbers.

An overflow makes d infinite, which proves nothing. The signs of 2×2 blocks of D are decided with their rounding.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from mlp_jax.curvature import cholesky, ldl, signs
from mlp_jax.interval import ball
from mlp_jax.interval.ball import TINY, UNIT, Array, Ball, Refusal, quiet

_UP = 1 + 2.0**-20
# Side of a block: enough for fast products, few enough for a triangle of blocks to save half of the work, and for a
# bound on the rounding of products, which grows with it. Blocks of 10⁴ columns stay below 32 MB, so malloc reuses them.
_ROWS = 384


class Bounded(NamedTuple):
    """All symmetric H with −diag(b) ≤ S(H − M)S ≤ diag(b): M (P, P), s = scale (P,) and b = spread (P,)."""

    mid: Array
    scale: Array
    spread: Array

    @property
    def rounding(self) -> float:
        """Return a usual size of d, to begin with."""
        return 16 * len(self.mid) * UNIT


class Above(NamedTuple):
    """At least `number` eigenvalues are above `level`; `error` is the largest of d, the error of the factorisation."""

    number: int
    level: float
    error: float


class Gap(NamedTuple):
    """Numbers of eigenvalues below −level and above level, and the error of the factorisation."""

    negative: int
    positive: int
    level: float
    error: float


@quiet
def bounded(matrix: Ball, scale: Array | None = None) -> Bounded:
    """Return bounds on the symmetric matrices in a matrix of balls; `scale` holds powers of two."""
    scale = signs.scaling(matrix.mid) if scale is None else scale
    if not (scale.min() > 2.0**-500 and scale.max() < 2.0**500):
        raise Refusal("the coordinates are scaled too differently for float64")
    return Bounded(matrix.mid, scale, spread(matrix.radius @ scale, scale))


@quiet
def spread(sums: Array, scale: Array) -> Array:
    """Return an upper bound on b, given R s in floating point."""
    return scale * (sums + len(scale) * TINY * (1 + scale.max())) * _UP + TINY


@quiet
def above(matrix: Bounded, sign: int, shift: Array) -> Above:
    """Return a number of eigenvalues of sign · H, and the level above which they are for every H, given a shift t."""
    lower, diagonal, below, order = _cholesky(matrix, sign, shift) or _bunch_kaufman(matrix, sign, shift)
    error = np.empty_like(shift)
    error[order] = _error(matrix, sign, shift, order, lower, diagonal, below)
    error = (error + TINY * (len(shift) + matrix.scale.sum())) * _UP
    slack = 4 * UNIT * (np.abs(shift) + error + matrix.spread)
    level = float(np.min((shift - error - matrix.spread - slack) / matrix.scale**2)) - TINY
    if not np.isfinite(level):
        return Above(0, -np.inf, np.inf)
    return Above(_positive(diagonal, below), level, float(np.max(error)))


def gap(matrix: Bounded, level: float, error: float) -> Gap:
    """Return the eigenvalues proved to be outside of about ±level, if the factorisations have about this error."""
    shift = level * matrix.scale**2 + matrix.spread + error
    up = above(matrix, 1, shift)
    if up.number == len(shift):
        return Gap(0, up.number, up.level, up.error)
    down = above(matrix, -1, shift)
    return Gap(down.number, up.number, min(up.level, down.level), max(up.error, down.error))


def solver(matrix: Bounded) -> Callable[[Array], Array] | None:
    """Return the floating-point map v ↦ M⁻¹v, of columns, without error bounds; None if M is singular to rounding."""
    scale, none = matrix.scale, np.zeros(len(matrix.scale))
    if found := _cholesky(matrix, 1, none):
        inner = functools.partial(lapack.dpotrs, found[0], lower=1)
    else:
        inner = functools.partial(lapack.dsytrs, *_factors(matrix, 1, none), lower=1)

    def solve(v: Array) -> Array:
        return (scale * inner((scale * v.T).T)[0].T).T

    return solve if np.all(np.isfinite(solve(np.ones(len(scale))))) else None


def _cholesky(matrix: Bounded, sign: int, shift: Array) -> tuple[Array, Array, Array, Array] | None:
    """Return L, the diagonal of D = I, what is below it, and the order; None where W is not positive definite."""
    lower = _shifted(matrix, sign, shift)
    if not (cholesky.factor(lower) and np.all(np.diag(lower) > 0)):
        return None
    size = len(shift)
    return lower, np.ones(size), np.zeros(size - 1), np.arange(size)


def _bunch_kaufman(matrix: Bounded, sign: int, shift: Array) -> tuple[Array, Array, Array, Array]:
    """Return L, the diagonal of D, what is below it, and the order of rows."""
    factors, pivots = _factors(matrix, sign, shift)
    lower, below, _ = lapack.dsyconv(factors, pivots, lower=1, way=0, overwrite_a=1)
    diagonal = np.diag(lower).copy()
    np.fill_diagonal(lower, 1)
    return lower, diagonal, below[:-1], ldl.permutation(pivots)


def _factors(matrix: Bounded, sign: int, shift: Array) -> tuple[Array, Array]:
    """Return Bunch–Kaufman factors of sign · S M S − diag(t), as LAPACK packs them, and the pivots."""
    lwork = int(lapack.dsytrf_lwork(len(shift), lower=1)[0])
    factors, pivots, _ = lapack.dsytrf(_shifted(matrix, sign, shift), lower=1, lwork=lwork, overwrite_a=1)
    return factors, pivots


def _shifted(matrix: Bounded, sign: int, shift: Array) -> Array:
    """Return sign · S M S − diag(t) with its lower triangle alone, in the order of LAPACK."""
    size = len(shift)
    work = np.empty((size, size))
    everywhere = np.arange(size)
    for rows in _blocks(size):
        # The upper triangle, which transposed is the lower one that LAPACK overwrites, in the same memory.
        work[rows, rows.start :] = _entries(matrix, sign, shift, everywhere[rows], everywhere[rows.start :], 0)
    return work.T


def _entries(matrix: Bounded, sign: int, shift: Array, rows: Array, columns: Array, first: int) -> Array:
    """Return entries of sign · S M S − diag(t); the diagonal ones begin at column `first` of those returned."""
    part = matrix.mid[rows[:, None], columns]
    part *= (sign * matrix.scale[rows])[:, None]
    part *= matrix.scale[columns]
    np.einsum("ii->i", part[:, first : first + len(rows)])[:] -= shift[rows]
    return part


def _error(
    matrix: Bounded, sign: int, shift: Array, order: Array, lower: Array, diagonal: Array, below: Array
) -> Array:
    """Return d, row sums of a bound on |W − L D Lᵀ| in the order of the factors, up to a share of 2⁻²⁰."""
    size = len(order)
    columns = np.zeros(size)  # |L|ᵀ 1
    for rows in _blocks(size):
        corner = lower[rows, rows]
        corner[...] = np.tril(corner)
        columns[: rows.stop] += np.abs(lower[rows, : rows.stop]).sum(axis=0)
    middle = _times_blocks(np.abs(diagonal), np.abs(below), columns)
    parts = -(-size // _ROWS)
    unit = ball.gamma(min(size, _ROWS) + 2 * parts + 8)
    underflow = TINY * (size**2 + 3 * columns.sum())
    error = np.full(size, underflow)
    for rows in _blocks(size):
        ours = lower[rows, : rows.stop]
        error[rows] += unit * (np.abs(ours) @ middle[: rows.stop])
        scaled = _times_blocks(diagonal[: rows.stop], below[: rows.stop - 1], ours)
        part = _entries(matrix, sign, shift, order[rows], order[: rows.stop], rows.start)
        error[rows] += 2 * UNIT * np.abs(np.diag(part[:, rows.start :]))
        for others in _blocks(rows.stop):
            for inner in _blocks(others.stop):
                part[:, others] -= scaled[:, inner] @ lower[others, inner].T
        np.abs(part, out=part)
        error[rows] += part.sum(axis=1)
        error[: rows.start] += part[:, : rows.start].sum(axis=0)
    return error


def _times_blocks(diagonal: Array, below: Array, rows: Array) -> Array:
    """Return the product of rows and a symmetric matrix with this diagonal and this one below it."""
    result = rows * diagonal
    result[..., 1:] += rows[..., :-1] * below
    result[..., :-1] += rows[..., 1:] * below
    return result


def _positive(diagonal: Array, below: Array) -> int:
    """Return a number of eigenvalues that are surely positive of a matrix of 1×1 and 2×2 diagonal blocks."""
    first = np.flatnonzero(below)
    if np.any(np.diff(first) < 2):  # D has larger blocks
        return 0
    single = np.ones(len(diagonal), dtype=bool)
    single[first] = single[first + 1] = False
    a, b, c = diagonal[first], below[first], diagonal[first + 1]
    product, square = a * c, b * b
    sure = np.abs(product - square) > 4 * UNIT * (np.abs(product) + square) + 4 * TINY
    indefinite, definite = sure & (product < square), sure & (product > square) & (a > 0)
    return int(np.sum(diagonal[single] > 0) + np.sum(indefinite) + 2 * np.sum(definite))


def _blocks(size: int) -> Iterator[slice]:
    return (slice(first, min(first + _ROWS, size)) for first in range(0, size, _ROWS))
