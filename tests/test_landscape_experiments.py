"""Experiments on how critical points hang together and are born, small."""

import types

import jax
import numpy as np
import pandas as pd
import pytest

from experiments import births_of_saddles, landscape_graph
from mlp_jax import critical, mlp


@pytest.mark.slow
@pytest.mark.implicit_promotion
def test_the_points_of_xor_hang_together_and_no_path_is_below_their_saddles(tmp_path):
    settings = landscape_graph.Settings(quick=True, output=tmp_path / "one")
    table, minima = landscape_graph.run(settings)
    assert table.parts.tolist() == [1]
    assert table.unknown.tolist() == [0]
    assert (table.path_barrier >= table.graph_barrier - 1e-12).all()
    assert (minima.barrier.dropna() > 0).all()
    edges = pd.read_csv(settings.output / "edges.csv")
    assert edges.descents.sum() == table.descents.item()
    assert {p.name for p in settings.output.glob("*.png")} == {"graph.png", "tree.png", "paths.png"}
    assert "data:image/gif;base64," in (settings.output / "report.html").read_text()


@pytest.mark.implicit_promotion
def test_a_gap_is_from_each_smaller_part_to_the_nearest_copy_in_the_largest():
    hidden, out = mlp.init(jax.random.key(0), (2, 2, 1))
    flipped = mlp.Layer(-hidden.weight[:, ::-1], hidden.bias), out._replace(weight=-out.weight[::-1])
    # Nodes 0, 1 and 3 hang together; 2 is apart, a copy of 1 but for its last bias, which is near that of 1.
    stack = [(hidden, out._replace(bias=out.bias + shift)) for shift in (5.0, 1.0, 1.1, 9.0)]
    stack[2] = (flipped[0], flipped[1]._replace(bias=out.bias + 1.1))
    verdicts = tuple(types.SimpleNamespace(index=index) for index in (0, 0, 0, 1))
    edges = (critical.Edge(3, 0, 1, 1.0), critical.Edge(3, 1, 1, 1.0))
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *stack)
    found = critical.Network(params, np.arange(4.0), verdicts, np.ones(4, int), edges, np.arange(4))
    ((start, end),) = landscape_graph.gaps(found)
    np.testing.assert_array_equal(start[0].weight, flipped[0].weight)
    assert landscape_graph.distance(start, end) == pytest.approx(0.1, abs=1e-6)


@pytest.mark.slow
@pytest.mark.implicit_promotion
def test_points_of_xor_are_born_in_pairs_and_the_euler_sum_stays_one(tmp_path):
    births, table = births_of_saddles.run(births_of_saddles.Settings(quick=True, output=tmp_path / "one"))
    folds = births[births.birth == "fold"]
    assert folds.times.sum() == 8
    assert set(folds.indices) == {"0 and 1", "1 and 2"}
    assert set(births[births.birth == "bifurcation"].indices) == {"1 and 2"}
    assert births.times.isin((1, 2)).all()  # 2: mirror images, by the swap of the two inputs
    assert not births[["decay", "loss"]].round(8).duplicated().any()
    assert (table["sum"] == 1).mean() > 0.95  # a step beside a fold may count one point too few
    assert table.points.iloc[-1] == 1
    assert table.points.iloc[0] == 18


def test_the_trivial_point_bifurcates_at_the_singular_values_of_the_mixed_derivatives():
    # With targets ±1 of mean 0 the output bias is 0 at every decay: the singular value does not depend on the decay.
    x = np.array([[-1.0], [-0.5], [0.5], [1.0]])
    y = np.sign(x)
    found = births_of_saddles.bifurcations_of_trivial(lambda c: c - y, x, y[0], 0.01, 2.0)
    np.testing.assert_allclose(found, [np.mean(np.abs(x))], rtol=1e-9)
