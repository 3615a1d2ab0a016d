"""Inputs and targets with checked shapes: Examples and Dataset, how to split them, how to scale them. Host-level."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mlp_jax import _checks, display

_LARGEST_CLASS = np.iinfo(np.int32).max


class Examples(NamedTuple):
    """Inputs (n, d) floating and targets (n,) class numbers or (n, out) values."""

    inputs: jax.Array
    targets: jax.Array

    def __str__(self) -> str:
        return "; ".join(f"{name}: {value}" for name, value in self._facts())

    def _repr_html_(self) -> str:
        return display.table("Examples", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        inputs, targets = np.asarray(self.inputs), np.asarray(self.targets)
        facts = [
            ("examples", f"{len(inputs)}"),
            ("inputs", f"{inputs.shape} {inputs.dtype}, from {inputs.min():.4g} to {inputs.max():.4g}"),
        ]
        if not np.issubdtype(targets.dtype, np.integer):
            return [*facts, ("values", f"{targets.shape} {targets.dtype}, {targets.min():.4g} to {targets.max():.4g}")]
        counts = np.unique(targets, return_counts=True)[1]
        return [*facts, ("classes", f"{len(counts)}, of {counts.min()} to {counts.max()} examples each")]


class Dataset(NamedTuple):
    """Training and test examples."""

    train: Examples
    test: Examples

    def __str__(self) -> str:
        return f"train: {self.train}\ntest: {self.test}"

    def _repr_html_(self) -> str:
        rows = zip(self.train._facts(), self.test._facts(), strict=True)
        cells = [(name, of_train, of_test) for (name, of_train), (_, of_test) in rows]
        return display.table("Dataset", cells, ("", "train", "test"))


def as_examples(inputs: ArrayLike, targets: ArrayLike, *, name: str = "data") -> Examples:
    """Check your own arrays and return them as Examples in the default float dtype.

    Parameters
    ----------
    inputs
        (n, d) real numbers.
    targets
        Integers (n,): class numbers from 0. Or floating point (n, out) or (n,): values; (n,) becomes (n, 1).
    name
        What to call the data in an error.

    Returns
    -------
    Examples
        Inputs (n, d) in the default float dtype, targets (n,) int32 or (n, out) in the default float dtype; copies.

    Raises
    ------
    TypeError
        `inputs` are not real numbers, or `targets` neither integers nor real floating point.
    ValueError
        A shape does not fit, there are no examples, a number is NaN or infinite (or becomes so in the default
        dtype), or a class number is negative or above 2³¹ − 1.

    Examples
    --------
    >>> as_examples([[0, 1], [2, 3], [4, 5]], [0.5, 1.0, 1.5]).targets.shape
    (3, 1)
    """
    columns, goals = (_array(a, f"{name} {part}") for a, part in ((inputs, "inputs"), (targets, "targets")))
    if columns.ndim != 2 or 0 in columns.shape:
        raise ValueError(f"{name} inputs: got shape {columns.shape}, expected (n, d) with n and d of 1 or more.")
    if goals.ndim < 1 or len(goals) != len(columns):
        raise ValueError(f"{name} targets: got shape {goals.shape}, expected {len(columns)} rows as in the inputs.")
    if np.issubdtype(goals.dtype, np.integer):
        return Examples(_as_floats(columns, f"{name} inputs"), _as_classes(goals, f"{name} targets"))
    if not jnp.issubdtype(goals.dtype, jnp.floating):
        raise TypeError(f"{name} targets: got dtype {goals.dtype}, expected integers or real floating point.")
    if goals.ndim == 1:
        goals = goals[:, None]
    if goals.ndim != 2 or goals.shape[1] == 0:
        raise ValueError(f"{name} targets: got values of shape {goals.shape}, expected ({len(columns)}, out).")
    return Examples(_as_floats(columns, f"{name} inputs"), _as_floats(goals, f"{name} targets"))


def _array(values: ArrayLike, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError):  # rows of different lengths, for example
        raise TypeError(f"{name}: got {_checks.describe(values)}, expected an array of real numbers.") from None


def _as_floats(values: np.ndarray, name: str) -> jax.Array:
    dtype = np.dtype(jnp.result_type(float))
    if not (jnp.issubdtype(values.dtype, jnp.floating) or np.issubdtype(values.dtype, np.integer)):
        raise TypeError(f"{name}: got dtype {values.dtype}, expected real numbers.")
    with np.errstate(over="ignore"):  # a number that does not fit becomes infinite, and is refused below
        floats = values.astype(dtype)
    bad = int(np.sum(~np.isfinite(floats)))
    if bad:
        raise ValueError(f"{name}: got {bad} numbers that are NaN or infinite as {dtype}, expected finite numbers.")
    return jnp.asarray(floats)


def _as_classes(labels: np.ndarray, name: str) -> jax.Array:
    if labels.ndim != 1:
        raise ValueError(f"{name}: got integers of shape {labels.shape}, expected class numbers of shape (n,).")
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0 or largest > _LARGEST_CLASS:
        raise ValueError(f"{name}: got class numbers {smallest} to {largest}, expected 0 to {_LARGEST_CLASS}.")
    return jnp.asarray(labels.astype(np.int32))


def require_compatible(train: Examples, test: Examples, *, name: str = "data") -> None:
    """Raise ValueError unless the same network can be evaluated on both: equal columns, equal kind of targets.

    Examples
    --------
    >>> train = as_examples([[0.0, 1.0]], [1])
    >>> require_compatible(train, train)
    """
    for field, first, second in zip(Examples._fields, train, test, strict=True):
        if first.shape[1:] != second.shape[1:] or first.dtype != second.dtype:
            raise ValueError(
                f"{name} test {field}: got {second.dtype} of shape {second.shape},"
                f" expected {first.dtype} of shape {('m', *first.shape[1:])} as in train."
            )


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

    Returns
    -------
    tuple of two integer arrays (n − test_size,) and (test_size,), each increasing

    Raises
    ------
    TypeError, ValueError
        `targets` has another shape or holds no classes, or `test_size` is out of range.

    Examples
    --------
    >>> train, test = stratified_split(np.array([0, 0, 0, 0, 1, 1]), 3)
    >>> test.tolist()
    [1, 3, 5]
    """
    targets = _array(targets, "targets")
    if targets.ndim != 1 or len(targets) < 2:
        raise ValueError(f"targets: got shape {targets.shape}, expected classes of shape (n,), 2 or more.")
    if targets.dtype.kind not in "iubfUS" or (targets.dtype.kind == "f" and np.isnan(targets).any()):
        raise TypeError(f"targets: got dtype {targets.dtype}, or NaN in it, expected numbers or text.")
    test_size = _checks.integer(test_size, "test_size", 1, len(targets) - 1, f"for {len(targets)} examples")
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


