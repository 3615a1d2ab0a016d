"""The smallest and the largest eigenvalue of a large symmetric matrix, to be shown: no verdict rests on them."""

from collections.abc import Callable

import numpy as np
from scipy.linalg import blas

from mlp_jax.curvature import signs
from mlp_jax.curvature.krylov_basis import HostBasis
from mlp_jax.curvature.krylov_space import Space

# Most products, those between two looks, and the residual of a Ritz pair, relative to its value, that ends them.
_PRODUCTS, _LOOK, _RESIDUAL = 32, 8, 1e-2


def extremes(matrix: np.ndarray, scale: np.ndarray, up: signs.Above) -> tuple[float, float]:
    """Return estimates of both, within the spectrum, given the signs and factors of S H S − t.

    Eigenvalues close together beside the largest one are far apart beside 0: that of a definite matrix is found by its
    factors, and a negative one from the directions that show it, so that its sign is right.
    """

    def product(v: np.ndarray) -> np.ndarray:
        return blas.dsymv(1.0, matrix.T, v, lower=1)

    start, there = np.random.default_rng(0).standard_normal((2, len(matrix)))
    factors, rest = up.factors, len(matrix) - up.positive
    side = 0 if factors is None else 1 if rest == 0 else -1 if up.positive == 0 else 0
    if factors is not None and side:
        value, vector = _end(lambda v: side * scale * factors.solve((scale * v)[:, None])[:, 0], there, -1)
        near = side / value + float(vector**2 @ (up.shift / scale**2))
        far = _end(product, start, -1 if side > 0 else 0)[0]
        return (near, far) if side > 0 else (far, near)
    if factors is not None and rest <= signs.FEW * len(matrix):
        basis = np.linalg.qr(scale[:, None] * factors.negative_directions()[:, :_LOOK])[0]
        there = basis @ np.linalg.eigh(basis.T @ np.stack([product(v) for v in basis.T], axis=1))[1][:, 0]
    return _end(product, there, 0)[0], _end(product, start, -1)[0]


def _end(product: Callable[[np.ndarray], np.ndarray], start: np.ndarray, end: int) -> tuple[float, np.ndarray]:
    """Return the Ritz pair at one end of a Krylov space."""
    rows = min(len(start), _PRODUCTS) + 1
    basis = HostBasis(lambda v: product(v[0])[None], len(start), np.float64, rows)
    space = Space(basis, 1, np.random.default_rng(0))
    space.add(start[None])
    while True:
        space.extend(min(_LOOK, rows - 1 - space.position))
        values, vectors, residuals = space.ritz()
        if residuals[end] <= _RESIDUAL * abs(values[end]) or not space.pending or space.position >= rows - 1:
            return float(values[end]), space.combine(vectors[:, [end]])[0]
