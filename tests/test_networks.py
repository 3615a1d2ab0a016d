"""descents and network: the graphs of landscapes whose minima, saddles and connections are known."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from experiments._shared import xor
from mlp_jax import critical

KEY = jax.random.key(0)
# Müller & Brown (1979), Theoretica Chimica Acta 53, 75.
HEIGHT, A, B, C, X, Y = np.array([
    [-200, -100, -170, 15], [-1, -1, -6.5, 0.7], [0, 0, 11, 0.6], [-10, -10, -6.5, 0.7], [1, 0, -0.5, -1],
    [0, 0.5, 1.5, 1],
])  # fmt: skip
# Its minima from left to right, then its saddles, to three digits as published.
PUBLISHED = np.array([[-0.558, 1.442], [-0.050, 0.467], [0.623, 0.028], [-0.822, 0.624], [0.212, 0.293]])


def mueller_brown(p, numpy=jnp):
    dx, dy = p[0] - X, p[1] - Y
    return numpy.sum(HEIGHT * numpy.exp(A * dx**2 + B * dx * dy + C * dy**2))


def stationary_points():
    """Return the points and their values, by scipy and the derivatives written out."""

    def slope(p):
        dx, dy = p[0] - X, p[1] - Y
        parts = HEIGHT * np.exp(A * dx**2 + B * dx * dy + C * dy**2)
        return [np.sum(parts * (2 * A * dx + B * dy)), np.sum(parts * (B * dx + 2 * C * dy))]

    points = np.array([scipy.optimize.root(slope, start, tol=1e-13).x for start in PUBLISHED])
    return points, np.array([mueller_brown(p, np) for p in points])


@pytest.mark.slow
def test_the_saddles_of_mueller_and_brown_join_its_minima_as_known():
    points, values = stationary_points()
    found = critical.network(mueller_brown, PUBLISHED, KEY)
    left, middle, right, high, low = found.labels
    np.testing.assert_allclose(found.params[found.labels], points, atol=1e-9)
    assert [found.indices[i] for i in found.labels] == [0, 0, 0, 1, 1]
    assert sorted(found.joins(high)) == sorted([left, middle])
    assert sorted(found.joins(low)) == sorted([middle, right])
    barriers = {(edge.saddle, edge.end): edge.barrier for edge in found.edges}
    assert barriers[high, left] == pytest.approx(values[3] - values[0], abs=1e-6)
    assert barriers[low, right] == pytest.approx(values[4] - values[2], abs=1e-6)
    assert found.highest(left, right) == high
    assert [(merge.saddle, set(merge.parts)) for merge in found.merges] == [
        (low, {middle, right}),
        (high, {left, right}),
    ]
    assert found.components == ((0, 1, 2, 3, 4),)


ROTATION = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))[0]


def rotated_well(x):
    """A double well along one direction, with curvatures from .01 to 100 along the others."""
    y = jnp.asarray(ROTATION) @ x
    return (y[0] ** 2 - 1) ** 2 + jnp.dot(np.geomspace(0.01, 100, 19), y[1:] ** 2)


def test_the_wells_of_a_rotated_function_are_joined_over_the_origin():
    found = critical.network(rotated_well, np.zeros((1, 20)), KEY)
    assert found.indices == (0, 0, 1)
    assert found.joins(2) == [0, 1]
    np.testing.assert_allclose(np.sort(found.params @ ROTATION[0]), [-1, 0, 1], atol=1e-9)
    np.testing.assert_allclose([edge.barrier for edge in found.edges], 1, atol=1e-12)


def forms(p, which):
    """Functions of two variables, compiled as one."""
    x, y = p
    held = (x**2 - 1) ** 2 + y**2 * (0.5 - x**2) + y**4  # on y = 0 the flow goes from 0 to x = ±1, where y is unstable
    endless = x**3 - 3 * x + y**2  # from x = −1 it falls without end on one side
    circle = (x**2 + y**2 - 1) ** 2  # minima on a circle, none isolated
    return jnp.dot(which, jnp.stack([held, endless, circle]))


HELD, ENDLESS, CIRCLE = ((row,) for row in np.eye(3))


@pytest.mark.slow
def test_a_path_that_a_symmetry_holds_ends_at_a_saddle_which_is_followed_down():
    down = critical.descents(forms, np.zeros(2), KEY, HELD)
    np.testing.assert_allclose(np.abs(down.ends.params), [[1, 0], [1, 0]], atol=1e-9)
    assert [(verdict.kind, verdict.index) for verdict in down.verdicts] == [("saddle", 1)] * 2
    assert all(np.all(np.diff(values) < 0) for values in down.values)
    found = critical.network(forms, np.zeros((1, 2)), KEY, HELD)
    assert found.indices == (0, 0, 0, 0, 1, 1, 1)
    assert sorted(found.joins(6)) == [4, 5]
    assert found.highest(0, 1) in (4, 5, 6)


@pytest.mark.parametrize(("args", "top", "known"), [(ENDLESS, [-1.0, 0.0], 1), (CIRCLE, [0.0, 0.0], 0)])
def test_an_end_that_is_no_isolated_critical_point_is_unknown(args, top, known):
    found = critical.network(forms, np.array([top]), KEY, args, number=2)
    assert sum(end is None for end in found.joins(known)) == 2 - known
    assert all(np.isnan(edge.barrier) for edge in found.edges if edge.end is None)
    assert len(found.values) == 1 + known


def test_descents_need_a_saddle_and_an_export_its_package():
    with pytest.raises(ValueError, match=r"saddle: got converged: .*; index 0\. Expected a critical point of known"):
        critical.descents(mueller_brown, stationary_points()[0][0], KEY)
    with pytest.raises(ValueError, match="saddle: got not converged"):
        critical.descents(mueller_brown, np.ones(2), KEY)


def test_the_graph_is_exported_with_its_barriers():
    networkx = pytest.importorskip("networkx")
    found = critical.network(mueller_brown, PUBLISHED, KEY)
    graph = found.to_networkx()
    assert networkx.is_connected(graph)
    assert graph.edges[3, 2]["barrier"] == found.values[3] - found.values[2]


def test_an_export_names_the_package_that_it_lacks(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "networkx", None)
    with pytest.raises(ImportError, match=re.escape("pip install networkx")):
        critical.network(rotated_well, np.zeros((1, 20)), KEY).to_networkx()


def require_morse(indices, copies):
    """Require the Morse inequalities of a function that grows in all directions, on a complete list."""
    counts = np.bincount(indices, copies).astype(int)
    partial = [sum(counts[i] * (-1) ** (k - i) for i in range(k + 1)) for k in range(len(counts))]
    assert all(total >= (-1) ** k for k, total in enumerate(partial))
    assert partial[-1] == (-1) ** (len(counts) - 1)


@pytest.mark.slow
def test_all_classes_of_xor_are_connected_and_the_graph_does_not_depend_on_the_key():
    args, maps, census = xor.count(jax.random.key(0), "{0, 1}", 0.01, 200)
    graphs = [
        critical.network(xor.loss, census.params, jax.random.key(seed), args, symmetries=maps, number=4)
        for seed in (0, 7)
    ]
    one, other = graphs
    for found in graphs:
        assert found.components == (tuple(range(18)),)
        assert all(edge.end is not None for edge in found.edges)
        assert found.labels.tolist() == list(range(18))
        np.testing.assert_array_equal(found.copies, census.orbit_sizes)
        require_morse(found.indices, found.copies)
    sides = [[found.joins(i) for i in range(18) if found.indices[i] == 1] for found in graphs]
    assert sides[0] == sides[1]
    assert one.merges == other.merges
    # The spurious minimum is a part of its own up to the saddle on the path along which one unit alone grows.
    spurious = int(np.argmin(np.abs(one.values - (0.25 - 0.125 / 1.01))))
    assert spurious in one.merges[-1].parts
