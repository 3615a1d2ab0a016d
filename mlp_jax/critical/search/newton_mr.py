"""Descend the gradient norm without matrices: Newton's method with minimum-residual steps. Transformable."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax.critical.search.contract import RUNNING, Function, Reason, Search, escaping, first_of, norm, typical_size
from mlp_jax.critical.search.minres import Solution, minres

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
    It ends as Levenberg–Marquardt's does, but measures the rounding of the gradient, by moving the parameters by one.

    Memory: 12 vectors, and what a Hessian-vector product takes.

    Examples
    --------
    >>> from mlp_jax.critical.search.contract import run
    >>> function = Function(lambda x: x**2 - 1, None, 2.0**-24)
    >>> print(f"{run(newton_mr(function, 50), jnp.array([3.0])).vector[0]:.5f}")
    1.00000
    """

    def begin(start: jax.Array) -> _State:
        zero = jnp.zeros((), start.dtype)
        return _State(
            vector=start,
            gradient=jnp.full_like(start, jnp.inf),
            step=jnp.zeros_like(start),
            slope=zero,
            flat=jnp.zeros((), bool),
            size=zero,
            radius=typical_size(start) * jnp.sqrt(zero + start.size),
            first=zero + jnp.inf,
            level=jnp.zeros_like(start),
            typical=typical_size(start),
            steps=jnp.zeros((), jnp.int32),
            failures=jnp.zeros((), jnp.int32),
            escapes=jnp.zeros((), jnp.int32),
            forced=jnp.ones((), bool),
            reason=jnp.full((), RUNNING, jnp.int32),
        )

    def newton(vector: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        size = jnp.zeros_like(vector[0])
        coarse = _solve(function, vector, gradient, 1e-6, 1e-6, size, jnp.inf)
        fine = _solve(function, vector, gradient, 1e-6, 1e-10, coarse.size, jnp.inf)
        return jnp.linalg.norm(coarse.residual), fine.vector

    return Search(begin, lambda state: _advance(function, state, max_steps), newton)


def _solve(
    function: Function,
    vector: jax.Array,
    gradient: jax.Array,
    tolerance: float | jax.Array,
    stationarity: float | jax.Array,
    size: jax.Array,
    radius: float | jax.Array,
) -> Solution:
    _, matvec = jax.linearize(function.gradient, vector)
    limit = min(4 * vector.size, _MAX_PRODUCTS)
    return minres(
        matvec, -gradient, tolerance=tolerance, stationarity=stationarity, max_steps=limit, size=size, radius=radius
    )


def _advance(function: Function, state: _State, max_steps: int) -> _State:
    """Try the step; take it and solve for the next if ‖g‖ falls enough, else halve it."""
    trial = state.vector + state.step
    gradient = function.gradient(trial)
    before, after = jnp.sum(state.gradient**2), jnp.sum(gradient**2)
    enough = after <= before + 2 * _DECREASE * state.slope
    taken = jnp.isfinite(after) & (state.forced | (enough & (after < before)))
    tried, failed = state.step, state.forced & ~taken

    def move(s: _State) -> _State:
        # Where steps had to be halved, the next inner solve ends early, which leaves out the modes of small curvature
        # that make steps long: what damping does where there are matrices.
        length = jnp.linalg.norm(tried)
        radius = jnp.where(s.failures == 0, jnp.maximum(s.radius, 3 * length), 1.5 * length)
        moved = s._replace(
            vector=trial,
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
    reason = _reason(function, state, tried, taken, max_steps)
    lost = jnp.where(state.escapes > 0, int(Reason.NO_DESCENT), int(Reason.NOT_FINITE))
    reason = jnp.where(failed, lost, reason).astype(jnp.int32)
    return escaping(state._replace(reason=reason, forced=jnp.zeros((), bool)))


def _next_step(function: Function, state: _State) -> _State:
    size = norm(state.gradient)
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


def _reason(function: Function, state: _State, tried: jax.Array, taken: jax.Array, max_steps: int) -> jax.Array:
    size = norm(state.gradient)
    negligible = jnp.linalg.norm(tried) <= 4 * function.unit * jnp.linalg.norm(state.vector)
    stuck = (state.failures >= _MAX_FAILURES) | (~taken & negligible)
    return first_of(
        ((size == 0) | (jnp.all(jnp.abs(state.gradient) <= state.level) & ~taken), Reason.ROUNDING),
        ((size > 16 * norm(state.level)) & state.flat, Reason.GRADIENT_FLAT),
        (stuck & (size <= 16 * norm(state.level)), Reason.ROUNDING),
        (stuck, Reason.NO_DESCENT),
        (state.steps >= max_steps, Reason.MAX_STEPS),
    )
