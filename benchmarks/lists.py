"""How long does the proof take that a list of zeros or critical points is complete?

    python -m benchmarks.lists [--quick] [--output FOLDER]

Functions with known answers: Himmelblau's (9 critical points), Rastrigin's in two variables (529 in [−5, 6]²), and the
points of period two of a map of Hsu and Guttalu, example 5.5 of Smiley and Chun (2001): 41 zeros in four variables. For
the last, IntervalRootFinding.jl is reported to need 16.4 s (on another machine). Prints a table and writes it as CSV.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from benchmarks import side_by_side
from mlp_jax import interval


@dataclasses.dataclass(frozen=True)
class Settings(side_by_side.Settings):
    """Settings of the benchmark; `quick` leaves out the map."""

    rounds: int = 3
    """Calls after the first, which traces the function."""


def himmelblau(p: jax.Array) -> jax.Array:
    return (p[0] ** 2 + p[1] - 11) ** 2 + (p[0] + p[1] ** 2 - 7) ** 2


def rastrigin(x: jax.Array) -> jax.Array:
    return 20 + jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x))


def hsu(x: jax.Array) -> jax.Array:
    """Map x once."""
    rates = np.pi / 10, np.pi / 5
    decays = [np.exp(-2 * rate) for rate in rates]
    forces = x[2] - 5 * jnp.sin(x[0]) * jnp.cos(x[1]), x[3] - 5 * jnp.cos(x[0]) * jnp.sin(x[1])
    moved = [x[k] + (1 - decays[k]) / (2 * rates[k]) * forces[k] for k in range(2)]
    return jnp.stack([*moved, *(decays[k] * forces[k] for k in range(2))])


def period_two(x: jax.Array) -> jax.Array:
    """Return zero where the map, applied twice, returns to x."""
    return hsu(hsu(x)) - x


HSU = np.array([1.02, 1.02, 0.5, 0.5]) * np.pi
CASES = {
    "Himmelblau": (himmelblau, np.full(2, -6.0), np.full(2, 6.0), 9),
    "Rastrigin": (rastrigin, np.full(2, -5.0), np.full(2, 6.0), 529),
    "Smiley and Chun 5.5": (period_two, -HSU, HSU, 41),
}


def tables(settings: Settings) -> side_by_side.Report:
    rows = []
    for name, (fun, low, high, known) in list(CASES.items())[: 2 if settings.quick else 3]:
        run = functools.partial(interval.complete, fun, low, high)
        first, found = side_by_side.seconds(run)
        again = [side_by_side.seconds(run)[0] for _ in range(1 if settings.quick else settings.rounds)]
        rows.append({
            "list": name, "variables": len(low), "known": known, "found": found.count, "complete": found.complete,
            "boxes": found.boxes, "first_s": first, "warm_s": float(np.median(again)),
        })  # fmt: skip
    yield "lists", pd.DataFrame(rows)


if __name__ == "__main__":
    side_by_side.run("benchmark_lists", Settings, tables, __doc__)
