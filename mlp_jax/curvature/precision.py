"""Float64 without touching the caller's settings, and what precision a function really computes in."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend import core

from mlp_jax import require, tree
from mlp_jax.tree import PyTree

_SIGNATURE = "(params, *args) -> scalar"
# What a product may be rounded to that asks for less than its dtype: bfloat16, the coarsest that JAX takes for float32.
_LOW_PRODUCT = 2.0**-8
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


def promote_problem(fun: Callable[..., jax.Array], params: PyTree, args: tuple) -> tuple[PyTree, tuple]:
    """Return params and args in float64, after the checks of `require_scalar_function`. Host-level.

    Call it inside `float64()`; `fun` is traced with what it will be given there.

    Examples
    --------
    >>> with float64():
    ...     params, args = promote_problem(lambda x: x**2, jnp.ones((), jnp.float32), ())
    >>> params.dtype
    dtype('float64')
    """
    _require_arguments(fun, params, args)
    params, args = promote(params), promote(args)
    _require_scalar_result(fun, params, args)
    return params, args


def _require_arguments(fun: Callable[..., jax.Array], params: PyTree, args: tuple, name: str = "fun") -> None:
    require.function(fun, name, _SIGNATURE)
    tree.require_floating(params)
    tree.require_args(args)


def _require_scalar_result(fun: Callable[..., jax.Array], params: PyTree, args: tuple, name: str = "fun") -> None:
    result = require.abstract_result(fun, name, _SIGNATURE, params, *args)
    shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name}: got a result of {_describe(result)}, expected one real floating-point scalar.")


def _describe(result: Any) -> str:
    if hasattr(result, "shape"):
        return f"shape {result.shape} and dtype {result.dtype}"
    return f"a {type(result).__name__} with {len(jax.tree.leaves(result))} leaves"


def rounding_unit(fun: Callable[..., jax.Array], params: PyTree, args: tuple = ()) -> float:
    """Return the unit roundoff of the coarsest floating type that `fun` computes in on the way from params.

    u = 2⁻⁵³ for float64 throughout; 2⁻²⁴ when anything that depends on params passes through float32, even if
    the result is float64 again; 2⁻⁸ when such a product is told to round its factors (`precision="default"`). Constants
    and data of lower precision count as exact. Host-level; compiles nothing.

    Raises
    ------
    TypeError, ValueError
        `fun` is not a function of params and args, or returns no arrays; params are not floating; args are not a tuple
        of arrays.

    Examples
    --------
    >>> rounding_unit(lambda x: jnp.sum(x**2), jnp.ones(2)) == 2.0**-53
    True
    >>> rounding_unit(lambda x: jnp.sum(x.astype(jnp.float32) ** 2).astype(x.dtype), jnp.ones(2)) == 2.0**-24
    True
    """
    tree.require_floating_dtypes(params, "params")
    tree.require_args(args)
    with float64():
        given = promote(params), *promote(args)
        require.function(fun, "fun", _SIGNATURE, len(given))
        try:
            closed = jax.make_jaxpr(fun)(*given)
        except TypeError:
            require.abstract_result(fun, "fun", _SIGNATURE, *given)  # where it returns no arrays, this says so
            raise
        from_params = len(jax.tree.leaves(params))
        dependent = [i < from_params for i in range(len(closed.jaxpr.invars))]
        return max(_units(closed.jaxpr, dependent), default=2.0**-53)


def _units(jaxpr: Any, dependent: list[bool]) -> Iterator[float]:
    """Yield the unit roundoff of every floating value in a jaxpr that depends on the marked inputs."""
    reached = {v for v, is_dependent in zip(jaxpr.invars, dependent, strict=True) if is_dependent}
    for eqn in jaxpr.eqns:
        marks = [not isinstance(v, core.Literal) and v in reached for v in eqn.invars]
        if not any(marks):
            continue
        reached.update(eqn.outvars)
        for out in eqn.outvars:
            if jnp.issubdtype(out.aval.dtype, jnp.floating):
                unit = float(jnp.finfo(out.aval.dtype).eps) / 2
                yield max(unit, _LOW_PRODUCT) if unit > 2.0**-53 and _rounds_factors(eqn) else unit
        for inner in _inner_jaxprs(eqn):
            count = len(inner.invars)
            # Calls pass their inputs by position; loops and branches are taken to mix everything.
            straight = count == len(marks) and eqn.primitive.name not in ("scan", "while")
            yield from _units(inner, marks if straight else [True] * count)


def _rounds_factors(eqn: Any) -> bool:
    """Whether a product may round its factors below their dtype; told nothing, it does not within `float64`."""
    if eqn.primitive.name not in ("dot_general", "conv_general_dilated"):
        return False
    asked = eqn.params["precision"]
    each = asked if isinstance(asked, tuple) else (asked,)
    return any(one not in (None, jax.lax.Precision.HIGHEST) for one in each)


def _inner_jaxprs(eqn: Any) -> Iterator[Any]:
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(item, "jaxpr"):
                yield item.jaxpr
            elif hasattr(item, "eqns"):
                yield item
