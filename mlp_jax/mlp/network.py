"""Layers, their initialization, the forward pass, and the activations that JAX does not have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax import _checks

Activation = Callable[[jax.Array], jax.Array]
Activations = Activation | Sequence[Activation]
PerLayer = tuple[Activation, ...]
Initializer = Callable[..., jax.Array]


class Layer(NamedTuple):
    """One map a W + b, or a W: weight (in, out), and bias (out,) or None.

    Examples
    --------
    >>> Layer(jnp.eye(2), jnp.ones(2)).affine(jnp.array([3.0, 5.0])).tolist()
    [4.0, 6.0]
    """

    weight: jax.Array
    bias: jax.Array | None = None

    def affine(self, inputs: jax.Array) -> jax.Array:
        """Return the pre-activations (…, out) for inputs (…, in)."""
        return inputs @ self.weight if self.bias is None else inputs @ self.weight + self.bias

    def extend(self, inputs: jax.Array) -> jax.Array:
        """Return inputs (…, in) with a 1 appended for the bias: what the rows of the weight and the bias multiply."""
        if self.bias is None:
            return inputs
        return jnp.concatenate([inputs, jnp.ones((*inputs.shape[:-1], 1), inputs.dtype)], axis=-1)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows, of the weight and the bias, and of columns: (in + 1, out), or (in, out) without bias."""
        rows, columns = jnp.shape(self.weight)
        return rows + (self.bias is not None), columns


Params = tuple[Layer, ...]

_MOST_NUMBERS = 2**30  # in one weight, 8 GiB of float64; a larger request would end the process


def init(
    key: jax.Array,
    sizes: Sequence[int],
    *,
    bias: bool | Sequence[bool] = True,
    pieces: int = 1,
    weight_init: Initializer | None = None,
    bias_init: Initializer = jax.nn.initializers.zeros,
    dtype: jnp.dtype | None = None,
) -> Params:
    """Return random parameters, a tuple of Layer(weight (in, out), bias (out,) or None), for the given layer sizes.

    Weights are drawn with variance 1 / fan-in (LeCun et al. 1998, "Efficient BackProp"), which keeps tanh
    units in their linear range at the start; pass `jax.nn.initializers.he_normal()` for ReLU.

    Parameters
    ----------
    sizes
        Input size, hidden sizes, output size: `(64, 16, 10)`. Two numbers are a linear model.
    bias
        Whether layers have biases: one bool, or one for each layer. Weights are the same with and without.
    pieces
        Affine maps per hidden unit: weight (in, out * pieces), the pieces of a unit adjacent, for an activation that
        reduces them, such as `maxout(pieces)`.
    weight_init, bias_init
        Any of `jax.nn.initializers`: `(key, shape, dtype) -> array`.
    dtype
        Floating dtype; the caller's default (float32 unless x64 is on) when None.

    Raises
    ------
    TypeError, ValueError
        `key` is not a JAX random key; fewer than two sizes; a size or `pieces` is not an integer of 1 or more; `bias`
        has another length than there are layers; or a weight has more than 2³⁰ numbers.

    Examples
    --------
    >>> params = init(jax.random.key(0), (64, 16, 10))
    >>> [layer.weight.shape for layer in params]
    [(64, 16), (16, 10)]
    >>> [layer.bias is None for layer in init(jax.random.key(0), (64, 16, 10), bias=(False, True))]
    [True, False]
    """
    _checks.key(key)
    widths = [_checks.integer(size, "sizes") for size in sizes]
    if len(widths) < 2:
        raise ValueError(f"sizes: got {tuple(widths)}, expected two integers or more, such as (64, 16, 10).")
    biased = (bias,) * (len(widths) - 1) if isinstance(bias, bool) else tuple(bias)
    if len(biased) != len(widths) - 1:
        raise ValueError(f"bias: got {biased}, expected a bool, or one for each of {len(widths) - 1} layers.")
    pieces = _checks.integer(pieces, "pieces")
    weight_init = jax.nn.initializers.lecun_normal() if weight_init is None else weight_init
    dtype = jnp.result_type(float) if dtype is None else dtype
    layers = []
    for depth, layer_key in enumerate(jax.random.split(key, len(widths) - 1)):
        fan_in = widths[depth]
        fan_out = widths[depth + 1] * (pieces if depth < len(widths) - 2 else 1)
        if fan_in * fan_out > _MOST_NUMBERS:
            raise ValueError(f"sizes: got a weight of {fan_in} × {fan_out}, expected {_MOST_NUMBERS} numbers or fewer.")
        weight_key, bias_key = jax.random.split(layer_key)
        weight = weight_init(weight_key, (fan_in, fan_out), dtype)
        layers.append(Layer(weight, bias_init(bias_key, (fan_out,), dtype) if biased[depth] else None))
    return tuple(layers)


