"""Examples and Dataset: inputs and targets with checked shapes, split and scaled. Host-level."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mlp_jax import _checks, display


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
    """Return copies of your own arrays as Examples, in the default float dtype and int32.

    Parameters
    ----------
    inputs
        (n, d) real numbers.
    targets
        Integers (n,): class numbers from 0. Or floating point (n, out) or (n,): values; (n,) becomes (n, 1). Class
        numbers that were read as floating point would be values, which `losses.cross_entropy` refuses: pass
        `targets.astype(int)`.
    name
        Name of the data in errors.

    Raises
    ------
    TypeError, ValueError
        `inputs` are not real numbers, or `targets` neither integers nor real floating point; a shape does not fit;
        there are no examples; a number is not finite in the default dtype; or a class number is out of int32.

    Examples
    --------
    >>> as_examples([[0, 1], [2, 3], [4, 5]], [0.5, 1.0, 1.5]).targets.shape
    (3, 1)
    """
    columns, goals = np.asarray(inputs), np.asarray(targets)
    if columns.ndim != 2 or 0 in columns.shape:
        raise ValueError(f"{name} inputs: got shape {columns.shape}, expected (n, d) with n and d of 1 or more.")
    if goals.ndim < 1 or len(goals) != len(columns):
        raise ValueError(f"{name} targets: got shape {goals.shape}, expected {len(columns)} rows as in the inputs.")
    if np.issubdtype(goals.dtype, np.integer):
        return Examples(_as_floats(columns, f"{name} inputs"), _as_classes(goals, f"{name} targets"))
    if goals.ndim == 1:
        goals = goals[:, None]
    if goals.ndim != 2 or goals.shape[1] == 0:
        raise ValueError(f"{name} targets: got values of shape {goals.shape}, expected ({len(columns)}, out).")
    return Examples(_as_floats(columns, f"{name} inputs"), _as_floats(goals, f"{name} targets"))


def _as_floats(values: np.ndarray, name: str) -> jax.Array:
    dtype = np.dtype(jnp.result_type(float))
    if not (jnp.issubdtype(values.dtype, jnp.floating) or np.issubdtype(values.dtype, np.integer)):
        raise TypeError(f"{name}: got dtype {values.dtype}, expected real numbers.")
    with np.errstate(over="ignore"):  # numbers that overflow are refused below
        floats = values.astype(dtype)
    if bad := _checks.count_not_finite(floats):
        raise ValueError(f"{name}: got {bad} numbers that are NaN or infinite as {dtype}, expected finite numbers.")
    return jnp.asarray(floats)


def _as_classes(labels: np.ndarray, name: str) -> jax.Array:
    if labels.ndim != 1:
        raise ValueError(f"{name}: got integers of shape {labels.shape}, expected class numbers of shape (n,).")
    if labels.min() < 0 or labels.max() >= 2**31:
        raise ValueError(f"{name}: got class numbers {labels.min()} to {labels.max()}, expected 0 to {2**31 - 1}.")
    return jnp.asarray(labels.astype(np.int32))


def require_compatible(train: Examples, test: Examples, *, name: str = "data") -> None:
    """Raise ValueError unless both have the same columns and the same kind of targets."""
    for field, first, second in zip(Examples._fields, train, test, strict=True):
        if first.shape[1:] != second.shape[1:] or first.dtype != second.dtype:
            got, shape = f"{second.dtype} of shape {second.shape}", ("m", *first.shape[1:])
            raise ValueError(f"{name} test {field}: got {got}, expected {first.dtype} of shape {shape} as in train.")


def stratified_split(targets: np.ndarray, test_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return increasing row numbers (train, test) with the classes in equal proportion, without randomness.

    Each class has its share of `test_size` by largest remainder. Within a class the test rows are spaced evenly in the
    order of the file, so that both parts have examples of all sources (writers, in the digits). targets: (n,) class
    numbers or names; test_size: the number of test rows, from 1 to n − 1.

    Examples
    --------
    >>> train, test = stratified_split(np.array([0, 0, 0, 0, 1, 1]), 3)
    >>> test.tolist()
    [1, 3, 5]
    """
    targets = np.asarray(targets)
    if targets.ndim != 1:
        raise ValueError(f"targets: got shape {targets.shape}, expected classes of shape (n,).")
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

    x ↦ (x − mean) / deviation, where mean and deviation (divided by n, not n − 1) are those of the training inputs
    alone. A column that is constant in training is only shifted, and is exactly 0 there. Targets are kept. Computed in
    float64 on the host; returned in the default float dtype. Errors: see `as_examples`; also for parts that do not fit,
    and a TypeError for anything but a Dataset.

    Examples
    --------
    >>> data = Dataset(as_examples([[1.0, 7.0], [3.0, 7.0]], [0, 1]), as_examples([[5.0, 8.0]], [0]))
    >>> scaled = standardize(data)
    >>> scaled.train.inputs.tolist(), scaled.test.inputs.tolist()
    ([[-1.0, 0.0], [1.0, 0.0]], [[3.0, 1.0]])
    """
    if not isinstance(data, Dataset):
        raise TypeError(f"data: got {_checks.describe(data)}, expected a Dataset of training and test examples.")
    train, test = (as_examples(*part, name=name) for part, name in zip(data, Dataset._fields, strict=True))
    require_compatible(train, test)
    mean, deviation = _column_statistics(np.asarray(data[0][0], np.float64))
    parts = []
    for (inputs, targets), name in zip(data, Dataset._fields, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that overflow are refused below
            scaled = (np.asarray(inputs, np.float64) - mean) / deviation
        parts.append(as_examples(scaled, targets, name=f"standardized {name}"))
    return Dataset(*parts)


def _column_statistics(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the deviation of each column; of a constant column, its value and 1."""
    lowest = columns.min(axis=0)
    constant = columns.max(axis=0) == lowest
    # The rounded mean of equal numbers can differ from them; dividing by its rounding error would make noise.
    mean = np.where(constant, lowest, columns.mean(axis=0))
    centred = columns - mean
    width = np.where(constant, 1.0, np.abs(centred).max(axis=0))  # squares of centred / width cannot overflow
    deviation = np.where(constant, 1.0, width * np.sqrt(np.mean((centred / width) ** 2, axis=0)))
    return mean, deviation
