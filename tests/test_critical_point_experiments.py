"""Experiments on critical points, small: proofs, the census, widths, split units and the second-order model."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import (
    complete_lists,
    population_loss,
    proofs,
    saddle_census,
    saddles_and_width,
    splitting_units,
    taylor,
)
from mlp_jax import datasets, interval, mlp


def small_run(test):
    return pytest.mark.slow(pytest.mark.implicit_promotion(test))


@small_run
def test_points_on_xor_and_digits_are_proved_saved_and_proved_again(tmp_path, monkeypatch):
    few = datasets.Dataset(*(datasets.Examples(*(a[:200] for a in part)) for part in datasets.load("digits")))
    monkeypatch.setattr(datasets, "load", lambda _: few)  # the time of a proof grows with its examples
    settings = proofs.Settings(quick=True, output=tmp_path / "one")
    digits, xor = proofs.run(settings)
    assert digits["index"].tolist() == [0, 1]
    assert digits.parameters.tolist() == [160, 160]
    assert (digits.unique_radius > 1e-9).all()
    assert (digits.smallest_low <= digits.smallest_high).all()
    assert xor["index"].notna().all()
    assert len(xor) >= 4
    assert len(pd.read_csv(settings.output / "digits.csv")) == 2
    assert (settings.output / "proofs.png").exists()
    saved = sorted(settings.output.glob("digits_*.json"))
    with jax.enable_x64(True):
        model, data = proofs.classifier(settings.weight_decay), proofs.all_digits()
        like = mlp.init(jax.random.key(9), (64, 2, 10), dtype=jnp.float64)
        again = interval.check(interval.load(saved[0]), model.fun, like, data, enclosure=model.enclosure)
        assert again.proved, again.reason
        changed = (data[0] + np.eye(*data[0].shape) * 1e-3, data[1])
        assert not interval.check(interval.load(saved[0]), model.fun, like, changed, enclosure=model.enclosure).proved


@small_run
def test_every_point_is_proved_and_every_saddle_joins_points_of_the_list(tmp_path):
    settings = saddle_census.Settings(quick=True, output=tmp_path / "one")
    points, table = saddle_census.run(settings)
    assert table["sum"].tolist() == [1]
    assert (points["index"] == points.proved_index).all()
    assert (points.smallest_low <= points.smallest).all()
    assert (points.smallest <= points.smallest_high).all()
    joined = points[points["index"] == 1].joins
    assert len(joined) >= 5
    assert not joined.str.contains("unknown|new").any()
    assert len(pd.read_csv(settings.output / "points.csv")) == len(points)
    assert {p.name for p in settings.output.glob("*.png")} == {"levels.png", "joined.png"}
    assert interval.load(settings.output / "zero_one_0.01_0.json").proved


@pytest.mark.usefixtures("x64")
def test_the_hessian_of_the_population_loss_in_closed_form_is_that_of_automatic_differentiation():
    student, teacher = np.random.default_rng(0).standard_normal((3, 4)), np.eye(4)[:2]
    expected = jax.jit(jax.hessian(population_loss.fun))(student, teacher).reshape(12, 12)
    np.testing.assert_allclose(jax.jit(population_loss.hessian)(student, teacher), expected, atol=1e-14)


def test_copies_of_a_student_have_the_same_invariants_and_other_students_do_not():
    generator = np.random.default_rng(0)
    student = generator.standard_normal((4, 4))
    copy = generator.permutation(generator.permutation(student, axis=0), axis=1)
    same, other = map(population_loss.invariants, (copy, generator.permuted(student, axis=0)))
    np.testing.assert_allclose(population_loss.invariants(student), same, atol=1e-15)
    assert np.max(np.abs(population_loss.invariants(student) - other)) > 0.1


@small_run
def test_the_spurious_minimum_of_safran_and_shamir_and_saddles_are_proved(tmp_path):
    points, table = population_loss.run(population_loss.Settings(quick=True, output=tmp_path / "one"))
    minima = points[points["index"] == 0]
    assert minima.different_weights.tolist() == [5]  # the symmetry of Arjevani and Field's family
    np.testing.assert_allclose(minima.loss, 0.02508, atol=1e-5)
    assert (points["index"] == points.proved_index).all()
    assert table.proved_saddles.item() >= 3
    assert interval.load(tmp_path / "one" / "6_0.json").proved


@small_run
def test_points_are_counted_by_width_and_saved(tmp_path):
    settings = saddles_and_width.Settings(quick=True, widths=(1, 2), teachers=2, output=tmp_path / "one")
    table = saddles_and_width.run(settings)
    assert len(table) == 4
    assert (table.points == table.minima + table.saddles).all()
    assert (table.minima >= 1).all()
    # A padded point of the wider network is one of the narrower network, or the zero network, which both have.
    assert (table[table.width == 2].padded >= 1).all()
    points = pd.read_csv(settings.output / "points.csv")
    assert set(points.copies[points.width == 1]) <= {1, 2}
    assert set(points.copies[points.width == 2]) <= {1, 2, 4, 8}
    assert (settings.output / "saddles_and_width.png").exists()


@small_run
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


def test_the_matrix_of_a_unit_is_the_second_derivative_that_its_output_weight_sees(x64):
    # A = mean[r v ∂²tanh(w·x) / ∂w²] with the residual r held fixed, by central differences.
    generator = np.random.default_rng(0)
    x, y = np.column_stack([generator.standard_normal((9, 2)), np.ones(9)]), generator.standard_normal((9, 1))
    w, v = generator.standard_normal(3), generator.standard_normal((1, 1))
    residual = np.tanh(x @ w) * v[0, 0] - y[:, 0]
    params = mlp.Layer(w[:2, None], w[2:]), mlp.Layer(v)

    def value(w):
        return np.mean(residual * v[0, 0] * np.tanh(x @ w))

    h, units = 1e-4, np.eye(3)

    def across(a, b):
        return value(w + h * (a + b)) - value(w + h * (a - b)) - value(w - h * (a - b)) + value(w - h * (a + b))

    second = [[across(a, b) / (4 * h * h) for a in units] for b in units]
    np.testing.assert_allclose(splitting_units.bending(params, 0, x[:, :2], y), second, rtol=1e-5, atol=1e-7)


@small_run
def test_the_remainder_falls_with_slope_three_along_most_eigenvectors(tmp_path):
    rows = taylor.run(taylor.Settings(networks=3, output=tmp_path / "one"))
    assert set(rows.kind) == set(taylor.KINDS)
    assert (rows.eigenvalue[rows.kind == "minimum"] > 0).all()
    assert (rows.eigenvalue[rows.kind == "maximum"] < 0).all()
    assert (rows[rows.kind == "saddle"].groupby("network").eigenvalue.min() < 0).all()
    assert np.nanmedian(rows.slope) == pytest.approx(3, abs=0.1)
    assert rows.slope.min() > 2.5
    # A quadratic tilt changes no third derivative: the same slopes along the same eigenvectors in reverse order.
    slopes = {kind: rows[(rows.kind == kind) & (rows.network == 0)] for kind in ("minimum", "maximum")}
    assert np.nanmedian(slopes["minimum"].slope) == pytest.approx(np.nanmedian(slopes["maximum"].slope), abs=0.05)
    assert len(pd.read_csv(tmp_path / "one" / "eigenvectors.csv")) == len(rows)


@small_run
def test_lists_of_small_networks_are_proved_complete_and_resumed(tmp_path):
    table, points = complete_lists.run(complete_lists.Settings(quick=True, output=tmp_path / "one"))
    assert table.complete.all()
    assert table["sum"].tolist() == [1, 1, 1]
    assert table.points.tolist() == [3, 3, 1]
    assert points.copies.sum() == 7
    # Half the squared error of the best constant, shrunk by the decay, at the trivial point of XOR.
    trivial = points[points.network.str.contains("XOR")].loss.item()
    np.testing.assert_allclose(trivial, (0.5 - 0.25 / 1.05) / 2)
    found = interval.load_list(tmp_path / "one" / "2-1-1_XOR_decay_0.05.json")
    assert "exactly 1 critical point" in str(found)
