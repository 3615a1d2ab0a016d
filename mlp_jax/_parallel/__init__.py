"""Meshes and hosts, behind the `mesh=` argument, and cores; `mlp_jax.devices` is the public part."""

from mlp_jax._parallel.cores import blas_threads_for, one_blas_thread, over_cores
from mlp_jax._parallel.placement import place, require_mesh, split, to_host
from mlp_jax._parallel.rows import gather, mean, over_rows, pad, sharded, sum_over_rows

__all__ = [
    "blas_threads_for",
    "gather",
    "mean",
    "one_blas_thread",
    "over_cores",
    "over_rows",
    "pad",
    "place",
    "require_mesh",
    "sharded",
    "split",
    "sum_over_rows",
    "to_host",
]
