"""Verified linear algebra: eigenvalues of a symmetric matrix of balls, and how far A·H is from the identity."""

from typing import NamedTuple

import numpy as np

from mlp_jax.interval import ball
from mlp_jax.interval.ball import UNIT, Ball, Refusal, quiet

# Scalars are computed in a few operations, each rounded to nearest: growing them by this factor bounds them.
_UP = 1 + 2.0**-40


class Spectrum(NamedTuple):
    """Approximate eigenvalues in ascending order, a bound on their errors, and approximate eigenvectors (columns).

    For every symmetric matrix in the matrix of balls, the k-th eigenvalue is within `error` of `values[k]`.
    """

    values: np.ndarray
    error: float
    vectors: np.ndarray

    @property
    def negative(self) -> int:
        """Number of eigenvalues proved negative."""
        return int(np.sum(self.values < -self.error))

    @property
    def positive(self) -> int:
        """Number of eigenvalues proved positive."""
        return int(np.sum(self.values > self.error))

    def enclosure(self, number: int) -> tuple[float, float]:
        """Return an interval that contains the eigenvalue of this number."""
        value = float(self.values[number])
        error = self.error * _UP + abs(value) * 4 * UNIT
        return value - error, value + error


def spectrum(matrix: Ball) -> Spectrum:
    """Enclose all eigenvalues of the symmetric matrices in a matrix of balls.

    With Q and Λ from a floating-point eigendecomposition of the midpoint M, QᵀQ = I + F and MQ − QΛ = R,
    QᵀMQ − Λ = FΛ + QᵀR is symmetric, so that Weyl's inequality bounds the difference of the eigenvalues of QᵀMQ and
    Λ by ‖F‖ max|Λ| + (1 + ‖F‖)^½ ‖R‖; those of M are the ones of QᵀMQ within factors 1 ± ‖F‖ (Ostrowski 1959). The
    radii add their norm. Q and Λ need only satisfy ‖F‖ < 1. Refusal if the eigendecomposition fails, or its vectors
    are far from orthogonal.
    """
    try:
        values, vectors = np.linalg.eigh(matrix.mid)
    except np.linalg.LinAlgError as error:
        raise Refusal("the eigenvalue iteration does not converge") from error
    if not np.all(np.isfinite(vectors)):
        raise Refusal("the eigenvectors are not finite")
    basis = ball.exact(vectors)
    overlap = ball.sub(ball.matmul(ball.exact(vectors.T), basis), ball.exact(np.eye(len(values))))
    defect = norm(overlap)
    if not defect < 0.5:
        raise Refusal("the computed eigenvectors are far from orthogonal")
    product = ball.matmul(ball.exact(matrix.mid), basis)
    residual = norm(ball.sub(product, ball.mul(basis, ball.exact(values))))
    size = float(np.max(np.abs(values)))
    middle = (2 * defect * size + (1 + defect) * residual) / (1 - defect)
    spread = norm(Ball(np.zeros_like(matrix.mid), matrix.radius))
    return Spectrum(values, (middle + spread) * _UP + ball.TINY, vectors)


@quiet
def norm(matrix: Ball) -> float:
    """Return an upper bound on the 2-norm of all matrices in a matrix of balls: (‖·‖₁ ‖·‖∞)^½, or Frobenius."""
    size = np.abs(matrix.mid) + matrix.radius
    grow = _UP + 4 * size.shape[0] * UNIT
    sums = float(np.max(size.sum(axis=0))) * float(np.max(size.sum(axis=1)))
    # The second term covers squares of tiny numbers, which underflow.
    squares = float(np.sum(size * size)) * (grow + 4 * size.size * UNIT) + size.size * ball.TINY
    least = min(np.sqrt(sums) * grow, np.sqrt(squares)) * grow + size.shape[0] * ball.TINY
    if not np.isfinite(least):
        raise Refusal("a norm overflows")
    return float(least)


def mirrored(matrix: Ball) -> Ball:
    """Return the lower triangle in both triangles: enclosures of a matrix known to be symmetric."""
    lower = np.tri(len(matrix.mid), dtype=bool)
    mid, rad = matrix.mid, matrix.radius
    return Ball(np.where(lower, mid, mid.T), np.where(lower, rad, rad.T))


class Contraction:
    """A bound on |I − A·H| r for an approximate inverse A and all matrices in a matrix of balls H."""

    def __init__(self, inverse: np.ndarray, matrix: Ball) -> None:
        self._inverse = np.abs(inverse)
        self._defect = np.abs(inverse @ matrix.mid - np.eye(len(inverse)))
        self._matrix = matrix

    @quiet
    def __call__(self, radii: np.ndarray) -> np.ndarray:
        """Return an upper bound on |I − A·H| radii."""
        terms = len(radii)
        gamma = ball.gamma(terms)
        # The error of the computed product A·M is γ |A||M| + n τ, that of subtracting I is u |·|.
        spread = (self._matrix.radius @ radii) + gamma * (np.abs(self._matrix.mid) @ radii)
        result = (self._defect @ radii) * (1 + 2 * UNIT) + self._inverse @ spread
        result += terms * ball.TINY * float(np.sum(radii))
        return ball.outward(result, result.copy(), 2 * terms + 2, "contraction").radius


def product(matrix: Ball, vector: Ball) -> Ball:
    """Return A·g for all A and g in the balls."""
    column = Ball(vector.mid[:, None], vector.radius[:, None])
    result = ball.matmul(matrix, column)
    return Ball(result.mid[:, 0], result.radius[:, 0])


def upper(values: Ball) -> np.ndarray:
    """Return an upper bound on |x| for all x in the balls."""
    return (np.abs(values.mid) + values.radius) * (1 + 4 * UNIT)
