"""Whose are the large eigenvalues of the Hessian: which layer's, and do their directions stay while the network learns?

A tanh network 784-100-10 learns 4,000 digits of MNIST by minibatches, without weight decay. After every epoch the top
of the spectrum is computed for the whole network and for each layer alone, the other held fixed (`curvature.restrict`,
`curvature.eigenpairs` from the eigenvectors of the epoch before), with the trace and, at the end, the density.
Measured: the number of outliers; how much of the space of the top ten eigenvectors (as many as classes) was in that of
the epoch before; and how much of the gradient is in it, nearly all according to Gur-Ari, Roberts and Dyer (2018).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import matplotlib.ticker
import numpy as np
import optax
import pandas as pd
import tqdm

from experiments._shared import command_line, tables
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from experiments._shared.spectra import outliers, recorded_params
from mlp_jax import curvature, datasets, losses, mlp, plots, training, tree
from mlp_jax.confidence import mean_interval, show

CLASSES, TOP, TOLERANCE = 10, 15, 1e-4
PARTS: dict[str, Callable[[Any], Any]] = {"whole": lambda p: p, "layer 1": lambda p: p[0], "layer 2": lambda p: p[1]}
LOOKS = {"whole": (plots.GREY, "o-"), "layer 1": (plots.BLUE, "s--"), "layer 2": (plots.ORANGE, "^:")}


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    seeds: int = 3
    """Runs."""
    hidden: int = 100
    """Hidden tanh units."""
    epochs: int = 4
    """Epochs of training."""
    rate: float = 0.2
    """Learning rate of gradient descent by batches of 50."""
    examples: int = 4000
    """Training examples."""
    probes: int = 8
    """Random vectors for each trace."""


class Run(NamedTuple):
    """One run: a row for each epoch and part, and the densities at the end, of the first seed only."""

    rows: list[dict[str, Any]]
    densities: dict[str, curvature.Density]


def fun(params: mlp.Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return mean softmax cross-entropy."""
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y))


def batch_loss(params: mlp.Params, x: Any, y: Any, weights: Any, key: Any) -> jax.Array:
    """Return the mean softmax cross-entropy of a batch."""
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y), weights)


_descent = functools.cache(optax.sgd)


