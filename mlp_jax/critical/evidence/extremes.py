"""The smallest and the largest eigenvalue of a symmetric matrix."""

import math
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from scipy.linalg import lapack

from mlp_jax.curvature import Inertia

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
    start = np.random.default_rng(0).standard_normal(len(matrix))

    def find(which: str, inverse: Any = None) -> float:
        about = {} if inverse is None else {"sigma": 0.0, "OPinv": inverse}
        options: dict[str, Any] = {"v0": start, "tol": _RESIDUAL, "ncv": _BASIS, "maxiter": _RESTARTS, **about}
        try:
            return float(scipy.sparse.linalg.eigsh(matrix, 1, which=which, return_eigenvectors=False, **options)[0])
        except scipy.sparse.linalg.ArpackNoConvergence:
            return math.nan

    sign = next((sign for sign, number in ((1, counts.positive), (-1, counts.negative)) if number == len(matrix)), 0)
    factor, failed = lapack.dpotrf(sign * matrix.T, lower=1) if sign else (None, 1)
    if failed:
        return find("SA"), find("LA")
    # Eigenvalues close together beside the largest one are far apart beside 0.
    inverse = scipy.sparse.linalg.LinearOperator(
        matrix.shape, matvec=lambda v: sign * lapack.dpotrs(factor, v, lower=1)[0], dtype=np.float64
    )
    return (find("LM", inverse), find("LA")) if sign > 0 else (find("SA"), find("LM", inverse))
