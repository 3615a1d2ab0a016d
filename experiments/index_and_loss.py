"""Do critical points of higher index have a higher loss, and what do points that only look critical do to the picture?

Hundreds of critical points of a tanh network on digits, reduced to their first 10 principal components: searches for
some indices start from points of a training run and from random points, `critical.ladder` goes on from what they find
to the indices between, and every end is classified with an error bound.
Dauphin et al. (2014) drew the share of negative eigenvalues against the loss; Frye et al. (2021) showed that most
points in such figures were gradient-flat, not critical. So the figure is drawn twice: with the true critical points,
and with the ends of gradient-norm descents that stopped elsewhere beside them. Points padded with dead hidden units
belong to a smaller network: marked, and not counted. A linear autoencoder, whose relation is known in closed form, is
the control.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import matplotlib.figure
import matplotlib.ticker
import numpy as np
import pandas as pd
import scipy.stats
import tqdm

from experiments._shared import all_devices, command_line, linear_control, tables
from experiments._shared.live import live_units
from experiments._shared.reduced_digits import CLASSES, COMPONENTS, Problem, problem, starts
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import _parallel, critical, mlp, plots
from mlp_jax.confidence import mean_interval

# Searches are made for indices this far apart; ladders fill the gaps.
SPACING = 5
MAX_STEPS = 120


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
    """Largest index of the searches and ladders."""
    starts: int = 5
    """Searches for every fifth index: half from the training run, half from random points."""
    wanted: int = 3
    """Distinct critical points of an index: with fewer, ladders climb to it from its neighbours; 1 when quick."""
    descents: int = 30
    """Descents of the gradient norm, which aim at no index and may stop where the gradient is flat."""


class Ends(NamedTuple):
    """Ends of searches: one row each, and their params, stacked."""

    rows: list[dict[str, Any]]
    params: mlp.Params


def search(settings: Settings, digits: Problem, folder: RunFolder) -> pd.DataFrame:
    """Return one row an end of a search: what it is, its index and loss, and what a naive count of signs would say."""
    share, indices = 4 if settings.quick else 1, range(settings.largest_index + 1)
    key, found = jax.random.key(settings.seed + 1), list[Ends]()
    with tqdm.tqdm([None, *indices[::SPACING]], unit="index", desc="searches", disable=None) as bar:
        for index in bar:
            number = settings.descents if index is None else settings.starts
            start_key = jax.random.fold_in(key, settings.largest_index + 1 if index is None else index)
            begin = starts(digits, max(2, number // share), start_key)
            found.append(folder.kept(f"index_{index}", functools.partial(searched, settings, digits, begin, index)))
    for index in tqdm.tqdm(indices, unit="index", desc="ladders", disable=None):
        found.append(folder.kept(f"ladders_{index}", functools.partial(climbed, settings, digits, found, index)))
    rows = [row for ends in found for row in ends.rows]
    return pd.DataFrame(rows).astype({"index": "Int64", "wanted": "Int64"})


def searched(settings: Settings, digits: Problem, begin: mlp.Params, index: int | None) -> Ends:
    """Return the ends of searches for an index, or of descents of the gradient norm."""
    method = critical.newton_mr if index is None else None
    search_from = functools.partial(critical.find_many, digits.fun, index=index, method=method, max_steps=MAX_STEPS)
    found = search_from(begin, digits.data, hessian=digits.hessian, mesh=all_devices.mesh())
    return described(settings, digits, found.params, index, ladder=False)


def climbed(settings: Settings, digits: Problem, found: list[Ends], index: int) -> Ends:
    """Return the ends of ladders to an index, one rung up or down from points of its neighbours."""
    params = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(ends.params for ends in found))
    points = once(pd.DataFrame([row for ends in found for row in ends.rows])).query("not padded")
    missing = (1 if settings.quick else settings.wanted) - int((points["index"] == index).sum())
    beside = points.index[(points["index"] - index).abs() == 1][: max(0, missing)]

    def climb(i: int) -> mlp.Params:
        up = int(points["index"][i] < index)
        ladder = functools.partial(critical.ladder, up=up, down=1 - up, hessian=digits.hessian, max_steps=MAX_STEPS)
        return ladder(digits.fun, one(params, i), digits.data).params

    rungs = _parallel.over_cores(climb, beside)
    ends = jax.tree.map(lambda leaf, *others: np.concatenate([leaf[:0], *others]), params, *rungs)
    return described(settings, digits, ends, index, ladder=True)


def described(settings: Settings, digits: Problem, params: mlp.Params, index: int | None, ladder: bool) -> Ends:
    """Return the ends with a row each, on every core."""
    row = functools.partial(describe, settings, digits, index, ladder)
    return Ends(_parallel.over_cores(row, [one(params, i) for i in range(len(params[0].weight))]), params)


def one(params: mlp.Params, i: int) -> mlp.Params:
    """Return the i-th of stacked params."""
    return jax.tree.map(lambda leaf: leaf[i], params)


def describe(
    settings: Settings, digits: Problem, wanted: int | None, ladder: bool, params: mlp.Params
) -> dict[str, Any]:
    """Return the row of one end."""
    verdict = critical.classify(digits.fun, params, digits.data, hessian=digits.hessian)
    with jax.enable_x64(True):  # a setting of each thread
        matrix = np.asarray(digits.hessian(params, *digits.data))
        loss = float(digits.fun(params, *digits.data))
    return {
        "wanted": wanted,
        "ladder": ladder,
        "kind": verdict.kind,
        "index": verdict.index,
        "share": np.nan if verdict.index is None else verdict.index / len(matrix),
        "naive_share": float(np.mean(np.linalg.eigvalsh(matrix) < 0)),
        "loss": loss,
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
        f" apart, from {sum(~rows.ladder)} searches and {sum(rows.ladder)} ends of ladders. The share of negative"
        f" eigenvalues goes with the loss: rank correlation {rho:.3f} ({low:.3f} to {high:.3f}); with {len(flat)} ends"
        f" that are not critical among them it would be"
        f" {mixed[0]:.3f} ({mixed[1]:.3f} to {mixed[2]:.3f}). Of the control's {len(control)} points {agrees} have the"
        f" index of the closed form (loss off by {control.off.max():.0e} at most)."
    )


def run(settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Search, classify, print and save; return the distinct points and the control."""
    folder = RunFolder("index_and_loss", settings, settings.output, resume=settings.resume)
    with jax.enable_x64(True):
        digits = problem(settings.hidden, settings.examples, settings.weight_decay, settings.seed)
        rows = search(settings, digits, folder)
        variances = digits.variances[:6] / digits.variances[:6].sum()
        number, key = 40 if settings.quick else 100, jax.random.key(settings.seed)
        control = folder.kept("control", lambda: linear_control.search(variances, 3, number, key))
    points, flat = once(rows), rows[(rows.kind == "not critical") & rows.wanted.isna()]
    table = by_index(points)
    for name, frame in (("searches", rows), ("points", points), ("by_index", table), ("control", control)):
        folder.table(name, frame)
    folder.figure("index_and_loss", draw(points, flat, control))
    size = int(rows.parameters.iloc[0])
    print(f"{COMPONENTS}-{settings.hidden}-{CLASSES} on {settings.examples} digits, P = {size}; mean loss ± 95 %:")
    print(tables.text(table, "by_index", float_format="{:.4f}".format))
    print("\nEnds of all searches:", ", ".join(f"{kind} {n}" for kind, n in rows.kind.value_counts().items()))
    folder.conclude(conclusion(rows, points, flat, control, settings.seed))
    return points, control


if __name__ == "__main__":
    command_line.start("index_and_loss", run, Settings, __doc__)
