"""The smallest and the largest eigenvalue of a symmetric matrix."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from scipy.linalg import blas, lapack

from mlp_jax.curvature import Inertia, cholesky

# Size up to which all eigenvalues are computed.
_DENSE = 4000
# Beyond that, vectors of a Krylov space, restarts, and the relative residual, whose square is the error of the value.
_BASIS, _RESTARTS, _RESIDUAL = 64, 20, 1e-3


def extremes(matrix: np.ndarray, counts: Inertia) -> tuple[float, float]:
    """Return estimates of both; NaN for one of a large matrix that is not found in some restarts.

    They are shown, and no verdict rests on them.
    """
    if len(matrix) <= _DENSE:
        values = scipy.linalg.eigvalsh(matrix, check_finite=False)
        return float(values[0]), float(values[-1])
    sign = next((sign for sign, number in ((1, counts.positive), (-1, counts.negative)) if number == len(matrix)), 0)
    far = _largest(lambda v: blas.dsymv(1.0, matrix.T, v, lower=1), len(matrix))
    # Eigenvalues close together beside the largest one are far apart beside 0.
    if sign and cholesky.factor(factor := (sign * matrix).T):
        near = sign / _largest(lambda v: lapack.dpotrs(factor, v, lower=1)[0], len(matrix))
        return (near, far) if sign > 0 else (far, near)
    # The other end is the largest of a shifted matrix, so that its residual is small beside the norm.
    other = far - _largest(lambda v: far * v - blas.dsymv(1.0, matrix.T, v, lower=1), len(matrix))
    return min(far, other), max(far, other)


def _largest(product: Callable[[np.ndarray], np.ndarray], size: int) -> float:
    """Return the eigenvalue of largest size."""
    operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=product, dtype=np.float64)
    options: dict[str, Any] = {"v0": np.random.default_rng(0).standard_normal(size), "tol": _RESIDUAL, "ncv": _BASIS}
    try:
        found = scipy.sparse.linalg.eigsh(operator, 1, maxiter=_RESTARTS, return_eigenvectors=False, **options)
    except scipy.sparse.linalg.ArpackError:
        return math.nan
    return float(found[0])
