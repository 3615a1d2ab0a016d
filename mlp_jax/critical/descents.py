"""descents: the gradient flow from a saddle down to the points below."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from mlp_jax import _checks
from mlp_jax.critical.classification import classify
from mlp_jax.critical.duplicates import distinct
from mlp_jax.critical.point import Point, stack, zeroed
from mlp_jax.critical.search.downhill import Problem, directions, known_index
from mlp_jax.critical.verdict import Verdict
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Fun, HessianMatrix, Progress, PyTree

# Random descents from a saddle of index above 1.
NUMBER = 8


class Descents(NamedTuple):
    """The descents from a saddle, each to the critical point where it ends.

    ends
        Point with a leading axis n; `converged` is False where no critical point was identified as the end.
    verdicts
        n verdicts on the ends; None where there is none.
    paths
        n times params with a leading axis: points of the descent, from the saddle to the end.
    values
        n times the values of the function there, falling.
    """

    ends: Point
    verdicts: tuple[Verdict | None, ...]
    paths: tuple[PyTree, ...]
    values: tuple[np.ndarray, ...]


def descents(
    fun: Fun,
    saddle: PyTree,
    key: jax.Array,
    args: tuple = (),
    *,
    number: int = NUMBER,
    hessian: HessianMatrix | None = None,
    progress: Progress | None = None,
) -> Descents:
    """Follow dx/dt = −∇fun(x) from a saddle along its unstable directions, to the points below. Host-level, float64.

    From a saddle of index 1 there are two descents, one for each side. From one of higher index k there are `number`,
    in random directions and their opposites, uniform on the sphere of its k unstable eigenvectors. Each starts where
    the second-order model of `fun` begins to fail, and is integrated by backward differentiation formulas with the
    exact Hessian.

    A descent ends where the Newton step is a ten-thousandth of the way come, and leads to a critical point within that
    distance. That is a minimum or, for a path that a symmetry holds, a saddle. Where the flow meets no isolated point,
    as on a valley of critical points, the end is not known, and is not guessed.

    Parameters
    ----------
    fun, args, hessian
        As for `classify`.
    saddle
        A critical point whose index is known and 1 or more, up to rounding.
    key
        JAX random key of the directions; not used for index 1.
    number
        Number of descents from a saddle of index above 1.
    progress
        Called as progress(descents done, descents) after each.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `classify`; saddle is not a critical point of known index, or its index is 0.

    Examples
    --------
    >>> wells = lambda x: jnp.sum((x**2 - 1) ** 2)
    >>> found = descents(wells, np.array([0.0, 1.0]), jax.random.key(0))
    >>> sorted(found.ends.params.round(6).tolist()), [verdict.kind for verdict in found.verdicts]
    ([[-1.0, 1.0], [1.0, 1.0]], ['minimum', 'minimum'])
    """
    _checks.key(key)
    number = _checks.integer(number, "number")
    _checks.params(saddle, "saddle")
    problem = Problem.of(fun, saddle, args, hessian)
    with precision.float64():
        top = problem.settled(problem.vector(problem.like))
        index = known_index(top)
        if index < 1:
            raise ValueError(f"saddle: got {top} Expected a critical point of known index, 1 or more.")
        above = problem.vector(top.params)
        ways = directions(problem.matrix(above), index, key, number)
        found = problem.descended(above, ways, progress)
        ends = stack([descent.end for descent in found])
        every = distinct(ends)
        names = [classify(fun, zeroed(every.points, i), args, hessian=hessian) for i in range(len(every.hits))]
    verdicts = tuple(names[label] if label >= 0 else None for label in every.labels.tolist())
    return Descents(ends, verdicts, tuple(d.path for d in found), tuple(d.values for d in found))
