"""Hidden units of one solution put in the order (and sign) of another's. Host-level, numpy, float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.optimize

from mlp_jax import _checks
from mlp_jax.mlp import Activation, Layer, Params
from mlp_jax.mlp_symmetry.activations import Traits, traits
from mlp_jax.mlp_symmetry.network import require_layers


class _Arrays(NamedTuple):
    weight: np.ndarray
    bias: np.ndarray


def match_units(params: Params, reference: Params, *, activation: Activation, max_sweeps: int = 100) -> Params:
    """Return params with hidden units permuted, and flipped where the activation is odd, to be nearest to `reference`.

    The network computed is the same. One layer at a time, the order of units that makes Σ ‖θ − reference‖² least is an
    assignment problem, solved exactly; layers are visited until none changes, so that with one hidden layer the result
    is the nearest copy, and with more a local optimum (weight matching: Ainsworth, Hayase & Srinivasa 2022, "Git
    Re-Basin"). Host-level.

    Parameters
    ----------
    params, reference
        Tuples of Layer(weight (in, out), bias (out,)) of the same shapes.
    activation
        That of the hidden layers; must treat units apart from each other (not softmax), one pre-activation a unit.
    max_sweeps
        Visits of all layers, at most.

    Returns
    -------
    tuple of Layer, numpy arrays of the dtypes of params

    Raises
    ------
    TypeError, ValueError
        Params are not layers, shapes differ, or the activation joins units or pieces (maxout).

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
    require_layers(params)
    require_layers(reference)
    shapes = [[np.shape(leaf) for layer in p for leaf in layer] for p in (params, reference)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"params, reference: got shapes {shapes[0]} and {shapes[1]}, expected the same.")
    found = [traits(activation, np.size(layer[1])) for layer in params[:-1]]
    for depth, kind in enumerate(found, start=1):
        if kind.pieces != 1 or not kind.separate:
            raise ValueError(
                f"activation: got one that joins pre-activations of layer {depth},"
                " expected one that acts on each alone."
            )
    start = [_Arrays(np.asarray(weight), np.asarray(bias)) for weight, bias in params]
    wanted = [_Arrays(np.asarray(weight, np.float64), np.asarray(bias, np.float64)) for weight, bias in reference]
    # From the order given, and from one found layer by layer from the incoming weights alone, which undoes any copy.
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
    """Put the units of one hidden layer in their best order, in place; return whether that is an improvement."""
    agreement = _incoming(matched[depth], wanted[depth]) + wanted[depth + 1].weight @ matched[depth + 1].weight.T
    order, sign = _assign(agreement, kind.odd)
    gained = np.sum(sign * agreement[np.arange(len(order)), order]) - np.trace(agreement)
    if gained <= 1e-12 * np.abs(agreement).sum():
        return False
    _reorder(matched, depth, order, sign)
    return True


def _incoming(layer: _Arrays, wanted: _Arrays) -> np.ndarray:
    """Return (units wanted, units) inner products of what enters them."""
    return wanted.weight.T @ layer.weight + np.outer(wanted.bias, layer.bias)


def _assign(agreement: np.ndarray, odd: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of units, and their signs, of the largest total agreement."""
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
