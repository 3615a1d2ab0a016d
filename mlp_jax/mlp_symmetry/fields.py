"""Vector fields along which an MLP's loss may be constant: functions from params to tangents.

Tangents are Layers of numpy arrays with a leading axis k. A field depends only on the structure (layers, units, ranks)
of the network, and can be evaluated at other params.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax.mlp import Activation, Layer, Params
from mlp_jax.mlp_symmetry.activations import traits
from mlp_jax.mlp_symmetry.network import features, pre_activations


class Field(NamedTuple):
    """A named family of tangents: params -> Layers with a leading axis."""

    name: str
    tangents: Callable[[Params], Params]


def candidates(params: Params, inputs: jax.Array, activation: Activation) -> Iterator[Field]:
    """Yield the fields that the structure of the network at params allows; the loss may still exclude them."""
    yield Field("softmax shift", softmax_shift)
    values = pre_activations(params, inputs, activation)
    generator = np.random.default_rng(0)
    for depth in range(len(params)):
        if depth < len(params) - 1:
            yield from _of_hidden_layer(params, values[depth], activation, depth, generator)
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
        yield Field(f"translation of {name}", lambda p: translation(p, depth))
        following = np.asarray(params[depth + 1].weight)
        if following.shape[0] > following.shape[1]:
            spare = np.linalg.qr(following, mode="complete")[0][:, following.shape[1] :]
            yield Field(f"cancelling translations of {name}", lambda p: cancelling_translations(p, depth, spare))
    slope = jax.vjp(activation, z)[1](jnp.asarray(generator.standard_normal(jax.eval_shape(activation, z).shape)))[0]
    dead = np.flatnonzero(np.all(np.asarray(slope) == 0, axis=0))
    if dead.size:
        yield Field(f"dead pre-activations of {name}", lambda p: dead_directions(p, depth, dead))


def _of_dependent_inputs(params: Params, inputs: jax.Array, activation: Activation, depth: int) -> Iterator[Field]:
    matrix = np.asarray(features(params, inputs, activation, depth))
    _, sizes, right = np.linalg.svd(np.linalg.qr(matrix, mode="r"), full_matrices=True)
    rank = int(np.sum(sizes > max(matrix.shape) * np.finfo(matrix.dtype).eps * sizes[0]))
    if rank < matrix.shape[1]:
        null = right[rank:].T
        name = f"dependent inputs of layer {depth + 1}"
        yield Field(name, lambda p: dependent_inputs(p, inputs, activation, depth, null))


def softmax_shift(params: Params) -> Params:
    """Add the same number to all logits: one tangent for each weight row of the last layer and one for its bias."""
    weight = params[-1].weight
    rows = np.eye(weight.shape[0] + 1, dtype=weight.dtype)
    ones = np.ones(weight.shape[1], weight.dtype)
    return _place(params, {len(params) - 1: (rows[:, :-1, None] * ones, rows[:, -1:] * ones)})


def rescaling(params: Params, depth: int) -> Params:
    """Multiply the incoming weights of a unit of hidden layer `depth` by 1 + ε and divide its outgoing ones."""
    first, second = params[depth], params[depth + 1]
    units = np.eye(second.weight.shape[0], dtype=first.weight.dtype)
    mask = _to_pieces(units, first)
    entering = mask[:, None] * first.weight, mask * first.bias
    return _place(params, {depth: entering, depth + 1: (-units[:, :, None] * second.weight, None)})


def linear_gauge(params: Params, depth: int) -> Params:
    """Return W → W (1 + εA), b → b (1 + εA), W' → (1 − εA) W' for h² matrices A, antisymmetric ones first."""
    first, second = params[depth], params[depth + 1]
    hidden = second.weight.shape[0]
    units = np.eye(hidden * hidden, dtype=first.weight.dtype).reshape(hidden, hidden, hidden, hidden)
    upper = np.triu_indices(hidden, 1)
    rotations, stretches = units[upper] - units[upper[::-1]], units[np.triu_indices(hidden)]
    units = np.concatenate([rotations, stretches + np.swapaxes(stretches, 1, 2)])
    return _place(
        params, {depth: (first.weight @ units, first.bias @ units), depth + 1: (-units @ second.weight, None)}
    )


def translation(params: Params, depth: int) -> Params:
    """Add ε to all biases of a unit and subtract its effect from the next biases, where φ(z + t) = φ(z) + t."""
    first, second = params[depth], params[depth + 1]
    units = np.eye(second.weight.shape[0], dtype=first.weight.dtype)
    return _place(params, {depth: (None, _to_pieces(units, first)), depth + 1: (None, -second.weight)})


def cancelling_translations(params: Params, depth: int, spare: np.ndarray) -> Params:
    """Add to units a linear function of their inputs, nᵢ aₖ with nᵀ W' = 0, whose effect on the next layer cancels.

    `spare` (h, h − out) holds such n at some params; at others they are projected.
    """
    first, second = params[depth], params[depth + 1]
    basis = np.linalg.qr(second.weight)[0]
    rows = np.asarray(spare, basis.dtype).T
    normals = _to_pieces(rows - (rows @ basis) @ basis.T, first)
    inputs = np.eye(first.weight.shape[0], dtype=basis.dtype)
    weight = np.einsum("jo,ki->jkio", normals, inputs).reshape(-1, *first.weight.shape)
    return _place(params, {depth: (weight, None)})


def dependent_inputs(params: Params, inputs: jax.Array, activation: Activation, depth: int, null: np.ndarray) -> Params:
    """Add n to the weights and bias of one pre-activation, where [a, 1] n = 0 on all examples.

    `null` (in + 1, k) holds such n at some params; at others they are projected to as many singular vectors.
    """
    layer, vectors = params[depth], np.asarray(null)
    if depth:
        triangle = np.linalg.qr(np.asarray(features(params, inputs, activation, depth)), mode="r")
        right = np.linalg.svd(triangle, full_matrices=True)[2][-null.shape[1] :]
        vectors = right.T @ (right @ vectors)
    outputs = np.eye(layer.bias.size, dtype=layer.weight.dtype)
    weight = np.einsum("kj,oq->jokq", vectors[:-1], outputs).reshape(-1, *layer.weight.shape)
    bias = np.einsum("j,oq->joq", vectors[-1], outputs).reshape(-1, layer.bias.size)
    return _place(params, {depth: (weight, bias)})


def dead_directions(params: Params, depth: int, dead: np.ndarray) -> Params:
    """Move one weight or bias of a pre-activation on which no output depends."""
    layer = params[depth]
    outputs = np.eye(layer.bias.size, dtype=layer.weight.dtype)[dead]
    inputs = np.eye(layer.weight.shape[0] + 1, dtype=layer.weight.dtype)
    moves = np.einsum("jo,ki->jkio", outputs, inputs).reshape(-1, len(inputs), layer.bias.size)
    return _place(params, {depth: (moves[:, :-1], moves[:, -1])})


def _to_pieces(rows: np.ndarray, layer: Layer) -> np.ndarray:
    """Return rows over units as rows over the pre-activations of a layer."""
    return np.repeat(rows, layer.bias.size // rows.shape[-1], axis=-1)


def _place(params: Params, changes: Mapping[int, tuple[Any, Any]]) -> Params:
    """Return tangents that are zero except for the given (weight, bias) of some layers."""
    count = next(len(leaf) for pair in changes.values() for leaf in pair if leaf is not None)

    def filled(leaf: Any, like: Any) -> Any:
        return np.zeros((count, *like.shape), like.dtype) if leaf is None else leaf

    return tuple(
        Layer(*(filled(leaf, like) for leaf, like in zip(changes.get(i, (None, None)), layer, strict=True)))
        for i, layer in enumerate(params)
    )
