"""Functional MLPs in JAX, and the critical points of their losses.

Modules are the namespaces:

- `mlp`: init, forward: the network
- `losses`: per-example losses, weighted mean, accuracy
- `penalties`: terms added to a loss
- `scaling`: initial scales and learning rates by layer for networks of any width
- `schedules`: warm-up followed by any schedule of optax
- `backpropagation`: the chain rule written out
- `datasets`: data, with shapes checked
- `training`: one run as one compiled scan
- `sweep`: many runs at once: batch sizes, learning rates, seeds
- `gradient_noise`: noise scale, and updates against examples
- `curvature`: Hessians of any function of any pytree, and their inertia
- `mlp_hessian`: the exact Hessian of an MLP loss, fast
- `mlp_census`: complete lists of the critical points of small networks, as theorems
- `mlp_symmetry`: the symmetries of an MLP and its loss, and its kinks
- `critical`: critical points: find them, and classify them
- `interval`: proofs of critical points, their index, and that a list is complete
- `landscape`: the loss along lines and planes
- `plots`: figures on an Axes
- `confidence`: means with 95 % intervals over seeds
- `checkpoint`: save and restore any state
- `devices`: means, sums and maps over the devices of a mesh
- `display`: results as tables in notebooks
- `tree`: vector-space operations on pytrees
"""

import importlib
import pkgutil
import types
import typing

__all__ = sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))
__dir__ = __all__.copy


if not typing.TYPE_CHECKING:  # a type checker is to report a module that does not exist

    def __getattr__(name: str) -> types.ModuleType:
        if name in __all__:
            return importlib.import_module(f"mlp_jax.{name}")
        raise AttributeError(f"module 'mlp_jax' has no attribute {name!r}")
