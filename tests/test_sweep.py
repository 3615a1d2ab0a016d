"""A sweep is the plain loop of training.train, in whatever programs, micro-batches and blocks it is computed."""

import re

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


def single(key, seed, data, *, optimizer, loss=loss, **settings):
    """The run that `sweep.run` documents."""
    init_key, run_key = jax.random.split(jax.random.fold_in(key, seed))
    return training.train(run_key, loss, init(init_key), data, optimizer=optimizer, **settings)


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
    epochs = {4: 8, 10: 17}  # 56 and 51 updates
    for batch_size, num_epochs in epochs.items():
        result = sweep.run(
            KEY, loss, init, data, batch_sizes=(batch_size,), learning_rates=rates, seeds=2, epochs=num_epochs,
            programs=programs, micro_batch=min(3, batch_size),
        )  # fmt: skip
        assert result.updates[0, -1] >= 50
        for i, rate in enumerate(rates):
            for seed in range(2):
                params, history = single(
                    KEY, seed, data, optimizer=optax.sgd(rate), batch_size=batch_size, epochs=num_epochs
                )
                assert_same(result.params, params, (0, i, seed), 1e-10)
                assert_same(result.loss, history.loss, (0, i, seed), 1e-10)


@pytest.mark.usefixtures("x64")
def test_one_program_serves_every_batch_size():
    data = problem(dtype=np.float64)
    result = sweep.run(KEY, loss, init, data, batch_sizes=BATCHES, learning_rates=(0.1,), seeds=2, epochs=5)
    for i, batch_size in enumerate(BATCHES):
        params, history = single(KEY, 1, data, optimizer=optax.sgd(0.1), batch_size=batch_size, epochs=5)
        assert_same(result.params, params, (i, 0, 1), 1e-10)
        assert_same(result.loss, history.loss, (i, 0, 1), 1e-10)


@pytest.mark.usefixtures("x64")
def test_micro_batches_of_any_size_are_the_large_batch():
    data = problem(dtype=np.float64)
    run = lambda rows: sweep.run(
        KEY, loss, init, data, batch_sizes=(25, 10), learning_rates=(0.1,), seeds=1, epochs=3, micro_batch=rows
    )
    assert_same(run(4).params, run(25).params, ..., 1e-12)


@pytest.mark.usefixtures("x64")
def test_full_batches_without_shuffles_are_gradient_descent_written_out():
    data = problem(dtype=np.float64)
    result = sweep.run(
        KEY, loss, init, data, batch_sizes=(25,), learning_rates=(0.3,), seeds=1, updates=4, records=1, micro_batch=10
    )
    params = init(jax.random.split(jax.random.fold_in(KEY, 0))[0])
    gradient = jax.jit(jax.grad(lambda p: loss(p, *data, jnp.ones(25), KEY)))
    for _ in range(4):
        params = jax.tree.map(lambda theta, g: theta - 0.3 * g, params, gradient(params))
    assert_same(result.params, params, (0, 0, 0), 1e-11)


