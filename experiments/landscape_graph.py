"""Which minima of a network does each saddle join, and how high are the barriers between them?

All critical points of a tanh 2-2-1 network on XOR for several weight decays (`critical.census`), modulo permutations
and sign flips of the hidden units; the gradient flow down from every saddle (`critical.network`), with the tree of
minima that merge at saddles; and a minimum-energy path between two low minima (`critical.path`), whose barrier cannot
be below that of the graph. The same for a small network on digits, of which only a part of the points is known: where
their graph falls into parts, paths between the parts add the saddles that are missing.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.animation
import matplotlib.figure
import numpy as np
import pandas as pd
import tqdm

from experiments._shared import command_line, reduced_digits, tables, xor
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import critical, landscape, mlp, mlp_symmetry, plots, tree

# Descents from each saddle of index above 1.
DESCENTS = 4


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    weight_decays: tuple[float, ...] = (0.005, 0.01, 0.02, 0.03)
    """Strengths s of the penalty (s / 2) ‖θ‖² on XOR; .02 alone when quick."""
    starts: int = 200
    """Searches of a pass of the census of XOR."""
    digits: int = 24
    """Searches for critical points of the network on digits: a third for each of the indices 0, 1 and 2."""
    hidden: int = 4
    """Hidden units of the network on digits."""
    digits_decay: float = 0.12
    """Its weight decay; the number of minima grows quickly as it falls."""
    examples: int = 300
    """Digits that its loss sees."""


class Landscape(NamedTuple):
    """A graph of critical points, two of its minima, and a path between them."""

    name: str
    network: critical.Network
    ends: tuple[int, int]
    path: critical.Path


def of_xor(settings: Settings, decay: float) -> Landscape:
    """Return the landscape of XOR at a weight decay, with a path between the two lowest minima."""
    key = jax.random.key(settings.seed)
    counted = xor.count(key, "{0, 1}", decay, settings.starts)
    found = critical.network(
        xor.loss, counted.census.params, key, counted.args, symmetries=counted.maps, number=DESCENTS
    )
    a, b = [i for i, index in enumerate(found.indices) if index == 0][:2]
    way = critical.path(xor.loss, one(found.params, a), one(found.params, b), key, counted.args)
    return Landscape(f"XOR, decay {decay:g}", found, (a, b), way)


def of_digits(settings: Settings) -> Landscape:
    """Return the landscape of the network on digits: what searches, paths and descents find of it."""
    key, start_key = jax.random.split(jax.random.key(settings.seed))
    with jax.enable_x64(True):
        problem = reduced_digits.problem(settings.hidden, settings.examples, settings.digits_decay, settings.seed)
        starts = reduced_digits.starts(problem, settings.digits, start_key)
        maps = mlp_symmetry.maps(problem.fun, one(starts, 0), problem.data, activation=jnp.tanh)
        options: Any = {"args": problem.data, "hessian": problem.hessian}
        parts = [
            critical.find_many(problem.fun, jax.tree.map(lambda leaf, k=k: leaf[k::3], starts), index=k, **options)
            for k in range(3)
        ]
        every = [critical.distinct(part, canonical=maps.canonical).points for part in parts]
        losses = [float(problem.fun(one(every[0].params, i), *problem.data)) for i in range(len(every[0].converged))]
    a, b = (one(every[0].params, int(i)) for i in np.argsort(losses)[:2])
    path: Any = functools.partial(critical.path, problem.fun, key=key, **options)
    way = path(a, landscape.match_units(b, a, activation=jnp.tanh))
    points = [jax.tree.map(lambda *leaves: np.stack(leaves), a, b), way.saddles, *(part.params for part in every)]
    network: Any = functools.partial(
        critical.network, problem.fun, key=key, symmetries=maps, number=DESCENTS, **options
    )
    found = network(joined(points))
    bridges = [path(*ends).saddles for ends in gaps(found)]
    found = network(joined([*points, *bridges])) if bridges else found
    ends = int(found.labels[0]), int(found.labels[1])
    return Landscape(f"digits, 10-{settings.hidden}-10, decay {settings.digits_decay:g}", found, ends, way)


def gaps(found: critical.Network) -> list[tuple[mlp.Params, mlp.Params]]:
    """Return the lowest minimum of each part but the largest, and the nearest minimum of that, of all its copies."""
    parts = sorted(found.components, key=len)
    minima = [[one(found.params, i) for i in part if found.indices[i] == 0] for part in parts]
    pairs = []
    for start in [own[0] for own in minima[:-1] if own]:
        copies = [landscape.match_units(end, start, activation=jnp.tanh) for end in minima[-1]]
        pairs.append((start, min(copies, key=functools.partial(distance, start))))
    return pairs


def distance(a: mlp.Params, b: mlp.Params) -> float:
    """Return ‖a − b‖."""
    differences = jax.tree.leaves(jax.tree.map(np.subtract, a, b))
    return float(np.sqrt(sum(np.sum(leaf**2) for leaf in differences)))


def joined(points: Sequence[mlp.Params]) -> mlp.Params:
    """Return stacked params as one stack."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *points)


