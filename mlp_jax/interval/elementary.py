"""exp, tanh, log, cos and their relatives in float64 with proved error bounds, for whole arrays.

Every bound is on the difference from the exact function, whatever the rounding of each operation to nearest, with
u = 2⁻⁵³. Arguments beyond the limits below, and wide balls, are left to `multiprecision`.

exp(x) = 2ᵏ exp(r), r = x − k ln 2. With ln 2 = H + L + ε, where H has 32 bits and |ε| < 2⁻⁸⁶, k H is exact; two
subtractions round, so that r is off by less than 2 u |r| + 2⁻⁷², and |r| < .347. The Taylor polynomial of degree 13
leaves out less than .347¹⁴ e^.347 / 14! < .06 u. In e^r = 1 + r s(r), s(r) = 1 + r (1/2 + r (1/6 + …)) is off by less
than 3 u of itself, its product by r rounds once, and the sum once: less than (1 + (4 |r s| + .06) / e^r + .7) u of e^r,
which is less than 4 u because |r s| < .3 where r < 0, and < .42 elsewhere. The scaling by 2ᵏ is exact.

tanh(x) = E / (2 + E) where |x| < .17, with E = e²ˣ − 1 = 2x s(2x), off by less than 4.2 u of itself, a sum and a
quotient: less than 8 u of tanh x. Elsewhere (1 − t) / (1 + t) with t = e^(−2|x|) < .72: 8 t u / (1 + t)² < 2 u from t,
and 3 u of two sums and a quotient, together less than 5 u.

cos(x) and sin(x) from r = x − k π/2, |r| < .7855, with π/2 = H + M + L + ε, where H and M have 32 bits and |ε| < 2⁻¹²⁰:
k H and k M are exact for |k| ≤ 2²⁰, and so is x − k H. Two differences round by less than .8 u each, so that r is off
by less than 1.6 u. The Taylor polynomials of degree 16 and 17 leave out less than .7855¹⁸/18! < 2⁻⁵⁸, and their Horner
sums round by less than 2 u: less than 4 u together.

log(x) = y + log(1 − d), d = 1 − x e^(−y), for any y: numpy's logarithm serves as y, and d bounds its error.
"""

import math
from collections.abc import Callable

import numpy as np

from mlp_jax.interval import multiprecision
from mlp_jax.interval.ball import UNIT, Array, Ball, between, bounds, outward, quiet

# Arguments of exp for which 2ᵏ and the result are normal numbers, and radii for which the bounds on balls hold.
_LARGEST, _WIDEST = 700.0, 2.0**-6
# The bounds of the module's docstring: relative, relative and absolute.
_EXP, _TANH_NEAR, _TANH_FAR = 4 * UNIT, 8 * UNIT, 5 * UNIT
_HIGH = float.fromhex("0x1.62e42feep-1")
_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_COEFFICIENTS = 1 / np.cumprod(np.arange(1.0, 14))
# π/2 as a sum of two numbers of 32 bits and a third, to 2⁻¹¹⁷, and Taylor coefficients.
_TURN = tuple(map(float.fromhex, ("0x1.921fb544p+0", "0x1.0b4611a6p-34", "0x1.3198a2e037073p-69")))
_MOST_ANGLE = 2.0**20
_COS = 4 * UNIT
_COS_TERMS = [(-1.0) ** n / math.factorial(2 * n) for n in range(9)]
_SIN_TERMS = [(-1.0) ** n / math.factorial(2 * n + 1) for n in range(9)]
_NEAR = 0.17  # |x| below which tanh is computed from expm1


def elementwise(name: str, *arguments: Ball) -> Ball:
    """Return a function of balls, elementwise, here or by arb; Refusal as from `multiprecision.ball_elementary`."""
    return enclosed(name, *arguments) or multiprecision.ball_elementary(name, *arguments)


