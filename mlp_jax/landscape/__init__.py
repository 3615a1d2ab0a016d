"""A loss along lines and planes through parameter space: for pictures, not for verdicts. Any function of any pytree.

Values, in vmapped chunks of bounded memory:

- `line`, `plane`, `interpolation`: the function on a line, on a plane, between two points; `barrier`: of the last

Directions:

- `filter_normalized`, `layer_normalized`: a direction, such as `tree.random_like(key, params)`, scaled to params
- `principal_plane`: the plane nearest to a training run
- `eigenvector_plane`: the lowest and highest eigenvectors of the Hessian, so that a saddle looks like one

To compare two solutions:

- `match_units`: hidden units permuted (and flipped) to be nearest to another solution
"""

from mlp_jax.landscape.directions import (
    EigenvectorPlane,
    PrincipalPlane,
    eigenvector_plane,
    filter_normalized,
    layer_normalized,
    principal_plane,
)
from mlp_jax.landscape.matching import match_units
from mlp_jax.landscape.values import barrier, interpolation, line, plane

__all__ = [
    "EigenvectorPlane", "PrincipalPlane", "barrier", "eigenvector_plane", "filter_normalized", "interpolation",
    "layer_normalized", "line", "match_units", "plane", "principal_plane",
]  # fmt: skip
__dir__ = __all__.copy
