"""A verdict from Hessian-vector products alone, at any size: a saddle is shown, a minimum claimed by probability.

One direction v with v·Hv < −bound and one with v·Hv > bound show a saddle. That no direction is negative can only be
claimed with a failure probability: for a random start on the sphere, after k steps of Lanczos the extreme Ritz value
is within ε (λmax − λmin) of the extreme eigenvalue except with probability 1.648 √P exp(−√ε (2k − 1)) (Kuczyński and
Woźniakowski 1992, "Estimating the largest eigenvalue by the power and Lanczos algorithms with a random start").
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg

from mlp_jax import _compiled
from mlp_jax.critical.evidence.agreement import disagreement
from mlp_jax.critical.evidence.jumps import JUMP, Jump, first_order_jump, hessian_jump, nonsmooth
from mlp_jax.critical.evidence.newton_step import Way, strayed
from mlp_jax.critical.evidence.perturbed import perturbed
from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.evidence.slopes import SAFETY, Slope, length, measure_slope, nudges, typical_size, within
from mlp_jax.critical.verdict import Verdict
from mlp_jax.curvature import Inertia, matrices, operators, traced_operator
from mlp_jax.curvature.krylov_basis import HostBasis
from mlp_jax.curvature.krylov_space import Space
from mlp_jax.curvature.tracing import Traced
from mlp_jax.tree import PyTree

# float64 represents the squares of sizes above this and below its inverse, and of their rounding.
_SMALLEST = 1e-120
FAILURE_PROBABILITY = 1e-6
_FIRST_STEPS = 32
_MOST_STEPS = 1000
_ERROR_STEPS = 8
# Steps of MINRES, and of the first look at a gradient above rounding.
_SOLVE_STEPS, _LOOK_STEPS = 300, 30
# A Newton step that leaves at most this share of the gradient counts as converging.
_CONTRACTION = 0.25


class _Newton(NamedTuple):
    step: np.ndarray
    reach: np.ndarray  # the same step with the measured rounding of the gradient
    flatness: float
    critical: bool
    reason: str


class _Spectrum(NamedTuple):
    ritz: np.ndarray
    lowest: float  # bound on the smallest eigenvalue, up to the failure probability
    highest: float
    products: int


def classify_by_products(problem: Problem, key: jax.Array, corner: Callable[[np.ndarray], Jump | None]) -> Verdict:
    """Classify from Hessian-vector products: see `classify` with evidence="lanczos". Host-level.

    Memory: k vectors of P numbers for k steps of Lanczos, at most 1000 and at most a quarter of the machine.
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
    # Where nothing is critical no sign is claimed at another point, and a look at the spectrum is enough.
    rounding, change = _hessian_errors(problem, newton.reach if newton.critical else None, moves, key)
    most = _MOST_STEPS if newton.critical else _FIRST_STEPS
    spectrum, bound = _spectrum(problem, key, max(rounding, change), most)
    kind, counts, reason = _name(spectrum, bound, len(problem.vector))
    where = _jump(problem, slope, spectrum, moves, scale * vectors, scale) or corner(newton.step)
    disagrees = disagreement(problem, slope)
    unknown = Inertia(0, len(problem.vector), 0, np.inf)
    if where is not None:
        kind, reason = nonsmooth(where)
        if not newton.critical:  # the change of H on the way to a critical point was not measured
            counts = unknown
    elif disagrees is not None:
        kind, counts, reason = "undetermined", unknown, disagrees
    elif not newton.critical:
        kind, reason = "not critical", newton.reason
    claims = newton.critical and where is None and disagrees is None
    return _verdict(
        problem,
        slope,
        counts,
        kind=kind,
        index=counts.negative if claims and counts.unresolved == 0 else None,
        flatness=newton.flatness,
        distance=2 * length(newton.reach) if claims else np.inf,
        rounding=_relative(rounding, spectrum.ritz),
        change=_relative(change, spectrum.ritz),
        smallest=float(spectrum.ritz[0]),
        largest=float(spectrum.ritz[-1]),
        evidence=f"lanczos ({spectrum.products} products, failure probability {FAILURE_PROBABILITY:.0e})",
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
    problem: Problem, slope: Slope, spectrum: _Spectrum, moves: np.ndarray, vectors: np.ndarray, scale: np.ndarray
) -> Jump | None:
    """Return the jump of value, gradient or Hessian when params move by a rounding; None where there is none."""
    largest = float(np.max(np.abs(spectrum.ritz)))
    level = JUMP * largest * max(float(np.max(np.abs(moves))), problem.unit)
    here = problem.products_here(vectors)
    noise = problem.products_here(vectors, np.arange(1, len(vectors) + 1)) - here
    return first_order_jump(slope, level, largest * typical_size(problem)) or hessian_jump(
        problem, vectors, moves, scale, here, noise
    )


