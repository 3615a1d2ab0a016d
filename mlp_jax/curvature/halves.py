"""Factors of a symmetric matrix by halves: Cholesky of the first one, and Cholesky or LDLᵀ of what that leaves.

The work is in products of matrices where LDLᵀ pivots, and three quarters of the matrix are stored.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import blas

from mlp_jax.curvature import cholesky, ldl

_UNIT = 2.0**-53


class Factors(NamedTuple):
    """A₁₁ = L Lᵀ, B = A₂₁ L⁻ᵀ, and factors of A₂₂ − B Bᵀ; L is the lower triangle of `first`, in Fortran order."""

    first: np.ndarray
    below: np.ndarray
    last: cholesky.Factors | ldl.Factors

    @property
    def definite(self) -> bool:
        """Whether these are the factors of Cholesky."""
        return isinstance(self.last, cholesky.Factors)

    @property
    def positive(self) -> int:
        """The number of positive eigenvalues, up to the backward error (Haynsworth 1968)."""
        return len(self.first) + self.last.positive

    def backward(self) -> float:
        """Return a bound on the backward error, P u ‖|L||D||L|ᵀ‖, where the last factors are LDLᵀ."""
        assert isinstance(self.last, ldl.Factors)
        size, columns = sum(self.below.shape), (column[k:] for k, column in enumerate(self.first.T))
        # The Frobenius norm bounds the part of the first half, and P u ‖ ‖ of the last is known.
        squares = sum(float(column @ column) for column in columns) + float(np.linalg.norm(self.below)) ** 2
        return size * _UNIT * squares + size / len(self.below) * self.last.backward()

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Return A⁻¹ b for columns b, (P, k)."""
        half = len(self.first)
        top = blas.dtrsm(1.0, self.first, np.asfortranarray(right[:half]), lower=1)
        return self._backward(top, self.last.solve(right[half:] - self.below @ top))

    def negative_directions(self) -> np.ndarray:
        """Return unit vectors x, (P, k), one for each negative eigenvalue, whose span has xᵀ A x < 0."""
        bottom = self.last.negative_directions()
        found = self._backward(np.zeros((len(self.first), bottom.shape[1])), bottom)
        return found / np.linalg.norm(found, axis=0)

    def _backward(self, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        rest = np.asfortranarray(top - self.below.T @ bottom)
        return np.concatenate([blas.dtrsm(1.0, self.first, rest, lower=1, trans_a=1, overwrite_b=1), bottom])


def factor(first: np.ndarray, below: np.ndarray, last: np.ndarray) -> Factors | None:
    """Return the factors of a matrix given as A₁₁, A₂₁, A₂₂ in Fortran order, overwritten; None unless A₁₁ > 0."""
    if not cholesky.factor(first):
        return None
    below = blas.dtrsm(1.0, first, below, side=1, lower=1, trans_a=1, overwrite_b=1)
    last = blas.dsyrk(-1.0, below, beta=1.0, c=last, lower=1, overwrite_c=1)
    again = last.copy(order="F")
    return Factors(first, below, cholesky.Factors(last) if cholesky.factor(last) else ldl.factor(again))
