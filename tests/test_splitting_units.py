"""The signs along a split unit: the theorem of Fukumizu and Amari, on minima that the search found."""

import numpy as np
import pandas as pd
import pytest

from experiments import splitting_units


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_signs_along_every_line_are_those_of_the_theorem(tmp_path, monkeypatch):
    monkeypatch.setattr(splitting_units, "NETWORKS", ((1, False, 1), (2, True, 2)))
    settings = splitting_units.Settings(quick=True, teachers=15, output=tmp_path / "one")
    places = splitting_units.run(settings)
    assert not places.contradicts.any()
    assert places.agrees.mean() > 0.95
    assert set(places.A) >= {"positive definite", "indefinite"}
    assert "minimum" not in set(places.kind)
    assert places.loss_change.abs().max() < 1e-14
    assert len(pd.read_csv(settings.output / "places.csv")) == len(places)
    assert (settings.output / "eigenvalues_along_lines.png").exists()


def test_the_matrix_of_a_unit_is_the_second_derivative_that_its_output_weight_sees():
    # A = mean[r v ∂²tanh(w·x) / ∂w²] with the residual r held fixed, by central differences.
    generator = np.random.default_rng(0)
    x = generator.standard_normal((9, 2))
    params = generator.standard_normal((2, 1)), generator.standard_normal((1, 1))
    y = generator.standard_normal((9, 1))
    residual = (np.tanh(x @ params[0]) @ params[1] - y)[:, 0]

    def value(w):
        return np.mean(residual * params[1][0, 0] * np.tanh(x @ w))

    h, units, w = 1e-4, np.eye(2), params[0][:, 0]

    def across(a, b):
        return value(w + h * (a + b)) - value(w + h * (a - b)) - value(w - h * (a - b)) + value(w - h * (a + b))

    second = [[across(a, b) / (4 * h * h) for a in units] for b in units]
    np.testing.assert_allclose(splitting_units.bending(params, 0, x, y), second, rtol=1e-5, atol=1e-7)
