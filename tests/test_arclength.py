"""Continuation: the branches of normal forms g(x, s) = 0, whose folds and bifurcations are known in closed form."""

import numpy as np
import pytest

from mlp_jax.critical.search import arclength, bifurcations

# For one x: g, ∂g/∂x and ∂g/∂s.
NORMAL_FORMS = {
    "fold": (lambda x, s: x**2 - s, lambda x, s: 2 * x, lambda x, s: -1.0),
    "pitchfork": (lambda x, s: x**3 - s * x, lambda x, s: 3 * x**2 - s, lambda x, s: -x),
    "transcritical": (lambda x, s: s * x - x**2, lambda x, s: s - 2 * x, lambda x, s: x),
    "circle": (lambda x, s: x**2 + s**2 - 1, lambda x, s: 2 * x, lambda x, s: 2 * s),
}


def equations(name):
    value, slope, by_parameter = NORMAL_FORMS[name]

    def at(y):
        return np.array([value(*y)]), np.array([[slope(*y)]]), np.array([by_parameter(*y)])

    return at


def walked(name, x, s, *, rising, until=lambda place: False):
    """Return the steps of a walk from (x, s), up to the first whose end is as asked."""
    start = arclength.at_parameter(equations(name), np.array([x]), s)
    steps = []
    for step in arclength.branch(equations(name), start if rising else start.turned(), 0.1):
        steps.append(step)
        if until(step[1]):
            break
    return steps


def crossed(name, steps, s):
    found = [place for old, new in steps for place in arclength.crossings(equations(name), old, new, s)]
    return [place.at[0] for place in found], [place.tangent[-1] > 0 for place in found]


def met(name, steps):
    found = [bifurcations.located(equations(name), old, new) for old, new in steps]
    return [one for one in found if one is not None]


def test_a_walk_goes_through_a_fold_to_the_other_branch():
    steps = walked("fold", 2.0, 4.0, rising=False, until=lambda place: place.at[-1] > 4.5)
    ends = np.array([new.at for _, new in steps])
    np.testing.assert_allclose(ends[:, 0] ** 2, ends[:, 1], atol=1e-8)
    assert np.all(np.diff(ends[:, 0]) < 0)
    # Both branches of x = ±√s at once where the fold lies within a step, each once, down the one and up the other.
    for s in (1.0, 1e-4):
        points, rising = crossed("fold", steps, s)
        np.testing.assert_allclose(points, [np.sqrt(s), -np.sqrt(s)], rtol=1e-9)
        assert rising == [False, True]
    np.testing.assert_allclose(crossed("fold", steps, 4.0)[0], [-2.0], rtol=1e-12)
    assert [steps[0][0].negative, steps[-1][1].negative] == [0, 1]
    assert met("fold", steps) == []


@pytest.mark.parametrize(
    ("name", "x", "s", "rising", "others"),
    [
        # x = 0 meets x = ±√s; either side meets the other one, and x = 0.
        ("pitchfork", 0.0, -1.0, True, [lambda s: np.sqrt(s), lambda s: -np.sqrt(s)]),
        ("pitchfork", 0.0, 1.0, False, [lambda s: np.sqrt(s), lambda s: -np.sqrt(s)]),
        ("pitchfork", 1.0, 1.0, False, [lambda s: 0.0, lambda s: 0.0]),
        # x = 0 meets x = s.
        ("transcritical", 0.0, -1.0, True, [lambda s: s, lambda s: s]),
        ("transcritical", -1.0, -1.0, True, [lambda s: 0.0, lambda s: 0.0]),
    ],
)
def test_the_other_branches_are_entered_at_a_bifurcation(name, x, s, rising, others):
    steps = walked(name, x, s, rising=rising, until=lambda place: np.abs(place.at).max() > 1.2)
    (meeting,) = met(name, steps)
    np.testing.assert_allclose(meeting.place.at, 0, atol=3e-3)
    entered = bifurcations.switched(equations(name), meeting)
    assert len(entered) == 2
    assert np.dot(entered[0].tangent, entered[1].tangent) < 1  # two directions
    for place, branch in zip(sorted(entered, key=lambda place: -place.at[0]), others, strict=True):
        np.testing.assert_allclose(place.at[0], branch(place.at[1]), atol=1e-8)
        assert np.linalg.norm(place.at) > 1e-3


@pytest.mark.parametrize("rising", [True, False])
def test_a_walk_around_a_circle_stops_where_it_began(rising):
    steps = walked("circle", 0.9, 0.3, rising=rising)
    ends = np.array([new.at for _, new in steps])
    np.testing.assert_allclose(np.linalg.norm(ends, axis=1), 1, atol=1e-8)
    angles = np.unwrap(np.arctan2(ends[:, 0], ends[:, 1]))
    assert 2 * np.pi <= abs(angles[-1] - np.arctan2(0.9, 0.3)) < 2 * np.pi + 0.5
    assert met("circle", steps) == []


def test_a_walk_ends_where_no_step_succeeds():
    def broken(y):  # not a number beyond s = 1
        return (np.full(1, np.nan) if y[-1] > 1 else np.zeros(1)), np.ones((1, 1)), np.zeros(1)

    start = arclength.at_parameter(broken, np.zeros(1), 0.0)
    ends = [new.at[-1] for _, new in arclength.branch(broken, start, 0.1)]
    assert 0.99 < ends[-1] <= 1
