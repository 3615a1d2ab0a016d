"""What does the spectrum of the Hessian look like during training: a bulk at zero, and as many outliers as classes?

A tanh network is trained by Adam, without weight decay, on the digits of the first C classes, for several C and seeds.
The exact spectrum is computed at points of the run (`mlp_hessian.dense`). At the last point it is compared with the
density by stochastic Lanczos quadrature (`curvature.spectral_density`), to see how accurate that is. Measured: the
share of eigenvalues near zero; the number of outliers above the largest gap among the top eigenvalues (as many as
classes, or one fewer: Sagun et al. 2016, Papyan 2018); and the negative eigenvalues, which should vanish.
"""

from __future__ import annotations

import dataclasses
import functools
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
from mlp_jax import curvature, datasets, losses, mlp, mlp_hessian, plots, training
from mlp_jax.confidence import mean_interval, show

# The bulk at zero: eigenvalues of at most this share of the largest in size.
BULK = 1e-3
# Columns that are printed, and what they are called.
SHOWN = {
    "outliers": "outliers",
    "bulk_share": "share near 0",
    "negative_share": "share negative",
    "negative_size": "−smallest / largest",
}
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.SKY, plots.YELLOW)
LINES, MARKERS = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1))), "os^DvP"


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    classes: tuple[int, ...] = (2, 3, 4, 6, 8, 10)
    """Numbers of classes: the digits from 0."""
    seeds: int = 5
    """Runs for each number of classes."""
    hidden: int = 10
    """Hidden tanh units."""
    epochs: int = 100
    """Epochs of training."""


class Run(NamedTuple):
    """Spectra (points, P), ascending, at several epochs of one run, and the quadrature at the last."""

    classes: int
    seed: int
    epochs: np.ndarray
    spectra: np.ndarray
    density: curvature.Density
    loss: np.ndarray


