"""Walk to a critical point of a chosen index: up along the lowest eigenvectors, down along the rest. Transformable."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax.critical.searches import RUNNING, End, Function, Reason, all_finite, rounding_level

_BISECTIONS = 50


class _State(NamedTuple):
    vector: jax.Array
    gradient: jax.Array
    matrix: jax.Array
    step: jax.Array
    radius: jax.Array
    steps: jax.Array
    reason: jax.Array


def follow(function: Function, start: jax.Array, index: jax.Array, max_steps: int, radius: jax.Array) -> End:
    """Return where steps that climb along the `index` lowest eigenvectors and descend along the others end.

    In the eigenbasis of H, with c = Qᵀ g, the step is σᵢ cᵢ / (|λᵢ| + μ), σ = +1 for the `index` lowest modes and −1
    for the others (Cerjan & Miller 1981; for index 0 saddle-free Newton, Dauphin et al. 2014); μ ≥ 0 holds it to a
    trust radius, which shrinks when consecutive steps turn back and grows when they agree. Near a critical point of
    that index it is Newton's step; points of another index repel it.

    Examples
    --------
    >>> diagonal = jnp.array([2.0, -2.0])
    >>> function = Function(lambda x: diagonal * x, lambda x: jnp.diag(diagonal), 2.0**-24)
    >>> end = follow(function, jnp.array([0.3, 0.2]), jnp.array(1), 50, jnp.array(1.0))
    >>> bool(jnp.all(abs(end.vector) < 1e-12))
    True
    """
    gradient, matrix = function.gradient(start), function.matrix(start)
    state = _State(
        vector=start,
        gradient=gradient,
        matrix=matrix,
        step=jnp.zeros_like(start),
        radius=radius,
        steps=jnp.ones((), jnp.int32),
        reason=jnp.where(all_finite(gradient, matrix), RUNNING, int(Reason.NOT_FINITE)).astype(jnp.int32),
    )

    def advance(s: _State) -> _State:
        return _advance(function, s, index, max_steps, radius)

    state = jax.lax.while_loop(lambda s: s.reason == RUNNING, advance, state)
    return End(state.vector, state.gradient, state.matrix, state.steps, state.reason)


def _advance(function: Function, state: _State, index: jax.Array, max_steps: int, largest: jax.Array) -> _State:
    step = _step(state.matrix, state.gradient, index, state.radius)
    vector = state.vector + step
    gradient, matrix = function.gradient(vector), function.matrix(vector)
    agreement = jnp.vdot(step, state.step) / (jnp.linalg.norm(step) * jnp.linalg.norm(state.step) + 1e-300)
    radius = state.radius * jnp.where(agreement < -0.3, 0.6, jnp.where(agreement > 0.3, 1.3, 1.0))
    finite = all_finite(gradient, matrix)
    before, after = jnp.linalg.norm(state.gradient), jnp.linalg.norm(gradient)
    # At rounding level the last step may make things worse: keep the better point.
    at_level = finite & (before <= rounding_level(function, state.vector, state.matrix)) & (after >= before)
    steps = state.steps + 1
    choices = [
        (at_level | (before == 0), Reason.ROUNDING),
        (~finite, Reason.NOT_FINITE),
        (steps >= max_steps, Reason.MAX_STEPS),
    ]
    reason = jnp.select([condition for condition, _ in choices], [int(r) for _, r in choices], RUNNING)
    moved = finite & ~at_level
    return _State(
        vector=jnp.where(moved, vector, state.vector),
        gradient=jnp.where(moved, gradient, state.gradient),
        matrix=jnp.where(moved, matrix, state.matrix),
        step=step,
        radius=jnp.clip(radius, 1e-3 * largest, largest).astype(radius.dtype),
        steps=steps,
        reason=reason.astype(jnp.int32),
    )


def _step(matrix: jax.Array, gradient: jax.Array, index: jax.Array, radius: jax.Array) -> jax.Array:
    values, vectors = jnp.linalg.eigh(matrix)
    climbing = jnp.arange(len(values)) < index
    components = vectors.T @ gradient
    size = jnp.abs(values)
    floor = jnp.finfo(size.dtype).eps * jnp.max(size) + jnp.finfo(size.dtype).tiny

    def length(mu: jax.Array) -> jax.Array:
        return jnp.linalg.norm(components / (size + floor + mu))

    def bisect(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        too_long = length(middle) > radius
        return jnp.where(too_long, middle, low), jnp.where(too_long, high, middle)

    # ‖c‖ / μ bounds the length from above, so μ = ‖c‖ / radius is always enough.
    enough = jnp.linalg.norm(components) / radius
    _, mu = jax.lax.fori_loop(0, _BISECTIONS, bisect, (jnp.zeros_like(enough), enough))
    mu = jnp.where(length(jnp.zeros_like(enough)) <= radius, 0, mu)
    return vectors @ (jnp.where(climbing, 1.0, -1.0) * components / (size + floor + mu))
