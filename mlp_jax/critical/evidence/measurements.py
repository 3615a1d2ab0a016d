"""What a verdict rests on: gradient, Hessian and Newton step at a point, each with what it may be wrong by.

Rounding is measured, not assumed: parameters and data are moved by one unit in the last place and every operation is
rounded otherwise; what the gradient and the Hessian change by, times a safety factor, is their error. The Newton step
is checked at its end and on the way: the Hessian must keep its signs there, and the values and gradients must be what
the Hessian says.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from scipy.linalg import lapack

from mlp_jax.critical.evidence.agreement import disagreement
from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.evidence.slopes import SAFETY, Slope, measure_slope, move_sizes, nudges, typical_size
from mlp_jax.curvature import signs

# A change of the gradient that does not grow with the move is a jump when it is this much larger than H times the move.
JUMP = 512.0
# A jump is no rounding where it is so many times what other roundings of the data and the operations change.
_CLEAR = 64.0
# A part of the gradient's natural size that may be its rounding.
_TINY = 1e-8
# Above this many parameters the eigenvectors of the Hessian are not computed (9 P³ flops).
EIGENVECTOR_LIMIT = 3000
# Newton steps tried over fewer and fewer modes.
_REPEATS = 3
# Errors are seen in samples, so that none counts as smaller than this share of the median.
_TYPICAL = 1 / 16
# Longest Newton step, in units of the parameters' norm, that is looked at where P is large.
_FAR = 10.0
# Where on the way, in Newton steps, values and gradients are looked at.
_WAY = np.array([0.5, 1.0, 2.0])
# Vectors whose products with the Hessian are compared; moves that look for jumps of it, and their sizes, in pairs.
_PROBES, _MOVES = 4, 2
_PAIRS = (0, 1), (7, 8)


class Jump(NamedTuple):
    """What jumps, in words, and whether it may as well be the rounding of numbers much larger than params."""

    words: str
    may_be_rounding: bool


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
    reach
        The same step with the rounding of the gradient that was seen: how far the critical point may be.
    residual, residual_error
        H p + g, and a bound on what the rounding of this sum and of g leaves in it.
    curvature_change
        Bound on (H(θ + p) − H(θ)) p: what the gradient at θ + p may be because H changed on the way.
    eigenvalues, eigenvectors
        Of the scaled Hessian, ascending, vectors in columns; None for large P.
    jump
        What jumps when params move by a rounding; None where nothing does.
    strayed
        What is not as the Hessian says on the way along the Newton step, in words; None where all is.
    disagreement
        Which derivatives are not those of the function, in words; None where none is seen.
    """

    gradient: np.ndarray
    gradient_error: np.ndarray
    matrix: np.ndarray
    rounding: np.ndarray
    change: np.ndarray
    counts: signs.Inertia
    scale: np.ndarray
    step: np.ndarray
    reach: np.ndarray
    num_solved: int
    residual: np.ndarray
    residual_error: np.ndarray
    curvature_change: np.ndarray
    eigenvalues: np.ndarray | None
    eigenvectors: np.ndarray | None
    jump: Jump | None
    strayed: str | None
    disagreement: str | None

    @property
    def error(self) -> np.ndarray:
        """Diagonal b with −b ≤ E ≤ b for E all that the Hessian may be wrong by within `distance`."""
        return self.rounding + self.change


def measure(problem: Problem) -> Measurements:
    """Measure gradient, Hessian and Newton step with their errors: three to five Hessians, 140 gradients. Host-level.

    Errors of the Hessian are reduced to diagonals, so that no more than two (P, P) matrices are held beside what a
    Hessian takes to compute.

    Raises
    ------
    ValueError
        The value, gradient or Hessian is not finite, or a given `hessian` is not that of `fun`.

    Examples
    --------
    >>> with jax.enable_x64(True):
    ...     measured = measure(Problem(lambda x: jnp.sum(x**2), jnp.ones(2), (), None, 2.0**-53))
    >>> measured.step.tolist()
    [-1.0, -1.0]
    """
    moves = nudges(problem)
    slope = measure_slope(problem, moves)
    matrix = problem.matrix(problem.vector)
    scale, rounding, jump = _measure_rounding(problem, matrix, moves, slope)
    values, vectors = _modes(matrix, scale)
    newton = _Newton(problem, matrix, scale, rounding, slope, moves)
    taken = newton.by_factors() if values is None or vectors is None else newton.by_modes(values, vectors)
    residual = matrix @ taken.step + slope.gradient
    residual_error = slope.gradient_error + _solve_rounding(problem.unit, matrix, scale, taken.step, slope.gradient)
    return Measurements(
        gradient=slope.gradient,
        gradient_error=slope.gradient_error,
        matrix=matrix,
        rounding=rounding,
        change=taken.change,
        counts=taken.counts,
        scale=scale,
        step=taken.step,
        reach=taken.reach,
        num_solved=taken.num_solved,
        residual=residual,
        residual_error=residual_error,
        curvature_change=taken.curvature_change,
        eigenvalues=values,
        eigenvectors=vectors,
        jump=jump,
        strayed=strayed(problem, slope, Way(scale, taken.step, residual, residual_error, taken.curvature_change)),
        disagreement=disagreement(problem, slope),
    )


