"""Whether the null modes of a Hessian are null at higher precision too: the same program, in 256-bit arithmetic."""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

import numpy as np

from mlp_jax.critical.higher_order import spaces
from mlp_jax.critical.measurements import Measurements, Problem

BITS = 256
# What null means at that precision, relative to the largest mode: half of the digits.
_NULL = 2.0 ** (-BITS / 2)
_STEPS = 8
# Sizes up to which a second look takes seconds at most.
_MOST_PARAMETERS = 64
_MOST_DATA = 20_000


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


def _curvature(problem: Problem, m: Measurements, null: np.ndarray) -> float:
    """Return the largest entry, in size, of the Schur complement on the null modes, relative to the largest mode."""
    import flint

    from mlp_jax.interval import enclosures

    if m.eigenvalues is None or m.eigenvectors is None:
        raise ValueError(f"measured: got no eigenvectors for {len(m.matrix)} parameters, expected them.")
    traced, data = enclosures.trace(problem.fun, problem.params, problem.args)
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
        largest = float(np.max(np.abs(m.eigenvalues))) or 1.0
        return max(float(entry.abs_upper()) for entry in schur.entries()) / largest


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
