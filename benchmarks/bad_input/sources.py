"""Arguments as source: the names that it may use, and its value."""

from __future__ import annotations

import functools
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax

from benchmarks import hostile_inputs as hostile
from benchmarks.bad_input.calls import MODULES

_FOLDER = tempfile.TemporaryDirectory(prefix="bad-input-")
FILES = pathlib.Path(_FOLDER.name)


def file(content: bytes, name: str = "data") -> str:
    """Return the path of a file with this content."""
    path = FILES / name
    path.write_bytes(content)
    return str(path)


def square(p: Any, *args: Any) -> Any:
    """Σ p², whatever else is given."""
    return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(p))


def saddle(x: Any, *args: Any) -> Any:
    """x₀² − x₁²."""
    return x[0] ** 2 - x[1] ** 2


def per_example(p: Any, x: Any) -> Any:
    """½ (x p)² of each row."""
    return jnp.square(x @ p) / 2


def linear(p: Any, x: Any) -> Any:
    """The model x p."""
    return x @ p


def half_square(z: Any, y: Any) -> Any:
    """The loss ½ (z − y)²."""
    return jnp.square(z - y) / 2


def fit(w: Any, x: Any, y: Any, weights: Any, key: Any) -> Any:
    """Weighted mean of ½ (x w − y)²."""
    return jnp.sum(weights * jnp.square(x @ w - y)) / 2 / jnp.sum(weights)


def start(key: Any) -> Any:
    """The start of a sweep."""
    return jax.random.normal(key, (2,))


@functools.cache
def spread(factor: float) -> Callable[[Any], Any]:
    """Return the operator diag(−1, 2) · factor on vectors of two numbers, 2 · factor on others."""

    def multiply(v: Any) -> Any:
        return jax.tree.map(
            lambda leaf: leaf * jnp.asarray(factor * np.array([-1.0, 2.0] if leaf.shape == (2,) else 2.0), leaf.dtype),
            v,
        )

    multiply.factor = factor  # type: ignore[attr-defined]  # for the oracle
    return multiply


@functools.cache
def scaled(factor: float) -> Callable[..., Any]:
    """Return factor · (x₀² − x₁²), in units of factor."""

    def fun(x: Any, *args: Any) -> Any:
        return jnp.asarray(factor, x.dtype) * (x[0] ** 2 - x[1] ** 2)

    fun.factor = factor  # type: ignore[attr-defined]  # for the oracle
    return fun


def axes(**settings: Any) -> Any:
    """New axes of matplotlib."""
    return matplotlib.figure.Figure().subplots(**settings)


NAMES: dict[str, Any] = {
    **hostile.NAMES,
    **MODULES,
    **{f.__name__: f for f in (
        square, saddle, per_example, linear, half_square, fit, start, spread, scaled, axes, file,
    )},
    "optax": optax,
}  # fmt: skip


def evaluate(source: str) -> Any:
    """Return the value of a source."""
    return eval(source, dict(NAMES))


def evaluates(source: str) -> bool:
    """Return whether a source has a value: a module in an object array, for example, cannot be pickled."""
    try:
        evaluate(source)
    except Exception:
        return False
    return True


@functools.cache
def power(order: int, sign: float, place: float = 0.0, factor: float = 1.0) -> Callable[..., Any]:
    """Return factor · ((x₀ − place)² + sign · x₁^order), whose critical point is (place, 0)."""

    def fun(x: Any, *args: Any) -> Any:
        return factor * ((x[0] - place) ** 2 + sign * x[1] ** order)

    return fun


def constant(value: Any) -> Callable[..., Any]:
    """Return a function of anything that returns one array, in float64 where that is on."""
    return lambda *args: jnp.asarray(value, jnp.result_type(float))


NAMES |= {"power": power, "constant": constant}
