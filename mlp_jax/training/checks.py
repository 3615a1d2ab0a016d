"""What a run is given, checked before anything is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, _compiled, devices
from mlp_jax.tree import PyTree


def require_data(data: Any) -> tuple[jax.Array, jax.Array]:
    """Return inputs and targets as arrays; raise unless they are real numbers of the same length, and not 0.

    NaN and infinity pass: a loss may read NaN as a missing value and leave it out, and a run that cannot do with them
    says so, by `diverged_at`.

    Raises
    ------
    TypeError
        `data` are not a pair, or hold something else than real numbers.
    ValueError
        The lengths differ, or are 0.

    Examples
    --------
    >>> [a.shape for a in require_data(([1.0, 2.0], [3.0, 4.0]))]
    [(2,), (2,)]
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"data: got {_described(data)}, expected a pair (inputs, targets).")
    inputs, targets = (jnp.asarray(_checks.numbers(a, f"data {n}")) for n, a in zip(_PARTS, data, strict=True))
    if inputs.ndim < 1 or targets.ndim < 1 or len(inputs) != len(targets) or len(inputs) == 0:
        raise ValueError(
            f"data: got inputs {inputs.shape} and targets {targets.shape}, expected the same length, not 0."
        )
    return inputs, targets


_PARTS = ("inputs", "targets")


def _described(data: Any) -> str:
    return f"{len(data)} items" if isinstance(data, tuple | list) else _checks.describe(data)


def require_loss(
    loss: Callable[..., jax.Array],
    params: PyTree,
    inputs: Any,
    targets: Any,
    key: Any,
    batch_size: int,
    **settings: Any,
) -> None:
    """Raise TypeError or ValueError unless the loss of a batch is one floating-point number.

    Raises
    ------
    TypeError
        `loss` is no function of five arguments (and `settings`), or returns no arrays; `params` are not floating, the
        data not real numbers, or `key` is not a JAX random key.
    ValueError
        The loss is something else than one floating-point number, or a size is out of range.

    Examples
    --------
    >>> require_loss(lambda w, x, y, weights, key: w, 0.0, jnp.ones(4), jnp.ones(4), jax.random.key(0), 2)
    """
    _checks.leaves(params, "params", floating=True)
    _checks.key(key)
    batch_size = _checks.integer(batch_size, "batch_size")
    inputs, targets = _checks.numbers(inputs, "inputs"), _checks.numbers(targets, "targets")
    if not inputs.ndim or not targets.ndim:
        raise ValueError(f"inputs, targets: got shapes {inputs.shape}, {targets.shape}, expected (n, …) each.")
    weights = jax.ShapeDtypeStruct((batch_size,), widest_dtype(params))
    batch = [jax.ShapeDtypeStruct((batch_size, *a.shape[1:]), a.dtype) for a in (inputs, targets)]
    require_scalar(jax.eval_shape(loss, params, *batch, weights, key, **settings), "loss")


_LOSS = "(params, inputs, targets, weights, key) -> scalar"


def require_class_numbers(
    loss: Callable[..., jax.Array],
    params: PyTree,
    inputs: jax.Array,
    targets: jax.Array,
    key: jax.Array,
    batch_size: int,
    **settings: Any,
) -> None:
    """Raise what the loss of a batch raises when it sees the lowest and the highest of targets that are integers.

    In a compiled run targets are abstract, and out of the sight of a loss that checks their range. Nothing is computed.

    Raises
    ------
    ValueError
        Such as that of `losses.cross_entropy`.

    Examples
    --------
    >>> from mlp_jax import losses
    >>> def loss(w, x, y, weights, key):
    ...     return losses.mean(losses.cross_entropy(x * w, y), weights)
    >>> try:
    ...     require_class_numbers(loss, 1.0, jnp.ones((3, 3)), jnp.array([2, 0, -1]), jax.random.key(0), 2)
    ... except ValueError as error:
    ...     print(error)
    targets: got class numbers from -1 to 2, expected 0 to 2.
    """
    if _checks.is_traced(targets) or not jnp.issubdtype(targets.dtype, jnp.integer) or not targets.size:
        return
    weights = jax.ShapeDtypeStruct((batch_size,), widest_dtype(params))
    rows_of_inputs = jax.ShapeDtypeStruct((batch_size, *inputs.shape[1:]), inputs.dtype)
    shapes = jax.eval_shape(lambda *given: given, params, rows_of_inputs, weights, key, settings)
    leaves, structure = jax.tree.flatten(shapes)
    numbers = devices.to_host(targets)
    flat = numbers.reshape(len(numbers), -1)
    rows = [int(flat.min(axis=1).argmin()), int(flat.max(axis=1).argmax())]
    for piece in [rows] if batch_size > 1 else [rows[:1], rows[1:]]:
        batch = numbers[np.resize(piece, batch_size)]
        _look(loss, structure, tuple(leaves), batch.tobytes(), batch.dtype, batch.shape)


@_compiled.while_alive
def _look(loss: Callable[..., Any], structure: Any, leaves: tuple, content: bytes, dtype: Any, shape: Any) -> None:
    targets = jnp.asarray(np.frombuffer(content, dtype).reshape(shape))

    def at(params: PyTree, inputs: Any, weights: Any, key: Any, settings: dict[str, Any]) -> Any:
        return loss(params, inputs, targets, weights, key, **settings)

    jax.eval_shape(at, *jax.tree.unflatten(structure, leaves))


def widest_dtype(params: PyTree) -> jnp.dtype:
    """Return the widest dtype among the leaves: that of the weights which a loss is given.

    Raises
    ------
    TypeError, ValueError
        There are no leaves, or one that is not floating.

    Examples
    --------
    >>> print(widest_dtype((jnp.ones(2, jnp.float16), jnp.ones(2, jnp.float32))))
    float32
    """
    _checks.leaves(params, "params", floating=True)
    return max((jnp.result_type(leaf) for leaf in jax.tree.leaves(params)), key=lambda dtype: jnp.finfo(dtype).bits)


def require_scalar(result: Any, name: str) -> None:
    """Raise ValueError unless a result, as `jax.eval_shape` returns it, is one floating-point number."""
    if (
        not isinstance(result, jax.ShapeDtypeStruct)
        or result.shape != ()
        or not jnp.issubdtype(result.dtype, jnp.floating)
    ):
        raise ValueError(f"{name}: got a result of {result}, expected one floating-point number.")
