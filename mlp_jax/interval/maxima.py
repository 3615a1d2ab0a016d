"""Rules for maxima, minima, clips and absolute values; a maximum that a box does not decide is reported as a `Tie`."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mlp_jax.interval.program import Equation


class Tie(NamedTuple):
    """Where a box does not decide a maximum: a mask, and the enclosures (or the values to use instead)."""

    open: np.ndarray
    value: Any


class _Maximum(NamedTuple):
    """The larger number, its identity (−1: unknown) if identities are followed, and where the box does not decide."""

    value: Any
    names: np.ndarray | None
    open: np.ndarray


def _larger(run: Any, a: _Maximum, b: _Maximum) -> _Maximum:
    """Return max(a, b): the larger operand with its identity where the box decides, otherwise a hull."""
    order, names = run.field.compare(a.value, b.value), None
    if a.names is not None and b.names is not None:
        names = np.broadcast_arrays(a.names, b.names)
        order = np.where((names[0] == names[1]) & (names[0] >= 0), np.int8(0), order)
    choice = np.select([order >= 2, order < 0], [2, 1], 0)
    hull = [run.field.hull_of_maximum(a.value, b.value)] if np.any(choice == 2) else []
    return _Maximum(
        run.field.select(choice, a.value, b.value, *hull),
        None if names is None else np.choose(choice, [*names, np.int64(-1)]),
        np.choose(choice, [*np.broadcast_arrays(a.open, b.open), np.True_]),
    )


def _operands(run: Any, equation: Equation, *values: Any) -> list[_Maximum]:
    followed = run.identities is not None
    return [
        _Maximum(value, run.identity(number, value) if followed else None, np.zeros(value.shape, dtype=bool))
        for number, value in zip(equation.inputs, values, strict=True)
    ]


def _negative(run: Any, a: _Maximum) -> _Maximum:
    # The identities stay those of a: the result is negated again before it is compared with any other number.
    return a._replace(value=run.field.neg(a.value))


def _closed(run: Any, equation: Equation, result: _Maximum) -> Any:
    """Return the value of a maximum, report a tie or substitute the given value, and keep identities."""
    value, names = result.value, result.names
    if np.any(result.open):
        run.ties[run.at] = Tie(result.open, value)
    if run.at in run.instead:
        mask, other = run.instead[run.at]
        value = run.field.select(mask.astype(np.int64), value, other)
        names = None if names is None else np.where(mask, np.int64(-1), names)
    if run.identities is not None and names is not None:
        fresh = (next(run.counter) << 40) + np.arange(names.size).reshape(names.shape)
        run.identities[equation.outputs[0]] = np.where(names < 0, fresh, names)
    return value


def maximum(run: Any, equation: Equation, a: Any, b: Any) -> Any:
    """Return the larger of two."""
    return _closed(run, equation, _larger(run, *_operands(run, equation, a, b)))


def minimum(run: Any, equation: Equation, a: Any, b: Any) -> Any:
    """Return the smaller of two."""
    return _closed(run, equation, _smaller(run, *_operands(run, equation, a, b)))


def _smaller(run: Any, a: _Maximum, b: _Maximum) -> _Maximum:
    return _negative(run, _larger(run, _negative(run, a), _negative(run, b)))


def _reduced(run: Any, equation: Equation, a: _Maximum) -> _Maximum:
    """Return the maximum over the axes of an equation."""
    axes = tuple(int(axis) for axis in equation.params["axes"])

    def first(x: np.ndarray) -> np.ndarray:
        return np.moveaxis(x, axes, range(len(axes))).reshape(-1, *equation.avals[0].shape)

    def step(i: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: x[i]

    steps = run.field.move(first, a.value)
    names = None if a.names is None else first(a.names)

    def part(i: int) -> _Maximum:
        value = run.field.move(step(i), steps)
        return _Maximum(value, None if names is None else names[i], np.zeros(value.shape, dtype=bool))

    return functools.reduce(functools.partial(_larger, run), map(part, range(1, steps.shape[0])), part(0))


def reduce_max(run: Any, equation: Equation, a: Any) -> Any:
    """Return the largest along axes."""
    return _closed(run, equation, _reduced(run, equation, *_operands(run, equation, a)))


def reduce_min(run: Any, equation: Equation, a: Any) -> Any:
    """Return the smallest along axes."""
    return _closed(run, equation, _negative(run, _reduced(run, equation, _negative(run, *_operands(run, equation, a)))))


def clamp(run: Any, equation: Equation, low: Any, a: Any, high: Any) -> Any:
    """Return a number kept between two others."""
    least, middle, most = _operands(run, equation, low, a, high)
    return _closed(run, equation, _smaller(run, _larger(run, middle, least), most))


def absolute(run: Any, equation: Equation, a: Any) -> Any:
    """Return |a| = max(a, −a)."""
    (positive,) = _operands(run, equation, a)
    return _closed(run, equation, _larger(run, positive, _negative(run, positive)._replace(names=None)))
