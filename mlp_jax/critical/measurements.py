"""What a verdict rests on: gradient, Hessian and Newton step at a point, each with what it may be wrong by.

Rounding is measured, not assumed: parameters are moved by one unit in the last place, up and down, which changes
every later rounding as well; what the gradient and the Hessian change by, times a safety factor, is their error.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from scipy.linalg import lapack

from mlp_jax import curvature, devices, require, tree
from mlp_jax.critical.finders import HessianMatrix
from mlp_jax.curvature import signs
from mlp_jax.tree import PyTree

# Times the largest change seen: the probes are a sample of the roundings, not their maximum.
SAFETY = 4.0
_PROBES = 8
# A change of the gradient that does not grow with the move is a jump when it is this much larger than H times the move.
JUMP = 512.0
# Above this many parameters the eigenvectors of the Hessian are not computed (9 P³ flops).
EIGENVECTOR_LIMIT = 3000
# Newton steps tried over fewer and fewer modes.
_REPEATS = 3
# Longest Newton step, in units of the parameters' norm, that is looked at where P is large.
_FAR = 10.0


@dataclasses.dataclass(frozen=True)
class Problem:
    """A function at float64 parameters, seen as a function of one vector; `unit` is its unit roundoff."""

    fun: Callable[..., jax.Array]
    params: PyTree
    args: tuple
    hessian: HessianMatrix | None
    unit: float

    @functools.cached_property
    def vector(self) -> np.ndarray:
        """The parameters as one vector."""
        return devices.to_host(tree.ravel(self.params)[0])

    def unravel(self, vector: np.ndarray) -> PyTree:
        """Return a vector as parameters."""
        return tree.ravel(self.params)[1](jnp.asarray(vector))

    def gradients(self, vectors: np.ndarray) -> np.ndarray:
        """Return the gradient at each row of `vectors`."""
        return devices.to_host(_gradients(self.fun, jnp.asarray(vectors), self.params, self.args))

    def matrix(self, vector: np.ndarray) -> np.ndarray:
        """Return the Hessian at a vector, symmetric; raise ValueError if it is not a finite (P, P) matrix."""
        if self.hessian is None:
            matrix = devices.to_host(curvature.dense_hessian(self.fun, self.unravel(vector), self.args))
        else:
            given = devices.to_host(self.hessian(self.unravel(vector), *self.args))
            matrix = np.asarray(require.numbers(given, "hessian"), dtype=np.float64)
        size = len(vector)
        if matrix.shape != (size, size):
            raise ValueError(f"hessian: got shape {matrix.shape}, expected ({size}, {size}), the number of parameters.")
        if not np.all(np.isfinite(matrix)):
            raise ValueError(f"fun: got {np.sum(~np.isfinite(matrix))} Hessian entries that are NaN or infinite.")
        return matrix if np.array_equal(matrix, matrix.T) else (matrix + matrix.T) / 2

    def product(self, direction: np.ndarray) -> np.ndarray:
        """Return the Hessian times a vector, by automatic differentiation of `fun` alone."""
        return devices.to_host(_product(self.fun, jnp.asarray(direction), self.params, self.args))


@functools.partial(jax.jit, static_argnums=0)
def _gradients(fun: Callable[..., jax.Array], vectors: jax.Array, params: PyTree, args: tuple) -> jax.Array:
    unravel = tree.ravel(params)[1]
    return jax.lax.map(lambda v: tree.ravel(jax.grad(fun)(unravel(v), *args))[0], vectors)


@functools.partial(jax.jit, static_argnums=0)
def _product(fun: Callable[..., jax.Array], direction: jax.Array, params: PyTree, args: tuple) -> jax.Array:
    tangent = tree.ravel(params)[1](direction)
    return tree.ravel(jax.jvp(lambda p: jax.grad(fun)(p, *args), (params,), (tangent,))[1])[0]


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Numbers at one point. Vectors and matrices are in the order of `tree.ravel`.

    gradient, gradient_error
        g and a bound on each component's error.
    matrix
        H as computed.
    rounding, change
        Diagonals b with −b ≤ E ≤ b for E the rounding of H, and for E its change over `distance`.
    counts
        The inertia that all these errors leave sure.
    scale
        s with diag(s) H diag(s) well scaled.
    step
        The minimum-residual Newton step p over the modes that rounding leaves resolved; their number is `num_solved`.
    residual, residual_error
        H p + g, and a bound on what the rounding of this sum and of g leaves in it.
    curvature_change
        Bound on (H(θ + p) − H(θ)) p: what the gradient at θ + p may be because H changed on the way.
    eigenvalues, eigenvectors
        Of the scaled Hessian, ascending, vectors in columns; None for large P.
    jump
        What jumps when params move by a rounding, in words; None where nothing does.
    """

    gradient: np.ndarray
    gradient_error: np.ndarray
    matrix: np.ndarray
    rounding: np.ndarray
    change: np.ndarray
    counts: signs.Inertia
    scale: np.ndarray
    step: np.ndarray
    num_solved: int
    residual: np.ndarray
    residual_error: np.ndarray
    curvature_change: np.ndarray
    eigenvalues: np.ndarray | None
    eigenvectors: np.ndarray | None
    jump: str | None

    @property
    def error(self) -> np.ndarray:
        """Diagonal b with −b ≤ E ≤ b for E all that the Hessian may be wrong by within `distance`."""
        return self.rounding + self.change


