"""What every figure checks: the axes, and numbers to draw."""

from __future__ import annotations

from typing import Any

import matplotlib.axes
import numpy as np

from mlp_jax import _checks


def require_axes(axes: Any) -> None:
    """Raise TypeError unless `axes` are one matplotlib Axes.

    Examples
    --------
    >>> import matplotlib.figure
    >>> require_axes(matplotlib.figure.Figure().subplots())
    """
    if not isinstance(axes, matplotlib.axes.Axes):
        raise TypeError(f"axes: got {_checks.describe(axes)}, expected a matplotlib Axes.")


def numbers(value: Any, name: str, axes: str, *, finite: bool = False) -> np.ndarray:
    """Return real numbers as a numpy array with the axes that are named, such as `(b, seeds)`.

    Examples
    --------
    >>> numbers([1, 2], "samples", "(n,)").dtype
    dtype('float64')
    """
    return np.asarray(_checks.numbers(value, name, axes, finite=finite), np.float64)


def whole_numbers(value: Any, name: str) -> np.ndarray:
    """Return integers (n,) of 0 or more.

    Examples
    --------
    >>> whole_numbers([0, 3], "index").tolist()
    [0, 3]
    """
    array = np.asarray(_checks.numbers(value, name, "(n,)"))
    if array.size and (array.dtype.kind not in "iu" or array.min() < 0):
        raise ValueError(f"{name}: got numbers of dtype {array.dtype}, expected whole ones of 0 or more.")
    return array.astype(int)


def booleans(value: Any, name: str, axes: str) -> np.ndarray:
    """Return booleans with the axes that are named.

    Examples
    --------
    >>> booleans([True], "padded", "(n,)").tolist()
    [True]
    """
    array = np.asarray(_checks.numbers(value, name, axes))
    if array.dtype != np.bool_:
        raise TypeError(f"{name}: got dtype {array.dtype}, expected booleans.")
    return array


def batch_sizes(value: Any) -> np.ndarray:
    """Return (b,) batch sizes: finite numbers above 0.

    Examples
    --------
    >>> batch_sizes([8, 16]).tolist()
    [8, 16]
    """
    array = np.asarray(_checks.numbers(value, "batch_sizes", "(b,)", finite=True))
    if not np.all(array > 0):
        raise ValueError("batch_sizes: got numbers that are not above 0, expected only such.")
    return array
