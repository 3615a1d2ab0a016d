"""Symmetries of one hidden layer of tanh units, and the orbits of critical points under them, decided by their boxes.

Signs of units, permutations of units, and permutations of inputs that leave the data unchanged. They act on (w, v) by
permuting coordinates with signs.
"""

import itertools
from typing import NamedTuple

import numpy as np

from mlp_jax.interval import Refusal
from mlp_jax.interval.ball import Array
from mlp_jax.interval.branching import Zero


class Group(NamedTuple):
    """Maps x ↦ signs[g] x[order[g]] of (w, v), and pairs of coordinates that the domain keeps in descending order."""

    order: Array
    signs: Array
    descending: tuple[tuple[int, int], ...]


def group(inputs: Array, targets: Array, units: int) -> Group:
    """Return the symmetries of the loss on data (N, d), (N,)."""
    features = inputs.shape[1]
    classes = _exchangeable(inputs, targets)
    columns = [
        _permuted(features, classes, parts) for parts in itertools.product(*map(itertools.permutations, classes))
    ]
    orders, signs = [], []
    for chosen in columns:
        for units_ in itertools.permutations(range(units)):
            w = np.array([[unit * (features + 1) + a for a in (*chosen, features)] for unit in units_])
            v = units * (features + 1) + np.array(units_)
            for flips in itertools.product((1.0, -1.0), repeat=units):
                orders.append(np.concatenate([w.ravel(), v]))
                signs.append(np.concatenate([np.repeat(flips, features + 1), flips]))
    pairs = tuple(pair for one in classes for pair in itertools.pairwise(one))
    return Group(np.array(orders), np.array(signs), pairs)


def _exchangeable(inputs: Array, targets: Array) -> list[tuple[int, ...]]:
    """Return classes of features of which any two can be exchanged without changing the data."""
    rows = np.column_stack([inputs, targets])

    def same(a: int, b: int) -> bool:
        return np.array_equal(_sorted(rows), _sorted(rows[:, _swapped(rows.shape[1], a, b)]))

    classes: list[tuple[int, ...]] = []
    for feature in range(inputs.shape[1]):
        for number, one in enumerate(classes):
            if same(one[0], feature):
                classes[number] = (*one, feature)
                break
        else:
            classes.append((feature,))
    return classes


def _sorted(rows: Array) -> Array:
    return rows[np.lexsort(rows.T)]


def _swapped(size: int, a: int, b: int) -> Array:
    order = np.arange(size)
    order[[a, b]] = b, a
    return order


def _permuted(features: int, classes: list[tuple[int, ...]], parts: tuple[tuple[int, ...], ...]) -> list[int]:
    order = list(range(features))
    for one, chosen in zip(classes, parts, strict=True):
        for place, feature in zip(one, chosen, strict=True):
            order[place] = feature
    return order


def orbits(zeros: list[Zero], group: Group) -> tuple[list[Zero], Array]:
    """Return one zero of each orbit, and the sizes of the orbits; Refusal where boxes do not tell zeros apart."""
    found: list[Zero] = []
    for zero in zeros:
        images = _images(zero, group)
        if not any(np.any(_is(images, other)) for other in found):
            found.append(zero)
    sizes = [len(group.order) // int(np.sum(_is(_images(zero, group), zero))) for zero in found]
    return found, np.array(sizes, np.int64)


def _images(zero: Zero, group: Group) -> tuple[Array, Array]:
    """Return the boxes of the images of a zero."""
    low, high = (group.signs * end[group.order] for end in zero.near)
    return np.minimum(low, high), np.maximum(low, high)


def _is(images: tuple[Array, Array], zero: Zero) -> Array:
    """Return which images are a zero: those whose boxes lie where it is the only one; Refusal where that is open."""
    low, high = images
    same = np.all((low >= zero.unique[0]) & (high <= zero.unique[1]), axis=1)
    apart = np.any((low > zero.near[1]) | (high < zero.near[0]), axis=1)
    if not np.all(same | apart):
        raise Refusal("two critical points are too close to tell whether they are one")
    return same
