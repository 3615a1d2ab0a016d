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
order_of = jax.jit(training.order, static_argnums=2)


# An optimizer that changes nothing and keeps the gradient as its state.
KEEP = optax.GradientTransformation(
    lambda params: jnp.zeros_like(params), lambda gradient, state, params=None: (jnp.zeros_like(gradient), gradient)
)


def gradients_seen(key, loss, params, data, *, batch_size):
    """(updates of two epochs, ...) the gradient of every update of a run that changes nothing."""
    settings = {"optimizer": KEEP, "record": lambda state: state.optimizer_state, "record_every": 1}
    return training.train(key, loss, params, data, batch_size=batch_size, epochs=2, **settings)[1].record


def mean_of_chosen(theta, numbers, targets, weights, key):
    """Mean of the parameters whose numbers are in the batch: its gradient shows which examples the batch holds."""
    return losses.mean(theta[numbers], weights)


def regression(num_examples=11, dtype=np.float32):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(num_examples, 3)), rng.normal(size=(num_examples, 2))
    draw = lambda *shape: jnp.asarray(0.5 * rng.normal(size=shape), dtype)
    params = (mlp.Layer(draw(3, 4), draw(4)), mlp.Layer(draw(4, 2), draw(2)))
    return params, (jnp.asarray(inputs, dtype), jnp.asarray(targets, dtype))


def validation_loss(params, inputs, targets, weights=None):
    return losses.mean(losses.squared_error(mlp.forward(params, inputs), targets), weights)


network_loss = lambda params, inputs, targets, weights, key: validation_loss(params, inputs, targets, weights)
value_and_grad = jax.jit(jax.value_and_grad(network_loss))


def descend(theta, data, optimizer, epochs, **settings):
    """A run on least squares in full batches."""
    return training.train(
        KEY, line_loss, theta, data, optimizer=optimizer, batch_size=8, epochs=epochs, **settings
    )  # fmt: skip


