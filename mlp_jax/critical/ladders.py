"""ladder: critical points of neighbouring index, from one up and down, by kicks along its modes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, _parallel, curvature, tree
from mlp_jax.critical.duplicates import distinct
from mlp_jax.critical.finders import find
from mlp_jax.critical.point import Point, stack
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Fun, HessianMatrix, Progress, PyTree

# Length of a kick relative to ‖params‖, or to 1 where that is 0.
_KICK = 0.15


def ladder(
    fun: Fun,
    params: PyTree,
    args: tuple = (),
    *,
    up: int = 2,
    down: int = 2,
    max_steps: int = 500,
    canonical: Callable[[PyTree], PyTree] | None = None,
    hessian: HessianMatrix | None = None,
    progress: Progress | None = None,
) -> Point:
    """Return critical points of higher and lower index, from one of index k, rung by rung. Host-level, float64.

    Up: from each point of index k, `find(index=k + 1)` starts .15 ‖params‖ away along the lowest positive mode, on
    either side; the next rung starts from the points of that index that it finds. Down: the same along the highest
    negative mode, with index k − 1. At most 2ⁿ⁺¹ − 2 searches for n rungs in one direction.

    Parameters
    ----------
    fun, args, max_steps, hessian
        As for `find`.
    params
        A critical point without a zero eigenvalue; `find` is called from there first.
    up, down
        Number of rungs up and down, 0 or more; none lies above index P or below 0.
    canonical
        params -> params, one form for all symmetric copies, such as `mlp_symmetry.maps(...).canonical`. Only
        one copy of a point is then climbed from and returned.
    progress
        Called as progress(rungs done, rungs) after each rung.

    Returns
    -------
    Point
        The distinct points found, of any index, without the given one; as from `find_many`, with a leading axis.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `find`; up or down below 0; `find` from params does not converge, or does not know the index.

    Examples
    --------
    >>> wells = lambda x: jnp.dot(np.array([1.0, 2.0]), (x**2 - 1) ** 2)  # index: the number of zeros
    >>> found = ladder(wells, np.array([1.0, 1.0]))
    >>> found.index.tolist(), (found.params.round(9) + 0.0).tolist()
    ([1, 1, 2], [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    """
    up, down = _checks.integer(up, "up", 0), _checks.integer(down, "down", 0)
    first = find(fun, params, args, hessian=hessian, max_steps=max_steps)
    if first.index is None:
        expected = "a critical point of known index"
        raise ValueError(f"params: got a point from which `find` says {str(first)!r}, expected {expected}.")
    found, index, size = [first], int(first.index), tree.size(first.params)
    targets = [range(index + 1, min(index + up, size) + 1), range(index - 1, max(index - down, 0) - 1, -1)]
    done = 0
    for rungs in targets:
        level = [first.params]
        for target in rungs:
            starts = [start for at in level for start in _kicked(fun, at, args, hessian, target, rungs.step)]
            search = functools.partial(find, fun, args=args, index=target, hessian=hessian, max_steps=max_steps)
            ends = _parallel.over_cores(search, starts)
            found += ends
            level = _distinct_params([end for end in ends if end.reached], canonical)
            done += 1
            if progress is not None:
                progress(done, sum(map(len, targets)))
    every = distinct(stack(found), canonical=canonical)
    new = np.arange(len(every.hits)) != every.labels[0]
    return jax.tree.map(lambda leaf: leaf[new], every.points)


def _kicked(
    fun: Fun, params: PyTree, args: tuple, hessian: HessianMatrix | None, target: int, change: int
) -> list[PyTree]:
    """Return params moved to either side along the mode whose sign must change for the index to be `target`."""
    with precision.float64():
        vector, unravel = tree.ravel(params)
        matrix = curvature.dense_hessian(fun, params, args) if hessian is None else hessian(params, *args)
        mode = np.linalg.eigh(np.asarray(matrix))[1][:, target - 1 if change > 0 else target]
        length = float(jnp.linalg.norm(vector))
        kick = _KICK * (length or 1.0) * jnp.asarray(mode)
        return [jax.tree.map(np.asarray, unravel(vector + sign * kick)) for sign in (1, -1)]


def _distinct_params(points: list[Point], canonical: Callable[[PyTree], PyTree] | None) -> list[PyTree]:
    if not points:
        return []
    labels = distinct(stack(points), canonical=canonical).labels
    return [points[i].params for i in np.unique(labels, return_index=True)[1]]
