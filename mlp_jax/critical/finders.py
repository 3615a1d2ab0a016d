"""Find critical points of any function of any pytree: points where its gradient is zero to rounding."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import curvature, tree
from mlp_jax.critical import eigenvector_following, gradient_norm
from mlp_jax.critical.searches import Function, Reason
from mlp_jax.curvature import matrices, precision
from mlp_jax.tree import PyTree

HessianMatrix = Callable[..., jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Point:
    """Where a search ended.

    params
        The point, float64; like the numbers below, numpy arrays when `find` was called outside jit.
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
    index: int | None = None,
    hessian: HessianMatrix | None = None,
    max_steps: int = 200,
    radius: float | None = None,
) -> Point:
    """Go from params to a critical point, of any index or of a chosen one. Transformable.

    Without `index` it descends the gradient norm (`gradient_norm.descend`: Levenberg–Marquardt), which reaches
    critical points of any index, and can end at gradient-flat points, which are not critical: it says which. With
    `index` it climbs along that many eigenvectors and descends along the others (`eigenvector_following.follow`);
    index 0 looks for minima. Both end with Newton's steps, and report convergence only where the gradient is within
    what a rounding of params changes it by.

    Outside jit it computes in float64 whatever the caller's default; a second call with the same functions, settings
    and shapes compiles nothing. Memory: 8 matrices of 8 P² bytes; O(P³) work a step.

    Parameters
    ----------
    fun
        `(params, *args) -> scalar`.
    params
        Start: any pytree of floating arrays.
    args
        Further arguments of `fun`: data goes here.
    index
        None, or the number of negative eigenvalues wanted, from 0 to P.
    hessian
        `(params, *args) -> (P, P)` in the order of `tree.ravel`, such as a partial of `mlp_hessian.dense`;
        `curvature.dense_hessian` of `fun` when None.
    max_steps
        Most Hessians to evaluate.
    radius
        Longest step towards a chosen index; a sixth of ‖params‖, or of 1 if that is larger, when None.

    Returns
    -------
    Point(params, gradient_norm, flatness, converged, steps, reason)

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `curvature.dense_hessian`; an index, a number of steps or a radius out of range.

    Examples
    --------
    >>> fun = lambda x: x[0] ** 3 - 3 * x[0] + x[1] ** 2
    >>> point = find(fun, jnp.array([2.0, 1.0]))
    >>> bool(point.converged), [round(float(v), 12) + 0.0 for v in point.params]
    (True, [1.0, 0.0])
    >>> [round(float(v), 12) + 0.0 for v in find(fun, jnp.array([-0.2, 1.0]), index=1).params]
    [-1.0, 0.0]
    >>> str(point.reason)
    'the gradient is at the level of its own rounding'
    """
    settings = (fun, hessian, max_steps, radius)
    if tree.is_traced((params, args)):
        precision.require_scalar_function(fun, params, args)
        _require_settings(index, max_steps, radius, tree.size(params))
        return _find(*settings, None, index, params, args)
    with jax.enable_x64(True):
        params, args = precision.promote_problem(fun, params, args)
        _require_settings(index, max_steps, radius, tree.size(params))
        unit = precision.rounding_unit(fun, params, args)
        point = _compiled_find(*settings, unit, index, params, args)
        # numpy, because JAX warns at every use of a float64 array where x64 is off.
        return dataclasses.replace(jax.tree.map(np.asarray, point), reason=Reason(int(point.reason)))


def _require_settings(index: int | None, max_steps: int, radius: float | None, size: int) -> None:
    matrices.require_memory(size, matrices=8)
    if index is not None and not (int(index) == index and 0 <= index <= size):
        raise ValueError(f"index: got {index}, expected None or a whole number from 0 to {size}.")
    if max_steps < 1:
        raise ValueError(f"max_steps: got {max_steps}, expected 1 or more.")
    if radius is not None and not radius > 0:
        raise ValueError(f"radius: got {radius}, expected a number above 0.")


def _find(
    fun: Callable[..., jax.Array],
    hessian: HessianMatrix | None,
    max_steps: int,
    radius: float | None,
    unit: float | None,
    index: int | jax.Array | None,
    params: PyTree,
    args: tuple,
) -> Point:
    start, unravel = tree.ravel(params)

    def matrix(vector: jax.Array) -> jax.Array:
        if hessian is None:
            return curvature.dense_hessian(fun, unravel(vector), args)
        return hessian(unravel(vector), *args)

    function = Function(
        gradient=lambda vector: tree.ravel(jax.grad(fun)(unravel(vector), *args))[0],
        matrix=matrix,
        unit=float(jnp.finfo(start.dtype).eps) / 2 if unit is None else unit,
    )
    if index is None:
        end = gradient_norm.descend(function, start, max_steps)
    else:
        longest = jnp.maximum(1, jnp.linalg.norm(start)) / 6 if radius is None else jnp.asarray(radius, start.dtype)
        end = eigenvector_following.follow(function, start, jnp.asarray(index), max_steps, longest)
    size = jnp.linalg.norm(end.gradient)
    # Damping far below any mode that matters: the minimum-residual step but for modes at rounding level.
    step = gradient_norm.damped_newton(end.matrix, end.gradient, 1e-10 * jnp.linalg.norm(end.matrix, axis=1).max())
    residual = jnp.linalg.norm(end.matrix @ step + end.gradient)
    return Point(
        params=unravel(end.vector),
        gradient_norm=size,
        flatness=residual / jnp.where(size == 0, 1, size),
        converged=end.reason == int(Reason.ROUNDING),
        steps=end.steps,
        reason=end.reason,
    )


_compiled_find = functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))(_find)
