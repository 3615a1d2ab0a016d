"""Kinks: the distance of pre-activations to the corners of an activation, for `critical.classify`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mlp_jax import mlp
from mlp_jax.mlp import Activation, Activations, Params
from mlp_jax.mlp_symmetry.activations import corners, shape_of
from mlp_jax.mlp_symmetry.network import layer_values


def kinks(
    activation: Activations, inputs: Callable[..., Any] = lambda *args: args[0], *, residual: bool = False
) -> Callable[..., jax.Array]:
    """Return `(params, *args) -> values`, whose zeros are the corners of the network. The result is transformable.

    For an elementwise activation with corners c (found by `corners`): all z − c of the hidden layers. For one that
    computes a unit from several pre-activations (maxout): the difference of the two largest of each unit. A smooth
    activation gives no values.

    Parameters
    ----------
    activation
        What is given to `mlp.forward`: one function, or one for each hidden layer.
    inputs
        Takes the arguments `args` of the loss and returns the inputs (n, in) of the network: the first by default.
    residual
        What is given to `mlp.forward`; with another, these are not the corners of the network.

    Examples
    --------
    >>> from mlp_jax import mlp
    >>> params = mlp.init(jax.random.key(0), (2, 3, 1))
    >>> kinks(jax.nn.relu)(params, np.ones((5, 2), np.float32)).shape
    (15,)
    """
    found = {phi: _corners(phi) for phi in (activation if isinstance(activation, Sequence) else [activation])}

    def values(params: Params, *args: Any) -> jax.Array:
        phi = mlp.each_layer(activation, params)
        hidden = zip(phi, layer_values(params, inputs(*args), phi, residual)[1], strict=False)
        gaps = [gap.ravel() for one, z in hidden for gap in _gaps(z, one, found[one])]
        return jnp.concatenate([jnp.zeros((0,), params[0].weight.dtype), *gaps])

    return values


def _corners(activation: Activation) -> tuple[float, ...] | None:
    """Return the corners of an elementwise activation, None for another."""
    return corners(activation) if _is_elementwise(activation) else None


def _gaps(z: jax.Array, activation: Activation, places: tuple[float, ...] | None) -> list[jax.Array]:
    return [_gap(z, activation)] if places is None else [z - jnp.asarray(place, z.dtype) for place in places]


def _is_elementwise(activation: Activation) -> bool:
    try:
        return shape_of(activation, (1, 12)) == (1, 12)
    except ValueError:  # maxout raises if its pieces do not divide the width
        return False


def _gap(z: jax.Array, activation: Activation) -> jax.Array:
    ordered = jnp.sort(z.reshape(len(z), jax.eval_shape(activation, z).shape[-1], -1), axis=-1)
    return ordered[..., -1] - ordered[..., -2]