def assert_close(a, b, rtol, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


line_loss = lambda theta, inputs, targets, weights, key: losses.mean(0.5 * (inputs @ theta - targets) ** 2, weights)


def line(dtype=np.float32):
    """Least squares with the Hessian A = XᵀX/n and the minimum θ*, for gradients A (θ − θ*)."""
    rng = np.random.default_rng(1)
    inputs, minimum = rng.normal(size=(8, 2)), np.array([1.0, -2.0])
    data = (jnp.asarray(inputs, dtype), jnp.asarray(inputs @ minimum, dtype))
    return data, inputs.T @ inputs / 8, minimum


def test_an_epoch_is_its_order_cut_into_batches_and_a_batch_is_the_mean_of_its_examples():
    numbers, keys = jnp.arange(7), jax.random.split(KEY)
    run = jax.jit(lambda key: gradients_seen(key, mean_of_chosen, jnp.ones(7), (numbers, numbers), batch_size=3))
    orders = [order_of(key, epoch, 7).tolist() for key in keys for epoch in range(2)]
    assert len(set(map(tuple, orders))) == 4
    batches = [order[first : first + 3] for order in orders for first in (0, 3, 6)]
    shares = [np.isin(numbers, held) / len(held) for held in batches]
    np.testing.assert_allclose(np.concatenate([run(key) for key in keys]), shares, rtol=1e-6)


def test_every_order_of_four_examples_is_equally_likely():
    epochs = 6_000
    orders = jax.jit(jax.vmap(lambda epoch: training.order(KEY, epoch, 4)))(jnp.arange(epochs))
    assert orders.dtype == jnp.int32
    counts = collections.Counter(map(tuple, orders.tolist()))
    assert set(counts) == set(itertools.permutations(range(4)))
    chi_squared = sum((count - epochs / 24) ** 2 / (epochs / 24) for count in counts.values())
    assert 8 < chi_squared < 50  # 23 degrees of freedom: between the quantiles .1 % and 99.9 %


def test_an_order_holds_every_example_once_and_does_not_depend_on_the_default_precision():
    assert training.order(KEY, 3, 1).tolist() == [0]
    low = order_of(KEY, 3, 4097)
    with jax.enable_x64(True):
        high = order_of(KEY, 3, 4097)
    np.testing.assert_array_equal(np.sort(low), np.arange(4097))
    np.testing.assert_array_equal(low, high)


@pytest.mark.slow
@pytest.mark.implicit_promotion  # optax's bias correction
@pytest.mark.parametrize(
    ("optimizer", "dtype", "record_every"),
    [
        (optax.sgd(0.1, momentum=0.9), np.float32, 4),
        (optax.adam(optax.linear_schedule(0.1, 0.0, 10)), np.float64, None),
    ],
)
@pytest.mark.usefixtures("x64")
def test_a_run_and_its_records_are_those_of_a_python_loop_over_its_order(optimizer, dtype, record_every):
    start, (inputs, targets) = regression(dtype=dtype)
    params, state, expected, path = start, jax.jit(optimizer.init)(start), [], []

    @jax.jit
    def update(gradient, state, params):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for epoch in range(3):
        order, total = order_of(KEY, epoch, 11).tolist(), 0.0
        for first in (0, 4, 8):
            held = order[first : first + 4]
            weights = np.isin(np.arange(11), held).astype(dtype)
            value, gradient = value_and_grad(params, inputs, targets, weights, None)
            params, state = update(gradient, state, params)
            path.append(params)
            total += float(value) * len(held)
        expected.append(total / 11)

    record = lambda state: {"step": state.step, "params": state.params}
    settings = {"optimizer": optimizer, "batch_size": 4, "epochs": 3, "record": record, "record_every": record_every}
    trained, history = training.train(KEY, network_loss, start, (inputs, targets), **settings)
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    assert_close(trained, params, tolerance, tolerance)
    np.testing.assert_allclose(history.loss, expected, rtol=tolerance)
    assert {leaf.dtype for leaf in jax.tree.leaves((trained, history.loss))} == {jnp.dtype(dtype)}
    np.testing.assert_array_equal(history.record["step"], [4, 8] if record_every else [3, 6, 9])
    at_records = jax.tree.map(lambda *leaves: np.stack(leaves), *(path[step - 1] for step in history.record["step"]))
    assert_close(history.record["params"], at_records, tolerance, tolerance)
    assert [int(n) for n in (history.diverged_at, history.epochs_run, history.best_epoch)] == [0, 3, 3]


@pytest.mark.usefixtures("x64")
def test_descent_on_least_squares_multiplies_the_error_by_a_known_matrix_and_can_be_differentiated():
    """θ_t − θ* = Mᵗ (θ_0 − θ*) with M = I − ηA: the derivatives are Mᵗ, and −t A Mᵗ⁻¹ (θ_0 − θ*) by the rate."""
    data, hessian, minimum = line(np.float64)
    power = lambda steps: np.linalg.matrix_power(np.eye(2) - 0.3 * hessian, steps)

    def run(theta, rate):
        trained, _ = descend(theta, data, optax.sgd(rate), 5)
        return trained, trained

    (by_theta, by_rate), trained = jax.jacobian(run, (0, 1), has_aux=True)(jnp.ones(2), 0.3)
    np.testing.assert_allclose(trained, minimum + power(5) @ (1 - minimum), rtol=1e-12)
    np.testing.assert_allclose(by_theta, power(5), atol=1e-14)
    np.testing.assert_allclose(by_rate, -5 * hessian @ power(4) @ (1 - minimum), rtol=1e-12)


ASCENT = optax.chain(optax.contrib.normalize(), optax.sgd(0.3))
# An optimizer, and its step from the error e = θ − θ* and the gradient g = A e.
STEPS = {
    # L g / ‖g‖² when the minimum of L is 0 (Polyak 1964)
    "polyak": (optax.polyak_sgd(100.0), lambda e, g, hessian: 0.5 * e @ g / (g @ g) * g),
    # η g(θ + ρ g(θ) / ‖g(θ)‖) (Foret et al. 2021)
    "sharpness-aware": (
        optax.contrib.sam(optax.sgd(0.05), ASCENT, opaque_mode=True),
        lambda e, g, hessian: 0.05 * hessian @ (e + 0.3 * g / np.linalg.norm(g)),
    ),
}


@pytest.mark.implicit_promotion
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("optimizer", "step"), STEPS.values(), ids=STEPS)
def test_an_optimizer_is_given_the_loss_of_the_batch_and_its_gradient_at_other_points(optimizer, step):
    data, hessian, minimum = line(np.float64)
    trained, _ = descend(jnp.full(2, 3.0), data, optimizer, 6)
    error = 3 - minimum
    for _ in range(6):
        error = error - step(error, hessian @ error, hessian)
    np.testing.assert_allclose(trained, minimum + error, rtol=1e-10)


