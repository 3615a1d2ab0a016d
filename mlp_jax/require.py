"""Checks of arguments that all modules share, so that one mistake has one message. *Transformable*: values are looked
at only where they can be, that is outside jit.

Each raises TypeError or ValueError in one sentence: `name: got …, expected ….`
"""

from __future__ import annotations

import functools
import inspect
import numbers as number_types
import operator
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_FINITE = "a finite number"


def function(value: Any, name: str, signature: str = "", given: int | None = None, names: Iterable[str] = ()) -> None:
    """Raise TypeError unless `value` can be called, and, where its signature is known, with so many arguments.

    Parameters
    ----------
    signature
        What to call, for the error.
    given, names
        How many arguments by position, and the names of further ones.

    Examples
    --------
    >>> function(len, "size", "(list) -> number", 1)
    """
    what = f"a function {signature}".rstrip()
    if not callable(value):
        raise TypeError(f"{name}: got {type(value).__name__}, expected {what}.")
    if given is None:
        return
    try:
        signature_ = inspect.signature(value)
    except (TypeError, ValueError):  # many functions written in C have none
        return
    try:
        signature_.bind(*[None] * given, **dict.fromkeys(names))
    except TypeError as error:
        raise TypeError(f"{name}: got a function {signature_} ({error}), expected {what}.") from None


def whole(value: Any, name: str, lowest: int = 1, highest: int | None = None, of_what: str = "") -> int:
    """Return a whole number as an int; TypeError where it is no integer, ValueError where it is out of range.

    Examples
    --------
    >>> whole(np.int8(3), "chunk_size")
    3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    # A limit that only protects the machine is named where it is passed.
    bounded = highest is not None and (of_what or (number is not None and number > highest))
    expected = f"a whole number from {lowest} to {highest}" if bounded else f"a whole number of {lowest} or more"
    expected += f", {of_what}" if of_what else ""
    if number is None or isinstance(value, bool | np.bool_) or getattr(value, "dtype", None) == np.bool_:
        raise TypeError(f"{name}: got {describe(value)}, expected {expected}.")
    if number < lowest or (highest is not None and number > highest):
        raise ValueError(f"{name}: got {describe(value)}, expected {expected}.")
    return number


def real(
    value: Any, name: str, expected: str = _FINITE, fits: Callable[[float], bool] = lambda x: bool(np.isfinite(x))
) -> Any:
    """Return one real number, an array of shape () as it is; TypeError where it is none, ValueError unless it fits.

    Examples
    --------
    >>> real(0.5, "rate", "a number from 0 to below 1", lambda x: 0 <= x < 1)
    0.5
    """
    dtype = value.dtype if isinstance(value, jax.Array | np.ndarray | np.generic) else None
    known = isinstance(value, number_types.Real) if dtype is None else is_real(dtype) and np.shape(value) == ()
    if not known:
        raise TypeError(f"{name}: got {describe(value)}, expected {expected}.")
    if isinstance(value, jax.core.Tracer):
        return value
    try:
        number = float(value)
    except OverflowError:
        number = float("inf") if value > 0 else float("-inf")
    if not fits(number):
        raise ValueError(f"{name}: got {describe(value)}, expected {expected}.")
    return number if dtype is None else value


def not_negative(value: Any, name: str) -> Any:
    """Return a finite number of 0 or more, as `real` does.

    Examples
    --------
    >>> not_negative(0.0, "noise")
    0.0
    """
    return real(value, name, "a finite number of 0 or more", lambda x: 0 <= x < np.inf)


def positive(value: Any, name: str) -> Any:
    """Return a finite number above 0, as `real` does.

    Examples
    --------
    >>> positive(1e-3, "width")
    0.001
    """
    return real(value, name, "a finite number above 0", lambda x: 0 < x < np.inf)


def numbers(value: Any, name: str, ndim: int | None = None, *, axes: str = "", finite: bool = False) -> Any:
    """Return an array of real numbers: numpy, or what JAX has made already.

    Parameters
    ----------
    ndim, axes
        Number of axes, if it matters, and what they are: `(n, d)`.
    finite
        Whether NaN and infinity are refused, where values can be looked at.

    Raises
    ------
    TypeError
        What is there is no array, or not of real numbers in a dtype that JAX knows.
    ValueError
        Another number of axes, or a number that is not finite.

    Examples
    --------
    >>> numbers([1, 2], "steps", 1)
    array([1, 2])
    """
    array = _as_array(value, name)
    if not is_real(array.dtype):
        raise TypeError(f"{name}: got dtype {array.dtype}, expected real numbers.")
    if ndim is not None and array.ndim != ndim:
        expected = axes or f"{ndim} axes"
        raise ValueError(f"{name}: got shape {array.shape}, expected {expected}.")
    if finite and not isinstance(array, jax.core.Tracer):
        bad = int(np.sum(~np.isfinite(np.asarray(array, np.float64))))
        if bad:
            raise ValueError(f"{name}: got {bad} numbers that are NaN or infinite, expected finite numbers.")
    return array


def floats(value: Any, name: str) -> jax.Array:
    """Return an array of real numbers as floating point, others in the default dtype: whole ones would wrap around.

    Examples
    --------
    >>> floats([1, 2], "values").dtype
    dtype('float32')
    """
    array = jnp.asarray(numbers(value, name))
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))


def sequence(value: Any, name: str, expected: str) -> None:
    """Raise TypeError unless this is a sequence, or an array with a first axis, and no text.

    Examples
    --------
    >>> sequence((64, 10), "sizes", "whole numbers")
    """
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str | bytes) or getattr(value, "ndim", 1) == 0:
        raise TypeError(f"{name}: got {describe(value)}, expected {expected}.")


def integers(value: Any, name: str) -> Any:
    """Return an array of integers, as `numbers` does.

    Examples
    --------
    >>> integers([1, 2], "targets")
    array([1, 2])
    """
    array = _as_array(value, name)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name}: got dtype {array.dtype}, expected integers.")
    return array


def _as_array(value: Any, name: str) -> Any:
    """Return what numpy or JAX makes of a value; TypeError where that is nothing, or only an object."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: got {describe(value)}, expected an array without a mask.")
    if isinstance(value, jax.Array | np.ndarray):
        return value
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))
    try:
        return jnp.asarray(value) if traced else np.asarray(value)
    except (TypeError, ValueError):  # rows of different lengths, for example
        raise TypeError(f"{name}: got {describe(value)}, expected an array of numbers.") from None


