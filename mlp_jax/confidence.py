"""Means with 95 % intervals over seeds. Host-level."""

from __future__ import annotations

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

__all__ = ["change", "mean_interval", "show"]
__dir__ = __all__.copy


def mean_interval(samples: ArrayLike, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over an axis and the half width of its 95 % interval (Student's t; infinite for one sample).

    ValueError if there are no samples.

    Examples
    --------
    >>> mean, half = mean_interval([1.0, 2.0, 3.0])
    >>> f"{mean:.1f} ± {half:.2f}"
    '2.0 ± 2.48'
    """
    values = np.asarray(samples, float)
    if values.size == 0 or values.ndim == 0:
        raise ValueError(f"samples: got shape {values.shape}, expected one axis or more, each of at least one number.")
    number = values.shape[axis]
    mean = values.mean(axis=axis)
    if number < 2:
        return mean, np.full(np.shape(mean), np.inf)
    error = values.std(axis=axis, ddof=1) / np.sqrt(number)
    return mean, scipy.stats.t.ppf(0.975, number - 1) * error


def show(samples: ArrayLike, digits: int = 3) -> str:
    """Return "mean ± half width" of samples (n,), to `digits` significant digits; one sample has no half width.

    Examples
    --------
    >>> show([1.0, 2.0, 3.0]), show([1.0])
    ('2 ± 2.48', '1')
    """
    mean, half = mean_interval(samples)
    return f"{mean:.{digits}g}" + (f" ± {half:.{digits}g}" if np.size(samples) > 1 else "")


def change(samples: ArrayLike, digits: int = 2) -> str:
    """Say whether paired differences (n,) are below or above 0; differences that are not finite are left out.

    Examples
    --------
    >>> change([-1.0, -2.0, -3.0]), change([1.0, -1.0, 0.5])
    ('not significantly different (-2 ± 2.5)', 'not significantly different (0.17 ± 2.6)')
    >>> change([-1.0, -1.1, -1.2]), change([2.0])
    ('lower by 1.1 ± 0.25', 'different by 2 in one pair')
    """
    values = np.asarray(samples, float)
    kept = values[np.isfinite(values)]
    if not kept.size:
        return "not measured (all diverged)"
    mean, half = mean_interval(kept)
    if kept.size == 1:
        return f"different by {show(kept, digits)} in one pair"
    if abs(mean) <= half:
        return f"not significantly different ({show(kept, digits)})"
    return f"{'lower' if mean < 0 else 'higher'} by {show(np.sign(mean) * kept, digits)}"
