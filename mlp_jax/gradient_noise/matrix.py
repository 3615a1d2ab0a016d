"""The covariance of per-example gradients: as a linear map, as a matrix, and beside the Hessian. Transformable."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax import _checks, tree
from mlp_jax.curvature import matrices, operators, precision, streaming
from mlp_jax.curvature.types import Matvec, PyTree
from mlp_jax.gradient_noise.noise_scale import PerExample, mean_gradient


def covariance(per_example: PerExample, params: PyTree, args: tuple, *, chunk_size: int | None = None) -> Matvec:
    """Return v ↦ Σ v for the covariance Σ of the per-example gradients. Transformable.

    Σ = Σᵢ (gᵢ − G)(gᵢ − G)ᵀ / N, of rank below N; the gradient of a batch has the covariance c(B) Σ (`coefficient`).
    The gradients are centred before they are squared, so that little is lost to rounding where the noise is much
    smaller than G. A product costs about two gradients. Like any matvec it has eigenpairs: `curvature.eigenpairs` uses
    the matrix of a small network, and Lanczos for a large one.

    Parameters
    ----------
    per_example, params, args
        See `exact`, also for the errors raised.
    chunk_size
        Examples at a time in a product, which bounds its memory; all at once when None.

    Examples
    --------
    The gradients −1 and −3 have the variance 1:

    >>> product = covariance(lambda p, y: 0.5 * (p - y) ** 2, jnp.array(0.0), (jnp.array([1.0, 3.0]),))
    >>> float(product(jnp.array(2.0)))
    2.0
    """
    streaming.require_values(per_example, "per_example", params, args)
    # The values ℓᵢ(θ) − G · θ have the gradients gᵢ − G, and Σ is their Gauss–Newton matrix.
    mean = mean_gradient(per_example, params, args)

    def centred(p: PyTree, *examples: PyTree) -> jax.Array:
        values = per_example(p, *examples)
        return values - tree.dot(mean, p).astype(values.dtype)

    def half_squares(values: jax.Array, *examples: PyTree) -> jax.Array:
        return values**2 / 2

    return operators.gauss_newton(centred, half_squares, params, args, streaming.Over(chunk_size=chunk_size))


@precision.whole_products
def dense_covariance(per_example: PerExample, params: PyTree, args: tuple, *, chunk_size: int = 256) -> jax.Array:
    """Return the covariance of the per-example gradients as a symmetric (P, P) matrix, in the order of `tree.ravel`.

    The mean of (gᵢ − G)(gᵢ − G)ᵀ, in the dtype of params, from one gradient of each example; see `covariance`.
    Transformable. Memory: 2 P² numbers and 2 `chunk_size` gradients.

    Raises
    ------
    MemoryError
        The matrix would not fit in half of the machine's memory: use `covariance`. For the other errors see `exact`.

    Examples
    --------
    >>> targets = jnp.array([[1.0, 0.0], [3.0, 2.0]])
    >>> dense_covariance(lambda p, y: 0.5 * jnp.sum((p - y) ** 2, axis=1), jnp.zeros(2), (targets,)).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    streaming.require_values(per_example, "per_example", params, args)
    matrices.require_memory(tree.size(params), matrices=2)
    return _mean_over_rows(per_example, params, args, chunk_size, lambda rows: rows.T @ rows)


def sign_scale(per_example: PerExample, params: PyTree, args: tuple, *, chunk_size: int = 256) -> jax.Array:
    """Return the noise scale of sign-based updates, (Σⱼ σⱼ / Σⱼ |Gⱼ|)², with σⱼ² the diagonal of Σ. Transformable.

    The sign of the gradient is steepest descent in the maximum norm, so that signal and noise are compared in its dual,
    the ℓ₁ norm (Bernstein, Wang, Azizzadenesheli & Anandkumar 2018, "signSGD: compressed optimisation for non-convex
    problems"). The mean ℓ₁ norm of the noise of a batch is at most √c(B) Σⱼ σⱼ, and √(2/π) times that if the noise is
    Gaussian: with c(B) = 1/B, at this batch size the bound is equal to ‖G‖₁. Infinite where the gradient is zero.
    Memory is that of `chunk_size` gradients. per_example, params, args, errors: see `exact`.

    Examples
    --------
    Gradients (−1, 0) and (−3, −2): means 2 and 1 in size, standard deviations 1 and 1.

    >>> targets = jnp.array([[1.0, 0.0], [3.0, 2.0]])
    >>> round(float(sign_scale(lambda p, y: 0.5 * jnp.sum((p - y) ** 2, axis=1), jnp.zeros(2), (targets,))), 6)
    0.444444
    """
    streaming.require_values(per_example, "per_example", params, args)
    variances = _mean_over_rows(per_example, params, args, chunk_size, lambda rows: jnp.sum(rows**2, axis=0))
    signal = jnp.sum(jnp.abs(tree.ravel(mean_gradient(per_example, params, args))[0]))
    return jnp.where(signal > 0, (jnp.sum(jnp.sqrt(variances)) / jnp.where(signal > 0, signal, 1)) ** 2, jnp.inf)


