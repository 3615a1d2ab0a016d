"""Learning rates and schedules: closed forms, and a small run."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
import scipy.stats

from experiments import learning_rates
from experiments._shared import scheduled, tuning
from experiments._shared.descent import descend, largest_eigenvalue
from mlp_jax import datasets, mlp


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning_rates") / "one"
    settings = learning_rates.Settings(quick=True, seeds=4, tuning_seeds=2, steps=180, epochs=6, output=folder)
    with jax.numpy_dtype_promotion("standard"):
        runs = learning_rates.run(settings)
    return folder, runs


@pytest.mark.slow
def test_a_quadratic_loss_diverges_exactly_above_two_over_lambda_max(ran):
    row = pd.read_csv(ran[0] / "thresholds.csv").set_index("problem").loc["linear, squared error"]
    assert row["diverged below 2/λ_max"] == 0
    assert row["diverged at some rate"] == "2/2"
    above = min(multiple for multiple in learning_rates.MULTIPLES if multiple > 1)
    assert row["in units of 2/λ_max"] == pytest.approx(above)
    # The Hessian of ½ mean ‖Wᵀx + b − t‖² has the eigenvalues of the Gram matrix of (x, 1), whatever the start.
    digits = np.asarray(datasets.load("digits").train.inputs[: learning_rates.EXAMPLES], float)
    inputs = np.hstack([digits, np.ones((len(digits), 1))])
    theory = 2 / np.linalg.eigvalsh(inputs.T @ inputs / len(inputs))[-1]
    assert float(row["2/λ_max"].split(" ")[0]) == pytest.approx(theory, rel=3e-3)


@pytest.mark.slow
def test_every_contender_takes_the_best_of_as_many_tries_and_differences_are_paired_by_seed(ran):
    folder, runs = ran
    tried = pd.read_csv(folder / "tuning.csv")
    groups = tried.groupby(["decay", "warmup"])
    assert groups.size().tolist() == [len(learning_rates.PEAKS)] * 10
    assert tried.index[tried.chosen].tolist() == sorted(groups.validation_loss.idxmin())
    assert (tried.diverged[tried.chosen] == 0).all()
    assert set(runs.seed) == set(range(2, 6))  # fresh: the tuning seeds are 0 and 1
    assert set(runs.groupby(["decay", "warmup"]).size()) == {4}
    table = pd.read_csv(folder / "schedules.csv").set_index(["decay", "warmup"])
    wide = pd.read_csv(folder / "runs.csv").pivot(index="seed", columns=["decay", "warmup"], values="test_loss")
    assert not runs.diverged.any()
    for contender in scheduled.CONTENDERS[1:]:
        difference = (wide[contender] - wide["constant", False]).to_numpy()
        low, high = scipy.stats.ttest_1samp(difference, 0.0).confidence_interval(0.95)
        centre, half = map(float, table.loc[contender, "loss − constant"].split(" ± "))
        assert centre == pytest.approx((low + high) / 2, rel=0.06)  # printed with two digits
        assert half == pytest.approx((high - low) / 2, rel=0.06)


@pytest.mark.implicit_promotion
def test_gradient_descent_on_a_quadratic_shrinks_the_top_mode_by_theory():
    # At the rate c · 2/λ_max a step multiplies the loss by (1 − 2 c)², if the other modes are absent.
    data = (2.0 * jnp.ones((1, 1)), jnp.zeros(1, jnp.int32))
    # One input 2: the Hessian of the one output that is off has the eigenvalues 0 and 2² + 1².
    params = (mlp.Layer(jnp.zeros((1, 10)), jnp.zeros(10)),)
    largest = largest_eigenvalue(learning_rates.squared, params, data, jax.random.key(0))
    assert largest == pytest.approx(5.0, rel=2e-3)
    starts, multiples = jax.tree.map(lambda a: a[None], params), np.array([0.5, 0.95, 1.05, 1.5])
    values = descend(optax.sgd, learning_rates.squared, starts, jnp.asarray(multiples * 2 / 5), 5, data)
    expected = 0.5 * (1 - 2 * multiples[:, None]) ** (2 * np.arange(6))
    np.testing.assert_allclose(values[:, 0], expected, rtol=1e-4, atol=1e-9)


@pytest.mark.implicit_promotion
def test_contenders_in_one_program_follow_their_formulas_after_a_straight_rise():
    updates, rise, make = 100, 10, scheduled.scheduled_sgd(100)

    @jax.vmap
    def rates(contender):
        optimizer = make(jnp.float32(0.5), contender)
        step = lambda state, _: optimizer.update(jnp.float32(-2), state)[::-1]
        return jax.lax.scan(step, optimizer.init(jnp.float32(0)), None, length=updates)[1]

    rows = np.asarray(rates(jnp.arange(10.0)))
    for group, late in ((rows[:5], 0), (rows[5:], rise)):
        rest = updates - late
        t = np.arange(rest)
        steps, cosine = 0.1 ** (t // math.ceil(rest / 3)), (1 + np.cos(np.pi * t / rest)) / 2
        formulas = np.ones(rest), steps, 1 - t / rest, 0.01 ** (t / rest), cosine
        np.testing.assert_allclose(group[:, late:], formulas, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(group[:, :late], [(1 + 0.9 * np.arange(late)) / 10] * 5, rtol=1e-5)


def test_a_try_in_which_one_run_diverged_is_never_chosen():
    judged, diverged = np.array([[3.0, 3.0], [2.0, 2.0], [1.0, 1.0]]), np.zeros((3, 2), bool)  # the last is the best
    for last, expected in ((False, [False, False, True]), (True, [False, True, False])):
        diverged[-1, 0] = last
        table = tuning.tries("rate", (0.1, 0.2, 0.4), "loss", judged, diverged)
        assert table.chosen.tolist() == expected
        assert table.at_edge.any() == expected[-1]
