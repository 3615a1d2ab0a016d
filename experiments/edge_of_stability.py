"""Does full-batch gradient descent sharpen until the top Hessian eigenvalue is 2/η, and stay there?

A tanh network on 300 centred digits with squared error, trained by plain full-batch gradient descent at several step
sizes η from several starts. The run records the largest eigenvalue λ of the Hessian (`curvature.lanczos`) to a residual
of at most λ / 100. On a quadratic, descent diverges if λ > 2/η. Cohen et al. (2021) observed that λ rises to 2/η
(progressive sharpening) and stays near it, while the loss still falls, though not at every step.
"""

from __future__ import annotations

import dataclasses
import functools
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
from mlp_jax import curvature, datasets, devices, losses, mlp, plots, training
from mlp_jax.confidence import mean_interval

EXAMPLES, START = 300, 0.3
# Products for each look, and the largest residual allowed as a share of the eigenvalue.
PRODUCTS, ACCURACY = 40, 1e-2


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    rates: tuple[float, ...] = (0.2, 0.4, 0.5, 0.7)
    """Step sizes η."""
    seeds: int = 4
    """Starts, the same for every step size."""
    steps: int = 8000
    """Steps at the smallest η; larger η make fewer, so that steps · η is equal."""
    looks: int = 40
    """Number of times that the top eigenvalue is computed."""
    hidden: int = 20
    """Hidden tanh units."""


