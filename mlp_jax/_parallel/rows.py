"""Functions whose rows are split over the devices of a mesh. Transformable."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mlp_jax import _checks
from mlp_jax._parallel.placement import plain, require_mesh
from mlp_jax.tree import PyTree


def mean(per_example: Callable[..., jax.Array], mesh: Mesh) -> Callable[..., jax.Array]:
    """Return `fun(params, *args)`, the mean of `per_example(params, *args)`, examples split over a mesh. Transformable.

    Its gradient, products with its Hessian, searches and verdicts use all devices. Each computes with its share of the
    examples; a gradient or product sends one sum of P numbers (and one number). The result equals the plain mean to
    rounding, since the sum is in another order. Create it once, since a new function compiles again. Call it under
    `jax.jit`, as searches and verdicts do: outside jit, each operation on split arrays compiles alone. Args that
    `split` has put on the devices are not sent again at every call.

    Parameters
    ----------
    per_example
        `(params, *args) -> (n,)`; each value depends only on its own example. Every array in args has the n examples
        on its first axis; ValueError otherwise, when called.
    mesh
        A `jax.sharding.Mesh`, such as `jax.make_mesh((jax.device_count(),), ("devices",))`; all its axes are used.

    Examples
    --------
    >>> mesh = jax.make_mesh((jax.device_count(),), ("devices",))
    >>> fun = mean(lambda w, x: (w * x - 1) ** 2, mesh)
    >>> round(float(jax.jit(jax.grad(fun))(2.0, jnp.array([1.0, 2.0, 3.0]))), 4)
    14.6667
    """
    require_mesh(mesh)

    def fun(params: PyTree, *args: Any) -> jax.Array:
        rows = _checks.count_examples(args)

        def part(mine: tuple[tuple, jax.Array], params: PyTree) -> jax.Array:
            examples, real = mine
            values = per_example(params, *examples)
            if values.shape != real.shape:
                raise ValueError(f"per_example: got shape {values.shape}, expected {real.shape}, one value an example.")
            return jnp.sum(jnp.where(real, values, 0))

        real = jnp.arange(_padded(rows, mesh)) < rows
        return sum_over_rows(part, mesh, (pad(args, mesh), real), (params,)) / rows

    return fun


def sum_over_rows(function: Callable[..., PyTree], mesh: Mesh, rows: PyTree, shared: tuple = ()) -> PyTree:
    """Return the sum over devices of function(own rows, *shared), the same on every device. Transformable.

    rows: arrays whose first axis is a multiple of the number of devices (see `pad`); shared: replicated arguments.

    Examples
    --------
    >>> mesh = jax.make_mesh((1,), ("devices",))
    >>> sum_over_rows(lambda x, a: jnp.sum(a * x), mesh, jnp.arange(4.0), (2.0,)).item()
    12.0
    """

    def part(mine: PyTree, shared: tuple) -> PyTree:
        return jax.lax.psum(function(mine, *shared), mesh.axis_names)

    return _on_rows(part, mesh, rows, shared, PartitionSpec())


def over_rows(function: Callable[..., PyTree], mesh: Mesh, rows: PyTree, shared: tuple = ()) -> PyTree:
    """Return function(rows, *shared), split over the devices, for a function of each row alone. Transformable.

    function: (rows, *shared) -> arrays with the same first axis; rows, shared: see `sum_over_rows`. `to_host` fetches
    the result.

    Examples
    --------
    >>> mesh = jax.make_mesh((1,), ("devices",))
    >>> over_rows(lambda x, a: a * x, mesh, jnp.arange(3.0), (2.0,)).tolist()
    [0.0, 2.0, 4.0]
    """

    def part(mine: PyTree, shared: tuple) -> PyTree:
        return function(mine, *shared)

    return _on_rows(part, mesh, rows, shared, PartitionSpec(mesh.axis_names))


def gather(rows: PyTree, mesh: Mesh) -> PyTree:
    """Return split rows, replicated on every device."""

    def part(mine: PyTree, shared: tuple) -> PyTree:
        return jax.lax.all_gather(mine, mesh.axis_names, tiled=True)

    return _on_rows(part, mesh, rows, (), PartitionSpec())


def pad(rows: PyTree, mesh: Mesh) -> PyTree:
    """Return arrays padded with their last row to a multiple of the number of devices. Transformable.

    Examples
    --------
    >>> pad(jnp.arange(3.0), jax.make_mesh((1,), ("devices",))).shape
    (3,)
    """

    def leaf(a: Any) -> Any:
        missing = _padded(len(a), mesh) - len(a)
        return a if missing == 0 else jnp.concatenate([a, jnp.repeat(a[-1:], missing, axis=0)])

    return jax.tree.map(leaf, rows)


def sharded(function: Callable[..., Any], mesh: Mesh, arguments: Any, results: Any) -> Callable[..., Any]:
    """Return `function` computed by each device, with the specs of its arguments and results."""
    # check_vma would refuse loops whose carry starts from constants, as in most losses and searches.
    return jax.shard_map(function, mesh=mesh, in_specs=arguments, out_specs=results, check_vma=False)


def _on_rows(part: Callable[..., PyTree], mesh: Mesh, rows: PyTree, shared: tuple, results: PartitionSpec) -> PyTree:
    """Return part(own rows, shared) of each device, with the array types that `shard_map` requires."""
    lengths = {len(a) for a in jax.tree.leaves(rows)}
    if any(length % mesh.size for length in lengths):
        raise ValueError(f"rows: got {sorted(lengths)} for {mesh.size} devices, expected multiples of that.")
    mesh = plain(mesh)
    explicit = AxisType.Explicit in mesh.axis_types

    def typed(values: PyTree, spec: PartitionSpec) -> PyTree:
        there = NamedSharding(mesh, spec if explicit else PartitionSpec())
        return jax.tree.map(lambda a: jax.reshard(a, there) if explicit or _is_explicit(a) else a, values)

    specs = PartitionSpec(mesh.axis_names), PartitionSpec()
    return sharded(part, mesh, specs, results)(typed(rows, specs[0]), typed(shared, specs[1]))


def _is_explicit(a: Any) -> bool:
    """Return whether the type of an array has a mesh."""
    return AxisType.Explicit in jax.typeof(a).sharding.mesh.axis_types


def _padded(rows: int, mesh: Mesh) -> int:
    return math.ceil(rows / mesh.size) * mesh.size
