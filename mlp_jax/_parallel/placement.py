"""Where arrays lie: check a mesh, split arrays over its devices, fetch them to the host."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mlp_jax import _checks
from mlp_jax.tree import PyTree


def require_mesh(mesh: Any) -> Mesh:
    """Return the mesh; TypeError unless it is a `jax.sharding.Mesh` of devices, ValueError if it repeats a device."""
    if not isinstance(mesh, Mesh) or not mesh.size or not isinstance(mesh.devices.flat[0], jax.Device):
        got = f"a Mesh of {mesh.devices.ravel()[:1]}" if isinstance(mesh, Mesh) else _checks.describe(mesh)
        raise TypeError(f'mesh: got {got}, expected a Mesh such as jax.make_mesh((jax.device_count(),), ("devices",)).')
    if len(set(mesh.devices.flat)) < mesh.size:
        raise ValueError(f"mesh: got a Mesh of {mesh.size} with devices twice, expected each device once.")
    return mesh


def plain(mesh: Mesh) -> Mesh:
    """Return the mesh unchanged under `jax.set_mesh`, otherwise one without explicit axes.

    Explicit axes, the default of `jax.make_mesh`, would put the mesh into the type of every result and of everything
    that the caller computes from it; outside jit that works only under `jax.set_mesh`.
    """
    return Mesh(mesh.devices, mesh.axis_names) if jax.sharding.get_abstract_mesh().empty else mesh


def place(values: PyTree, there: NamedSharding) -> PyTree:
    """Return arrays and keys that every process has, laid over devices; traced ones unchanged."""

    def leaf(a: Any) -> Any:
        if not hasattr(a, "dtype") or _checks.is_traced(a):
            return a
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(leaf(jax.random.key_data(a)), impl=jax.random.key_impl(a))
        if isinstance(a, jax.Array) and (jax.process_count() == 1 or not a.is_fully_addressable):
            return jax.device_put(a, there)
        whole = np.asarray(a, jax.dtypes.canonicalize_dtype(a.dtype))
        # `jax.device_put` would first compare the whole between processes.
        return jax.make_array_from_callback(whole.shape, there, lambda index: whole[index])

    return jax.tree.map(leaf, values)


def split(rows: PyTree, mesh: Mesh) -> PyTree:
    """Return arrays whose rows are split over the devices; traced ones unchanged.

    Other arrays are sent to the devices at every call of a function of them.

    Examples
    --------
    >>> mesh = jax.make_mesh((1,), ("devices",))
    >>> [shard.data.tolist() for shard in split(np.arange(3.0), mesh).addressable_shards]
    [[0.0, 1.0, 2.0]]
    """
    return place(rows, NamedSharding(plain(mesh), PartitionSpec(mesh.axis_names)))


def to_host(values: PyTree) -> PyTree:
    """Return arrays of any devices and processes as numpy arrays, the same in every process. Host-level.

    Examples
    --------
    >>> to_host({"a": jnp.ones(2)})["a"]
    array([1., 1.], dtype=float32)
    """

    def leaf(a: Any) -> np.ndarray:
        if not isinstance(a, jax.Array) or a.is_fully_addressable or a.is_fully_replicated:
            return np.asarray(a)
        with jax.ensure_compile_time_eval():  # a check may read data while a function is traced
            return np.asarray(multihost_utils.process_allgather(a, tiled=True))

    return jax.tree.map(leaf, values)
