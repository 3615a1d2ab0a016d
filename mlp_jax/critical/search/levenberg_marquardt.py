"""Levenberg–Marquardt on ½‖g‖²: a descent of the gradient norm with matrices. Transformable."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax.critical.search import contract
from mlp_jax.critical.search.contract import Function, Search, damped_newton, matrix_size, times

# Each failure multiplies the damping by twice what the last did: after 12 it has grown by 2⁷⁸.
_MAX_FAILURES = 12


class _State(NamedTuple):
    vector: jax.Array
    gradient: jax.Array
    matrix: jax.Array
    step: jax.Array  # to be tried
    damping: jax.Array  # ν
    growth: jax.Array  # factor by which a failed step raises ν
    typical: jax.Array
    steps: jax.Array
    failures: jax.Array  # failed trial steps in a row
    escapes: jax.Array
    forced: jax.Array  # the step is taken whatever the gradient there: the start, or an escape
    reason: jax.Array


def levenberg_marquardt(function: Function, max_steps: int) -> Search:
    """Return the search by steps of −(H² + ν²)⁻¹ H g = −Re (H + iν)⁻¹ g, ν being adapted as in Nielsen (1999).

    Where ‖g‖ is stationary but not zero, or no damping gives descent, it takes one step down the gradient and starts
    again, four times at most, each step twice as long. It ends when the gradient is at rounding level, or with the
    reason why it is not.

    Examples
    --------
    >>> from mlp_jax.critical.search.contract import run
    >>> function = Function(lambda x: x**2 - 1, lambda x: jnp.diag(2 * x), 2.0**-24)
    >>> print(f"{run(levenberg_marquardt(function, 50), jnp.array([3.0])).vector[0]:.5f}")
    1.00000
    """

    def begin(start: jax.Array) -> _State:
        size, none = jnp.zeros((), start.dtype), jnp.zeros((), jnp.int32)
        matrix = jnp.zeros((start.size, start.size), start.dtype)
        begun = contract.begun(start)
        return _State(**begun, matrix=matrix, damping=size, growth=size + 2, failures=none, escapes=none)

    return Search(begin, lambda state: _advance(function, state, max_steps))


def _advance(function: Function, state: _State, max_steps: int) -> _State:
    """Try the step; take it if it makes the gradient norm smaller, else raise the damping; make the next step."""
    point = state.vector + state.step
    gradient = function.gradient(point)
    before, after = jnp.sum(state.gradient**2), jnp.sum(gradient**2)
    smaller = jnp.isfinite(after) & ((after < before) | state.forced)
    matrix = jax.lax.cond(smaller, function.matrix, lambda _: state.matrix, point)
    taken = smaller & contract.all_finite(matrix)
    damping = jnp.where(state.forced, 1e-2 * matrix_size(matrix), _damping(state, before, after, taken))
    vector = jnp.where(taken, point, state.vector)
    matrix = jnp.where(taken, matrix, state.matrix)
    gradient = jnp.where(taken, gradient, state.gradient)
    damping = jnp.maximum(damping, 1e-13 * matrix_size(matrix)).astype(state.damping.dtype)
    trial = contract.Trial(state.step, taken, state.forced, _MAX_FAILURES)
    state = state._replace(
        vector=vector,
        gradient=gradient,
        matrix=matrix,
        step=damped_newton(matrix, gradient, damping),
        damping=damping,
        growth=jnp.where(taken, 2.0, 2 * state.growth).astype(state.growth.dtype),
        steps=state.steps + (taken | state.forced).astype(jnp.int32),
        failures=jnp.where(taken, 0, state.failures + 1).astype(jnp.int32),
    )
    level = contract.rounding_level(function.unit, vector, matrix, state.typical)
    flat = jnp.linalg.norm(times(matrix, gradient)) <= 1e-8 * (jnp.linalg.norm(matrix) * contract.norm(gradient))
    return contract.descended(function, state, trial, level, flat, max_steps)


def _damping(state: _State, before: jax.Array, after: jax.Array, taken: jax.Array) -> jax.Array:
    model = jnp.sum((state.gradient + times(state.matrix, state.step)) ** 2)
    ratio = (before - after) / jnp.maximum(before - model, jnp.finfo(before.dtype).tiny)
    shrink = jnp.clip(1 - (2 * ratio - 1) ** 3, 0.03, 4.0)
    return state.damping * jnp.where(taken, shrink, state.growth / 2)
