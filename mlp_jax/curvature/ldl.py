"""LDLᵀ of a symmetric matrix by LAPACK, what its signs are, and what its factors solve."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import blas, lapack

_UNIT = 2.0**-53
# Rows per block: intermediate results stay in the cache.
_ROWS = 32


class Factors(NamedTuple):
    """A[order][:, order] = L D Lᵀ with a unit lower triangular L (Bunch and Kaufman 1977).

    lower
        (P, P) in Fortran order: L below the diagonal; anything on it and above.
    diagonal, below
        (P,) and (P − 1,), the entries of D, which has blocks of 1×1 and 2×2.
    order
        (P,) a permutation.
    """

    lower: np.ndarray
    diagonal: np.ndarray
    below: np.ndarray
    order: np.ndarray

    @property
    def positive(self) -> int:
        """The number of positive eigenvalues of D, and up to the backward error of A."""
        first = np.flatnonzero(self.below)
        single = self.diagonal[self._is_single()]
        a, b, c = self.diagonal[first], self.below[first], self.diagonal[first + 1]
        half_trace, radius = (a + c) / 2, np.hypot((a - c) / 2, b)
        return int(np.sum(single > 0) + np.sum(half_trace + radius > 0) + np.sum(half_trace - radius > 0))

    def backward(self) -> float:
        """Return a bound on the backward error, P u ‖|L||D||L|ᵀ‖ (Higham 2002, theorem 11.3)."""
        size = len(self.diagonal)
        columns, bound = np.empty(size), np.zeros(size)
        for i in _blocks(size):
            columns[i] = self._sizes(i).sum(axis=1)
        middle = np.abs(self.diagonal) * columns
        middle[:-1] += np.abs(self.below) * columns[1:]
        middle[1:] += np.abs(self.below) * columns[:-1]
        for i in _blocks(size):
            bound[i.start :] += middle[i] @ self._sizes(i)
        return size * _UNIT * float(np.max(bound))

    def _sizes(self, i: slice) -> np.ndarray:
        """Return rows of |L|ᵀ from the diagonal on."""
        part = np.abs(self.lower.T[i, i.start :])
        corner = part[:, : len(part)]
        corner[...] = np.triu(corner, 1)
        np.fill_diagonal(corner, 1)
        return part

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Return A⁻¹ b for columns b, (P, k)."""
        part = blas.dtrsm(1.0, self.lower, np.asfortranarray(right[self.order]), lower=1, diag=1, overwrite_b=1)
        first, single = np.flatnonzero(self.below), self._is_single()
        a, b, c = (v[:, None] for v in (self.diagonal[first], self.below[first], self.diagonal[first + 1]))
        up, down = part[first] / b, part[first + 1] / b
        part[single] /= self.diagonal[single, None]
        part[first] = (c / b * up - down) / (a / b * (c / b) - 1)
        part[first + 1] = (a / b * down - up) / (a / b * (c / b) - 1)
        return self._turned(part)

    def negative_directions(self) -> np.ndarray:
        """Return unit vectors x, (P, k), one for each negative eigenvalue of D, whose span has xᵀ A x < 0."""
        first = np.flatnonzero(self.below)
        single = np.flatnonzero(self._is_single() & (self.diagonal < 0))
        a, b, c = self.diagonal[first], self.below[first], self.diagonal[first + 1]
        values, vectors = np.linalg.eigh(np.stack([np.stack([a, b], -1), np.stack([b, c], -1)], -2))
        block, which = np.nonzero(values < 0)
        right = np.zeros((len(self.diagonal), len(single) + len(block)), order="F")
        right[single, np.arange(len(single))] = 1
        for row in (0, 1):
            right[first[block] + row, len(single) + np.arange(len(block))] = vectors[block, row, which]
        found = self._turned(right)
        return found / np.linalg.norm(found, axis=0)

    def _turned(self, part: np.ndarray) -> np.ndarray:
        """Return L⁻ᵀ b in the order of A."""
        solved = blas.dtrsm(1.0, self.lower, np.asfortranarray(part), lower=1, trans_a=1, diag=1, overwrite_b=1)
        found = np.empty_like(solved)
        found[self.order] = solved
        return found

    def _is_single(self) -> np.ndarray:
        """Return where D has a block of 1×1."""
        first = np.flatnonzero(self.below)
        single = np.ones(len(self.diagonal), dtype=bool)
        single[first] = single[first + 1] = False
        return single


def factor(matrix: np.ndarray) -> Factors:
    """Return the factors of the lower triangle of a matrix in Fortran order, which they overwrite."""
    lwork, _ = lapack.dsytrf_lwork(len(matrix), lower=1)  # a smaller one selects the unblocked algorithm
    packed, pivots, _ = lapack.dsytrf(matrix, lower=1, lwork=int(lwork), overwrite_a=1)
    lower, below, _ = lapack.dsyconv(packed, pivots, lower=1, way=0, overwrite_a=1)
    return Factors(lower, np.diag(lower).copy(), below[:-1], permutation(pivots))


def permutation(pivots: np.ndarray) -> np.ndarray:
    """Return the permutation p for which A[p][:, p] = L D Lᵀ, from LAPACK's interchanges."""
    order, k = np.arange(len(pivots)), 0
    while k < len(pivots):
        pair = pivots[k] < 0
        k += int(pair)
        other = abs(int(pivots[k])) - 1
        order[[k, other]] = order[[other, k]]
        k += 1
    return order


def _blocks(size: int) -> list[slice]:
    return [slice(first, first + _ROWS) for first in range(0, size, _ROWS)]
