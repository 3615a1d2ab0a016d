"""Does the best learning rate move with the width, and does it stay with maximal-update scaling?

A tanh network with two hidden layers on digits, of widths from 32 to 512, trained by minibatches with SGD and Adam at a
range of rates: with the standard parametrisation, and with the maximal-update scaling of `mlp_jax.scaling`, which are
equal at the smallest width. The loss of a rate is the geometric mean over seeds of the mean loss of the last epoch,
infinite if a run diverged. The best rate is the minimum of the parabola through the lowest loss and its neighbours, in
logarithms. Yang et al. (2022), "Tensor programs V".
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
import pandas as pd
import tqdm

from experiments._shared import command_line, tables
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import datasets, devices, losses, mlp, scaling, sweep

BATCH_SIZE, LAYERS = 64, 2
# Learning rates of the optimizers, a factor of √2 apart.
RATES = {"sgd": 2.0 ** np.arange(-4, 1, 0.5), "adam": 2.0 ** np.arange(-9, -3, 0.5)}
NAMES = ("standard", "maximal update")


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Hidden units of a layer; the first is the base width."""
    seeds: int = 3
    """Starts and orders of examples."""
    epochs: int = 4
    """Epochs of a run."""


def loss(params: mlp.Params, x: Any, y: Any, weights: Any, key: Any) -> jax.Array:
    """Return the mean cross-entropy."""
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y), weights)


def sizes(width: int) -> tuple[int, ...]:
    """Return the layer sizes of a width."""
    return (64, *[width] * LAYERS, 10)


def factors(width: int, base: int) -> scaling.Factors:
    """Return the factors of maximal-update scaling from the base width."""
    shapes = (jax.eval_shape(functools.partial(mlp.init, sizes=sizes(n)), jax.random.key(0)) for n in (width, base))
    return scaling.maximal_update(*shapes)


def scaled_optimizer(name: str, found: scaling.Factors) -> Callable[..., optax.GradientTransformation]:
    """Return (rate, scaled) -> optimizer, with the factors to the power `scaled`: 0 for none, both in one program."""

    def optimizer(learning_rate: jax.Array, scaled: jax.Array) -> optax.GradientTransformation:
        by_leaf = jax.tree.map(lambda factor: factor**scaled, getattr(found, name))
        return optax.chain(getattr(optax, name)(learning_rate), scaling.by_leaf(by_leaf))

    return optimizer


def measure(settings: Settings, width: int) -> pd.DataFrame:
    """Return one row for each optimizer, scaling, rate and seed: the mean loss of the last epoch."""
    found = factors(width, settings.widths[0])
    train = functools.partial(
        sweep.run, jax.random.key(settings.seed), loss, data=datasets.load("digits"), batch_sizes=(BATCH_SIZE,),
        seeds=settings.seeds, epochs=settings.epochs, programs="per batch size",
    )  # fmt: skip
    frames = []
    for name, rates in RATES.items():
        optimizer = scaled_optimizer(name, found)
        for scaled, scaling_name in enumerate(NAMES):

            def init(key: jax.Array, power: int = scaled) -> mlp.Params:
                start = jax.tree.map(lambda factor: factor**power, found.start)
                return jax.tree.map(jnp.multiply, mlp.init(key, sizes(width)), start)

            settings_of_run = {"scaled": (scaled,)}
            result = train(init, learning_rates=rates.tolist(), optimizer=optimizer, settings=settings_of_run)
            frame = result.table()[["learning_rate", "seed", "loss", "diverged"]]
            frames.append(frame.assign(optimizer=name, scaling=scaling_name, width=width))
    return pd.concat(frames, ignore_index=True)


