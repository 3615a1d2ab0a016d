"""The Hessian as a linear map on pytrees, without its matrix. Transformable."""

from __future__ import annotations

from collections.abc import Callable

import jax

from mlp_jax.curvature import precision
from mlp_jax.tree import PyTree


def hessian(fun: Callable[..., jax.Array], params: PyTree, args: tuple = ()) -> Callable[[PyTree], PyTree]:
    """Return v ↦ H v, where H is the Hessian of `fun` with respect to params. Transformable.

    The gradient is linearised once, here; each product then costs about as much as a gradient
    (Pearlmutter 1994). It computes in the precision of params and args.

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
