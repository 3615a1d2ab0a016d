"""Float64 without touching the caller's settings, and the checks of functions of (params, *args)."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from mlp_jax import _checks
from mlp_jax.curvature import tracing
from mlp_jax.curvature.types import Fun, PyTree


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Enable float64, and the full precision of every matrix product, within the context."""
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        yield


@contextlib.contextmanager
def _highest() -> Iterator[None]:
    with jax.default_matmul_precision("highest"):
        yield


# Decorator: every matrix product that the function traces has the full precision of its dtype. By default JAX rounds
# the factors of a float32 product to 10 bits on some GPUs (TF32). With an error of 1e-3 the vectors of a Krylov space
# are not orthogonal. On a CPU nothing changes.
whole_products = _highest()


def promote(values: PyTree) -> PyTree:
    """Return the pytree with floating leaves as float64 arrays. Call it inside `float64()`."""

    def leaf(x: Any) -> Any:
        floating = jnp.issubdtype(jnp.result_type(x), jnp.floating)
        return jnp.asarray(x, dtype=jnp.float64) if floating else x

    return jax.tree.map(leaf, values)


def require_scalar_function(fun: Fun, params: PyTree, args: tuple, name: str = "fun") -> None:
    """Raise unless `fun(params, *args)` is one real number, params are finite floats and args hold no NaN.

    For transformable functions: nothing is compiled. A `Traced` function has been checked already.
    """
    if not isinstance(fun, tracing.Traced):
        _require_arguments(fun, params, args, name)
        _checks.scalar(jax.eval_shape(fun, params, *args), name)


def traced_problem(fun: Fun, params: PyTree, args: tuple) -> tuple[tracing.Traced, PyTree, tuple]:
    """Return `fun` as traced in float64, with params and args in float64: the one check of host-level functions.

    Call it inside `float64()`. The result may be passed in again at no cost. Errors: see `operators.hessian`.
    """
    function, params, args = traced_function(fun, params, args)
    _checks.scalar(function.result, "fun")
    return function, params, args


def traced_function(fun: Fun, params: PyTree, args: tuple) -> tuple[tracing.Traced, PyTree, tuple]:
    """Do as `traced_problem` for a function that need not return a scalar."""
    if not isinstance(fun, tracing.Traced):
        _require_arguments(fun, params, args)
    params, args = promote((params, args))
    return traced(fun, params, args), params, args


def traced(fun: Fun, params: PyTree, args: tuple) -> tracing.Traced:
    """Return `fun` as traced at params and args; raise JAX's error if it returns no arrays."""
    try:
        return tracing.trace(fun, params, args)
    except TypeError:
        jax.eval_shape(functools.partial(fun), params, *args)  # its message names the result that is not an array
        raise


def _require_arguments(fun: Fun, params: PyTree, args: tuple, name: str = "fun") -> None:
    _checks.function(fun, name, "(params, *args) -> scalar")
    _checks.params(params)
    _checks.args(args)
