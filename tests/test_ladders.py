"""ladder: on a separable function every rung is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import critical


def wells(x):
    """Critical points are 0 and ±1 in each coordinate; the index is the number of zeros; modes are the axes."""
    return jnp.dot(np.array([1.0, 2.0, 3.0]), (x**2 - 1) ** 2)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Up along the flattest axis with a minimum, down either side of the flattest with a maximum.
        ({}, [(0, 0, -1), (0, 0, 0), (1, 1, -1), (1, -1, -1)]),
        ({"up": 1, "down": 0}, [(0, 0, -1)]),
        ({"up": 0, "canonical": np.abs}, [(1, 1, 1)]),
        ({"up": 0, "down": 0}, []),
    ],
)
def test_a_ladder_on_a_separable_function_climbs_along_its_axes(settings, expected):
    rungs = []
    found = critical.ladder(wells, np.array([1.0, 0.0, -1.0]), progress=lambda *done: rungs.append(done), **settings)
    points = found.params.round(9) + 0.0
    if "canonical" in settings:
        points = np.abs(points)
    assert set(map(tuple, points.tolist())) == set(expected)
    assert len(points) == len(expected)
    np.testing.assert_array_equal(found.index, np.sum(points == 0, axis=1))
    number = min(settings.get("up", 2), 2) + min(settings.get("down", 2), 1)
    assert rungs == [(i + 1, number) for i in range(number)]


def test_a_ladder_needs_a_point_of_known_index():
    with pytest.raises(ValueError, match="params: got a point from which `find` says"):
        critical.ladder(lambda x: jnp.exp(x[0]) + x[1] ** 2, np.zeros(2), max_steps=5)
