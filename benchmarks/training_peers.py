"""The same training by torch, flax with optax, and numpy: loops as their users write them.

Each function returns a function of no arguments that trains for `updates` updates on batches of random rows and
returns the last parameters; or raises ImportError where its package is missing. All do the same work: tanh layers
(numpy: the classical sigmoid network), mean softmax cross-entropy (numpy: quadratic cost), plain SGD, float32.
"""

from __future__ import annotations

import importlib
import itertools
import os
import platform
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

RATE = 0.01


def machine(packages: Sequence[str] = ("jax", "optax", "flax", "torch", "numpy")) -> str:
    """Return one line on the processor and the versions of what is installed."""
    installed = {dist.metadata["Name"].lower(): dist.version for dist in metadata.distributions()}
    versions = ", ".join(f"{name} {installed.get(name, 'not installed')}" for name in packages)
    return f"{_processor()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; {versions}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def torch_loop(
    sizes: Sequence[int], inputs: np.ndarray, targets: np.ndarray, batch_size: int, updates: int, *, threads: int,
    compiled: bool = False,
) -> Callable[[], Any]:  # fmt: skip
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    layers: list[Any] = []
    for width_in, width_out in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(width_in, width_out), torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    x, y = torch.from_numpy(inputs), torch.from_numpy(targets.astype(np.int64))
    forward = torch.compile(model) if compiled else model

    def run() -> Any:
        torch.set_num_threads(threads)
        done = 0
        while done < updates:
            order = torch.randperm(len(x))
            for start in range(0, len(x) - batch_size + 1, batch_size):
                rows = order[start : start + batch_size]
                loss = torch.nn.functional.cross_entropy(forward(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                done += 1
                if done == updates:
                    break
        return [p.detach().numpy() for p in model.parameters()]

    return run


def flax_loop(
    sizes: Sequence[int], inputs: np.ndarray, targets: np.ndarray, batch_size: int, updates: int
) -> Callable[[], Any]:
    linen = importlib.import_module("flax.linen")

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for width in sizes[1:-1]:
                x = jnp.tanh(linen.Dense(width)(x))
            return linen.Dense(sizes[-1])(x)

    model, optimizer = Network(), optax.sgd(RATE)
    x, y = jnp.asarray(inputs), jnp.asarray(targets)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        updates, state = optimizer.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    start = jax.jit(model.init)(jax.random.key(0), x[:1])
    rng = np.random.default_rng(0)

    def run() -> Any:
        params, state, done = start, optimizer.init(start), 0
        while done < updates:
            order = rng.permutation(len(x))
            for first in range(0, len(x) - batch_size + 1, batch_size):
                rows = order[first : first + batch_size]
                params, state = step(params, state, x[rows], y[rows])
                done += 1
                if done == updates:
                    break
        return jax.block_until_ready(params)

    return run


def numpy_loop(
    sizes: Sequence[int], inputs: np.ndarray, targets: np.ndarray, batch_size: int, updates: int
) -> Callable[[], Any]:
    from experiments.classical_network import Network

    network = Network(sizes, np.random.default_rng(0), np.float32)
    rows = updates * batch_size
    epochs = max(1, rows // len(inputs))
    part = min(rows, len(inputs))

    def run() -> Any:
        network.train(
            (inputs[:part], targets[:part]),
            epochs=epochs,
            batch_size=batch_size,
            rate=RATE,
            report=lambda message: None,
        )
        return network.weights

    return run


def products_alone(sizes: Sequence[int], inputs: np.ndarray, batch_size: int, updates: int) -> Callable[[], Any]:
    """The matrix products of training, and nothing else, in one scan: what JAX itself could reach.

    Each weight is replaced by the product that would be its gradient, so that none can be left out.
    """
    batches = len(inputs) // batch_size
    cut = jnp.asarray(inputs[: batches * batch_size]).reshape(batches, batch_size, -1)
    weights = [
        jnp.asarray(np.random.default_rng(0).normal(size=shape) / shape[0], jnp.float32)
        for shape in itertools.pairwise(sizes)
    ]

    def step(weights: list[jax.Array], x: jax.Array) -> tuple[list[jax.Array], None]:
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
    def run_all(weights: list[jax.Array], cut: jax.Array) -> list[jax.Array]:
        def epoch(weights: list[jax.Array], _: Any) -> tuple[list[jax.Array], None]:
            return jax.lax.scan(step, weights, cut)

        return jax.lax.scan(epoch, weights, None, length=max(1, updates // batches))[0]

    return lambda: jax.block_until_ready(run_all(weights, cut))
