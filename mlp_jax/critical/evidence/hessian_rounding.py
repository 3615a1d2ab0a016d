"""The rounding of the Hessian, from computing it again after a move by a rounding, and with other roundings."""

import dataclasses

import numpy as np

from mlp_jax.critical.evidence.jumps import JUMP, Jump, first_order_jump, hessian_jump
from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.evidence.slopes import SAFETY, Slope, typical_size
from mlp_jax.curvature import signs

# Number of vectors whose products with the Hessian are compared.
_PROBES = 4


@dataclasses.dataclass(frozen=True)
class _Error:
    """A bound on the rounding of a matrix, from the same one elsewhere; rows are computed where they are used."""

    here: np.ndarray
    there: np.ndarray
    relative: float
    ndim = 2

    def __len__(self) -> int:
        return len(self.here)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return SAFETY * difference(self.there[rows], self.here[rows]) + self.relative * np.abs(self.here[rows])

    def diagonal(self) -> np.ndarray:
        here, there = np.diag(self.here), np.diag(self.there)
        return SAFETY * difference(there, here) + self.relative * np.abs(here)

    def __matmul__(self, vector: np.ndarray) -> np.ndarray:
        return np.concatenate([self[rows] @ vector for rows in signs.row_blocks(len(self.here))])


def measure_rounding(
    problem: Problem, matrix: np.ndarray, moves: np.ndarray, slope: Slope
) -> tuple[np.ndarray, np.ndarray, Jump | None]:
    """Return a scaling of the Hessian, a diagonal bound on its rounding, and what jumps when params move by a rounding.

    ValueError where a given Hessian is not that of `fun`.
    """
    error = _Error(matrix, problem.matrix(problem.vector - moves[0]), problem.growth * problem.unit)
    _require_agreement(problem, matrix, error)
    scale = signs.scaling(matrix, error)
    bound = signs.diagonal_bound(error, scale)
    del error  # its memory
    vectors = probe_vectors(scale)
    here = problem.products_here(vectors)
    noise = problem.products_here(vectors, np.arange(1, _PROBES + 1)) - here
    jump = hessian_jump(problem, vectors, moves, scale, here, lambda: noise)
    bound = at_least(bound, SAFETY * np.max(np.linalg.norm(scale * noise, axis=1)), scale)
    # Rounding does not grow with the move either; that of components near zero is as large as that of the others.
    floor = solve_rounding(problem.unit, matrix, scale, problem.vector, np.zeros_like(slope.gradient))
    moved = JUMP * (_absolute_product(matrix, moves[0]) + problem.unit * _absolute_product(matrix, np.ones(len(scale))))
    natural = _absolute_product(matrix, np.maximum(np.abs(problem.vector), typical_size(problem)))
    jump = first_order_jump(slope, moved + floor, natural) or jump
    return scale, bound, jump


def probe_vectors(scale: np.ndarray) -> np.ndarray:
    """Return vectors whose products show a change in any entry of the scaled Hessian."""
    return scale * np.random.default_rng(6).choice([-1.0, 1.0], (_PROBES, len(scale)))


def at_least(bound: np.ndarray, size: float, scale: np.ndarray) -> np.ndarray:
    """Return the diagonal bound, raised to a size in scaled coordinates that exceeds it by much."""
    return bound if size <= SAFETY * np.max(scale**2 * bound) else np.maximum(bound, size / scale**2)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return |a − b|."""
    apart = a - b
    return np.abs(apart, out=apart)


def _absolute_product(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return |H| |v|."""
    return np.concatenate([np.abs(matrix[rows]) @ np.abs(vector) for rows in signs.row_blocks(len(matrix))])


def solve_rounding(
    unit: float, matrix: np.ndarray, scale: np.ndarray, step: np.ndarray, gradient: np.ndarray
) -> np.ndarray:
    """Return a bound on the rounding of H p + g: in scaled coordinates that of the largest row for each row."""
    largest = np.max(scale * (_absolute_product(matrix, step) + np.abs(gradient)))
    return 4 * len(matrix) * unit * largest / scale


def _require_agreement(problem: Problem, matrix: np.ndarray, error: _Error) -> None:
    """Raise ValueError unless a given Hessian times a vector is the product that `fun` gives."""
    if problem.hessian is None:
        return
    size = len(matrix)
    direction = np.random.default_rng(1).standard_normal(size)
    theirs, ours = matrix @ direction, problem.product(direction)
    products = 64 * size * problem.unit - error.relative
    allowed = error @ np.abs(direction) + products * _absolute_product(matrix, direction)
    worst = int(np.argmax(np.abs(theirs - ours) - allowed - 1e-8 * np.max(np.abs(ours))))
    if abs(theirs[worst] - ours[worst]) > allowed[worst] + 1e-8 * np.max(np.abs(ours)):
        got = f"got {theirs[worst]:.6g} in row {worst} of H v, expected {ours[worst]:.6g}, what fun gives"
        raise ValueError(f"hessian: {got}; it is not the Hessian of fun (does one lack a penalty, weights or data?).")
