"""Is the noise of minibatch gradients aligned with the Hessian, and what do batch size and replacement change?

A tanh network on digits is trained by SGD with small and large batches, drawn with and without replacement. Along each
run the covariance Σ of the per-example gradients is compared with the Hessian H: their cosine in the Frobenius inner
product, the shares of their traces along the ten top eigenvectors of H, and vᵀΣv against vᵀHv along those with positive
eigenvalues. At the end of the runs, gradients of batches drawn by `training.order` give the factor c(B) of their
covariance c(B) Σ, and its cosine with H; the norm of the measured covariance is that of two halves of the draws, which
is unbiased. Jastrzębski et al. (2017); Thomas et al. (2020).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
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
from experiments._shared.spectra import recorded_params
from mlp_jax import datasets, devices, gradient_noise, losses, mlp, mlp_hessian, plots, training, tree
from mlp_jax.confidence import mean_interval, show

HIDDEN, TOP = 10, 10
RUNS = tuple(itertools.product((16, 256), (False, True)))
NAMES = {False: "without", True: "with"}
DRAWN = (4, 16, 64, 256, 1024)


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    seeds: int = 3
    """Starts, the same for every way of drawing batches."""
    epochs: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Epochs after which a run is looked at, increasing; 0 is added."""
    draws: int = 2000
    """Batches drawn of each size at the end of the runs."""
    rates: tuple[float, float] = (0.2, 0.8)
    """Learning rates of the small and of the large batches."""


def per_example(params: mlp.Params, x: Any, y: Any) -> jax.Array:
    """Return the cross-entropy of each example."""
    return losses.cross_entropy(mlp.forward(params, x), y)


def batch_loss(params: mlp.Params, x: Any, y: Any, weights: Any, key: Any) -> jax.Array:
    """Return the mean cross-entropy of a batch."""
    return losses.mean(per_example(params, x, y), weights)


@jax.jit
def measure(params: mlp.Params, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array, Any, Any, jax.Array]:
    """Return Σ, H, their alignment along the eigenvectors of H, ascending, the noise scale, and the loss."""
    covariance = gradient_noise.dense_covariance(per_example, params, (x, y))
    hessian = mlp_hessian.dense(params, x, y, loss=losses.cross_entropy, activation=jnp.tanh)
    vectors = jnp.linalg.eigh(hessian)[1].T
    found = gradient_noise.alignment(covariance.__matmul__, hessian.__matmul__, vectors)
    noise = gradient_noise.exact(per_example, params, (x, y))
    return covariance, hessian, found, noise, jnp.mean(per_example(params, x, y))


