"""The noise of minibatch gradients, and the batch size beyond which larger batches gain little.

With G the mean of the per-example gradients gᵢ of N examples and Σ = Σᵢ (gᵢ − G)(gᵢ − G)ᵀ / N, a batch of B has

    E‖G_B‖² = ‖G‖² + c(B) · tr Σ,   c(B) = 1/B drawn with replacement, (N − B) / (B (N − 1)) without.

The gradient noise scale tr Σ / ‖G‖² is the batch size at which noise and signal are equal (McCandlish et al. 2018, "An
empirical model of large-batch training").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import ArrayLike

from mlp_jax import _checks, tree
from mlp_jax.curvature import streaming
from mlp_jax.tree import PyTree

__all__ = ["Estimate", "Noise", "Tradeoff", "estimate", "exact", "fit_tradeoff", "two_batches"]
__dir__ = __all__.copy

PerExample = Callable[..., jax.Array]


class Noise(NamedTuple):
    """‖G‖², tr Σ and their ratio tr Σ / ‖G‖², the noise scale: infinite if the estimate of ‖G‖² is 0 or less."""

    squared_gradient: jax.Array
    trace: jax.Array
    scale: jax.Array


class Estimate(NamedTuple):
    """Estimates and their standard errors."""

    value: Noise
    stderr: Noise


def exact(per_example: PerExample, params: PyTree, args: tuple, *, chunk_size: int = 256) -> Noise:
    """Return the noise from the gradient of each example. Transformable.

    Two passes avoid cancellation: G, then the mean of ‖gᵢ − G‖². Memory is that of `chunk_size` gradients.

    Parameters
    ----------
    per_example
        `(params, *args) -> (n,)` losses, each a function of its own example alone.
    params, args
        Any pytree of floating arrays; arrays with the n examples on their first axis.
    chunk_size
        Examples at a time, 1 or more.

    Examples
    --------
    Gradients −1 and −3: mean −2, variance 1.

    >>> noise = exact(lambda p, y: 0.5 * (p - y) ** 2, jnp.array(0.0), (jnp.array([1.0, 3.0]),))
    >>> float(noise.squared_gradient), float(noise.trace), float(noise.scale)
    (4.0, 1.0, 0.25)
    """
    streaming.require_values(per_example, "per_example", params, args)
    num_examples = _checks.count_examples(args)
    chunk_size = _checks.integer(chunk_size, "chunk_size")
    mean = _gradient(per_example, params, args)

    def distance(example: tuple) -> jax.Array:
        gradient = _gradient(per_example, params, jax.tree.map(lambda a: a[None], example))
        change = jax.tree.map(jnp.subtract, gradient, mean)
        return tree.dot(change, change)

    distances = jax.lax.map(distance, args, batch_size=min(chunk_size, num_examples))
    return _as_noise(tree.dot(mean, mean), jnp.mean(distances))


def two_batches(
    small: jax.Array, large: jax.Array, small_size: int, large_size: int, *, num_examples: int | None = None
) -> Noise:
    """Return the noise from the squared gradient norms of two batch sizes. Transformable.

    Solves E‖G_B‖² = ‖G‖² + c(B) tr Σ for two values of B. The estimates of ‖G‖² and tr Σ are unbiased and linear in the
    norms. Average the norms over batches first: the ratio of single estimates is biased, and ‖G‖² can be negative.

    Parameters
    ----------
    small, large
        ‖G_B‖² at the two sizes, or their means over batches.
    small_size, large_size
        The two batch sizes, 1 ≤ small < large.
    num_examples
        N if batches are drawn without replacement, as in an epoch. If N is not given for such batches, tr Σ is
        overestimated by the factor N / (N − 1) and ‖G‖² underestimated by tr Σ / (N − 1).

    Examples
    --------
    >>> noise = two_batches(jnp.array(5.0), jnp.array(4.5), 1, 2)
    >>> float(noise.squared_gradient), float(noise.trace)
    (4.0, 1.0)
    """
    small_size, large_size = _checked_sizes(small_size, large_size, num_examples)
    small, large = _checks.floats(small, "small"), _checks.floats(large, "large")
    first, second = (_coefficient(size, num_examples) for size in (small_size, large_size))
    trace = (small - large) / (first - second)
    return _as_noise(small - first * trace, trace)


def estimate(
    key: jax.Array,
    per_example: PerExample,
    params: PyTree,
    args: tuple,
    *,
    small: int,
    large: int,
    num_pairs: int = 32,
    replace: bool = False,
) -> Estimate:
    """Estimate the noise from random batches of two sizes, with standard errors. Transformable.

    ‖G‖² and tr Σ are means of `two_batches` over pairs of independent batches; the standard error of their ratio is of
    first order (delta method). The cost is num_pairs · (small + large) gradients of an example.

    per_example, params, args: see `exact`; small, large: batch sizes, 1 ≤ small < large ≤ n; replace: whether batches
    are drawn with replacement. The result estimates the same quantity either way.

    Examples
    --------
    >>> targets = jnp.array([1.0, 3.0, 2.0, 2.0])
    >>> value, stderr = estimate(jax.random.key(0), lambda p, y: 0.5 * (p - y) ** 2, jnp.array(0.0), (targets,),
    ...                          small=1, large=2, num_pairs=1000)
    >>> bool(abs(value.trace - 0.5) < 4 * stderr.trace)
    True
    """
    _checks.key(key)
    streaming.require_values(per_example, "per_example", params, args)
    num_examples = _checks.count_examples(args)
    small, large = _checked_sizes(small, large, None if replace else num_examples)
    num_pairs = _checks.integer(num_pairs, "num_pairs", 2, 2**30)

    def squared_norm(key: jax.Array, size: int) -> jax.Array:
        rows = jax.random.choice(key, num_examples, (size,), replace=replace)
        gradient = _gradient(per_example, params, jax.tree.map(lambda a: jnp.asarray(a)[rows], args))
        return tree.dot(gradient, gradient)

    def pair(key: jax.Array) -> Noise:
        norms = [squared_norm(k, size) for k, size in zip(jax.random.split(key), (small, large), strict=True)]
        return two_batches(norms[0], norms[1], small, large, num_examples=None if replace else num_examples)

    pairs = jax.lax.map(pair, jax.random.split(key, num_pairs))
    samples = jnp.stack([pairs.squared_gradient, pairs.trace])
    means = jnp.mean(samples, axis=1)
    covariance = jnp.cov(samples) / num_pairs
    value = _as_noise(means[0], means[1])
    slope = jnp.stack([-value.scale, jnp.ones_like(value.scale)]) / means[0]
    variance = jnp.where(means[0] > 0, slope @ covariance @ slope, jnp.inf)
    return Estimate(value, Noise(jnp.sqrt(covariance[0, 0]), jnp.sqrt(covariance[1, 1]), jnp.sqrt(variance)))


class Tradeoff(NamedTuple):
    """The fit of updates S against batch size B: S = min_updates + min_examples / B.

    critical_batch_size
        min_examples / min_updates, which needs twice the fewest updates and twice the fewest examples.
    spread
        Standard deviation of log S about the curve.
    stderr
        Standard errors of (log min_updates, log min_examples, log critical_batch_size); infinite if the data do not
        determine a value, for example if no batch size is large enough for the curve to flatten.
    """

    min_updates: float
    min_examples: float
    critical_batch_size: float
    spread: float
    stderr: tuple[float, float, float]


def fit_tradeoff(batch_sizes: ArrayLike, updates: ArrayLike, reached: ArrayLike | None = None) -> Tradeoff:
    """Fit (S/S_min − 1)(E/E_min − 1) = 1 to the updates S that runs took to a target, E = B S. Host-level.

    Maximum likelihood with log S normal about log(S_min + E_min / B). A run that did not reach the target contributes
    the probability of needing more updates than it made (a censored regression, Tobin 1958); without such runs, slow
    batch sizes would look fast. McCandlish et al. (2018), equation 2.11; Shallue et al. (2019), "Measuring the effects
    of data parallelism".

    Parameters
    ----------
    batch_sizes, updates
        (n,) batch size of each run, and its updates to the target, or all its updates if the target was not reached.
    reached
        (n,) booleans, whether the target was reached; all when None.

    Raises
    ------
    ValueError
        Numbers that are not positive and finite; fewer than three runs, or two batch sizes, that reached the target.

    Examples
    --------
    >>> sizes = np.array([1.0, 4.0, 16.0, 64.0])
    >>> fit = fit_tradeoff(sizes, 10 + 80 / sizes)
    >>> print(f"{fit.min_updates:.2f} {fit.min_examples:.2f} {fit.critical_batch_size:.2f}")
    10.00 80.00 8.00
    """
    sizes, numbers = np.asarray(batch_sizes, float), np.asarray(updates, float)
    hit = np.ones(numbers.shape, bool) if reached is None else np.asarray(reached, bool)
    _checks.like((sizes, numbers, hit), (sizes.ravel(),) * 3, "batch_sizes, updates, reached", "one axis")
    if not np.all(np.isfinite([sizes, numbers]) & (np.array([sizes, numbers]) > 0)):
        raise ValueError("batch_sizes, updates: got numbers of 0 or below, NaN or infinity, expected positive numbers.")
    if hit.sum() < 3 or len(np.unique(sizes[hit])) < 2:
        got = f"{hit.sum()} runs of {len(np.unique(sizes[hit]))} batch sizes"
        raise ValueError(f"reached: got {got} that reached the target, expected at least 3 of 2.")
    return _fit(sizes, np.log(numbers), hit)


_SPREAD = (-12.0, 3.0)  # limits of log spread; at a spread of 0, exact data would make the likelihood infinite
_FAR = 12.0  # log S_min and log E_min are searched this far below the data
_STEP = 1e-4  # of the differences for the information matrix, in logarithms
_FLAT = 1e-6  # a direction in which the likelihood has less curvature per run is not determined
_DIRECTIONS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (-1.0, 1.0, 0.0))  # of log S_min, log E_min, log (E_min / S_min)


def _negative_log_likelihood(
    theta: np.ndarray, sizes: np.ndarray, logs: np.ndarray, hit: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the negative log-likelihood at theta = log (S_min, E_min, spread), and its gradient."""
    logs_of_parts = np.stack([np.full_like(sizes, theta[0]), theta[1] - np.log(sizes)])
    centre = np.logaddexp(*logs_of_parts)
    spread = np.exp(theta[2])
    z = (logs - centre) / spread
    log_survival = scipy.special.log_ndtr(-z)
    value = np.sum(np.where(hit, 0.5 * z**2 + theta[2], -log_survival))
    by_z = np.where(hit, z, np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - np.where(hit, 0, log_survival)))
    by_parts = -np.exp(logs_of_parts - centre) @ by_z / spread
    return float(value), np.array([*by_parts, hit.sum() - by_z @ z])


