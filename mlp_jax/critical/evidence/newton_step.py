"""The Newton step from a point, and whether values and gradients along it are those that the Hessian predicts."""

from typing import NamedTuple

import numpy as np
import scipy.sparse.linalg
from scipy.linalg import blas, lapack

from mlp_jax.critical.evidence.extremes import extremes
from mlp_jax.critical.evidence.hessian_rounding import at_least, difference, probe_vectors
from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.evidence.slopes import SAFETY, Slope, within
from mlp_jax.curvature import signs

# Most repeats of the Newton step, each over fewer modes.
_REPEATS = 3
# Longest Newton step, in units of the parameters' norm, where P is large.
_FAR = 10.0
# A guess at the change of the scaled Hessian over the step, by the norm of the scaled gradient: in networks 300 to 700
# times that. Above the second number it would hide eigenvalues. A wrong guess costs a factorisation, nothing else.
_CHANGE, _WIDEST = 2048.0, 2.0**-9
# Most refinements of a step by these factors.
_REFINEMENTS = 20
# Points along the Newton step at which values and gradients are compared.
_WAY = np.array([0.5, 1.0, 2.0])


class Taken(NamedTuple):
    """A Newton step, its modes, the change of H on the way, inertia, extreme eigenvalues: as in `Measurements`."""

    step: np.ndarray
    reach: np.ndarray
    num_solved: int
    change: np.ndarray
    curvature_change: np.ndarray
    counts: signs.Inertia
    ends: tuple[float, float] | None