class Way(NamedTuple):
    """A Newton step p with its scaling, H p + g, the error of that, and a bound on (H(θ + p) − H(θ)) p."""

    scale: np.ndarray
    step: np.ndarray
    residual: np.ndarray
    error: np.ndarray
    curvature_change: np.ndarray


def strayed(problem: Problem, slope: Slope, way: Way) -> str | None:
    """Say what is not as the Hessian says on the way to twice the Newton step, None where all is within the errors.

    Examples
    --------
    >>> with jax.enable_x64(True):
    ...     problem = Problem(lambda x: x[0] ** 2 + jnp.abs(x[0]), jnp.ones(1), (), None, 2.0**-53)
    ...     slope = measure_slope(problem, nudges(problem))
    ...     strayed(problem, slope, Way(np.ones(1), np.array([-1.5]), np.zeros(1), np.ones(1) * 1e-15, np.zeros(1)))
    'the gradient norm at 1 of the Newton step is 2, not the 0 that the Hessian says'
    """
    step = way.step
    if not np.any(step):
        return None
    values, rows = problem.slopes(problem.vector + _WAY[:, None] * step)
    if not (np.all(np.isfinite(values)) and np.all(np.isfinite(rows))):
        return "fun is not finite on the way along the Newton step"
    for part, value, gradient in zip(_WAY, values, rows, strict=True):
        expected = (1 - part) * slope.gradient + part * way.residual
        allowed = 2 * way.error + max(part, part**2) * way.curvature_change
        if not within(way.scale, gradient - expected, allowed):
            return (
                f"the gradient norm at {part:g} of the Newton step is {np.linalg.norm(gradient):.2g}, not the"
                f" {np.linalg.norm(expected):.2g} that the Hessian says"
            )
        rise = part * (slope.gradient @ step) + part**2 / 2 * (step @ (way.residual - slope.gradient))
        room = np.abs(step) @ (part**3 * way.curvature_change + 2 * part * way.error) + 2 * slope.value_error
        if abs(value - slope.value - rise) > room:
            return (
                f"fun changes by {value - slope.value:.2g} over {part:g} of the Newton step, not by the {rise:.2g} that"
                " its derivatives say"
            )
    return None


def within(scale: np.ndarray, values: np.ndarray, error: np.ndarray) -> bool:
    """Return whether each value is within its error, or within a share of that of a typical component, when scaled.

    Examples
    --------
    >>> within(np.ones(2), np.array([1e-9, -1e-9]), np.array([1e-8, 1e-8]))
    True
    """
    allowed = scale * error
    return bool(np.all(scale * np.abs(values) <= np.maximum(allowed, _TYPICAL * np.median(allowed))))


def _measure_rounding(
    problem: Problem, matrix: np.ndarray, moves: np.ndarray, slope: Slope
) -> tuple[np.ndarray, np.ndarray, Jump | None]:
    """Return a scaling of the Hessian, a diagonal bound on its rounding, and what jumps over a rounding."""
    below = _difference(problem.matrix(problem.vector - moves[0]), matrix)
    _require_agreement(problem, matrix, below)
    error = np.multiply(SAFETY, below, out=below)
    for rows in signs.row_blocks(len(matrix)):
        error[rows] += problem.growth * problem.unit * np.abs(matrix[rows])
    scale = signs.scaling(matrix, error)
    bound = signs.diagonal_bound(error, scale)
    vectors = _probe_vectors(problem, scale)
    at = np.broadcast_to(problem.vector, vectors.shape)
    here = problem.products(at, vectors)
    noise = problem.products(at, vectors, np.arange(1, _PROBES + 1)) - here
    jump = hessian_jump(problem, vectors, moves, scale, here, noise)
    bound = _at_least(bound, SAFETY * np.max(np.linalg.norm(scale * noise, axis=1)), scale)
    # Rounding does not grow with the move either, and components near zero have that of the others.
    floor = _solve_rounding(problem.unit, matrix, scale, problem.vector, np.zeros_like(slope.gradient))
    moved = JUMP * (_absolute_product(matrix, moves[0]) + problem.unit * _absolute_product(matrix, np.ones(len(scale))))
    natural = _absolute_product(matrix, np.maximum(np.abs(problem.vector), typical_size(problem)))
    jump = first_order_jump(slope, moved + floor, natural) or jump
    return scale, bound, jump


