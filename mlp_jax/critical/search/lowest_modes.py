"""The lowest modes of a Hessian, and coordinates of curvature 1, without a whole eigenbasis at each point. Host-level.

As a point moves, the lowest modes of the last Hessian are a good start for block inverse iteration: one Cholesky
factorisation of the shifted matrix, where an eigenbasis costs ten times as much.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import numpy as np
from scipy import linalg

# Modes kept beside the negative ones, and beside those that are climbed; the largest share of all for which inverse
# iteration is worth it, and its steps.
_SPARE, _SHARE, _STEPS = 20, 0.25, 3
# The shift below the lowest Ritz value, relative to the range of those known, and what it is multiplied by, this often,
# where an eigenvalue is lower still.
_GAP, _WIDER, _TRIES = 0.1, 4.0, 3
# Curvature, relative to the largest entry of the Hessian, below which a mode is scaled no further; corrections of
# Newton's step for it.
_FLAT, _CORRECTIONS = 1e-6, 4


class Modes(NamedTuple):
    """The lowest eigenvalues (m,), ascending, and eigenvectors (P, m) of a Hessian, the latter approximate."""

    values: np.ndarray
    vectors: np.ndarray


class Frame(NamedTuple):
    """Coordinates y of steps s, in which a Hessian with `added` curvature along its lowest modes is about 1.

    factor
        Lower triangular: factor · factorᵀ = H + V diag(added) Vᵀ + a little, positive definite, and y = factorᵀ s.
    """

    matrix: np.ndarray
    modes: Modes
    added: np.ndarray
    factor: np.ndarray

    def step(self, y: np.ndarray) -> np.ndarray:
        """Return the step with coordinates y."""
        return linalg.solve_triangular(self.factor, y, lower=True, trans=1, check_finite=False)

    def slope(self, gradient: np.ndarray) -> np.ndarray:
        """Return the gradient by y, for one by s or for those in columns."""
        return linalg.solve_triangular(self.factor, gradient, lower=True, check_finite=False)

    def newton(self, gradient: np.ndarray, longest: float) -> np.ndarray:
        """Return −H⁻¹ g, however long, by the formula of Sherman, Morrison and Woodbury and corrections."""
        changed = self.added > 0
        turned = self.slope(self.modes.vectors[:, changed])
        inner, step = np.diag(1 / self.added[changed]) - turned.T @ turned, np.zeros_like(gradient)
        for _ in range(1 + _CORRECTIONS):
            left = self.slope(gradient + self.matrix @ step)
            try:
                step -= self.step(left + turned @ np.linalg.solve(inner, turned.T @ left))
            except np.linalg.LinAlgError:  # H is singular
                return np.full_like(gradient, np.inf)
        return step


def frame(matrix: np.ndarray, gradient: np.ndarray, climbed: int, climb: float, near: Modes | None) -> Frame | None:
    """Return coordinates for a Hessian whose slope along its `climbed` lowest modes is to be reversed.

    Along these the curvature is added that reverses its sign and holds the step to the length `climb`; along other
    negative modes that which reverses its sign. `near` are the modes of a Hessian nearby. None where the Hessian is 0.
    """
    if near is not None and climbed < near.values.size <= _SHARE * len(matrix):
        with contextlib.suppress(np.linalg.LinAlgError):  # other modes are lower
            return _coordinates(matrix, _refined(matrix, near.vectors), gradient, climbed, climb)
    return from_eigenpairs(matrix, *np.linalg.eigh(matrix), gradient, climbed, climb)


def from_eigenpairs(
    matrix: np.ndarray, values: np.ndarray, vectors: np.ndarray, gradient: np.ndarray, climbed: int, climb: float
) -> Frame | None:
    """Do as `frame` for a Hessian all of whose eigenvalues (P,) and eigenvectors (P, P) are known."""
    count = max(int(np.sum(values < 0)), climbed) + _SPARE
    with contextlib.suppress(np.linalg.LinAlgError):
        return _coordinates(matrix, Modes(values[:count], vectors[:, :count]), gradient, climbed, climb)
    return None


def _refined(matrix: np.ndarray, vectors: np.ndarray) -> Modes:
    """Return the lowest modes from nearby ones; LinAlgError where others are far lower."""
    values, vectors, error = _ritz(matrix, vectors)
    factor = _factor_below(matrix, values[0], _GAP * (values[-1] - values[0]) + error)
    for _ in range(_STEPS):
        vectors = np.linalg.qr(linalg.cho_solve((factor, True), vectors, check_finite=False))[0]
    return Modes(*_ritz(matrix, vectors)[:2])


def _factor_below(matrix: np.ndarray, lowest: float, gap: float) -> np.ndarray:
    """Return the Cholesky factor of the matrix less a number below its eigenvalues; LinAlgError if none is found."""
    for tried in range(_TRIES):
        try:
            return np.linalg.cholesky(matrix - (lowest - gap * _WIDER**tried) * np.eye(len(matrix)))
        except np.linalg.LinAlgError:
            continue
    raise np.linalg.LinAlgError("There are eigenvalues far below.")


def _ritz(matrix: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the Ritz values and vectors of a space, and the residual of the lowest."""
    images = matrix @ vectors
    values, mixed = np.linalg.eigh(vectors.T @ images)
    lowest = images @ mixed[:, 0] - values[0] * (vectors @ mixed[:, 0])
    return values, vectors @ mixed, float(np.linalg.norm(lowest))


def _coordinates(matrix: np.ndarray, modes: Modes, gradient: np.ndarray, climbed: int, climb: float) -> Frame:
    """Return the coordinates; LinAlgError where other modes of the Hessian are negative."""
    added = np.maximum(-2 * modes.values, 0)
    added[:climbed] += np.linalg.norm(modes.vectors[:, :climbed].T @ gradient) / climb
    whole = matrix + (modes.vectors * added) @ modes.vectors.T
    whole[np.diag_indices_from(whole)] += _FLAT * np.max(np.abs(matrix))
    return Frame(matrix, modes, added, np.linalg.cholesky(whole))
