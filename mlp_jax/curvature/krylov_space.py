"""Block Lanczos on the host: an orthonormal basis grown by products with a symmetric operator.

Unlike `tridiagonal.lanczos` it can continue from Ritz vectors (a thick restart) and from a second random vector (the
search for missed eigenvalues). `krylov_basis` stores the vectors.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_jax.curvature.krylov_basis import Basis

# A new direction shorter than this many rounding errors of the operator is rounding only.
_BREAKDOWN = 10.0
# Gram–Schmidt is repeated if less than this part of a vector remains (Daniel, Gragg, Kaufman and Stewart 1976).
_KEPT_LENGTH = 0.7


def power_of_two(largest: float, dtype: Any) -> float | None:
    """Return a power of two near `largest`; 1 if squares of such numbers are safe, None if it is 0."""
    if largest == 0:
        return None
    limits, exponent = np.finfo(dtype), int(np.frexp(largest)[1])
    safe = abs(exponent) <= limits.maxexp // 4 or not np.isfinite(largest)
    return 1.0 if safe else float(np.ldexp(1.0, min(max(exponent, limits.minexp), limits.maxexp - 1)))


class Space:
    """Rows of an orthonormal basis: [frozen | processed | pending | free], and the operator projected on them.

    The product of the operator with processed row i lies in the span of all rows in use; `coupling[:, i]` holds its
    coefficients, which give the residual of any combination of processed rows. They are in units of `unit`, a power of
    two that keeps the squares in a norm from over- or underflowing; it is 1 for most operators.
    """

    def __init__(
        self, basis: Basis, block: int, generator: np.random.Generator, spend: Callable[[int], Any] | None = None
    ):
        self.basis, self._generator, self._spend = basis, generator, spend
        self.size, self.rows, self.block = basis.size, basis.rows, block
        self.coupling = np.zeros((self.rows, self.rows))
        self.frozen = self.position = self.pending = 0
        self.unit: float | None = None
        self.scale, self.products = 0.0, 0
        self._ritz: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def used(self) -> int:
        """Rows that hold a vector."""
        return self.position + self.pending

    @property
    def eps(self) -> float:
        """The rounding unit of the basis."""
        return float(np.finfo(self.basis.dtype).eps)

    def add_random(self, count: int) -> None:
        """Append random directions orthogonal to every row, as many as fit."""
        self.add(self._generator.normal(size=(min(count, self.rows - self.used), self.size)))

    def add(self, rows: np.ndarray) -> None:
        """Append what numpy rows (k, P), which must fit, have that is orthogonal to every row before."""
        for row in rows:
            rest = self._orthogonalise(self.basis.place(row[None]), 0, self.used, 0.0)[0]
            if (length := self.basis.length(rest)) > 0:
                self._append(rest, length)

    def _append(self, row: Any, length: Any) -> None:
        self.basis.write(self.used, row, length)
        self.pending += 1

    def extend(self, steps: int) -> None:
        """Multiply `steps` pending rows, or all if there are fewer, and append the new directions of their products."""
        while steps > 0 and self.pending > 0:
            count = min(steps, self.block, self.pending)
            self._extend_block(count)
            steps -= count

    def _extend_block(self, count: int) -> None:
        start = self.position
        products = self.basis.multiply(start, count)
        self.products += count
        if self._spend is not None:
            self._spend(self.products)
        largest = self.basis.largest(products)
        if not np.isfinite(largest):
            raise ValueError(f"matvec: got NaN or infinity in the first {self.products} products, expected numbers.")
        if self.unit is None:
            self.unit = power_of_two(largest, self.basis.dtype)
        if self.unit is not None and self.unit != 1:
            products = self.basis.divide(products, self.unit)
        self.scale = max(self.scale, float(np.max(self.basis.lengths(products))))
        floor, used = _BREAKDOWN * self.eps * self.scale, self.used
        # Most of a product lies in the last rows; without that part one pass over the whole basis is enough.
        recent = max(0, start - 2 * self.block)
        rest, near = self._orthogonalise(products, recent, used, np.inf)
        rest, coefficients = self._orthogonalise(rest, 0, used, floor)
        coefficients[:, recent:] += near
        self._ritz = None
        self.coupling[:, start : start + count] = 0
        self.coupling[:used, start : start + count] = coefficients.T
        for i in range(count):
            self._append_new(self.basis.pick(rest, i), start + i, used, floor)
        self.position += count
        self.pending -= count

    def _append_new(self, row: Any, column: int, before: int, floor: float) -> None:
        """Append the rest of a product, already orthogonal to the rows used `before` this block, if it is not zero."""
        length = float(self.basis.length(row))
        rest, coefficients = self._orthogonalise(row, before, self.used, np.inf)
        self.coupling[before : self.used, column] = coefficients[0]
        if self.basis.length(rest) < _KEPT_LENGTH * length:
            rest, coefficients = self._orthogonalise(rest, 0, self.used, floor)
            self.coupling[: self.used, column] += coefficients[0]
        length = float(self.basis.length(rest))
        if length > floor and self.used < self.rows:
            self.coupling[self.used, column] = length
            self._append(rest, length)

    def _orthogonalise(self, rows: Any, first: int, stop: int, floor: float) -> tuple[Any, np.ndarray]:
        """Return rows orthogonalised against basis[first:stop], and the coefficients removed.

        Gram–Schmidt is repeated until a pass hardly shortens any row that is longer than `floor`.
        """
        before = self.basis.lengths(rows)
        coefficients = np.zeros((len(before), stop - first))
        while True:
            rows, parts, after = self.basis.project(rows, first, stop)
            coefficients = coefficients + parts
            if np.all((after <= floor) | (after >= _KEPT_LENGTH * before)):
                return rows, coefficients
            before = after

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return Ritz values (ascending), vectors in the coordinates of the processed rows, and residual estimates."""
        values, vectors, residuals = self._ritz_in_units()
        unit = self.unit or 1.0
        return values * unit, vectors, residuals * unit

    def _ritz_in_units(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._ritz is None:
            rows = slice(self.frozen, self.position)
            projected = self.coupling[rows, rows]
            values, vectors = np.linalg.eigh((projected + projected.T) / 2)
            residuals = np.linalg.norm(self.coupling[self.position : self.used, rows] @ vectors, axis=0)
            self._ritz = values, vectors, residuals
        return self._ritz

    def combine(self, vectors: np.ndarray) -> np.ndarray:
        """Return linear combinations (k, P) of the processed rows, one for each column of `vectors`, in numpy."""
        return self.basis.combine(vectors, self.frozen, self.position)

    def restart(self, kept: np.ndarray, keep_pending: bool = True) -> None:
        """Replace the processed rows by the Ritz vectors `kept`; their residuals stay in the pending rows."""
        values, vectors, _ = self._ritz_in_units()
        values, vectors = values[kept], vectors[:, kept]
        start, stop, used = self.frozen, self.position, self.used if keep_pending else self.position
        end = start + len(values)
        self.basis.turn(vectors, start, stop, used)
        old, self.coupling = self.coupling, np.zeros_like(self.coupling)
        self.coupling[:start, :start] = old[:start, :start]
        self.coupling[:start, start:end] = old[:start, start:stop] @ vectors
        self.coupling[start:end, start:end] = np.diag(values)
        self.coupling[end : end + used - stop, start:end] = old[stop:used, start:stop] @ vectors
        self.position, self.pending, self._ritz = end, used - stop, None

    def freeze(self) -> int:
        """Freeze every row in use; later rows are orthogonal to all. Return how many were pending."""
        waiting = self.pending
        self.frozen = self.position = self.used
        self.pending, self._ritz = 0, None
        return waiting

    def thaw(self, waiting: int, merge: bool) -> None:
        """Undo `freeze`; the rows processed since then join the others if `merge`, and are dropped otherwise."""
        start, stop, used = self.frozen, self.position, self.used
        before, aside = np.arange(start - waiting), np.arange(start - waiting, start)
        self.frozen, self._ritz = 0, None
        self.position, self.pending = start - waiting, waiting
        if merge:
            order = np.concatenate([before, np.arange(start, stop), aside, np.arange(stop, used)])
            self.basis.reorder(start - waiting, order[start - waiting :])
            self.coupling[:used, :used] = self.coupling[np.ix_(order, order)]
            self.position, self.pending = stop - waiting, waiting + used - stop
