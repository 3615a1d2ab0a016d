"""Whether the null modes of a Hessian are null at higher precision too: the same program, in 256-bit arithmetic."""

import importlib.util
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg

from mlp_jax.critical.evidence.higher_order import smallest, spaces
from mlp_jax.critical.evidence.measurements import Measurements
from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.evidence.slopes import typical_size
from mlp_jax.curvature.types import Tangents

BITS = 256
# Curvature that counts as null at that precision, relative to H: some parts are computed in float64.
_NULL = 2.0**-100
_STEPS = 8
# Most numbers that evaluations with many bits may read, at about a microsecond each: so that they take seconds.
_MOST_WORK = 5 * 10**6
# Bits of the test of tangents, and its distance from params.
_TANGENT_BITS = 128
_NEARBY = 1e-3


class SecondLook(NamedTuple):
    """Whether 256-bit arithmetic confirms modes that are null in float64, also in words; None: not examined."""

    confirmed: bool | None
    words: str


def second_look(problem: Problem, measured: Measurements, count: int) -> SecondLook:
    """Examine with 256 bits the `count` modes of smallest size, at the critical point nearby.

    Newton's steps over the other modes first move the point until the gradient along these vanishes to that precision.
    Then S = Nᵀ H N − (H N)ᵀ H₁⁺ (H N), with N a basis of the modes and H₁⁺ the inverse on all others: its
    inertia plus that of the others is the inertia of H (Haynsworth 1968). The second part is as small as the error of
    N, so that float64 is enough for it.
    """
    if (_STEPS + 3 * count) * _numbers(problem) > _MOST_WORK:
        return SecondLook(None, "not looked at with more digits, for its size")
    if importlib.util.find_spec("flint") is None:
        return SecondLook(None, "not looked at with more digits, for want of python-flint (mlp_jax[proofs])")
    from mlp_jax.interval import Refusal

    try:
        curvature = _curvature(problem, measured, count)
    except Refusal as refusal:
        return SecondLook(None, f"not looked at with more digits ({refusal})")
    if curvature <= _NULL:
        return SecondLook(True, f"null to {max(curvature, _NULL):.0e} with {BITS} bits as well")
    return SecondLook(False, f"not null but of relative curvature {curvature:.2g} with {BITS} bits")


def constant_along(problem: Problem, symmetries: Tangents, kept: np.ndarray) -> bool | None:
    """Return whether the function is constant along the marked tangents with many bits; None: not examined.

    ∇f · t at a point near params, relative to ‖∇f‖ ‖t‖, shows a tilt that float64 cannot tell from rounding.
    """
    if _numbers(problem) > _MOST_WORK or importlib.util.find_spec("flint") is None:
        return None
    from mlp_jax.interval import Refusal, enclosures, multiprecision, symmetry
    from mlp_jax.interval.interpreter import evaluate

    draw = np.random.default_rng(4).standard_normal(len(problem.vector))
    there = problem.vector + _NEARBY * (np.abs(problem.vector) + typical_size(problem)) * draw
    try:
        traced, given = enclosures.trace(problem.traced, problem.params, problem.args)
        tangents = symmetry.trace(symmetries, problem.params)
        with multiprecision.bits(_TANGENT_BITS):
            point = multiprecision.exact(there)
            slope = evaluate(traced.gradient, [point, *given], multiprecision)[0]
            rows = evaluate(tangents.program, [point], multiprecision)[0][kept]
            return all(symmetry.orthogonal(row, slope, 2.0 ** (-_TANGENT_BITS / 2)) for row in rows)
    except (Refusal, jax.errors.JAXTypeError):  # tangents computed by numpy cannot be traced
        return None


def _numbers(problem: Problem) -> int:
    """Return about how many numbers an evaluation of the gradient reads; its cost is proportional to that."""
    avals: list[Any] = [v.aval for eqn in problem.traced.jaxpr.eqns for v in eqn.outvars]
    largest = max((math.prod(aval.shape) for aval in avals), default=1)
    return len(problem.vector) + sum(np.size(leaf) for leaf in jax.tree.leaves(problem.args)) + largest


def _curvature(problem: Problem, m: Measurements, count: int) -> float:
    """Return the largest entry of S, in size, relative to the largest of the Hessian seen."""
    from mlp_jax.interval import enclosures, multiprecision
    from mlp_jax.interval.interpreter import evaluate

    basis, solve = _null_space(m, count)
    traced, data = enclosures.trace(problem.traced, problem.params, problem.args)
    with multiprecision.bits(BITS):
        point = multiprecision.exact(problem.vector)
        for _ in range(_STEPS):
            gradient = evaluate(traced.gradient, [point, *data], multiprecision)[0].astype(float)
            if not np.any(gradient):
                break
            point = np.array([x.mid() for x in point - multiprecision.exact(solve(gradient))], dtype=object)
        links = evaluate(traced.fixed, [point, *data], multiprecision)
        # One direction in which H is not null shows its size.
        directions = np.vstack([basis.T, np.random.default_rng(9).standard_normal(len(basis))])
        images = []
        for first in range(0, count + 1, traced.block):
            tangents = np.zeros((traced.block, len(basis)))
            part = directions[first : first + traced.block]
            tangents[: len(part)] = part
            images.append(evaluate(traced.rows, [*links, tangents], multiprecision)[0][: len(part)])
        exact = np.concatenate(images)
        # In units of H, which float64 can represent.
        unit = max(abs(x).mid() for x in exact.ravel())
        if not unit > 0:
            return 0.0
        exact = exact / unit
        rows = exact[:count].astype(float)
        above = np.array([[sum(multiprecision.exact(n) * w) for w in exact[:count]] for n in basis.T], dtype=object)
        corrected = above - multiprecision.exact(rows @ solve(float(unit) * rows.T))
        return float(max(abs(x).upper() for x in corrected.ravel()))


def _null_space(m: Measurements, count: int) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return an orthonormal basis of the modes of smallest size, (P, count), and b ↦ H⁺ b over all others."""
    if m.eigenvalues is not None:
        basis, inverse = spaces(m, smallest(m.eigenvalues, count))
        return basis, lambda b: inverse @ b
    # By inverse iteration, in scaled coordinates.
    scaled = m.scale[:, None] * m.matrix * m.scale
    shifted = scipy.linalg.lu_factor(scaled + np.finfo(float).eps * len(scaled) * np.eye(len(scaled)))
    block = np.random.default_rng(9).standard_normal((len(scaled), count))
    for _ in range(3):
        block = np.linalg.qr(scipy.linalg.lu_solve(shifted, np.linalg.qr(block)[0]))[0]
    bordered = scipy.linalg.lu_factor(scaled + block @ block.T)

    def solve(b: np.ndarray) -> np.ndarray:
        right = (m.scale * b.T).T
        right = right - block @ (block.T @ right)
        solved = scipy.linalg.lu_solve(bordered, right)
        return (m.scale * (solved - block @ (block.T @ solved)).T).T

    return np.linalg.qr(m.scale[:, None] * block)[0], solve
