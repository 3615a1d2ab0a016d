"""Walk to a critical point of a chosen index: up along the lowest eigenvectors, down along the rest. Transformable."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax.critical.searches import (
    RUNNING,
    Function,
    Reason,
    Search,
    all_finite,
    first_of,
    newton_dense,
    norm,
    one_at_a_time,
    rounding_level,
    typical_size,
)

_BISECTIONS = 50


class _State(NamedTuple):
    vector: jax.Array
    gradient: jax.Array
    matrix: jax.Array
    step: jax.Array  # to be tried
    taken: jax.Array  # the step before
    radius: jax.Array
    longest: jax.Array
    typical: jax.Array
    steps: jax.Array
    reason: jax.Array


def eigenvector_following(function: Function, max_steps: int, index: int | jax.Array, radius: float | None) -> Search:
    """Return the search by steps that climb along the `index` lowest eigenvectors and descend along the others.

    In the eigenbasis of H, with c = Qᵀ g, the step is σᵢ cᵢ / (|λᵢ| + μ), σ = +1 for the `index` lowest modes and −1
    for the others (Cerjan & Miller 1981; for index 0 saddle-free Newton, Dauphin et al. 2014); μ ≥ 0 holds it to a
    trust radius, which shrinks when consecutive steps turn back and grows when they agree. Near a critical point of
    that index it is Newton's step; points of another index repel it. The radius never exceeds `radius`, a sixth of
    ‖start‖ (or of 1 if that is larger) when None.

    Examples
    --------
    >>> from mlp_jax.critical.searches import run
    >>> diagonal = jnp.array([2.0, -2.0])
    >>> function = Function(lambda x: diagonal * x, lambda x: jnp.diag(diagonal), 2.0**-24)
    >>> end = run(eigenvector_following(function, 50, 1, 1.0), jnp.array([0.3, 0.2]))
    >>> bool(jnp.all(abs(end.vector) < 1e-12))
    True
    """

    def begin(start: jax.Array) -> _State:
        longest = jnp.maximum(1, jnp.linalg.norm(start)) / 6 if radius is None else jnp.asarray(radius)
        return _State(
            vector=start,
            gradient=jnp.full_like(start, jnp.inf),
            matrix=jnp.zeros((start.size, start.size), start.dtype),
            step=jnp.zeros_like(start),
            taken=jnp.zeros_like(start),
            radius=longest.astype(start.dtype),
            longest=longest.astype(start.dtype),
            typical=typical_size(start),
            steps=jnp.zeros((), jnp.int32),
            reason=jnp.full((), RUNNING, jnp.int32),
        )

    climbing = jnp.asarray(index)
    return Search(begin, lambda state: _advance(function, state, climbing, max_steps), newton_dense(function))


def _advance(function: Function, state: _State, index: jax.Array, max_steps: int) -> _State:
    fresh = state.steps == 0
    vector = state.vector + state.step
    gradient, matrix = function.gradient(vector), function.matrix(vector)
    finite = all_finite(gradient, matrix)
    before, after = norm(state.gradient), norm(gradient)
    level = rounding_level(function.unit, state.vector, state.matrix, state.typical)
    # At rounding level the last step may make things worse: keep the better point.
    at_level = ~fresh & finite & (before <= level) & (after >= before)
    steps = state.steps + 1
    reason = first_of(
        (at_level | (finite & (after == 0)), Reason.ROUNDING),
        (~finite, Reason.NOT_FINITE),
        (steps >= max_steps, Reason.MAX_STEPS),
    )
    moved = finite & ~at_level
    radius = jnp.where(fresh, state.radius, _radius(state))
    matrix = jnp.where(moved, matrix, state.matrix)
    gradient = jnp.where(moved, gradient, state.gradient)
    return state._replace(
        vector=jnp.where(moved, vector, state.vector),
        gradient=gradient,
        matrix=matrix,
        step=_step(matrix, gradient, index, radius),
        taken=state.step,
        radius=radius,
        steps=steps,
        reason=reason,
    )


def _radius(state: _State) -> jax.Array:
    lengths = jnp.linalg.norm(state.step) * jnp.linalg.norm(state.taken)
    agreement = jnp.vdot(state.step, state.taken) / (lengths + jnp.finfo(lengths.dtype).tiny)
    radius = state.radius * jnp.where(agreement < -0.3, 0.6, jnp.where(agreement > 0.3, 1.3, 1.0))
    return jnp.clip(radius, 1e-3 * state.longest, state.longest).astype(state.radius.dtype)


def _step(matrix: jax.Array, gradient: jax.Array, index: jax.Array, radius: jax.Array) -> jax.Array:
    values, vectors = one_at_a_time(jnp.linalg.eigh)(matrix)
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
