"""Where are the spurious minima and the saddles of the population loss of a ReLU student, and which can be proved?

k ReLU units of weight 1 learn k orthonormal ones over Gaussian inputs (Safran & Shamir 2018), by the exact loss. For
each k, searches of some indices and of any from random starts, and one from the teacher with a unit reversed (the
family of minima of Arjevani & Field 2021), end at critical points. Each is counted once modulo permutations of the
student's units and of the teacher's, classified, and proved (`interval.certify`). The ends at the teacher itself, where
third derivatives jump, are only counted.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.axes
import matplotlib.figure
import numpy as np
import pandas as pd
import tqdm

from experiments._shared import command_line, tables
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import critical, interval, losses, plots

# Losses below this are of the teacher itself.
_ZERO = 1e-9


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    units: tuple[int, ...] = tuple(range(6, 21, 2))
    """Numbers k of units, of the student and of the teacher; 6 alone when quick."""
    starts: int = 4
    """Random starts of the searches of each index."""
    indices: tuple[int | None, ...] = (0, 1, 3, 6, None)
    """Indices that are searched for; None is any."""


class Landscape(NamedTuple):
    """The critical points found with k units, each once, by increasing loss, and how many searches ended where."""

    units: int
    weights: np.ndarray
    hits: np.ndarray
    verdicts: list[critical.Verdict]
    proofs: list[interval.Certificate]
    searches: int
    converged: int
    at_teacher: int


def fun(student: Any, teacher: Any) -> jax.Array:
    """Return the population loss, half the mean squared error."""
    return losses.population(student, teacher, losses.relu_products)


def hessian(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Return its Hessian (k d, k d) in closed form, from ∂/∂w E relu(w·x) relu(u·x) = (s w / ‖w‖² + (π − t) u) / (2π).

    With p = u − (w·u) w / ‖w‖² and q = w − (w·u) u / ‖u‖², its derivatives by w and u are, times 2π,
    s / ‖w‖² (I − w wᵀ / ‖w‖²) + p pᵀ / s and (π − t) I + (w pᵀ + u qᵀ) / s.
    """
    k, d = student.shape
    units, one = jnp.concatenate([student, teacher]), jnp.eye(d, dtype=student.dtype)
    inner, sizes, own = student @ units.T, jnp.sum(units**2, axis=1), jnp.eye(k, len(units), dtype=bool)
    mine = sizes[:k, None]
    # The floor bounds the rounding of normals / area between parallel units, where their part of the Hessian is 0.
    area = jnp.sqrt(jnp.maximum(jnp.where(own, 1.0, mine * sizes - inner**2), 1e-12))
    sign = jnp.where(own, 0.0, jnp.where(jnp.arange(len(units)) < k, 1.0, -1.0))
    normals = units - (inner / mine)[:, :, None] * student[:, None]
    along = one - student[:, :, None] * student[:, None] / mine[:, :, None]
    bend = jnp.sum(sign * area / mine, axis=1)[:, None, None] * along
    same = bend + jnp.einsum("ij,ijp,ijq->ipq", sign / area, normals, normals)
    turn = student[:, None, :, None] * (normals / area[:, :, None])[:, :k, None]
    angle = (jnp.pi / 2 + jnp.arctan(inner / area))[:, :k, None, None]
    pairs = angle * one + turn + jnp.swapaxes(turn, 0, 1)
    blocks = jnp.where(own[:, :k, None, None], same[:, None], pairs) / (2 * jnp.pi)
    blocks = blocks + jnp.where(own[:, :k, None, None], one / 2, 0.0)
    return blocks.transpose(0, 2, 1, 3).reshape(k * d, k * d)


def invariants(student: Any) -> np.ndarray:
    """Return what permutations of units and of teachers keep: the weights, and the products of units, sorted."""
    return np.concatenate([np.sort(np.ravel(student)), np.sort(np.ravel(student @ student.T))])


def explore(settings: Settings, k: int) -> Landscape:
    """Search with k units, and classify and prove each point found."""
    teacher, generator = np.eye(k), np.random.default_rng([settings.seed, k])
    found = []
    for index in settings.indices:
        starts = generator.standard_normal((settings.starts, k, k)) / np.sqrt(k)
        if index is None:
            starts = np.concatenate([starts, reversed_unit(k)[None]])
        found.append(critical.find_many(fun, starts, (teacher,), index=index, hessian=hessian))
    points = jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
    distinct = critical.distinct(points, canonical=invariants, tolerance=1e-7)
    with jax.enable_x64(True):
        values = np.array([float(fun(weights, teacher)) for weights in distinct.points.params])
    order = [int(i) for i in np.argsort(values) if values[i] > _ZERO]
    weights = distinct.points.params[order]
    return Landscape(
        k,
        weights,
        distinct.hits[order],
        [critical.classify(fun, each, (teacher,), hessian=hessian) for each in weights],
        [interval.certify(fun, each, (teacher,), enclosure=hessian) for each in weights],
        len(points.converged),
        int(np.sum(points.converged)),
        int(np.sum(distinct.hits[values <= _ZERO])),
    )


