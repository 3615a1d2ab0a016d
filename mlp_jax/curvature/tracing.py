"""A function in float64, as JAX traces it: what every host-level analysis uses in place of the caller's function.

The caller's function is traced once for each set of shapes. While a trace is alive, JAX caches the function's numpy
constants in float64, and a later call by the caller in float32 would fail. The traced function therefore holds copies
of its constants; it lives as long as the caller's function.
"""

import functools
import gc
import math
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from mlp_jax import _compiled
from mlp_jax.curvature.types import Fun, PyTree


class Traced:
    """A function (params, *args) -> scalar as a jaxpr with copies of its constants. Transformable."""

    def __init__(self, jaxpr: core.Jaxpr, consts: list[Any], result: Any) -> None:
        self.jaxpr = jaxpr  # its first inputs are the constants
        self.consts = consts
        self.result = result  # shapes and dtypes of what the function returns

    def __call__(self, params: PyTree, *args: Any) -> jax.Array:
        """Return the value at params and args of the traced shapes."""
        return core.jaxpr_as_fun(core.ClosedJaxpr(self.jaxpr, []))(*self.consts, *jax.tree.leaves((params, args)))[0]

    @property
    def avals(self) -> list[Any]:
        """Shapes and dtypes of the leaves of params and args."""
        return [v.aval for v in self.jaxpr.invars[len(self.consts) :]]


def trace(fun: Fun, params: PyTree, args: tuple) -> Traced:
    """Return `fun` as traced at the shapes and dtypes of params and args; the same object at every call."""
    if isinstance(fun, Traced):
        return fun
    leaves, structure = jax.tree.flatten((params, args))
    avals = [jax.typeof(leaf) for leaf in leaves]
    return _traced(fun, structure, tuple((aval.shape, aval.dtype, aval.weak_type) for aval in avals))


@_compiled.while_alive
def _traced(fun: Fun, structure: Any, shapes: tuple) -> Traced:
    given = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in shapes]
    params, args = jax.tree.unflatten(structure, given)
    closed, result = _make_jaxpr(fun, params, args)
    if closed is None or any(map(_is_stale, _constants(closed))):
        # JAX reuses the float32 constants of the caller's own float32 programs.
        closed = None
        jax.clear_caches()
        gc.collect()
        closed, result = _make_jaxpr(fun, params, args)
    if closed is None:
        closed, result = _in_float32(fun, params, args)
    consts = [_copied(const) for const in closed.consts]
    if consts:
        # Trace again with the constants as inputs, because a jaxpr may hold the original ones.
        closed = jax.make_jaxpr(functools.partial(_with_consts, closed.jaxpr))(consts, jax.tree.leaves(given))
    for inner in jaxprs(closed.jaxpr):
        _release(inner)
    return Traced(closed.jaxpr, consts, result)


def _with_consts(jaxpr: core.Jaxpr, consts: list[Any], inputs: list[Any]) -> Any:
    return core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, consts))(*inputs)


_DtypesDiffer = TypeError, jax.dtypes.TypePromotionError


def _make_jaxpr(fun: Fun, params: PyTree, args: tuple) -> tuple[Any, Any]:
    """Return the jaxpr of fun and the shapes of its result; (None, None) if dtypes do not match."""
    try:
        return jax.make_jaxpr(lambda *given: fun(*given), return_shape=True)(params, *args)
    except _DtypesDiffer:
        return None, None


def _in_float32(fun: Fun, params: PyTree, args: tuple) -> tuple[Any, Any]:
    """Trace fun with its floating arguments in float32, as a loop with a float32 carry needs."""

    def low(leaf: jax.Array) -> jax.Array:
        return leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    def converted(*given: Any) -> jax.Array:
        return fun(*jax.tree.map(low, given)).astype(jnp.float64)

    try:
        return jax.make_jaxpr(converted, return_shape=True)(params, *args)
    except (AttributeError, *_DtypesDiffer):
        return jax.make_jaxpr(lambda *given: fun(*given), return_shape=True)(params, *args)


def _constants(closed: Any) -> Iterator[Any]:
    """Yield the constants and literals of a jaxpr and of all jaxprs inside it."""
    yield from closed.consts
    for jaxpr in jaxprs(closed.jaxpr):
        yield from (v.val for eqn in jaxpr.eqns for v in eqn.invars if isinstance(v, core.Literal))


def _is_stale(const: Any) -> bool:
    """Return whether a constant is a float32 copy of an array to which nothing else refers."""
    rounded = isinstance(const, np.ndarray) and const.dtype == np.float32 and const.base is not None
    return rounded and sys.getrefcount(const.base) <= 2


def _copied(const: Any) -> Any:
    if jax.dtypes.issubdtype(const.dtype, jax.dtypes.extended):
        return const
    return jnp.array(np.array(const))


def _release(jaxpr: core.Jaxpr) -> None:
    """Replace the caller's scalar arrays, which JAX holds as literals, by copies."""
    for eqn in jaxpr.eqns:
        for v in eqn.invars:
            if isinstance(v, core.Literal) and isinstance(v.val, np.ndarray):
                v.val = np.array(v.val)[()]


def jaxprs(jaxpr: core.Jaxpr) -> Iterator[core.Jaxpr]:
    """Yield a jaxpr and all jaxprs inside it."""
    yield jaxpr
    for eqn in jaxpr.eqns:
        for inner in inner_jaxprs(eqn):
            yield from jaxprs(inner)


def inner_jaxprs(eqn: Any) -> Iterator[core.Jaxpr]:
    """Yield the jaxprs among the parameters of an equation: bodies of calls, loops and branches."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(item, "jaxpr"):
                yield item.jaxpr
            elif hasattr(item, "eqns"):
                yield item


def longest_sum(jaxpr: core.Jaxpr) -> int:
    """Return the largest number of terms in a sum or matrix product, times the length of each enclosing scan."""
    longest = 1
    for eqn in jaxpr.eqns:
        first: Any = eqn.invars[0].aval if eqn.invars else None
        name, shape = eqn.primitive.name, () if first is None else first.shape
        if name == "dot_general":
            longest = max(longest, math.prod(shape[d] for d in eqn.params["dimension_numbers"][0][0]))
        elif name.startswith(("reduce_", "cum", "conv_")):
            longest = max(longest, math.prod(shape))
        inner = max((longest_sum(j) for j in inner_jaxprs(eqn)), default=1)
        longest = max(longest, inner * eqn.params["length"] if name == "scan" else inner)
    return longest