@pytest.mark.implicit_promotion  # optax's bias correction
@pytest.mark.usefixtures("x64")
def test_settings_of_optimizer_and_loss_are_axes():
    def decayed(params, inputs, targets, weights, key, decay):
        values = losses.cross_entropy(mlp.forward(params, inputs), targets)
        return losses.mean(values, weights) + penalties.l2(params, decay)

    data = problem(dtype=np.float64)
    momenta, decays = (0.0, 0.9), (0.0, 0.1, 0.3)
    result = sweep.run(
        KEY, decayed, init, data, batch_sizes=(5,), learning_rates=(0.05, 0.1), seeds=1, epochs=2,
        settings={"momentum": momenta}, loss_settings={"decay": decays},
    )  # fmt: skip
    assert result.axes == ("batch_size", "learning_rate", "momentum", "decay", "seed")
    assert result.loss.shape == (1, 2, 2, 3, 1, 2)
    one = lambda p, x, y, w, k: decayed(p, x, y, w, k, decay=0.3)
    params, _ = single(KEY, 0, data, loss=one, optimizer=optax.sgd(0.1, momentum=0.9), batch_size=5, epochs=2)
    assert_same(result.params, params, (0, 1, 1, 2, 0), 1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_lanes_in_blocks_are_the_lanes_together():
    data = problem(dtype=np.float64)
    run = lambda at_once: sweep.run(
        KEY, loss, init, data, batch_sizes=(5, 25), learning_rates=(0.05, 0.1, 0.2), seeds=3, epochs=2,
        lanes_at_once=at_once,
    )  # fmt: skip
    whole, blocks = run(None), run(2)
    np.testing.assert_allclose(blocks.loss, whole.loss, rtol=1e-12)
    assert_same(blocks.params, whole.params, ..., 1e-12)


def test_lanes_are_cut_into_blocks_of_one_size_that_cover_them():
    numbers = grid.as_grid(9, (3,), np.arange(1.0, 6.0), {}, {}, 3)
    for at_once, size in ((1, 1), (2, 2), (3, 3), (7, 6), (15, 15), (99, 15)):
        blocks = list(grid.cut_into_blocks(numbers, at_once))
        covered = np.zeros((5, 3), bool)
        for block in blocks:
            part = covered[block.settings, block.seeds]
            assert part.size == size
            covered[block.settings, block.seeds] = True
        assert covered.all()


@pytest.mark.usefixtures("x64")
def test_an_optimizer_that_asks_for_the_loss_is_given_that_of_the_whole_batch():
    """Polyak's step divides the loss of the batch by its squared gradient."""
    data = problem(dtype=np.float64)
    result = sweep.run(
        KEY, loss, init, data, batch_sizes=(10,), learning_rates=(0.5,), seeds=1, epochs=2, micro_batch=4,
        optimizer=optax.polyak_sgd,
    )  # fmt: skip
    params, _ = single(KEY, 0, data, optimizer=optax.polyak_sgd(0.5), batch_size=10, epochs=2)
    assert_same(result.params, params, (0, 0, 0), 1e-10)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda rate: optax.chain(optax.sgd(rate), optax.scale_by_zoom_linesearch(max_linesearch_steps=5)),
        lambda rate: optax.contrib.sam(optax.sgd(rate), optax.sgd(0.1), opaque_mode=True),
    ],
)
@pytest.mark.usefixtures("x64")
def test_an_optimizer_that_asks_for_further_gradients_is_given_those_of_the_whole_batch(optimizer):
    data = problem(dtype=np.float64)
    result = sweep.run(
        KEY, loss, init, data, batch_sizes=(10,), learning_rates=(0.5,), seeds=1, epochs=2, micro_batch=4,
        optimizer=optimizer,
    )  # fmt: skip
    params, _ = single(KEY, 0, data, optimizer=optimizer(0.5), batch_size=10, epochs=2)
    assert_same(result.params, params, (0, 0, 0), 1e-8)


# --- what batch sizes have in common ---


def test_for_one_seed_every_batch_size_has_the_same_start_and_the_same_order():
    """With a learning rate of 0 the parameters stay at the start; a batch of all has the mean over any order."""
    data = problem()
    result = sweep.run(KEY, loss, init, data, batch_sizes=BATCHES, learning_rates=(0.0,), seeds=2, epochs=2)
    start = init(jax.random.split(jax.random.fold_in(KEY, 1))[0])
    for i in range(len(BATCHES)):
        assert_same(result.params, start, (i, 0, 1), 1e-6)
    np.testing.assert_allclose(result.loss - result.loss[0], 0, atol=1e-6)


@pytest.mark.slow
def test_chosen_seeds_are_the_rows_of_more_of_them():
    data = problem()
    run = lambda seeds: sweep.run(KEY, loss, init, data, batch_sizes=(5,), learning_rates=(0.1,), seeds=seeds, epochs=2)
    many, chosen = run(4), run((3, 1))
    np.testing.assert_allclose(chosen.loss[:, :, 0], many.loss[:, :, 3], rtol=1e-5)
    np.testing.assert_allclose(chosen.loss[:, :, 1], many.loss[:, :, 1], rtol=1e-5)


# --- records and budgets ---


def test_records_are_evenly_spaced_and_know_their_updates_and_examples():
    data = problem()
    result = sweep.run(
        KEY, loss, init, data, batch_sizes=(4, 25), learning_rates=(0.1,), seeds=1, updates=9, records=3,
        record=lambda state: state.step,
    )  # fmt: skip
    np.testing.assert_array_equal(result.updates, [[3, 6, 9]] * 2)
    np.testing.assert_array_equal(result.record[:, 0, 0], result.updates)
    # 25 examples in batches of 4 are 7 updates, the last with one example.
    np.testing.assert_array_equal(result.examples, [[12, 24, 25 + 8], [75, 150, 225]])


