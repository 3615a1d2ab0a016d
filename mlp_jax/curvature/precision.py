"""Float64 without touching the caller's settings."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from mlp_jax import _checks
from mlp_jax.curvature import tracing
from mlp_jax.tree import PyTree

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
    """Return `function` with every matrix product that it traces in the whole precision of its dtype.

    Unasked, JAX rounds the factors of a float32 product to 10 bits on some GPUs (TF32): an error of 1e-3, in which
    the vectors of a Krylov space are not orthogonal. On a CPU nothing changes.

    Examples
    --------
    >>> square = whole_products(lambda x: x @ x)
    >>> "HIGHEST" in str(jax.make_jaxpr(square)(jnp.ones((2, 2))))
    True
    """

    @functools.wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return inside  # type: ignore[return-value]


def promote(values: PyTree) -> PyTree:
    """Return the pytree with floating leaves as float64 arrays; other leaves as they are. Host-level.

    Call it inside `float64()`: elsewhere JAX would round to float32 again.

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


def require_scalar_function(fun: Callable[..., jax.Array], params: PyTree, args: tuple, name: str = "fun") -> None:
    """Raise unless `fun(params, *args)` is one real number, params are finite floats and args hold no NaN.

    Nothing is compiled: `fun` is traced with abstract values.

    Raises
    ------
    TypeError
        `fun` is not callable, args is not a tuple, params are not floating, the result is not one real scalar.
    ValueError
        params are empty or not finite, or a number in args is NaN or infinite.

    Examples
    --------
    >>> require_scalar_function(lambda x: x**2, jnp.ones(()), ())
    """
    _require_arguments(fun, params, args, name)
    _require_scalar_result(fun, params, args, name)


def traced_problem(fun: Callable[..., jax.Array], params: PyTree, args: tuple) -> tuple[tracing.Traced, PyTree, tuple]:
    """Return `fun` as traced in float64, with params and args in float64, after the checks above. Host-level.

    Call it inside `float64()`.

    Examples
    --------
    >>> with float64():
    ...     fun, params, args = traced_problem(lambda x: x**2, jnp.full((), 3, jnp.float32), ())
    ...     float(fun(params, *args))
    9.0
    """
    _require_arguments(fun, params, args)
    params, args = promote(params), promote(args)
    function = traced(fun, params, args)
    _require_scalar(function.result, "fun")
    return function, params, args


def traced(fun: Callable[..., Any], params: PyTree, args: tuple) -> tracing.Traced:
    """Return `fun` as traced at params and args, or raise a clear error where it returns no arrays.

    Examples
    --------
    >>> traced(lambda x: 2 * x, jnp.ones(3), ()).result.shape
    (3,)
    """
    _checks.function(fun, "fun", _SIGNATURE)
    try:
        return tracing.trace(fun, params, args)
    except TypeError:
        jax.eval_shape(functools.partial(fun), params, *args)  # where no arrays come back
        raise


def _require_arguments(fun: Callable[..., jax.Array], params: PyTree, args: tuple, name: str = "fun") -> None:
    _checks.function(fun, name, _SIGNATURE)
    _checks.params(params)
    _checks.args(args)


def _require_scalar_result(fun: Callable[..., jax.Array], params: PyTree, args: tuple, name: str = "fun") -> None:
    _require_scalar(jax.eval_shape(fun, params, *args), name)


def _require_scalar(result: Any, name: str) -> None:
    shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name}: got a result of {_describe(result)}, expected one real floating-point scalar.")


def _describe(result: Any) -> str:
    if hasattr(result, "shape"):
        return f"shape {result.shape} and dtype {result.dtype}"
    return f"a {type(result).__name__} with {len(jax.tree.leaves(result))} leaves"
