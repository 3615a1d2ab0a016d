"""Regularization of a network that overfits: measures against numpy, and a small run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from experiments import regularization
from experiments._shared import regularized
from mlp_jax import losses, mlp

SMALL = regularization.Settings(quick=True, seeds=5, tuning_seeds=2, epochs=60, examples=60, hidden=16)


@pytest.mark.slow
@pytest.mark.implicit_promotion
def test_every_method_has_as_many_tries_the_best_is_chosen_and_differences_are_paired_by_seed(tmp_path):
    folder = tmp_path / "one"
    runs = regularization.run(dataclasses.replace(SMALL, output=folder))
    tried = pd.read_csv(folder / "tuning.csv")
    assert set(tried.method.value_counts()) == {6}
    assert tried.index[tried.chosen].tolist() == sorted(tried.groupby("method")["validation loss"].idxmin())
    table = pd.read_csv(folder / "summary.csv").set_index(["method", "measure"])
    values = {method: part.sort_values("seed") for method, part in pd.read_csv(folder / "runs.csv").groupby("method")}
    assert set(values["nothing"].seed) == set(range(2, 7))  # fresh: the tuning seeds are 0 and 1
    for method in ("early stopping", "dropout", "L1", "L2"):
        paired = scipy.stats.ttest_rel(values[method].gap, values["nothing"].gap).confidence_interval(0.95)
        centre, half = table.loc[(method, "gap"), ["minus nothing", "its ±"]]
        np.testing.assert_allclose([centre - half, centre + half], paired, rtol=1e-4)
    np.testing.assert_allclose(runs.gap, runs.test_loss - runs.train_loss, rtol=1e-5)
    assert not runs.diverged.any()
    wide = runs.pivot(index="seed", columns="method")
    assert (wide["gap"]["nothing"] > 0.1).all()  # it overfits
    assert (wide["removal"]["dropout"] < wide["removal"]["nothing"]).mean() > 0.5


@pytest.mark.slow
@pytest.mark.implicit_promotion
def test_early_stopping_is_the_beginning_of_a_run_without():
    seeds, _ = regularization.draw_seeds(SMALL, 0.2, range(4))
    strengths = regularized.strengths_of("nothing", (0.1,), 0.0)
    _, whole = jax.tree.map(lambda a: a[0], regularized.fit(seeds, strengths, 40))
    params, stopped = jax.tree.map(lambda a: a[0], regularized.fit(seeds, strengths, 40, 3))
    watched, judged = (np.asarray(whole.record[name]) for name in ("watched", "judged"))
    epochs = [regularized.best_epoch(row, 3) for row in watched]
    assert epochs == np.asarray(stopped.best_epoch).tolist()
    assert max(epochs) < 40
    ends = jax.vmap(regularized.entropy)(params, *seeds.judged)
    np.testing.assert_allclose(regularized.stopped_losses(watched, judged, 3), ends, rtol=1e-4)


@pytest.mark.implicit_promotion
def test_samples_share_no_digit_with_each_other_or_with_the_test_examples():
    seeds, test = regularization.draw_seeds(SMALL, 0.0, range(1))
    parts = seeds.train, seeds.watched, seeds.judged
    drawn = [row.tobytes() for part in parts for row in np.asarray(part.inputs[0])]
    assert len(set(drawn)) == len(drawn) == 3 * SMALL.examples
    assert not set(drawn) & {row.tobytes() for row in np.asarray(test.inputs)}
    wrong, right = (regularization.draw_seeds(SMALL, share, range(20))[0].train.targets for share in (0.5, 0.0))
    assert np.mean(np.asarray(wrong != right)) == pytest.approx(0.5 * 0.9, abs=0.06)  # a tenth are right by chance


@pytest.mark.slow
@pytest.mark.implicit_promotion
def test_co_adaptation_is_what_numpy_finds():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 5)).astype(np.float32), rng.integers(3, size=50)
    params = mlp.init(jax.random.key(1), (5, 7, 3))
    hidden = np.maximum(np.asarray(x @ params[0].weight + params[0].bias), 0)
    matrix = np.abs(np.corrcoef(hidden.T))[np.triu_indices(7, 1)]
    assert float(regularized.correlation(jnp.asarray(hidden))) == pytest.approx(matrix.mean(), rel=1e-4)

    logits = lambda kept: jnp.asarray((hidden * kept) @ np.asarray(params[1].weight))
    loss = lambda kept: float(losses.mean(losses.cross_entropy(logits(kept), jnp.asarray(y))))
    rises = np.mean([loss(np.arange(7) != unit) for unit in range(7)]) - loss(np.ones(7))
    found = regularized.removal(jnp.asarray(hidden), params[1], jnp.asarray(y))
    assert float(found) == pytest.approx(rises, abs=1e-6)


@pytest.mark.implicit_promotion
def test_each_strength_adds_its_own_penalty_and_nothing_else():
    params = mlp.init(jax.random.key(0), (4, 3, 2))
    x, y, key = jnp.ones((5, 4)), jnp.zeros(5, jnp.int32), jax.random.key(1)
    weights, loss = np.hstack([np.ravel(layer.weight) for layer in params]), jax.jit(regularized.training_loss)

    def of(method, value):
        strengths = jax.tree.map(lambda a: a[0], regularized.strengths_of(method, (value,), 0.1))
        return float(loss(strengths, params, x, y, jnp.ones(5), key))

    plain = float(regularized.entropy(params, x, y))
    assert of("nothing", 0.1) == of("early stopping", 8) == pytest.approx(plain)
    assert of("L1", 0.01) - plain == pytest.approx(0.01 * np.abs(weights).sum(), rel=1e-3)
    assert of("L2", 0.01) - plain == pytest.approx(0.005 * (weights**2).sum(), rel=1e-3)
    assert of("dropout", 0.5) != pytest.approx(plain)