def measure(problem: Problem) -> Measurements:
    """Measure gradient, Hessian and Newton step with their errors: three to five Hessians, 33 gradients. Host-level.

    Errors of the Hessian are reduced to diagonals, so that no more than two (P, P) matrices are held beside what a
    Hessian takes to compute.

    Raises
    ------
    ValueError
        The gradient or Hessian is not finite, or a given `hessian` is not that of `fun`.

    Examples
    --------
    >>> with jax.enable_x64(True):
    ...     measured = measure(Problem(lambda x: jnp.sum(x**2), jnp.ones(2), (), None, 2.0**-53))
    >>> measured.step.tolist()
    [-1.0, -1.0]
    """
    moves = nudges(problem)
    gradient, gradient_error, gradient_jump = measure_gradient(problem, moves)
    matrix = problem.matrix(problem.vector)
    scale, rounding, jump = _measure_rounding(problem, matrix, moves[0], gradient_jump)
    values, vectors = _modes(matrix, scale)
    newton = _Newton(problem, matrix, scale, rounding, gradient, gradient_error, moves[0])
    taken = newton.by_factors() if values is None or vectors is None else newton.by_modes(values, vectors)
    return Measurements(
        gradient=gradient,
        gradient_error=gradient_error,
        matrix=matrix,
        rounding=rounding,
        change=taken.change,
        counts=taken.counts,
        scale=scale,
        step=taken.step,
        num_solved=taken.num_solved,
        residual=matrix @ taken.step + gradient,
        residual_error=gradient_error + _solve_rounding(problem.unit, matrix, scale, taken.step, gradient),
        curvature_change=taken.curvature_change,
        eigenvalues=values,
        eigenvectors=vectors,
        jump=jump,
    )


def _measure_rounding(
    problem: Problem, matrix: np.ndarray, move: np.ndarray, gradient_jump: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str | None]:
    """Return a scaling of the Hessian, a diagonal bound on its rounding, and what jumps over a rounding."""
    below = _difference(problem.matrix(problem.vector - move), matrix)
    _require_agreement(problem, matrix, below)
    jump = _hessian_jumps(problem, move, below, matrix)
    error = np.multiply(SAFETY, below, out=below)
    for rows in signs.row_blocks(len(matrix)):
        error[rows] += 8 * problem.unit * np.abs(matrix[rows])
    scale = signs.scaling(matrix, error)
    # Rounding does not grow with the move either, and components near zero have that of the others.
    floor = _solve_rounding(problem.unit, matrix, scale, problem.vector, np.zeros_like(move))
    if np.any(gradient_jump > JUMP * _absolute_product(matrix, move) + floor):
        jump = gradient_jumps(gradient_jump)
    return scale, signs.diagonal_bound(error, scale), jump


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return |a − b|."""
    difference = a - b
    return np.abs(difference, out=difference)


def _absolute_product(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return |H| |v|."""
    return np.concatenate([np.abs(matrix[rows]) @ np.abs(vector) for rows in signs.row_blocks(len(matrix))])


