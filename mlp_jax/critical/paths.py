"""path: from one minimum to another over saddles, along the gradient flow."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks
from mlp_jax.critical.classification import classify
from mlp_jax.critical.finders import find
from mlp_jax.critical.point import Point, zeroed
from mlp_jax.critical.search import string
from mlp_jax.critical.search.downhill import Descent, Problem, directions, known_index
from mlp_jax.critical.verdict import Verdict
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Fun, HessianMatrix, PyTree

# Steps of the string between attempts to find a saddle beside its highest image; how near that must be, in distances
# between images; largest number of Hessians of the search.
_ROUNDS, _BESIDE, _SEARCH = (50, 100, 200, 400, 800, 1600), 2, 60
# Size of the bend of the first string relative to its length: a straight one may stay where a symmetry holds it.
_BEND = 0.05
# Largest number of saddles on a path.
_SADDLES = 12


@dataclasses.dataclass(frozen=True)
class Path:
    """A path between two minima: from each saddle on it, the gradient flow leads down to both sides.

    params, values
        t points of the path with a leading axis, and the values of the function there, (t,). Where the minima are not
        connected, those of the string that was tried last.
    lengths
        (t,) length of the path up to each point.
    saddles
        The saddles on the way, params with a leading axis.
    verdicts
        Their verdicts, each a saddle of index 1.
    connected
        Whether the path leads from one minimum to the other.
    """

    params: PyTree
    values: np.ndarray
    lengths: np.ndarray
    saddles: PyTree
    verdicts: tuple[Verdict, ...]
    connected: bool

    @property
    def barriers(self) -> tuple[float, float]:
        """The highest saddle above the first minimum, and above the last; NaN where they are not connected."""
        if not self.connected:
            return np.nan, np.nan
        top = np.max(self.values)
        return float(top - self.values[0]), float(top - self.values[-1])


def path(
    fun: Fun,
    a: PyTree,
    b: PyTree,
    key: jax.Array,
    args: tuple = (),
    *,
    images: int = 24,
    hessian: HessianMatrix | None = None,
) -> Path:
    """Go from a minimum to another over saddles of index 1: a minimum-energy path. Host-level, float64.

    A string of images between them relaxes to a minimum-energy path (E, Ren & Vanden-Eijnden 2007). `find(index=1)`
    goes on from its highest image to a saddle, and the gradient flow down from there on both sides, as in `descents`.
    Where it ends at other minima than a and b, they are connected to these in the same way. The path consists of those
    descents, so that its highest point is a saddle that `classify` confirms. There may be other paths that are lower.

    Symmetric copies are different points: choose the copy of b that is wanted, such as the nearest
    (`landscape.match_units`).

    Parameters
    ----------
    fun, args, hessian
        As for `classify`.
    a, b
        Two minima, up to rounding.
    key
        JAX random key of the direction in which the first string is bent.
    images
        Number of images of the string.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `classify`; a or b is not a critical point of index 0, or both are the same; a and b differ in shape.

    Examples
    --------
    >>> wells = lambda x: (x[0] ** 2 - 1) ** 2 + (x[1] - x[0] ** 2) ** 2
    >>> found = path(wells, np.array([-1.0, 1.0]), np.array([1.0, 1.0]), jax.random.key(0))
    >>> found.connected, [round(barrier, 9) for barrier in found.barriers], found.verdicts[0].index
    (True, [1.0, 1.0], 1)
    """
    _checks.key(key)
    images = _checks.integer(images, "images", 5)
    _checks.params(b, "b")
    _checks.like(b, a, "b", "a")
    problem = Problem.of(fun, a, args, hessian)
    with precision.float64():
        first, last = (problem.settled(problem.vector(point)) for point in (a, b))
        for name, point in (("a", first), ("b", last)):
            if known_index(point) != 0:
                raise ValueError(f"{name}: got {point} Expected a minimum, of index 0.")
        if _same(problem, first, last):
            raise ValueError("a, b: got the same minimum twice, expected two.")
        route = _Route(problem, key, images)
        parts = route.between(first, last)
        verdicts = tuple(classify(fun, zeroed(_batch(top), 0), args, hessian=hessian) for top in route.saddles)
        connected = parts is not None and all(v.kind == "saddle" and v.index == 1 for v in verdicts)
        points, values = route.string if parts is None else map(np.concatenate, zip(*parts, strict=True))
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    saddles = np.array([problem.vector(top.params) for top in route.saddles]).reshape(-1, points.shape[1])
    lengths = np.append(0, np.cumsum(steps))
    return Path(problem.params(points), values, lengths, problem.params(saddles), verdicts, connected)


class _Route:
    """The search for a path; `saddles` are those found so far, `string` the last one that was tried."""

    def __init__(self, problem: Problem, key: jax.Array, images: int) -> None:
        self.problem, self.key, self.images = problem, key, images
        self.saddles: list[Point] = []
        self.string: tuple[np.ndarray, np.ndarray]

    def between(self, a: Point, b: Point) -> list[tuple[np.ndarray, np.ndarray]] | None:
        """Return the parts of a path, each as points and their values; None where no path was found."""
        if _same(self.problem, a, b):
            return []
        top = self._saddle(a, b) if len(self.saddles) < _SADDLES else None
        if top is None or any(_same(self.problem, top, other) for other in self.saddles):
            return None
        self.saddles.append(top)
        above = self.problem.vector(top.params)
        sides = self.problem.descended(above, directions(self.problem.matrix(above), 1, self.key, 2))
        down, up = sorted(sides, key=lambda side: self._apart(side.end, a) - self._apart(side.end, b))
        if not all(known_index(side.end) == 0 for side in sides):
            return None
        before, after = self.between(a, down.end), self.between(up.end, b)
        if before is None or after is None:
            return None
        return [*before, self._part(down, -1), self._part(up, 1), *after]

    def _saddle(self, a: Point, b: Point) -> Point | None:
        """Return a saddle of index 1 beside the highest image of a string between two points."""
        problem = self.problem
        begin, end = problem.vector(a.params), problem.vector(b.params)
        share = np.linspace(0, 1, self.images)[:, None]
        bend = np.asarray(jax.random.normal(self.key, (len(begin),)))
        bend = bend * (_BEND * np.linalg.norm(end - begin) / np.linalg.norm(bend))
        points = (1 - share) * begin + share * end + np.sin(np.pi * share) * bend
        for steps in _ROUNDS:
            found = string.relaxed(*problem, jnp.asarray(points), np.int32(steps))
            points, values = map(np.asarray, found)
            self.string = points, values
            top = int(np.argmax(values))
            if not (0 < top < self.images - 1 and np.all(np.isfinite(points))):
                continue
            settings: Any = {"hessian": problem.settings.hessian, "max_steps": _SEARCH, "index": 1}
            saddle = find(problem.fun, problem.params(points[top]), problem.args, **settings)
            near = _BESIDE * np.linalg.norm(points[1] - points[0])
            off = np.linalg.norm(problem.vector(saddle.params) - points[top])
            if saddle.reached and (off <= near or steps == _ROUNDS[-1]):
                return saddle
        return None

    def _apart(self, one: Point, other: Point) -> float:
        return float(np.linalg.norm(self.problem.vector(one.params) - self.problem.vector(other.params)))

    def _part(self, side: Descent, way: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the points of a descent and their values, upwards (−1) or downwards (1)."""
        rows = [np.asarray(leaf).reshape(len(side.values), -1) for leaf in jax.tree.leaves(side.path)]
        return np.concatenate(rows, axis=1)[::way], side.values[::way]


def _same(problem: Problem, one: Point, other: Point) -> bool:
    error = problem.vector(one.error) + problem.vector(other.error)
    return bool(np.all(np.abs(problem.vector(one.params) - problem.vector(other.params)) <= error))


def _batch(point: Point) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], point)
