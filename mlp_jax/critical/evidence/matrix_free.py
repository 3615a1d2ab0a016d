"""A verdict from Hessian-vector products alone, at any size: a saddle is shown, a minimum claimed by probability.

One direction v with v·Hv < −bound and one with v·Hv > bound show a saddle. That no direction is negative can only be
claimed with a failure probability: see `lanczos_signs`.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.sparse.linalg

from mlp_jax.critical.evidence.agreement import disagreement
from mlp_jax.critical.evidence.jumps import JUMP, MOVES, Jump, first_order_jump, hessian_jump, nonsmooth
from mlp_jax.critical.evidence.lanczos_signs import (
    FAILURE_PROBABILITY,
    Spectrum,
    more,
    random_space,
    signs_at_ends,
)
from mlp_jax.critical.evidence.newton_step import Way, strayed
from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.evidence.slopes import SAFETY, Slope, length, measure_slope, nudges, typical_size, within
from mlp_jax.critical.verdict import Verdict
from mlp_jax.curvature import Inertia

# float64 represents the squares of sizes above this and below its inverse, and of their rounding.
_SMALLEST = 1e-120
# Default of `max_products`.
MAX_PRODUCTS = 1600
# Steps of Lanczos that estimate the size of the Hessian or of an error of it.
_SIZE_STEPS = 8
# MINRES uses one in so many of the products that are left; its step may be too long already after so many.
_SOLVE_SHARE, _LOOKS = 5, (10, 20, 30, 45, 67, 100, 150, 225)
# A Newton step that leaves at most this share of the gradient counts as converging.
_CONTRACTION = 0.25


class _Newton(NamedTuple):
    step: np.ndarray
    reach: np.ndarray  # the same step with the measured rounding of the gradient
    flatness: float
    kind: str  # "critical", or what the point is called
    reason: str


def classify_by_products(problem: Problem, key: jax.Array, corner: Callable[[np.ndarray], Jump | None]) -> Verdict:
    """Classify from Hessian-vector products: see `classify` with evidence="lanczos". Host-level.

    Memory: k vectors of P numbers for k steps of Lanczos, at most a quarter of the machine.
    """
    moves = nudges(problem)
    slope = measure_slope(problem, moves)
    vectors = np.random.default_rng(6).choice([-1.0, 1.0], (4, len(problem.vector)))
    rows = np.max(np.abs(problem.products_here(vectors)), axis=0)
    largest = float(np.max(rows))
    if largest > 0 and not _SMALLEST < largest < 1 / _SMALLEST:
        return _unrepresentable(problem, slope, largest)
    # The rows of diag(s) H diag(s) are alike.
    scale = 1 / np.sqrt(np.where((rows > 0) & np.isfinite(rows), rows, 1.0))
    newton = _newton(problem, slope, scale)
    unknown = Inertia(0, len(problem.vector), 0, np.inf)
    if newton.kind == "critical":
        rounding, change = _hessian_errors(problem, newton.reach, moves, key)
        spectrum, bound = signs_at_ends(problem, key, max(rounding, change), problem.budget.left)
        kind, counts, reason = _name(spectrum, bound, len(problem.vector))
        ritz = spectrum.ritz
        evidence = f"{spectrum.products} products, failure probability {FAILURE_PROBABILITY:.0e}"
    else:  # no sign is claimed at another point, so that the size of the Hessian is enough
        space = random_space(problem.multiply, problem, key, _SIZE_STEPS)
        space.extend(_SIZE_STEPS)
        ritz, rounding, change = space.ritz()[0], np.inf, np.inf
        kind, counts, reason = newton.kind, unknown, newton.reason
        evidence = f"{problem.budget.spent} products"
    where = _jump(problem, slope, ritz, moves, scale * vectors, scale) or corner(newton.step)
    disagrees = disagreement(problem, slope)
    if where is not None:
        kind, reason = nonsmooth(where)
    elif disagrees is not None:
        kind, counts, reason = "undetermined", unknown, disagrees
    claims = newton.kind == "critical" and where is None and disagrees is None
    return _verdict(
        problem,
        slope,
        counts,
        kind=kind,
        index=counts.negative if claims and counts.unresolved == 0 else None,
        flatness=newton.flatness,
        distance=2 * length(newton.reach) if claims else np.inf,
        rounding=_relative(rounding, ritz),
        change=_relative(change, ritz),
        smallest=float(ritz[0]),
        largest=float(ritz[-1]),
        evidence=f"lanczos ({evidence})",
        reason=reason,
    )


def _verdict(problem: Problem, slope: Slope, counts: Inertia, **rest: Any) -> Verdict:
    return Verdict(
        **rest,
        index_range=(counts.negative, counts.negative + counts.unresolved),
        inertia=counts,
        gradient_norm=length(slope.gradient),
        gradient_error=length(slope.gradient_error),
        bound=counts.bound,
        unit=problem.unit,
    )


def _unrepresentable(problem: Problem, slope: Slope, largest: float) -> Verdict:
    """Return the verdict where squares of the Hessian's numbers are outside float64."""
    unknown, size = np.inf, len(problem.vector)
    return _verdict(
        problem,
        slope,
        Inertia(0, size, 0, unknown),
        kind="undetermined",
        flatness=1.0,
        distance=unknown,
        rounding=unknown,
        change=unknown,
        smallest=-unknown,
        largest=unknown,
        evidence="lanczos (4 products)",
        reason=f"products with the Hessian of {largest:.1e} have squares outside float64; multiply fun by a number"
        " that makes them 1",
    )


