"""The change of a function along null modes, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_verdicts import polynomial, terms

from mlp_jax import critical
from mlp_jax.critical.evidence.higher_order import higher_order
from mlp_jax.critical.evidence.measurements import measure
from mlp_jax.critical.evidence.problem import Problem

# fun, its further arguments, order, lowest and highest value of the reduced form on the unit sphere of the null space.
FORMS = {
    "quartic": (polynomial, terms(aa=1.0, bbbb=1.0), 4, 24.0, 24.0),
    "cubic": (polynomial, terms(aa=1.0, bbb=1.0), 3, -6.0, 6.0),
    "monkey saddle": (polynomial, terms(aaa=1.0, abb=-3.0), 3, -6.0, 6.0),
    "product of three": (lambda x: (jnp.prod(x) - 1) ** 2, (), 3, -4 / np.sqrt(3), 4 / np.sqrt(3)),
    # x² + x y²: minimised over x = −y²/2, the value is −y⁴/4.
    "falls by the bend of the range": (polynomial, terms(aa=1.0, abb=1.0), 4, -6.0, -6.0),
    # x² + x y² + y⁴/2 = (x + y²/2)² + y⁴/4
    "rises in spite of the bend": (polynomial, terms(aa=1.0, abb=1.0, bbbb=0.5), 4, 6.0, 6.0),
    # y⁴ + z⁴ − 4 y² z² is 1 on the axes and −1/2 on the diagonals.
    "saddle of order 4": (
        lambda x: x[0] ** 2 + x[1] ** 4 + x[2] ** 4 - 4 * x[1] ** 2 * x[2] ** 2, (), 4, -12.0, 24.0,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_extremes_of_the_reduced_form_are_those_of_the_closed_form(name, x64):
    fun, args, order, lowest, highest = FORMS[name]
    problem = Problem(fun, jnp.zeros(2 if args else 3), args, None, 2.0**-53)
    measured = measure(problem)
    found = higher_order(problem, measured, np.abs(measured.eigenvalues) < 1e-9)
    assert found.order == order
    assert (found.falls, found.rises) == (lowest < 0, highest > 0)
    np.testing.assert_allclose([found.lowest, found.highest], [lowest, highest], rtol=1e-6)


circle = lambda x: (x @ x - 1) ** 2
tangent = lambda x: jnp.array([[-x[1], x[0]]])


@pytest.mark.parametrize("radius", [1.0, 1 + 1e-8])
def test_a_circle_of_minima_stays_degenerate_without_its_symmetry(radius):
    point = radius * np.array([0.6, 0.8])
    verdict = critical.classify(circle, point)
    assert verdict.kind == "degenerate"
    assert "with 256 bits as well" in verdict.reason
    assert not verdict.higher_order.falls
    named = critical.classify(circle, point, symmetries=tangent)
    assert named.kind == "minimum modulo symmetry"
    assert named.index == 0


def test_a_point_off_by_a_millionth_keeps_its_name_and_explains_the_deciding_numbers():
    point = np.array([1e-6, -1e-6])
    verdict = critical.classify(lambda x: jnp.sum(jnp.cosh(x)), point)
    assert verdict.kind == "minimum"
    assert np.linalg.norm(point) < verdict.distance < 1e-5
    words = verdict.explain()
    assert "above its rounding" in words
    assert "places the critical point within 2.8e-06" in words
    assert "2 positive; 0 are not resolved" in words
    assert jax.config.jax_enable_x64 is False


# --- A second look with 256 bits ----------------------------------------------------------------------------------


def nearly_flat(x, t, across):
    """(x + across · y/2)² + t y², whose null mode is along no axis unless `across` is 0."""
    return x[0] ** 2 + across * x[0] * x[1] + across**2 * x[1] ** 2 / 4 + t * x[1] ** 2


@pytest.mark.parametrize("tiny", [1e-20, -1e-20, 1e-30, -1e-30])
def test_modes_that_are_null_only_to_float64_are_not_called_degenerate(tiny):
    verdict = critical.classify(nearly_flat, np.zeros(2), (1e-3 * tiny, 0.0))
    assert verdict.kind in ("undetermined", "minimum", "saddle")
    assert verdict.kind != ("saddle" if tiny > 0 else "minimum")
    hidden = critical.classify(nearly_flat, np.zeros(2), (tiny, 1.0))
    assert hidden.kind == "undetermined"
    assert "with 256 bits" in hidden.reason
