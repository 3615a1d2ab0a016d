"""95 % intervals over seeds."""

from __future__ import annotations

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from mlp_jax import _checks

_MOST_DIGITS = 100


def mean_interval(samples: ArrayLike, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over an axis and the half width of its 95 % interval (Student's t; infinite for one sample).

    Raises
    ------
    TypeError, ValueError
        The samples are not real numbers, there are none, or there is no such axis.

    Examples
    --------
    >>> mean, half = mean_interval([1.0, 2.0, 3.0])
    >>> f"{mean:.1f} ± {half:.2f}"
    '2.0 ± 2.48'
    """
    values = np.asarray(_checks.numbers(samples, "samples"), dtype=float)
    if values.size == 0 or values.ndim == 0:
        raise ValueError(f"samples: got shape {values.shape}, expected one axis or more, of at least one number each.")
    number = values.shape[_checks.integer(axis, "axis", -values.ndim, values.ndim - 1)]
    mean = values.mean(axis=axis)
    if number < 2:
        return mean, np.full(np.shape(mean), np.inf)
    error = values.std(axis=axis, ddof=1) / np.sqrt(number)
    return mean, scipy.stats.t.ppf(0.975, number - 1) * error


def show(samples: ArrayLike, digits: int = 3) -> str:
    """Return "mean ± half width" of some samples, with that many significant digits.

    Raises
    ------
    TypeError, ValueError
        The samples are not one axis of real numbers, or `digits` is no integer of 1 or more.

    Examples
    --------
    >>> show([1.0, 2.0, 3.0])
    '2 ± 2.48'
    """
    mean, half = mean_interval(_checks.numbers(samples, "samples", "(n,)"))
    digits = _checks.integer(digits, "digits", 1, _MOST_DIGITS)
    return f"{mean:.{digits}g} ± {half:.{digits}g}"


def change(samples: ArrayLike, digits: int = 2) -> str:
    """Return in words whether paired differences are below or above 0; those that are not finite are left out.

    Raises
    ------
    TypeError, ValueError
        As `show`; but there may be no samples.

    Examples
    --------
    >>> change([-1.0, -2.0, -3.0]), change([1.0, -1.0, 0.5])
    ('no difference seen (-2 ± 2.5)', 'no difference seen (0.17 ± 2.6)')
    >>> change([-1.0, -1.1, -1.2])
    'lower by 1.1 ± 0.25'
    """
    values = np.asarray(_checks.numbers(samples, "samples", "(n,)"), dtype=float)
    digits = _checks.integer(digits, "digits", 1, _MOST_DIGITS)
    kept = values[np.isfinite(values)]
    if not kept.size:
        return "not measured (all diverged)"
    mean, half = mean_interval(kept)
    if abs(mean) <= half:
        return f"no difference seen ({show(kept, digits)})"
    return f"{'lower' if mean < 0 else 'higher'} by {show(np.sign(mean) * kept, digits)}"
