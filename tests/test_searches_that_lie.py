"""Searches say that they converged at critical points only, say which index they reached, and lists hold each once."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import critical, losses, mlp, mlp_symmetry, tree
from mlp_jax.critical.search import contract

METHODS = {
    "any index": {},
    "index 0": {"index": 0},
    "matrix-free": {"method": critical.newton_mr},
}


def scaled(x):
    return (1e12 * x[0] - 1) ** 2 + (x[1] - 1e6) ** 2


def two_wells(x):
    """Minima at (±1, 0), a saddle of index 1 at the origin."""
    return (x[0] ** 2 - 1) ** 2 + x[1] ** 2


def rayleigh(x, matrix):
    return (x @ matrix @ x) / (x @ x)


def weight_norm(params, x, y):
    direction, length = params
    return jnp.mean((length * (x @ direction) / jnp.linalg.norm(direction) - y) ** 2)


def normal(size):
    return lambda key: jax.random.normal(key, (size,))


# --- What is called converged -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_no_method_converges_a_million_away_from_the_only_critical_point(name):
    point = critical.find(scaled, np.zeros(2), **METHODS[name])
    assert not point.converged or np.allclose(point.params, [1e-12, 1e6], rtol=1e-6)
    if name == "any index":  # a component of another scale is solved, and not hidden by the largest
        assert point.converged
        np.testing.assert_allclose(point.params, [1e-12, 1e6], rtol=1e-9)
        assert (point.index, bool(point.reached)) == (0, True)


@pytest.mark.parametrize("settings", [{}, {"index": 0}])
@pytest.mark.parametrize("size", [3, 30])
def test_rayleigh_quotients_are_solved_to_an_eigenvector(size, settings):
    generator = np.random.default_rng(size)
    for _ in range(3):
        matrix = generator.standard_normal((size, size))
        matrix += matrix.T
        point = critical.find(rayleigh, generator.standard_normal(size), (matrix,), **settings)
        assert point.converged
        unit = point.params / np.linalg.norm(point.params)
        value = unit @ matrix @ unit
        np.testing.assert_allclose(matrix @ unit, value * unit, atol=1e-9 * np.linalg.norm(matrix))
        assert point.index is None  # its length is a null mode
        if settings:
            assert value == pytest.approx(np.linalg.eigvalsh(matrix)[0])


def test_a_minimum_with_weight_norm_is_least_squares():
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((20, 5)), generator.standard_normal(20)
    point = critical.find(weight_norm, (generator.standard_normal(5), np.float64(1.0)), (x, y), index=0)
    assert point.converged
    direction, length = point.params
    solution = length * direction / np.linalg.norm(direction)
    np.testing.assert_allclose(solution, np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-9)


@pytest.mark.parametrize("settings", [{}, {"index": 0}])
def test_a_search_that_shrinks_to_a_singular_point_says_so(settings):
    # log|x| has no critical point. From .01 Newton's steps halve x, or the gradient norm leads away.
    point = critical.find(lambda x: jnp.log(jnp.abs(x[0])) + x[1] ** 2, np.array([1e-2, 1.0]), **settings)
    assert not point.converged
    reason = critical.Reason
    assert point.reason in (reason.SINGULAR, reason.RAN_OFF, reason.GRADIENT_FLAT, reason.MAX_STEPS)
    if settings:
        assert point.reason is reason.SINGULAR


TAILS = {
    "exponential": (lambda x: jnp.exp(5 * x[0]) + x[1] ** 2, (-3.0, 1.0)),
    "Gaussian": (lambda x: x[1] ** 2 - jnp.exp(-(x[0] ** 2)), (20.0, 1.0)),
    "Gaussian, below every number": (lambda x: x[1] ** 2 - jnp.exp(-(x[0] ** 2)), (30.0, 1.0)),
    "sigmoid": (lambda x: (1 - jax.nn.sigmoid(x[0])) ** 2 + x[1] ** 2, (3.0, 1.0)),
    "sigmoid, saturated": (lambda x: (1 - jax.nn.sigmoid(x[0])) ** 2 + x[1] ** 2, (50.0, 1.0)),
    "reciprocal": (lambda x: 1 / x[0] + x[1] ** 2, (3.0, 1.0)),
    "corner": (lambda x: jnp.sum(jnp.abs(x - 0.5)) + 0.1 * jnp.sum(x**2), (3.0, 1.0)),
    "a corner with the same curvature on both sides": (lambda x: jnp.sum(x**2 - 2 * jnp.abs(x)) + x[0], (0.0, 0.0)),
}


def degenerate(x):
    return x[0] ** 4 + x[1] ** 2


def branches(x, which):
    """One function for all, so that each method is compiled once."""
    return jax.lax.switch(which, [*(fun for fun, _ in TAILS.values()), degenerate], x)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("function", TAILS)
def test_nothing_converges_on_a_tail_or_at_a_corner(function, name):
    which = np.int32(list(TAILS).index(function))
    point = critical.find(branches, np.array(TAILS[function][1]), (which,), **METHODS[name])
    if function.startswith("a corner") and point.converged:  # the smooth minima are at ±1, moved by ½ in the first
        assert np.min(np.abs(point.params[0] - np.array([0.5, -1.5]))) < 1e-9
        assert abs(abs(point.params[1]) - 1) < 1e-9
        return
    assert not point.converged
    assert not point.reached
    assert point.index is None


def test_units_that_are_dead_do_not_keep_a_search_from_converging():
    def fun(p):
        return (p["out"] + jax.nn.relu(p["in"] - 5.0) - 2.0) ** 2

    point = critical.find(fun, {"in": np.float64(1.0), "out": np.float64(0.0)})
    assert point.converged
    assert point.params["out"] == pytest.approx(2.0)
    assert point.index is None


@pytest.mark.parametrize("settings", [{}, {"index": 0}, {"method": critical.levenberg_marquardt}])
def test_every_point_of_a_constant_function_is_critical_and_has_no_index(settings):
    point = critical.find(lambda x: 3 + 0 * jnp.sum(x), np.array([3.0, -2.0]), **settings)
    assert point.converged
    assert point.index is None
    np.testing.assert_array_equal(point.params, [3, -2])


def test_a_method_of_ones_own_that_stops_anywhere_does_not_converge():
    def lazy(function, max_steps):
        begin = lambda start: contract.End(start, function.gradient(start), jnp.zeros((), jnp.int32), jnp.asarray(-1))
        return contract.Search(begin, lambda state: state._replace(reason=jnp.asarray(int(critical.Reason.ROUNDING))))

    point = critical.find(lambda x: jnp.sum(jnp.exp(x)), np.array([0.0, 1.0]), method=lazy)
    assert not point.converged
    assert point.reason is critical.Reason.UNRESOLVED


# --- Which index was reached --------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [(0.0, 1.0), (0.0, 0.0), (0.0, -3.0)])
def test_a_search_on_a_line_of_symmetry_is_moved_off_to_the_index_asked_for(start):
    point = critical.find(two_wells, np.array(start), index=0)
    assert point.converged
    assert point.reached
    assert point.index == 0
    np.testing.assert_allclose(np.abs(point.params), [1, 0], atol=1e-9)
    assert str(point).endswith("index 0.")


def test_an_index_that_no_critical_point_has_is_not_reached():
    point = critical.find(lambda x: x[0] ** 2 - x[1] ** 2, np.zeros(2), index=2)
    assert point.converged
    assert not point.reached
    assert point.index == 1
    assert point.reason is critical.Reason.OTHER_INDEX
    assert "of another index" in str(point)


@pytest.mark.slow
def test_the_index_is_that_of_the_known_points_in_many_searches(x64):
    generator = np.random.default_rng(0)
    starts = generator.uniform(-1.5, 1.5, (40, 2))
    for index in (None, 0, 1):
        points = critical.find_many(two_wells, starts, index=index)
        at = np.abs(points.params[:, 0]) > 0.5
        done = points.converged
        np.testing.assert_array_equal(points.index[done], np.where(at, 0, 1)[done])
        asked = points.index == index if index is not None else done
        np.testing.assert_array_equal(points.reached, done & asked)


@pytest.mark.parametrize("size", [2, 13])
def test_the_index_of_a_rotated_quadratic_is_its_number_of_negative_eigenvalues(size):
    generator = np.random.default_rng(size)
    basis = np.linalg.qr(generator.standard_normal((size, size)))[0]
    values = 10.0 ** generator.uniform(-4, 2, size) * generator.choice([-1.0, 1.0], size)
    matrix = (basis * values) @ basis.T
    point = critical.find(lambda x, a: x @ a @ x / 2, generator.standard_normal(size), ((matrix + matrix.T) / 2,))
    assert point.converged
    assert point.index == np.sum(values < 0)


def test_an_index_that_rests_on_the_rounding_of_the_data_is_not_known():
    # The variance of the data is the only curvature, and is lost in their mean: it may come out of either sign.
    x = 1e8 + np.random.default_rng(0).standard_normal(1000)
    fun = lambda w, x: jnp.mean((w * x) ** 2) - jnp.mean(w * x) ** 2
    assert critical.find(fun, np.array(0.0), (x,)).index is None


def test_a_degenerate_point_has_no_index():
    assert critical.find(branches, np.zeros(2), (np.int32(len(TAILS)),)).index is None


# --- Lists --------------------------------------------------------------------------------------------------------


@jax.custom_jvp
def flat(x):
    return jnp.exp(x)


# A derivative that is given as zero hides that eˣ has no critical point: searches converge at each start.
flat.defjvps(lambda t, _, x: 0 * t)


def rising(x, a, b):
    return a * (jnp.exp(x[0]) + x[1] ** 2) + b * ((x[0] ** 2 - 1) ** 2 + flat(x[1]))


@pytest.mark.slow
def test_what_is_not_critical_is_counted_and_not_listed():
    listed = lambda *args: critical.census(rising, normal(2), jax.random.key(0), num_starts=20, passes=1, args=args)
    nothing, found = listed(np.float64(1), np.float64(0)), listed(np.float64(0), np.float64(1))
    assert len(nothing.verdicts) == nothing.num_converged == 0
    assert found.hits.sum() == found.num_converged
    assert found.num_converged + found.num_rejected <= found.num_starts == 20
    assert all(verdict.kind != "not critical" for verdict in found.verdicts)


@pytest.mark.slow
def test_coordinates_of_very_different_scales_have_three_points_and_not_hundreds():
    fun = lambda x: (x[0] - 1e6) ** 2 + ((1e9 * x[1]) ** 2 - 1) ** 2
    found = critical.census(fun, normal(2), jax.random.key(0), num_starts=200)
    np.testing.assert_allclose(found.params[np.argsort(found.params[:, 1])], [[1e6, v] for v in (-1e-9, 0, 1e-9)])


def test_points_a_millionth_apart_are_not_merged_and_a_large_constant_splits_none():
    fun = lambda x: jnp.sum((x**2 - 2.5e-13) ** 2) + 1e8
    points = critical.find_many(fun, np.random.default_rng(0).standard_normal((64, 2)))
    found = critical.distinct(points)
    corners = {tuple(np.sign(p)) for p in found.points.params}
    assert len(found.hits) == len(corners) == 4
    np.testing.assert_allclose(np.abs(found.points.params), 5e-7, rtol=1e-9)


def test_many_searches_that_end_at_zero_are_one_point():
    fun = lambda x: jnp.sum(jnp.cosh(x) + 0.3 * jnp.sin(x) ** 2)
    sizes = 10.0 ** np.random.default_rng(1).uniform(-9, 0, (64, 1))
    starts = sizes * np.random.default_rng(0).standard_normal((64, 3))
    found = critical.distinct(critical.find_many(fun, starts))
    np.testing.assert_allclose(found.points.params, 0, atol=1e-12)
    assert found.hits.tolist() == [64]


def xor_loss(params, x, y, decay):
    return losses.mean(losses.squared_error(mlp.forward(params, x), y)) + 0.5 * decay * tree.dot(params, params)


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_xor_by_one_hidden_unit_has_exactly_17_critical_points(symmetric):
    # Proved by exhaustion (interval methods on the whole domain): inputs and targets in {-1, 1}, weight decay .02.
    x = np.array(list(itertools.product([-1.0, 1.0], repeat=2)))
    args = x, -x[:, :1] * x[:, 1:], np.float64(0.02)
    init = lambda key: mlp.init(key, (2, 1, 1))
    maps = mlp_symmetry.maps(xor_loss, init(jax.random.key(0)), args, activation=jnp.tanh) if symmetric else None
    settings = {"num_starts": 200, "args": args, "symmetries": maps, "complete_sum": 1}
    found = critical.census(xor_loss, init, jax.random.key(0), **settings)
    assert found.orbit_sizes.sum() == 17
    assert found.euler_sum == 1
    assert found.num_rejected == 0
