"""The exact Hessian of an MLP loss by layer blocks: matrix products instead of P Hessian-vector products.

For one example, perturb the pre-activations of layer i by εᵢ. With δⱼ = ∂ℓ/∂zⱼ and Sᵢⱼ = ∂²ℓ/∂εᵢ∂εⱼ, the block of
weights (k, o) of layer i and (l, p) of layer j, i ≤ j, is

    H[(k, o), (l, p)] = Σₙ aᵢ[n, k] Sᵢⱼ[n, o, p] aⱼ[n, l]  +  [i < j] Σₙ aᵢ[n, k] (∂aⱼ[n, l]/∂εᵢ[n, o]) δⱼ[n, p]

where aᵢ is the input of layer i with a 1 appended for its bias, if it has one. One backward recursion gives S, whose
size is that of the widths and not of the parameters, so the cost is that of the products over n: about N·P²/2
multiply-adds.

- `dense`: the whole matrix, or its Gauss–Newton or residual part
- `blocks`: the block of one pair of layers
- `enclosable`: the whole matrix, for `enclosure=` of `interval.certify`

Inside, from the example to the matrix: `activations` (φ' and φ''), `recursion` (S and ∂a/∂ε), `sums` (the products
over examples), `matrix` (chunks, checks and the public functions).
"""

from mlp_jax.mlp_hessian.matrix import blocks, dense, enclosable

__all__ = ["blocks", "dense", "enclosable"]
__dir__ = __all__.copy
