"""Small runs of the experiments on spectra, the edge of stability, and index against loss."""

import jax
import numpy as np
import pandas as pd
import pytest

from experiments import edge_of_stability, hessian_spectrum, index_and_loss, spectrum_by_layer
from experiments._shared import linear_control
from experiments._shared.spectra import outliers
from mlp_jax import curvature, mlp, tree


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_quadrature_agrees_with_the_exact_spectrum_and_negative_eigenvalues_fade(tmp_path):
    settings = hessian_spectrum.Settings(quick=True, hidden=4, epochs=100, output=tmp_path / "one")
    rows, errors = hessian_spectrum.run(settings)
    assert (errors.outside < 1e-8).all()
    assert (errors.largest_off < 1e-6).all()
    assert (errors.distribution_off < 0.25).all()
    first, last = rows[rows.epoch == 0], rows[rows.epoch == rows.epoch.max()]
    assert last.negative_size.max() < first.negative_size.min()
    assert (settings.output / "hessian_spectrum.png").exists()


@pytest.mark.slow
def test_a_layer_has_the_top_the_trace_and_the_gradient_share_of_its_block(x64):
    draw = np.random.default_rng(0)
    params = mlp.init(jax.random.key(0), (6, 4, 10), dtype=np.float64)
    data = jax.numpy.asarray(draw.standard_normal((50, 6))), jax.numpy.arange(50) % 10
    rows = {}
    for name in ("layer 1", "layer 2"):
        first, vectors = spectrum_by_layer.measure(name, params, data, None, jax.random.key(1), 200)
        rows[name], _ = spectrum_by_layer.measure(name, params, data, vectors, jax.random.key(1), 200)
        assert np.isnan(first["kept"])
    whole = np.asarray(curvature.dense_hessian(spectrum_by_layer.fun, params, data))
    gradient = np.asarray(tree.ravel(jax.grad(spectrum_by_layer.fun)(params, *data))[0])
    for name, part in (("layer 1", slice(0, 28)), ("layer 2", slice(28, None))):
        values, vectors = np.linalg.eigh(whole[part, part])
        row, along = rows[name], vectors[:, -10:].T @ gradient[part]
        assert row["largest"] == pytest.approx(values[-1], rel=1e-4)
        assert abs(row["trace"] - values.sum()) < 5 * row["trace_stderr"]
        assert row["kept"] == pytest.approx(1, abs=1e-3)
        assert row["gradient_share"] == pytest.approx(along @ along / (gradient[part] @ gradient[part]), abs=1e-3)
        assert row["outliers"] == outliers(values[-15:], 14)


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_the_spectra_of_both_layers_are_followed_and_drawn(tmp_path):
    settings = spectrum_by_layer.Settings(quick=True, hidden=5, epochs=1, examples=200, output=tmp_path / "one")
    rows = spectrum_by_layer.run(settings)
    assert rows.parameters.unique().tolist() == [785 * 5 + 60, 785 * 5, 60]
    assert rows[rows.epoch == 1].kept.between(0, 1).all()
    assert (settings.output / "spectrum_by_layer.png").exists()


def test_outliers_are_counted_above_the_largest_gap():
    assert outliers(np.array([-1.0, 1e-3, 2e-3, 0.5, 0.7, 1.0])) == 3


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_descent_hovers_at_two_over_its_step_size(tmp_path):
    size = {"rates": (0.2, 0.7), "seeds": 1, "steps": 3000, "looks": 8, "hidden": 10}
    rows = edge_of_stability.run(edge_of_stability.Settings(**size, output=tmp_path / "one"))
    ends = rows.groupby("rate").times_threshold.apply(lambda part: part.iloc[-3:].mean())
    assert ends[0.7] == pytest.approx(1.0, abs=0.1)
    assert ends[0.2] < 0.8
    assert len(pd.read_csv(tmp_path / "one" / "summary.csv")) == 2


@pytest.mark.slow
def test_a_step_above_two_over_the_curvature_diverges(x64):
    settings = edge_of_stability.Settings(hidden=2)
    assert np.isinf(edge_of_stability.follow(settings, 1e3, 0, 200, 2).loss.iloc[-1])


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_points_of_each_index_are_found_and_the_control_agrees(tmp_path):
    size = {"hidden": 2, "examples": 100, "largest_index": 5, "starts": 8, "descents": 8}
    settings = index_and_loss.Settings(quick=True, **size, output=tmp_path / "one")
    points, control = index_and_loss.run(settings)
    assert {0, 5} <= set(points["index"])
    assert (control["index"] == control.known_index).all()
    assert control.off.max() < 1e-12
    assert control["index"].nunique() >= 4
    assert (settings.output / "index_and_loss.png").exists()


def test_inputs_have_the_variances_asked_for_and_classes_their_closed_form(x64):
    variances = np.array([3.0, 2.0, 0.5])
    x = linear_control.rows_of(variances)
    np.testing.assert_allclose(x.T @ x / len(x), np.diag(variances), atol=1e-12)
    np.testing.assert_allclose(x.mean(0), 0)
    # h = 1: keep the first (minimum), the second or the third component, or none.
    assert linear_control.classes(variances, 1) == [(1.25, 0), (1.75, 1), (2.5, 2), (2.75, 3)]
    zero = (mlp.Layer(np.zeros((3, 1)), np.zeros(1)), mlp.Layer(np.zeros((1, 3)), np.zeros(3)))
    assert float(linear_control.loss(zero, x)) == pytest.approx(2.75)