def _probe_vectors(problem: Problem, scale: np.ndarray) -> np.ndarray:
    """Return vectors whose products show a change in any entry of the Hessian, sized as it is scaled."""
    return scale * np.random.default_rng(6).choice([-1.0, 1.0], (_PROBES, len(scale)))


def _at_least(bound: np.ndarray, size: float, scale: np.ndarray) -> np.ndarray:
    """Return the diagonal bound, or one of this size in scaled coordinates where products show much more than it."""
    return bound if size <= SAFETY * np.max(scale**2 * bound) else np.maximum(bound, size / scale**2)


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
    reach: np.ndarray
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
    slope: Slope
    moves: np.ndarray

    def by_modes(self, values: np.ndarray, vectors: np.ndarray) -> _Taken:
        """Step over the modes larger than their error, leaving out those that change sign on the way."""
        error = self.rounding
        along = vectors.T @ (self.scale * self.slope.gradient)
        # Seen along each mode: a move of params changes the gradient by less where the curvature is less.
        possible = np.sqrt(np.mean(((self.slope.roundings * self.scale) @ vectors) ** 2, axis=0))
        farthest = np.copysign(np.maximum(np.abs(along), possible), along)
        for _ in range(_REPEATS):
            solved = _resolved(error, self.scale, values, vectors)
            inverse = np.divide(1.0, values, out=np.zeros_like(values), where=solved)
            step, reach = (-self.scale * (vectors @ (inverse * part)) for part in (along, farthest))
            taken = self._take(step, reach, int(np.sum(solved)))
            error = self.rounding + taken.change
            if taken.num_solved == int(np.sum(_resolved(error, self.scale, values, vectors))):
                break
        return taken

    def by_factors(self) -> _Taken:
        """Step over all modes by LDLᵀ; where some are not resolved, over what MINRES reaches."""
        steps = self._solve()
        if steps is not None:
            taken = self._take(*steps, len(self.scale))
            if taken.counts.unresolved == 0:
                return taken
        resolved = signs.inertia(self.matrix, self.rounding, scale=self.scale)
        if steps is not None and resolved.unresolved == 0:
            return taken
        return self._take(*self._minimum_residual(), resolved.negative + resolved.positive)

    def _minimum_residual(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the step by MINRES, stopped where what is left is rounding: further on it grows along null modes."""
        gradient, error = self.slope.gradient, self.slope.gradient_error
        size, rounding = (float(np.linalg.norm(self.scale * v)) for v in (gradient, error))
        scaled, enough = _scaled(self.matrix, self.scale), np.clip(0.1 * rounding / max(size, 1e-300), 1e-12, 0.1)
        solution, _ = scipy.sparse.linalg.minres(scaled, -self.scale * gradient, rtol=float(enough))
        return self.scale * solution, self.scale * solution  # what rounding adds would grow along null modes, too

    def _solve(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return −H⁻¹ g, or None where it is out of all proportion, as it is where H is singular to rounding."""
        right = -(np.stack([self.slope.gradient, self.slope.typical_rounding]) * self.scale).T
        scaled = _scaled(self.matrix, self.scale).T
        lwork, _ = lapack.dsysv_lwork(len(right), lower=1)  # less would be the unblocked algorithm
        _, _, solution, failed = lapack.dsysv(scaled, right, lwork=int(lwork), lower=1, overwrite_a=1)
        step, rounding = (self.scale[:, None] * solution.reshape(right.shape)).T
        far = _FAR * max(1.0, float(np.linalg.norm(self.problem.vector)))
        return (step, step + rounding) if failed == 0 and np.linalg.norm(step) <= far else None

    def _take(self, step: np.ndarray, reach: np.ndarray, num_solved: int) -> _Taken:
        problem, move = self.problem, self.moves[0]
        moved = _difference(problem.matrix(problem.vector + reach + move), self.matrix)
        change, curvature_change = SAFETY * signs.diagonal_bound(moved, self.scale), moved @ np.abs(reach)
        vectors = _probe_vectors(problem, self.scale)
        seen = float(np.max(np.linalg.norm(self.scale * (vectors @ moved), axis=1)))
        del moved
        size = self._seen_about(reach, vectors)
        if size > SAFETY * seen:
            change = _at_least(change, SAFETY * size, self.scale)
        counts = signs.inertia(self.matrix, self.rounding + change, scale=self.scale)
        return _Taken(step, reach, num_solved, change, curvature_change, counts)

    def _seen_about(self, reach: np.ndarray, vectors: np.ndarray) -> float:
        """Return how much products with fun's own Hessian, scaled, differ about params and the end of the step."""
        problem = self.problem
        offsets = [reach - m for m in self.moves[:2]] + [reach + m for m in self.moves[1:3]]
        offsets += [2 * reach, -reach]
        there = problem.vector + np.stack(offsets)
        rows = np.resize(vectors, (len(there), len(reach)))
        products = problem.products(there, rows)
        here = self.matrix @ rows.T
        return float(np.nanmax(np.linalg.norm(self.scale * (products - here.T), axis=1)))


def nonsmooth(jump: Jump) -> tuple[str, str]:
    """Return the kind of a point where something jumps, and why.

    Examples
    --------
    >>> nonsmooth(Jump("fun jumps", False))
    ('nonsmooth', 'fun jumps')
    """
    if jump.may_be_rounding:
        return "undetermined", f"{jump.words}: a corner, or the rounding of numbers much larger than params"
    return "nonsmooth", jump.words


def first_order_jump(slope: Slope, level: float | np.ndarray, natural: float | np.ndarray) -> Jump | None:
    """Say by how much the value jumps, or the gradient by more than a level; None where neither does.

    A jump of the gradient no larger than its rounding, and far below its natural size, is that rounding.

    Examples
    --------
    >>> with jax.enable_x64(True):
    ...     problem = Problem(lambda x: jnp.abs(x[0]), jnp.zeros(1), (), None, 2.0**-53)
    ...     first_order_jump(measure_slope(problem, nudges(problem)), 1e-9, 1.0)
    Jump(words='the gradient jumps by 2 when params move by a rounding', may_be_rounding=False)
    """
    if slope.value_jump > 0:
        return Jump(f"fun jumps by {slope.value_jump:.2g} when params move by a rounding", False)
    clear = slope.gradient_jump > _CLEAR * slope.gradient_noise
    jumps = (slope.gradient_jump > level) & (clear | (slope.gradient_jump > _TINY * natural))
    if not np.any(jumps):
        return None
    largest = float(np.max(slope.gradient_jump[jumps]))
    return Jump(f"the gradient jumps by {largest:.2g} when params move by a rounding", not np.any(clear & jumps))


def hessian_jump(
    problem: Problem, vectors: np.ndarray, moves: np.ndarray, scale: np.ndarray, here: np.ndarray, noise: np.ndarray
) -> Jump | None:
    """Say by how much the Hessian jumps, if moves of a rounding change it by much more, whatever their size.

    `here` are its products with the vectors, and `noise` what other roundings of data and operations change these by.

    Examples
    --------
    >>> with jax.enable_x64(True):
    ...     problem = Problem(lambda x: x[0] * jnp.abs(x[0]), jnp.zeros(1), (), None, 2.0**-53)
    ...     ones = np.ones((4, 1))
    ...     hessian_jump(problem, ones, nudges(problem), np.ones(1), 2 * ones, 0 * ones)
    Jump(words='the Hessian jumps by 4 when params move by a rounding', may_be_rounding=False)
    """
    sizes = move_sizes(problem)
    chosen = [sizes[k] for pair in _PAIRS if pair[1] < len(sizes) for k in pair]
    offsets = np.concatenate([size * side * moves[:_MOVES] for size in chosen for side in (1.0, -1.0)])
    vectors, here = vectors[:_MOVES], here[:_MOVES]
    there = problem.products(problem.vector + offsets, np.tile(vectors, (len(offsets) // _MOVES, 1)))
    changes = there.reshape(len(chosen) // 2, 2, 2 * _MOVES, -1) - np.tile(here, (2, 1))
    near, far = changes[:, 0], changes[:, 1]
    # Rows that hold only rounding are scaled up, so that what is rounding beside the largest entry does not count.
    is_jump = (np.abs(far - near) <= np.abs(near) / 4) & (np.abs(near) > JUMP * problem.unit * np.max(np.abs(here)))
    jump = np.where(is_jump, np.abs(near), 0)
    if np.max(scale * jump) <= np.sqrt(problem.unit) * max(1.0, float(np.max(scale * np.abs(here)))):
        return None
    unclear = np.max(scale * jump) <= _CLEAR * np.max(scale * np.abs(noise))
    return Jump(f"the Hessian jumps by {np.max(jump):.2g} when params move by a rounding", bool(unclear))
