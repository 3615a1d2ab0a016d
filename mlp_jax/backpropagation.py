"""The chain rule of a network written out, layer by layer: to teach, and to check jax.grad against. Transformable.

zₗ = aₗ₋₁ Wₗ + bₗ, aₗ = σ(zₗ), a₀ = inputs; δₗ is the derivative of the loss by zₗ, one row an example:

- at the output, δ_L = ∂L/∂z_L
- one layer back, δₗ = (δₗ₊₁ Wₗ₊₁ᵀ) ⊙ σ'(zₗ), which is (Wₗ₊₁ δₗ₊₁) ⊙ σ'(zₗ) for the column of one example
- ∂L/∂Wₗ = aₗ₋₁ᵀ δₗ, and ∂L/∂bₗ = Σ over examples of δₗ

(Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors"). To train, use jax.grad:
it is as fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax import _checks, losses, mlp

Loss = Callable[[jax.Array, jax.Array], jax.Array]


class Trace(NamedTuple):
    """What the forward pass leaves for the backward pass.

    activations
        (a₀, …, a_L₋₁): what enters each layer; a₀ are the inputs.
    preactivations
        (z₁, …, z_L): what each layer computes; z_L are the outputs.
    """

    activations: tuple[jax.Array, ...]
    preactivations: tuple[jax.Array, ...]


def forward(params: mlp.Params, inputs: jax.Array, *, activation: mlp.Activation = jnp.tanh) -> Trace:
    """Return everything that `mlp.forward` computes on the way to its outputs.

    Parameters
    ----------
    params
        Tuple of Layer(weight (in, out), bias (out,)).
    inputs
        (n, in).
    activation
        A function on arrays, applied to hidden layers.

    Returns
    -------
    Trace

    Raises
    ------
    TypeError
        `params` are not layers of real numbers, `inputs` not real numbers, or `activation` no function.
    ValueError
        There are no layers; `inputs` do not have two axes; a shape does not fit the next weight.

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
    _checks.function(activation, "activation", "of one array")
    activations: list[jax.Array] = [jnp.asarray(_checks.numbers(inputs, "inputs", "two axes (n, in)"))]
    preactivations: list[jax.Array] = []
    for depth, layer in enumerate(params):
        if depth:
            name = f"activations of layer {depth}"
            activations.append(_checks.numbers(activation(preactivations[-1]), name, "two axes"))
        mlp.require_fit(activations[-1], layer, depth)
        preactivations.append(activations[-1] @ layer.weight + layer.bias)
    return Trace(tuple(activations), tuple(preactivations))


def backward(
    params: mlp.Params,
    trace: Trace,
    output_delta: jax.Array,
    *,
    activation: mlp.Activation = jnp.tanh,
    derivative: mlp.Activation | None = None,
) -> tuple[jax.Array, ...]:
    """Return the deltas of all layers, from that of the output: δₗ = (δₗ₊₁ Wₗ₊₁ᵀ) ⊙ σ'(zₗ).

    Parameters
    ----------
    params, trace
        The network, and what `forward` returned for it.
    output_delta
        (n, out): δ_L, the derivative of the loss by the outputs.
    activation
        The function that `forward` was given.
    derivative
        σ', a function on arrays; when None, the derivative of `activation` by jax.vjp, which also
        holds for one that is not elementwise (maxout).

    Returns
    -------
    (δ₁, …, δ_L), each of the shape of its zₗ

    Raises
    ------
    TypeError
        `params` are not layers, `trace` is not what `forward` returns, or something is no function or no number.
    ValueError
        `output_delta` does not have the shape of the outputs, `trace` is that of another network, or the derivative has
        another shape than the pre-activations.

    Examples
    --------
    >>> from mlp_jax import mlp
    >>> params = (mlp.Layer(jnp.eye(2), jnp.zeros(2)), mlp.Layer(jnp.array([[3.0], [5.0]]), jnp.zeros(1)))
    >>> trace = forward(params, jnp.array([[2.0, -2.0]]), activation=jax.nn.relu)
    >>> backward(params, trace, jnp.ones((1, 1)), activation=jax.nn.relu)[0].tolist()
    [[3.0, 0.0]]
    """
    mlp.require_layers(params)
    _require_trace(params, trace)
    _checks.function(activation, "activation", "of one array")
    output_delta = _checks.numbers(output_delta, "output_delta")
    outputs = trace.preactivations[-1]
    if jnp.shape(output_delta) != outputs.shape:
        raise ValueError(
            f"output_delta: got shape {jnp.shape(output_delta)}, expected that of the outputs, {outputs.shape}."
        )
    deltas = [output_delta]
    for layer, preactivation in zip(params[:0:-1], trace.preactivations[-2::-1], strict=True):
        error = deltas[-1] @ layer.weight.T
        if derivative is None:
            values = jax.eval_shape(activation, preactivation)
            _require_shape(values, error.shape, "activation")
            values, pull = jax.vjp(activation, preactivation)
            (delta,) = pull(error.astype(values.dtype))
        else:
            delta = error * _slope(derivative, preactivation, "derivative")
        deltas.append(delta)
    return tuple(reversed(deltas))


