"""A function of some leaves of its parameters, the others held fixed. Transformable."""

import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mlp_jax import _checks
from mlp_jax.curvature.types import Fun, PyTree


def restrict(fun: Fun, params: PyTree, part: Callable[[PyTree], PyTree]) -> tuple[Fun, PyTree]:
    """Return `fun` as a function of a part of its parameters, such as a layer, and that part of params. Transformable.

    part_fun(part_params, params, *args) = fun(params with that part replaced by part_params, *args). Its Hessian is the
    block of the Hessian of `fun` that belongs to the part. Pass the whole params as its first further argument:
    `curvature.hessian(part_fun, part_params, (params, *args))`. Everything that takes `fun, params, args` accepts it.

    The result holds no numbers. With the same `fun` object, structure of params and choice of leaves, later calls
    compile nothing, whatever the params.

    Parameters
    ----------
    fun, params
        A function `(params, *args) -> scalar`, and any pytree of floating arrays.
    part
        params -> the leaves that vary, in any pytree: `lambda p: p[0]` for the first layer,
        `lambda p: [layer.weight for layer in p]`. It is called with shapes and dtypes in place of the arrays.

    Raises
    ------
    TypeError
        `fun` or `part` is not a function, or params are not floating.
    ValueError
        `part` returns something that is not a leaf of params, a leaf twice, or none; params are not finite.

    Examples
    --------
    >>> fun = lambda p, x: x * p["a"] ** 2 * p["b"] + p["b"] ** 3
    >>> params = {"a": jnp.array(1.0), "b": jnp.array(3.0)}
    >>> part_fun, b = restrict(fun, params, lambda p: p["b"])
    >>> float(part_fun(b, params, 5.0)), float(jax.hessian(part_fun)(b, params, 5.0))
    (42.0, 18.0)
    """
    _checks.function(fun, "fun", "(params, *args) -> scalar")
    _checks.function(part, "part", "params -> leaves of params")
    _checks.params(params)
    structure: Any
    part_structure: Any
    leaves, structure = jax.tree.flatten(params)
    stand_ins = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
    picked, part_structure = jax.tree.flatten(part(structure.unflatten(stand_ins)))
    number = {id(stand_in): i for i, stand_in in enumerate(stand_ins)}
    chosen = tuple(number.get(id(leaf), -1) for leaf in picked)
    if not chosen or -1 in chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"part: got {picked}, expected some of the leaves of params, unchanged and each once.")
    # A method of `fun`: it keeps `fun` alive, and caches recognise it while `fun` lives without holding it themselves.
    part_fun = types.MethodType(_with_part(structure, part_structure, chosen), fun)
    return part_fun, part_structure.unflatten([leaves[i] for i in chosen])


@functools.cache
def _with_part(structure: Any, part_structure: Any, chosen: tuple[int, ...]) -> Callable[..., Any]:
    """Return (fun, part, params, *args) ↦ fun(params with the chosen leaves from `part`, *args)."""

    def value(fun: Fun, part: PyTree, params: PyTree, *args: Any) -> Any:
        leaves = structure.flatten_up_to(params)
        for i, leaf in zip(chosen, part_structure.flatten_up_to(part), strict=True):
            leaves[i] = leaf
        return fun(structure.unflatten(leaves), *args)

    return value
