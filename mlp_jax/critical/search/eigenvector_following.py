"""Eigenvector following to a critical point of a chosen index: up along the lowest modes, down along the rest."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax.critical.search import contract
from mlp_jax.critical.search.contract import RUNNING, Function, Reason, Search, all_finite, norm

_BISECTIONS = 50
# Errors of the model, relative to the step, above which a step is not taken, above which the radius is halved, and
# below which it is doubled.
REJECT, HALVE, DOUBLE = 1.0, 0.6, 0.25
# Times a search is moved off a point of another index.
_MAX_KICKS = 3


class _State(NamedTuple):
    vector: jax.Array
    gradient: jax.Array
    matrix: jax.Array
    values: jax.Array  # eigenvalues, ascending
    vectors: jax.Array
    step: jax.Array  # to be tried
    shift: jax.Array  # μ of that step
    radius: jax.Array
    longest: jax.Array
    typical: jax.Array
    forced: jax.Array  # the step is taken whatever the model says: the start, or a kick
    kicks: jax.Array
    kept: tuple[jax.Array, jax.Array]  # vector and gradient of a point of another index
    steps: jax.Array
    reason: jax.Array


def eigenvector_following(function: Function, max_steps: int, index: int | jax.Array, radius: float | None) -> Search:
    """Return the search by steps that climb along the `index` lowest eigenvectors and descend along the others.

    In the eigenbasis of H, with c = Qᵀ g, the step is σᵢ cᵢ / (|λᵢ| + μ), σ = +1 for the `index` lowest modes and −1
    for the others (Cerjan & Miller 1981; for index 0 saddle-free Newton, Dauphin et al. 2014); μ ≥ 0 holds it to a
    trust radius. Near a critical point of that index it is Newton's step; points of another index repel it. The radius
    never exceeds `radius`, a sixth of ‖start‖ (or of 1 if that is larger) when None.

    The radius follows the error of the model, ‖(|Λ| + μ)⁻¹ (Qᵀ (g₊ − g) − Λ p)‖ / ‖p‖ for the step Q p, in which
    coordinates of every scale count alike: above 1 the step is not taken, above .6 the radius is halved, below .25
    doubled. At a point of another index, as on a line of symmetry, the search is moved off along the modes of wrong
    sign, three times at most; if that fails, it ends at the first such point.
    """

    def begin(start: jax.Array) -> _State:
        longest = jnp.maximum(1, jnp.linalg.norm(start)) / 6 if radius is None else jnp.asarray(radius)
        nothing = jnp.zeros((start.size, start.size), start.dtype)
        return _State(
            **contract.begun(start),
            matrix=nothing,
            values=jnp.zeros_like(start),
            vectors=nothing,
            shift=jnp.zeros((), start.dtype),
            radius=longest.astype(start.dtype),
            longest=longest.astype(start.dtype),
            kicks=jnp.zeros((), jnp.int32),
            kept=(start, jnp.full_like(start, jnp.inf)),
        )

    climbing = jnp.asarray(index)
    return Search(begin, lambda state: _advance(function, state, climbing, max_steps))


def _advance(function: Function, state: _State, index: jax.Array, max_steps: int) -> _State:
    """Try the step; take it unless its model was wrong; make the next, or say why there is none."""
    trial = state.vector + state.step
    gradient = function.gradient(trial)
    before, after = norm(state.gradient), norm(gradient)
    at_level = ~state.forced & jnp.all(jnp.abs(state.gradient) <= _level(function, state))
    error = jnp.where(state.forced, 0, _model_error(state, gradient))
    # At rounding level the last step may make things worse: keep the better point.
    wanted = all_finite(gradient) & (error <= REJECT) & ~(at_level & (after >= before))
    nothing = state.matrix, state.values, state.vectors
    matrix, values, vectors = jax.lax.cond(wanted, lambda at: _modes(function, at), lambda _: nothing, trial)
    taken = wanted & all_finite(matrix)
    failed, arrived = state.forced & ~taken, (at_level & ~taken) | (taken & (after == 0))
    state = state._replace(
        vector=jnp.where(taken, trial, state.vector),
        gradient=jnp.where(taken, gradient, state.gradient),
        matrix=jnp.where(taken, matrix, state.matrix),
        values=jnp.where(taken, values, state.values),
        vectors=jnp.where(taken, vectors, state.vectors),
        radius=_radius(state, error, taken),
        steps=state.steps + (taken | state.forced).astype(jnp.int32),
        forced=jnp.zeros((), bool),
    )
    stuck = ~taken & (state.radius <= 4 * function.unit * norm(state.vector))
    small = norm(state.gradient) <= 16 * norm(_level(function, state))
    reason = contract.first_of(
        (arrived | (stuck & small), Reason.ROUNDING),
        (failed & (state.kicks == 0), Reason.NOT_FINITE),
        (failed | stuck, Reason.NO_DESCENT),
        (state.steps >= max_steps, Reason.MAX_STEPS),
    )
    step, shift = _step(state, index)
    return _moved_off(state._replace(step=step, shift=shift, reason=reason), index)


def _level(function: Function, state: _State) -> jax.Array:
    return contract.rounding_level(function.unit, state.vector, state.matrix, state.typical)


def _modes(function: Function, vector: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    matrix = function.matrix(vector)
    values, vectors = contract.one_at_a_time(jnp.linalg.eigh)(matrix)
    return matrix, values, vectors


def _sizes(values: jax.Array) -> jax.Array:
    """Return |λ|, none of them smaller than rounding."""
    size = jnp.abs(values)
    return size + jnp.finfo(size.dtype).eps * jnp.max(size) + jnp.finfo(size.dtype).tiny


def _model_error(state: _State, gradient: jax.Array) -> jax.Array:
    """Return the error of the model over the step, relative to the step."""
    taken = state.step @ state.vectors
    wrong = (gradient - state.gradient) @ state.vectors - state.values * taken
    length = norm(taken)
    return norm(wrong / (_sizes(state.values) + state.shift)) / jnp.where(length > 0, length, 1)


def _radius(state: _State, error: jax.Array, taken: jax.Array) -> jax.Array:
    grown = jnp.where(error < DOUBLE, 2.0, jnp.where(error > HALVE, 0.5, 1.0)) * state.radius
    radius = jnp.where(taken, grown, jnp.minimum(state.radius, norm(state.step)) / 2)
    return jnp.minimum(radius, state.longest).astype(state.radius.dtype)


def _step(state: _State, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the step, and its shift μ."""
    climbing = jnp.arange(len(state.values)) < index
    components = state.gradient @ state.vectors
    size = _sizes(state.values)

    def length(mu: jax.Array) -> jax.Array:
        return jnp.linalg.norm(components / (size + mu))

    def bisect(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        too_long = length(middle) > state.radius
        return jnp.where(too_long, middle, low), jnp.where(too_long, high, middle)

    # ‖c‖ / μ bounds the length from above, so μ = ‖c‖ / radius is always enough.
    enough = jnp.linalg.norm(components) / state.radius
    _, mu = jax.lax.fori_loop(0, _BISECTIONS, bisect, (jnp.zeros_like(enough), enough))
    mu = jnp.where(length(jnp.zeros_like(enough)) <= state.radius, 0, mu)
    return state.vectors @ (jnp.where(climbing, 1.0, -1.0) * components / (size + mu)), mu


def _moved_off(state: _State, index: jax.Array) -> _State:
    """Leave a point of another index along its modes of wrong sign, or end at the first such point."""
    rounding = 16 * len(state.values) * jnp.finfo(state.values.dtype).eps * jnp.max(jnp.abs(state.values))
    climbing = jnp.arange(len(state.values)) < index
    wrong = jnp.where(climbing, state.values > rounding, state.values < -rounding)
    arrived = state.reason == int(Reason.ROUNDING)
    kick = arrived & jnp.any(wrong) & (state.kicks < _MAX_KICKS)
    kicks = state.kicks.astype(state.longest.dtype)
    length = state.longest * jnp.exp2(kicks - 7) / jnp.sqrt(jnp.maximum(jnp.sum(wrong), 1).astype(kicks.dtype))
    keep = kick & (state.kicks == 0)
    kept = jnp.where(keep, state.vector, state.kept[0]), jnp.where(keep, state.gradient, state.kept[1])
    lost = (state.kicks > 0) & ~arrived & (state.reason != RUNNING)
    reason = jnp.where(kick, RUNNING, jnp.where(lost, int(Reason.ROUNDING), state.reason))
    return state._replace(
        vector=jnp.where(lost, kept[0], state.vector),
        gradient=jnp.where(lost, kept[1], state.gradient),
        step=jnp.where(kick, length * (state.vectors @ wrong.astype(length.dtype)), state.step),
        radius=jnp.where(kick, state.longest, state.radius),
        forced=kick,
        kicks=state.kicks + kick.astype(jnp.int32),
        kept=kept,
        reason=reason.astype(jnp.int32),
    )
