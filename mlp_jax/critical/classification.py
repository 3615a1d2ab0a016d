"""classify: name a critical point minimum, maximum or saddle, or say why float64 cannot."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mlp_jax import _checks, _parallel, tree
from mlp_jax.critical.evidence.corners import corner_within
from mlp_jax.critical.evidence.higher_order import HigherOrder, higher_order, smallest
from mlp_jax.critical.evidence.higher_precision import constant_along, second_look
from mlp_jax.critical.evidence.jumps import Jump, nonsmooth
from mlp_jax.critical.evidence.matrix_free import MAX_PRODUCTS, classify_by_products
from mlp_jax.critical.evidence.measurements import Measurements, measure
from mlp_jax.critical.evidence.problem import Budget, Problem
from mlp_jax.critical.evidence.slopes import NotFinite, length, within
from mlp_jax.critical.evidence.tangents import constant_tangents, explained, valid_tangents
from mlp_jax.critical.verdict import Verdict
from mlp_jax.curvature import Inertia, matrices, precision, signs, units
from mlp_jax.curvature.types import Channels, Fun, HessianMatrix, Progress, PyTree, Tangents

# A null cluster is separated when no count changes with all errors larger by this factor.
_GAP = 1e3
# Largest entries of a Hessian between these leave room for their rounding, and for squares.
_REPRESENTABLE = 1e-290, 1e290
# (P, P) float64 matrices held at once, including those of computing a Hessian.
_MATRICES = 4
# Hessians of dense evidence, at most.
_HESSIANS = 5


def classify(
    fun: Fun,
    params: PyTree,
    args: tuple = (),
    *,
    hessian: HessianMatrix | None = None,
    symmetries: Tangents | None = None,
    kinks: Callable[..., jax.Array] | None = None,
    enclosure: HessianMatrix | None = None,
    channels: Channels | None = None,
    evidence: str | None = None,
    key: jax.Array | None = None,
    max_products: int = MAX_PRODUCTS,
    progress: Progress | None = None,
) -> Verdict:
    """Name the critical point at params, or say why it has no name. Host-level.

    The claim: there is, by estimate, exactly one critical point (or one symmetry orbit of them) within `distance` of
    params, and its inertia is this. An eigenvalue counts only when it is larger than the error of the Hessian: the
    rounding of its entries (measured by rounding all arithmetic differently), its change over `distance`, and the
    backward error of the factorisation. Everything is float64 whatever the caller's default; where a function
    computes in float32 inside, the errors are those of float32.

    Dense evidence takes 4 matrices of 8 P² bytes, three to five Hessians, about 130 gradients and products, and O(P³)
    work. Where the matrices would not fit in half of the memory, the verdict rests on Hessian-vector products (see
    `matrix_free`): two directions show a saddle, and a minimum is claimed with a failure probability of 1e-6.
    Symmetries are not used then, and null modes leave the verdict `undetermined`.

    Parameters
    ----------
    fun, params, args
        `(params, *args) -> scalar`, a pytree of floating arrays, and further arguments: data goes here.
    hessian
        `(params, *args) -> (P, P)` in the order of `tree.ravel`, such as a partial of `mlp_hessian.dense`. It is
        compared with a Hessian-vector product of `fun`, and refused if it is that of another function.
    symmetries
        `params -> tangents` with a leading axis: directions of continuous symmetries, as functions of params. Each is
        tested at random points around params, and dropped where `fun` changes along it.
    kinks
        `(params, *args) -> values`: numbers whose zeros are the corners of `fun`, such as ReLU pre-activations.
    enclosure
        For a faster proof: see `interval.certify`.
    channels
        `(fun, params, args) -> words` about a channel to infinity, such as `mlp_symmetry.channels(activation)`, to be
        added to the reason of a verdict `not critical`.
    evidence
        "dense" or "lanczos"; None chooses by memory. "proved" adds a proof by `interval.certify` to the dense verdict,
        or a certificate that says why the proof was refused.
    key
        JAX random key of the Lanczos start; `jax.random.key(0)` when None.
    max_products
        Largest number of Hessian-vector products of MINRES and Lanczos where the verdict rests on products; checks of
        the derivatives take about 100 more. Each of them, once the Newton step is known, keeps a vector of P numbers.
        Where they do not suffice the verdict is `undetermined`, and says how many might.
    progress
        Called as progress(done, total) after each Hessian, of at most 5, or after each of those products, of
        `max_products`; "proved" goes on as `interval.certify`.

    Raises
    ------
    TypeError, ValueError
        As `curvature.dense_hessian`; a gradient or Hessian that is not finite; a hessian that is not that of `fun`.
    MemoryError
        "dense" was asked for and P is too large for it; raised before any computation.

    Examples
    --------
    >>> verdict = classify(lambda x: x[0] ** 2 - x[1] ** 2, jnp.zeros(2))
    >>> verdict.kind, verdict.index
    ('saddle', 1)
    >>> classify(lambda x: x[0] ** 2 + x[1] ** 4, jnp.zeros(2)).kind
    'degenerate'
    """
    require_evidence(evidence)
    key = jax.random.key(0) if key is None else key
    _checks.key(key)
    max_products = _checks.integer(max_products, "max_products")
    with precision.float64(), _parallel.blas_threads_for(tree.size(params)):
        traced, params, args = precision.traced_problem(fun, params, args)
        for name, function in (
            ("hessian", hessian),
            ("symmetries", symmetries),
            ("kinks", kinks),
            ("enclosure", enclosure),
            ("channels", channels),
        ):
            if function is not None:
                _checks.function(function, name, "of params")
        if evidence is None:
            evidence = "dense" if matrices.fits(tree.size(params), _MATRICES) else "lanczos"
        if evidence != "lanczos":
            # Asked for by name: more than the half of the machine up to which it is chosen.
            matrices.require_memory(tree.size(params), matrices.machine_bytes() * 3 // 4, _MATRICES)
        budget = Budget(max_products if evidence == "lanczos" else _HESSIANS, progress)
        problem = Problem(traced, params, args, hessian, units.traced_unit(traced, params), budget)
        try:
            if evidence == "lanczos":
                find_corner = functools.partial(corner_within, problem, kinks)
                with _parallel.one_blas_thread():  # a second would wait, spinning, on a core that products use
                    return _with_words(classify_by_products(problem, key, find_corner), problem, channels)
            measured = measure(problem)
        except NotFinite:
            fun(params, *args)  # given numbers, fun may raise an error that says more, such as a label out of range
            raise
        tangents = valid_tangents(problem, symmetries)
        corner = measured.jump or corner_within(problem, kinks, measured.step)
        verdict = _with_words(_decide(problem, measured, tangents, symmetries, corner), problem, channels)
        return _prove(fun, problem, verdict, symmetries, enclosure, progress) if evidence == "proved" else verdict


def require_evidence(evidence: str | None) -> None:
    """Raise ValueError unless this is a kind of evidence."""
    if evidence not in (None, "dense", "lanczos", "proved"):
        raise ValueError(f"evidence: got {evidence!r}, expected 'dense', 'lanczos', 'proved' or None.")


def _with_words(verdict: Verdict, problem: Problem, channels: Channels | None) -> Verdict:
    """Return the verdict; if it is `not critical`, with what is to be said about a channel to infinity."""
    words = (
        channels(problem.traced, problem.params, problem.args) if channels and verdict.kind == "not critical" else ""
    )
    return dataclasses.replace(verdict, reason=f"{verdict.reason}; {words}") if words else verdict


def _prove(
    fun: Fun,
    problem: Problem,
    verdict: Verdict,
    symmetries: Tangents | None,
    enclosure: HessianMatrix | None,
    progress: Progress | None,
) -> Verdict:
    """Return the verdict with a certificate, whose numbers replace the estimates unless they contradict each other.

    A proof is about the function as traced, with its derivative rules.
    """
    from mlp_jax.interval import certify

    options: Any = {"symmetries": symmetries, "hessian": problem.hessian, "enclosure": enclosure, "progress": progress}
    proof = certify(fun, problem.params, problem.args, **options)
    if proof.index is None or proof.null is None or proof.radius is None or verdict.kind == "nonsmooth":
        return dataclasses.replace(verdict, certificate=proof)
    positive = proof.size - proof.index - proof.null
    inertia = verdict.inertia
    if verdict.kind != "not critical" and (inertia.negative > proof.index or inertia.positive > positive):
        reason = f"the proof says {proof.kind}, the measurements {verdict.name}: one of them is about another function"
        return dataclasses.replace(verdict, kind="undetermined", index=None, reason=reason, certificate=proof)
    return dataclasses.replace(
        verdict,
        kind=proof.kind,
        index=proof.index,
        index_range=(proof.index, proof.index),
        inertia=Inertia(proof.index, proof.null, positive, verdict.bound),
        distance=(proof.displacement + proof.radius) * math.sqrt(proof.size),
        evidence="proved",
        reason=f"exactly one critical point lies within {proof.unique_radius:.1e} in every coordinate, by proof",
        certificate=proof,
    )


def _decide(
    problem: Problem, m: Measurements, tangents: np.ndarray, symmetries: Tangents | None, corner: Jump | None
) -> Verdict:
    counts = m.counts
    angle = _explained(problem, m, tangents, symmetries)
    unresolved = counts.unresolved if angle is None else 0
    critical, why_not = _is_critical(m, counts)
    found, largest = None, max(float(m.matrix.max()), -float(m.matrix.min()))  # without a third matrix
    if corner is not None:
        kind, reason = nonsmooth(corner)
    elif m.disagreement is not None:
        kind, reason = "undetermined", m.disagreement
        counts, unresolved = Inertia(0, len(m.matrix), 0, math.inf), len(m.matrix)
    elif np.any(m.matrix) and not _REPRESENTABLE[0] < largest < _REPRESENTABLE[1]:
        kind = "undetermined"
        reason = f"the Hessian has entries of {largest:.1e}; multiply fun by a number that makes them 1"
    elif critical is not True:
        kind, reason = "undetermined" if critical is None else "not critical", why_not
    else:
        kind, reason, found = _name(problem, m, counts, angle)
    if kind == "not critical":  # nothing is claimed beyond this point, so that its own rounding alone counts
        counts = signs.count(m.matrix, m.rounding, m.scale)
        unresolved = counts.unresolved
    smallest, largest = m.ends or np.linalg.eigvalsh(m.matrix)[[0, -1]].tolist()
    if m.ends is not None:  # estimates from within the spectrum may miss a sign that is sure
        smallest = math.nan if counts.negative and smallest >= 0 else smallest
        largest = math.nan if counts.positive and largest <= 0 else largest
    is_critical = critical is True and corner is None and m.disagreement is None
    return Verdict(
        kind=kind,
        index=counts.negative if is_critical and not unresolved else None,
        index_range=(counts.negative, counts.negative + unresolved),
        inertia=counts,
        gradient_norm=length(m.gradient),
        gradient_error=length(m.gradient_error),
        flatness=length(m.residual) / length(m.gradient) if np.any(m.gradient) else 0.0,
        distance=2 * length(m.reach) if is_critical else float("inf"),
        bound=counts.bound,
        rounding=float(np.max(m.scale**2 * m.rounding)),
        change=float(np.max(m.scale**2 * m.change)),
        smallest=smallest,
        largest=largest,
        symmetries=tangents.shape[1],
        higher_order=found,
        unit=problem.unit,
        evidence="dense",
        reason=reason,
    )


def _explained(problem: Problem, m: Measurements, tangents: np.ndarray, symmetries: Tangents | None) -> float | None:
    """Return the largest angle between null modes and tangents; None unless the tangents explain all null modes.

    More digits reveal a false tangent that float64 cannot tell from a symmetry: the function must be constant along it,
    and, where a minimum or maximum of a small function rests on it, the Hessian null.
    """
    counts = m.counts
    angle = explained(m, counts.unresolved, tangents)
    if angle is None or symmetries is None:
        return None
    if constant_along(problem, symmetries, constant_tangents(problem, symmetries)[1]) is False:
        return None
    if counts.negative and counts.positive:
        return angle
    return None if second_look(problem, m, counts.unresolved).confirmed is False else angle


def _name(
    problem: Problem, m: Measurements, counts: Inertia, angle: float | None
) -> tuple[str, str, HigherOrder | None]:
    """Name a critical point by the signs of its modes."""
    negative, unresolved, positive, _ = counts
    low = "" if problem.unit <= 2.0**-53 else f" (fun computes with unit roundoff {problem.unit:.1e} inside)"
    if negative and positive:
        rest = "every other mode is resolved"
        if unresolved:
            rest = f"{unresolved} modes are not resolved" if angle is None else _symmetric(unresolved, angle)
        return "saddle", f"curvature is negative and positive, and {rest}{low}", None
    one_side = "positive" if positive else "negative"
    extremum = "minimum" if positive else "maximum"
    if not unresolved:
        return extremum, f"every eigenvalue is resolved and {one_side}{low}", None
    if angle is not None and (negative or positive):
        words = f"every resolved eigenvalue is {one_side}, and {_symmetric(unresolved, angle)}{low}"
        return f"{extremum} modulo symmetry", words, None
    never = "; not a minimum, since curvature is negative along a direction" if negative else ""
    wider = signs.count(m.matrix, _GAP * m.error, m.scale)
    if (wider.negative, wider.positive) == (negative, positive) and problem.unit <= 2.0**-53:
        return _degenerate(problem, m, counts, never)
    words = (
        f"{unresolved} modes are within the error of the Hessian and not separated from the others{never}{low};"
        " more digits than float64, or a proof, would decide"
    )
    return "undetermined", words, None


def _symmetric(unresolved: int, angle: float) -> str:
    return f"the {unresolved} null modes are symmetry directions of fun (largest angle {angle:.1e} degrees)"


def _degenerate(problem: Problem, m: Measurements, counts: Inertia, never: str) -> tuple[str, str, HigherOrder | None]:
    """Name a point with a null cluster by higher orders."""
    gap = f"{counts.unresolved} null modes, separated from the others by a factor of more than {_GAP:.0f}"
    look = second_look(problem, m, counts.unresolved)
    if not look.confirmed:
        return "undetermined", f"{gap}, {look.words}; a proof (interval.certify) may decide{never}", None
    gap = f"{gap}, {look.words}: higher orders decide"
    if m.eigenvalues is None:
        return "degenerate", f"{gap} (P is too large to look at them){never}", None
    found = higher_order(problem, m, smallest(m.eigenvalues, counts.unresolved))
    falls, rises = found.falls or counts.negative > 0, found.rises or counts.positive > 0
    if falls and rises and found.order is not None:
        return "degenerate saddle", f"{gap}; {found}, so that fun falls and rises from here{never}", found
    return "degenerate", f"{gap}; {found}{never}", found


def _is_critical(m: Measurements, counts: Inertia) -> tuple[bool | None, str]:
    """Return whether there is a critical point within a finite distance (None: undecided), and why not."""
    size = np.linalg.norm(m.gradient)
    if within(m.scale, m.gradient, m.gradient_error):
        return True, ""
    if m.strayed is not None:
        return False, f"the gradient norm {size:.2g} is above rounding, and {m.strayed}"
    if not within(m.scale, m.residual, m.residual_error + m.curvature_change):
        flatness = np.linalg.norm(m.residual) / size
        return False, (
            f"the gradient norm {size:.2g} is above rounding and the Newton step does not solve it"
            f" (flatness {flatness:.2g})"
        )
    if counts.negative + counts.positive < m.num_solved:
        return False, (
            f"the gradient norm {size:.2g} is above rounding and the Newton step, of length"
            f" {np.linalg.norm(m.step):.2g}, leaves the region in which the Hessian keeps its signs: critical.find may"
            " reach one from here"
        )
    if not within(m.scale, m.residual, m.residual_error):
        return None, (
            f"the gradient norm {size:.2g} is above rounding, and along null modes the Newton step leaves a part that"
            " only a point nearer to the critical one could tell from zero (critical.find first)"
        )
    return True, ""
