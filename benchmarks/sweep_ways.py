"""One sweep, six batch sizes from some seeds, done in each of the ways that one might: a process of its own each.

    python -m benchmarks.sweep_ways NAME SEEDS EPOCHS

prints one line of JSON: seconds to the first result (compilation and initialisation included, imports not), seconds of
the same again, and the mean final test accuracy of each batch size, by which the ways can be compared.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.classifier import batch_loss
from mlp_jax import datasets, losses, mlp, sweep, training

SIZES, BATCH_SIZES, RATE = (64, 32, 10), (16, 32, 64, 128, 256, 512), 0.1
_SGD = optax.sgd(RATE)


def init(key: jax.Array) -> Any:
    return mlp.init(key, SIZES)


@jax.jit
def accuracy(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean test accuracy of networks with a leading axis."""
    return jnp.mean(jax.vmap(lambda p: losses.mean(losses.accuracy(mlp.forward(p, inputs), targets)))(params))


Way = Callable[[jax.Array, datasets.Dataset, int, int], list]


def one_program(key: jax.Array, data: datasets.Dataset, seeds: int, epochs: int, programs: str = "one") -> list:
    result = sweep.run(
        key, batch_loss, init, data, batch_sizes=BATCH_SIZES, learning_rates=(RATE,), seeds=seeds, epochs=epochs,
        programs=programs,
    )  # fmt: skip
    return [jax.tree.map(lambda a, i=i: a[i, 0], result.params) for i in range(len(BATCH_SIZES))]


@functools.partial(jax.jit, static_argnames=("batch_size", "epochs"))
def _obvious(keys: jax.Array, inputs: Any, targets: Any, batch_size: int, epochs: int) -> Any:
    def one(key: jax.Array) -> Any:
        init_key, run_key = jax.random.split(key)
        return training.train(
            run_key, batch_loss, init(init_key), (inputs, targets), optimizer=_SGD, batch_size=batch_size, epochs=epochs
        )[0]

    return jax.vmap(one)(keys)


def obvious_loop(key: jax.Array, data: datasets.Dataset, seeds: int, epochs: int) -> list:
    """One jitted program a batch size, vmapped over seeds, initialisation inside."""
    keys = jax.random.split(key, seeds)
    return [_obvious(keys, *data.train, size, epochs) for size in BATCH_SIZES]


@functools.partial(jax.jit, static_argnames=("batch_size", "epochs"))
def _sensible(keys: jax.Array, params: Any, inputs: Any, targets: Any, batch_size: int, epochs: int) -> Any:
    def one(key: jax.Array, start: Any) -> Any:
        return training.train(
            key, batch_loss, start, (inputs, targets), optimizer=_SGD, batch_size=batch_size, epochs=epochs
        )[0]

    return jax.vmap(one)(keys, params)


_starts = jax.jit(jax.vmap(init), compiler_options={"xla_backend_optimization_level": 0})


def sensible_loop(key: jax.Array, data: datasets.Dataset, seeds: int, epochs: int) -> list:
    """One jitted program a batch size, vmapped over seeds, initialisation once, in a cheaply compiled program."""
    keys = jax.random.split(key, seeds)
    params = _starts(keys)
    return [_sensible(keys, params, *data.train, size, epochs) for size in BATCH_SIZES]


