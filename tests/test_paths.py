"""path: its barriers are those of known saddles, and never below the best saddle between two minima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ground_truth import ROTATION, mueller_brown, rotated_well, stationary_points

from mlp_jax import critical

KEY = jax.random.key(0)


@pytest.mark.slow
def test_the_path_of_mueller_and_brown_has_its_known_barriers():
    points, values = stationary_points()
    found = critical.path(mueller_brown, points[0], points[2], KEY)
    assert found.connected
    np.testing.assert_allclose(found.barriers, (values[3] - values[0], values[3] - values[2]), atol=1e-6)
    saddles = found.saddles[np.argsort(found.saddles[:, 0])]
    np.testing.assert_allclose(saddles, points[3:], atol=1e-9)
    # Between the two saddles it comes through the minimum in the middle.
    assert np.min(np.linalg.norm(found.params - points[1], axis=1)) < 1e-9
    np.testing.assert_allclose(found.params[[0, -1]], points[[0, 2]], atol=1e-9)
    assert np.all(np.diff(found.lengths) >= 0)


@pytest.mark.slow
def test_the_barrier_of_a_rotated_double_well_is_one_whatever_the_string():
    for key in (KEY, jax.random.key(1)):
        found = critical.path(rotated_well, ROTATION[0], -ROTATION[0], key)
        np.testing.assert_allclose(found.barriers, (1, 1), atol=1e-12)
        assert [verdict.name for verdict in found.verdicts] == ["saddle of index 1"]


def test_a_path_needs_no_second_dimension_and_no_curvature():
    # Between the wells of width 1 the function is linear but for a rounded top: its second derivative is zero there.
    def roof(x):
        far = jnp.abs(x[0])
        return jnp.where(far > 1, (far - 1.5) ** 2, jnp.where(far < 0.5, 1 - far**2, 1.25 - far))

    found = critical.path(roof, np.array([-1.5]), np.array([1.5]), KEY)
    np.testing.assert_allclose(found.barriers, (1, 1), atol=1e-9)
    assert [verdict.index for verdict in found.verdicts] == [1]


def test_a_path_needs_two_minima():
    with pytest.raises(ValueError, match=r"b: got converged.*index 1\. Expected a minimum, of index 0"):
        critical.path(mueller_brown, stationary_points()[0][0], stationary_points()[0][3], KEY)
    with pytest.raises(ValueError, match="got the same minimum twice"):
        critical.path(mueller_brown, stationary_points()[0][0], stationary_points()[0][0], KEY)


def test_minima_that_nothing_joins_are_not_connected():
    # Two wells and a wall that no path crosses at a finite height.
    wall = lambda p: (p[0] - 1 / p[0]) ** 2 + p[1] ** 2
    found = critical.path(wall, jnp.array([-1.0, 0.0]), jnp.array([1.0, 0.0]), KEY)
    assert not found.connected
    assert np.all(np.isnan(found.barriers))
