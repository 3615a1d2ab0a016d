"""The proof that a box about a point holds exactly one critical point, and its index; or a refusal that says why.

Theorem. Let H(B) enclose the Hessian on a box B about c, and let no symmetric matrix in it have an eigenvalue in
[−m, m], m > 0. Then all have the same inertia, and B holds at most one critical point. Let p be a vector, and let
‖g(c) − H p‖ ≤ ρ for all H in H(B). If the ball of a radius larger than ρ/m about c − p is in B, it holds one.

Proof. The matrices are a convex set, so it contains the mean H of the Hessians on a segment in B. For critical points
θ and θ + d in B, H d = 0, so d = 0. At c' = c − p, ‖g(c')‖ = ‖g(c) − H p‖ ≤ ρ. The solution of θ' = −∇²fun(θ)⁻¹ g(c')
from c' has g(θ(τ)) = (1 − τ) g(c') and moves no faster than ρ/m, so it stays in the ball, and g(θ(1)) = 0.
(The theorem of Newton and Kantorovich; at a minimum, that of strong convexity.)

No inverse and no eigenvectors are needed: that no eigenvalue is in [−m, m], and the inertia, follow from LDLᵀ of two
shifted matrices, or of one if that is definite (see `factorisation`). p is Newton's step in floating point.

The gradient at c is enclosed with many bits, because it nearly cancels there; the Hessian in float64. The first box is
tiny, and gives existence, index and eigenvalues. A second, wide one enlarges the neighbourhood of uniqueness. On both
fun must be smooth (see `smoothness`), because the Hessian without its dead code does not show every corner of fun.

Modulo a continuous symmetry with tangents Ξ(θ), ∇funᵀΞ = 0, fun is replaced by F(θ) = fun(θ) + σ/2 ‖Vᵀ(θ −
c)‖². Where ΞᵀV is nonsingular, the critical points of F in B are those of fun on the slice Vᵀ(θ − c) = 0; the inertia
of F is that of fun with the zeros, one for each tangent, made positive (see `symmetry`).
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from mlp_jax import curvature, tree
from mlp_jax.curvature.types import PyTree, Tangents
from mlp_jax.interval import ball, enclosures, factorisation, multiprecision, symmetry, trust
from mlp_jax.interval.ball import Ball, Refusal
from mlp_jax.interval.boxes import Center, Existence, Problem, tiny_box, wide_radius
from mlp_jax.interval.certificate import Certificate, Interval
from mlp_jax.interval.interpreter import evaluate
from mlp_jax.interval.smoothness import Smoothness, TieInGradient, is_smooth_everywhere

_POLISHING_STEPS = 8
# The tiny box, in units of max(1, largest |c|): on a wider one, the bounds on the Hessian show how fast they grow.
_LEAST_SIDE = 2.0**-48
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
    curvature.matrices.require_memory(start.size, matrices=12)
    try:
        trust.require_ieee()
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
    problem = begin(traced, data, params, start, settings)
    if side is None:
        matrix = _float_hessian(fun, params, args, settings.hessian or settings.enclosure)
        center, step = _polish(problem, start, matrix, settings.reach)
        side = max(4 * step, _LEAST_SIDE * max(1.0, float(np.max(np.abs(center.point)))))
    else:
        center = Center(start, problem.gradient(start))
    test_assumptions(problem, center.point, side)
    certificate = _prove(problem, center, side, settings.unique_radius)
    moved = float(np.max(np.abs(center.point - start)))
    return dataclasses.replace(certificate, displacement=moved, data=problem.digest)


def begin(
    traced: enclosures.Traced, data: list[np.ndarray], params: PyTree, start: np.ndarray, settings: Settings
) -> Problem:
    """Return the problem of which `start` is a point; Refusal where fun has no value there."""
    known = digest(data)
    everywhere = settings.global_tests and _is_smooth_everywhere(traced, start.size, data, known)
    problem = Problem(traced, data, known, Smoothness(traced, data, everywhere), None, settings.bits, settings.spend)
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


def test_assumptions(problem: Problem, center: np.ndarray, side: float) -> None:
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


def _polish(problem: Problem, start: np.ndarray, matrix: np.ndarray, reach: float) -> tuple[Center, float]:
    """Return the end of Newton's steps with one Hessian, and the size of the next step."""
    if problem.tangents is not None:
        matrix = symmetry.slice_at(problem.tangents, start, matrix).augment(ball.exact(matrix)).mid
    allowed = reach * max(1.0, float(np.max(np.abs(start))))
    solve = factorisation.solver(factorisation.bounded(ball.exact(matrix)))
    if solve is None:
        raise Refusal("the Hessian is singular to rounding: a critical point here is degenerate")
    center, last, size = start, np.inf, np.inf
    for _ in range(_POLISHING_STEPS):
        gradient = problem.gradient(center)
        step = solve(gradient.mid)
        size = float(np.max(np.abs(step)))
        moved = float(np.max(np.abs(center - step - start)))
        if not (size <= allowed and moved <= allowed):
            raise Refusal(f"Newton's step, {max(size, moved):.5g}, leaves the reach of {allowed:g}: params are not at a"
                          " critical point")  # fmt: skip
        # A step below the rounding of the centre is the last.
        if size >= last / 2 or size <= 4 * ball.UNIT * max(1.0, float(np.max(np.abs(center)))):
            return Center(center, gradient), size
        center, last = center - step, size
    return Center(center, problem.gradient(center)), size


def _prove(problem: Problem, center: Center, side: float, unique_radius: float | None) -> Certificate:
    """Return the certificate for a centre, or raise Refusal."""
    found = tiny_box(problem, center, side, functools.partial(_test_enclosure, problem))
    size = center.point.size
    null = 0 if problem.tangents is None else len(problem.tangents.rows)
    return Certificate(
        proved=True,
        reason=(
            "no matrix in the enclosures of the Hessian on both boxes is singular, by LDLᵀ with verified error of"
            f" {'a shifted matrix' if found.negative == 0 else 'two shifted matrices'}; a critical point lies in the"
            f" smaller box by the Newton–Kantorovich theorem, the gradient enclosed with {problem.bits} bits"
        ),
        size=size,
        location=center.point,
        displacement=0.0,
        index=found.negative,
        null=null,
        radius=found.radius,
        unique_radius=wide_radius(problem, found, unique_radius),
        **found.spectrum._asdict(),
        loss=_loss(problem, found),
        precision=problem.bits,
        assumptions=assumptions(problem),
    )


def _test_enclosure(problem: Problem, cube: Ball, plain: Ball) -> None:
    """Test that the caller's enclosure of the Hessian is one of fun's own, along random directions."""
    key = "enclosure", problem.digest
    if problem.traced.whole is None or (problem.smoothness.everywhere and problem.traced.tested.get(key, False)):
        return
    trust.require_same_hessian(problem.traced, cube, problem.data, plain)
    problem.traced.tested[key] = True


def _loss(problem: Problem, found: Existence) -> Interval:
    """Return an enclosure of fun at the critical point."""
    at_center = enclosures.value(problem.traced, found.center.point, problem.data, problem.bits)
    low, high = ball.bounds(Ball(at_center.mid, at_center.radius + found.change * (1 + 4 * ball.UNIT)))
    return float(low), float(high)


def assumptions(problem: Problem) -> tuple[str, ...]:
    """Return what a theorem about fun rests on besides the computation."""
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


def digest(data: list[np.ndarray]) -> str:
    """Return the SHA-256 of arrays, their shapes and dtypes."""
    found = hashlib.sha256()
    for array in data:
        found.update(f"{array.dtype} {array.shape};".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
