"""Whether the null modes of a Hessian are null at higher precision too: the same program, in 256-bit arithmetic."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from mlp_jax.critical.higher_order import spaces
from mlp_jax.critical.measurements import Measurements
from mlp_jax.critical.problem import Problem
from mlp_jax.critical.slopes import typical_size
from mlp_jax.tree import PyTree

Tangents = Callable[[PyTree], PyTree]

BITS = 256
# What null means at that precision, relative to the largest mode: half of the digits.
_NULL = 2.0 ** (-BITS / 2)
_STEPS = 8
# Sizes up to which a second look takes seconds at most.
_MOST_PARAMETERS = 64
_MOST_DATA = 20_000
# The same for one gradient: parameters times numbers of data.
_MOST_WORK = 2 * 10**9
# Bits in which tangents are tested, and how far from params.
_TANGENT_BITS = 128
_NEARBY = 1e-3


class SecondLook(NamedTuple):
    """What 256-bit arithmetic says of the modes that float64 could not tell from zero.

    confirmed
        True: null to half of the digits; False: not null; None: not looked at.
    curvature
        Largest curvature of these modes, the others minimised out, relative to the largest mode; None: not looked at.
    words
        The same as part of a sentence.
    """

    confirmed: bool | None
    curvature: float | None
    words: str


def second_look(problem: Problem, measured: Measurements, null: np.ndarray) -> SecondLook:
    """Evaluate the Hessian at the critical point nearby with 256 bits, and its Schur complement on the null modes.

    The point is first moved by Newton's steps over the other modes until the gradient along these vanishes to the
    precision; then S = H₀₀ − H₀₁ H₁₁⁻¹ H₁₀, whose inertia added to that of H₁₁ is the inertia of H (Haynsworth 1968).

    Examples
    --------
    >>> from mlp_jax.critical.measurements import measure
    >>> with jax.enable_x64(True):
    ...     valley = lambda x: (x[0] + x[1]) ** 2 + 1e-25 * (x[0] - x[1]) ** 2
    ...     problem = Problem(valley, jnp.zeros(2), (), None, 2.0**-53)
    ...     look = second_look(problem, measure(problem), np.array([True, False]))
    >>> look.confirmed, f"{look.curvature:.0e}"
    (False, '1e-25')
    """
    size, data = len(problem.vector), sum(np.size(leaf) for leaf in problem.args)
    if size > _MOST_PARAMETERS or data > _MOST_DATA:
        return SecondLook(None, None, "not looked at with more digits, for its size")
    if importlib.util.find_spec("flint") is None:
        return SecondLook(None, None, "not looked at with more digits, for want of python-flint (mlp_jax[proofs])")
    from mlp_jax.interval import Refusal

    try:
        curvature = _curvature(problem, measured, null)
    except Refusal as refusal:
        return SecondLook(None, None, f"not looked at with more digits ({refusal})")
    if curvature <= _NULL:
        return SecondLook(True, curvature, f"null to {max(curvature, _NULL):.0e} with {BITS} bits as well")
    return SecondLook(False, curvature, f"not null but of relative curvature {curvature:.2g} with {BITS} bits")


def constant_along(problem: Problem, symmetries: Tangents, kept: np.ndarray) -> bool | None:
    """Return whether the function is constant along the marked tangents with many bits; None: not looked at.

    ∇f · t at a point near params, relative to ‖∇f‖ ‖t‖: a tilt that float64 cannot tell from a rounding shows.

    Examples
    --------
    >>> turn = lambda x: jnp.stack([-x[1], x[0]])[None]
    >>> with jax.enable_x64(True):
    ...     tilted = lambda x: (x @ x - 1) ** 2 + 1e-17 * x[0]
    ...     problem = Problem(tilted, jnp.array([1.0, 0.0]), (), None, 2.0**-53)
    ...     constant_along(problem, turn, np.array([True]))
    False
    """
    data = sum(np.size(leaf) for leaf in jax.tree.leaves(problem.args))
    if len(problem.vector) * max(data, 1) > _MOST_WORK or importlib.util.find_spec("flint") is None:
        return None
    import flint

    from mlp_jax.interval import Refusal, enclosures, multiprecision, symmetry
    from mlp_jax.interval.interpreter import evaluate

    draw = np.random.default_rng(4).standard_normal(len(problem.vector))
    there = problem.vector + _NEARBY * (np.abs(problem.vector) + typical_size(problem)) * draw
    try:
        traced, given = enclosures.trace(problem.traced, problem.params, problem.args)
        tangents = symmetry.trace(symmetries, problem.params)
        with flint.ctx.workprec(_TANGENT_BITS):
            point = multiprecision.exact(there)
            slope = evaluate(traced.gradient, [point, *given], multiprecision)[0]
            rows = evaluate(tangents.program, [point], multiprecision)[0][kept]
            return all(symmetry.orthogonal(row, slope, 2.0 ** (-_TANGENT_BITS / 2)) for row in rows)
    except Refusal:
        return None


def _curvature(problem: Problem, m: Measurements, null: np.ndarray) -> float:
    """Return the largest entry, in size, of the Schur complement on the null modes, relative to the largest mode."""
    import flint

    from mlp_jax.interval import enclosures

    if m.eigenvalues is None or m.eigenvectors is None:
        raise ValueError(f"measured: got no eigenvectors for {len(m.matrix)} parameters, expected them.")
    traced, data = enclosures.trace(problem.traced, problem.params, problem.args)
    with flint.ctx.workprec(BITS):
        point = _refined(problem, m, null, traced, data)
        vectors = flint.arb_mat((m.scale[:, None] * m.eigenvectors).tolist())
        matrix = flint.arb_mat(enclosures.precise_hessian(traced, point, data).tolist())
        matrix = vectors.transpose() * matrix * vectors
        first, rest = np.flatnonzero(null), np.flatnonzero(~null)
        schur = _part(matrix, first, first)
        if len(rest):
            inner = _part(matrix, rest, rest).solve(_part(matrix, rest, first))
            schur = schur - _part(matrix, first, rest) * inner
        # Of the exact matrix, which has numbers where float64 has zeros.
        largest = max(entry.abs_upper() for entry in matrix.entries())
        return float(max(entry.abs_upper() for entry in schur.entries()) / largest) if largest > 0 else 0.0


def _part(matrix: Any, rows: np.ndarray, columns: np.ndarray) -> Any:
    import flint

    return flint.arb_mat([[matrix[int(i), int(j)] for j in columns] for i in rows])


def _refined(problem: Problem, m: Measurements, null: np.ndarray, traced: Any, data: list[np.ndarray]) -> np.ndarray:
    """Return the point, exact arbs, where the gradient along the modes that are not null vanishes."""
    from mlp_jax.interval import multiprecision
    from mlp_jax.interval.interpreter import evaluate

    _, inverse = spaces(m, null)
    point = multiprecision.exact(problem.vector)
    for _ in range(_STEPS):
        gradient = evaluate(traced.gradient, [point, *data], multiprecision)[0]
        step = inverse @ np.array([float(entry) for entry in gradient])
        point = np.array([entry.mid() for entry in point - multiprecision.exact(step)], dtype=object)
    return point
