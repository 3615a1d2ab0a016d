"""The signs at both ends of a spectrum from Lanczos with a random start, at any size, up to a failure probability.

After k steps the extreme Ritz value is within ε (λmax − λmin) of the extreme eigenvalue except with probability
1.648 √P exp(−√ε (2k − 1)) (Kuczyński and Woźniakowski 1992, "Estimating the largest eigenvalue by the power and Lanczos
algorithms with a random start"), in a space that is not restarted and whose vectors are orthogonal.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.evidence.slopes import SAFETY
from mlp_jax.curvature import matrices
from mlp_jax.curvature.deflation import Deflation, deflation
from mlp_jax.curvature.krylov_basis import HostBasis
from mlp_jax.curvature.krylov_space import Space

FAILURE_PROBABILITY = 1e-6
# Steps after which the signs are first looked at; then after half as many more.
_FIRST_STEPS, _MORE = 32, 1.5
# A space is begun again with deflation where that takes no more than this many times the steps so far, and no more than
# are left.
_AGAIN = 2


class Spectrum(NamedTuple):
    """Ritz values, and bounds on the extreme eigenvalues up to the failure probability, from so many products.

    After `needed` steps the extreme Ritz value, if it stays as it is, would give the sign of all eigenvalues.
    """

    ritz: np.ndarray
    lowest: float
    highest: float
    needed: float
    products: int


def random_space(multiply: Callable[[np.ndarray], np.ndarray], problem: Problem, key: jax.Array, steps: int) -> Space:
    """Return a Krylov space with a random start and room for so many steps; memory is taken as they are made."""
    size = len(problem.vector)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    space = Space(HostBasis(multiply, size, np.float64, min(steps + 1, size)), 1, generator)
    space.add_random(1)
    return space


def signs_at_ends(problem: Problem, key: jax.Array, bound: float, most: int) -> tuple[Spectrum, float]:
    """Run Lanczos, unrestarted, until the signs at both ends are clear or the steps are used up.

    Where it would take long, because eigenvalues of one sign are close to 0 beside the largest, those are deflated, and
    a space with another random start settles the signs of what is left.
    """
    space, first, bound, scaling = _until_clear(problem.multiply, problem, jax.random.fold_in(key, 2), bound, most)
    if scaling is None:
        return first, bound
    del space  # its memory

    def multiply(rows: np.ndarray) -> np.ndarray:
        return np.stack([scaling(row) for row in problem.multiply(np.stack([scaling(row) for row in rows]))])

    most -= first.products
    space, second, bound, _ = _until_clear(multiply, problem, jax.random.fold_in(key, 3), bound, most, once=True)
    return _together(first, second, space, scaling), bound


def _until_clear(
    multiply: Callable[[np.ndarray], np.ndarray],
    problem: Problem,
    key: jax.Array,
    bound: float,
    most: int,
    once: bool = False,
) -> tuple[Space, Spectrum, float, Deflation | None]:
    """Return also a deflation with which fewer steps are left, unless `once`; then the signs are not clear yet."""
    size = len(problem.vector)
    most = min(size, most, max(_FIRST_STEPS, matrices.machine_bytes() // (4 * 8 * size)))
    space = random_space(multiply, problem, key, most)
    steps = [min(_FIRST_STEPS, most)]
    while steps[-1] < most:
        steps.append(min(most, int(_MORE * steps[-1])))
    # The claim may be made at any of these numbers, at both ends, and of two spaces.
    logarithm = float(np.log(1.648 * np.sqrt(size) * 4 * len(steps) / FAILURE_PROBABILITY))
    for number in steps:
        space.extend(number - space.position)
        found = _ends(space, logarithm)
        bound = max(bound, _arithmetic(problem, found.ritz))
        indefinite = found.ritz[0] < -bound and found.ritz[-1] > bound
        if indefinite or found.lowest > bound or found.highest < -bound or not space.pending:
            break
        gap = max(found.ritz[0], -found.ritz[-1])
        scaling = deflation(space) if gap > bound and not once else None
        fewer = min(_AGAIN * number, found.needed - number, most - number)
        if scaling is not None and _needed(logarithm, scaling.largest, gap) < fewer:
            return space, found, bound, scaling
    return space, found, bound, None


def _together(first: Spectrum, second: Spectrum, space: Space, scaling: Deflation) -> Spectrum:
    """Return what is known of H from Ritz values of it and of W H W."""
    _, vectors, _ = space.ritz()
    lengths = [np.linalg.norm(scaling(row)) for row in space.combine(vectors[:, [0, -1]])]
    low, high = second.ritz[[0, -1]] / np.square(lengths)  # v·Hv of unit vectors along W y
    ritz = np.r_[min(low, first.ritz[0]), first.ritz[1:-1], max(high, first.ritz[-1])]
    return Spectrum(
        ritz,
        second.lowest if second.lowest > 0 else first.lowest,
        second.highest if second.highest < 0 else first.highest,
        second.needed,
        first.products + second.products,
    )


def _arithmetic(problem: Problem, ritz: np.ndarray) -> float:
    """Return a bound on the error of a Ritz value from rounding in products and orthogonalisation."""
    sums = np.sqrt(len(problem.vector)) + len(ritz) + problem.growth
    return float(SAFETY * problem.unit * sums * np.max(np.abs(ritz)))


def _ends(space: Space, logarithm: float) -> Spectrum:
    """Return bounds on the eigenvalues, each of which fails with probability 1.648 √P exp(−logarithm)."""
    values = space.ritz()[0]
    if not space.pending:  # the space is invariant, and a random start has a component in every eigenspace
        return Spectrum(values, float(values[0]), float(values[-1]), len(values), space.products)
    width = values[-1] - values[0]
    share = (logarithm / (2 * len(values) - 1)) ** 2
    margin = share / (1 - 2 * share) * width if share < 0.5 else np.inf
    needed = _needed(logarithm, width, max(values[0], -values[-1]))
    return Spectrum(values, float(values[0] - margin), float(values[-1] + margin), needed, space.products)


def _needed(logarithm: float, width: float, gap: float) -> float:
    """Return the steps after which the margin is a gap between 0 and a spectrum of one sign."""
    return (logarithm * np.sqrt(width / gap + 2) + 1) / 2 if gap > 0 else np.inf


def more(spectrum: Spectrum) -> str:
    """Return what would decide, in words."""
    if np.isinf(spectrum.needed):
        return "more steps, or the dense matrix, would decide"
    return (
        f"about {spectrum.needed:.0f} steps would decide if the extreme Ritz value stays as it is (max_products; each"
        " step keeps a vector in memory)"
    )
