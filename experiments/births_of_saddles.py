"""How are minima and saddles of a network born as the weight decay falls?

With a large weight decay a tanh network has a single critical point: all weights are zero but the output biases. As the
decay falls, pairs of points appear at folds, where the index of the two differs by one, and branches split at
bifurcations (`critical.branches`). For XOR the branches lead up from a census at a small decay. For digits, reduced to
10 principal components, they lead down from the single point, which loses its stability where the decay passes the
singular values of ∂²f / ∂w ∂v, the mixed derivatives by the incoming and outgoing weights of a unit.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import pandas as pd
import scipy.optimize
import tqdm

from experiments._shared import command_line, reduced_digits, tables, xor
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import critical, losses, mlp, mlp_symmetry, penalties, plots

# Weight decays at which points are counted.
GRID = 60


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    smallest: float = 0.005
    """Smallest weight decay on XOR; .01 when quick."""
    largest: float = 1.0
    """Largest weight decay."""
    starts: int = 400
    """Searches of a pass of the census of XOR."""
    hidden: int = 2
    """Hidden units of the network on digits, which is left out when quick."""
    examples: int = 300
    """Digits that its loss sees."""
    digits_smallest: float = 0.18
    """Its smallest weight decay; branches that a symmetry maps to each other may be followed twice."""
    digits_steps: int = 600
    """Largest number of steps along its branches."""


class Diagram(NamedTuple):
    """Branches between two weight decays, the copies of each, and where the trivial point must bifurcate."""

    name: str
    range: tuple[float, float]
    found: critical.Branches
    copies: tuple[int, ...]
    predicted: np.ndarray


def of_xor(settings: Settings) -> Diagram:
    """Return the branches of XOR, from a census at the smallest weight decay."""
    low = 0.01 if settings.quick else settings.smallest
    counted = xor.count(jax.random.key(settings.seed), "{0, 1}", low, settings.starts)
    found = critical.branches(
        xor.loss, counted.census.params, counted.args, parameter=2, low=low, high=settings.largest,
        canonical=counted.maps.canonical,
    )  # fmt: skip
    x, y, _ = counted.args
    predicted = bifurcations_of_trivial(lambda c: c - y, x, y[0], low, settings.largest)
    return Diagram("XOR, 2-2-1", (low, settings.largest), found, copies(found, counted.maps), predicted)


def digits_loss(params: mlp.Params, decay: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean cross-entropy plus (decay / 2) ‖θ‖²."""
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y)) + decay * penalties.l2(params, 1.0)


def of_digits(settings: Settings) -> Diagram:
    """Return the branches of a network on digits, from its single point at a large weight decay."""
    with jax.enable_x64(True):
        (x, y), _ = reduced_digits.reduced(settings.examples)
        sizes = (reduced_digits.COMPONENTS, settings.hidden, reduced_digits.CLASSES)
        like = jax.tree.map(jnp.zeros_like, mlp.init(jax.random.key(0), sizes, dtype=jnp.float64))
    low, high = settings.digits_smallest, 2 * settings.digits_smallest
    args = (np.float64(high), x, y)
    trivial = critical.find(digits_loss, like, args, index=0)
    maps = mlp_symmetry.maps(digits_loss, like, args, activation=jnp.tanh)
    found = critical.branches(
        digits_loss, jax.tree.map(lambda leaf: np.asarray(leaf)[None], trivial.params), args, parameter=0,
        low=low, high=settings.largest, max_steps=settings.digits_steps, canonical=maps.canonical,
    )  # fmt: skip
    classes = np.eye(reduced_digits.CLASSES)[y]
    softmax = lambda c: np.exp(c - np.max(c)) / np.sum(np.exp(c - np.max(c))) - classes  # noqa: E731
    predicted = bifurcations_of_trivial(softmax, x, classes[0], low, high)
    return Diagram(f"digits, 10-{settings.hidden}-10", (low, settings.largest), found, copies(found, maps), predicted)


