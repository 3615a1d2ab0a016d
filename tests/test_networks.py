"""descents and network: the graphs of landscapes whose minima, saddles and connections are known."""

import collections
import itertools
import re

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest
from ground_truth import PUBLISHED, ROTATION, mueller_brown, rotated_well, stationary_points

from benchmarks.lists import himmelblau
from experiments._shared import xor
from mlp_jax import critical, interval, mlp_census

KEY = jax.random.key(0)


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
    require_morse(found.indices, found.copies)


@pytest.mark.slow
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


def one_unit(p, x, y, decay):
    """The loss of a tanh network with one unit: p = (w₁, w₂, b, v, c)."""
    outputs = p[3] * jnp.tanh(x @ p[:2] + p[2]) + p[4]
    return jnp.mean((outputs - y) ** 2) / 2 + decay * jnp.dot(p, p) / 2


def proved_list(decay):
    """All critical points of XOR with one unit, or of Himmelblau's function where the decay is None: a theorem."""
    if decay is None:
        found = interval.complete(himmelblau, np.full(2, -6.0), np.full(2, 6.0))
        return himmelblau, (), found, found.points
    args = xor.data("{0, 1}", decay)
    args = (args[0], args[1][:, 0], args[2])
    found = mlp_census.complete(args[0], args[1], 1, decay)
    # Copies: the inputs exchanged; w, b and v of the other sign.
    rows = [p[order] * sign for p in found.points for order in ([0, 1, 2, 3, 4], [1, 0, 2, 3, 4]) for sign in SIGNS]
    return one_unit, args, found, np.unique(np.round(rows, 9) + 0.0, axis=0)


SIGNS = np.array([[1, 1, 1, 1, 1], [-1, -1, -1, -1, 1]])


@pytest.mark.slow
@pytest.mark.parametrize("decay", [None, 0.01])
def test_descents_from_a_complete_list_end_in_it_and_join_all_of_it(decay):
    fun, args, proved, points = proved_list(decay)
    assert proved.complete
    assert len(points) == proved.count
    found = critical.network(fun, points, KEY, args)
    assert len(found.values) == len(points)
    assert dict(collections.Counter(found.indices)) == proved.indices
    assert all(edge.end is not None for edge in found.edges)
    assert len(found.components) == 1
    require_morse(found.indices, found.copies)
    for i in np.flatnonzero(np.equal(found.indices, 0))[1:]:
        way = critical.path(fun, found.params[0], found.params[i], KEY, args)
        assert way.connected
        assert np.max(way.values) >= found.values[found.highest(0, i)] - 1e-9


@pytest.fixture(scope="module")
def counted():
    return xor.count(jax.random.key(0), "{0, 1}", 0.01, 200)


@pytest.fixture(scope="module")
def graph(counted):
    args, maps, census = counted
    return critical.network(xor.loss, census.params, KEY, args, symmetries=maps, number=4)


@pytest.mark.slow
def test_all_classes_of_xor_are_connected_and_the_graph_does_not_depend_on_the_key(counted, graph):
    args, maps, census = counted
    other = critical.network(xor.loss, census.params, jax.random.key(7), args, symmetries=maps, number=4)
    for found in (graph, other):
        assert found.components == (tuple(range(18)),)
        assert all(edge.end is not None for edge in found.edges)
        assert found.labels.tolist() == list(range(18))
        np.testing.assert_array_equal(found.copies, census.orbit_sizes)
        require_morse(found.indices, found.copies)
    single = [i for i in range(18) if graph.indices[i] == 1]
    assert [graph.joins(i) for i in single] == [other.joins(i) for i in single]
    assert graph.merges == other.merges
    # The spurious minimum stays apart until the last merge.
    spurious = int(np.argmin(np.abs(graph.values - (0.25 - 0.125 / 1.01))))
    assert spurious in graph.merges[-1].parts


@pytest.mark.slow
def test_no_path_between_minima_of_xor_is_below_the_best_saddle(counted, graph):
    args, minima = counted.args, [i for i in range(18) if graph.indices[i] == 0]
    for i, j in itertools.combinations(minima, 2):
        a, b = (jax.tree.map(lambda leaf, k=k: leaf[k], graph.params) for k in (i, j))
        way = critical.path(xor.loss, a, b, KEY, args)
        assert way.connected
        assert np.max(way.values) >= graph.values[graph.highest(i, j)] - 1e-12
        assert all(verdict.index == 1 for verdict in way.verdicts)
