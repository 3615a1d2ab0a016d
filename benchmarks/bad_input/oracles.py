"""What oracles use: what is legal, and what is right, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import hostile_inputs as hostile
from benchmarks.bad_input.arguments import KNOWN
from benchmarks.bad_input.sources import evaluate


class Illegal(Exception):
    """The oracle's word for arguments that should have been refused."""


class Unknown(Exception):
    """The oracle's word for what it cannot tell."""


def need(condition: Any) -> None:
    """Raise Illegal unless a condition holds."""
    if not condition:
        raise Illegal


def whole(value: Any, low: int = 1, high: float = np.inf) -> int:
    """Return a whole number in a range."""
    need(np.ndim(value) == 0 and not isinstance(value, str | bytes) and int(value) == value)
    need(low <= int(value) <= high)
    return int(value)


def real(value: Any, low: float = -np.inf, high: float = np.inf) -> float:
    """Return a finite number in a range."""
    need(np.ndim(value) == 0 and not isinstance(value, str | bytes | complex))
    need(np.isfinite(float(value)) and low <= float(value) <= high)
    return float(value)


def numbers(value: Any, ndim: int | None = None, *, finite: bool = False, kinds: str = "fiu") -> np.ndarray:
    """Return real numbers in float64."""
    array = np.asarray(value)
    need(array.dtype.kind in kinds or jnp.issubdtype(array.dtype, jnp.floating))
    array = array.astype(np.float64)
    need(ndim is None or array.ndim == ndim)
    need(not finite or np.all(np.isfinite(array)))
    return array


def single(value: Any, ndim: int | None = None) -> np.ndarray:
    """Return what real numbers are in float32, which computes with them."""
    with np.errstate(all="ignore"):
        return np.float32(numbers(value, ndim, kinds="fiub")).astype(np.float64)


def integers(value: Any, ndim: int | None = None) -> np.ndarray:
    """Return integers."""
    array = np.asarray(value)
    need(array.dtype.kind in "iu" and (ndim is None or array.ndim == ndim))
    return array.astype(np.int64)


def floating(values: Any, *, finite: bool = True) -> list[np.ndarray]:
    """Return the leaves of a pytree of real floating arrays, at least one number in all."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(values)]
    need(sum(leaf.size for leaf in leaves))
    need(all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves))
    return [numbers(leaf, finite=finite) for leaf in leaves]


def abstract(values: Any) -> list[np.ndarray]:
    """Return what `floating` returns of the shapes and dtypes alone: a leaf may have no values."""
    zeros = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf), jnp.result_type(leaf)), values)
    return floating(zeros, finite=False)


def alike(a: Any, b: Any) -> None:
    """Raise Illegal unless two pytrees have the same structure and shapes."""
    need(jax.tree.structure(a) == jax.tree.structure(b))
    need(all(np.shape(x) == np.shape(y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)))


def a_key(key: Any) -> Any:
    """Return a typed key for a key of either form."""
    if not isinstance(key, jax.Array | np.ndarray):
        raise Illegal
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        need(key.shape == ())
        return key
    need(key.dtype == np.uint32 and key.shape == (2,))
    return jax.random.wrap_key_data(jnp.asarray(key))


def network(params: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return weights and biases that fit together."""
    need(isinstance(params, tuple | list) and len(params))
    layers = [(single(weight, 2), single(bias, 1)) for weight, bias in params]
    need(all(w.shape[1:] == b.shape for w, b in layers))
    return layers


def through(layers: Any, inputs: Any, activation: Any, *, ndim: int | None = 2) -> np.ndarray:
    """Return the outputs of a network in numpy."""
    hidden = single(inputs, ndim)
    for depth, (weight, bias) in enumerate(layers):
        if depth:
            hidden = numbers(activation(hidden))
        need(hidden.ndim and hidden.shape[-1] == len(weight))
        hidden = hidden @ weight + bias
    return hidden


def near(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Return whether two arrays agree in shape and, to a tolerance, in value."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return False
    with np.errstate(all="ignore"):
        a, b = a.astype(np.float64), b.astype(np.float64)
        # What is beyond float32 may be infinite in the one, and zero below it.
        close = np.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        return bool(np.all(close | ((np.abs(b) > 1e38) & ~(np.abs(a) < 1e37)) | np.isnan(b)))


def near_trees(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Return whether all leaves are near."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(near(x, y, tolerance) for x, y in pairs)


def gradient_of(fun: Callable[..., Any], vector: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """Return central differences of a function of a vector, in float64."""
    rows = step * np.eye(len(vector))
    return np.array([(fun(vector + row) - fun(vector - row)) / (2 * step) for row in rows])


def is_own(function: Any) -> bool:
    """Return whether a function is one of those that are legal here; raise if it is none at all."""
    need(callable(function))
    return getattr(function, "__module__", "") != hostile.__name__ or "watched" in repr(function)


def truth(fun: Any) -> tuple[int, float, float, float] | None:
    """Return order, sign, place and factor of a function that `power` made."""
    return next((eval(source.removeprefix("power")) for source in KNOWN if evaluate(source) is fun), None)


def no_data(args: Any) -> None:
    """Raise Illegal unless args are a tuple of finite arrays."""
    need(isinstance(args, tuple))
    for leaf in jax.tree.leaves(args):
        numbers(leaf, finite=True, kinds="fiub")


def point(params: Any) -> np.ndarray:
    """Return params of two numbers."""
    (p,) = floating(params)
    need(p.shape == (2,))
    return p


def factor_of(function: Any, dtype: Any = np.float64) -> float:
    """Return what a function is multiplied by; raise Unknown where a dtype cannot hold it."""
    factor = getattr(function, "factor", 1.0)
    if not 1e-37 < factor < 1e37 and np.dtype(dtype).itemsize <= 4:
        raise Unknown
    return factor


def shares(weights: Any, n: int) -> np.ndarray:
    """Return weights that add up to 1."""
    w = np.ones(n) if weights is None else numbers(weights, 1, finite=True, kinds="fiub")
    need(w.shape == (n,) and np.all(w >= 0) and np.any(w))
    return w / w.max() / (w / w.max()).sum()


def a_mesh(mesh: Any) -> None:
    """Raise Illegal unless there is no mesh, or one of devices that are there, each once."""
    if mesh is not None:
        need(isinstance(mesh, jax.sharding.Mesh) and mesh.devices.size)
        found = list(mesh.devices.flat)
        need(len(set(found)) == len(found) and set(found) <= set(jax.devices()))


def pair(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets of equal length."""
    need(isinstance(data, tuple | list) and len(data) == 2)
    x, y = np.asarray(data[0]), np.asarray(data[1])
    need(all(part.dtype.kind in "iub" or jnp.issubdtype(part.dtype, jnp.floating) for part in (x, y)))
    need(x.ndim and y.ndim and len(x) == len(y) > 0)  # NaN may stand for what is missing: the loss decides
    return x, y


def an_activation(function: Any, width: int = 4) -> bool:
    """Return whether an activation is one of ours; raise unless it makes units of pre-activations."""
    need(callable(function))
    shape = np.shape(function(jnp.ones((8, width))))
    need(len(shape) == 2 and shape[0] == 8 and shape[1] and width % shape[1] == 0)
    return is_own(function)


def gradients(a: Any) -> np.ndarray:
    """Return the gradients of ½ (x p)² of each example, (n, 2)."""
    (p,), x = floating(a.params), numbers(a.args[0], 2, finite=True, kinds="fiub")
    need(isinstance(a.args, tuple) and len(a.args) == 1 and p.shape == (2,) and len(x))
    return x * (x @ p)[:, None]
