"""The proof that a box about a point holds exactly one critical point, and its index; or a refusal that says why.

Krawczyk's test (1969): for a centre c, A ≈ H(c)⁻¹, the box B = c ± r, and an enclosure H(B) of the Hessian on B, if

    |A g(c)| + |I − A·H(B)| r  <  r       in every coordinate,

then θ ↦ θ − A g(θ) maps B into itself and contracts it, so B holds exactly one critical point, and every matrix in H(B)
is nonsingular. The inertia of the Hessian at the critical point is read from enclosures of all its eigenvalues.

The gradient at c is enclosed with many bits, because it nearly cancels there; the Hessian in float64. The first box is
tiny, and gives existence, index and eigenvalues. A second, wide one enlarges the neighbourhood of uniqueness. On both
fun must be smooth (see `smoothness`), because the Hessian without its dead code does not show every corner of fun.

Modulo a continuous symmetry with tangents Ξ(θ), ∇funᵀΞ = 0, fun is replaced by F(θ) = fun(θ) + σ/2 ‖Vᵀ(θ −
c)‖². Where ΞᵀV is nonsingular, the critical points of F in B are those of fun on the slice Vᵀ(θ − c) = 0; the inertia
of F is that of fun with the zeros, one for each tangent, made positive (see `symmetry`).
"""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.linalg import lapack

from mlp_jax import curvature, tree
from mlp_jax.curvature.types import PyTree, Tangents
from mlp_jax.interval import ball, enclosures, multiprecision, spectra, symmetry, trust
from mlp_jax.interval.ball import Ball, Refusal
from mlp_jax.interval.certificate import Certificate, Interval
from mlp_jax.interval.interpreter import evaluate
from mlp_jax.interval.krawczyk import Center, Existence, Problem, tiny_box, wide_radius
from mlp_jax.interval.smoothness import Smoothness, TieInGradient, is_smooth_everywhere

_POLISHING_STEPS = 8
# Boxes around the centre, widest first; assumptions are tested on the first one on which fun is smooth.
_TEST_RADII = 2.0 ** -np.arange(7.0, 50, 7)
_ASSUMPTIONS = (
    "fun is what JAX traces it to in float64, with every constant and all of args taken as the exact numbers they are",
    "the gradient is the one that JAX derives from it, with the constants of its rules as float64 numbers",
    "FLINT encloses, and numpy's arithmetic and matrix products round to nearest in the classical way",
)
INDEPENDENCE = "fun does not depend on the maxima that a box leaves open (tested at a random point with many bits)"


class Settings(NamedTuple):
    """What `certify` was asked for."""

    symmetries: Tangents | None
    hessian: Callable[..., jax.Array] | None
    enclosure: Callable[..., jax.Array] | None
    reach: float
    bits: int
    unique_radius: float | None  # None: as wide as possible; 0: do not look
    global_tests: bool  # whether tests of a function that is analytic everywhere may hold for all boxes
    spend: Callable[[int], Any] | None = None  # called with the number of rows of a Hessian, as they are made


def attempt(
    fun: Callable[..., Any], params: PyTree, args: tuple, start: np.ndarray, settings: Settings, side: float | None
) -> Certificate:
    """Polish unless the side of a box is given, prove, and turn a refusal into a certificate."""
    curvature.matrices.require_memory(start.size, matrices=10)
    try:
        ball.require_ieee()
        for constants in ((), ("reduce_max",), ("max",)):
            try:
                return _certificate(fun, params, args, start, settings, side, constants)
            except TieInGradient:
                pass  # next, treat maxima that fun does not depend on as constants
        return _certificate(fun, params, args, start, settings, side, ("max", "reduce_max"))
    except Refusal as refusal:
        return Certificate(False, str(refusal), start.size, start, 0.0)


def _certificate(
    fun: Callable[..., Any],
    params: PyTree,
    args: tuple,
    start: np.ndarray,
    settings: Settings,
    side: float | None,
    constants: tuple[str, ...],
) -> Certificate:
    """Polish unless the side of a box is given, and prove; or raise Refusal."""
    traced, data = enclosures.trace(fun, params, args, constants, settings.enclosure)
    problem = _problem(traced, data, params, start, settings)
    center = start
    if side is None:
        matrix = _float_hessian(fun, params, args, settings.hessian or settings.enclosure)
        center, side, gradient = _polish(problem, start, matrix, settings.reach)
    else:
        gradient = problem.gradient(start)
    _test_assumptions(problem, center, side)
    certificate = _prove(problem, Center(center, gradient), side, settings.unique_radius)
    moved = float(np.max(np.abs(center - start)))
    return dataclasses.replace(certificate, displacement=moved, data=problem.digest)


