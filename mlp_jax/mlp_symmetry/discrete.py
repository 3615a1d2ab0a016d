"""Discrete symmetries: permutations of hidden units and of their pieces, sign flips; a canonical form of all copies."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator

import jax
import numpy as np

from mlp_jax import mlp, tree
from mlp_jax.curvature import precision, units
from mlp_jax.mlp import Activations, Layer, Params
from mlp_jax.mlp_symmetry.activations import Traits, traits
from mlp_jax.mlp_symmetry.network import entering, streams
from mlp_jax.mlp_symmetry.stabilisers import LayerMaps, count_fixing

Map = Callable[[Params], Params]
_KINDS = ("swap units", "flip unit", "exchange pieces")


@dataclasses.dataclass(frozen=True)
class DiscreteMaps:
    """The discrete maps that leave a loss unchanged. Made by `maps`.

    layers
        One `LayerMaps` for each hidden layer.
    """

    layers: tuple[LayerMaps, ...]

    def generators(self, params: Params) -> dict[str, Map]:
        """Return generators of the group, maps params -> params by name, such as `swap units 1 and 2 of layer 1`."""
        return dict(_generators(params, self.layers))

    def canonical(self, params: Params) -> Params:
        """Return the canonical form of all copies of params, the same up to rounding. Host-level, numpy, float64.

        In each layer a fixed random linear function of a unit's incoming (and, in the last hidden layer, outgoing)
        weights gives its sign and place, so that points which differ by a rounding have forms that differ by a
        rounding, except for coincidences.
        """
        layers = _as_numpy(params)
        for depth, allowed in enumerate(self.layers):
            layers[depth], layers[depth + 1] = _canonical_layer(
                layers[depth], layers[depth + 1], allowed, last=depth == len(self.layers) - 1
            )
        return tuple(layers)

    def orbit_size(self, params: Params, tolerance: float = 1e-9) -> int:
        """Return the number of distinct copies of params: the order of the group over that of the stabiliser.

        Numbers are equal if they differ by less than `tolerance` times the largest parameter. Raises ValueError if so
        many units of a layer before the last are equal that the maps which fix params cannot be listed.
        """
        layers = _as_numpy(params)
        order = math.prod(kind.order(len(after.weight)) for kind, after in zip(self.layers, layers[1:], strict=True))
        size = max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(layers))
        return order // count_fixing(layers, self.layers, tolerance * size)


def maps(fun: Callable[..., jax.Array], params: Params, args: tuple = (), *, activation: Activations) -> DiscreteMaps:
    """Return the discrete symmetries of `fun`: for the argument `symmetries` of `critical.census`. Host-level, float64.

    Permutations of hidden units, sign flips of units with an odd activation (Chen, Lu & Hecht-Nielsen 1993) or an even
    one, and permutations of the pieces of maxout units. Each kind is tried on random params in each layer, and dropped
    if `fun` changes by more than its rounding. fun, params, args, activation: see `tangents`; only the shapes of params
    matter. Raises ValueError if `fun` has residual connections that tie the units of layers: then only permutations of
    the same units in all of these layers keep it, which are not supported.

    Examples
    --------
    >>> fun = lambda p, x: jnp.sum(mlp.forward(p, x, activation=jnp.tanh) ** 2)
    >>> params = mlp.init(jax.random.key(0), (2, 3, 1))
    >>> found = maps(fun, params, (np.ones((4, 2)),), activation=jnp.tanh)
    >>> found.layers, found.orbit_size(params)
    ((LayerMaps(pieces=1, permutations=True, flips=-1, exchanges=False),), 48)
    """
    with precision.float64():
        fun, params, args = precision.traced_problem(fun, params, args)
        mlp.require_layers(params)
        phi = mlp.each_layer(activation, params)
        offered = tuple(_offered(traits(one, layer.shape[1])) for one, layer in zip(phi, params, strict=False))
        unit = units.traced_unit(fun, params)
        keeps = _test(fun, params, args, unit)
        good = _valid(keeps, params, offered)
        _refuse_tied_units(keeps, params, offered, good)
    kept = []
    for depth, layer in enumerate(offered, start=1):
        swap, flip, exchange = (good.get((kind, depth), True) for kind in _KINDS)
        allowed = layer.permutations and swap, layer.flips * flip, layer.exchanges and exchange
        kept.append(LayerMaps(layer.pieces, *allowed))
    return DiscreteMaps(tuple(kept))


def _offered(found: Traits) -> LayerMaps:
    return LayerMaps(
        found.pieces,
        permutations=found.separate,
        flips=found.even - found.odd if found.separate and found.pieces == 1 else 0,
        exchanges=found.pieces > 1 and found.separate and found.exchangeable,
    )


def _valid(keeps: Callable[[Map], bool], params: Params, offered: tuple[LayerMaps, ...]) -> dict[tuple[str, int], bool]:
    """Return, for each kind and layer, whether all its generators leave the function unchanged."""
    good: dict[tuple[str, int], bool] = {}
    for name, move in _generators(params, offered):
        kind = next(k for k in _KINDS if name.startswith(k))
        key = kind, int(name.rsplit(" ", 1)[1])
        good[key] = good.get(key, True) and keeps(move)
    return good


def _refuse_tied_units(
    keeps: Callable[[Map], bool],
    params: Params,
    offered: tuple[LayerMaps, ...],
    good: dict[tuple[str, int], bool],
) -> None:
    """Raise if a map keeps the function only when it is applied to several layers at once."""
    moves = dict(_generators(params, offered))
    groups = [group for group in streams(params, residual=True) if len(group) > 1 and group[0] >= 0]
    for group, (kind, first) in itertools.product(groups, {"swap units": "1 and 2", "flip unit": "1"}.items()):
        each = [moves.get(f"{kind} {first} of layer {depth + 1}") for depth in group]
        together = functools.partial(functools.reduce, lambda moved, move: move(moved), each)
        if None not in each and not all(good[kind, depth + 1] for depth in group) and keeps(together):
            tied = f"layers {group[0] + 1} to {group[-1] + 1}"
            raise ValueError(
                f"fun: got one that ties the units of {tied}, expected a network without residual connections."
            )


def _test(fun: Callable[..., jax.Array], params: Params, args: tuple, unit: float) -> Callable[[Map], bool]:
    """Return a function that says whether a map leaves `fun` unchanged at random params."""
    value = jax.jit(fun)
    draw = jax.tree.map(lambda a, b: a + b, params, tree.random_like(jax.random.key(0), params))
    nudged = [jax.tree.map(lambda a, s=side: a * (1 + s * 2 * unit), draw) for side in (-1.0, 1.0)]
    here = float(value(draw, *args))
    # The change from a rounding of the parameters, and from the order of sums over units, which permutations change.
    rounding = max(abs(float(value(p, *args)) - here) for p in nudged)
    allowed = 16 * rounding + 64 * unit * abs(here) * max(layer.shape[1] for layer in params)
    return lambda move: abs(float(value(move(draw), *args)) - here) <= allowed


def _generators(params: Params, layers: tuple[LayerMaps, ...]) -> Iterator[tuple[str, Map]]:
    for depth, allowed in enumerate(layers):
        units = np.shape(params[depth + 1].weight)[0]
        where, plain = f"of layer {depth + 1}", np.arange(units * allowed.pieces).reshape(units, allowed.pieces)
        for i in range(units - 1 if allowed.permutations else 0):
            order = np.arange(units)
            order[[i, i + 1]] = i + 1, i
            yield f"swap units {i + 1} and {i + 2} {where}", _move(depth, plain[order].ravel(), order)
        for i in range(units if allowed.flips else 0):
            yield f"flip unit {i + 1} {where}", _flip(depth, i, allowed.flips)
        for i in range(units if allowed.exchanges else 0):
            for j in range(allowed.pieces - 1):
                columns = plain.copy()
                columns[i, [j, j + 1]] = columns[i, [j + 1, j]]
                name = f"exchange pieces {j + 1} and {j + 2} of unit {i + 1} {where}"
                yield name, _move(depth, columns.ravel(), np.arange(units))


def _move(depth: int, columns: np.ndarray, rows: np.ndarray) -> Map:
    """Return the map that reorders the units of layer `depth`: columns of its weight, rows of the next."""

    def move(params: Params) -> Params:
        first, second = params[depth], params[depth + 1]
        moved = jax.tree.map(lambda leaf: leaf[..., columns], first)
        return (*params[:depth], moved, second._replace(weight=second.weight[rows]), *params[depth + 2 :])

    return move


def _flip(depth: int, unit: int, outgoing: int) -> Map:
    def flip(params: Params) -> Params:
        first, second = params[depth], params[depth + 1]
        # numpy, so that params may be either: float64 JAX arrays exist only where x64 is on.
        here = np.arange(first.shape[1]) == unit
        sign, after = (np.where(here, s, 1).astype(first.weight.dtype) for s in (-1, outgoing))
        moved = jax.tree.map(lambda leaf: leaf * sign, first)
        return (*params[:depth], moved, second._replace(weight=second.weight * after[:, None]), *params[depth + 2 :])

    return flip


def _as_numpy(params: Params) -> list[Layer]:
    return [jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), layer) for layer in params]


def _canonical_layer(first: Layer, second: Layer, allowed: LayerMaps, last: bool) -> tuple[Layer, Layer]:
    units, pieces = second.weight.shape[0], allowed.pieces
    generator = np.random.default_rng(0)
    incoming = generator.standard_normal(first.shape[0])
    leaving = generator.standard_normal(second.weight.shape[1])
    across = generator.standard_normal(pieces)
    value = (incoming @ entering(first)).reshape(units, pieces)
    columns = np.arange(units * pieces).reshape(units, pieces)
    if allowed.exchanges:
        inner = np.argsort(value, axis=1)
        value, columns = np.take_along_axis(value, inner, 1), np.take_along_axis(columns, inner, 1)
    key, odd = value @ across, allowed.flips < 0
    # In a layer before the last: invariant under permutations and flips of the next layer.
    after = second.weight @ leaving if last else np.sort(np.abs(second.weight), axis=1) @ leaving
    whole = key + after if last and allowed.flips <= 0 else key  # the part whose sign a flip changes
    sign = np.where(whole < 0, -1.0, 1.0) if allowed.flips else np.ones(units)
    key = sign * whole if last and allowed.flips <= 0 else sign * key + after
    order = np.argsort(key, kind="stable") if allowed.permutations else np.arange(units)
    entering_order, rows = columns[order].ravel(), sign[order]
    wide = np.repeat(rows, pieces)
    moved = jax.tree.map(lambda leaf: leaf[..., entering_order] * wide, first)
    return moved, second._replace(weight=second.weight[order] * (rows[:, None] if odd else 1))
