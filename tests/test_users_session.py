"""Side effects of a call: the user's function works afterwards as before, and unusual functions get an answer."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.ode import odeint

from mlp_jax import critical, curvature, interval

MATRIX, FACTOR, POINT = np.diag([1.0, 2.0, 3.0]), np.array(2.0), np.float64(0.5)


def with_numpy_constants(x):
    return (x @ MATRIX @ x) * FACTOR + POINT * jnp.sum((x - 1) ** 2)


CALLS = {
    "classify": critical.classify,
    "classify by products": lambda fun, x: critical.classify(fun, x, evidence="lanczos"),
    "classify with a proof": lambda fun, x: critical.classify(fun, critical.find(fun, x).params, evidence="proved"),
    "find": critical.find,
    "census": lambda fun, x: critical.census(
        fun, lambda key: jax.random.normal(key, x.shape), jax.random.key(0), num_starts=2
    ),
    "certify": interval.certify,
    "dense_hessian": curvature.dense_hessian,
    "rounding_unit": curvature.rounding_unit,
}


@pytest.mark.slow
@pytest.mark.implicit_promotion
def test_after_every_call_a_function_with_float64_constants_works_and_what_it_captures_is_free():
    captured = np.random.default_rng(0).standard_normal(1000)
    held = weakref.ref(captured)

    def fun(x, data=captured):
        return with_numpy_constants(x) + jnp.mean(jnp.asarray(data, x.dtype)) * (x[0] - 1)

    slope = [4.0 + captured.mean(), 8.0, 12.0]
    for name, call in CALLS.items():
        call(fun, jnp.ones(3))
        assert fun(jnp.ones(3)) == 12.0, name
        assert fun(jnp.ones(3)).dtype == jnp.float32, name
        np.testing.assert_allclose(jax.grad(fun)(jnp.ones(3)), slope, rtol=1e-6, err_msg=name)
    del fun, captured
    gc.collect()
    assert held() is None


@pytest.mark.slow
@pytest.mark.implicit_promotion
def test_a_scan_whose_carry_is_float32_is_classified():
    def fun(x):
        return jax.lax.scan(lambda total, a: (total + a**2, None), jnp.zeros((), jnp.float32), x)[0]

    verdict = critical.classify(fun, jnp.zeros(3))
    assert verdict.kind == "minimum"
    assert verdict.unit == 2.0**-24
    assert critical.find(fun, jnp.ones(3)).converged


@jax.custom_vjp
def quartic(x):
    """Σ x⁴ with a derivative rule for reverse mode only."""
    return jnp.sum(x**4)


quartic.defvjp(lambda x: (quartic(x), x), lambda x, g: (4 * g * x**3,))


def test_higher_orders_decide_for_a_function_with_a_reverse_mode_rule_only():
    verdict = critical.classify(lambda x: quartic(x) + x[0] ** 2, jnp.zeros(2))
    assert verdict.kind == "degenerate"
    assert verdict.higher_order.order == 4
    assert verdict.higher_order.rises
    np.testing.assert_allclose(verdict.higher_order.highest, 24, rtol=1e-9)


@pytest.mark.slow
def test_a_degenerate_point_beside_a_cholesky_factor_gets_an_answer():
    def fun(p):
        matrix = jnp.eye(4, dtype=p.dtype) * (2 + p[0] ** 2 + p[1] ** 4)
        return jnp.sum(jnp.log(jnp.diag(jnp.linalg.cholesky(matrix))))

    # log det is 4/2 log(2 + a² + b⁴), which is null along b; the interpreter has no rule for Cholesky.
    verdict = critical.classify(fun, jnp.zeros(2))
    assert verdict.kind in ("degenerate", "undetermined")
    assert verdict.inertia[:3] == (0, 1, 1)


@pytest.mark.slow
def test_the_solution_of_an_ordinary_differential_equation_is_classified_with_a_given_hessian():
    # y' = −p₀ y + p₁ from 0 over time 1: y = p₁ (1 − e^(−p₀)) / p₀, here linear in p₁ with p₀ held at 1.
    def fun(p):
        y = odeint(lambda y, t, p: -y + p[0], jnp.zeros((), p.dtype), jnp.array([0.0, 1.0], p.dtype), p, rtol=1e-10,
                   atol=1e-10)[-1]  # fmt: skip
        return (y - 0.5) ** 2 + jnp.sum(p[1:] ** 2)

    share = 1 - np.exp(-1.0)
    at = np.array([0.5 / share, 0.0])
    given = lambda p: np.diag([2 * share**2, 2.0])
    verdict = critical.classify(fun, at, hessian=given)
    assert verdict.kind in ("minimum", "undetermined", "not critical")  # the solver itself has an error
    np.testing.assert_allclose(verdict.smallest, 2 * share**2, rtol=1e-6)