def forward(
    params: Params,
    inputs: jax.Array,
    *,
    activation: Activations = jnp.tanh,
    residual: bool = False,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """Return the outputs (n, out) of the network (logits), of the dtype of params and inputs combined.

    a₀ = inputs; zₗ = aₗ₋₁ Wₗ + bₗ; aₗ = dropout(activation(zₗ)) in hidden layers; the result is z_L. With residual
    connections, aₗ = aₗ₋₁ + dropout(activation(zₗ)) (He et al. 2016, "Deep residual learning for image recognition").

    Parameters
    ----------
    params
        Tuple of Layer(weight (in, out), bias (out,) or None).
    inputs
        (n, in), batch first; any further leading axes are kept.
    activation
        A function on arrays, for the hidden layers, or one for each of them. It may shrink the last axis (maxout).
    residual
        Whether each hidden layer whose output is as wide as its input adds its input.
    dropout_rate
        Probability that a hidden unit is dropped, for training; 0, the default, to evaluate.
    key
        JAX random key of the dropout masks, folded with the depth of each layer; not used if `dropout_rate` is 0.

    Raises
    ------
    TypeError, ValueError
        `params` are not layers of real numbers, or `inputs` not real numbers; shapes do not fit; `dropout_rate` is not
        in [0, 1); or it is not 0 and `key` is not a JAX random key.

    Examples
    --------
    >>> params = init(jax.random.key(0), (2, 3, 1))
    >>> forward(params, jnp.ones((5, 2))).shape
    (5, 1)

    A dropout mask for each seed:

    >>> noisy = lambda key: forward(params, jnp.ones((5, 2)), dropout_rate=0.5, key=key)
    >>> jax.vmap(noisy)(jax.random.split(jax.random.key(1), 4)).shape
    (4, 5, 1)
    """
    require_layers(params)
    functions = each_layer(activation, params)
    rate = _checked_rate(dropout_rate)
    if _checks.is_traced(rate) or rate > 0:
        _checks.key(key)
    else:
        key = None
    hidden = jnp.asarray(_checks.numbers(inputs, "inputs"))
    for depth, (layer, phi) in enumerate(zip(params, functions, strict=False), start=1):
        before, hidden = hidden, phi(layer.affine(hidden))
        hidden = hidden if key is None else _drop(jax.random.fold_in(key, depth), hidden, rate)
        hidden = before + hidden if residual and before.shape == hidden.shape else hidden
    return params[-1].affine(hidden)


def maxout(pieces: int) -> Activation:
    """Return the maxout activation: each unit is the largest of its `pieces` adjacent affine maps.

    h(z)ᵢ = max over j < pieces of z[i · pieces + j] (Goodfellow et al. 2013, "Maxout Networks"). A unit is convex and
    piecewise linear in its inputs. With enough pieces, one unit approximates any convex function, and a difference of
    two any continuous one. Of equal pieces, the first has the gradient. The same number of pieces gives the same
    function object, so that jit compiles once. Arrays (…, out · pieces) become (…, out); TypeError if the last axis is
    not a multiple of `pieces`.

    Examples
    --------
    >>> maxout(2)(jnp.array([1.0, 3.0, -2.0, -5.0])).tolist()
    [3.0, -2.0]
    >>> params = init(jax.random.key(0), (2, 4, 1), pieces=3)
    >>> forward(params, jnp.ones((5, 2)), activation=maxout(3)).shape
    (5, 1)
    """
    return _maxout(_checks.integer(pieces, "pieces"))


@functools.cache
def _maxout(pieces: int) -> Activation:
    def activation(values: jax.Array) -> jax.Array:
        *others, last = jnp.shape(values)
        by_unit = jnp.reshape(values, (*others, last // pieces, pieces))
        return functools.reduce(_larger, (by_unit[..., piece] for piece in range(pieces)))

    return activation


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the larger of each pair, the first of equal ones, NaN if there is one.

    The gradient of `jnp.max` compares the values with the maximum. XLA may round them differently in one program; then
    none is equal, and the gradient is infinite. Here the comparison is made once.
    """
    return jnp.where((a >= b) | (a != a), a, b)


def dropout(key: jax.Array, values: jax.Array, rate: float) -> jax.Array:
    """Return `values` with each entry set to 0 with probability `rate`, and divided by 1 − rate otherwise.

    Inverted dropout (Srivastava et al. 2014, "Dropout"): the mean over keys is `values`, so evaluation needs no
    rescaling. values: floating, whose shape and dtype the result has; rate: in [0, 1), may be traced. TypeError or
    ValueError otherwise.

    Examples
    --------
    >>> sorted(set(dropout(jax.random.key(0), jnp.ones(100), 0.75).tolist()))
    [0.0, 4.0]
    """
    _checks.key(key)
    rate = _checked_rate(rate)
    values = jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"values: got dtype {values.dtype}, expected real floating point.")
    return values if not _checks.is_traced(rate) and rate == 0 else _drop(key, values, rate)


def _drop(key: jax.Array, values: jax.Array, rate: float) -> jax.Array:
    keep = 1.0 - rate
    mask = jax.random.bernoulli(key, keep, values.shape)
    return jnp.where(mask, values / jnp.asarray(keep, values.dtype), jnp.zeros_like(values))


def _checked_rate(rate: float) -> float:
    return _checks.real(rate, "dropout rate", "a number from 0 to below 1", lambda x: 0 <= x < 1)


def require_layers(params: Params) -> None:
    """Raise unless params are one or more Layer(weight (in, out), bias (out,) or None) of numbers."""
    if not isinstance(params, tuple | list) or isinstance(params, Layer):
        raise TypeError(f"params: got {_checks.describe(params)}, expected a tuple of Layer(weight, bias).")
    if not params:
        raise ValueError("params: got no layers, expected at least one Layer(weight, bias).")
    for depth, layer in enumerate(params):
        name = f"params[{depth}]"
        if not isinstance(layer, Layer):
            raise TypeError(f"{name}: got {_checks.describe(layer)}, expected Layer(weight (in, out), bias (out,)).")
        weight = jnp.shape(layer.weight)
        bias = weight[1:] if layer.bias is None else jnp.shape(layer.bias)
        if len(weight) != 2 or bias != weight[1:]:
            raise ValueError(f"{name}: got weight {weight}, bias {bias}, expected (in, out), (out,).")


def each_layer(activation: Activations, params: Params) -> PerLayer:
    """Return one activation for each hidden layer; raise ValueError unless there are as many, or one for all."""
    hidden = len(params) - 1
    if not isinstance(activation, Sequence):
        return (activation,) * hidden
    if len(activation) != hidden:
        expected = f"one, or one for each of {hidden} hidden layers"
        raise ValueError(f"activation: got {len(activation)} functions, expected {expected}.")
    return tuple(activation)
