"""First and second derivatives of an activation at a batch of pre-activations; examples are the last axis.

`Elementwise` has a diagonal Jacobian; `Mixing` is for maxout and any other activation that computes an output from
several pre-activations of its layer.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax.mlp import Activation

# Primitives that work entry by entry. An activation with any other primitive is treated as mixing, which is always
# correct, but slower.
_ELEMENTWISE = frozenset((
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e",
    "bessel_i1e", "cbrt", "ceil", "clamp", "convert_element_type", "copy", "cos", "cosh", "digamma", "div", "eq",
    "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le",
    "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "one_minus_square", "or",
    "pow", "rem", "round",
    "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
))  # fmt: skip
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}


class Elementwise(NamedTuple):
    """φ' and φ'' of each unit: (units, n)."""

    slope: jax.Array
    bend: jax.Array

    def pull(self, values: jax.Array) -> jax.Array:
        """Return Σ_l ∂a[l]/∂z[o] values[l], for values (units, n) or (units, m, n)."""
        return (self.slope if values.ndim == 2 else self.slope[:, None]) * values

    def second(self, back: jax.Array) -> jax.Array:
        """Return Σ_l back[l] ∂²a[l]/∂z[o]∂z[p] as (units, units, n)."""
        return jnp.eye(len(back), dtype=back.dtype)[:, :, None] * (back * self.bend)

    def reach(self) -> jax.Array:
        """Return the diagonal of ∂a[l]/∂z[o], (units, n)."""
        return self.slope


class Mixing(NamedTuple):
    """∂a[l]/∂z[o] as (l, o, n); for second derivatives, z (n, units) and the activation."""

    jacobian: jax.Array
    values: jax.Array
    activation: Activation

    def pull(self, values: jax.Array) -> jax.Array:
        """Return Σ_l ∂a[l]/∂z[o] values[l], for values (outputs, n) or (outputs, m, n)."""
        return jnp.einsum("lon,l...n->o...n", self.jacobian, values)

    def second(self, back: jax.Array) -> jax.Array:
        """Return Σ_l back[l] ∂²a[l]/∂z[o]∂z[p] as (units, units, n)."""

        def single(z: jax.Array, weights: jax.Array) -> jax.Array:
            return weights @ self.activation(z[None])[0]

        return jax.vmap(jax.hessian(single), in_axes=(0, -1), out_axes=-1)(self.values, back)

    def reach(self) -> jax.Array:
        """Return ∂a[l]/∂z[o] as (o, l, n)."""
        return self.jacobian.transpose(1, 0, 2)


def derivatives(activation: Activation, values: jax.Array) -> Elementwise | Mixing:
    """Return the derivatives of an activation at values (n, units)."""
    if is_elementwise(activation, values):
        slope, bend = jax.jvp(lambda z: _slope(activation, z), (values,), (jnp.ones_like(values),))
        return Elementwise(slope.T, bend.T)

    def single(z: jax.Array) -> jax.Array:
        return activation(z[None])[0]

    return Mixing(jax.vmap(jax.jacrev(single), out_axes=-1)(values), values, activation)


def is_elementwise(activation: Activation, values: jax.Array) -> bool:
    """Return whether the jaxpr proves that entry i of the result depends on entry i of `values` only."""
    closed = jax.make_jaxpr(activation)(jax.ShapeDtypeStruct(values.shape, values.dtype))
    return closed.out_avals[0].shape == values.shape and all(map(_one_elementwise, closed.jaxpr.eqns))


def _one_elementwise(equation: Any) -> bool:
    name = equation.primitive.name
    if name in _CALLS:
        inner = equation.params[_CALLS[name]]
        return all(map(_one_elementwise, getattr(inner, "jaxpr", inner).eqns))
    # Without a non-scalar operand the result is a constant: only a primitive that is not elementwise reduces z.
    return name in _ELEMENTWISE or not any(v.aval.shape for v in equation.invars)


def _slope(activation: Activation, values: jax.Array) -> jax.Array:
    return jax.jvp(activation, (values,), (jnp.ones_like(values),))[1]
