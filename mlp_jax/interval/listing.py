"""complete: prove that a list holds all critical points of a function in a box."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from mlp_jax import _checks, tree
from mlp_jax.curvature import precision, tracing
from mlp_jax.curvature.types import Progress, PyTree
from mlp_jax.interval import ball, enclosures, trust
from mlp_jax.interval.ball import Array, Refusal
from mlp_jax.interval.branching import Boxes, Explored, System, Zero, expected, explore
from mlp_jax.interval.completeness import Completeness
from mlp_jax.interval.proof import INDEPENDENCE, digest
from mlp_jax.interval.smoothness import Smoothness, TieInGradient, is_smooth_everywhere
from mlp_jax.interval.systems import Traced

_PARTS = 10**6
ASSUMPTIONS = (
    "fun is what JAX traces it to in float64, with every constant and all of args taken as the exact numbers they are",
    "derivatives are those that JAX takes of it, with the constants of its rules as float64 numbers",
    "numpy's arithmetic and matrix products round to nearest in the classical way, and FLINT encloses",
)


class _Problem(NamedTuple):
    """What is listed: a system of equations, how it is named, and what is assumed of it."""

    system: Traced
    subject: tuple[str, str]
    assumptions: tuple[str, ...]
    indexed: bool
    data: str


def complete(
    fun: Callable[..., Any],
    low: PyTree,
    high: PyTree,
    args: tuple = (),
    *,
    max_boxes: int = 1_000_000,
    resume: Completeness | None = None,
    progress: Progress | None = None,
) -> Completeness:
    """Prove that a list holds all critical points of fun in a box, each with its index; or refuse. Host-level.

    Branch and prune: the gradient and its slopes are enclosed on a thousand boxes at a time. A box is dropped where the
    enclosures exclude 0, made smaller by interval Gauss–Seidel, and otherwise bisected. Points are found by Newton's
    method, and each gets a box that holds no other. For few parameters: the cost grows exponentially with their number
    (three or four, more where fun is nearly separable). `expected_boxes` estimates it. A degenerate critical point is
    never decided.

    Parameters
    ----------
    fun
        `(params, *args) -> scalar`, in float64, smooth in the box. A function that returns as many numbers as params
        has, such as a map minus its argument, is taken as equations, and its zeros are listed.
    low, high
        Pytrees with the structure of params: the corners of the box.
    args
        Further arguments: data goes here, and is taken as exact.
    max_boxes
        The budget; a refusal shows the boxes left.
    resume
        A refusal of the same problem: go on from its boxes.
    progress
        Called as progress(done, total) with the share of the volume that is decided, in parts per million.

    Returns
    -------
    Completeness; a refusal has complete=False and a reason.

    Raises
    ------
    TypeError, ValueError
        low and high of different structures or not finite, low above high; fun of another shape; max_boxes below 1.

    Examples
    --------
    >>> himmelblau = lambda p: (p[0] ** 2 + p[1] - 11) ** 2 + (p[0] + p[1] ** 2 - 7) ** 2
    >>> found = complete(himmelblau, np.array([-6.0, -6]), np.array([6.0, 6]))
    >>> found.count, found.indices
    (9, {0: 4, 1: 4, 2: 1})
    >>> print(str(found).splitlines()[0])
    Theorem. In the box [-6, 6] × [-6, 6], fun has exactly 9 critical points: 4 of index 0, 4 of index 1, 1 of index 2.
    """
    max_boxes = _checks.integer(max_boxes, "max_boxes", 1)
    with precision.float64():
        problem, corners = _begin(fun, low, high, args)
        if isinstance(problem, Refusal):
            return _refused(str(problem), corners)
        found = searched(problem.system, corners, problem.data, max_boxes, resume, progress)
        return _conclude(problem, corners, found)


def expected_boxes(
    fun: Callable[..., Any], low: PyTree, high: PyTree, args: tuple = (), *, descents: int = 1000, seed: int = 0
) -> float:
    """Return an estimate of how many boxes `complete` would test, from random descents through the tree. Host-level.

    A descent follows one random half of each box, and counts it for all (Knuth 1975, "Estimating the efficiency of
    backtrack programs"). The estimate is unbiased, but boxes of which few descents learn make it noisy: compare seeds.

    Examples
    --------
    >>> f = lambda x: x[0] ** 4 + x[1] ** 4 - x[0] * x[1]
    >>> expected_boxes(f, -2 * np.ones(2), 2 * np.ones(2)) < 500
    True
    """
    descents = _checks.integer(descents, "descents", 1)
    with precision.float64():
        problem, corners = _begin(fun, low, high, args)
        if isinstance(problem, Refusal):
            raise ValueError(f"fun: {problem}.")
        return expected(problem.system, corners, descents, np.random.default_rng(seed))


def _begin(
    fun: Callable[..., Any], low: PyTree, high: PyTree, args: tuple
) -> tuple[_Problem | Refusal, tuple[Array, Array]]:
    low, high = _checks.box(low, high)
    traced, low, args = precision.traced_function(fun, low, args)
    corners = np.asarray(tree.ravel(low)[0], float), np.asarray(tree.ravel(high)[0], float)
    try:
        trust.require_ieee()
        return _problem(traced, low, args, corners), corners
    except Refusal as refusal:
        return refusal, corners


def _problem(fun: tracing.Traced, params: PyTree, args: tuple, corners: tuple[Array, Array]) -> _Problem:
    inputs, structure = jax.tree.flatten(args)
    data = [np.asarray(leaf) for leaf in inputs]
    vector, unravel = ravel_pytree(params)

    def plain(v: jax.Array, *rest: jax.Array) -> jax.Array:
        return ravel_pytree(fun(unravel(v), *jax.tree.unflatten(structure, rest)))[0]

    width = corners[1] - corners[0]
    leaves = jax.tree.leaves(fun.result)
    if len(leaves) != 1 or leaves[0].shape != ():
        outputs = sum(leaf.size for leaf in leaves)
        if outputs != vector.size:
            raise ValueError(f"fun: got {outputs} numbers, expected a scalar or as many as params, {vector.size}.")
        return _Problem(Traced(plain, width, data), ("the map", "zeros"), ASSUMPTIONS, False, digest(data))
    derivative, assumptions = _gradient(fun, params, args, data, corners)
    return _Problem(Traced(derivative, width, data), ("fun", "critical points"), assumptions, True, digest(data))


def _gradient(
    fun: Callable[..., Any], params: PyTree, args: tuple, data: list[Array], corners: tuple[Array, Array]
) -> tuple[Callable[..., jax.Array], tuple[str, ...]]:
    """Return the gradient of a function that is smooth in the box, and what is assumed; or raise Refusal."""
    box = ball.between(*corners)
    for constants in ((), ("reduce_max",), ("max",), ("max", "reduce_max")):
        traced, _ = enclosures.trace(fun, params, args, constants)
        smoothness = Smoothness(traced, data, is_smooth_everywhere(traced, box.shape[0], data))
        try:
            smoothness.require(box)
        except TieInGradient:
            continue
        assumptions = list(ASSUMPTIONS)
        if traced.trusted:
            trust.require_consistent(traced, box, data)
            rules = ", ".join(traced.trusted)
            assumptions.append(f"the rules of {rules} in it are right (they agree with differences at a random point)")
        if smoothness.independent:
            assumptions.append(INDEPENDENCE)
        return jax.grad(traced.function), tuple(assumptions)
    raise Refusal("the box leaves maxima in the gradient open")


def _conclude(problem: _Problem, corners: tuple[Array, Array], found: Explored) -> Completeness:
    low, high = corners
    inside = [z for z in found.zeros if np.all((z.near[1] >= low) & (z.near[0] <= high))]
    at_edge = [z for z in inside if not np.all((z.near[0] > low) & (z.near[1] < high))]
    index = problem.system.indices(inside) if problem.indexed else np.full(len(inside), -1)
    unknown = [z for z, k in zip(inside, index, strict=True) if k < 0 and problem.indexed]
    reason = _reason(problem, found, at_edge, unknown)
    size = low.size
    return Completeness(
        complete=not reason,
        reason=reason or "every box is excluded by slopes, or lies in one that holds exactly one of them",
        subject=problem.subject,
        region=_region(low, high),
        low=low,
        high=high,
        points=np.array([z.point for z in inside]).reshape(-1, size),
        radii=np.array([z.near[1] - z.point for z in inside]).reshape(-1, size),
        copies=np.ones(len(inside), np.int64),
        index=index,
        boxes=found.tested,
        seconds=found.seconds,
        undecided_low=found.left.low,
        undecided_high=found.left.high,
        undecided_share=found.left.share,
        assumptions=problem.assumptions,
        data=problem.data,
    )


def _reason(problem: _Problem, found: Explored, at_edge: list[Zero], unknown: list[Zero]) -> str:
    """Return why the list is not proved complete, or an empty string."""
    if len(found.left.low):
        share = float(np.sum(found.left.share))
        reason = f"{len(found.left.low):,} boxes, {share:.2g} of the volume, are undecided"
        return reason + (f" ({problem.system.refusal})" if problem.system.refusal else "")
    if at_edge:
        return f"a point is at the edge of the box, at {at_edge[0].point.tolist()}"
    return f"the index at {unknown[0].point.tolist()} is not proved" if unknown else ""


def _region(low: Array, high: Array) -> str:
    sides = [f"[{a:.6g}, {b:.6g}]" for a, b in zip(low, high, strict=True)]
    same = len(set(sides)) == 1 and len(sides) > 3
    return "In the box " + (f"{sides[0]}^{len(sides)}" if same else " × ".join(sides))


def _refused(reason: str, corners: tuple[Array, Array]) -> Completeness:
    low, high = corners
    none = np.zeros((0, low.size))
    return Completeness(
        complete=False,
        reason=reason,
        subject=("fun", "critical points"),
        region=_region(low, high),
        low=low,
        high=high,
        points=none,
        radii=none,
        copies=np.zeros(0, np.int64),
        index=np.zeros(0, np.int64),
        boxes=0,
        seconds=0.0,
        undecided_low=low[None],
        undecided_high=high[None],
        undecided_share=np.ones(1),
        assumptions=(),
        data="",
    )


def searched(
    system: System,
    corners: tuple[Array, Array],
    data: str,
    max_boxes: int,
    resume: Completeness | None,
    progress: Progress | None,
    excluded: Callable[[Array, Array], Any] | None = None,
    coordinates: Callable[[Array], Array] = np.asarray,
) -> Explored:
    """Explore a box, or what a refusal of the same data left; `coordinates` turns its points into places in the box."""
    report = None if progress is None else lambda share: progress(round(share * _PARTS), _PARTS)
    explored = functools.partial(explore, system, max_boxes=max_boxes, progress=report, excluded=excluded)
    if resume is None:
        return explored(domain=Boxes(corners[0][None], corners[1][None], np.ones(1)), corners=corners, zeros=[])
    if resume.data != data:
        raise ValueError("resume: it is about other args.")
    zeros = system.enclose(np.array(list(map(coordinates, resume.points)))) if len(resume.points) else []
    left = Boxes(resume.undecided_low, resume.undecided_high, resume.undecided_share)
    found = explored(domain=left, corners=corners, zeros=zeros)
    return found._replace(tested=found.tested + resume.boxes, seconds=found.seconds + resume.seconds)
