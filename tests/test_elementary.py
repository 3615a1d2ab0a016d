"""exp, tanh and their relatives in float64, against arb."""

import flint
import numpy as np
import pytest

from mlp_jax.interval import elementary, multiprecision
from mlp_jax.interval.ball import UNIT, Ball

_COUNT = 20_000
_DOMAINS = {"exp": 1, "tanh": 1, "logistic": 1, "log": 1, "logaddexp": 2}


def _points(generator, name, count):
    """Numbers of all sizes up to 700, of both signs where the function has both."""
    sizes = np.exp(generator.uniform(np.log(1e-300 if name == "tanh" else 1e-9), np.log(699), count))
    sizes[: count // 2] = generator.uniform(0, 3, count // 2)
    return sizes if name == "log" else sizes * generator.choice([-1, 1], count)


def _exact(name, *numbers):
    with flint.ctx.workprec(160):
        return [multiprecision.FUNCTIONS[name](*map(flint.arb, values)) for values in zip(*numbers, strict=True)]


def _excess(result, exact):
    """Distance from the middle, in radii, of the number that is farthest outside."""
    with flint.ctx.workprec(160):
        gaps = [float(abs(e - m).upper()) for e, m in zip(exact, result.mid.tolist(), strict=True)]
    return np.max(np.array(gaps) / np.maximum(result.radius, 1e-320))


@pytest.mark.parametrize("name", _DOMAINS)
def test_the_exact_value_at_a_number_is_inside(name):
    generator = np.random.default_rng(0)
    numbers = [_points(generator, name, _COUNT) for _ in range(_DOMAINS[name])]
    if name == "logaddexp":
        numbers = [x / 2 for x in numbers]  # whose difference is in the range of exp
    result = elementary.enclosed(name, *map(Ball, numbers))
    assert result is not None
    assert _excess(result, _exact(name, *numbers)) <= 1


@pytest.mark.parametrize(("function", "name", "bound"), [("_exp_at", "exp", 4), ("_tanh_at", "tanh", 8)])
def test_errors_are_below_the_proved_bounds(function, name, bound):
    points = _points(np.random.default_rng(1), name, _COUNT)
    values = getattr(elementary, function)(points)
    assert _excess(Ball(values, bound * UNIT * np.abs(values)), _exact(name, points)) <= 1


@pytest.mark.parametrize("name", _DOMAINS)
@pytest.mark.parametrize("width", [1e-12, 1e-5, 1e-2])
def test_every_value_on_a_ball_is_inside(name, width):
    generator = np.random.default_rng(2)
    middles = [generator.uniform(-6, 6, _COUNT // 4) for _ in range(_DOMAINS[name])]
    if name == "log":
        middles = [np.abs(m) + 1 for m in middles]
    radii = [width * generator.uniform(0, 1, m.shape) for m in middles]
    result = elementary.enclosed(name, *map(Ball, middles, radii))
    assert result is not None
    for ends in ([-1, -1], [1, 1], [1, -1], list(generator.uniform(-1, 1, 2))):
        with flint.ctx.workprec(160):
            inside = [
                [flint.arb(x) + flint.arb(e) * flint.arb(y) for x, y in zip(m, r, strict=True)]
                for m, r, e in zip(middles, radii, ends, strict=False)
            ]
        assert _excess(result, _exact(name, *inside)) <= 1
    # Not much wider than arb's enclosure, which has the range of a monotone function.
    by_arb = multiprecision.ball_elementary(name, *map(Ball, middles, radii))
    assert np.median(result.radius / by_arb.radius) < (2 if width < 1e-6 else 1.02)


def test_numbers_beyond_the_limits_are_left_to_arb():
    assert elementary.enclosed("exp", Ball(np.array([701.0]))) is None
    assert elementary.enclosed("exp", Ball(np.array([1.0]), np.array([700.0]))) is None
    assert elementary.enclosed("log", Ball(np.array([-1.0]))) is None
    assert elementary.enclosed("log", Ball(np.array([1.0]), np.array([1.5]))) is None
    assert elementary.enclosed("sin", Ball(np.array([2e6]))) is None
    assert elementary.enclosed("erf", Ball(np.array([1.0]))) is None


def test_zero_stays_exact():
    result = elementary.enclosed("tanh", Ball(np.zeros(3)))
    assert not np.any(result.mid)
    assert np.all(result.radius < 1e-300)
