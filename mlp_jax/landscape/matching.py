"""Hidden units of one solution matched to those of another. Host-level, numpy, float64."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import scipy.optimize

from mlp_jax import _checks, mlp
from mlp_jax.mlp import Activations, Params
from mlp_jax.mlp_symmetry.activations import Traits, traits

Layers = list[Any]  # of Layer, with numpy arrays


def match_units(params: Params, reference: Params, *, activation: Activations, max_sweeps: int = 100) -> Params:
    """Return params with hidden units permuted, and flipped if the activation is odd, to be nearest to `reference`.

    The network computes the same function. For one layer, the order of units that minimises Σ ‖θ − reference‖² is an
    assignment problem, solved exactly. Layers are visited until none changes: with one hidden layer the result is the
    nearest copy, with more a local optimum (weight matching: Ainsworth, Hayase & Srinivasa 2022, "Git Re-Basin").
    Host-level; returns numpy arrays.

    Parameters
    ----------
    params, reference
        Tuples of Layer of the same shapes, of a network without residual connections.
    activation
        Of the hidden layers, one or one for each; ValueError unless elementwise (softmax and maxout are not).
    max_sweeps
        The largest number of visits of all layers.

    Examples
    --------
    >>> from mlp_jax import mlp
    >>> reference = mlp.init(jax.random.key(0), (2, 3, 1))
    >>> hidden, out = reference
    >>> copy = (mlp.Layer(-hidden.weight[:, ::-1], -hidden.bias[::-1]), mlp.Layer(-out.weight[::-1], out.bias))
    >>> found = match_units(copy, reference, activation=jnp.tanh)
    >>> bool(np.array_equal(found[0].weight, hidden.weight) and np.array_equal(found[1].weight, out.weight))
    True
    """
    mlp.require_layers(params)
    _checks.like(params, reference, "params", "reference")
    phi = mlp.each_layer(activation, params)
    found = [traits(one, layer.shape[1]) for one, layer in zip(phi, params, strict=False)]
    for depth, kind in enumerate(found, start=1):
        if kind.pieces != 1 or not kind.separate:
            raise ValueError(f"activation: got one that joins pre-activations of layer {depth}, expected elementwise.")
    start = [jax.tree.map(np.asarray, layer) for layer in params]
    wanted = [jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), layer) for layer in reference]
    # From the given order, and from the order by incoming weights, layer by layer, which finds any exact copy.
    ends = [_improve(begin, wanted, found, max_sweeps) for begin in (start, _forward_pass(start, wanted, found))]
    return tuple(min(ends, key=functools.partial(_distance, wanted)))


def _improve(start: Layers, wanted: Layers, found: list[Traits], max_sweeps: int) -> Layers:
    matched = list(start)
    for _ in range(max_sweeps):
        moved = [_match_layer(matched, wanted, depth, kind) for depth, kind in enumerate(found)]
        if not any(moved):
            break
    return matched


def _forward_pass(start: Layers, wanted: Layers, found: list[Traits]) -> Layers:
    matched = list(start)
    for depth, kind in enumerate(found):
        _reorder(matched, depth, *_assign(_incoming(matched[depth], wanted[depth]), kind.odd))
    return matched


def _match_layer(matched: Layers, wanted: Layers, depth: int, kind: Traits) -> bool:
    """Put the units of one hidden layer in their best order, in place; return whether it changed."""
    agreement = _incoming(matched[depth], wanted[depth]) + wanted[depth + 1].weight @ matched[depth + 1].weight.T
    order, sign = _assign(agreement, kind.odd)
    gained = np.sum(sign * agreement[np.arange(len(order)), order]) - np.trace(agreement)
    if gained <= 1e-12 * np.abs(agreement).sum():
        return False
    _reorder(matched, depth, order, sign)
    return True


def _incoming(layer: Any, wanted: Any) -> np.ndarray:
    """Return (units wanted, units) inner products of their incoming weights."""
    pairs = zip(jax.tree.leaves(wanted), jax.tree.leaves(layer), strict=True)
    return sum(np.atleast_2d(w).T @ np.atleast_2d(leaf) for w, leaf in pairs)


def _assign(agreement: np.ndarray, odd: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the order and signs of units with the largest total agreement."""
    rows, order = scipy.optimize.linear_sum_assignment(np.abs(agreement) if odd else agreement, maximize=True)
    return order, np.where(odd & (agreement[rows, order] < 0), -1.0, 1.0)


def _reorder(layers: Layers, depth: int, order: np.ndarray, sign: np.ndarray) -> None:
    first, second = layers[depth : depth + 2]
    sign = sign.astype(first.weight.dtype)
    layers[depth] = jax.tree.map(lambda leaf: leaf[..., order] * sign, first)
    layers[depth + 1] = second._replace(weight=second.weight[order] * sign[:, None])


def _distance(layers: Any, wanted: Any) -> float:
    pairs = zip(jax.tree.leaves(layers), jax.tree.leaves(wanted), strict=True)
    return float(sum(np.sum((a - b) ** 2) for a, b in pairs))
