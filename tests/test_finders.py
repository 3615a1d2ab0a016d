"""find: reaches critical points, and reports convergence nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_verdicts import xor_loss

from mlp_jax import critical, mlp

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


def test_no_convergence_at_a_gradient_flat_point():
    # g = (ε + 3 x², 2 y): ‖g‖ has its minimum ε at the origin, where H is singular along g.
    def fun(x):
        return 1e-3 * x[0] + x[0] ** 3 + x[1] ** 2

    point = critical.find(fun, np.array([0.5, 1.0]))
    assert not point.converged
    assert point.gradient_norm > 9e-4
    assert critical.classify(fun, point.params).kind == "not critical"
    assert critical.find(fun, np.zeros(2)).flatness > 0.999
    assert point.reason in (critical.Reason.GRADIENT_FLAT, critical.Reason.NO_DESCENT)


def test_no_convergence_where_there_is_no_critical_point():
    for index in (None, 0):
        point = critical.find(lambda x: jnp.exp(x[0]) + x[1] ** 2, np.array([0.0, 1.0]), index=index, max_steps=20)
        assert not point.converged
        assert point.reason is critical.Reason.MAX_STEPS


def test_converged_points_of_xor_are_critical_and_most_starts_converge():
    ends = [critical.find(xor_loss, mlp.init(jax.random.key(seed), (2, 2, 1)), (0.01,)) for seed in range(20)]
    converged = [end for end in ends if end.converged]
    assert len(converged) >= 14
    for end in converged:
        assert critical.classify(xor_loss, end.params, (0.01,)).kind in ("minimum", "saddle")


@pytest.mark.implicit_promotion
def test_float32_callers_get_float64_points_and_keep_their_configuration():
    point = critical.find(lambda x: jnp.sum(jnp.cosh(x - 0.1)), jnp.array([1.0, -1.0], jnp.float32))
    assert point.params.dtype == np.float64
    assert point.converged
    np.testing.assert_allclose(np.asarray(point.params), 0.1, atol=1e-15)
    assert not jax.config.jax_enable_x64


def test_find_works_under_jit_and_vmap(x64):
    starts = jnp.array([[0.9, 1.0], [-0.9, 0.5], [0.1, 0.3]])
    points = jax.jit(jax.vmap(lambda start: critical.find(two_wells, start)))(starts)
    assert np.all(points.converged)
    np.testing.assert_allclose(points.params, [[1, 0], [-1, 0], [0, 0]], atol=1e-9)


def test_a_second_call_traces_nothing(x64):
    traces = []

    def fun(x, shift):
        traces.append(1)
        return jnp.sum((x - shift) ** 2)

    critical.find(fun, jnp.zeros(2), (jnp.ones(2),))
    first = len(traces)
    critical.find(fun, jnp.ones(2), (jnp.zeros(2),))
    # What remains is the abstract check of the boundary, which compiles nothing.
    assert len(traces) - first <= 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"index": 3}, "index: got 3, expected None or a whole number from 0 to 2"),
        ({"index": -1}, "index: got -1"),
        ({"max_steps": 0}, "max_steps: got 0, expected 1 or more"),
        ({"radius": 0.0}, "radius: got 0.0, expected a number above 0"),
    ],
)
def test_bad_settings_are_one_clear_sentence(settings, words):
    with pytest.raises(ValueError, match=words):
        critical.find(two_wells, np.zeros(2), **settings)
