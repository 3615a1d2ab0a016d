"""The second-order Taylor model of a function at a point, and its remainder. Transformable."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, tree
from mlp_jax.curvature import operators, precision
from mlp_jax.curvature.types import Fun, PyTree

# A remainder this many times its rounding level is accurate to about a percent, enough for a slope.
_TRUSTED = 100.0


class TaylorRemainder(NamedTuple):
    """The remainder of the second-order model along a line.

    steps
        (k,) distances t along the direction.
    values
        (k,) |fun(θ + t v) − m(θ + t v)|.
    rounding
        (k,) size below which a value is only rounding: one unit roundoff of each of the four terms that are
        subtracted. The error of evaluating `fun` is not included, and can be several times larger.
    slope
        Least-squares slope of log(values) against log(steps) over the values above 100 × rounding; NaN if there are
        fewer than two. It is 3 for a generic smooth function, and more if the third derivative along v vanishes. If
        that is merely small, the fourth order changes the slope at finite t, with opposite signs along v and −v: the
        mean of the two slopes is free of it to first order.
    """

    steps: jax.Array
    values: jax.Array
    rounding: jax.Array
    slope: jax.Array


@precision.whole_products
def quadratic_model(fun: Fun, params: PyTree, args: tuple[Any, ...] = ()) -> Callable[[PyTree], jax.Array]:
    """Return the second-order Taylor model of `fun` at `params`, a function of any other point. Transformable.

    m(θ') = fun(θ) + (θ' − θ)ᵀ g + ½ (θ' − θ)ᵀ H (θ' − θ), with g the gradient and H the Hessian at θ. No matrix
    is formed: value, gradient and the linearised gradient are computed once, here; each call of the model then
    costs one Hessian-vector product.

    fun, params, args: see `hessian`, also for the errors raised. The model takes a `point` with the structure and
    shapes of `params` (ValueError otherwise) and returns a scalar.

    Examples
    --------
    At 1 the cube has value 1, slope 3 and curvature 6; the model at 3 is 1 + 2·3 + ½·2²·6:

    >>> model = quadratic_model(lambda x: x**3, jnp.array(1.0))
    >>> float(model(jnp.array(3.0)))
    19.0
    """
    precision.require_scalar_function(fun, params, args)
    value, gradient = jax.value_and_grad(fun)(params, *args)
    product = operators.linearize_gradient(lambda p: fun(p, *args), params)

    def model(point: PyTree) -> jax.Array:
        step = jax.tree.map(jnp.subtract, _checks.direction(point, params, "point"), params)
        return value + tree.dot(step, gradient) + 0.5 * tree.dot(step, product(step))

    return model


@precision.whole_products
def taylor_remainder(
    fun: Fun, params: PyTree, direction: PyTree, steps: jax.Array, args: tuple[Any, ...] = ()
) -> TaylorRemainder:
    """Return the remainder of the second-order model at params + t · direction for several t. Transformable.

    R(t) = |fun(θ + t v) − fun(θ) − t gᵀv − ½ t² vᵀHv| = |t|³/6 · |D³fun(θ)[v, v, v]| + O(t⁴) (Nocedal & Wright 2006,
    "Numerical Optimization", theorem 2.1): R falls with slope 3 on log–log axes as t → 0 until rounding takes over.
    Costs one Hessian-vector product, and one evaluation of `fun` per step. For many directions use `jax.vmap` over
    `direction`.

    Parameters
    ----------
    fun, params, args
        See `hessian`, also for the errors raised.
    direction
        v: a pytree of the structure and shapes of `params`; not normalised here.
    steps
        (k,) distances t, not zero, in units of the length of v.

    Raises
    ------
    ValueError
        The direction does not fit `params` or is not finite; the steps are not a vector or, outside jit, are 0 or not
        finite.

    Examples
    --------
    At 0 the model of exp leaves t³/6 + t⁴/24 + …:

    >>> remainder = jax.jit(taylor_remainder, static_argnums=0)
    >>> result = remainder(jnp.exp, 0.0, 1.0, jnp.array([0.05, 0.1, 0.2]))
    >>> [f"{v:.1e}" for v in result.values]
    ['2.1e-05', '1.7e-04', '1.4e-03']
    >>> print(f"{result.slope:.1f}")
    3.0
    """
    precision.require_scalar_function(fun, params, args)
    direction = _checks.direction(direction, params, "direction")
    steps = _checks.numbers(steps, "steps", "(k,)", finite=True)
    if not _checks.is_traced(steps) and not np.all(np.asarray(steps)):
        raise ValueError("steps: got a step of 0, expected distances that are not 0.")
    value, gradient = jax.value_and_grad(fun)(params, *args)
    product = operators.hessian_product(fun)(params, args, direction)
    steps = jnp.asarray(steps, dtype=value.dtype)
    first = steps * tree.dot(gradient, direction)
    second = 0.5 * steps**2 * tree.dot(product, direction)

    def along(step: jax.Array) -> jax.Array:
        return fun(jax.tree.map(lambda p, v: p + step.astype(v.dtype) * v, params, direction), *args)

    reached = jax.vmap(along)(steps)
    unit = jnp.finfo(value.dtype).eps / 2
    rounding = unit * (jnp.abs(reached) + jnp.abs(value) + jnp.abs(first) + jnp.abs(second))
    values = jnp.abs((reached - value) - first - second)
    slope = log_log_slope(jnp.abs(steps), values, values > _TRUSTED * rounding)
    return TaylorRemainder(steps, values, rounding, slope)


def log_log_slope(x: jax.Array, y: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Return the least-squares slope of log y against log x: the p of the power law y ∝ xᵖ. Transformable.

    `x` and `y` are (k,), positive where the (k,) `mask` is True; None includes all points. NaN if fewer than two points
    are included or all have the same x. Raises ValueError if the shapes differ.

    Examples
    --------
    >>> x = jnp.array([1.0, 2.0, 4.0])
    >>> print(f"{log_log_slope(x, 5.0 * x**3):.3f}")
    3.000
    """
    x, y = (_checks.floats(a, name) for a, name in ((x, "x"), (y, "y")))
    mask = jnp.ones(x.shape, bool) if mask is None else jnp.asarray(mask, bool)
    if x.ndim != 1 or not x.shape == y.shape == mask.shape:
        raise ValueError(f"y: got x {x.shape}, y {y.shape} and mask {mask.shape}, expected vectors of one length.")
    count = jnp.sum(mask)
    log_x, log_y = (_centred_log(a, mask, count) for a in (x, y))
    spread = jnp.sum(log_x * log_x)
    known = (count >= 2) & (spread > 0)
    return jnp.where(known, jnp.sum(log_x * log_y) / jnp.where(known, spread, 1), jnp.nan)


def _centred_log(a: jax.Array, mask: jax.Array, count: jax.Array) -> jax.Array:
    logs = jnp.log(jnp.where(mask, a, 1))
    mean = jnp.sum(logs) / jnp.maximum(count, 1).astype(logs.dtype)
    return jnp.where(mask, logs - mean, 0)
