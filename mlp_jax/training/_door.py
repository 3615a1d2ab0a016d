"""The checks of the arguments of a run and of a sweep, before anything is compiled."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, _compiled, _parallel
from mlp_jax.training._loop import weight_dtype
from mlp_jax.tree import PyTree


def data_pair(data: Any) -> tuple[jax.Array, jax.Array]:
    """Return inputs and targets as arrays of one length, not 0. NaN is accepted: a loss may mask missing values."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"data: got {_checks.describe(data)}, expected a pair (inputs, targets).")
    inputs, targets = jnp.asarray(data[0]), jnp.asarray(data[1])
    if inputs.shape[:1] != targets.shape[:1] or inputs.shape[:1] in ((), (0,)):
        shapes = f"inputs {inputs.shape} and targets {targets.shape}"
        raise ValueError(f"data: got {shapes}, expected the same length, not 0.")
    return inputs, targets


def batch_loss(
    loss: Callable[..., jax.Array],
    params: PyTree,
    inputs: jax.Array,
    targets: jax.Array,
    key: jax.Array,
    batch_size: int,
    **settings: Any,
) -> None:
    """Trace the loss of a batch: TypeError unless it is a scalar, and any error of its own.

    A compiled run hides the values of targets from the loss, which then cannot check class numbers. Here it sees
    batches with the lowest and the highest integer target. Nothing is computed.
    """
    rows = jax.ShapeDtypeStruct((batch_size, *inputs.shape[1:]), inputs.dtype)
    weights = jax.ShapeDtypeStruct((batch_size,), weight_dtype(params))
    abstract = jax.ShapeDtypeStruct((batch_size, *targets.shape[1:]), targets.dtype)
    shapes = jax.eval_shape(lambda *given: given, params, rows, abstract, weights, key, settings)
    leaves, structure = jax.tree.flatten(shapes)
    if _checks.is_traced(targets) or not jnp.issubdtype(targets.dtype, jnp.integer) or not targets.size:
        return _look(loss, structure, tuple(leaves), None)
    numbers = _parallel.to_host(targets)
    flat = numbers.reshape(len(numbers), -1)
    ends = [int(flat.min(axis=1).argmin()), int(flat.max(axis=1).argmax())]
    for chosen in [ends] if batch_size > 1 else [ends[:1], ends[1:]]:
        _look(loss, structure, tuple(leaves), numbers[np.resize(chosen, batch_size)].tobytes())


@_compiled.while_alive
def _look(loss: Callable[..., Any], structure: Any, leaves: tuple, content: bytes | None) -> None:
    given = jax.tree.unflatten(structure, leaves)
    seen = None if content is None else jnp.asarray(np.frombuffer(content, given[2].dtype).reshape(given[2].shape))

    def at(params: PyTree, inputs: Any, targets: Any, weights: Any, key: Any, settings: dict[str, Any]) -> Any:
        return loss(params, inputs, targets if seen is None else seen, weights, key, **settings)

    _checks.scalar(jax.eval_shape(at, *given), "loss")


def require_mean(
    loss: Callable[..., jax.Array], starts: PyTree, settings: Any, inputs: Any, targets: Any, keys: jax.Array
) -> None:
    """Raise ValueError unless the loss of some rows is the mean of the losses of their two halves."""
    one, its_settings = jax.eval_shape(lambda: jax.tree.map(lambda a: a[0], (starts, settings)))
    rows = min(16, len(inputs) // 2 * 2)
    batch_loss(loss, one, inputs, targets, keys[0], max(1, rows), **its_settings)
    if rows == 0:
        return
    whole, halves = map(float, _loss_of_halves(loss, rows, starts, settings, inputs, targets, keys))
    if np.isfinite(whole) and abs(whole - halves) > 1e-3 * max(abs(whole), abs(halves)):
        got = f"got {whole:.6g} for {rows} examples and {halves:.6g} as the mean of two halves"
        raise ValueError(f"loss: {got}, expected a mean with the weights.")


@_compiled.by_function(2, compiler_options={"xla_backend_optimization_level": 0})
def _loss_of_halves(
    loss: Callable[..., jax.Array], rows: int, starts: PyTree, settings: Any, inputs: Any, targets: Any, keys: Any
) -> tuple[jax.Array, jax.Array]:
    """Return the loss of the first rows, and the mean of the losses of their two halves."""
    params, settings = jax.tree.map(lambda a: a[0], (starts, settings))
    half = (jnp.arange(rows) < rows // 2).astype(weight_dtype(params))

    def of(weights: jax.Array) -> jax.Array:
        return loss(params, inputs[:rows], targets[:rows], weights, keys[0], **settings)

    return of(jnp.ones_like(half)), (of(half) + of(1 - half)) / 2
