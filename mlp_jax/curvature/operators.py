"""Hessian and Gauss–Newton matrices as linear maps on pytrees, without the matrices. Transformable.

A matvec takes a pytree shaped like params and returns another. Make it inside the function that you jit, with data
as arguments of that function; then a second call with the same functions and shapes compiles nothing:

>>> half_square = lambda p, x: jnp.sum((x @ p) ** 2) / 2
>>> product = jax.jit(lambda p, v, x: hessian(half_square, p, (x,))(v))
>>> product(jnp.ones(2), jnp.array([1.0, 0.0]), jnp.array([[1.0, 2.0], [0.0, 1.0]])).tolist()
[1.0, 2.0]

Outside jit a matvec runs one operation at a time, and one that streams is compiled again at every call.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mlp_jax import _checks
from mlp_jax.curvature import precision, streaming, tracing
from mlp_jax.curvature.streaming import Over
from mlp_jax.curvature.types import Fun, Matvec, PyTree


@precision.whole_products
def hessian(fun: Fun, params: PyTree, args: tuple = ()) -> Matvec:
    """Return v ↦ H v on pytrees like params, where H is the Hessian of `fun` in params. Transformable.

    The gradient is linearised once, here; each product then costs about as much as a gradient (Pearlmutter 1994), in
    the precision of params and args. Memory between products grows with the data in args; `hessian_of_mean` bounds it
    for a mean over examples.

    Parameters
    ----------
    fun, params, args
        A function `(params, *args) -> scalar`, any pytree of floating arrays, and the further arguments of `fun`.

    Raises
    ------
    TypeError
        `fun` is not a function or does not return one real number, args is not a tuple, params are not floating.
    ValueError
        params are empty; outside jit, params are not finite, or a number in args is NaN or infinite.

    Examples
    --------
    >>> matvec = hessian(lambda x: x["a"] ** 2 * x["b"], {"a": jnp.array(1.0), "b": jnp.array(3.0)})
    >>> product = matvec({"a": jnp.array(1.0), "b": jnp.array(0.0)})
    >>> float(product["a"]), float(product["b"])
    (6.0, 2.0)
    """
    precision.require_scalar_function(fun, params, args)
    return linearize_gradient(lambda p: fun(p, *args), jax.tree.map(jnp.asarray, params))


def hessian_product(fun: Fun) -> Callable[[PyTree, tuple, PyTree], PyTree]:
    """Return (params, args, v) ↦ H v for the Hessian of `fun(params, *args)` in params. Transformable.

    Forward over reverse; reverse over reverse, which is Hᵀ v, if the backward pass has only a reverse-mode derivative
    rule (`jax.custom_vjp`, as that of `odeint`). `linearize_gradient` is the linearised form.
    """

    def product(params: PyTree, args: tuple, vector: PyTree) -> PyTree:
        def gradient(p: PyTree) -> PyTree:
            return jax.grad(fun)(p, *args)

        if _has_forward_mode(gradient, params):
            return jax.jvp(gradient, (params,), (vector,))[1]
        return jax.vjp(gradient, params)[1](vector)[0]

    return product


def linearize_gradient(fun: Callable[[PyTree], jax.Array], params: PyTree) -> Matvec:
    """Return v ↦ H v for the Hessian of `fun(params)`, the gradient linearised once; modes as `hessian_product`.

    The result is a pytree of what the linearisation keeps.
    """
    gradient = jax.grad(fun)
    if _has_forward_mode(gradient, params):
        return jax.linearize(gradient, params)[1]
    return jax.tree_util.Partial(lambda pull, vector: pull(vector)[0], jax.vjp(gradient, params)[1])


def _has_forward_mode(gradient: Callable[[PyTree], PyTree], params: PyTree) -> bool:
    """Return whether the gradient has no `jax.custom_vjp` rule; under jit, forward mode would fail only later."""
    jaxpr = jax.make_jaxpr(gradient)(params).jaxpr
    return all(eqn.primitive.name != "custom_vjp_call" for part in tracing.jaxprs(jaxpr) for eqn in part.eqns)


def preconditioned(matvec: Matvec, diagonal: PyTree) -> Matvec:
    """Return v ↦ D^(−1/2) H D^(−1/2) v for a diagonal preconditioner D. Transformable.

    Its eigenvalues are those of H u = λ D u, and u = D^(−1/2) v. The largest is the preconditioned sharpness of an
    optimizer that divides the gradient by D: on a quadratic, descent with step size η is stable below 2/η, Adam below
    (2 + 2β₁) / ((1 − β₁) η). For Adam D = (1 − β₁ᵗ)(√ν̂ + ε), with ν̂ the corrected second moment after t steps (Cohen
    et al. 2022, "Adaptive gradient methods at the edge of stability").

    Parameters
    ----------
    matvec, diagonal
        A symmetric linear map on pytrees, and the positive entries of D as a pytree like its vectors.

    Raises
    ------
    TypeError, ValueError
        The diagonal is not floating; outside jit, it is not finite or not above 0.

    Examples
    --------
    >>> product = preconditioned(lambda v: jnp.array([3.0, 8.0]) * v, jnp.array([1.0, 4.0]))
    >>> product(jnp.ones(2)).tolist()
    [3.0, 2.0]
    """
    _checks.params(diagonal, "diagonal")
    if not _checks.is_traced(diagonal) and min(float(jnp.min(leaf)) for leaf in jax.tree.leaves(diagonal)) <= 0:
        raise ValueError("diagonal: got an entry of 0 or below, expected numbers above 0.")

    def scaled(vector: PyTree) -> PyTree:
        return jax.tree.map(lambda x, d: x / jnp.sqrt(d), vector, diagonal)

    return lambda vector: scaled(matvec(scaled(vector)))


def hessian_of_mean(
    per_example: Callable[..., jax.Array],
    params: PyTree,
    args: tuple,
    *,
    weights: jax.Array | None = None,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Matvec:
    """Return v ↦ H v for the Hessian of a mean over examples, in chunks if asked. Transformable.

    H = Σ wᵢ ∇²ℓᵢ / Σ wᵢ with ℓ = per_example(params, *args). With a `chunk_size`, a product processes that many
    examples at a time: memory beyond the data is that of one chunk, and a product costs about one and a half
    gradients. Without one, the gradient is linearised once, as in `hessian`: products are faster, and memory grows
    with the data. Up to rounding the result does not depend on the chunk size. A penalty is not a mean over examples:
    add the product of its own `hessian`.

    Parameters
    ----------
    per_example
        `(params, *args) -> (n,)`; each value depends only on its own example (no batch normalisation).
    params
        Any pytree of floating arrays.
    args
        The data: every array has the n examples on its first axis.
    weights
        (n,) non-negative, not all zero; equal when None.
    chunk_size
        Examples at a time on each device, 1 or more; all at once when None.
    mesh
        A `jax.sharding.Mesh`: each of its devices processes its own n / devices examples, linearised or in chunks, and
        a product sends one sum of P numbers between them. None for one device.

    Raises
    ------
    TypeError
        As `hessian`; the chunk size is not an integer, the mesh is not a Mesh.
    ValueError
        As `hessian`; numbers of examples, values or weights differ, the chunk size is below 1; outside jit, weights are
        negative or all zero.

    Examples
    --------
    >>> values = lambda p, x: (x @ p) ** 2 / 2
    >>> inputs = jnp.array([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]])
    >>> matvec = jax.jit(hessian_of_mean(values, jnp.ones(2), (inputs,), chunk_size=2))
    >>> [round(float(a), 4) for a in 3 * matvec(jnp.array([1.0, 0.0]))]
    [10.0, 2.0]
    """
    streaming.require_values(per_example, "per_example", params, args)

    def build(each: Callable[..., PyTree], p: PyTree, examples: tuple, shares: jax.Array) -> Matvec:
        def total(q: PyTree) -> jax.Array:
            return streaming.weighted_sum(each(lambda rows, q: per_example(q, *rows), examples, (q,)), shares)

        return linearize_gradient(total, p)

    return streaming.over_examples(build, params, args, Over(weights, chunk_size, mesh))


def ggn(
    model: Callable[..., PyTree],
    loss: Callable[..., jax.Array],
    params: PyTree,
    args: tuple,
    *,
    weights: jax.Array | None = None,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Matvec:
    """Return v ↦ G v for the generalised Gauss–Newton matrix of a mean loss. Transformable.

    G = Σ wᵢ Jᵢᵀ (∂²ℓᵢ/∂zᵢ²) Jᵢ / Σ wᵢ, with outputs zᵢ = model(params, inputsᵢ), their Jacobian Jᵢ in params, and
    ℓ = loss(z, targets). It is the Hessian without the curvature of the model: positive semidefinite when the loss
    is convex in z, equal to the Hessian where the model is linear or every residual ∂ℓ/∂z is zero (Schraudolph
    2002, "Fast curvature matrix-vector products"; Martens 2020).

    Parameters
    ----------
    model
        `(params, inputs) -> outputs`, each example independently: (n, ...) or a pytree of such arrays.
    loss
        `(outputs, targets) -> (n,)`, each example independently.
    params, args, weights, chunk_size, mesh
        See `hessian_of_mean`, also for the errors raised; args is a pair `(inputs, targets)` of arrays or pytrees.

    Examples
    --------
    A linear model with half the squared error: G is the second moment of the inputs.

    >>> model = lambda p, x: x @ p
    >>> loss = lambda z, y: (z - y) ** 2 / 2
    >>> inputs, targets = jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.zeros(2)
    >>> ggn(model, loss, jnp.ones(2), (inputs, targets))(jnp.array([1.0, 0.0])).tolist()
    [5.0, 1.0]
    """
    require_model_and_loss(model, loss, params, args)
    over = Over(weights, chunk_size, mesh)
    return gauss_newton(lambda p, x, y: model(p, x), lambda z, x, y: loss(z, y), params, args, over)


def gauss_newton(
    inner: Callable[..., PyTree], outer: Callable[..., jax.Array], params: PyTree, args: tuple, over: Over
) -> Matvec:
    """Return v ↦ Σ wᵢ Jᵢᵀ Dᵢ Jᵢ v / Σ wᵢ, with J of inner(params, *args) and D = ∂²outer(z, *args)/∂z²."""

    def build(each: Callable[..., PyTree], p: PyTree, examples: tuple, shares: jax.Array) -> Matvec:
        def total(z: PyTree) -> jax.Array:
            return streaming.weighted_sum(each(lambda rows: outer(*rows), (z, *examples)), shares)

        outputs, push = jax.linearize(lambda q: each(lambda rows, q: inner(q, *rows), examples, (q,)), p)
        _, bend = jax.linearize(jax.grad(total), outputs)
        pull = jax.linear_transpose(push, p)
        return lambda vector: pull(bend(push(vector)))[0]

    return streaming.over_examples(build, params, args, over)


def require_model_and_loss(model: Any, loss: Any, params: PyTree, args: Any) -> None:
    """Raise unless loss(model(params, inputs), targets) is one number per example, for args = (inputs, targets)."""
    if not isinstance(args, tuple) or len(args) != 2:
        got = f"{len(args)} items" if isinstance(args, tuple) else type(args).__name__
        raise TypeError(f"args: got {got}, expected a pair (inputs, targets).")
    streaming.require_values(lambda p, x, y: loss(model(p, x), y), "loss", params, args)
