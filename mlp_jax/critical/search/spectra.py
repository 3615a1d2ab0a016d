"""The eigenbases of `following`, and Newton's method at the end: with matrices, or by products. Host-level.

The LAPACK of numpy, because scipy's keeps Python's lock, so that of two searches one waits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlp_jax.critical.search.contract import Reason
from mlp_jax.critical.search.eigenbasis import Basis, basis
from mlp_jax.critical.search.following import CONTRACTS, Found
from mlp_jax.curvature import signs

_NEWTON_STEPS = 12
# Random share of the first vector of a Krylov space, so that no eigenspace is absent from it.
_RANDOM = 0.1
# Without matrices a descent of the gradient norm replaces Newton's steps once they are this much shorter than the
# longest step.
_SHORT = 1e-2

_Of = Callable[[np.ndarray], np.ndarray]


def _solution(matrix: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    try:
        return np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:  # exactly singular
        return None


class _Counted:
    """Counts the points at which the Hessian was used, or as much other work was done; `tell` is called with each."""

    def __init__(self, tell: Callable[[int], None] | None, hessians: int = 0) -> None:
        self.hessians, self._tell = hessians, tell

    def spend(self) -> int:
        """Count one more, and return the number."""
        self.hessians += 1
        if self._tell is not None:
            self._tell(self.hessians)
        return self.hessians


class Matrices(_Counted):
    """A function whose Hessian is computed: its eigenbasis by LAPACK, and Newton's steps by LU.

    typical
        Size as which parameters near zero are rounded.
    """

    def __init__(
        self, gradient: _Of, matrix: _Of, unit: float, typical: float, tell: Callable[[int], None] | None = None
    ) -> None:
        super().__init__(tell)
        self.gradient, self.unit = gradient, unit
        self._of, self._typical = matrix, typical

    def _matrix(self, vector: np.ndarray) -> np.ndarray:
        self.spend()
        return self._of(vector)

    def matrix(self, vector: np.ndarray) -> np.ndarray | None:
        """Return the Hessian; None where it is not finite."""
        matrix = self._matrix(vector)
        return matrix if np.all(np.isfinite(matrix)) else None

    def look(self, vector: np.ndarray, gradient: np.ndarray) -> Callable[[np.ndarray], Basis] | None:
        """Return the eigenbasis of the whole space, whatever the gradient."""
        matrix = self.matrix(vector)
        if matrix is None:
            return None
        whole = basis(matrix, None, len(vector), self.unit)
        return lambda gradient: whole

    def negative(self, vector: np.ndarray) -> int:
        """Return the number of negative eigenvalues; 0 where the Hessian is not finite."""
        matrix = self.matrix(vector)
        return 0 if matrix is None else signs.negative(matrix)

    def finish_near(self, vector: np.ndarray, gradient: np.ndarray, longest: float) -> Found | None:
        """Return what `finish` does, or None unless two steps with the Hessian here contract."""
        matrix = self.matrix(vector)
        step = None if matrix is None else _solution(matrix, -gradient)
        if matrix is None or step is None or not np.linalg.norm(step) <= longest:
            return None
        ahead = self.gradient(vector + step)
        second = _solution(matrix, -ahead)
        level = 4 * self.unit * (1 + float(np.linalg.norm(vector)))
        if second is None or not np.linalg.norm(second) <= max(CONTRACTS * float(np.linalg.norm(step)), level):
            return None
        return self.finish(vector + step, ahead, longest)

    def finish(self, vector: np.ndarray, gradient: np.ndarray, longest: float) -> Found | None:
        """Return where Newton's steps end at the level of rounding, with the index; None if they do not contract."""
        last = np.inf
        for _ in range(_NEWTON_STEPS):
            matrix = self.matrix(vector)
            if matrix is None:
                return None
            step = _solution(matrix, -gradient)
            if step is None or not np.linalg.norm(step) <= longest:
                step = basis(matrix, None, len(vector), self.unit).newton(gradient, longest)
            size = float(np.linalg.norm(step))
            level = 4 * self.unit * (1 + float(np.linalg.norm(vector)))
            if not size <= max(longest, level):
                return None
            stagnates = size > last / 2 and last <= 1e6 * level
            rounding = 1e3 * self.unit * np.abs(matrix) @ np.maximum(np.abs(vector), self._typical)
            if (size <= level or stagnates) and np.all(np.abs(gradient) <= rounding):
                return Found(vector, gradient, signs.negative(matrix), Reason.ROUNDING)
            if not 0 < size <= last:  # 0: the gradient is in the null space
                return None
            vector, last = vector + step, size
            gradient = self.gradient(vector)
        return None


