"""How good is the second-order model of a loss at a minimum, a saddle and a maximum, along every eigenvector?

L(θ + t v) is compared with L(θ) + t gᵀv + ½ t² vᵀHv for every unit eigenvector v of the Hessian H and both signs of t.
The remainder falls as t³ (slope 3 on log–log axes) for a generic smooth function, and faster where the third derivative
along v vanishes. The networks are small tanh networks on noisy teachers, with weight decay; minima and saddles of index
1 are searched for and classified. Such a loss has no maximum, because weight decay grows in every direction. One is
made from the minimum by adding a concave quadratic, −½ c ‖θ − θ*‖², which changes no third derivative.
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
import tqdm

from experiments._shared import command_line, tables
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import critical, curvature, losses, mlp, plots, tree
from mlp_jax.confidence import mean_interval

SIZES, EXAMPLES, DECAY = (2, 3, 1), 30, 0.01
STEPS = np.geomspace(1e-3, 1e-1, 15)
KINDS = ("minimum", "saddle", "maximum")


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    networks: int = 12
    """Data sets, with one network each."""


class Place(NamedTuple):
    """A critical point, with its data, eigenvalues and eigenvectors (as columns)."""

    kind: str
    network: int
    params: mlp.Params
    args: tuple
    values: np.ndarray
    vectors: np.ndarray


def loss(params: mlp.Params, x: Any, y: Any, centre: mlp.Params, tilt: Any) -> jax.Array:
    """Return half the mean squared error plus weight decay, minus (tilt / 2) ‖θ − centre‖²."""
    fit = losses.mean(losses.squared_error(mlp.forward(params, x), y)) + DECAY / 2 * tree.dot(params, params)
    away = jax.tree.map(jnp.subtract, params, centre)
    return fit - tilt / 2 * tree.dot(away, away)


def teacher(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (n, 2) and the outputs of a random network, with noise."""
    generator = np.random.default_rng((seed, number))
    x = generator.standard_normal((EXAMPLES, 2))
    hidden = np.tanh(2 * x @ generator.standard_normal((2, 4)))
    return x, hidden @ generator.standard_normal((4, 1)) + 0.1 * generator.standard_normal((EXAMPLES, 1))


def places(settings: Settings, number: int) -> list[Place]:
    """Return a minimum, a saddle and a maximum for one data set, as far as they are found."""
    data = teacher(settings.seed, number)
    start = mlp.init(jax.random.fold_in(jax.random.key(settings.seed), number), SIZES, dtype=jnp.float64)
    nowhere, flat = jax.tree.map(jnp.zeros_like, start), np.float64(0)
    found = []
    for index, kind in enumerate(KINDS[:2]):
        args = (*data, nowhere, flat)
        point = critical.find(loss, start, args, index=index)
        if critical.classify(loss, point.params, args).kind == kind:
            found.append(_place(kind, number, point.params, args))
    if found and found[0].kind == "minimum":
        lowest = found[0]
        args = (*data, lowest.params, np.float64(1.1 * lowest.values[-1]))
        if critical.classify(loss, lowest.params, args).kind == "maximum":
            found.append(_place("maximum", number, lowest.params, args))
    return found


def _place(kind: str, number: int, params: mlp.Params, args: tuple) -> Place:
    matrix = np.asarray(curvature.dense_hessian(loss, params, args))
    return Place(kind, number, params, args, *np.linalg.eigh(matrix))


@jax.jit
def remainders(params: mlp.Params, args: tuple, vectors: jax.Array, steps: jax.Array) -> curvature.TaylorRemainder:
    """Return the remainders along all rows of `vectors` (k, P)."""
    unravel = tree.ravel(params)[1]

    def along(vector: jax.Array) -> curvature.TaylorRemainder:
        return curvature.taylor_remainder(loss, params, unravel(vector), steps, args)

    return jax.vmap(along)(vectors)


