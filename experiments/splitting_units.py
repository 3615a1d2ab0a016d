"""If a hidden unit of a network at a minimum is split in two, is the result a line of minima or of saddles?

A unit (w, v) of a network with one output becomes two, (w, λ v) and (w, (1 − λ) v). The function computed is the same
for every λ, and every point of that line is critical for the larger network. Its Hessian there has the signs of the
small network, those of λ (1 − λ) A with A = mean[(f − y) v φ''(w·x) x xᵀ], and one zero along the line (Fukumizu &
Amari 2000). Here small networks are trained to minima on noisy teachers, each unit is split, and the inertia at several
places on each line is measured with its error bound and compared with the theorem.
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
import scipy.stats
import tqdm

from experiments._shared import command_line, tables
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import critical, curvature, losses, mlp, plots, tree

LINE = ["network", "teacher", "unit"]
EXAMPLES, NOISE = 40, 0.3
# Number of inputs, whether hidden units have a bias, and number of hidden units of the small networks.
NETWORKS = ((1, False, 1), (1, False, 2), (1, True, 2), (2, True, 2))
PLACES = (-0.6, -0.3, -0.1, 0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.6)
Data = tuple[Any, Any]


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    teachers: int = 40
    """Data sets for each network; each gives at most one minimum."""


class Split(NamedTuple):
    """A minimum of a small network, one of its units, and the matrix A of that unit."""

    network: str
    teacher: int
    unit: int
    params: mlp.Params
    data: Data
    matrix: np.ndarray

    @property
    def definite(self) -> str:
        """Return whether A is positive definite, negative definite or indefinite."""
        values = np.linalg.eigvalsh(self.matrix)
        return "positive definite" if values[0] > 0 else "negative definite" if values[-1] < 0 else "indefinite"


def loss(params: mlp.Params, x: Any, y: Any) -> jax.Array:
    """Return half the mean squared error, without a penalty, which would break the symmetry."""
    return losses.mean(losses.squared_error(mlp.forward(params, x), y))


def draw_network(generator: np.random.Generator, inputs: int, bias: bool, hidden: int) -> mlp.Params:
    """Return a network with one output, without a bias there, whose parameters are normal."""
    entering, leaving = (jnp.asarray(generator.standard_normal(s)) for s in ((inputs + bias, hidden), (hidden, 1)))
    return mlp.Layer(entering[:inputs], entering[inputs] if bias else None), mlp.Layer(leaving)


def minimum(generator: np.random.Generator, inputs: int, bias: bool, hidden: int) -> tuple[mlp.Params, Data] | None:
    """Return a minimum of the small network on a noisy teacher's data, or None if the search does not find one."""
    x: Any = generator.standard_normal((EXAMPLES, inputs))
    teacher = np.asarray(mlp.forward(draw_network(generator, inputs, bias, 3), x))
    data = x, teacher + NOISE * generator.standard_normal((EXAMPLES, 1))
    point = critical.find(loss, draw_network(generator, inputs, bias, hidden), data, index=0)
    verdict = critical.classify(loss, point.params, data)
    return (point.params, data) if verdict.kind == "minimum" else None


def bending(params: mlp.Params, unit: int, x: Any, y: Any) -> np.ndarray:
    """Return A = mean[(f − y) v φ''(z) x xᵀ] of a tanh unit, with a 1 appended to x for the bias."""
    tanh, extended = np.tanh(params[0].affine(x)[:, unit]), params[0].extend(x)
    factor = (mlp.forward(params, x) - y)[:, 0] * params[1].weight[unit, 0] * -2 * tanh * (1 - tanh**2)
    return np.asarray((extended * factor[:, None]).T @ extended) / len(x)


def predicted(one: Split, share: float) -> tuple[int, int, int]:
    """Return (negative, zero, positive) of the larger network's Hessian by the theorem."""
    values = share * (1 - share) * np.linalg.eigvalsh(one.matrix)
    return int(np.sum(values < 0)), 1, int(np.sum(values > 0)) + tree.size(one.params)