def _jump(
    problem: Problem, slope: Slope, ritz: np.ndarray, moves: np.ndarray, vectors: np.ndarray, scale: np.ndarray
) -> Jump | None:
    """Return the jump of value, gradient or Hessian when params move by a rounding; None where there is none."""
    largest = float(np.max(np.abs(ritz)))
    level = JUMP * largest * max(float(np.max(np.abs(moves))), problem.unit)

    def noise() -> np.ndarray:
        return problem.products_here(vectors, np.arange(1, len(vectors) + 1)) - problem.products_here(vectors)

    return first_order_jump(slope, level, largest * typical_size(problem)) or hessian_jump(
        problem, vectors, moves, scale, problem.products_here(vectors[:MOVES]), noise
    )


def _newton(problem: Problem, slope: Slope, scale: np.ndarray) -> _Newton:
    """Return the minimum-residual Newton step in scaled coordinates, and whether it leads to a critical point."""
    gradient, error = slope.gradient, slope.gradient_error
    size, rounding = np.linalg.norm(scale * gradient), np.linalg.norm(scale * error)
    if within(scale, gradient, error):
        reach, _ = _minimum_residual(problem, scale, gradient + slope.typical_rounding, 1e-4)
        return _Newton(np.zeros_like(gradient), reach, 0.0, "critical", "")

    def ahead(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradient at the end of a step, by the Hessian and as it is."""
        there = problem.gradients((problem.vector + step)[None])[0]
        return problem.multiply(step[None])[0] + gradient, there

    def too_long(residual: np.ndarray, after: np.ndarray) -> bool:
        return bool(np.linalg.norm(scale * (after - residual)) > _CONTRACTION * size + 2 * rounding)

    step, unfinished = _minimum_residual(problem, scale, gradient, 1e-8, lambda step: too_long(*ahead(step)))
    residual, after = ahead(step)
    flatness = float(np.linalg.norm(residual) / np.linalg.norm(gradient))
    kind, reason = "not critical", None
    if too_long(residual, after):  # no longer step can converge
        reason = "along a step towards its zero it changes by more than the Hessian says"
    else:
        turned = np.abs(problem.products((problem.vector + step)[None], step[None])[0] - (residual - gradient))
        turned = 2 * turned + 0.1 * np.max(scale * turned) / scale
        reason = strayed(problem, slope, Way(scale, step, residual, error + 0.1 * np.abs(residual), turned))
    if reason is None and np.linalg.norm(scale * after) <= _CONTRACTION * size + rounding:
        if within(scale, after, error) or _becomes_shorter(problem, scale, step, after):
            kind = "critical"
        else:
            reason = "Newton's steps do not become shorter"
    elif reason is None and unfinished:
        kind = "undetermined"
        reason = f"the Newton step, of flatness {flatness:.2g}, still changes: a search, or more products, would decide"
    words = f"the gradient norm {np.linalg.norm(gradient):.2g} is above rounding, and " + (
        reason or f"the Newton step, of flatness {flatness:.2g}, leads to one of {np.linalg.norm(after):.2g}"
    )
    return _Newton(step, (1 + rounding / size) * step, flatness, kind, words)


def _becomes_shorter(problem: Problem, scale: np.ndarray, step: np.ndarray, after: np.ndarray) -> bool:
    """Return whether the next Newton step is shorter: in an endless descent each shrinks the gradient alone."""
    following = dataclasses.replace(problem, params=problem.unravel(problem.vector + step))
    second, _ = _minimum_residual(following, scale, after, 1e-3)
    return bool(np.linalg.norm(second / scale) <= _CONTRACTION * np.linalg.norm(step / scale))


class _Stopped(Exception):
    """MINRES has gone far enough; the argument is its step."""


def _minimum_residual(
    problem: Problem,
    scale: np.ndarray,
    gradient: np.ndarray,
    tolerance: float,
    stop: Callable[[np.ndarray], bool] = lambda step: False,
) -> tuple[np.ndarray, bool]:
    """Return −H⁺ g by MINRES in scaled coordinates, and whether more steps would change it.

    It ends early at a step of which `stop`, asked now and then, is true.
    """
    count, steps = itertools.count(1), max(1, problem.budget.left // _SOLVE_SHARE)

    def look(solved: np.ndarray) -> None:
        if next(count) in _LOOKS and stop(scale * solved):
            raise _Stopped(scale * solved)

    operator = scipy.sparse.linalg.LinearOperator(
        (len(scale),) * 2, matvec=lambda v: scale * problem.multiply(scale * v[None])[0], dtype=np.float64
    )
    options: Any = {"rtol": tolerance, "maxiter": steps, "callback": look}
    try:
        solved, unfinished = scipy.sparse.linalg.minres(operator, -scale * gradient, **options)
    except _Stopped as stopped:
        return stopped.args[0], True
    return scale * solved, unfinished > 0


def _hessian_errors(problem: Problem, reach: np.ndarray, moves: np.ndarray, key: jax.Array) -> tuple[float, float]:
    """Return bounds, by estimate, on the 2-norms of the rounding of H and of its change over a step."""
    sizes = []
    for offsets in ((-moves[0], moves[1]), (reach + moves[0], -reach - moves[1], 2 * reach)):
        norms = []
        for number, offset in enumerate(offsets):

            def difference(rows: np.ndarray, there: np.ndarray = problem.vector + offset) -> np.ndarray:
                other = problem.products(np.broadcast_to(there, rows.shape), rows, np.ones(len(rows)))
                return other - problem.multiply(rows)

            space = random_space(difference, problem, jax.random.fold_in(key, number), _SIZE_STEPS)
            space.extend(_SIZE_STEPS)
            norms.append(float(np.max(np.abs(space.ritz()[0]))))
        sizes.append(SAFETY * max(norms))
    # One rounding of each kind is a small sample.
    vectors = np.random.default_rng(6).choice([-1.0, 1.0], (_SIZE_STEPS, len(problem.vector)))
    noise = problem.products_here(vectors, np.arange(2, 2 + len(vectors))) - problem.products_here(vectors)
    return max(sizes[0], SAFETY * float(np.max(np.linalg.norm(noise, axis=1))) / np.sqrt(len(problem.vector))), sizes[1]


def _relative(error: float, ritz: np.ndarray) -> float:
    return error / float(np.max(np.abs(ritz))) if np.any(ritz) else np.inf


def _name(spectrum: Spectrum, bound: float, size: int) -> tuple[str, Inertia, str]:
    relative = _relative(bound, spectrum.ritz)
    negative, positive = int(np.sum(spectrum.ritz < -bound)), int(np.sum(spectrum.ritz > bound))
    if negative and positive:
        counts = Inertia(negative, size - negative - positive, positive, relative)
        return "saddle", counts, f"{negative} directions of negative and {positive} of positive curvature were found"
    if spectrum.lowest > bound:
        words = f"every eigenvalue is above {spectrum.lowest:.3g} but with probability {FAILURE_PROBABILITY:.0e}"
        return "minimum", Inertia(0, 0, size, relative), words
    if spectrum.highest < -bound:
        words = f"every eigenvalue is below {spectrum.highest:.3g} but with probability {FAILURE_PROBABILITY:.0e}"
        return "maximum", Inertia(size, 0, 0, relative), words
    never = "; not a minimum, since curvature is negative along a direction" if negative else ""
    words = (
        f"after {len(spectrum.ritz)} steps of Lanczos the eigenvalues are known to lie between {spectrum.lowest:.3g}"
        f" and {spectrum.highest:.3g} (bound {bound:.1e}){never}; {more(spectrum)}"
    )
    return "undetermined", Inertia(negative, size - negative - positive, positive, relative), words
