"""Precision is noticed wherever it is lost on the way from params, and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax.curvature import dense_hessian, rounding_unit

pytestmark = pytest.mark.implicit_promotion

FULL, SINGLE, HALF = 2.0**-53, 2.0**-24, 2.0**-11


def low(x, dtype=jnp.float32):
    return jnp.sum(x.astype(dtype) ** 2).astype(x.dtype)


@pytest.mark.parametrize(
    ("fun", "unit"),
    [
        (lambda x: jnp.sum(jnp.tanh(x) ** 2), FULL),
        (low, SINGLE),
        (lambda x: low(x, jnp.float16), HALF),
        (lambda x: jnp.sum(x**2) + 0 * low(x), SINGLE),
        (jax.jit(low), SINGLE),
        (jax.checkpoint(low), SINGLE),
        (lambda x: jax.lax.cond(x[0] > 0, low, lambda x: jnp.sum(x), x), SINGLE),
        (lambda x: jax.lax.scan(lambda c, v: (c + low(v), None), jnp.zeros((), x.dtype), x)[0], SINGLE),
        (lambda x: jnp.sum(x * np.ones(3, np.float32)), FULL),
        (lambda x: jnp.sum(x) * jnp.sum(jnp.ones(3, jnp.float32) * 2), FULL),
        (lambda x: x[jnp.argmax(x)], FULL),
    ],
)
def test_the_unit_is_that_of_the_coarsest_type_on_the_way(fun, unit):
    assert rounding_unit(fun, jnp.arange(3.0)) == unit
    assert not jax.config.jax_enable_x64


def test_dense_hessians_are_float64_and_exactly_symmetric_for_float32_callers():
    def rosenbrock(x):
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    at = jnp.array([0.5, -1.25], jnp.float32)
    matrix = np.asarray(dense_hessian(rosenbrock, at))
    closed = np.array([[2 - 400 * (-1.25 - 3 * 0.25), -200.0], [-200.0, 200.0]])
    assert matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix, closed)


def test_a_hessian_too_large_for_its_memory_is_refused_with_the_numbers():
    with pytest.raises(MemoryError, match=r"100 parameters needs .* more than the .* GiB allowed"):
        dense_hessian(lambda x: jnp.sum(x**2), jnp.zeros(100), max_bytes=1000)
