"""classify: name a critical point minimum, maximum or saddle, or say why float64 cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import scipy.sparse.linalg

from mlp_jax import tree
from mlp_jax.critical.finders import HessianMatrix
from mlp_jax.critical.measurements import Measurements, Problem, measure, nudges
from mlp_jax.curvature import Inertia, matrices, precision, signs
from mlp_jax.tree import PyTree

# A null cluster is separated when no eigenvalue changes side though every error is taken this much larger.
_GAP = 1e3
_DENSE_EIGENVALUES = 4000


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a point is, and the numbers that decided. `print(verdict)` is a sentence.

    kind
        `minimum`, `maximum`, `saddle`, `minimum modulo symmetry`, `maximum modulo symmetry`, `degenerate`,
        `not critical`, `nonsmooth` or `undetermined`.
    index
        Number of negative eigenvalues, where every other mode is resolved or explained by symmetry; else None.
    index_range
        Smallest and largest index that the resolved modes leave possible.
    inertia
        (negative, unresolved, positive, bound) of the Hessian; see `curvature.inertia`.
    gradient_norm, flatness
        ‖g‖₂, and ‖H p + g‖ / ‖g‖ with p the minimum-residual Newton step (meaningless at rounding level).
    distance
        Radius around params that holds, by estimate, exactly one critical point (or one symmetry orbit);
        infinite for a point that is not critical.
    bound
        Relative size below which an eigenvalue of the scaled Hessian is unresolved.
    smallest, largest
        Extreme eigenvalues of the Hessian itself, unscaled.
    symmetries
        Number of independent symmetry tangents that were given and found valid.
    evidence
        `dense`: from the whole Hessian matrix.
    reason
        What decided, in words.
    """

    kind: str
    index: int | None
    index_range: tuple[int, int]
    inertia: Inertia
    gradient_norm: float
    flatness: float
    distance: float
    bound: float
    smallest: float
    largest: float
    symmetries: int
    evidence: str
    reason: str

    def __str__(self) -> str:
        index = "" if self.kind != "saddle" else f" of index {_range(self.index_range)}"
        negative, unresolved, positive, _ = self.inertia
        return (
            f"{self.kind}{index}: {self.reason}."
            f" Eigenvalues: {negative} negative, {unresolved} unresolved, {positive} positive,"
            f" from {self.smallest:.6g} to {self.largest:.6g}, relative bound {self.bound:.1e};"
            f" gradient norm {self.gradient_norm:.1e}, flatness {self.flatness:.1e},"
            f" distance {self.distance:.1e}; evidence: {self.evidence}."
        )


