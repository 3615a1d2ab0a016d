"""Every check of an argument: each raises TypeError or ValueError in one sentence, `name: got …, expected ….`

A public function makes these calls once, before anything is compiled; the functions beneath it trust their caller.
Values are checked outside jit only.
"""

import numbers as number_types
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


def describe(value: Any) -> str:
    """Return a value in a few words: a number or text as it is, an array by dtype and shape, otherwise its type."""
    is_array = isinstance(value, jax.Array | np.ndarray)
    if is_array and (value.ndim or is_traced(value) or not is_real(value.dtype)):
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    if is_array or value is None or isinstance(value, bool | int | float | complex | np.generic | str | bytes):
        return repr(value[:200]) if isinstance(value, str | bytes) else f"{value}"
    kind = type(value).__name__
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"


def is_traced(tree: PyTree) -> bool:
    """Return whether any leaf is a tracer, whose values are not known."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def is_real(dtype: Any) -> bool:
    """Return whether a dtype is of real numbers or booleans, at most 64 bits wide."""
    real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer) or dtype == np.bool_
    return bool(real) and np.dtype(dtype).itemsize <= 8


def function(value: Any, name: str, signature: str = "") -> None:
    """Raise TypeError unless a value can be called."""
    if not callable(value):
        raise TypeError(f"{name}: got {describe(value)}, expected a function {signature}".rstrip() + ".")


def integer(value: Any, name: str, lowest: int = 1, highest: int | None = None, of_what: str = "") -> int:
    """Return an integer of any type as an int; raise TypeError for anything else, ValueError if it is out of range."""
    limits = f"of {lowest} or more" if highest is None else f"from {lowest} to {highest}"
    expected = f"an integer {limits}" + (f", {of_what}" if of_what else "")
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_) or getattr(value, "dtype", None) == np.bool_:
        raise TypeError(f"{name}: got {describe(value)}, expected {expected}.")
    if number < lowest or (highest is not None and number > highest):
        raise ValueError(f"{name}: got {describe(value)}, expected {expected}.")
    return number


def real(
    value: Any,
    name: str,
    expected: str = "a finite number",
    fits: Callable[[float], bool] = lambda x: bool(np.isfinite(x)),
) -> Any:
    """Return one real number (arrays of shape () unchanged); TypeError for anything else, ValueError unless it fits."""
    dtype = value.dtype if isinstance(value, jax.Array | np.ndarray | np.generic) else None
    known = isinstance(value, number_types.Real) if dtype is None else is_real(dtype) and np.shape(value) == ()
    if not known:
        raise TypeError(f"{name}: got {describe(value)}, expected {expected}.")
    if is_traced(value):
        return value
    number = float(value)
    if not fits(number):
        raise ValueError(f"{name}: got {describe(value)}, expected {expected}.")
    return number if dtype is None else value


def not_negative(value: Any, name: str) -> Any:
    """Return a finite number of 0 or more, as `real` does."""
    return real(value, name, "a finite number of 0 or more", lambda x: 0 <= x < np.inf)


def positive(value: Any, name: str) -> Any:
    """Return a finite number above 0, as `real` does."""
    return real(value, name, "a finite number above 0", lambda x: 0 < x < np.inf)


def box(low: Any, high: Any) -> tuple[Any, Any]:
    """Return the corners of a box as numpy arrays: finite pytrees of one structure, low below high."""
    if str(jax.tree.structure(low)) != str(jax.tree.structure(high)):
        raise ValueError("low, high: got different pytrees, expected the corners of one box.")
    low, high = (jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree) for tree in (low, high))
    for a, b in zip(jax.tree.leaves(low), jax.tree.leaves(high), strict=True):
        if a.shape != b.shape:
            raise ValueError(f"low, high: got shapes {a.shape} and {b.shape}, expected the same shape.")
        if bad := count_not_finite(a) + count_not_finite(b):
            raise ValueError(f"low, high: got {bad} numbers that are NaN or infinite, expected finite numbers.")
        if bad := int(np.sum(a >= b)):
            raise ValueError(f"low, high: got {bad} of {a.size} coordinates with low not below high.")
    return low, high


def numbers(value: Any, name: str, axes: str = "", *, finite: bool = False) -> Any:
    """Return an array of real numbers with axes such as "(n, d)": a numpy array unless JAX made it; see `leaves`."""
    array = value
    if not isinstance(value, jax.Array | np.ndarray):
        array = jnp.asarray(value) if is_traced(value) else np.asarray(value)
    if not is_real(array.dtype):
        raise TypeError(f"{name}: got {describe(array)}, expected real numbers.")
    if axes and array.ndim != len([axis for axis in axes.strip("()").split(",") if axis]):
        raise ValueError(f"{name}: got shape {array.shape}, expected {axes}.")
    if finite and not is_traced(array) and (bad := count_not_finite(array)):
        raise ValueError(f"{name}: got {bad} numbers that are NaN or infinite, expected finite numbers.")
    return array


def floats(value: Any, name: str) -> jax.Array:
    """Return real numbers as floating point: integers, whose products could wrap around, in the default dtype."""
    array = jnp.asarray(numbers(value, name))
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))


def count_not_finite(values: Any) -> int:
    """Return how many numbers of an array, split over processes or not, are NaN or infinite. Host-level."""
    if isinstance(values, jax.Array) and not (values.is_fully_addressable or values.is_fully_replicated):
        with jax.ensure_compile_time_eval():
            return int(_count_not_finite(values))
    return int(np.sum(~np.isfinite(np.asarray(values, dtype=np.float64))))


@jax.jit
def _count_not_finite(values: jax.Array) -> jax.Array:
    return jnp.sum(~jnp.isfinite(values))


def key(value: Any) -> None:
    """Raise TypeError unless a value is one JAX random key: typed, or of the older form, two uint32."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not (typed and shape == ()) and not (dtype == jnp.uint32 and shape == (2,)):
        hint = "; use jax.vmap for many" if typed else ""
        raise TypeError(f"key: got {describe(value)}, expected one JAX random key such as jax.random.key(0){hint}.")


