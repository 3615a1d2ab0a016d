"""How many critical points does a small network have exactly, and how does their number grow as the decay falls?

For tanh networks with one hidden layer, half the mean squared error and weight decay, every list is proved complete
(`mlp_census.complete`): branch and prune over a box that must hold all critical points, up to symmetry. For a loss that
grows in all directions, Σ copies · (−1)^index = 1. The examples are XOR and AND, with 0 and 1, five points on a line,
and twenty of a cosine. `--long` adds XOR with two hidden units at decay .05 and .03, which take minutes to hours and go
on where they were stopped with --resume.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import matplotlib.axes
import matplotlib.collections
import matplotlib.figure
import matplotlib.patches
import matplotlib.ticker
import numpy as np
import pandas as pd

from experiments._shared import bars, command_line, tables
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import interval, mlp_census, plots

COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.SKY, plots.YELLOW, plots.GREY)
SQUARE = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
DATA = {
    "XOR": (SQUARE, np.array([0.0, 1.0, 1.0, 0.0])),
    "AND": (SQUARE, np.array([0.0, 0.0, 0.0, 1.0])),
    "line": (np.linspace(-1, 1, 5)[:, None], np.linspace(-0.5, 0.5, 5)),
    "cosine": (np.linspace(-2, 2, 20)[:, None], np.cos(np.linspace(-4, 4, 20))),
}


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    long: bool = False
    """Add XOR with two hidden units at decay .05 and .03."""
    boxes: int = 2_000_000
    """Boxes between two saves of an unfinished list."""


class Case(NamedTuple):
    """A network: its data, hidden units and weight decay."""

    data: str
    hidden: int
    decay: float

    @property
    def name(self) -> str:
        """Return the sizes, the data and the decay."""
        return f"{DATA[self.data][0].shape[1]}-{self.hidden}-1 {self.data}, decay {self.decay:g}"


COSINE = tuple(Case("cosine", 1, decay) for decay in (0.1, 0.05, 0.04, 0.03, 0.02, 0.01, 0.005))
QUICK = (Case("line", 1, 0.05), Case("line", 1, 0.02), Case("XOR", 1, 0.05))
CASES = (
    *QUICK, *COSINE, Case("line", 1, 0.005), Case("XOR", 1, 0.02), Case("XOR", 1, 0.01), Case("XOR", 1, 0.005),
    Case("line", 2, 0.1), Case("line", 2, 0.05), Case("line", 2, 0.02), Case("line", 3, 0.1), Case("AND", 2, 0.1),
    Case("XOR", 2, 0.1),
)  # fmt: skip
LONG = (Case("XOR", 2, 0.05), Case("XOR", 2, 0.03))


def prove(settings: Settings, folder: RunFolder, case: Case) -> interval.Completeness:
    """Return the proved list of a network; an unfinished one is saved after every `boxes` boxes, and goes on."""
    file = folder.path / f"{case.name.replace(' ', '_').replace(',', '')}.json"
    found = interval.load_list(file) if file.exists() else None
    with bars.bar(case.name, "ppm") as progress:
        while found is None or len(found.undecided_low):
            found = mlp_census.complete(
                *DATA[case.data], case.hidden, case.decay, max_boxes=settings.boxes, resume=found, progress=progress
            )
            found.save(file)
    return found


def losses(case: Case, found: interval.Completeness) -> np.ndarray:
    """Return the loss at each point of a list."""
    inputs, targets = DATA[case.data]
    (weight, bias), (out, last) = (map(np.asarray, layer) for layer in mlp_census.params_of(found, case.hidden))
    outputs = (np.tanh(inputs @ weight + bias[:, None]) @ out)[..., 0] + last
    return np.mean((outputs - targets) ** 2, axis=1) / 2 + case.decay / 2 * np.sum(found.points**2, axis=1)


def row(case: Case, found: interval.Completeness) -> dict[str, object]:
    """Return a row of the table."""
    return {
        "network": case.name, "complete": found.complete, "points": found.count, "classes": len(found.points),
        "of index 0, 1, …": ", ".join(str(found.indices.get(k, 0)) for k in range(1 + max(found.indices, default=0))),
        "sum": found.degree, "boxes": found.boxes, "seconds": found.seconds, "dimension": found.low.size,
        "data": case.data, "hidden": case.hidden, "decay": case.decay,
    }  # fmt: skip


def point_rows(case: Case, found: interval.Completeness) -> list[dict[str, object]]:
    """Return one row a point of a list."""
    return [
        {"network": case.name, "index": int(index), "copies": int(copies), "loss": loss, "radius": radius}
        for index, copies, loss, radius in zip(
            found.index, found.copies, losses(case, found), np.max(found.radii, axis=1), strict=True
        )
    ]


def draw_plane(axes: matplotlib.axes.Axes, decay: float) -> None:
    """Draw the critical points of a 1-1-1 network on the plane of its hidden weight and bias, with excluded boxes."""
    parts: list[np.ndarray] = []
    found = mlp_census.complete(*DATA["line"], 1, decay, excluded=lambda a, b: parts.append(np.hstack([a, b])))
    boxes = np.concatenate(parts)
    flat = boxes[(boxes[:, 2] <= 0.5) & (boxes[:, 5] >= 0.5)]  # those that the plane v = .5 cuts
    patches = [matplotlib.patches.Rectangle((b[0], b[1]), b[3] - b[0], b[4] - b[1]) for b in flat]
    axes.add_collection(matplotlib.collections.PatchCollection(patches, facecolor="none", edgecolor="0.6", lw=0.4))
    weight, bias = (np.asarray(x).ravel() for x in mlp_census.params_of(found, 1)[0])
    for index in np.unique(found.index):
        chosen = found.index == index
        axes.plot([*weight[chosen], *-weight[chosen]], [*bias[chosen], *-bias[chosen]], "*o^v"[index], ms=11,
                  color=COLOURS[index], label=f"index {index}")  # fmt: skip
    axes.set(xlabel="hidden weight", ylabel="hidden bias", title=f"1-1-1 line, decay {decay:g}; grey: excluded boxes",
             xlim=(found.low[0], found.high[0]), ylim=(-0.1 * found.high[1], found.high[1]))  # fmt: skip
    axes.legend()


def draw(table: pd.DataFrame, points: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: the plane, the levels by index, and the number of points by decay."""
    figure = matplotlib.figure.Figure(figsize=(13, 4), layout="constrained")
    plane, levels, numbers = figure.subplots(1, 3)
    draw_plane(plane, 0.02)
    followed = table[(table.data == "XOR") & (table.hidden == 1)].network
    of_each = points[points.network.isin(followed)].groupby("network", sort=False)
    for number, (name, group) in enumerate(of_each):
        beside = group["index"] + 0.12 * (number - (len(of_each) - 1) / 2)  # points of equal loss would hide each other
        levels.scatter(beside, group.loss, s=40 * group.copies, label=name, color=COLOURS[number], alpha=0.6)
    levels.set(xlabel="index", ylabel="loss", title="all critical points (area: copies)", xticks=(0, 1), xlim=(-0.5, 2))
    levels.legend(fontsize=8)
    for number, ((data, hidden), group) in enumerate(table.groupby(["data", "hidden"], sort=False)):
        rows, look = group.sort_values("decay"), {"color": COLOURS[number], "marker": "os^DvPX"[number]}
        numbers.plot(rows.decay, rows.points, label=f"{DATA[data][0].shape[1]}-{hidden}-1 {data}", **look)
    numbers.set(xscale="log", xlabel="weight decay", ylabel="number of critical points", title="as the decay falls")
    numbers.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    numbers.set_ylim(0, 1.35 * table.points.max())
    numbers.legend(fontsize=8, loc="upper center")
    return figure


