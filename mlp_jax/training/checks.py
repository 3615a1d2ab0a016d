"""What a run is given, checked before anything is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mlp_jax.tree import PyTree


def require_data(data: Any) -> tuple[jax.Array, jax.Array]:
    """Return inputs and targets as arrays; ValueError unless they have the same length, and not 0.

    Examples
    --------
    >>> [a.shape for a in require_data(([1.0, 2.0], [3.0, 4.0]))]
    [(2,), (2,)]
    """
    inputs, targets = jnp.asarray(data[0]), jnp.asarray(data[1])
    if inputs.ndim < 1 or targets.ndim < 1 or len(inputs) != len(targets) or len(inputs) == 0:
        raise ValueError(
            f"data: got inputs {inputs.shape} and targets {targets.shape}, expected the same length, not 0."
        )
    return inputs, targets


def require_loss(
    loss: Callable[..., jax.Array],
    params: PyTree,
    inputs: Any,
    targets: Any,
    key: Any,
    batch_size: int,
    **settings: Any,
) -> None:
    """Raise ValueError unless the loss of a batch is one floating-point number.

    Examples
    --------
    >>> require_loss(lambda w, x, y, weights, key: w, 0.0, jnp.ones(4), jnp.ones(4), jax.random.key(0), 2)
    """
    weights = jax.ShapeDtypeStruct((batch_size,), widest_dtype(params))
    batch = [jax.ShapeDtypeStruct((batch_size, *a.shape[1:]), a.dtype) for a in (inputs, targets)]
    require_scalar(jax.eval_shape(loss, params, *batch, weights, key, **settings), "loss")


def widest_dtype(params: PyTree) -> jnp.dtype:
    """Return the widest dtype among the leaves: that of the weights which a loss is given.

    Examples
    --------
    >>> print(widest_dtype((jnp.ones(2, jnp.float16), jnp.ones(2, jnp.float32))))
    float32
    """
    return max((jnp.result_type(leaf) for leaf in jax.tree.leaves(params)), key=lambda dtype: jnp.finfo(dtype).bits)


def require_scalar(result: Any, name: str) -> None:
    """Raise ValueError unless a result, as `jax.eval_shape` returns it, is one floating-point number."""
    if getattr(result, "shape", None) != () or not jnp.issubdtype(result.dtype, jnp.floating):
        raise ValueError(f"{name}: got a result of {result}, expected one floating-point number.")


def require_count(value: Any, name: str, largest: int | None = None, of_what: str = "") -> None:
    """Raise ValueError unless a value is a whole number from 1 to the largest."""
    if int(value) != value or value < 1 or (largest is not None and value > largest):
        expected = "of 1 or more" if largest is None else f"from 1 to {largest}, {of_what}"
        raise ValueError(f"{name}: got {value}, expected a whole number {expected}.")
