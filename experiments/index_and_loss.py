"""Do critical points of higher index have a higher loss, and what do points that only look critical do to the picture?

Hundreds of critical points of a tanh network on digits, reduced to their first 10 principal components: searches for
each index start from points of a training run and from random points, and every end is classified with an error bound.
Dauphin et al. (2014) drew the share of negative eigenvalues against the loss; Frye et al. (2021) showed that most
points in such figures were gradient-flat, not critical. So the figure is drawn twice: with the true critical points,
and with the ends of gradient-norm descents that stopped elsewhere beside them. Points padded with dead hidden units
belong to a smaller network: marked, and not counted. A linear autoencoder, whose relation is known in closed form, is
the control.
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
import scipy.stats
import tqdm

from experiments._shared import all_devices, command_line, linear_control, tables
from experiments._shared.classifier import all_digits, classifier
from experiments._shared.live import live_units
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import critical, datasets, mlp, plots, training
from mlp_jax.confidence import mean_interval

COMPONENTS, CLASSES = 10, 10


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    hidden: int = 8
    """Hidden tanh units."""
    examples: int = 600
    """Digits that the loss sees."""
    weight_decay: float = 1e-2
    """Strength s of the penalty (s / 2) ‖θ‖², biases included."""
    largest_index: int = 44
    """Searches are made for every index up to this one."""
    starts: int = 14
    """Searches for each index: half from the training run, half from random points."""
    descents: int = 60
    """Descents of the gradient norm, which aim at no index and may stop where the gradient is flat."""


class Problem(NamedTuple):
    """The loss on the reduced digits, its fast Hessian, the data, and the spectrum of all digits' components."""

    fun: Callable[..., jax.Array]
    hessian: Callable[..., jax.Array]
    data: tuple[np.ndarray, np.ndarray]
    run: mlp.Params
    variances: np.ndarray


def make_problem(settings: Settings) -> Problem:
    """Return the problem, with the points of one training run."""
    inputs, targets = all_digits()
    centred = inputs - inputs.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    reduced = left[:, :COMPONENTS] * np.sqrt(len(left))
    data = reduced[: settings.examples], targets[: settings.examples]

    model = classifier(settings.weight_decay)
    init_key, train_key = jax.random.split(jax.random.key(settings.seed))
    _, history = training.train(
        train_key,
        model.batch_loss,
        mlp.init(init_key, (COMPONENTS, settings.hidden, CLASSES), dtype=jnp.float64),
        datasets.Examples(*map(jnp.asarray, data)),
        optimizer=optax.sgd(0.2),
        batch_size=50,
        epochs=30,
        record=lambda state: state.params,
    )
    return Problem(model.fun, model.hessian, data, history.record, sizes**2 / len(left))


