"""An eigenbasis of a Hessian, or of its projection on a subspace, and Newton's steps in it. Host-level."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

# Modes whose curvature is below this share of the largest are nearly flat.
_FLAT = 1e-6


class Newton(Protocol):
    """A Hessian that gives Newton's steps, such as a `Basis`."""

    def newton(self, gradient: np.ndarray, longest: float) -> np.ndarray:
        """Return −H⁻¹ g, or a shorter step where that is longer than `longest`."""
        ...


class Basis(NamedTuple):
    """Eigenvalues and eigenvectors of a Hessian, or of its projection on a subspace.

    values
        Eigenvalues, ascending.
    mixed, rows
        The eigenvectors are the columns of rowsᵀ · mixed; of mixed where rows is None.
    sizes
        |values|, or the rounding of a zero eigenvalue where that is larger.
    """

    values: np.ndarray
    mixed: np.ndarray
    rows: np.ndarray | None
    sizes: np.ndarray

    def along(self, vector: np.ndarray) -> np.ndarray:
        """Return the coefficients of a vector."""
        return self.mixed.T @ (vector if self.rows is None else self.rows @ vector)

    def vector(self, along: np.ndarray) -> np.ndarray:
        """Return the vector of these coefficients."""
        inside = self.mixed @ along
        return inside if self.rows is None else self.rows.T @ inside

    def newton(self, gradient: np.ndarray, longest: float) -> np.ndarray:
        """Return −H⁻¹ g over the modes above rounding or, if that is too long, over those that are not nearly flat."""
        step = self._newton(gradient, np.abs(self.values) >= self.sizes)
        if np.linalg.norm(step) <= longest:
            return step
        return self._newton(gradient, np.abs(self.values) >= _FLAT * np.max(self.sizes))

    def _newton(self, gradient: np.ndarray, above: np.ndarray) -> np.ndarray:
        return self.vector(np.where(above, -self.along(gradient) / np.where(above, self.values, 1), 0))


def basis(matrix: np.ndarray, rows: np.ndarray | None, size: int, unit: float) -> Basis:
    """Return the eigenbasis of a matrix, or of the Hessian on the span of rows where the matrix is its projection."""
    values, mixed = np.linalg.eigh(matrix)
    largest = max(abs(values[0]), abs(values[-1]))
    return Basis(values, mixed, rows, np.maximum(np.abs(values), 4 * unit * size * largest + 1e-300))