def _fit(sizes: np.ndarray, logs: np.ndarray, hit: np.ndarray) -> Tradeoff:
    low_s, high_s = logs[hit].min(), logs[hit].max()
    low_e, high_e = np.min((logs + np.log(sizes))[hit]), np.max((logs + np.log(sizes))[hit])
    bounds = [(low_s - _FAR, high_s + 2), (low_e - _FAR, high_e + 2), _SPREAD]
    # The flat end, the steep end, and between, since the likelihood may have several maxima.
    starts = [(low_s, low_e), (low_s - 3, low_e), (low_s, low_e - 3)]
    options = {"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-8}

    def end(start: tuple[float, float]) -> Any:
        return scipy.optimize.minimize(
            _negative_log_likelihood, np.array([*start, -1.0]), (sizes, logs, hit),
            jac=True, bounds=bounds, method="L-BFGS-B", options=options,
        )  # fmt: skip

    best = min(map(end, starts), key=lambda end: end.fun).x
    slopes = [[_negative_log_likelihood(best + s * d, sizes, logs, hit)[1] for d in _STEP * np.eye(3)] for s in (1, -1)]
    columns = np.array(slopes[0]) - np.array(slopes[1])
    information = (columns + columns.T) / (4 * _STEP)
    free = np.array([low < x < high for x, (low, high) in zip(best, bounds, strict=True)])
    updates, examples, spread = np.exp(best)
    first, second, third = (_standard_error(information, free, np.array(d), len(logs)) for d in _DIRECTIONS)
    return Tradeoff(float(updates), float(examples), float(examples / updates), float(spread), (first, second, third))


def _standard_error(information: np.ndarray, free: np.ndarray, direction: np.ndarray, num_runs: int) -> float:
    """Return the standard error of a linear function of the fit; infinite along a flat direction or at a bound."""
    if np.any(direction[~free]):
        return float("inf")
    values, vectors = np.linalg.eigh(information[np.ix_(free, free)])
    parts = (vectors.T @ direction[free]) ** 2
    flat = values <= _FLAT * num_runs
    if np.any(parts[flat] > 1e-6):
        return float("inf")
    return float(np.sqrt(np.sum(parts[~flat] / values[~flat])))


def _coefficient(size: int, num_examples: int | None) -> float:
    return 1 / size if num_examples is None else (num_examples - size) / (size * (num_examples - 1))


def _as_noise(squared_gradient: jax.Array, trace: jax.Array) -> Noise:
    positive = squared_gradient > 0
    scale = jnp.where(positive, trace / jnp.where(positive, squared_gradient, 1), jnp.inf)
    return Noise(squared_gradient, trace, scale)


def _gradient(per_example: PerExample, params: PyTree, args: tuple) -> PyTree:
    return jax.grad(lambda p: jnp.mean(per_example(p, *args)))(params)


def _checked_sizes(small: int, large: int, num_examples: int | None) -> tuple[int, int]:
    small = _checks.integer(small, "batch sizes")
    large = _checks.integer(large, "batch sizes", small + 1, num_examples, "the larger of the two")
    return small, large
