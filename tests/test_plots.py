"""Figures have the artists, labels and ranges that the numbers ask for."""

import re
import types

import matplotlib.figure
import numpy as np
import PIL.Image
import pytest

from mlp_jax import critical, plots
from mlp_jax.curvature import Density


@pytest.fixture
def axes():
    return matplotlib.figure.Figure().subplots()


def test_minima_saddles_and_padded_points_are_drawn_as_groups(axes):
    plots.loss_against_index(axes, [0, 2, 5], [0.1, 0.2, 0.4], [False, False, True])
    groups = {c.get_label(): c.get_offsets().tolist() for c in axes.collections}
    assert groups["minimum"] == [[0, 0.1]]
    assert groups["saddle"] == [[2, 0.2]]
    assert len(groups) == 3
    assert "index" in axes.get_xlabel()
    assert "nats" in axes.get_ylabel()


def test_every_eigenvalue_is_drawn_once_by_rank_and_sign(axes):
    plots.eigenvalues(axes, [3.0, -1.0, 1e-4, 0.0, -1e-16], "saddle")
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines if line.get_marker() != "None"}
    assert drawn == {
        "2 positive": [[4, 1e-4], [5, 3.0]],
        "1 negative": [[1, -1.0]],
        "2 too small to tell": [[2, -1e-16], [3, 0.0]],
    }
    assert axes.get_title() == "saddle"


def test_levels_of_a_census_are_as_wide_as_they_have_copies(axes):
    plots.census_levels(axes, [0, 1, 1], [0.1, 0.2, 0.3], [8, 8, 4])
    widths = [float(np.ptp(line.get_xdata())) for line in axes.lines]
    assert widths[0] == pytest.approx(widths[1])
    assert widths[2] < widths[1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0\n8", "1\n12"]


def graph(values, indices, edges):
    """A network of points of these values and indices, with (saddle, end) edges."""
    verdicts = tuple(types.SimpleNamespace(index=index) for index in indices)
    edges = tuple(critical.Edge(saddle, end, 1, 0.1) for saddle, end in edges)
    ones = np.ones(len(values), int)
    return critical.Network(None, np.array(values), verdicts, ones, edges, ones)


def test_branches_of_the_tree_merge_at_their_lowest_saddle(axes):
    # 3 joins 0 and 1; 4 does so too, higher; 5 joins 1 and 2.
    found = graph([0.0, 0.1, 0.2, 0.5, 0.6, 0.9], [0, 0, 0, 1, 1, 1], [(3, 0), (3, 1), (4, 0), (4, 1), (5, 1), (5, 2)])
    plots.disconnectivity(axes, found)
    lines = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "None"]
    assert lines[:3] == [[[0, 0.0], [0, 0.5]], [[1, 0.1], [1, 0.5]], [[0, 0.5], [1, 0.5]]]
    assert lines[3:6] == [[[0.5, 0.5], [0.5, 0.9]], [[2, 0.2], [2, 0.9]], [[0.5, 0.9], [2, 0.9]]]
    assert len(lines) == 7  # and the root
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0\n×1", "1\n×1", "2\n×1"]


def test_a_saddle_is_joined_to_its_ends_and_an_unknown_end_is_a_stub(axes):
    plots.transition_network(axes, graph([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], [(2, 0), (2, 1), (3, 0), (3, None)]))
    assert [line.get_ydata()[-1] for line in axes.lines] == [0.1, 0.2, 0.1, pytest.approx(0.4 - 0.06 * 0.3)]
    assert [line.get_linestyle() for line in axes.lines] == ["-", "-", "-", ":"]


def test_a_descent_is_drawn_at_constant_speed_and_whole_in_the_last_frame(axes, tmp_path):
    animation = plots.descents(axes, [[[0, 0], [0, 1], [3, 1]], [[0, 0], [-1, 0]]], frames=5)
    animation.save(tmp_path / "whole.gif", writer="pillow")
    trails, heads = axes.lines[:2], axes.lines[2:4]
    assert [line.get_xydata()[-1].tolist() for line in trails + heads] == 2 * [[3, 1], [-1, 0]]
    animation._func(2)  # half of the lengths 4 and 1
    assert trails[0].get_xydata().tolist() == [[0, 0], [0, 1], [1, 1]]
    assert [line.get_xydata().tolist() for line in heads] == [[[1, 1]], [[-0.5, 0]]]
    with PIL.Image.open(tmp_path / "whole.gif") as shown:
        assert shown.n_frames == 5


