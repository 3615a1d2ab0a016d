"""Continuation: normal forms of folds and bifurcations, whose branches are known in closed form; ladders; XOR."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments._shared import xor
from mlp_jax import critical, mlp_symmetry
from mlp_jax.critical.point import stack
from mlp_jax.critical.search import arclength, bifurcations

# --- Branches of g(x, s) = 0 for one x, where g, ∂g/∂x and ∂g/∂s are written out -----------------------------------

NORMAL_FORMS = {
    "fold": (lambda x, s: x**2 - s, lambda x, s: 2 * x, lambda x, s: -1.0),
    "pitchfork": (lambda x, s: x**3 - s * x, lambda x, s: 3 * x**2 - s, lambda x, s: -x),
    "transcritical": (lambda x, s: s * x - x**2, lambda x, s: s - 2 * x, lambda x, s: x),
    "hysteresis": (lambda x, s: x**3 - x - s, lambda x, s: 3 * x**2 - 1, lambda x, s: -1.0),
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


def test_all_three_points_of_a_hysteresis_are_crossed():
    steps = walked("hysteresis", -1.4, -1.344, rising=True, until=lambda place: place.at[0] > 1.5)
    points, rising = crossed("hysteresis", steps, 0.2)
    np.testing.assert_allclose(points, np.sort(np.roots([1, 0, -1, -0.2]).real), rtol=1e-9)
    assert rising == [True, False, True]
    assert met("hysteresis", steps) == []


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


# --- walk_folds: branches in log p of one function, at p = 1.2 -----------------------------------------------------

AT = 1.2
S = np.log(AT)


def forms(x, p, which):
    """Normal forms in x[0], with s = log p, beside −x[1]²/2, whose critical points have x[1] = 0."""
    a, b = x
    s = jnp.log(p)
    pitchfork = a**4 / 4 - s * a**2 / 2
    hysteresis = a**4 / 4 - a**2 / 2 - s * a
    isola = a**3 / 3 + s**2 * a - a
    return jnp.dot(which, jnp.stack([pitchfork, hysteresis, isola])) - b**2 / 2


KNOWN = {
    # Which form, its critical points at p, and their indices.
    "pitchfork": ((1.0, 0.0, 0.0), [-np.sqrt(S), 0.0, np.sqrt(S)], [1, 2, 1]),
    "hysteresis": ((0.0, 1.0, 0.0), np.sort(np.roots([1, 0, -1, -S]).real), [1, 2, 1]),
    "isola": ((0.0, 0.0, 1.0), [-np.sqrt(1 - S**2), np.sqrt(1 - S**2)], [2, 1]),
}


def all_but(name, number, **settings):
    """Walk from one of the known points; return what is found, and which are known beside it."""
    which, points, indices = KNOWN[name]
    start = np.array([[points[number], 0.0]])
    found = critical.walk_folds(forms, start, (AT, np.array(which)), parameter=0, low=0.3, high=4.0, **settings)
    others = [i for i in range(len(points)) if i != number]
    return found, np.array(points)[others], np.array(indices)[others]


@pytest.mark.parametrize(("name", "number"), [(name, i) for name in KNOWN for i in range(len(KNOWN[name][1]))])
def test_every_other_point_of_a_connected_set_of_branches_is_found_from_each(name, number):
    found, points, indices = all_but(name, number)
    order = np.argsort(found.params[:, 0])
    assert np.all(found.converged)
    np.testing.assert_allclose(found.params[order, 0], points, atol=1e-12)
    np.testing.assert_allclose(found.params[:, 1], 0, atol=1e-12)
    np.testing.assert_array_equal(found.index[order], indices)


def test_a_point_that_has_no_other_on_its_branches_gives_none():
    fun = lambda x, p: jnp.sum((x - p) ** 2)
    found = critical.walk_folds(fun, np.full((1, 2), 1.2), (1.2,), parameter=0, low=0.5, high=2.0)
    assert found.params.shape == (0, 2)
    assert found.converged.shape == (0,)


def test_copies_are_neither_followed_nor_returned():
    # x → −x, so that the two sides of the pitchfork are one point.
    found, _, _ = all_but("pitchfork", 1, canonical=lambda x: np.abs(x))
    np.testing.assert_allclose(np.abs(found.params), [[np.sqrt(S), 0]], atol=1e-12)


def test_progress_is_called_after_each_step_and_a_closed_branch_ends():
    calls = []
    all_but("isola", 0, progress=lambda *done: calls.append(done))
    assert calls == [(i + 1, 5000) for i in range(len(calls))]
    assert len(calls) < 100
    calls.clear()
    found, _, _ = all_but("isola", 0, max_steps=3, progress=lambda *done: calls.append(done))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert len(found.converged) == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"parameter": 2}, r"parameter: got 2, expected an integer from 0 to 1, a position in args"),
        ({"args": (-1.0, np.ones(3))}, r"args\[0\]: got -1.0, expected a finite number above 0"),
        ({"low": 2.0}, r"args\[0\]: got 1.2, expected a number from low to high, 2.0 to 4.0"),
        ({"low": 0.0}, r"low: got 0.0, expected a finite number above 0"),
        ({"max_steps": 0}, r"max_steps: got 0, expected an integer"),
    ],
)
def test_a_bad_setting_is_named(settings, words):
    settings = {"args": (AT, np.ones(3)), "parameter": 0, "low": 0.3, "high": 4.0} | settings
    with pytest.raises(ValueError, match=words):
        critical.walk_folds(forms, np.zeros((1, 2)), **settings)


def test_all_critical_points_of_xor_are_found_from_fourteen():
    args = xor.data("{0, 1}", 0.01)
    like = xor.init(jax.random.key(0))
    maps = mlp_symmetry.maps(xor.loss, like, args, activation=jnp.tanh)
    walk = functools.partial(
        critical.walk_folds, xor.loss, args=args, parameter=2, low=1e-4, high=1.0, canonical=maps.canonical
    )
    generator = np.random.default_rng(0)
    scales = np.exp(generator.uniform(np.log(0.3), np.log(5), 100))
    starts = [jax.tree.map(lambda leaf: scale * generator.standard_normal(np.shape(leaf)), like) for scale in scales]
    ends = stack([critical.find(xor.loss, start, args) for start in starts])
    known = critical.distinct(ends, canonical=maps.canonical).points
    every = joined(known, walk(known.params))
    # The 18 that the census knows: the list satisfies Poincaré–Hopf.
    copies = [maps.orbit_size(jax.tree.map(lambda leaf: leaf[i], every.params)) for i in range(18)]
    assert len(copies) == len(every.index)
    assert np.sum(copies * (-1) ** every.index) == 1
    values = jax.vmap(xor.loss, (0, None, None, None))(every.params, *args)
    left_out = np.argsort(values)[[2, 4, 5, 16]]
    found = walk(jax.tree.map(lambda leaf: np.delete(leaf, left_out, axis=0), every.params))
    assert len(found.converged) == 4
    pairs = joined(jax.tree.map(lambda leaf: leaf[left_out], every), found)
    np.testing.assert_array_equal(critical.distinct(pairs, canonical=maps.canonical).hits, 2)


def joined(*points):
    return jax.tree.map(lambda *parts: np.concatenate(parts), *points)


# --- ladder --------------------------------------------------------------------------------------------------------


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
