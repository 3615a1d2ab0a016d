"""walk_folds, branches: critical points along branches in a parameter, through folds and bifurcations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, _compiled, _parallel, curvature, tree
from mlp_jax.critical.duplicates import distinct
from mlp_jax.critical.finders import find
from mlp_jax.critical.point import Point, stack
from mlp_jax.critical.search.walk import Walk
from mlp_jax.curvature import matrices, precision
from mlp_jax.curvature.types import Fun, HessianMatrix, Progress, PyTree


def walk_folds(
    fun: Fun,
    points: PyTree,
    args: tuple = (),
    *,
    parameter: int,
    low: float,
    high: float,
    max_steps: int = 5000,
    canonical: Callable[[PyTree], PyTree] | None = None,
    hessian: HessianMatrix | None = None,
    progress: Progress | None = None,
) -> Point:
    """Return more critical points, on the branches through known ones in a parameter of `fun`. Host-level, float64.

    ∇ fun(x, p) = 0 defines curves in (x, p). From each given point, one of p = args[parameter], its curve is followed
    both ways by pseudo-arclength continuation in (x, log p): through folds, where it turns back in p, and on all
    branches that meet it at a bifurcation. Every other point where it comes back to p is a critical point of the same
    function. Most folds change the index by one. A branch ends where it closes, runs off, or leaves [low, high].

    A point where the Hessian is singular is skipped. A branch that only meets others outside [low, high], or none, is
    not found. Each step takes two or three Hessians, with O(P³) work for each.

    Parameters
    ----------
    fun, args, hessian
        As for `find`.
    points
        Critical points: params with a leading axis n, such as `Census.params`.
    parameter
        Position in args of p, a number above 0, such as a weight decay.
    low, high
        Range in which p is varied, 0 < low ≤ p ≤ high.
    max_steps
        Largest number of steps, over all branches.
    canonical
        params -> params, one form for all symmetric copies, such as `mlp_symmetry.maps(...).canonical`. Copies of a
        point are then neither followed nor returned.
    progress
        Called as progress(steps, max_steps) after each step.

    Returns
    -------
    Point
        The distinct new points, as from `find_many`: with a leading axis on every field, of length 0 if there are none.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `find_many`; parameter is not a position in args, its value is not a number in [low, high], or low is not
        above 0.

    Examples
    --------
    The minima ±√(p − 1) and the maximum 0 meet at p = 1:

    >>> fun = lambda x, p: x**4 / 4 - (p - 1) * x**2 / 2
    >>> found = walk_folds(fun, np.array([1.0]), (2.0,), parameter=0, low=0.5, high=3.0)
    >>> sorted(zip((found.params.round(9) + 0.0).tolist(), found.index.tolist()))
    [(-1.0, 0), (0.0, 1)]
    """
    walk, unravel = _walked(fun, points, args, parameter, low, high, max_steps, canonical, hessian, progress)
    args, found = (*args[:parameter], float(args[parameter]), *args[parameter + 1 :]), walk.found
    starts = [unravel(x) for x in found] or [jax.tree.map(lambda leaf: np.asarray(leaf)[0], points)]
    polished = stack(_parallel.over_cores(lambda start: find(fun, start, args, hessian=hessian), starts))
    return distinct(jax.tree.map(lambda leaf: leaf[: len(found)], polished), canonical=canonical).points


class Branch(NamedTuple):
    """A part of a branch of critical points, as t points in order.

    parameter, values, indices
        (t,) the parameter, the values of the function, and the numbers of negative eigenvalues.
    params
        params with a leading axis t.
    """

    parameter: np.ndarray
    values: np.ndarray
    indices: np.ndarray
    params: PyTree

    @property
    def folds(self) -> np.ndarray:
        """The parameters at which the branch turns back, where two critical points meet and vanish, by parabolas."""
        s = np.log(self.parameter)
        rows = np.concatenate([np.reshape(leaf, (len(s), -1)) for leaf in jax.tree.leaves(self.params)], axis=1)
        lengths = np.append(0, np.cumsum(np.linalg.norm(np.diff(rows, axis=0), axis=1)))
        turns = 1 + np.flatnonzero((s[1:-1] - s[:-2]) * (s[2:] - s[1:-1]) < 0)
        around = [slice(turn - 1, turn + 2) for turn in turns]
        parabolas = [np.polynomial.Polynomial.fit(lengths[three], s[three], 2) for three in around]
        return np.exp([float(parabola(parabola.deriv().roots()[0])) for parabola in parabolas])


class Branches(NamedTuple):
    """Branches of critical points in a parameter, and the parameters at which several of them meet."""

    branches: tuple[Branch, ...]
    bifurcations: np.ndarray


def branches(
    fun: Fun,
    points: PyTree,
    args: tuple = (),
    *,
    parameter: int,
    low: float,
    high: float,
    max_steps: int = 5000,
    canonical: Callable[[PyTree], PyTree] | None = None,
    hessian: HessianMatrix | None = None,
    progress: Progress | None = None,
) -> Branches:
    """Return the branches that `walk_folds` follows, for a bifurcation diagram (`plots.bifurcations`). Host-level.

    Arguments and errors are those of `walk_folds`. A branch is cut where it passes p = args[parameter], and where
    it meets others. Of symmetric copies only one is returned.

    Examples
    --------
    >>> fun = lambda x, p: x**4 / 4 - (p - 1) * x**2 / 2
    >>> found = branches(fun, np.array([1.0]), (2.0,), parameter=0, low=0.5, high=3.0, canonical=jnp.abs)
    >>> [sorted(set(branch.indices.tolist())) for branch in found.branches], found.bifurcations.round(4)
    ([[0], [0], [1], [1], [0]], array([1.]))
    """
    walk, unravel = _walked(fun, points, args, parameter, low, high, max_steps, canonical, hessian, progress)
    found = []
    for places in [part for part in walk.branches if len(part) > 1]:
        at = np.array([place.at for place in places])
        rows = [unravel(x) for x in at[:, :-1]]
        indices = np.array([place.negative for place in places])
        with precision.float64():
            numbers = [(*args[:parameter], np.exp(s), *args[parameter + 1 :]) for s in at[:, -1]]
            traced, _, _ = precision.traced_problem(fun, rows[0], numbers[0])
            values = np.array([float(_value(traced, *pair)) for pair in zip(rows, numbers, strict=True)])
        found.append(Branch(np.exp(at[:, -1]), values, indices, jax.tree.map(lambda *leaves: np.stack(leaves), *rows)))
    return Branches(tuple(found), np.exp([meeting[-1] for meeting in walk.meetings]))


def _walked(
    fun: Fun,
    points: PyTree,
    args: tuple,
    parameter: int,
    low: float,
    high: float,
    max_steps: int,
    canonical: Callable[[PyTree], PyTree] | None,
    hessian: HessianMatrix | None,
    progress: Progress | None,
) -> tuple[Walk, Callable[[np.ndarray], PyTree]]:
    """Return the walk along all branches, and the function from vectors to params."""
    num = _require_points(points)
    args, wanted = require_parameter(args, parameter, low, high)
    max_steps = _checks.integer(max_steps, "max_steps")
    if canonical is not None:
        _checks.function(canonical, "canonical", "(params) -> params")
    if hessian is not None:
        _checks.function(hessian, "hessian", "(params, *args) -> (P, P)")
    one: Any = jax.tree.map(lambda leaf: np.asarray(leaf)[0], points)
    matrices.require_memory(tree.size(one), matrices=6)
    with precision.float64():
        traced, one, promoted = precision.traced_problem(fun, one, args)
        _, unravel = tree.ravel(one)
        rows = [np.concatenate([np.ravel(leaf[i]) for leaf in jax.tree.leaves(points)]) for i in range(num)]

        def equations(at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            found = _equations(traced, hessian, parameter, one, jnp.asarray(at), promoted)
            return np.asarray(found[0]), np.asarray(found[1]), np.asarray(found[2])

        def params(x: np.ndarray) -> PyTree:
            with precision.float64():
                return jax.tree.map(np.asarray, unravel(jnp.asarray(x)))

        def form(x: np.ndarray) -> np.ndarray:
            return x if canonical is None else np.asarray(tree.ravel(canonical(unravel(jnp.asarray(x))))[0])

        walk = Walk(equations, np.log(wanted), form)
        walk.run(rows, np.log(low), np.log(high), max_steps, progress)
    return walk, params


@_compiled.by_function()
def _value(fun: Fun, params: PyTree, args: tuple) -> jax.Array:
    return fun(params, *args)


def _require_points(points: PyTree) -> int:
    _checks.params(points, "points")
    return _checks.common_length(points, "points")


def require_parameter(args: tuple, parameter: Any, low: Any, high: Any) -> tuple[tuple, float]:
    """Return args with the parameter as a float, and its value."""
    _checks.args(args)
    _checks.integer(parameter, "parameter", 0, len(args) - 1, "a position in args")
    name = f"args[{parameter}]"
    value = float(_checks.positive(args[parameter], name))
    low, high = float(_checks.positive(low, "low")), float(_checks.positive(high, "high"))
    if not low <= value <= high:
        raise ValueError(f"{name}: got {value}, expected a number from low to high, {low} to {high}.")
    return (*args[:parameter], value, *args[parameter + 1 :]), value


@_compiled.by_function(3)
def _equations(
    fun: Fun, hessian: HessianMatrix | None, parameter: int, like: PyTree, at: jax.Array, args: tuple
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the gradient, the Hessian, and the derivative of the gradient by s = log p, at (x, s)."""
    params, s = tree.ravel(like)[1](at[:-1]), at[-1]

    def at_parameter(s: jax.Array) -> tuple:
        return (*args[:parameter], jnp.exp(s), *args[parameter + 1 :])

    def gradient(s: jax.Array) -> jax.Array:
        return tree.ravel(jax.grad(fun)(params, *at_parameter(s)))[0]

    value, slope = jax.jvp(gradient, (s,), (jnp.ones_like(s),))
    matrix = (
        curvature.dense_hessian(fun, params, at_parameter(s))
        if hessian is None
        else jnp.asarray(_checks.numbers(hessian(params, *at_parameter(s)), "hessian"))
    )
    return value, matrix, slope