def test_an_optimizer_that_needs_something_else_says_what():
    optimizer = optax.GradientTransformationExtraArgs(SGD.init, lambda u, s, p, *, hessian: (u, s))
    with pytest.raises(TypeError, match="'hessian'"):
        descend(jnp.zeros(2), line()[0], optimizer, 1)


@pytest.mark.usefixtures("x64")
def test_a_line_search_is_given_the_loss_itself_and_shortens_a_step_that_would_diverge():
    data, hessian, minimum = line(np.float64)
    assert 2 / np.linalg.eigvalsh(hessian)[-1] < 50  # plain descent diverges
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=20)
    trained, searched = descend(jnp.zeros(2), data, optax.chain(optax.sgd(50.0), search), 60)
    # Least squares without noise: the loss falls by a fixed share an update, down to its rounding.
    assert np.all(np.diff(searched.loss[:20]) < 0)
    np.testing.assert_allclose(trained, minimum, atol=1e-4)


def test_every_update_and_every_run_has_its_own_key_for_the_loss():
    """The gradient of θ · u is the uniform number u that the loss drew."""

    def noisy(theta, inputs, targets, weights, key):
        return theta[0] * jax.random.uniform(key)

    data = (jnp.zeros(6), jnp.zeros(6))
    run = jax.jit(lambda key: gradients_seen(key, noisy, jnp.ones(1), data, batch_size=2))
    assert len(np.unique([run(key) for key in jax.random.split(KEY)])) == 2 * 2 * 3


def test_a_second_call_traces_nothing():
    traces = []

    def counted(theta, inputs, targets, weights, key):
        traces.append(key)
        return line_loss(theta, inputs, targets, weights, key)

    def run(seed, theta, batch_size):
        key = jax.random.key(seed)
        training.train(key, counted, theta, line()[0], optimizer=SGD, batch_size=batch_size, epochs=2)
        return len(traces)

    first = run(0, jnp.zeros(2), 3)
    assert 0 < first == run(1, jnp.ones(2), 3) < run(0, jnp.zeros(2), 5)


@pytest.mark.slow
def test_runs_under_vmap_with_early_stopping_are_the_runs_of_each_key_and_learning_rate():
    params, data = regression()
    stopping = training.EarlyStopping(validation_loss, data, 2, 0.01)
    settings = {"batch_size": 4, "epochs": 12, "early_stopping": stopping}
    run = lambda key, rate: training.train(key, network_loss, params, data, optimizer=optax.sgd(rate, 0.9), **settings)
    keys, rates = jax.random.split(KEY, 2), jnp.array([1e-4, 0.1])
    together, alone = jax.jit(jax.vmap(run))(keys, rates), jax.jit(run)
    for lane in range(2):
        one = alone(keys[lane], rates[lane])
        assert_close(jax.tree.map(lambda leaf, lane=lane: leaf[lane], together), one, 1e-4)
    assert together[1].epochs_run[0] == 3 < together[1].epochs_run[1]


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


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"data": (NUMBERS, NUMBERS[:3])}, ValueError, r"data: got inputs \(4,\) and targets \(3,\)"),
        ({"batch_size": 5}, ValueError, "batch_size: got 5, expected an integer from 1 to 4, the number of examples"),
        ({"optimizer": optax.sgd}, TypeError, "optimizer: got a function"),
        ({"loss": lambda w, x, *rest: w * x}, TypeError, r"loss: got .*\(2,\)"),
        ({"loss": lambda w, x, *rest: jnp.argmax(x)}, TypeError, "loss: got .*int32"),
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


