"""Second derivatives of each example's loss in the pre-activations of every pair of layers, from the last layer back.

With z = the pre-activations, a = the input of the next layer, and J = ∂a/∂z of the activation between them,

    Sᵢⱼ = Jᵢᵀ Wᵢ₊₁ Sᵢ₊₁ⱼ  +  [i = j] Σ_l (Wᵢ₊₁ δᵢ₊₁)[l] ∂²a[l]/∂z²,    ∂aⱼ/∂εᵢ = Jᵢᵀ Wᵢ₊₁ ∂aⱼ/∂εᵢ₊₁

(the Hessian in the pre-activations of Botev, Ritter, Barber 2017, "Practical Gauss–Newton optimisation for deep
learning", eq. 10, for pairs of layers). Examples are the last axis, so that each product by W is one matrix product.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mlp_jax.mlp import Params, PerLayer
from mlp_jax.mlp_hessian import activations
from mlp_jax.mlp_hessian.activations import Elementwise, Mixing
from mlp_jax.mlp_hessian.penalty_part import Penalty

Pair = tuple[int, int]
Examples = tuple[jax.Array, jax.Array, jax.Array]  # inputs, targets, weights
PerExample = Callable[[jax.Array, jax.Array], jax.Array]


class Terms(NamedTuple):
    """The functions to differentiate, an activation for each hidden layer, and the parts of the Hessian to return."""

    loss: PerExample
    activation: PerLayer
    penalty: Penalty | None
    gauss_newton: bool
    residual: bool
    mesh: Mesh | None


class Derivatives(NamedTuple):
    """The input of the sums over n examples, for each layer i and each pair of layers i ≤ j.

    inputs
        aᵢ with a 1 appended if the layer has a bias, (in + 1, n) or (in, n).
    deltas
        w ∂ℓ/∂zᵢ, (out, n), with the weight w of each example.
    inner
        w Sᵢⱼ, (outᵢ, outⱼ, n).
    reach
        ∂aⱼ/∂εᵢ for i < j, (outᵢ, inⱼ, n), or (outᵢ, n) if diagonal. Empty without the residual part.
    """

    inputs: list[jax.Array]
    deltas: list[jax.Array]
    inner: dict[Pair, jax.Array]
    reach: dict[Pair, jax.Array]


def differentiate(params: Params, examples: Examples, terms: Terms) -> Derivatives:
    """Return the derivatives of weighted losses in the pre-activations, for the requested parts of the Hessian.

    The Gauss–Newton part is the Hessian of a network that is linear in its parameters, the residual part that of a
    loss that is linear in the outputs.
    """
    inputs, targets, weights = examples
    ins, steps, outputs = _forward(params, inputs, terms.activation)
    last = len(params) - 1
    delta, outer = _at_outputs(terms.loss, outputs, targets, weights)
    deltas = {last: delta}
    inner: dict[Pair, jax.Array] = {(last, last): outer if terms.gauss_newton else jnp.zeros_like(outer)}
    reach: dict[Pair, jax.Array] = {}
    for i in reversed(range(last)):
        step, weight = steps[i], params[i + 1].weight
        back = weight @ deltas[i + 1]
        deltas[i] = step.pull(back)
        for j in range(i + 1, len(params)):
            inner[i, j] = step.pull(jnp.tensordot(weight, inner[i + 1, j], 1))
        inner[i, i] = step.pull(jnp.tensordot(weight, inner[i, i + 1].swapaxes(0, 1), 1))
        if terms.residual:
            inner[i, i] += step.second(back)
            reach[i, i + 1] = step.reach()
            for j in range(i + 2, len(params)):
                reach[i, j] = step.pull(jnp.tensordot(weight, _full(reach[i + 1, j]), 1))
    return Derivatives(ins, [deltas[i] for i in range(len(params))], inner, reach)


def _forward(
    params: Params, inputs: jax.Array, activation: PerLayer
) -> tuple[list[jax.Array], list[Elementwise | Mixing], jax.Array]:
    """Return the extended inputs of each layer, the activations' derivatives, and the outputs (n, out)."""
    ins, steps = [params[0].extend(inputs).T], []
    z = params[0].affine(inputs)
    for layer, phi in zip(params[1:], activation, strict=True):
        steps.append(activations.derivatives(phi, z))
        hidden = phi(z)
        ins.append(layer.extend(hidden).T)
        z = layer.affine(hidden)
    return ins, steps, z


def _at_outputs(
    loss: PerExample, outputs: jax.Array, targets: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return w ∂ℓ/∂f (out, n) and w ∂²ℓ/∂f² (out, out, n)."""

    def single(output: jax.Array, target: jax.Array) -> jax.Array:
        return loss(output[None], target[None])[0]

    first, second = (jax.vmap(of(single), out_axes=-1)(outputs, targets) for of in (jax.grad, jax.hessian))
    return weights * first, weights * second


def _full(reach: jax.Array) -> jax.Array:
    return reach if reach.ndim == 3 else jnp.eye(len(reach), dtype=reach.dtype)[:, :, None] * reach
