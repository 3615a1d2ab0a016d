"""How do cost and memory grow with parameters, examples, lanes and devices?

    python -m benchmarks.scaling [--quick] [--parts work devices] [--output FOLDER]

Part `work`: seconds of a gradient, a product, a dense Hessian, its inertia, a spectral density, a sweep and many
searches at several sizes on one device, float64, with the exponent of the growth fitted to the upper half of the sizes.
Part `devices`, on 1 to 8 emulated devices: bytes of memory of each device and what is sent between them, with the
exponent of memory in the number of devices (−1: each holds its share), from `benchmarks.scaling_examples` for work on
examples, `benchmarks.scaling_lanes` for a sweep. `python -m experiments.hosts` shows that results are equal.
Prints tables, and writes each as CSV, with a figure, to a new folder.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import tqdm

from benchmarks import scaling_examples, scaling_lanes, side_by_side
from benchmarks.classifier import batch_loss, mean_loss, per_example
from benchmarks.side_by_side import curves, exponent, first_and_warm
from experiments._shared import xor
from mlp_jax import critical, curvature, losses, mlp, mlp_hessian, sweep, tree

OUTPUTS = 10
_init = functools.partial(mlp.init, sizes=(64, 16, OUTPUTS))


@dataclasses.dataclass(frozen=True)
class Settings(side_by_side.Settings):
    """Settings of the benchmark."""

    parts: tuple[Literal["work", "devices"], ...] = ("work", "devices")
    """Which tables to make."""
    calls: int = 3
    """Warm calls of each piece of work; the median counts."""


class Piece(NamedTuple):
    """A computation at one size: its name, the quantity that grows, its size, and the call."""

    work: str
    grows: str
    size: int
    call: Callable[[], Any]


def problem(inputs, hidden, num):
    """Return a network inputs-hidden-10 and random examples, in float64."""
    generator = np.random.default_rng(0)
    params = mlp.init(jax.random.key(0), (inputs, hidden, OUTPUTS), dtype=jnp.float64)
    return params, jnp.asarray(generator.random((num, inputs))), jnp.asarray(generator.integers(0, OUTPUTS, num))


@jax.jit
def gradient(params, x, y):
    return jax.grad(mean_loss)(params, x, y)


@jax.jit
def product(params, x, y):
    return curvature.hessian_of_mean(per_example, params, (x, y), chunk_size=min(len(x), 1000))(params)


@jax.jit
def density(params, x, y):
    matvec = curvature.hessian_of_mean(per_example, params, (x, y), chunk_size=min(len(x), 1000))
    return curvature.spectral_density(matvec, params, jax.random.key(0), num_probes=1, num_steps=30).nodes


def pieces_of_work(quick: bool) -> Iterator[Piece]:
    """Yield every computation, smallest first."""
    widths = (4, 8) if quick else (32, 64, 128, 256, 512, 1024)
    numbers = (100, 200) if quick else (2_500, 5_000, 10_000, 20_000, 40_000)
    num, hidden = (100, 4) if quick else (2_000, 128)
    cases = [("P", problem(784, width, num)) for width in widths]
    cases += [("N", problem(784, hidden, n)) for n in numbers]
    for grows, (params, x, y) in cases:
        size = tree.size(params) if grows == "P" else len(x)
        yield Piece("gradient", grows, size, functools.partial(gradient, params, x, y))
        yield Piece("product", grows, size, functools.partial(product, params, x, y))
        if grows == "P":
            yield Piece("spectral density, 30 steps", grows, size, functools.partial(density, params, x, y))
    yield from _matrices(quick)
    yield from _many(quick)


def _matrices(quick: bool) -> Iterator[Piece]:
    widths = (2, 4) if quick else (8, 16, 32, 64)
    numbers = (50, 100) if quick else (900, 1_800, 3_600, 7_200)
    cases = [("P", problem(64, width, 100 if quick else 1_800)) for width in widths]
    cases += [("N", problem(64, 4 if quick else 16, n)) for n in numbers]
    for grows, (params, x, y) in cases:
        size = tree.size(params) if grows == "P" else len(x)
        hessian = functools.partial(mlp_hessian.dense, params, x, y, loss=losses.cross_entropy)
        yield Piece("dense Hessian", grows, size, hessian)
        if grows == "P":
            matrix = np.asarray(hessian())
            yield Piece("inertia", grows, size, functools.partial(curvature.inertia, matrix))


def _many(quick: bool) -> Iterator[Piece]:
    _, x, y = problem(64, 4, 200 if quick else 1_000)
    data = x.astype(jnp.float32), y
    for seeds in (2, 4) if quick else (8, 16, 32, 64, 128):
        run = functools.partial(
            sweep.run, jax.random.key(0), batch_loss, _init, data, batch_sizes=(32,), learning_rates=(0.1,),
            seeds=seeds, epochs=1 if quick else 10,
        )  # fmt: skip
        yield Piece("sweep, batch size 32", "lanes", seeds, lambda run=run: run().loss)
    for starts in (4, 8) if quick else (64, 128, 256, 512, 1024):
        keys = jax.random.split(jax.random.key(0), starts)
        points = jax.vmap(xor.init)(keys)
        find = functools.partial(critical.find_many, xor.loss, points, xor.data("{0, 1}", 0.0))
        yield Piece("find_many, XOR", "starts", starts, lambda find=find: find().gradient_norm)


def work_table(quick: bool, calls: int) -> pd.DataFrame:
    """Return one row for each computation: seconds of the first call, and the median of warm calls."""
    rows = []
    for piece in tqdm.tqdm(list(pieces_of_work(quick)), unit="piece", leave=False, disable=None):
        first, warm = first_and_warm(piece.call, calls)
        rows.append({"work": piece.work, "grows": piece.grows, "size": piece.size, "first_s": first, "seconds": warm})
    return pd.DataFrame(rows)


def exponents(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each computation and growing quantity: the exponent over the upper half of the sizes."""
    rows = []
    for (work, grows), part in table.groupby(["work", "grows"], sort=False):
        upper = part.sort_values("size").iloc[len(part) // 2 :] if len(part) > 2 else part
        rows.append({
            "work": work, "grows": grows, "from": part["size"].min(), "to": part["size"].max(),
            "seconds_at_largest": part.seconds.iloc[-1],
            "exponent": exponent(list(upper["size"]), list(upper.seconds)),
        })  # fmt: skip
    return pd.DataFrame(rows)


def memory_exponents(examples: pd.DataFrame, lanes: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each program: MiB per device with the fewest and the most devices, and the fitted exponent."""
    examples = examples.assign(MiB=examples.held + examples.made)
    rows = []
    for program, part in pd.concat([examples, lanes.assign(program="sweep")]).groupby("program", sort=False):
        few, many = part.iloc[0], part.iloc[-1]
        mib = {f"MiB on {end.devices}": end.MiB for end in (few, many)}
        rows.append({"program": program, **mib, "exponent": exponent(list(part.devices), list(part.MiB))})
    return pd.DataFrame(rows)


def measure(settings: Settings) -> side_by_side.Report:
    quick = settings.quick
    if "work" in settings.parts:
        with jax.enable_x64(True):
            work = work_table(quick, 1 if quick else settings.calls)
        yield from (
            ("work", work),
            ("exponents", exponents(work)),
            ("work", curves(work, "grows", "size", "seconds", "work", "seconds, warm")),
        )
    if "devices" in settings.parts:
        examples, lanes = scaling_examples.table(quick), scaling_lanes.table(quick)
        yield from (("examples", examples), ("lanes", lanes), ("memory", memory_exponents(examples, lanes)))


if __name__ == "__main__":
    side_by_side.run("scaling", Settings, measure, __doc__)
