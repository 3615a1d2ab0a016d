"""What do sigmoid, tanh, ReLU and maxout change: accuracy, speed, gradients over depth, and what can maxout fit?

Networks on digits with as many parameters each, trained by SGD. Every activation at every depth has the same number
of tries of its learning rate and as many updates, once for accuracy and once for speed; rates are chosen on tuning
seeds (validation accuracy; updates to a training loss) and the figures are of fresh seeds. Weights start with variance
1 / fan-in (2 / fan-in for ReLU), which keeps the size of the signal.

*Vanishing gradients*: the norm of the gradient by layer, at the start and after training. At infinite width the
error δ shrinks by √χ a layer, χ = σ_w² E[σ'(z)²] (Schoenholz et al. 2017, "Deep information propagation"); for
the sigmoid that is at most ¼. *Maxout*: the best largest error of k lines on x² over [−1, 1] is 1 / (2k²), the best
mean squared error 4 / (45 k⁴), both with k pieces of equal length; on −x², which is not convex, no number of pieces
has a mean squared error below that of one line.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np
import optax
import pandas as pd
import tqdm
import tyro

from experiments._shared import activation_networks as networks
from experiments._shared import command_line, maxout_fits
from experiments._shared.activation_networks import KINDS
from experiments._shared.run_folder import RunFolder
from mlp_jax import datasets, losses, mlp, plots, training
from mlp_jax.confidence import mean_interval

TRIES, BATCH_SIZE, RECORD_EVERY, TARGET = 10, 32, 10, 0.2
RATES = np.geomspace(1e-3, 10**1.5, TRIES)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the run; each is written to settings.json."""

    quick: bool = False
    """Two tuning seeds, five epochs, four hidden layers, two pieces."""
    seed: int = 0
    """Of starts and orders."""
    seeds: int = 5
    """Tuning seeds; fresh ones are five times as many."""
    epochs: int = 10
    """Passes over the digits."""
    width: int = 16
    """Hidden units a layer; maxout has fewer, so that it has about as many parameters."""
    depths: tuple[int, ...] = (2, 8)
    """Hidden layers of the networks that are trained."""
    more_depths: tuple[int, ...] = (4, 16)
    """Hidden layers of those whose gradients are measured at the start alone."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A new folder for the results; runs/activations-DATE-TIME when not given."""
    resume: bool = False
    """Go on with the run that was stopped in the folder of --output."""

    def __post_init__(self) -> None:
        if min((*self.depths, *self.more_depths)) < 2:
            raise ValueError(f"depths: got {self.depths} and {self.more_depths}, expected 2 or more hidden layers.")


