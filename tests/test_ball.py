"""Balls contain every exact result, from subnormal numbers to the edge of overflow."""

from fractions import Fraction

import flint
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_jax.interval import ball, multiprecision
from mlp_jax.interval.ball import Ball, Refusal

FLOATS = st.one_of(
    st.floats(-1e3, 1e3),
    st.floats(-1e-305, 1e-305),
    st.floats(-1.7e308, 1.7e308),
    st.sampled_from([0.0, 5e-324, -5e-324, 2.0**-1022, 1 + 2.0**-52, 1e308, -1e308, 1e-160, 1e154]),
)
RADII = st.one_of(st.just(0.0), st.floats(0, 1e-12), st.floats(0, 1.0), st.floats(0, 1e-310), st.floats(0, 1e300))
SHARES = st.sampled_from([Fraction(-1), Fraction(1), Fraction(0), Fraction(-1, 3), Fraction(2, 7)])


def fractions(values):
    return [Fraction(float(v)) for v in np.ravel(values)]


def holds(found, values):
    """Whether balls hold exact rational numbers, in order."""
    return all(abs(v - m) <= r for v, m, r in zip(values, fractions(found.mid), fractions(found.radius), strict=True))


def one(mid, rad):
    return Ball(np.array([mid]), np.array([rad]) if rad else None)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
@given(FLOATS, RADII, SHARES, FLOATS, RADII, SHARES)
@settings(max_examples=400, deadline=None)
def test_arithmetic_holds_the_exact_rational_result(name, m1, r1, s1, m2, r2, s2):
    x, y = Fraction(m1) + s1 * Fraction(r1), Fraction(m2) + s2 * Fraction(r2)
    try:
        found = getattr(ball, name)(one(m1, r1), one(m2, r2))
    except Refusal:
        # A result is refused only if it may overflow, or if the divisor may be 0.
        size, other, least = abs(Fraction(m1)) + Fraction(r1), abs(Fraction(m2)) + Fraction(r2), abs(m2) - r2
        if name == "div" and least > 1e-280:
            assert size * other / Fraction(least) ** 2 > 10**290 or size / Fraction(least) > 10**290
        else:
            assert name == "div" or max(size, other, size * other) > 10**300
        return
    exact = {"add": lambda: x + y, "sub": lambda: x - y, "mul": lambda: x * y, "div": lambda: x / y}[name]()
    assert np.isfinite(found.mid).all()
    assert holds(found, [exact])


@pytest.mark.parametrize("threshold", [0, 10**9])
@given(st.integers(0, 10**9), st.integers(-320, 150))
@settings(max_examples=60, deadline=None)
def test_matrix_products_and_sums_hold_the_exact_rational_result(threshold, seed, exponent):
    generator = np.random.default_rng(seed)
    scale = float(f"1e{exponent}")
    old, balls = ball._SMALL_PRODUCT, []
    for shape in ((3, 5), (5, 2)):
        mid = generator.standard_normal(shape) * scale
        rad = None if generator.random() < 0.3 else np.abs(mid) * 10.0 ** generator.uniform(-17, 0)
        balls.append(Ball(mid, rad))
    points = [
        [[m + r * Fraction(int(generator.integers(-4, 5)), 4) for m, r in zip(fractions(a), fractions(b), strict=True)]
         for a, b in zip(x.mid, x.radius, strict=True)]
        for x in balls
    ]  # fmt: skip
    exact = [sum(points[0][i][k] * points[1][k][j] for k in range(5)) for i in range(3) for j in range(2)]
    try:
        ball._SMALL_PRODUCT = threshold
        product = ball.matmul(*balls)
    except Refusal:
        assert exponent > 140
    else:
        assert holds(product, exact)
    finally:
        ball._SMALL_PRODUCT = old
    assert holds(ball.total(balls[0], (1,)), [sum(row) for row in points[0]])
    assert holds(ball.neg(balls[0]), [-v for row in points[0] for v in row])