def starts(settings: Settings, problem: Problem, number: int, key: jax.Array) -> mlp.Params:
    """Return starts: the first half along the run, with noise, the others random, of two scales."""
    run_key, init_key = jax.random.split(key)
    sizes = (COMPONENTS, settings.hidden, CLASSES)
    along = critical.along_run(run_key, problem.run, number // 2, 0.2)
    drawn = [mlp.init(k, sizes, dtype=jnp.float64) for k in jax.random.split(init_key, number)[number // 2 :]]
    scaled = [jax.tree.map(lambda leaf, s=1.0 + 1.5 * (i % 2): s * leaf, one) for i, one in enumerate(drawn)]
    return jax.tree.map(lambda run, *others: jnp.concatenate([run, jnp.stack(others)]), along, *scaled)


def search(settings: Settings, problem: Problem, folder: RunFolder) -> pd.DataFrame:
    """Return one row an end of a search: what it is, its index and loss, and what a naive count of signs would say."""
    step, share = (5, 4) if settings.quick else (1, 1)
    wanted: list[int | None] = list(range(0, settings.largest_index + 1, step))
    key, rows = jax.random.key(settings.seed + 1), list[dict[str, Any]]()
    with tqdm.tqdm([*wanted, None], unit="index") as bar:
        for index in bar:
            number = settings.descents if index is None else settings.starts
            start_key = jax.random.fold_in(key, settings.largest_index + 1 if index is None else index)
            begin = starts(settings, problem, max(2, number // share), start_key)
            bar.set_postfix_str("any index" if index is None else f"index {index}")
            rows += folder.kept(f"index_{index}", functools.partial(ends, settings, problem, begin, index))
    return pd.DataFrame(rows).astype({"index": "Int64", "wanted": "Int64"})


def ends(settings: Settings, problem: Problem, begin: mlp.Params, index: int | None) -> list[dict[str, Any]]:
    """Return one row a start: what its search ended at."""
    found = critical.find_many(
        problem.fun, begin, problem.data, index=index, hessian=problem.hessian, max_steps=120, mesh=all_devices.mesh()
    )
    points = [jax.tree.map(lambda leaf, i=i: leaf[i], found.params) for i in range(len(found.converged))]
    return [describe(settings, problem, params, index) for params in points]


def describe(settings: Settings, problem: Problem, params: mlp.Params, wanted: int | None) -> dict[str, Any]:
    """Return the row of one end."""
    verdict = critical.classify(problem.fun, params, problem.data, hessian=problem.hessian)
    matrix = np.asarray(problem.hessian(params, *problem.data))
    return {
        "wanted": wanted,
        "kind": verdict.kind,
        "index": verdict.index,
        "share": np.nan if verdict.index is None else verdict.index / len(matrix),
        "naive_share": float(np.mean(np.linalg.eigvalsh(matrix) < 0)),
        "loss": float(problem.fun(params, *problem.data)),
        "gradient_norm": verdict.gradient_norm,
        "flatness": verdict.flatness,
        "padded": live_units(params) < settings.hidden,
        "parameters": len(matrix),
    }


def once(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the critical points, each once: those of the same index and loss (to 1e-9) are copies of one."""
    known = rows[rows["index"].notna()]
    return known.loc[~known.assign(loss=known.loss.round(9)).duplicated(["index", "loss"])]


def by_index(points: pd.DataFrame, width: int = 5) -> pd.DataFrame:
    """Return the mean loss with its 95 % half width, by ranges of the index."""
    table = []
    for low, part in points.groupby(points["index"].astype(int) // width * width):
        mean, half = mean_interval(part.loss)
        own = part[~part.padded]
        table.append(
            {
                "indices": f"{low} to {low + width - 1}",
                "points": len(own),
                "padded": int(part.padded.sum()),
                "mean_loss": float(mean),
                "half_width": float(half),
                "lowest": part.loss.min(),
                "highest": part.loss.max(),
            }
        )
    return pd.DataFrame(table)


def correlation(share: pd.Series, loss: pd.Series, seed: int) -> tuple[float, float, float]:
    """Return Spearman's rank correlation with its 95 % bootstrap interval."""
    if len(share) < 10:
        return np.nan, np.nan, np.nan
    values = np.column_stack([share.to_numpy(float), loss.to_numpy(float)])
    found = scipy.stats.bootstrap(
        (np.arange(len(values)),), lambda rows: scipy.stats.spearmanr(values[rows])[0], vectorized=False,
        n_resamples=999, rng=np.random.default_rng(seed), method="percentile",
    )  # fmt: skip
    low, high = found.confidence_interval
    return float(scipy.stats.spearmanr(values)[0]), float(low), float(high)


def draw(points: pd.DataFrame, flat: pd.DataFrame, control: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: true critical points; gradient-flat ends beside them; the control against its closed form."""
    figure = matplotlib.figure.Figure(figsize=(14, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    own, padded = points[~points.padded], points[points.padded]
    for axes in (left, middle):
        axes.scatter(own.loss, own.share.astype(float), 14, color=plots.BLUE, label="critical point")
        if len(padded):
            axes.scatter(padded.loss, padded.share.astype(float), 14, "none", edgecolors="black", label="padded")
        axes.set(xlabel="loss (nats, with penalty)", ylabel="share of negative eigenvalues")
    middle.scatter(flat.loss, flat.naive_share, 14, color=plots.ORANGE, marker="x", label="not critical, signs counted")
    left.set_title("critical points only")
    middle.set_title("with ends of descents that are not critical")
    right.plot(control.known_loss, control.known_index, "s", mfc="none", color=plots.GREY, ms=9, label="closed form")
    right.plot(control.loss, control["index"], ".", color=plots.BLUE, label="found")
    right.set(xlabel="loss", ylabel="index", title="control: linear autoencoder")
    right.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    for axes in (left, middle, right):
        axes.legend(fontsize="small")  # framed: its markers would pass for points
    return figure


def conclusion(rows: pd.DataFrame, points: pd.DataFrame, flat: pd.DataFrame, control: pd.DataFrame, seed: int) -> str:
    """Return what was found, in words made from the numbers."""
    own = points[~points.padded]
    rho, low, high = correlation(own.share, own.loss, seed)
    both = pd.concat([own.share.astype(float), flat.naive_share])
    mixed = correlation(both, pd.concat([own.loss, flat.loss]), seed)
    agrees = int((control["index"] == control.known_index).sum())
    return (
        f"Found: {len(own)} critical points of {own['index'].nunique()} indices, {int(points.padded.sum())} padded ones"
        f" apart, from {len(rows)} searches. The share of negative eigenvalues goes with the loss: rank correlation"
        f" {rho:.3f} ({low:.3f} to {high:.3f}); with {len(flat)} ends that are not critical among them it would be"
        f" {mixed[0]:.3f} ({mixed[1]:.3f} to {mixed[2]:.3f}). Of the control's {len(control)} points {agrees} have the"
        f" index of the closed form (loss off by {control.off.max():.0e} at most)."
    )


def run(settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Search, classify, print and save; return the distinct points and the control."""
    folder = RunFolder("index_and_loss", settings, settings.output, resume=settings.resume)
    with jax.enable_x64(True):
        problem = make_problem(settings)
        rows = search(settings, problem, folder)
        variances = problem.variances[:6] / problem.variances[:6].sum()
        number, key = 40 if settings.quick else 200, jax.random.key(settings.seed)
        control = folder.kept("control", lambda: linear_control.search(variances, 3, number, key))
    points, flat = once(rows), rows[(rows.kind == "not critical") & rows.wanted.isna()]
    table = by_index(points)
    for name, frame in (("searches", rows), ("points", points), ("by_index", table), ("control", control)):
        folder.table(name, frame)
    folder.figure("index_and_loss", draw(points, flat, control))
    size = int(rows.parameters.iloc[0])
    print(f"{COMPONENTS}-{settings.hidden}-{CLASSES} on {settings.examples} digits, P = {size}; mean loss ± 95 %:")
    print(tables.text(table, "by_index", float_format="{:.4f}".format))
    print("\nEnds of all searches:", ", ".join(f"{n} {kind}" for kind, n in rows.kind.value_counts().items()))
    folder.conclude(conclusion(rows, points, flat, control, settings.seed))
    return points, control


def main() -> None:
    """Read the command line and run."""
    command_line.start("index_and_loss", run, Settings, __doc__)


if __name__ == "__main__":
    main()