def _problem(
    traced: enclosures.Traced, data: list[np.ndarray], params: PyTree, start: np.ndarray, settings: Settings
) -> Problem:
    digest = _digest(data)
    everywhere = settings.global_tests and _is_smooth_everywhere(traced, start.size, data, digest)
    problem = Problem(traced, data, digest, Smoothness(traced, data, everywhere), None, settings.bits, settings.spend)
    _require_value(problem, start)
    _require_no_tie(problem, start)
    if settings.symmetries is None:
        return problem
    tangents = symmetry.trace(settings.symmetries, params)

    def gradient(point: np.ndarray) -> np.ndarray:
        return evaluate(traced.gradient, [point, *data], multiprecision)[0]

    return problem._replace(tangents=symmetry.valid(tangents, start, gradient, settings.bits))


def _is_smooth_everywhere(traced: enclosures.Traced, size: int, data: list[np.ndarray], digest: str) -> bool:
    key = "smooth everywhere", digest
    if key not in traced.tested:
        traced.tested[key] = is_smooth_everywhere(traced, size, data)
    return traced.tested[key]


def _require_value(problem: Problem, point: np.ndarray) -> None:
    """Raise Refusal where fun has no finite value."""
    if problem.smoothness.everywhere:
        return
    with multiprecision.bits(problem.bits):
        if not evaluate(problem.traced.value, [point, *problem.data], multiprecision)[0].item().is_finite():
            raise Refusal("fun is NaN or infinite at params")


def _require_no_tie(problem: Problem, point: np.ndarray) -> None:
    """Raise TieInGradient before polishing, which may be refused for another reason."""
    try:
        problem.smoothness.require(Ball(point, ball.UNIT * np.maximum(1, np.abs(point))))
    except TieInGradient:
        raise
    except Refusal:
        pass  # params may be next to a corner that the centre is not next to


def _test_assumptions(problem: Problem, center: np.ndarray, side: float) -> None:
    """Test trusted rules and symmetries on a box about the centre on which fun is smooth.

    fun on the boxes of the proof is its analytic continuation from there. Rules that agree at a random point of a
    function that is analytic everywhere need no second test.
    """
    known = problem.smoothness.everywhere and problem.traced.tested.get(("rules", problem.digest), False)
    trusted = problem.traced.trusted and not known
    if not trusted and problem.tangents is None:
        return
    for radius in (*_TEST_RADII, None):
        box = Ball(center, np.full(center.shape, side) if radius is None else radius * np.maximum(1, np.abs(center)))
        try:
            problem.smoothness.require(box)
            evaluate(problem.traced.fixed, [box, *problem.data], ball)  # the choices of the Hessian
            if problem.tangents is not None:
                problem.tangents.on(box)
        except Refusal:
            if radius is None:
                raise
        else:
            break
    if trusted:
        trust.require_consistent(problem.traced, box, problem.data)
        problem.traced.tested["rules", problem.digest] = True
    if problem.tangents is not None:
        symmetry.require_constant(problem.tangents, box, problem.traced.gradient, problem.data)


def _float_hessian(
    fun: Callable[..., Any], params: PyTree, args: tuple, hessian: Callable[..., jax.Array] | None
) -> np.ndarray:
    if hessian is None:
        matrix = np.asarray(curvature.dense_hessian(fun, params, args))
    else:
        matrix = curvature.matrices.as_hessian(hessian(params, *args), tree.size(params))
    if not np.all(np.isfinite(matrix)):
        raise Refusal("the floating-point Hessian is not finite")
    return matrix


