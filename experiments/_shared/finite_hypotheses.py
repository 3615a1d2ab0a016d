"""Hoeffding's bound for a finite hypothesis space H: P(a sample is bad) ≤ |H| · 2 exp(−2 N ε²).

A sample of N examples is bad if the error on it of some function of H differs from the true error by more than ε. The
size of H is given as ln |H|, because |H| can overflow. Source: Hoeffding (1963), "Probability inequalities for sums of
bounded random variables", theorem 2.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.stats


def log_bad_sample_bound(log_size: float, num_samples: float, deviation: float) -> float:
    """Return the logarithm of the bound, from ln |H|, N and ε; the bound is vacuous above 0."""
    return log_size + math.log(2.0) - 2.0 * num_samples * deviation**2


def bad_sample_bound(log_size: float, num_samples: float, deviation: float) -> float:
    """Return the bound on the probability of a bad sample, at most 1."""
    return math.exp(min(0.0, log_bad_sample_bound(log_size, num_samples, deviation)))


def sample_size(log_size: float, failure_probability: float, deviation: float) -> int:
    """Return the smallest integer N ≥ ln(2 |H| / δ) / (2 ε²): the bound is then at most δ."""
    return math.ceil((log_size + math.log(2.0) - math.log(failure_probability)) / (2.0 * deviation**2))


def allowed_deviation(log_size: float, num_samples: float, failure_probability: float) -> float:
    """Return the ε at which the bound is δ; the bound is vacuous above 1."""
    return math.sqrt((log_size + math.log(2 / failure_probability)) / (2 * num_samples))


def network_log_size(num_parameters: int, bits: int = 32) -> float:
    """Return an upper bound of ln |H|: the logarithm of the number of bit patterns of all parameters."""
    return num_parameters * bits * math.log(2.0)


def proportion_interval(count: int, trials: int) -> tuple[float, float]:
    """Return the exact 95 % (Clopper–Pearson) interval of a probability, from `count` successes in `trials`."""
    limits = scipy.stats.binomtest(count, trials).proportion_ci(method="exact")
    return float(limits.low), float(limits.high)


def first_lasting(sizes: np.ndarray, values: np.ndarray, limit: float) -> float:
    """Return the smallest of increasing sizes from which all values are at most the limit; NaN if there is none."""
    above = np.flatnonzero(values > limit)
    first = above[-1] + 1 if len(above) else 0
    return float(sizes[first]) if first < len(sizes) else math.nan
