"""Vector fields along which an MLP's loss may be constant: functions from params to tangents.

Tangents are Layers of numpy arrays with a leading axis k. A field depends only on the structure (layers, units, ranks)
of the network, and can be evaluated at other params.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax.mlp import Activation, Layer, Params, PerLayer
from mlp_jax.mlp_symmetry.activations import traits
from mlp_jax.mlp_symmetry.network import entering, features, pre_activations


class Field(NamedTuple):
    """A named family of tangents: params -> Layers with a leading axis."""

    name: str
    tangents: Callable[[Params], Params]


def candidates(params: Params, inputs: jax.Array, activation: PerLayer) -> Iterator[Field]:
    """Yield the fields that the structure of the network at params allows; the loss may still exclude them."""
    yield Field("softmax shift", softmax_shift)
    values = pre_activations(params, inputs, activation)
    generator = np.random.default_rng(0)
    for depth in range(len(params)):
        if depth < len(params) - 1:
            yield from _of_hidden_layer(params, values[depth], activation[depth], depth, generator)
        yield from _of_dependent_inputs(params, inputs, activation, depth)


def _of_hidden_layer(
    params: Params, z: jax.Array, activation: Activation, depth: int, generator: np.random.Generator
) -> Iterator[Field]:
    found, name = traits(activation, z.shape[-1]), f"layer {depth + 1}"
    if found.separate and found.homogeneous and not found.linear:
        yield Field(f"rescaling of {name}", lambda p: rescaling(p, depth))
    if found.linear:
        yield Field(f"linear gauge of {name}", lambda p: linear_gauge(p, depth))
    if found.separate and found.translation:
        if params[depth].bias is not None and params[depth + 1].bias is not None:
            yield Field(f"translation of {name}", lambda p: translation(p, depth))
        following = np.asarray(params[depth + 1].weight)
        if following.shape[0] > following.shape[1]:
            spare = np.linalg.qr(following, mode="complete")[0][:, following.shape[1] :]
            yield Field(f"cancelling translations of {name}", lambda p: cancelling_translations(p, depth, spare))
    slope = jax.vjp(activation, z)[1](jnp.asarray(generator.standard_normal(jax.eval_shape(activation, z).shape)))[0]
    dead = np.flatnonzero(np.all(np.asarray(slope) == 0, axis=0))
    if dead.size:
        yield Field(f"dead pre-activations of {name}", lambda p: dead_directions(p, depth, dead))


def _of_dependent_inputs(params: Params, inputs: jax.Array, activation: PerLayer, depth: int) -> Iterator[Field]:
    matrix = np.asarray(features(params, inputs, activation, depth))
    _, sizes, right = np.linalg.svd(np.linalg.qr(matrix, mode="r"), full_matrices=True)
    rank = int(np.sum(sizes > max(matrix.shape) * np.finfo(matrix.dtype).eps * sizes[0]))
    if rank < matrix.shape[1]:
        null = right[rank:].T
        name = f"dependent inputs of layer {depth + 1}"
        yield Field(name, lambda p: dependent_inputs(p, inputs, activation, depth, null))


def softmax_shift(params: Params) -> Params:
    """Add the same number to all logits: one tangent for each row of the last layer, its bias included."""
    rows, columns = params[-1].shape
    moves = np.eye(rows, dtype=params[-1].weight.dtype)[:, :, None] * np.ones(columns, params[-1].weight.dtype)
    return _place(params, {len(params) - 1: moves})


def rescaling(params: Params, depth: int) -> Params:
    """Multiply the incoming weights of a unit of hidden layer `depth` by 1 + ε and divide its outgoing ones."""
    first, second = params[depth], params[depth + 1]
    units = np.eye(second.weight.shape[0], dtype=first.weight.dtype)
    moves = _to_pieces(units, first)[:, None] * entering(first)
    return _place(params, {depth: moves, depth + 1: -units[:, :, None] * second.weight})


def linear_gauge(params: Params, depth: int) -> Params:
    """Return W → W (1 + εA), b → b (1 + εA), W' → (1 − εA) W' for h² matrices A, antisymmetric ones first."""
    first, second = params[depth], params[depth + 1]
    hidden = second.weight.shape[0]
    units = np.eye(hidden * hidden, dtype=first.weight.dtype).reshape(hidden, hidden, hidden, hidden)
    upper = np.triu_indices(hidden, 1)
    rotations, stretches = units[upper] - units[upper[::-1]], units[np.triu_indices(hidden)]
    units = np.concatenate([rotations, stretches + np.swapaxes(stretches, 1, 2)])
    return _place(params, {depth: entering(first) @ units, depth + 1: -units @ second.weight})


def translation(params: Params, depth: int) -> Params:
    """Add ε to all biases of a unit and subtract its effect from the next biases, where φ(z + t) = φ(z) + t."""
    first, second = params[depth], params[depth + 1]
    units = np.eye(second.weight.shape[0], dtype=first.weight.dtype)
    pieces = _to_pieces(units, first)
    return _place(params, {depth: _last_row(pieces, first), depth + 1: _last_row(-second.weight, second)})


def cancelling_translations(params: Params, depth: int, spare: np.ndarray) -> Params:
    """Add to units a linear function of their inputs, nᵢ aₖ with nᵀ W' = 0, whose effect on the next layer cancels.

    `spare` (h, h − out) holds such n at some params; at others they are projected.
    """
    first, second = params[depth], params[depth + 1]
    basis = np.linalg.qr(second.weight)[0]
    rows = np.asarray(spare, basis.dtype).T
    normals = _to_pieces(rows - (rows @ basis) @ basis.T, first)
    moves = np.einsum("jo,ki->jkio", normals, np.eye(first.shape[0], dtype=basis.dtype))
    return _place(params, {depth: moves.reshape(-1, *first.shape)})


def dependent_inputs(params: Params, inputs: jax.Array, activation: PerLayer, depth: int, null: np.ndarray) -> Params:
    """Add n to the weights and bias of one pre-activation, where [a, 1] n = 0 on all examples.

    `null` (in + 1, k), or (in, k) without a bias, holds such n at some params; at others they are projected to as many
    singular vectors.
    """
    layer, vectors = params[depth], np.asarray(null)
    if depth:
        triangle = np.linalg.qr(np.asarray(features(params, inputs, activation, depth)), mode="r")
        right = np.linalg.svd(triangle, full_matrices=True)[2][-null.shape[1] :]
        vectors = right.T @ (right @ vectors)
    outputs = np.eye(layer.shape[1], dtype=layer.weight.dtype)
    return _place(params, {depth: np.einsum("kj,oq->jokq", vectors, outputs).reshape(-1, *layer.shape)})


def dead_directions(params: Params, depth: int, dead: np.ndarray) -> Params:
    """Move one weight or bias of a pre-activation on which no output depends."""
    layer = params[depth]
    inputs, outputs = (np.eye(size, dtype=layer.weight.dtype) for size in layer.shape)
    return _place(params, {depth: np.einsum("jo,ki->jkio", outputs[dead], inputs).reshape(-1, *layer.shape)})


def _to_pieces(rows: np.ndarray, layer: Layer) -> np.ndarray:
    """Return rows over units as rows over the pre-activations of a layer."""
    return np.repeat(rows, layer.shape[1] // rows.shape[-1], axis=-1)


def _last_row(rows: Any, layer: Layer) -> Any:
    """Return moves (k, in + 1, out) of biases alone."""
    last = np.arange(layer.shape[0]) == layer.shape[0] - 1
    return last.astype(rows.dtype)[:, None] * rows[:, None]


def _place(params: Params, moves: Mapping[int, Any]) -> Params:
    """Return tangents that are zero except for the moves of some layers: of the rows of the weight, then of the bias.

    The moves of a weight alone leave the bias as it is.
    """
    count = len(next(iter(moves.values())))

    def of_layer(move: Any, layer: Layer) -> Layer:
        zero = Layer(*jax.tree.map(lambda leaf: np.zeros((count, *leaf.shape), leaf.dtype), tuple(layer)))
        if move is None:
            return zero
        inputs = len(layer.weight)
        return Layer(move[:, :inputs], move[:, inputs] if move.shape[1] > inputs else zero.bias)

    return tuple(of_layer(moves.get(i), layer) for i, layer in enumerate(params))