def _range(ends: tuple[int, int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def classify(
    fun: Callable[..., jax.Array],
    params: PyTree,
    args: tuple = (),
    *,
    hessian: HessianMatrix | None = None,
    symmetries: Callable[[PyTree], PyTree] | None = None,
    kinks: Callable[..., jax.Array] | None = None,
) -> Verdict:
    """Name the critical point at params, or say why it has no name. Host-level.

    The claim: there is, by estimate, exactly one critical point (or one symmetry orbit of them) within `distance` of
    params, and its inertia is this. An eigenvalue counts only when it is larger than what the Hessian may be wrong
    by: the rounding of its entries (measured by moving params by a rounding), its change over `distance`, and the
    backward error of the factorisation. Everything is float64 whatever the caller's default; a function that
    computes in float32 inside is noticed, and the errors are those of float32.

    Memory: 8 matrices of 8 P² bytes. Three Hessians, 33 gradients and O(P³) work.

    Parameters
    ----------
    fun
        `(params, *args) -> scalar`.
    params
        Any pytree of floating arrays.
    args
        Further arguments of `fun`: data goes here.
    hessian
        `(params, *args) -> (P, P)` in the order of `tree.ravel`, such as a partial of `mlp_hessian.dense`. It is
        compared with a Hessian-vector product of `fun`, and refused if it is another function's.
    symmetries
        `params -> tangents` with a leading axis: directions of continuous symmetries, as functions of params. Each is
        tested at random points around params, and dropped where `fun` changes along it.
    kinks
        `(params, *args) -> values`: numbers whose zeros are the corners of `fun`, such as ReLU pre-activations.

    Returns
    -------
    Verdict

    Raises
    ------
    TypeError, ValueError
        As `curvature.dense_hessian`; a gradient or Hessian that is not finite; a hessian that is not that of `fun`.
    MemoryError
        P is too large for dense matrices; nothing has been computed then.

    Examples
    --------
    >>> verdict = classify(lambda x: x[0] ** 2 - x[1] ** 2, jnp.zeros(2))
    >>> verdict.kind, verdict.index
    ('saddle', 1)
    >>> classify(lambda x: x[0] ** 2 + x[1] ** 4, jnp.zeros(2)).kind
    'degenerate'
    """
    with jax.enable_x64(True):
        params, args = precision.promote_problem(fun, params, args)
        matrices.require_memory(tree.size(params), matrices=8)
        unit = precision.rounding_unit(fun, params, args)
        problem = Problem(fun, params, args, hessian, unit)
        measured = measure(problem)
        counts = signs.inertia(measured.matrix, measured.matrix_error)
        tangents = _valid_tangents(problem, symmetries)
        corner = measured.jump or _corner_within(problem, kinks, measured)
    return _decide(measured, counts, tangents, corner, unit)


def _decide(m: Measurements, counts: Inertia, tangents: np.ndarray, corner: str | None, unit: float) -> Verdict:
    explained, symmetry_reason = _explained(m, counts, tangents)
    critical, why_not = _is_critical(m, counts)
    unresolved = 0 if explained else counts.unresolved
    index_range = (counts.negative, counts.negative + unresolved)
    if corner is not None:
        kind, reason = "nonsmooth", corner
    elif critical is False:
        kind, reason = "not critical", why_not
    elif critical is None:
        kind, reason = "undetermined", why_not
    else:
        kind, reason = _name(m, counts, explained, symmetry_reason, unit)
    size = float(np.linalg.norm(m.gradient))
    smallest, largest = _extremes(m.matrix)
    is_critical = critical is True and corner is None
    return Verdict(
        kind=kind,
        index=index_range[0] if is_critical and index_range[0] == index_range[1] else None,
        index_range=index_range,
        inertia=counts,
        gradient_norm=size,
        flatness=float(np.linalg.norm(m.residual)) / size if size > 0 else 0.0,
        distance=2 * float(np.linalg.norm(m.step)) if is_critical else float("inf"),
        bound=counts.bound,
        smallest=smallest,
        largest=largest,
        symmetries=tangents.shape[1],
        evidence="dense",
        reason=reason,
    )


def _name(m: Measurements, counts: Inertia, explained: bool, symmetry_reason: str, unit: float) -> tuple[str, str]:
    """Name a critical point by the signs of its modes."""
    negative, unresolved, positive, _ = counts
    low = "" if unit <= 2.0**-53 else f" (fun computes with unit roundoff {unit:.1e} inside)"
    if negative and positive:
        rest = "every other mode is resolved"
        if unresolved:
            rest = symmetry_reason if explained else f"{unresolved} modes are not resolved"
        return "saddle", f"curvature is negative and positive, and {rest}{low}"
    one_side = "positive" if positive else "negative"
    extremum = "minimum" if positive else "maximum"
    if not unresolved:
        return extremum, f"every eigenvalue is resolved and {one_side}{low}"
    if explained and (negative or positive):
        return f"{extremum} modulo symmetry", f"every resolved eigenvalue is {one_side}, and {symmetry_reason}{low}"
    never = "; not a minimum, since curvature is negative along a direction" if negative else ""
    wider = signs.inertia(m.matrix, _GAP * m.matrix_error)
    if (wider.negative, wider.positive) == (negative, positive) and unit <= 2.0**-53:
        gap = f"{unresolved} null modes, separated from the others by a factor of more than {_GAP:.0f}"
        return "degenerate", f"{gap}: higher orders decide{never}"
    return "undetermined", (
        f"{unresolved} modes are within the error of the Hessian and not separated from the others{never}{low};"
        " more digits than float64, or a proof, would decide"
    )


def _is_critical(m: Measurements, counts: Inertia) -> tuple[bool | None, str]:
    """Return whether there is a critical point within a finite distance (None: cannot tell), and why not."""
    size = np.linalg.norm(m.gradient)
    if _within(m.scale, m.gradient, m.gradient_error):
        return True, ""
    if not _within(m.scale, m.residual, m.residual_error + m.curvature_change):
        flatness = np.linalg.norm(m.residual) / size
        return False, (
            f"the gradient norm {size:.2g} is above rounding and the Newton step does not solve it"
            f" (flatness {flatness:.2g})"
        )
    if counts.negative + counts.positive < m.num_solved:
        return False, (
            f"the gradient norm {size:.2g} is above rounding and the Newton step, of length"
            f" {np.linalg.norm(m.step):.2g}, leaves the region in which the Hessian keeps its signs"
        )
    if not _within(m.scale, m.residual, m.residual_error):
        return None, (
            f"the gradient norm {size:.2g} is above rounding, and along null modes the Newton step leaves a part that"
            " only a point nearer to the critical one could tell from zero (critical.find first)"
        )
    return True, ""


def _within(scale: np.ndarray, values: np.ndarray, error: np.ndarray) -> bool:
    """Return whether each value is within its error, or within that of a typical component, when scaled."""
    allowed = scale * error
    return bool(np.all(scale * np.abs(values) <= np.maximum(allowed, np.median(allowed))))


def _corner_within(problem: Problem, kinks: Callable[..., jax.Array] | None, m: Measurements) -> str | None:
    """Say how many corners of `fun` lie within the distance, going by how much `kinks` changes over it."""
    if kinks is None:
        return None
    moves = nudges(problem)
    moves = moves * max(1.0, 2 * float(np.linalg.norm(m.step) / np.linalg.norm(moves[0])))
    moves = np.concatenate([moves, 2 * m.step[None]])

    def values(vector: np.ndarray) -> np.ndarray:
        leaves = jax.tree.leaves(kinks(problem.unravel(vector), *problem.args))
        return np.concatenate([np.asarray(leaf, dtype=np.float64).ravel() for leaf in leaves])

    here = values(problem.vector)
    change = np.max([np.abs(values(problem.vector + move) - here) for move in (*moves, *-moves)], axis=0)
    near = int(np.sum(np.abs(here) <= 2 * change))
    return (
        f"{near} corners of fun lie within {2 * np.linalg.norm(m.step):.1e} of params or its rounding" if near else None
    )


def _extremes(matrix: np.ndarray) -> tuple[float, float]:
    if len(matrix) <= _DENSE_EIGENVALUES:
        values = np.linalg.eigvalsh(matrix)
        return float(values[0]), float(values[-1])
    start = np.random.default_rng(0).standard_normal(len(matrix))
    ends = [scipy.sparse.linalg.eigsh(matrix, k=1, which=w, v0=start, tol=1e-6)[0][0] for w in ("SA", "LA")]
    return float(ends[0]), float(ends[1])


def _valid_tangents(problem: Problem, symmetries: Callable[[PyTree], PyTree] | None) -> np.ndarray:
    """Return (P, k) tangents at params, those dropped along which `fun` changes at random points around params."""
    size = len(problem.vector)
    if symmetries is None:
        return np.zeros((size, 0))
    here = _tangents(problem, symmetries, problem.vector)
    valid = np.ones(here.shape[1], dtype=bool)
    generator = np.random.default_rng(2)
    spread = 0.1 * (np.abs(problem.vector) + np.mean(np.abs(problem.vector)))
    for _ in range(3):
        there = problem.vector + spread * generator.standard_normal(size)
        nudge = 2 * problem.unit * np.abs(there)
        gradients = problem.gradients(np.stack([there, there + nudge, there - nudge]))
        tangents = _tangents(problem, symmetries, there)
        change = np.max(np.abs(gradients[1:] - gradients[0]), axis=0)
        error = 16 * np.maximum(change, np.median(change)) + 64 * problem.unit * np.abs(gradients[0])
        valid &= np.abs(gradients[0] @ tangents) <= error @ np.abs(tangents)
    return _independent(here[:, valid])


def _tangents(problem: Problem, symmetries: Callable[[PyTree], PyTree], vector: np.ndarray) -> np.ndarray:
    leaves = jax.tree.leaves(symmetries(problem.unravel(vector)))
    rows = [np.asarray(leaf, dtype=np.float64).reshape(len(leaf), -1) for leaf in leaves]
    tangents = np.concatenate(rows, axis=1).T
    if tangents.shape[0] != len(vector) or not np.all(np.isfinite(tangents)):
        raise ValueError(
            f"symmetries: got tangents of {tangents.shape[0]} numbers, expected finite ones of {len(vector)}, with a"
            " leading axis on every leaf."
        )
    return tangents


def _independent(tangents: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the span of the columns."""
    lengths = np.linalg.norm(tangents, axis=0)
    tangents = tangents[:, lengths > 0] / lengths[lengths > 0]
    if tangents.shape[1] == 0:
        return tangents
    left, values, _ = np.linalg.svd(tangents, full_matrices=False)
    return left[:, values > 1e-10 * values[0]]


def _explained(m: Measurements, counts: Inertia, tangents: np.ndarray) -> tuple[bool, str]:
    """Return whether the unresolved modes are as many as, and spanned by, the valid symmetry tangents.

    At a critical point the Hessian is exactly zero along a symmetry, so equal counts leave no other null mode.
    """
    if counts.unresolved == 0 or tangents.shape[1] != counts.unresolved or m.eigenvectors is None:
        return False, ""
    scaled = m.matrix * m.scale[:, None] * m.scale
    along = np.abs(np.einsum("ij,ij->j", m.eigenvectors, scaled @ m.eigenvectors))
    null = m.eigenvectors[:, np.argsort(along)[: counts.unresolved]]
    basis, _ = np.linalg.qr(tangents / m.scale[:, None])
    sine = float(np.linalg.norm(null - basis @ (basis.T @ null), ord=2))
    if sine > 0.1:
        return False, ""
    angle = np.degrees(np.arcsin(min(sine, 1.0)))
    return (
        True,
        f"the {counts.unresolved} null modes are symmetry directions of fun (largest angle {angle:.1e} degrees)",
    )
