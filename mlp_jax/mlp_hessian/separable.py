"""Whether a penalty is a sum of functions of one parameter each, so that its Hessian is diagonal."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from mlp_jax.mlp import Params

# Primitives whose result has in each place what the operands have there.
_ELEMENTWISE = frozenset({
    "add", "add_any", "convert_element_type", "copy", "div", "mul", "neg", "select_n", "sub",
})  # fmt: skip


def diagonal(penalty: Callable[[Params], jax.Array], params: Params) -> Params | None:
    """Return the diagonal of ∂² penalty as params; None if it is not seen to be diagonal.

    It is where each leaf of the derivative of the gradient depends on the tangent of the same leaf alone, through
    elementwise operations of its shape.
    """

    def product(tangent: Params) -> Params:
        return jax.jvp(jax.grad(penalty), (params,), (tangent,))[1]

    jaxpr = jax.make_jaxpr(product)(params).jaxpr
    leaves = range(len(jaxpr.invars))
    if any(not of <= {i} for i, of in zip(leaves, _tangents(jaxpr, [{i} for i in leaves]), strict=True)):
        return None
    return product(jax.tree.map(jax.numpy.ones_like, params))


def _tangents(jaxpr: Any, inputs: list[set[int]]) -> list[set[int]]:
    """Return on which tangents each output depends elementwise; on −1 too if otherwise."""
    found: dict[Any, set[int]] = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> set[int]:
        return set() if isinstance(atom, core.Literal) else found.get(atom, set())

    for equation in jaxpr.eqns:
        of = [read(atom) for atom in equation.invars]
        inner = equation.params.get("jaxpr")
        if equation.primitive.name in ("jit", "pjit") and inner is not None:
            outputs = _tangents(inner.jaxpr, of)
        else:
            shape = equation.outvars[0].aval.shape
            same = all(atom.aval.shape == shape for atom, tangents in zip(equation.invars, of, strict=True) if tangents)
            apart = set() if equation.primitive.name in _ELEMENTWISE and same else {-1}
            together = set[int]().union(*of)
            outputs = [together | apart if together else set()] * len(equation.outvars)
        found.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
