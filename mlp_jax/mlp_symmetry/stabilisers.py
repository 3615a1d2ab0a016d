"""The number of discrete maps that fix a point."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from mlp_jax.mlp import Layer
from mlp_jax.mlp_symmetry.network import entering

_MOST = 100_000


@dataclasses.dataclass(frozen=True)
class LayerMaps:
    """The maps allowed on one hidden layer: permute units, flip their signs, permute the pieces of a unit.

    flips
        The sign of a unit's outgoing weights after that of its incoming ones is changed: −1 if φ is odd, 1 if φ is
        even, 0 if signs may not be flipped.
    """

    pieces: int
    permutations: bool
    flips: int
    exchanges: bool

    def order(self, units: int) -> int:
        """Return the order of the group: the product of h!, 2^h and (pieces!)^h, each if allowed."""
        permutations = math.factorial(units) if self.permutations else 1
        exchanges = math.factorial(self.pieces) ** units if self.exchanges else 1
        return permutations * exchanges * (2**units if self.flips else 1)


def count_fixing(layers: Sequence[Layer], kinds: Sequence[LayerMaps], tolerance: float) -> int:
    """Return the number of permutations and flips of hidden units (and pieces) that fix all layers.

    Layer by layer: a map of the units of one layer must fix their incoming weights, given the map of the layer before.
    """
    if not kinds:
        return 1
    return sum(_ways(layers, kinds, 0, np.arange(layers[0].weight.shape[0]), np.ones(len(layers[0].weight)), tolerance))


def _ways(
    layers: Sequence[Layer],
    kinds: Sequence[LayerMaps],
    depth: int,
    order: np.ndarray,
    signs: np.ndarray,
    tolerance: float,
) -> Iterator[int]:
    """Yield the numbers of ways to complete a map that is given before layer `depth`."""
    layer, after, kind = layers[depth], layers[depth + 1], kinds[depth]
    units, pieces = after.weight.shape[0], kind.pieces
    target = entering(layer).reshape(-1, units, pieces)
    moved = entering(layer._replace(weight=layer.weight[order] * signs[:, None])).reshape(-1, units, pieces)
    within = 1
    if kind.exchanges:
        within = math.prod(_repeats(target[:, i].T, tolerance) for i in range(units))
        target, moved = _sorted_pieces(target), _sorted_pieces(moved)
    if depth == len(kinds) - 1:
        rows = np.concatenate([_by_unit(target), after.weight], axis=1)
        yield within * _matchings(_images(moved, kind, np.asarray(after.weight)), rows, kind, tolerance)
        return
    for count, (rows, flips) in enumerate(_assignments(_images(moved, kind), _by_unit(target), kind, tolerance)):
        if count >= _MOST:
            raise ValueError(f"params: got more than {_MOST} maps that fix layer {depth + 1}, too many to list.")
        for ways in _ways(layers, kinds, depth + 1, rows, flips if kind.flips < 0 else np.abs(flips), tolerance):
            yield within * ways


def _by_unit(values: np.ndarray) -> np.ndarray:
    """Return (in, units, pieces) as one row per unit."""
    return values.transpose(1, 0, 2).reshape(values.shape[1], -1)


def _sorted_pieces(values: np.ndarray) -> np.ndarray:
    """Return (in, units, pieces) with the pieces of each unit in the order of a fixed random function of them."""
    weights = np.random.default_rng(1).standard_normal(len(values))
    order = np.argsort(np.einsum("k,kup->up", weights, values), axis=1)
    return np.take_along_axis(values, order[None], axis=2)


def _repeats(rows: np.ndarray, tolerance: float) -> int:
    """Return the number of permutations that fix a list of rows: the product of m! over groups of m equal ones."""
    same = np.max(np.abs(rows[:, None] - rows[None]), axis=2) <= tolerance
    return math.prod(int(np.sum(same[i, : i + 1])) for i in range(len(rows)))


def _images(incoming: np.ndarray, kind: LayerMaps, outgoing: np.ndarray | None = None) -> dict[float, np.ndarray]:
    """Return one row per unit, of incoming and outgoing weights, as it is and, if allowed, with its sign flipped."""
    rows = {sign: sign * _by_unit(incoming) for sign in ((1.0, -1.0) if kind.flips else (1.0,))}
    if outgoing is None:
        return rows
    return {s: np.concatenate([row, (s if kind.flips < 0 else 1) * outgoing], axis=1) for s, row in rows.items()}


def _matchings(images: dict[float, np.ndarray], target: np.ndarray, kind: LayerMaps, tolerance: float) -> int:
    """Count the signed permutations that take rows to those of `target`."""
    if not kind.permutations:
        return math.prod(len(_signs(images, j, row, tolerance)) for j, row in enumerate(target))
    ways, free = 1, list(range(len(target)))
    # Equality up to sign is an equivalence relation: any choice for one row leaves the same number for the next.
    for row in target:
        fitting = [(j, len(_signs(images, j, row, tolerance))) for j in free]
        fitting = [(j, number) for j, number in fitting if number]
        if not fitting:
            return 0
        ways *= len(fitting) * fitting[0][1]
        free.remove(fitting[0][0])
    return ways


def _assignments(
    images: dict[float, np.ndarray], target: np.ndarray, kind: LayerMaps, tolerance: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (order, signs) with images[sign][order] = target for each unit."""
    units = len(target)
    options = [
        [(j, s) for j in (range(units) if kind.permutations else [i]) for s in _signs(images, j, target[i], tolerance)]
        for i in range(units)
    ]

    def extend(chosen: list[tuple[int, float]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if len(chosen) == units:
            order, signs = zip(*chosen, strict=True)
            yield np.asarray(order), np.asarray(signs)
            return
        used = {j for j, _ in chosen}
        for option in itertools.filterfalse(lambda o: o[0] in used, options[len(chosen)]):
            yield from extend([*chosen, option])

    return extend([])


def _signs(images: dict[float, np.ndarray], j: int, target: np.ndarray, tolerance: float) -> list[float]:
    return [sign for sign, rows in images.items() if np.max(np.abs(rows[j] - target)) <= tolerance]
