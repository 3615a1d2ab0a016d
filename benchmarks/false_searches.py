"""Do searches claim convergence where there is no critical point? Functions whose critical points are all known.

    python -m benchmarks.false_searches [--runs 12] [--seed 0]

A run is one start with one method. It is `false` if the search claims convergence at a distance of more than 1e-6
(relative to the size of the point, by coordinate) from every critical point, and `misnamed` if `Point.index` is a
number but not the index there. Families without critical points must never converge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import tqdm
import tyro

from mlp_jax import critical

# Any index, index 0, index 1, and Newton-MR.
METHODS: tuple[dict[str, Any], ...] = ({}, {"index": 0}, {"index": 1}, {"method": critical.newton_mr})


@dataclasses.dataclass(frozen=True)
class Family:
    """A function, random starts and args for it, and (params, args) -> (whether critical, its index where known)."""

    fun: Callable[..., jax.Array]
    draw: Callable[[np.random.Generator], tuple[np.ndarray, tuple]]
    truth: Callable[[np.ndarray, tuple], tuple[bool, int | None]]


def at(*points):
    """Return the truth of a function that is critical at these points alone, given with their indices."""

    def truth(x, args):
        for point, index in points:
            size = np.min(np.abs(point), initial=1.0, where=np.array(point) != 0)
            if np.allclose(x, point, rtol=1e-6, atol=1e-6 * size):
                return True, index
        return False, None

    return truth


def eigenvector(x, args):
    unit = x / np.linalg.norm(x)
    image = args[0] @ unit
    return bool(np.linalg.norm(image - (unit @ image) * unit) < 1e-6 * np.linalg.norm(args[0])), None


def regression(x, args):
    # Gradients along the length, and across the direction.
    inputs, targets = args
    unit, length = x[:-1] / np.linalg.norm(x[:-1]), x[-1]
    back = inputs.T @ (length * inputs @ unit - targets) / np.linalg.norm(inputs.T @ targets)
    return bool(abs(unit @ back) < 1e-6 and np.linalg.norm(length * (back - (unit @ back) * unit)) < 1e-6), None


normal = lambda size, scale=1.0, shift=0.0: lambda generator: (shift + scale * generator.standard_normal(size), ())


def symmetric(size):
    def draw(generator):
        matrix = generator.standard_normal((size, size))
        return generator.standard_normal(size), (matrix + matrix.T,)

    return draw


def data(generator):
    return generator.standard_normal(6), (generator.standard_normal((20, 5)), generator.standard_normal(20))


weight_norm = lambda p, x, y: jnp.mean((p[-1] * (x @ p[:-1]) / jnp.linalg.norm(p[:-1]) - y) ** 2)
rayleigh = lambda x, a: (x @ a @ x) / (x @ x)


def two(first, second):
    """Minima at ± first and a maximum between, in the first coordinate; a minimum in the second."""
    return at(([first, second], 0), ([-first, second], 0), ([0.0, second], 1))


FAMILIES: dict[str, Family] = {
    "scaled, shifted": Family(lambda x: (1e12 * x[0] - 1) ** 2 + (x[1] - 1e6) ** 2, normal(2), at(([1e-12, 1e6], 0))),
    "scaled wells": Family(lambda x: ((1e9 * x[0]) ** 2 - 1) ** 2 + (x[1] - 1e6) ** 2, normal(2), two(1e-9, 1e6)),
    "near wells": Family(lambda x: (x[0] ** 2 - 1e-12) ** 2 + (x[1] - 1) ** 2, normal(2), two(1e-6, 1.0)),
    "line of symmetry": Family(
        lambda x: (x[0] ** 2 - 1) ** 2 + (x[1] - 1) ** 2, lambda g: (np.array([0, g.standard_normal()]), ()), two(1, 1)
    ),
    "constant 1e8": Family(lambda x: (x[0] ** 2 - 1) ** 2 + (x[1] - 1) ** 2 + 1e8, normal(2), two(1, 1)),
    "Rayleigh, P = 3": Family(rayleigh, symmetric(3), eigenvector),
    "Rayleigh, P = 20": Family(rayleigh, symmetric(20), eigenvector),
    "weight norm": Family(weight_norm, data, regression),
    "exponential": Family(lambda x: jnp.exp(3 * x[0]) + jnp.sum(x[1:] ** 2), normal(3, 3.0), at()),
    "Gaussian tail": Family(lambda x: x[1] ** 2 - jnp.exp(-((x[0] - 4) ** 2)), normal(2, 20.0), at(([4.0, 0.0], 0))),
    "saturated": Family(lambda x: (1 - jax.nn.sigmoid(x[0])) ** 2 + x[1] ** 2, normal(2, 30.0), at()),
    "1/x": Family(lambda x: 1 / x[0] + x[1] ** 2, normal(2, 1.0, 5.0), at()),
    "logarithm": Family(lambda x: jnp.log(jnp.sum(x[:2] ** 2)) + x[2] ** 2, normal(3), at()),
    "corner": Family(lambda x: jnp.sum(jnp.abs(x - 0.5)) + 0.1 * jnp.sum(x**2), normal(2), at()),
    "gradient-flat": Family(lambda x: 1e-6 * x[0] + x[0] ** 3 + x[1] ** 2, normal(2), at()),
}


def judge(family: Family, runs: int, seed: int) -> dict[str, int]:
    generator = np.random.default_rng(seed)
    counts = dict.fromkeys(("runs", "converged", "false", "misnamed"), 0)
    for _ in range(runs):
        start, args = family.draw(generator)
        for settings in METHODS:
            point = critical.find(family.fun, start, args, **settings)
            right, index = family.truth(np.asarray(point.params), args)
            named = point.index is not None and index is not None
            counts["runs"] += 1
            counts["converged"] += bool(point.converged)
            counts["false"] += bool(point.converged) and not right
            counts["misnamed"] += right and named and point.index != index
    return counts


def main(runs: int = 12, seed: int = 0) -> pd.DataFrame:
    """Search, print the table by family, and return it."""
    table = pd.DataFrame(
        {name: judge(FAMILIES[name], runs, seed) for name in tqdm.tqdm(FAMILIES, desc="searching", disable=None)}
    ).T
    table.loc["all"] = table.sum()
    print(table.to_string())
    return table


if __name__ == "__main__":
    tyro.cli(main)
