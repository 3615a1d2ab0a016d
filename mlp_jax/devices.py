"""Work split over the devices of a mesh, in one process or in several: rows in; rows, sums or means out.

Each device computes with its own rows, through `jax.shard_map`, and meets the others only in the sum at the end. In
several processes (`jax.distributed`) every process makes the same call with the same arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mlp_jax import _checks
from mlp_jax.tree import PyTree


def mean(per_example: Callable[..., jax.Array], mesh: Mesh) -> Callable[..., jax.Array]:
    """Return `fun(params, *args)`, the mean of `per_example(params, *args)`, examples split over a mesh. Transformable.

    A function like any other: its gradient, products with its Hessian, searches and verdicts use all devices. Each
    device sees n / devices of the examples, and one gradient or product sends one sum of P numbers (and one number). It
    equals the plain mean to rounding: the order of the sum is another. Make it once: a new function compiles anew; and
    call it under `jax.jit`, as searches and verdicts do: outside it every operation on split arrays is compiled alone.
    Args that lie on the devices already, by `split`, are not sent again at every call.

    Parameters
    ----------
    per_example
        `(params, *args) -> (n,)`; each value depends only on its own example. Every array in args has the n examples
        on its first axis.
    mesh
        A `jax.sharding.Mesh`, such as `jax.make_mesh((jax.device_count(),), ("devices",))`; all its axes are used.

    Raises
    ------
    TypeError
        `per_example` is not a function, or the mesh not a Mesh.
    ValueError
        When called: args without examples, arrays of different numbers of them, values that are not one an example.

    Examples
    --------
    >>> mesh = jax.make_mesh((jax.device_count(),), ("devices",))
    >>> fun = mean(lambda w, x: (w * x - 1) ** 2, mesh)
    >>> round(float(jax.grad(fun)(jnp.array(2.0), jnp.array([1.0, 2.0, 3.0]))), 4)
    14.6667
    """
    _checks.function(per_example, "per_example", "(params, *args) -> (n,)")
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

    Parameters
    ----------
    function
        (rows, *shared) -> pytree of arrays.
    mesh
        Its axes together split the rows.
    rows
        Arrays whose first axis is a multiple of the number of devices: see `pad`.
    shared
        What every device gets whole.

    Examples
    --------
    >>> mesh = jax.make_mesh((1,), ("devices",))
    >>> sum_over_rows(lambda x, a: jnp.sum(a * x), mesh, jnp.arange(4.0), (2.0,)).item()
    12.0
    """

    def part(mine: PyTree, shared: tuple) -> PyTree:
        return jax.lax.psum(function(mine, *shared), mesh.axis_names)

    return _sharded(part, mesh, PartitionSpec())(*_placed(mesh, rows, shared))


def over_rows(function: Callable[..., PyTree], mesh: Mesh, rows: PyTree, shared: tuple = ()) -> PyTree:
    """Return function(rows, *shared) for a function that treats each row by itself. Transformable.

    Parameters
    ----------
    function
        (rows, *shared) -> pytree of arrays with the same first axis.
    mesh, rows, shared
        As in `sum_over_rows`.

    Returns
    -------
    A pytree of arrays that stay split over the devices; `to_host` fetches them.

    Examples
    --------
    >>> mesh = jax.make_mesh((1,), ("devices",))
    >>> over_rows(lambda x, a: a * x, mesh, jnp.arange(3.0), (2.0,)).tolist()
    [0.0, 2.0, 4.0]
    """

    def part(mine: PyTree, shared: tuple) -> PyTree:
        return function(mine, *shared)

    return _sharded(part, mesh, PartitionSpec(mesh.axis_names))(*_placed(mesh, rows, shared))


def split(rows: PyTree, mesh: Mesh) -> PyTree:
    """Return arrays laid over the devices, each holding its own rows only; traced ones as they are.

    What is not laid out so is sent to the devices at every call of a function of it.

    Examples
    --------
    >>> mesh = jax.make_mesh((1,), ("devices",))
    >>> [shard.data.tolist() for shard in split(np.arange(3.0), mesh).addressable_shards]
    [[0.0, 1.0, 2.0]]
    """
    there = NamedSharding(_plain(mesh), PartitionSpec(mesh.axis_names))

    def leaf(a: Any) -> Any:
        if _checks.is_traced(a):
            return a
        if isinstance(a, jax.Array) and (jax.process_count() == 1 or not a.is_fully_addressable):
            return jax.device_put(a, there)
        values = np.asarray(a)
        return lay(values.astype(jax.dtypes.canonicalize_dtype(values.dtype)), there)

    return jax.tree.map(leaf, rows)


def lay(values: np.ndarray, there: NamedSharding) -> jax.Array:
    """Return an array that every process has, laid so over devices that each is given its part alone.

    `jax.device_put` would first compare the whole between processes.

    Examples
    --------
    >>> there = NamedSharding(jax.make_mesh((1,), ("devices",)), PartitionSpec())
    >>> lay(np.arange(2), there).tolist()
    [0, 1]
    """
    return jax.make_array_from_callback(values.shape, there, lambda index: values[index])


