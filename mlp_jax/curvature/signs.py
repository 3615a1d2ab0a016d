"""Inertia: how many eigenvalues of a symmetric matrix are surely negative, surely positive, or neither."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg import blas, lapack

from mlp_jax import _checks
from mlp_jax.curvature.cholesky import factor as factor_cholesky

_UNIT = 2.0**-53
# Rows per block: intermediate results stay in the cache.
_ROWS = 32
# Above this size a wide bound is tried first: factors grow with the size, and an extra factorisation is expensive.
_LARGE = 2000


class Inertia(NamedTuple):
    """Counts of eigenvalues by sign, and the bound that decided.

    negative, unresolved, positive
        Eigenvalues below zero, of unknown sign, and above zero; their sum is the dimension.
    bound
        Largest absolute value of an eigenvalue that could be left unresolved, of the scaled matrix (see `inertia`).
    """

    negative: int
    unresolved: int
    positive: int
    bound: float


def inertia(matrix: np.ndarray, error: float | np.ndarray | None = None, *, scale: np.ndarray | None = None) -> Inertia:
    """Return how many eigenvalues of a symmetric matrix are surely negative or positive, given its error. Host-level.

    Signs are invariant under congruence (Sylvester), eigenvalue thresholds are not, so the matrix is first
    scaled, A = S H S with S = diag(s). The error |E| becomes a diagonal bound b, bᵢ = Σⱼ sᵢ|E|ᵢⱼsⱼ, for which
    −b ≤ S E S ≤ b in the order of symmetric matrices; τ bounds the backward error of the factorisation,
    n u ‖|L||D||L|ᵀ‖ (Higham 2002, Accuracy and Stability of Numerical Algorithms, chapters 10 and 11).
    Then A − b − τ has no more positive eigenvalues than the true matrix, and A + b + τ no more negative ones; both
    are counted by LDLᵀ, the first by Cholesky if that succeeds. Memory: 8 P² bytes beside the arguments. Work:
    P³/3 flops if Cholesky succeeds, about four times as much if not, and twice that if signs stay unresolved.

    Parameters
    ----------
    matrix
        (P, P) real symmetric, finite.
    error
        A bound on the error E of the matrix: a number, a bound on its 2-norm; or (P,), a diagonal b with −b ≤ E ≤ b in
        the order of symmetric matrices; or (P, P), a bound on each entry; or None, four rounding errors of each entry.
    scale
        (P,) the factors s, powers of two; None scales the largest entry of each row to about 1.

    Raises
    ------
    TypeError, ValueError
        The matrix is not square, symmetric, real and finite; the error is negative or of another shape; the scale is
        not positive.

    Examples
    --------
    >>> inertia(np.diag([-1.0, 0.0, 2.0, 3.0]))[:3]
    (1, 1, 2)
    >>> inertia(np.diag([-1e-12, 1.0]), error=1e-9)[:3]
    (0, 1, 1)
    """
    matrix = require_symmetric(matrix)
    shape = matrix.shape
    if error is not None:
        error = np.asarray(error, np.float64)
        if error.shape not in ((), shape[:1], shape) or not (error.min() >= 0 and error.max() < np.inf):
            expected = f"a bound of 0 or more, or {shape[:1]} or {shape} of them"
            raise ValueError(f"error: got {_checks.describe(error)}, expected {expected}.")
    if scale is not None:
        scale = np.asarray(scale, np.float64)
        if scale.shape != shape[:1] or not (scale.min() > 0 and scale.max() < np.inf):
            raise ValueError(f"scale: got {_checks.describe(scale)}, expected {shape[:1]} positive finite numbers.")
    return count(matrix, error, scale)


def count(matrix: np.ndarray, error: float | np.ndarray | None, scale: np.ndarray | None) -> Inertia:
    """Return the inertia for a valid float64 matrix, error and scale."""
    size = len(matrix)
    scale = scaling(matrix, error) if scale is None else scale
    shift = scale**2 * _diagonal_bound(matrix, error, scale)
    work = np.empty_like(matrix, order="C")

    def shifted(sign: int, by: np.ndarray) -> np.ndarray:
        # Only the upper triangle, which transposed is the lower one that LAPACK overwrites, in the same memory.
        for i in row_blocks(size):
            np.multiply(matrix[i, i.start :], sign * scale[i, None], out=work[i, i.start :])
            work[i, i.start :] *= scale[i.start :]
        np.einsum("ii->i", work)[:] -= by
        return work.T

    diagonal = scale**2 * np.diag(matrix)

    def counted(factor: float) -> Inertia:
        tau, positive = _count_above(lambda t: shifted(1, shift + t), diagonal - shift, factor)
        if positive == size:
            return Inertia(0, 0, size, float(np.max(shift) + tau))
        tau_negative, negative = _count_above(lambda t: shifted(-1, shift + t), -diagonal - shift, factor, tau)
        bound = float(np.max(shift) + max(tau, tau_negative))
        return Inertia(negative, size - negative - positive, positive, bound)

    # A wide bound is cheap, and no loss if it resolves every sign.
    counts = counted(64 * size if size > _LARGE else 16)
    return counted(16) if counts.unresolved and size > _LARGE else counts


def negative(matrix: np.ndarray) -> int:
    """Return the number of negative eigenvalues of a finite matrix, by LDLᵀ and without a bound on the error."""
    return len(matrix) - _ldl_positive(np.array(matrix, order="F"))[0]


def scaling(matrix: np.ndarray, error: float | np.ndarray | None = None) -> np.ndarray:
    """Return s for which diag(s) H diag(s) is well scaled: largest entry of each row near 1, zero rows unchanged.

    sᵢ = |Hᵢᵢ|^(−1/2) if that already bounds the row by 1, as in definite matrices; otherwise a few sweeps of symmetric
    equilibration (Ruiz 2001). Powers of two, so that scaling does not round. Given a bound on the error of each entry,
    rows of rounding are not scaled up: an entry counts as at least the size at which its relative error would be that
    of the most accurate row.
    """
    diagonal, largest = np.abs(np.diag(matrix)), _row_maxima(matrix)
    factor = 0.0
    if error is not None and np.ndim(error) == 2:
        error = np.asarray(error)
        ratio = np.divide(_row_maxima(error), largest, out=np.full(len(matrix), np.inf), where=largest > 0)
        # A uniform relative error does not show which rows hold only rounding.
        factor = 1 / max(16 * _UNIT, float(ratio.min()))
        diagonal = np.maximum(diagonal, factor * np.diag(error))
    scale = np.ones(len(matrix))
    np.divide(1.0, np.sqrt(diagonal), out=scale, where=diagonal > np.finfo(float).tiny)
    for _ in range(20):
        row = _row_maxima(matrix, scale) * scale
        if factor:
            row = np.maximum(row, factor * _row_maxima(np.asarray(error), scale) * scale)
        row[row == 0] = 1
        if np.all((row < 2) & (row > 0.5)):
            break
        scale /= np.sqrt(row)
    return np.exp2(np.round(np.log2(scale)))


def require_symmetric(matrix: np.ndarray) -> np.ndarray:
    """Return the matrix as float64, or raise unless it is square, symmetric and finite."""
    matrix = np.asarray(_checks.numbers(matrix, "matrix", "(P, P)"), np.float64)
    if matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"matrix: got shape {matrix.shape}, expected a square matrix of side 1 or more.")
    if not (np.isfinite(matrix.min()) and np.isfinite(matrix.max())):
        raise ValueError(f"matrix: got {np.sum(~np.isfinite(matrix))} entries that are NaN or infinite.")
    if not is_symmetric(matrix):
        apart = f"got an asymmetry of {np.max(np.abs(matrix - matrix.T)):.3g}, expected 0"
        raise ValueError(f"matrix: {apart}; pass (matrix + matrix.T) / 2 and the asymmetry in error.")
    return matrix


def is_symmetric(matrix: np.ndarray) -> bool:
    """Return whether a matrix equals its transpose."""
    return all(np.array_equal(matrix[i, i.start :], matrix[i.start :, i].T) for i in row_blocks(len(matrix)))


def _diagonal_bound(matrix: np.ndarray, error: float | np.ndarray | None, scale: np.ndarray) -> np.ndarray:
    """Return b ≥ 0 with −diag(b) ≤ E ≤ diag(b), for the unscaled error E."""
    if error is None:
        return 4 * _UNIT * np.concatenate([np.abs(matrix[i]) @ scale for i in row_blocks(len(matrix))]) / scale
    bound = np.asarray(error)
    return diagonal_bound(bound, scale) if bound.ndim == 2 else np.broadcast_to(bound, len(matrix))


def diagonal_bound(error: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the diagonal b, bᵢ = Σⱼ |E|ᵢⱼ sⱼ / sᵢ, with −b ≤ E ≤ b for any s > 0, given bounds on the entries of E."""
    # |xᵢ xⱼ| ≤ (xᵢ² sⱼ/sᵢ + xⱼ² sᵢ/sⱼ) / 2: row sums in the scaled coordinates.
    return (error @ scale) / scale


