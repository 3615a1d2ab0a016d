"""The chain rule of a network written out layer by layer, to teach it and to check jax.grad. Transformable.

zₗ = aₗ₋₁ Wₗ + bₗ, aₗ = σ(zₗ), a₀ = inputs; δₗ is the derivative of the loss by zₗ, one row per example:

- at the output, δ_L = ∂L/∂z_L
- one layer back, δₗ = (δₗ₊₁ Wₗ₊₁ᵀ) ⊙ σ'(zₗ), which is (Wₗ₊₁ δₗ₊₁) ⊙ σ'(zₗ) for the column of one example
- ∂L/∂Wₗ = aₗ₋₁ᵀ δₗ, and ∂L/∂bₗ = Σ over examples of δₗ

(Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors"). To train, use jax.grad,
which is as fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax import _checks, losses, mlp

__all__ = ["Trace", "backward", "forward", "gradient"]
__dir__ = __all__.copy

Loss = Callable[[jax.Array, jax.Array], jax.Array]


class Trace(NamedTuple):
    """The intermediate values of a forward pass.

    activations
        (a₀, …, a_L₋₁): the input of each layer; a₀ are the inputs.
    preactivations
        (z₁, …, z_L): the result of each layer; z_L are the outputs.
    """

    activations: tuple[jax.Array, ...]
    preactivations: tuple[jax.Array, ...]


def forward(params: mlp.Params, inputs: jax.Array, *, activation: mlp.Activations = jnp.tanh) -> Trace:
    """Return the inputs and pre-activations of all layers, for inputs (n, in).

    params, activation and errors: see `mlp.forward`; `inputs` must have two axes.

    Examples
    --------
    >>> from mlp_jax import mlp
    >>> params = mlp.init(jax.random.key(0), (2, 3, 1))
    >>> trace = forward(params, jnp.ones((5, 2)))
    >>> [z.shape for z in trace.preactivations]
    [(5, 3), (5, 1)]
    >>> bool(jnp.array_equal(trace.preactivations[-1], mlp.forward(params, jnp.ones((5, 2)))))
    True
    """
    mlp.require_layers(params)
    phi = mlp.each_layer(activation, params)
    activations: list[jax.Array] = [jnp.asarray(_checks.numbers(inputs, "inputs", "(n, in)"))]
    preactivations: list[jax.Array] = []
    for depth, layer in enumerate(params):
        if depth:
            activations.append(phi[depth - 1](preactivations[-1]))
        preactivations.append(layer.affine(activations[-1]))
    return Trace(tuple(activations), tuple(preactivations))


def backward(
    params: mlp.Params,
    trace: Trace,
    output_delta: jax.Array,
    *,
    activation: mlp.Activations = jnp.tanh,
    derivative: mlp.Activations | None = None,
) -> tuple[jax.Array, ...]:
    """Return the deltas (δ₁, …, δ_L) of all layers from that of the output: δₗ = (δₗ₊₁ Wₗ₊₁ᵀ) ⊙ σ'(zₗ).

    Parameters
    ----------
    params, trace
        The network, and what `forward` returned for it.
    output_delta
        (n, out): δ_L, the derivative of the loss by the outputs.
    activation
        What `forward` was given.
    derivative
        σ', a function on arrays, or one for each hidden layer; when None, `activation` is differentiated by jax.vjp,
        even if it is not elementwise (maxout).

    Raises
    ------
    TypeError, ValueError
        `params` are not layers; `output_delta` or the derivative has a wrong shape; `trace` is that of another network.

    Examples
    --------
    >>> from mlp_jax import mlp
    >>> params = (mlp.Layer(jnp.eye(2), jnp.zeros(2)), mlp.Layer(jnp.array([[3.0], [5.0]]), jnp.zeros(1)))
    >>> trace = forward(params, jnp.array([[2.0, -2.0]]), activation=jax.nn.relu)
    >>> backward(params, trace, jnp.ones((1, 1)), activation=jax.nn.relu)[0].tolist()
    [[3.0, 0.0]]
    """
    mlp.require_layers(params)
    got = [jnp.shape(z) for z in trace.preactivations]
    if got != [(*got[0][:1], layer.shape[1]) for layer in params]:
        raise ValueError(f"trace: got pre-activations of shapes {got}, expected those of `forward` for params.")
    deltas = [_fitting(output_delta, got[-1], "output_delta")]
    functions = mlp.each_layer(activation if derivative is None else derivative, params)
    for i in reversed(range(len(functions))):
        error, preactivation = deltas[-1] @ params[i + 1].weight.T, trace.preactivations[i]
        if derivative is None:
            values, pull = jax.vjp(functions[i], preactivation)
            (delta,) = pull(error.astype(values.dtype))
        else:
            delta = error * _fitting(functions[i](preactivation), preactivation.shape, "derivative")
        deltas.append(delta)
    return tuple(reversed(deltas))


def _fitting(values: jax.Array, shape: tuple[int, ...], name: str) -> jax.Array:
    values = jnp.asarray(values)
    if values.shape != shape:
        raise ValueError(f"{name}: got shape {values.shape}, expected {shape}.")
    return values


def gradient(
    params: mlp.Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    loss: Loss,
    activation: mlp.Activations = jnp.tanh,
    weights: jax.Array | None = None,
    derivative: mlp.Activations | None = None,
    loss_derivative: Loss | None = None,
) -> mlp.Params:
    """Return the gradient of losses.mean(loss(mlp.forward(params, inputs), targets), weights) by the chain rule.

    params, activation, derivative: see `backward`; weights: see `losses.mean`.

    Parameters
    ----------
    inputs, targets
        (n, in), and the targets of `loss`.
    loss
        (outputs, targets) -> (n,): a loss per example, such as `losses.cross_entropy`.
    loss_derivative
        (outputs, targets) -> (n, out): the derivative of `loss` by the outputs; computed by JAX when None.

    Raises
    ------
    TypeError, ValueError
        As `forward` and `losses.mean`; also for losses or a derivative of a wrong shape.

    Examples
    --------
    >>> from mlp_jax import losses, mlp
    >>> params = (mlp.Layer(jnp.array([[2.0]]), jnp.zeros(1)),)
    >>> x, y = jnp.array([[3.0]]), jnp.array([[5.0]])
    >>> gradient(params, x, y, loss=losses.squared_error, loss_derivative=lambda z, t: z - t)[0].weight.tolist()
    [[3.0]]
    """
    trace = forward(params, inputs, activation=activation)
    outputs, targets = trace.preactivations[-1], jnp.asarray(targets)
    if loss_derivative is None:
        output_delta = jax.grad(lambda z: jnp.sum(_fitting(loss(z, targets), outputs.shape[:1], "loss")))(outputs)
    else:
        output_delta = _fitting(loss_derivative(outputs, targets), outputs.shape, "loss_derivative")
    output_delta = _shares(weights, outputs)[:, None] * output_delta
    deltas = backward(params, trace, output_delta, activation=activation, derivative=derivative)
    return tuple(
        mlp.Layer(weight=a.T @ delta, bias=None if layer.bias is None else jnp.sum(delta, axis=0))
        for layer, a, delta in zip(params, trace.activations, deltas, strict=True)
    )


def _shares(weights: jax.Array | None, outputs: jax.Array) -> jax.Array:
    """Return the share of each example in the mean: wᵢ / Σ w."""
    if weights is None:
        return jnp.full(len(outputs), 1.0 / len(outputs), outputs.dtype)
    weights = jnp.asarray(weights)
    losses.mean(outputs[:, 0], weights)  # refuses weights of another shape, negative or all 0
    return weights / jnp.sum(weights)
