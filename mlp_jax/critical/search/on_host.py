"""A search by `following` over pytrees: from one start, or from several, one search per core. Host-level, float64."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _compiled, _parallel, tree
from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.point import Point, stack
from mlp_jax.critical.search import following, lbfgs, of_pytrees, reflection, spectra
from mlp_jax.critical.search.contract import End, Reason
from mlp_jax.critical.search.levenberg_marquardt import levenberg_marquardt
from mlp_jax.critical.search.minres import Limits, minimum_residual_step
from mlp_jax.critical.search.newton_mr import newton_mr
from mlp_jax.critical.search.of_pytrees import Settings
from mlp_jax.curvature import precision, tridiagonal
from mlp_jax.curvature.deflation import Deflation, deflation, identity
from mlp_jax.curvature.krylov_basis import HostBasis
from mlp_jax.curvature.krylov_space import Space
from mlp_jax.curvature.types import Fun, Progress, PyTree

# Numbers of parameters above which a search first descends, up to which one under jit uses matrices, and up to which
# one on the host does, for its steps and for the index of its end.
MATRICES, GIVEN, COUNTED = 200, 1500, 4000
# Number of parameters up to which a search for an index above _FEW first follows eigenvectors, for this share of its
# steps, and one for a lower index begins again if it fails.
FOLLOWED, _FEW, _FOLLOWING = 1000, 4, 0.2
# Dimension of the Krylov spaces.
_KRYLOV = 120
# Newton's steps on a descent by L-BFGS: residual of each and of the last, products, share of the gradient that a step
# may leave, number.
_SOLVED, _EXACTLY, _SOLUTION, _CONTRACTS, _ENDING = 0.02, 1e-6, 4000, 0.4, 20
# Without matrices: steps of a descent before it continues in coordinates that deflate the Hessian; products that these
# take, and those of the end.
_UNSCALED, _SCALED, _SOLVABLE = 20, 160, 260
# Share of the steps that a search for an index may use before it descends.
_LATE = 0.6
# A descent to an index ends where the number of negative eigenvalues is no more than this multiple of it.
_EXCESS = 3
# Steps of a descent by L-BFGS before it continues in scaled coordinates, where the Hessian may be computed.
_BRIEF = 100
# Changes by a rounding of the parameters, below which the gradient is at the level of rounding.
_ROUNDINGS = 16


def follow_each(
    progress: Progress | None, fun: Fun, settings: Settings, index: int | None, starts: PyTree, args: tuple
) -> Point:
    """Return where the searches from starts end, one search per core, as a Point with a leading axis."""
    number, done = len(jax.tree.leaves(starts)[0]), itertools.count(1)

    def search(row: int) -> Point:
        with precision.float64():  # a setting of each thread
            point = follow_one(None, fun, settings, index, jax.tree.map(lambda leaf: leaf[row], starts), args)
        if progress is not None:
            progress(next(done), number)
        return point

    return stack(_parallel.over_cores(search, range(number)))


def follow_one(
    progress: Progress | None, fun: Fun, settings: Settings, index: int | None, params: PyTree, args: tuple
) -> Point:
    """Return where the search from params ends."""
    start, unravel = tree.ravel(params)
    scaling: Deflation | None = None
    # One set of programs for searches of any length.
    method = levenberg_marquardt if start.size <= COUNTED else newton_mr
    fixed = Settings(method, settings.hessian, 1, None, unit=settings.unit)

    def on_host(program: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *vectors: jax.tree.map(np.asarray, program(fun, fixed, params, args, *vectors))

    def as_step(program: Callable[..., Any]) -> Callable[..., Any]:
        def call(*vectors: Any) -> Any:
            tell()
            return on_host(program)(*vectors)

        return call

    def tell() -> None:
        if progress is not None:
            progress(min(objective.hessians, settings.max_steps), settings.max_steps)

    def products(coordinates: Deflation, hessians: int = 0) -> spectra.Products:
        """Return the function of y with params W y."""

        def descend(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
            there = coordinates(y)
            end = finish(there, gradient(there))
            if end is None:
                return y, coordinates(gradient(there)), False
            ends.append((coordinates.inverse(end.vector), end.vector))
            return ends[-1][0], coordinates(end.gradient), True

        return spectra.Products(
            lambda y: coordinates(gradient(coordinates(y))),
            lambda y, first: as_step(_krylov_at)(coordinates(y), first, coordinates),
            lambda y, v: coordinates(on_host(_product_at)(coordinates(y), coordinates(v))),
            descend,
            unit,
            hessians,
        )

    def finish(vector: np.ndarray, at: np.ndarray) -> following.Found | None:
        """Return where Newton's steps end at the level of rounding; None if they stop to contract above it."""
        nonlocal scaling
        scaling = scaled_at(vector, _SOLVABLE, True)

        def ahead(solved: float) -> tuple[np.ndarray, np.ndarray]:
            objective.hessians += 1
            tell()
            there = vector + on_host(_newton_at)(vector, at, np.float64(solved), scaling)
            return there, gradient(there)

        for _ in range(_ENDING):
            there, after = ahead(_SOLVED)
            if not np.linalg.norm(after) <= _CONTRACTS * np.linalg.norm(at):
                break
            vector, at = there, after
        rounding = np.linalg.norm(gradient(vector * (1 + 2 * objective.unit)) - at)
        if not np.linalg.norm(at) <= _ROUNDINGS * rounding:
            return None
        # The norm is that of the rounding of large components: small ones may still be above theirs.
        there, after = ahead(_EXACTLY)
        if np.linalg.norm(after) <= _ROUNDINGS * rounding:
            vector, at = there, after
        return following.Found(vector, at, None, Reason.ROUNDING)

    def spend(vector: np.ndarray, most: int = settings.max_steps) -> bool:
        objective.hessians += 1
        tell()
        return objective.hessians < min(most, settings.max_steps)

    def scaled_at(vector: np.ndarray, number: int, both_ends: bool) -> Deflation:
        problem = Problem(fun, unravel(jnp.asarray(vector)), args, None, unit)
        return _scaling(problem, number, both_ends, functools.partial(spend, vector))

    def descended(begin: np.ndarray) -> tuple[np.ndarray, following.Found | None]:
        """Return where the search continues if it must, and the critical point that a descent found."""
        if not isinstance(objective, spectra.Matrices):
            brief = functools.partial(spend, most=_UNSCALED)
            if index:
                return _at_index(objective, slope, begin, index, brief), None
            begin, found = lbfgs.descend(slope, begin, finish, brief)
            if found is None and objective.hessians < settings.max_steps:
                begin, found = lbfgs.descend(slope, begin, finish, spend, scaled_at(begin, _SCALED, False))
            return begin, found
        reflect = functools.partial(reflection.reflect, objective, slope, longest=longest)
        latest = int(_LATE * settings.max_steps)
        near = functools.partial(objective.finish_near, longest=longest)
        found = near(begin, gradient(begin)) if index is None else None
        if index:
            again = following.beside(begin, following.typical_size(begin), np.random.default_rng(0))
            for origin in [begin, again] if index <= _FEW and begin.size <= FOLLOWED else [begin]:
                brief = functools.partial(spend, most=min(latest, objective.hessians + _BRIEF))
                begin = _at_index(objective, slope, origin, index, brief)
                point = reflect(begin, index, most=latest)
                found = _closest([found, point], index)
                if objective.hessians >= latest or (point is not None and point.negative == index):
                    break
        if found is None:
            brief = functools.partial(spend, most=objective.hessians + _BRIEF)
            begin, found = lbfgs.descend(slope, begin, near, brief)
        if found is None or (index == 0 and found.negative != 0):
            found = reflect(begin, None if index else index, most=settings.max_steps) or found
        return begin, found

    assert settings.unit is not None
    unit, ends = settings.unit, list[tuple[np.ndarray, np.ndarray]]()
    gradient, slope = on_host(_gradient_at), on_host(slope_at)
    longest = following.longest_step(np.asarray(start), settings.radius)
    objective: spectra.Matrices | spectra.Products
    if start.size <= COUNTED:
        typical = following.typical_size(np.asarray(start))
        objective = spectra.Matrices(gradient, as_step(matrix_at), settings.unit, typical)
    else:
        objective = products(identity(start.size))
    # No warnings of numbers that overflow: the search refuses steps that are infinite or NaN, and gradients that are.
    with _parallel.one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        begin, found = np.asarray(start), None
        later = index is not None and index > _FEW and MATRICES < start.size <= FOLLOWED
        patience = max(1, int(_FOLLOWING * settings.max_steps))
        if start.size > MATRICES and not later:
            begin, found = descended(begin)
        follow = functools.partial(
            following.follow, index=index, max_hessians=settings.max_steps, radius=settings.radius
        )
        if found is None and isinstance(objective, spectra.Products):
            coordinates = scaled_at(begin, _SCALED, False)
            objective = products(coordinates, objective.hessians)
            there = follow(objective, coordinates.inverse(begin))
            exact = (vector for y, vector in ends if np.array_equal(y, there.vector))
            last = next(exact, coordinates(there.vector))  # W W⁻¹ v differs from v by rounding
            found = there._replace(vector=last, gradient=gradient(last))
        elif found is None:
            found = follow(objective, begin, patience=patience if later else None)
        if later and (found.negative is None or following.missed(found, index)):
            found = _closest([found, descended(np.asarray(start))[1]], index) or found
        numbers = np.int32(objective.hessians), np.int32(found.reason)
        last, at, steps, reason = map(jnp.asarray, (found.vector, found.gradient, *numbers))
        end = End(last, at, steps, reason, scaling)
        target = jnp.int32(-1 if index is None else index)
        # Waits for the program: its LAPACK calls belong to the context.
        return _parallel.to_host(of_pytrees.compiled_settled(fun, fixed, target, params, args, end))


