"""Selective plasticity: importances against numpy, the penalty against its limits, and a small run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
import scipy.stats

from experiments import continual_learning as experiment
from experiments._shared import selective_plasticity as plasticity
from mlp_jax import losses, mlp, training, tree


def small(dtype):
    """Parameters of a small network, not at a minimum, with inputs and targets."""
    params = mlp.init(jax.random.key(0), (3, 4, 3), dtype=dtype)
    generator = np.random.default_rng(1)
    return params, generator.standard_normal((7, 3)).astype(dtype), generator.integers(3, size=7).astype(np.int32)


def gradients(params, x, k):
    """The gradient (P,) of −log p(k|x) in numpy, by the chain rule."""
    (w1, b1), (w2, b2) = (tuple(np.asarray(a) for a in layer) for layer in params)
    hidden = np.tanh(x @ w1 + b1)
    z = hidden @ w2 + b2
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    delta2 = p - np.eye(len(z))[k]
    delta1 = (w2 @ delta2) * (1 - hidden**2)
    return p[k], np.concatenate([np.outer(x, delta1).ravel(), delta1, np.outer(hidden, delta2).ravel(), delta2])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_diagonals_are_the_mean_squared_score_and_the_second_difference_of_the_loss():
    params, inputs, targets = small(np.float64)
    found = plasticity.diagonals(params, inputs, targets)
    scores = [gradients(params, x, k) for x in inputs for k in range(3)]
    expected = sum(probability * gradient**2 for probability, gradient in scores) / len(inputs)
    assert found["Fisher"] == pytest.approx(expected, rel=1e-10)
    vector, unravel = np.asarray(tree.ravel(params)[0]), jax.jit(tree.ravel(params)[1])
    slope = lambda v: np.mean([gradients(unravel(v), x, k)[1] for x, k in zip(inputs, targets, strict=True)], axis=0)
    moves = 1e-5 * np.eye(len(vector))
    expected = [(slope(vector + e) - slope(vector - e))[i] / 2e-5 for i, e in enumerate(moves)]
    assert found["Hessian"] == pytest.approx(expected, abs=1e-8)
    assert (found["Hessian"] < 0).any()  # entries that are clipped


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.implicit_promotion
def test_importances_are_not_negative_and_uniform_ones_have_the_sum_of_the_fisher_diagonal():
    params, inputs, targets = jax.tree.map(lambda a: jnp.asarray(a)[None], small(np.float64))
    weights, facts = experiment.importances(params, experiment.Examples(inputs, targets))
    total = {name: sum(float(a.sum()) for a in jax.tree.leaves(weights[name])) for name in weights}
    assert total["uniform"] == pytest.approx(total["Fisher"], rel=1e-5)
    assert total["Fisher"] == pytest.approx(facts["Fisher sum"][0], rel=1e-5)
    assert total["Hessian"] > facts["Hessian sum"][0]
    assert min(float(a.min()) for a in jax.tree.leaves(weights["Hessian"])) == 0


def test_split_digits_are_the_two_halves_and_permuted_ones_keep_every_pixel():
    old, new = experiment.make_tasks("split", (0, 0), 2)
    assert sum(part.targets.shape[1] for task in (old, new) for part in task) == 1797
    assert {int(t) for t in np.unique(new.test.targets)} == set(range(5))
    old, new = experiment.make_tasks("permuted", (0, 0), 2)
    assert np.array_equal(np.sort(old.test.inputs), np.sort(new.test.inputs))
    assert np.array_equal(old.train.targets, new.train.targets)
    assert not np.array_equal(new.test.inputs[0], new.test.inputs[1])


@pytest.mark.slow
@pytest.mark.implicit_promotion
def test_no_strength_is_plain_training_and_a_large_one_holds_what_is_important():
    _, new = experiment.make_tasks("permuted", (0, 0), 1)
    keys, starts = plasticity.draw_starts(jax.random.key(0), 1, (64, 3, 10))
    # All parameters are important except the biases of the last layer.
    free = (mlp.Layer(jnp.ones((1, 64, 3)), jnp.ones((1, 3))), mlp.Layer(jnp.ones((1, 3, 10)), jnp.zeros((1, 10))))
    ends, diverged = plasticity.learn(keys, starts, new.train, free, jnp.array([0.0, 1e4]), jnp.array([1e-3, 1e-3]), 2)
    assert not np.any(diverged)

    def loss(params, x, y, weights, key):
        return losses.mean(losses.cross_entropy(mlp.forward(params, x), y), weights)

    first = jax.tree.map(lambda a: a[0], (starts, new.train))
    alone, _ = training.train(keys[0], loss, *first, optimizer=optax.adam(1e-3), batch_size=32, epochs=2)
    for a, b in zip(jax.tree.leaves(ends), jax.tree.leaves(alone), strict=True):
        assert np.allclose(a[0, 0], b, atol=1e-5)
    moved = jax.tree.map(lambda end, start: float(jnp.abs(end[1, 0] - start[0]).max()), ends, starts)
    # Adam oscillates about the reference by a few steps of its rate.
    assert max(moved[0].weight, moved[0].bias, moved[1].weight) < 5e-3
    assert moved[1].bias > 2e-2


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_importances_reduce_forgetting_and_the_table_says_by_how_much(tmp_path):
    settings = experiment.Settings(quick=True, seeds=4, epochs=4, output=tmp_path / "one")
    table = experiment.run(settings).set_index("contender")
    for name in ("Fisher", "Hessian"):
        assert table["saved"][name] > table["saved ±"][name]
        assert table["both"]["both at once"] > table["both"][name] > table["both"]["plain"]
    runs = pd.read_csv(tmp_path / "one" / "runs.csv")
    tries = runs[~runs.contender.isin(["plain", "both at once"])].groupby(["stage", "contender"]).tried.nunique()
    assert tries.eq(experiment.TRIES).all()
    tuned = runs[(runs.stage == "tuning") & (runs.contender == "Fisher")]
    best = max(tuned.tried.unique(), key=lambda t: (tuned.old + tuned.new)[tuned.tried == t].mean())
    assert table["tried"]["Fisher"] == pytest.approx(best)
    fresh = runs[runs.stage == "fresh"].set_index("seed")
    ends = fresh[(fresh.contender == "Fisher") & np.isclose(fresh.tried, best)]
    interval = scipy.stats.ttest_rel(ends.old, fresh[fresh.contender == "plain"].old).confidence_interval(0.95)
    ends = table["saved"]["Fisher"] + np.array([-1, 1]) * table["saved ±"]["Fisher"]
    assert 100 * np.array(interval) == pytest.approx(ends)
