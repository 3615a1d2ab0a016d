"""Lanes of one call over the devices of a mesh: settings over one of its axes, seeds over the other. Host-level."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from mlp_jax import devices
from mlp_jax.sweep import grid as grids
from mlp_jax.sweep import lanes
from mlp_jax.sweep.grid import Block, Grid
from mlp_jax.tree import PyTree


def as_mesh(grid: Grid, mesh: Mesh) -> Mesh:
    """Return the devices of a mesh with the axes "settings" and "seeds"."""
    devices.require_mesh(mesh)
    return Mesh(mesh.devices.reshape(grids.over_devices(grid, mesh.size)), ("settings", "seeds"))


def place(values: PyTree, mesh: Mesh, *axes: str | None) -> PyTree:
    """Return arrays that every process has, split over these axes of a mesh, one for each axis of the arrays."""
    sharding = NamedSharding(mesh, Spec(*axes))

    def leaf(a: Any) -> Any:
        if not hasattr(a, "dtype"):
            return a
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(leaf(jax.random.key_data(a)), impl=jax.random.key_impl(a))
        return devices.lay(np.asarray(a), sharding)

    return jax.tree.map(leaf, values)


def run_lanes(mesh: Mesh, block: Block, by_lane: tuple, common: tuple, program: lanes.Program) -> lanes.Lanes:
    """Return what `lanes.run_lanes` returns for a block, computed and left on the devices of a mesh of `as_mesh`.

    Parameters
    ----------
    by_lane
        (keys, params, orders, settings) of all lanes; each device is given those of its own. The last of a block are
        repeated until all devices have as many: see `fetch`.
    common
        The further arguments of `lanes.run_lanes`, which every device has whole; arrays from `place`.
    """
    keys, params, orders, settings = by_lane
    seeds, chosen = _rows(block.seeds, mesh.shape["seeds"]), _rows(block.settings, mesh.shape["settings"])
    mine = (
        *place(jax.tree.map(lambda a: a[seeds], (keys, params)), mesh, "seeds"),
        place(orders[:, seeds], mesh, None, "seeds"),
        place(jax.tree.map(lambda a: a[chosen], settings), mesh, "settings"),
    )
    with jax.set_mesh(mesh):  # the mesh that a caller may have set is another one
        return _run_lanes(*mine, *common, mesh=mesh, program=program)


def fetch(block: Block, ends: lanes.Lanes) -> lanes.Lanes:
    """Return the lanes of a block as numpy arrays, the same in every process, without those that were repeated."""
    num_settings, num_seeds = (part.stop - part.start for part in (block.settings, block.seeds))
    return jax.tree.map(lambda a: a[:num_settings, :num_seeds], devices.to_host(ends))


def _rows(part: slice, number: int) -> np.ndarray:
    """Return the numbers in a slice, the last repeated until `number` divides how many they are."""
    padded = -(-(part.stop - part.start) // number) * number
    return np.minimum(np.arange(part.start, part.start + padded), part.stop - 1)


@functools.partial(jax.jit, static_argnames=("mesh", "program"))
def _run_lanes(*arguments: Any, mesh: Mesh, program: lanes.Program) -> lanes.Lanes:
    by_seed, by_setting, whole = Spec("seeds"), Spec("settings"), Spec()
    specs = (by_seed, by_seed, Spec(None, "seeds"), by_setting) + (whole,) * (len(arguments) - 4)
    run = functools.partial(lanes.run_lanes, program)
    # check_vma would refuse a loop whose carry starts from constants.
    return jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=Spec("settings", "seeds"), check_vma=False)(
        *arguments
    )
