"""find: reaches critical points, and reports convergence nowhere else."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets
import threadpoolctl
from ground_truth import linear_classes, linear_network
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verdicts import linear_loss, xor_loss

from mlp_jax import _parallel, critical, losses, mlp, penalties, tree
from mlp_jax.critical.search import by_matrices, eigenbasis, following, on_host, spectra
from mlp_jax.critical.search.minres import Limits, minres
from mlp_jax.curvature import matrices, tridiagonal

QUADRATIC = np.diag([-3.0, 1e-4, 2.0])


def quadratic(x, matrix):
    return x @ matrix @ x / 2


def two_wells(x):
    """Minima at (±1, 0), a saddle of index 1 at the origin."""
    return (x[0] ** 2 - 1) ** 2 + x[1] ** 2


@pytest.mark.parametrize("index", [None, 1])
def test_the_stationary_point_of_a_quadratic_is_found(index):
    point = critical.find(quadratic, np.array([1.0, -2.0, 0.5]), (QUADRATIC,), index=index)
    assert point.converged
    assert point.reason is critical.Reason.ROUNDING
    np.testing.assert_allclose(point.params, 0, atol=1e-9)


@pytest.mark.parametrize(("index", "start", "end"), [(0, (0.1, 1.0), (1, 0)), (1, (0.4, 1.0), (0, 0))])
def test_the_chosen_index_is_the_index_found(index, start, end):
    point = critical.find(two_wells, np.array(start), index=index)
    assert point.converged
    np.testing.assert_allclose(point.params, end, atol=1e-12)
    assert critical.classify(two_wells, point.params).index == index


METHODS = {
    "any index": {"method": critical.levenberg_marquardt},
    "matrix-free": {"method": critical.newton_mr},
    "minimum": {"index": 0},
    "index 1": {"index": 1},
}


def planted(x, slope):
    """No critical point: g = (slope + 3 x², 2 y), smallest at the origin, where H is singular along g."""
    return slope * x[0] + x[0] ** 3 + x[1] ** 2


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("slope", [1e-3, 1e-12])
@pytest.mark.parametrize("start", [(0.5, 1.0), (0.0, 0.0)])
def test_no_method_converges_at_a_planted_gradient_flat_point(name, slope, start):
    point = critical.find(planted, np.array(start), (slope,), **METHODS[name])
    assert not point.converged
    assert point.gradient_norm >= 0.999 * slope
    if name == "any index":
        assert point.reason in (critical.Reason.GRADIENT_FLAT, critical.Reason.NO_DESCENT)
        assert point.flatness > 0.999
        assert point.distance == np.inf
        assert critical.classify(planted, point.params, (slope,)).kind in ("not critical", "undetermined")


@pytest.mark.parametrize("name", ["any index", "matrix-free"])
def test_a_gradient_flat_point_on_the_way_is_left_behind(name):
    # g = x³ − 3x + 5 in one variable, in both: ‖g‖ has a minimum of 3 at x = 1, and its only zero at x = −2.279.
    fun = lambda x: jnp.sum(x**4 / 4 - 3 * x**2 / 2 + 5 * x)
    point = critical.find(fun, np.array([1.3, 0.9]), **METHODS[name])
    assert point.converged
    np.testing.assert_allclose(point.params, np.roots([1, 0, -3, 5])[0].real, rtol=1e-12)


def test_no_convergence_where_there_is_no_critical_point():
    fun = lambda x: jnp.exp(x[0]) + x[1] ** 2
    for index in (None, 0):
        point = critical.find(fun, np.array([0.0, 1.0]), index=index, max_steps=20)
        assert not point.converged
        assert point.reason is critical.Reason.MAX_STEPS


@pytest.mark.parametrize("fun", [lambda x: x[0] + 2 * x[1], lambda x: jnp.sum(jnp.abs(x))])
def test_a_function_without_curvature_is_searched_without_a_warning_and_has_no_critical_point(fun):
    point = critical.find(fun, np.array([0.3, 0.2]), max_steps=50)
    assert not point.converged
    assert point.steps <= 50


def test_a_start_beside_the_edge_of_the_domain_is_not_called_not_finite():
    # No critical point; where x₀ < 0 the function is not a number, and the noise leads there.
    edge = lambda x: jnp.sqrt(x[0]) ** 3 + x[0] + (x[1] - 3) ** 2
    point = critical.find(edge, np.array([0.01, 10.0]), index=0)
    assert point.reason is critical.Reason.NO_DESCENT
    assert np.isfinite(point.gradient_norm)


def test_no_attempt_is_made_a_third_time_from_the_same_start():
    # x³/3 + x has no critical point and all searches run off. The second attempt climbs more modes.
    starts = []

    def gradient(x):
        starts.append(x[0] == 1)
        return x**2 + 1

    objective = spectra.Matrices(gradient, lambda x: np.diag(2 * x), 2.0**-53, 1.0)
    found = following.follow(objective, np.ones(1), None, 500, None)
    assert found.negative is None
    assert sum(starts) == 2


@pytest.mark.slow
def test_converged_points_of_xor_are_critical_and_most_starts_converge():
    ends = [critical.find(xor_loss, mlp.init(jax.random.key(seed), (2, 2, 1)), (0.01,)) for seed in range(20)]
    converged = [end for end in ends if end.converged]
    assert len(converged) >= 18
    for end in converged[:8]:
        assert critical.classify(xor_loss, end.params, (0.01,)).kind in ("minimum", "saddle")


@pytest.mark.implicit_promotion
def test_float32_callers_get_float64_points_and_keep_their_configuration():
    point = critical.find(lambda x: jnp.sum(jnp.cosh(x - 0.1)), jnp.array([1.0, -1.0], jnp.float32))
    assert point.params.dtype == np.float64
    assert point.converged
    np.testing.assert_allclose(np.asarray(point.params), 0.1, atol=1e-15)
    assert not jax.config.jax_enable_x64


@pytest.mark.slow
def test_find_and_find_many_work_under_jit_and_find_under_vmap(x64):
    starts = jnp.asarray(many_starts(20))
    outside = critical.find_many(two_wells, many_starts(20), lanes=4)
    many = jax.jit(lambda s: critical.find_many(two_wells, s, lanes=4))(starts)
    np.testing.assert_allclose(many.params, outside.params, atol=1e-12)
    mapped = jax.jit(jax.vmap(lambda start: critical.find(two_wells, start)))(starts[:3])
    np.testing.assert_array_equal(mapped.converged, outside.converged[:3])
    np.testing.assert_allclose(mapped.params, outside.params[:3], atol=1e-9)


@pytest.mark.parametrize("find", [critical.find, lambda fun, x, args: critical.find_many(fun, x[None], args)])
def test_a_second_call_traces_nothing(find, x64):
    traces = []

    def fun(x, shift):
        traces.append(1)
        return jnp.sum((x - shift) ** 2)

    find(fun, jnp.zeros(2), (jnp.ones(2),))
    first = len(traces)
    find(fun, jnp.ones(2), (jnp.zeros(2),))
    assert len(traces) == first


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"index": 3}, "index: got 3, expected an integer from 0 to 2"),
        ({"index": -1}, "index: got -1"),
        ({"max_steps": 0}, "max_steps: got 0, expected an integer"),
        ({"radius": 0.0}, "radius: got 0.0, expected a number above 0"),
        ({"index": 1, "method": critical.newton_mr}, "index and method: got both"),
    ],
)
def test_a_bad_setting_is_named(settings, words):
    with pytest.raises(ValueError, match=words):
        critical.find(two_wells, np.zeros(2), **settings)


# --- Newton-MR ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("rank", [12, 9, 5])
@pytest.mark.parametrize("compatible", [True, False])
def test_minres_gives_the_pseudoinverse_solution_of_singular_systems(x64, rank, compatible):
    generator = np.random.default_rng(rank)
    basis = np.linalg.qr(generator.standard_normal((12, 12)))[0]
    values = np.zeros(12)
    values[:rank] = np.linspace(1, 3, rank) * np.where(np.arange(rank) % 2, -1, 1)
    matrix = jnp.asarray(basis * values @ basis.T)
    rhs = generator.standard_normal(12)
    if compatible:
        rhs = np.asarray(matrix) @ rhs
    found = minres(lambda v: matrix @ v, jnp.asarray(rhs), Limits(1e-13, 1e-12, max_steps=50))
    expected = np.linalg.pinv(matrix, rtol=1e-10) @ rhs
    np.testing.assert_allclose(found.vector, expected, atol=1e-9)
    np.testing.assert_allclose(found.residual, rhs - matrix @ expected, atol=1e-9)


@pytest.mark.slow
def test_newton_mr_reaches_critical_points_of_a_linear_network_without_a_hessian_matrix():
    net = linear_network(6, 2, 6)
    generator = np.random.default_rng(0)
    starts = 0.5 * generator.standard_normal((10, 6, 2)), 0.5 * generator.standard_normal((10, 2, 6))

    def no_matrix(*_):
        raise AssertionError("the Hessian matrix was asked for")

    args = (net.inputs, net.targets)
    points = critical.find_many(linear_loss, starts, args, method=critical.newton_mr, hessian=no_matrix)
    assert np.mean(points.converged) >= 0.8
    losses = np.array([point.loss for point in linear_classes(net)])
    with jax.enable_x64(True):
        for first, second in zip(*(leaf[points.converged] for leaf in points.params), strict=True):
            assert np.min(np.abs(losses - linear_loss((first, second), *args))) < 1e-9 * np.max(losses)


@pytest.mark.slow
def test_a_convex_function_of_2000_parameters_is_minimised():
    target, scale = np.linspace(-1, 1, 2000), np.linspace(1, 5, 2000)
    fun = lambda x, target, scale: jnp.sum(scale * jnp.cosh(x - target))
    point = critical.find(fun, np.zeros(2000), (target, scale))
    assert point.converged
    np.testing.assert_allclose(point.params, target, atol=1e-12)


@pytest.mark.slow
def test_a_search_by_products_resolves_curvatures_of_five_orders_of_magnitude():
    curvature = np.r_[np.geomspace(1, 1e-2, 60), np.linspace(1e-3, 2e-3, 4139), 1e-5]
    mirror = np.random.default_rng(0).standard_normal(4200)
    mirror /= np.linalg.norm(mirror)

    def fun(x, curvature, mirror):
        y = x - 2 * mirror * (mirror @ x) - 1
        return jnp.sum(curvature * (y**2 / 2 + y**4 / 4))

    point = critical.find(fun, np.zeros(4200), (curvature, mirror))
    assert point.converged
    np.testing.assert_allclose(point.params, 1 - 2 * mirror * np.sum(mirror), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("index", [None, 1])
def test_null_curvature_does_not_spoil_the_coordinates_of_a_search_by_products(index):
    fun = lambda x: jnp.sum((x[:10] - 1) ** 2)
    point = critical.find(fun, np.linspace(0, 1, 4100), index=index, max_steps=60)
    assert point.converged
    np.testing.assert_allclose(point.params[:10], 1, atol=1e-12)


@pytest.mark.slow
def test_a_search_by_products_where_the_hessian_is_infinite_ends_with_a_reason():
    fun = lambda x: jnp.sum(jnp.abs(x) ** 1.5) + jnp.sum((x - jnp.roll(x, 1)) ** 2)
    point = critical.find(fun, np.r_[np.zeros(2100), np.ones(2100)], max_steps=40)
    assert not point.converged
    assert np.all(np.isfinite(point.params))


@pytest.mark.slow
def test_a_search_without_matrices_to_an_index_needs_no_memory_for_them(monkeypatch):
    monkeypatch.setattr(matrices, "machine_bytes", lambda: 10**5)
    fun, start = lambda x: jnp.sum(jnp.cosh(x - 1)), np.zeros(60)
    with pytest.raises(MemoryError, match="8 matrices"):
        critical.find(fun, start, index=0)
    monkeypatch.setattr(on_host, "COUNTED", 0)
    point = critical.find(fun, start, index=0)
    assert point.converged
    assert (point.index, bool(point.reached)) == (None, False)
    np.testing.assert_allclose(point.params, 1, atol=1e-12)


@pytest.mark.slow
def test_a_descent_passes_a_place_where_the_gradient_is_only_nearly_zero(monkeypatch):
    monkeypatch.setattr(on_host, "COUNTED", 0)
    # The slope in the first coordinate is x³ + x² + 1e-5: almost zero near 0, zero only near −1.
    fun = lambda x: jnp.sum(jnp.cosh(x[1:] - 1)) + x[0] ** 4 / 4 + x[0] ** 3 / 3 + 1e-5 * x[0]
    point = critical.find(fun, np.full(60, 0.5))
    assert point.converged
    roots = np.roots([1, 1, 0, 1e-5])
    np.testing.assert_allclose(point.params, np.r_[roots[np.isreal(roots)].real, np.ones(59)], atol=1e-9)


@pytest.mark.slow
def test_parameters_without_data_are_as_exact_as_the_others(monkeypatch):
    monkeypatch.setattr(on_host, "COUNTED", 0)
    generator = np.random.default_rng(0)
    args = generator.standard_normal((200, 40)), generator.standard_normal(200)

    def fun(x, data, y):  # the last 20 have weight decay alone, and a gradient far below the rounding of the others
        return jnp.sum((jnp.tanh(data @ x[:40]) - y) ** 2) / 2 + x @ x / 200

    point = critical.find(fun, np.full(60, 0.5), args, index=0)
    assert point.converged
    np.testing.assert_allclose(point.params[40:], 0, atol=1e-18)


def test_an_eigenbasis_is_orthonormal_where_the_krylov_space_ends_early(x64):
    values = np.repeat([-1.0, 2.0, 5.0], 10)

    def krylov(_, first):
        return tuple(map(np.asarray, tridiagonal.tridiagonalise(lambda v: values * v, jnp.asarray(first), 20)))

    objective = spectra.Products(None, krylov, lambda _, v: values * v, None, 2.0**-53)
    basis = objective.look(np.zeros(30), np.ones(30))(np.ones(30))
    rows = np.array([basis.vector(one) for one in np.eye(len(basis.values))])
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-12)
    np.testing.assert_allclose(rows @ (values * rows).T, np.diag(basis.values), atol=1e-12)
    assert np.sum(basis.values < 0) == 1  # one vector of each eigenspace


# --- Networks -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def iris():
    """A loss of networks on iris with weight decay .01, and its data."""
    data = sklearn.datasets.load_iris()
    inputs = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)

    def fun(params, x, y):
        return losses.mean(losses.cross_entropy(mlp.forward(params, x), y)) + penalties.l2(params, 0.01)

    return fun, (inputs, data.target)


def numpy_index(fun, params, args):
    """The index of a critical point by numpy, from jax.hessian; None if the Newton step is not negligible."""
    with jax.enable_x64(True):
        vector, unravel = tree.ravel(params)
        flat = lambda v: fun(unravel(v), *args)
        gradient, matrix = np.asarray(jax.grad(flat)(vector)), np.asarray(jax.hessian(flat)(vector))
    if np.linalg.norm(np.linalg.solve(matrix, gradient)) > 1e-9 * np.linalg.norm(vector):
        return None
    return int(np.sum(np.linalg.eigvalsh(matrix) < 0))


@pytest.mark.slow
@pytest.mark.parametrize("matrices", [True, False])
def test_searches_on_every_core_reach_the_indices_asked_for(iris, monkeypatch, matrices):
    if not matrices:
        monkeypatch.setattr(by_matrices, "MATRICES", 0)
    fun, args = iris
    keys = jax.random.split(jax.random.key(0), 4)
    starts = jax.vmap(lambda key: mlp.init(key, (4, 7, 3)))(keys)  # 59 parameters
    for index in (None, 0, 2):
        points = critical.find_many(fun, starts, args, index=index)
        ends = [jax.tree.map(lambda leaf, i=i: leaf[i], points.params) for i in range(4)]
        true = [numpy_index(fun, end, args) for end in ends]
        assert points.converged.all()
        assert points.index.tolist() == true
        assert np.array_equal(points.reached, [index is None or k == index for k in true])
        assert points.reached.sum() >= 3
    assert critical.find(fun, jax.tree.map(lambda leaf: leaf[0], starts), args, index=2).index == true[0]


@pytest.mark.slow
def test_searches_by_products_reach_the_index_asked_for(iris, monkeypatch):
    monkeypatch.setattr(on_host, "COUNTED", 0)
    fun, args = iris
    starts = [mlp.init(jax.random.key(seed), (4, 7, 3)) for seed in range(3)]
    points = [critical.find(fun, start, args, index=2) for start in starts]
    assert all(point.converged for point in points)
    assert [numpy_index(fun, point.params, args) for point in points].count(2) >= 2


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "index"), [(1, None), (3, 1)])
def test_a_search_along_curved_valleys_of_a_deep_network_ends_at_a_critical_point(iris, seed, index):
    # Eigenvalues of 1e-5 beside 10: steps in one eigenbasis are short, and eigenvector following stalls on the way.
    def fun(params, x, y):
        logits = mlp.forward(params, x, activation=jax.nn.softplus)
        return losses.mean(losses.squared_error(logits, y)) + penalties.l2(params, 1e-4)

    args = iris[1][0], np.eye(3)[iris[1][1]]
    start = jax.tree.map(lambda leaf: 2 * np.asarray(leaf, float), mlp.init(jax.random.key(seed), (4, 12, 12, 3)))
    point = critical.find(fun, start, args, index=index)
    assert point.converged
    assert point.index == numpy_index(fun, point.params, args)


def test_blas_has_its_threads_again_when_searches_that_overlap_in_time_have_ended():
    blas = threadpoolctl.ThreadpoolController().select(user_api="blas")
    threads = lambda: [library["num_threads"] for library in blas.info()]
    with blas.limit(limits=2):
        before = threads()
        first, second = _parallel.one_blas_thread(), _parallel.one_blas_thread()
        with first:
            second.__enter__()
        assert set(threads()) == {1}
        second.__exit__(None, None, None)
        assert threads() == before == [2] * len(before)


def test_the_error_of_a_model_that_overflows_is_infinite():
    # Both the change of the gradient in the eigenbasis, 3e308, and that of the model, 2 · 1.5e308, overflow.
    values = np.full(4, 1.5e308)
    signs = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    basis = eigenbasis.Basis(values, signs, None, values)
    with np.errstate(over="ignore", invalid="ignore"):
        assert following._error(basis, np.full(4, 1.5e308), np.full(4, 2.0), 0.0) == np.inf


@pytest.mark.parametrize("matrices", [True, False])
def test_a_start_with_an_infinite_gradient_is_not_finite(monkeypatch, matrices):
    if not matrices:
        monkeypatch.setattr(by_matrices, "MATRICES", 0)
    point = critical.find(lambda x: jnp.sum(jnp.sqrt(x)), np.zeros(3))
    assert not point.converged
    assert point.reason is critical.Reason.NOT_FINITE


@pytest.mark.slow
def test_a_start_that_is_not_finite_disturbs_no_other_core(iris):
    fun, args = iris
    start = mlp.init(jax.random.key(0), (4, 7, 3))
    starts = jax.tree.map(lambda leaf: np.stack([leaf, np.nan * leaf]), start)
    points = critical.find_many(fun, starts, args, index=0)
    assert points.converged.tolist() == [True, False]
    assert points.reason[1] == critical.Reason.NOT_FINITE
    np.testing.assert_array_equal(
        tree.ravel(critical.find(fun, start, args, index=0).params)[0],
        tree.ravel(jax.tree.map(lambda leaf: leaf[0], points.params))[0],
    )


# --- Many starts --------------------------------------------------------------------------------------------------


def many_starts(num):
    return np.random.default_rng(0).uniform(-1.5, 1.5, (num, 2))


@pytest.mark.slow
@pytest.mark.parametrize("index", [None, 1])
@pytest.mark.parametrize("lanes", [1, 7, pytest.param(64, marks=pytest.mark.slow)])
def test_many_starts_end_where_each_would_alone(index, lanes):
    starts = many_starts(40)
    points = critical.find_many(two_wells, starts, index=index, lanes=lanes)
    for i in range(0, 40, 13):
        alone = critical.find_many(two_wells, starts[i : i + 1], index=index, lanes=1)
        np.testing.assert_allclose(points.params[i], alone.params[0], atol=1e-12)
        assert points.steps[i] == alone.steps[0]
        assert points.reason[i] == alone.reason[0]
        assert points.converged[i] == alone.converged[0]


def test_starts_that_are_not_finite_are_marked_and_disturb_no_other():
    starts = many_starts(20).copy()
    clean = critical.find_many(two_wells, starts, lanes=4)
    starts[[0, 7, 19], 0] = np.nan, np.inf, 1e300
    points = critical.find_many(two_wells, starts, lanes=4)
    bad = np.isin(np.arange(20), (0, 7, 19))
    assert np.all(points.reason[bad] == critical.Reason.NOT_FINITE)
    assert not np.any(points.converged[bad])
    np.testing.assert_array_equal(points.params[~bad], clean.params[~bad])


@given(
    st.lists(st.tuples(*[st.floats(-3, 3) | st.sampled_from([np.nan, np.inf, -np.inf])] * 2), min_size=20, max_size=20)
)
@settings(max_examples=25, deadline=None)
def test_whatever_the_starts_converged_points_are_critical_and_the_rest_say_why(rows):
    starts = np.array(rows)
    points = critical.find_many(two_wells, starts, lanes=4)
    known = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    for start, params, converged, reason in zip(starts, points.params, points.converged, points.reason, strict=True):
        if converged:
            assert np.min(np.linalg.norm(params - known, axis=1)) < 1e-9
        assert converged == (reason == critical.Reason.ROUNDING)
        assert (reason == critical.Reason.NOT_FINITE) == (not np.all(np.isfinite(start)))


@pytest.mark.parametrize(
    ("starts", "kind"),
    [
        (np.float64(1.0), ValueError),
        ((np.zeros((3, 2)), np.zeros((4, 2))), ValueError),
        (np.zeros((0, 2)), ValueError),
        (np.zeros((3, 2), int), TypeError),
    ],
)
def test_starts_need_a_common_leading_axis_and_floating_numbers(starts, kind):
    with pytest.raises(kind, match="starts"):
        critical.find_many(lambda p: tree.norm(p), starts)


def test_a_point_prints_as_a_sentence_without_its_params():
    point = critical.find(two_wells, np.array([2.0, 1.0]))
    assert str(point).startswith("converged: the gradient is at the level of its own rounding. 2 parameters, gradient")
    assert "array" not in str(point)
    assert "converged" in point._repr_html_()
    stopped = critical.find(two_wells, np.array([2.0, 1.0]), max_steps=1)
    assert str(stopped).startswith("not converged: the largest number of steps was reached. 2 parameters")
    assert str(critical.find_many(two_wells, np.array([[2.0, 1.0], [np.nan, 0.0]]))) == "1 of 2 searches converged."
    traced = []
    jax.jit(lambda start: traced.append(str(critical.find(two_wells, start))) or start)(np.ones(2))
    assert "converged=" in traced[0]


def test_distinct_points_are_counted_once_with_their_hits():
    # As many starts and lanes as in the tests above: one program for all.
    points = critical.find_many(two_wells, np.concatenate([many_starts(19), [[np.nan, 0.0]]]), lanes=4)
    found = critical.distinct(points)
    assert sorted(np.round(found.points.params, 9)[:, 0] + 0.0) == [-1.0, 0.0, 1.0]
    assert found.hits.sum() == np.sum(points.converged)
    assert list(found.hits) == sorted(found.hits, reverse=True)
    assert found.labels[-1] == -1
    assert len(critical.distinct(points, canonical=np.abs).hits) == 2
    nothing = critical.find_many(two_wells, np.full((20, 2), np.nan), lanes=4)
    assert critical.distinct(nothing).hits.size == 0


@pytest.mark.slow
def test_starts_along_a_run_are_its_points_with_noise_of_the_chosen_size():
    draws = np.random.default_rng(0).standard_normal((50, 40, 40))
    run = {"w": jnp.asarray(draws, jnp.float32), "b": jnp.zeros((50, 3))}
    exact = critical.along_run(jax.random.key(0), run, 11, 0.0)
    np.testing.assert_array_equal(exact["w"][np.array([0, 10])], run["w"][np.array([0, 49])])
    noisy = critical.along_run(jax.random.key(0), run, 11, 0.1)
    ratio = np.std(noisy["w"] - exact["w"], axis=(1, 2)) / np.sqrt(np.mean(exact["w"] ** 2, axis=(1, 2)))
    np.testing.assert_allclose(ratio, 0.1, rtol=0.08)
    with pytest.raises(ValueError, match="num_starts: got 0"):
        critical.along_run(jax.random.key(0), run, 0, 0.1)
    with pytest.raises(ValueError, match="noise: got nan"):
        critical.along_run(jax.random.key(0), run, 2, np.nan)


@pytest.mark.slow
def test_many_lanes_of_matrices_end_on_few_cores():
    # Two batched LU factorisations at a time hung here (jaxlib 0.10.2): a process of its own, with a time limit.
    code = """if True:
        import jax, jax.numpy as jnp, numpy as np
        from experiments._shared import linear_control
        from mlp_jax import critical, mlp
        x = linear_control.rows_of(np.array([0.3, 0.25, 0.2, 0.1, 0.08, 0.07]))
        starts = jax.vmap(lambda key: mlp.init(key, (6, 3, 6)))(jax.random.split(jax.random.key(0), 60))
        print(int(critical.find_many(linear_control.loss, starts, (x,), lanes=16).converged.sum()))
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "OPENBLAS_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment, check=True
    )
    assert int(done.stdout) >= 55


@pytest.mark.parametrize("settings", [{}, {"index": 0}, {"method": critical.newton_mr}])
def test_a_gradient_whose_square_is_too_small_for_a_number_is_not_a_critical_point(settings):
    fun = lambda x: 1e-200 * jnp.sum(x**2 - jnp.cos(3 * x))
    point = critical.find(fun, jnp.array([1.0, 2.0]), **settings)
    assert point.gradient_norm > 0 or np.array_equal(point.params, np.zeros(2))
    assert not point.converged or np.max(np.abs(2 * point.params + 3 * np.sin(3 * point.params))) < 1e-12