def fun(params: mlp.Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return mean softmax cross-entropy."""
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y))


def batch_loss(params: mlp.Params, x: Any, y: Any, weights: Any, key: Any) -> jax.Array:
    """Return the mean softmax cross-entropy of a batch."""
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y), weights)


_OPTIMIZER = optax.adam(3e-3)


def train(settings: Settings, classes: int, seed: int, epochs: int) -> Run:
    """Train, and return the spectra at the start, at several epochs and at the end."""
    digits = datasets.load("digits").train
    some = digits.targets < classes
    x, y = digits.inputs[some].astype(np.float64), digits.targets[some]
    init_key, train_key, probe_key = jax.random.split(jax.random.fold_in(jax.random.key(settings.seed), seed), 3)
    start = mlp.init(init_key, (64, settings.hidden, classes), dtype=jnp.float64)
    data = datasets.Examples(jnp.asarray(x), jnp.asarray(y))
    _, history = training.train(
        train_key, batch_loss, start, data, optimizer=_OPTIMIZER, batch_size=50, epochs=epochs,
        record=recorded_params,
    )  # fmt: skip
    chosen = np.unique(np.round(np.geomspace(1, epochs, 6)).astype(int))
    points = [start, *(jax.tree.map(lambda leaf, e=e: leaf[e - 1], history.record) for e in chosen)]
    matrices = [mlp_hessian.dense(p, x, y, loss=losses.cross_entropy, activation=jnp.tanh) for p in points]
    density = _density(points[-1], probe_key, data)
    return Run(
        classes, seed, np.concatenate([[0], chosen]), np.stack([np.linalg.eigvalsh(np.asarray(m)) for m in matrices]),
        density, np.array([float(fun(p, x, y)) for p in points]),
    )  # fmt: skip


@jax.jit
def _density(params: mlp.Params, key: jax.Array, data: Any) -> curvature.Density:
    return curvature.spectral_density(curvature.hessian(fun, params, args=tuple(data)), params, key, num_steps=80)


def rows_of(run: Run) -> list[dict[str, Any]]:
    """Return one row for each point of the run."""
    rows = []
    for epoch, spectrum, loss in zip(run.epochs, run.spectra, run.loss, strict=True):
        top = spectrum[-1]
        rows.append(
            {
                "classes": run.classes,
                "seed": run.seed,
                "epoch": int(epoch),
                "loss": loss,
                "largest": top,
                "smallest": spectrum[0],
                "bulk_share": float(np.mean(np.abs(spectrum) <= BULK * top)),
                "negative_share": float(np.mean(spectrum < -BULK * top)),
                "negative_size": float(-spectrum[0] / top),
                "outliers": outliers(spectrum),
            }
        )
    return rows


def quadrature_errors(run: Run) -> dict[str, float]:
    """Return the errors of the quadrature against the exact spectrum at the end of a run."""
    exact, top = run.spectra[-1], run.spectra[-1][-1]
    nodes, weights = np.asarray(run.density.nodes), np.asarray(run.density.weights)
    grid = np.linspace(exact[0] - 0.05 * top, 1.05 * top, 400)
    below = np.array([np.sum(weights[nodes <= g]) for g in grid])
    return {
        "classes": run.classes,
        "seed": run.seed,
        "largest_off": abs(nodes.max() - top) / top,
        "outside": max(0.0, nodes.max() - top, exact[0] - nodes.min()) / top,
        "mean_off": abs(np.sum(weights * nodes) - exact.mean()) / abs(exact.mean()),
        "distribution_off": float(np.max(np.abs(below - np.searchsorted(exact, grid, side="right") / len(exact)))),
    }


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the start and the end of training for each number of classes: means with 95 % half widths over seeds."""
    ends = rows[rows.epoch.isin((0, rows.epoch.max()))]
    return pd.DataFrame(
        [
            {"classes": classes, "epoch": epoch} | {words: show(part[name], 2) for name, words in SHOWN.items()}
            for (classes, epoch), part in ends.groupby(["classes", "epoch"])
        ]
    )


def draw(runs: list[Run], rows: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: spectrum and quadrature, top eigenvalues, outliers by classes, negative eigenvalues."""
    figure = matplotlib.figure.Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    run = max((r for r in runs if r.seed == 0), key=lambda r: r.classes)
    plots.spectral_density(axes[0], run.density, run.spectra[-1])
    axes[0].set(title=f"spectrum at the end of training, {run.classes} classes")
    for k, (epoch, spectrum) in enumerate(zip(run.epochs, run.spectra, strict=True)):
        color = str(0.75 - 0.75 * k / len(run.epochs))
        look = {"color": color, "marker": MARKERS[k % 6], "ms": 4, "label": f"epoch {epoch}"}
        axes[1].plot(np.arange(1, 26), np.maximum(spectrum[::-1][:25], 1e-8), **look)
    axes[1].axvline(run.classes - 0.5, color=plots.ORANGE, ls="--", lw=1, label="classes − 1")
    axes[1].set(yscale="log", xlabel="rank from the top", ylabel="eigenvalue", xticks=[1, 5, 10, 15, 20, 25])
    axes[1].set(title=f"top of the spectrum in training, {run.classes} classes")
    axes[1].legend(frameon=False, fontsize="small")
    last = rows[rows.epoch == rows.epoch.max()].groupby("classes").outliers
    means, halves = zip(*(mean_interval(part) for _, part in last), strict=True)
    classes = np.array(list(last.groups))
    axes[2].errorbar(classes, means, halves, fmt="o", color=plots.BLUE, capsize=3, label="measured, 95 %")
    axes[2].plot(classes, classes, ":", color=plots.GREY, label="classes")
    axes[2].plot(classes, classes - 1, "--", color=plots.ORANGE, label="classes − 1")
    title = "outliers at the end of training"
    axes[2].set(xlabel="classes", ylabel="eigenvalues above the largest gap", xticks=classes, title=title)
    axes[2].yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes[2].legend(frameon=False)
    for k, (number, part) in enumerate(rows.groupby("classes")):
        mean = part.groupby("epoch").negative_size.mean()
        look = {"color": COLOURS[k % 6], "ls": LINES[k % 6], "marker": MARKERS[k % 6], "ms": 4}
        axes[3].plot(mean.index + 1, mean, label=f"{number} classes", **look)
    axes[3].set(xscale="log", yscale="log", xlabel="epoch + 1", ylabel="−smallest / largest eigenvalue")
    axes[3].set(title="most negative eigenvalue, mean over seeds")
    axes[3].legend(frameon=False, fontsize="small")
    return figure


def conclusion(rows: pd.DataFrame, errors: pd.DataFrame) -> str:
    """Return what was found, in sentences filled with numbers."""
    first, last = rows[rows.epoch == 0], rows[rows.epoch == rows.epoch.max()]
    gap = last.outliers - last.classes
    bulk, bulk_half = mean_interval(last.bulk_share)
    holds = " holds" if gap.isin([0, -1]).mean() > 0.5 else " does not hold for most runs"
    return (
        f"Found: at the end {100 * bulk:.0f} ± {100 * bulk_half:.0f} % of the eigenvalues are at most {BULK:g} of the"
        f" largest in size; there are as many outliers as classes in {int((gap == 0).sum())} of {len(last)} runs, one"
        f" fewer in {int((gap == -1).sum())}, fewer still in {int((gap < -1).sum())}, more in {int((gap > 0).sum())}"
        f" (the published count{holds} here). The most negative eigenvalue goes from {first.negative_size.mean():.2g}"
        f" to {last.negative_size.mean():.2g} of the largest. The quadrature has a relative error of at most"
        f" {errors.largest_off.max():.1e} in the largest node and {errors.outside.max():.1e} outside the spectrum, and"
        f" of {errors.distribution_off.max():.3f} in the distribution."
    )


def run(settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train, measure, print and save; return one row for each point, and the errors of the quadrature."""
    folder = RunFolder("hessian_spectrum", settings, settings.output, resume=settings.resume)
    classes = settings.classes[:2] if settings.quick else settings.classes
    seeds = min(2, settings.seeds) if settings.quick else settings.seeds
    epochs = max(2, settings.epochs // 5) if settings.quick else settings.epochs
    work, runs = [(number, seed) for number in classes for seed in range(seeds)], []
    with jax.enable_x64(True):
        for number, seed in tqdm.tqdm(work, unit="run", disable=None):
            one = functools.partial(train, settings, number, seed, epochs)
            runs.append(folder.kept(f"classes_{number}_seed_{seed}", one))
    rows = pd.DataFrame([row for one in runs for row in rows_of(one)])
    errors = pd.DataFrame([quadrature_errors(one) for one in runs])
    folder.table("points", rows)
    folder.table("quadrature", errors)
    spectra = [(r.classes, r.seed, e, s) for r in runs if r.seed == 0 for e, s in zip(r.epochs, r.spectra, strict=True)]
    columns = ["classes", "seed", "epoch", "eigenvalue"]
    folder.table("spectra", pd.DataFrame(spectra, columns=columns).explode("eigenvalue"))
    folder.figure("hessian_spectrum", draw(runs, rows))
    print(f"Eigenvalues before and after {epochs} epochs; mean ± 95 % half width over {seeds} seeds:")
    print(tables.text(summary(rows), "points"))
    folder.conclude(conclusion(rows, errors))
    return rows, errors


if __name__ == "__main__":
    command_line.start("hessian_spectrum", run, Settings, __doc__)