def best_rate(rates: np.ndarray, logs: np.ndarray) -> float:
    """Return the minimum of the parabola through the lowest point and its neighbours, in log rate.

    It is the rate of the lowest point if that is at an edge or beside an infinite loss.
    """
    k = int(np.argmin(logs))
    around = logs[k - 1 : k + 2] if 0 < k < len(logs) - 1 else np.array([np.inf])
    if not np.all(np.isfinite(around)):
        return float(rates[k])
    left, middle, right = around
    return float(rates[k] * (rates[1] / rates[0]) ** ((left - right) / (left - 2 * middle + right) / 2))


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each optimizer and scaling: the best rates by width, how they vary, and the losses there."""
    table = []
    for (optimizer, name), part in rows.groupby(["optimizer", "scaling"], sort=False):
        row: dict[str, Any] = {"optimizer": optimizer, "scaling": name}
        means = np.log(part.loss).groupby([part.width, part.learning_rate]).mean().unstack()
        best = [best_rate(means.columns.to_numpy(), logs.to_numpy()) for _, logs in means.iterrows()]
        row |= {f"best, {width}": rate for width, rate in zip(means.index, best, strict=True)}
        row |= {"largest / smallest": max(best) / min(best), "last / first": best[-1] / best[0]}
        at_edge = [np.argmin(logs) in (0, len(logs) - 1) for logs in means.to_numpy()]
        row |= {f"loss, {width}": np.exp(logs.min()) for width, logs in means.iterrows()}
        table.append(row | {"at an edge": sum(at_edge)})
    return pd.DataFrame(table)


def draw(rows: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: loss against rate, a line for each width, for both optimizers and scalings."""
    figure = matplotlib.figure.Figure(figsize=(9, 6.4), layout="constrained")
    grid = figure.subplots(2, 2, sharey="row")
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, rows.width.nunique()))
    for axes_of, (optimizer, of_one) in zip(grid, rows.groupby("optimizer", sort=False), strict=True):
        for axes, (name, part) in zip(axes_of, of_one.groupby("scaling", sort=False), strict=True):
            for shade, (width, one) in zip(shades, part.groupby("width"), strict=True):
                means = np.exp(np.log(one.loss).groupby(one.learning_rate).mean())
                axes.loglog(means.index, means, "o-", ms=3, color=shade, label=f"{width}")
            axes.set(title=f"{optimizer.upper() if optimizer == 'sgd' else 'Adam'}, {name}", ylim=(None, 2.5))
            axes.set(xlabel="learning rate (at the base width)")
        axes_of[0].set(ylabel="loss of the last epoch (nats)")
    grid[0, 1].legend(title="width", fontsize="small", loc="upper center", ncols=2)
    return figure


def conclusion(table: pd.DataFrame) -> str:
    """Return what was found, as one sentence filled with numbers."""
    widths = [name.split()[1] for name in table.columns if name.startswith("best, ")]
    spread = table.set_index(["optimizer", "scaling"])["largest / smallest"]
    shown = {"sgd": "SGD", "adam": "Adam"}
    parts = [
        f"a factor of {spread[name, NAMES[0]]:.2f} for {shown[name]} with the standard parametrisation and"
        f" {spread[name, NAMES[1]]:.2f} with maximal update"
        for name in RATES
    ]
    return (
        f"Found: over widths {widths[0]} to {widths[-1]} the best learning rate varies by {', and by '.join(parts)};"
        f" {table['at an edge'].sum()} of {len(table) * len(widths)} best rates are at an edge of the search."
    )


def run(settings: Settings) -> pd.DataFrame:
    """Train, print and save; return one row for each optimizer and scaling."""
    folder = RunFolder("width_and_rate", settings, settings.output, resume=settings.resume)
    widths = settings.widths[:2] if settings.quick else settings.widths
    with tqdm.tqdm(total=len(widths), unit="width", leave=False, disable=None) as bar:

        def one(width: int) -> pd.DataFrame:
            frame = folder.kept(f"width {width}", functools.partial(measure, settings, width))
            bar.update()
            return frame

        frames = devices.over_cores(one, widths[::-1])[::-1]
    rows = pd.concat(frames, ignore_index=True)
    table = summary(rows)
    folder.table("losses", rows)
    folder.table("best_rates", table)
    print(f"Best learning rate by width, digits, {settings.epochs} epochs in batches of {BATCH_SIZE}:")
    print(tables.text(table, "best_rates", float_format="{:.3g}".format))
    folder.figure("width_and_rate", draw(rows))
    folder.conclude(conclusion(table))
    return table


if __name__ == "__main__":
    command_line.start("width_and_rate", run, Settings, __doc__)
