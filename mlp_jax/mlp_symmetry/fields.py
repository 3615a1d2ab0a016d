"""Vector fields along which an MLP's loss may be constant: functions from params to tangents.

Tangents are Layers of numpy arrays with a leading axis k. A field depends only on the structure (layers, units, ranks)
of the network, and can be evaluated at other params.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax.mlp import Activation, Layer, Params, PerLayer
from mlp_jax.mlp_symmetry.activations import Traits, traits
from mlp_jax.mlp_symmetry.network import entering, layer_values, streams

Features = Callable[[Params, int], np.ndarray]


class Field(NamedTuple):
    """A named family of tangents: params -> Layers with a leading axis."""

    name: str
    tangents: Callable[[Params], Params]


def candidates(params: Params, inputs: jax.Array, activation: PerLayer, residual: bool) -> Iterator[Field]:
    """Yield the fields that the structure of the network at params allows; the loss may still exclude them."""

    def features(params: Params, depth: int) -> np.ndarray:
        """Return the input of a layer, with a 1 appended if it has a bias."""
        entered, _ = layer_values(params[: depth + 1], inputs, activation[:depth], residual)
        return np.asarray(params[depth].extend(entered[depth]))

    yield Field("softmax shift", softmax_shift)
    _, values = layer_values(params, inputs, activation, residual)
    found = [traits(phi, z.shape[-1]) for phi, z in zip(activation, values, strict=False)]
    generator = np.random.default_rng(0)
    for group in streams(params, residual):
        for depth in group[group[0] < 0 :]:
            yield from _of_tied_units(found, range(depth, group[-1] + 1), depth > group[0])
            yield from _of_shifts(params, found[depth], depth, range(depth + 1, group[-1] + 2))
            yield from _of_dead_units(values[depth], activation[depth], depth, generator)
    for depth in range(len(params)):
        yield from _of_dependent_inputs(params, features, depth)


def _of_tied_units(found: Sequence[Traits], tied: range, adds: bool) -> Iterator[Field]:
    """Yield the fields that change the scale or the basis of units of layers that are tied, of all alike.

    If the first of them adds its input, φ(z) + a = φ(z + a) makes that a part of its weights.
    """
    if adds and not found[tied[0]].translation:
        return
    name = f"layer {tied[0] + 1}" + (f" to {tied[-1] + 1}" if len(tied) > 1 else "")
    kinds = [found[depth] for depth in tied]
    if all(kind.linear for kind in kinds):
        yield Field(
            f"linear gauge of {name}", lambda p: _sum([linear_gauge(p, k, adds and k == tied[0]) for k in tied])
        )
    elif all(kind.separate and kind.homogeneous for kind in kinds):
        yield Field(f"rescaling of {name}", lambda p: _sum([rescaling(p, k, adds and k == tied[0]) for k in tied]))


def _of_shifts(params: Params, found: Traits, depth: int, after: range) -> Iterator[Field]:
    """Yield the fields that add to the outputs of a layer, which the layers `after` take in."""
    if not (found.separate and found.translation):
        return
    if all(params[k].bias is not None for k in (depth, *after)):
        yield Field(f"translation of layer {depth + 1}", lambda p: translation(p, depth, after))
    following = _following(params, after)
    if following.shape[0] > following.shape[1]:
        spare = np.linalg.qr(following, mode="complete")[0][:, following.shape[1] :]
        name = f"cancelling translations of layer {depth + 1}"
        yield Field(name, lambda p: cancelling_translations(p, depth, after, spare))


def _of_dead_units(z: jax.Array, activation: Activation, depth: int, generator: np.random.Generator) -> Iterator[Field]:
    slope = jax.vjp(activation, z)[1](jnp.asarray(generator.standard_normal(jax.eval_shape(activation, z).shape)))[0]
    dead = np.flatnonzero(np.all(np.asarray(slope) == 0, axis=0))
    if dead.size:
        yield Field(f"dead pre-activations of layer {depth + 1}", lambda p: dead_directions(p, depth, dead))


def _of_dependent_inputs(params: Params, features: Features, depth: int) -> Iterator[Field]:
    matrix = features(params, depth)
    _, sizes, right = np.linalg.svd(np.linalg.qr(matrix, mode="r"), full_matrices=True)
    rank = int(np.sum(sizes > max(matrix.shape) * np.finfo(matrix.dtype).eps * sizes[0]))
    if rank < matrix.shape[1]:
        null = right[rank:].T
        yield Field(f"dependent inputs of layer {depth + 1}", lambda p: dependent_inputs(p, features, depth, null))


def softmax_shift(params: Params) -> Params:
    """Add the same number to all logits: one tangent for each row of the last layer, its bias included."""
    rows, columns = params[-1].shape
    moves = np.eye(rows, dtype=params[-1].weight.dtype)[:, :, None] * np.ones(columns, params[-1].weight.dtype)
    return _place(params, {len(params) - 1: moves})


def rescaling(params: Params, depth: int, adds: bool = False) -> Params:
    """Multiply the incoming weights of a unit of hidden layer `depth` by 1 + ε and divide its outgoing ones.

    adds: the identity is a part of the incoming weights.
    """
    first, second = params[depth], params[depth + 1]
    units = np.eye(second.weight.shape[0], dtype=first.weight.dtype)
    moves = _to_pieces(units, first)[:, None] * _incoming(first, adds)
    return _place(params, {depth: moves, depth + 1: -units[:, :, None] * second.weight})


def linear_gauge(params: Params, depth: int, adds: bool = False) -> Params:
    """Return W → W (1 + εA), b → b (1 + εA), W' → (1 − εA) W' for h² matrices A, antisymmetric ones first.

    adds: the identity is a part of W.
    """
    first, second = params[depth], params[depth + 1]
    hidden = second.weight.shape[0]
    units = np.eye(hidden * hidden, dtype=first.weight.dtype).reshape(hidden, hidden, hidden, hidden)
    upper = np.triu_indices(hidden, 1)
    rotations, stretches = units[upper] - units[upper[::-1]], units[np.triu_indices(hidden)]
    units = np.concatenate([rotations, stretches + np.swapaxes(stretches, 1, 2)])
    return _place(params, {depth: _incoming(first, adds) @ units, depth + 1: -units @ second.weight})


def translation(params: Params, depth: int, after: range) -> Params:
    """Add ε to all biases of a unit and subtract its effect from later biases, where φ(z + t) = φ(z) + t."""
    first = params[depth]
    units = np.eye(params[after[0]].weight.shape[0], dtype=first.weight.dtype)
    moves = {k: _last_row(-params[k].weight, params[k]) for k in after}
    return _place(params, {depth: _last_row(_to_pieces(units, first), first), **moves})


def cancelling_translations(params: Params, depth: int, after: range, spare: np.ndarray) -> Params:
    """Add to units a linear function of their inputs, nᵢ aₖ with nᵀ W' = 0, whose effect on later layers cancels.

    `spare` (h, h − out) holds such n at some params; at others they are projected.
    """
    first = params[depth]
    basis = np.linalg.qr(_following(params, after))[0]
    rows = np.asarray(spare, basis.dtype).T
    normals = _to_pieces(rows - (rows @ basis) @ basis.T, first)
    moves = np.einsum("jo,ki->jkio", normals, np.eye(first.shape[0], dtype=basis.dtype))
    return _place(params, {depth: moves.reshape(-1, *first.shape)})


def dependent_inputs(params: Params, features: Features, depth: int, null: np.ndarray) -> Params:
    """Add n to the weights and bias of one pre-activation, where [a, 1] n = 0 on all examples.

    `null` (in + 1, k), or (in, k) without a bias, holds such n at some params; at others they are projected to as many
    singular vectors.
    """
    layer, vectors = params[depth], np.asarray(null)
    if depth:
        right = np.linalg.svd(np.linalg.qr(features(params, depth), mode="r"), full_matrices=True)[2]
        right = right[-null.shape[1] :]
        vectors = right.T @ (right @ vectors)
    outputs = np.eye(layer.shape[1], dtype=layer.weight.dtype)
    return _place(params, {depth: np.einsum("kj,oq->jokq", vectors, outputs).reshape(-1, *layer.shape)})


def dead_directions(params: Params, depth: int, dead: np.ndarray) -> Params:
    """Move one weight or bias of a pre-activation on which no output depends."""
    layer = params[depth]
    inputs, outputs = (np.eye(size, dtype=layer.weight.dtype) for size in layer.shape)
    return _place(params, {depth: np.einsum("jo,ki->jkio", outputs[dead], inputs).reshape(-1, *layer.shape)})


def _following(params: Params, after: range) -> np.ndarray:
    """Return the weights of the layers that take in the outputs of a layer, side by side."""
    return np.concatenate([np.asarray(params[k].weight) for k in after], axis=1)


def _sum(fields: Sequence[Params]) -> Params:
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *fields)


def _incoming(layer: Layer, adds: bool) -> Any:
    """Return the incoming weights and the bias of each pre-activation, the identity added to the weights if `adds`."""
    columns = entering(layer)
    if not adds:
        return columns
    inputs, outputs = layer.weight.shape
    identity = np.arange(len(columns))[:, None] == np.arange(outputs) // (outputs // inputs)
    return columns + identity.astype(columns.dtype)


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
