"""path: from one minimum to another over saddles, along the gradient flow."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks
from mlp_jax.critical.classification import classify
from mlp_jax.critical.finders import find
from mlp_jax.critical.point import Point, zeroed
from mlp_jax.critical.search import string_method
from mlp_jax.critical.search.downhill import Descent, Problem, directions, known_index
from mlp_jax.critical.verdict import Verdict
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Fun, HessianMatrix, Progress, PyTree

# Rounds of the string between attempts to find a saddle beside its highest image; how near that must be, in distances
# between images; largest number of Hessians of the search.
_ROUNDS, _BESIDE, _SEARCH = (5, 10, 20, 40, 80, 160), 2, 60
# Size of the bend of the first string relative to its length: a straight one may stay where a symmetry holds it.
_BEND = 0.05
# Largest number of strings.
_STRINGS = 20


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
        Their verdicts, each of index 1.
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
    progress: Progress | None = None,
) -> Path:
    """Go from a minimum to another over saddles of index 1: a minimum-energy path. Host-level, float64.

    A string of images between them relaxes to a minimum-energy path (E, Ren & Vanden-Eijnden 2007). `find(index=1)`
    goes on from its highest image to a saddle, and the gradient flow down from there on both sides, as in `descents`,
    and on from a saddle if a symmetry holds it there. Where it ends at other minima than a and b, strings to these
    follow, between the nearest that are not connected. The path consists of those descents, so that its highest point
    is a saddle that `classify` confirms. There may be other paths that are lower.

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
    progress
        Called as progress(strings, 20) after each string, of which there are at most 20.

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
    for name, end in (("a", a), ("b", b)):
        _checks.params(end, name)
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
        way = route.between(first, last, progress)
        tops = [step.saddle for step in way]
        verdicts = tuple(classify(fun, zeroed(_batch(top), 0), args, hessian=hessian) for top in tops)
        points, values = route.string
        if way:
            points, values = (np.concatenate(rows) for rows in zip(*(step[-2:] for step in way), strict=True))
    lengths = np.append(0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
    saddles = np.array([problem.vector(top.params) for top in tops]).reshape(-1, points.shape[1])
    connected = bool(way) and all(verdict.index == 1 for verdict in verdicts)
    return Path(problem.params(points), values, lengths, problem.params(saddles), verdicts, connected)


class _Pass(NamedTuple):
    """A saddle, its value, the minima on its two sides by number, and the way from the first over it to the second."""

    saddle: Point
    value: float
    ends: tuple[int, int]
    points: np.ndarray
    values: np.ndarray


class _Route:
    """The search for a path: the minima and passes found so far, and the last string that was tried."""

    def __init__(self, problem: Problem, key: jax.Array, images: int) -> None:
        self.problem, self.key, self.images = problem, key, images
        self.minima: list[Point] = []
        self.passes: list[_Pass] = []
        self.string: tuple[np.ndarray, np.ndarray]

    def between(self, a: Point, b: Point, progress: Progress | None) -> list[_Pass]:
        """Return the passes on the way from a to b, in its direction; none where no way was found."""
        self.minima, tried = [a, b], set[tuple[int, int]]()
        while len(tried) < _STRINGS:
            way = self._lowest()
            pairs = [] if way else [pair for pair in self._gaps() if pair not in tried]
            if not pairs:
                return way
            pair = min(pairs, key=lambda pair: self._apart(*(self.minima[i] for i in pair)))
            tried.add(pair)
            self._join(*pair)
            if progress is not None:
                progress(len(tried), _STRINGS)
        return self._lowest()

    def _parts(self) -> list[int]:
        """Return the lowest number of the connected component of each minimum."""
        part = list(range(len(self.minima)))
        for _, _, (i, j), _, _ in self.passes:
            low, high = sorted((part[i], part[j]))
            part = [low if own == high else own for own in part]
        return part

    def _gaps(self) -> list[tuple[int, int]]:
        """Return pairs of minima that are not connected, one of them with a or b."""
        part = self._parts()
        return [
            (i, j)
            for i, j in itertools.combinations(range(len(part)), 2)
            if part[i] != part[j] and {part[i], part[j]} & {part[0], part[1]}
        ]

    def _lowest(self) -> list[_Pass]:
        """Return the way from minimum 0 to 1 whose highest saddle is lowest."""
        ways: dict[int, list[_Pass]] = {0: []}
        used: list[_Pass] = []
        for top in sorted(self.passes, key=lambda top: top.value):
            used.append(top)
            ways, reached = {0: []}, [0]
            for node in reached:  # grows
                for step in used:
                    for forth in (step, _turned(step)):
                        if forth.ends[0] == node and forth.ends[1] not in ways:
                            ways[forth.ends[1]] = [*ways[node], forth]
                            reached.append(forth.ends[1])
            if 1 in ways:
                return ways[1]
        return []

    def _join(self, i: int, j: int) -> None:
        """Add the pass that a string between two minima leads to, if any."""
        top = self._saddle(self.minima[i], self.minima[j])
        if top is None or any(_same(self.problem, top, other.saddle) for other in self.passes):
            return
        ways = [self._to_minimum(side, self.minima[k]) for side, k in zip(self._sides(top), (i, j), strict=True)]
        if any(way is None for way in ways):
            return
        ends = tuple(self._number(way[-1].end) for way in ways if way is not None)
        parts = [self._line(way) for way in ways if way is not None]
        points, values = (np.concatenate([first[::-1], last]) for first, last in zip(*parts, strict=True))
        self.passes.append(_Pass(top, float(np.max(values)), (ends[0], ends[1]), points, values))

    def _number(self, point: Point) -> int:
        for number, other in enumerate(self.minima):
            if _same(self.problem, point, other):
                return number
        self.minima.append(point)
        return len(self.minima) - 1

    def _sides(self, saddle: Point) -> list[Descent]:
        above = self.problem.vector(saddle.params)
        ways = directions(self.problem.matrix(above), known_index(saddle), self.key, 2)
        return self.problem.descended(above, ways)

    def _to_minimum(self, descent: Descent, target: Point) -> list[Descent] | None:
        """Return a descent, and those that go on from its end where that is a saddle; None where an end is unknown."""
        parts = [descent]
        while known_index(parts[-1].end) > 0:
            parts.append(min(self._sides(parts[-1].end), key=lambda side: self._apart(side.end, target)))
        return parts if known_index(parts[-1].end) == 0 else None

    def _saddle(self, a: Point, b: Point) -> Point | None:
        """Return a saddle of index 1 beside the highest image of a string between two points."""
        problem = self.problem
        begin, end = problem.vector(a.params), problem.vector(b.params)
        share = np.linspace(0, 1, self.images)[:, None]
        bend = np.asarray(jax.random.normal(self.key, (len(begin),)))
        bend = bend * (_BEND * np.linalg.norm(end - begin) / np.linalg.norm(bend))
        points = (1 - share) * begin + share * end + np.sin(np.pi * share) * bend
        for rounds in _ROUNDS:
            found = string_method.relaxed(*problem, jnp.asarray(points), np.int32(rounds))
            points, values = map(np.asarray, found)
            self.string = points, values
            top = int(np.argmax(values))
            if not (0 < top < self.images - 1 and np.all(np.isfinite(points))):
                continue
            settings: Any = {"hessian": problem.settings.hessian, "max_steps": _SEARCH, "index": 1}
            saddle = find(problem.fun, problem.params(points[top]), problem.args, **settings)
            near = _BESIDE * np.linalg.norm(points[1] - points[0])
            off = np.linalg.norm(problem.vector(saddle.params) - points[top])
            if saddle.reached and (off <= near or rounds == _ROUNDS[-1]):
                return saddle
        return None

    def _apart(self, one: Point, other: Point) -> float:
        return float(np.linalg.norm(self.problem.vector(one.params) - self.problem.vector(other.params)))

    def _line(self, way: list[Descent]) -> tuple[np.ndarray, np.ndarray]:
        """Return the points of successive descents, and their values."""
        leaves = [[leaf.reshape(len(part.values), -1) for leaf in jax.tree.leaves(part.path)] for part in way]
        points = np.concatenate([np.concatenate(part, axis=1) for part in leaves])
        return points, np.concatenate([part.values for part in way])


def _turned(step: _Pass) -> _Pass:
    return step._replace(ends=step.ends[::-1], points=step.points[::-1], values=step.values[::-1])


def _same(problem: Problem, one: Point, other: Point) -> bool:
    error = problem.vector(one.error) + problem.vector(other.error)
    return bool(np.all(np.abs(problem.vector(one.params) - problem.vector(other.params)) <= error))


def _batch(point: Point) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], point)
