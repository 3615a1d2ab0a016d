"""Cholesky factors of matrices of any size: OpenBLAS ends the process above some 15,000 rows on several threads."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import blas, lapack

# Rows up to which LAPACK is called.
_LARGEST = 10_000


class Factors(NamedTuple):
    """A = L Lᵀ, with L the lower triangle of a matrix in Fortran order."""

    lower: np.ndarray

    @property
    def positive(self) -> int:
        """The number of positive eigenvalues."""
        return len(self.lower)

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Return A⁻¹ b for columns b, (P, k)."""
        half = blas.dtrsm(1.0, self.lower, np.asfortranarray(right), lower=1)
        return blas.dtrsm(1.0, self.lower, half, lower=1, trans_a=1, overwrite_b=1)

    def negative_directions(self) -> np.ndarray:
        """Return vectors for the negative eigenvalues: none."""
        return np.empty((len(self.lower), 0))


def factor(matrix: np.ndarray) -> bool:
    """Overwrite the lower triangle of a matrix in Fortran order by its Cholesky factor; return whether there is one.

    Above the diagonal nothing is read, and anything may be left. Halves: L₁₁ of A₁₁, L₂₁ = A₂₁ L₁₁⁻ᵀ, L₂₂ of
    A₂₂ − L₂₁ L₂₁ᵀ.
    """
    size = len(matrix)
    if size <= _LARGEST:
        found, failed = lapack.dpotrf(matrix, lower=1, clean=0, overwrite_a=1)
        if not np.may_share_memory(found, matrix):
            matrix[...] = found
        return failed == 0
    half = size // 2
    first = np.array(matrix[:half, :half], order="F")
    if not factor(first):
        return False
    matrix[:half, :half] = first
    below = blas.dtrsm(1.0, first, np.array(matrix[half:, :half], order="F"), side=1, lower=1, trans_a=1, overwrite_b=1)
    matrix[half:, :half] = below
    last = np.array(matrix[half:, half:], order="F")
    last = blas.dsyrk(-1.0, below, beta=1.0, c=last, lower=1, overwrite_c=1)
    if not factor(last):
        return False
    matrix[half:, half:] = last
    return True
