"""Hessian, Gauss–Newton and Fisher matrices as linear maps on pytrees, without the matrices. Transformable.

A matvec takes a pytree shaped like params and returns another. Make it inside the function that you jit, with data
as arguments of that function; then a second call with the same functions and shapes compiles nothing:

>>> half_square = lambda p, x: jnp.sum((x @ p) ** 2) / 2
>>> product = jax.jit(lambda p, v, x: hessian(half_square, p, (x,))(v))
>>> product(jnp.ones(2), jnp.array([1.0, 0.0]), jnp.array([[1.0, 2.0], [0.0, 1.0]])).tolist()
[1.0, 2.0]

Outside jit a matvec runs one operation at a time, and one that streams is compiled again at every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

from mlp_jax import tree
from mlp_jax.curvature import precision
from mlp_jax.tree import PyTree

Matvec = Callable[[PyTree], PyTree]


def hessian(fun: Callable[..., jax.Array], params: PyTree, args: tuple = ()) -> Matvec:
    """Return v ↦ H v, where H is the Hessian of `fun` with respect to params. Transformable.

    The gradient is linearised once, here; each product then costs about as much as a gradient
    (Pearlmutter 1994). It computes in the precision of params and args. What it keeps between products grows with
    the data in args; where that is too much, and `fun` is a mean over examples, use `hessian_of_mean`.

    Parameters
    ----------
    fun
        `(params, *args) -> scalar`.
    params
        Any pytree of floating arrays.
    args
        Further arguments of `fun`.

    Returns
    -------
    A function from a pytree shaped like params to another.

    Raises
    ------
    TypeError, ValueError
        As `precision.require_scalar_function`.

    Examples
    --------
    >>> matvec = hessian(lambda x: x["a"] ** 2 * x["b"], {"a": jnp.array(1.0), "b": jnp.array(3.0)})
    >>> product = matvec({"a": jnp.array(1.0), "b": jnp.array(0.0)})
    >>> float(product["a"]), float(product["b"])
    (6.0, 2.0)
    """
    precision.require_scalar_function(fun, params, args)
    _, matvec = jax.linearize(lambda p: jax.grad(fun)(p, *args), params)
    return matvec


def hessian_of_mean(
    per_example: Callable[..., jax.Array],
    params: PyTree,
    args: tuple,
    *,
    weights: jax.Array | None = None,
    chunk_size: int | None = None,
) -> Matvec:
    """Return v ↦ H v for the Hessian of a mean over examples, streaming over them if asked. Transformable.

    H = Σ wᵢ ∇²ℓᵢ / Σ wᵢ with ℓ = per_example(params, *args). With a `chunk_size`, products visit the examples so
    many at a time and keep nothing in between: beyond the data, memory is that of one chunk, whatever the number
    of examples, and a product costs about one and a half gradients. Without one the gradient is linearised once,
    here, as in `hessian`: faster products, memory that grows with the data. The result does not depend on the chunk
    size beyond rounding: a last chunk that is not full is filled with examples of weight 0.

    A penalty is not a mean over examples: add the product of its own `hessian`.

    Parameters
    ----------
    per_example
        `(params, *args) -> (n,)`; each value depends only on its own example, so no batch normalisation.
    params
        Any pytree of floating arrays.
    args
        The data: every array has the n examples on its first axis.
    weights
        (n,) non-negative, not all zero; equal when None.
    chunk_size
        Examples at a time, 1 or more; all at once when None.

    Returns
    -------
    A function from a pytree shaped like params to another.

    Raises
    ------
    TypeError
        `per_example` is not a function, or its values are not floating; params are not floating; args is not a
        tuple; the chunk size is not a whole number.
    ValueError
        There are no examples, or arrays of different numbers of them; the values or the weights are not one an
        example; the chunk size is below 1; outside jit, a number is NaN or infinite, or the weights are negative
        or all zero.

    Examples
    --------
    >>> values = lambda p, x: (x @ p) ** 2 / 2
    >>> inputs = jnp.array([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]])
    >>> matvec = jax.jit(hessian_of_mean(values, jnp.ones(2), (inputs,), chunk_size=2))
    >>> [round(float(a), 4) for a in 3 * matvec(jnp.array([1.0, 0.0]))]
    [10.0, 2.0]
    """
    _require_function(per_example, "per_example", "(params, *args) -> (n,)")
    _require_values(per_example, "per_example", params, args)

    def build(p: PyTree, examples: tuple, shares: jax.Array) -> Matvec:
        return jax.linearize(jax.grad(lambda q: _weighted_sum(per_example(q, *examples), shares)), p)[1]

    return _over_examples(build, params, args, weights, chunk_size)


def ggn(
    model: Callable[..., PyTree],
    loss: Callable[..., jax.Array],
    params: PyTree,
    args: tuple,
    *,
    weights: jax.Array | None = None,
    chunk_size: int | None = None,
) -> Matvec:
    """Return v ↦ G v for the generalised Gauss–Newton matrix of a mean loss. Transformable.

    G = Σ wᵢ Jᵢᵀ (∂²ℓᵢ/∂zᵢ²) Jᵢ / Σ wᵢ, with outputs zᵢ = model(params, inputsᵢ), their Jacobian Jᵢ in params, and
    ℓ = loss(z, targets). It is the Hessian without the curvature of the model: positive semidefinite when the loss
    is convex in z, equal to the Hessian where the model is linear or every residual ∂ℓ/∂z is zero (Schraudolph
    2002, "Fast curvature matrix-vector products"; Martens 2020).

    Parameters
    ----------
    model
        `(params, inputs) -> outputs`, each example by itself: (n, ...) or a pytree of such.
    loss
        `(outputs, targets) -> (n,)`, each example by itself.
    params
        Any pytree of floating arrays.
    args
        `(inputs, targets)`, each an array or a pytree with the n examples on its first axis.
    weights, chunk_size
        As in `hessian_of_mean`.

    Returns
    -------
    A function from a pytree shaped like params to another.

    Raises
    ------
    TypeError, ValueError
        As `hessian_of_mean`; also `model` or `loss` is not a function, or args is not a pair.

    Examples
    --------
    A linear model under half the squared error: G is the second moment of the inputs.

    >>> model = lambda p, x: x @ p
    >>> loss = lambda z, y: (z - y) ** 2 / 2
    >>> inputs, targets = jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.zeros(2)
    >>> ggn(model, loss, jnp.ones(2), (inputs, targets))(jnp.array([1.0, 0.0])).tolist()
    [5.0, 1.0]
    """
    _require_model_and_loss(model, loss, params, args)
    return _gauss_newton(lambda p, x, y: model(p, x), lambda z, x, y: loss(z, y), params, args, weights, chunk_size)


def fisher(
    model: Callable[..., PyTree],
    loss: Callable[..., jax.Array],
    params: PyTree,
    args: tuple,
    *,
    sample: Callable[[jax.Array, PyTree], PyTree] | None = None,
    key: jax.Array | None = None,
    num_samples: int = 1,
    weights: jax.Array | None = None,
    chunk_size: int | None = None,
) -> Matvec:
    """Return v ↦ F v for the true Fisher information matrix, of the model's own predictions. Transformable.

    F = Σ wᵢ E[∇ log p(t|zᵢ) ∇ log p(t|zᵢ)ᵀ] / Σ wᵢ, gradients in params, t drawn from p(·|zᵢ), with −log p = loss up
    to a constant: the targets in args do not enter. (With them in the place of t it is `empirical_fisher`, another
    matrix: Kunstner et al. 2019, "Limitations of the empirical Fisher approximation".) The expectation is

    - exact for class numbers (integer targets (n,), outputs (n, classes)): a sum over all classes;
    - exact for floating targets when ∂²loss/∂z² can be seen, in the program of the loss, not to use them, as for
      squared error: then F = G, the matrix of `ggn` (Martens 2020, "New insights and perspectives on the natural
      gradient method", section 9);
    - otherwise refused, unless `sample` is given: then an unbiased estimate, the mean over `num_samples` draws an
      example. The draws are fixed by the key and the number of the example, so that every product and every chunk
      size has the same matrix, which is symmetric and positive semidefinite (with JAX's default keys: draws from an
      `rbg` key depend on the batch that they are drawn in, and so on the chunk size).

    Parameters
    ----------
    model, loss, params, args
        As in `ggn`; −loss is a log-likelihood up to a constant.
    sample
        `(key, output) -> target` for one example: a draw from p(·|output).
    key, num_samples
        JAX random key and number of draws an example; only with `sample`.
    weights, chunk_size
        As in `hessian_of_mean`.

    Returns
    -------
    A function from a pytree shaped like params to another.

    Raises
    ------
    TypeError, ValueError
        As `ggn`; also the expectation is not known and there is no `sample`, a key without `sample` or the
        reverse, draws that are not shaped like the targets, `num_samples` below 1.

    Examples
    --------
    A coin of probability ½ has Fisher information ¼ in its log-odds:

    >>> logits = lambda p, x: jnp.stack([p * x, jnp.zeros_like(x)], axis=1)
    >>> cross_entropy = lambda z, t: -jnp.take_along_axis(jax.nn.log_softmax(z), t[:, None], axis=1)[:, 0]
    >>> matvec = fisher(logits, cross_entropy, jnp.array(0.0), (jnp.ones(3), jnp.array([0, 0, 1])))
    >>> round(float(matvec(jnp.array(1.0))), 6)
    0.25

    The location of a Cauchy distribution has information ½, here estimated; its loss is not convex:

    >>> location, cauchy = lambda p, x: p * x, lambda z, t: jnp.log1p((z - t) ** 2)
    >>> draw = lambda key, z: z + jax.random.cauchy(key)
    >>> data = (jnp.ones(1000), jnp.zeros(1000))
    >>> estimate = lambda p, key: fisher(location, cauchy, p, data, sample=draw, key=key, num_samples=10)
    >>> product = jax.jit(lambda p, v, key: estimate(p, key)(v))(jnp.array(0.0), jnp.array(1.0), jax.random.key(0))
    >>> 0.45 < float(product) < 0.55
    True
    """
    _require_model_and_loss(model, loss, params, args)
    if sample is not None:
        _require_function(sample, "sample", "(key, output) -> target")
        tree.require_key(key)
        _require_whole_number(num_samples, "num_samples")
        _require_draws(sample, key, jax.eval_shape(model, params, args[0]), args[1])
        inner, outer = _drawn_losses(model, loss, sample, key, num_samples)
        indexed = (*args, jnp.arange(_num_examples(args), dtype=jnp.uint32))
        return _gauss_newton(inner, outer, params, indexed, weights, chunk_size)
    if key is not None or num_samples != 1:
        raise TypeError("sample: got none, but a key or num_samples for it; expected sample=(key, output) -> target.")
    num_classes = _exact_expectation(loss, jax.eval_shape(model, params, args[0]), args[1])
    if num_classes is None:
        return ggn(model, loss, params, args, weights=weights, chunk_size=chunk_size)
    inner, outer = _class_scores(model, loss, num_classes)
    return _gauss_newton(inner, outer, params, args, weights, chunk_size)


def empirical_fisher(
    model: Callable[..., PyTree],
    loss: Callable[..., jax.Array],
    params: PyTree,
    args: tuple,
    *,
    weights: jax.Array | None = None,
    chunk_size: int | None = None,
) -> Matvec:
    """Return v ↦ F̂ v for the empirical Fisher matrix, the second moment of per-example gradients. Transformable.

    F̂ = Σ wᵢ gᵢ gᵢᵀ / Σ wᵢ, with gᵢ the gradient in params of the loss of example i at its own target. Not centred,
    and not the Fisher information of the model, which is `fisher` (Kunstner et al. 2019). Positive semidefinite.

    Parameters
    ----------
    model, loss, params, args, weights, chunk_size
        As in `ggn`.

    Returns
    -------
    A function from a pytree shaped like params to another.

    Raises
    ------
    TypeError, ValueError
        As `ggn`.

    Examples
    --------
    The gradients are (1, 2) and (0, 3):

    >>> model = lambda p, x: x @ p
    >>> inputs = jnp.array([[1.0, 2.0], [0.0, 3.0]])
    >>> matvec = empirical_fisher(model, lambda z, y: z - y, jnp.ones(2), (inputs, jnp.zeros(2)))
    >>> matvec(jnp.array([0.0, 1.0])).tolist()
    [1.0, 6.5]
    """
    _require_model_and_loss(model, loss, params, args)

    def inner(p: PyTree, x: PyTree, y: PyTree) -> jax.Array:
        return loss(model(p, x), y)

    return _gauss_newton(inner, lambda values, x, y: values**2 / 2, params, args, weights, chunk_size)


def _gauss_newton(
    inner: Callable[..., PyTree],
    outer: Callable[..., jax.Array],
    params: PyTree,
    args: tuple,
    weights: jax.Array | None,
    chunk_size: int | None,
) -> Matvec:
    """Σ wᵢ Jᵢᵀ Dᵢ Jᵢ / Σ wᵢ, J the Jacobian of inner(params, *args), D the second derivative of outer(z, *args)."""

    def build(p: PyTree, examples: tuple, shares: jax.Array) -> Matvec:
        outputs, push = jax.linearize(lambda q: inner(q, *examples), p)
        _, bend = jax.linearize(jax.grad(lambda z: _weighted_sum(outer(z, *examples), shares)), outputs)
        pull = jax.linear_transpose(push, p)
        return lambda vector: pull(bend(push(vector)))[0]

    return _over_examples(build, params, args, weights, chunk_size)


def _drawn_losses(
    model: Callable[..., PyTree],
    loss: Callable[..., jax.Array],
    sample: Callable[[jax.Array, PyTree], PyTree],
    key: Any,
    num_samples: int,
) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """Losses (n, num_samples) at drawn targets, and what makes the mean of their g gᵀ a Gauss–Newton matrix."""

    def inner(p: PyTree, x: PyTree, y: PyTree, index: jax.Array) -> jax.Array:
        outputs = model(p, x)
        # Draws depend on params, but the score is the derivative of log p at a fixed draw.
        fixed = jax.lax.stop_gradient(outputs)
        keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), num_samples))(index)

        def losses_of(draw_keys: jax.Array) -> jax.Array:
            return loss(outputs, jax.vmap(sample)(draw_keys, fixed))

        return jax.vmap(losses_of, in_axes=1, out_axes=1)(keys)

    return inner, lambda values, x, y, index: jnp.mean(values**2, axis=1) / 2


def _class_scores(
    model: Callable[..., PyTree], loss: Callable[..., jax.Array], num_classes: int
) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """Scores (n, classes) sₖ = −loss at class k, and log Σ exp(sₖ), whose second derivative is their Fisher matrix."""

    def inner(p: PyTree, x: PyTree, y: jax.Array) -> jax.Array:
        outputs = model(p, x)
        classes = jnp.arange(num_classes, dtype=y.dtype)
        return -jax.vmap(lambda k: loss(outputs, jnp.full(y.shape, k)), out_axes=1)(classes)

    return inner, lambda scores, x, y: jax.nn.logsumexp(scores, axis=1)


def _exact_expectation(loss: Callable[..., jax.Array], outputs: Any, targets: Any) -> int | None:
    """Return the number of classes to sum over, None when F is the Gauss–Newton matrix, or raise."""
    dtype = getattr(targets, "dtype", None)
    shape: tuple[int, ...] = getattr(outputs, "shape", ())
    if dtype is not None and jnp.issubdtype(dtype, jnp.integer) and len(shape) == 2 and targets.shape == shape[:1]:
        return shape[1]
    if _curvature_uses_targets(loss, outputs, targets):
        raise TypeError(
            f"sample: got none, and the Fisher matrix of this loss is not known exactly (targets of dtype {dtype},"
            " on which its second derivative in the outputs seems to depend); expected sample=(key, output) -> target,"
            " or class numbers (n,) for outputs (n, classes), or curvature.ggn where that is known to be equal."
        )
    return None


def _curvature_uses_targets(loss: Callable[..., jax.Array], outputs: PyTree, targets: PyTree) -> bool:
    """Return whether the program of ∂²loss/∂z², without its dead code, reads the targets."""

    def product(z: PyTree, direction: PyTree, y: PyTree) -> PyTree:
        return jax.jvp(jax.grad(lambda u: jnp.sum(loss(u, y))), (z,), (direction,))[1]

    jaxpr = jax.make_jaxpr(product)(outputs, outputs, targets).jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return any(used[2 * len(jax.tree.leaves(outputs)) :])


def _over_examples(
    build: Callable[[PyTree, tuple, jax.Array], Matvec],
    params: PyTree,
    args: tuple,
    weights: jax.Array | None,
    chunk_size: int | None,
) -> Matvec:
    """Return the matvec that `build` makes of all examples at once, or its sum over chunks of them."""
    if chunk_size is not None:
        _require_whole_number(chunk_size, "chunk_size")
    examples, num_examples = jax.tree.map(jnp.asarray, args), _num_examples(args)
    shares = _shares(weights, num_examples)
    if chunk_size is None or chunk_size >= num_examples:
        return build(params, examples, shares)

    def matvec(vector: PyTree) -> PyTree:
        def add_chunk(partial: PyTree, start: jax.Array) -> tuple[PyTree, None]:
            # The last chunk begins early enough to be full; examples that it repeats get weight 0.
            first = jnp.minimum(start, num_examples - chunk_size)
            chunk, chunk_shares = jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, first, chunk_size), (examples, shares)
            )
            is_new = first + jnp.arange(chunk_size) >= start
            product = build(params, chunk, jnp.where(is_new, chunk_shares, 0))(vector)
            return jax.tree.map(jnp.add, partial, product), None

        zeros = jax.tree.map(jnp.zeros_like, vector)
        return jax.lax.scan(add_chunk, zeros, jnp.arange(0, num_examples, chunk_size))[0]

    return matvec


def _weighted_sum(values: jax.Array, shares: jax.Array) -> jax.Array:
    if values.shape != shares.shape:
        raise ValueError(
            f"loss: got values of shape {values.shape} for {shares.size} examples, expected one value an example."
        )
    return jnp.sum(shares.astype(values.dtype) * values)


def _shares(weights: jax.Array | None, num_examples: int) -> jax.Array:
    """Return wᵢ / Σ w."""
    if weights is None:
        return jnp.full(num_examples, 1 / num_examples)
    if jnp.shape(weights) != (num_examples,):
        raise ValueError(f"weights: got shape {jnp.shape(weights)}, expected ({num_examples},), one an example.")
    if not tree.is_traced(weights):
        values = np.asarray(weights, dtype=np.float64)
        if not np.all((values >= 0) & (values < np.inf)) or not np.any(values):
            raise ValueError(
                f"weights: got numbers from {values.min()} to {values.max()},"
                " expected finite ones of 0 or more, at least one above 0."
            )
    weights = jnp.asarray(weights).astype(jnp.result_type(float))
    return weights / jnp.sum(weights)


def _num_examples(args: tuple) -> int:
    leaves = jax.tree_util.tree_leaves_with_path(args)
    sizes = [(f"args{jax.tree_util.keystr(path)}", jnp.shape(leaf)[:1]) for path, leaf in leaves]
    counts = {size for _, size in sizes}
    if len(counts) != 1 or counts & {(), (0,)}:
        found = ", ".join(f"{where}: {size[0] if size else 'a scalar'}" for where, size in sizes) or "no arrays"
        raise ValueError(f"args: got {found}, expected one number of examples, 1 or more, on the first axis of all.")
    return int(counts.pop()[0])


def _require_model_and_loss(model: Any, loss: Any, params: PyTree, args: Any) -> None:
    _require_function(model, "model", "(params, inputs) -> outputs")
    _require_function(loss, "loss", "(outputs, targets) -> (n,)")
    if not isinstance(args, tuple) or len(args) != 2:
        got = f"{len(args)} items" if isinstance(args, tuple) else type(args).__name__
        raise TypeError(f"args: got {got}, expected a pair (inputs, targets).")
    _require_values(lambda p, x, y: loss(model(p, x), y), "loss", params, args)


def _require_values(values_of: Callable[..., Any], name: str, params: PyTree, args: tuple) -> None:
    """Raise unless `values_of(params, *args)` is one real number an example; nothing is compiled."""

    def total(p: PyTree, *examples: Any) -> jax.Array:
        num_examples, values = _num_examples(examples), values_of(p, *examples)
        shape, dtype = getattr(values, "shape", None), getattr(values, "dtype", None)
        if shape != (num_examples,):
            got = type(values).__name__ if shape is None else f"shape {shape}"
            raise ValueError(f"{name}: got a result of {got}, expected shape ({num_examples},), one value an example.")
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{name}: got values of dtype {dtype}, expected real floating point.")
        return jnp.sum(values)

    precision.require_scalar_function(total, params, args)


def _require_draws(sample: Callable[..., PyTree], key: Any, outputs: PyTree, targets: PyTree) -> None:
    keys = jax.eval_shape(lambda k: jax.random.split(k, _num_examples((targets,))), key)
    drawn = jax.eval_shape(jax.vmap(sample), keys, outputs)
    got, expected = ([jnp.shape(leaf) for leaf in jax.tree.leaves(t)] for t in (drawn, targets))
    if got != expected:
        raise ValueError(f"sample: got targets of shapes {got}, expected those of the targets in args, {expected}.")


def _require_function(value: Any, name: str, signature: str) -> None:
    if not callable(value):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a function {signature}.")


def _require_whole_number(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: got {value!r}, expected a whole number of 1 or more.")
    if value < 1:
        raise ValueError(f"{name}: got {value}, expected 1 or more.")
