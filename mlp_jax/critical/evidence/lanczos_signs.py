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
from mlp_jax.curvature.krylov_basis import HostBasis
from mlp_jax.curvature.krylov_space import Space

FAILURE_PROBABILITY = 1e-6
# Steps after which the signs are first looked at; then after half as many more.
FIRST_STEPS, _MORE = 32, 1.5


class Spectrum(NamedTuple):
    """Ritz values, bounds on the extreme eigenvalues up to the failure probability, and the steps needed for a sign.

    After those the extreme Ritz value, if it stays as it is, would give the sign of all eigenvalues.
    """

    ritz: np.ndarray
    lowest: float
    highest: float
    needed: float


def random_space(multiply: Callable[[np.ndarray], np.ndarray], problem: Problem, key: jax.Array, steps: int) -> Space:
    """Return a Krylov space with a random start and room for so many steps; memory is taken as they are made."""
    size = len(problem.vector)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    space = Space(HostBasis(multiply, size, np.float64, min(steps + 1, size)), 1, generator)
    space.add_random(1)
    return space


def signs_at_ends(problem: Problem, key: jax.Array, bound: float, most: int) -> tuple[Space, Spectrum, float]:
    """Run Lanczos, unrestarted, until the signs at both ends are clear or the steps are used up."""
    size = len(problem.vector)
    most = min(size, most, max(FIRST_STEPS, matrices.machine_bytes() // (4 * 8 * size)))
    space = random_space(problem.multiply, problem, jax.random.fold_in(key, 2), most)
    steps = [min(FIRST_STEPS, most)]
    while steps[-1] < most:
        steps.append(min(most, int(_MORE * steps[-1])))
    for number in steps:
        space.extend(number - space.position)
        # The claim may be made at any of these numbers, and at both ends.
        found = _ends(space, size, FAILURE_PROBABILITY / (2 * len(steps)))
        bound = max(bound, arithmetic(problem, found.ritz))
        indefinite = found.ritz[0] < -bound and found.ritz[-1] > bound
        if indefinite or found.lowest > bound or found.highest < -bound or not space.pending:
            break
    return space, found, bound


def arithmetic(problem: Problem, ritz: np.ndarray) -> float:
    """Return a bound on the error of a Ritz value from rounding in products and orthogonalisation."""
    sums = np.sqrt(len(problem.vector)) + len(ritz) + problem.growth
    return float(SAFETY * problem.unit * sums * np.max(np.abs(ritz)))


def _ends(space: Space, size: int, probability: float) -> Spectrum:
    """Return bounds on the eigenvalues, each of which fails with this probability."""
    values = space.ritz()[0]
    if not space.pending:  # the space is invariant, and a random start has a component in every eigenspace
        return Spectrum(values, float(values[0]), float(values[-1]), len(values))
    logarithm, width = np.log(1.648 * np.sqrt(size) / probability), values[-1] - values[0]
    share = (logarithm / (2 * len(values) - 1)) ** 2
    margin = share / (1 - 2 * share) * width if share < 0.5 else np.inf
    gap = max(values[0], -values[-1])
    needed = (logarithm * np.sqrt(width / gap + 2) + 1) / 2 if gap > 0 else np.inf
    return Spectrum(values, float(values[0] - margin), float(values[-1] + margin), needed)


def more(spectrum: Spectrum) -> str:
    """Return what would decide, in words."""
    if np.isinf(spectrum.needed):
        return "more steps, or the dense matrix, would decide"
    return (
        f"about {spectrum.needed:.0f} steps would decide if the extreme Ritz value stays as it is (max_products; each"
        " step keeps a vector in memory)"
    )
