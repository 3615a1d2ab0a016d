"""The lowest order at which a function changes along null directions of its Hessian, its range minimised out.

With N the null space and f expanded at a critical point, the range follows a null direction v along t v + t² w / 2:

    f − f(θ) = t³/6 D³f[v,v,v] + t⁴/24 (D⁴f[v,v,v,v] − 3 cᵀ H⁺ c) + O(t⁵),    c = D³f[v,v,·],  w = −H⁺ c

(the splitting lemma of singularity theory; Gilmore 1981, "Catastrophe theory", chapter 2). Where the cubic form is
not zero on N, f both rises and falls; where it is zero, the quartic form decides as far as it is not zero itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import tree
from mlp_jax.critical.measurements import Measurements, Problem, nudges
from mlp_jax.tree import PyTree

_SAMPLES = 128
_REFINED = 8
_ITERATIONS = 40
_BATCH = 16
_SAFETY = 4.0


class HigherOrder(NamedTuple):
    """How a function changes along null directions.

    order
        3 or 4, or None where neither is resolved.
    falls, rises
        Whether a direction was found along which it falls, rises at that order, seen in its values too.
    lowest, highest
        Extremes over the directions tried of the form of that order (of the quartic one where none is resolved).
    bound
        What these may be wrong by.
    """

    order: int | None
    falls: bool
    rises: bool
    lowest: float
    highest: float
    bound: float

    def __str__(self) -> str:
        if self.order is None:
            return f"no change is resolved up to order 4 (bound {self.bound:.1e})"
        ways = " and ".join(word for word, holds in (("falls", self.falls), ("rises", self.rises)) if holds)
        extremes = f"from {self.lowest:.3g} to {self.highest:.3g}, bound {self.bound:.1e}"
        return f"along null directions the function {ways} at order {self.order} (form {extremes})"


class _Forms(NamedTuple):
    cubic: jax.Array
    quartic: jax.Array
    bend: jax.Array


def higher_order(problem: Problem, measured: Measurements, null: np.ndarray) -> HigherOrder:
    """Return the lowest order at which the function changes along the marked modes of the scaled Hessian. Host-level.

    Directions: random ones of the null space, the most promising ones followed by a shifted power iteration (Kolda and
    Mayo 2011) towards the lowest and the highest value of each form. A minimum over a sphere is thereby estimated, not
    bounded: `falls` is evidence, its absence is none.

    Parameters
    ----------
    problem, measured
        The function, and what `measurements.measure` found, eigenvectors included.
    null
        (P,) which of the eigenvectors span the null space; at least one.

    Examples
    --------
    >>> from mlp_jax.critical.measurements import measure
    >>> with jax.enable_x64(True):
    ...     problem = Problem(lambda x: x[0] ** 2 + x[0] * x[1] ** 2, jnp.zeros(2), (), None, 2.0**-53)
    ...     measured = measure(problem)
    ...     found = higher_order(problem, measured, np.abs(measured.eigenvalues) < 1e-9)
    >>> found.order, found.falls, found.rises, round(found.lowest, 6)
    (4, True, False, -6.0)
    """
    basis, pseudo_inverse = spaces(measured, null)
    directions = _sphere(basis.shape[1])
    evaluate = functools.partial(_forms, problem.fun, pseudo_inverse=pseudo_inverse, args=problem.args)
    for order in (3, 4):
        extremes = [
            np.asarray(
                _extreme(problem.fun, problem.params, problem.args, basis, pseudo_inverse, directions, order, sign)
            )
            for sign in (-1.0, 1.0)
        ]
        rows = np.stack(extremes) @ basis.T
        here = evaluate(problem.params, rows)
        values = np.asarray(here.cubic if order == 3 else here.quartic)
        lowest, highest = float(values[0]), float(values[1])
        bound = _bound(problem, evaluate, rows, here, order)
        if np.max(np.abs(values)) > bound:
            seen = [_seen(problem, rows[i], np.asarray(here.bend)[i], values[i], order) for i in range(2)]
            falls, rises = bool(values[0] < -bound and seen[0]), bool(values[1] > bound and seen[1])
            return HigherOrder(order if falls or rises else None, falls, rises, lowest, highest, bound)
    return HigherOrder(None, False, False, lowest, highest, bound)


def spaces(m: Measurements, null: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an orthonormal basis (P, k) of the null space, and the inverse of H on the other modes.

    Examples
    --------
    >>> from mlp_jax.critical.measurements import measure
    >>> with jax.enable_x64(True):
    ...     measured = measure(Problem(lambda x: x[0] ** 2, jnp.zeros(2), (), None, 2.0**-53))
    >>> [np.abs(a).tolist() for a in spaces(measured, measured.eigenvalues == 0)]
    [[[0.0], [1.0]], [[0.5, 0.0], [0.0, 0.0]]]
    """
    if m.eigenvalues is None or m.eigenvectors is None:
        raise ValueError(f"measured: got no eigenvectors for {len(m.matrix)} parameters, expected them.")
    basis, _ = np.linalg.qr(m.scale[:, None] * m.eigenvectors[:, null])
    rest = m.scale[:, None] * m.eigenvectors[:, ~null]
    return basis, (rest / m.eigenvalues[~null]) @ rest.T