def along(one: Split) -> list[dict[str, Any]]:
    """Return one row for each place on the line: the measured inertia, and the theorem's."""
    rows, base = [], float(loss(one.params, *one.data))
    for share in PLACES:
        params = mlp.split_unit(one.params, 0, one.unit, share)
        verdict = critical.classify(loss, params, one.data)
        measured, theory = tuple(verdict.inertia[:3]), predicted(one, share)
        rows.append(
            {
                **dict(zip(LINE, one[:3], strict=True)),
                "A": one.definite,
                "share": share,
                "place": "between 0 and 1" if 0 < share < 1 else "outside",
                "kind": verdict.kind,
                **dict(zip(("negative", "unresolved", "positive"), measured, strict=True)),
                "predicted_negative": theory[0],
                "agrees": measured == theory,
                "contradicts": measured[0] > theory[0] or measured[2] > theory[2],
                "gradient_norm": verdict.gradient_norm,
                "loss_change": float(loss(params, *one.data)) - base,
            }
        )
    return rows


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how often no eigenvalue is negative, by the signs of A and the place, with 95 % intervals over lines."""
    table = []
    for (network, signs, place), part in rows.groupby(["network", "A", "place"]):
        lines = part.groupby(LINE).negative.max()
        flat = int((lines == 0).sum())
        low, high = scipy.stats.binomtest(flat, len(lines)).proportion_ci(method="wilson")
        table.append(
            {
                "network": network,
                "A": signs,
                "place": place,
                "lines": len(lines),
                "places": len(part),
                "theorem_holds": int(part.agrees.sum()),
                "no_negative_eigenvalue": flat / len(lines),
                "from": low,
                "to": high,
                "kinds": ", ".join(f"{n} {kind}" for kind, n in part.kind.value_counts().items()),
            }
        )
    return pd.DataFrame(table)


def draw(splits: list[Split]) -> matplotlib.figure.Figure:
    """Return the figure: the four lowest eigenvalues along a line, for each kind of A found."""
    chosen = list({one.definite: one for one in reversed(splits)}.values())
    figure = matplotlib.figure.Figure(figsize=(4.6 * max(1, len(chosen)), 4), layout="constrained")
    shares = np.linspace(-0.7, 1.7, 97)
    for axes, one in zip(figure.subplots(1, max(1, len(chosen)), squeeze=False)[0], chosen, strict=False):
        values = np.stack([spectrum(one, share) for share in shares])
        for k, color in enumerate((plots.BLUE, plots.ORANGE, plots.GREEN, plots.GREY)):
            axes.plot(shares, values[:, k], color=color, ls=("-", "--", "-.", ":")[k], label=f"eigenvalue {k + 1}")
        axes.axhline(0, color="black", lw=0.8)
        for end in (0, 1):
            axes.axvline(end, color=plots.GREY, lw=0.6)
        title, label = f"the theorem's A is {one.definite}", "lowest eigenvalues of the Hessian"
        axes.set(xlabel="share λ of the first copy", ylabel=label, title=title)
        axes.set_yscale("symlog", linthresh=max(1e-6, 1e-3 * float(np.max(np.abs(values[:, :2])))))
        axes.set_ylim(top=3 * np.max(values))
    labelled = figure.axes[0].get_legend_handles_labels()
    figure.legend(*labelled, loc="outside right center", frameon=False, fontsize="small")
    return figure


def spectrum(one: Split, share: float) -> np.ndarray:
    """Return the four lowest eigenvalues of the larger network's Hessian."""
    matrix = curvature.dense_hessian(loss, mlp.split_unit(one.params, 0, one.unit, share), one.data)
    return np.linalg.eigvalsh(np.asarray(matrix))[:4]


def conclusion(rows: pd.DataFrame) -> str:
    """Return what was found, in sentences filled with numbers."""
    kinds = rows.groupby(LINE).A.first().value_counts()
    lines, stays = int(kinds.sum()), rows[(rows.negative == 0)].groupby(LINE).size()
    words = ", ".join(f"{kind} on {number}" for kind, number in kinds.items())
    return (
        f"Found: at {int(rows.agrees.sum())} of {len(rows)} places on {lines} lines the signs are those of the theorem,"
        f" at {int(rows.contradicts.sum())} they contradict it, at the others an eigenvalue is not resolved (A is"
        f" {words}); the loss changes by {rows.loss_change.abs().max():.1e} along them. {len(stays)} lines have a part"
        f" without a negative eigenvalue, {lines - len(stays)} consist of saddles only;"
        f" {int((rows.kind == 'minimum').sum())} places are called a minimum (0 is correct: none is isolated)."
    )


Line = tuple[Split, list[dict[str, Any]]]


def of_teacher(settings: Settings, inputs: int, bias: bool, hidden: int, number: int) -> list[Line]:
    """Return every split of the minimum for one teacher, with the rows of its line; empty if no minimum is found."""
    if (found := minimum(np.random.default_rng((settings.seed, number)), inputs, bias, hidden)) is None:
        return []
    params, data = found
    name = f"{inputs}-{hidden}-1{', bias' if bias else ''}"
    splits = [Split(name, number, unit, params, data, bending(params, unit, *data)) for unit in range(hidden)]
    return [(one, along(one)) for one in splits]


def run(settings: Settings) -> pd.DataFrame:
    """Search, split, compare, print and save; return one row for each place."""
    folder = RunFolder("splitting_units", settings, settings.output, resume=settings.resume)
    teachers = max(1, settings.teachers // 5) if settings.quick else settings.teachers
    splits: list[Split] = []
    rows: list[dict[str, Any]] = []
    work = [(*network, number) for network in NETWORKS for number in range(teachers)]
    with jax.enable_x64(True):
        for inputs, bias, hidden, number in tqdm.tqdm(work, unit="teacher", disable=None):
            one = functools.partial(of_teacher, settings, inputs, bias, hidden, number)
            for made, places in folder.kept(f"teacher_{number}_inputs_{inputs}_units_{hidden}_bias_{bias}", one):
                splits.append(made)
                rows += places
        if not rows:
            raise RuntimeError(f"no minimum was found from {len(work)} teachers; try another seed or more teachers.")
        figure = draw(splits)
    places = pd.DataFrame(rows)
    table = summary(places)
    for name, frame in (("places", places), ("summary", table)):
        folder.table(name, frame)
    folder.figure("eigenvalues_along_lines", figure)
    minima = len(places.groupby(["network", "teacher"]))
    print(f"{minima} minima from {len(work)} teachers, every hidden unit split; lines without a negative eigenvalue:")
    print(tables.text(table, "summary", float_format="{:.2f}".format))
    folder.conclude(conclusion(places))
    return places


if __name__ == "__main__":
    command_line.start("splitting_units", run, Settings, __doc__)