def standardize(data: Dataset) -> Dataset:
    """Shift and scale every input column to mean 0 and standard deviation 1 over the training examples.

    x ↦ (x − mean) / deviation, with the mean and the deviation (divided by n, not n − 1) of the training inputs
    alone, so that nothing of the test examples is used. A column that is constant in training is only shifted: it is
    exactly 0 there. Targets are kept. Computed in float64 on the host.

    Parameters
    ----------
    data
        Dataset with inputs (n, d) and (m, d).

    Returns
    -------
    Dataset of the same shapes, inputs in the default float dtype

    Raises
    ------
    TypeError, ValueError
        The data are not a pair of inputs and targets, twice; the inputs are not two matrices with the same columns, or
        hold NaN or infinity.

    Examples
    --------
    >>> data = Dataset(as_examples([[1.0, 7.0], [3.0, 7.0]], [0, 1]), as_examples([[5.0, 8.0]], [0]))
    >>> scaled = standardize(data)
    >>> scaled.train.inputs.tolist(), scaled.test.inputs.tolist()
    ([[-1.0, 0.0], [1.0, 0.0]], [[3.0, 1.0]])
    """
    train, test = _two_parts(data)
    require_compatible(*(as_examples(*part) for part in (train, test)))
    mean, deviation = _column_statistics(np.asarray(train.inputs, np.float64))
    parts = []
    for part, name in zip((train, test), Dataset._fields, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused below
            scaled = (np.asarray(part.inputs, np.float64) - mean) / deviation
        parts.append(as_examples(scaled, part.targets, name=f"standardized {name}"))
    return Dataset(*parts)


def _two_parts(data: Dataset) -> list[Examples]:
    """Return both parts as Examples in their own dtypes; raise unless `as_examples` takes them."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"data: got {_checks.describe(data)}, expected a Dataset(train, test).")
    parts = []
    for part, name in zip(data, Dataset._fields, strict=True):
        if not isinstance(part, tuple | list) or len(part) != 2:
            raise TypeError(f"data.{name}: got {_checks.describe(part)}, expected Examples(inputs, targets).")
        as_examples(*part, name=name)
        parts.append(Examples(*part))
    return parts


def _column_statistics(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the deviation of each column; of a constant column, its value and 1."""
    lowest = columns.min(axis=0)
    constant = columns.max(axis=0) == lowest
    # The rounded mean of equal numbers can differ from them, and would leave rounding noise to be scaled up.
    mean = np.where(constant, lowest, columns.mean(axis=0))
    centred = columns - mean
    width = np.where(constant, 1.0, np.abs(centred).max(axis=0))  # squares of centred / width cannot overflow
    deviation = np.where(constant, 1.0, width * np.sqrt(np.mean((centred / width) ** 2, axis=0)))
    return mean, deviation
