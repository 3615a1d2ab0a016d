"""The linear solver inside `newton_mr`, not a search: MINRES for singular systems too, from products. Transformable."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax.curvature.deflation import Deflation


class Limits(NamedTuple):
    """When `minres` ends; the fields are explained there. All but `max_steps` may be traced."""

    tolerance: float | jax.Array
    stationarity: float | jax.Array
    max_steps: int
    radius: float | jax.Array = jnp.inf


class Solution(NamedTuple):
    """What `minres` returns: x, b − A x, an estimate of ‖A‖ from below, and the number of products."""

    vector: jax.Array
    residual: jax.Array
    size: jax.Array
    steps: jax.Array


class _State(NamedTuple):
    vector: jax.Array  # x
    residual: jax.Array
    basis: tuple[jax.Array, jax.Array]  # Lanczos vectors: this, and the one before
    directions: tuple[jax.Array, jax.Array]
    beta: jax.Array
    rotation: tuple[jax.Array, jax.Array]  # cosine, sine
    delta: jax.Array
    epsilon: jax.Array
    phi: jax.Array  # ‖b − A x‖
    size: jax.Array
    steps: jax.Array
    unreachable: jax.Array  # what is left of b is outside the range of A
    over: jax.Array


def minimum_residual_step(
    matvec: Callable[[jax.Array], jax.Array],
    gradient: jax.Array,
    limits: Limits,
    size: float | jax.Array = 0.0,
    scaling: Deflation | None = None,
) -> Solution:
    """Return the Newton step −H⁺ g and H p + g by `minres`; the limits are of H in the coordinates `scaling`."""
    if scaling is None:
        return minres(matvec, -gradient, limits, size)
    found = minres(lambda v: scaling(matvec(scaling(v))), -scaling(gradient), limits, size)
    step = scaling(found.vector)
    return found._replace(vector=step, residual=-gradient - matvec(step))


def minres(
    matvec: Callable[[jax.Array], jax.Array], rhs: jax.Array, limits: Limits, size: float | jax.Array = 0.0
) -> Solution:
    """Minimise ‖b − A x‖ over growing Krylov spaces (Paige & Saunders 1975), until it is small or stationary.

    It ends when ‖r‖ ≤ tolerance · ‖b‖, when ‖A r‖ ≤ stationarity · ‖A‖ ‖r‖ (b has a part outside the range of A), when
    ‖x‖ ≥ radius, or after `max_steps` products. In the second case A is singular and x has grown along its null space:
    removing the part along r, x − (r·x / r·r) r, leaves the solution of least length (Liu, Milzarek & Roosta 2023), the
    one that MINRES-QLP computes (Choi, Paige & Saunders 2011). `size` is a known lower bound of ‖A‖.
    """
    norm = jnp.linalg.norm(rhs)
    zero, zeros = jnp.zeros_like(norm), jnp.zeros_like(rhs)
    state = _State(
        vector=zeros,
        residual=rhs,
        basis=(rhs / jnp.where(norm > 0, norm, 1), zeros),
        directions=(zeros, zeros),
        beta=zero,
        rotation=(zero - 1, zero),
        delta=zero,
        epsilon=zero,
        phi=norm,
        size=zero + size,
        steps=jnp.zeros((), jnp.int32),
        unreachable=jnp.zeros((), bool),
        over=(norm == 0) | ~jnp.isfinite(norm),
    )

    state = jax.lax.while_loop(lambda s: ~s.over, lambda s: _advance(matvec, s, norm, limits), state)
    return Solution(_shortest(state), state.residual, state.size, state.steps)


def _advance(matvec: Callable[[jax.Array], jax.Array], s: _State, norm: jax.Array, limits: Limits) -> _State:
    v, before = s.basis
    cosine, sine = s.rotation
    product = matvec(v)
    alpha = jnp.vdot(v, product)
    following = product - alpha * v - s.beta * before
    beta = jnp.linalg.norm(following)
    delta2, gamma1 = cosine * s.delta + sine * alpha, sine * s.delta - cosine * alpha
    delta, epsilon = -cosine * beta, sine * beta
    size = jnp.maximum(s.size, jnp.sqrt(alpha**2 + beta**2 + s.beta**2))
    # ‖A r‖ of the residual before this step (Paige & Saunders 1975).
    stationary = jnp.hypot(gamma1, delta) <= limits.stationarity * size
    gamma2 = jnp.hypot(gamma1, beta)
    singular = gamma2 <= jnp.finfo(gamma2.dtype).eps * size
    safe = jnp.where(singular, 1, gamma2)
    new_cosine, new_sine = gamma1 / safe, beta / safe
    direction = (v - delta2 * s.directions[0] - s.epsilon * s.directions[1]) / safe
    next_v = following / jnp.where(beta > 0, beta, 1)
    phi = new_sine * s.phi
    stop = stationary | singular | ~jnp.isfinite(gamma2)
    steps = s.steps + 1
    moved = s._replace(
        vector=s.vector + new_cosine * s.phi * direction,
        residual=new_sine**2 * s.residual - phi * new_cosine * next_v,
        basis=(next_v, v),
        directions=(direction, s.directions[0]),
        beta=beta,
        rotation=(new_cosine, new_sine),
        delta=delta,
        epsilon=epsilon,
        phi=phi,
    )
    state = jax.tree.map(lambda new, old: jnp.where(stop, old, new), moved, s)
    exhausted = (
        (jnp.linalg.norm(state.vector) >= limits.radius)
        | (phi <= limits.tolerance * norm)
        | (steps >= limits.max_steps)
        | (beta <= jnp.finfo(beta.dtype).eps * size)
    )
    return state._replace(size=size, steps=steps, unreachable=stationary | singular, over=stop | exhausted)


def _shortest(state: _State) -> jax.Array:
    """Return x without its part along the residual, where the residual is outside the range of A."""
    square = jnp.sum(state.residual**2)
    along = jnp.vdot(state.residual, state.vector) / jnp.where(square > 0, square, 1)
    return jnp.where(state.unreachable & (square > 0), state.vector - along * state.residual, state.vector)