class Products(_Counted):
    """A function with Hessian-vector products: eigenbases of Krylov spaces.

    krylov
        (vector, first) -> (rows of an orthonormal basis, diagonal and off-diagonal of the tridiagonal matrix there).
    product
        (vector, direction) -> the Hessian at vector, times direction.
    descend
        vector -> (vector, gradient, whether it is critical), a descent of the gradient norm.
    """

    def __init__(
        self,
        gradient: _Of,
        krylov: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]],
        product: Callable[[np.ndarray, np.ndarray], np.ndarray],
        descend: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, bool]],
        unit: float,
        tell: Callable[[int], None] | None = None,
        hessians: int = 0,
    ) -> None:
        super().__init__(tell, hessians)
        self.gradient, self.unit = gradient, unit
        self._krylov, self._product, self._descend = krylov, product, descend
        self._generator = np.random.default_rng(0)
        self._lowest: np.ndarray | float = 0.0

    def negative(self, vector: np.ndarray) -> int:
        """Return a number of negative eigenvalues: of those on a Krylov space, which may have fewer."""
        self.spend()
        _, diagonal, beside = self._krylov(vector, self._generator.standard_normal(len(vector)))
        inside = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        return int(np.sum(np.linalg.eigvalsh(inside) < 0)) if np.all(np.isfinite(inside)) else 0

    def look(self, vector: np.ndarray, gradient: np.ndarray) -> Callable[[np.ndarray], Basis] | None:
        """Return the eigenbasis on a Krylov space, widened by the part of the gradient outside it.

        The space begins with the gradient, the lowest modes of the last one, and noise.
        """
        self.spend()
        noise = self._generator.standard_normal(len(vector))
        first = gradient / (np.linalg.norm(gradient) or 1) + _RANDOM * noise / np.linalg.norm(noise) + self._lowest
        rows, diagonal, beside = self._krylov(vector, first)
        if not (np.all(np.isfinite(rows)) and np.all(np.isfinite(diagonal))):
            return None
        size = int(np.sum(np.any(rows, axis=1)))  # after a space that ends early, rows are zero
        rows, diagonal, beside = rows[:size], diagonal[:size], beside[: size - 1]
        inside = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)

        def widened(gradient: np.ndarray) -> Basis:
            outside = gradient - rows.T @ (rows @ gradient)
            outside -= rows.T @ (rows @ outside)
            length = np.linalg.norm(outside)
            if length <= self.unit * len(vector) * np.linalg.norm(gradient):
                return basis(inside, rows, len(vector), self.unit)
            image = self._product(vector, outside / length)
            wider = np.concatenate([rows, outside[None] / length])
            matrix = np.pad(inside, (0, 1))
            matrix[-1] = matrix[:, -1] = wider @ image
            return basis(matrix, wider, len(vector), self.unit)

        found = widened(gradient)
        low = max(1, int(np.sum(found.values < 0)))
        self._lowest = found.vector(np.where(np.arange(len(found.values)) < low, low**-0.5, 0))
        return widened

    def finish(self, vector: np.ndarray, gradient: np.ndarray, longest: float) -> Found | None:
        """Return where Newton's steps end, with an estimate of the index; None if they do not contract."""
        last, start = np.inf, vector
        for _ in range(_NEWTON_STEPS):
            look = self.look(vector, gradient)
            step = None if look is None else look(gradient).newton(gradient, longest)
            if step is None or not np.linalg.norm(step) <= min(longest, last / 2):
                return None
            vector, last = vector + step, float(np.linalg.norm(step))
            gradient = self.gradient(vector)
            if last <= _SHORT * longest:
                break
        vector, gradient, critical = self._descend(vector)
        look = self.look(vector, gradient)
        if not critical or look is None or not np.linalg.norm(vector - start) <= longest:
            return None
        return Found(vector, gradient, int(np.sum(look(gradient).values < 0)), Reason.ROUNDING)
