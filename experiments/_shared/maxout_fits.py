"""One maxout unit trained on x² and −x², beside the least error possible."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import tqdm

from mlp_jax import mlp, training
from mlp_jax.confidence import mean_interval

FIT_RATES, FIT_UPDATES, FIT_SEEDS, PIECES = np.geomspace(10**-2.5, 1.0, 6), 1000, 8, (1, 2, 4, 8)
Lines = Callable[[np.random.Generator, tuple[int, int]], tuple[np.ndarray, np.ndarray]]


def _random_lines(generator: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return generator.standard_normal(shape), generator.standard_normal(shape)


def _tangents(generator: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    # Tangents of ½x² at random points of [−1, 1]: each is the largest somewhere.
    points = generator.uniform(-1, 1, shape)
    return points, -(points**2) / 2


# For each fit: how the slopes of the lines and their values at 0 are drawn, and the sign of x².
FITS: dict[str, tuple[Lines, float]] = {
    "x², random lines": (_random_lines, 1.0),
    "x², tangents of ½x²": (_tangents, 1.0),
    "−x², random lines": (_random_lines, -1.0),
}


def least_errors(pieces: int) -> tuple[float, float]:
    """Return the least max |x² − h(x)| and mean (x² − h(x))² over [−1, 1] for h the maximum of k lines.

    They are 1 / (2k²) and 4 / (45 k⁴), both with k intervals of equal length: on an interval of length l the best line
    has a largest error of l² / 8 and a mean square of l⁴ / 180.
    """
    return 1 / (2 * pieces**2), 4 / (45 * pieces**4)


@functools.partial(jax.jit, static_argnames="pieces")
def fit(pieces: int, starts: mlp.Params, rates: jax.Array, sign: Any) -> dict[str, jax.Array]:
    """Fit one maxout unit to sign · x² on [−1, 1] by Adam, one lane for each start and rate; return its errors."""
    # Midpoints of equal parts: their mean is an integral to second order.
    x, fine = ((2 * jnp.arange(n)[:, None] + 1.0) / n - 1 for n in (100, 2000))

    def error(params: mlp.Params, x: jax.Array) -> jax.Array:
        return mlp.maxout(pieces)(mlp.forward(params, x)) - sign * x**2

    def loss(params: mlp.Params, *_: Any) -> jax.Array:
        return jnp.mean(error(params, x) ** 2)

    def lane(start: mlp.Params, rate: jax.Array) -> dict[str, jax.Array]:
        optimizer = optax.adam(optax.cosine_decay_schedule(rate, FIT_UPDATES))
        params, _ = training.train(
            jax.random.key(0), loss, start, (x, x), optimizer=optimizer, batch_size=len(x), epochs=FIT_UPDATES
        )
        ends = jnp.linspace(-1.0, 1.0, 2001)[:, None]
        lines = mlp.forward(params, ends)
        live = jnp.sum(jnp.any(lines == jnp.max(lines, axis=1, keepdims=True), axis=0))
        largest, square = jnp.max(jnp.abs(error(params, ends))), jnp.mean(error(params, fine) ** 2)
        return {"largest": largest, "mean square": square, "live": live}

    return jax.vmap(lane)(starts, rates)


def convex(seed: int, pieces: tuple[int, ...], bar: tqdm.tqdm) -> pd.DataFrame:
    """Return one row for each fresh seed, fit and number of pieces; rates are chosen on other seeds."""
    generator, lanes = np.random.default_rng(seed), len(FIT_RATES) * FIT_SEEDS
    tables = []

    def errors(number: int, draw_lines: Lines, sign: float, copies: int, rates: Any) -> dict[str, np.ndarray]:
        slopes, values = (np.tile(a, (copies, 1)) for a in draw_lines(generator, (lanes // copies, number)))
        starts = (mlp.Layer(jnp.asarray(slopes[:, None], jnp.float32), jnp.asarray(values, jnp.float32)),)
        found = fit(number, starts, jnp.asarray(np.broadcast_to(rates, lanes), jnp.float32), sign)
        return {name: np.asarray(value, float) for name, value in found.items()}

    for number in pieces:
        for name, (lines, sign) in FITS.items():
            search = errors(number, lines, sign, len(FIT_RATES), np.repeat(FIT_RATES, FIT_SEEDS))
            rate = FIT_RATES[search["mean square"].reshape(-1, FIT_SEEDS).mean(1).argmin()]
            fresh = errors(number, lines, sign, 1, rate)
            # The best convex approximation of −x² is one line.
            least = least_errors(number if sign > 0 else 1)
            best = dict(zip(("least largest", "least mean square"), least, strict=True))
            tables.append(pd.DataFrame({"fit": name, "pieces": number, "rate": rate, **best, **fresh}))
        bar.update()
    return pd.concat(tables, ignore_index=True)


def convex_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each fit and number of pieces, with 95 % half widths, and the least errors possible."""
    table = []
    for (name, pieces), part in rows.groupby(["fit", "pieces"], sort=False):
        row = {"fit": name, "pieces": pieces, "rate": part.rate.iloc[0]}
        row |= {"at edge": part.rate.iloc[0] in FIT_RATES[[0, -1]], "least largest": part["least largest"].iloc[0]}
        ratio = part["mean square"] / part["least mean square"]
        for figure, samples in {"largest": part.largest, "mean square / least": ratio, "live": part.live}.items():
            row[figure], row[f"{figure} ±"] = map(float, mean_interval(samples))
        table.append(row | {"lowest largest": part.largest.min(), "lowest mean square / least": ratio.min()})
    return pd.DataFrame(table)