@functools.cache
def _product(part_fun: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Return (part, args, vector) ↦ H v, the same function for equal functions, so that it is compiled once."""
    return lambda part, args, vector: curvature.hessian(part_fun, part, args)(vector)


@functools.partial(jax.jit, static_argnames=("part_fun", "probes"))
def _trace_and_gradient(part_fun: Any, part: Any, args: tuple, key: jax.Array, probes: int) -> tuple[Any, Any]:
    matvec = curvature.hessian(part_fun, part, args)
    return curvature.trace(matvec, part, key, num_probes=probes), jax.grad(part_fun)(part, *args)


@functools.partial(jax.jit, static_argnames=("part_fun", "probes"))
def _density(part_fun: Any, part: Any, args: tuple, key: jax.Array, probes: int) -> curvature.Density:
    matvec = curvature.hessian(part_fun, part, args)
    return curvature.spectral_density(matvec, part, key, num_probes=probes, num_steps=60)


def measure(name: str, params: mlp.Params, data: tuple, before: Any, key: jax.Array, probes: int) -> tuple[Any, Any]:
    """Return the row of a part at one epoch, and its top eigenvectors, for the next."""
    part_fun, part = curvature.restrict(fun, params, PARTS[name])
    args = (params, *data)
    matvec = jax.tree_util.Partial(_product(part_fun), part, args)
    pairs = curvature.eigenpairs(matvec, part, key, largest=TOP, tolerance=TOLERANCE, dense_limit=0, start=before)
    if not np.all(pairs.converged):
        raise RuntimeError(f"{name}: {int((~pairs.converged).sum())} eigenpairs have not converged.")
    trace, gradient = _trace_and_gradient(part_fun, part, args, key, probes)
    values = np.asarray(pairs.values, float)
    top = jax.tree.map(lambda leaf: leaf[-CLASSES:], pairs.vectors)
    kept = np.nan if before is None else curvature.overlap(top, jax.tree.map(lambda leaf: leaf[-CLASSES:], before))
    row = {
        "part": name,
        "parameters": tree.size(part),
        "loss": float(fun(params, *data)),
        "largest": values[-1],
        "outliers": outliers(values, TOP - 1),
        "trace": float(trace.value),
        "trace_stderr": float(trace.stderr),
        "top_share": float(np.sum(values[-CLASSES:]) / trace.value),
        "kept": float(kept),
        "gradient_share": float(curvature.overlap(gradient, top)),
        "products": pairs.num_matvecs,
    }
    return row, pairs.vectors


def follow(settings: Settings, seed: int, epochs: int) -> Run:
    """Train, and measure at the start and after every epoch."""
    examples = datasets.load("mnist5000").train
    data = tuple(jnp.asarray(array[: settings.examples]) for array in examples)
    init_key, train_key, key = jax.random.split(jax.random.fold_in(jax.random.key(settings.seed), seed), 3)
    start = mlp.init(init_key, (784, settings.hidden, CLASSES))
    _, history = training.train(
        train_key, batch_loss, start, data, optimizer=_descent(settings.rate), batch_size=50, epochs=epochs,
        record=recorded_params,
    )  # fmt: skip
    points = [start, *(jax.tree.map(lambda leaf, e=e: leaf[e], history.record) for e in range(epochs))]
    rows: list[dict[str, Any]] = []
    before: dict[str, Any] = dict.fromkeys(PARTS)
    for epoch, params in enumerate(tqdm.tqdm(points, unit="epoch", leave=False, disable=None)):
        for name in PARTS:
            row, before[name] = measure(name, params, data, before[name], key, settings.probes)
            rows.append({"seed": seed, "epoch": epoch} | row)
    densities = {}
    for name in PARTS if seed == 0 else ():
        part_fun, part = curvature.restrict(fun, points[-1], PARTS[name])
        densities[name] = _density(part_fun, part, (points[-1], *data), key, 3)
    return Run(rows, densities)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each part at the start, after one epoch and at the end: means with 95 % half widths."""
    table = []
    for epoch in (0, 1, rows.epoch.max()):
        for name in PARTS:
            some = rows[(rows.epoch == epoch) & (rows.part == name)]
            row: dict[str, Any] = {"part": name, "epoch": epoch}
            for column in ("largest", "outliers", "trace", "top_share", "kept", "gradient_share", "products"):
                row[column] = show(some[column]) if some[column].notna().all() else ""
            table.append(row)
    return pd.DataFrame(table)


def draw(rows: pd.DataFrame, densities: dict[str, curvature.Density]) -> matplotlib.figure.Figure:
    """Return the figure: densities at the end; top eigenvalue, kept space and share of the gradient in training."""
    figure = matplotlib.figure.Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    nodes = np.asarray(densities["whole"].nodes)
    width = 0.01 * float(nodes.max())
    grid = np.linspace(nodes.min() - 3 * width, nodes.max() + 3 * width, 600)
    for name, (colour, style) in LOOKS.items():
        axes[0].plot(grid, densities[name](jnp.asarray(grid, jnp.float32), width), style[1:], color=colour, label=name)
    axes[0].set(
        yscale="log", ylim=(1e-7, None), xlabel="eigenvalue", ylabel="density, smoothed", title="the end, seed 0"
    )
    columns = {
        "largest": "largest eigenvalue",
        "kept": "overlap with the top space an epoch before",
        "gradient_share": "share of the gradient in the top space",
    }
    for ax, (column, label) in zip(axes[1:], columns.items(), strict=True):
        for name, (colour, style) in LOOKS.items():
            by_epoch = [mean_interval(part[column]) for _, part in rows[rows.part == name].groupby("epoch")]
            means, halves = (np.asarray(each, float) for each in zip(*by_epoch, strict=True))
            ax.errorbar(np.arange(len(means)), means, halves, fmt=style, ms=4, capsize=2, color=colour, label=name)
        ax.set(xlabel="epoch", ylabel=label, ylim=(0, None if column == "largest" else 1.02))
        ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    seeds = rows.seed.nunique()
    axes[1].set(title=f"mean over {seeds} seeds, 95 %" if seeds > 1 else "one seed")
    axes[0].legend(frameon=False)
    return figure


def conclusion(rows: pd.DataFrame) -> str:
    """Return what was found, as one sentence filled with numbers."""
    last = rows[rows.epoch == rows.epoch.max()].groupby("part")
    means = last.mean(numeric_only=True)
    first = rows[rows.epoch == 1].groupby("part").kept.mean()

    def each(column: str, scale: float = 1.0) -> str:
        return ", ".join(f"{scale * means[column][name]:.3g} ({name})" for name in PARTS)

    return (
        f"Found: at the end the largest eigenvalue is {each('largest')}; there are {each('outliers')} outliers; the"
        f" top {CLASSES} eigenvalues are {each('top_share', 100)} % of the trace, and their space holds"
        f" {each('gradient_share', 100)} % of the gradient; the last epoch keeps {each('kept', 100)} % of it,"
        f" the first kept {', '.join(f'{100 * first[name]:.3g}' for name in PARTS)} %."
    )


def run(settings: Settings) -> pd.DataFrame:
    """Train, measure, print and save; return one row for each seed, epoch and part."""
    folder = RunFolder("spectrum_by_layer", settings, settings.output, resume=settings.resume)
    seeds, epochs = (1, min(2, settings.epochs)) if settings.quick else (settings.seeds, settings.epochs)
    runs = []
    for seed in tqdm.trange(seeds, unit="run", disable=None):
        runs.append(folder.kept(f"seed_{seed}", functools.partial(follow, settings, seed, epochs)))
    rows = pd.DataFrame([row for one in runs for row in one.rows])
    folder.table("epochs", rows)
    table = summary(rows)
    folder.table("summary", table)
    folder.figure("spectrum_by_layer", draw(rows, runs[0].densities))
    over = f"mean ± 95 % half width over {seeds} seeds" if seeds > 1 else "one seed"
    print(f"784-{settings.hidden}-10, {settings.examples} digits of MNIST; {over}:")
    print(tables.text(table, "summary"))
    folder.conclude(conclusion(rows))
    return rows


if __name__ == "__main__":
    command_line.start("spectrum_by_layer", run, Settings, __doc__)
