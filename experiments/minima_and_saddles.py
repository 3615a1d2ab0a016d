"""Which critical points does a network on real digits have, and is each a minimum or a saddle?

Trains a small tanh network with weight decay on the digits, then searches for critical points of its loss: for minima
and saddles of chosen index from points of the training run, and for points of any index from random starts. From the
points found, ladders lead to points of neighbouring index, for as long as the time lasts. Every point is classified
with an error bound and proved, minima first, as far as the time goes.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
import pandas as pd

from experiments._shared import command_line, tables
from experiments._shared.classifier import Classifier, classifier
from experiments._shared.hunt import Found, Hunt, Start, on_cores
from experiments._shared.live import live_units
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import critical, datasets, landscape, losses, mlp, mlp_symmetry, plots, training, tree

# Share of the time in which ladders are begun; the rest is for verdicts and proofs.
LADDERS = 0.65


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    hidden: int = 8
    """Hidden tanh units of the 64-hidden-10 network."""
    weight_decay: float = 1e-2
    """Strength s of the penalty (s / 2) ‖θ‖², biases included."""
    epochs: int = 60
    """Epochs of the training run from whose points the searches start."""
    seconds: float = 52
    """Seconds after which no ladder and no proof is begun; the first searches always run."""
    prove: Literal["some", "all", "none"] = "some"
    """Prove points as far as the time goes, all of them, or none: that each is critical, isolated, and of its index."""


def starts(settings: Settings, model: Classifier, data: datasets.Dataset) -> list[Start]:
    """Train once, and return where to search from: points of the run, and random starts."""
    key = jax.random.key(settings.seed)
    init_key, train_key, random_key = jax.random.split(key, 3)
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

    def random(number: int, scale: float) -> tuple[str, mlp.Params]:
        params = mlp.init(jax.random.fold_in(random_key, number), sizes)
        return f"random × {scale:g}", jax.tree.map(lambda leaf: scale * leaf, params)

    # From the end of the run downwards for low indices, from earlier points for higher ones.
    followed = [
        (1.0, 0),
        (1.0, 1),
        (1.0, 2),
        (0.65, 3),
        (0.55, 4),
        (0.45, 5),
        (0.4, 6),
        (0.35, 7),
        (0.3, 8),
        (0.25, 10),
    ]
    chosen = [Start(*at(share), index) for share, index in (followed[:4] if settings.quick else followed)]
    return chosen + [Start(*random(number, scale), None) for number, scale in ((0, 1.0), (1, 2.0))]


def verdicts(hunt: Hunt, found: list[Found], prove: str, in_time: Callable[[], bool]) -> list[critical.Verdict]:
    """Return a verdict on each point, with a proof as far as the time goes: minima first, then by index."""

    def verdict(number: int) -> critical.Verdict:
        if prove == "none" or (prove == "some" and not in_time()):
            return hunt.verdict(found[number])
        proof = functools.partial(hunt.verdict, found[number], evidence="proved")
        return hunt.folder.kept(f"proof_{number}", proof)

    return on_cores(verdict, range(len(found)), "point", "classifying and proving")


def table(data: datasets.Examples, found: list[Found], known: list[critical.Verdict]) -> pd.DataFrame:
    """Return one row for each critical point; the accuracy is that on other data."""
    rows = []
    for number, (f, verdict) in enumerate(zip(found, known, strict=True)):
        logits = mlp.forward(f.point.params, data.inputs)
        rows.append({
            "point": number, "kind": verdict.kind, "index": verdict.index, "proved": verdict.evidence == "proved",
            "loss": f.loss, "smallest": verdict.smallest, "bound": verdict.bound,
            "test_accuracy": float(losses.mean(losses.accuracy(logits, data.targets))),
            "live_units": live_units(f.point.params), "hits": f.hits, "origin": f.origin, "largest": verdict.largest,
            "negative": verdict.inertia.negative, "unresolved": verdict.inertia.unresolved,
            "positive": verdict.inertia.positive, "gradient_norm": verdict.gradient_norm, "distance": verdict.distance,
        })  # fmt: skip
    return pd.DataFrame(rows).astype({"index": "Int64"})


def conclusion(rows: pd.DataFrame, hidden: int, missed: int) -> str:
    """Return one sentence on what was found."""
    live = rows[rows.live_units == hidden]
    minima, saddles = (live[live.kind == kind] for kind in ("minimum", "saddle"))
    known = sorted(saddles["index"].dropna().unique())
    some = f", {known[0]} to {known[-1]}" if known else ""
    return (
        f"Found: {len(live)} critical points without dead units: {tables.count(len(minima), 'minimum', 'minima')} and"
        f" {tables.count(len(saddles), 'saddle')} of {tables.count(len(known), 'index', 'indices')}{some};"
        f" {len(rows) - len(live)} more are points of smaller networks, padded with dead units."
        f" {int(rows.proved.sum())} of {len(rows)} proved in the time given by --seconds;"
        f" {missed} of the first searches ended at no critical point."
    )


def draw_levels(rows: pd.DataFrame, hidden: int) -> matplotlib.figure.Figure:
    """Return the figure of loss against index."""
    figure = matplotlib.figure.Figure(figsize=(7, 4.5), layout="constrained")
    known = rows[rows["index"].notna()]
    axes = figure.subplots()
    plots.loss_against_index(
        axes, known["index"].astype(int), known.loss, known.live_units < hidden, filled=known.proved,
        shade=known.test_accuracy, shade_label="test accuracy",
    )  # fmt: skip
    axes.set_title(f"critical points of a 64-{hidden}-10 network on digits")
    return figure


def draw_pass(hunt: Hunt, found: list[Found]) -> matplotlib.figure.Figure | None:
    """Return the loss along the lines from the lowest saddle of index 1 to the minima on both sides; None without."""
    for saddle in (f.point.params for f in found if f.negative == 1):
        descents = functools.partial(hunt._replace(canonical=None).ladder, saddle, up=0)
        ends = [end.params for end in hunt.folder.kept("pass", descents) if end.index == 0]
        if len(ends) == 2:
            break
    else:
        return None
    figure = matplotlib.figure.Figure(figsize=(7, 4), layout="constrained")
    axes, shares = figure.subplots(), np.linspace(0, 1.3, 131)
    for side, end in zip((-1, 1), ends, strict=True):
        towards = jax.tree.map(lambda leaf, origin: leaf - origin, end, saddle)
        length = side * float(tree.norm(towards))
        values = landscape.line(hunt.fun, saddle, towards, shares, hunt.args)
        plots.profile(axes, length * shares, values)
        axes.plot(length, values[100], "*", ms=14, color=plots.colours.BLUE, label="minimum" if side > 0 else None)
    axes.plot(0, values[0], "o", ms=8, color=plots.colours.ORANGE, label="saddle of index 1")
    axes.set(xlabel="distance from the saddle, towards one minimum and towards the other", ylabel="loss (with penalty)")
    axes.legend(fontsize="small")
    return figure


def run(settings: Settings) -> pd.DataFrame:
    """Search, classify, prove, print and save; return the table."""
    folder = RunFolder("minima_and_saddles", settings, settings.output, resume=settings.resume)
    with jax.enable_x64(True):
        model, data = classifier(settings.weight_decay), datasets.load("digits")
        began = time.perf_counter()
        begin = starts(settings, model, data)
        maps = mlp_symmetry.maps(model.fun, begin[0].params, data.train, activation=jnp.tanh)
        hunt = Hunt(model.fun, model.hessian, model.enclosure, data.train, maps.canonical, folder)

        def in_time(share: float = 1.0) -> bool:
            return time.perf_counter() - began < share * settings.seconds

        found = hunt.searched(begin)
        missed = sum(not f.point.converged for f in found)
        if not settings.quick:
            found = hunt.laddered(found, functools.partial(in_time, LADDERS))
        found = hunt.distinct(found)
        known = verdicts(hunt, found, settings.prove, in_time)
        rows = table(data.test, found, known)
        figures = {"loss_against_index": draw_levels(rows, settings.hidden), "pass": draw_pass(hunt, found)}
    folder.table("critical_points", rows)
    for number, verdict in enumerate(known):
        if verdict.certificate is not None:
            verdict.certificate.save(folder.path / f"point_{number}.json")
    for name, figure in figures.items():
        if figure is not None:
            folder.figure(name, figure)
    formats = {"loss": "{:.6f}", "test_accuracy": "{:.3f}", "smallest": "{:.2e}", "bound": "{:.0e}"}
    formatters = {name: form.format for name, form in formats.items()}
    print(tables.text(rows, "critical_points", formatters=formatters))
    for kind in ("minimum", "saddle"):
        for verdict in [v for v in known if v.kind == kind][:1]:
            print(f"\n{verdict}")
    print(
        f"\n64-{settings.hidden}-10, loss over {len(data.train.targets)} training digits, accuracy on"
        f" {len(data.test.targets)} others."
    )
    folder.conclude(conclusion(rows, settings.hidden, missed))
    return rows


if __name__ == "__main__":
    command_line.start("minima_and_saddles", run, Settings, __doc__)
