"""What a verdict rests on: gradient, Hessian and Newton step at a point, each with a bound on its error.

Rounding is measured: parameters and data are moved by one unit in the last place, and every operation is rounded
differently; the change of the gradient and the Hessian, times a safety factor, is their error. The Newton step
is checked at its end and on the way: the Hessian must keep its signs there, and the values and gradients must be those
that the Hessian predicts.
"""

import dataclasses

import numpy as np
import scipy.linalg

from mlp_jax.critical.evidence.agreement import disagreement
from mlp_jax.critical.evidence.hessian_rounding import measure_rounding, solve_rounding
from mlp_jax.critical.evidence.jumps import Jump
from mlp_jax.critical.evidence.newton_step import Newton, Way, strayed
from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.evidence.slopes import measure_slope, nudges
from mlp_jax.curvature import signs

# Above this many parameters the eigenvectors of the Hessian are not computed (9 P³ flops).
EIGENVECTOR_LIMIT = 3000


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Numbers at one point. Vectors and matrices are in the order of `tree.ravel`.

    gradient, gradient_error
        g and a bound on each component's error.
    matrix
        H as computed.
    rounding, change
        Diagonals b with −b ≤ E ≤ b for E the rounding of H, and for E its change over `distance`.
    counts
        The inertia, given all these errors.
    scale
        s with diag(s) H diag(s) well scaled.
    step
        The minimum-residual Newton step p over the `num_solved` modes that are resolved given rounding.
    reach
        The same step with the measured rounding of the gradient: how far the critical point may be.
    residual, residual_error
        H p + g, and a bound on its error.
    curvature_change
        Bound on (H(θ + p) − H(θ)) p, the gradient at θ + p due to the change of H on the way.
    ends
        Estimates of the extreme eigenvalues of the Hessian, from within its spectrum; None for small P.
    eigenvalues, eigenvectors
        Of the scaled Hessian, ascending, vectors in columns; None for large P.
    jump
        What jumps when params move by a rounding; None where nothing does.
    strayed
        Where values or gradients along the Newton step are not those that the Hessian predicts, in words; or None.
    disagreement
        Which derivatives are not those of the function, in words; None where all agree.
    """

    gradient: np.ndarray
    gradient_error: np.ndarray
    matrix: np.ndarray
    rounding: np.ndarray
    change: np.ndarray
    counts: signs.Inertia
    scale: np.ndarray
    step: np.ndarray
    reach: np.ndarray
    num_solved: int
    residual: np.ndarray
    residual_error: np.ndarray
    curvature_change: np.ndarray
    ends: tuple[float, float] | None
    eigenvalues: np.ndarray | None
    eigenvectors: np.ndarray | None
    jump: Jump | None
    strayed: str | None
    disagreement: str | None

    @property
    def error(self) -> np.ndarray:
        """Diagonal b with −b ≤ E ≤ b for E the error of the Hessian within `distance`."""
        return self.rounding + self.change


def measure(problem: Problem) -> Measurements:
    """Measure gradient, Hessian and Newton step with their errors: three to five Hessians, 140 gradients. Host-level.

    Errors of the Hessian are reduced to diagonals, so that at most two (P, P) matrices are held besides the memory of
    computing one. ValueError where the value, gradient or Hessian is not finite, or `hessian` is not that of `fun`.
    """
    moves = nudges(problem)
    slope = measure_slope(problem, moves)
    matrix = problem.matrix(problem.vector)
    scale, rounding, jump = measure_rounding(problem, matrix, moves, slope)
    values, vectors = _modes(matrix, scale)
    newton = Newton(problem, matrix, scale, rounding, slope, moves)
    taken = newton.by_factors() if values is None or vectors is None else newton.by_modes(values, vectors)
    residual = matrix @ taken.step + slope.gradient
    residual_error = slope.gradient_error + solve_rounding(problem.unit, matrix, scale, taken.step, slope.gradient)
    return Measurements(
        **taken._asdict(),
        gradient=slope.gradient,
        gradient_error=slope.gradient_error,
        matrix=matrix,
        rounding=rounding,
        scale=scale,
        residual=residual,
        residual_error=residual_error,
        eigenvalues=values,
        eigenvectors=vectors,
        jump=jump,
        strayed=strayed(problem, slope, Way(scale, taken.step, residual, residual_error, taken.curvature_change)),
        disagreement=disagreement(problem, slope),
    )


def _modes(matrix: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return eigenvalues and eigenvectors of the scaled Hessian, unless P is too large."""
    if len(matrix) > EIGENVECTOR_LIMIT:
        return None, None
    return scipy.linalg.eigh(signs.scaled(matrix, scale, scale).T, driver="evd", overwrite_a=True, check_finite=False)
