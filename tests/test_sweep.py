"""A sweep is the plain loop of training.train, in whatever programs, micro-batches and blocks it is computed."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlp_jax import datasets, losses, mlp, penalties, sweep, training
from mlp_jax.sweep import grid

KEY = jax.random.key(3)
SIZES = (6, 5, 3)
BATCHES = (4, 7, 10, 25)


def init(key):
    return mlp.init(key, SIZES)


def problem(num_examples=25, dtype=np.float32):
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(num_examples, 6)), dtype)
    return inputs, jnp.asarray(rng.integers(0, 3, num_examples), np.int32)


def loss(params, inputs, targets, weights, key):
    values = losses.cross_entropy(mlp.forward(params, inputs), targets)
    return losses.mean(values, weights) + penalties.l2(params, 0.01)


def single(seed, data, *, optimizer, loss=loss, **settings):
    """The run that `sweep.run` documents."""
    init_key, run_key = jax.random.split(jax.random.fold_in(KEY, seed))
    return training.train(run_key, loss, init(init_key), data, optimizer=optimizer, **settings)


def run(data, batch_sizes, *, loss=loss, rates=(0.1,), seeds=1, **settings):
    return sweep.run(KEY, loss, init, data, batch_sizes=batch_sizes, learning_rates=rates, seeds=seeds, **settings)


def assert_same(many, one, lane, tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[lane], b, rtol=tolerance, atol=tolerance * np.max(np.abs(b))),
        many,
        one,
    )


# --- the plain loop ---


@pytest.mark.parametrize("programs", ["one", "per batch size"])
@pytest.mark.usefixtures("x64")
def test_a_sweep_is_the_loop_of_runs_to_1e_10_over_fifty_updates(programs):
    data, rates = problem(dtype=np.float64), (0.05, 0.2)
    result = run(data, (10,), rates=rates, seeds=2, epochs=17, programs=programs, micro_batch=3)
    assert result.updates[0, -1] >= 50
    for i, rate in enumerate(rates):
        for seed in range(2):
            params, history = single(seed, data, optimizer=optax.sgd(rate), batch_size=10, epochs=17)
            assert_same(result.params, params, (0, i, seed), 1e-10)
            assert_same(result.loss, history.loss, (0, i, seed), 1e-10)


@pytest.mark.usefixtures("x64")
def test_one_program_serves_every_batch_size():
    data = problem(dtype=np.float64)
    result = run(data, BATCHES, seeds=2, epochs=5)
    for i, batch_size in enumerate(BATCHES):
        params, history = single(1, data, optimizer=optax.sgd(0.1), batch_size=batch_size, epochs=5)
        assert_same(result.params, params, (i, 0, 1), 1e-10)
        assert_same(result.loss, history.loss, (i, 0, 1), 1e-10)


@pytest.mark.usefixtures("x64")
def test_micro_batches_of_any_size_are_the_large_batch():
    fine, coarse = (run(problem(dtype=np.float64), (25, 10), epochs=3, micro_batch=rows) for rows in (4, 25))
    assert_same(fine.params, coarse.params, ..., 1e-12)


@pytest.mark.implicit_promotion  # optax's bias correction
@pytest.mark.usefixtures("x64")
def test_settings_of_optimizer_and_loss_are_axes():
    def decayed(params, inputs, targets, weights, key, decay):
        values = losses.cross_entropy(mlp.forward(params, inputs), targets)
        return losses.mean(values, weights) + penalties.l2(params, decay)

    data = problem(dtype=np.float64)
    momenta, decays = (0.0, 0.9), (0.0, 0.1, 0.3)
    axes = {"settings": {"momentum": momenta}, "loss_settings": {"decay": decays}}
    result = run(data, (5,), loss=decayed, rates=(0.05, 0.1), epochs=2, **axes)
    assert result.axes == ("batch_size", "learning_rate", "momentum", "decay", "seed")
    assert result.loss.shape == (1, 2, 2, 3, 1, 2)
    one = lambda p, x, y, w, k: decayed(p, x, y, w, k, decay=0.3)
    params, _ = single(0, data, loss=one, optimizer=optax.sgd(0.1, momentum=0.9), batch_size=5, epochs=2)
    assert_same(result.params, params, (0, 1, 1, 2, 0), 1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_lanes_in_blocks_are_the_lanes_together():
    data = problem(dtype=np.float64)
    whole, blocks = (
        run(data, (5, 25), rates=(0.05, 0.1, 0.2), seeds=3, epochs=2, lanes_at_once=number) for number in (None, 2)
    )
    np.testing.assert_allclose(blocks.loss, whole.loss, rtol=1e-12)
    assert_same(blocks.params, whole.params, ..., 1e-12)


def lengths(num_settings, num_seeds):
    return grid.as_grid(9, (3,), np.arange(1.0, 1.0 + num_settings), {}, {}, num_seeds)


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


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.polyak_sgd,  # divides the loss of the batch by its squared gradient
        lambda rate: optax.chain(optax.sgd(rate), optax.scale_by_zoom_linesearch(max_linesearch_steps=5)),
        lambda rate: optax.contrib.sam(optax.sgd(rate), optax.sgd(0.1), opaque_mode=True),
    ],
)
@pytest.mark.usefixtures("x64")
def test_an_optimizer_that_asks_for_losses_or_gradients_is_given_those_of_the_whole_batch(optimizer):
    data = problem(dtype=np.float64)
    result = run(data, (10,), rates=(0.5,), epochs=2, micro_batch=4, optimizer=optimizer)
    params, _ = single(0, data, optimizer=optimizer(0.5), batch_size=10, epochs=2)
    assert_same(result.params, params, (0, 0, 0), 1e-8)


@pytest.mark.slow
def test_chosen_seeds_are_the_rows_of_more_of_them():
    many, chosen = (run(problem(), (5,), seeds=seeds, epochs=2) for seeds in (4, (3, 1)))
    np.testing.assert_allclose(chosen.loss[:, :, 0], many.loss[:, :, 3], rtol=1e-5)
    np.testing.assert_allclose(chosen.loss[:, :, 1], many.loss[:, :, 1], rtol=1e-5)


# --- records and budgets ---


def test_records_are_evenly_spaced_and_know_their_updates_and_examples():
    result = run(problem(), (4, 25), updates=9, records=3, record=lambda state: state.step)
    np.testing.assert_array_equal(result.updates, [[3, 6, 9]] * 2)
    np.testing.assert_array_equal(result.record[:, 0, 0], result.updates)
    # 25 examples in batches of 4 are 7 updates, the last with one example.
    np.testing.assert_array_equal(result.examples, [[12, 24, 25 + 8], [75, 150, 225]])


def test_by_epochs_there_is_a_record_after_each_on_the_train_part_of_a_dataset():
    inputs, targets = problem()
    data = datasets.Dataset(datasets.Examples(inputs[:20], targets[:20]), datasets.Examples(inputs, targets))
    result = run(data, (4, 7, 20), epochs=3, record=lambda state: {"step": state.step})
    np.testing.assert_array_equal(result.examples, [[20, 40, 60]] * 3)
    np.testing.assert_array_equal(result.record["step"][:, 0, 0], result.updates)


# --- divergence ---


def square(params, x, y, w, key):
    return losses.mean(0.5 * jnp.sum((x @ params[0].weight) ** 2, -1), w)


def start(key):
    return mlp.init(key, (6, 3))


def test_lanes_that_diverge_are_marked_and_the_others_are_not():
    result = sweep.run(
        KEY, square, start, problem(), batch_sizes=(5, 25), learning_rates=(0.01, 1e4), seeds=2, epochs=40,
        record=lambda state: {"size": jnp.sum(state.params[0].weight ** 2)},
    )  # fmt: skip
    assert np.all(result.diverged_at[:, 0] == 0)
    assert np.all(result.diverged_at[:, 1] > 0)
    assert np.all(np.isfinite(result.loss[:, 0]))
    assert not np.any(np.isnan(result.loss))
    table = result.table()
    assert " ".join(table.columns) == "batch_size learning_rate seed updates diverged diverged_at loss size"
    assert len(table) == 8
    assert (table.diverged == (table.learning_rate == 1e4)).all()
    assert np.all(np.isinf(table.loss[table.diverged]))
    assert table["size"].isna().equals(table.diverged)
    lane = table[(table.batch_size == 25) & (table.learning_rate == 0.01) & (table.seed == 1)]
    assert float(lane.loss.iloc[0]) == float(result.loss[1, 0, 1, -1])
    assert int(lane.updates.iloc[0]) == 40


def test_the_update_of_a_divergence_is_the_one_that_a_plain_run_reports():
    data = problem()
    result = sweep.run(KEY, square, start, data, batch_sizes=(5,), learning_rates=(1e3,), seeds=1, epochs=20)
    init_key, run_key = jax.random.split(jax.random.fold_in(KEY, 0))
    _, history = training.train(
        run_key, square, start(init_key), data, optimizer=optax.sgd(1e3), batch_size=5, epochs=20
    )
    assert int(result.diverged_at[0, 0, 0]) == int(history.diverged_at) > 0
    np.testing.assert_array_equal(np.isinf(result.loss[0, 0, 0]), np.isinf(history.loss))


# --- once more ---


def test_the_same_key_gives_the_same_bits_and_other_batch_sizes_and_rates_trace_nothing_new():
    traces = []

    def counted(params, inputs, targets, weights, key):
        traces.append(key)
        return loss(params, inputs, targets, weights, key)

    settings = {"rates": (0.1, 0.2), "seeds": 2, "epochs": 2, "micro_batch": 4, "loss": counted}
    first = run(problem(), BATCHES, **settings)
    seen = len(traces)
    again = run(problem(), BATCHES, **settings)
    run(problem(), (3, 8, 11, 25), **settings | {"rates": (0.3, 0.4)})
    assert len(traces) == seen
    chex.assert_trees_all_equal(first.params, again.params)
    np.testing.assert_array_equal(first.loss, again.loss)


@pytest.mark.slow
def test_a_loss_with_dropout_has_its_own_mask_in_every_micro_batch():
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


def test_each_batch_size_can_have_its_own_rates_and_number_of_updates():
    data = problem()
    rates, updates = {4: (0.1, 0.2), 25: (0.3, 0.4)}, {4: 6, 25: 3}
    result = run(data, (4, 25), rates=rates, updates=updates, records=3, record=lambda state: state.step)
    for i, (batch_size, rate, updates) in enumerate([(4, 0.2, 6), (25, 0.4, 3)]):
        alone = run(data, (batch_size,), rates=(rate,), updates=updates, records=3)
        np.testing.assert_allclose(result.loss[i, 1], alone.loss[0, 0], rtol=1e-5)
    np.testing.assert_array_equal(result.record[:, 0, 0], [[2, 4, 6], [1, 2, 3]])
    table = result.table()
    assert table.learning_rate.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert table.updates.tolist() == [6, 6, 3, 3]


def test_progress_counts_calls():
    seen = []
    run(problem(), BATCHES, seeds=2, epochs=1, lanes_at_once=1, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(i, 8) for i in range(1, 9)]


VALID = {"loss": loss, "init": init, "batch_sizes": (5,), "learning_rates": (0.1,), "seeds": 1, "epochs": 1}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"batch_sizes": ()}, ValueError, "batch_sizes: got none"),
        ({"batch_sizes": (26,)}, ValueError, "batch_sizes: got 26, expected an integer from 1 to 25"),
        ({"learning_rates": ()}, ValueError, "learning_rates: got none"),
        ({"learning_rates": (np.inf,)}, ValueError, "learning_rates: got 1 numbers that are NaN or infinite"),
        ({"learning_rates": {4: (0.1,)}}, ValueError, r"learning_rates: got none for the batch sizes \[5\]"),
        ({"learning_rates": "0.1"}, TypeError, "learning_rates: got"),
        ({"settings": {"momentum": (np.inf,)}}, ValueError, "momentum: got 1 numbers that are NaN or infinite"),
        ({"settings": {"nothing": (1.0,)}}, TypeError, "'nothing'"),
        ({"settings": {"seed": (1.0,)}}, ValueError, "settings: got the names .*'seed'"),
        ({"seeds": 0}, ValueError, "seeds: got 0"),
        ({"seeds": (-1,)}, ValueError, "seeds: got -1"),
        ({"updates": 5}, ValueError, "epochs, updates: got 1 and 5"),
        ({"epochs": None}, ValueError, "epochs, updates: got None and None"),
        ({"epochs": 1.5}, TypeError, "epochs: got 1.5"),
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
    ],
)
def test_an_argument_that_does_not_fit_is_refused(wrong, error, message):
    with pytest.raises(error, match=message):
        sweep.run(KEY, data=problem(), **VALID | wrong)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_class_number_out_of_range_is_refused_before_the_runs(wrong):
    inputs, labels = problem()
    with pytest.raises(ValueError, match=r"targets: got class numbers from .*, expected 0 to 2"):
        run((inputs, labels.at[19].set(wrong)), (4, 8), epochs=1)


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_keys_that_draw_other_numbers_under_vmap_are_refused(implementation):
    key = jax.random.key(0, impl=implementation)
    keys = jax.random.split(key, 2)
    draws = jax.vmap(lambda k: jax.random.normal(k, (3,)))(keys)
    assert not np.allclose(draws[1], jax.random.normal(keys[1], (3,)))  # why
    with pytest.raises(ValueError, match=f"key: got one of {implementation}, which draws other numbers under vmap"):
        sweep.run(key, data=problem(), **VALID)
