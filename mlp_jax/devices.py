"""Work split over the devices of a mesh, in one process or in several: rows in; rows, sums or means out.

Each device computes with its own rows; only the final sum needs communication. With several processes
(`jax.distributed`), every process makes the same call with the same arrays. `over_cores` splits host-level work over
the cores of this machine.
"""

from mlp_jax._parallel import mean, over_cores, over_rows, pad, split, sum_over_rows, to_host

__all__ = ["mean", "over_cores", "over_rows", "pad", "split", "sum_over_rows", "to_host"]
__dir__ = __all__.copy
