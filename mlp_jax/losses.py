"""Per-example losses (the caller reduces), their weighted mean, and accuracy. Transformable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlp_jax import _checks, devices


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the softmax cross-entropy of each example: log Σ exp(zⱼ) − z_target, in nats.

    The largest logit is subtracted first, so that neither overflow nor the size of the logits costs accuracy.

    Parameters
    ----------
    logits
        (n, classes) floating.
    targets
        (n,) integers from 0 to classes − 1. The range is checked where the numbers are known, outside jit.

    Returns
    -------
    (n,) losses. Where targets are traced, NaN with NaN derivatives for one that is out of range; a weight of 0 does not
    take it out.

    Raises
    ------
    TypeError
        Targets are not integers, or logits not real numbers.
    ValueError
        The shapes do not fit, or a target is out of range.

    Examples
    --------
    >>> [round(float(v), 4) for v in cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))]
    [1.3863]
    """
    logits, targets = _require_classes(logits, targets)
    if isinstance(targets, jax.core.Tracer):
        # A negative number would count from the end. One past the end gives NaN: in a factor, since the derivative of
        # what is read there would be 0.
        targets = targets.astype(jnp.int32) if targets.dtype.itemsize < 4 else targets  # which may not hold `classes`
        targets = jnp.where(targets < 0, logits.shape[-1], targets)
        logits = logits * _at(jnp.ones_like(logits), targets)[..., None]
    # Not optax's integer-label form: it subtracts logits from their log-sum-exp, and so loses |z| · eps.
    return -_at(jax.nn.log_softmax(logits), targets)


def _at(rows: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the number of each row at its target, NaN where there is none."""
    return jnp.take_along_axis(rows, targets[..., None], axis=-1, mode="fill")[..., 0]


def _require_classes(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return floating logits and targets, of which outside jit each is the number of a logit."""
    logits, targets = _checks.floats(logits, "logits"), _checks.numbers(targets, "targets")
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(f"targets: got dtype {targets.dtype}, expected integers (class numbers).")
    if logits.ndim < 1 or targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"targets: got shape {targets.shape}, expected {logits.shape[:-1]} to fit logits of shape {logits.shape}."
        )
    if not isinstance(targets, jax.core.Tracer) and targets.size:
        # A numpy array, because operations on a captured JAX array are staged inside jit.
        numbers = devices.to_host(targets)
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high >= logits.shape[-1]:
            raise ValueError(f"targets: got class numbers from {low} to {high}, expected 0 to {logits.shape[-1] - 1}.")
    return logits, jnp.asarray(targets)


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return half the squared error of each example, summed over outputs: ½ Σⱼ (yⱼ − tⱼ)².

    Parameters
    ----------
    outputs, targets
        (n, out) of the same shape.

    Returns
    -------
    (n,) losses.

    Raises
    ------
    TypeError
        Something else than real numbers.
    ValueError
        The shapes differ (broadcasting here is nearly always a mistake).

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
    """Return the weighted mean Σ wᵢ vᵢ / Σ wᵢ; the plain mean when `weights` is None.

    Weights of 0 take examples out, so that padded batches give the mean of what they really hold.

    Parameters
    ----------
    values
        (n,) per-example losses.
    weights
        (n,) non-negative, not all zero.

    Returns
    -------
    scalar

    Raises
    ------
    TypeError
        Something else than real numbers.
    ValueError
        The shapes differ, or there is nothing to average; outside jit, a weight is negative or not a finite
        number, or all are zero.

    Examples
    --------
    >>> float(mean(jnp.array([1.0, 2.0, 9.0]), jnp.array([1.0, 1.0, 0.0])))
    1.5
    """
    values = _checks.floats(values, "values")
    if values.size == 0:
        raise ValueError("values: got no examples, expected at least one.")
    if weights is None:
        return jnp.mean(values)
    weights = _checks.floats(weights, "weights")
    if weights.shape != values.shape:
        raise ValueError(f"weights: got shape {weights.shape}, expected the shape of the values, {values.shape}.")
    if not isinstance(weights, jax.core.Tracer):
        _require_weights(devices.to_host(weights))
    return jnp.sum(weights * values) / jnp.sum(weights)


def _require_weights(weights: np.ndarray) -> None:
    bad = int(np.sum(~((weights >= 0) & (weights < np.inf))))
    if bad:
        raise ValueError(f"weights: got {bad} negative or not finite, expected numbers of 0 or more.")
    if not np.any(weights):
        raise ValueError(f"weights: got {weights.size} that are all 0, expected at least one above 0.")


def accuracy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return 1.0 for each example whose largest logit is at its target, else 0.0; reduce with `mean`.

    Of several equal logits the first counts as the largest.

    Parameters
    ----------
    logits
        (n, classes).
    targets
        (n,) class numbers. One that is out of range is never right; outside jit it is refused.

    Returns
    -------
    (n,) of the dtype of logits.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Examples
    --------
    >>> accuracy(jnp.array([[0.0, 2.0], [1.0, 0.0]]), jnp.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    logits, targets = _require_classes(logits, targets)
    return (jnp.argmax(logits, axis=-1).astype(targets.dtype) == targets).astype(logits.dtype)
