"""A search over pytrees: the function as one of vectors, the search from one start or many, the end as a `Point`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, _compiled, _parallel, curvature, tree
from mlp_jax.critical.evidence.perturbed import moved_in_turn
from mlp_jax.critical.point import Point
from mlp_jax.critical.search.contract import End, Function, Reason, Search, run, run_many
from mlp_jax.critical.search.eigenvector_following import eigenvector_following
from mlp_jax.critical.search.ends import settle
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Fun, HessianMatrix, PyTree

Method = Callable[[Function, int], Search]
Index = int | jax.Array | None


class Settings(NamedTuple):
    """What is fixed when a search is compiled.

    method
        `eigenvector_following` to the index asked for when None.
    unit
        The unit roundoff of `fun`; that of params' dtype when None.
    """

    method: Method | None
    hessian: HessianMatrix | None
    max_steps: int
    radius: float | None
    lanes: int = 1
    unit: float | None = None
    mesh: jax.sharding.Mesh | None = None


class _Task(NamedTuple):
    """A search of vectors, what it searches, and the index asked for: −1 for any."""

    search: Search
    function: Function
    target: int | jax.Array
    unravel: Callable[[jax.Array], PyTree]

    def point(self, start: jax.Array, end: End) -> Point:
        """Return the point at the end of the search from a start."""
        found = settle(self.search, self.function, start, end)
        index = jnp.asarray(found.index)
        reached = found.converged & ((index == self.target) | (self.target < 0))
        other = found.converged & ~reached & (index >= 0)
        return dataclasses.replace(
            found,
            params=self.unravel(found.params),
            error=self.unravel(found.error),
            reached=reached,
            reason=jnp.where(other, int(Reason.OTHER_INDEX), found.reason).astype(jnp.int32),
        )


def function_of(fun: Fun, settings: Settings, params: PyTree, args: tuple) -> Function:
    """Return fun as a function of one vector."""
    vector, unravel = tree.ravel(params)
    unit = float(jnp.finfo(vector.dtype).eps) / 2 if settings.unit is None else settings.unit

    def gradient(at: jax.Array) -> jax.Array:
        return tree.ravel(jax.grad(fun)(unravel(at), *args))[0]

    def matrix(at: jax.Array, args: tuple = args) -> jax.Array:
        if settings.hessian is None:
            return curvature.dense_hessian(fun, unravel(at), args)
        made = jnp.asarray(_checks.numbers(settings.hessian(unravel(at), *args), "hessian"))
        if made.shape != (at.size, at.size) or not jnp.issubdtype(made.dtype, jnp.floating):
            expected = f"real floating point of shape {(at.size, at.size)}"
            raise ValueError(f"hessian: got shape {made.shape} and dtype {made.dtype}, expected {expected}.")
        return made.astype(at.dtype)

    def rounded(at: jax.Array, by: jax.Array) -> jax.Array:
        return matrix(at, jax.tree.map(lambda leaf: moved_in_turn(leaf, unit, by), args))

    return Function(gradient, matrix, unit, rounded)


def _task(fun: Fun, settings: Settings, index: Index, params: PyTree, args: tuple) -> _Task:
    function = function_of(fun, settings, params, args)
    if settings.method is not None:
        search = settings.method(function, settings.max_steps)
    else:
        assert index is not None
        search = eigenvector_following(function, settings.max_steps, index, settings.radius)
    if not isinstance(search, Search):
        raise TypeError(f"method: got one that returns {_checks.describe(search)}, expected a Search.")
    return _Task(search, function, -1 if index is None else index, tree.ravel(params)[1])


@precision.whole_products
def settled(fun: Fun, settings: Settings, index: Index, params: PyTree, args: tuple, end: End) -> Point:
    """Return the point at the end of a search from params."""
    return _task(fun, settings, index, params, args).point(tree.ravel(params)[0], end)


@precision.whole_products
def find_one(fun: Fun, settings: Settings, index: Index, params: PyTree, args: tuple) -> Point:
    """Return where the search from params ends."""
    task = _task(fun, settings, index, params, args)
    start = tree.ravel(params)[0]
    return task.point(start, run(task.search, start))


@precision.whole_products
def find_each(fun: Fun, settings: Settings, index: Index, starts: PyTree, args: tuple) -> Point:
    """Return where the searches from starts end, shared by the devices of a mesh."""

    def searches(starts: PyTree, index: Index, args: tuple) -> Point:
        task = _task(fun, settings, index, jax.tree.map(lambda leaf: leaf[0], starts), args)
        vectors = jax.vmap(lambda start: tree.ravel(start)[0])(starts)
        ends = run_many(task.search, vectors, settings.lanes)
        # Full batches only, because XLA may round differently for a smaller one.
        num = len(ends.reason)
        rows = np.minimum(np.arange(-(-num // settings.lanes) * settings.lanes), num - 1)
        both = jax.tree.map(lambda leaf: leaf[rows], (vectors, ends))
        points = jax.lax.map(lambda row: task.point(*row), both, batch_size=settings.lanes)
        return jax.tree.map(lambda leaf: leaf[:num], points)

    if settings.mesh is None:
        return searches(starts, index, args)
    return _parallel.over_rows(searches, settings.mesh, starts, (index, args))


compiled_settled = _compiled.by_function(2)(settled)
compiled_find_one = _compiled.by_function(2)(find_one)
compiled_find_each = _compiled.by_function(2)(find_each)