def enclosed(name: str, *arguments: Ball) -> Ball | None:
    """Return a function of balls, elementwise; None where it has no rule here or an argument is beyond the limits."""
    if name not in _RULES:
        return None
    widths = [0.0 if a.rad is None else float(np.max(a.rad, initial=0.0)) for a in arguments]
    if max(widths) > _WIDEST and name in _MONOTONE:
        ends = zip(*map(bounds, arguments), strict=True)
        lower, upper = (enclosed(name, *map(Ball, end)) for end in ends)
        return None if lower is None or upper is None else between(bounds(lower)[0], bounds(upper)[1])
    limits = [float(np.max(np.abs(a.mid), initial=0.0)) for a in arguments]
    if not (max(limits) <= _LARGEST and (max(widths) <= _WIDEST or name in _ANY_WIDTH)):
        return None
    return _RULES[name](*arguments)


def _series(r: Array) -> Array:
    """Return (eʳ − 1) / r for |r| < .347."""
    result = np.full(r.shape, _COEFFICIENTS[-1])
    for coefficient in _COEFFICIENTS[-2::-1]:
        result *= r
        result += coefficient
    return result


def _exp_at(x: Array) -> Array:
    """Return exp at |x| ≤ 701 with a relative error below 4 u."""
    k = np.rint(x / np.log(2))
    r = (x - k * _HIGH) - k * _LOW
    return np.asarray(np.ldexp(1 + r * _series(r), k.astype(np.int64)))


def _tanh_at(x: Array) -> Array:
    """Return tanh with an error below 8 u |tanh x| where |x| < .17, and below 5 u elsewhere."""
    size = np.abs(x)
    near = np.minimum(2 * size, 2 * _NEAR)
    small = near * _series(near)
    far = _exp_at(-2 * np.minimum(size, _LARGEST / 2))
    return np.copysign(np.where(size < _NEAR, small / (2 + small), (1 - far) / (1 + far)), x)


@quiet
def _exp(a: Ball) -> Ball:
    """|exp(x ± ρ) − exp(x)| ≤ exp(x) (ρ + ρ²) for ρ ≤ 1."""
    y = _exp_at(a.mid)
    error = np.full(y.shape, _EXP) if a.rad is None else _EXP + (a.rad + a.rad * a.rad) * (1 + _EXP)
    return outward(y, y * error, what="exp")


@quiet
def _tanh(a: Ball) -> Ball:
    """The slope, 1 − tanh², changes by the factor e^2ρ at most, because the derivative of its logarithm is −2 tanh."""
    y = _tanh_at(a.mid)
    rad = np.where(np.abs(a.mid) < _NEAR, _TANH_NEAR * np.abs(y), _TANH_FAR)
    if a.rad is not None:
        rad += a.rad * ((1 - y * y) + 4 * _TANH_FAR) * (1 + 2 * a.rad + 4 * a.rad * a.rad)
    return outward(y, rad, what="tanh")


def _logistic_at(x: Array) -> Array:
    return np.asarray(1 / (1 + _exp_at(-x)))


@quiet
def _logistic(a: Ball) -> Ball:
    """1 / (1 + e⁻ˣ): e⁻ˣ counts e⁻ˣ / (1 + e⁻ˣ) < 1 times, and two roundings. |x ± ρ| ≤ 700.5.

    The derivative s (1 − s) changes by the factor e^ρ at most, because that of its logarithm is 1 − 2 s.
    """
    y = _logistic_at(a.mid)
    rad = y * (_EXP + 4 * UNIT)
    if a.rad is not None:
        rad += a.rad * (y * _logistic_at(-a.mid)) * (1 + a.rad + a.rad * a.rad) * (1 + 4 * _EXP)
    return outward(y, rad, what="logistic")


@quiet
def _log(a: Ball) -> Ball | None:
    """|log(x ± ρ) − log x| ≤ ρ / (x − ρ)."""
    least = a.mid if a.rad is None else (a.mid - a.rad) * (1 - 4 * UNIT)
    if not np.min(least, initial=1.0) > 2.0**-900:
        return None
    y = np.log(a.mid)
    defect = np.abs(1 - a.mid * _exp_at(-y)) + 2 * _EXP
    if not np.max(defect, initial=0.0) < 2.0**-20:
        return None
    rad = defect * (1 + 2.0**-19)
    if a.rad is not None:
        rad += a.rad / least
    return outward(y, rad, what="log")


