"""census: the critical points of a small function, each once, with an estimate of how many were not seen."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, _compiled, display, tree
from mlp_jax.critical.classification import classify, require_evidence
from mlp_jax.critical.duplicates import Distinct, distinct
from mlp_jax.critical.finders import find_many
from mlp_jax.critical.folds import require_parameter, walk_folds
from mlp_jax.critical.point import Point, zeroed
from mlp_jax.critical.verdict import Verdict
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Fun, HessianMatrix, Progress, PyTree, Tangents

# Rows of the short form.
_SHOWN = 40
# Scales by which starts are multiplied, and, around points found before, the sizes of the noise: log-uniform.
_SCALES, _NOISES = (0.1, 10.0), (0.03, 1.0)


class Maps(Protocol):
    """Discrete symmetries of a function, such as `mlp_symmetry.maps` returns."""

    def canonical(self, params: PyTree) -> PyTree:
        """Return the one form that all copies of params share."""

    def orbit_size(self, params: PyTree) -> int:
        """Return the number of copies of params, itself included."""


@dataclasses.dataclass(frozen=True, repr=False)
class Census:
    """The distinct critical points that were found, in order of increasing value.

    params
        Every leaf (m, ...), float64 numpy.
    values
        (m,) values of the function.
    verdicts
        m verdicts.
    orbit_sizes
        (m,) copies of each under the given discrete symmetries, itself included; 1 without any.
    hits
        (m,) searches that ended at the point or at a copy of it; 0 where only `walk_folds` found it.
    num_starts, num_converged, num_rejected
        Searches in all, those that ended at a listed point, and those that converged to a point that `classify` calls
        not critical.
    symmetric
        Whether symmetries were given; without them only exact duplicates were removed.
    """

    params: PyTree
    values: np.ndarray
    verdicts: tuple[Verdict, ...]
    orbit_sizes: np.ndarray
    hits: np.ndarray
    num_starts: int
    num_converged: int
    num_rejected: int
    symmetric: bool

    @property
    def indices(self) -> tuple[int | None, ...]:
        """Index of each nondegenerate point; None for points that `euler_sum` leaves out."""
        plain = ("minimum", "saddle", "maximum")
        return tuple(v.index if v.kind in plain and v.inertia.unresolved == 0 else None for v in self.verdicts)

    @property
    def euler_sum(self) -> int:
        """Σ orbit size · (−1)^index over the nondegenerate points.

        It is 1 for a complete list where the function grows to infinity in every direction and no critical point is
        degenerate (Poincaré–Hopf): necessary, not sufficient.
        """
        known = zip(self.indices, self.orbit_sizes.tolist(), strict=True)
        return sum(size * (-1) ** index for index, size in known if index is not None)

    @property
    def unseen(self) -> float:
        """Estimated number of points not seen: f₁ (f₁ − 1) / (2 (f₂ + 1)) with fₖ points hit k times (Chao 1984)."""
        return chao(self.hits)

    @property
    def unseen_share(self) -> float:
        """Estimated probability that one more search would end at a new point: f₁ / hits (Good 1953, Turing)."""
        return float(np.sum(self.hits == 1) / max(1, np.sum(self.hits)))

    def __str__(self) -> str:
        kinds = collections.Counter(verdict.kind for verdict in self.verdicts)
        parts = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
        rejected = f" ({self.num_rejected} more at points that are not critical)" if self.num_rejected else ""
        copies = "modulo discrete symmetries" if self.symmetric else "with their symmetric copies, if there are any"
        return (
            f"{len(self.verdicts)} critical points {copies} ({parts}), {int(np.sum(self.orbit_sizes))} in all, from"
            f" {self.num_starts} searches of which {self.num_converged} converged{rejected}; Σ copies · (−1)^index ="
            f" {self.euler_sum} over {sum(i is not None for i in self.indices)} nondegenerate ones; estimated not seen:"
            f" {self.unseen:.1f}."
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        points = list(zip(self.verdicts, self.values, self.orbit_sizes, self.hits, strict=True))
        rows = [(v.name, f"{value:.6g}", size, hits) for v, value, size, hits in points[:_SHOWN]]
        left = f" {len(points) - _SHOWN} more points are not shown." if len(points) > _SHOWN else ""
        return display.table("Census", rows, ("", "value", "copies", "hits"), f"{self}{left}")


def census(
    fun: Fun,
    init: Callable[[jax.Array], PyTree],
    key: jax.Array,
    *,
    num_starts: int = 1000,
    args: tuple = (),
    symmetries: Maps | None = None,
    tangents: Tangents | None = None,
    hessian: HessianMatrix | None = None,
    evidence: str | None = None,
    passes: int = 4,
    complete_sum: int | None = None,
    parameter: int | None = None,
    low: float | None = None,
    high: float | None = None,
    mesh: jax.sharding.Mesh | None = None,
    progress: Progress | None = None,
) -> Census:
    """Search from many starts for all critical points of `fun`, and classify each once. Host-level.

    Starts are draws of `init` with noise of their own size, which also moves biases that begin at zero, multiplied by a
    log-uniform factor from .1 to 10. While some point was hit only once, or `euler_sum` is not `complete_sum`, points
    are likely missing: another pass follows, with half of its starts around the known points in turn, up to `passes`
    passes. The list is never known to be complete; `unseen` and `euler_sum` estimate how far it is from that.

    With a `parameter`, `walk_folds` goes on from the list after each pass that found a new point, and adds what it
    finds: fewer searches then suffice.

    Where critical points are not isolated (a continuous symmetry, no weight decay) every search ends at another one,
    and each counts.

    Parameters
    ----------
    fun, args, hessian, evidence
        As for `classify`.
    init, key
        `key -> params`, transformable, and the JAX random key of the starts.
    num_starts, passes
        Searches in a pass, and the largest number of passes.
    symmetries
        Discrete symmetries, from `mlp_symmetry.maps`: copies count once, and `orbit_sizes` gives their number.
    tangents
        The `symmetries` of `classify`.
    complete_sum
        `euler_sum` of a complete list, where known: 1 with weight decay and no degenerate points.
    parameter, low, high
        As for `walk_folds`, all or none: the position in args of a number such as the weight decay, and its range.
    mesh
        Its devices share the searches, as in `find_many`. Points are classified on the host, in every process.
    progress
        Called as progress(searches done, passes · num_starts), as often as `find_many` reports them.

    Raises
    ------
    TypeError, ValueError
        key is not a JAX random key; num_starts or passes below 1; as `find_many`, and with a parameter `walk_folds`.

    Examples
    --------
    >>> found = census(lambda x: jnp.sum((x**2 - 1) ** 2), lambda key: jax.random.normal(key, (2,)),
    ...                jax.random.key(0), num_starts=100)
    >>> sorted(found.indices), found.euler_sum
    ([0, 0, 0, 0, 1, 1, 1, 1, 2], 1)
    """
    _checks.key(key)
    num_starts = _checks.integer(num_starts, "num_starts", 1, 2**30)
    passes = _checks.integer(passes, "passes")
    require_evidence(evidence)
    for name in ("canonical", "orbit_size") if symmetries is not None else ():
        _checks.function(getattr(symmetries, name, None), f"symmetries.{name}", "(params), as of mlp_symmetry.maps")
    if tangents is not None:
        _checks.function(tangents, "tangents", "(params) -> tangents")
    _checks.params(jax.eval_shape(init, key), "init(key)", finite=False)
    canonical = None if symmetries is None else symmetries.canonical
    walk: Callable[[PyTree], Point] | None = None
    if (parameter, low, high) != (None, None, None):
        require_parameter(args, parameter, low, high)
        branches: Any = {"parameter": parameter, "low": low, "high": high}
        walk = functools.partial(walk_folds, fun, args=args, canonical=canonical, hessian=hessian, **branches)
    name_it = functools.partial(classify, fun, args=args, hessian=hessian, symmetries=tangents, evidence=evidence)

    def told(number: int) -> Progress | None:
        if progress is None:
            return None
        return lambda done, _: progress(number * num_starts + done, passes * num_starts)

    points = walked = found = None
    num_known = 0
    for number in range(passes):
        if found is not None and not np.any(found.hits == 1) and complete_sum in (None, found.euler_sum):
            break
        pass_key = jax.random.fold_in(key, number) if number else key
        starts = _starts(init, pass_key, num_starts)
        if found is not None and len(found.hits):
            starts = _mixed(starts, found.params, pass_key)
        more = find_many(fun, starts, args, hessian=hessian, mesh=mesh, progress=told(number))
        points = _joined(points, more)
        every = distinct(_joined(points, walked), canonical=canonical)
        if walk is not None and len(every.hits) > num_known:
            walked = _joined(walked, walk(every.points.params))
            every = distinct(_joined(points, walked), canonical=canonical)
            num_known = len(every.hits)
        found = _classified(fun, args, every, len(points.converged), symmetries, name_it)
    assert found is not None
    return found


def chao(hits: np.ndarray) -> float:
    """Return the estimated number of classes that were not seen, from the counts of the others (Chao 1984).

    Examples
    --------
    >>> chao(np.array([1, 1, 1, 2, 5]))
    1.5
    """
    once, twice = int(np.sum(hits == 1)), int(np.sum(hits == 2))
    return once * (once - 1) / (2 * (twice + 1))


def _starts(init: Callable[[jax.Array], PyTree], key: jax.Array, number: int) -> PyTree:
    """Return draws of `init` with noise, each multiplied by a scale of its own."""
    with precision.float64():
        init_key, noise_key, scale_key = jax.random.split(key, 3)
        draws = _drawn(init, jax.random.split(init_key, number))
        draws = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), draws)
        scale = jnp.exp(jax.random.uniform(scale_key, (number,), minval=np.log(_SCALES[0]), maxval=np.log(_SCALES[1])))
        noisy = jax.tree.map(lambda a, b: a + b, draws, _noise(noise_key, draws, jnp.ones(number)))
        return jax.tree.map(lambda leaf: np.asarray(leaf * _beside(scale, leaf)), noisy)


def _mixed(starts: PyTree, found: PyTree, key: jax.Array) -> PyTree:
    """Return the starts with the second half replaced by points around those found, in turn."""
    number = len(jax.tree.leaves(starts)[0])
    half = number // 2
    with precision.float64():
        noise_key, size_key = jax.random.split(jax.random.fold_in(key, 0))
        turn = np.arange(half) % len(jax.tree.leaves(found)[0])
        base = jax.tree.map(lambda leaf: np.asarray(leaf)[turn], found)
        size = jnp.exp(jax.random.uniform(size_key, (half,), minval=np.log(_NOISES[0]), maxval=np.log(_NOISES[1])))
        around = jax.tree.map(lambda a, b: a + b, base, _noise(noise_key, base, size))
        return jax.tree.map(lambda a, b: np.concatenate([a[: number - half], b]), starts, around)


# Random draws are slow to compile at full optimisation, more so under vmap, and take little time to run.
@_compiled.by_function(compiler_options={"xla_backend_optimization_level": 0})
def _drawn(init: Callable[[jax.Array], PyTree], keys: jax.Array) -> PyTree:
    return jax.vmap(init)(keys)


def _noise(key: jax.Array, params: PyTree, size: jax.Array) -> PyTree:
    """Return Gaussian noise of the root mean square of each row of params (1 where that is 0), times `size`."""
    leaves = jax.tree.leaves(params)
    squares = sum(np.sum(leaf.reshape(len(leaf), -1) ** 2, axis=1) for leaf in leaves)
    rms = np.sqrt(squares / sum(leaf[0].size for leaf in leaves))
    size = jnp.where(rms > 0, rms, 1.0) * size
    return jax.tree.map(lambda draw: np.asarray(draw * _beside(size, draw)), tree.random_like(key, params))


def _beside(factor: jax.Array, leaf: jax.Array) -> jax.Array:
    return factor.reshape(-1, *[1] * (leaf.ndim - 1))


def _joined(*parts: Point | None) -> Point:
    present = [part for part in parts if part is not None]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *present)


def _classified(
    fun: Fun,
    args: tuple,
    found: Distinct,
    num_starts: int,
    symmetries: Maps | None,
    name_it: Callable[[PyTree], Verdict],
) -> Census:
    """Return the census of distinct points, of which the first `num_starts` labels are those of searches."""
    labels = found.labels[:num_starts]
    all_hits = np.bincount(labels[labels >= 0], minlength=len(found.hits))
    each = [zeroed(found.points, i) for i in range(len(found.hits))]
    verdicts = [name_it(params) for params in each]
    critical = [i for i, verdict in enumerate(verdicts) if verdict.kind != "not critical"]
    values = np.zeros(len(critical))
    if critical:
        with precision.float64():
            traced, _, promoted = precision.traced_problem(fun, each[0], args)
            values = np.array([float(_value(traced, each[i], promoted)) for i in critical])
    order = np.argsort(values, kind="stable")
    chosen = [critical[i] for i in order]
    each, hits = [each[i] for i in chosen], all_hits[chosen]
    empty = jax.tree.map(lambda leaf: np.asarray(leaf)[:0], found.points.params)
    return Census(
        params=jax.tree.map(lambda *leaves: np.stack(leaves), *each) if each else empty,
        values=values[order],
        verdicts=tuple(verdicts[i] for i in chosen),
        orbit_sizes=np.array([1 if symmetries is None else symmetries.orbit_size(p) for p in each], dtype=int),
        hits=hits,
        num_starts=num_starts,
        num_converged=int(np.sum(hits)),
        num_rejected=int(np.sum(all_hits) - np.sum(hits)),
        symmetric=symmetries is not None,
    )


@_compiled.by_function()
def _value(fun: Fun, params: PyTree, args: tuple) -> jax.Array:
    return fun(params, *args)