@functools.partial(jax.jit, static_argnames=("epochs",))
def _masked(keys: jax.Array, params: Any, sizes: jax.Array, inputs: Any, targets: Any, epochs: int) -> Any:
    n, widest = len(inputs), max(BATCH_SIZES)

    def one(size: jax.Array, key: jax.Array, params: Any) -> Any:
        num_batches = -(-n // size)

        def update(step: jax.Array, carry: tuple) -> tuple:
            params, state = carry
            visited = training.order(key, step // num_batches, n)
            rows = step % num_batches * size + jnp.arange(widest)
            weights = ((jnp.arange(widest) < size) & (rows < n)).astype(jnp.float32)
            taken = visited[jnp.minimum(rows, n - 1)]
            gradient = jax.grad(batch_loss)(params, inputs[taken], targets[taken], weights, key)
            updates, state = _SGD.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, epochs * num_batches, update, (params, _SGD.init(params)))[0]

    over_seeds = jax.vmap(one, in_axes=(None, 0, 0))
    return jax.vmap(over_seeds, in_axes=(0, None, None))(sizes, keys, params)


def masks(key: jax.Array, data: datasets.Dataset, seeds: int, epochs: int) -> list:
    """One program, all lanes at once, every batch padded to the largest with weights of 0."""
    keys = jax.random.split(key, seeds)
    params = _masked(keys, _starts(keys), jnp.array(BATCH_SIZES), *data.train, epochs)
    return [jax.tree.map(lambda a, i=i: a[i], params) for i in range(len(BATCH_SIZES))]


def torch_loop(key: jax.Array, data: datasets.Dataset, seeds: int, epochs: int, threads: int = 1) -> list:
    """One network at a time."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    x, y = torch.from_numpy(np.array(data.train.inputs)), torch.from_numpy(np.array(data.train.targets, np.int64))
    ends = []
    for size in BATCH_SIZES:
        networks = []
        for seed in range(seeds):
            torch.manual_seed(seed)
            model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
            optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
            for _ in range(epochs):
                for rows in torch.randperm(len(x)).split(size):
                    cost = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
                    optimizer.zero_grad()
                    cost.backward()
                    optimizer.step()
            networks.append([p.detach().numpy() for p in model.parameters()])
        ends.append(_as_layers([np.stack(leaves) for leaves in zip(*networks, strict=True)]))
    return ends


def torch_vmap(key: jax.Array, data: datasets.Dataset, seeds: int, epochs: int, threads: int = 1) -> list:
    """torch.func: the gradients of all seeds by vmap, one batch size at a time."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    x, y = torch.from_numpy(np.array(data.train.inputs)), torch.from_numpy(np.array(data.train.targets, np.int64))

    def cost(p: list, x: Any, y: Any) -> Any:
        hidden = torch.tanh(torch.nn.functional.linear(x, p[0], p[1]))
        return torch.nn.functional.cross_entropy(torch.nn.functional.linear(hidden, p[2], p[3]), y)

    gradients = torch.func.vmap(torch.func.grad(cost))
    ends = []
    for size in BATCH_SIZES:
        params = []
        for fan_in, fan_out in ((64, 32), (32, 10)):
            bound = fan_in**-0.5
            params += [
                (2 * torch.rand(seeds, fan_out, fan_in) - 1) * bound, (2 * torch.rand(seeds, fan_out) - 1) * bound
            ]  # fmt: skip
        for _ in range(epochs):
            orders = torch.stack([torch.randperm(len(x)) for _ in range(seeds)])
            for rows in orders.split(size, dim=1):
                steps = gradients(params, x[rows], y[rows])
                params = [p - RATE * g for p, g in zip(params, steps, strict=True)]
        ends.append(_as_layers([p.numpy() for p in params]))
    return ends


def _as_layers(leaves: list[np.ndarray]) -> Any:
    weights = [np.swapaxes(leaf, 1, 2) for leaf in leaves[::2]]
    return tuple(mlp.Layer(*pair) for pair in zip(weights, leaves[1::2], strict=True))


WAYS: dict[str, Way] = {
    "sweep.run": one_program,
    "sweep.run, per batch size": functools.partial(one_program, programs="per batch size"),
    "sensible loop of programs": sensible_loop,
    "obvious loop of programs": obvious_loop,
    "masks": masks,
    "torch loop, 1 thread": torch_loop,
    "torch loop, 2 threads": functools.partial(torch_loop, threads=2),
    "torch.func vmap, 1 thread": torch_vmap,
    "torch.func vmap, 2 threads": functools.partial(torch_vmap, threads=2),
}


def main(name: str, seeds: int, epochs: int) -> None:
    data = datasets.load("digits")
    if name.startswith("torch"):
        importlib.import_module("torch")
    # The runtime itself starts once for every way, outside what is timed.
    key = jax.block_until_ready(jax.random.key(0))
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        ends = jax.block_until_ready(WAYS[name](key, data, seeds, epochs))
        seconds.append(time.perf_counter() - began)
    measured = [float(accuracy(params, *data.test)) for params in ends]
    sys.stdout.write(json.dumps({"first": seconds[0], "again": seconds[1], "accuracy": measured}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