def one(params: mlp.Params, i: int) -> mlp.Params:
    """Return the i-th of stacked params."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[i], params)


def minimum_rows(land: Landscape) -> list[dict[str, Any]]:
    """Return one row a minimum: its barrier to the lowest one, and the saddle that is the highest point on the way."""
    found, rows = land.network, []
    for node in [i for i, index in enumerate(found.indices) if index == 0]:
        top = found.highest(0, node)
        rows.append(
            {
                "landscape": land.name,
                "minimum": node,
                "copies": int(found.copies[node]),
                "loss": float(found.values[node]),
                "over_saddle": top if node else None,
                "barrier": np.nan if top is None or node == 0 else float(found.values[top] - found.values[node]),
            }
        )
    return rows


def summary(land: Landscape) -> dict[str, Any]:
    """Return one row: what hangs together, and the barrier of the path beside that of the graph."""
    found = land.network
    top = found.highest(*land.ends)
    return {
        "landscape": land.name,
        "points": len(found.values),
        "minima": sum(index == 0 for index in found.indices),
        "index_1": sum(index == 1 for index in found.indices),
        "parts": len(found.components),
        "descents": sum(edge.descents for edge in found.edges),
        "unknown": sum(edge.descents for edge in found.edges if edge.end is None),
        "graph_barrier": np.nan if top is None else float(found.values[top] - found.values[land.ends[0]]),
        "path_barrier": land.path.barriers[0],
        "path_saddles": len(land.path.verdicts),
    }


def draw(lands: list[Landscape]) -> dict[str, matplotlib.figure.Figure]:
    """Return the figures: graphs, trees and paths, one panel a landscape."""
    names = ("graph", "tree", "paths")
    figures = {name: matplotlib.figure.Figure(figsize=(4 * len(lands), 3.8), layout="constrained") for name in names}
    panels = {name: figure.subplots(1, len(lands), squeeze=False)[0] for name, figure in figures.items()}
    for number, land in enumerate(lands):
        plots.transition_network(panels["graph"][number], land.network, land.name)
        plots.disconnectivity(panels["tree"][number], land.network, land.name)
        first, last = land.path.barriers
        plots.along_path(panels["paths"][number], land.path, f"{land.name}\nbarriers {first:.3g} and {last:.3g}")
    return figures


def animate(land: Landscape, decay: float) -> matplotlib.animation.Animation:
    """Return the descents from the lowest saddle of XOR that joins two minima, on the plane through it and its ends."""
    saddle, args = one(land.network.params, land.network.merges[0].saddle), xor.data("{0, 1}", decay)
    with jax.enable_x64(True):
        below = critical.descents(xor.loss, saddle, jax.random.key(0), args)
        top, unravel = tree.ravel(saddle)
        paths = [np.asarray(jax.vmap(lambda params: tree.ravel(params)[0])(path) - top) for path in below.paths]
        across = np.linalg.qr(np.stack([paths[0][-1] - paths[1][-1], paths[0][-1] + paths[1][-1]], axis=1))[0]
        flat = [path @ across for path in paths]
        reach = 1.25 * max(float(np.max(np.abs(path))) for path in flat)
        offsets = np.linspace(-reach, reach, 81)
        first, second = (unravel(direction) for direction in jnp.asarray(across.T))
        values = landscape.plane(xor.loss, saddle, first, second, offsets, offsets, args)
    axes = matplotlib.figure.Figure(figsize=(5, 4.5), layout="constrained").subplots()
    plots.contours(axes, offsets, offsets, values, log=True)
    axes.set(title=f"{land.name}: descents from a saddle", xlabel="from one end to the other", ylabel="across")
    return plots.descents(axes, flat)


def conclusion(table: pd.DataFrame) -> str:
    """Return what was found, in words made from the numbers."""
    joined, paths = int((table.parts == 1).sum()), table[table.path_barrier.notna() & table.graph_barrier.notna()]
    excess = paths.path_barrier - paths.graph_barrier
    return (
        f"Found: in {joined} of {len(table)} landscapes every point hangs together with every other;"
        f" {int(table.unknown.sum())} of {int(table.descents.sum())} descents from saddles have an unknown end. The"
        f" path between two low minima is not below the best saddle of the graph in"
        f" {int((excess >= -1e-9).sum())} of {len(paths)} cases, and as low in {int((excess <= 1e-9).sum())}."
    )


def run(settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute, print and save; return the summaries and the minima."""
    folder = RunFolder("landscape_graph", settings, settings.output, resume=settings.resume)
    decays = (0.02,) if settings.quick else settings.weight_decays
    wanted: dict[str, Any] = {f"xor_{decay:g}": functools.partial(of_xor, settings, decay) for decay in decays}
    if not settings.quick:
        wanted["digits"] = functools.partial(of_digits, settings)
    lands = [folder.kept(name, compute) for name, compute in tqdm.tqdm(wanted.items(), unit="landscape", disable=None)]
    table = pd.DataFrame([summary(land) for land in lands])
    minima = pd.DataFrame([row for land in lands for row in minimum_rows(land)]).astype({"over_saddle": "Int64"})
    edges = pd.DataFrame([{"landscape": land.name} | edge._asdict() for land in lands for edge in land.network.edges])
    folder.table("summary", table)
    folder.table("minima", minima)
    folder.table("edges", edges.astype({"end": "Int64"}))
    for name, figure in draw(lands).items():
        folder.figure(name, figure)
    folder.animation("descents", animate(lands[0], decays[0]))
    print(tables.text(table, "summary"))
    print(f"\n{tables.text(minima, 'minima')}")
    folder.conclude(conclusion(table))
    return table, minima


if __name__ == "__main__":
    command_line.start("landscape_graph", run, Settings, __doc__)
