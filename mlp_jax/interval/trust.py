"""Tests of the machine's arithmetic, of what JAX takes on trust, and of a Hessian given by the caller.

A proof uses the traced gradient, so a wrong rule would give a theorem about another function. Central differences, with
many bits, of the function are compared with its gradient, and of the gradient with its Hessian, at a random point of a
box on which both are analytic. This does not prove the rules right, but a wrong rule fails the comparison.
"""

import numpy as np

from mlp_jax.interval import ball, enclosures, multiprecision, spectra
from mlp_jax.interval.ball import Array, Ball, Refusal
from mlp_jax.interval.interpreter import evaluate

_BITS = 256
# In units of the box; the error of the differences is about its square.
_STEP = 2.0**-64
# Rules have constants that are rounded to float64, and their terms may cancel.
_TOLERANCE = 2.0**-36
# Least share of a parameter in a direction.
_LEAST = 2.0**-40


def require_ieee() -> None:
    """Raise Refusal unless numpy's arithmetic rounds to nearest and keeps subnormal numbers."""
    one, small = np.ones(4), np.full(4, ball.TINY)
    nearest = (
        np.all(one + ball.UNIT == 1)
        and np.all(one + 3 * ball.UNIT == 1 + 4 * ball.UNIT)
        and np.all(-one - ball.UNIT == -1)
    )
    gradual = np.all(small * 0.5 > 0) and np.all((small * 0.5) * 2 == small) and np.all(np.eye(4) @ (small / 4) > 0)
    if not (nearest and gradual):
        raise Refusal("this machine's arithmetic does not round to nearest, or flushes subnormal numbers")


def require_consistent(traced: enclosures.Traced, box: Ball, data: list[Array]) -> None:
    """Raise Refusal where derivatives contradict differences at a random point of a box."""
    generator = np.random.default_rng(0)
    rules = ", ".join(traced.trusted)
    with multiprecision.bits(_BITS):
        there = multiprecision.random_point(Ball(box.mid, box.radius / 2), generator)
        gradient = evaluate(traced.gradient, [there, *data], multiprecision)[0]
        slope = np.abs(multiprecision.to_ball(gradient).mid)
        # All parameters have an equal part in the change of the value, and about that in the change of the gradient.
        share = np.min(np.maximum(slope, _LEAST * np.max(slope)), initial=np.inf)
        share = share / np.maximum(slope, max(share, ball.TINY)) if share > 0 else np.ones_like(slope)
        for name, program, shares in (("gradient", traced.value, share), ("Hessian", traced.gradient, np.sqrt(share))):
            way = np.min(box.radius) * shares * generator.uniform(0.5, 1, shares.shape)
            way *= generator.choice([-1.0, 1.0], shares.shape)
            if name == "gradient":
                derivative = multiprecision.to_ball(np.sum(gradient * multiprecision.exact(way)))
                size = float(slope @ np.abs(way))
            else:
                derivative = enclosures.hessian_product(traced, multiprecision.to_ball(there), data, way)
                size = np.abs(derivative.mid)
            difference = multiprecision.to_ball(_difference(program, there, way, data))
            gap = np.abs(difference.mid - derivative.mid) + difference.radius
            if not np.all(gap <= _TOLERANCE * size + derivative.radius):
                raise Refusal(f"the {name} is not that of fun: a rule of {rules} is wrong here")


def _difference(program: enclosures.Program, point: Array, way: Array, data: list[Array]) -> Array:
    """Return a central difference of the result of a program at a point, along a way."""
    step = multiprecision.exact(way) * _STEP
    ahead, behind = (evaluate(program, [p, *data], multiprecision)[0] for p in (point + step, point - step))
    return np.asarray((ahead - behind) / (2 * _STEP), dtype=object)


def require_same_hessian(traced: enclosures.Traced, box: Ball, data: list[Array], matrix: Ball) -> None:
    """Raise Refusal unless a matrix of balls and the Hessian of fun on a box have common products with a random vector.

    Every entry counts in the products.
    """
    direction = np.random.default_rng(2).standard_normal(box.shape[0])
    own = enclosures.hessian_product(traced, box, data, direction)
    given = spectra.product(matrix, ball.exact(direction))
    if not np.all(np.abs(own.mid - given.mid) <= (own.radius + given.radius) * (1 + 8 * ball.UNIT)):
        raise Refusal("enclosure: it is not of the Hessian of fun")
