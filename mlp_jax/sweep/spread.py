"""Lanes of one call over the devices of a mesh: settings over one axis, seeds over the other. Host-level."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from mlp_jax import _parallel
from mlp_jax.sweep import grid as grids
from mlp_jax.sweep import lanes
from mlp_jax.sweep.grid import Block, Grid
from mlp_jax.tree import PyTree

# Keys, initial parameters, orders and settings of the lanes, and their results.
_SPLIT = (Spec("seeds"), Spec("seeds"), Spec(None, "seeds"), Spec("settings"))
_ENDS = Spec("settings", "seeds")


def as_mesh(grid: Grid, mesh: Mesh) -> Mesh:
    """Return the devices of a mesh with the axes "settings" and "seeds"."""
    _parallel.require_mesh(mesh)
    return Mesh(mesh.devices.reshape(grids.over_devices(grid, mesh.size)), ("settings", "seeds"))


def everywhere(values: PyTree, mesh: Mesh) -> PyTree:
    """Return arrays replicated on every device of a mesh."""
    return _parallel.place(values, NamedSharding(mesh, Spec()))


def run_lanes(mesh: Mesh, block: Block, by_lane: tuple, common: tuple, program: lanes.Program) -> lanes.Lanes:
    """Return the results of a block, on the devices of a mesh of `as_mesh`; the last lanes are repeated to fill it.

    by_lane: (keys, params, orders, settings) of all lanes; common: further arguments of `lanes.run_lanes`.
    """
    keys, params, orders, settings = by_lane
    seeds, chosen = _rows(block.seeds, mesh.shape["seeds"]), _rows(block.settings, mesh.shape["settings"])
    mine = (*jax.tree.map(lambda a: a[seeds], (keys, params)), orders[:, seeds])
    mine = (*mine, jax.tree.map(lambda a: a[chosen], settings))
    placed = [_parallel.place(a, NamedSharding(mesh, spec)) for a, spec in zip(mine, _SPLIT, strict=True)]
    with jax.set_mesh(mesh):  # a caller may have set another mesh
        return _run_lanes(*placed, *common, mesh=mesh, program=program)


def fetch(block: Block, ends: lanes.Lanes) -> lanes.Lanes:
    """Return the results of a block as numpy arrays, the same in every process, without the repeated lanes."""
    num_settings, num_seeds = (part.stop - part.start for part in (block.settings, block.seeds))
    return jax.tree.map(lambda a: a[:num_settings, :num_seeds], _parallel.to_host(ends))


def _rows(part: slice, number: int) -> np.ndarray:
    """Return the rows of a slice, the last repeated until `number` divides their count."""
    padded = -(-(part.stop - part.start) // number) * number
    return np.minimum(np.arange(part.start, part.start + padded), part.stop - 1)


@functools.partial(jax.jit, static_argnames=("mesh", "program"))
def _run_lanes(*arguments: Any, mesh: Mesh, program: lanes.Program) -> lanes.Lanes:
    specs = _SPLIT + (Spec(),) * (len(arguments) - len(_SPLIT))
    return _parallel.sharded(functools.partial(lanes.run_lanes, program), mesh, specs, _ENDS)(*arguments)