def _polish(problem: Problem, start: np.ndarray, matrix: np.ndarray, reach: float) -> tuple[np.ndarray, float, Ball]:
    """Return the end of Newton's steps with one Hessian, the side of a box for the last step, and the gradient."""
    if problem.tangents is not None:
        matrix = symmetry.slice_at(problem.tangents, start, matrix).augment(ball.exact(matrix)).mid
    allowed = reach * max(1.0, float(np.max(np.abs(start))))
    factors, pivots, failed = lapack.dgetrf(matrix)
    if failed:
        raise Refusal("the Hessian is singular to rounding: a critical point here is degenerate")
    center, last, size = start, np.inf, np.inf
    for _ in range(_POLISHING_STEPS):
        gradient = problem.gradient(center)
        step = lapack.dgetrs(factors, pivots, gradient.mid)[0]
        size = float(np.max(np.abs(step)))
        moved = float(np.max(np.abs(center - step - start)))
        if not (size <= allowed and moved <= allowed):
            raise Refusal(f"Newton's step, {max(size, moved):.5g}, leaves the reach of {allowed:g}: params are not at a"
                          " critical point")  # fmt: skip
        # A step below the rounding of the centre is the last.
        if size >= last / 2 or size <= 4 * ball.UNIT * max(1.0, float(np.max(np.abs(center)))):
            return center, 4 * size, gradient
        center, last = center - step, size
    return center, 4 * size, problem.gradient(center)


def _prove(problem: Problem, center: Center, side: float, unique_radius: float | None) -> Certificate:
    """Return the certificate for a centre, or raise Refusal."""
    found = tiny_box(problem, center, side)
    _test_enclosure(problem, found)
    size, index = center.point.size, found.negative
    null = 0 if problem.tangents is None else len(problem.tangents.rows)
    # The zeros of the symmetries lie between the negative and the positive eigenvalues of fun's own Hessian.
    spectrum = found.spectrum if null == 0 else spectra.spectrum(found.plain)
    others = [k for k in range(size) if not index <= k < index + null]
    # The first of eigenvalues that are equally near, so that rounding does not choose.
    sizes = np.abs(spectrum.values)
    nearest = next(k for k in others if sizes[k] <= np.min(sizes[others]) + spectrum.error / 2)
    return Certificate(
        proved=True,
        reason=(
            f"Krawczyk's test on both boxes, the gradient at the centre enclosed with {problem.bits} bits; every"
            f" eigenvalue enclosed to within {spectrum.error:.2g}"
        ),
        size=size,
        location=center.point,
        displacement=0.0,
        index=index,
        null=null,
        radius=found.radius,
        unique_radius=wide_radius(problem, found, unique_radius),
        smallest=spectrum.enclosure(0),
        nearest=spectrum.enclosure(nearest),
        largest=spectrum.enclosure(size - 1),
        loss=_loss(problem, found),
        precision=problem.bits,
        assumptions=_assumptions(problem),
    )


def _test_enclosure(problem: Problem, found: Existence) -> None:
    """Test that the caller's enclosure of the Hessian is one of fun's own, along random directions."""
    key = "enclosure", problem.digest
    if problem.traced.whole is None or (problem.smoothness.everywhere and problem.traced.tested.get(key, False)):
        return
    trust.require_same_hessian(problem.traced, found.center.cube(found.radius), problem.data, found.plain)
    problem.traced.tested[key] = True


def _loss(problem: Problem, found: Existence) -> Interval:
    """Return an enclosure of fun there: |fun(θ) − fun(c)| ≤ Σ rᵢ max|∇ᵢfun|, with ∇fun in g(c) + H(B)(θ − c)."""
    at_center = enclosures.value(problem.traced, found.center.point, problem.data, problem.bits)
    size = found.step.size
    slope = spectra.upper(found.center.gradient) + spectra.upper(found.plain).sum(axis=1) * found.radius
    change = float(slope.sum() * found.radius) * (1 + 8 * size * ball.UNIT) + size * ball.TINY
    low, high = ball.bounds(Ball(at_center.mid, at_center.radius + change * (1 + 4 * ball.UNIT)))
    return float(low), float(high)


def _assumptions(problem: Problem) -> tuple[str, ...]:
    found = list(_ASSUMPTIONS)
    if problem.traced.trusted:
        rules = ", ".join(problem.traced.trusted)
        found.append(f"the rules of {rules} in it are right (they agree with differences at a random point)")
    if problem.traced.whole is not None:
        found.append("the given enclosure is of the Hessian of fun (they overlap along random directions)")
    if problem.smoothness.independent:
        found.append(INDEPENDENCE)
    if problem.tangents is not None:
        found.append(
            f"fun is constant along the {len(problem.tangents.rows)} given symmetry directions used (tested at random"
            f" points with {problem.bits} bits)"
        )
    return tuple(found)


def _digest(data: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in data:
        digest.update(f"{array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
