"""Fisher information matrices as linear maps on pytrees: of the model's own predictions, and empirical. Transformable.

Both are Gauss–Newton matrices of another loss, and stream over examples as `operators.ggn` does.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval
from jax.sharding import Mesh

from mlp_jax import _checks
from mlp_jax.curvature import operators
from mlp_jax.curvature.streaming import Over
from mlp_jax.curvature.types import Matvec, PyTree

_Model = Callable[..., PyTree]
_Loss = Callable[..., jax.Array]


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
    mesh: Mesh | None = None,
) -> Matvec:
    """Return v ↦ F v for the true Fisher information matrix, of the model's own predictions. Transformable.

    F = Σ wᵢ E[∇ log p(t|zᵢ) ∇ log p(t|zᵢ)ᵀ] / Σ wᵢ, gradients in params, t drawn from p(·|zᵢ), with −log p = loss up
    to a constant. The targets in args are not used; `empirical_fisher` uses them in place of t and is another matrix
    (Kunstner et al. 2019, "Limitations of the empirical Fisher approximation"). The expectation is

    - exact for class numbers (integer targets (n,), outputs (n, classes)): a sum over all classes;
    - exact for floating targets if the program of ∂²loss/∂z² does not read them, as for squared error: then F = G,
      the matrix of `ggn` (Martens 2020, "New insights and perspectives on the natural gradient method", section 9);
    - with `sample`, an unbiased estimate: the mean over `num_samples` draws per example. The key and the example's
      number fix the draws, so every product and every chunk size has the same symmetric positive semidefinite matrix.
      (This holds for JAX's default keys; draws from an `rbg` key depend on their batch, and so on the chunk size.)

    In all other cases a TypeError is raised.

    Parameters
    ----------
    model, loss, params, args, weights, chunk_size, mesh
        See `ggn`, also for the errors raised.
    sample
        `(key, output) -> target` for one example: a draw from p(·|output).
    key, num_samples
        JAX random key and number of draws per example; only with `sample`.

    Examples
    --------
    A coin of probability ½ has Fisher information ¼ in its log-odds:

    >>> logits = lambda p, x: jnp.stack([p * x, jnp.zeros_like(x)], axis=1)
    >>> cross_entropy = lambda z, t: -jnp.take_along_axis(jax.nn.log_softmax(z), t[:, None], axis=1)[:, 0]
    >>> data = jnp.ones(3), jnp.array([0, 0, 1])
    >>> product = jax.jit(lambda p, v: fisher(logits, cross_entropy, p, data)(v))
    >>> round(float(product(0.0, 1.0)), 6)
    0.25
    """
    operators.require_model_and_loss(model, loss, params, args)
    over = Over(weights, chunk_size, mesh)
    if sample is not None:
        _checks.key(key)
        num_samples = _checks.integer(num_samples, "num_samples")
        indexed = (*args, jnp.arange(_checks.count_examples(args), dtype=jnp.uint32))
        keys = jax.eval_shape(lambda k: jax.random.split(k, indexed[2].size), key)
        drawn = jax.eval_shape(jax.vmap(sample), keys, jax.eval_shape(model, params, args[0]))
        _checks.like(drawn, args[1], "sample", "the targets in args")
        inner, outer = _drawn_losses(model, loss, sample, key, num_samples)
        return operators.gauss_newton(inner, outer, params, indexed, over)
    if key is not None or num_samples != 1:
        raise TypeError("sample: got None with a key or num_samples, expected sample=(key, output) -> target.")
    num_classes = _exact_expectation(loss, jax.eval_shape(model, params, args[0]), args[1])
    if num_classes is None:
        return operators.gauss_newton(lambda p, x, y: model(p, x), lambda z, x, y: loss(z, y), params, args, over)
    inner, outer = _class_scores(model, loss, num_classes)
    return operators.gauss_newton(inner, outer, params, args, over)


def empirical_fisher(
    model: Callable[..., PyTree],
    loss: Callable[..., jax.Array],
    params: PyTree,
    args: tuple,
    *,
    weights: jax.Array | None = None,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Matvec:
    """Return v ↦ F̂ v for the empirical Fisher matrix, the second moment of per-example gradients. Transformable.

    F̂ = Σ wᵢ gᵢ gᵢᵀ / Σ wᵢ, with gᵢ the gradient in params of the loss of example i at its own target. Not centred,
    and not the Fisher information of the model, which is `fisher` (Kunstner et al. 2019). Positive semidefinite.
    For the arguments and the errors raised see `ggn`.

    Examples
    --------
    The gradients are (1, 2) and (0, 3):

    >>> model = lambda p, x: x @ p
    >>> inputs = jnp.array([[1.0, 2.0], [0.0, 3.0]])
    >>> matvec = empirical_fisher(model, lambda z, y: z - y, jnp.ones(2), (inputs, jnp.zeros(2)))
    >>> matvec(jnp.array([0.0, 1.0])).tolist()
    [1.0, 6.5]
    """
    operators.require_model_and_loss(model, loss, params, args)
    over = Over(weights, chunk_size, mesh)

    def inner(p: PyTree, x: PyTree, y: PyTree) -> jax.Array:
        return loss(model(p, x), y)

    return operators.gauss_newton(inner, lambda values, x, y: values**2 / 2, params, args, over)


def _drawn_losses(model: _Model, loss: _Loss, sample: Any, key: Any, num_samples: int) -> tuple[_Loss, _Loss]:
    """Return losses (n, num_samples) at drawn targets, and the outer loss whose Gauss–Newton matrix is F."""

    def inner(p: PyTree, x: PyTree, y: PyTree, index: jax.Array) -> jax.Array:
        outputs = model(p, x)
        # Draws depend on params, but the score is the derivative of log p at a fixed draw.
        fixed = jax.lax.stop_gradient(outputs)
        keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), num_samples))(index)

        def losses_of(draw_keys: jax.Array) -> jax.Array:
            return loss(outputs, jax.vmap(sample)(draw_keys, fixed))

        return jax.vmap(losses_of, in_axes=1, out_axes=1)(keys)

    return inner, lambda values, x, y, index: jnp.mean(values**2, axis=1) / 2


def _class_scores(model: _Model, loss: _Loss, num_classes: int) -> tuple[_Loss, _Loss]:
    """Return scores (n, classes) sₖ = −loss at class k, and log Σ exp(sₖ), whose Hessian is their Fisher matrix."""

    def inner(p: PyTree, x: PyTree, y: jax.Array) -> jax.Array:
        outputs = model(p, x)
        classes = jnp.arange(num_classes, dtype=y.dtype)
        return -jax.vmap(lambda k: loss(outputs, jnp.full(y.shape, k)), out_axes=1)(classes)

    return inner, lambda scores, x, y: jax.nn.logsumexp(scores, axis=1)


def _exact_expectation(loss: _Loss, outputs: Any, targets: Any) -> int | None:
    """Return the number of classes to sum over, None when F is the Gauss–Newton matrix, or raise."""
    dtype = getattr(targets, "dtype", None)
    shape: tuple[int, ...] = getattr(outputs, "shape", ())
    if dtype is not None and jnp.issubdtype(dtype, jnp.integer) and len(shape) == 2 and targets.shape == shape[:1]:
        return shape[1]
    if _curvature_uses_targets(loss, outputs, targets):
        raise TypeError(
            f"sample: got None, but the Fisher matrix of this loss is not known exactly (∂²loss/∂z² reads the targets,"
            f" {dtype}); expected sample=(key, output) -> target, or class numbers (n,) for outputs (n, classes)."
        )
    return None


def _curvature_uses_targets(loss: _Loss, outputs: PyTree, targets: PyTree) -> bool:
    """Return whether the program of ∂²loss/∂z², without its dead code, reads the targets."""

    def product(z: PyTree, direction: PyTree, y: PyTree) -> PyTree:
        return operators.hessian_product(lambda u: jnp.sum(loss(u, y)))(z, (), direction)

    jaxpr = jax.make_jaxpr(product)(outputs, outputs, targets).jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return any(used[2 * len(jax.tree.leaves(outputs)) :])