@jax.jit
def noise_of_examples(params: mlp.Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the gradient of each example minus their mean, (n, P)."""

    def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return tree.ravel(jax.grad(lambda p: per_example(p, pair[0][None], pair[1][None])[0])(params))[0]

    gradients = jax.lax.map(one, (x, y), batch_size=256)
    return gradients - jnp.mean(gradients, axis=0)


def look(params: mlp.Params, data: datasets.Examples) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the measures at one point, and the quotients along the eigenvectors of the Hessian, the largest first."""
    *_, found, noise_scale, value = measure(params, *data)
    noise, curvature = np.asarray(found.noise)[::-1], np.asarray(found.curvature)[::-1]
    positive = curvature > 1e-6 * curvature[0]
    row = {"loss": float(value), "cosine": float(found.cosine)}
    row |= {"noise in the top": noise[:TOP].sum() / noise.sum()}
    row |= {"curvature in the top": curvature[:TOP].sum() / np.abs(curvature).sum()}
    row["slope"] = np.polyfit(np.log(curvature[positive]), np.log(noise[positive]), 1)[0]
    row["noise scale"] = float(noise_scale.scale)
    return row, pd.DataFrame({"curvature": curvature, "noise": noise})


def drawn(params: mlp.Params, data: datasets.Examples, key: jax.Array, draws: int) -> pd.DataFrame:
    """Return one row for each batch size and way of drawing: the factor of the covariance, and its cosine with H."""
    covariance, hessian = map(np.asarray, measure(params, *data)[:2])
    centred = np.asarray(noise_of_examples(params, *data))
    rows = []
    for replace in NAMES:
        orders = np.asarray(_orders(key, draws, len(centred), replace))
        for size in DRAWN:
            numbers = np.zeros((draws, len(centred)))
            np.add.at(numbers, (np.arange(draws)[:, None], orders[:, :size]), 1 / size)
            noise = numbers @ centred
            halves = np.array_split(noise, 2)
            squared_norm = np.mean((halves[0] @ halves[1].T) ** 2)
            along = np.mean(np.sum((noise @ hessian) * noise, axis=1))
            theory = gradient_noise.coefficient(size, num_examples=None if replace else len(centred))
            row = {"batch size": size, "replacement": NAMES[replace], "theory": theory}
            row["factor"] = np.mean(np.sum(noise**2, axis=1)) / np.trace(covariance)
            row["cosine"] = along / np.sqrt(squared_norm) / np.linalg.norm(hessian)
            rows.append(row)
    return pd.DataFrame(rows)


def follow(settings: Settings, number: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the looks along one run; at its end the quotients along eigenvectors, and the batches drawn."""
    (batch_size, replace), rate = RUNS[number], settings.rates[number // 2]
    with jax.enable_x64(True):
        digits = datasets.load("digits").train
        data = datasets.Examples(digits.inputs.astype(np.float64), digits.targets)
        init_key, run_key, draw_key = jax.random.split(jax.random.fold_in(jax.random.key(settings.seed), seed), 3)
        start = mlp.init(init_key, (64, HIDDEN, 10), dtype=jnp.float64)
        _, history = training.train(
            run_key, batch_loss, start, data, optimizer=_descent(rate), batch_size=batch_size, replace=replace,
            epochs=settings.epochs[-1], record=recorded_params,
        )  # fmt: skip
        rows = []
        for epoch in (0, *settings.epochs):
            params = jax.tree.map(lambda leaf, n=epoch: leaf[n - 1], history.record) if epoch else start
            row, quotients = look(params, data)
            names = {"batch size": batch_size, "replacement": NAMES[replace], "seed": seed, "epoch": epoch}
            rows.append(names | row)
        return pd.DataFrame(rows), quotients, drawn(params, data, jax.random.fold_in(draw_key, number), settings.draws)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _orders(key: jax.Array, number: int, num_examples: int, replace: bool) -> jax.Array:
    draw = functools.partial(training.order, key, num_examples=num_examples, replace=replace)
    return jax.lax.map(draw, jnp.arange(number))


# One object for each rate, so that the other runs compile nothing.
_descent = functools.cache(optax.sgd)


def summary(looks: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each way of drawing batches and epoch: means with 95 % intervals over seeds."""
    by = ["batch size", "replacement", "epoch"]
    return looks.drop(columns="seed").groupby(by, sort=False).agg(show).reset_index()


def draw(looks: pd.DataFrame, quotients: pd.DataFrame, batches: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: cosine along the runs, quotients at the end of one, and the factor of batches drawn."""
    figure = matplotlib.figure.Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    colors = {16: plots.BLUE, 256: plots.ORANGE}
    for (size, replacement), part in looks.groupby(["batch size", "replacement"], sort=False):
        by_epoch = part.groupby("epoch").cosine
        means, halves = zip(*(mean_interval(one) for _, one in by_epoch), strict=True)
        look: dict[str, Any] = {"color": colors[size], "ls": "--" if replacement == "with" else "-", "capsize": 2}
        left.errorbar(sorted(part.epoch.unique()), means, halves, label=f"{size}, {replacement}", **look)
    left.set(xlabel="epoch", ylabel="cosine of Σ and H", ylim=(0, 1), xscale="symlog", title="alignment")
    left.set_xlim(-0.2, 1.2 * looks.epoch.max())
    epochs = sorted(looks.epoch.unique())
    left.set_xticks(epochs, [str(epoch) for epoch in epochs])
    left.minorticks_off()
    left.legend(title="batch size, replacement", fontsize="small", frameon=False)
    shown = quotients[quotients.curvature > 1e-6 * quotients.curvature.max()]
    middle.loglog(shown.curvature, shown.noise, ".", ms=3, color=plots.BLUE)
    middle.loglog(shown.curvature, shown.curvature, color="black", lw=0.7, label="equal")
    middle.set(xlabel="vᵀHv", ylabel="vᵀΣv", title="along eigenvectors of H, at the end")
    middle.legend(frameon=False)
    for (replacement, part), marker in zip(batches.groupby("replacement", sort=False), ("o", "s"), strict=True):
        mean = part.groupby("batch size")[["theory", "factor"]].mean()
        color = plots.BLUE if replacement == "without" else plots.ORANGE
        right.loglog(mean.index, mean.factor, marker, color=color, ms=4, label=f"{replacement} replacement")
        right.loglog(mean.index, mean.theory, color=color, lw=0.8)
    right.set(xlabel="batch size B", ylabel="tr cov / tr Σ (lines: c(B))", title="noise of batches")
    right.legend(frameon=False)
    return figure


def conclusion(looks: pd.DataFrame, batches: pd.DataFrame, draws: int) -> str:
    """Return what was found, as one sentence filled with numbers."""
    first, last = (looks[looks.epoch == epoch] for epoch in (0, looks.epoch.max()))
    ends = ", ".join(
        f"{show(part.cosine, 2)} ({size}, {replacement})"
        for (size, replacement), part in last.groupby(["batch size", "replacement"], sort=False)
    )
    columns = ["ratio", "cosine"]
    means = batches.assign(ratio=batches.factor / batches.theory).groupby(["batch size", "replacement"])[columns].mean()
    return (
        f"Found: the cosine of noise and Hessian is {show(first.cosine.iloc[: looks.seed.nunique()], 2)} at the start"
        f" and at the end, by batch size and replacement, {ends}; there the ten top eigenvectors of the Hessian hold"
        f" {100 * last['noise in the top'].mean():.0f} % of the noise; for batches of {DRAWN[0]} to {DRAWN[-1]}, with"
        f" and without replacement, the noise of {draws} batches is {means.ratio.min():.2f} to {means.ratio.max():.2f}"
        f" times c(B) tr Σ and its cosine with the Hessian {means.cosine.min():.2f} to {means.cosine.max():.2f}, in the"
        f" mean over {batches.run.nunique()} runs."
    )


def run(settings: Settings) -> pd.DataFrame:
    """Train, measure, print and save; return one row for each look."""
    folder = RunFolder("noise_and_curvature", settings, settings.output, resume=settings.resume)
    if settings.quick:
        settings = dataclasses.replace(settings, seeds=min(2, settings.seeds), epochs=(1, 4), draws=300)
    todo = list(itertools.product(range(len(RUNS)), range(settings.seeds)))
    with tqdm.tqdm(total=len(todo), unit="run", leave=False, disable=None) as bar:

        def one(pair: tuple[int, int]) -> tuple[pd.DataFrame, ...]:
            found = folder.kept(f"run {pair}", functools.partial(follow, settings, *pair))
            bar.update()
            return found

        found = devices.over_cores(one, todo)
    looks = pd.concat([frames[0] for frames in found], ignore_index=True)
    batches = pd.concat([frames[2].assign(run=k) for k, frames in enumerate(found)], ignore_index=True)
    table = summary(looks)
    for name, frame in {"looks": looks, "summary": table, "quotients": found[0][1], "batches": batches}.items():
        folder.table(name, frame)
    print(f"64-{HIDDEN}-10 on {1437} digits, mean and 95 % half width over {settings.seeds} seeds:")
    print(tables.text(table, "summary"))
    folder.figure("noise_and_curvature", draw(looks, found[0][1], batches))
    folder.conclude(conclusion(looks, batches, settings.draws))
    return looks


if __name__ == "__main__":
    command_line.start("noise_and_curvature", run, Settings, __doc__)