def leaves(tree: PyTree, name: str, *, floating: bool = False, finite: bool = False) -> None:
    """Raise TypeError unless all leaves are (floating) numbers or arrays of them, ValueError unless `finite`."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    kind = "real floating-point numbers" if floating else "numbers"
    allowed = jnp.floating if floating else jnp.number
    for path, leaf in found:
        where = name + jax.tree_util.keystr(path)
        dtype = np.result_type(leaf) if isinstance(leaf, bool | int | float) else getattr(leaf, "dtype", None)
        if dtype is None or not (jnp.issubdtype(dtype, allowed) or (dtype == np.bool_ and not floating)):
            error = TypeError(f"{where}: got {describe(leaf)}, expected {kind}.")
            if path:
                error.add_note(_NOT_A_PARAMETER)
            raise error
        if finite and not is_traced(leaf) and jnp.issubdtype(dtype, jnp.floating) and (bad := count_not_finite(leaf)):
            raise ValueError(f"{where}: got {bad} numbers that are NaN or infinite, expected finite numbers.")
    if floating and not sum(np.size(leaf) if not hasattr(leaf, "size") else leaf.size for _, leaf in found):
        raise ValueError(f"{name}: got an empty pytree, expected at least one floating-point number.")


_NOT_A_PARAMETER = (
    "Keep everything that is not a parameter inside fun: nnx.split(model, nnx.Param, ...) and"
    " equinox.partition(model, equinox.is_inexact_array) split a model."
)


def params(tree: PyTree, name: str = "params", *, finite: bool = True) -> None:
    """Raise unless all leaves are real floating point and finite, with at least one number."""
    leaves(tree, name, floating=True, finite=finite)


def args(value: Any) -> None:
    """Raise unless args are a tuple of pytrees of finite numbers."""
    if not isinstance(value, tuple):
        raise TypeError(f"args: got {describe(value)}, expected a tuple, as in args=(inputs, targets).")
    leaves(value, "args", finite=True)


def like(tree: PyTree, other: PyTree, name: str, of: str = "params") -> None:
    """Raise ValueError unless a pytree has the structure and the shapes of another."""
    got, expected = (jax.tree.map(np.shape, t) for t in (tree, other))
    if got != expected:
        raise ValueError(f"{name}: got leaves of shapes {got}, expected those of {of}, {expected}.")


def direction(value: PyTree, point: PyTree, name: str) -> PyTree:
    """Return a pytree of finite floats in the dtypes of a point; raise unless it has its structure and shapes."""
    params(value, name)
    like(value, point, name)
    return jax.tree.map(lambda leaf, p: jnp.asarray(leaf, jnp.result_type(p)), value, point)


def weights(values: np.ndarray) -> None:
    """Raise ValueError unless weights are finite numbers of 0 or more, at least one above 0."""
    if not (values.min() >= 0 and 0 < values.max() < np.inf):
        got = f"got numbers from {values.min()} to {values.max()}"
        raise ValueError(f"weights: {got}, expected finite numbers of 0 or more, at least one above 0.")


def common_length(rows: PyTree, name: str) -> int:
    """Return the length of the first axis of all leaves; raise ValueError unless it is one, and not 0."""
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(rows)}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        shapes = jax.tree.map(np.shape, rows)
        raise ValueError(f"{name}: got shapes {shapes}, expected first axes of one length, 1 or more, on every leaf.")
    return int(lengths.pop()[0])


def count_examples(args: tuple) -> int:
    """Return the number of examples, the length of the first axis of all arrays in args."""
    return common_length(args, "args")


def scalar(result: Any, name: str) -> None:
    """Raise TypeError unless a result, as `jax.eval_shape` returns it, is one real floating-point number."""
    dtype = getattr(result, "dtype", None)
    if np.shape(result) != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        shapes = jax.tree.map(np.shape, result)
        got = f"shapes {shapes}" if dtype is None else f"shape {shapes} and dtype {dtype}"
        raise TypeError(f"{name}: got a result of {got}, expected one real floating-point scalar.")
