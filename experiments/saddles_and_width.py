"""How does the number of saddles per minimum grow with the width of a network, and how negative are its saddles?

A census (`critical.census`) of tanh networks 2-h-1 with weight decay on noisy teachers, for several widths h and data
sets, with the same number of searches: the distinct critical points of each index, their copies (by permutations and
sign flips), an estimate of those not found, and the share of negative eigenvalues at the end of a random search. Points
of smaller networks, padded with zero units, are included and counted.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np
import pandas as pd
import tqdm

from experiments._shared import all_devices, command_line, tables
from experiments._shared.live import live_units
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import critical, losses, mlp, mlp_symmetry, plots, tree
from mlp_jax.confidence import mean_interval, show

INPUTS, EXAMPLES, NOISE = 2, 20, 0.1
DECAY = np.float64(0.003)


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    widths: tuple[int, ...] = (1, 2, 3, 4)
    """Hidden units."""
    teachers: int = 6
    """Data sets, the same for every width."""
    starts: int = 400
    """Searches of each census, in one pass."""


def loss(params: mlp.Params, x: Any, y: Any) -> jax.Array:
    """Return half the mean squared error plus weight decay."""
    fit = losses.mean(losses.squared_error(mlp.forward(params, x), y))
    return fit + 0.5 * jnp.asarray(DECAY, fit.dtype) * tree.dot(params, params)


def teacher(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (n, 2) and the outputs of a random network with three hidden units, with noise."""
    generator = np.random.default_rng((seed, number))
    x = generator.standard_normal((EXAMPLES, INPUTS))
    hidden = np.tanh(2 * x @ generator.standard_normal((INPUTS, 3)) + generator.standard_normal(3))
    return x, hidden @ generator.standard_normal((3, 1)) + NOISE * generator.standard_normal((EXAMPLES, 1))


def count(settings: Settings, width: int, number: int, starts: int) -> list[dict[str, Any]]:
    """Return one row for each critical point of one network on one data set."""
    data = teacher(settings.seed, number)
    init = _inits(width)
    maps = mlp_symmetry.maps(loss, init(jax.random.key(0)), data, activation=jnp.tanh)
    key = jax.random.fold_in(jax.random.key(settings.seed), number)
    found = critical.census(
        loss, init, key, num_starts=starts, args=data, symmetries=maps, passes=1, mesh=all_devices.mesh()
    )
    rows = []
    for i, verdict in enumerate(found.verdicts):
        params = jax.tree.map(lambda leaf, i=i: leaf[i], found.params)
        rows.append(
            {
                "width": width,
                "parameters": tree.size(params),
                "teacher": number,
                "kind": verdict.kind,
                "index": found.indices[i],
                "negative_share": verdict.inertia.negative / tree.size(params),
                "copies": int(found.orbit_sizes[i]),
                "hits": int(found.hits[i]),
                "loss": float(found.values[i]),
                "padded": live_units(params) < width,
                "unseen": found.unseen,
                "unseen_share": found.unseen_share,
            }
        )
    return rows


def _inits(width: int) -> Any:
    def init(key: jax.Array) -> mlp.Params:
        return mlp.init(key, (INPUTS, width, 1))

    return init


