"""How many critical points does a network on XOR have, and how do saddles outnumber minima?

Looks for all critical points of a tanh 2-2-1 network (9 parameters, half the mean squared error, weight decay), for
two codings of true and false and several weight decays, by searches and along branches in the weight decay
(`critical.walk_folds`); counts each modulo permutations and sign flips of the hidden units, with its copies; proves
each (`interval.certify_many`); and follows the gradient flow down from every saddle, to see what it joins
(`critical.network`). A complete list must have Σ copies · (−1)^index = 1.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import matplotlib.figure
import numpy as np
import pandas as pd
import tqdm

from experiments._shared import command_line, tables, xor
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import critical, interval, plots

# From each saddle of index above 1.
DESCENTS = 4


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    weight_decays: tuple[float, ...] = (0.003, 0.01, 0.03)
    """Strengths s of the penalty (s / 2) ‖θ‖²; .01 alone when quick."""
    starts: int = 400
    """Searches of a pass of the census."""


class Landscape(NamedTuple):
    """All that was found of one coding and weight decay."""

    coding: str
    decay: float
    counted: xor.Counted
    proofs: list[interval.Certificate]
    network: critical.Network

    @property
    def name(self) -> str:
        """Return the coding and the weight decay."""
        return f"{self.coding}, weight decay {self.decay:g}"


def explore(settings: Settings, coding: str, decay: float) -> Landscape:
    """Count, prove, and follow the saddles down."""
    counted = xor.count(jax.random.key(settings.seed), coding, decay, settings.starts)
    proofs = interval.certify_many(xor.loss, counted.census.params, counted.args)
    joined = critical.network(
        xor.loss, counted.census.params, jax.random.key(settings.seed), counted.args,
        symmetries=counted.maps, number=DESCENTS,
    )  # fmt: skip
    return Landscape(coding, decay, counted, proofs, joined)


def point_rows(land: Landscape) -> list[dict[str, Any]]:
    """Return one row a critical point."""
    census = land.counted.census
    rows, labels = [], land.network.labels.tolist()
    for i, (verdict, proof) in enumerate(zip(census.verdicts, land.proofs, strict=True)):
        low, high = proof.smallest or (np.nan, np.nan)
        rows.append(
            {
                "coding": land.coding,
                "weight_decay": land.decay,
                "point": i,
                "kind": verdict.kind,
                "index": census.indices[i],
                "copies": int(census.orbit_sizes[i]),
                "hits": int(census.hits[i]),
                "loss": float(census.values[i]),
                "smallest": verdict.smallest,
                "proved_index": proof.index,
                "proved_radius": np.nan if proof.radius is None else proof.radius,
                "smallest_low": low,
                "smallest_high": high,
                "joins": " and ".join(ends(land, labels[i])) if census.indices[i] == 1 else "",
            }
        )
    return rows


def ends(land: Landscape, node: int) -> list[str]:
    """Return the points of the census, by number, where descents from a node of the network end."""
    labels = land.network.labels.tolist()
    joins = land.network.joins(node)
    return ["unknown" if end is None else str(labels.index(end)) if end in labels else "a new point" for end in joins]


def by_index(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row an index of each landscape."""
    grouped = rows.groupby(["coding", "weight_decay", "index"], dropna=False)
    table = grouped.agg(
        points=("kind", "size"),
        copies=("copies", "sum"),
        hits=("hits", "sum"),
        proved=("proved_index", "count"),
        lowest_loss=("loss", "min"),
        highest_loss=("loss", "max"),
    )
    return table.reset_index()


def summaries(lands: list[Landscape]) -> pd.DataFrame:
    """Return one row a landscape: counts, the sum that must be 1, and what is estimated to be missing."""
    return pd.DataFrame(
        [
            {
                "coding": land.coding,
                "weight_decay": land.decay,
                "points": len(land.proofs),
                "copies": int(land.counted.census.orbit_sizes.sum()),
                "minima": int(sum(land.counted.census.orbit_sizes[_at(land, 0)])),
                "saddles": int(sum(land.counted.census.orbit_sizes[_at(land, None)])),
                "sum": land.counted.census.euler_sum,
                "not_seen": land.counted.census.unseen,
                "searches": land.counted.census.num_starts,
                "proved": sum(proof.proved for proof in land.proofs),
            }
            for land in lands
        ]
    )