def measure(place: Place) -> list[dict[str, Any]]:
    """Return one row for each eigenvector: eigenvalue, slope of the remainder, and remainder at the largest step."""
    rows = place.vectors.T
    both = [remainders(place.params, place.args, jnp.asarray(sign * rows), jnp.asarray(STEPS)) for sign in (1.0, -1.0)]
    # The fourth order has opposite signs on the two sides, so it cancels to first order in the mean of the slopes.
    slopes = np.mean([np.asarray(side.slope) for side in both], axis=0)
    last = np.mean([np.asarray(side.values)[:, -1] for side in both], axis=0)
    return [
        {
            "network": place.network,
            "kind": place.kind,
            "rank": rank + 1,
            "eigenvalue": place.values[rank],
            "slope": slopes[rank],
            "remainder_share": last[rank] / (0.5 * abs(place.values[rank]) * STEPS[-1] ** 2),
        }
        for rank in range(len(rows))
    ]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each kind: slopes, with 95 % half widths over networks."""
    table = []
    for kind in KINDS:
        part = rows[rows.kind == kind]
        if part.empty:
            continue
        mean, half = mean_interval(part.groupby("network").slope.median())
        share, share_half = mean_interval(part.groupby("network").remainder_share.median())
        table.append(
            {
                "kind": kind,
                "networks": part.network.nunique(),
                "eigenvectors": len(part),
                "median_slope": float(mean),
                "half_width": float(half),
                "near": float(np.mean(np.abs(part.slope - 3) < 0.1)),
                "lowest_slope": part.slope.min(),
                "highest_slope": part.slope.max(),
                "remainder_at_.1": float(share),
                "its_half_width": float(share_half),
            }
        )
    return pd.DataFrame(table)


def draw(chosen: list[Place]) -> matplotlib.figure.Figure:
    """Return the figure: for each kind the loss and its model along three eigenvectors, and all remainders."""
    figure = matplotlib.figure.Figure(figsize=(4.4 * len(chosen), 7.5), layout="constrained")
    axes = figure.subplots(2, len(chosen), squeeze=False)
    reach = np.linspace(-1.5, 1.5, 121)
    for column, place in enumerate(chosen):
        vector, unravel = tree.ravel(place.params)
        value = jax.jit(jax.vmap(lambda v, u=unravel, p=place: loss(u(v), *p.args)))
        base = float(loss(place.params, *place.args))
        for k, rank in enumerate((0, len(place.values) // 2, len(place.values) - 1)):
            color, line = (plots.ORANGE, plots.GREEN, plots.BLUE)[k], place.vectors[:, rank]
            along = np.asarray(value(jnp.asarray(np.asarray(vector) + reach[:, None] * line)))
            look = {"color": color, "marker": "os^"[k], "ms": 4, "markevery": (5 * k, 20)}
            axes[0, column].plot(reach, along - base, label=f"λ = {place.values[rank]:.2g}".replace("-", "−"), **look)
            axes[0, column].plot(reach, 0.5 * place.values[rank] * reach**2, color=color, ls=":", lw=1)
        axes[0, column].set(xlabel="step t along an eigenvector", ylabel="loss − loss at t = 0 (dotted: model)")
        axes[0, column].set_title(f"{place.kind}: three eigenvectors")
        axes[0, column].legend(frameon=False, fontsize="small")
        both = remainders(place.params, place.args, jnp.asarray(place.vectors.T), jnp.asarray(STEPS))
        axes[1, column].loglog(STEPS, np.asarray(both.values).T, color=plots.SKY, lw=1)
        axes[1, column].loglog(STEPS, STEPS**3, "--", color="black", label="t³")
        axes[1, column].set(xlabel="step t along an eigenvector", ylabel="|remainder| along each eigenvector")
        axes[1, column].set_title(f"{place.kind}: remainder of the model")
        axes[1, column].legend(frameon=False)
    return figure


def conclusion(table: pd.DataFrame) -> str:
    """Return what was found, in sentences filled with numbers."""
    parts = [
        f"{row.median_slope:.2f} ± {row.half_width:.1g} at a {row.kind} ({100 * row.near:.0f} % of"
        f" {row.eigenvectors} eigenvectors within .1 of 3)"
        for row in table.itertuples()
    ]
    return (
        f"Found: the remainder of the second-order model falls with a median slope of {'; '.join(parts)}. The other"
        f" slopes, up to {table.highest_slope.max():.1f}, are larger where the third derivative is small or zero; the"
        f" lowest is {table.lowest_slope.min():.2f}. At a distance of .1 the error of the model is"
        f" {100 * table['remainder_at_.1'].min():.2g} to {100 * table['remainder_at_.1'].max():.2g} % of its quadratic"
        " term (medians)."
    )


def run(settings: Settings) -> pd.DataFrame:
    """Search, measure, print and save; return one row for each eigenvector."""
    folder = RunFolder("taylor", settings, settings.output, resume=settings.resume)
    networks = min(3, settings.networks) if settings.quick else settings.networks
    with jax.enable_x64(True):
        found: list[Place] = []
        for number in tqdm.trange(networks, unit="network", disable=None):
            found += folder.kept(f"network_{number}", functools.partial(places, settings, number))
        rows = pd.DataFrame([row for place in found for row in measure(place)])
        first = {place.kind: place for place in reversed(found)}
        figure = draw([first[kind] for kind in KINDS if kind in first])
    table = summary(rows)
    folder.table("eigenvectors", rows)
    folder.table("summary", table)
    folder.figure("taylor", figure)
    print("Slope of the remainder against distance, over all eigenvectors of each point:")
    print(tables.text(table, "summary", float_format="{:.3g}".format))
    folder.conclude(conclusion(table))
    return rows


if __name__ == "__main__":
    command_line.start("taylor", run, Settings, __doc__)