def row_blocks(size: int) -> Iterator[slice]:
    """Return slices that cut the rows of a matrix into blocks."""
    return (slice(first, first + _ROWS) for first in range(0, size, _ROWS))


def _row_maxima(matrix: np.ndarray, scale: np.ndarray | float = 1.0) -> np.ndarray:
    """Return maxⱼ |Hᵢⱼ| sⱼ of each row."""
    return np.concatenate([(np.abs(matrix[i]) * scale).max(axis=1) for i in row_blocks(len(matrix))])


def _count_above(
    shifted: Callable[[float], np.ndarray], diagonal: np.ndarray, factor: float, tau: float = 0.0
) -> tuple[float, int]:
    """Return (τ, the number of positive eigenvalues of shifted(τ) = A − b − τ), by Cholesky or LDLᵀ.

    `diagonal` is that of A − b. The first τ is `factor` · P u, or `tau`, the bound of a similar matrix, if larger.
    """
    size = len(diagonal)
    # Floating-point Cholesky that succeeds proves A + Δ > 0 with ‖Δ‖ ≤ (n + 2) u trace(A) (Rump 2006).
    cholesky = (size + 2) * _UNIT * float(np.sum(np.abs(diagonal))) * (1 + size * _UNIT)
    if np.all(diagonal > cholesky) and factor_cholesky(shifted(cholesky)):
        return cholesky, size
    # The growth of the factors is known only afterwards; a larger shift covers it.
    tau = max(tau, factor * size * _UNIT)
    while True:
        positive, backward = _ldl_positive(shifted(tau))
        if backward <= tau:
            return tau, positive
        if not np.isfinite(backward):  # an entry times its scale is outside float64: no sign is sure
            return np.inf, 0
        tau = 2 * backward


