"""A search by Hessian-vector products: a descent in deflated coordinates, then `following`. Host-level."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from mlp_jax import tree
from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.search import following, lbfgs, spectra
from mlp_jax.critical.search.contract import Reason
from mlp_jax.critical.search.following import Found
from mlp_jax.critical.search.of_pytrees import Settings
from mlp_jax.critical.search.programs import Programs
from mlp_jax.curvature.deflation import Deflation, deflation, identity
from mlp_jax.curvature.krylov_basis import HostBasis
from mlp_jax.curvature.krylov_space import Space

# Newton's steps at the end of a descent: residual of each and of the last, share of the gradient that a step may leave,
# number.
_SOLVED, _EXACTLY, _CONTRACTS, _ENDING = 0.02, 1e-6, 0.4, 20
# Steps of a descent before it continues in coordinates that deflate the Hessian; products that these take, and those of
# the end.
_UNSCALED, _SCALED, _SOLVABLE = 20, 160, 260
# Changes by a rounding of the parameters, below which the gradient is at the level of rounding.
_ROUNDINGS = 16


def search(
    programs: Programs, start: np.ndarray, index: int | None, settings: Settings, tell: Callable[[int], None]
) -> tuple[Found, int, Deflation | None]:
    """Return where the search ends, the number of steps, and coordinates for the last; `tell` is called at each."""
    here = _Search(programs, settings, tell, start.size)
    begin, found = here.descended(start, index)
    if found is None:
        found = here.followed(begin, index)
    return found, here.objective.hessians, here.scaling


class _Search:
    """A search: the objective in its coordinates, the places that it has finished at, the last coordinates there."""

    def __init__(self, programs: Programs, settings: Settings, tell: Callable[[int], None], size: int) -> None:
        self.programs, self.settings, self.tell = programs, settings, tell
        self.ends = list[tuple[np.ndarray, np.ndarray]]()
        self.scaling: Deflation | None = None
        self.objective = self._objective(identity(size), 0)

    def descended(self, start: np.ndarray, index: int | None) -> tuple[np.ndarray, Found | None]:
        """Return where the search continues if it must, and the critical point that a descent found."""
        slope, most = self.programs.slope, self.settings.max_steps
        brief = functools.partial(self._spend, most=min(_UNSCALED, most))
        if index:
            return lbfgs.descend_to_index(self.objective.negative, slope, start, index, brief), None
        begin, found = lbfgs.descend(slope, start, self.finish, brief)
        if found is None and self.objective.hessians < most:
            begin, found = lbfgs.descend(slope, begin, self.finish, self._spend, self._scaled(begin, _SCALED, False))
        return begin, found

    def followed(self, begin: np.ndarray, index: int | None) -> Found:
        """Return where eigenvectors lead, in coordinates that deflate the Hessian where it begins."""
        coordinates = self._scaled(begin, _SCALED, False)
        self.objective = self._objective(coordinates, self.objective.hessians)
        most, radius = self.settings.max_steps, self.settings.radius
        there = following.follow(self.objective, coordinates.inverse(begin), index, most, radius)
        exact = (vector for y, vector in self.ends if np.array_equal(y, there.vector))
        last = next(exact, coordinates(there.vector))  # W W⁻¹ v differs from v by rounding
        return there._replace(vector=last, gradient=self.programs.gradient(last))

    def finish(self, vector: np.ndarray, at: np.ndarray) -> Found | None:
        """Return where Newton's steps end at the level of rounding; None if they stop to contract above it."""
        gradient = self.programs.gradient
        self.scaling = self._scaled(vector, _SOLVABLE, True)

        def ahead(solved: float) -> tuple[np.ndarray, np.ndarray]:
            self.objective.spend()
            there = vector + self.programs.newton(vector, at, solved, self.scaling)
            return there, gradient(there)

        for _ in range(_ENDING):
            there, after = ahead(_SOLVED)
            if not np.linalg.norm(after) <= _CONTRACTS * np.linalg.norm(at):
                break
            vector, at = there, after
        rounding = np.linalg.norm(gradient(vector * (1 + 2 * self.programs.unit)) - at)
        if not np.linalg.norm(at) <= _ROUNDINGS * rounding:
            return None
        # The norm is that of the rounding of large components: small ones may still be above theirs.
        there, after = ahead(_EXACTLY)
        if np.linalg.norm(after) <= _ROUNDINGS * rounding:
            vector, at = there, after
        return Found(vector, at, None, Reason.ROUNDING)

    def _objective(self, coordinates: Deflation, hessians: int) -> spectra.Products:
        """Return the function of y with params W y."""
        programs = self.programs

        def descend(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
            there = coordinates(y)
            end = self.finish(there, programs.gradient(there))
            if end is None:
                return y, coordinates(programs.gradient(there)), False
            self.ends.append((coordinates.inverse(end.vector), end.vector))
            return self.ends[-1][0], coordinates(end.gradient), True

        return spectra.Products(
            lambda y: coordinates(programs.gradient(coordinates(y))),
            lambda y, first: programs.krylov(coordinates(y), first, coordinates),
            lambda y, v: coordinates(programs.product(coordinates(y), coordinates(v))),
            descend,
            programs.unit,
            self.tell,
            hessians,
        )

    def _spend(self, _: np.ndarray, most: int | None = None) -> bool:
        return self.objective.spend() < (self.settings.max_steps if most is None else most)

    def _scaled(self, vector: np.ndarray, products: int, both_ends: bool) -> Deflation:
        """Return coordinates that deflate the Hessian at a vector, after so many products."""
        fun, _, like, args = self.programs
        unravel = tree.ravel(like)[1]
        problem = Problem(fun, unravel(jnp.asarray(vector)), args, None, self.programs.unit)

        def multiply(rows: np.ndarray) -> np.ndarray:  # coordinates may be any: numbers not finite are left out
            return np.nan_to_num(problem.multiply(rows), nan=0.0, posinf=0.0, neginf=0.0)

        size = len(vector)
        space = Space(HostBasis(multiply, size, np.float64, min(products + 1, size)), 1, np.random.default_rng(0))
        space.add_random(1)
        for _ in range(products // lbfgs.GRADIENTS):
            self.objective.spend()
            space.extend(lbfgs.GRADIENTS)
        return deflation(space, both_ends)