def by_teacher(points: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each width and data set: counts, with and without copies and padded points, and ratios."""
    rows = []
    for (width, number), part in points.groupby(["width", "teacher"]):
        known = part[part["index"].notna()]
        minima, saddles = known[known["index"] == 0], known[known["index"] > 0]
        rows.append(
            {
                "width": width,
                "parameters": int(part.parameters.iloc[0]),
                "teacher": number,
                "points": len(known),
                "padded": int(known.padded.sum()),
                "unnamed": len(part) - len(known),
                "minima": len(minima),
                "saddles": len(saddles),
                "copies": int(known.copies.sum()),
                "saddles_a_minimum": len(saddles) / len(minima) if len(minima) else np.nan,
                "copies_ratio": saddles.copies.sum() / minima.copies.sum() if len(minima) else np.nan,
                "negative_share": float(np.average(known.negative_share, weights=known.hits)),
                "share_of_searches_at_saddles": float(known.hits[known["index"] > 0].sum() / known.hits.sum()),
                "unseen": float(part.unseen.iloc[0]),
            }
        )
    return pd.DataFrame(rows)


MEASURES = {
    "points": "distinct points",
    "padded": "of them padded",
    "minima": "minima",
    "saddles": "saddles",
    "unseen": "estimated not seen",
    "copies": "points with copies",
    "saddles_a_minimum": "saddles a minimum",
    "copies_ratio": "the same with copies",
    "share_of_searches_at_saddles": "saddles, share of ends",
    "negative_share": "negative, share at ends",
}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return, for each width, the mean of each measure over data sets with its 95 % half width."""
    rows = []
    for width, part in table.groupby("width"):
        for name, words in MEASURES.items():
            values = part[name].dropna().to_numpy(float)
            mean, half = mean_interval(values) if len(values) else (np.nan, np.nan)
            rows.append({"width": width, "measure": words, "mean": float(mean), "half_width": float(half)})
    return pd.DataFrame(rows)


def printed(summed: pd.DataFrame) -> str:
    """Return the summary as text, one column for each width."""
    cells = summed.assign(cell=[f"{m:.3g} ± {h:.3g}" for m, h in zip(summed["mean"], summed.half_width, strict=True)])
    order = list(MEASURES.values())
    return tables.text(cells.pivot(index="measure", columns="width", values="cell").loc[order], "summary", index=True)


def draw(points: pd.DataFrame, summed: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: counts and ratios against width, and loss against index for each width."""
    figure = matplotlib.figure.Figure(figsize=(13, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _against_width(left, summed, "minima", plots.BLUE, "*", "-", -0.06)
    _against_width(left, summed, "saddles", plots.ORANGE, "o", "--", 0.0)
    _against_width(left, summed, "unseen", plots.GREY, "s", ":", 0.06)
    left.set(xlabel="hidden units", ylabel="distinct critical points", yscale="symlog")
    high = left.get_ylim()[1]
    left.set_yticks([tick for tick in (0, 1, 2, 5, 10, 20, 50, 100) if tick <= high])
    left.yaxis.set_major_formatter("{x:g}")
    left.set(ylim=(-0.2, high), title="counts: mean over data sets, 95 %")
    left.legend(frameon=False, fontsize="small")
    _against_width(middle, summed, "saddles_a_minimum", plots.ORANGE, "o", "--", -0.03)
    _against_width(middle, summed, "copies_ratio", plots.GREEN, "^", "-", 0.03)
    middle.set(xlabel="hidden units", ylabel="saddles for each minimum", title="ratio: mean over data sets, 95 %")
    middle.set_ylim(bottom=0)
    middle.legend(frameon=False, fontsize="small")
    for axes in (left, middle):
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    own = points[points["index"].notna() & ~points.padded]
    colors = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.GREY)
    for number, (width, part) in enumerate(own.groupby("width")):
        share = part["index"].astype(float) / part.parameters
        right.scatter(share, part.loss, 14, color=colors[number % 5], marker="osD^v"[number % 5], label=f"h = {width}")
    right.set(xlabel="share of negative eigenvalues", ylabel="loss (with penalty)", title="points, by hidden units h")
    right.legend(fontsize="small")
    return figure


def _against_width(
    axes: matplotlib.axes.Axes, summed: pd.DataFrame, name: str, color: str, marker: str, line: str, shift: float
) -> None:
    """Draw one measure, shifted so that the error bars of several measures do not overlap."""
    part = summed[summed.measure == MEASURES[name]]
    look: dict[str, Any] = {"color": color, "marker": marker, "ls": line, "capsize": 3, "label": MEASURES[name]}
    axes.errorbar(part.width + shift, part["mean"], part.half_width, **look)


def conclusion(table: pd.DataFrame) -> str:
    """Return what was found, in sentences filled with numbers."""
    first, last = (table[table.width == w] for w in (table.width.min(), table.width.max()))

    def words(part: pd.DataFrame, name: str) -> str:
        return show(part[name].dropna(), 2)

    narrow, wide = int(first.width.iloc[0]), int(last.width.iloc[0])
    return (
        f"Found: from {narrow} to {wide} hidden units the number of distinct critical points found goes from"
        f" {words(first, 'points')} to {words(last, 'points')} (with {words(last, 'unseen')} more estimated unseen at"
        f" the widest), and the number of saddles per minimum from {words(first, 'saddles_a_minimum')} to"
        f" {words(last, 'saddles_a_minimum')} ({words(first, 'copies_ratio')} to {words(last, 'copies_ratio')} with"
        f" copies). Where a random search ends, {100 * first.negative_share.mean():.1f} % of the eigenvalues are"
        f" negative at the narrowest and {100 * last.negative_share.mean():.1f} % at the widest."
    )


def run(settings: Settings) -> pd.DataFrame:
    """Count, print and save; return one row for each width and data set."""
    folder = RunFolder("saddles_and_width", settings, settings.output, resume=settings.resume)
    widths = settings.widths[:2] if settings.quick else settings.widths
    teachers = min(3, settings.teachers) if settings.quick else settings.teachers
    starts = settings.starts // 4 if settings.quick else settings.starts
    work = [(width, number) for width in widths for number in range(teachers)]
    rows: list[dict[str, Any]] = []
    with tqdm.tqdm(work, unit="census", disable=None) as bar:
        for width, number in bar:
            bar.set_postfix_str(f"h = {width}, data set {number}")
            one = functools.partial(count, settings, width, number, starts)
            rows += folder.kept(f"width_{width}_data_{number}", one)
    points = pd.DataFrame(rows).astype({"index": "Int64"})
    table = by_teacher(points)
    summed = summary(table)
    for name, frame in (("points", points), ("by_teacher", table), ("summary", summed)):
        folder.table(name, frame)
    folder.figure("saddles_and_width", draw(points, summed))
    print(f"Mean ± 95 % half width over {teachers} data sets, {starts} searches each, by number of hidden units:")
    print(printed(summed))
    folder.conclude(conclusion(table))
    return table


if __name__ == "__main__":
    command_line.start("saddles_and_width", run, Settings, __doc__)