def _mean_over_rows(
    per_example: PerExample, params: PyTree, args: tuple, chunk_size: int, of: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Return the mean over examples of what `of` sums over the rows (n, P) of gᵢ − G, chunk by chunk."""
    num_examples = _checks.count_examples(args)
    chunk_size = min(_checks.integer(chunk_size, "chunk_size"), num_examples)
    mean = tree.ravel(mean_gradient(per_example, params, args))[0]

    def row(example: tuple) -> jax.Array:
        one = jax.tree.map(lambda a: a[None], example)
        return tree.ravel(mean_gradient(per_example, params, one))[0] - mean

    def add_chunk(total: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        # The last chunk starts early enough to be full; the examples that it repeats count as zeros.
        first = jnp.minimum(start, num_examples - chunk_size)
        chunk = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, first, chunk_size), args)
        is_new = first + jnp.arange(chunk_size) >= start
        return total + of(jnp.where(is_new[:, None], jax.vmap(row)(chunk), 0)), None

    shape = jax.eval_shape(of, jax.ShapeDtypeStruct((chunk_size, mean.size), mean.dtype))
    total, _ = jax.lax.scan(add_chunk, jnp.zeros(shape.shape, shape.dtype), jnp.arange(0, num_examples, chunk_size))
    return total / num_examples


class Alignment(NamedTuple):
    """A covariance Σ beside a Hessian H, along k vectors. Made by `alignment`.

    noise, curvature
        (k,) vᵀ Σ v and vᵀ H v.
    cosine
        ⟨Σ V, H V⟩ / (‖Σ V‖ ‖H V‖) in the Frobenius inner product, V the matrix of the vectors.
    """

    noise: jax.Array
    curvature: jax.Array
    cosine: jax.Array


@precision.whole_products
def alignment(covariance: Matvec, hessian: Matvec, vectors: PyTree) -> Alignment:
    """Return how a covariance of gradients is aligned with a Hessian, along given vectors. Transformable.

    For an orthonormal basis of the whole space the cosine is that of the two matrices, ⟨Σ, H⟩ / (‖Σ‖ ‖H‖); for
    independent entries ±1 or standard normals it is an estimate of it (Hutchinson 1989). It is 1 if one matrix is a
    positive multiple of the other, as for the log-likelihood of a model that is true, at its parameters. Near minima of
    networks the two are similar (Jastrzębski et al. 2017, "Three factors influencing minima in SGD"; Thomas et al.
    2020, "On the interplay between noise and curvature").

    Parameters
    ----------
    covariance, hessian
        Symmetric linear maps on pytrees, such as `covariance(...)` and `curvature.hessian(fun, params, args)`.
    vectors
        A pytree with a leading axis of k on every leaf, such as `curvature.eigenpairs(...).vectors`.

    Raises
    ------
    ValueError
        The leading axes differ in length.

    Examples
    --------
    >>> noise, curvature = (lambda v: jnp.array([1.0, 0.0]) * v), (lambda v: jnp.array([3.0, 4.0]) * v)
    >>> found = alignment(noise, curvature, jnp.eye(2))
    >>> found.noise.tolist(), found.curvature.tolist(), round(float(found.cosine), 4)
    ([1.0, 0.0], [3.0, 4.0], 0.6)
    """
    _checks.common_length(vectors, "vectors")

    def along(vector: PyTree) -> tuple[jax.Array, ...]:
        noise, curvature = covariance(vector), hessian(vector)
        pairs = ((vector, noise), (vector, curvature), (noise, curvature), (noise, noise), (curvature, curvature))
        return tuple(tree.dot(*pair) for pair in pairs)

    noise, curvature, *products = jax.lax.map(along, vectors)
    both, one, other = (jnp.sum(each) for each in products)
    return Alignment(noise, curvature, both / jnp.sqrt(one * other))
