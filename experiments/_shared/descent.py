"""Gradient descent and other first-order methods, from many starts at many learning rates in one program."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlp_jax import curvature

Fun = Callable[..., jax.Array]
Make = Callable[[Any], optax.GradientTransformation]


@functools.partial(jax.jit, static_argnames=("make", "fun", "steps", "points"))
def descend(
    make: Make, fun: Fun, starts: Any, rates: jax.Array, steps: int, args: Any = (), points: bool = False
) -> Any:
    """Return the values (rates, starts, steps + 1) of `fun` along every run; with `points`, the params too.

    `make` maps a rate to an optimiser; `starts` has a leading axis; `rates` is (rates,), or (rates, starts).
    """

    def one(params: Any, rate: jax.Array) -> Any:
        optimizer = make(rate)

        def step(carry: tuple, _: None) -> tuple[tuple, Any]:
            params, state = carry
            value, gradient = jax.value_and_grad(fun)(params, *args)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), (value, params) if points else value

        return jax.lax.scan(step, (params, optimizer.init(params)), None, length=steps + 1)[1]

    each = jnp.broadcast_to(rates.reshape(len(rates), -1), (len(rates), len(jax.tree.leaves(starts)[0])))
    return jax.vmap(jax.vmap(one), in_axes=(None, 0))(starts, each)


@functools.cache
def _product(fun: Fun) -> Callable[..., Any]:
    return lambda params, args, vector: curvature.hessian(fun, params, args)(vector)


def largest_eigenvalue(fun: Fun, params: Any, args: tuple, key: jax.Array) -> float:
    """Return the largest eigenvalue of the Hessian, to a thousandth of its size; else RuntimeError."""
    matvec = jax.tree_util.Partial(_product(fun), params, args)
    pairs = curvature.eigenpairs(matvec, params, key, largest=1, tolerance=1e-3, dense_limit=0, basis_size=40)
    if not np.all(pairs.converged):
        raise RuntimeError(f"the top eigenvalue did not converge: residual {float(pairs.residuals[-1]):.1e}.")
    return float(pairs.values[-1])
