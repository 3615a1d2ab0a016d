"""A true minimum of a network too large for dense methods: trust-region Newton with conjugate gradients.

Steihaug (1983), "The conjugate gradient method and trust regions in large scale optimization". It ends where the
gradient is at its rounding level: where a Newton step no longer makes it smaller.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from mlp_jax import curvature, tree

_MAX_PRODUCTS = 2000
# Below this relative change the values of the function are rounding, and only the gradient shows progress.
_ROUNDING = 1e-12


def minimise(fun: Callable[..., jax.Array], start: Any, args: tuple, max_steps: int = 500) -> tuple[Any, float, int]:
    """Return (params, gradient norm, number of Hessian-vector products)."""
    vector, unravel = tree.ravel(start)
    evaluate = jax.jit(lambda v, *args: jax.value_and_grad(lambda u: fun(unravel(u), *args))(v))
    direction = jax.jit(functools.partial(_steihaug, lambda v, *args: fun(unravel(v), *args)))
    value, gradient = evaluate(vector, *args)
    radius, products = 1.0, 0
    bar = tqdm.trange(max_steps, desc="minimum", leave=False, disable=None)
    for _ in bar:
        size = float(jnp.linalg.norm(gradient))
        bar.set_postfix(gradient=f"{size:.1e}", products=products)
        step, change, steps = direction(vector, gradient, radius, min(0.1, size**0.5) * size, args)
        products += int(steps)
        new_value, new_gradient = evaluate(vector + step, *args)
        ratio, length = float((new_value - value) / change), float(jnp.linalg.norm(step))
        by_rounding = abs(float(change)) < _ROUNDING * abs(float(value))
        if by_rounding and float(jnp.linalg.norm(new_gradient)) >= 0.9 * size:
            break
        if by_rounding or ratio > 0.1:
            vector, value, gradient = vector + step, new_value, new_gradient
        if by_rounding:
            continue
        if ratio < 0.25:
            radius = length / 4
        elif ratio > 0.75 and length > 0.99 * radius:
            radius *= 2.5
    return unravel(vector), float(np.linalg.norm(gradient)), products


def _steihaug(fun, vector, gradient, radius, tolerance, args):
    """Return (step, change of the quadratic model, products): to the minimum of the model, or to the boundary."""
    product = curvature.hessian(fun, vector, args)

    def to_boundary(step, along):
        a, b, c = along @ along, step @ along, step @ step - radius**2
        return (-b + jnp.sqrt(b * b - a * c)) / a

    def body(state):
        count, step, residual, along, _ = state
        curved = product(along)
        bend, size = along @ curved, residual @ residual
        inside = step + size / bend * along
        stop = (bend <= 0) | (inside @ inside >= radius**2)
        length = jnp.where(stop, to_boundary(step, along), size / bend)
        left = residual + length * curved
        done = stop | (left @ left <= tolerance**2)
        return count + 1, step + length * along, left, (left @ left) / size * along - left, done

    start = (jnp.zeros((), int), jnp.zeros_like(vector), gradient, -gradient, jnp.zeros((), bool))
    count, step, residual, _, _ = jax.lax.while_loop(lambda s: ~s[4] & (s[0] < _MAX_PRODUCTS), body, start)
    return step, step @ (gradient + residual) / 2, count
