"""Eigenvectors at both ends of a symmetric matrix that is there as numbers: LAPACK, or Lanczos on its inverse."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from mlp_jax.curvature import thick_restart
from mlp_jax.curvature.krylov_space import Space
from mlp_jax.curvature.thick_restart import Wanted

# Below this dimension, or where more than this part of the spectrum is wanted, LAPACK is as fast.
_SMALL, _PART = 400, 1 / 16
# Relative residuals asked of both searches, in rounding units times √P: what their products are accurate to.
_TARGET = 20.0
_BLOCK = 4


def both_ends(matrix: np.ndarray, wanted: Wanted, generator: np.random.Generator) -> tuple[np.ndarray, float, str]:
    """Return orthonormal eigenvectors (k, P) in the order of their values, the norm of the matrix, and the method.

    A large positive definite matrix is factorised, H = L Lᵀ, which costs a fraction of a tridiagonalisation: the
    smallest eigenvalues are the largest of H⁻¹, far apart there however close to each other they are in H. Others
    go to LAPACK, and so does what does not converge.

    Examples
    --------
    >>> both_ends(np.diag([3.0, 1.0, 2.0]), Wanted(1, 0), np.random.default_rng(0))
    (array([[0., 1., 0.]]), 3.0, 'dense')
    """
    size = len(matrix)
    if size >= _SMALL and wanted.total <= _PART * size:
        rows, norm = _by_inverse(matrix, wanted, generator)
        if rows is not None:
            return rows, norm, "inverse"
    values, vectors = np.linalg.eigh(matrix)
    return np.ascontiguousarray(vectors[:, wanted.ends(size)].T), float(np.max(np.abs(values))), "dense"


def _by_inverse(matrix: np.ndarray, wanted: Wanted, generator: np.random.Generator) -> tuple[np.ndarray | None, float]:
    try:
        factor = linalg.cho_factor(matrix, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return None, 0.0

    def solve(rows: np.ndarray) -> np.ndarray:
        return linalg.cho_solve(factor, rows.T, check_finite=False).T

    budget = len(matrix) // 2
    target = _TARGET * np.finfo(matrix.dtype).eps * len(matrix) ** 0.5
    found, norm = [], 0.0
    # The largest one always: it is the norm that residuals are measured by.
    for multiply, count in ((solve, wanted.smallest), (lambda rows: rows @ matrix, max(1, wanted.largest))):
        if count:
            space = Space(multiply, len(matrix), matrix.dtype, budget, _BLOCK, generator)
            if not thick_restart.solve(space, Wanted(0, count), target, budget):
                return None, 0.0
            values, vectors, _ = space.ritz()
            norm = float(values[-1])
            found.append(space.combine(vectors[:, len(values) - count :]))
    if not wanted.largest:
        found.pop()
    return _rayleigh_ritz(matrix, np.concatenate(found)), norm


def _rayleigh_ritz(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the span of rows in which the matrix is diagonal, its values ascending."""
    basis = np.linalg.qr(rows.T)[0]
    return (basis @ np.linalg.eigh(basis.T @ matrix @ basis)[1]).T
