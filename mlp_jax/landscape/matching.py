"""The hidden units of one solution in the order (and with the signs) of another's. Host-level, numpy, float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.optimize

from mlp_jax import _checks, mlp
from mlp_jax.mlp import Activation, Layer, Params
from mlp_jax.mlp_symmetry.activations import Traits, traits


class _Arrays(NamedTuple):
    weight: np.ndarray
    bias: np.ndarray


def match_units(params: Params, reference: Params, *, activation: Activation, max_sweeps: int = 100) -> Params:
    """Return params with hidden units permuted, and flipped where the activation is odd, to be nearest to `reference`.

    The network computes the same function. For one layer, the order of units that minimises Σ ‖θ − reference‖² is an
    assignment problem, solved exactly. Layers are visited until none changes: with one hidden layer the result is the
    nearest copy, with more a local optimum (weight matching: Ainsworth, Hayase & Srinivasa 2022, "Git Re-Basin").
    Host-level.

    Parameters
    ----------
    params, reference
        Tuples of Layer(weight (in, out), bias (out,)) of the same shapes.
    activation
        Of the hidden layers; ValueError unless it acts on each pre-activation alone (not softmax or maxout).
    max_sweeps
        The largest number of visits of all layers.

    Returns
    -------
    tuple of Layer, numpy arrays of the dtypes of params

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
    max_sweeps = _checks.integer(max_sweeps, "max_sweeps")
    mlp.require_layers(params)
    _checks.like(params, reference, "params", "reference")
    found = [traits(activation, np.size(layer[1])) for layer in params[:-1]]
    for depth, kind in enumerate(found, start=1):
        if kind.pieces != 1 or not kind.separate:
            raise ValueError(f"activation: got one that joins pre-activations of layer {depth}, expected elementwise.")
    start = [_Arrays(np.asarray(weight), np.asarray(bias)) for weight, bias in params]
    wanted = [_Arrays(np.asarray(weight, np.float64), np.asarray(bias, np.float64)) for weight, bias in reference]
    # From the given order, and from that found layer by layer from the incoming weights alone, which undoes any copy.
    ends = [_improve(begin, wanted, found, max_sweeps) for begin in (start, _forward_pass(start, wanted, found))]
    nearest = min(ends, key=lambda end: _distance(end, wanted))
    return tuple(Layer(*layer) for layer in nearest)  # type: ignore[arg-type]  # numpy arrays are leaves too


def _improve(start: list[_Arrays], wanted: list[_Arrays], found: list[Traits], max_sweeps: int) -> list[_Arrays]:
    matched = list(start)
    for _ in range(max_sweeps):
        moved = [_match_layer(matched, wanted, depth, kind) for depth, kind in enumerate(found)]
        if not any(moved):
            break
    return matched


def _forward_pass(start: list[_Arrays], wanted: list[_Arrays], found: list[Traits]) -> list[_Arrays]:
    matched = list(start)
    for depth, kind in enumerate(found):
        _reorder(matched, depth, *_assign(_incoming(matched[depth], wanted[depth]), kind.odd))
    return matched


def _match_layer(matched: list[_Arrays], wanted: list[_Arrays], depth: int, kind: Traits) -> bool:
    """Put the units of one hidden layer in their best order, in place; return whether they were not."""
    agreement = _incoming(matched[depth], wanted[depth]) + wanted[depth + 1].weight @ matched[depth + 1].weight.T
    order, sign = _assign(agreement, kind.odd)
    gained = np.sum(sign * agreement[np.arange(len(order)), order]) - np.trace(agreement)
    if gained <= 1e-12 * np.abs(agreement).sum():
        return False
    _reorder(matched, depth, order, sign)
    return True


def _incoming(layer: _Arrays, wanted: _Arrays) -> np.ndarray:
    """Return (units wanted, units) inner products of their incoming weights."""
    return wanted.weight.T @ layer.weight + np.outer(wanted.bias, layer.bias)


def _assign(agreement: np.ndarray, odd: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the order and signs of units with the largest total agreement."""
    rows, order = scipy.optimize.linear_sum_assignment(np.abs(agreement) if odd else agreement, maximize=True)
    return order, np.where(odd & (agreement[rows, order] < 0), -1.0, 1.0)


def _reorder(layers: list[_Arrays], depth: int, order: np.ndarray, sign: np.ndarray) -> None:
    first, second = layers[depth : depth + 2]
    sign = sign.astype(first.weight.dtype)
    layers[depth] = _Arrays(first.weight[:, order] * sign, first.bias[order] * sign)
    layers[depth + 1] = _Arrays(second.weight[order] * sign[:, None], second.bias)


def _distance(layers: list[_Arrays], wanted: list[_Arrays]) -> float:
    pairs = zip(layers, wanted, strict=True)
    return float(sum(np.sum((a - b) ** 2) for layer, other in pairs for a, b in zip(layer, other, strict=True)))