def test_batch_size_panels_show_what_they_are_given():
    axes = matplotlib.figure.Figure().subplots()
    plots.updates_to_target(axes, [8, 32], [[40, 60], [20, 100]], [[True, True], [True, False]], 10.0, 320.0)
    reached, missed = axes.lines[0], axes.lines[1]
    assert sorted(reached.get_ydata()) == [20, 40, 60]
    assert missed.get_ydata().tolist() == [100]
    assert axes.lines[2].get_ydata()[0] == pytest.approx(10 + 320 / 8)
    axes = matplotlib.figure.Figure().subplots()
    plots.heat_map(axes, [8, 16], [0.1, 1.0, 10.0], [[3.0, 1.0, np.inf], [2.0, 5.0, 1.0]])
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines] == [(1, 0), (2, 1)]
    assert len(axes.texts) == 1


def test_bars_of_exact_eigenvalues_and_quadrature_weights_each_add_up_to_one(axes):
    exact = np.array([-1.0, 0.0, 0.0, 0.0, 4.0])
    density = Density(nodes=np.array([[-1.0, 4.0], [0.0, 3.0]]), weights=np.array([[0.3, 0.2], [0.4, 0.1]]))
    plots.spectral_density(axes, density, exact, bins=50)
    assert sum(bar.get_height() for bar in axes.patches[:50]) == pytest.approx(1)
    assert axes.get_yscale() == "log"
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"exact, 5", "quadrature, 2 probes"}
    outline = axes.patches[50].get_xy()
    assert outline[:, 1].max() == pytest.approx(0.4)


def test_a_band_is_student_s_interval_of_the_runs_that_did_not_diverge(axes):
    runs = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [np.nan, 0.0]])
    plots.training_curve(axes, [10, 20], runs, "loss")
    assert axes.lines[0].get_ydata().tolist() == [2.0, 5.0]
    assert axes.lines[0].get_label() == "loss (1 of 4 diverged)"
    low, high = (side(axes.collections[0].get_paths()[0].vertices[:, 1]) for side in (min, max))
    # t(.975; 2 degrees of freedom) = 4.302653; s = 1; n = 3
    assert 2 - low == pytest.approx(4.302653 / np.sqrt(3), rel=1e-5)
    assert high == 5.0


def test_one_run_has_no_band_and_a_group_that_all_diverged_keeps_its_label(axes):
    plots.training_curve(axes, [1, 2], [[1.0, 2.0]])
    plots.training_curve(axes, [1, 2], [[np.inf, np.inf]], "η = 9")
    assert not axes.collections
    assert axes.lines[1].get_label() == "η = 9 (1 of 1 diverged)"


def test_the_first_direction_runs_along_x_and_the_run_ends_at_the_star(axes):
    plots.contours(axes, [0.0, 1.0], [0.0, 1.0], np.ones((2, 2)))
    assert not axes.collections  # a constant has no contours
    x, y = np.linspace(-2, 2, 9), np.linspace(-1, 1, 5)
    plots.contours(axes, x, y, np.add.outer(x**2, 0 * y), trajectory=[[2.0, 1.0], [0.0, 0.0]])
    # The function depends on the first direction only: every contour line is vertical.
    lines = [path for path in axes.collections[-1].get_paths() if len(path.vertices) > 1]
    assert lines
    assert axes.get_xlim() == pytest.approx((-2, 2), abs=0.3)
    run, end = axes.lines
    assert run.get_xydata().tolist() == [[2.0, 1.0], [0.0, 0.0]]
    assert end.get_xydata().tolist() == [[0.0, 0.0]]
    for path in lines:
        parts = path.to_polygons(closed_only=False)
        assert all(np.ptp(part[:, 0]) < 1e-9 for part in parts)


SURFACE = lambda a: plots.surface(a, [0, 1], [0, 1], np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: plots.eigenvalues(a, [np.nan]), "values: got 1 numbers that are NaN or infinite"),
        (lambda a: plots.spectral_density(a, None), "got 0 eigenvalues and nodes"),
        (lambda a: plots.contours(a, [0, 1, 2], [0, 1], np.zeros((2, 3))), "values: got shape (2, 3), expected one"),
        (lambda a: plots.contours(a, [0, 1], [0, 1], np.zeros((2, 2)), log=True), "expected values above 0"),
        (SURFACE, "axes made with projection"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(axes, call, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        call(axes)