def conclusion(table: pd.DataFrame) -> str:
    """Return what was found, in words made from the numbers."""
    proved = table[table.complete]
    most = proved.sort_values("points").iloc[-1]
    return (
        f"Found: {len(proved)} of {len(table)} lists are proved complete, of {proved.points.min()} to"
        f" {proved.points.max()} critical points ({most.network}: {most['of index 0, 1, …']} of index 0, 1, …);"
        f" Σ copies · (−1)^index is 1 in {int((proved['sum'] == 1).sum())} of {len(proved)};"
        f" {int(proved.boxes.sum()):,} boxes in {proved.seconds.sum():.0f} s."
    )


def run(settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prove, print and save; return the table and the points."""
    folder = RunFolder("complete_lists", settings, settings.output, resume=settings.resume)
    cases = QUICK if settings.quick else CASES + LONG * settings.long
    found = {case: prove(settings, folder, case) for case in cases}
    table = pd.DataFrame([row(*item) for item in found.items()])
    points = pd.DataFrame([each for item in found.items() for each in point_rows(*item)])
    folder.table("lists", table)
    folder.table("points", points)
    folder.figure("lists", draw(table, points))
    print(tables.text(table, "lists"))
    print(f"\n{next(iter(found.values()))}")
    folder.conclude(conclusion(table))
    return table, points


if __name__ == "__main__":
    command_line.start("complete_lists", run, Settings, __doc__)