def _require_trace(params: mlp.Params, trace: Trace) -> None:
    if not isinstance(trace, Trace) or not all(isinstance(part, tuple | list) for part in trace):
        raise TypeError(f"trace: got {_checks.describe(trace)}, expected what `forward` returned.")
    got = [[jnp.shape(_checks.numbers(values, "trace")) for values in part] for part in trace]
    n = got[1][0][0] if got[1] and got[1][0] else 0
    if got[1] != [(n, jnp.shape(layer.weight)[1]) for layer in params]:
        raise ValueError(f"trace: got pre-activations of shapes {got[1]}, expected those of `forward` for params.")


def _require_shape(values: jax.Array, shape: tuple[int, ...], name: str) -> None:
    if jnp.shape(values) != shape:
        raise ValueError(f"{name}: got values of shape {jnp.shape(values)}, expected {shape}.")


def _slope(derivative: Callable[..., jax.Array], at: jax.Array, name: str, *more: jax.Array) -> jax.Array:
    _checks.function(derivative, name, "of arrays")
    values = _checks.numbers(derivative(at, *more), name)
    _require_shape(values, at.shape, name)
    return values


def gradient(
    params: mlp.Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    loss: Loss,
    activation: mlp.Activation = jnp.tanh,
    weights: jax.Array | None = None,
    derivative: mlp.Activation | None = None,
    loss_derivative: Loss | None = None,
) -> mlp.Params:
    """Return the gradient of losses.mean(loss(mlp.forward(params, inputs), targets), weights) by the chain rule.

    Parameters
    ----------
    params
        Tuple of Layer(weight (in, out), bias (out,)).
    inputs, targets
        (n, in), and what `loss` takes.
    loss
        (outputs, targets) -> (n,): a loss per example, such as `losses.cross_entropy`.
    activation
        A function on arrays, applied to hidden layers.
    weights
        (n,) of the examples, non-negative and not all zero; all equal when None.
    derivative
        σ' of the activation; found by JAX when None.
    loss_derivative
        (outputs, targets) -> (n, out): the derivative of `loss` by the outputs; found by JAX when None.

    Returns
    -------
    The gradient, with the structure of params

    Raises
    ------
    ValueError
        `inputs` do not have two axes or do not fit; the losses, `weights` or a derivative have a wrong shape; weights
        as `losses.mean` refuses them.
    TypeError
        Something is no function, or not real numbers.

    Examples
    --------
    The derivatives written by hand:

    >>> from mlp_jax import losses, mlp
    >>> params, x, y = mlp.init(jax.random.key(0), (2, 3, 1)), jnp.ones((5, 2)), jnp.zeros((5, 1))
    >>> by_hand = gradient(params, x, y, loss=losses.squared_error, activation=jnp.tanh,
    ...                    derivative=lambda z: 1 - jnp.tanh(z) ** 2, loss_derivative=lambda z, t: z - t)
    >>> by_jax = jax.grad(lambda p: losses.mean(losses.squared_error(mlp.forward(p, x), y)))(params)
    >>> bool(jnp.allclose(by_hand[0].weight, by_jax[0].weight))
    True
    """
    _checks.function(loss, "loss", "(outputs, targets) -> (n,)")
    trace = forward(params, inputs, activation=activation)
    outputs, targets = trace.preactivations[-1], jnp.asarray(_checks.numbers(targets, "targets"))
    if loss_derivative is None:
        output_delta = jax.grad(lambda z: jnp.sum(_values(loss, z, targets)))(outputs)
    else:
        output_delta = _slope(loss_derivative, outputs, "loss_derivative", targets)
    output_delta = _shares(weights, outputs)[:, None] * output_delta
    deltas = backward(params, trace, output_delta, activation=activation, derivative=derivative)
    return tuple(
        mlp.Layer(weight=a.T @ delta, bias=jnp.sum(delta, axis=0))
        for a, delta in zip(trace.activations, deltas, strict=True)
    )


def _values(loss: Loss, outputs: jax.Array, targets: jax.Array) -> jax.Array:
    values = _checks.numbers(loss(outputs, targets), "loss")
    _require_shape(values, outputs.shape[:1], "loss")
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"loss: got values of dtype {values.dtype}, expected real floating point.")
    return values


def _shares(weights: jax.Array | None, outputs: jax.Array) -> jax.Array:
    """Each example's part of the mean: wᵢ / Σ w."""
    n = len(outputs)
    if weights is None:
        return jnp.full(n, 1.0 / n, outputs.dtype)
    weights = _checks.numbers(weights, "weights")
    if jnp.shape(weights) != (n,):
        raise ValueError(f"weights: got shape {jnp.shape(weights)}, expected {(n,)}, one for each example.")
    losses.mean(weights, weights)  # refuses weights that are negative, or all 0
    return weights / jnp.sum(weights)
