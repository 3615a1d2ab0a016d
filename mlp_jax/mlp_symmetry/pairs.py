"""The two hidden units of a network that are nearest to being copies of each other."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mlp_jax import _checks, mlp
from mlp_jax.mlp import Activation, Activations, Layer, Params
from mlp_jax.mlp_symmetry.activations import traits
from mlp_jax.mlp_symmetry.network import entering


class NearestPair(NamedTuple):
    """Two hidden units of one layer that are nearly copies.

    layer, units
        The hidden layer and the two units, from 0, as `mlp.merge_units` takes them.
    sign
        `sign` of `mlp.merge_units`: −1 if φ is odd and the incoming weights are nearly opposite, 1 otherwise.
    distance
        ‖wᵢ ∓ wⱼ‖ / max(‖wᵢ‖, ‖wⱼ‖), of the incoming weights and biases; with a homogeneous activation (ReLU),
        of these scaled to length 1. 0 for copies.
    outgoing
        ‖vᵢ‖ and ‖vⱼ‖, the sizes of the outgoing weights, in proportion to that scaling.
    """

    layer: int
    units: tuple[int, int]
    sign: int
    distance: float
    outgoing: tuple[float, float]


def nearest_pair(params: Params, activation: Activations) -> NearestPair:
    """Return the two hidden units of one layer whose incoming weights are nearest. Host-level.

    Weights are compared up to sign if the activation is odd or even, and up to scale if it is homogeneous.

    Where a descent ends without a minimum, two units often approach each other while their outgoing weights diverge
    with opposite signs, a channel to a minimum at infinity (Martinelli, Van Meegen, Şimşek, Gerstner & Brea 2025,
    "Flat channels to infinity in neural loss landscapes"). Compare the pair along the run: `distance` falls as
    `outgoing` grows.

    params: tuple of Layer; activation: of `mlp.forward`. Raises ValueError if no hidden layer has two units whose
    activation computes each from one pre-activation (maxout and softmax do not).

    Examples
    --------
    >>> hidden = mlp.Layer(np.array([[1.0, 5.0, -1.0]]), np.array([2.0, 0.0, -2.0]))
    >>> out = mlp.Layer(np.array([[3.0], [1.0], [4.0]]))
    >>> nearest_pair((hidden, out), jnp.tanh)
    NearestPair(layer=0, units=(0, 2), sign=-1, distance=0.0, outgoing=(3.0, 4.0))
    """
    mlp.require_layers(params)
    _checks.params(params)
    pairs = near_pairs(params, activation)
    if not pairs:
        raise ValueError("params: got no two hidden units of an elementwise activation in one layer, expected a pair.")
    return min(pairs, key=lambda pair: pair.distance)


def near_pairs(params: Params, activation: Activations) -> list[NearestPair]:
    """Return each hidden unit, if its activation is elementwise, with the nearest of those after it in its layer."""
    phi = mlp.each_layer(activation, params)
    layers = [jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), layer) for layer in params]
    return [pair for depth in range(len(phi)) for pair in _pairs(layers, depth, phi[depth])]


def _pairs(layers: Sequence[Layer], depth: int, activation: Activation) -> Iterator[NearestPair]:
    """Yield the nearest unit after each unit of a layer."""
    found = traits(activation, layers[depth].shape[1])
    if found.pieces > 1 or not found.separate:
        return
    columns, leaving = entering(layers[depth]), np.linalg.norm(layers[depth + 1].weight, axis=1)
    sizes = np.linalg.norm(columns, axis=0)
    if found.homogeneous:
        columns, leaving, sizes = columns / np.where(sizes > 0, sizes, 1), leaving * sizes, np.sign(sizes)
    for i, sign in itertools.product(range(len(sizes) - 1), (1, -1) if found.odd or found.even else (1,)):
        largest = np.maximum(sizes[i], sizes[i + 1 :])
        gaps = np.linalg.norm(columns[:, i, None] - sign * columns[:, i + 1 :], axis=0)
        distances = gaps / np.where(largest > 0, largest, 1)
        j = i + 1 + int(np.argmin(distances))
        merging = sign if found.odd else 1
        yield NearestPair(depth, (i, j), merging, float(np.min(distances)), (float(leaving[i]), float(leaving[j])))
