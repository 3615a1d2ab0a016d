"""The same training by torch, flax with optax, and numpy: loops as their users write them.

Each function returns a function of no arguments that trains for `updates` updates on batches of random rows and
returns the last parameters; or raises ImportError where its package is missing. All do the same work: tanh layers
(numpy: the classical sigmoid network), mean softmax cross-entropy (numpy: quadratic cost), plain SGD, float32.
"""

from __future__ import annotations

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

RATE = 0.01


def batches(num: int, batch_size: int, updates: int, permute):
    """Yield the rows of each update: full batches, in a new order each epoch."""
    starts, done = range(0, num - batch_size + 1, batch_size), 0
    while done < updates:
        order = permute(num)
        for start in starts[: updates - done]:
            yield order[start : start + batch_size]
        done += len(starts)


def torch_loop(sizes, inputs, targets, batch_size, updates, *, threads, compiled=False):
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    layers = []
    for width_in, width_out in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(width_in, width_out), torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    x, y = torch.from_numpy(inputs), torch.from_numpy(targets.astype(np.int64))
    forward = torch.compile(model) if compiled else model

    def run():
        torch.set_num_threads(threads)
        for rows in batches(len(x), batch_size, updates, torch.randperm):
            loss = torch.nn.functional.cross_entropy(forward(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return [p.detach().numpy() for p in model.parameters()]

    return run


def flax_loop(sizes, inputs, targets, batch_size, updates):
    linen = importlib.import_module("flax.linen")

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x):
            for width in sizes[1:-1]:
                x = jnp.tanh(linen.Dense(width)(x))
            return linen.Dense(sizes[-1])(x)

    model, optimizer = Network(), optax.sgd(RATE)
    x, y = jnp.asarray(inputs), jnp.asarray(targets)

    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

    @jax.jit
    def step(params, state, x, y):
        updates, state = optimizer.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    start = jax.jit(model.init)(jax.random.key(0), x[:1])
    rng = np.random.default_rng(0)

    def run():
        params, state = start, optimizer.init(start)
        for rows in batches(len(x), batch_size, updates, rng.permutation):
            params, state = step(params, state, x[rows], y[rows])
        return jax.block_until_ready(params)

    return run


def numpy_loop(sizes, inputs, targets, batch_size, updates):
    from experiments._shared.numpy_network import Network

    network = Network(sizes, np.random.default_rng(0), np.float32)
    epochs, part = max(1, updates * batch_size // len(inputs)), min(updates * batch_size, len(inputs))
    settings = {"epochs": epochs, "batch_size": batch_size, "rate": RATE, "report": lambda message: None}

    def run():
        network.train((inputs[:part], targets[:part]), **settings)
        return network.weights

    return run


def products_alone(sizes, inputs, batch_size, updates):
    """Only the matrix products of training, in one scan: the limit of JAX itself.

    Each weight is replaced by the product that would be its gradient, so that XLA cannot remove it.
    """
    batches = len(inputs) // batch_size
    cut = jnp.asarray(inputs[: batches * batch_size]).reshape(batches, batch_size, -1)
    draw = np.random.default_rng(0).normal
    weights = [jnp.asarray(draw(size=shape) / shape[0], jnp.float32) for shape in itertools.pairwise(sizes)]

    def step(weights, x):
        activations = [x]
        for weight in weights:
            activations.append(activations[-1] @ weight)
        delta, products = activations.pop(), []
        for depth in reversed(range(len(weights))):
            products.append(activations[depth].T @ delta)
            if depth:
                delta = delta @ weights[depth].T
        return products[::-1], None

    @jax.jit
    def run_all(weights, cut):
        epoch = lambda weights, _: jax.lax.scan(step, weights, cut)
        return jax.lax.scan(epoch, weights, None, length=max(1, updates // batches))[0]

    return lambda: jax.block_until_ready(run_all(weights, cut))
