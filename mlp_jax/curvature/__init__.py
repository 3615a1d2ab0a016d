"""Curvature of any function of any pytree: knows no network and no optimiser.

- `hessian`: the Hessian as a linear map on pytrees
- `dense_hessian`: the Hessian as a matrix
- `inertia`: signs of the eigenvalues of a symmetric matrix, with an error bound
- `quadratic_model`, `taylor_remainder`: the second-order Taylor model, and what it leaves out
- `rounding_unit`: the precision that a function really computes in
"""

from mlp_jax.curvature.matrices import dense_hessian
from mlp_jax.curvature.operators import hessian
from mlp_jax.curvature.precision import rounding_unit
from mlp_jax.curvature.signs import Inertia, inertia
from mlp_jax.curvature.taylor import TaylorRemainder, log_log_slope, quadratic_model, taylor_remainder

__all__ = [
    "Inertia",
    "TaylorRemainder",
    "dense_hessian",
    "hessian",
    "inertia",
    "log_log_slope",
    "quadratic_model",
    "rounding_unit",
    "taylor_remainder",
]