def _sphere(dimension: int) -> np.ndarray:
    draws = np.random.default_rng(3).standard_normal((_SAMPLES, dimension))
    draws = np.concatenate([np.eye(dimension)[:_SAMPLES], draws])
    return draws / np.linalg.norm(draws, axis=1, keepdims=True)


def _along(function: Callable[[jax.Array], jax.Array], vector: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Return θ ↦ Df(θ)[v]."""
    return lambda theta: jax.jvp(function, (theta,), (vector,))[1]


def _form(
    fun: Callable[..., jax.Array], params: PyTree, args: tuple, pseudo_inverse: jax.Array, vector: jax.Array
) -> _Forms:
    theta, unravel = tree.ravel(params)
    second = _along(_along(lambda p: fun(unravel(p), *args), vector), vector)
    third, fourth = jax.grad(second)(theta), _along(_along(second, vector), vector)(theta)
    bend = -pseudo_inverse @ third
    return _Forms(third @ vector, fourth + 3 * third @ bend, bend)


@functools.partial(jax.jit, static_argnums=0)
def _forms(
    fun: Callable[..., jax.Array], params: PyTree, rows: jax.Array, *, pseudo_inverse: jax.Array, args: tuple
) -> _Forms:
    return jax.vmap(lambda v: _form(fun, params, args, pseudo_inverse, v))(rows)


@functools.partial(jax.jit, static_argnums=(0, 6))
def _extreme(
    fun: Callable[..., jax.Array],
    params: PyTree,
    args: tuple,
    basis: jax.Array,
    pseudo_inverse: jax.Array,
    directions: jax.Array,
    order: int,
    sign: jax.Array,
) -> jax.Array:
    """Return the direction, in the coordinates of the basis, at which sign · form is largest of those tried."""

    def value(direction: jax.Array) -> jax.Array:
        forms = _form(fun, params, args, pseudo_inverse, basis @ direction)
        return sign * (forms.cubic if order == 3 else forms.quartic)

    def climb(direction: jax.Array) -> jax.Array:
        def step(_: int, d: jax.Array) -> jax.Array:
            moved = jax.grad(value)(d) + shift * d
            return moved / jnp.linalg.norm(moved)

        return jax.lax.fori_loop(0, _ITERATIONS, step, direction)

    values = jax.lax.map(value, directions, batch_size=_BATCH)
    # Larger than the slope can be, so that the iteration climbs and the sum is never zero.
    shift = 2 * order * jnp.max(jnp.abs(values))
    best = directions[jnp.argsort(-values)[:_REFINED]]
    climbed = jnp.where(shift > 0, jax.vmap(climb)(best), best)
    candidates = jnp.concatenate([best, climbed])
    return candidates[jnp.argmax(jax.vmap(value)(candidates))]


def _bound(problem: Problem, evaluate: Callable[..., _Forms], rows: np.ndarray, here: _Forms, order: int) -> float:
    """Return what a rounding of the parameters, and of the sum that makes the form, may change it by."""
    changes = []
    for move in nudges(problem)[:2]:
        there = evaluate(problem.unravel(problem.vector + move), rows)
        changes.append(np.abs(np.asarray(there[order - 3]) - np.asarray(here[order - 3])))
    size = np.abs(np.asarray(here.cubic)) + np.abs(np.asarray(here.quartic))
    return float(_SAFETY * np.max(changes) + 64 * len(problem.vector) * problem.unit * np.max(size))


def _seen(problem: Problem, direction: np.ndarray, bend: np.ndarray, value: float, order: int) -> bool:
    """Return whether values of the function along the path change as the form says, within a factor of two."""
    if value == 0:
        return False
    typical = max(float(np.mean(np.abs(problem.vector))), 1.0)
    times = typical * np.geomspace(1e-4, 1.0, 13)
    paths = _values(problem, [t * direction + t**2 / 2 * bend * (order == 4) for t in times])
    start = _values(problem, [np.zeros_like(direction)])[0]
    rounding = 64 * problem.unit * np.maximum(np.abs(paths), abs(start))
    expected = value * times**order / math.factorial(order)
    close = np.abs(paths - start - expected) <= np.abs(expected) / 2
    return bool(np.any(close & (np.abs(expected) > rounding)))


def _values(problem: Problem, moves: list[np.ndarray]) -> np.ndarray:
    return np.array([float(problem.fun(problem.unravel(problem.vector + move), *problem.args)) for move in moves])
