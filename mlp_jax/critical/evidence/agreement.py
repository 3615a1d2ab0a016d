"""Whether derivatives agree with differences of values and gradients, at any point.

JAX takes derivative rules on trust (custom_jvp, custom_vjp, stop_gradient). A wrong rule gives a gradient that is
not that of the values, or a Hessian that is not that of the gradient, or not symmetric.
"""

import numpy as np

from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.evidence.slopes import Slope, typical_size

# Lengths of the differences, relative to the size of params.
_LENGTHS = 10.0 ** -np.arange(3, 9)
# Distance of the random point.
_NEARBY = 2.0**-7


def disagreement(problem: Problem, slope: Slope) -> str | None:
    """Return which derivatives are not those of the function, in words; None where all agree. Host-level.

    A quotient of differences counts where those of two successive lengths agree, so that it has converged.
    """
    generator = np.random.default_rng(5)
    size = len(problem.vector)
    spread = _spread(problem, generator)
    directions = spread * generator.choice([-1.0, 1.0], (2, size)) * generator.uniform(0.5, 1.0, (2, size))
    images = problem.products_here(directions)
    if _is_asymmetric(problem, directions, images):
        wrong = "the Hessian of fun is not symmetric"
    elif _hessian_contradicts_gradient(problem, slope, spread, directions[0], images[0]):
        wrong = "the Hessian of fun is not that of its gradient"
    elif _gradient_contradicts_values(problem, slope, spread, generator):
        wrong = "the gradient of fun is not that of its values"
    else:
        return None
    return f"{wrong}: a rule of derivatives in it is wrong (stop_gradient, custom_jvp, custom_vjp)"


def _is_asymmetric(problem: Problem, directions: np.ndarray, images: np.ndarray) -> bool:
    difference = abs(directions[0] @ images[1] - directions[1] @ images[0])
    sizes, tolerance = np.abs(directions), max(1e-8, 1e4 * problem.unit)
    allowed = np.sum(sizes * tolerance * np.abs(images[::-1]))
    if not difference > allowed:
        return False
    # Products with other roundings are evaluated only here, because few functions need them.
    noise = problem.products_here(directions, np.array([1, 2])) - images
    return bool(difference > allowed + np.sum(sizes * 8 * np.abs(noise[::-1])))


def _hessian_contradicts_gradient(
    problem: Problem, slope: Slope, spread: np.ndarray, direction: np.ndarray, image: np.ndarray
) -> bool:
    steps = _LENGTHS[:, None] * direction
    _, ahead = problem.slopes(problem.vector + np.concatenate([steps, -steps]))
    with np.errstate(invalid="ignore", over="ignore"):
        quotients = (ahead[: len(steps)] - ahead[len(steps) :]) / (2 * _LENGTHS[:, None])
    typical = np.max(np.abs(spread * image)) / spread
    rounding = (slope.gradient_error + problem.unit * np.max(np.abs(ahead), axis=0)) / _LENGTHS[:, None]
    return _contradicts(quotients, rounding, image, typical, problem.unit)


def _gradient_contradicts_values(
    problem: Problem, slope: Slope, spread: np.ndarray, generator: np.random.Generator
) -> bool:
    size = len(spread)
    there = problem.vector + _NEARBY * spread * generator.standard_normal(size)
    direction = spread * generator.choice([-1.0, 1.0], size)
    steps = _LENGTHS[:, None] * direction
    values, rows = problem.slopes(there + np.concatenate([np.zeros((1, size)), steps, -steps]))
    ahead, behind = values[1:].reshape(2, -1)
    rounding = (slope.value_error + 16 * problem.unit * np.max(np.abs(values))) / _LENGTHS
    typical = np.sum(np.abs(rows[0] * direction))
    with np.errstate(invalid="ignore", over="ignore"):
        slopes = ((ahead - behind) / (2 * _LENGTHS))[:, None]
    return _contradicts(slopes, rounding[:, None], rows[0] @ direction, typical, problem.unit)


def _spread(problem: Problem, generator: np.random.Generator) -> np.ndarray:
    """Return how far to move each parameter: by the typical size, less where the curvature is large."""
    size = len(problem.vector)
    signs = generator.choice([-1.0, 1.0], (2, size))
    images = problem.products_here(signs)
    curvature = np.max(np.abs(images), axis=0)
    known = curvature[np.isfinite(curvature) & (curvature > 0)]
    if known.size == 0:
        return np.full(size, typical_size(problem))
    middle = np.median(known)
    ratio = np.clip(np.where(np.isfinite(curvature) & (curvature > 0), curvature, middle) / middle, 1e-12, 1e12)
    return typical_size(problem) * np.minimum(1.0, 1 / np.sqrt(ratio))


def _contradicts(
    quotients: np.ndarray, rounding: np.ndarray, predicted: np.ndarray, typical: np.ndarray, unit: float
) -> bool:
    """Return whether quotients, (lengths, n), converge to other values than predicted, (n,)."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(np.diff(quotients, axis=0)) + rounding[1:]
        off = np.abs(quotients[1:] - predicted)
        informative = np.isfinite(apart) & (apart <= 1e-2 * np.maximum(np.abs(predicted), typical))
        agrees = informative & (off <= 16 * apart + max(1e-6, 1e3 * unit) * typical)
        return bool(np.any(np.any(informative, axis=0) & ~np.any(agrees, axis=0)))