def test_by_epochs_there_is_a_record_after_each_whatever_the_batch_size():
    data = problem()
    result = sweep.run(
        KEY, loss, init, data, batch_sizes=BATCHES, learning_rates=(0.1,), seeds=1, epochs=3,
        record=lambda state: {"step": state.step},
    )  # fmt: skip
    np.testing.assert_array_equal(result.examples, [[25, 50, 75]] * len(BATCHES))
    np.testing.assert_array_equal(result.record["step"][:, 0, 0], result.updates)


def test_a_dataset_is_trained_on_its_train_part():
    inputs, targets = problem()
    whole = datasets.Dataset(datasets.Examples(inputs[:20], targets[:20]), datasets.Examples(inputs, targets))
    common = {"batch_sizes": (5,), "learning_rates": (0.1,), "seeds": 1, "epochs": 1}
    np.testing.assert_array_equal(
        sweep.run(KEY, loss, init, whole, **common).loss, sweep.run(KEY, loss, init, whole.train, **common).loss
    )


# --- divergence ---


def test_lanes_that_diverge_are_marked_and_the_others_are_not():
    data = problem()
    square = lambda p, x, y, w, key: losses.mean(0.5 * jnp.sum((x @ p[0].weight) ** 2, -1), w)
    result = sweep.run(
        KEY, square, lambda key: mlp.init(key, (6, 3)), data, batch_sizes=(5, 25), learning_rates=(0.01, 1e4), seeds=2,
        epochs=40, record=lambda state: {"size": jnp.sum(state.params[0].weight ** 2)},
    )  # fmt: skip
    assert np.all(result.diverged_at[:, 0] == 0)
    assert np.all(result.diverged_at[:, 1] > 0)
    assert np.all(np.isfinite(result.loss[:, 0]))
    assert not np.any(np.isnan(result.loss))
    table = result.table()
    assert list(table.columns) == [
        "batch_size", "learning_rate", "seed", "updates", "diverged", "diverged_at", "loss", "size",
    ]  # fmt: skip
    assert len(table) == 8
    assert (table.diverged == (table.learning_rate == 1e4)).all()
    assert np.all(np.isinf(table.loss[table.diverged]))
    assert table["size"].isna().equals(table.diverged)
    lane = table[(table.batch_size == 25) & (table.learning_rate == 0.01) & (table.seed == 1)]
    assert float(lane.loss.iloc[0]) == float(result.loss[1, 0, 1, -1])
    assert int(lane.updates.iloc[0]) == 40


def test_the_update_of_a_divergence_is_the_one_that_a_plain_run_reports():
    data = problem()
    square = lambda p, x, y, w, key: losses.mean(0.5 * jnp.sum((x @ p[0].weight) ** 2, -1), w)
    start = lambda key: mlp.init(key, (6, 3))
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

    data = problem()
    run = lambda **changed: sweep.run(
        KEY,
        counted,
        init,
        data,
        **{"batch_sizes": BATCHES, "learning_rates": (0.1, 0.2), "seeds": 2, "epochs": 2, "micro_batch": 4} | changed,
    )
    first = run()
    seen = len(traces)
    again = run()
    run(batch_sizes=(3, 8, 11, 25), learning_rates=(0.3, 0.4), micro_batch=4)
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
    result = sweep.run(
        KEY, loss, init, data, batch_sizes=(4, 25), learning_rates={4: (0.1, 0.2), 25: (0.3, 0.4)}, seeds=1,
        updates={4: 6, 25: 3}, records=3, record=lambda state: state.step,
    )  # fmt: skip
    for i, (batch_size, rate, updates) in enumerate([(4, 0.2, 6), (25, 0.4, 3)]):
        alone = sweep.run(
            KEY,
            loss,
            init,
            data,
            batch_sizes=(batch_size,),
            learning_rates=(rate,),
            seeds=1,
            updates=updates,
            records=3,
        )
        np.testing.assert_allclose(result.loss[i, 1], alone.loss[0, 0], rtol=1e-5)
    np.testing.assert_array_equal(result.record[:, 0, 0], [[2, 4, 6], [1, 2, 3]])
    table = result.table()
    assert table.learning_rate.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert table.updates.tolist() == [6, 6, 3, 3]


