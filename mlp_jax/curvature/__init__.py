"""Curvature of any function of any pytree: knows no network and no optimiser.

As linear maps on pytrees:

- `hessian`, `hessian_of_mean`: the Hessian; of a mean over examples, streaming over them
- `ggn`, `fisher`, `empirical_fisher`: the Gauss–Newton and Fisher matrices
- `preconditioned`: such a map in the metric of an optimizer that divides by a diagonal

Of a part of the parameters, such as a layer: `restrict` makes the function of that part, for everything here.

Of the whole matrix:

- `dense_hessian`: the Hessian as a matrix
- `inertia`: signs of the eigenvalues of a symmetric matrix, with an error bound

From products alone:

- `lanczos`: an orthonormal basis of a Krylov space, and the operator on it; its `ritz` pairs work under jit and vmap
- `eigenpairs`: eigenpairs at both ends of a spectrum, each with its residual
- `spectral_density`, `trace`, `diagonal`: estimates with their standard errors
- `overlap`: how much of a gradient or of some eigenvectors lies in the space of others

Of a function along a line: `quadratic_model`, `taylor_remainder` and `log_log_slope`, the second-order Taylor model and
what it leaves out. `rounding_unit`: the precision that a function really computes in.
"""

from mlp_jax.curvature.information import empirical_fisher, fisher
from mlp_jax.curvature.krylov import Eigenpairs, eigenpairs
from mlp_jax.curvature.matrices import dense_hessian
from mlp_jax.curvature.operators import ggn, hessian, hessian_of_mean, preconditioned
from mlp_jax.curvature.parts import restrict
from mlp_jax.curvature.signs import Inertia, inertia
from mlp_jax.curvature.stochastic import Density, Estimate, diagonal, spectral_density, trace
from mlp_jax.curvature.subspaces import overlap
from mlp_jax.curvature.taylor import TaylorRemainder, log_log_slope, quadratic_model, taylor_remainder
from mlp_jax.curvature.tridiagonal import Krylov, RitzPairs, lanczos
from mlp_jax.curvature.units import rounding_unit

__all__ = [
    "Density", "Eigenpairs", "Estimate", "Inertia", "Krylov", "RitzPairs", "TaylorRemainder", "dense_hessian",
    "diagonal", "eigenpairs", "empirical_fisher", "fisher", "ggn", "hessian", "hessian_of_mean", "inertia",
    "lanczos", "log_log_slope", "overlap", "preconditioned", "quadratic_model", "restrict", "rounding_unit",
    "spectral_density", "taylor_remainder", "trace",
]  # fmt: skip
__dir__ = __all__.copy
