"""The noise scale: exact, from two batch sizes, and estimated. Transformable."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax import _checks, tree
from mlp_jax.curvature import streaming
from mlp_jax.tree import PyTree

PerExample = Callable[..., jax.Array]


class Noise(NamedTuple):
    """‖G‖², tr Σ and their ratio tr Σ / ‖G‖², the noise scale: infinite if the estimate of ‖G‖² is 0 or less."""

    squared_gradient: jax.Array
    trace: jax.Array
    scale: jax.Array


class Estimate(NamedTuple):
    """Estimates and their standard errors."""

    value: Noise
    stderr: Noise


def exact(per_example: PerExample, params: PyTree, args: tuple, *, chunk_size: int = 256) -> Noise:
    """Return the noise from the gradient of each example. Transformable.

    Two passes avoid cancellation: G, then the mean of ‖gᵢ − G‖². Memory is that of `chunk_size` gradients.

    Parameters
    ----------
    per_example
        `(params, *args) -> (n,)` losses, each a function of its own example alone.
    params, args
        Any pytree of floating arrays; arrays with the n examples on their first axis.
    chunk_size
        Examples at a time, 1 or more.

    Examples
    --------
    Gradients −1 and −3: mean −2, variance 1.

    >>> noise = exact(lambda p, y: 0.5 * (p - y) ** 2, jnp.array(0.0), (jnp.array([1.0, 3.0]),))
    >>> float(noise.squared_gradient), float(noise.trace), float(noise.scale)
    (4.0, 1.0, 0.25)
    """
    streaming.require_values(per_example, "per_example", params, args)
    num_examples = _checks.count_examples(args)
    chunk_size = _checks.integer(chunk_size, "chunk_size")
    mean = mean_gradient(per_example, params, args)

    def distance(example: tuple) -> jax.Array:
        gradient = mean_gradient(per_example, params, jax.tree.map(lambda a: a[None], example))
        change = jax.tree.map(jnp.subtract, gradient, mean)
        return tree.dot(change, change)

    distances = jax.lax.map(distance, args, batch_size=min(chunk_size, num_examples))
    return _as_noise(tree.dot(mean, mean), jnp.mean(distances))


def coefficient(batch_size: int, *, num_examples: int | None = None) -> float:
    """Return c(B), so that the gradient of a batch of B examples has the covariance c(B) Σ.

    1/B for batches drawn with replacement; (N − B) / (B (N − 1)) for N = `num_examples`, drawn without. ValueError if a
    number is below 1, or B above N.

    Examples
    --------
    >>> coefficient(4), coefficient(4, num_examples=10), coefficient(10, num_examples=10)
    (0.25, 0.16666666666666666, 0.0)
    """
    batch_size = _checks.integer(batch_size, "batch_size", 1, num_examples, "the number of examples")
    if num_examples is None:
        return 1 / batch_size
    return (num_examples - batch_size) / (batch_size * max(1, num_examples - 1))


def two_batches(
    small: jax.Array, large: jax.Array, small_size: int, large_size: int, *, num_examples: int | None = None
) -> Noise:
    """Return the noise from the squared gradient norms of two batch sizes. Transformable.

    Solves E‖G_B‖² = ‖G‖² + c(B) tr Σ for two values of B. The estimates of ‖G‖² and tr Σ are unbiased and linear in the
    norms. Average the norms over batches first: the ratio of single estimates is biased, and ‖G‖² can be negative.

    Parameters
    ----------
    small, large
        ‖G_B‖² at the two sizes, or their means over batches.
    small_size, large_size
        The two batch sizes, 1 ≤ small < large.
    num_examples
        N if batches are drawn without replacement, as in an epoch. If N is not given for such batches, tr Σ is
        overestimated by the factor N / (N − 1) and ‖G‖² underestimated by tr Σ / (N − 1).

    Examples
    --------
    >>> noise = two_batches(jnp.array(5.0), jnp.array(4.5), 1, 2)
    >>> float(noise.squared_gradient), float(noise.trace)
    (4.0, 1.0)
    """
    small_size, large_size = _checked_sizes(small_size, large_size, num_examples)
    small, large = _checks.floats(small, "small"), _checks.floats(large, "large")
    first, second = (coefficient(size, num_examples=num_examples) for size in (small_size, large_size))
    trace = (small - large) / (first - second)
    return _as_noise(small - first * trace, trace)


def estimate(
    key: jax.Array,
    per_example: PerExample,
    params: PyTree,
    args: tuple,
    *,
    small: int,
    large: int,
    num_pairs: int = 32,
    replace: bool = False,
) -> Estimate:
    """Estimate the noise from random batches of two sizes, with standard errors. Transformable.

    ‖G‖² and tr Σ are means of `two_batches` over pairs of independent batches; the standard error of their ratio is of
    first order (delta method). The cost is num_pairs · (small + large) gradients of an example.

    per_example, params, args: see `exact`; small, large: batch sizes, 1 ≤ small < large ≤ n; replace: whether batches
    are drawn with replacement. The result estimates the same quantity either way.

    Examples
    --------
    >>> targets = jnp.array([1.0, 3.0, 2.0, 2.0])
    >>> value, stderr = estimate(jax.random.key(0), lambda p, y: 0.5 * (p - y) ** 2, jnp.array(0.0), (targets,),
    ...                          small=1, large=2, num_pairs=1000)
    >>> bool(abs(value.trace - 0.5) < 4 * stderr.trace)
    True
    """
    _checks.key(key)
    streaming.require_values(per_example, "per_example", params, args)
    num_examples = _checks.count_examples(args)
    small, large = _checked_sizes(small, large, None if replace else num_examples)
    num_pairs = _checks.integer(num_pairs, "num_pairs", 2, 2**30)

    def squared_norm(key: jax.Array, size: int) -> jax.Array:
        rows = jax.random.choice(key, num_examples, (size,), replace=replace)
        gradient = mean_gradient(per_example, params, jax.tree.map(lambda a: jnp.asarray(a)[rows], args))
        return tree.dot(gradient, gradient)

    def pair(key: jax.Array) -> Noise:
        norms = [squared_norm(k, size) for k, size in zip(jax.random.split(key), (small, large), strict=True)]
        return two_batches(norms[0], norms[1], small, large, num_examples=None if replace else num_examples)

    pairs = jax.lax.map(pair, jax.random.split(key, num_pairs))
    samples = jnp.stack([pairs.squared_gradient, pairs.trace])
    means = jnp.mean(samples, axis=1)
    covariance = jnp.cov(samples) / num_pairs
    value = _as_noise(means[0], means[1])
    slope = jnp.stack([-value.scale, jnp.ones_like(value.scale)]) / means[0]
    variance = jnp.where(means[0] > 0, slope @ covariance @ slope, jnp.inf)
    return Estimate(value, Noise(jnp.sqrt(covariance[0, 0]), jnp.sqrt(covariance[1, 1]), jnp.sqrt(variance)))


def _as_noise(squared_gradient: jax.Array, trace: jax.Array) -> Noise:
    positive = squared_gradient > 0
    scale = jnp.where(positive, trace / jnp.where(positive, squared_gradient, 1), jnp.inf)
    return Noise(squared_gradient, trace, scale)


def mean_gradient(per_example: PerExample, params: PyTree, args: tuple) -> PyTree:
    """Return the gradient of the mean of the values."""
    return jax.grad(lambda p: jnp.mean(per_example(p, *args)))(params)


def _checked_sizes(small: int, large: int, num_examples: int | None) -> tuple[int, int]:
    small = _checks.integer(small, "batch sizes")
    large = _checks.integer(large, "batch sizes", small + 1, num_examples, "the larger of the two")
    return small, large
