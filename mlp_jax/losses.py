"""Per-example losses (the caller reduces), their weighted mean, and accuracy; losses over all inputs. Transformable."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mlp_jax import _checks, _parallel

__all__ = ["accuracy", "cross_entropy", "erf_products", "mean", "population", "relu_products", "squared_error"]
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
        expected = "class numbers as integers, by astype(int) if they were read as floating point"
        raise TypeError(f"targets: got dtype {targets.dtype}, expected {expected}.")
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


def population(student: jax.Array, teacher: jax.Array, products: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Return half the mean squared error of a sum of units over all inputs, ½ E (Σᵢ g(wᵢ·x) − Σⱼ g(vⱼ·x))².

    The inputs x are standard Gaussian, and the expectation is in closed form.

    Parameters
    ----------
    student, teacher
        Weights wᵢ and vⱼ of the units, (k, d) and (m, d).
    products
        `relu_products` or `erf_products`, which are of g; or any function of weights (n, d) that returns
        E g(uᵢ·x) g(uⱼ·x), (n, n).

    Raises
    ------
    TypeError, ValueError
        The weights are not matrices of real numbers with equally many columns.

    Examples
    --------
    >>> print(f"{population(jnp.zeros((1, 3)), jnp.eye(3), relu_products):.4f}")  # ½ E (Σⱼ relu(xⱼ))²
    1.2275
    """
    student, teacher = _checks.floats(student, "student"), _checks.floats(teacher, "teacher")
    if student.ndim != 2 or teacher.ndim != 2 or student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"student and teacher: got shapes {student.shape} and {teacher.shape}, expected (k, d) and (m, d)."
        )
    sign = jnp.concatenate([jnp.ones_like(student[:, 0]), -jnp.ones_like(teacher[:, 0])])
    return sign @ products(jnp.concatenate([student, teacher])) @ sign / 2


def relu_products(units: jax.Array) -> jax.Array:
    """Return E relu(uᵢ·x) relu(uⱼ·x) over standard Gaussian inputs x for all pairs of rows (n, d), as (n, n).

    It is ½ ‖uᵢ‖² for i = j, and (s + c (π − t)) / (2π) with c = uᵢ·uⱼ = ‖uᵢ‖ ‖uⱼ‖ cos t and s = ‖uᵢ‖ ‖uⱼ‖ sin t for
    others (Cho & Saul 2009; Safran & Shamir 2018). It is analytic where no two rows are parallel; at t = 0 the third
    derivatives jump.

    Examples
    --------
    >>> print(f"{relu_products(jnp.eye(2))[0, 1]:.4f}")  # 1 / (2π)
    0.1592
    """
    inner, sizes, own = units @ units.T, jnp.sum(units**2, axis=1), jnp.eye(len(units), dtype=bool)
    # Where rows are parallel, the floor leaves the value and its first two derivatives right to rounding, and finite.
    squares = jnp.where(own, 1.0, sizes[:, None] * sizes - inner**2)
    area = jnp.sqrt(jnp.maximum(squares, float(jnp.finfo(units.dtype).tiny) ** 0.25))
    # π − t is computed from the tangent, because arccos has a derivative of 0/0 between parallel rows.
    others = (area + inner * (jnp.pi / 2 + jnp.arctan(inner / area))) / (2 * jnp.pi)
    return jnp.where(own, inner / 2, others)


def erf_products(units: jax.Array) -> jax.Array:
    """Return E erf(uᵢ·x / √2) erf(uⱼ·x / √2) over standard Gaussian inputs x for all pairs of rows (n, d), as (n, n).

    It is (2/π) arcsin(uᵢ·uⱼ / √((1 + ‖uᵢ‖²) (1 + ‖uⱼ‖²))) (Saad & Solla 1995), analytic everywhere.

    Examples
    --------
    >>> print(f"{erf_products(jnp.ones((1, 1)))[0, 0]:.4f}")  # (2/π) arcsin ½
    0.3333
    """
    scale = jnp.sqrt(1 + jnp.sum(units**2, axis=1))
    return 2 / jnp.pi * jnp.arcsin(units @ units.T / (scale[:, None] * scale))
