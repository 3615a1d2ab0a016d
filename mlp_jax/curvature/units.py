"""What precision a function and its derivatives really compute in."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from mlp_jax import _checks, _compiled
from mlp_jax.curvature import operators, precision, tracing
from mlp_jax.curvature.types import Fun, PyTree

# Unit roundoff of a product that asks for less than its dtype: bfloat16, the coarsest that JAX takes for float32.
_LOW_PRODUCT = 2.0**-8


def rounding_unit(fun: Fun, params: PyTree, args: tuple = ()) -> float:
    """Return the unit roundoff of the coarsest floating type that `fun` or its derivatives compute in.

    u = 2⁻⁵³ for float64 throughout; 2⁻²⁴ when anything that depends on params passes through float32 or complex64, even
    if the result is float64 again; 2⁻⁸ when such a product is told to round its factors (`precision="default"`). The
    gradient and the Hessian of a scalar function are inspected too, since a derivative rule may be coarser than the
    function. Constants and data of lower precision count as exact. Host-level; compiles nothing. Raises TypeError if
    `fun` is not a function of params and args, or params are not floating.

    Examples
    --------
    >>> rounding_unit(lambda x: jnp.sum(x**2), jnp.ones(2)) == 2.0**-53
    True
    >>> rounding_unit(lambda x: jnp.sum(x.astype(jnp.float32) ** 2).astype(x.dtype), jnp.ones(2)) == 2.0**-24
    True
    """
    _checks.leaves(params, "params", floating=True)
    _checks.args(args)
    with precision.float64():
        params, args = precision.promote((params, args))
        return traced_unit(precision.traced(fun, params, args), params)


def traced_unit(traced: tracing.Traced, params: PyTree) -> float:
    """Return `rounding_unit` of a traced function."""
    return _unit(traced, len(jax.tree.leaves(params)))


@_compiled.while_alive
def _unit(traced: tracing.Traced, from_params: int) -> float:
    first, result = len(traced.consts), traced.result
    marks = [first <= i < first + from_params for i in range(len(traced.jaxpr.invars))]
    units = [2.0**-53, *_units(traced.jaxpr, marks)]
    if getattr(result, "shape", None) == () and jnp.issubdtype(result.dtype, jnp.floating):
        jaxpr = hessian_jaxpr(traced, from_params)
        units += _units(jaxpr, [i < from_params for i in range(len(jaxpr.invars))])
    return max(units)


@_compiled.while_alive
def hessian_jaxpr(traced: tracing.Traced, from_params: int) -> core.Jaxpr:
    """Return value, gradient and Hessian-vector product in the first inputs as a jaxpr of all inputs and the vector."""
    given = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in traced.avals]
    run = _compiled.weak(traced)

    def value(leaves: list[jax.Array], *rest: jax.Array) -> jax.Array:
        return run()(leaves, *rest)

    def all_three(leaves: list[jax.Array], rest: list[jax.Array], vector: list[jax.Array]) -> PyTree:
        product = operators.hessian_product(value)(leaves, tuple(rest), vector)
        return jax.value_and_grad(value)(leaves, *rest), product

    parameters = given[:from_params]
    return jax.make_jaxpr(all_three)(parameters, given[from_params:], parameters).jaxpr


def _units(jaxpr: Any, dependent: list[bool]) -> Iterator[float]:
    """Yield the unit roundoff of every floating value in a jaxpr that depends on the marked inputs."""
    reached = {v for v, is_dependent in zip(jaxpr.invars, dependent, strict=True) if is_dependent}
    for eqn in jaxpr.eqns:
        marks = [not isinstance(v, core.Literal) and v in reached for v in eqn.invars]
        if not any(marks):
            continue
        reached.update(eqn.outvars)
        for out in eqn.outvars:
            if jnp.issubdtype(out.aval.dtype, jnp.inexact):
                unit = float(jnp.finfo(out.aval.dtype).eps) / 2
                if eqn.primitive.name == "reduce_precision":
                    unit = max(unit, 2.0 ** -(eqn.params["mantissa_bits"] + 1))
                yield max(unit, _LOW_PRODUCT) if unit > 2.0**-53 and _rounds_factors(eqn) else unit
        for inner in tracing.inner_jaxprs(eqn):
            count = len(inner.invars)
            # Calls pass their inputs by position; loops and branches are taken to mix everything.
            straight = count == len(marks) and eqn.primitive.name not in ("scan", "while")
            yield from _units(inner, marks if straight else [True] * count)


def _rounds_factors(eqn: Any) -> bool:
    """Return whether a product may round its factors below their dtype; within `float64` the default does not."""
    if eqn.primitive.name not in ("dot_general", "conv_general_dilated"):
        return False
    requested = eqn.params["precision"]
    each = requested if isinstance(requested, tuple) else (requested,)
    return any(one not in (None, jax.lax.Precision.HIGHEST) for one in each)
