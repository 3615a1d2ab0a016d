"""The values inside a network, and the gradient of its loss at a vector."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, _compiled, tree
from mlp_jax.mlp import Layer, Params, PerLayer


def layer_values(
    params: Params, inputs: jax.Array, activation: PerLayer, residual: bool = False
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Return the input of each layer, (n, in), and its pre-activations, (n, out)."""
    entered, made, hidden = [], [], jnp.asarray(inputs)
    for depth, layer in enumerate(params):
        entered.append(hidden)
        made.append(layer.affine(hidden))
        if depth < len(activation):
            after = activation[depth](made[-1])
            hidden = hidden + after if residual and hidden.shape == after.shape else after
    return entered, made


def streams(params: Params, residual: bool) -> list[tuple[int, ...]]:
    """Return the hidden layers in groups whose units are tied: each but the first adds its input to its output.

    A group begins with −1 if the inputs of the network are added too.
    """
    widths, groups = [len(layer.weight) for layer in params], [[-1]]
    for depth in range(len(params) - 1):
        if residual and widths[depth] == widths[depth + 1]:
            groups[-1].append(depth)
        else:
            groups.append([depth])
    return [tuple(group) for group in groups if group != [-1]]


def entering(layer: Layer) -> Any:
    """Return the incoming weights of each pre-activation, and its bias if there is one, as a column."""
    of = jnp if _checks.is_traced(layer) else np
    return of.concatenate([of.atleast_2d(leaf) for leaf in jax.tree.leaves(layer)])


@_compiled.by_function()
def gradient(fun: Callable[..., jax.Array], vector: jax.Array, params: Params, args: tuple) -> jax.Array:
    """Return the gradient of `fun` at a vector in the order of `tree.ravel` of params. Compiled once per `fun`."""
    return tree.ravel(jax.grad(fun)(tree.ravel(params)[1](vector), *args))[0]
