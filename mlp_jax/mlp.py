"""The network: init and forward, pure functions on a tuple of layers. Transformable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax import tree

Activation = Callable[[jax.Array], jax.Array]
Initializer = Callable[..., jax.Array]


class Layer(NamedTuple):
    """One affine map a W + b: weight (in, out) and bias (out,)."""

    weight: jax.Array
    bias: jax.Array


Params = tuple[Layer, ...]


def init(
    key: jax.Array,
    sizes: Sequence[int],
    *,
    pieces: int = 1,
    weight_init: Initializer | None = None,
    bias_init: Initializer = jax.nn.initializers.zeros,
    dtype: jnp.dtype | None = None,
) -> Params:
    """Draw the parameters of a network with the given layer sizes.

    Weights are drawn with variance 1 / fan-in (LeCun et al. 1998, "Efficient BackProp"), which keeps tanh
    units in their linear range at the start; pass `jax.nn.initializers.he_normal()` for ReLU.

    Parameters
    ----------
    key
        A JAX random key.
    sizes
        Input size, hidden sizes, output size: `(64, 16, 10)`. Two numbers are a linear model.
    pieces
        Linear pieces of a maxout unit: hidden layers get `pieces` affine maps a unit, weight
        (in, out * pieces), for an activation that reduces them (the pieces of a unit are adjacent).
    weight_init, bias_init
        Any of `jax.nn.initializers`: `(key, shape, dtype) -> array`.
    dtype
        Floating dtype; the caller's default (float32 unless x64 is on) when None.

    Returns
    -------
    tuple of Layer(weight (in, out), bias (out,))

    Raises
    ------
    TypeError
        `key` is not a JAX random key.
    ValueError
        Fewer than two sizes, or a size or `pieces` below 1.

    Examples
    --------
    >>> params = init(jax.random.key(0), (64, 16, 10))
    >>> [layer.weight.shape for layer in params]
    [(64, 16), (16, 10)]
    """
    tree.require_key(key)
    sizes = tuple(sizes)
    if len(sizes) < 2 or any(int(n) != n or n < 1 for n in sizes):
        raise ValueError(f"sizes: got {sizes}, expected at least two whole numbers of 1 or more, such as (64, 16, 10).")
    if pieces < 1:
        raise ValueError(f"pieces: got {pieces}, expected 1 or more.")
    weight_init = jax.nn.initializers.lecun_normal() if weight_init is None else weight_init
    dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
    layers = []
    for depth, layer_key in enumerate(jax.random.split(key, len(sizes) - 1)):
        fan_in = sizes[depth]
        fan_out = sizes[depth + 1] * (pieces if depth < len(sizes) - 2 else 1)
        weight_key, bias_key = jax.random.split(layer_key)
        layers.append(Layer(weight_init(weight_key, (fan_in, fan_out), dtype), bias_init(bias_key, (fan_out,), dtype)))
    return tuple(layers)


def forward(params: Params, inputs: jax.Array, *, activation: Activation = jnp.tanh) -> jax.Array:
    """Return the outputs (logits) of the network for a batch of inputs.

    a₀ = inputs; zₗ = aₗ₋₁ Wₗ + bₗ; aₗ = activation(zₗ) on hidden layers only; the result is z_L.

    Parameters
    ----------
    params
        Tuple of Layer(weight (in, out), bias (out,)).
    inputs
        (n, in), batch first; any further leading axes are kept.
    activation
        A function on arrays, applied to hidden layers. It may shrink the last axis (maxout).

    Returns
    -------
    (n, out) array of the dtype of params and inputs combined.

    Raises
    ------
    ValueError
        The last axis of `inputs` or of a hidden layer does not fit the next weight.

    Examples
    --------
    >>> params = init(jax.random.key(0), (2, 3, 1))
    >>> forward(params, jnp.ones((5, 2))).shape
    (5, 1)
    """
    if not params:
        raise ValueError("params: got no layers, expected at least one Layer(weight, bias).")
    hidden = jnp.asarray(inputs)
    for depth, layer in enumerate(params):
        if depth:
            hidden = activation(hidden)
        require_fit(hidden, layer, depth)
        hidden = hidden @ layer.weight + layer.bias
    return hidden


def require_fit(values: jax.Array, layer: Layer, depth: int) -> None:
    """Raise ValueError unless `values` can be multiplied by the weight of layer `depth`.

    Examples
    --------
    >>> require_fit(jnp.ones((5, 2)), Layer(jnp.ones((2, 3)), jnp.zeros(3)), depth=0)
    """
    name = "inputs" if depth == 0 else f"activations of layer {depth}"
    expected = jnp.shape(layer.weight)[0]
    if jnp.ndim(values) < 1 or jnp.shape(values)[-1] != expected:
        raise ValueError(
            f"{name}: got shape {jnp.shape(values)}, expected a last axis of {expected}"
            f" to fit the weight {jnp.shape(layer.weight)} of layer {depth + 1}."
        )
