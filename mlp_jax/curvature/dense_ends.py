"""Eigenvectors at both ends of a stored symmetric matrix, from one tridiagonalisation by LAPACK."""

import numpy as np
from scipy import linalg
from scipy.linalg import lapack

from mlp_jax import _parallel
from mlp_jax.curvature.thick_restart import Wanted

# From this dimension on, computing at most this part of the eigenvectors is faster than computing all.
_LARGE, _PART = 200, 1 / 4
# Vectors of the two ends that are less orthogonal than this belong to one eigenspace.
_SKEW = 1e-12


def both_ends(matrix: np.ndarray, wanted: Wanted) -> tuple[np.ndarray, float]:
    """Return orthonormal eigenvectors (k, P) in ascending order of their values, and the norm of the matrix."""
    size = len(matrix)
    if size >= _LARGE and wanted.total <= _PART * size:
        rows, norm = _by_tridiagonal(matrix, wanted)
        if np.max(np.abs(rows @ rows.T - np.eye(len(rows)))) <= _SKEW:
            return rows, norm
    values, vectors = np.linalg.eigh(matrix)
    return np.ascontiguousarray(vectors[:, wanted.ends(size)].T), float(np.max(np.abs(values)))


def _by_tridiagonal(matrix: np.ndarray, wanted: Wanted) -> tuple[np.ndarray, float]:
    size = len(matrix)
    # The transpose is the same matrix in the order that LAPACK wants, so that copying it is cheap.
    with _parallel.blas_threads_for(size):
        reduced, diagonal, beside, factors, _ = lapack.dsytrd(matrix.T, lower=1, lwork=64 * size)

    def part(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        # Bisection by stebz, the default, fails at multiple eigenvalues.
        return linalg.eigh_tridiagonal(diagonal, beside, select="i", select_range=(first, last), lapack_driver="stemr")

    with _parallel.one_blas_thread():
        low, high = part(0, max(1, wanted.smallest) - 1), part(size - max(1, wanted.largest), size - 1)
        vectors = np.hstack([low[1][:, : wanted.smallest], high[1][:, high[1].shape[1] - wanted.largest :]])
        # T = Qᵀ H Q, and Q leaves the first coordinate alone.
        turned, _, _ = lapack.dormqr("L", "N", reduced[1:, :-1], factors, vectors[1:], lwork=64 * wanted.total)
    return np.vstack([vectors[:1], turned]).T, float(max(abs(low[0][0]), abs(high[0][-1])))
