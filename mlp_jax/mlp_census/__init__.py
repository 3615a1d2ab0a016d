"""Complete lists: all critical points of a small network, as a theorem.

- `complete`: prove that a list holds all critical points of a tanh network with one hidden layer, one output, squared
  error and weight decay; `expected_boxes`: at what cost; `params_of`: the points as params

Inside: `bounds` (a priori bounds, with their proofs), `equations` (tests on boxes), `orbits` (symmetries), `census`.
"""

from mlp_jax.mlp_census.census import complete, expected_boxes, params_of

__all__ = ["complete", "expected_boxes", "params_of"]
__dir__ = __all__.copy