@quiet
def _logaddexp(a: Ball, b: Ball) -> Ball | None:
    """max(x, y) + log(1 + t), t = e^−|x − y|; the slopes, e^x / (eˣ + e^y) and the other, add up to 1."""
    gap = np.abs(a.mid - b.mid)
    if not np.max(gap, initial=0.0) <= _LARGEST:
        return None
    t = _exp_at(-gap)
    rest = _log1p_at(t)
    if rest is None:
        return None
    y = np.maximum(a.mid, b.mid) + rest.mid
    # The rounding of the gap counts |x| + |y| times u, with a slope of at most 1/2.
    rad = rest.radius + UNIT * (np.abs(y) + gap) + t * _EXP
    wider = [np.broadcast_to(x.radius, y.shape) for x in (a, b) if x.rad is not None]
    if wider:
        share = _logistic_at(a.mid - b.mid)
        # The shares change by at most the factor of a change of x − y.
        change = sum(wider, np.zeros(y.shape))
        for x, part in ((a, share), (b, 1 - share)):
            if x.rad is not None:
                rad = rad + x.rad * np.minimum(part + change / 4 + 4 * _EXP, 1)
    return outward(y, rad, what="logaddexp")


def _log1p_at(t: Array) -> Ball | None:
    """Return log(1 + t) for 0 ≤ t ≤ 1; the rounding of 1 + t is part of the ball."""
    return _log(Ball(1 + t, np.full(t.shape, 2 * UNIT)))


def _periodic(shift: float) -> Callable[[Ball], Ball | None]:
    """Return the rule of the function x ↦ cos(x − shift π/2), cos or sin, on balls of any width."""

    def rule(a: Ball) -> Ball | None:
        lo, hi = bounds(a)
        if not max(np.max(np.abs(lo), initial=0.0), np.max(np.abs(hi), initial=0.0)) <= _MOST_ANGLE:
            return None
        ends = [_cos_at(x, shift) for x in ((lo,) if a.rad is None else (lo, hi))]
        low, high = np.minimum(ends[0], ends[-1]) - _COS, np.maximum(ends[0], ends[-1]) + _COS
        # Half turns since a maximum, rounded outward: maxima are at even numbers and minima at odd ones.
        first, last = ((x - shift * (np.pi / 2)) / np.pi for x in (lo, hi))
        least, most = np.ceil(first - 2.0**-30), np.floor(last + 2.0**-30)
        even = 2 * np.ceil(least / 2) <= most
        odd = 2 * np.ceil((least - 1) / 2) + 1 <= most
        return between(np.where(odd, -1.0, np.maximum(low, -1)), np.where(even, 1.0, np.minimum(high, 1)))

    return rule


def _cos_at(x: Array, shift: float) -> Array:
    """Return cos(x − shift π/2), shift 0 or 1, at |x| ≤ 2²⁰ with an error below 4 u."""
    k = np.rint(x / (np.pi / 2))
    r = ((x - k * _TURN[0]) - k * _TURN[1]) - k * _TURN[2]
    square = r * r
    cosine, sine = (np.full(r.shape, terms[-1]) for terms in (_COS_TERMS, _SIN_TERMS))
    for a, b in zip(_COS_TERMS[-2::-1], _SIN_TERMS[-2::-1], strict=True):
        cosine, sine = cosine * square + a, sine * square + b
    turn = (k - shift).astype(np.int64) % 4
    return np.asarray(np.choose(turn, [cosine, -r * sine, -cosine, r * sine]))


_MONOTONE = frozenset(("exp", "log", "logaddexp", "logistic", "tanh"))
_ANY_WIDTH = frozenset(("cos", "sin"))
_RULES: dict[str, Callable[..., Ball | None]] = {
    "cos": _periodic(0.0),
    "exp": _exp,
    "log": _log,
    "logaddexp": _logaddexp,
    "logistic": _logistic,
    "sin": _periodic(1.0),
    "tanh": _tanh,
}