def test_a_class_number_out_of_range_is_refused_before_the_run():
    params, inputs, labels = mlp.init(KEY, (2, 3)), jnp.linspace(-1.0, 1.0, 24).reshape(12, 2), np.arange(12) % 3
    traces = []

    def loss(params, x, y, weights, key):
        traces.append(y)
        return losses.mean(losses.cross_entropy(mlp.forward(params, x), y), weights)

    def run(data, batch_size=4):
        training.train(KEY, loss, params, data, optimizer=SGD, batch_size=batch_size, epochs=1)
        return len(traces)

    # Another row has the lowest label, but nothing is compiled.
    assert run((inputs, labels)) + 2 >= run((-inputs, labels[::-1]))
    for wrong, batch_size in ((-1, 1), (3, 4)):
        labels[7] = wrong
        with pytest.raises(ValueError, match=r"targets: got class numbers from .*, expected 0 to 2"):
            run((inputs, labels), batch_size)


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


@pytest.mark.slow
def test_early_stopping_is_the_python_loop_and_traces_once_for_all_validation_data():
    """The validation loss on other targets increases during training."""
    params, data = regression()
    other = (data[0], data[1] + 0.5 * jnp.sin(7 * data[0][:, :2]))
    nothing = (data[0], jnp.full_like(data[1], jnp.nan))
    common = {"optimizer": optax.sgd(0.2), "batch_size": 3, "epochs": 12}
    _, whole = training.train(KEY, network_loss, params, data, record=lambda state: state.params, **common)
    traces = []

    def criterion(params, inputs, targets):
        traces.append(inputs)
        return validation_loss(params, inputs, targets)

    def run(validation, min_improvement, data=data):
        stopping = training.EarlyStopping(criterion, validation, 2, min_improvement)
        return training.train(KEY, network_loss, params, data, early_stopping=stopping, **common)

    run(other, 0.0)
    traced, epochs = len(traces), []
    for validation, min_improvement in ((other, 0.0), (other, 0.02), (data, 0.0), (nothing, 0.0)):
        values = np.asarray(jax.vmap(validation_loss, (0, None, None))(whole.record, *validation))
        stopped, best = stopped_by_hand(values, 2, min_improvement)
        trained, history = run(validation, min_improvement)
        assert (int(history.epochs_run), int(history.best_epoch)) == (stopped, best)
        expected = jax.tree.map(lambda leaf, best=best: leaf[best - 1], whole.record) if best else params
        assert_close(trained, expected, 1e-4)
        np.testing.assert_allclose(history.criterion[:stopped], values[:stopped], rtol=1e-4)
        np.testing.assert_allclose(history.loss[:stopped], whole.loss[:stopped], rtol=1e-4)
        assert np.all(np.isnan(history.loss[stopped:]) & np.isnan(history.criterion[stopped:]))
        epochs.append((stopped, best))
    assert len(set(epochs)) == 4
    assert max(epochs)[0] == 12
    # A run that diverges at once returns the start.
    trained, history = run(other, 0.0, (data[0], 1e30 * data[1]))
    jax.tree.map(np.testing.assert_array_equal, trained, params)
    assert (int(history.diverged_at), int(history.epochs_run), int(history.best_epoch)) == (1, 2, 0)
    assert 0 < traced == len(traces)


def test_a_planted_divergence_is_reported_at_its_update_and_not_as_nan():
    """θ ← (1 − η) θ on ½θ² overflows float32 at the first t with (η − 1)ᵗ above √(2 · 3.4e38)."""
    data = (jnp.zeros(4), jnp.zeros(4))
    square = lambda theta, inputs, targets, weights, key: 0.5 * theta**2
    rate = 1001.0
    first = next(t for t in range(100) if 0.5 * 1000.0 ** (2 * t) > float(np.finfo(np.float32).max)) + 1
    _, history = training.train(KEY, square, jnp.array(1.0), data, optimizer=optax.sgd(rate), batch_size=2, epochs=6)
    assert int(history.diverged_at) == first
    assert np.isposinf(history.loss).tolist() == [epoch >= (first - 1) // 2 for epoch in range(6)]
    assert not np.any(np.isnan(history.loss))


def test_parameters_that_are_lost_while_the_loss_is_finite_are_a_divergence():
    bounded = lambda theta, inputs, targets, weights, key: jnp.tanh(theta)
    to_infinity = optax.stateless(lambda updates, params: jnp.full_like(updates, jnp.inf))
    settings = {"optimizer": to_infinity, "batch_size": 2, "epochs": 2}
    _, history = training.train(KEY, bounded, jnp.array(1.0), (jnp.zeros(4), jnp.zeros(4)), **settings)
    assert int(history.diverged_at) == 2
