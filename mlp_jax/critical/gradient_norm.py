"""Descend the gradient norm: Levenberg–Marquardt on ½‖g‖². Transformable."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax.critical.searches import RUNNING, End, Function, Reason, all_finite, rounding_level

# Each failure multiplies the damping by twice what the last did: after 12 it has grown by 2⁷⁸.
_MAX_FAILURES = 12


class _State(NamedTuple):
    vector: jax.Array
    gradient: jax.Array
    matrix: jax.Array
    damping: jax.Array  # ν
    growth: jax.Array  # factor by which a failed step raises ν
    steps: jax.Array
    failures: jax.Array  # failed trial steps in a row
    reason: jax.Array


def descend(function: Function, start: jax.Array, max_steps: int) -> End:
    """Return where steps of −(H² + ν²)⁻¹ H g = −Re (H + iν)⁻¹ g end, ν being adapted as in Nielsen (1999).

    The complex solve keeps the condition number of H, where the normal equations would square it. The search ends
    when the gradient is at rounding level, where ‖g‖ is stationary but not zero, or when no damping gives descent.

    Examples
    --------
    >>> function = Function(lambda x: 2 * x, lambda x: 2 * jnp.eye(1), 2.0**-24)
    >>> float(descend(function, jnp.array([3.0]), 50).vector[0])
    0.0
    """
    gradient, matrix = function.gradient(start), function.matrix(start)
    size = _size(matrix)
    state = _State(
        vector=start,
        gradient=gradient,
        matrix=matrix,
        damping=1e-2 * size,
        growth=jnp.full_like(size, 2),
        steps=jnp.ones((), jnp.int32),
        failures=jnp.zeros((), jnp.int32),
        reason=jnp.where(all_finite(gradient, matrix), RUNNING, int(Reason.NOT_FINITE)).astype(jnp.int32),
    )
    state = jax.lax.while_loop(lambda s: s.reason == RUNNING, lambda s: _advance(function, s, max_steps), state)
    return End(state.vector, state.gradient, state.matrix, state.steps, state.reason)


def damped_newton(matrix: jax.Array, gradient: jax.Array, damping: jax.Array) -> jax.Array:
    """Return −(H² + ν²)⁻¹ H g as −Re (H + iν)⁻¹ g: 1/(λ + iν) has the real part λ / (λ² + ν²).

    Examples
    --------
    >>> print(f"{damped_newton(jnp.array([[3.0]]), jnp.array([10.0]), jnp.array(1.0))[0]:.4f}")
    -3.0000
    """
    shifted = jax.lax.complex(matrix, damping * jnp.eye(len(matrix), dtype=matrix.dtype))
    return -jnp.linalg.solve(shifted, jax.lax.complex(gradient, jnp.zeros_like(gradient))).real


def _size(matrix: jax.Array) -> jax.Array:
    return jnp.linalg.norm(matrix, axis=1).max()


def _advance(function: Function, state: _State, max_steps: int) -> _State:
    """Try one step; take it if it makes the gradient norm smaller, else raise the damping."""
    step = damped_newton(state.matrix, state.gradient, state.damping)
    trial = state.vector + step
    gradient = function.gradient(trial)
    before, after = jnp.sum(state.gradient**2), jnp.sum(gradient**2)
    model = jnp.sum((state.gradient + state.matrix @ step) ** 2)
    ratio = (before - after) / jnp.maximum(before - model, jnp.finfo(before.dtype).tiny)
    smaller = jnp.isfinite(after) & (after < before)
    matrix = jax.lax.cond(smaller, function.matrix, lambda _: state.matrix, trial)
    taken = smaller & all_finite(matrix)
    state = state._replace(
        vector=jnp.where(taken, trial, state.vector),
        gradient=jnp.where(taken, gradient, state.gradient),
        matrix=jnp.where(taken, matrix, state.matrix),
        steps=state.steps + taken.astype(jnp.int32),
        failures=jnp.where(taken, 0, state.failures + 1).astype(jnp.int32),
        growth=jnp.where(taken, 2.0, 2 * state.growth).astype(state.growth.dtype),
    )
    shrink = jnp.clip(1 - (2 * ratio - 1) ** 3, 0.03, 4.0)
    damping = jnp.maximum(state.damping * jnp.where(taken, shrink, state.growth / 2), 1e-13 * _size(state.matrix))
    return state._replace(damping=damping, reason=_reason(function, state, step, taken, max_steps))


def _reason(function: Function, state: _State, step: jax.Array, taken: jax.Array, max_steps: int) -> jax.Array:
    size = jnp.linalg.norm(state.gradient)
    level = rounding_level(function, state.vector, state.matrix)
    scale = jnp.linalg.norm(state.matrix) * size
    stationary = jnp.linalg.norm(state.matrix @ state.gradient) <= 1e-8 * scale
    negligible = jnp.linalg.norm(step) <= 4 * function.unit * jnp.linalg.norm(state.vector)
    stuck = (state.failures >= _MAX_FAILURES) | (~taken & negligible)
    choices = [
        ((size == 0) | ((size <= level) & ~taken), Reason.ROUNDING),
        ((size > 16 * level) & stationary, Reason.GRADIENT_FLAT),
        (stuck & (size <= 16 * level), Reason.ROUNDING),
        (stuck, Reason.NO_DESCENT),
        (state.steps >= max_steps, Reason.MAX_STEPS),
    ]
    chosen = jnp.select([condition for condition, _ in choices], [int(reason) for _, reason in choices], RUNNING)
    return chosen.astype(jnp.int32)
