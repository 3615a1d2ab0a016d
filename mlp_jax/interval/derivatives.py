"""Slopes of elementary functions: enclosures of (φ(u) − φ(c)) / (u − c), and of both partial slopes of logaddexp.

The mean of φ' between c and u is in φ'(X), and differs from φ'(c) by at most max |φ''| |u − c| / 2.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlp_jax.interval import ball, elementary
from mlp_jax.interval.ball import Array, Ball, Refusal


class _Derivatives(NamedTuple):
    """Functions of an argument and of the function's value there: φ', and a bound on |φ''|."""

    first: Callable[[Ball, Ball], Ball]
    second: Callable[[Ball, Ball], Array]


def of(name: str, arguments: Sequence[Any], center: Ball, values: Ball) -> list[Ball]:
    """Return the slopes by each argument, a `slopes.Slope`; the function is `center` at the centre and `values` on X.

    Refusal for a function that has no rule here.
    """
    if name == "logaddexp":
        a, b = (x.range for x in arguments)
        share = elementary.elementwise("logistic", ball.sub(a, b))
        return [share, elementary.elementwise("logistic", ball.sub(b, a))]
    if name not in _RULES:
        raise Refusal(f"{name}: its slopes are not known")
    rule, (argument,) = _RULES[name], arguments
    anywhere = rule.first(argument.range, values)
    half = 0.5 * rule.second(argument.range, values) * distance(argument.center, argument.range)
    return [near(anywhere, rule.first(argument.center, center), half)]


def near(anywhere: Ball, middle: Ball, radius: Array) -> Ball:
    """Return balls within a radius of others, where they overlap with an enclosure."""
    return ball.intersection(anywhere, ball.outward(middle.mid, middle.radius + radius))


def distance(center: Ball, box: Ball) -> Array:
    """Return a bound on |u − c|, to the accuracy of a sum of non-negative numbers."""
    gap = np.abs(box.mid - center.mid)
    return gap + ball.UNIT * (np.abs(box.mid) + np.abs(center.mid)) + box.radius + center.radius


def size(a: Ball) -> Array:
    """Return a bound on the numbers in balls, to the accuracy of a sum of non-negative numbers."""
    return np.abs(a.mid) + a.radius


def _one(a: Ball) -> Ball:
    return ball.exact(np.ones(a.shape))


def _tanh_first(u: Ball, t: Ball) -> Ball:
    return ball.sub(_one(t), ball.square(t))


def _tanh_second(u: Ball, t: Ball) -> Array:
    # |2 t (1 − t²)| is at most 4/√27 < .77.
    return np.minimum(0.77, 2 * size(t) * size(_tanh_first(u, t)))


def _logistic_first(u: Ball, s: Ball) -> Ball:
    # s (1 − s) = 1/4 − (s − 1/2)²
    half = ball.sub(s, ball.exact(np.full(s.shape, 0.5)))
    return ball.sub(ball.exact(np.full(s.shape, 0.25)), ball.square(half))


def _logistic_second(u: Ball, s: Ball) -> Array:
    # |s (1 − s) (1 − 2 s)| is at most 1/(6√3) < .0963.
    return np.minimum(0.0963, size(_logistic_first(u, s)) * size(ball.sub(_one(s), ball.add(s, s))))


def _sqrt_first(u: Ball, r: Ball) -> Ball:
    return ball.div(ball.exact(np.full(r.shape, 0.5)), r)


def _other(name: str, sign: float = 1.0) -> Callable[[Ball, Ball], Ball]:
    return lambda u, value: ball.mul(ball.exact(np.array(sign)), elementary.elementwise(name, u))


_RULES: dict[str, _Derivatives] = {
    "cos": _Derivatives(_other("sin", -1.0), lambda u, value: size(value)),
    "exp": _Derivatives(lambda u, value: value, lambda u, value: size(value)),
    "expm1": _Derivatives(_other("exp"), lambda u, value: size(value) + 1),
    "log": _Derivatives(lambda u, value: ball.inverse(u), lambda u, value: size(ball.square(ball.inverse(u)))),
    "logistic": _Derivatives(_logistic_first, _logistic_second),
    "sin": _Derivatives(_other("cos"), lambda u, value: size(value)),
    "sqrt": _Derivatives(_sqrt_first, lambda u, r: 0.25 * size(ball.inverse(ball.product(u, r)))),
    "tanh": _Derivatives(_tanh_first, _tanh_second),
}
