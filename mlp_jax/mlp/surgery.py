"""Hidden units split, merged, removed and added so that the network computes the same function. Transformable.

Layers and units are numbered from 0; the pieces of a maxout unit move together. Networks have no residual connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks
from mlp_jax.mlp.network import Layer, Params, require_layers


def split_unit(params: Params, layer: int, unit: int, share: float) -> Params:
    """Return params with a copy of a hidden unit, placed last, to which it gives a part of its outgoing weights.

    (w, v) becomes (w, λ v) and (w, (1 − λ) v): for every λ the same function, and a critical point of an unpenalised
    loss if params are one (Fukumizu & Amari 2000, "Local minima and plateaus in hierarchical structures of multilayer
    perceptrons"). Transformable.

    Parameters
    ----------
    params
        Tuple of Layer.
    layer, unit
        A hidden layer and one of its units, from 0.
    share
        λ, any number; may be traced.

    Raises
    ------
    TypeError, ValueError
        `params` are not layers, or there is no such unit.

    Examples
    --------
    >>> params = Layer(jnp.array([[3.0]])), Layer(jnp.array([[8.0]]), jnp.zeros(1))
    >>> hidden, out = split_unit(params, 0, 0, 0.25)
    >>> hidden.weight.tolist(), out.weight.tolist()
    ([[3.0, 3.0]], [[2.0], [6.0]])
    """
    count = _count_units(params, layer, unit)
    weight, row = params[layer + 1].weight, params[layer + 1].weight[unit : unit + 1]
    shared = _concatenate([weight[:unit], share * row, weight[unit + 1 :], (1 - share) * row])
    return _with(params, layer, _incoming(params, layer, [*range(count), unit]), shared)


def merge_units(params: Params, layer: int, unit: int, other: int, *, sign: int = 1) -> Params:
    """Return params without the unit `other`, whose outgoing weights are added to those of `unit`. Transformable.

    The function is the same if the incoming weights of both are equal, or opposite with `sign=-1` and an odd
    activation: then the outgoing weights are subtracted. params, layer, errors: see `split_unit`.

    Examples
    --------
    >>> params = Layer(jnp.array([[3.0, 5.0, 3.0]])), Layer(jnp.array([[2.0], [1.0], [6.0]]))
    >>> hidden, out = merge_units(params, 0, 0, 2)
    >>> hidden.weight.tolist(), out.weight.tolist()
    ([[3.0, 5.0]], [[8.0], [1.0]])
    """
    _count_units(params, layer, unit, other)
    if unit == other:
        raise ValueError(f"units: got unit {unit} twice, expected two units.")
    weight = params[layer + 1].weight
    total = weight[unit : unit + 1] + sign * weight[other : other + 1]
    merged = _concatenate([weight[:unit], total, weight[unit + 1 :]])
    return remove_unit(_with(params, layer, params[layer], merged), layer, other)


def remove_unit(params: Params, layer: int, unit: int) -> Params:
    """Return params without a hidden unit. Transformable.

    The function is the same if the outgoing weights of the unit, or its outputs on all inputs, are 0. params, layer,
    unit, errors: see `split_unit`; ValueError if it is the only unit of its layer.

    Examples
    --------
    >>> hidden, out = remove_unit((Layer(jnp.array([[3.0, 5.0]])), Layer(jnp.array([[2.0], [0.0]]))), 0, 1)
    >>> hidden.weight.tolist(), out.weight.tolist()
    ([[3.0]], [[2.0]])
    """
    count = _count_units(params, layer, unit)
    if count == 1:
        raise ValueError(f"unit: got the only unit of hidden layer {layer}, expected one of two or more.")
    kept = [i for i in range(count) if i != unit]
    return _with(params, layer, _incoming(params, layer, kept), params[layer + 1].weight[np.asarray(kept)])


def add_unit(params: Params, layer: int, incoming: Layer | None = None) -> Params:
    """Return params with another hidden unit, placed last, whose outgoing weights are 0: the same function.

    Transformable. If the activation is 0 at 0, adding a unit of zeros to a critical point gives a critical point, also
    under weight decay.

    Parameters
    ----------
    params, layer
        See `split_unit`, also for errors.
    incoming
        The weights and bias of the unit, Layer(weight (in, pieces), bias (pieces,) or None); zeros if None.

    Examples
    --------
    >>> hidden, out = add_unit((Layer(jnp.array([[3.0]])), Layer(jnp.array([[2.0]]))), 0, Layer(jnp.array([[5.0]])))
    >>> hidden.weight.tolist(), out.weight.tolist()
    ([[3.0, 5.0]], [[2.0], [0.0]])
    """
    count = _count_units(params, layer)
    first, weight = params[layer], params[layer + 1].weight
    pieces = first.shape[1] // count
    if incoming is None:
        incoming = jax.tree.map(lambda leaf: np.zeros((*leaf.shape[:-1], pieces), leaf.dtype), first)
    _checks.like(incoming, jax.tree.map(lambda leaf: leaf[..., :pieces], first), "incoming", "one unit")
    grown = jax.tree.map(lambda leaf, new: _concatenate([leaf, new], axis=-1), first, incoming)
    return _with(params, layer, grown, _concatenate([weight, np.zeros((1, weight.shape[1]), weight.dtype)]))


def _count_units(params: Params, layer: int, *units: int) -> int:
    """Return the number of units of a hidden layer; raise unless it exists and has the given units."""
    require_layers(params)
    if len(params) == 1:
        raise ValueError("params: got one layer, expected a network with a hidden layer.")
    count = np.shape(params[_checks.integer(layer, "layer", 0, len(params) - 2) + 1].weight)[0]
    for unit in units:
        _checks.integer(unit, "unit", 0, count - 1)
    return count


def _incoming(params: Params, layer: int, units: Sequence[int]) -> Layer:
    """Return a hidden layer with the given units alone, in that order."""
    pieces = params[layer].shape[1] // len(params[layer + 1].weight)
    columns = (np.asarray(units)[:, None] * pieces + np.arange(pieces)).ravel()
    return jax.tree.map(lambda leaf: leaf[..., columns], params[layer])


def _with(params: Params, layer: int, incoming: Layer, outgoing: Any) -> Params:
    return (*params[:layer], incoming, params[layer + 1]._replace(weight=outgoing), *params[layer + 2 :])


def _concatenate(parts: Sequence[Any], axis: int = 0) -> Any:
    """Concatenate in numpy if all parts are numpy arrays: float64 JAX arrays exist only where x64 is on."""
    return (np if all(isinstance(part, np.ndarray) for part in parts) else jnp).concatenate(parts, axis=axis)
