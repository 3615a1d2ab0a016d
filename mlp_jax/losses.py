"""Per-example losses (the caller reduces), their weighted mean, and accuracy. Transformable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mlp_jax import _checks, _parallel

__all__ = ["accuracy", "cross_entropy", "mean", "squared_error"]
__dir__ = __all__.copy


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the softmax cross-entropy of each example: log Σ exp(zⱼ) − z_target, in nats.

    The largest logit is subtracted first, so that neither overflow nor the size of the logits costs accuracy. Under
    jit, a target out of range gives NaN with NaN derivatives, even with a weight of 0.

    Parameters
    ----------
    logits
        (n, classes) floating.
    targets
        (n,) integers from 0 to classes − 1.

    Raises
    ------
    TypeError, ValueError
        Targets are not integers, or logits not real numbers; the shapes do not match; or a target is out of range.

    Examples
    --------
    >>> [round(float(v), 4) for v in cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))]
    [1.3863]
    """
    logits, targets = _checked_classes(logits, targets)
    if isinstance(targets, jax.core.Tracer):
        # Negative numbers would count from the end; a number past the end reads NaN. The NaN is a factor of the logits,
        # because the derivative of a value that is read out of range would be 0.
        targets = targets.astype(jnp.int32) if targets.dtype.itemsize < 4 else targets  # int8 may not hold `classes`
        targets = jnp.where(targets < 0, logits.shape[-1], targets)
        logits = logits * _at(jnp.ones_like(logits), targets)[..., None]
    # optax's form for integer labels, log-sum-exp minus logit, would have an error of |z| · eps.
    return -_at(jax.nn.log_softmax(logits), targets)


def _at(rows: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the entry of each row at its target, NaN where the target is out of range."""
    return jnp.take_along_axis(rows, targets[..., None], axis=-1, mode="fill")[..., 0]


def _checked_classes(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits, targets = _checks.floats(logits, "logits"), _checks.numbers(targets, "targets")
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(f"targets: got dtype {targets.dtype}, expected integers (class numbers).")
    if logits.ndim < 1 or targets.shape != logits.shape[:-1]:
        raise ValueError(f"targets: got shape {targets.shape}, expected {logits.shape[:-1]} for logits {logits.shape}.")
    if not isinstance(targets, jax.core.Tracer) and targets.size:
        # A numpy array, because operations on a captured JAX array are staged inside jit.
        numbers = _parallel.to_host(targets)
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high >= logits.shape[-1]:
            raise ValueError(f"targets: got class numbers from {low} to {high}, expected 0 to {logits.shape[-1] - 1}.")
    return logits, jnp.asarray(targets)


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return half the squared error of each example (n,), summed over outputs: ½ Σⱼ (yⱼ − tⱼ)².

    outputs, targets: (n, out). ValueError if the shapes differ, since broadcasting is nearly always a mistake here.

    Examples
    --------
    >>> squared_error(jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 1.0]])).tolist()
    [2.5]
    """
    outputs, targets = _checks.floats(outputs, "outputs"), _checks.floats(targets, "targets")
    if outputs.shape != targets.shape or outputs.ndim < 1:
        raise ValueError(f"targets: got shape {targets.shape}, expected the shape of the outputs, {outputs.shape}.")
    return optax.losses.l2_loss(outputs, targets.astype(outputs.dtype)).sum(-1)


def mean(values: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """Return the weighted mean Σ wᵢ vᵢ / Σ wᵢ of per-example losses (n,); the plain mean when `weights` is None.

    Examples of weight 0, such as the padding of a batch, do not count. ValueError if the shapes differ; outside jit,
    also if a weight is negative or not finite, or all are zero.

    Examples
    --------
    >>> float(mean(jnp.array([1.0, 2.0, 9.0]), jnp.array([1.0, 1.0, 0.0])))
    1.5
    """
    values = _checks.floats(values, "values")
    if weights is None:
        return jnp.mean(values)
    weights = _checks.floats(weights, "weights")
    if weights.shape != values.shape:
        raise ValueError(f"weights: got shape {weights.shape}, expected the shape of the values, {values.shape}.")
    if not isinstance(weights, jax.core.Tracer):
        _checks.weights(_parallel.to_host(weights))
    return jnp.sum(weights * values) / jnp.sum(weights)


def accuracy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return 1.0 for each example whose largest logit, the first of equal ones, is at its target, else 0.0.

    logits, targets and errors: see `cross_entropy`; under jit, a target out of range gives 0. Reduce with `mean`.

    Examples
    --------
    >>> accuracy(jnp.array([[0.0, 2.0], [1.0, 0.0]]), jnp.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    logits, targets = _checked_classes(logits, targets)
    return (jnp.argmax(logits, axis=-1).astype(targets.dtype) == targets).astype(logits.dtype)