@pytest.mark.parametrize("name", sorted(set(multiprecision.FUNCTIONS) - {"atan2", "logaddexp", "pow"}))
def test_elementary_functions_hold_the_50_digit_value(name):
    oracle = {
        "rsqrt": lambda x: 1 / mpmath.sqrt(x),
        "logistic": lambda x: 1 / (1 + mpmath.exp(-x)),
        "lgamma": mpmath.loggamma,
    }.get(name) or getattr(mpmath, name)
    inside = dict.fromkeys(("acos", "asin", "atanh"), (-0.9, 0.9)) | {"tan": (-1.4, 1.4), "acosh": (1.2, 9)}
    positive = dict.fromkeys(("log", "sqrt", "rsqrt", "lgamma", "digamma", "log1p"), (0.1, 30))
    low, high = (inside | positive).get(name, (-4, 4))
    generator = np.random.default_rng(0)
    mid = generator.uniform(low, high, 120)
    rad = 10.0 ** generator.uniform(-18, -2, 120) * (generator.random(120) > 0.2)
    if low < 0:
        mid[:10] *= 1e-312
        rad[:10] *= 1e-312
    before = flint.ctx.prec
    found = multiprecision.ball_elementary(name, Ball(mid, rad))
    assert flint.ctx.prec == before
    with mpmath.workdps(50):
        for share in (-1, 0, 1, 0.37):
            for m, r, a, b in zip(mid, rad, found.mid, found.rad, strict=True):
                assert abs(oracle(mpmath.mpf(m) + share * mpmath.mpf(r)) - mpmath.mpf(a)) <= mpmath.mpf(b)
    assert np.all(found.rad <= 1e-15 * (1 + np.abs(found.mid)) + 400 * rad)


def test_logaddexp_holds_the_50_digit_value_and_is_as_narrow_as_its_slopes_allow():
    generator = np.random.default_rng(0)
    mids = generator.uniform(-60, 60, (2, 120))
    mids[1, :40] = mids[0, :40]
    rads = 10.0 ** generator.uniform(-18, 0.5, (2, 120)) * (generator.random((2, 120)) > 0.2)
    found = multiprecision.ball_elementary("logaddexp", *map(Ball, mids, rads))
    with mpmath.workdps(50):
        ends = {}
        for share in (-1, 0, 1):
            x, y = ([mpmath.mpf(m) + share * mpmath.mpf(r) for m, r in zip(*part, strict=True)] for part in
                    zip(mids, rads, strict=True))  # fmt: skip
            ends[share] = [mpmath.log(mpmath.exp(a) + mpmath.exp(b)) for a, b in zip(x, y, strict=True)]
            for value, mid, rad in zip(ends[share], found.mid, found.rad, strict=True):
                assert abs(value - mpmath.mpf(mid)) <= mpmath.mpf(rad)
        widths = np.array([float(b - a) for a, b in zip(ends[-1], ends[1], strict=True)])
    assert np.all(found.rad <= 0.51 * widths + 1e-15 * (1e-20 + np.abs(found.mid)))


@pytest.mark.parametrize(
    ("name", "mid", "rad"),
    [("log", 0.5, 0.5), ("sqrt", 0.0, 1e-3), ("exp", 710.0, 0.0), ("atanh", 0.9, 0.2), ("rsqrt", 0.0, 0.0)],
)
def test_outside_a_domain_or_float64_is_refused_by_name(name, mid, rad):
    with pytest.raises(Refusal, match=name):
        multiprecision.ball_elementary(name, one(mid, rad))


@pytest.mark.parametrize("field", [ball, multiprecision])
def test_order_is_claimed_only_where_it_holds_for_all_numbers(field):
    balls = Ball(np.array([0.0, 1.0, 2.0, 2.0]), np.array([0.5, 0.5, 0.5, 0.0]))
    a = balls if field is ball else multiprecision.from_ball(balls)
    b = field.exact(np.array([0.6, 1.0, 1.0, 2.0]))
    assert field.compare(a, b).tolist() == [-1, 2, 1, 2 if field is ball else 0]


def test_both_scalars_agree_on_scatter_select_and_maximum():
    values, updates = np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])
    where = np.array([2, -1, 2])
    for field in (ball, multiprecision):
        added = field.scatter_add(field.exact(values), where, field.exact(updates))
        chosen = field.select(np.array([0, 1, 0]), field.exact(values), field.exact(updates))
        larger = field.hull_of_maximum(field.exact(values), field.exact(values[::-1].copy()))
        for result, expected in ((added, [1, 2, 43]), (chosen, [1, 20, 3]), (larger, [3, 2, 3])):
            got = result if field is ball else multiprecision.to_ball(result)
            assert holds(got, [Fraction(v) for v in expected])
