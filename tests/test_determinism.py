"""The same key gives the same bits: in a second call, in another process, and with any number of lanes."""

import hashlib
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlp_jax import critical, curvature, datasets, losses, mlp, mlp_hessian, penalties, sweep, training

pytestmark = pytest.mark.implicit_promotion


def batch_loss(params, x, y, weights, key):
    return losses.mean(losses.squared_error(mlp.forward(params, x, dropout_rate=0.2, key=key), y), weights)


fun = lambda params, x, y: losses.mean(losses.squared_error(mlp.forward(params, x), y)) + penalties.l2(params, 0.02)
init = lambda key: mlp.init(key, (2, 3, 1))


def results():
    """Training with dropout, a sweep, a search, a Hessian and eigenpairs, each from one key."""
    key, data = jax.random.key(5), datasets.xor()
    start = init(key)
    yield training.train(key, batch_loss, start, data, optimizer=optax.adam(0.1), batch_size=3, epochs=5)
    swept = sweep.run(key, batch_loss, init, data, batch_sizes=(1, 3), learning_rates=(0.1, 0.2), seeds=2, epochs=3)
    yield swept.loss, swept.params
    with jax.enable_x64(True):
        args = tuple(datasets.xor())
        point = critical.find(fun, start, args)
        yield point.params, point.gradient_norm
        yield mlp_hessian.dense(start, *args, loss=losses.squared_error, activation=jnp.tanh)
        matvec = curvature.hessian(fun, point.params, args)
        pairs = curvature.eigenpairs(matvec, point.params, key, smallest=2, largest=2, dense_limit=0)
        yield pairs.values, pairs.vectors


def digest():
    found = hashlib.sha256()
    for result in results():
        for leaf in jax.tree.leaves(result):
            found.update(np.ascontiguousarray(np.asarray(leaf)).tobytes())
    return found.hexdigest()


@pytest.mark.slow
def test_the_same_key_gives_the_same_bits_again_and_in_another_process():
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(pathlib.Path(__file__).parent)}
    command = [sys.executable, "-c", "import test_determinism as t; print(t.digest())"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        here = digest()
        assert digest() == here
        assert other.communicate()[0].strip() == here


@pytest.mark.slow
def test_many_searches_end_at_the_same_bits_with_any_number_of_lanes():
    with jax.enable_x64(True):
        args = tuple(datasets.xor())
        starts = jax.vmap(init)(jax.random.split(jax.random.key(0), 6))
        ends = [critical.find_many(fun, starts, args, lanes=lanes) for lanes in (2, 5)]
    jax.tree.map(np.testing.assert_array_equal, *(end.params for end in ends))


@pytest.mark.slow
def test_a_short_run_is_the_beginning_of_a_long_one_bit_for_bit():
    key, data = jax.random.key(1), datasets.xor()
    run = lambda epochs: training.train(
        key, batch_loss, init(key), data, optimizer=optax.sgd(0.1), batch_size=2, epochs=epochs,
        record=lambda state: state.params,
    )  # fmt: skip
    short, history = run(3)[0], run(8)[1]
    jax.tree.map(lambda ours, theirs: np.testing.assert_array_equal(ours, theirs[2]), short, history.record)
