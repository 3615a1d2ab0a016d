"""Good arguments give the right answer, by numpy or in closed form; what lies or is not finite gets no false name."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from legal_calls import KEY, regression, start, within

from mlp_jax import critical, curvature, interval, losses, mlp, mlp_hessian, sweep, training

pytestmark = pytest.mark.implicit_promotion

few = settings(deadline=None, max_examples=8, derandomize=True, database=None)
SEEDS = st.integers(0, 2**32 - 1)


@few
@given(seed=SEEDS, sizes=st.sampled_from(((2, 3), (3, 2, 1), (1, 4, 2, 3))))
def test_a_network_has_the_shapes_asked_for_and_computes_what_numpy_does(seed, sizes):
    params = mlp.init(jax.random.key(seed), sizes)
    hidden = inputs = np.random.default_rng(seed).standard_normal((5, sizes[0])).astype(np.float32)
    for depth, ((weight, bias), (n_in, n_out)) in enumerate(zip(params, itertools.pairwise(sizes), strict=True)):
        assert weight.shape == (n_in, n_out)
        assert not np.any(bias)
        hidden = (np.tanh(hidden) if depth else hidden) @ np.asarray(weight) + np.asarray(bias)
    np.testing.assert_allclose(mlp.forward(params, inputs), hidden, rtol=1e-5, atol=1e-5)


def regression_data(seed):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((6, 2)).astype(np.float32), generator.standard_normal(6).astype(np.float32)


def descended(key, w, x, y, rate, batch_size, epochs):
    """Minibatch descent of `regression` in numpy, in the order that is public."""
    w = np.array(w, np.float64)
    for epoch in range(epochs):
        order = np.asarray(training.order(key, epoch, len(x)))
        for rows in np.split(order, range(batch_size, len(x), batch_size)):
            w = w - rate * x[rows].T @ (x[rows] @ w - y[rows]) / len(rows)
    return w


@few
@given(seed=SEEDS, rate=st.floats(0.01, 0.3), batch_size=st.sampled_from((4, 6)))
def test_training_is_minibatch_descent(seed, rate, batch_size):
    (x, y), key = regression_data(seed), jax.random.key(seed)
    end, history = training.train(
        key, regression, np.ones(2, np.float32), (x, y), optimizer=optax.sgd(rate), batch_size=batch_size, epochs=3
    )
    np.testing.assert_allclose(end, descended(key, np.ones(2), x, y, rate, batch_size, 3), rtol=1e-3, atol=1e-4)
    assert history.diverged_at == 0


@few
@given(seed=SEEDS, rates=st.lists(st.floats(0.01, 0.3), min_size=2, max_size=2, unique=True))
def test_every_lane_of_a_sweep_is_minibatch_descent(seed, rates):
    x, y = regression_data(seed)
    result = sweep.run(
        jax.random.key(seed), regression, start, (x, y), batch_sizes=(4, 6), learning_rates=rates, seeds=2, epochs=3
    )
    for (i, size), (j, rate), s in itertools.product(enumerate((4, 6)), enumerate(rates), range(2)):
        init_key, run_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), s))
        right = descended(run_key, start(init_key), x, y, rate, size, 3)
        np.testing.assert_allclose(result.params[i, j, s], right, rtol=1e-3, atol=1e-4)


# --- Critical points of quadratic forms ---------------------------------------------------------------------------


def quadratic(x, matrix, at):
    return (x - at) @ matrix @ (x - at) / 2


@st.composite
def forms(draw):
    """A symmetric matrix of chosen eigenvalues, none near 0, and a place."""
    signs = np.array(draw(st.lists(st.sampled_from((-1.0, 1.0)), min_size=3, max_size=3)))
    generator = np.random.default_rng(draw(SEEDS))
    values = signs * 10 ** generator.uniform(-2, 1, 3)
    rotation = np.linalg.qr(generator.standard_normal((3, 3)))[0]
    matrix = (rotation * values) @ rotation.T
    return (matrix + matrix.T) / 2, np.sort(values), generator.standard_normal(3) * draw(st.sampled_from((0, 1, 1e3)))


def name_of(values):
    return "minimum" if min(values) > 0 else "maximum" if max(values) < 0 else "saddle"


@few
@given(form=forms())
def test_quadratic_forms_are_searched_named_and_proved_right(form):
    matrix, values, at = form
    index, args = int(np.sum(values < 0)), (matrix, at)
    np.testing.assert_allclose(curvature.dense_hessian(quadratic, at, args), matrix, rtol=1e-12, atol=1e-13)
    with jax.enable_x64(True):
        pairs = curvature.eigenpairs(curvature.hessian(quadratic, at, args), at, KEY, smallest=1, largest=2)
    np.testing.assert_allclose(pairs.values, values, atol=1e-8 * np.max(np.abs(values)))
    point = critical.find(quadratic, at + 1, args)
    points = critical.find_many(quadratic, at + np.array([[1, 2, 3], [0, 0, np.nan]]), args)
    np.testing.assert_allclose(point.params, at, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(points.params[0], at, rtol=1e-6, atol=1e-6)
    assert (bool(point.converged), point.index) == (True, index)
    assert points.converged.tolist() == [True, False]
    verdict = critical.classify(quadratic, at, args)
    assert (verdict.kind, verdict.index) == (name_of(values), index)
    proof = interval.certify(quadratic, at, args)
    assert (proof.proved, proof.index, proof.null) == (True, index, 0)
    assert np.max(np.abs(proof.location - at)) <= proof.radius
    assert proof.smallest[0] - 1e-12 <= values[0] <= proof.smallest[1] + 1e-12


@few
@given(seed=SEEDS, weights=st.lists(st.floats(0, 2), min_size=5, max_size=5).filter(lambda w: sum(w) > 0.1))
def test_the_hessian_of_a_linear_model_is_a_kronecker_product(seed, weights):
    generator = np.random.default_rng(seed)
    x, y = generator.standard_normal((5, 3)), generator.standard_normal((5, 2))
    params = (mlp.Layer(generator.standard_normal((3, 2)), generator.standard_normal(2)),)
    matrix = mlp_hessian.dense(params, x, y, loss=losses.squared_error, weights=np.array(weights))
    extended = np.hstack([x, np.ones((5, 1))])
    moments = (extended.T * weights) @ extended / np.sum(weights)
    np.testing.assert_allclose(matrix, np.kron(moments, np.eye(2)), rtol=1e-10, atol=1e-12)


def wells(x):
    """Critical where each coordinate is 0 (curvature −1) or ±1 (curvature 2)."""
    return jnp.sum(x**4 / 4 - x**2 / 2)


@settings(few, max_examples=1)
@given(seed=SEEDS)
def test_a_census_lists_critical_points_once_each_with_their_names(seed):
    census = critical.census(wells, start, jax.random.key(seed), num_starts=16, passes=1)
    points = [tuple(row) for row in np.round(census.params, 6) + 0.0]
    assert len(set(points)) == len(points) == len(census.verdicts) > 0
    for point, verdict in zip(points, census.verdicts, strict=True):
        assert set(point) <= {-1.0, 0.0, 1.0}
        assert verdict.kind == name_of([2 if c else -1 for c in point])


# --- What lies, or is not finite ----------------------------------------------------------------------------------


WITHHELD = {"error", "undetermined", "nonsmooth", "not critical"}
POWERS = {
    (order, sign): lambda x, o=order, s=sign: x[0] ** 2 + s * x[1] ** o for order in (2, 4) for sign in (-1.0, 1.0)
}


def said(fun, **options):
    """Return the name of the origin, or "error"."""
    try:
        return critical.classify(fun, np.zeros(2), **options).kind
    except (TypeError, ValueError):
        return "error"


def assert_true(kind, order, sign):
    """Fail where a name contradicts x₀² + sign x₁^order."""
    if order == 2:
        assert kind in ({"minimum"} if sign > 0 else {"saddle"}) | WITHHELD
    else:
        assert not kind.startswith(("minimum", "maximum", "saddle"))
        assert kind != "degenerate saddle" or sign < 0


@pytest.mark.parametrize(("order", "sign"), POWERS)
@pytest.mark.parametrize(
    "matrix", [np.diag([2.0, 2.0]), [[2.0, 5.0], [-5.0, -2.0]], np.diag([2.0, -2.0]), np.nan * np.eye(2)]
)
def test_a_false_hessian_never_changes_a_name(order, sign, matrix):
    assert_true(said(POWERS[order, sign], hessian=lambda x: jnp.asarray(matrix)), order, sign)


@few
@given(tangents=st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=2))
def test_false_symmetries_and_kinks_never_change_a_name(tangents):
    for order, sign in POWERS:
        assert_true(said(POWERS[order, sign], symmetries=lambda x: jnp.array(tangents)), order, sign)
    assert said(POWERS[2, -1.0], kinks=lambda x: np.array(tangents[0])) in ("saddle", "nonsmooth")


def ruled(factor):
    """x², with a derivative of factor · 2x."""
    function = jax.custom_jvp(lambda x: x**2)
    function.defjvp(lambda primals, tangents: (function(*primals), factor * 2 * primals[0] * tangents[0]))
    return lambda x: function(x[0]) + x[1] ** 2


@settings(few, max_examples=4)
@given(factor=st.floats(-3, 3).filter(lambda f: abs(f - 1) > 0.1))
def test_derivatives_that_are_not_those_of_the_values_are_neither_named_nor_proved(factor):
    # Of the values, x₀² + x₁², the origin is the minimum; the traced Hessian has the sign of the factor.
    assert said(ruled(factor)) in WITHHELD | ({"minimum"} if factor > 0 else set())
    assert not interval.certify(ruled(factor), np.zeros(2)).proved


def with_number(x, number):
    return jnp.sum(x**2) + number * x[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_neither_named_nor_converged_nor_proved(value):
    inside = lambda x: with_number(x, jnp.log(-1.0) if np.isnan(value) else 1 / jnp.zeros(()))
    with within(60):
        for call in (critical.classify, critical.find, interval.certify):
            with pytest.raises(ValueError, match="args"):
                call(with_number, np.zeros(2), (np.float64(value),))
        assert said(inside) in WITHHELD
        assert not critical.find(inside, np.ones(2)).converged
        assert not interval.certify(inside, np.zeros(2)).proved
