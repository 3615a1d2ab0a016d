"""The comparison of batch sizes: its statistics against scipy and closed forms, and a small run end to end."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from experiments import batch_sizes
from experiments._shared import batch_size_protocol as protocol
from experiments._shared import batch_size_report as report
from experiments._shared import batch_size_sharpness as sharpness
from mlp_jax import datasets, mlp, sweep, tree


def test_a_paired_difference_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=8), rng.normal(size=8) - 0.5
    expected = scipy.stats.ttest_rel(first, second).confidence_interval()
    difference = report.paired(first, second)
    np.testing.assert_allclose(difference, [np.mean(first - second), expected.low, expected.high], rtol=1e-12)
    assert report.paired(second, first).verdict() != "yes"


def test_a_difference_within_what_another_test_set_would_change_is_undecided():
    # Two networks differ by 1 point on 300 examples, with no spread over seeds: the standard error is 1 point.
    of_examples = np.zeros(300)
    of_examples[:6], of_examples[6:9] = 1.0, -1.0
    seeds = np.full(5, of_examples.mean())
    assert report.paired(seeds, np.zeros(5)).verdict() == "yes"
    assert report.paired(seeds, np.zeros(5), of_examples).verdict() == "undecided"


def test_diverged_pairs_are_left_out_and_fewer_than_two_decide_nothing():
    difference = report.paired(np.array([1.0, np.inf, 3.0]), np.array([0.0, 0.0, 1.0]))
    assert difference.mean == 1.5
    assert report.paired(np.array([np.inf, 1.0]), np.zeros(2)).verdict() == "undecided"


def test_first_updates_at_a_target_are_read_from_the_records_and_misses_are_censored():
    records, updates = np.array([[0.2, 0.9, 0.5], [0.1, 0.2, 0.3], [0.9, 0.9, 0.9]])[None, None], [[10, 20, 30]]
    result = sweep.Result(
        axes=("batch_size", "learning_rate", "seed"), coordinates={}, updates=np.array(updates),
        examples=np.array(updates), loss=records, record=records, diverged_at=np.array([[[0, 0, 5]]]), params=None,
    )  # fmt: skip
    updates, reached = protocol._first_at(result, 0.8)
    assert updates.tolist() == [[[20, 30, 30]]]
    assert reached.tolist() == [[[True, False, False]]]


@pytest.mark.usefixtures("x64")
def test_sharpness_in_a_small_box_is_the_gradient_times_its_widths():
    # The maximum of a linear function over a box is at a corner: f + Σ |gᵢ| ε (|xᵢ| + 1).
    params = mlp.init(jax.random.key(0), (4, 3, 2))
    rng = np.random.default_rng(0)
    data = (jnp.asarray(rng.normal(size=(9, 4))), jnp.asarray(rng.integers(0, 2, 9), jnp.int32))
    value, gradient = sharpness._value_and_grad(params, *data)
    x, g = (np.asarray(tree.ravel(a)[0]) for a in (params, gradient))
    radius = 1e-6
    expected = 100 * np.sum(np.abs(g) * radius * (np.abs(x) + 1)) / (1 + float(value))
    np.testing.assert_allclose(sharpness.keskar_sharpness(params, data, radius), expected, rtol=1e-4)


def test_validation_examples_are_a_fifth_in_equal_proportions_and_none_is_trained_on():
    data = datasets.load("digits")
    problem = protocol.make_problem(data, (5,))
    assert len(problem.train.inputs) == 1200
    assert len(problem.validation.inputs) == 300
    assert problem.sizes == (64, 5, 10)
    counts = np.bincount(np.asarray(problem.validation.targets))
    assert counts.min() >= 28
    rows = {row.tobytes() for row in np.asarray(problem.train.inputs)}
    assert not rows & {row.tobytes() for row in np.asarray(problem.validation.inputs)}


def test_losses_one_by_one_are_the_losses_of_the_batch():
    params = mlp.init(jax.random.key(0), (4, 3, 2))
    data = (jnp.ones((3, 4)) * jnp.arange(3.0)[:, None], jnp.array([0, 1, 1]), jnp.array([1.0, 1.0, 0.0]))
    one, whole = (jax.jit(f)(params, *data, jax.random.key(1)) for f in (protocol.one_by_one, protocol.batch_loss))
    np.testing.assert_allclose(one, whole, rtol=1e-6)


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_a_small_comparison_fills_every_cell_and_saves_tables_and_six_figures(tmp_path, capsys):
    settings = batch_sizes.Settings(
        hidden=(4,), batch_sizes=(100, 400), rates=(0.5, 1.0), tuning_seeds=1, seeds=2, epochs=2, updates=6,
        noise_seeds=1, sharpness_seeds=1, rounds=1, output=tmp_path / "run",
    )  # fmt: skip
    measured = batch_sizes.run(settings)
    cells = pd.read_csv(tmp_path / "run" / "cells.csv")
    assert cells.side.tolist() == ["small", "large"] * 6
    assert not cells.isna().any().any()
    pairs = (
        ("faster", "slower"),
        ("same", "same"),
        ("slower", "faster"),
        ("noisy", "stable"),
        *[("better", "worse")] * 2,
    )
    assert cells.claim.tolist() == [claim for pair in pairs for claim in pair]
    assert set(measured.tuned) == {"epochs", "updates", "time"}
    assert np.all(measured.noise.scale > 0)
    assert len(list((tmp_path / "run").glob("*.png"))) == 6
    assert len(pd.read_csv(tmp_path / "run" / "search_equal_time.csv")) == 2 * 2 * 1
    assert "of the twelve claims" in capsys.readouterr().out


def test_batch_sizes_that_do_not_increase_are_refused():
    with pytest.raises(ValueError, match="two or more, increasing"):
        batch_sizes.run(batch_sizes.Settings(batch_sizes=(64, 16)))


def test_data_that_cannot_be_compared_is_refused_before_a_folder_is_made(tmp_path):
    x, rows = np.arange(8.0)[:, None], {"x_train": slice(8), "x_test": slice(4)}
    for name, targets in (("values", x[:, 0] / 2), ("classes", np.arange(8) % 2)):
        arrays = {part.replace("x", "y"): targets[chosen] for part, chosen in rows.items()}
        np.savez(tmp_path / f"{name}.npz", **{part: x[chosen] for part, chosen in rows.items()}, **arrays)
    assert batch_sizes.load(str(tmp_path / "classes.npz")).train.targets.tolist() == [0, 1] * 4
    for name, reason in (
        ("values.npz", "class numbers"),
        ("none.npz", "none.npz"),
        ("classes.npz", "examples to train on"),
    ):
        with pytest.raises(ValueError, match=reason):
            batch_sizes.run(batch_sizes.Settings(data=str(tmp_path / name), output=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_quick_run_keeps_the_settings_that_were_chosen():
    short = batch_sizes.Settings(quick=True, batch_sizes=(16, 256), epochs=7).shortened()
    assert (short.batch_sizes, short.epochs) == ((16, 256), 7)
    assert short.seeds < batch_sizes.Settings.seeds
    assert len(short.rates) < len(batch_sizes.Settings.rates)