def gather(rows: PyTree, mesh: Mesh) -> PyTree:
    """Return split rows whole on every device. Transformable.

    Examples
    --------
    >>> gather(jnp.arange(3.0), jax.make_mesh((1,), ("devices",))).tolist()
    [0.0, 1.0, 2.0]
    """

    def part(mine: PyTree, shared: tuple) -> PyTree:
        return jax.lax.all_gather(mine, mesh.axis_names, tiled=True)

    return _sharded(part, mesh, PartitionSpec())(*_placed(mesh, rows, ()))


def pad(rows: PyTree, mesh: Mesh) -> PyTree:
    """Return arrays whose first axis is a multiple of the number of devices, the last row repeated. Transformable.

    Examples
    --------
    >>> mesh = jax.make_mesh((1,), ("devices",))
    >>> pad(jnp.arange(3.0), mesh).shape
    (3,)
    """

    def leaf(a: Any) -> Any:
        missing = _padded(len(a), mesh) - len(a)
        return a if missing == 0 else jnp.concatenate([a, jnp.repeat(a[-1:], missing, axis=0)])

    return jax.tree.map(leaf, rows)


def to_host(values: PyTree) -> PyTree:
    """Return arrays of any devices, of other processes too, as numpy arrays, the same in every process. Host-level.

    Examples
    --------
    >>> to_host({"a": jnp.ones(2)})["a"]
    array([1., 1.], dtype=float32)
    """

    def leaf(a: Any) -> np.ndarray:
        if not isinstance(a, jax.Array) or a.is_fully_addressable or a.is_fully_replicated:
            return np.asarray(a)
        with jax.ensure_compile_time_eval():  # a check may look at data while a function is traced
            return np.asarray(multihost_utils.process_allgather(a, tiled=True))

    return jax.tree.map(leaf, values)


def require_mesh(mesh: Any) -> Mesh:
    """Return the mesh; raise unless it is a `jax.sharding.Mesh` of at least one device, each once.

    Raises
    ------
    TypeError
        There is no Mesh, or none of devices.
    ValueError
        A device is in it twice.

    Examples
    --------
    >>> require_mesh(jax.make_mesh((1,), ("devices",))).size
    1
    """
    members = list(mesh.devices.flat) if isinstance(mesh, Mesh) else []
    if not members:
        got = "a Mesh without devices" if isinstance(mesh, Mesh) else type(mesh).__name__
        raise TypeError(
            f"mesh: got {got}, expected a jax.sharding.Mesh, such as"
            ' jax.make_mesh((jax.device_count(),), ("devices",)).'
        )
    if not all(isinstance(device, jax.Device) for device in members):
        raise TypeError(f"mesh: got a Mesh of {type(members[0]).__name__}, expected one of jax.devices().")
    if len(set(members)) < len(members):
        raise ValueError(f"mesh: got a Mesh of {len(members)} with devices twice, expected each device once.")
    return mesh


def _sharded(part: Callable[[PyTree, tuple], PyTree], mesh: Mesh, result: PartitionSpec) -> Callable[..., PyTree]:
    specs = (PartitionSpec(mesh.axis_names), PartitionSpec())
    # check_vma would refuse a loop whose carry starts from constants, as most losses and searches have.
    return jax.shard_map(part, mesh=_plain(mesh), in_specs=specs, out_specs=result, check_vma=False)


def _plain(mesh: Mesh) -> Mesh:
    """Return the mesh as it is where `jax.set_mesh` is in force, elsewhere one whose axes are not in types.

    Explicit axes, the default of `jax.make_mesh`, would put the mesh into the type of every result and of all that
    the caller computes from it; outside jit that works only under `jax.set_mesh`.
    """
    return Mesh(mesh.devices, mesh.axis_names) if jax.sharding.get_abstract_mesh().empty else mesh


def _placed(mesh: Mesh, rows: PyTree, shared: tuple) -> tuple[PyTree, tuple]:
    """Return the arrays with the types that `shard_map` asks for."""
    lengths = {len(a) for a in jax.tree.leaves(rows)}
    if any(length % mesh.size for length in lengths):
        raise ValueError(f"rows: got {sorted(lengths)} for {mesh.size} devices, expected multiples of that.")
    plain = _plain(mesh)
    explicit = AxisType.Explicit in plain.axis_types

    def place(values: PyTree, spec: PartitionSpec) -> PyTree:
        there = NamedSharding(plain, spec if explicit else PartitionSpec())
        return jax.tree.map(lambda a: jax.reshard(a, there) if explicit or _is_explicit(a) else a, values)

    return place(rows, PartitionSpec(mesh.axis_names)), place(shared, PartitionSpec())


def _is_explicit(a: Any) -> bool:
    """Return whether a mesh is part of the type of an array."""
    return AxisType.Explicit in jax.typeof(a).sharding.mesh.axis_types


def _padded(rows: int, mesh: Mesh) -> int:
    return math.ceil(rows / mesh.size) * mesh.size
