"""The layered Hessian against `jax.hessian`, for networks with and without biases, of all kinds of layers.

`python -m benchmarks.network_variants` prints the largest difference of `mlp_hessian.dense` from `jax.hessian`,
relative to the largest entry, at random parameters in float64, for cross-entropy with an L2 penalty.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import tqdm

from mlp_jax import losses, mlp, mlp_hessian, penalties, tree

WIDTH, EXAMPLES = 3, 20
MIXED = (jnp.tanh, jax.nn.softplus, jnp.sin, jax.nn.sigmoid)
BIASES = {"everywhere": lambda i: True, "nowhere": lambda i: False, "some": lambda i: i % 2 == 1}
KINDS = {"mixed": (MIXED, 1), "maxout": ((mlp.maxout(2),) * len(MIXED), 2)}


def difference(depth: int, bias: str, kind: str, residual: bool) -> float:
    """Return the largest difference for a network of `depth` hidden layers, relative to the largest entry."""
    (activations, pieces), rng = KINDS[kind], np.random.default_rng(depth)
    activation, sizes = activations[:depth], (*[WIDTH] * (depth + 1), 2)
    biased = [BIASES[bias](i) for i in range(depth + 1)]
    start = mlp.init(jax.random.key(0), sizes, bias=biased, pieces=pieces)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.8 * rng.standard_normal(leaf.shape)), start)
    data = jnp.asarray(rng.standard_normal((EXAMPLES, WIDTH))), jnp.asarray(rng.integers(2, size=EXAMPLES))
    penalty = functools.partial(penalties.l2, strength=0.1)
    vector, unravel = tree.ravel(params)

    def fun(v: jax.Array) -> jax.Array:
        outputs = mlp.forward(unravel(v), data[0], activation=activation, residual=residual)
        return losses.mean(losses.cross_entropy(outputs, data[1])) + penalty(unravel(v))

    settings: dict[str, Any] = {"loss": losses.cross_entropy, "activation": activation, "penalty": penalty}
    ours = mlp_hessian.dense(params, *data, residual_connections=residual, **settings)
    expected = jax.jit(jax.hessian(fun))(vector)
    return float(jnp.max(jnp.abs(ours - expected)) / jnp.max(jnp.abs(expected)))


def run() -> pd.DataFrame:
    """Return one row for each depth and choice of biases, one column for each kind of network."""
    rows = []
    for depth, bias in tqdm.tqdm([*itertools.product(range(1, 5), BIASES)], leave=False, disable=None):
        row: dict[str, Any] = {"hidden layers": depth, "biases": bias}
        for kind, residual in itertools.product(KINDS, (False, True)):
            row[kind + ", residual" * residual] = difference(depth, bias, kind, residual)
        rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    with jax.enable_x64(True):
        table = run()
    print("Largest difference of mlp_hessian.dense from jax.hessian, relative to the largest entry:")
    print(table.to_string(index=False, float_format="{:.1e}".format))
    print(f"largest: {table.drop(columns=['hidden layers', 'biases']).to_numpy().max():.1e}")
