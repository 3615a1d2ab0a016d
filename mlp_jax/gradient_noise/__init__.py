"""The noise of minibatch gradients, and the batch size beyond which larger batches gain little.

With G the mean of the per-example gradients gᵢ of N examples and Σ = Σᵢ (gᵢ − G)(gᵢ − G)ᵀ / N, a batch of B has

    E‖G_B‖² = ‖G‖² + c(B) · tr Σ,   c(B) = 1/B drawn with replacement, (N − B) / (B (N − 1)) without,

and its gradient has the covariance c(B) Σ. The gradient noise scale tr Σ / ‖G‖² is the batch size at which noise and
signal are equal (McCandlish et al. 2018, "An empirical model of large-batch training").

- `exact`, `estimate`, `two_batches`: the noise scale, from all examples or from batches of two sizes
- `coefficient`: c(B)
- `covariance`, `dense_covariance`: Σ, as a linear map and as a matrix; `alignment`: with the Hessian
- `sign_scale`: the noise scale of sign-based updates
- `fit_tradeoff`: updates against examples, and the critical batch size
"""

from mlp_jax.gradient_noise.matrix import Alignment, alignment, covariance, dense_covariance, sign_scale
from mlp_jax.gradient_noise.noise_scale import Estimate, Noise, coefficient, estimate, exact, two_batches
from mlp_jax.gradient_noise.tradeoff import Tradeoff, fit_tradeoff

__all__ = [
    "Alignment", "Estimate", "Noise", "Tradeoff", "alignment", "coefficient", "covariance", "dense_covariance",
    "estimate", "exact", "fit_tradeoff", "sign_scale", "two_batches",
]  # fmt: skip
__dir__ = __all__.copy
