"""The trade-off between updates and examples, fitted to the runs of several batch sizes. Host-level."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import ArrayLike

from mlp_jax import _checks


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
