"""walk_folds: from any point all points of connected branches in log p are found, on normal forms and on XOR."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments._shared import xor
from mlp_jax import critical, mlp_symmetry
from mlp_jax.critical.point import stack

P = 1.2
S = np.log(P)
ROOT = np.sqrt(S)


def forms(x, p, which):
    """Normal forms in x, with s = log p."""
    a, b = x
    s = jnp.log(p)
    pitchfork = a**4 / 4 - s * a**2 / 2 - b**2 / 2
    hysteresis = a**4 / 4 - a**2 / 2 - s * a - b**2 / 2
    isola = a**3 / 3 + s**2 * a - a - b**2 / 2
    double = (a**4 + b**4) / 4 - s * (a**2 + b**2) / 2  # four pitchforks at one point
    return jnp.dot(which, jnp.stack([pitchfork, hysteresis, isola, double]))


# The critical points of each at p, with their indices.
KNOWN = {
    "pitchfork": [(-ROOT, 0, 1), (0, 0, 2), (ROOT, 0, 1)],
    "hysteresis": [(a, 0, index) for a, index in zip(np.sort(np.roots([1, 0, -1, -S]).real), (1, 2, 1), strict=True)],
    "isola": [(-np.sqrt(1 - S**2), 0, 2), (np.sqrt(1 - S**2), 0, 1)],
    "double": [(a, b, (a == 0) + (b == 0)) for a in (-ROOT, 0, ROOT) for b in (-ROOT, 0, ROOT)],
}


def walk_from(name, number, **settings):
    """Walk from one of the known points."""
    args = (P, np.eye(len(KNOWN))[list(KNOWN).index(name)])
    start = np.array([KNOWN[name][number][:2]], float)
    return critical.walk_folds(forms, start, args, **{"parameter": 0, "low": 0.3, "high": 4.0} | settings)


@pytest.mark.parametrize(("name", "number"), [(name, i) for name in KNOWN for i in range(min(3, len(KNOWN[name])))])
def test_every_other_point_of_a_connected_set_of_branches_is_found_from_each(name, number):
    found = walk_from(name, number)
    assert np.all(found.converged)
    rows = np.column_stack([found.params, found.index])
    others = np.delete(KNOWN[name], number, axis=0)
    # Each of the others, once.
    far = np.max(np.abs(rows[:, None] - others), axis=2)
    np.testing.assert_allclose(np.min(far, axis=0), 0, atol=1e-12)
    assert len(rows) == len(others)


def test_nothing_is_found_where_the_fold_lies_outside_the_range():
    # The lowest branch of the hysteresis turns at s = 2 / √27, p = 1.47.
    assert walk_from("hysteresis", 0, high=1.48).params.shape == (2, 2)
    none = walk_from("hysteresis", 0, high=1.46)
    assert none.params.shape == (0, 2)
    assert none.converged.shape == (0,)


def test_copies_are_neither_followed_nor_returned():
    # x → −x, so that the two sides of the pitchfork are one point.
    found = walk_from("pitchfork", 1, canonical=jnp.abs)
    np.testing.assert_allclose(np.abs(found.params), [[ROOT, 0]], atol=1e-12)


def branches_from(name, number, **settings):
    args = (P, np.eye(len(KNOWN))[list(KNOWN).index(name)])
    start = np.array([KNOWN[name][number][:2]], float)
    return critical.branches(forms, start, args, **{"parameter": 0, "low": 0.3, "high": 4.0} | settings)


def crossed(found, p):
    """Return the indices of the branches that cross a parameter."""
    sides = [(b.parameter[:-1], b.parameter[1:], b.indices[1:]) for b in found.branches]
    return sorted(int(i) for a, b, index in sides for i in index[(np.minimum(a, b) <= p) & (p < np.maximum(a, b))])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_each_branch_of_a_pitchfork_is_returned_once(number):
    # Below s = 0 the index of x = 0 is 1, that of −b² alone; above it is 2, beside ±√s of index 1, which are copies.
    found = branches_from("pitchfork", number, canonical=jnp.abs)
    np.testing.assert_allclose(found.bifurcations, [1], atol=1e-3)
    for p in (0.5, 0.9):
        assert crossed(found, p) == [1]
    for p in (1.1, 1.3, 3.0):
        assert crossed(found, p) == [1, 2]
    for branch in found.branches:
        args = (np.float64(branch.parameter[-1]), np.eye(len(KNOWN))[0])
        np.testing.assert_allclose(branch.values[-1], forms(branch.params[-1], *args), atol=1e-12)


def test_a_fold_is_where_two_branches_meet():
    # The hysteresis turns at s = ± 2 / √27.
    found = branches_from("hysteresis", 0)
    folds = np.sort(np.concatenate([branch.folds for branch in found.branches]))
    np.testing.assert_allclose(np.log(folds), [-2 / np.sqrt(27), 2 / np.sqrt(27)], atol=0.02)
    assert crossed(found, 1.1) == [1, 1, 2]


def test_progress_is_called_after_each_step_and_a_closed_branch_ends():
    calls = []
    walk_from("isola", 0, progress=lambda *done: calls.append(done))
    assert calls == [(i + 1, 5000) for i in range(len(calls))]
    assert len(calls) < 100
    calls.clear()
    found = walk_from("isola", 0, max_steps=3, progress=lambda *done: calls.append(done))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert len(found.converged) == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"parameter": 2}, r"parameter: got 2, expected an integer from 0 to 1, a position in args"),
        ({"args": (-1.0, np.ones(4))}, r"args\[0\]: got -1.0, expected a finite number above 0"),
        ({"low": 2.0}, r"args\[0\]: got 1.2, expected a number from low to high, 2.0 to 4.0"),
        ({"low": 0.0}, r"low: got 0.0, expected a finite number above 0"),
        ({"max_steps": 0}, r"max_steps: got 0, expected an integer"),
    ],
)
def test_a_bad_setting_is_named(settings, words):
    settings = {"args": (P, np.ones(4)), "parameter": 0, "low": 0.3, "high": 4.0} | settings
    with pytest.raises(ValueError, match=words):
        critical.walk_folds(forms, np.zeros((1, 2)), **settings)


@pytest.mark.slow
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