def _solve_rounding(
    unit: float, matrix: np.ndarray, scale: np.ndarray, step: np.ndarray, gradient: np.ndarray
) -> np.ndarray:
    """Return what rounding leaves of H p + g: in scaled coordinates as much in each row as in the largest."""
    largest = np.max(scale * (_absolute_product(matrix, step) + np.abs(gradient)))
    return 4 * len(matrix) * unit * largest / scale


def nudges(problem: Problem) -> np.ndarray:
    """Return moves of about one unit in the last place with random signs; zeros move by that of a typical size.

    Examples
    --------
    >>> moves = nudges(Problem(lambda x: jnp.sum(x**2), np.array([4.0]), (), None, 2.0**-53))
    >>> moves.shape, float(abs(moves).max() * 2**50)
    ((8, 1), 1.0)
    """
    size = np.abs(problem.vector)
    typical = float(np.mean(size[size > 0])) if np.any(size > 0) else 1.0
    sides = np.random.default_rng(0).choice([-1.0, 1.0], size=(_PROBES, size.size))
    return 2 * problem.unit * np.where(size > 0, size, typical) * sides


def measure_gradient(problem: Problem, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return g, its error, and the part of the change that does not grow with the move: a jump.

    Examples
    --------
    >>> with jax.enable_x64(True):
    ...     problem = Problem(lambda x: jnp.sum(x**2), jnp.ones(2), (), None, 2.0**-53)
    ...     gradient, error, _ = measure_gradient(problem, nudges(problem))
    >>> gradient.tolist(), bool(np.all((0 < error) & (error < 1e-14)))
    ([2.0, 2.0], True)
    """
    vector = problem.vector
    rows = problem.gradients(np.concatenate([vector[None], vector + moves, vector - moves]))
    if not np.all(np.isfinite(rows[0])):
        raise ValueError(f"fun: got {np.sum(~np.isfinite(rows[0]))} gradient components that are NaN or infinite.")
    near = rows[1:] - rows[0]
    far = problem.gradients(np.concatenate([vector + 8 * moves, vector - 8 * moves])) - rows[0]
    change = np.max(np.abs(near), axis=0)
    same = np.abs(far - near) <= np.abs(near) / 4
    jump = np.max(np.where(same, np.abs(near), 0), axis=0)
    return rows[0], SAFETY * (change + problem.unit * np.abs(rows[0])), jump


def _require_agreement(problem: Problem, matrix: np.ndarray, change: np.ndarray) -> None:
    """Raise ValueError unless a given Hessian times a vector is what `fun` itself gives."""
    if problem.hessian is None:
        return
    size = len(matrix)
    direction = np.random.default_rng(1).standard_normal(size)
    theirs, ours = matrix @ direction, problem.product(direction)
    allowed = SAFETY * (change @ np.abs(direction)) + 64 * size * problem.unit * _absolute_product(matrix, direction)
    worst = int(np.argmax(np.abs(theirs - ours) - allowed - 1e-8 * np.max(np.abs(ours))))
    if abs(theirs[worst] - ours[worst]) > allowed[worst] + 1e-8 * np.max(np.abs(ours)):
        raise ValueError(
            f"hessian: got {theirs[worst]:.6g} in row {worst} of H v, expected {ours[worst]:.6g}, what fun gives;"
            " it is not the Hessian of fun (a penalty, weights or data that one of them lacks?)."
        )


def _modes(matrix: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return eigenvalues and eigenvectors of the scaled Hessian, where P is not too large for them."""
    if len(matrix) > EIGENVECTOR_LIMIT:
        return None, None
    return scipy.linalg.eigh(_scaled(matrix, scale), driver="evd", overwrite_a=True, check_finite=False)


def _scaled(matrix: np.ndarray, scale: np.ndarray) -> np.ndarray:
    scaled = matrix * scale[:, None]
    return np.multiply(scaled, scale, out=scaled)


def _resolved(error: np.ndarray, scale: np.ndarray, values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return which modes are larger than the error of the Hessian and of the eigenvalue solver."""
    solver = 2.0**-53 * len(values) * max(abs(values[0]), abs(values[-1]))
    return np.abs(values) > (scale**2 * error) @ vectors**2 + solver


class _Taken(NamedTuple):
    """A Newton step, over how many modes, what H changes by on the way, and the inertia that is left sure."""

    step: np.ndarray
    num_solved: int
    change: np.ndarray
    curvature_change: np.ndarray
    counts: signs.Inertia


class _Newton(NamedTuple):
    """What p = −H⁺ g is made from."""

    problem: Problem
    matrix: np.ndarray
    scale: np.ndarray
    rounding: np.ndarray
    gradient: np.ndarray
    gradient_error: np.ndarray
    move: np.ndarray

    def by_modes(self, values: np.ndarray, vectors: np.ndarray) -> _Taken:
        """Step over the modes larger than their error, leaving out those that change sign on the way."""
        error = self.rounding
        for _ in range(_REPEATS):
            solved = _resolved(error, self.scale, values, vectors)
            inverse = np.divide(1.0, values, out=np.zeros_like(values), where=solved)
            step = -self.scale * (vectors @ (inverse * (vectors.T @ (self.scale * self.gradient))))
            taken = self._take(step, int(np.sum(solved)))
            error = self.rounding + taken.change
            if taken.num_solved == int(np.sum(_resolved(error, self.scale, values, vectors))):
                break
        return taken

    def by_factors(self) -> _Taken:
        """Step over all modes by LDLᵀ; where some are not resolved, over what MINRES reaches."""
        step = self._solve()
        if step is not None:
            taken = self._take(step, len(step))
            if taken.counts.unresolved == 0:
                return taken
        resolved = signs.inertia(self.matrix, self.rounding, scale=self.scale)
        if step is not None and resolved.unresolved == 0:
            return taken
        return self._take(self._minimum_residual(), resolved.negative + resolved.positive)

    def _minimum_residual(self) -> np.ndarray:
        """Return the step by MINRES, stopped where what is left is rounding: further on it grows along null modes."""
        size, rounding = (float(np.linalg.norm(self.scale * v)) for v in (self.gradient, self.gradient_error))
        scaled, enough = _scaled(self.matrix, self.scale), np.clip(0.1 * rounding / max(size, 1e-300), 1e-12, 0.1)
        solution, _ = scipy.sparse.linalg.minres(scaled, -self.scale * self.gradient, rtol=float(enough))
        return self.scale * solution

    def _solve(self) -> np.ndarray | None:
        """Return −H⁻¹ g, or None where it is out of all proportion, as it is where H is singular to rounding."""
        scaled, right = _scaled(self.matrix, self.scale).T, -self.scale * self.gradient
        lwork, _ = lapack.dsysv_lwork(len(right), lower=1)  # less would be the unblocked algorithm
        _, _, solution, failed = lapack.dsysv(scaled, right, lwork=int(lwork), lower=1, overwrite_a=1)
        step = self.scale * solution
        far = _FAR * max(1.0, float(np.linalg.norm(self.problem.vector)))
        return step if failed == 0 and np.linalg.norm(step) <= far else None

    def _take(self, step: np.ndarray, num_solved: int) -> _Taken:
        moved = _difference(self.problem.matrix(self.problem.vector + step + self.move), self.matrix)
        change, curvature_change = SAFETY * signs.diagonal_bound(moved, self.scale), moved @ np.abs(step)
        del moved
        counts = signs.inertia(self.matrix, self.rounding + change, scale=self.scale)
        return _Taken(step, num_solved, change, curvature_change, counts)


def gradient_jumps(jump: np.ndarray) -> str:
    """Say by how much the gradient jumps.

    Examples
    --------
    >>> gradient_jumps(np.array([0.5]))
    'the gradient jumps by 0.5 when params move by a rounding'
    """
    return f"the gradient jumps by {np.max(jump):.2g} when params move by a rounding"


def _hessian_jumps(problem: Problem, move: np.ndarray, below: np.ndarray, matrix: np.ndarray) -> str | None:
    """Say by how much the Hessian jumps, if a move of a rounding changes it by much more than a rounding."""
    much, scale = np.sqrt(problem.unit), signs.scaling(matrix)
    if np.max(scale * (below @ scale)) <= much:
        return None
    farther = _difference(problem.matrix(problem.vector - 8 * move), matrix)
    # Rows that hold only rounding are scaled up, so that what is rounding beside the largest entry does not count.
    is_jump = (np.abs(farther - below) <= below / 4) & (below > JUMP * problem.unit * np.max(np.abs(matrix)))
    jump = np.where(is_jump, below, 0)
    if np.max(scale * (jump @ scale)) <= much:
        return None
    return f"the Hessian jumps by {np.max(jump):.2g} when params move by a rounding"
