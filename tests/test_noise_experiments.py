"""Small runs of the experiments on noise, width and batch-size schedules, against answers that they did not compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import batch_size_schedule, noise_and_curvature, width_and_rate
from mlp_jax import curvature, datasets, losses, mlp


def test_the_best_rate_is_the_minimum_of_a_parabola_in_the_logarithm_or_the_lowest_of_the_rates_tried():
    rates = 2.0 ** np.arange(-3, 3)
    assert width_and_rate.best_rate(rates, (np.log(rates) - np.log(0.7)) ** 2) == pytest.approx(0.7)
    assert width_and_rate.best_rate(rates, np.array([3, 2, 1, np.inf, np.inf, np.inf])) == 0.5
    assert width_and_rate.best_rate(rates, np.arange(6.0)) == 0.125


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_the_scalings_are_one_at_the_base_width_and_the_spread_is_that_of_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(
        width_and_rate, "RATES", {"sgd": np.array([0.1, 0.2, 0.4]), "adam": np.array([0.01, 0.02, 0.04])}
    )
    settings = width_and_rate.Settings(widths=(4, 8), seeds=1, epochs=1, output=tmp_path / "one")
    table = width_and_rate.run(settings)
    rows = (
        pd.read_csv(settings.output / "losses.csv")
        .set_index(["width", "optimizer", "scaling", "learning_rate"])
        .sort_index()
    )
    for name in ("sgd", "adam"):
        base = rows.loc[4, name].loss
        np.testing.assert_array_equal(base["standard"], base["maximal update"])
        assert not np.allclose(rows.loc[8, name].loss["standard"], rows.loc[8, name].loss["maximal update"])
    best = table[["best, 4", "best, 8"]].to_numpy()
    np.testing.assert_allclose(table["largest / smallest"], best.max(axis=1) / best.min(axis=1))


@pytest.mark.slow
def test_a_look_has_the_cosine_and_the_shares_of_the_dense_matrices_and_batches_have_the_factor_of_theory(
    x64, monkeypatch
):
    monkeypatch.setattr(noise_and_curvature, "DRAWN", (4, 16))
    rng = np.random.default_rng(0)
    data = datasets.Examples(jnp.asarray(rng.normal(size=(60, 5))), jnp.asarray(np.arange(60) % 3))
    params = mlp.init(jax.random.key(0), (5, 4, 3), dtype=np.float64)
    row, quotients = noise_and_curvature.look(params, data)
    fun = lambda p, x, y: losses.mean(noise_and_curvature.per_example(p, x, y))
    hessian = np.asarray(curvature.dense_hessian(fun, params, tuple(data)))
    rows = jax.tree.leaves(jax.jit(jax.jacobian(noise_and_curvature.per_example))(params, *data))
    covariance = np.cov(np.hstack([np.reshape(leaf, (60, -1)) for leaf in rows]), rowvar=False, bias=True)
    norms = np.linalg.norm(covariance) * np.linalg.norm(hessian)
    np.testing.assert_allclose(row["cosine"], np.sum(covariance * hessian) / norms, rtol=1e-9)
    vectors = np.linalg.eigh(hessian)[1][:, ::-1]
    noise = np.diag(vectors.T @ covariance @ vectors)
    np.testing.assert_allclose(row["noise in the top"], noise[:10].sum() / np.trace(covariance), rtol=1e-8)
    np.testing.assert_allclose(quotients.noise, noise, atol=1e-12)
    # The trace of a covariance from 4,000 batches has a standard error of a few per cent.
    batches = noise_and_curvature.drawn(params, data, jax.random.key(1), 4000)
    np.testing.assert_allclose(batches.factor, [56 / (4 * 59), 44 / (16 * 59), 1 / 4, 1 / 16], rtol=0.1)
    np.testing.assert_allclose(batches.cosine, row["cosine"], rtol=0.1)


def test_rate_over_batch_size_is_the_same_in_every_epoch_whether_the_rate_falls_or_the_size_rises():
    """100 examples: 7, 2 and 1 updates an epoch in batches of 16, 64 and 256, for 4, 2 and 2 epochs of 8."""
    ways = batch_size_schedule.contenders(100, 8)
    size_of = ways["raise the batch size"][0]
    assert [int(size_of(jnp.int32(t))) for t in (0, 27, 28, 31, 32, 40)] == [16, 16, 64, 64, 256, 256]

    def updates(optimizer):
        state, found = optimizer.init(jnp.ones(())), []
        for _ in range(8 * 7):
            update, state = optimizer.update(jnp.ones(()), state)
            found.append(float(update))
        return np.array(found)

    with jax.numpy_dtype_promotion("standard"):
        ratio = updates(ways["lower the rate"][1](0.1)) / updates(ways["constant"][1](0.1))
    np.testing.assert_allclose(ratio, np.repeat([1, 1 / 4, 1 / 16], [28, 14, 14]), rtol=1e-5)


@pytest.mark.implicit_promotion
@pytest.mark.slow
@pytest.mark.parametrize("experiment", [batch_size_schedule, noise_and_curvature])
def test_a_small_run_writes_its_tables_and_its_figure(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size_schedule, "RATES", (0.05, 0.1))
    monkeypatch.setattr(noise_and_curvature, "HIDDEN", 3)
    smaller = {"seeds": 2, "tuning_seeds": 1, "epochs": 4} if experiment is batch_size_schedule else {"seeds": 2}
    settings = experiment.Settings(quick=True, output=tmp_path / "one", **smaller)
    rows = experiment.run(settings)
    name = experiment.__name__.split(".")[-1]
    assert (settings.output / f"{name}.png").exists()
    if experiment is batch_size_schedule:
        assert rows.updates.tolist() == [4 * 75, 4 * 75, 2 * 75 + 19 + 5]  # 1,200 examples
    else:
        assert rows.cosine.between(0, 1).all()
