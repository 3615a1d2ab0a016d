"""A function with its arithmetic rounded differently, which shows the rounding of its derivatives. Transformable.

Each result of the function's own arithmetic, each number of its data and each constant is changed by about one unit in
the last place, up or down at random (Monte Carlo arithmetic; Parker, Pierce & Eggert 2000). That shows errors that no
move of the parameters shows: a difference of two large sums that does not depend on them, or an absorbed number.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from mlp_jax.curvature.tracing import Traced
from mlp_jax.tree import PyTree

# Calls that are entered; loops, branches and calls with their own derivative rules are run unchanged.
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr"}
# Primitives without rounding.
_EXACT = {
    *("broadcast_in_dim", "reshape", "transpose", "squeeze", "expand_dims", "slice", "dynamic_slice", "concatenate"),
    *("dynamic_update_slice", "gather", "scatter", "rev", "pad", "select_n", "copy", "copy_p", "stop_gradient", "iota"),
    *("neg", "abs", "sign", "max", "min", "reduce_max", "reduce_min", "clamp", "floor", "ceil", "round", "sort"),
    *("real", "imag", "complex", "conj", "split", "argmax", "argmin", "convert_element_type", "reduce_precision"),
}
# Number of random starts of roundings; longer programs reuse them.
_STARTS = 1024
# Start and step of a sequence of signs that needs no seed.
_IN_TURN = 0x80000000, 0x79B10000


def perturbed(traced: Traced, unit: float, seed: jax.Array, params: PyTree, args: tuple) -> jax.Array:
    """Return the function's value with all but params rounded differently; its own value where seed is 0.

    `unit` is the function's unit roundoff: data and constants are moved by twice that, where it is coarser than that of
    their type. `seed`, an integer of 0 or more, chooses the roundings.
    """
    run = _Run(unit, seed)
    moved = [run.moved(leaf) for leaf in jax.tree.leaves(args)]
    inputs = [*map(run.moved, traced.consts), *jax.tree.leaves(params), *moved]
    return run.evaluate(traced.jaxpr, [], inputs)[0]


def moved_in_turn(data: Any, unit: float, by: jax.Array) -> Any:
    """Return floating data moved by `by` roundings, up or down depending on their position; other data unchanged."""
    if not _is_floating(jnp.result_type(data)):
        return data
    data = jnp.asarray(data)
    start, step = map(jnp.uint32, _IN_TURN)
    return data * _factor(data.shape, by.astype(data.dtype) * _coarsest(data.dtype, unit), start, step)


class _Run:
    """One evaluation, which numbers its roundings."""

    def __init__(self, unit: float, seed: jax.Array) -> None:
        self.unit = unit
        self.seed = jnp.asarray(seed, jnp.uint32)
        self.starts = _hash(jnp.arange(_STARTS, dtype=jnp.uint32) + self.seed * jnp.uint32(_STARTS))
        self.count = 0

    def evaluate(self, jaxpr: core.Jaxpr, consts: list[Any], inputs: list[Any]) -> list[Any]:
        env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))

        def read(v: Any) -> Any:
            return v.val if isinstance(v, core.Literal) else env[v]

        for eqn in jaxpr.eqns:
            env.update(zip(eqn.outvars, self.apply(eqn, [read(v) for v in eqn.invars]), strict=True))
        return [read(v) for v in jaxpr.outvars]

    def apply(self, eqn: Any, operands: list[Any]) -> list[Any]:
        name = eqn.primitive.name
        if name in _CALLS:
            inner = eqn.params[_CALLS[name]]
            return self.evaluate(inner.jaxpr, list(inner.consts), operands)
        with eqn.ctx.manager:
            results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
        results = list(results) if eqn.primitive.multiple_results else [results]
        return results if name in _EXACT else [self.moved(result, of_data=False) for result in results]

    def moved(self, value: Any, of_data: bool = True) -> Any:
        """Return floating numbers one unit above or below; for data, the function's unit where that is coarser."""
        dtype = jnp.result_type(value)
        if not _is_floating(dtype):
            return value
        self.count += 1
        size = _coarsest(dtype, self.unit if of_data else 0.0)
        change = jnp.where(self.seed > 0, jnp.asarray(size, dtype), jnp.zeros((), dtype))
        return value * _factor(jnp.shape(value), change, self.starts[self.count % _STARTS], jnp.uint32(0x9E3779B9))


def _coarsest(dtype: Any, unit: float) -> float:
    return max(float(jnp.finfo(dtype).eps), 2 * unit)


def _factor(shape: tuple[int, ...], change: jax.Array, start: jax.Array, step: jax.Array) -> jax.Array:
    """Return numbers 1 + change or 1 − change, by the highest bit of a Weyl sequence: cheap to compile and compute."""
    bits = jnp.arange(math.prod(shape), dtype=jnp.uint32) * step + start
    return (1 - change + 2 * change * (bits >> jnp.uint32(31)).astype(change.dtype)).reshape(shape)


def _is_floating(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))


def _hash(bits: jax.Array) -> jax.Array:
    """Return random bits for each number (the finaliser of MurmurHash3, Appleby 2011), cheap to compile."""
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> jnp.uint32(shift))) * jnp.uint32(multiplier)
    return bits ^ (bits >> jnp.uint32(16))
