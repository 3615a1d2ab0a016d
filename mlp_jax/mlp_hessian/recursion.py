"""Second derivatives of each example's loss in the pre-activations of every pair of layers, from the last layer back.

With z = the pre-activations, a = the input of the next layer, and J = ∂a/∂z of the activation between them,

    Sᵢⱼ = Jᵢᵀ Wᵢ₊₁ Sᵢ₊₁ⱼ  +  [i = j] Σ_l (Wᵢ₊₁ δᵢ₊₁)[l] ∂²a[l]/∂z²,    ∂aⱼ/∂εᵢ = Jᵢᵀ Wᵢ₊₁ ∂aⱼ/∂εᵢ₊₁

(the Hessian in the pre-activations of Botev, Ritter, Barber 2017, "Practical Gauss–Newton optimisation for deep
learning", eq. 10, for pairs of layers). What follows Jᵢᵀ and the sum over l are derivatives by the input of layer
i + 1; with a residual connection they have a second part, those by the output of that layer. Examples are the last
axis, so that each product by W is one matrix product.
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
Step = Elementwise | Mixing
PerExample = Callable[[jax.Array, jax.Array], jax.Array]


class Terms(NamedTuple):
    """The functions to differentiate, an activation for each hidden layer, and the parts of the Hessian to return."""

    loss: PerExample
    activation: PerLayer
    penalty: Penalty | None
    gauss_newton: bool
    residual: bool
    connections: bool  # whether hidden layers add their input, as `residual` of `mlp.forward`
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
    deltas: dict[int, jax.Array]
    inner: dict[Pair, jax.Array]
    reach: dict[Pair, jax.Array]


class AtInput(NamedTuple):
    """Derivatives by the input a of layer i: w ∂ℓ/∂a; w ∂²ℓ/∂a∂εⱼ for j ≥ i; w ∂²ℓ/∂a²; ∂aⱼ/∂a for j > i."""

    delta: jax.Array
    mixed: dict[int, jax.Array]
    own: jax.Array
    reach: dict[int, jax.Array]


def differentiate(params: Params, examples: Examples, terms: Terms) -> Derivatives:
    """Return the derivatives of weighted losses in the pre-activations, for the requested parts of the Hessian.

    The Gauss–Newton part is the Hessian of a network that is linear in its parameters, the residual part that of a
    loss that is linear in the outputs.
    """
    inputs, targets, weights = examples
    ins, steps, outputs = _forward(params, inputs, terms)
    last = len(params) - 1
    delta, outer = _at_outputs(terms.loss, outputs, targets, weights)
    found = Derivatives(ins, {last: delta}, {(last, last): outer if terms.gauss_newton else jnp.zeros_like(outer)}, {})
    at: AtInput | None = None
    for i in reversed(range(1, len(params))):
        weight, step = params[i].weight, steps[i - 1]
        adds = at is not None and terms.connections and weight.shape[0] == len(params[i + 1].weight)
        at = _at_input(i, weight, found, (steps[i], at) if at is not None and adds else None)
        found.deltas[i - 1] = step.pull(at.delta)
        found.inner.update({(i - 1, j): step.pull(values) for j, values in at.mixed.items()})
        found.inner[i - 1, i - 1] = step.pull(step.pull(at.own).swapaxes(0, 1))
        if terms.residual:
            found.inner[i - 1, i - 1] += step.second(at.delta)
            found.reach[i - 1, i] = step.reach()
            found.reach.update({(i - 1, j): step.pull(values) for j, values in at.reach.items()})
    return found


def _at_input(i: int, weight: jax.Array, found: Derivatives, skip: tuple[Step, AtInput] | None) -> AtInput:
    """Return the derivatives by the input of layer i.

    With `skip`, the activation of the layer and the derivatives by its output, the layer adds its input to its output.
    """
    delta = weight @ found.deltas[i]
    mixed, reach = (
        {j: jnp.tensordot(weight, _full(values), 1) for (here, j), values in part.items() if here == i}
        for part in (found.inner, found.reach)
    )
    if skip is None:
        return AtInput(delta, mixed, jnp.tensordot(weight, mixed[i].swapaxes(0, 1), 1), reach)
    step, after = skip
    across = step.pull(after.own)
    mixed[i] += across.swapaxes(0, 1)
    own = jnp.tensordot(weight, mixed[i].swapaxes(0, 1), 1) + jnp.tensordot(weight, across, 1).swapaxes(0, 1)
    if reach:
        reach[i + 1] += jnp.eye(len(delta), dtype=delta.dtype)[:, :, None]
    for total, part in ((mixed, after.mixed), (reach, after.reach)):
        total.update({j: total[j] + values for j, values in part.items()})
    return AtInput(delta + after.delta, mixed, own + after.own, reach)


def _forward(params: Params, inputs: jax.Array, terms: Terms) -> tuple[list[jax.Array], list[Step], jax.Array]:
    """Return the extended inputs of each layer, the activations' derivatives, and the outputs (n, out)."""
    ins, steps, hidden = [], [], inputs
    for layer, phi in zip(params, terms.activation, strict=False):
        ins.append(layer.extend(hidden).T)
        z = layer.affine(hidden)
        steps.append(activations.derivatives(phi, z))
        before, hidden = hidden, phi(z)
        hidden = before + hidden if terms.connections and before.shape == hidden.shape else hidden
    return [*ins, params[-1].extend(hidden).T], steps, params[-1].affine(hidden)


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