@_compiled.while_alive
def _product(traced: Traced) -> Callable[..., PyTree]:
    """Return one function object for each `fun`, so that it is traced once."""
    fun = _compiled.weak(traced)

    def product(params: PyTree, args: tuple, vector: PyTree) -> PyTree:
        return operators.hessian_product(fun())(params, args, vector)

    return product


@_compiled.while_alive
def _difference(traced: Traced, unit: float) -> Callable[..., PyTree]:
    """Return (θ₁, θ₂, args, v) ↦ (H(θ₁) − H(θ₂)) v, the first with other roundings."""
    fun = _compiled.weak(traced)

    def difference(there: PyTree, here: PyTree, args: tuple, vector: PyTree) -> PyTree:
        other = operators.hessian_product(lambda p: perturbed(fun(), unit, jnp.uint32(1), p, args))(there, (), vector)
        return jax.tree.map(jnp.subtract, other, operators.hessian_product(fun())(here, args, vector))

    return difference


def _newton(problem: Problem, slope: Slope, scale: np.ndarray) -> _Newton:
    """Return the minimum-residual Newton step in scaled coordinates, and whether it leads to a critical point."""
    gradient, error = slope.gradient, slope.gradient_error
    size, rounding = np.linalg.norm(scale * gradient), np.linalg.norm(scale * error)
    if within(scale, gradient, error):
        reach = _minimum_residual(problem, scale, gradient + slope.typical_rounding, 1e-4)
        return _Newton(np.zeros_like(gradient), reach, 0.0, True, "")
    step = _minimum_residual(problem, scale, gradient, 1e-8, _LOOK_STEPS)
    residual, after = _ahead(problem, gradient, step)
    # The gradient changes along it by so much more than H says that no longer step can converge.
    too_long = bool(np.linalg.norm(scale * (after - residual)) > _CONTRACTION * size + 2 * rounding)
    if not too_long:
        step = _minimum_residual(problem, scale, gradient, 1e-8)
        residual, after = _ahead(problem, gradient, step)
    flatness = float(np.linalg.norm(residual) / np.linalg.norm(gradient))
    turned = np.abs(problem.products((problem.vector + step)[None], step[None])[0] - (residual - gradient))
    turned = 2 * turned + 0.1 * np.max(scale * turned) / scale
    reason = strayed(problem, slope, Way(scale, step, residual, error + 0.1 * np.abs(residual), turned))
    critical = not too_long and reason is None and bool(np.linalg.norm(scale * after) <= _CONTRACTION * size + rounding)
    if critical and not within(scale, after, error):
        # In an endless descent every step shrinks the gradient, but no step is shorter than the one before.
        following = dataclasses.replace(problem, params=problem.unravel(problem.vector + step))
        second = _minimum_residual(following, scale, after, 1e-3)
        critical = bool(np.linalg.norm(second / scale) <= _CONTRACTION * np.linalg.norm(step / scale))
        reason = None if critical else "Newton's steps do not become shorter"
    if too_long:
        reason = "along a step towards its zero it changes by more than the Hessian says"
    words = f"the gradient norm {np.linalg.norm(gradient):.2g} is above rounding, and " + (
        reason or f"the Newton step, of flatness {flatness:.2g}, leads to one of {np.linalg.norm(after):.2g}"
    )
    return _Newton(step, (1 + rounding / size) * step, flatness, critical, words)


def _minimum_residual(
    problem: Problem, scale: np.ndarray, gradient: np.ndarray, tolerance: float, steps: int = _SOLVE_STEPS
) -> np.ndarray:
    """Return −H⁺ g by MINRES in scaled coordinates."""
    operator = scipy.sparse.linalg.LinearOperator(
        (len(scale),) * 2, matvec=lambda v: scale * problem.product(scale * v), dtype=np.float64
    )
    solved, _ = scipy.sparse.linalg.minres(operator, -scale * gradient, rtol=tolerance, maxiter=steps)
    return scale * solved