def is_real(dtype: Any) -> bool:
    """Return whether a dtype is of real numbers, or of booleans, and known to JAX.

    Examples
    --------
    >>> is_real(np.dtype(np.int8)), is_real(np.dtype(complex)), is_real(np.dtype(np.longdouble))
    (True, False, False)
    """
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer) or dtype == np.bool_):
        return False
    return np.dtype(dtype).isnative and np.dtype(dtype).itemsize <= 8


def abstract_result(fun: Callable[..., Any], name: str, signature: str, *args: Any, **settings: Any) -> Any:
    """Return shapes and dtypes of what a function returns, compiling nothing; TypeError where it returns no arrays.

    What the function itself raises is left as it is.

    Examples
    --------
    >>> abstract_result(lambda x: x**2, "fun", "(x) -> value", jnp.ones(3)).shape
    (3,)
    """
    function(fun, name, signature, len(args), settings)
    try:
        return jax.eval_shape(fun, *args, **settings)
    except TypeError as error:
        refused = error
    # Once more, now only to see whether what it returns is the reason.
    jax.eval_shape(functools.partial(_require_arrays, fun, name), *args, **settings)
    raise refused


def _require_arrays(fun: Callable[..., Any], name: str, *args: Any, **settings: Any) -> Any:
    result = fun(*args, **settings)
    for leaf in jax.tree.leaves(result):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex):
            raise TypeError(f"{name}: got a result with {describe(leaf)} in it, expected arrays.")
        if isinstance(leaf, np.ndarray | np.generic) and not jax.dtypes.issubdtype(leaf.dtype, np.number):
            raise TypeError(f"{name}: got a result of dtype {leaf.dtype}, expected numbers.")
    return result


def path(value: Any, name: str = "path") -> pathlib.Path:
    """Return a path; TypeError where it is none, ValueError where no file can be named so.

    Examples
    --------
    >>> path("a/b").name
    'b'
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: got {describe(value)}, expected a str or a pathlib.Path.")
    named = pathlib.Path(value)
    try:
        b"\0" in os.fsencode(named) and named.stat()
    except ValueError as error:  # a zero byte, half a surrogate pair
        raise ValueError(f"{name}: got {str(named)!r}, expected a name that a file can have ({error}).") from None
    return named


def describe(value: Any) -> str:
    """Return a value in a few words, for an error: a number or text as it is, else what it is.

    Examples
    --------
    >>> describe(2.5), describe(None), describe([1, 2]), describe(np.ones(3))
    ('2.5', 'None', 'a list', 'an array of dtype float64 and shape (3,)')
    """
    if value is None or isinstance(value, bool | float | complex | np.generic):
        return f"{value}"
    if isinstance(value, int):
        return f"{value}" if abs(value) < 10**30 else "a number of more than 30 digits"
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= 200 else f"{value[:200]!r}…"
    if isinstance(value, jax.Array | np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        if value.ndim == 0 and not isinstance(value, jax.core.Tracer) and is_real(value.dtype):
            return f"{value}"
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    kind = type(value).__name__
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"
