"""A verdict from Hessian-vector products alone, at any size: a saddle shown, or a minimum by probability.

One direction v with v·Hv < −bound and one with v·Hv > bound show a saddle. That no direction is negative can only be
claimed with a failure probability: for a random start on the sphere, after k steps of Lanczos the extreme Ritz value
is within ε (λmax − λmin) of the extreme eigenvalue but with probability 1.648 √P exp(−√ε (2k − 1)) (Kuczyński and
Woźniakowski 1992, "Estimating the largest eigenvalue by the power and Lanczos algorithms with a random start").
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg

from mlp_jax.critical.measurements import JUMP, SAFETY, Problem, gradient_jumps, measure_gradient, nudges
from mlp_jax.critical.verdict import Verdict
from mlp_jax.curvature import Inertia, matrices, traced_operator
from mlp_jax.curvature.krylov_basis import HostBasis
from mlp_jax.curvature.krylov_space import Space
from mlp_jax.tree import PyTree

# Sizes of which the squares, and the squares of their rounding, are numbers of float64.
_SMALLEST = 1e-120
FAILURE_PROBABILITY = 1e-6
_FIRST_STEPS = 32
_MOST_STEPS = 1000
_ERROR_STEPS = 8
_SOLVE_STEPS = 300
# A Newton step that leaves no more than this part of the gradient is taken to converge.
_CONTRACTION = 0.25


class _Newton(NamedTuple):
    step: np.ndarray
    flatness: float
    critical: bool
    reason: str


class _Spectrum(NamedTuple):
    ritz: np.ndarray
    lowest: float  # bound on the smallest eigenvalue, but for the failure probability
    highest: float
    products: int


def classify_by_products(problem: Problem, key: jax.Array, corner: Callable[[np.ndarray], str | None]) -> Verdict:
    """Classify from Hessian-vector products: see `classify` with evidence="lanczos". Host-level.

    Memory: k vectors of P numbers for k steps of Lanczos, at most 1000 and at most a quarter of the machine.

    Examples
    --------
    >>> with jax.enable_x64(True):
    ...     problem = Problem(lambda x: jnp.sum(x**2) - 3 * x[0] ** 2, jnp.zeros(50), (), None, 2.0**-53)
    ...     verdict = classify_by_products(problem, jax.random.key(0), lambda step: None)
    >>> verdict.kind, verdict.index_range
    ('saddle', (1, 49))
    """
    moves = nudges(problem)
    gradient, gradient_error, gradient_jump = measure_gradient(problem, moves)
    newton = _newton(problem, gradient, gradient_error)
    rounding, change = _hessian_errors(problem, newton.step, moves[0], key)
    spectrum, bound = _spectrum(problem, key, max(rounding, change))
    level = JUMP * float(np.max(np.abs(spectrum.ritz)) * np.max(np.abs(moves)))
    jumps = gradient_jumps(gradient_jump) if np.max(gradient_jump) > level else None
    where = jumps or corner(newton.step)
    kind, counts, reason = _name(spectrum, bound, len(problem.vector))
    if where is not None:
        kind, reason = "nonsmooth", where
    elif not newton.critical:
        kind, reason = "not critical", newton.reason
    largest = float(np.max(np.abs(spectrum.ritz)))
    representable = largest == 0 or _SMALLEST < largest < 1 / _SMALLEST
    if not representable:
        kind = "undetermined"
        reason = (
            f"eigenvalues of {largest:.1e} have squares outside float64; multiply fun by a number that makes them 1"
        )
    claims = newton.critical and where is None and representable
    return Verdict(
        kind=kind,
        index=counts.negative if claims and counts.unresolved == 0 else None,
        index_range=(counts.negative, counts.negative + counts.unresolved),
        inertia=counts,
        gradient_norm=float(np.linalg.norm(gradient)),
        gradient_error=float(np.linalg.norm(gradient_error)),
        flatness=newton.flatness,
        distance=2 * float(np.linalg.norm(newton.step)) if claims else float("inf"),
        bound=counts.bound,
        rounding=_relative(rounding, spectrum.ritz),
        change=_relative(change, spectrum.ritz),
        smallest=float(spectrum.ritz[0]),
        largest=float(spectrum.ritz[-1]),
        symmetries=0,
        higher_order=None,
        unit=problem.unit,
        evidence=f"lanczos ({spectrum.products} products, failure probability {FAILURE_PROBABILITY:.0e})",
        reason=reason,
    )


@functools.lru_cache(maxsize=64)
def _product(fun: Callable[..., jax.Array]) -> Callable[..., PyTree]:
    """Return one function object for each `fun`, so that it is traced once."""

    def product(params: PyTree, args: tuple, vector: PyTree) -> PyTree:
        return jax.jvp(lambda p: jax.grad(fun)(p, *args), (params,), (vector,))[1]

    return product


@functools.lru_cache(maxsize=64)
def _difference(fun: Callable[..., jax.Array]) -> Callable[..., PyTree]:
    """Return (θ₁, θ₂, args, v) ↦ (H(θ₁) − H(θ₂)) v."""
    product = _product(fun)

    def difference(there: PyTree, here: PyTree, args: tuple, vector: PyTree) -> PyTree:
        return jax.tree.map(jnp.subtract, product(there, args, vector), product(here, args, vector))

    return difference


def _newton(problem: Problem, gradient: np.ndarray, error: np.ndarray) -> _Newton:
    """Return the minimum-residual Newton step, and whether it leads to a critical point."""
    size, rounding = np.linalg.norm(gradient), np.linalg.norm(error)
    if size <= rounding:
        return _Newton(np.zeros_like(gradient), 0.0, True, "")
    operator = scipy.sparse.linalg.LinearOperator((len(gradient),) * 2, matvec=problem.product, dtype=np.float64)
    step, _ = scipy.sparse.linalg.minres(operator, -gradient, rtol=1e-8, maxiter=_SOLVE_STEPS)
    flatness = float(np.linalg.norm(problem.product(step) + gradient) / size)
    after = float(np.linalg.norm(problem.gradients((problem.vector + step)[None])[0]))
    critical = after <= _CONTRACTION * size + rounding
    reason = (
        f"the gradient norm {size:.2g} is above rounding, and the Newton step, of flatness {flatness:.2g}, leads to"
        f" one of {after:.2g}"
    )
    return _Newton(step, flatness, bool(critical), reason)


def _hessian_errors(problem: Problem, step: np.ndarray, move: np.ndarray, key: jax.Array) -> tuple[float, float]:
    """Return bounds, by estimate, on the 2-norms of the rounding of H and of its change over the Newton step."""
    sizes = []
    for number, moved in enumerate((problem.vector - move, problem.vector + step + move)):
        matvec = jax.tree_util.Partial(_difference(problem.fun), problem.unravel(moved), problem.params, problem.args)
        space = _lanczos(matvec, problem.params, jax.random.fold_in(key, number), min(_ERROR_STEPS, len(move)))
        sizes.append(SAFETY * float(np.max(np.abs(space.ritz()[0]))))
    return sizes[0], sizes[1]


def _lanczos(matvec: Callable[[PyTree], PyTree], params: PyTree, key: jax.Array, steps: int) -> Space:
    operator = traced_operator.trace(matvec, params)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = min(steps + 1, operator.size())
    space = Space(HostBasis(operator.multiply, operator.size(), operator.program.dtype, rows), 1, generator)
    space.add_random(1)
    while space.position < steps and space.pending:  # nothing is pending where the space is invariant
        space.extend(steps - space.position)
    return space


def _spectrum(problem: Problem, key: jax.Array, bound: float) -> tuple[_Spectrum, float]:
    """Run Lanczos, unrestarted, until the signs at both ends are clear or the steps are used up."""
    size = len(problem.vector)
    most = min(size, _MOST_STEPS, max(_FIRST_STEPS, matrices.machine_bytes() // (4 * 8 * size)))
    matvec = jax.tree_util.Partial(_product(problem.fun), problem.params, problem.args)
    steps, products = min(_FIRST_STEPS, most), 0
    while True:
        # From the same start again, with room for more: memory follows need, at the price of a third more products.
        space = _lanczos(matvec, problem.params, jax.random.fold_in(key, 2), steps)
        products += space.products
        found = _ends(space, size)._replace(products=products)
        bound = max(bound, _arithmetic(problem.unit, found.ritz, size))
        indefinite = found.ritz[0] < -bound and found.ritz[-1] > bound
        if indefinite or found.lowest > bound or found.highest < -bound or steps == most or not space.pending:
            return found, bound
        steps = min(most, 4 * steps)


def _arithmetic(unit: float, ritz: np.ndarray, size: int) -> float:
    """Return what rounding in products and orthogonalisation may leave in a Ritz value."""
    return float(SAFETY * unit * (np.sqrt(size) + len(ritz)) * np.max(np.abs(ritz)))


def _ends(space: Space, size: int) -> _Spectrum:
    values = space.ritz()[0]
    if not space.pending:  # the space is invariant, and a random start has a part in every eigenspace
        return _Spectrum(values, float(values[0]), float(values[-1]), space.products)
    # Both ends: each may fail with half of the probability.
    logarithm = np.log(2 * 1.648 * np.sqrt(size) / FAILURE_PROBABILITY)
    share = (logarithm / (2 * len(values) - 1)) ** 2
    margin = share / (1 - 2 * share) * (values[-1] - values[0]) if share < 0.5 else np.inf
    return _Spectrum(values, float(values[0] - margin), float(values[-1] + margin), space.products)


def _relative(error: float, ritz: np.ndarray) -> float:
    return error / float(np.max(np.abs(ritz))) if np.any(ritz) else float("inf")


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
