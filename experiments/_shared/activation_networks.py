"""Networks of equal size with each activation, and their gradients by layer: measured, and in theory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from mlp_jax import backpropagation, datasets, losses, mlp, plots, tree
from mlp_jax.confidence import mean_interval


class Kind(NamedTuple):
    """An activation and its initialization: weights of variance gain / fan-in."""

    activation: mlp.Activation
    gain: float
    pieces: int
    style: tuple[str, str, str]


KINDS = {
    "sigmoid": Kind(jax.nn.sigmoid, 1.0, 1, (plots.ORANGE, "s", "--")),
    "tanh": Kind(jnp.tanh, 1.0, 1, (plots.BLUE, "o", "-")),
    "ReLU": Kind(jax.nn.relu, 2.0, 1, (plots.GREEN, "^", "-.")),
    "maxout": Kind(mlp.maxout(2), 1.0, 2, (plots.PURPLE, "D", ":")),
}


def num_parameters(depth: int, width: int, pieces: int = 1) -> int:
    """Return the number of parameters of a digits network with hidden layers of equal width."""
    return 65 * width * pieces + (depth - 1) * (width + 1) * width * pieces + 10 * (width + 1)


def sizes_of(kind: Kind, depth: int, width: int) -> tuple[int, ...]:
    """Return the layer sizes whose number of parameters is nearest to that of units with one piece."""
    goal = num_parameters(depth, width)
    nearest = min(range(1, width + 1), key=lambda w: abs(num_parameters(depth, w, kind.pieces) - goal))
    return (64, *[nearest] * depth, 10)


def normal(gain: float) -> Callable[..., Any]:
    """Return an initializer of variance gain / fan-in; numpy draws, so that new shapes compile nothing."""

    def draw(key: jax.Array, shape: tuple[int, int], dtype: Any) -> np.ndarray:
        generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        return (np.sqrt(gain / shape[0]) * generator.standard_normal(shape)).astype(dtype)

    return draw


def draw_starts(name: str, sizes: tuple[int, ...], keys: jax.Array, copies: int = 1) -> mlp.Params:
    """Return initial parameters for each key, the whole sequence repeated `copies` times."""
    kind = KINDS[name]
    drawn = [mlp.init(key, sizes, pieces=kind.pieces, weight_init=normal(kind.gain)) for key in keys]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves * copies)), *drawn)


def propagate(name: str, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pre-activation variance of the next layer, and χ, at infinite width.

    A maxout unit of two pieces keeps both: the maximum of two independent normals has the second moment of each, and
    its gradient goes to one of them.
    """
    activation, gain, pieces, _ = KINDS[name]
    if pieces == 2:
        return variance, np.ones_like(variance)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    z = jnp.asarray(np.sqrt(variance)[:, None] * nodes)
    value, slope = jax.jvp(activation, (z,), (jnp.ones_like(z),))
    moments = [np.asarray(a, float) ** 2 @ weights / np.sqrt(2 * np.pi) for a in (value, slope)]
    return gain * moments[0], gain * moments[1]


def predicted_ratio(name: str, depth: int, inputs: np.ndarray) -> float:
    """Return the error δ of the first hidden layer over that of the last, at infinite width."""
    variance = KINDS[name].gain * np.mean(np.asarray(inputs, float) ** 2, axis=1)
    product = np.ones(len(variance))
    for _ in range(depth - 1):
        variance_next, factor = propagate(name, variance)
        product, variance = product * factor, variance_next
    return float(np.sqrt(product.mean()))


@functools.partial(jax.jit, static_argnames="name")
def layer_norms(name: str, params: mlp.Params, inputs: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the gradient norm of the mean loss and the root mean square of ‖δ‖, each (seeds, layers)."""
    activation = KINDS[name].activation

    def one(params: mlp.Params) -> tuple[jax.Array, jax.Array]:
        gradient = backpropagation.gradient(params, inputs, targets, loss=losses.cross_entropy, activation=activation)
        trace = backpropagation.forward(params, inputs, activation=activation)
        outer = jax.grad(lambda z: jnp.sum(losses.cross_entropy(z, targets)))(trace.preactivations[-1])
        deltas = backpropagation.backward(params, trace, outer, activation=activation)
        errors = [jnp.sqrt(jnp.mean(jnp.sum(delta**2, axis=1))) for delta in deltas]
        return jnp.stack([tree.norm(layer) for layer in gradient]), jnp.stack(errors)

    return jax.vmap(one)(params)


def gradients(name: str, depth: int, when: str, params: mlp.Params, examples: datasets.Examples) -> pd.DataFrame:
    """Return one row for each seed and layer."""
    gradient, error = (np.asarray(a, float) for a in layer_norms(name, params, *examples))
    seeds, layers = (a.ravel() for a in np.indices(gradient.shape))
    columns = {"seed": seeds, "layer": layers + 1, "gradient": gradient.ravel(), "error": error.ravel()}
    return pd.DataFrame({"activation": name, "depth": depth, "when": when, **columns})


def vanishing(rows: pd.DataFrame, inputs: np.ndarray) -> pd.DataFrame:
    """Return one row for each activation, depth and time: first layer over last, geometric means over seeds.

    `gradient` compares the first layer with the output layer. `δ a layer` is the factor of the error from one hidden
    layer to the one below, `theory` the same for infinite width at initialization. Half widths are factors. `seeds`
    counts the seeds kept: those whose gradients are finite and nonzero.
    """
    table = []
    for (name, depth, when), part in rows.groupby(["activation", "depth", "when"], sort=False):
        sizes = [part.pivot(index="seed", columns="layer", values=v) for v in ("gradient", "error")]
        kept = np.logical_and(*(((size > 0) & (size < np.inf)).all(axis=1) for size in sizes))
        gradient, error = (np.log(size[kept]) for size in sizes)
        ratio, half = mean_interval(gradient[1] - gradient[depth + 1])
        factor, factor_half = mean_interval((error[1] - error[depth]) / (depth - 1))
        theory = predicted_ratio(name, depth, inputs) ** (1 / (depth - 1)) if when == "start" else np.nan
        figures = (np.exp(ratio), np.exp(half), np.exp(factor), np.exp(factor_half), theory)
        table.append((name, depth, when, len(gradient), *map(float, figures)))
    columns = ["activation", "depth", "when", "seeds", "gradient first / last", "×÷", "δ a layer", "δ ×÷", "theory"]
    return pd.DataFrame(table, columns=columns)
