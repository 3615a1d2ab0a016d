"""distinct: the points that many searches found, each once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.spatial

from mlp_jax import _checks
from mlp_jax.critical.point import Point
from mlp_jax.tree import PyTree


class Distinct(NamedTuple):
    """The points that searches found, each once.

    points
        One point of each cluster, the one with the smallest gradient; clusters with the most hits first.
    hits
        (m,) number of searches that ended in each.
    labels
        (n,) the cluster of each search, −1 for those that did not converge.
    """

    points: Point
    hits: np.ndarray
    labels: np.ndarray


def distinct(
    points: Point, *, canonical: Callable[[PyTree], PyTree] | None = None, tolerance: float | None = None
) -> Distinct:
    """Return the converged points of `find_many`, each once. Host-level.

    Two are the same if each parameter differs by at most the sum of its errors in both, `Point.error`; a chain of such
    pairs is one point. On a curve of critical points each search ends at another point, and none are merged.

    Parameters
    ----------
    points
        From `find_many`, with a leading axis n on every field.
    canonical
        params -> params, one form for all symmetric copies, such as `mlp_symmetry.maps(...).canonical`. These forms are
        compared instead, and the error of each parameter is the largest of all.
    tolerance
        The error of each parameter, in place of `Point.error`; finite and not negative.

    Raises
    ------
    TypeError, ValueError
        points are not those of `find_many`; the tolerance is negative or not finite.

    Examples
    --------
    >>> from mlp_jax.critical import find_many
    >>> found = distinct(find_many(lambda x: (x**2 - 1) ** 2, np.array([0.9, -1.2, 1.1, 0.1])))
    >>> (found.points.params.round(9) + 0.0).tolist(), found.hits.tolist(), found.labels.tolist()
    ([1.0, -1.0, 0.0], [2, 1, 1], [0, 1, 0, 2])
    """
    if not isinstance(points, Point) or np.ndim(points.converged) != 1:
        raise TypeError(f"points: got {_checks.describe(points)}, expected the Point that `find_many` returns.")
    if tolerance is not None:
        tolerance = float(_checks.not_negative(tolerance, "tolerance"))
    converged = np.flatnonzero(points.converged)
    labels = np.full(len(points.converged), -1)
    if converged.size == 0:
        return Distinct(_chosen(points, converged), np.zeros(0, int), labels)
    forms = np.stack([_vector(points.params, i, canonical) for i in converged.tolist()])
    if tolerance is None:
        leaves = [np.asarray(leaf, np.float64)[converged] for leaf in jax.tree.leaves(points.error)]
        error = np.concatenate([leaf.reshape(len(forms), -1) for leaf in leaves], axis=1)
        if canonical is not None:
            error = np.broadcast_to(np.max(error, axis=1, keepdims=True), forms.shape)
    else:
        error = np.full(forms.shape, tolerance)
    cluster = _clusters(forms, error)
    order = np.argsort(-np.bincount(cluster), kind="stable")
    rank = np.argsort(order, kind="stable")
    labels[converged] = rank[cluster]
    sizes = np.asarray(points.gradient_norm)
    best = [min(np.flatnonzero(labels == k), key=lambda i: sizes[i]) for k in range(len(order))]
    return Distinct(_chosen(points, best), np.bincount(cluster)[order], labels)


def _chosen(points: PyTree, which: Any) -> PyTree:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[which], points)


def _vector(params: PyTree, i: int, canonical: Callable[[PyTree], PyTree] | None) -> np.ndarray:
    one = _chosen(params, i)
    form = one if canonical is None else canonical(one)
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(form)])


def _clusters(forms: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return the cluster of each row: connected components of the pairs that are the same."""
    # In units of its typical error every parameter has the same scale, and one ball holds all that may be the same.
    unit = np.median(error, axis=0)
    unit[unit == 0] = 1
    places = forms / unit
    balls = scipy.spatial.cKDTree(places)
    cluster = np.arange(len(forms))
    for i, reach in enumerate(np.max(2 * error / unit, axis=1)):
        near = np.array(balls.query_ball_point(places[i], reach * (1 + 1e-9), p=np.inf))
        same = near[np.all(np.abs(forms[near] - forms[i]) <= error[near] + error[i], axis=1)]
        others = np.unique(cluster[same])
        if len(others) > 1:
            cluster[np.isin(cluster, others)] = others[0]
    return np.unique(cluster, return_inverse=True)[1]
