"""Symmetries of an MLP and its loss, which cause null modes and copies of a critical point. Host-level.

- `tangents`: directions along continuous symmetries, for `critical.classify`
- `maps`: permutations of hidden units and sign flips, and one canonical form for all copies, for `critical.census`
- `kinks`: distance of pre-activations to the corners of an activation, for `critical.classify`
- `split_lines`: lines of critical points through one that has duplicate units
- `nearest_pair`: the two units that are nearest to being duplicates
- `channels`: two units that merge on the way to infinity, for `critical.find` and `critical.classify`

The properties of an activation (odd, homogeneous, linear, its corners) are measured, not looked up by name. Every
symmetry is checked on the loss before it is used: a penalty, for example, breaks rescaling. With residual connections,
`tangents` and `kinks` take `residual=True`, and `maps` refuses a loss that ties the units of layers; units with equal
incoming weights are not copies if their layer adds its input, or the next layer its own.
"""

from mlp_jax.mlp_symmetry.activations import Traits, corners, traits
from mlp_jax.mlp_symmetry.continuous import Tangents, tangents
from mlp_jax.mlp_symmetry.discrete import DiscreteMaps, LayerMaps, maps
from mlp_jax.mlp_symmetry.lines import split_lines
from mlp_jax.mlp_symmetry.merging import channels
from mlp_jax.mlp_symmetry.nonsmooth import kinks
from mlp_jax.mlp_symmetry.pairs import NearestPair, nearest_pair

__all__ = [
    "DiscreteMaps", "LayerMaps", "NearestPair", "Tangents", "Traits", "channels", "corners", "kinks", "maps",
    "nearest_pair", "split_lines", "tangents", "traits",
]  # fmt: skip
__dir__ = __all__.copy