def test_progress_counts_calls():
    seen = []
    sweep.run(
        KEY, loss, init, problem(), batch_sizes=BATCHES, learning_rates=(0.1,), seeds=2, epochs=1, lanes_at_once=1,
        progress=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    assert seen == [(i, 8) for i in range(1, 9)]


VALID = {"batch_sizes": (5,), "learning_rates": (0.1,), "seeds": 1, "epochs": 1}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_sizes": ()}, "batch_sizes: got (), expected integers from 1 to 25, the number of examples."),
        ({"batch_sizes": (26,)}, "batch_sizes: got (26,), expected integers from 1 to 25"),
        ({"learning_rates": ()}, "learning_rates: got [], expected a list of finite numbers."),
        ({"learning_rates": (np.inf,)}, "learning_rates: got [inf], expected a list of finite numbers."),
        ({"settings": {"momentum": (np.inf,)}}, "settings['momentum']: got [inf], expected a list of finite numbers."),
        (
            {"learning_rates": {4: (0.1,)}},
            "learning_rates: got none for the batch sizes [5], expected an entry for each.",
        ),
        ({"seeds": 0}, "seeds: got 0, expected one or more integers from 0."),
        ({"seeds": (-1,)}, "seeds: got (-1,), expected one or more integers from 0."),
        ({"updates": 5}, "epochs, updates: got 1 and 5, expected one of the two."),
        ({"epochs": None}, "epochs, updates: got None and None, expected one of the two."),
        ({"epochs": 0}, "epochs: got 0, expected an integer of 1 or more."),
        ({"records": 6}, "records: got 6, expected an integer from 1 to 5, the updates."),
        ({"programs": "many"}, 'programs: got \'many\', expected "one" or "per batch size".'),
        ({"micro_batch": 6}, "micro_batch: got 6, expected an integer from 1 to 5."),
        ({"lanes_at_once": 0}, "lanes_at_once: got 0, expected an integer of 1 or more."),
        ({"settings": {"seed": (1.0,)}}, "settings: got the names ('learning_rate', 'seed'), expected each once"),
        (
            {"loss": lambda p, x, y, w, key: jnp.sum(w * losses.cross_entropy(mlp.forward(p, x), y))},
            "as the mean of two halves, expected the same: a mean with the weights.",
        ),
        ({"loss": lambda p, x, y, w, key: w}, "loss: got a result of ShapeDtypeStruct(shape=(16,)"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(wrong, message):
    arguments = {"loss": loss, **VALID, **wrong}
    with pytest.raises(ValueError, match=re.escape(message)):
        sweep.run(KEY, arguments.pop("loss"), init, problem(), **arguments)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 1.5}, "epochs: got 1.5, expected an integer of 1 or more."),
        ({"init": "zeros"}, "init: got str, expected a function (key) -> params."),
        ({"optimizer": optax.sgd(0.1)}, "optimizer: got GradientTransformationExtraArgs, expected a function"),
        ({"settings": {"nothing": (1.0,)}}, "optimizer: got a function (learning_rate"),
        ({"record": lambda state: "text"}, "record: got a result with 'text' in it, expected arrays."),
        ({"learning_rates": "0.1"}, "learning_rates: got dtype <U3, expected real numbers."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_of_another_type_is_refused_in_one_sentence(wrong, message):
    arguments = {"loss": loss, "init": init, **VALID, **wrong}
    with pytest.raises(TypeError, match=re.escape(message)):
        sweep.run(KEY, arguments.pop("loss"), arguments.pop("init"), problem(), **arguments)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_class_number_out_of_range_is_refused_before_the_runs(wrong):
    inputs, labels = jnp.linspace(-1.0, 1.0, 40).reshape(20, 2), np.arange(20) % 3
    labels[19] = wrong

    def loss(params, x, y, weights, key):
        return losses.mean(losses.cross_entropy(mlp.forward(params, x), y), weights)

    with pytest.raises(ValueError, match=r"targets: got class numbers from .*, expected 0 to 2"):
        sweep.run(
            jax.random.key(0), loss, lambda key: mlp.init(key, (2, 3)), (inputs, labels),
            batch_sizes=(4, 8), learning_rates=(0.1,), seeds=2, epochs=1,
        )  # fmt: skip


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_keys_that_draw_other_numbers_under_vmap_are_refused(implementation):
    key = jax.random.key(0, impl=implementation)
    keys = jax.random.split(key, 2)
    draws = jax.vmap(lambda k: jax.random.normal(k, (3,)))(keys)
    assert not np.allclose(draws[1], jax.random.normal(keys[1], (3,)))  # why
    with pytest.raises(ValueError, match=f"key: got one of {implementation}, which draws other numbers under vmap"):
        sweep.run(key, loss, init, problem(), **VALID)
