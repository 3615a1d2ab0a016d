"""`rounding_unit` sees every loss of precision that depends on params; products keep the precision of their dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import critical, curvature, losses, mlp, mlp_hessian
from mlp_jax.curvature import dense_hessian, rounding_unit

pytestmark = pytest.mark.implicit_promotion

FULL, SINGLE, HALF, BRAIN = 2.0**-53, 2.0**-24, 2.0**-11, 2.0**-8


def squared(x, dtype, precision=None):
    return jnp.matmul(x.astype(dtype), x.astype(dtype), precision=precision).astype(x.dtype)


def low(x, dtype=jnp.float32):
    return jnp.sum(x.astype(dtype) ** 2).astype(x.dtype)


@pytest.mark.slow
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
        (lambda x: squared(x, jnp.float32), SINGLE),
        (lambda x: squared(x, jnp.float32, "highest"), SINGLE),
        (lambda x: squared(x, jnp.float32, "default"), BRAIN),
        (lambda x: squared(x, jnp.float32, "BF16_BF16_F32"), BRAIN),
        (lambda x: squared(x, jnp.float64, "default"), FULL),
    ],
)
def test_the_unit_is_that_of_the_coarsest_type_on_the_way(fun, unit):
    assert rounding_unit(fun, jnp.arange(3.0)) == unit
    assert not jax.config.jax_enable_x64


def test_dense_hessians_are_float64_and_exactly_symmetric_for_float32_callers():
    rosenbrock = lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    matrix = dense_hessian(rosenbrock, jnp.array([0.5, -1.25], jnp.float32))
    assert matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix, [[2 - 400 * (-1.25 - 3 * 0.25), -200.0], [-200.0, 200.0]])


def test_a_hessian_too_large_for_its_memory_is_refused_with_the_numbers():
    with pytest.raises(MemoryError, match=r"100 parameters needs .* more than the .* GiB allowed"):
        dense_hessian(lambda x: jnp.sum(x**2), jnp.zeros(100), max_bytes=1000)


# --- Products on a GPU ----------------------------------------------------------------------------------------------
#
# On an H200, JAX rounds the factors of a float32 product to 10 bits by default, and nodes of a spectral density lie
# outside the spectrum by 1e-4. A CPU does not round them, so these tests read the precision requested in the jaxpr.

INPUTS, SLOPES, KEY = jnp.ones((5, 2), jnp.float32), jnp.ones(2, jnp.float32), jax.random.key(0)
half_squares = lambda p, x: (x @ p) ** 2 / 2
mean_square = lambda p, x: jnp.mean(half_squares(p, x))
outputs = lambda p, x: x @ p[:, None]
half_error = lambda z, y: jnp.sum((z - y[:, None]) ** 2, axis=1) / 2
gram = lambda p: lambda v: INPUTS.T @ (INPUTS @ v) + p
ARGS = (INPUTS, INPUTS[:, 0])
ANALYSES = {
    "hessian": lambda p: curvature.hessian(mean_square, p, (INPUTS,))(p),
    "hessian_of_mean": lambda p: curvature.hessian_of_mean(half_squares, p, (INPUTS,))(p),
    "hessian_of_mean in chunks": lambda p: curvature.hessian_of_mean(half_squares, p, (INPUTS,), chunk_size=2)(p),
    "ggn": lambda p: curvature.ggn(outputs, half_error, p, ARGS)(p),
    "lanczos": lambda p: curvature.lanczos(gram(0 * p), p, num_steps=2).ritz(largest=1),
    "overlap": lambda p: curvature.overlap(jnp.stack([p, -p]), p),
    "ggn in chunks": lambda p: curvature.ggn(outputs, half_error, p, ARGS, chunk_size=2)(p),
    "empirical_fisher": lambda p: curvature.empirical_fisher(outputs, half_error, p, ARGS, chunk_size=2)(p),
    "spectral_density": lambda p: curvature.spectral_density(gram(p), SLOPES, KEY, num_probes=2, num_steps=2).nodes,
    "trace": lambda p: curvature.trace(gram(p), SLOPES, KEY),
    "diagonal": lambda p: curvature.diagonal(gram(p), SLOPES, KEY),
    "dense_hessian": lambda p: dense_hessian(mean_square, p, (INPUTS,)),
    "find": lambda p: critical.find(mean_square, p, (INPUTS,)).params,
    "find_many": lambda p: critical.find_many(mean_square, p[None], (INPUTS,), index=0).params,
    "quadratic_model": lambda p: curvature.quadratic_model(mean_square, p, (INPUTS,))(p + 1),
    "taylor_remainder": lambda p: curvature.taylor_remainder(mean_square, p, p, jnp.ones(1), (INPUTS,)),
    "mlp_hessian": lambda p: mlp_hessian.dense(
        (mlp.Layer(p[:, None], p[:1]),), INPUTS, INPUTS[:, :1], loss=losses.squared_error
    ),
}


def products(jaxpr):
    """Yield the requested precision of each matrix product of a jaxpr and of those inside it."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            yield eqn.params["precision"]
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from products(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("analysis", ANALYSES.values(), ids=ANALYSES.keys())
def test_float32_products_request_the_highest_precision(analysis):
    requested = set(products(jax.make_jaxpr(analysis)(SLOPES).jaxpr))
    assert requested == {(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)}


@pytest.mark.slow
def test_host_level_analyses_trace_their_function_at_the_highest_precision():
    seen = []

    def fun(p):
        seen.append(jax.config.jax_default_matmul_precision)
        return jnp.sum(p.astype(jnp.float32) ** 2).astype(p.dtype)

    at = jnp.zeros(2)
    calls = [
        *(lambda fun, f=f: f(fun, at) for f in (critical.classify, critical.find, dense_hessian, rounding_unit)),
        lambda fun: critical.find_many(fun, at[None]),
        lambda fun: curvature.eigenpairs(jax.grad(fun), at, KEY, largest=1, dense_limit=0),
    ]
    for call in calls:
        seen.clear()
        call(lambda p: fun(p))  # a new function each time, because traces are cached
        assert set(seen) == {"highest"}
