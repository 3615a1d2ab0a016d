"""Deep and shallow ReLU networks that compute exactly a sawtooth of 2ⁿ linear pieces, or the parity of n bits."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments._shared import finite_hypotheses as finite
from mlp_jax import datasets, mlp, tree


def deep_sawtooth(depth: int) -> mlp.Params:
    """Return a network with `depth` hidden layers of 2 units, the composition of as many tent maps.

    t(x) = 2 max(x, 0) − 4 max(x − ½, 0) on [0, 1]. The composition has 2^depth linear pieces, the network 6·depth + 1
    parameters. Source: Telgarsky (2015), "Representation benefits of deep feedforward networks".
    """
    mix, bias = np.array([[2.0], [-4.0]]), np.array([0.0, -0.5])
    first, middle, last = (np.ones((1, 2)), bias), (mix @ np.ones((1, 2)), bias), (mix, np.zeros(1))
    return _as_params([first, *([middle] * (depth - 1)), last])


def shallow_sawtooth(depth: int) -> mlp.Params:
    """Return a network with one hidden layer that computes the same on [0, 1], with 3·2^depth + 1 parameters.

    It has one unit for each linear piece, the least possible: on a line a hidden unit bends the function once.
    """
    pieces = 2**depth
    slopes = float(pieces) * (-1.0) ** np.arange(pieces)
    bends = np.diff(slopes, prepend=0.0)
    hidden = (np.ones((1, pieces)), -np.arange(pieces) / pieces)
    return _as_params([hidden, (bends[:, None], np.zeros(1))])


def compose(first: mlp.Params, second: mlp.Params) -> mlp.Params:
    """Return the network second ∘ first; the two affine maps that meet are merged into one."""
    (*early, inner), (outer, *late) = first, second
    joined = mlp.Layer(inner.weight @ outer.weight, outer.affine(inner.affine(jnp.zeros(len(inner.weight)))))
    return (*early, joined, *late)


def parity_network(num_bits: int, saw: mlp.Params) -> mlp.Params:
    """Return the network saw(mean of the bits): their parity, if the sawtooth has one piece for each bit."""
    return compose((mlp.Layer(jnp.full((num_bits, 1), 1 / num_bits), jnp.zeros(1)),), saw)


def count_pieces(values: np.ndarray) -> int:
    """Return the number of linear pieces of a function, from its values on an even grid that contains its kinks."""
    slopes = np.diff(values)
    return 1 + int(np.sum(np.abs(np.diff(slopes)) > 1e-9 * np.max(np.abs(slopes))))


def _as_params(layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> mlp.Params:
    dtype = jnp.result_type(float)
    return tuple(mlp.Layer(jnp.asarray(weight, dtype), jnp.asarray(bias, dtype)) for weight, bias in layers)


def table(pieces: tuple[int, ...], failure_probability: float, deviation: float) -> pd.DataFrame:
    """Return one row for each network: its size, its error and the sample size by the bound."""
    rows = []

    def add(function: str, n: int, name: str, params: mlp.Params, data: datasets.Examples) -> None:
        values, size = np.asarray(mlp.forward(params, data.inputs, activation=jax.nn.relu)), tree.size(params)
        row = {"function": function, "n": n, "network": name, "layers": len(params) - 1}
        row["units"] = sum(layer.shape[1] for layer in params[:-1])
        row["parameters"] = size
        row["pieces"] = count_pieces(values[:, 0]) if function == "sawtooth" else np.nan
        row["largest error"] = float(np.max(np.abs(values - np.asarray(data.targets))))
        row["N by bound"] = finite.sample_size(finite.network_log_size(size), failure_probability, deviation)
        rows.append(row)

    for n in pieces:
        data = datasets.sawtooth(n, points_per_piece=2)
        add("sawtooth", n, "n layers", deep_sawtooth(n), data)
        add("sawtooth", n, "1 layer", shallow_sawtooth(n), data)
        if n > 1:
            add("sawtooth", n, "2 layers", compose(*map(shallow_sawtooth, (n // 2, n - n // 2))), data)
    for k in range(1, 5):
        for name, saw in (("log₂ n layers", deep_sawtooth), ("1 layer", shallow_sawtooth)):
            add("parity", 2**k, name, parity_network(2**k, saw(k)), datasets.parity(2**k))
    return pd.DataFrame(rows)
