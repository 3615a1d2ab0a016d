"""Derivative rules that JAX takes on trust (custom_jvp, custom_vjp, stop_gradient), against differences with many bits.

A proof is about the gradient as traced, so a wrong rule would make a theorem about another function. Central
differences of the function against its gradient, and of the gradient against its Hessian, at a random point near the
one that is asked about, are no proof that the rules are right, but wrong ones do not survive them.
"""

from __future__ import annotations

import flint
import numpy as np

from mlp_jax.interval import ball, enclosures, multiprecision
from mlp_jax.interval.ball import Array, Refusal
from mlp_jax.interval.interpreter import evaluate

_NEARBY = 2.0**-7
_STEP = 2.0**-30
# Differences are right to about the square of the step, times third derivatives over first ones.
_TOLERANCE = 1e-8


def require_consistent(traced: enclosures.Traced, point: Array, data: list[Array], bits: int) -> None:
    """Raise Refusal where derivatives and differences contradict each other near a point.

    Examples
    --------
    >>> with jax.enable_x64(True):
    ...     wrong = lambda x: x * jax.lax.stop_gradient(x)
    ...     traced, data = enclosures.trace(wrong, jnp.ones(()), ())
    ...     require_consistent(traced, np.array([1.0]), data, 128)
    Traceback (most recent call last):
    ...
    mlp_jax.interval.rounding.Refusal: the gradient is not that of fun: a rule of stop_gradient is wrong here
    """
    generator = np.random.default_rng(0)
    there = point + _NEARBY * np.maximum(1, np.abs(point)) * generator.standard_normal(point.shape)
    direction = generator.standard_normal(point.shape)
    rules = ", ".join(traced.trusted)
    with flint.ctx.workprec(bits):
        center, way = multiprecision.exact(there), multiprecision.exact(_STEP * direction)

        def difference(program: enclosures.Program) -> Array:
            ahead, behind = (evaluate(program, [p, *data], multiprecision)[0] for p in (center + way, center - way))
            return multiprecision.to_ball((ahead - behind) / (2 * _STEP)).mid

        slope = enclosures.gradient(traced, there, data, bits).mid
        if not _agree(difference(traced.value), slope @ direction, np.abs(slope) @ np.abs(direction)):
            raise Refusal(f"the gradient is not that of fun: a rule of {rules} is wrong here")
        bend = enclosures.hessian_product(traced, ball.exact(there), data, direction).mid
        if not _agree(difference(traced.gradient), bend, np.max(np.abs(bend))):
            raise Refusal(f"the Hessian is not that of fun: a rule of {rules} is wrong here")


def _agree(first: Array, second: Array, size: float) -> bool:
    return bool(np.all(np.abs(first - second) <= _TOLERANCE * (size + np.max(np.abs(first)))))