@functools.partial(jax.jit, static_argnames=("name", "epochs"))
def learn(
    name: str, keys: jax.Array, starts: mlp.Params, rates: jax.Array, parts: tuple[datasets.Examples, ...], epochs: int
) -> tuple[mlp.Params, dict[str, jax.Array]]:
    """Train a lane for each key, start and rate on the first part; return params, and losses and accuracies."""
    train, validation, test, probe = parts

    def per_example(params: mlp.Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return losses.cross_entropy(mlp.forward(params, x, activation=KINDS[name].activation), y)

    def loss(params: mlp.Params, x: jax.Array, y: jax.Array, weights: jax.Array, key: jax.Array) -> jax.Array:
        return losses.mean(per_example(params, x, y), weights)

    def record(state: training.State) -> jax.Array:
        return losses.mean(per_example(state.params, *probe))

    def lane(key: jax.Array, start: mlp.Params, rate: jax.Array) -> tuple[mlp.Params, dict[str, jax.Array]]:
        params, history = training.train(
            key, loss, start, train, optimizer=optax.sgd(rate), batch_size=BATCH_SIZE, epochs=epochs,
            record=record, record_every=RECORD_EVERY,
        )  # fmt: skip
        scores = {"loss": history.record, "diverged": history.diverged_at > 0}
        for part, (inputs, targets) in (("validation", validation), ("test", test)):
            logits = mlp.forward(params, inputs, activation=KINDS[name].activation)
            scores[part] = losses.mean(losses.accuracy(logits, targets))
        return params, scores

    return jax.vmap(lane)(keys, starts, rates)


def updates_to(values: np.ndarray, target: float = TARGET) -> np.ndarray:
    """Return the updates until the loss (last axis, one record every ten updates) is at most the target; or infinity.

    Examples
    --------
    >>> updates_to(np.array([[0.5, 0.1, 0.3], [0.5, 0.4, np.nan]]), 0.2).tolist()
    [20.0, inf]
    """
    reached = values <= target
    return np.where(reached.any(-1), RECORD_EVERY * (reached.argmax(-1) + 1.0), np.inf)


def choose(accuracy: np.ndarray, values: np.ndarray) -> dict[str, int]:
    """Return the numbers of the tries that are best for accuracy and for speed, from arrays (tries, seeds, ...).

    Speed: most seeds that reach the target, then fewest updates of those, then the lowest loss at the end.

    Examples
    --------
    >>> choose(np.array([[0.9], [0.8]]), np.array([[[0.3, 0.19]], [[0.1, 0.1]]]))
    {'accuracy': 0, 'speed': 1}
    """
    needed = updates_to(values)
    reached = np.isfinite(needed)
    spent = np.where(reached, needed, 0).sum(1) / np.maximum(reached.sum(1), 1)
    ends = np.where(np.isfinite(values[..., -1]), values[..., -1], 1e9).mean(1)
    return {"accuracy": int(accuracy.mean(1).argmax()), "speed": int(np.lexsort((ends, spent, -reached.sum(1)))[0])}


class Measured(NamedTuple):
    """What one activation at one depth gave: rows (one a fresh seed and aim), loss curves, gradients."""

    rows: pd.DataFrame
    losses: np.ndarray
    gradients: pd.DataFrame


def measure(name: str, depth: int, settings: Settings, parts: dict[str, datasets.Examples]) -> Measured:
    """Tune the rate for accuracy and for speed, and train fresh seeds with both: lanes of the same program."""
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
    rows = [
        pd.DataFrame(
            {
                "activation": name,
                "depth": depth,
                "aim": aim,
                "rate": RATES[number],
                "at edge": number in (0, TRIES - 1),
                "seed": np.arange(len(fresh)),
                "accuracy": scores["test"][k].astype(float),
                "loss": scores["loss"][k, :, -1].astype(float),
                "updates": updates_to(scores["loss"][k]),
                "diverged": scores["diverged"][k],
                "diverged in search": search["diverged"].sum(),
                "parameters": networks.num_parameters(depth, sizes[1], KINDS[name].pieces),
            }
        )
        for k, (aim, number) in enumerate(chosen.items())
    ]
    first = [jax.tree.map(lambda a: a[: len(fresh)], params) for params in (starts, ends)]
    norms = [
        networks.gradients(name, depth, when, params, parts["probe"])
        for when, params in zip(("start", "trained"), first, strict=True)
    ]
    return Measured(
        pd.concat(rows, ignore_index=True),
        scores["loss"][list(chosen).index("speed")],
        pd.concat(norms, ignore_index=True),
    )


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row an activation and depth, with 95 % half widths over fresh seeds.

    Accuracy and loss (that of runs that did not diverge) at the rate chosen for accuracy, `over tanh` seed by seed;
    `updates` to the target at the rate chosen for speed, over the seeds that reached it, whose share is `reached`.
    """
    table = []
    for (name, depth), part in rows.groupby(["activation", "depth"], sort=False):
        slow, fast = (part[part.aim == aim].set_index("seed") for aim in ("accuracy", "speed"))
        tanh = rows[(rows.activation == "tanh") & (rows.depth == depth) & (rows.aim == "accuracy")].set_index("seed")
        arrived = fast.updates[np.isfinite(fast.updates)]
        figures = {
            "accuracy": 100 * slow.accuracy,
            "over tanh": 100 * (slow.accuracy - tanh.accuracy),
            "loss": slow.loss[~slow.diverged],
            "updates": arrived if len(arrived) else [np.nan],
        }
        row = {"activation": name, "depth": depth, "parameters": part.parameters.iloc[0]}
        row |= {"rate": slow.rate.iloc[0], "rate for speed": fast.rate.iloc[0], "at edge": part["at edge"].any()}
        for figure, samples in figures.items():
            mean, half = mean_interval(samples)
            row |= {figure: float(mean), f"{figure} ±": float(half)}
        diverged = {"diverged": int(part.diverged.sum()), "in search": int(part["diverged in search"].iloc[0])}
        table.append(row | {"reached": len(arrived) / len(fast)} | diverged)
    return pd.DataFrame(table)


def draw(
    curves: dict[tuple[str, int], np.ndarray], norms: pd.DataFrame, slopes: pd.DataFrame, fits: pd.DataFrame
) -> matplotlib.figure.Figure:
    """Return the figure: loss curves, errors over depth, gradients by layer, and maxout on x²."""
    figure = matplotlib.figure.Figure(figsize=(12, 9), layout="constrained")
    loss, over_depth, by_layer, maxout = figure.subplots(2, 2).ravel()
    shallow, deep = (pick(depth for _, depth in curves) for pick in (min, max))
    for name, kind in KINDS.items():
        colour, marker, line = kind.style
        style: dict[str, Any] = {"color": colour, "marker": marker, "ms": 4}
        curve = np.median(np.nan_to_num(curves[name, shallow], nan=np.inf), axis=0)
        loss.plot(RECORD_EVERY * np.arange(1, len(curve) + 1), curve, ls=line, label=name, markevery=5, **style)
        part = slopes[slopes.activation == name].sort_values("depth")
        for when, filled, ls in (("start", None, line), ("trained", "none", "none")):
            one = part[part.when == when]
            shown = {"ls": ls, "mfc": filled, "label": name if when == "start" else None}
            over_depth.plot(one.depth, one["δ a layer"] ** (one.depth - 1), **style, **shown)
            layers = norms[(norms.activation == name) & (norms.depth == deep) & (norms.when == when)]
            layers = np.exp(np.log(layers.pivot(index="seed", columns="layer", values="gradient")).mean())
            by_layer.plot(layers.index, layers, **style, **shown | {"ls": line if when == "start" else "-"})
        start = part[part.when == "start"]
        over_depth.plot(start.depth, start.theory ** (start.depth - 1), color="black", lw=0.8, ls=":")
    maxout_fits.draw(maxout, fits)
    loss.axhline(TARGET, color=plots.GREY, lw=0.8, label=f"target, {TARGET:g}")
    loss.set(
        xlabel="updates",
        ylabel="training loss (nats), median of seeds",
        yscale="log",
        title=f"training with {shallow} hidden layers",
    )
    over_depth.set(xlabel="hidden layers", ylabel="error δ, first / last hidden layer", yscale="log")
    over_depth.set(title="error sent back; dotted: theory; open: trained", xscale="log", xticks=[2, 4, 8, 16])
    over_depth.xaxis.set_major_formatter("{x:g}")
    over_depth.xaxis.set_minor_formatter("")
    by_layer.set(
        xlabel="layer",
        ylabel="norm of the gradient",
        yscale="log",
        title=f"gradient by layer, {deep} hidden layers; open: trained",
    )
    by_layer.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    for axes in (loss, over_depth, by_layer, maxout):
        axes.legend(frameon=False, fontsize="small")
    return figure


def _plus_minus(mean: float, half_width: float) -> str:
    """Return a mean with the half width of its interval, which one seed alone does not have."""
    return f"{mean:.0f} ± {half_width:.0f}" if np.isfinite(half_width) else f"{mean:.0f}"


def accuracy_words(table: pd.DataFrame, depth: int) -> str:
    """Return what was found on accuracy and speed at one depth, in words made from the numbers."""
    rows = table[table.depth == depth].sort_values("updates")
    against = ", ".join(
        f"{row['activation']} {row['over tanh']:+.1f} ± {row['over tanh ±']:.1f}"
        f"{'' if abs(row['over tanh']) > row['over tanh ±'] else ' (no difference seen)'}"
        for _, row in rows[rows.activation != "tanh"].iterrows()
    )
    speed = ", ".join(
        f"{row['activation']} {_plus_minus(row['updates'], row['updates ±'])} ({100 * row['reached']:.0f} % of seeds)"
        if row["reached"] > 0
        else f"{row['activation']} never"
        for _, row in rows.iterrows()
    )
    tanh = rows[rows.activation == "tanh"].iloc[0]
    edges = ", ".join(rows.activation[rows["at edge"]])
    edges = f" (a rate at the edge of its search: {edges})" if edges else ""
    return (
        f"{depth} hidden layers: tanh {tanh['accuracy']:.1f} ± {tanh['accuracy ±']:.1f} %, over it {against};"
        f" updates to a training loss of {TARGET:g}: {speed}{edges}"
    )


def conclusion(table: pd.DataFrame, slopes: pd.DataFrame, fits: pd.DataFrame) -> str:
    """Return what was found, in words made from the numbers."""
    worse = [
        f"{row['activation']} at {row['depth']}"
        for _, row in table[table.activation.isin(["ReLU", "maxout"])].iterrows()
        if not row["over tanh"] > row["over tanh ±"]
    ]
    return (
        f"Found: {'. '.join(accuracy_words(table, depth) for depth in sorted(set(table.depth)))}."
        f" {networks.gradient_words(slopes)} {maxout_fits.fit_words(fits)}"
        f" Where this differs from the notes, which count new activations among what helps: no gain in accuracy over"
        f" tanh was seen for {', '.join(worse) or 'none'} (hidden layers)."
    )


def run(settings: Settings) -> dict[str, pd.DataFrame]:
    """Train, measure, print and save; return the tables."""
    folder = RunFolder("activations", settings, settings.output, resume=settings.resume)
    pieces = maxout_fits.PIECES[1:2] if settings.quick else maxout_fits.PIECES
    if settings.quick:
        settings = dataclasses.replace(settings, seeds=min(2, settings.seeds), epochs=min(5, settings.epochs))
        settings = dataclasses.replace(settings, depths=(4,), more_depths=())
    parts = make_parts()
    found, norms = {}, []
    starts = jax.random.split(jax.random.key(settings.seed), TRIES * settings.seeds // 2)
    steps = len(KINDS) * (len(settings.depths) + 1) + len(pieces)
    with tqdm.tqdm(total=steps, unit="step", leave=False, disable=None) as bar:
        for name, kind in KINDS.items():
            for depth in settings.depths:
                one = functools.partial(measure, name, depth, settings, parts)
                found[name, depth] = folder.kept(f"{name}_{depth}", one)
                bar.update()
            for depth in settings.more_depths:
                params = networks.draw_starts(name, networks.sizes_of(kind, depth, settings.width), starts)
                norms.append(networks.gradients(name, depth, "start", params, parts["probe"]))
            bar.update()
        fitted = folder.kept("fits", lambda: maxout_fits.convex(settings.seed, pieces, bar))
    rows = pd.concat([one.rows for one in found.values()], ignore_index=True)
    layers = pd.concat([*norms, *(one.gradients for one in found.values())], ignore_index=True)
    table, slopes, fits = (
        summary(rows),
        networks.vanishing(layers, np.asarray(parts["probe"].inputs)),
        maxout_fits.convex_summary(fitted),
    )
    slopes = slopes.sort_values(["when", "depth"], kind="stable", ignore_index=True)
    tables = {"runs": rows, "summary": table, "layers": layers, "slopes": slopes, "fits": fitted, "fit_summary": fits}
    titles = {
        "summary": f"Digits, {settings.epochs} epochs of SGD (percent, nats; {rows.seed.nunique()} fresh seeds, 95 %):",
        "slopes": "Gradients over depth:",
        "fit_summary": "One maxout unit on [−1, 1]:",
    }
    for name, frame in tables.items():
        folder.table(name, frame)
        if name in titles:
            print(f"{titles[name]}\n{frame.to_string(index=False, float_format='{:.3g}'.format)}\n")
    folder.figure("activations", draw({k: one.losses for k, one in found.items()}, layers, slopes, fits))
    folder.conclude(conclusion(table, slopes, fits))
    return tables


def make_parts() -> dict[str, datasets.Examples]:
    """Return training, validation and test digits, and 300 of those to train, to measure losses and gradients."""
    data = datasets.load("digits")
    splits = datasets.stratified_split(np.asarray(data.train.targets), len(data.train.targets) // 5)
    train, validation = (datasets.Examples(*(a[rows] for a in data.train)) for rows in splits)
    probe = datasets.Examples(*(a[:300] for a in train))
    return {"train": train, "validation": validation, "test": data.test, "probe": probe}


def main() -> None:
    """Read the command line and run."""
    command_line.start("activations", run, Settings, __doc__)


if __name__ == "__main__":
    main()
