"""network: the graph of critical points, in which a saddle is joined to the points where descents from it end."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from mlp_jax import _checks, _parallel, display
from mlp_jax.critical.classification import classify
from mlp_jax.critical.counting import Maps
from mlp_jax.critical.descents import NUMBER
from mlp_jax.critical.duplicates import Distinct, distinct
from mlp_jax.critical.point import Point, stack, zeroed
from mlp_jax.critical.search.downhill import Problem, directions, known_index
from mlp_jax.critical.verdict import Verdict
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Fun, HessianMatrix, Progress, PyTree

# Rows of the short form.
_SHOWN = 40


class Edge(NamedTuple):
    """A saddle and a point where descents from it end.

    saddle, end
        Numbers of nodes; end is None where it is not known.
    descents
        How many descents from the saddle end there: 2 where both sides of a saddle of index 1 lead to one point, or to
        copies of it.
    barrier
        Value of the function at the saddle less that at the end, above 0; NaN where the end is not known.
    """

    saddle: int
    end: int | None
    descents: int
    barrier: float


class Merge(NamedTuple):
    """A saddle at which parts of a landscape meet that are apart below its value.

    parts: the lowest node of each, in order of value.
    """

    saddle: int
    parts: tuple[int, ...]


@dataclasses.dataclass(frozen=True, repr=False)
class Network:
    """Critical points as nodes, in order of increasing value, and the descents from saddles as edges.

    params
        Every leaf (m, ...), float64 numpy.
    values, verdicts
        (m,) values of the function, and m verdicts.
    copies
        (m,) copies of each under the given discrete symmetries, itself included; 1 without any.
    edges
        Edges, by saddle and end.
    labels
        (n,) the node of each given point; −1 for those that are not critical.
    """

    params: PyTree
    values: np.ndarray
    verdicts: tuple[Verdict, ...]
    copies: np.ndarray
    edges: tuple[Edge, ...]
    labels: np.ndarray

    @property
    def indices(self) -> tuple[int | None, ...]:
        """Index of each node; None where the verdict leaves it open."""
        return tuple(verdict.index for verdict in self.verdicts)

    @property
    def merges(self) -> tuple[Merge, ...]:
        """The saddles at which parts of the landscape meet, in order of increasing value: the disconnectivity graph.

        With an incomplete list a part may seem to meet others only at a higher saddle, or nowhere.
        """
        return tuple(Merge(node, parts) for node, parts, _ in self._flooded() if len(parts) > 1)

    @property
    def components(self) -> tuple[tuple[int, ...], ...]:
        """The connected components, as numbers of nodes."""
        roots = collections.deque(self._flooded(), 1)[0][2]
        return tuple(tuple(np.flatnonzero(roots == root).tolist()) for root in np.unique(roots))

    def highest(self, a: int, b: int) -> int | None:
        """Return the node that is the highest point of the lowest known path from node a to b; None without a path.

        Modulo symmetries the path leads from a to some copy of b.
        """
        return next((node for node, _, roots in self._flooded() if roots[a] == roots[b] and node >= max(a, b)), None)

    def joins(self, saddle: int) -> list[int | None]:
        """Return the end of each descent from a saddle."""
        return [edge.end for edge in self.edges if edge.saddle == saddle for _ in range(edge.descents)]

    def to_networkx(self) -> Any:
        """Return a `networkx.Graph`: nodes with index, value and copies, edges with barrier and descents.

        Descents without a known end are counted in the attribute `unknown` of their saddle. Needs networkx, which is
        not among the dependencies of this package: ImportError without it.
        """
        try:
            import networkx
        except ImportError as error:
            raise ImportError("to_networkx needs the package networkx: pip install networkx.") from error
        graph = networkx.Graph()
        for node, index in enumerate(self.indices):
            value, copies = float(self.values[node]), int(self.copies[node])
            unknown = sum(end is None for end in self.joins(node))
            graph.add_node(node, index=index, value=value, copies=copies, unknown=unknown)
        for saddle, end, number, barrier in self.edges:
            if end is not None:
                graph.add_edge(saddle, end, barrier=barrier, descents=number)
        return graph

    def _flooded(self) -> Iterator[tuple[int, tuple[int, ...], np.ndarray]]:
        """Yield each node, the parts that it joins, by their lowest nodes, and that of every node after it."""
        lowest = np.arange(len(self.values))
        for node in range(len(lowest)):
            ends = [edge.end for edge in self.edges if edge.saddle == node and edge.end is not None]
            parts = np.unique(lowest[ends]) if ends else lowest[:0]
            lowest[np.isin(lowest, [*parts, node])] = min([*parts, node])
            yield node, tuple(parts.tolist()), lowest

    def __str__(self) -> str:
        kinds = collections.Counter(verdict.kind for verdict in self.verdicts)
        parts = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
        unknown = sum(edge.descents for edge in self.edges if edge.end is None)
        number = sum(edge.descents for edge in self.edges)
        return (
            f"{len(self.values)} critical points ({parts}) in {len(self.components)} connected components;"
            f" {number} descents from saddles, {unknown} of them to an unknown end; {len(self.merges)} saddles join"
            " parts that are apart below them."
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [
            (verdict.name, f"{value:.6g}", copies, ", ".join("?" if e is None else str(e) for e in self.joins(i)))
            for i, (verdict, value, copies) in enumerate(zip(self.verdicts, self.values, self.copies, strict=True))
        ]
        return display.table("Network", rows[:_SHOWN], ("", "value", "copies", "descents end at"), str(self))


def network(
    fun: Fun,
    points: PyTree,
    key: jax.Array,
    args: tuple = (),
    *,
    symmetries: Maps | None = None,
    number: int = NUMBER,
    hessian: HessianMatrix | None = None,
    progress: Progress | None = None,
) -> Network:
    """Return the graph of critical points: saddles, and the points where descents from them end. Host-level, float64.

    From every saddle the gradient flow is followed down as by `descents`. An edge has an end only where the
    descent leads to a critical point that `classify` names with its index; otherwise the edge says that the end is
    unknown. An end that is not among the points is added to them and, if it is a saddle, followed down in turn.

    Two critical points are joined by a descending path from the higher to the lower one. The path is that of the flow
    up to the errors of its integration, 1e-6 for a step.

    Parameters
    ----------
    fun, args, hessian
        As for `classify`.
    points
        Critical points up to rounding: params with a leading axis n, such as `Census.params`. Duplicates count once.
    key, number
        JAX random key, and the number of descents from each saddle of index above 1; see `descents`.
    symmetries
        Discrete symmetries, as for `census`: all copies of a point are one node, and the graph is that of the orbits.
    progress
        Called as progress(saddles done, saddles known) after the descents from each.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `descents`; leaves of points without a common leading axis.

    Examples
    --------
    >>> wells = lambda x: jnp.sum((x**2 - 1) ** 2 + 0.2 * x)
    >>> points = np.array([[0.97, 0.97], [0.05, 0.97], [0.05, 0.05]])  # a minimum, a saddle and the maximum, nearly
    >>> found = network(wells, points, jax.random.key(0))
    >>> found.indices, found.joins(4), found.highest(1, 3), found.highest(0, 3)
    ((0, 0, 0, 0, 1, 2), [1, 3], 4, 5)
    """
    _checks.key(key)
    number = _checks.integer(number, "number")
    for name in ("canonical", "orbit_size") if symmetries is not None else ():
        _checks.function(getattr(symmetries, name, None), f"symmetries.{name}", "(params), as of mlp_symmetry.maps")
    _checks.params(points, "points")
    length = _checks.common_length(points, "points")
    rows = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], points) for i in range(length)]
    problem = Problem.of(fun, rows[0], args, hessian)
    canonical = None if symmetries is None else symmetries.canonical
    done = itertools.count(1)

    def descend(start: int) -> list[Point]:
        above = problem.vector(found[start].params)
        with precision.float64():  # a setting of each thread
            ways = directions(problem.matrix(above), known_index(found[start]), key, number)
            ends = [descent.end for descent in problem.descended(above, ways)]
        if progress is not None:
            progress(next(done), known)
        return ends

    found = _parallel.over_cores(lambda params: problem.settled(problem.vector(params)), rows)
    below: dict[int, list[int]] = {}  # the ends of descents, as numbers in `found`, by that of their saddle
    while True:
        every = distinct(stack(found), canonical=canonical)
        fresh = _not_left(found, every.labels, below)
        if not fresh:
            return _named(fun, problem, every, below, symmetries, length)
        known = len(below) + len(fresh)
        for start, ends in zip(fresh, _parallel.over_cores(descend, fresh), strict=True):
            below[start] = list(range(len(found), len(found) + len(ends)))
            found += ends


def _not_left(found: list[Point], labels: np.ndarray, below: dict[int, list[int]]) -> list[int]:
    """Return one number in `found` of each distinct saddle from which there were no descents."""
    numbers = np.unique(labels, return_index=True)[1].tolist()
    left = set(labels[list(below)].tolist()) | {-1}
    return [i for i in numbers if labels[i] not in left and known_index(found[i]) >= 1]


def _named(
    fun: Fun, problem: Problem, every: Distinct, below: dict[int, list[int]], symmetries: Maps | None, length: int
) -> Network:
    """Return the network of distinct points; the first `length` labels are those of the given ones."""
    args, hessian = problem.args, problem.settings.hessian
    each = [zeroed(every.points, i) for i in range(len(every.hits))]
    verdicts = _parallel.over_cores(lambda params: classify(fun, params, args, hessian=hessian), each)
    with precision.float64():
        values = np.array([problem.slope(problem.vector(params))[0] for params in each])
    first = np.unique(every.labels[every.labels >= 0], return_index=True)[1]
    kept = [
        i
        for i, verdict in enumerate(verdicts)
        if verdict.kind != "not critical" and (first[i] < length or verdict.index is not None)
    ]
    # Points of equal value, such as copies by a symmetry that was not given, stay in the order in which they came.
    order = sorted(kept, key=lambda i: (float(f"{values[i]:.9g}"), first[i]))
    node = np.full(len(each) + 1, -1)  # the last for the label −1
    node[order] = np.arange(len(order))
    each, values, verdicts = [each[i] for i in order], values[order], [verdicts[i] for i in order]
    labels = node[every.labels]
    counts: collections.Counter[tuple[int, int | None]] = collections.Counter()
    for start, ends in below.items():
        saddle = int(labels[start])
        if saddle < 0 or not verdicts[saddle].index:
            continue
        for end in labels[ends].tolist():
            named = 0 <= end < saddle and verdicts[end].index is not None
            counts[saddle, end if named else None] += 1
    edges = [
        Edge(saddle, end, number, np.nan if end is None else float(values[saddle] - values[end]))
        for (saddle, end), number in counts.items()
    ]
    like = jax.tree.map(lambda leaf: leaf[:0], every.points.params)
    return Network(
        params=jax.tree.map(lambda *leaves: np.stack(leaves), *each) if each else like,
        values=values,
        verdicts=tuple(verdicts),
        copies=np.array([1 if symmetries is None else symmetries.orbit_size(params) for params in each], dtype=int),
        edges=tuple(sorted(edges, key=lambda edge: (edge.saddle, -1 if edge.end is None else edge.end))),
        labels=labels[:length],
    )