def reversed_unit(k: int) -> np.ndarray:
    """Return the teacher with its last unit reversed and the others moved so that the sum of units is the teacher's."""
    weights = np.eye(k)
    weights[-1, -1], weights[:-1, -1] = -1, 2 / (k - 1)
    return weights


def point_rows(land: Landscape) -> list[dict[str, Any]]:
    """Return one row a critical point."""
    rows = []
    for i, (verdict, proof) in enumerate(zip(land.verdicts, land.proofs, strict=True)):
        low, high = proof.loss or (np.nan, np.nan)
        rows.append(
            {
                "units": land.units,
                "kind": verdict.kind,
                "index": verdict.index,
                "proved_index": proof.index,
                "loss": (low + high) / 2 if proof.proved else float(loss_at(land, i)),
                "smallest": verdict.smallest,
                "hits": int(land.hits[i]),
                "different_weights": len(np.unique(np.round(land.weights[i], 6))),
                "unique_radius": proof.unique_radius,
                "loss_low": low,
                "loss_high": high,
                "refused": "" if proof.proved else proof.reason,
            }
        )
    return rows


def loss_at(land: Landscape, i: int) -> jax.Array:
    """Return the loss of a point that is not proved."""
    with jax.enable_x64(True):
        return fun(land.weights[i], np.eye(land.units))


def summaries(lands: list[Landscape], points: pd.DataFrame) -> pd.DataFrame:
    """Return one row a number of units."""
    rows = []
    for land in lands:
        here = points[points.units == land.units]
        minima = here[here.proved_index == 0]
        rows.append(
            {
                "units": land.units,
                "searches": land.searches,
                "converged": land.converged,
                "at_teacher": land.at_teacher,
                "points": len(here),
                "proved_minima": len(minima),
                "proved_saddles": int((here.proved_index > 0).sum()),
                "refused": int(here.proved_index.isna().sum()),
                "lowest_minimum": minima.loss.min(),
                "highest_index": here.proved_index.max(),
            }
        )
    return pd.DataFrame(rows)


def draw(points: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure of the losses by number of units."""
    figure = matplotlib.figure.Figure(figsize=(7.5, 4.5), layout="constrained")
    axes: matplotlib.axes.Axes = figure.subplots()
    for name, marker, size, color, minimum in (
        ("saddle", "o", 4, plots.ORANGE, False),
        ("spurious minimum", "*", 11, plots.BLUE, True),
    ):
        chosen = points[(points.kind == "minimum") == minimum]
        for proved, fill in ((True, color), (False, "none")):
            rows = chosen[chosen.proved_index.notna() == proved]
            if len(rows):
                label = f"{name}, {'proved' if proved else 'not proved'}"
                axes.plot(rows.units, rows.loss, marker, ms=size, mec=color, mfc=fill, label=label)
    axes.set(xlabel="units of the student and of the teacher", ylabel="population loss", yscale="log")
    axes.set_xticks(sorted(points.units.unique()))
    axes.legend()
    return figure


def conclusion(points: pd.DataFrame, table: pd.DataFrame) -> str:
    """Return what was found, in words made from the numbers."""
    saddles = points[points.proved_index > 0]
    minima = points[points.proved_index == 0]
    reasons = collections.Counter(points.refused[points.refused != ""])
    why = "".join(f"; refused {number} times: {reason}" for reason, number in reasons.items())
    lowest = minima.groupby("units").loss.min()
    losses = " to ".join(f"{lowest[k]:.4f} with {k} units" for k in sorted({*lowest.index[:1], *lowest.index[-1:]}))
    goes = f"; the loss of the lowest {'goes from' if len(lowest) > 1 else 'is'} {losses}" if len(lowest) else ""
    return (
        f"Found: {tables.count(len(minima), 'spurious minimum', 'spurious minima')}"
        f" and {tables.count(len(saddles), 'saddle')} of {len(points)} critical points are proved"
        f" (index up to {points.proved_index.max()}){why}{goes};"
        f" {int(table.at_teacher.sum())} of {int(table.searches.sum())} searches end at the teacher."
    )


def run(settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Search, prove, print and save; return the points and the summaries."""
    folder = RunFolder("population_loss", settings, settings.output, resume=settings.resume)
    if settings.quick:
        settings = dataclasses.replace(settings, units=settings.units[:1])
    lands: list[Landscape] = []
    for k in tqdm.tqdm(settings.units, unit="width", disable=None):
        lands.append(folder.kept(f"{k} units", functools.partial(explore, settings, k)))
        for i, proof in enumerate(lands[-1].proofs):
            proof.save(folder.path / f"{k}_{i}.json")
    points = pd.DataFrame([row for land in lands for row in point_rows(land)])
    points = points.astype({"index": "Int64", "proved_index": "Int64"})
    table = summaries(lands, points)
    folder.table("points", points)
    folder.table("summaries", table)
    folder.figure("losses", draw(points))
    print(tables.text(table, "summaries"))
    folder.conclude(conclusion(points, table))
    return points, table


if __name__ == "__main__":
    command_line.start("population_loss", run, Settings, __doc__)