def copies(found: critical.Branches, maps: mlp_symmetry.DiscreteMaps) -> tuple[int, ...]:
    """Return the symmetric copies of each branch, from its middle."""
    middles = [jax.tree.map(lambda leaf: leaf[len(leaf) // 2], branch.params) for branch in found.branches]
    return tuple(maps.orbit_size(params, 1e-4) for params in middles)


def bifurcations_of_trivial(slope: Any, x: np.ndarray, like: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the decays λ at which a singular value of ⟨(x, 1) ⊗ slope(c)⟩ is λ, with the biases c(λ) of the point.

    slope: c -> derivatives of the loss by the outputs, (n, outputs).
    """
    inputs = np.c_[x, np.ones(len(x))]

    def gaps(decay: float) -> np.ndarray:
        biases = scipy.optimize.root(lambda c: np.mean(slope(c), axis=0) + decay * c, np.zeros(len(like)), tol=1e-13).x
        return np.linalg.svd(inputs.T @ slope(biases) / len(x))[1] - decay

    grid = np.geomspace(low, high, 200)
    rows = np.array([gaps(decay) for decay in grid])
    crossed = np.argwhere(rows[:-1] * rows[1:] < 0)
    return np.array([scipy.optimize.brentq(lambda d, k=k: gaps(d)[k], grid[i], grid[i + 1]) for i, k in crossed])


def events(diagram: Diagram) -> pd.DataFrame:
    """Return one row for each birth, at folds and where branches meet, with the indices beside it.

    Births that a symmetry of the data maps to each other have equal decays and losses: they are one row, and `times`
    counts them.
    """
    rows: list[tuple[float, str, str, float]] = []
    for branch in diagram.found.branches:
        rises = np.diff(branch.parameter) > 0
        for turn, decay in zip(1 + np.flatnonzero(rises[1:] != rises[:-1]), branch.folds, strict=True):
            rows.append((decay, "fold", joined(branch.indices[[turn - 1, turn + 1]]), branch.values[turn]))
    ends = np.array([(b.parameter[k], b.values[k], b.indices[k]) for b in diagram.found.branches for k in (0, -1)])
    for decay in diagram.found.bifurcations:
        loss = ends[np.argmin(np.abs(ends[:, 0] - decay)), 1]
        # A branch that arrives at a known bifurcation ends where it was located from there, which is less exact.
        near = np.all(np.abs(ends[:, :2] / [decay, loss] - 1) < [1e-4, 1e-5], axis=1)
        rows.append((decay, "bifurcation", joined(ends[near, 2].astype(int)), loss))
    births = pd.DataFrame(rows, columns=["decay", "birth", "indices", "loss"]).round(9)
    births = births.groupby([*births], as_index=False).size().rename(columns={"size": "times"})
    births.insert(0, "landscape", diagram.name)
    return births.sort_values("decay", ascending=False)


def joined(indices: Any) -> str:
    """Return different indices in increasing order: "0, 1 and 2"."""
    *others, last = map(str, np.unique(indices))
    return f"{', '.join(others)} and {last}" if others else last


def counts(diagram: Diagram) -> pd.DataFrame:
    """Return the number of points of each index by weight decay, and Σ copies · (−1)^index over them.

    Within a step of a fold the number may be off by one, because the fold itself is not among the points of a branch.
    """
    low, high = diagram.range
    rows = []
    for decay in np.geomspace(1.01 * low, 0.99 * high, GRID):
        index: list[int] = []
        total = 0
        for branch, number in zip(diagram.found.branches, diagram.copies, strict=True):
            first, second = branch.parameter[:-1], branch.parameter[1:]
            for i in np.flatnonzero((np.minimum(first, second) <= decay) & (decay < np.maximum(first, second))):
                near = i + int(abs(np.log(second[i] / decay)) < abs(np.log(first[i] / decay)))
                index.append(int(branch.indices[near]))
                total += number * (-1) ** index[-1]
        row = {"decay": decay, "points": len(index), "sum": total}
        rows.append(row | {f"index_{k}": index.count(k) for k in range(3)})
    return pd.DataFrame(rows)


def draw(diagrams: list[Diagram], table: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: the branches of each network, and the number of points of XOR by index."""
    figure = matplotlib.figure.Figure(figsize=(5 * (len(diagrams) + 1), 4), layout="constrained")
    panels = figure.subplots(1, len(diagrams) + 1)
    for axes, diagram in zip(panels[[0, 2][: len(diagrams)]], diagrams, strict=True):
        plots.bifurcations(axes, diagram.found, diagram.name).set_xlim(diagram.range)
    looks = ((plots.BLUE, "-", "minima"), (plots.ORANGE, "--", "index 1"), (plots.PURPLE, "-.", "index 2"))
    for k, (color, style, label) in enumerate(looks):
        panels[1].step(table.decay, table[f"index_{k}"], style, color=color, label=label, where="mid")
    panels[1].set(xscale="log", xlabel="weight decay", ylabel="critical points", title=f"{diagrams[0].name}, by index")
    panels[1].legend(fontsize="small")
    return figure


def conclusion(births: pd.DataFrame, table: pd.DataFrame, diagrams: list[Diagram]) -> str:
    """Return what was found, in words made from the numbers."""
    own = births[births.landscape == diagrams[0].name]
    folds = own[own.birth == "fold"]
    pairs = folds.times[folds.indices.isin([f"{k} and {k + 1}" for k in range(9)])].sum()
    branching = tables.count(own.times[own.birth == "bifurcation"].sum(), "bifurcation")
    off = [np.min(np.abs(d.found.bifurcations - p), initial=np.inf) / p for d in diagrams for p in d.predicted]
    told = f" On digits {len(off)} predicted bifurcations are found, off by {max(off):.0e} at most." if off else ""
    return (
        f"Found: on XOR the points are born at {folds.times.sum()} folds, of which {pairs} give birth to two points"
        f" whose index differs by one, and {branching}, from 1 point to {table.points.iloc[0]};"
        f" Σ copies · (−1)^index is 1 at {int((table['sum'] == 1).sum())} of {len(table)} weight decays.{told}"
    )


def run(settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Follow the branches, print and save; return the births and the counts."""
    folder = RunFolder("births_of_saddles", settings, settings.output, resume=settings.resume)
    wanted = {"xor": of_xor} if settings.quick else {"xor": of_xor, "digits": of_digits}
    bar = tqdm.tqdm(wanted.items(), unit="landscape", disable=None)
    diagrams = [folder.kept(name, functools.partial(compute, settings)) for name, compute in bar]
    births = pd.concat([events(diagram) for diagram in diagrams], ignore_index=True)
    table = counts(diagrams[0])
    folder.table("births", births)
    folder.table("counts", table)
    folder.figure("births_of_saddles", draw(diagrams, table))
    print(tables.text(births, "births", float_format="{:.6g}".format))
    folder.conclude(conclusion(births, table, diagrams))
    return births, table


if __name__ == "__main__":
    command_line.start("births_of_saddles", run, Settings, __doc__)