def _scaling(problem: Problem, products: int, both_ends: bool, spend: Callable[[], Any]) -> Deflation:
    """Return coordinates that deflate the Hessian, after so many products; `spend` is called once for each step."""
    size = len(problem.vector)

    def multiply(rows: np.ndarray) -> np.ndarray:  # coordinates may be any: numbers that are not finite are left out
        return np.nan_to_num(problem.multiply(rows), nan=0.0, posinf=0.0, neginf=0.0)

    space = Space(HostBasis(multiply, size, np.float64, min(products + 1, size)), 1, np.random.default_rng(0))
    space.add_random(1)
    for _ in range(products // lbfgs.GRADIENTS):
        spend()
        space.extend(lbfgs.GRADIENTS)
    return deflation(space, both_ends)


def _closest(found: list[following.Found | None], index: int | None) -> following.Found | None:
    """Return the critical point whose index is closest to the one asked for."""
    known = [point for point in found if point is not None and point.negative is not None]
    return min(known, key=lambda point: following.missed(point, index), default=None)


def _at_index(
    objective: spectra.Matrices | spectra.Products,
    slope: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    index: int,
    spend: Callable[[np.ndarray], bool],
) -> np.ndarray:
    """Return the first point on a descent whose Hessian has few negative eigenvalues for the index, or the last."""
    here, calls, next_look = start, 0, 4

    def above(vector: np.ndarray) -> bool:
        nonlocal here, calls, next_look
        here, calls = vector.copy(), calls + 1
        if calls < next_look:
            return spend(vector)
        next_look += max(1, calls // 2)
        return spend(vector) and objective.negative(vector) > _EXCESS * index

    if objective.negative(start) > _EXCESS * index:
        lbfgs.descend(slope, start, lambda vector, gradient: None, above)
    return here


@_compiled.by_function(2)
@precision.whole_products
def _gradient_at(fun: Fun, settings: Settings, params: PyTree, args: tuple, vector: jax.Array) -> jax.Array:
    return of_pytrees.function_of(fun, settings, params, args).gradient(vector)


@_compiled.by_function(2)
@precision.whole_products
def matrix_at(fun: Fun, settings: Settings, params: PyTree, args: tuple, vector: jax.Array) -> jax.Array:
    """Return the Hessian (P, P) at a vector, symmetric."""
    matrix = of_pytrees.function_of(fun, settings, params, args).matrix(vector)
    return (matrix + matrix.T) / 2


@_compiled.by_function(2)
@precision.whole_products
def _product_at(
    fun: Fun, settings: Settings, params: PyTree, args: tuple, vector: jax.Array, direction: jax.Array
) -> jax.Array:
    gradient = of_pytrees.function_of(fun, settings, params, args).gradient
    return jax.jvp(gradient, (vector,), (direction,))[1]


@_compiled.by_function(2)
@precision.whole_products
def slope_at(
    fun: Fun, settings: Settings, params: PyTree, args: tuple, vector: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the value and the gradient (P,) at a vector."""
    unravel = tree.ravel(params)[1]
    return jax.value_and_grad(lambda at: fun(unravel(at), *args))(vector)


@_compiled.by_function(2)
@precision.whole_products
def _newton_at(
    fun: Fun,
    settings: Settings,
    params: PyTree,
    args: tuple,
    vector: jax.Array,
    gradient: jax.Array,
    solved: jax.Array,
    scaling: Deflation | None,
) -> jax.Array:
    _, product = jax.linearize(of_pytrees.function_of(fun, settings, params, args).gradient, vector)
    limits = Limits(solved, 1e-9, _SOLUTION)
    return minimum_residual_step(product, gradient, limits, scaling=scaling).vector


@_compiled.by_function(2)
@precision.whole_products
def _krylov_at(
    fun: Fun,
    settings: Settings,
    params: PyTree,
    args: tuple,
    vector: jax.Array,
    first: jax.Array,
    scaling: Deflation,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    _, product = jax.linearize(of_pytrees.function_of(fun, settings, params, args).gradient, vector)
    basis, diagonal, beside = tridiagonal.tridiagonalise(
        lambda v: scaling(product(scaling(v))), first, min(_KRYLOV, first.size)
    )
    return basis, diagonal, beside[:-1]
