"""The second-order Taylor model: exact for quadratics, with a remainder of third order otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import losses, mlp, tree
from mlp_jax.curvature.taylor import log_log_slope, quadratic_model, taylor_remainder

remainder = jax.jit(taylor_remainder, static_argnums=0)


def cubic(params, scale):
    """Sum over leaves of scale·a³/6 + a²: its last term along v is t³·scale·Σ v³/6."""
    return sum(jnp.sum(scale * a**3 / 6 + a**2) for a in jax.tree.leaves(params))


def small_network():
    """A tanh network on five points: smooth, not convex, 17 parameters, drawn N(0, ¼)."""
    rng = np.random.default_rng(2)
    draw = lambda *shape: 0.5 * rng.standard_normal(shape)
    params, inputs = (mlp.Layer(draw(2, 4), draw(4)), mlp.Layer(draw(4, 1), draw(1))), 2 * draw(5, 2)
    return params, (inputs, np.sin(3 * inputs[:, :1]))


def fun(p, x, y):
    return losses.mean(losses.squared_error(mlp.forward(p, x), y))


def test_remainder_of_a_quadratic_is_rounding_and_has_no_slope(x64):
    rng = np.random.default_rng(1)
    matrix = jnp.asarray(rng.standard_normal((4, 4)))
    point, direction = (jnp.asarray(v) for v in rng.standard_normal((2, 4)))
    result = remainder(lambda p: p @ matrix @ p, point, direction, jnp.geomspace(1e-3, 1.0, 7))
    # Four terms are subtracted; each is itself a sum of 16 products.
    assert np.all(result.values <= 16 * result.rounding)
    assert np.isnan(result.slope)


def test_model_of_a_cubic_misses_its_third_order_term_which_is_the_remainder(x64):
    rng = np.random.default_rng(3)
    draw = lambda: {"a": rng.standard_normal(3), "b": [rng.standard_normal((2, 2)), rng.standard_normal(())]}
    params, direction = draw(), draw()
    cubes = sum(np.sum(v**3) for v in jax.tree.leaves(direction))
    there = jax.tree.map(np.add, params, direction)
    missed = jax.jit(lambda p, q, scale: cubic(q, scale) - quadratic_model(cubic, p, (scale,))(q))
    np.testing.assert_allclose(missed(params, there, 5.0), 5.0 * cubes / 6, rtol=1e-12)
    np.testing.assert_allclose(missed(params, there, 0.0), 0, atol=1e-13)
    steps = np.array([-0.5, 0.01, 0.1, 1.0])
    result = remainder(cubic, params, direction, steps, (5.0,))
    np.testing.assert_allclose(result.values, np.abs(5.0 * steps**3 * cubes / 6), atol=1e-14)
    np.testing.assert_allclose(result.slope, 3.0, atol=1e-6)


def test_slope_is_four_where_the_third_derivative_vanishes(x64):
    result = remainder(jnp.cos, jnp.array(0.0), jnp.array(1.0), jnp.geomspace(0.01, 0.1, 5))
    np.testing.assert_allclose(result.slope, 4.0, atol=0.01)


@pytest.mark.slow
def test_model_of_a_network_has_its_first_two_derivatives_and_misses_the_third(x64):
    params, args = small_network()
    flat, unravel = tree.ravel(params)
    derivatives = lambda f: jax.jit(lambda v: (jax.grad(f)(v), jax.hessian(f)(v)))(flat)
    gradient, hessian = derivatives(lambda v: fun(unravel(v), *args))
    of_model = derivatives(lambda v: quadratic_model(fun, params, args)(unravel(v)))
    np.testing.assert_allclose(of_model[0], gradient, atol=1e-13)
    np.testing.assert_allclose(of_model[1], hessian, atol=1e-13)
    # Steps above rounding, and small enough for the fourth order where no third derivative nearly vanishes.
    steps = jnp.geomspace(1e-4, 1.5e-3, 9)
    along = jax.jit(jax.vmap(lambda v: taylor_remainder(fun, params, unravel(v), steps, args)))
    result = along(np.linalg.eigh(hessian)[1].T)
    assert result.slope.shape == (17,)
    assert np.all(np.abs(result.slope - 3.0) < 0.05), result.slope
    # Along any direction the remainder is t³/6 times the third derivative.
    direction = tree.random_like(jax.random.key(5), params)
    line = lambda t: fun(jax.tree.map(lambda p, v: p + t * v, params, direction), *args)
    third = jax.jit(jax.grad(jax.grad(jax.grad(line))))(0.0)
    result = remainder(fun, params, direction, jnp.array([1e-4]), args)
    np.testing.assert_allclose(result.values[0], abs(third) * 1e-12 / 6, rtol=1e-2)


def test_model_is_transformable_in_the_point_it_is_made_at(x64):
    def missed(at, there):
        return there**3 - quadratic_model(lambda x: x**3, at)(there)

    here, there = jnp.array([1.0, 2.0, -1.0]), jnp.array([1.5, 0.0, 3.0])
    expected = (np.asarray(there) - np.asarray(here)) ** 3
    np.testing.assert_allclose(jax.jit(jax.vmap(missed))(here, there), expected, rtol=1e-12)


def test_float32_stays_float32_and_says_where_rounding_begins():
    result = remainder(jnp.exp, jnp.array(0.0), jnp.array(1.0), jnp.array([1e-6, 0.1, 0.2]))
    assert result.values.dtype == result.slope.dtype == jnp.float32
    assert result.values[0] < 100 * result.rounding[0]
    assert 2.9 < float(result.slope) < 3.2


def test_slope_of_a_power_law_is_its_power(x64):
    x = jnp.array([0.5, 1.0, 3.0])
    np.testing.assert_allclose(log_log_slope(x, 7.0 * x**2.5), 2.5, rtol=1e-12)
    np.testing.assert_allclose(log_log_slope(x, jnp.array([1.0, 2.0, 0.0]), x < 2), 1.0, rtol=1e-12)
    assert np.isnan(log_log_slope(x, x, x > 2))
    assert np.isnan(log_log_slope(jnp.ones(3), x))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"fun": lambda p: p}, TypeError, r"fun: got .*shape \(2,\)"),
        ({"direction": {"a": jnp.ones(2)}}, ValueError, "direction: got leaves"),
        ({"direction": jnp.array([1.0, np.nan])}, ValueError, "direction: got 1 numbers that are NaN"),
        ({"steps": jnp.ones((2, 2))}, ValueError, r"steps: got shape \(2, 2\)"),
        ({"steps": jnp.zeros(1)}, ValueError, "steps: got a step of 0"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    given = {"fun": lambda p: p @ p, "params": jnp.ones(2), "direction": jnp.ones(2), "steps": jnp.ones(3)}
    with pytest.raises(error, match=message):
        taylor_remainder(**(given | change))
