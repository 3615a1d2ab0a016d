"""Inertia: how many eigenvalues of a symmetric matrix are surely negative, surely positive, or neither."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mlp_jax import _checks
from mlp_jax.curvature import cholesky, halves, ldl

_UNIT = 2.0**-53
# Rows per block, and rows of a square block: intermediate results stay in the cache.
_ROWS, _TILE = 32, 512
# Above this size factors are by halves, and a wide bound is tried first: an extra factorisation is expensive.
_LARGE = 2000
# Share of negative eigenvalues up to which directions show them sooner than a second factorisation does.
FEW = 1 / 8


class Inertia(NamedTuple):
    """Counts of eigenvalues by sign, and the bound that decided.

    negative, unresolved, positive
        Eigenvalues below zero, of unknown sign, and above zero; their sum is the dimension.
    bound
        Largest absolute value of an eigenvalue that could be left unresolved, of the scaled matrix (see `inertia`).
    """

    negative: int
    unresolved: int
    positive: int
    bound: float


def inertia(matrix: np.ndarray, error: float | np.ndarray | None = None, *, scale: np.ndarray | None = None) -> Inertia:
    """Return how many eigenvalues of a symmetric matrix are surely negative or positive, given its error. Host-level.

    Signs are invariant under congruence (Sylvester), eigenvalue thresholds are not, so the matrix is first
    scaled, A = S H S with S = diag(s). The error |E| becomes a diagonal bound b, bᵢ = Σⱼ sᵢ|E|ᵢⱼsⱼ, for which
    −b ≤ S E S ≤ b in the order of symmetric matrices; τ bounds the backward error of the factorisation,
    n u ‖|L||D||L|ᵀ‖ (Higham 2002, Accuracy and Stability of Numerical Algorithms, chapters 10 and 11).
    Then A − b − τ has no more positive eigenvalues than the true matrix, and A + b + τ no more negative ones; both
    are counted by Cholesky where it succeeds, else by LDLᵀ. Where few eigenvalues of the first are not positive, a
    space on which A + b + τ is negative definite takes the place of the second. Memory: up to 12 P² bytes beside the
    arguments. Work: P³/3 flops if Cholesky succeeds, two to four times as much if not, and twice that if signs stay
    unresolved.

    Parameters
    ----------
    matrix
        (P, P) real symmetric, finite.
    error
        A bound on the error E of the matrix: a number, a bound on its 2-norm; or (P,), a diagonal b with −b ≤ E ≤ b in
        the order of symmetric matrices; or (P, P), a bound on each entry; or None, four rounding errors of each entry.
    scale
        (P,) the factors s, powers of two; None scales the largest entry of each row to about 1.

    Raises
    ------
    TypeError, ValueError
        The matrix is not square, symmetric, real and finite; the error is negative or of another shape; the scale is
        not positive.

    Examples
    --------
    >>> inertia(np.diag([-1.0, 0.0, 2.0, 3.0]))[:3]
    (1, 1, 2)
    >>> inertia(np.diag([-1e-12, 1.0]), error=1e-9)[:3]
    (0, 1, 1)
    """
    matrix = require_symmetric(matrix)
    shape = matrix.shape
    if error is not None:
        error = np.asarray(error, np.float64)
        if error.shape not in ((), shape[:1], shape) or not (error.min() >= 0 and error.max() < np.inf):
            expected = f"a bound of 0 or more, or {shape[:1]} or {shape} of them"
            raise ValueError(f"error: got {_checks.describe(error)}, expected {expected}.")
    if scale is not None:
        scale = np.asarray(scale, np.float64)
        if scale.shape != shape[:1] or not (scale.min() > 0 and scale.max() < np.inf):
            raise ValueError(f"scale: got {_checks.describe(scale)}, expected {shape[:1]} positive finite numbers.")
    return count(matrix, error, scale)


Factors = cholesky.Factors | halves.Factors | ldl.Factors


class Above(NamedTuple):
    """The eigenvalues of A above a diagonal t ≥ 0 and, if they are few, those below −t; by factors of A − t.

    `tau` bounds the backward error of the factors. The counts hold for every A + E with −b ≤ E ≤ b, b = t − tau. Where
    `negative` is 0, those below are unknown.
    """

    shift: np.ndarray
    tau: float
    positive: int
    negative: int
    factors: Factors | None

    @property
    def resolves(self) -> bool:
        """Whether every sign is known."""
        return self.positive + self.negative == len(self.shift)


def above(
    matrix: np.ndarray, scale: np.ndarray, shift: np.ndarray, factor: float, sign: int = 1, least: float = 0.0
) -> Above:
    """Return the signs of A = S H S, or of −A, beyond `shift` and τ: by LDLᵀ at first `factor` · P u, or `least`.

    Large matrices are factored by halves if that decides every sign. Memory: 8 P² bytes, which the factors hold.
    """
    size, diagonal = len(matrix), sign * scale**2 * np.diag(matrix) - shift
    # Floating-point Cholesky that succeeds proves A + Δ > 0 with ‖Δ‖ ≤ (n + 2) u trace(A) (Rump 2006).
    definite = (size + 2) * _UNIT * float(np.sum(np.abs(diagonal))) * (1 + size * _UNIT)
    tau = max(least, factor * size * _UNIT)
    if size > _LARGE:
        found = _by_halves(matrix, sign * scale, scale, shift, definite, tau)
        if found is not None:
            return found
    elif np.all(diagonal > definite):
        lower = _shifted(matrix, sign * scale, scale, shift + definite)
        if cholesky.factor(lower):
            return Above(shift + definite, definite, size, 0, cholesky.Factors(lower))
        del lower  # its memory
    # The growth of the factors is known only afterwards; a larger shift covers it.
    while True:
        factors = ldl.factor(_shifted(matrix, sign * scale, scale, shift + tau))
        backward = factors.backward()
        if backward <= tau:
            few = _few_negative(matrix, scale, shift + tau, factors) if sign > 0 else 0
            return Above(shift + tau, tau, factors.positive, few, factors)
        del factors  # its memory
        if not np.isfinite(backward):  # an entry times its scale is outside float64: no sign is sure
            return Above(np.full(size, np.inf), np.inf, 0, 0, None)
        tau = 2 * backward


def _by_halves(
    matrix: np.ndarray, left: np.ndarray, scale: np.ndarray, shift: np.ndarray, definite: float, tau: float
) -> Above | None:
    """Return the signs by one factorisation by halves; None where it does not decide all of them."""
    half, tau = len(matrix) // 2, max(definite, tau)
    total = shift + tau
    if not np.all((left * scale * np.diag(matrix) - total)[:half] > 0):
        return None
    factors = halves.factor(
        _shifted(matrix[:half, :half], left[:half], scale[:half], total[:half]),
        scaled(matrix[:half, half:], left[:half], scale[half:]),
        _shifted(matrix[half:, half:], left[half:], scale[half:], total[half:]),
    )
    if factors is None or not (factors.definite or factors.backward() <= tau):
        return None
    found = Above(total, tau, factors.positive, _few_negative(matrix, scale, total, factors), factors)
    return found if found.resolves else None


def scaled(matrix: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the transpose of diag(left) H diag(right), in Fortran order."""
    work = np.empty(matrix.shape)
    for i in row_blocks(len(matrix)):
        np.multiply(matrix[i], left[i, None], out=work[i])
        work[i] *= right
    return work.T