def _ahead(problem: Problem, gradient: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient at the end of a step, by the Hessian and as it is."""
    return problem.product(step) + gradient, problem.gradients((problem.vector + step)[None])[0]


def _hessian_errors(
    problem: Problem, reach: np.ndarray | None, moves: np.ndarray, key: jax.Array
) -> tuple[float, float]:
    """Return bounds, by estimate, on the 2-norms of the rounding of H and of its change over a step; 0 without one."""
    sizes = []
    ends = (-moves[0], moves[1]), () if reach is None else (reach + moves[0], -reach - moves[1], 2 * reach)
    for offsets in ends:
        norms = []
        for number, offset in enumerate(offsets):
            moved = problem.unravel(problem.vector + offset)
            operator = _difference(problem.traced, problem.unit)
            matvec = jax.tree_util.Partial(operator, moved, problem.params, problem.args)
            steps = min(_ERROR_STEPS, len(offset))
            space = _lanczos(matvec, problem.params, jax.random.fold_in(key, number), steps)
            norms.append(float(np.max(np.abs(space.ritz()[0]))))
        sizes.append(SAFETY * max(norms, default=0.0))
    # One rounding of each kind is a small sample.
    vectors = np.random.default_rng(6).choice([-1.0, 1.0], (_ERROR_STEPS, len(problem.vector)))
    noise = problem.products_here(vectors, np.arange(2, 2 + len(vectors))) - problem.products_here(vectors)
    return max(sizes[0], SAFETY * float(np.max(np.linalg.norm(noise, axis=1))) / np.sqrt(len(problem.vector))), sizes[1]


def _lanczos(matvec: Callable[[PyTree], PyTree], params: PyTree, key: jax.Array, steps: int) -> Space:
    operator = traced_operator.trace(matvec, params)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = min(steps + 1, operator.size())
    space = Space(HostBasis(operator.multiply, operator.size(), operator.program.dtype, rows), 1, generator)
    space.add_random(1)
    while space.position < steps and space.pending:  # nothing is pending where the space is invariant
        space.extend(steps - space.position)
    return space


def _spectrum(problem: Problem, key: jax.Array, bound: float, most: int) -> tuple[_Spectrum, float]:
    """Run Lanczos, unrestarted, until the signs at both ends are clear or the steps are used up."""
    size = len(problem.vector)
    most = min(size, most, max(_FIRST_STEPS, matrices.machine_bytes() // (4 * 8 * size)))
    matvec = jax.tree_util.Partial(_product(problem.traced), problem.params, problem.args)
    steps, products = min(_FIRST_STEPS, most), 0
    while True:
        # Started again, with room for more: memory grows only as needed, at the cost of a third more products.
        space = _lanczos(matvec, problem.params, jax.random.fold_in(key, 2), steps)
        products += space.products
        found = _ends(space, size)._replace(products=products)
        bound = max(bound, _arithmetic(problem, found.ritz))
        indefinite = found.ritz[0] < -bound and found.ritz[-1] > bound
        if indefinite or found.lowest > bound or found.highest < -bound or steps == most or not space.pending:
            return found, bound
        steps = min(most, 4 * steps)


def _arithmetic(problem: Problem, ritz: np.ndarray) -> float:
    """Return a bound on the error of a Ritz value from rounding in products and orthogonalisation."""
    sums = np.sqrt(len(problem.vector)) + len(ritz) + problem.growth
    return float(SAFETY * problem.unit * sums * np.max(np.abs(ritz)))


def _ends(space: Space, size: int) -> _Spectrum:
    values = space.ritz()[0]
    if not space.pending:  # the space is invariant, and a random start has a component in every eigenspace
        return _Spectrum(values, float(values[0]), float(values[-1]), space.products)
    # Each of both ends may fail with half of the probability.
    logarithm = np.log(2 * 1.648 * np.sqrt(size) / FAILURE_PROBABILITY)
    share = (logarithm / (2 * len(values) - 1)) ** 2
    margin = share / (1 - 2 * share) * (values[-1] - values[0]) if share < 0.5 else np.inf
    return _Spectrum(values, float(values[0] - margin), float(values[-1] + margin), space.products)


def _relative(error: float, ritz: np.ndarray) -> float:
    return error / float(np.max(np.abs(ritz))) if np.any(ritz) else np.inf


def _name(spectrum: _Spectrum, bound: float, size: int) -> tuple[str, Inertia, str]:
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
        f" and {spectrum.highest:.3g} (bound {bound:.1e}){never}; more steps, or the dense matrix, would decide"
    )
    return "undetermined", Inertia(negative, size - negative - positive, positive, relative), words
