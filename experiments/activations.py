"""How do sigmoid, tanh, ReLU and maxout differ in accuracy, speed and gradients over depth, and what can maxout fit?

Networks of equal size on digits, trained by SGD. Every activation at every depth gets the same number of learning rates
and of updates, once for accuracy and once for speed. Rates are chosen on tuning seeds (by validation accuracy, or by
updates to a training loss); the results are those of fresh seeds. Weights start with variance 1 / fan-in (2 / fan-in
for ReLU), which preserves the size of the signal.

Gradients are measured by layer, at initialization and after training, beside theory (`_shared/activation_networks`).
One maxout unit is fitted to x² and −x² and compared with the least error possible (`_shared/maxout_fits`).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
import pandas as pd
import tqdm

from experiments._shared import activation_networks as networks
from experiments._shared import command_line, maxout_fits, tables
from experiments._shared.activation_networks import KINDS
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import datasets, losses, mlp, plots, training
from mlp_jax.confidence import mean_interval

TRIES, BATCH_SIZE, RECORD_EVERY, TARGET, GRADIENT = 10, 32, 10, 0.2, "gradient first / last"
RATES = np.geomspace(1e-3, 10**1.5, TRIES)


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    seeds: int = 5
    """Tuning seeds; there are five times as many fresh seeds."""
    epochs: int = 10
    """Passes over the digits."""
    width: int = 16
    """Hidden units a layer; maxout has fewer, for about the same number of parameters."""
    depths: tuple[int, ...] = (2, 8)
    """Hidden layers of the trained networks."""
    more_depths: tuple[int, ...] = (4, 16)
    """Hidden layers of networks whose gradients are measured at initialization only."""

    def __post_init__(self) -> None:
        if min((*self.depths, *self.more_depths)) < 2:
            raise ValueError(f"depths: got {self.depths} and {self.more_depths}, expected 2 or more hidden layers.")


@functools.partial(jax.jit, static_argnames=("name", "epochs"))
def learn(
    name: str, keys: jax.Array, starts: mlp.Params, rates: jax.Array, parts: tuple[datasets.Examples, ...], epochs: int
) -> tuple[mlp.Params, dict[str, jax.Array]]:
    """Train one lane for each key, start and rate on the first part; return params, losses and accuracies."""
    train, validation, test, probe = parts

    forward = functools.partial(mlp.forward, activation=KINDS[name].activation)

    def loss(params: mlp.Params, x: Any, y: Any, weights: Any = None, key: Any = None) -> jax.Array:
        return losses.mean(losses.cross_entropy(forward(params, x), y), weights)

    def lane(key: jax.Array, start: mlp.Params, rate: jax.Array) -> tuple[mlp.Params, dict[str, jax.Array]]:
        params, history = training.train(
            key, loss, start, train, optimizer=optax.sgd(rate), batch_size=BATCH_SIZE, epochs=epochs,
            record=lambda state: loss(state.params, *probe), record_every=RECORD_EVERY,
        )  # fmt: skip
        scores = {"loss": history.record, "diverged": history.diverged_at > 0}
        for part, (inputs, targets) in (("validation", validation), ("test", test)):
            scores[part] = losses.mean(losses.accuracy(forward(params, inputs), targets))
        return params, scores

    return jax.vmap(lane)(keys, starts, rates)


def updates_to(values: np.ndarray, target: float = TARGET) -> np.ndarray:
    """Return the updates until the loss (last axis, every ten updates) is at most the target; infinite if never."""
    reached = values <= target
    return np.where(reached.any(-1), RECORD_EVERY * (reached.argmax(-1) + 1.0), np.inf)


def choose(accuracy: np.ndarray, values: np.ndarray) -> dict[str, int]:
    """Return the numbers of the best tries for accuracy and for speed, from arrays (tries, seeds, ...).

    Speed: most seeds that reach the target, then the fewest updates among those, then the lowest final loss.
    """
    needed = updates_to(values)
    reached = np.isfinite(needed)
    spent = np.where(reached, needed, 0).sum(1) / np.maximum(reached.sum(1), 1)
    ends = np.where(np.isfinite(values[..., -1]), values[..., -1], 1e9).mean(1)
    return {"accuracy": int(accuracy.mean(1).argmax()), "speed": int(np.lexsort((ends, spent, -reached.sum(1)))[0])}


def measure(name: str, depth: int, settings: Settings, parts: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tune the rate for accuracy and for speed, and train fresh seeds with both, as lanes of one program.

    Return one row for each fresh seed and aim, and the gradients by layer.
    """
    sizes, key = networks.sizes_of(KINDS[name], depth, settings.width), jax.random.key(settings.seed)
    lanes, lane_parts = TRIES * settings.seeds, tuple(parts.values())
    tuning, fresh = (jax.random.split(jax.random.fold_in(key, k), n) for k, n in ((0, settings.seeds), (1, lanes // 2)))

    def trained(keys: jax.Array, copies: int, rates: np.ndarray) -> tuple[mlp.Params, mlp.Params, dict]:
        repeated, starts = jnp.tile(keys, copies), networks.draw_starts(name, sizes, keys, copies)
        lane_rates = jnp.asarray(np.repeat(rates, len(keys)), jnp.float32)
        ends, scores = learn(name, repeated, starts, lane_rates, lane_parts, settings.epochs)
        return starts, ends, {k: np.asarray(v).reshape(copies, len(keys), *v.shape[1:]) for k, v in scores.items()}

    search = trained(tuning, TRIES, RATES)[2]
    chosen = choose(search["validation"], search["loss"])
    starts, ends, scores = trained(fresh, 2, RATES[list(chosen.values())])
    frames = []
    for k, (aim, number) in enumerate(chosen.items()):
        row = {"activation": name, "depth": depth, "aim": aim, "rate": RATES[number]}
        row |= {"at edge": number in (0, TRIES - 1), "seed": np.arange(len(fresh))}
        row |= {"accuracy": scores["test"][k].astype(float), "loss": scores["loss"][k, :, -1].astype(float)}
        row |= {"updates": updates_to(scores["loss"][k]), "diverged": scores["diverged"][k]}
        row |= {"diverged in search": search["diverged"].sum()}
        row |= {"parameters": networks.num_parameters(depth, sizes[1], KINDS[name].pieces)}
        frames.append(pd.DataFrame(row))
    norms = [
        networks.gradients(name, depth, when, jax.tree.map(lambda a: a[: len(fresh)], params), parts["probe"])
        for when, params in (("start", starts), ("trained", ends))
    ]
    return pd.concat(frames, ignore_index=True), pd.concat(norms, ignore_index=True)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each activation and depth, with 95 % half widths over fresh seeds.

    Accuracy and loss (without diverged runs) are at the rate chosen for accuracy, `over tanh` is paired by seed.
    `updates` to the target are at the rate chosen for speed, over the share `reached` of seeds that reach it.
    """
    table = []
    for (name, depth), part in rows.groupby(["activation", "depth"], sort=False):
        slow, fast = (part[part.aim == aim].set_index("seed") for aim in ("accuracy", "speed"))
        tanh = rows[(rows.activation == "tanh") & (rows.depth == depth) & (rows.aim == "accuracy")].set_index("seed")
        arrived = fast.updates[np.isfinite(fast.updates)]
        row = {"activation": name, "depth": depth, "parameters": part.parameters.iloc[0]}
        row |= {"rate": slow.rate.iloc[0], "rate for speed": fast.rate.iloc[0], "at edge": part["at edge"].any()}
        for figure, samples in (
            ("accuracy", 100 * slow.accuracy),
            ("over tanh", 100 * (slow.accuracy - tanh.accuracy)),
            ("loss", slow.loss[~slow.diverged]),
            ("updates", arrived if len(arrived) else [np.nan]),
        ):
            row[figure], row[f"{figure} ±"] = map(float, mean_interval(samples))
        row |= {"reached": len(arrived) / len(fast), "diverged": part.diverged.sum()}
        table.append(row | {"in search": part["diverged in search"].iloc[0]})
    return pd.DataFrame(table)


def draw(slopes: pd.DataFrame, fits: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: the backpropagated error over depth, and a maxout unit on x² and −x²."""
    figure = matplotlib.figure.Figure(figsize=(11, 4.5), layout="constrained")
    over_depth, maxout = figure.subplots(1, 2)
    start = slopes[slopes.when == "start"]
    for name, kind in KINDS.items():
        style = dict(zip(("color", "marker", "ls"), kind.style, strict=True))
        part = start[start.activation == name].sort_values("depth")
        over_depth.loglog(part.depth, part["δ a layer"] ** (part.depth - 1), label=name, **style)
        over_depth.loglog(part.depth, part.theory ** (part.depth - 1), ".:", color="black", ms=3, lw=0.8)
    looks = (("s--", plots.ORANGE), ("o-", plots.BLUE), ("^-.", plots.GREEN))
    for (name, part), (look, color) in zip(fits.groupby("fit", sort=False), looks, strict=True):
        maxout.errorbar(part.pieces, part.largest, part["largest ±"], fmt=look, color=color, capsize=2, label=name)
    pieces = np.unique(fits.pieces)
    maxout.loglog(pieces, 1 / (2 * pieces**2.0), ".:", color="black", ms=3, label="least possible for x², 1 / (2k²)")
    over_depth.set(xlabel="hidden layers", ylabel="error δ, first / last hidden layer")
    over_depth.set_title("at initialization (dotted: theory)")
    maxout.set(xlabel="pieces k of one maxout unit", ylabel="largest error on [−1, 1]", title="x² and −x², 95 %")
    for axes, ticks in ((over_depth, np.unique(start.depth)), (maxout, pieces)):
        axes.xaxis.minorticks_off()
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.legend(frameon=False, fontsize="small")
    return figure


def conclusion(table: pd.DataFrame, slopes: pd.DataFrame, fits: pd.DataFrame) -> str:
    """Return what was found, in a sentence made from the numbers."""
    accuracy = ", ".join(
        f"{row['activation']} at {row['depth']} {row['over tanh']:+.1f} ± {row['over tanh ±']:.1f}"
        for _, row in table[table.activation != "tanh"].iterrows()
    )
    start = slopes[(slopes.when == "start") & (slopes.depth == slopes.depth.max())]
    ratios = ", ".join(f"{name} {ratio:.1g}" for name, ratio in zip(start.activation, start[GRADIENT], strict=True))
    most = fits[fits.pieces == fits.pieces.max()]
    errors = ", ".join(f"{row['fit']} {row['largest']:.2g} ± {row['largest ±']:.1g}" for _, row in most.iterrows())
    return (
        f"Found: accuracy over that of tanh, in points, by hidden layers: {accuracy}; with {start.depth.iloc[0]}"
        f" hidden layers at initialization, gradient of the first layer over that of the last: {ratios}; largest error"
        f" of a maxout unit of {most.pieces.iloc[0]} pieces (at least {most['least largest'].min():.2g}): {errors}."
    )


def run(settings: Settings) -> dict[str, pd.DataFrame]:
    """Train, measure, print and save; return the tables."""
    folder = RunFolder("activations", settings, settings.output, resume=settings.resume)
    pieces = maxout_fits.PIECES[1:2] if settings.quick else maxout_fits.PIECES
    if settings.quick:
        seeds, epochs = min(2, settings.seeds), min(5, settings.epochs)
        settings = dataclasses.replace(settings, seeds=seeds, epochs=epochs, depths=(4,), more_depths=())
    parts, found, norms = make_parts(), [], []
    starts = jax.random.split(jax.random.key(settings.seed), TRIES * settings.seeds // 2)
    steps = len(KINDS) * len(settings.depths) + len(pieces)
    with tqdm.tqdm(total=steps, unit="step", leave=False, disable=None) as bar:
        for name, kind in KINDS.items():
            for depth in settings.depths:
                found.append(folder.kept(f"{name}_{depth}", functools.partial(measure, name, depth, settings, parts)))
                bar.update()
            for depth in settings.more_depths:
                params = networks.draw_starts(name, networks.sizes_of(kind, depth, settings.width), starts)
                norms.append(networks.gradients(name, depth, "start", params, parts["probe"]))
        fitted = folder.kept("fits", lambda: maxout_fits.convex(settings.seed, pieces, bar))
    rows = pd.concat([one for one, _ in found], ignore_index=True)
    layers = pd.concat([*norms, *(gradients for _, gradients in found)], ignore_index=True)
    slopes = networks.vanishing(layers, np.asarray(parts["probe"].inputs))
    slopes = slopes.sort_values(["when", "depth"], kind="stable", ignore_index=True)
    table, fits = summary(rows), maxout_fits.convex_summary(fitted)
    frames = {"summary": table, "slopes": slopes, "fit_summary": fits, "runs": rows, "layers": layers, "fits": fitted}
    for name, frame in frames.items():
        folder.table(name, frame)
    print(f"Digits, {settings.epochs} epochs of SGD (percent, nats; {rows.seed.nunique()} fresh seeds, 95 %):")
    columns = ["activation", "depth", "accuracy", "accuracy ±", "over tanh", "over tanh ±", "updates", "reached"]
    print(tables.text(table[columns], "summary", float_format="{:.3g}".format))
    folder.figure("activations", draw(slopes, fits))
    folder.conclude(conclusion(table, slopes, fits))
    return frames


def make_parts() -> dict[str, datasets.Examples]:
    """Return training, validation and test digits, and 300 training digits to measure losses and gradients on."""
    data = datasets.load("digits")
    splits = datasets.stratified_split(np.asarray(data.train.targets), len(data.train.targets) // 5)
    train, validation = (datasets.Examples(*(a[rows] for a in data.train)) for rows in splits)
    probe = datasets.Examples(*(a[:300] for a in train))
    return {"train": train, "validation": validation, "test": data.test, "probe": probe}


if __name__ == "__main__":
    command_line.start("activations", run, Settings, __doc__)
