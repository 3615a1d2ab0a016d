"""Which critical points does a network on real digits have, and is each a minimum or a saddle?

Trains a small tanh network with weight decay on the digits, then searches for critical points of its loss: for a
minimum and for saddles of chosen index from points of the training run, and for critical points of any index from
points of the run and from random starts, by following eigenvectors. Every point is classified with an error bound,
whether the search converged or not, and proved where it can be.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import matplotlib.figure
import numpy as np
import optax
import pandas as pd
import tqdm

from experiments._shared import command_line, tables
from experiments._shared.classifier import Classifier, classifier
from experiments._shared.live import live_units
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import critical, datasets, losses, mlp, plots, training, tree


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    hidden: int = 8
    """Hidden tanh units of the 64-hidden-10 network."""
    weight_decay: float = 1e-2
    """Strength s of the penalty (s / 2) ‖θ‖², biases included."""
    epochs: int = 60
    """Epochs of the training run from whose points the searches start."""
    prove: bool = True
    """Prove each point where a search ended: that it is critical, the only one near, and its index."""


class Search(NamedTuple):
    """Where a search starts, and the index it is after (None: any)."""

    origin: str
    params: mlp.Params
    wanted: int | None


class Found(NamedTuple):
    """Where a search ended, and what the point is."""

    search: Search
    point: critical.Point
    verdict: critical.Verdict


def searches(settings: Settings, model: Classifier, data: datasets.Dataset) -> list[Search]:
    """Train once, and return where to search from: points of the run, points around it, and random starts."""
    key = jax.random.key(settings.seed)
    init_key, train_key, noise_key = jax.random.split(key, 3)
    sizes = (64, settings.hidden, 10)
    _, history = training.train(
        train_key,
        model.batch_loss,
        mlp.init(init_key, sizes),
        data.train,
        optimizer=optax.sgd(0.1),
        batch_size=64,
        epochs=settings.epochs,
        record=lambda state: state.params,
    )

    def at(share: float) -> tuple[str, mlp.Params]:
        epoch = min(settings.epochs - 1, round(share * settings.epochs))
        return f"run, epoch {epoch + 1}", jax.tree.map(lambda leaf: leaf[epoch], history.record)

    def around(share: float, noise: float) -> tuple[str, mlp.Params]:
        origin, params = at(share)
        draw = tree.random_like(noise_key, params)
        return f"{origin}, ±{noise:.0%}", jax.tree.map(lambda a, b: a * (1 + noise * b), params, draw)

    def random(number: int, scale: float) -> tuple[str, mlp.Params]:
        params = mlp.init(jax.random.fold_in(noise_key, number), sizes)
        return f"random × {scale:g}", jax.tree.map(lambda leaf: scale * leaf, params)

    # From the end of the run downwards for low indices, from earlier points for higher ones.
    followed = [(1.0, 0), (1.0, 1), (1.0, 2), (0.65, 3), (0.45, 5), (0.3, 8), (0.15, 12)]
    chosen = [Search(*at(share), index) for share, index in (followed[:4] if settings.quick else followed)]
    descents = [random(0, 1.0), random(0, 2.0), at(0.15), around(0.5, 0.1)]
    climbs = [] if settings.quick else [Search(*random(0, 1.0), 60)]
    return chosen + climbs + [Search(*start, None) for start in (descents[:2] if settings.quick else descents)]


def search(model: Classifier, data: datasets.Examples, start: Search, prove: bool) -> Found:
    """Search, and classify where it ended; prove it where that can be."""
    point = critical.find(model.fun, start.params, data, index=start.wanted, hessian=model.hessian)
    evidence = "proved" if prove else None
    verdict = critical.classify(model.fun, point.params, data, hessian=model.hessian, evidence=evidence)
    return Found(start, point, verdict)


def table(fun: Callable[..., jax.Array], data: datasets.Dataset, found: list[Found]) -> pd.DataFrame:
    """Return one row a search, in the order of the searches."""
    rows: list[dict[str, Any]] = []
    for search_, point, verdict in found:
        loss = float(fun(point.params, *data.train))
        logits = mlp.forward(point.params, data.test.inputs)
        accuracy = float(losses.mean(losses.accuracy(logits, data.test.targets)))
        key = (verdict.kind, verdict.index, round(loss, 9))
        earlier = next((row["point"] for row in rows if row["key"] == key and verdict.index is not None), None)
        rows.append(
            {
                "key": key,
                "point": earlier or len({row["point"] for row in rows}) + 1,
                "origin": search_.origin,
                "searched": "any index" if search_.wanted is None else f"index {search_.wanted}",
                "kind": verdict.kind,
                "index": verdict.index,
                "proved": verdict.evidence == "proved",
                "negative": verdict.inertia.negative,
                "unresolved": verdict.inertia.unresolved,
                "positive": verdict.inertia.positive,
                "live_units": live_units(point.params),
                "loss": loss,
                "test_accuracy": accuracy,
                "gradient_norm": verdict.gradient_norm,
                "flatness": verdict.flatness,
                "smallest": verdict.smallest,
                "largest": verdict.largest,
                "bound": verdict.bound,
                "distance": verdict.distance,
                "hessians": int(point.steps),
                "stopped_because": str(point.reason),
            }
        )
    return pd.DataFrame(rows).drop(columns="key").astype({"index": "Int64"})


def show(rows: pd.DataFrame) -> str:
    """Return the table as text, without the columns that only the CSV has room for."""
    brief = rows.assign(
        inertia=[f"({a}, {b}, {c})" for a, b, c in zip(rows.negative, rows.unresolved, rows.positive, strict=True)]
    )
    columns = ["point", "origin", "searched", "kind", "index", "proved", "loss", "smallest", "bound", "test_accuracy",
               "inertia", "live_units", "gradient_norm", "flatness", "largest"]  # fmt: skip
    formats = {"loss": "{:.6f}", "test_accuracy": "{:.3f}", "gradient_norm": "{:.1e}", "flatness": "{:.0e}",
               "smallest": "{:.2e}", "largest": "{:.3f}", "bound": "{:.0e}"}  # fmt: skip
    formatters = {name: form.format for name, form in formats.items()}
    return tables.text(brief[columns], "critical_points", na_rep="-", formatters=formatters)


def conclusion(rows: pd.DataFrame, hidden: int) -> str:
    """Return one sentence on what was found."""
    points = rows.drop_duplicates("point")
    minima, saddles = points[points.kind == "minimum"], points[points.kind == "saddle"]
    padded = saddles[saddles.live_units < hidden]
    indices = ", ".join(str(i) for i in sorted(saddles["index"].dropna().unique()))
    return (
        f"Found: {_count(len(minima), 'minimum', 'minima')} and {_count(len(saddles), 'saddle', 'saddles')} of index"
        f" {indices or 'none'} ({len(padded)} of them a"
        f" smaller network's point padded with dead units), {int(points.proved.sum())} of them proved;"
        f" {len(points) - len(minima) - len(saddles)} searches ended where no verdict of minimum or saddle is"
        " justified."
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def draw_spectra(
    hessian: Callable[..., jax.Array], data: datasets.Examples, found: list[Found]
) -> matplotlib.figure.Figure:
    """Return the eigenvalues of the lowest minimum beside those of the saddle of highest index without dead units."""
    figure = matplotlib.figure.Figure(figsize=(10, 4), layout="constrained")
    minima = [f for f in found if f.verdict.kind == "minimum"]
    saddles = [f for f in found if f.verdict.kind == "saddle"]
    live = [f for f in saddles if live_units(f.point.params) == f.point.params[0].bias.size] or saddles
    chosen = minima[:1] + sorted(live, key=lambda f: f.verdict.inertia.negative)[-1:]
    for axes, one in zip(figure.subplots(1, max(len(chosen), 1), squeeze=False)[0], chosen, strict=True):
        matrix = np.asarray(hessian(one.point.params, *data))
        title = one.verdict.kind + ("" if one.verdict.index == 0 else f" of index {one.verdict.index}")
        plots.eigenvalues(axes, np.linalg.eigvalsh(matrix), title)
    return figure


def draw_levels(rows: pd.DataFrame, hidden: int) -> matplotlib.figure.Figure:
    """Return the figure of loss against index."""
    figure = matplotlib.figure.Figure(figsize=(6, 4), layout="constrained")
    known = rows[rows["index"].notna()].drop_duplicates("point")
    axes = figure.subplots()
    plots.loss_against_index(axes, known["index"].astype(int), known.loss, known.live_units < hidden)
    axes.set_title("critical points found")
    return figure


def run(settings: Settings) -> pd.DataFrame:
    """Search, classify, print and save; return the table."""
    folder = RunFolder("minima_and_saddles", settings, settings.output, resume=settings.resume)
    with jax.enable_x64(True):
        model, data = classifier(settings.weight_decay), datasets.load("digits")
        starts = searches(settings, model, data)
        found: list[Found] = []
        with tqdm.tqdm(starts, unit="search", desc="searching") as bar:
            for start in bar:
                bar.set_postfix_str(
                    f"{start.origin}, {'any index' if start.wanted is None else f'index {start.wanted}'}"
                )
                searched = functools.partial(search, model, data.train, start, settings.prove)
                found.append(folder.kept(f"search_{len(found)}", searched))
        rows = table(model.fun, data, found)
        figures = {
            "loss_against_index": draw_levels(rows, settings.hidden),
            "spectra": draw_spectra(model.hessian, data.train, found),
        }
    folder.table("critical_points", rows)
    for number, one in enumerate(found):
        if one.verdict.certificate is not None:
            one.verdict.certificate.save(folder.path / f"search_{number}.json")
    for name, figure in figures.items():
        folder.figure(name, figure)
    print(show(rows))
    for kind in ("minimum", "saddle"):
        for one in [f for f in found if f.verdict.kind == kind][:1]:
            print(f"\n{one.search.origin}: {one.verdict}")
    print(
        f"\n64-{settings.hidden}-10, loss over {len(data.train.targets)} training digits, accuracy on"
        f" {len(data.test.targets)} others."
    )
    folder.conclude(conclusion(rows, settings.hidden))
    return rows


def main() -> None:
    """Read the command line and run."""
    command_line.start("minima_and_saddles", run, Settings, __doc__)


if __name__ == "__main__":
    main()