def _shifted(matrix: np.ndarray, left: np.ndarray, right: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return diag(left) H diag(right) − diag(by) for a symmetric H, in Fortran order."""
    work = scaled(matrix, left, right)
    np.einsum("ii->i", work)[:] -= by
    return work


def _few_negative(matrix: np.ndarray, scale: np.ndarray, shift: np.ndarray, factors: Factors) -> int:
    """Return the number of eigenvalues that the factors of A − t leave, if A + t is seen to be negative on a space of
    as many dimensions: then A + E has as many below 0 for every −t ≤ E ≤ t (Courant and Fischer). Otherwise 0.

    The space is that of the negative pivots. A product of n terms has an error of at most n u |a|ᵀ|b|, and |A| a norm
    of at most its row sums.
    """
    size, number = len(matrix), len(matrix) - factors.positive
    if not 0 < number <= FEW * size or (along := factors.negative_directions()).shape[1] != number:
        return 0
    images = scale[:, None] * (matrix @ (scale[:, None] * along)) + shift[:, None] * along
    form = along.T @ images
    sums = max(float(np.max(scale[i] * (np.abs(matrix[i]) @ scale))) for i in row_blocks(size))
    error = 8 * size * _UNIT * (sums + float(np.max(shift))) * number
    if not (np.isfinite(error) and np.all(np.isfinite(form))):
        return 0
    return number if np.linalg.eigvalsh(form)[-1] < -error else 0


def count(
    matrix: np.ndarray, error: float | np.ndarray | None, scale: np.ndarray | None, known: Above | None = None
) -> Inertia:
    """Return the inertia for a valid float64 matrix, error and scale; `known` are signs of the same scaled matrix."""
    size = len(matrix)
    scale = scaling(matrix, error) if scale is None else scale
    shift = scale**2 * _diagonal_bound(matrix, error, scale)
    if known is not None and known.resolves and np.all(shift + known.tau <= known.shift):
        return Inertia(known.negative, 0, known.positive, float(np.max(shift) + known.tau))

    def counted(factor: float) -> Inertia:
        up = above(matrix, scale, shift, factor)
        positive, bound, tau = up.positive, float(np.max(up.shift)), up.tau
        if up.resolves:
            return Inertia(up.negative, 0, positive, bound)
        del up  # its memory
        down = above(matrix, scale, shift, factor, sign=-1, least=tau)
        negative = down.positive
        return Inertia(negative, size - negative - positive, positive, max(bound, float(np.max(down.shift))))

    # A wide bound is cheap, and no loss if it resolves every sign.
    counts = counted(wide(size) if size > _LARGE else 16)
    return counted(16) if counts.unresolved and size > _LARGE else counts


def wide(size: int) -> float:
    """Return the `factor` of a backward error that hardly any factors exceed."""
    return 64.0 * size


def negative(matrix: np.ndarray) -> int:
    """Return the number of negative eigenvalues of a finite matrix, by LDLᵀ and without a bound on the error."""
    return len(matrix) - ldl.factor(np.array(matrix, order="F")).positive


def scaling(matrix: np.ndarray, error: Any = None) -> np.ndarray:
    """Return s for which diag(s) H diag(s) is well scaled: largest entry of each row near 1, zero rows unchanged.

    sᵢ = |Hᵢᵢ|^(−1/2) if that already bounds the row by 1, as in definite matrices; otherwise a few sweeps of symmetric
    equilibration (Ruiz 2001). Powers of two, so that scaling does not round. Given a bound on the error of each entry,
    rows of rounding are not scaled up: an entry counts as at least the size at which its relative error would be that
    of the most accurate row. The bound on the entries is an array, or what has its rows, `ndim` and `diagonal`.
    """
    diagonal, largest = np.abs(np.diag(matrix)), _row_maxima(matrix)
    factor = 0.0
    if error is not None and np.ndim(error) == 2:
        ratio = np.divide(_row_maxima(error), largest, out=np.full(len(matrix), np.inf), where=largest > 0)
        # A uniform relative error does not show which rows hold only rounding.
        factor = 1 / max(16 * _UNIT, float(ratio.min()))
        diagonal = np.maximum(diagonal, factor * error.diagonal())
    scale = np.ones(len(matrix))
    np.divide(1.0, np.sqrt(diagonal), out=scale, where=diagonal > np.finfo(float).tiny)
    for _ in range(20):
        row = _row_maxima(matrix, scale) * scale
        if factor:
            row = np.maximum(row, factor * _row_maxima(error, scale) * scale)
        row[row == 0] = 1
        if np.all((row < 2) & (row > 0.5)):
            break
        scale /= np.sqrt(row)
    return np.exp2(np.round(np.log2(scale)))


def require_symmetric(matrix: np.ndarray) -> np.ndarray:
    """Return the matrix as float64, or raise unless it is square, symmetric and finite."""
    matrix = np.asarray(_checks.numbers(matrix, "matrix", "(P, P)"), np.float64)
    if matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"matrix: got shape {matrix.shape}, expected a square matrix of side 1 or more.")
    if not (np.isfinite(matrix.min()) and np.isfinite(matrix.max())):
        raise ValueError(f"matrix: got {np.sum(~np.isfinite(matrix))} entries that are NaN or infinite.")
    if not is_symmetric(matrix):
        apart = f"got an asymmetry of {np.max(np.abs(matrix - matrix.T)):.3g}, expected 0"
        raise ValueError(f"matrix: {apart}; pass (matrix + matrix.T) / 2 and the asymmetry in error.")
    return matrix


def is_symmetric(matrix: np.ndarray) -> bool:
    """Return whether a matrix equals its transpose."""
    tiles = [slice(first, first + _TILE) for first in range(0, len(matrix), _TILE)]
    return all(np.array_equal(matrix[i, j], matrix[j, i].T) for k, i in enumerate(tiles) for j in tiles[k:])


def _diagonal_bound(matrix: np.ndarray, error: float | np.ndarray | None, scale: np.ndarray) -> np.ndarray:
    """Return b ≥ 0 with −diag(b) ≤ E ≤ diag(b), for the unscaled error E."""
    if error is None:
        return 4 * _UNIT * np.concatenate([np.abs(matrix[i]) @ scale for i in row_blocks(len(matrix))]) / scale
    bound = np.asarray(error)
    return diagonal_bound(bound, scale) if bound.ndim == 2 else np.broadcast_to(bound, len(matrix))


def diagonal_bound(error: Any, scale: np.ndarray) -> np.ndarray:
    """Return the diagonal b, bᵢ = Σⱼ |E|ᵢⱼ sⱼ / sᵢ, with −b ≤ E ≤ b for any s > 0, given bounds on the entries of E."""
    # |xᵢ xⱼ| ≤ (xᵢ² sⱼ/sᵢ + xⱼ² sᵢ/sⱼ) / 2: row sums in the scaled coordinates.
    return (error @ scale) / scale


def row_blocks(size: int) -> Iterator[slice]:
    """Return slices that cut the rows of a matrix into blocks."""
    return (slice(first, first + _ROWS) for first in range(0, size, _ROWS))


def _row_maxima(matrix: Any, scale: np.ndarray | float = 1.0) -> np.ndarray:
    """Return maxⱼ |Hᵢⱼ| sⱼ of each row."""
    return np.concatenate([(np.abs(matrix[i]) * scale).max(axis=1) for i in row_blocks(len(matrix))])
