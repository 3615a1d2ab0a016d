"""Many training runs at once: a grid of batch size × learning rate × any setting × seed. Host-level.

- `run`: train every point of the grid from every seed
- `Result`: arrays with named axes, also as a table
"""

from mlp_jax.sweep.result import Result
from mlp_jax.sweep.running import run

__all__ = ["Result", "run"]
__dir__ = __all__.copy
