"""A training run against loops written out, closed forms of least squares, and counted orders."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlp_jax import curvature, losses, mlp, training, tree

KEY = jax.random.key(7)
SGD = optax.sgd(0.1)


def gradients_seen(key, loss, params, data, *, batch_size, epochs):
    """(epochs, updates an epoch, ...) the gradient of every update of a run, which changes nothing."""
    keep = optax.GradientTransformation(
        lambda params: jnp.zeros_like(params), lambda gradient, state, params=None: (jnp.zeros_like(gradient), gradient)
    )
    record = lambda state: state.optimizer_state
    settings = {"optimizer": keep, "record": record, "record_every": 1}
    _, history = training.train(key, loss, params, data, batch_size=batch_size, epochs=epochs, **settings)
    return np.asarray(history.record).reshape(epochs, -1, *params.shape)


def mean_of_chosen(theta, numbers, targets, weights, key):
    """Mean of the parameters that the batch names: its gradient shows which examples the batch holds."""
    return losses.mean(theta[numbers], weights)


def shares(key, num_examples, batch_size, epochs):
    """(epochs, updates, num_examples) the share of each example in each batch."""
    numbers = jnp.arange(num_examples)
    theta = jnp.ones(num_examples, jnp.float32)
    return gradients_seen(key, mean_of_chosen, theta, (numbers, numbers), batch_size=batch_size, epochs=epochs)


def regression(num_examples=11, dtype=np.float32):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(num_examples, 3)), rng.normal(size=(num_examples, 2))
    draw = lambda *shape: jnp.asarray(0.5 * rng.normal(size=shape), dtype)
    params = (mlp.Layer(draw(3, 4), draw(4)), mlp.Layer(draw(4, 2), draw(2)))
    return params, (jnp.asarray(inputs, dtype), jnp.asarray(targets, dtype))


def network_loss(params, inputs, targets, weights, key):
    return losses.mean(losses.squared_error(mlp.forward(params, inputs), targets), weights)


def criterion(params, inputs, targets):
    return losses.mean(losses.squared_error(mlp.forward(params, inputs), targets))


value_and_grad = jax.jit(jax.value_and_grad(criterion))


def train(params, data, **settings):
    """A run of the network above; its settings are these where no others are given."""
    return training.train(KEY, network_loss, params, data, **{"optimizer": SGD, "batch_size": 4} | settings)


def descend(theta, data, optimizer, epochs, **settings):
    """A run on least squares in full batches."""
    settings = {"optimizer": optimizer, "batch_size": 8, "epochs": epochs} | settings
    return training.train(KEY, line_loss, theta, data, **settings)


def assert_close(a, b, rtol, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def line_loss(theta, inputs, targets, weights, key):
    return losses.mean(0.5 * (inputs @ theta - targets) ** 2, weights)


def line(dtype=np.float32):
    """Least squares with the Hessian A = XᵀX/n and the minimum θ*, for gradients A (θ − θ*)."""
    rng = np.random.default_rng(1)
    inputs, minimum = rng.normal(size=(8, 2)), np.array([1.0, -2.0])
    data = (jnp.asarray(inputs, dtype), jnp.asarray(inputs @ minimum, dtype))
    return data, inputs.T @ inputs / 8, minimum


# --- batches ---


@pytest.mark.parametrize(("num_examples", "batch_size"), [(7, 3), (5, 5)])
def test_an_epoch_holds_every_example_once_and_a_batch_is_the_mean_of_what_it_holds(num_examples, batch_size):
    seen = shares(KEY, num_examples, batch_size, epochs=3)
    held = (seen > 0).sum(-1)
    full, rest = divmod(num_examples, batch_size)
    np.testing.assert_array_equal(held, [[batch_size] * full + [rest] * (rest > 0)] * 3)
    np.testing.assert_array_equal((seen > 0).sum(1), 1)
    np.testing.assert_allclose(seen, (seen > 0) / held[:, :, None], rtol=1e-6)


def test_each_epoch_and_each_key_has_its_own_order_and_it_is_that_of_order():
    keys = jax.random.split(KEY)
    seen = [shares(key, 10, 1, epochs=2).argmax(-1).tolist() for key in keys]
    assert seen == [[training.order(key, epoch, 10).tolist() for epoch in range(2)] for key in keys]
    assert len({tuple(order) for orders in seen for order in orders}) == 4


def test_every_order_of_four_examples_is_equally_likely():
    epochs = 24_000
    orders = jax.vmap(lambda epoch: training.order(KEY, epoch, 4))(jnp.arange(epochs))
    assert orders.dtype == jnp.int32
    counts = collections.Counter(map(tuple, orders.tolist()))
    assert set(counts) == set(itertools.permutations(range(4)))
    chi_squared = sum((count - epochs / 24) ** 2 / (epochs / 24) for count in counts.values())
    assert 8 < chi_squared < 50  # 23 degrees of freedom: between the quantiles .1 % and 99.9 %


@pytest.mark.parametrize("num_examples", [1, 4097])
def test_an_order_holds_every_example_once_whatever_the_default_precision(num_examples):
    low = training.order(KEY, 3, num_examples)
    with jax.enable_x64(True):
        high = training.order(KEY, 3, num_examples)
    np.testing.assert_array_equal(np.sort(low), np.arange(num_examples))
    np.testing.assert_array_equal(low, high)


# --- updates ---


@pytest.mark.implicit_promotion  # optax's bias correction
@pytest.mark.parametrize(
    ("optimizer", "dtype"),
    [
        (optax.sgd(0.1, momentum=0.9), np.float32),
        (optax.adam(0.05), np.float64),
        (optax.sgd(optax.linear_schedule(0.2, 0.0, 10)), np.float64),
    ],
)
@pytest.mark.usefixtures("x64")
def test_a_run_is_the_python_loop_over_the_same_batches(optimizer, dtype):
    """The loop has no padding and no weights; its batches are read from another run with the same key."""
    start, data = regression(dtype=dtype)
    inputs, targets = map(np.asarray, data)
    batches = shares(KEY, len(inputs), 4, epochs=3) > 0
    params, state, expected = start, optimizer.init(start), []
    update = jax.jit(optimizer.update)
    for epoch in batches:
        total = 0.0
        for held in epoch:
            value, gradient = value_and_grad(params, inputs[held], targets[held])
            updates, state = update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            total += float(value) * held.sum()
        expected.append(total / len(inputs))

    trained, history = train(start, data, optimizer=optimizer, epochs=3)
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    assert_close(trained, params, tolerance, tolerance)
    np.testing.assert_allclose(history.loss, expected, rtol=tolerance)
    assert {leaf.dtype for leaf in jax.tree.leaves((trained, history.loss))} == {jnp.dtype(dtype)}


@pytest.mark.usefixtures("x64")
def test_full_batch_descent_on_least_squares_shrinks_the_error_by_a_known_matrix():
    """θ_t − θ* = (I − ηA)ᵗ (θ_0 − θ*), whatever the key."""
    data, hessian, minimum = line(np.float64)
    trained, _ = descend(jnp.zeros(2), data, optax.sgd(0.3), 25)
    expected = minimum - np.linalg.matrix_power(np.eye(2) - 0.3 * hessian, 25) @ minimum
    np.testing.assert_allclose(trained, expected, rtol=1e-11)


# --- what optimisers are given ---


@pytest.mark.usefixtures("x64")
def test_polyak_steps_are_given_the_loss_of_the_batch():
    """θ ← θ − L g / ‖g‖² when the minimum of L is 0 (Polyak 1964)."""
    data, hessian, minimum = line(np.float64)
    theta = np.array([3.0, 3.0])
    trained, _ = descend(jnp.asarray(theta), data, optax.polyak_sgd(100.0), 6)
    for _ in range(6):
        error = theta - minimum
        g = hessian @ error
        theta = theta - 0.5 * error @ g / (g @ g) * g
    np.testing.assert_allclose(trained, theta, rtol=1e-10)


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.implicit_promotion
@pytest.mark.usefixtures("x64")
def test_sharpness_aware_minimisation_is_given_the_gradient_at_the_adversarial_point(opaque):
    """θ ← θ − η g(θ + ρ g(θ) / ‖g(θ)‖) (Foret et al. 2021): in one update, or in two that the run sees."""
    data, hessian, minimum = line(np.float64)
    theta, rate, radius, steps = np.array([3.0, 3.0]), 0.05, 0.3, 4
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(radius))
    optimizer = optax.contrib.sam(optax.sgd(rate), ascent, opaque_mode=opaque)
    trained, _ = descend(jnp.asarray(theta), data, optimizer, steps if opaque else 2 * steps)
    for _ in range(steps):
        g = hessian @ (theta - minimum)
        theta = theta - rate * hessian @ (theta + radius * g / np.linalg.norm(g) - minimum)
    np.testing.assert_allclose(trained, theta, rtol=1e-10)


@pytest.mark.parametrize(
    ("optimizer", "needs"),
    [
        (optax.contrib.hutchinson_estimator_diag_hessian(), "obj_fn must be provided"),
        (optax.chain(optax.contrib.sam(SGD, SGD)), "unexpected keyword argument 'value'"),
        (optax.GradientTransformationExtraArgs(SGD.init, lambda u, s, p, *, hessian: (u, s)), "'hessian'"),
    ],
)
def test_an_optimizer_that_needs_something_else_says_what(optimizer, needs):
    with pytest.raises((TypeError, ValueError), match=needs):
        descend(jnp.zeros(2), line()[0], optimizer, 1)


@pytest.mark.usefixtures("x64")
def test_a_line_search_is_given_the_loss_itself_and_holds_a_step_that_would_diverge():
    data, _, minimum = line(np.float64)
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=20)
    _, plain = descend(jnp.zeros(2), data, optax.sgd(50.0), 60)
    trained, searched = descend(jnp.zeros(2), data, optax.chain(optax.sgd(50.0), search), 60)
    assert not plain.loss[-1] < plain.loss[0]
    # Least squares without noise: the loss falls by a fixed share an update, down to its rounding.
    assert np.all(np.diff(searched.loss[:20]) < 0)
    np.testing.assert_allclose(trained, minimum, atol=1e-4)


def test_every_update_and_every_run_has_its_own_key_for_the_loss():
    """The gradient of θ · u is the uniform number u that the loss drew."""

    def noisy(theta, inputs, targets, weights, key):
        return theta[0] * jax.random.uniform(key)

    data = (jnp.zeros(6), jnp.zeros(6))
    keys = jax.random.split(KEY)
    drawn = [gradients_seen(k, noisy, jnp.ones(1), data, batch_size=2, epochs=2) for k in keys]
    assert len(np.unique(drawn)) == 2 * 2 * 3


# --- records and transformations ---


def test_a_record_is_what_the_state_was_after_each_epoch():
    params, data = regression()
    record = lambda state: {"step": state.step, "params": state.params}
    trained, history = train(params, data, epochs=3, record=record)
    np.testing.assert_array_equal(history.record["step"], [3, 6, 9])
    jax.tree.map(lambda kept, last: np.testing.assert_array_equal(kept[-1], last), history.record["params"], trained)
    assert history.record["params"][0].weight.shape == (3, 3, 4)
    assert [int(n) for n in (history.diverged_at, history.epochs_run, history.best_epoch)] == [0, 3, 3]


def test_a_second_call_traces_nothing():
    traces = []

    def counted(params, inputs, targets, weights, key):
        traces.append(key)
        return network_loss(params, inputs, targets, weights, key)

    params, data = regression()
    settings = {"optimizer": SGD, "batch_size": 4, "epochs": 2}
    training.train(KEY, counted, params, data, **settings)
    first = len(traces)
    assert first > 0
    training.train(jax.random.key(9), counted, jax.tree.map(jnp.negative, params), data, **settings)
    assert len(traces) == first
    training.train(KEY, counted, params, data, **settings | {"batch_size": 5})
    assert len(traces) > first


def test_runs_under_jit_and_vmap_are_the_runs_of_each_key_and_learning_rate():
    params, data = regression()
    settings = {"batch_size": 4, "epochs": 2}
    run = lambda key, rate: training.train(key, network_loss, params, data, optimizer=optax.sgd(rate, 0.9), **settings)
    keys, rates = jax.random.split(KEY, 2), jnp.array([0.01, 0.3])
    together = jax.jit(jax.vmap(run))(keys, rates)
    for lane, (key, rate) in enumerate(zip(keys, rates.tolist(), strict=True)):
        assert_close(jax.tree.map(lambda leaf, lane=lane: leaf[lane], together), run(key, rate), 1e-4)
    assert not np.array_equal(together[0][0].weight[0], together[0][0].weight[1])


@pytest.mark.usefixtures("x64")
def test_a_run_can_be_differentiated():
    """One full step on least squares is θ − η A (θ − θ*): its derivatives are I − ηA, and −A (θ − θ*) by the rate."""
    data, hessian, minimum = line(np.float64)
    run = lambda theta, rate: descend(theta, data, optax.sgd(rate), 1)[0]
    by_theta, by_rate = jax.jacobian(run, (0, 1))(jnp.ones(2), 0.1)
    np.testing.assert_allclose(by_theta, np.eye(2) - 0.1 * hessian, atol=1e-14)
    np.testing.assert_allclose(by_rate, -hessian @ (1 - minimum), rtol=1e-12)


# --- refusals ---

NUMBERS = jnp.arange(4.0)
VALID = {
    "key": KEY,
    "loss": lambda w, x, y, weights, key: losses.mean((w * x - y) ** 2, weights),
    "params": jnp.zeros(()),
    "data": (NUMBERS, NUMBERS),
    "optimizer": SGD,
    "batch_size": 2,
    "epochs": 1,
}


def loss_of(result):
    return lambda w, x, y, weights, key: result(w, x)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"key": 0}, TypeError, "key: got 0"),
        ({"params": {}}, ValueError, "params: got an empty pytree"),
        ({"params": jnp.zeros((), int)}, TypeError, "params: got"),
        ({"params": jnp.array(jnp.nan)}, ValueError, "params: got 1 numbers that are NaN"),
        ({"data": (NUMBERS, NUMBERS[:3])}, ValueError, r"data: got inputs \(4,\) and targets \(3,\)"),
        ({"data": (jnp.ones(4),)}, TypeError, "data: got .*, expected a pair"),
        ({"batch_size": 5}, ValueError, "batch_size: got 5, expected an integer from 1 to 4, the number of examples"),
        ({"batch_size": 2.5}, TypeError, "batch_size: got 2.5"),
        ({"optimizer": optax.sgd}, TypeError, "optimizer: got a function"),
        ({"loss": loss_of(lambda w, x: w * x)}, TypeError, r"loss: got .*\(2,\)"),
        ({"loss": loss_of(lambda w, x: jnp.argmax(x))}, TypeError, "loss: got .*int32"),
        ({"loss": lambda w, x, y: w}, TypeError, "positional arguments"),
        ({"record": lambda state: "text"}, TypeError, "'str'"),
        ({"record_every": 1}, ValueError, "record_every: got 1 without a record"),
        ({"record_every": 3, "record": lambda state: state.step}, ValueError, "record_every: got 3, .* from 1 to 2"),
        ({"early_stopping": "soon"}, TypeError, "early_stopping: got 'soon'"),
        ({"early_stopping": training.EarlyStopping(lambda w: w, (), 0)}, ValueError, "patience: got 0"),
        ({"early_stopping": training.EarlyStopping(lambda w: w, (), 1, -1.0)}, ValueError, "min_improvement: got -1.0"),
        ({"early_stopping": training.EarlyStopping(lambda w: w[None], (), 1)}, TypeError, r"criterion: got .*\(1,\)"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused(wrong, error, message):
    with pytest.raises(error, match=message):
        training.train(**VALID | wrong)


@pytest.mark.parametrize(("wrong", "batch_size"), [(-1, 1), (3, 4)])
def test_a_class_number_out_of_range_is_refused_before_the_run(wrong, batch_size):
    params, inputs, labels = mlp.init(KEY, (2, 3)), jnp.linspace(-1.0, 1.0, 24).reshape(12, 2), np.arange(12) % 3
    traces = []

    def loss(params, x, y, weights, key):
        traces.append(y)
        return losses.mean(losses.cross_entropy(mlp.forward(params, x), y), weights)

    settings = {"optimizer": SGD, "batch_size": batch_size, "epochs": 1}
    training.train(KEY, loss, params, (inputs, labels), **settings)
    traced = len(traces)
    training.train(jax.random.key(1), loss, params, (-inputs, labels[::-1]), **settings)
    assert len(traces) <= traced + 2  # another row has the lowest label now, but nothing is compiled
    labels[7] = wrong
    with pytest.raises(ValueError, match=r"targets: got class numbers from .*, expected 0 to 2"):
        training.train(KEY, loss, params, (inputs, labels), **settings)


def test_a_criterion_that_is_never_a_number_returns_the_start():
    params, data = regression()
    stopping = training.EarlyStopping(lambda params: params[0].bias[0] * jnp.nan, (), 2)
    trained, history = train(params, data, epochs=3, early_stopping=stopping)
    assert np.all(np.isnan(history.criterion))
    assert int(history.best_epoch) == 0
    jax.tree.map(np.testing.assert_array_equal, trained, params)


# --- early stopping ---


def stopped_by_hand(values, patience, min_improvement):
    """(epochs run, best epoch) of a list of criteria, as one would write it in Python."""
    best, best_epoch, waited = np.inf, 0, 0
    for epoch, value in enumerate(values, 1):
        if value < best - min_improvement:
            best, best_epoch, waited = value, epoch, 0
        else:
            waited += 1
        if waited == patience:
            return epoch, best_epoch
    return len(values), best_epoch


def test_early_stopping_is_the_python_loop():
    """Validation on other targets, so that it gets worse while training goes on."""
    params, data = regression()
    validation = (data[0], data[1] + 0.5 * jnp.sin(7 * data[0][:, :2]))
    common = {"optimizer": optax.sgd(0.4), "batch_size": 3, "epochs": 40}
    _, whole = train(params, data, record=lambda state: state.params, **common)
    values = [float(criterion(jax.tree.map(lambda leaf, e=e: leaf[e], whole.record), *validation)) for e in range(40)]
    for patience, min_improvement in ((1, 0.0), (2, 0.02), (50, 0.0)):
        expected = run, best = stopped_by_hand(values, patience, min_improvement)
        stopping = training.EarlyStopping(criterion, validation, patience, min_improvement)
        trained, history = train(params, data, early_stopping=stopping, **common)
        assert (int(history.epochs_run), int(history.best_epoch)) == expected
        assert_close(trained, jax.tree.map(lambda leaf, best=best: leaf[best - 1], whole.record), 1e-4)
        np.testing.assert_allclose(history.criterion[:run], values[:run], rtol=1e-4)
        np.testing.assert_allclose(history.loss[:run], whole.loss[:run], rtol=1e-4)
        assert np.all(np.isnan(history.loss[run:]) & np.isnan(history.criterion[run:]))
        assert run < 40 or patience == 50


def test_early_stopping_with_other_validation_data_traces_nothing_new():
    traces = []

    def counted(params, inputs, targets):
        traces.append(inputs)
        return criterion(params, inputs, targets)

    params, data = regression()
    seen = []
    for shift in (0.0, 1.0):
        stopping = training.EarlyStopping(counted, (data[0], data[1] + shift), 2)
        train(params, data, epochs=3, early_stopping=stopping)
        seen.append(len(traces))
    assert seen[0] == seen[1] > 0


def test_early_stopping_in_lanes_is_early_stopping_in_each():
    params, data = regression()
    stopping = training.EarlyStopping(criterion, data, 2, 0.01)
    run = lambda rate: train(params, data, optimizer=optax.sgd(rate), epochs=12, early_stopping=stopping)[1].epochs_run
    rates = jnp.array([1e-4, 0.1])
    assert jax.jit(jax.vmap(run))(rates).tolist() == [3, run(0.1)]


# --- records every so many updates ---


def test_records_every_so_many_updates_are_rows_of_the_records_of_every_update():
    params, data = regression()
    record = lambda state: {"step": state.step, "bias": state.params[1].bias}
    every_update, fourth = (
        train(params, data, epochs=5, record=record, record_every=every)[1].record for every in (1, 4)
    )
    np.testing.assert_array_equal(every_update["step"], np.arange(1, 16))
    np.testing.assert_array_equal(fourth["step"], [4, 8, 12])
    np.testing.assert_allclose(fourth["bias"], np.asarray(every_update["bias"])[[3, 7, 11]], rtol=1e-5)


def test_a_record_can_hold_gradient_norm_and_sharpness_and_takes_data_as_arguments():
    """For least squares the sharpness is the largest eigenvalue of A throughout, and the gradient A (θ − θ*)."""
    data, hessian, minimum = line()
    fun = lambda theta, inputs, targets: jnp.mean(0.5 * (inputs @ theta - targets) ** 2)
    traces = []

    def measured(inputs, targets, state):
        traces.append(inputs)
        args = (inputs, targets)
        density = curvature.spectral_density(
            curvature.hessian(fun, state.params, args), state.params, KEY, num_probes=1, num_steps=2
        )
        gradient = jax.grad(fun)(state.params, *args)
        return {"theta": state.params, "gradient": tree.norm(gradient), "sharpness": jnp.max(density.nodes)}

    for _ in range(2):
        record = jax.tree_util.Partial(measured, *(jnp.array(a) for a in data))
        _, history = descend(jnp.zeros(2), data, SGD, 4, record=record, record_every=2)
    assert len(traces) <= 2  # its shape, and the run
    np.testing.assert_allclose(history.record["sharpness"], np.linalg.eigvalsh(hessian)[-1], rtol=1e-5)
    expected = np.linalg.norm((history.record["theta"] - minimum) @ hessian, axis=1)
    np.testing.assert_allclose(history.record["gradient"], expected, rtol=1e-3)


# --- divergence ---


def test_a_planted_divergence_is_reported_at_its_update_and_not_as_nan():
    """θ ← (1 − η) θ on ½θ² overflows float32 at the first t with (η − 1)ᵗ above √(2 · 3.4e38)."""
    data = (jnp.zeros(4), jnp.zeros(4))
    square = lambda theta, inputs, targets, weights, key: 0.5 * theta**2
    rate = 1001.0
    first = next(t for t in range(100) if 0.5 * 1000.0 ** (2 * t) > float(np.finfo(np.float32).max)) + 1
    _, history = training.train(KEY, square, jnp.array(1.0), data, optimizer=optax.sgd(rate), batch_size=2, epochs=6)
    assert int(history.diverged_at) == first
    epoch = (first - 1) // 2
    assert np.all(np.isinf(history.loss[epoch:]))
    assert np.all(np.isfinite(history.loss[:epoch]))
    assert not np.any(np.isnan(history.loss))


def test_parameters_that_are_lost_while_the_loss_is_finite_are_a_divergence():
    bounded = lambda theta, inputs, targets, weights, key: jnp.tanh(theta)
    to_infinity = optax.stateless(lambda updates, params: jnp.full_like(updates, jnp.inf))
    settings = {"optimizer": to_infinity, "batch_size": 2, "epochs": 2}
    _, history = training.train(KEY, bounded, jnp.array(1.0), (jnp.zeros(4), jnp.zeros(4)), **settings)
    assert int(history.diverged_at) == 2


def test_early_stopping_of_a_run_that_diverges_returns_finite_parameters():
    data, _, _ = line()
    stopping = training.EarlyStopping(lambda theta, x, y: jnp.mean((x @ theta - y) ** 2), data, 3)
    trained, history = descend(jnp.zeros(2), data, optax.sgd(1e9), 30, early_stopping=stopping)
    assert np.all(np.isfinite(trained))
    assert 0 < int(history.epochs_run) < 30
    assert int(history.best_epoch) <= 1
