"""Slopes on boxes, branch and prune, and complete lists, against closed forms and counts that others published."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.lists import HSU, himmelblau, hsu, period_two, rastrigin
from mlp_jax import interval
from mlp_jax.interval import ball, contraction, elementary, multiprecision, slopes
from mlp_jax.interval.ball import Ball
from mlp_jax.interval.interpreter import evaluate
from mlp_jax.interval.program import flatten

_COUNT = 40


def _inside(values, enclosure):
    low, high = ball.bounds(enclosure)
    slack = 1e-13 * (1 + np.abs(values))
    return bool(np.all((values >= low - slack) & (values <= high + slack)))


FUNCTIONS = {
    "rational": lambda x: jnp.stack([x[0] * x[1] / (2 + x[2] ** 2), x[0] ** 4 - x[1] ** 3, 1 / (3 + x[1])]),
    "elementary": lambda x: jnp.stack(
        [jnp.tanh(x[0] * x[1]) * jnp.exp(x[2]), jnp.sin(3 * x[0]) + jnp.cos(x[1] * x[2]), jax.nn.sigmoid(x[0] - x[2]),
         jnp.log(4 + x[0] + x[1]), jnp.sqrt(5 + x[1] * x[2]), jnp.logaddexp(x[0], x[1] ** 2), jnp.expm1(x[2])]
    ),
    "arrays": lambda x: jnp.concatenate([jnp.outer(x, jnp.tanh(x)) @ jnp.arange(3.0), jnp.roll(x, 1) * x.sum()]),
    "maxima": lambda x: jnp.stack([jnp.maximum(x[0], x[1] ** 2), jnp.abs(x[2]) * x[0], jnp.clip(x[1], -0.2, 0.3)]),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_changes_between_any_two_points_lie_in_ranges_and_slopes(name):
    generator = np.random.default_rng(0)
    center = generator.uniform(-1, 1, (_COUNT, 3))
    radius = 10 ** generator.uniform(-4, -0.2, (_COUNT, 3))
    with jax.enable_x64(True):
        batch = jax.jit(jax.vmap(FUNCTIONS[name]))
        program = flatten(jax.make_jaxpr(jax.vmap(FUNCTIONS[name]))(jax.ShapeDtypeStruct((_COUNT, 3), jnp.float64)))
        result = evaluate(program, [slopes.variables(ball.exact(center), Ball(center, radius))], slopes)[0]
        first = np.asarray(batch(center))
        assert _inside(first, result.center)
        for _ in range(50):
            point = center + radius * generator.uniform(-1, 1, center.shape)
            value = np.asarray(batch(point))
            assert _inside(value, result.range)
            step = ball.exact((point - center).T[:, :, None])
            assert _inside(value - first, ball.total(ball.product(result.slopes, step), (0,)))


def test_slopes_of_a_square_are_the_sum_of_its_ends():
    x = slopes.variables(ball.exact(np.array([[1.0]])), ball.between(np.array([[0.0]]), np.array([[3.0]])))
    low, high = ball.bounds(slopes.mul(x, x).slopes)
    np.testing.assert_allclose([low.item(), high.item()], [1, 4])  # a derivative would be in [0, 6]


@pytest.mark.parametrize("signs", list(itertools.product((-1, 0, 1), repeat=2)))
def test_products_of_wide_balls_are_as_narrow_as_the_range(signs):
    generator = np.random.default_rng(1)
    a, b = (Ball(s * generator.uniform(0, 2, 500), generator.uniform(0, 2, 500)) for s in signs)
    ends = np.stack([(a.mid + i * a.rad) * (b.mid + j * b.rad) for i in (-1, 1) for j in (-1, 1)])
    low, high = ball.bounds(ball.product(a, b))
    np.testing.assert_allclose(low, ends.min(axis=0), atol=1e-14)
    np.testing.assert_allclose(high, ends.max(axis=0), atol=1e-14)


@pytest.mark.parametrize("name", ["cos", "sin", "tanh", "exp", "log"])
def test_ranges_on_wide_balls_are_those_of_arb(name):
    generator = np.random.default_rng(2)
    radius = 10 ** generator.uniform(-8, 1, 2000)
    middle = generator.uniform(-8, 8, 2000) if name != "log" else radius + generator.uniform(0.1, 8, 2000)
    found = elementary.enclosed(name, Ball(middle, radius))
    by_arb = multiprecision.ball_elementary(name, Ball(middle, radius))
    assert np.all(np.abs(found.mid - by_arb.mid) <= found.radius + by_arb.radius)
    assert np.all(found.radius <= 1.001 * by_arb.radius + 1e-14)
    for share in (-1, -0.3, 0.5, 1):
        values = getattr(np, name)(middle + share * radius)
        assert _inside(values, found)


def test_contraction_keeps_every_zero_of_linear_systems():
    generator = np.random.default_rng(3)
    matrix = generator.standard_normal((200, 4, 3))
    zero, center = generator.uniform(-1, 1, (2, 200, 3))
    values = np.einsum("bij,bj->bi", matrix, center - zero)
    found = contraction.contract(
        -np.ones((200, 3)), np.ones((200, 3)), center, Ball(values, 1e-14 + 0 * values), Ball(matrix)
    )
    assert not np.any(found.empty)
    assert np.all((found.low <= zero) & (zero <= found.high))
    assert np.median(found.high - found.low) < 1e-9


def test_himmelblau_has_nine_critical_points_and_each_certificate_agrees():
    found = interval.complete(himmelblau, np.array([-6.0, -6]), np.array([6.0, 6]))
    assert found.complete
    assert found.indices == {0: 4, 1: 4, 2: 1}
    assert found.degree == 1
    for point, index in zip(found.points, found.index, strict=True):
        proof = interval.certify(himmelblau, point, wide=False)
        assert proof.proved
        assert proof.index == index
    assert "exactly 9 critical points: 4 of index 0, 4 of index 1, 1 of index 2" in str(found)


def _axis(low, high):
    """Critical points of x² − 10 cos 2πx, from signs of its derivative on a fine grid."""
    x = np.linspace(low, high, 400_000)
    slope = 2 * x + 20 * np.pi * np.sin(2 * np.pi * x)
    at = np.flatnonzero(np.sign(slope[:-1]) * np.sign(slope[1:]) < 0)
    return np.sum(slope[at] < 0), np.sum(slope[at] > 0)


@pytest.mark.parametrize("box", [(-5, 6), pytest.param((-5.12, 5.12), marks=pytest.mark.slow)])
def test_rastrigin_has_the_products_of_its_one_dimensional_points(box):
    minima, maxima = _axis(*box)
    found = interval.complete(rastrigin, np.full(2, float(box[0])), np.full(2, float(box[1])))
    assert found.complete
    assert found.indices == {0: minima**2, 1: 2 * minima * maxima, 2: maxima**2}


@pytest.mark.slow
def test_the_zeros_of_a_map_are_those_published():
    found = interval.complete(period_two, -HSU, HSU)
    assert found.complete
    assert found.count == 41
    fixed = [p for p in found.points if np.allclose(hsu(p), p, atol=1e-5)]
    assert len(fixed) == 13


def test_a_polynomial_has_the_roots_it_was_made_from():
    generator = np.random.default_rng(4)
    for _ in range(5):
        roots = np.sort(generator.uniform(-1, 1, 6))
        if np.min(np.diff(roots)) < 1e-3:
            continue
        fun = lambda x, roots: functools.reduce(jnp.multiply, [x - roots[k] for k in range(6)])
        found = interval.complete(fun, np.array([-2.0]), np.array([2.0]), (roots,))
        assert found.complete
        np.testing.assert_allclose(np.sort(found.points[:, 0]), roots, atol=1e-12)
        assert np.max(found.radii) < 1e-8


def test_softmax_cross_entropy_has_one_minimum_through_maxima_that_cancel():
    fun = lambda x, y: jax.nn.logsumexp(jnp.append(x, 0.0)) - x @ y + 0.05 * jnp.sum(x**2)
    found = interval.complete(fun, np.full(2, -4.0), np.full(2, 4.0), (np.array([0.5, 0.2]),))
    assert found.complete
    assert found.indices == {0: 1}


@pytest.mark.parametrize(
    ("fun", "low", "high", "reason"),
    [
        (lambda x: x**4, -1.0, 3.0, "undecided"),
        (lambda x: x**2, 0.0, 4.0, "edge"),
        (lambda x: jnp.sum(jax.nn.relu(x) ** 2), -1.0, 4.0, "kink"),
        (lambda x: jnp.sum(jnp.abs(x - 1)), -1.0, 4.0, ""),
        (lambda x: jnp.sum(x * jnp.log(x)), -1.0, 4.0, "log"),
    ],
)
def test_what_cannot_be_decided_is_refused(fun, low, high, reason):
    found = interval.complete(fun, np.array(low), np.array(high), max_boxes=2000)
    assert not found.complete
    assert reason in found.reason
    assert str(found).startswith("Not proved")
    assert "so far in the box" in str(found)


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [(-1.0, [1.0, 1.0], r"shapes \(\) and \(2,\)"), ([0.0, 0.0], [1.0, np.inf], "1 numbers"), (1.0, 1.0, "1 of 1")],
)
def test_corners_of_no_box_are_refused_with_what_is_wrong(low, high, reason):
    with pytest.raises(ValueError, match=reason):
        interval.complete(lambda x: jnp.sum(x**2), np.array(low), np.array(high))


def test_a_refusal_goes_on_where_its_budget_ended(tmp_path):
    corners = np.array([-6.0, -6]), np.array([6.0, 6])
    whole = interval.complete(himmelblau, *corners)
    first = interval.complete(himmelblau, *corners, max_boxes=5)
    assert not first.complete
    assert len(first.undecided_low)
    first.save(tmp_path / "list.json")
    second = interval.complete(himmelblau, *corners, resume=interval.load_list(tmp_path / "list.json"))
    assert interval.agree(whole, second)
    assert not interval.agree(whole, first)
    with pytest.raises(ValueError, match="other args"):
        interval.complete(lambda p, a: himmelblau(p) * a, *corners, (np.array(2.0),), resume=first)


def test_a_file_that_is_no_list_is_refused(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="not a list"):
        interval.load_list(tmp_path / "other.json")


def test_the_estimate_is_near_the_number_of_boxes():
    corners = np.full(2, -2.2), np.full(2, 2.3)
    found = interval.complete(rastrigin, *corners)
    estimates = [interval.expected_boxes(rastrigin, *corners, seed=seed) for seed in range(3)]
    assert found.boxes / 3 < np.mean(estimates) < 3 * found.boxes


@pytest.mark.parametrize(
    ("low", "high"), [(np.zeros(2), np.zeros(3)), (np.ones(2), np.zeros(2)), (np.zeros(2), np.full(2, np.inf))]
)
def test_corners_that_are_no_box_are_refused(low, high):
    with pytest.raises(ValueError, match="low, high"):
        interval.complete(himmelblau, low, high)


def test_a_function_of_another_size_is_refused():
    with pytest.raises(ValueError, match="got 3 numbers"):
        interval.complete(lambda x: jnp.zeros(3), np.zeros(2), np.ones(2))
