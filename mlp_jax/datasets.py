"""Data sets as arrays: load(name) -> Dataset. Host-level: reads packages and files."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Examples(NamedTuple):
    """Inputs (n, d) floating and targets (n,) class numbers or (n, out) values."""

    inputs: jax.Array
    targets: jax.Array


class Dataset(NamedTuple):
    """Training and test examples."""

    train: Examples
    test: Examples


def stratified_split(targets: np.ndarray, test_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (train, test) row numbers with the classes in equal proportion, without any randomness.

    Each class gives its share of `test_size` by largest remainder; within a class the test rows are spaced
    evenly in file order, so that sources which follow each other in the file (writers, in the digits) are in both.

    Parameters
    ----------
    targets
        (n,) class numbers.
    test_size
        Number of test rows, from 1 to n − 1.

    Raises
    ------
    ValueError
        `test_size` is out of range.

    Examples
    --------
    >>> train, test = stratified_split(np.array([0, 0, 0, 0, 1, 1]), 3)
    >>> test.tolist()
    [1, 3, 5]
    """
    if not 1 <= test_size < len(targets):
        raise ValueError(f"test_size: got {test_size}, expected 1 to {len(targets) - 1} for {len(targets)} examples.")
    classes, counts = np.unique(targets, return_counts=True)
    shares = counts * (test_size / len(targets))
    taken = np.floor(shares).astype(int)
    for extra in np.argsort(taken - shares, kind="stable")[: test_size - taken.sum()]:
        taken[extra] += 1
    test_rows: list[int] = []
    for label, count, take in zip(classes, counts, taken, strict=True):
        rows = np.flatnonzero(targets == label)
        test_rows.extend(rows[((np.arange(take) + 0.5) * count / max(take, 1)).astype(int)])
    test = np.sort(np.array(test_rows))
    return np.setdiff1d(np.arange(len(targets)), test), test


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('load("digits") needs scikit-learn: pip install "mlp_jax[data]".') from error
    source = load_digits()
    inputs, targets = source.data / 16.0, source.target.astype(np.int32)
    train, test = stratified_split(targets, 297)
    return Dataset(*(Examples(jnp.asarray(inputs[rows]), jnp.asarray(targets[rows])) for rows in (train, test)))


_LOADERS = {"digits": _digits}


def load(name: str) -> Dataset:
    """Return a data set by name.

    - `"digits"`: 1,797 images of handwritten digits, 8 × 8 = 64 pixels divided by 16 to lie in [0, 1]
      (multiples of 1/16, so exact in float32), 10 classes; 1,500 to train and 297 to test by
      `stratified_split` (scikit-learn; Alpaydin & Kaynak 1998, UCI). Pixels 0, 32 and 39 are always 0.

    Raises
    ------
    ValueError
        The name is unknown.
    ImportError
        The package that holds the data is not installed; the message names the extra to install.

    Examples
    --------
    >>> data = load("digits")
    >>> data.train.inputs.shape, data.test.targets.shape
    ((1500, 64), (297,))
    """
    if name not in _LOADERS:
        raise ValueError(f"name: got {name!r}, expected one of {sorted(_LOADERS)}.")
    return _LOADERS[name]()
