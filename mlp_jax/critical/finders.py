"""Find critical points: points where the gradient of any function of any pytree is zero to rounding."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax import curvature, tree
from mlp_jax.curvature import matrices, precision
from mlp_jax.tree import PyTree

HessianMatrix = Callable[..., jax.Array]


class Reason(enum.IntEnum):
    """Why a search stopped."""

    ROUNDING = 0
    GRADIENT_FLAT = 1
    NO_DESCENT = 2
    MAX_STEPS = 3
    NOT_FINITE = 4

    def __str__(self) -> str:
        return _REASONS[self]


_REASONS = {
    Reason.ROUNDING: "the gradient is at the level of its own rounding",
    Reason.GRADIENT_FLAT: "the gradient norm is stationary where the gradient is not zero (gradient-flat point)",
    Reason.NO_DESCENT: "no step made the gradient smaller, above the level of its rounding",
    Reason.MAX_STEPS: "the largest number of steps was reached",
    Reason.NOT_FINITE: "the gradient or the Hessian at the start is not finite",
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Point:
    """Where a search ended.

    params
        The point, float64.
    gradient_norm
        ‖g‖₂ there.
    flatness
        ‖H p + g‖ / ‖g‖ with p the minimum-residual Newton step: near 0 where Newton's method would go on to a zero
        of the gradient, near 1 where the gradient lies in the null space of H (Frye et al. 2021). Meaningless once
        the gradient is at its rounding level.
    converged
        True only when the gradient is at the level of its own rounding.
    steps
        Number of Hessians evaluated.
    reason
        A `Reason` (its number, when vmapped or traced); `str(point.reason)` says it in words.
    """

    params: PyTree
    gradient_norm: jax.Array
    flatness: jax.Array
    converged: jax.Array
    steps: jax.Array
    reason: jax.Array | Reason


def find(
    fun: Callable[..., jax.Array],
    params: PyTree,
    args: tuple = (),
    *,
    hessian: HessianMatrix | None = None,
    max_steps: int = 200,
) -> Point:
    """Descend the gradient norm from params to a critical point of any index. Transformable.

    Levenberg–Marquardt on ½‖g‖²: each step is −(H² + ν²)⁻¹ H g = −Re (H + iν)⁻¹ g, which one complex solve gives
    without squaring the condition number; ν falls as the model is trusted, so that the last steps are Newton's.
    It ends when the gradient is within the change that a rounding of params makes to it, and reports no convergence
    anywhere else. Dense: 16 P² bytes times about 4, and O(P³) work a step.

    Outside jit it computes in float64 whatever the caller's default; a second call with the same functions and
    shapes compiles nothing.

    Parameters
    ----------
    fun
        `(params, *args) -> scalar`.
    params
        Start: any pytree of floating arrays.
    args
        Further arguments of `fun`: data goes here.
    hessian
        `(params, *args) -> (P, P)` in the order of `tree.ravel`, such as a partial of `mlp_hessian.dense`;
        `curvature.dense_hessian` of `fun` when None.
    max_steps
        Most Hessians to evaluate.

    Returns
    -------
    Point(params, gradient_norm, flatness, converged, steps, reason)

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `curvature.dense_hessian`.

    Examples
    --------
    >>> point = find(lambda x: x[0] ** 3 - 3 * x[0] + x[1] ** 2, jnp.array([2.0, 1.0]))
    >>> bool(point.converged), [round(float(v), 12) + 0.0 for v in point.params]
    (True, [1.0, 0.0])
    >>> str(point.reason)
    'the gradient is at the level of its own rounding'
    """
    precision.require_scalar_function(fun, params, args)
    matrices.require_memory(tree.size(params), matrices=8)
    if max_steps < 1:
        raise ValueError(f"max_steps: got {max_steps}, expected 1 or more.")
    if tree.is_traced((params, args)):
        return _find(fun, hessian, max_steps, params, args)
    unit = precision.rounding_unit(fun, params, args)
    with jax.enable_x64(True):
        point = _compiled_find(fun, hessian, max_steps, precision.promote(params), precision.promote(args), unit)
        return dataclasses.replace(point, reason=Reason(int(point.reason)))


class _Search(NamedTuple):
    vector: jax.Array
    gradient: jax.Array
    matrix: jax.Array
    damping: jax.Array  # ν
    growth: jax.Array  # factor by which a failed step raises ν
    steps: jax.Array
    failures: jax.Array  # failed trial steps in a row
    reason: jax.Array  # −1 while running


def _find(
    fun: Callable[..., jax.Array],
    hessian: HessianMatrix | None,
    max_steps: int,
    params: PyTree,
    args: tuple,
    unit: float | None = None,
) -> Point:
    start, unravel = tree.ravel(params)
    unit = float(jnp.finfo(start.dtype).eps) / 2 if unit is None else unit

    def gradient_at(vector: jax.Array) -> jax.Array:
        return tree.ravel(jax.grad(fun)(unravel(vector), *args))[0]

    def matrix_at(vector: jax.Array) -> jax.Array:
        if hessian is None:
            return curvature.dense_hessian(fun, unravel(vector), args)
        return hessian(unravel(vector), *args)

    def advance(search: _Search) -> _Search:
        return _advance(search, gradient_at, matrix_at, unit, max_steps)

    gradient, matrix = gradient_at(start), matrix_at(start)
    finite = jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(matrix))
    size = jnp.linalg.norm(matrix, axis=1).max()
    search = _Search(
        vector=start,
        gradient=gradient,
        matrix=matrix,
        damping=1e-2 * size,
        growth=jnp.full_like(size, 2.0),
        steps=jnp.ones((), jnp.int32),
        failures=jnp.zeros((), jnp.int32),
        reason=jnp.where(finite, -1, int(Reason.NOT_FINITE)).astype(jnp.int32),
    )
    search = jax.lax.while_loop(lambda s: s.reason < 0, advance, search)
    step = _damped_newton(search.matrix, search.gradient, 1e-10 * jnp.linalg.norm(search.matrix, axis=1).max())
    size = jnp.linalg.norm(search.gradient)
    residual = jnp.linalg.norm(search.matrix @ step + search.gradient)
    return Point(
        params=unravel(search.vector),
        gradient_norm=size,
        flatness=residual / jnp.where(size == 0, 1, size),
        converged=search.reason == int(Reason.ROUNDING),
        steps=search.steps,
        reason=search.reason,
    )


_compiled_find = functools.partial(jax.jit, static_argnums=(0, 1, 2, 5))(_find)


def _damped_newton(matrix: jax.Array, gradient: jax.Array, damping: jax.Array) -> jax.Array:
    """Return −(H² + ν²)⁻¹ H g as −Re (H + iν)⁻¹ g."""
    shifted = jax.lax.complex(matrix, damping * jnp.eye(len(matrix), dtype=matrix.dtype))
    return -jnp.linalg.solve(shifted, jax.lax.complex(gradient, jnp.zeros_like(gradient))).real


def _advance(
    search: _Search,
    gradient_at: Callable[[jax.Array], jax.Array],
    matrix_at: Callable[[jax.Array], jax.Array],
    unit: float,
    max_steps: int,
) -> _Search:
    """Try one step; take it when it makes the gradient norm smaller, else raise the damping."""
    step = _damped_newton(search.matrix, search.gradient, search.damping)
    trial = search.vector + step
    gradient = gradient_at(trial)
    before, after = jnp.sum(search.gradient**2), jnp.sum(gradient**2)
    model = jnp.sum((search.gradient + search.matrix @ step) ** 2)
    # Near rounding the predicted and the actual reduction are both noise: take whatever is smaller.
    ratio = (before - after) / jnp.maximum(before - model, jnp.finfo(before.dtype).tiny)
    taken = jnp.isfinite(after) & (after < before)
    matrix = jax.lax.cond(taken, matrix_at, lambda _: search.matrix, trial)
    taken = taken & jnp.all(jnp.isfinite(matrix))
    matrix = jnp.where(taken, matrix, search.matrix)
    vector = jnp.where(taken, trial, search.vector)
    gradient = jnp.where(taken, gradient, search.gradient)
    shrink = jnp.clip(1 - (2 * ratio - 1) ** 3, 0.03, 4.0)
    damping = search.damping * jnp.where(taken, shrink, search.growth)
    floor = 1e-13 * jnp.linalg.norm(matrix, axis=1).max()
    steps = search.steps + taken.astype(jnp.int32)
    failures = jnp.where(taken, 0, search.failures + 1).astype(jnp.int32)
    # What a rounding of params changes the gradient by is the least that its norm can be known to.
    level = 4 * unit * jnp.linalg.norm(jnp.abs(matrix) @ jnp.abs(vector))
    size = jnp.linalg.norm(gradient)
    stationary = jnp.linalg.norm(matrix @ gradient) / (jnp.linalg.norm(matrix) * size)
    exact = (size == 0) | ((size <= level) & ~taken)
    stuck = failures >= 30
    reason = jnp.select(
        [exact, (size > level) & (stationary < 1e-9), stuck & (size <= 16 * level), stuck, steps >= max_steps],
        [
            int(Reason.ROUNDING),
            int(Reason.GRADIENT_FLAT),
            int(Reason.ROUNDING),
            int(Reason.NO_DESCENT),
            int(Reason.MAX_STEPS),
        ],
        -1,
    ).astype(jnp.int32)
    return _Search(
        vector=vector,
        gradient=gradient,
        matrix=matrix,
        damping=jnp.maximum(damping, floor),
        growth=jnp.where(taken, 2.0, search.growth * 2).astype(damping.dtype),
        steps=steps,
        failures=failures,
        reason=reason,
    )