def _at(land: Landscape, index: int | None) -> np.ndarray:
    """Return which points are minima (0), or saddles (None)."""
    minimum = np.array([i == 0 for i in land.counted.census.indices], dtype=bool)
    return minimum if index == 0 else ~minimum


def draw(lands: list[Landscape]) -> tuple[matplotlib.figure.Figure, matplotlib.figure.Figure]:
    """Return the figures of the levels and of what the saddles join."""
    width = 4.2 * len(lands) if len(lands) < 4 else 12.6
    rows = -(-len(lands) // 3)
    figures = [matplotlib.figure.Figure(figsize=(width, 3.8 * rows), layout="constrained") for _ in range(2)]
    axes = [f.subplots(rows, min(3, len(lands)), squeeze=False).ravel() for f in figures]
    figures[0].suptitle("critical points by index; a level is as wide as a point has copies")
    figures[1].suptitle("what the saddles join: lines down to where descents end")
    for number, land in enumerate(lands):
        census = land.counted.census
        index = np.array([-1 if i is None else i for i in census.indices])
        known = index >= 0
        plots.census_levels(axes[0][number], index[known], census.values[known], census.orbit_sizes[known], land.name)
        plots.transition_network(axes[1][number], land.network, land.name)
    shown: dict[str, Any] = {}
    for panel in axes[1][: len(lands)]:  # one legend, beside the panels, which are full
        shown |= dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
        panel.get_legend().remove()
    figures[1].legend([*shown.values()], [*shown], loc="outside lower center", ncols=len(shown), frameon=False)
    return figures[0], figures[1]


def conclusion(table: pd.DataFrame) -> str:
    """Return what was found, in words made from the numbers."""
    ratio = table.saddles / table.minima
    times = " to ".join(dict.fromkeys(f"{end:.1f}" for end in (ratio.min(), ratio.max())))
    complete = int((table["sum"] == 1).sum())
    return (
        f"Found: saddles outnumber minima {times} times (copies counted);"
        f" {int(table.proved.sum())} of {int(table.points.sum())} points are proved;"
        f" in {complete} of {len(table)} landscapes Σ copies · (−1)^index is 1, as it must be for a complete list"
        f" (estimated not seen: {table.not_seen.sum():.1f} points)."
    )


def run(settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Count, print and save; return the points and the summaries."""
    folder = RunFolder("saddle_census", settings, settings.output, resume=settings.resume)
    decays = (0.01,) if settings.quick else settings.weight_decays
    codings = ["{0, 1}"] if settings.quick else list(xor.CODINGS)
    wanted = [(coding, decay) for coding in codings for decay in decays]
    lands: list[Landscape] = []
    with tqdm.tqdm(wanted, unit="landscape", disable=None) as bar:
        for coding, decay in bar:
            bar.set_postfix_str(f"{coding}, {decay:g}")
            compute = functools.partial(explore, settings, coding, decay)
            lands.append(folder.kept(f"landscape_{len(lands)}", compute))
    for land in lands:
        for i, proof in enumerate(land.proofs):
            name = "zero_one" if land.coding == "{0, 1}" else "minus_one_one"
            proof.save(folder.path / f"{name}_{land.decay:g}_{i}.json")
    points = pd.DataFrame([row for land in lands for row in point_rows(land)])
    points = points.astype({"index": "Int64", "proved_index": "Int64"})
    table = summaries(lands)
    folder.table("points", points)
    folder.table("by_index", by_index(points))
    folder.table("summaries", table)
    levels, graph = draw(lands)
    folder.figure("levels", levels)
    folder.figure("joined", graph)
    print(tables.text(by_index(points), "by_index"))
    print(f"\n{tables.text(table, 'summaries')}")
    folder.conclude(conclusion(table))
    return points, table


if __name__ == "__main__":
    command_line.start("saddle_census", run, Settings, __doc__)
