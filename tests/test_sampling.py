"""Draws with replacement, and batch sizes, rates and momenta that change along a run, against loops written out."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlp_jax import gradient_noise, losses, sweep, training

KEY = jax.random.key(5)
N = 11
rng = np.random.default_rng(0)
INPUTS = rng.normal(size=(N, 3))
TARGETS = INPUTS @ np.array([1.0, -2.0, 0.5]) + rng.normal(size=N)
order_of = jax.jit(training.order, static_argnums=2, static_argnames="replace")


def loss(theta, inputs, targets, weights, key):
    return losses.mean(0.5 * (inputs @ theta - targets) ** 2, weights)


def run(batch_size, epochs, optimizer, start=(0.0, 0.0, 0.0), **settings):
    common = {"optimizer": optimizer, "batch_size": batch_size, "epochs": epochs}
    return training.train(KEY, loss, jnp.asarray(start), (INPUTS, TARGETS), **common | settings)


def loop(size_of, epochs, rate_of, momentum_of, *, key=KEY, replace=False):
    """Return θ after each update, and the mean loss of each epoch, for heavy-ball momentum on least squares."""
    theta, velocity, path, means = np.zeros(3), np.zeros(3), [], []
    for epoch in range(epochs):
        visited, total = np.asarray(order_of(key, epoch, N, replace=replace)), 0.0
        while len(visited):
            held, visited = np.split(visited, [size_of(len(path))])
            residuals = INPUTS[held] @ theta - TARGETS[held]
            total += np.sum(residuals**2) / 2
            velocity = residuals @ INPUTS[held] / len(held) + momentum_of(len(path)) * velocity
            theta = theta - rate_of(len(path)) * velocity
            path.append(theta)
        means.append(total / N)
    return np.array(path), means


def test_draws_with_replacement_are_uniform_and_independent():
    draws = np.asarray(jax.jit(jax.vmap(lambda e: training.order(KEY, e, 4, replace=True)))(jnp.arange(6_000)))
    counts = collections.Counter(map(tuple, draws.tolist()))
    assert set(counts) == set(itertools.product(range(4), repeat=4))
    chi_squared = sum((count - 6_000 / 256) ** 2 / (6_000 / 256) for count in counts.values())
    assert 190 < chi_squared < 331  # 255 degrees of freedom: between the quantiles .1 % and 99.9 %


@pytest.mark.usefixtures("x64")
def test_descent_with_replacement_has_the_stationary_variance_of_theory_and_without_less():
    """For the mean of ½ (θ − yᵢ)², θ ← (1 − η) θ + η ȳ_B, the variance is η / (2 − η) · c(B) · var y."""
    values = jnp.asarray(np.random.default_rng(1).normal(size=20))

    def variance(replace):
        _, history = training.train(
            KEY, lambda theta, x, y, weights, key: losses.mean(0.5 * (theta - y) ** 2, weights), jnp.mean(values),
            (values, values), optimizer=optax.sgd(0.5), batch_size=4, epochs=4_000, replace=replace,
            record=lambda state: state.params, record_every=1,
        )  # fmt: skip
        return np.mean((history.record - np.mean(values)) ** 2)

    theory = 0.5 / 1.5 * gradient_noise.coefficient(4) * np.var(values)
    # 20,000 steps of correlation ½ are worth 12,000 independent ones: five standard errors are 6.5 %.
    assert abs(variance(True) / theory - 1) < 0.065
    assert variance(False) < 0.8 * theory


RATE, MOMENTUM = optax.linear_schedule(0.1, 0.02, 12), optax.linear_schedule(0.0, 0.9, 12)
SCHEDULED = optax.inject_hyperparams(optax.sgd, hyperparam_dtype=jnp.float64)(learning_rate=RATE, momentum=MOMENTUM)


@pytest.mark.implicit_promotion  # optax's schedules
@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.usefixtures("x64")
def test_a_run_with_schedules_of_batch_size_rate_and_momentum_is_the_loop(replace):
    """Sizes 2, 3, 4, ... do not divide an epoch, and every update changes all three numbers."""
    path, means = loop(lambda t: min(2 + t, 9), 4, RATE, MOMENTUM, replace=replace)
    settings = {"record": lambda state: state.params, "record_every": 1, "replace": replace}
    theta, history = run(lambda t: jnp.minimum(2 + t, 9), 4, SCHEDULED, **settings)
    assert len(path) == 10
    np.testing.assert_allclose(history.record, path, rtol=1e-6)  # optax computes rates in float32
    np.testing.assert_allclose(theta, path[-1], rtol=1e-6)
    np.testing.assert_allclose(history.loss, means, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_run_whose_batch_size_is_raised_is_its_pieces_one_after_the_other():
    """Two epochs in batches of 4, then two of 6: the second piece is a run of 6s whose rate is 0 in two epochs."""
    first, _ = run(4, 2, optax.sgd(0.1))
    second, pieces = run(6, 4, optax.sgd(lambda t: jnp.where(t < 4, 0.0, 0.1)), first)
    whole, history = run(lambda t: jnp.where(t < 6, 4, 6), 4, optax.sgd(0.1))
    np.testing.assert_allclose(whole, second, rtol=1e-12)
    np.testing.assert_allclose(history.loss[2:], pieces.loss[2:], rtol=1e-12)
    # A size that does not change, and a run that stops early, are those of an integer.
    stopping = training.EarlyStopping(lambda theta: -theta[0], (), 1)
    equal = [run(size, 4, optax.sgd(0.1), early_stopping=stopping) for size in (4, lambda t: 4)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), *equal)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_sweep_takes_batch_sizes_that_change_and_draws_with_replacement():
    def rising(t):
        return jnp.minimum(2 + t, 9)

    def swept(**length):
        return sweep.run(
            KEY, loss, lambda key: jnp.zeros(3), (INPUTS, TARGETS), batch_sizes=(4, rising), learning_rates=(0.05, 0.1),
            seeds=2, replace=True, records=2, record=lambda state: state.params, **length,
        )  # fmt: skip

    result = swept(epochs=3)
    key = jax.random.split(jax.random.fold_in(KEY, 1))[1]
    for number, size_of in enumerate((lambda t: 4, lambda t: min(2 + t, 9))):
        path, _ = loop(size_of, 3, lambda t: 0.1, lambda t: 0.0, key=key, replace=True)
        np.testing.assert_array_equal(result.updates[number], [-(-len(path) // 2), len(path)])
        np.testing.assert_allclose(result.record[number, 1, 1], path[result.updates[number] - 1], rtol=1e-10)
    np.testing.assert_array_equal(result.examples, [[11 + 8, 33], [11, 33]])
    assert result.table().batch_size.tolist() == [4] * 4 + [rising] * 4
    assert "rising" in str(result)
    np.testing.assert_allclose(swept(updates={4: 9, rising: 8}).params, result.params, rtol=1e-12)


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        (lambda t: 2 + t, "batch_size: got 12 at update 10, expected an integer from 1 to 11, the number of examples"),
        (lambda t: jnp.where(t < 2, 3, jnp.nan), "batch_size: got nan at update 2"),
    ],
)
def test_a_size_out_of_range_is_refused_with_the_number_of_its_update(batch_size, message):
    with pytest.raises(ValueError, match=message):
        run(batch_size, 9, optax.sgd(0.1))


def test_a_loss_that_is_no_mean_is_refused_if_sizes_change():
    with pytest.raises(ValueError, match="a mean with the weights"):
        training.train(
            KEY, lambda theta, x, y, weights, key: jnp.sum(weights) * theta, jnp.ones(()), (INPUTS, TARGETS),
            optimizer=optax.sgd(0.1), batch_size=lambda t: 4, epochs=1,
        )  # fmt: skip
