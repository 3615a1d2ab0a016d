"""A sweep is the plain loop over its batches, with any programs, micro-batches and blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlp_jax import datasets, losses, mlp, penalties, sweep, training
from mlp_jax.sweep import grid

KEY = jax.random.key(3)
EPOCHS = 3
rng = np.random.default_rng(0)
INPUTS, TARGETS = rng.normal(size=(25, 6)), rng.integers(0, 3, 25).astype(np.int32)
TRACES = []
order = jax.jit(training.order, static_argnums=2)


init = lambda key: mlp.init(key, (6, 5, 3))
problem = lambda dtype=np.float64: (jnp.asarray(INPUTS, dtype), jnp.asarray(TARGETS))


def loss(params, inputs, targets, weights, key, decay=0.01):
    TRACES.append(key)
    values = losses.cross_entropy(mlp.forward(params, inputs), targets)
    return losses.mean(values, weights) + penalties.l2(params, decay)


def run(data, batch_sizes, *, rates, seeds=1, **settings):
    return sweep.run(KEY, loss, init, data, batch_sizes=batch_sizes, learning_rates=rates, seeds=seeds, **settings)


@functools.partial(jax.jit, static_argnums=0)
def begin(optimizer, key, settings):
    params = init(key)
    return params, optimizer(*settings).init(params)


@functools.partial(jax.jit, static_argnums=0)
def update(optimizer, params, state, weights, settings, decay):
    value_fn = lambda p: loss(p, INPUTS, TARGETS, weights, None, decay)
    value, gradient = jax.value_and_grad(value_fn)(params)
    change = optax.with_extra_args_support(optimizer(*settings)).update
    updates, state = change(gradient, state, params, value=value, grad=gradient, value_fn=value_fn)
    return optax.apply_updates(params, updates), state, value


def loop(seed, batch_size, *settings, optimizer=optax.sgd, epochs=EPOCHS, decay=0.01):
    """(params, mean losses of the epochs, update that diverged) of the documented run, as a Python loop."""
    init_key, run_key = jax.random.split(jax.random.fold_in(KEY, seed))
    params, state = begin(optimizer, init_key, settings)
    history, updates, diverged_at = [], 0, 0
    for epoch in range(epochs):
        visited, total = np.asarray(order(run_key, epoch, 25)), 0.0
        for first in range(0, 25, batch_size):
            held = visited[first : first + batch_size]
            weights = np.isin(np.arange(25), held).astype(float)
            params, state, value = update(optimizer, params, state, weights, settings, decay)
            total += float(value) * len(held)
            updates += 1
            diverged_at = diverged_at or (0 if np.isfinite(value) else updates)
        history.append(np.inf if diverged_at else total / 25)
    assert diverged_at or all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
    return params, history, diverged_at


def assert_lane(result, lane, expected, tolerance=1e-10):
    params, history, diverged_at = expected
    assert diverged_at == result.diverged_at[lane] == 0
    assert_close(jax.tree.map(lambda a: a[lane], result.params), params, tolerance)
    np.testing.assert_allclose(result.loss[lane], history, rtol=tolerance)


def assert_close(a, b, tolerance):
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.max(np.abs(b)))
    jax.tree.map(close, a, b)


BATCHES, RATES, MOMENTA, DECAYS = (4, 7, 10, 25), (0.05, 0.2), (0.0, 0.9), (0.01, 0.1)
step_of = lambda state: {"step": state.step}


def grid_run(seeds=2, batch_sizes=BATCHES, rates=RATES, **settings):
    """A run of the whole grid, on the training part of a data set, in micro-batches of 4."""
    inputs, targets = problem()
    data = datasets.Dataset(datasets.Examples(inputs, targets), datasets.Examples(inputs[:3], targets[:3]))
    axes = {"settings": {"momentum": MOMENTA}, "loss_settings": {"decay": DECAYS}, "record": step_of}
    settings = axes | {"micro_batch": 4} | settings
    return run(data, batch_sizes, rates=rates, seeds=seeds, epochs=EPOCHS, **settings)


@pytest.fixture(scope="module")
def whole():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        return grid_run()


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_one_program_serves_every_batch_size_and_setting_and_each_lane_is_its_loop_with_a_record_an_epoch(whole):
    assert whole.axes == ("batch_size", "learning_rate", "momentum", "decay", "seed")
    assert whole.loss.shape == (4, 2, 2, 2, 2, EPOCHS)
    for lane in ((0, 0, 0, 0, 0), (0, 1, 1, 1, 1), (1, 1, 0, 1, 0), (2, 0, 1, 0, 1), (3, 1, 1, 0, 0)):
        size, rate, momentum, decay, seed = lane
        assert_lane(whole, lane, loop(seed, BATCHES[size], RATES[rate], MOMENTA[momentum], decay=DECAYS[decay]))
    np.testing.assert_array_equal(whole.examples, [[25, 50, 75]] * 4)
    np.testing.assert_array_equal(whole.updates, [[7, 14, 21], [4, 8, 12], [3, 6, 9], [1, 2, 3]])
    np.testing.assert_array_equal(whole.record["step"][:, 0, 1, 0, 1], whole.updates)


@pytest.mark.usefixtures("x64")
def test_the_same_key_gives_the_same_bits_and_traces_nothing_new(whole):
    before = len(TRACES)
    again = grid_run()
    assert len(TRACES) == before
    jax.tree.map(np.testing.assert_array_equal, (again.params, again.loss), (whole.params, whole.loss))


@pytest.mark.usefixtures("x64")
def test_other_sizes_rates_and_seeds_trace_nothing_new_and_lanes_that_diverge_are_marked_as_by_the_loop(whole):
    """With a rate of 1e20 an update multiplies the parameters by 1e14 or 1e20: small batches overflow."""
    before, sizes, rates, decays = len(TRACES), (3, 8, 11, 25), (0.3, 1e20), (1e-6, 1.0)
    result = grid_run((3, 1), sizes, rates, loss_settings={"decay": decays})
    assert len(TRACES) == before
    assert_lane(result, (2, 0, 1, 1, 0), loop(3, 11, 0.3, 0.9, decay=1.0))
    assert np.all(result.diverged_at[:, 0] == 0)
    for size, momentum, decay in np.ndindex(4, 2, 2):
        _, losses, diverged_at = loop(1, sizes[size], 1e20, MOMENTA[momentum], decay=decays[decay])
        assert result.diverged_at[size, 1, momentum, decay, 1] == diverged_at
        np.testing.assert_allclose(result.loss[size, 1, momentum, decay, 1], losses, rtol=1e-8)
    assert len(np.unique(result.diverged_at)) > 2
    assert not np.all(result.diverged_at[:, 1])

    table = result.table()
    assert [*table] == [*result.axes, "updates", "diverged", "diverged_at", "loss", "step"]
    assert len(table) == 64
    assert table.diverged.tolist() == (result.diverged_at.ravel() > 0).tolist()
    assert np.all(np.isinf(table.loss[table.diverged]))
    assert table["step"].isna().equals(table.diverged)
    lane = table.set_index(list(result.axes)).loc[25, 0.3, 0.0, 1.0, 1]
    assert (lane.loss, lane.updates) == (result.loss[3, 0, 0, 1, 1, -1], 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"micro_batch": 25}, {"programs": "per batch size", "batch_sizes": (25,)}, {"lanes_at_once": 6}]
)
@pytest.mark.usefixtures("x64")
def test_micro_batches_programs_and_blocks_change_nothing_but_rounding_and_progress_counts_the_blocks(whole, settings):
    seen = []
    result = grid_run(progress=lambda done, of: seen.append((done, of)), **settings)
    assert seen == [(done + 1, len(seen)) for done in range(len(seen))]
    assert len(seen) == 12 or "lanes_at_once" not in settings
    first = BATCHES.index(result.coordinates["batch_size"][0])
    expected = jax.tree.map(lambda a: a[first:], (whole.params, whole.loss))
    assert_close((result.params, result.loss), expected, 1e-12)


lengths = lambda num_settings, num_seeds: grid.as_grid(9, (3,), np.arange(1.0, 1.0 + num_settings), {}, {}, num_seeds)


@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 99])
@pytest.mark.parametrize("over", [(1, 1), (2, 4), (8, 1), (3, 2)])
def test_blocks_of_one_size_cover_the_lanes_and_hold_no_more_than_asked_for_on_one_device(at_once, over):
    covered, sizes = np.zeros((7, 5), int), set()
    for block in grid.cut_into_blocks(lengths(7, 5), at_once, over):
        part = covered[block.settings, block.seeds]
        part += 1
        sizes.add(part.shape)
        assert np.prod([-(-length // n) for length, n in zip(part.shape, over, strict=True)]) <= at_once
    assert covered.min() == len(sizes) == 1


def test_devices_are_split_so_that_the_fullest_has_the_fewest_lanes():
    numbers = {(3, 3, 8): (2, 4), (3, 5, 8): (1, 8), (1, 8, 8): (1, 8), (8, 1, 8): (8, 1), (3, 2, 6): (3, 2)}
    for (num_settings, num_seeds, number), over in numbers.items():
        assert grid.over_devices(lengths(num_settings, num_seeds), number) == over


def greedy(rate):
    """An optimizer whose step depends on the loss and its gradient at two points."""

    def step(gradient, state, params, *, value, grad, value_fn):
        ahead = jax.tree.map(lambda p, g: p - 0.1 * g, params, grad)
        there, slope = jax.value_and_grad(value_fn)(ahead)
        return jax.tree.map(lambda s, g: -rate * (value * s + there * g), slope, gradient), state

    return optax.GradientTransformationExtraArgs(lambda params: (), step)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_an_optimizer_is_given_losses_and_gradients_of_the_whole_batch():
    result = run(problem(), (10,), rates=(0.5,), epochs=2, micro_batch=4, optimizer=greedy)
    assert_lane(result, (0, 0, 0), loop(0, 10, 0.5, optimizer=greedy, epochs=2), 1e-8)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_each_batch_size_can_have_its_own_rates_and_number_of_updates_and_records_are_evenly_spaced():
    rates, updates = {4: (0.1, 0.2), 25: (0.3, 0.4)}, {4: 9, 25: 3}
    result = run(problem(), (4, 25), rates=rates, updates=updates, records=3, record=step_of)
    np.testing.assert_array_equal(result.updates, [[3, 6, 9], [1, 2, 3]])
    np.testing.assert_array_equal(result.record["step"][:, 0, 0], result.updates)
    # 25 examples in batches of 4 are 7 updates, the last with one example.
    np.testing.assert_array_equal(result.examples, [[12, 24, 25 + 8], [25, 50, 75]])
    assert_lane(result, (1, 1, 0), loop(0, 25, 0.4))
    table = result.table()
    assert table.learning_rate.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert table.updates.tolist() == [9, 9, 3, 3]


@pytest.mark.slow
def test_every_micro_batch_has_its_own_key_for_the_loss():
    """The gradient of θ · u is u, drawn once for each micro-batch; a batch of 20 in 4s has the mean of five."""

    def noisy(theta, inputs, targets, weights, key):
        return theta * jax.random.uniform(key)

    data = (jnp.zeros(20), jnp.zeros(20))
    run = lambda rows: sweep.run(
        KEY, noisy, lambda key: jnp.zeros(()), data, batch_sizes=(20,), learning_rates=(1.0,), seeds=200, epochs=1,
        micro_batch=rows,
    ).params  # fmt: skip
    fine, coarse = run(4), run(20)
    assert len(np.unique(fine)) == 200
    # Variances 1/12 and 1/60: five standard errors of a ratio of variances over 200 draws.
    assert abs(np.var(coarse) / np.var(fine) / 5 - 1) < 5 * np.sqrt(2 * 2 / 199)


VALID = {"loss": loss, "init": init, "batch_sizes": (5,), "learning_rates": (0.1,), "seeds": 1, "epochs": 1}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"batch_sizes": (26,)}, ValueError, "batch_sizes: got 26, expected an integer from 1 to 25"),
        ({"learning_rates": {4: (0.1,)}}, ValueError, r"learning_rates: got none for the batch sizes \[5\]"),
        ({"settings": {"momentum": (np.inf,)}}, ValueError, "momentum: got 1 numbers that are NaN or infinite"),
        ({"settings": {"momentum": []}}, ValueError, "momentum: got none"),
        ({"settings": {"nothing": (1.0,)}}, TypeError, "'nothing'"),
        ({"settings": {"seed": (1.0,)}}, ValueError, "settings: got the names .*'seed'"),
        ({"seeds": (-1,)}, ValueError, "seeds: got -1"),
        ({"updates": 5}, ValueError, "epochs, updates: got 1 and 5"),
        ({"epochs": None}, ValueError, "epochs, updates: got None and None"),
        ({"records": 6}, ValueError, "records: got 6, expected an integer from 1 to 5, the updates"),
        ({"programs": "many"}, ValueError, "programs: got 'many'"),
        ({"micro_batch": 6}, ValueError, "micro_batch: got 6, expected an integer from 1 to 5"),
        ({"lanes_at_once": 0}, ValueError, "lanes_at_once: got 0"),
        ({"loss": lambda p, x, y, w, key: jnp.sum(w)}, ValueError, "a mean with the weights"),
        ({"loss": lambda p, x, y, w, key: w}, TypeError, r"loss: got .*\(16,\)"),
        ({"init": "zeros"}, TypeError, "got zeros"),
        ({"optimizer": optax.sgd(0.1)}, TypeError, "object is not callable"),
        ({"record": lambda state: "text"}, TypeError, "'str'"),
        ({"mesh": 8}, TypeError, "mesh: got 8"),
        ({"key": jax.random.key(0, impl="rbg")}, ValueError, "got one of rbg, which draws other numbers under vmap"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused(wrong, error, message):
    with pytest.raises(error, match=message):
        sweep.run(**{"key": KEY, "data": problem(np.float32)} | VALID | wrong)
