"""Float64 without touching the caller's settings, and the checks of functions of (params, *args)."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from mlp_jax import _checks
from mlp_jax.curvature import tracing
from mlp_jax.curvature.types import Fun, PyTree

_SIGNATURE = "(params, *args) -> scalar"
_Function = TypeVar("_Function", bound=Callable[..., Any])


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Within it JAX computes in float64 where asked to, and float32 products inside `fun` are not rounded further.

    Examples
    --------
    >>> with float64():
    ...     print(jnp.ones(1).dtype)
    float64
    """
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        yield


def whole_products(function: _Function) -> _Function:
    """Return `function` with every matrix product that it traces in the full precision of its dtype.

    By default JAX rounds the factors of a float32 product to 10 bits on some GPUs (TF32): an error of 1e-3, in which
    the vectors of a Krylov space are not orthogonal. On a CPU nothing changes.
    """

    @functools.wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return inside  # type: ignore[return-value]


def promote(values: PyTree) -> PyTree:
    """Return the pytree with floating leaves as float64 arrays; other leaves as they are. Call it inside `float64()`.

    Examples
    --------
    >>> with float64():
    ...     print(promote({"a": jnp.ones(2, jnp.float32)})["a"].dtype)
    float64
    """

    def leaf(x: Any) -> Any:
        floating = jnp.issubdtype(jnp.result_type(x), jnp.floating)
        return jnp.asarray(x, dtype=jnp.float64) if floating else x

    return jax.tree.map(leaf, values)


def require_scalar_function(fun: Fun, params: PyTree, args: tuple, name: str = "fun") -> None:
    """Raise unless `fun(params, *args)` is one real number, params are finite floats and args hold no NaN.

    For transformable functions: `fun` is traced with abstract values, and nothing is compiled. A `Traced` function has
    been checked already.
    """
    if not isinstance(fun, tracing.Traced):
        _require_arguments(fun, params, args, name)
        _checks.scalar(jax.eval_shape(fun, params, *args), name)


def traced_problem(fun: Fun, params: PyTree, args: tuple) -> tuple[tracing.Traced, PyTree, tuple]:
    """Return `fun` as traced in float64, with params and args in float64: the one check of host-level functions.

    Call it inside `float64()`. What comes back passes through here again without another check or trace.

    Raises
    ------
    TypeError
        `fun` is not callable, args is not a tuple, params are not floating, the result is not one real scalar.
    ValueError
        params are empty or not finite, or a number in args is NaN or infinite.

    Examples
    --------
    >>> with float64():
    ...     fun, params, args = traced_problem(lambda x: x**2, jnp.full((), 3, jnp.float32), ())
    ...     float(fun(params, *args))
    9.0
    """
    if not isinstance(fun, tracing.Traced):
        _require_arguments(fun, params, args)
    params, args = promote((params, args))
    function = traced(fun, params, args)
    _checks.scalar(function.result, "fun")
    return function, params, args


def traced(fun: Fun, params: PyTree, args: tuple) -> tracing.Traced:
    """Return `fun` as traced at params and args; raise what JAX says where it returns no arrays."""
    try:
        return tracing.trace(fun, params, args)
    except TypeError:
        jax.eval_shape(functools.partial(fun), params, *args)  # its message names the result that is not an array
        raise


def _require_arguments(fun: Fun, params: PyTree, args: tuple, name: str = "fun") -> None:
    _checks.function(fun, name, _SIGNATURE)
    _checks.params(params)
    _checks.args(args)