def loss(params: mlp.Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return half the mean squared error against one-hot targets."""
    return losses.mean(losses.squared_error(mlp.forward(params, x), y))


def batch_loss(params: mlp.Params, x: Any, y: Any, weights: Any, key: Any) -> jax.Array:
    """Return the loss of a batch that is the whole set, which `training.train` shuffles."""
    return losses.mean(losses.squared_error(mlp.forward(params, x), y), weights)


@jax.jit
def look(params: mlp.Params, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the loss, the largest eigenvalue of its Hessian, and the residual of that."""
    value, gradient = jax.value_and_grad(loss)(params, x, y)  # near the top eigenvectors late in the run: a good start
    matvec = curvature.hessian(loss, params, (x, y))
    top = curvature.lanczos(matvec, gradient, num_steps=PRODUCTS).ritz(largest=1)
    return value, top.values[0], top.residuals[0]


def record(x: jax.Array, y: jax.Array, state: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Look at a state inside the compiled run."""
    return look(state.params, x, y)


def follow(settings: Settings, rate: float, seed: int, steps: int, looks: int) -> pd.DataFrame:
    """Return one row for each look: step, loss, top eigenvalue, and the share of recent steps that raised the loss."""
    digits = datasets.load("digits").train
    inputs = digits.inputs[:EXAMPLES].astype(np.float64)
    x = jnp.asarray(2 * (inputs - inputs.mean(0)))
    y = jax.nn.one_hot(digits.targets[:EXAMPLES], 10, dtype=jnp.float64)
    key = jax.random.fold_in(jax.random.key(settings.seed), seed)
    # A small start has little curvature, so that the curvature seen later was not there from the beginning.
    params = jax.tree.map(lambda p: START * p, mlp.init(key, (64, settings.hidden, 10), dtype=jnp.float64))
    between = max(1, round(steps / looks))
    _, history = training.train(
        key, batch_loss, params, (x, y), optimizer=_descent(rate), batch_size=EXAMPLES, epochs=looks * between,
        record=jax.tree_util.Partial(record, x, y), record_every=between,
    )  # fmt: skip
    first = look(params, x, y)
    value, sharpness, residual = (np.append(a, b) for a, b in zip(first, history.record, strict=True))
    unsure = residual > ACCURACY * np.abs(sharpness)
    if np.any(unsure):
        raise RuntimeError(f"{unsure.sum()} of {len(unsure)} top eigenvalues have not converged: raise PRODUCTS.")
    every = np.append(history.loss, value[-1])
    rising = np.append(np.nan, (every[1:] > every[:-1]).reshape(looks, between).mean(axis=1))
    frame = pd.DataFrame({"step": between * np.arange(looks + 1), "loss": value, "sharpness": sharpness})
    frame = frame.assign(rising_share=rising, rate=rate, seed=seed, times_threshold=frame.sharpness * rate / 2)
    lost = ~np.isfinite(value)
    frame.loc[lost, ["loss", "sharpness", "rising_share", "times_threshold"]] = np.inf, np.nan, np.nan, np.nan
    return frame[np.cumsum(lost) <= 1]


# One object for each rate, so that the other seeds compile nothing.
_descent = functools.cache(optax.sgd)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each step size: means with 95 % half widths over seeds."""
    table = []
    for rate, part in rows.groupby("rate"):
        runs = [one for _, one in part.groupby("seed")]
        late = [one.iloc[len(one) // 2 :] for one in runs]
        columns = {
            "sharpness at the start": [one.sharpness.iloc[0] for one in runs],
            "λ η / 2, largest": [one.times_threshold.max() for one in runs],
            "λ η / 2, mean of the second half": [one.times_threshold.mean() for one in late],
            "share of steps that raise the loss, second half": [one.rising_share.mean() for one in late],
            "loss, first": [one.loss.iloc[0] for one in runs],
            "loss, middle": [one.loss.iloc[0] for one in late],
            "loss, last": [one.loss.iloc[-1] for one in runs],
        }
        diverged = sum(np.isinf(one.loss).any() for one in runs)
        row: dict[str, Any] = {"rate": rate, "2 / η": 2 / rate, "diverged": diverged}
        for name, values in columns.items():
            mean, half = mean_interval(values)
            row[name], row[f"{name} ±"] = float(mean), float(half)
        table.append(row)
    return pd.DataFrame(table)


def draw(rows: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: top eigenvalue with 2/η for each step size, and the loss."""
    figure = matplotlib.figure.Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    colors, styles = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.YELLOW), ("-", "--", "-.", ":")
    for k, (rate, part) in enumerate(rows.groupby("rate")):
        for number, (_, one) in enumerate(part[np.isfinite(part.loss)].groupby("seed")):
            label = f"η = {rate:g}" if number == 0 else None
            look = {"color": colors[k % 5], "ls": styles[k % 4], "lw": 1, "label": label}
            left.plot(one.step * rate, one.sharpness, **look)
            right.plot(one.step * rate, one.loss, **look)
        left.axhline(2 / rate, color=colors[k % 5], lw=0.8, alpha=0.7)
    left.set(xlabel="step · η", ylabel="largest eigenvalue (thin lines: 2 / η)", ylim=(0, None))
    left.set(title="sharpness, and the edge of stability")
    right.set(xlabel="step · η", ylabel="training loss", yscale="log", title="loss (each line a seed)")
    right.legend(frameon=False)  # for both axes: lines fill the left one
    return figure


def conclusion(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """Return what was found, as one sentence filled with numbers."""
    late = table["λ η / 2, mean of the second half"]
    reached = [one.times_threshold.max() >= 1 for _, one in rows.groupby(["rate", "seed"])]
    name = "share of steps that raise the loss, second half"
    falls = [one.loss.iloc[-1] < one.loss.iloc[len(one) // 2] for _, one in rows.groupby(["rate", "seed"])]
    return (
        f"Found: the top eigenvalue reaches 2/η in {sum(reached)} of {len(reached)} runs, and averages"
        f" {late.min():.2f} to {late.max():.2f} times 2/η over their second halves; there {100 * table[name].min():.0f}"
        f" to {100 * table[name].max():.0f} % of the steps raise the loss, but it ends lower than in the middle in"
        f" {sum(falls)} of {len(falls)} runs; {int(table.diverged.sum())} diverged."
    )


def run(settings: Settings) -> pd.DataFrame:
    """Descend, measure, print and save; return one row for each look."""
    folder = RunFolder("edge_of_stability", settings, settings.output, resume=settings.resume)
    rates = settings.rates[-2:] if settings.quick else settings.rates
    seeds = min(2, settings.seeds) if settings.quick else settings.seeds
    steps = settings.steps // 4 if settings.quick else settings.steps
    looks = settings.looks // 4 if settings.quick else settings.looks

    def one(seed: int, rate: float) -> pd.DataFrame:
        with jax.enable_x64(True):
            return follow(settings, rate, seed, round(steps * min(settings.rates) / rate), looks)

    def of_seed(seed: int) -> pd.DataFrame:
        return pd.concat(devices.over_cores(functools.partial(one, seed), rates), ignore_index=True)

    frames = [
        folder.kept(f"seed_{n}", functools.partial(of_seed, n)) for n in tqdm.trange(seeds, unit="seed", disable=None)
    ]
    rows = pd.concat(frames, ignore_index=True)
    table = summary(rows)
    folder.table("looks", rows)
    folder.table("summary", table)
    folder.figure("edge_of_stability", draw(rows))
    print(f"64-{settings.hidden}-10 on {EXAMPLES} digits, squared error; mean and 95 % half width over {seeds} seeds:")
    print(tables.text(table.set_index("rate").T, "summary", index=True))
    folder.conclude(conclusion(rows, table))
    return rows


if __name__ == "__main__":
    command_line.start("edge_of_stability", run, Settings, __doc__)
