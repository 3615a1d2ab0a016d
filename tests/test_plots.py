"""Figures have the artists, labels and ranges that the numbers ask for."""

import matplotlib.figure
import numpy as np
import pytest

from mlp_jax import plots


@pytest.fixture
def axes():
    return matplotlib.figure.Figure().subplots()


def test_minima_saddles_and_padded_points_are_told_apart(axes):
    plots.loss_against_index(axes, [0, 2, 5], [0.1, 0.2, 0.4], [False, False, True])
    groups = {c.get_label(): c.get_offsets().tolist() for c in axes.collections}
    assert groups["minimum"] == [[0, 0.1]]
    assert groups["saddle"] == [[2, 0.2]]
    assert len(groups) == 3
    assert "index" in axes.get_xlabel()
    assert "nats" in axes.get_ylabel()


def test_every_eigenvalue_is_drawn_once_by_rank_and_sign(axes):
    plots.eigenvalues(axes, [3.0, -1.0, 1e-4, 0.0], "saddle")
    above, below = (line for line in axes.lines if len(line.get_xdata()) != 2 or line.get_marker() != "None")
    assert above.get_ydata().tolist() == [0.0, 1e-4, 3.0]
    assert below.get_xdata().tolist() == [1]
    assert axes.get_title() == "saddle"


def test_wrong_lengths_and_non_finite_values_are_refused(axes):
    with pytest.raises(ValueError, match="got lengths 2, 1, 2"):
        plots.loss_against_index(axes, [0, 1], [0.1])
    with pytest.raises(ValueError, match="not all finite"):
        plots.eigenvalues(axes, [np.nan])


def test_levels_of_a_census_are_as_wide_as_they_have_copies(axes):
    plots.census_levels(axes, [0, 1, 1], [0.1, 0.2, 0.3], [8, 8, 4])
    widths = [float(np.ptp(line.get_xdata())) for line in axes.lines]
    assert widths[0] == pytest.approx(widths[1])
    assert widths[2] < widths[1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0\n8", "1\n12"]
    with pytest.raises(ValueError, match="lengths 1, 2, 1"):
        plots.census_levels(axes, [0], [0.1, 0.2], [1])


def test_a_saddle_is_drawn_above_what_it_joins(axes):
    plots.saddle_graph(axes, [0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], [(2, 0, 1), (3, 0, None)])
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.1, 0.3, 0.2], [0.1, 0.4, 0.1]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]
