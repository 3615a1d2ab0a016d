"""One sweep, six batch sizes from several seeds, done in different ways, each in its own process.

    python -m benchmarks.sweep_ways NAME SEEDS EPOCHS

prints one line of JSON: seconds to the first result (compilation and initialisation included, imports not), seconds of
the same again, and the mean final test accuracy of each batch size, by which the ways can be compared.
"""

from __future__ import annotations

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.classifier import batch_loss
from benchmarks.side_by_side import find, seconds
from mlp_jax import datasets, losses, mlp, sweep, training

SIZES, BATCH_SIZES, RATE = (64, 32, 10), (16, 32, 64, 128, 256, 512), 0.1
_SGD = optax.sgd(RATE)


init = functools.partial(mlp.init, sizes=SIZES)


@jax.jit
def accuracy(params, inputs, targets):
    """Mean test accuracy of networks with a leading axis."""
    return jnp.mean(jax.vmap(lambda p: losses.mean(losses.accuracy(mlp.forward(p, inputs), targets)))(params))


def one_program(key, data, seeds, epochs, programs="one"):
    result = sweep.run(
        key, batch_loss, init, data, batch_sizes=BATCH_SIZES, learning_rates=(RATE,), seeds=seeds, epochs=epochs,
        programs=programs,
    )  # fmt: skip
    return [jax.tree.map(lambda a, i=i: a[i, 0], result.params) for i in range(len(BATCH_SIZES))]


def _train(key, params, data, batch_size, epochs):
    return training.train(key, batch_loss, params, data, optimizer=_SGD, batch_size=batch_size, epochs=epochs)[0]


@functools.partial(jax.jit, static_argnames=("batch_size", "epochs"))
def _obvious(keys, data, batch_size, epochs):
    def one(key):
        init_key, run_key = jax.random.split(key)
        return _train(run_key, init(init_key), data, batch_size, epochs)

    return jax.vmap(one)(keys)


def obvious_loop(key, data, seeds, epochs):
    """One jitted program a batch size, vmapped over seeds, initialisation inside."""
    keys = jax.random.split(key, seeds)
    return [_obvious(keys, tuple(data.train), size, epochs) for size in BATCH_SIZES]


@functools.partial(jax.jit, static_argnames=("batch_size", "epochs"))
def _sensible(keys, params, data, batch_size, epochs):
    return jax.vmap(lambda key, start: _train(key, start, data, batch_size, epochs))(keys, params)


_starts = jax.jit(jax.vmap(init), compiler_options={"xla_backend_optimization_level": 0})


def sensible_loop(key, data, seeds, epochs):
    """One jitted program a batch size, vmapped over seeds, initialisation once, in a cheaply compiled program."""
    keys = jax.random.split(key, seeds)
    params = _starts(keys)
    return [_sensible(keys, params, tuple(data.train), size, epochs) for size in BATCH_SIZES]


@functools.partial(jax.jit, static_argnames=("epochs",))
def _masked(keys, params, sizes, inputs, targets, epochs):
    n, widest = len(inputs), max(BATCH_SIZES)

    def one(size, key, params):
        num_batches = -(-n // size)

        def update(step, carry):
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


def masks(key, data, seeds, epochs):
    """One program, all lanes at once, every batch padded to the largest with weights of 0."""
    keys = jax.random.split(key, seeds)
    params = _masked(keys, _starts(keys), jnp.array(BATCH_SIZES), *data.train, epochs)
    return [jax.tree.map(lambda a, i=i: a[i], params) for i in range(len(BATCH_SIZES))]


def _in_torch(data, threads):
    torch = find("torch")
    torch.set_num_threads(threads)
    x, y = data.train
    return torch, torch.from_numpy(np.array(x)), torch.from_numpy(np.array(y, np.int64))


def torch_loop(key, data, seeds, epochs, threads=1):
    """One network at a time."""
    torch, x, y = _in_torch(data, threads)
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


def torch_vmap(key, data, seeds, epochs, threads=1):
    """torch.func: the gradients of all seeds by vmap, one batch size at a time."""
    torch, x, y = _in_torch(data, threads)

    def cost(p, x, y):
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


def _as_layers(leaves):
    weights = [np.swapaxes(leaf, 1, 2) for leaf in leaves[::2]]
    return tuple(mlp.Layer(*pair) for pair in zip(weights, leaves[1::2], strict=True))


WAYS = {
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
        find("torch")  # imports are not timed
    # The runtime itself starts once for every way and is not timed.
    key = jax.block_until_ready(jax.random.key(0))
    (first, _), (again, ends) = (seconds(lambda: WAYS[name](key, data, seeds, epochs)) for _ in range(2))
    measured = [float(accuracy(params, *data.test)) for params in ends]
    sys.stdout.write(json.dumps({"first": first, "again": again, "accuracy": measured}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
