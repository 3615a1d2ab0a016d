"""Newton-MR: a descent of the gradient norm without matrices, by minimum-residual steps. Transformable."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax.critical.search import contract
from mlp_jax.critical.search.contract import Function, Search, typical_size
from mlp_jax.critical.search.minres import Limits, Solution, minimum_residual_step
from mlp_jax.curvature.deflation import Deflation

# Step lengths tried: 1, ½, …, 2⁻⁴⁰.
_MAX_FAILURES = 40
# Sufficient decrease (Armijo 1966).
_DECREASE = 1e-4
_MAX_PRODUCTS = 1000


class _State(NamedTuple):
    vector: jax.Array
    gradient: jax.Array
    step: jax.Array  # p, times the length to be tried
    slope: jax.Array  # of ½‖g‖² along it: pᵀ H g
    flat: jax.Array  # whether ‖H g‖ is negligible beside ‖H‖ ‖g‖
    size: jax.Array  # of H, from below
    radius: jax.Array  # length of p at which the inner solve ends
    first: jax.Array  # ‖g‖ at the start
    level: jax.Array  # what a rounding of the parameters changes each component of g by
    typical: jax.Array
    steps: jax.Array
    failures: jax.Array
    escapes: jax.Array
    forced: jax.Array  # the step is taken whatever the gradient there: the start, or an escape
    reason: jax.Array


def newton_mr(function: Function, max_steps: int) -> Search:
    """Return the search by steps that minimise ‖H p + g‖ over a Krylov space, shortened until ‖g‖ falls enough.

    Newton-MR (Roosta, Liu, Xu & Mahoney 2022): p is a descent direction of ‖g‖ wherever H g ≠ 0, also where H is
    singular or indefinite. The inner solve is `minres`, more exact as the gradient falls, of at most 1000 products.
    It ends as Levenberg–Marquardt does, but measures the rounding of the gradient, by moving the parameters by one.

    Memory: 12 vectors, and that of a Hessian-vector product.

    Examples
    --------
    >>> from mlp_jax.critical.search.contract import run
    >>> function = Function(lambda x: x**2 - 1, None, 2.0**-24)
    >>> print(f"{run(newton_mr(function, 50), jnp.array([3.0])).vector[0]:.5f}")
    1.00000
    """

    def begin(start: jax.Array) -> _State:
        zero, none = jnp.zeros((), start.dtype), jnp.zeros((), jnp.int32)
        return _State(
            **contract.begun(start),
            slope=zero,
            flat=jnp.zeros((), bool),
            size=zero,
            radius=typical_size(start) * jnp.sqrt(zero + start.size),
            first=zero + jnp.inf,
            level=jnp.zeros_like(start),
            failures=none,
            escapes=none,
        )

    def newton(vector: jax.Array, gradient: jax.Array, scaling: Deflation | None) -> tuple[jax.Array, jax.Array]:
        solve = functools.partial(_solve, function, vector, gradient, 1e-6, scaling=scaling)
        coarse = solve(1e-6, jnp.zeros_like(vector[0]))
        solved = jnp.linalg.norm(coarse.residual) <= 1e-6 * jnp.linalg.norm(gradient)
        fine = jax.lax.cond(solved, lambda: coarse, lambda: solve(1e-10, coarse.size))
        return jnp.linalg.norm(coarse.residual), fine.vector

    return Search(begin, lambda state: _advance(function, state, max_steps), newton)


def _solve(
    function: Function,
    vector: jax.Array,
    gradient: jax.Array,
    tolerance: float | jax.Array,
    stationarity: float | jax.Array,
    size: jax.Array,
    radius: float | jax.Array = jnp.inf,
    scaling: Deflation | None = None,
) -> Solution:
    _, matvec = jax.linearize(function.gradient, vector)
    limits = Limits(tolerance, stationarity, min(4 * vector.size, _MAX_PRODUCTS), radius)
    return minimum_residual_step(matvec, gradient, limits, size, scaling)


def _advance(function: Function, state: _State, max_steps: int) -> _State:
    """Try the step; take it and solve for the next if ‖g‖ falls enough, else halve it."""
    point = state.vector + state.step
    gradient = function.gradient(point)
    before, after = jnp.sum(state.gradient**2), jnp.sum(gradient**2)
    enough = after <= before + 2 * _DECREASE * state.slope
    taken = jnp.isfinite(after) & (state.forced | (enough & (after < before)))
    trial = contract.Trial(state.step, taken, state.forced, _MAX_FAILURES)

    def move(s: _State) -> _State:
        # After steps that were halved the next inner solve ends early, which leaves out the modes of small curvature
        # that make steps long, as damping does where there are matrices.
        length = jnp.linalg.norm(trial.step)
        radius = jnp.where(s.failures == 0, jnp.maximum(s.radius, 3 * length), 1.5 * length)
        moved = s._replace(
            vector=point,
            gradient=gradient,
            radius=jnp.where(s.forced, s.radius, radius),
            first=jnp.where(s.forced, jnp.sqrt(after), s.first),
            failures=jnp.zeros((), jnp.int32),
            steps=s.steps + 1,
        )
        return _next_step(function, moved)

    def shorten(s: _State) -> _State:
        return s._replace(step=s.step / 2, slope=s.slope / 2, failures=s.failures + 1, steps=jnp.maximum(s.steps, 1))

    state = jax.lax.cond(taken, move, shorten, state)
    return contract.descended(function, state, trial, state.level, state.flat, max_steps)


def _next_step(function: Function, state: _State) -> _State:
    size = contract.norm(state.gradient)
    progress = size / jnp.where(state.first > 0, state.first, 1)
    # Loose far away, where the model is poor; fast convergence near the end.
    forcing = jnp.clip(0.3 * jnp.sqrt(progress), 1e-4, 0.3)
    stationarity = jnp.clip(1e-3 * progress, 1e-10, 1e-3)
    found = _solve(function, state.vector, state.gradient, forcing, stationarity, state.size, state.radius)
    image, change = _products(function, state, found.vector)
    nudge = 2 * function.unit * jnp.maximum(jnp.abs(state.vector), state.typical)
    signs = jnp.where(jnp.arange(state.vector.size) % 2 == 0, 1, -1).astype(state.vector.dtype)
    nudged = [jnp.abs(function.gradient(state.vector + s * nudge) - state.gradient) for s in (signs, 1)]
    return state._replace(
        step=found.vector,
        slope=jnp.vdot(image, state.gradient),
        flat=change <= 1e-8 * found.size * size,
        size=found.size,
        level=4 * jnp.maximum(*nudged),
    )


def _products(function: Function, state: _State, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return H p and ‖H g‖."""
    _, matvec = jax.linearize(function.gradient, state.vector)
    return matvec(step), jnp.linalg.norm(matvec(state.gradient))
