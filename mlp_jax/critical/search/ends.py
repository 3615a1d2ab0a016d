"""What is known of the point where a search ended: whether it is critical, how exact, its index. Transformable.

A search stops by norms, in which a large component hides the others. Here the last steps are Newton's, in coordinates
scaled so that curvature is about one, and each component of the gradient is compared with its own rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax.critical.point import Point
from mlp_jax.critical.search import contract
from mlp_jax.critical.search.contract import End, Function, Reason, Search, damped_newton, matrix_size, norm

# Newton's steps taken from where a search ended, as long as each halves the scaled gradient.
_MAX_POLISHES = 8
# Moves by a rounding; the change of the gradient that they cause, times the factor, is its error.
_MOVES, _SAFETY = 8, 16
# Multiples of such a move along which the gradient must not fall.
_FARTHER = (64, 4096)
# Points at which a parameter of zero gradient is examined, and how far the gradient falls on a tail.
_SAMPLES, _TAIL = 8, 1e-9
_SWEEPS = 8


class _Local(NamedTuple):
    """What the Hessian at a point gives: a scaling, the Newton step, the gradient at its end.

    matrices
        The Hessian, and the one at the end of the step, params and data moved by a rounding; None without matrices.
    """

    matrices: jax.Array | None
    scale: jax.Array
    residual: jax.Array
    step: jax.Array
    ahead: jax.Array


class _Measured(NamedTuple):
    """The same, with the rounding of the Hessian known."""

    residual: jax.Array
    step: jax.Array
    error: jax.Array
    negative: jax.Array


def settle(search: Search, function: Function, start: jax.Array, end: End) -> Point:
    """Return the point at which the search from `start` ended, params and error as vectors, of whatever index.

    It is critical if each component of the gradient is within the change that a rounding of the parameters causes; if
    the gradient does not fall as they move farther, and has not decayed gradually; and if the Newton step, together
    with the one that rounding could cause, is negligible relative to the parameters (without matrices: if the gradient
    does not jump).
    """
    stopped = (end.reason == int(Reason.MAX_STEPS)) | (end.reason == int(Reason.NOT_FINITE))
    end, local = _polished(search, function, start, end, ~stopped)
    scale = local.scale
    typical = contract.typical_size(start)
    vector, size = end.vector, jnp.maximum(jnp.abs(end.vector), typical)
    own = _size(vector, scale, start)
    moves = 2 * function.unit * _signs(_MOVES, start)
    near = moves * own

    def changes(moves: jax.Array) -> jax.Array:
        return jax.lax.map(lambda move: function.gradient(vector + move), moves) - end.gradient

    far = [factor * moves[:4] * size for factor in _FARTHER]
    change, corner, *farther = jnp.split(changes(jnp.concatenate([near, 64 * near[:4], *far])), [8, 12, 16])
    level = _SAFETY * jnp.max(jnp.abs(change), axis=0)
    measured = _measured(function, end, local, level)
    error = measured.error + 64 * function.unit * own
    here, total = norm(scale * end.gradient), norm(end.gradient)
    singular = jnp.any(jnp.stack([_largest(scale * (end.gradient + rows)) < here / 2 for rows in farther]))
    if search.newton is None:
        exact = jnp.all(error <= min(0.1, function.unit**0.25) * size)
    else:  # at a corner the gradient changes as much over all moves; a step would be rounding along null modes
        first = norm(function.gradient(start))
        exact = (_largest(corner) >= 8 * _largest(change)) | (norm(level) <= 1e-6 * first)
    dead = (end.gradient == 0) & (level == 0)
    tail = jax.lax.cond(jnp.any(dead), lambda: _on_tail(function, start, vector, dead), lambda: jnp.zeros((), bool))
    critical = jnp.all(jnp.abs(end.gradient) <= level) & exact & ~singular & ~tail
    rounding = end.reason == int(Reason.ROUNDING)
    off = norm(vector) > contract.RUN_OFF * jnp.maximum(1, norm(start))
    reason = contract.first_of(
        (end.reason == int(Reason.NOT_FINITE), Reason.NOT_FINITE),
        (critical & (rounding | ~stopped), Reason.ROUNDING),
        (singular, Reason.SINGULAR),
        (tail & rounding, Reason.TAIL),
        (off, Reason.RAN_OFF),
        (rounding, Reason.UNRESOLVED),
    )
    converged = reason == int(Reason.ROUNDING)
    flatness = measured.residual / jnp.where(total == 0, 1, total)
    # Near a gradient-flat point a long step solves H p = −g, and leads nowhere: H does not stay what it is.
    leads = (flatness < 0.5) & (norm(local.ahead) < total / 2)
    distance = jnp.where(converged, norm(measured.step), jnp.where(leads, norm(local.step), jnp.inf))
    return Point(
        params=vector,
        gradient_norm=total,
        flatness=flatness,
        distance=distance,
        error=error,
        converged=converged,
        index=jnp.where(converged, measured.negative, -1).astype(jnp.int32),
        reached=converged,
        steps=end.steps,
        reason=jnp.where(reason < 0, end.reason, reason).astype(jnp.int32),
    )


def _on_tail(function: Function, start: jax.Array, vector: jax.Array, dead: jax.Array) -> jax.Array:
    """Return whether the gradient of a parameter, zero here, decays gradually: on the way from the start, or from 0.

    The gradient of a dead unit is zero all along that way.
    """
    shares = jnp.arange(_SAMPLES, dtype=vector.dtype)[:, None] / _SAMPLES
    samples = jnp.concatenate([start + shares * (vector - start), jnp.where(dead, shares * vector, vector)])
    sizes = jnp.nan_to_num(jnp.abs(jax.lax.map(function.gradient, samples)))
    smallest = jnp.min(jnp.where(sizes > 0, sizes, jnp.inf), axis=0)
    return jnp.any(dead & (smallest < _TAIL * jnp.max(sizes, axis=0)))


def _largest(rows: jax.Array) -> jax.Array:
    return jnp.max(jax.vmap(norm)(rows))


def _polished(search: Search, function: Function, start: jax.Array, end: End, allowed: jax.Array) -> tuple[End, _Local]:
    """Return the end after Newton's steps, and what the Hessian gives there."""

    def local(end: End) -> _Local:
        if search.newton is not None:
            residual, step = search.newton(end.vector, end.gradient, end.scaling)
            return _Local(None, jnp.ones_like(step), residual, step, end.gradient)

        def look(at: jax.Array, by: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
            matrix = function.matrix(at) if function.rounded is None else function.rounded(at, by)
            scale = _scaling(matrix, None)
            step = jax.lax.cond(
                by == 0, lambda: _scaled_newton(matrix, scale, end.gradient, 1e-10), lambda: jnp.zeros_like(at)
            )
            return at + step + 2 * function.unit * _signs(1, at)[0] * _size(at, scale, start), (matrix, scale, step)

        # The second at the end of the step, with params and data moved by a rounding: their difference bounds the error
        # of the first. A scan, so that one Hessian is compiled.
        _, (matrices, scales, steps) = jax.lax.scan(look, end.vector, jnp.arange(2).astype(end.vector.dtype))
        return _Local(matrices, scales[0], jnp.zeros_like(end.vector[0]), steps[0], end.gradient)

    def body(state: tuple[End, _Local, jax.Array, jax.Array]) -> tuple[End, _Local, jax.Array, jax.Array]:
        end, _, count, _ = state
        here = local(end)
        trial = end.vector + here.step
        ahead = function.gradient(trial)
        better = contract.all_finite(trial, ahead) & (norm(here.scale * ahead) <= norm(here.scale * end.gradient) / 2)
        better &= allowed & jnp.any(here.step != 0) & (count < _MAX_POLISHES)
        vector, gradient = jnp.where(better, trial, end.vector), jnp.where(better, ahead, end.gradient)
        return end._replace(vector=vector, gradient=gradient), here._replace(ahead=ahead), count + 1, better

    size = end.vector.size
    matrices = None if search.newton is not None else jnp.zeros((2, size, size), end.vector.dtype)
    nothing = _Local(matrices, end.vector, jnp.zeros_like(end.vector[0]), end.vector, end.vector)
    state = (end, nothing, jnp.zeros((), jnp.int32), jnp.ones((), bool))
    return jax.lax.while_loop(lambda s: s[3], body, state)[:2]


def _measured(function: Function, end: End, local: _Local, level: jax.Array) -> _Measured:
    """Return the Newton step, with the one that the rounding of the gradient could make, and the index."""
    if local.matrices is None:
        error = jnp.full_like(local.step, 8 * norm(local.step))
        return _Measured(local.residual, local.step, error, jnp.full((), -1))
    matrix, other = local.matrices
    wrong = 8 * (jnp.abs(other - matrix) + function.unit * jnp.abs(matrix))
    scale = _scaling(matrix, wrong)
    coarse = damped_newton(matrix, end.gradient, 1e-6 * matrix_size(matrix))
    step = _scaled_newton(matrix, scale, end.gradient, 1e-10)
    rounding = jnp.abs(_scaled_newton(matrix, scale, level * _signs(1, level)[0], 1e-8))
    return _Measured(
        residual=jnp.linalg.norm(matrix @ coarse + end.gradient),
        step=step,
        error=8 * jnp.abs(step) + 4 * rounding + scale**2 * level,
        negative=_index(_scaled(matrix, scale), _scaled(wrong, scale), function.unit),
    )


def _index(matrix: jax.Array, wrong: jax.Array, unit: float) -> jax.Array:
    """Return the number of negative eigenvalues; −1 unless all are larger than the error of the matrix."""
    values = contract.one_at_a_time(jnp.linalg.eigvalsh)(matrix)
    bound = jnp.max(jnp.sum(wrong, axis=1)) + 4 * unit * len(matrix) * jnp.max(jnp.abs(values))
    known = jnp.all(jnp.abs(values) > bound)
    return jnp.where(known, jnp.sum(values < 0), -1)


def _scaled_newton(matrix: jax.Array, scale: jax.Array, gradient: jax.Array, damping: float) -> jax.Array:
    scaled = _scaled(matrix, scale)
    return scale * damped_newton(scaled, scale * gradient, damping * matrix_size(scaled))


def _scaled(matrix: jax.Array, scale: jax.Array) -> jax.Array:
    return matrix * scale[:, None] * scale


def _scaling(matrix: jax.Array, wrong: jax.Array | None) -> jax.Array:
    """Return s for which diag(s) H diag(s) has rows of largest entry 1; rows that hold only rounding stay small.

    As `curvature.signs.scaling`: the error of a row, relative to its largest entry, is taken to be no less than that of
    the most exact row.
    """
    size = jnp.abs(matrix)
    if wrong is not None:
        rows, errors = jnp.max(size, axis=1), jnp.max(wrong, axis=1)
        most_exact = jnp.min(jnp.where(rows > 0, errors / jnp.where(rows > 0, rows, 1), jnp.inf))
        size = jnp.maximum(size, wrong / jnp.where(jnp.isfinite(most_exact) & (most_exact > 0), most_exact, 1))

    def sweep(_: int, scale: jax.Array) -> jax.Array:
        rows = jnp.max(size * scale[:, None] * scale, axis=1)
        return scale / jnp.sqrt(jnp.where(rows > 0, rows, 1))

    diagonal = jnp.diag(size)
    begin = 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    return jax.lax.fori_loop(0, _SWEEPS, sweep, begin)


def _signs(number: int, like: jax.Array) -> jax.Array:
    """Return rows of random signs."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(number, like.size))
    return jnp.asarray(signs, like.dtype)


def _size(vector: jax.Array, scale: jax.Array, start: jax.Array) -> jax.Array:
    """Return the size as which each parameter is rounded: its own, or the typical one at the start if that is larger.

    Typical in units of the scale, where curvature is about one, and never above the mean.
    """
    typical = scale * jnp.sort(jnp.abs(start) / scale)[(start.size - 1) // 2]
    return jnp.maximum(jnp.abs(vector), jnp.minimum(typical, contract.typical_size(start)))