def _ldl_positive(work: np.ndarray) -> tuple[int, float]:
    """Factorise P A Pᵀ = L D Lᵀ in place; return (positive eigenvalues of D, bound on the backward error)."""
    size = len(work)
    lwork, _ = lapack.dsytrf_lwork(size, lower=1)
    factor, pivots, _ = lapack.dsytrf(work, lower=1, lwork=int(lwork), overwrite_a=1)
    factor, below, _ = lapack.dsyconv(factor, pivots, lower=1, way=0, overwrite_a=1)
    diagonal, below = np.diag(factor).copy(), below[:-1]
    lower = factor
    for i in row_blocks(size):
        np.abs(lower[i.start :, i], out=lower[i.start :, i])
    columns = blas.dtrmv(lower, np.ones(size), lower=1, trans=1, diag=1)
    middle = np.abs(diagonal) * columns
    middle[:-1] += np.abs(below) * columns[1:]
    middle[1:] += np.abs(below) * columns[:-1]
    return _block_positive(diagonal, below), size * _UNIT * float(np.max(blas.dtrmv(lower, middle, lower=1, diag=1)))


def _block_positive(diagonal: np.ndarray, below: np.ndarray) -> int:
    """Count the positive eigenvalues of a symmetric matrix of 1×1 and 2×2 diagonal blocks."""
    first = np.flatnonzero(below)
    single = np.ones(len(diagonal), dtype=bool)
    single[first] = single[first + 1] = False
    a, b, c = diagonal[first], below[first], diagonal[first + 1]
    half_trace, radius = (a + c) / 2, np.hypot((a - c) / 2, b)
    return int(np.sum(diagonal[single] > 0) + np.sum(half_trace + radius > 0) + np.sum(half_trace - radius > 0))
