"""Gradient descent and its successors against theorems, small."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import gradient_descent


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_measured_rates_are_those_of_theory_and_divergence_begins_where_it_must(tmp_path):
    settings = gradient_descent.Settings(quick=True, starts=4, conditions=(10.0,), output=tmp_path / "one")
    rows = gradient_descent.run(settings).set_index("method")
    # (κ − 1)/(κ + 1) is exact for gradient descent; the others are limits, with a factor of t before them.
    assert rows.factor["gradient descent"] == pytest.approx(9 / 11, abs=1e-3)
    assert rows.factor["momentum, best"] == pytest.approx((np.sqrt(10) - 1) / (np.sqrt(10) + 1), abs=0.05)
    assert rows.factor["Nesterov, best"] == pytest.approx(1 - 1 / np.sqrt(10), abs=0.05)
    assert rows.steps["Newton"] == 1
    edge = pd.read_csv(tmp_path / "one" / "edge.csv")
    assert np.allclose(edge["growth a step"], edge.theory, atol=0.01)
    assert ((edge["growth a step"] > 1 + 1e-9) == (edge["η λ_max / 2"] > 1)).all()
    assert (tmp_path / "one" / "gradient_descent.png").stat().st_size > 10_000


def test_the_gradients_of_a_saturated_unit_are_those_of_the_formulas():
    z = 3.0
    output = 1 / (1 + np.exp(-z))
    with jax.enable_x64(True):
        squared = jax.grad(gradient_descent.squared_sigmoid)(jnp.array([1.0, 2.0]))
        entropy = jax.grad(gradient_descent.entropy_sigmoid)(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(squared, [output**2 * (1 - output)] * 2, rtol=1e-12)
    np.testing.assert_allclose(entropy, [output] * 2, rtol=1e-12)