class Newton(NamedTuple):
    """The data of p = −H⁺ g."""

    problem: Problem
    matrix: np.ndarray
    scale: np.ndarray
    rounding: np.ndarray
    slope: Slope
    moves: np.ndarray

    def by_modes(self, values: np.ndarray, vectors: np.ndarray) -> Taken:
        """Step over the modes larger than their error, leaving out those that change sign on the way."""
        error = self.rounding
        along = vectors.T @ (self.scale * self.slope.gradient)
        # Measured along each mode: a move of params changes the gradient by less where the curvature is smaller.
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

    def by_factors(self) -> Taken:
        """Step over all modes by factors; where some are not resolved, over what MINRES reaches."""
        size, shift = len(self.scale), self.scale**2 * self.rounding + self._guess()
        up = signs.above(self.matrix, self.scale, shift, signs.wide(size))
        steps = None if up.factors is None else self._solve_by(up.factors)
        ends = extremes(self.matrix, self.scale, up)
        up = up._replace(factors=None)  # their memory
        steps = self._solve() if steps is None else steps
        if steps is not None:
            taken = self._take(*steps, size, up)._replace(ends=ends)
            if taken.counts.unresolved == 0:
                return taken
        resolved = signs.count(self.matrix, self.rounding, self.scale, up)
        if steps is not None and resolved.unresolved == 0:
            return taken
        step = self._minimum_residual()  # alone, because rounding would grow along null modes
        return self._take(step, step, resolved.negative + resolved.positive, up)._replace(ends=ends)

    def _minimum_residual(self) -> np.ndarray:
        """Return the step by MINRES, stopped where the residual is rounding, which would grow along null modes."""
        gradient, error = self.slope.gradient, self.slope.gradient_error
        size, rounding = (float(np.linalg.norm(self.scale * v)) for v in (gradient, error))
        enough = np.clip(0.1 * rounding / max(size, 1e-300), 1e-12, 0.1)
        scaled = signs.scaled(self.matrix, self.scale, self.scale).T
        solution, _ = scipy.sparse.linalg.minres(scaled, -self.scale * gradient, rtol=float(enough))
        return self.scale * solution

    def _right(self) -> np.ndarray:
        """Return the scaled right-hand sides of both steps, as columns."""
        return -(np.stack([self.slope.gradient, self.slope.typical_rounding]) * self.scale).T

    def _guess(self) -> float:
        """Return by how much more than rounding the scaled Hessian may change, for the first factors to cover it."""
        least = signs.wide(len(self.scale)) * len(self.scale) * 2.0**-53
        guess = _CHANGE * float(np.linalg.norm(self._right()))
        return guess if least < guess <= _WIDEST else least

    def _solve_by(self, factors: signs.Factors) -> tuple[np.ndarray, np.ndarray] | None:
        """Return −H⁻¹ g by the factors of A − t, refined until rounding is left; None where that does not converge."""
        right = rest = self._right()
        solution, left = np.zeros_like(right), float(np.linalg.norm(right))
        enough = len(right) * 2.0**-53 * left
        for _ in range(_REFINEMENTS):
            solution = solution + factors.solve(rest)
            rest = right - self.scale[:, None] * self._products(self.scale[:, None] * solution)
            before, left = left, float(np.linalg.norm(rest))
            if left <= enough:
                return self._steps(solution)
            if not left < before / 2:
                break
        return None

    def _products(self, vectors: np.ndarray) -> np.ndarray:
        """Return H v for columns v, reading only half of H."""
        return np.stack([blas.dsymv(1.0, self.matrix.T, v, lower=1) for v in vectors.T], axis=1)

    def _solve(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return −H⁻¹ g, or None where it is too long, as where H is singular to rounding."""
        scaled, right = signs.scaled(self.matrix, self.scale, self.scale), self._right()
        lwork, _ = lapack.dsysv_lwork(len(right), lower=1)  # a smaller one selects the unblocked algorithm
        _, _, solution, failed = lapack.dsysv(scaled, right, lwork=int(lwork), lower=1, overwrite_a=1)
        return self._steps(solution.reshape(right.shape)) if failed == 0 else None

    def _steps(self, solution: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        step, rounding = (self.scale[:, None] * solution).T
        far = _FAR * max(1.0, float(np.linalg.norm(self.problem.vector)))
        return (step, step + rounding) if np.linalg.norm(step) <= far else None

    def _take(self, step: np.ndarray, reach: np.ndarray, num_solved: int, up: signs.Above | None = None) -> Taken:
        there = self.problem.matrix(self.problem.vector + reach + self.moves[0])
        vectors = probe_vectors(self.scale)
        right = np.stack([self.scale, np.abs(reach), *vectors], axis=1)
        # The sums of |H(θ + p) − H(θ)|, by blocks that need no third matrix.
        rows = signs.row_blocks(len(reach))
        moved = np.concatenate([difference(there[i], self.matrix[i]) @ right for i in rows])
        del there
        change, curvature_change = SAFETY * moved[:, 0] / self.scale, moved[:, 1]
        seen = float(np.max(np.linalg.norm(self.scale * moved[:, 2:].T, axis=1)))
        size = self._seen_about(reach, vectors)
        if size > SAFETY * seen:
            change = at_least(change, SAFETY * size, self.scale)
        counts = signs.count(self.matrix, self.rounding + change, self.scale, up)
        return Taken(step, reach, num_solved, change, curvature_change, counts, None)

    def _seen_about(self, reach: np.ndarray, vectors: np.ndarray) -> float:
        """Return the largest change of scaled products with fun's own Hessian around params and the end of the step."""
        offsets = [reach - m for m in self.moves[:2]] + [reach + m for m in self.moves[1:3]]
        there = self.problem.vector + np.stack([*offsets, 2 * reach, -reach])
        rows = np.resize(vectors, (len(there), len(reach)))
        products = self.problem.products(there, rows)
        here = self.matrix @ rows.T
        return float(np.nanmax(np.linalg.norm(self.scale * (products - here.T), axis=1)))


def _resolved(error: np.ndarray, scale: np.ndarray, values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return which modes are larger than the error of the Hessian and of the eigenvalue solver."""
    solver = 2.0**-53 * len(values) * max(abs(values[0]), abs(values[-1]))
    return np.abs(values) > (scale**2 * error) @ vectors**2 + solver


class Way(NamedTuple):
    """A Newton step p with its scaling, H p + g, the error of that, and a bound on (H(θ + p) − H(θ)) p."""

    scale: np.ndarray
    step: np.ndarray
    residual: np.ndarray
    error: np.ndarray
    curvature_change: np.ndarray


def strayed(problem: Problem, slope: Slope, way: Way) -> str | None:
    """Return what contradicts the Hessian on the way to twice the Newton step, in words; None if nothing does."""
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
