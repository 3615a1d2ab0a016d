"""What do early stopping, dropout, L1 and L2 do to a network that overfits, and does dropout prevent co-adaptation?

Every seed draws its own small training set of the digits, its own start and its own order of examples. All methods
have the same number of epochs and of tries: nothing chooses the learning rate, which the others then share, and each of
them chooses its strength, all by the loss on validation examples of tuning seeds. Early stopping watches a second set
of validation examples, which the others leave unused. The figures are of fresh seeds, paired by seed against nothing;
the test examples are the same for all, so that intervals speak of other training sets and starts, not of other tests.
All of it is done with right labels, and with some wrong ones, which a network can only learn by heart.

Co-adaptation is measured on test examples in two ways: how far the activations of hidden units are correlated, and how
much the loss rises when one unit is removed. The second also grows with the size of the logits, which every method
changes: the two need not agree.
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

from experiments._shared import command_line
from experiments._shared.run_folder import RunFolder
from mlp_jax import datasets, losses, mlp, penalties, plots, training
from mlp_jax.confidence import change, mean_interval, show

ACTIVATION, MOMENTUM, BATCH_SIZE, TEST_SIZE = jax.nn.relu, 0.9, 20, 797
# Of each method, six tries from weak to strong. Patience is in epochs, and its strongest is the shortest.
TRIES: dict[str, tuple[float, ...]] = {
    "nothing": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "early stopping": (64, 32, 16, 8, 4, 2),
    "dropout": (0.1, 0.2, 0.3, 0.4, 0.5, 0.7),
    "L1": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "L2": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}
NUM_TRIES = 6
CHOICE = {"nothing": "learning rate", "early stopping": "patience", "dropout": "rate", "L1": "λ", "L2": "λ"}
MEASURES = ("train_loss", "test_loss", "gap", "test_accuracy", "correlation", "removal")
COLOURS = dict(zip(TRIES, ("black", plots.YELLOW, plots.BLUE, plots.ORANGE, plots.GREEN), strict=True))
LINES = dict(zip(TRIES, ("-", (0, (5, 1)), "--", "-.", ":"), strict=True))
MARKERS = dict(zip(TRIES, "osD^v", strict=True))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the run; each is written to settings.json."""

    quick: bool = False
    """Six fresh seeds, three to tune on, half of the epochs, and the last share of wrong labels alone."""
    seed: int = 0
    """Of samples, starts and orders."""
    seeds: int = 36
    """Fresh seeds, of which the figures are."""
    tuning_seeds: int = 8
    """Seeds on which strengths are chosen."""
    epochs: int = 100
    """Length of every run; of early stopping, at most."""
    examples: int = 100
    """Training examples of each seed; as many again are watched by early stopping, and as many judge the tries."""
    wrong_labels: tuple[float, ...] = (0.0, 0.2)
    """Shares of the training labels that are replaced by a class at random; each is an experiment of its own."""
    hidden: int = 64
    """Hidden ReLU units."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A new folder for the results; runs/regularization-DATE-TIME when not given."""
    resume: bool = False
    """Go on with the run that was stopped in the folder of --output."""


class Sample(NamedTuple):
    """What one seed draws: examples to train on, to watch for early stopping, and to judge tries by."""

    train: datasets.Examples
    watched: datasets.Examples
    judged: datasets.Examples


class Strengths(NamedTuple):
    """Learning rate, and the strength of each method that changes the loss; 0 is without it."""

    rate: Any
    dropout: Any = 0.0
    l1: Any = 0.0
    l2: Any = 0.0


class Lanes(NamedTuple):
    """Runs side by side: every leaf has a leading axis of them."""

    keys: jax.Array
    starts: mlp.Params
    samples: Sample


def draw_samples(settings: Settings, share: float, numbers: range) -> tuple[Sample, datasets.Examples]:
    """Return the samples of the seeds, with a leading axis of them, and the test examples that all share."""
    digits = datasets.load("digits")
    inputs, targets = (np.concatenate([np.asarray(part) for part in pair]) for pair in zip(*digits, strict=True))
    pool, test = datasets.stratified_split(targets, TEST_SIZE)
    count, drawn = settings.examples, []
    if 3 * count > len(pool):
        raise ValueError(f"examples: got {count}, expected at most {len(pool) // 3}.")
    for number in numbers:
        generator = np.random.default_rng((settings.seed, number))
        rows = generator.permutation(pool)[: 3 * count].reshape(3, count)
        train, watched, judged = (datasets.Examples(inputs[part], targets[part]) for part in rows)
        wrong = generator.random(count) < share
        labels = np.where(wrong, generator.integers(10, size=count), train.targets).astype(np.int32)
        drawn.append(Sample(datasets.Examples(train.inputs, jnp.asarray(labels)), watched, judged))
    samples = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *drawn)
    return samples, datasets.Examples(jnp.asarray(inputs[test]), jnp.asarray(targets[test]))


# A program of its own at the lowest level: random numbers under vmap are slow to compile.
@functools.partial(jax.jit, static_argnames="hidden", compiler_options={"xla_backend_optimization_level": 0})
def draw_starts(key: jax.Array, numbers: jax.Array, hidden: int) -> tuple[jax.Array, mlp.Params]:
    """Return keys of runs and start values of the seeds."""

    def one(number: jax.Array) -> tuple[jax.Array, mlp.Params]:
        run_key, init_key = jax.random.split(jax.random.fold_in(key, number))
        return run_key, mlp.init(init_key, (64, hidden, 10), weight_init=jax.nn.initializers.he_normal())

    return jax.vmap(one)(numbers)


def entropy(params: mlp.Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean cross-entropy, without dropout and penalties: what early stopping watches."""
    return losses.mean(losses.cross_entropy(mlp.forward(params, inputs, activation=ACTIVATION), targets))


def training_loss(
    strengths: Strengths, params: mlp.Params, inputs: Any, targets: Any, weights: Any, key: jax.Array
) -> jax.Array:
    """Return the cross-entropy of a batch under dropout, and the penalties on the weights."""
    logits = mlp.forward(params, inputs, activation=ACTIVATION, dropout_rate=strengths.dropout, key=key)
    penalty = penalties.l1(params, strengths.l1, biases=False) + penalties.l2(params, strengths.l2, biases=False)
    return losses.mean(losses.cross_entropy(logits, targets), weights) + penalty


def scores(parts: dict[str, datasets.Examples], state: training.State) -> dict[str, jax.Array]:
    """Return the mean cross-entropy of each part."""
    return {name: entropy(state.params, *part) for name, part in parts.items()}


# At this level these programs compile in half the time, and run as fast.
QUICKLY_COMPILED = {"xla_backend_optimization_level": 1}


@functools.partial(jax.jit, static_argnames="epochs", compiler_options=QUICKLY_COMPILED)
def fit(lanes: Lanes, strengths: Strengths, test: datasets.Examples, epochs: int) -> tuple[mlp.Params, Any]:
    """Train every lane with its strengths; return what they end with, and their histories."""

    def one(lane: Lanes, strengths: Strengths) -> tuple[mlp.Params, Any]:
        record = jax.tree_util.Partial(scores, {**lane.samples._asdict(), "test": test})
        return _train(lane, strengths, epochs=epochs, record=record)

    return jax.vmap(one)(lanes, strengths)


@functools.partial(jax.jit, static_argnames=("epochs", "patience"), compiler_options=QUICKLY_COMPILED)
def fit_stopping(lanes: Lanes, rate: float, epochs: int, patience: int) -> tuple[mlp.Params, Any]:
    """Train every lane with early stopping and nothing else; return as `fit`, without a record."""

    def one(lane: Lanes) -> tuple[mlp.Params, Any]:
        stopping = training.EarlyStopping(entropy, tuple(lane.samples.watched), patience)
        return _train(lane, Strengths(rate), epochs=epochs, early_stopping=stopping)

    return jax.vmap(one)(lanes)


def _train(lane: Lanes, strengths: Strengths, **settings: Any) -> tuple[mlp.Params, Any]:
    return training.train(
        lane.keys,
        functools.partial(training_loss, strengths),
        lane.starts,
        lane.samples.train,
        optimizer=optax.sgd(strengths.rate, momentum=MOMENTUM),
        batch_size=min(BATCH_SIZE, len(lane.samples.train.targets)),
        **settings,
    )


def fit_grid(
    seeds: Lanes, strengths: list[Strengths], test: datasets.Examples, epochs: int, block: int, bar: tqdm.tqdm
) -> tuple[mlp.Params, Any]:
    """Train every strength from every seed, in blocks of one size, so that one program serves all.

    Returns
    -------
    params and history, each leaf (strengths, seeds, ...), numpy
    """
    count = len(seeds.keys)
    total, ends = len(strengths) * count, []
    # Those that fill the last block are trained once more, and cut off.
    order = np.arange(-(-total // block) * block) % total
    values = Strengths(*(np.array(column, np.float32) for column in zip(*strengths, strict=True)))
    for rows in np.split(order, len(order) // block):
        lanes = jax.tree.map(lambda a, rows=rows: a[rows % count], seeds)
        own = Strengths(*(jnp.asarray(column[rows // count]) for column in values))
        ends.append(jax.block_until_ready(fit(lanes, own, test, epochs)))
        bar.update()
    return jax.tree.map(
        lambda *leaves: np.concatenate(leaves)[:total].reshape(len(strengths), count, *leaves[0].shape[1:]), *ends
    )


def best_epoch(watched: np.ndarray, patience: int) -> int:
    """Return the epoch, from 1, whose parameters early stopping returns; 0 where the loss never was a number.

    Examples
    --------
    >>> [best_epoch(np.array([3.0, 2.0, 4.0, 1.0]), patience) for patience in (1, 2)]
    [2, 4]
    """
    best, found = np.inf, 0
    for epoch, value in enumerate(watched, 1):
        if value < best:
            best, found = value, epoch
        if epoch - found >= patience:
            break
    return found


def stopped_losses(watched: np.ndarray, judged: np.ndarray, patience: int) -> np.ndarray:
    """Return for each run (rows) the judged loss at the epoch that early stopping by the watched loss returns."""
    epochs = [best_epoch(row, patience) for row in watched]
    return np.array([row[epoch - 1] if epoch else np.inf for row, epoch in zip(judged, epochs, strict=True)])


def strengths_of(method: str, value: float, rate: float) -> Strengths:
    """Return the strengths of one try of a method; early stopping is nothing, cut short.

    Examples
    --------
    >>> strengths_of("L2", 0.01, 0.1)
    Strengths(rate=0.1, dropout=0.0, l1=0.0, l2=0.01)
    """
    if method == "nothing":
        return Strengths(value)
    return Strengths(rate) if method == "early stopping" else Strengths(rate)._replace(**{method.lower(): value})


def tune(seeds: Lanes, test: datasets.Examples, epochs: int, bar: tqdm.tqdm) -> pd.DataFrame:
    """Return one row a try: the mean over tuning seeds of the loss that it is judged by, and whether it is chosen."""
    rows: list[tuple] = []
    rate, plain = 0.0, dict[str, np.ndarray]()
    for method, tries in TRIES.items():
        if method == "early stopping":
            # A run with early stopping is the beginning of a run without.
            judged = np.stack([stopped_losses(plain["watched"], plain["judged"], int(value)) for value in tries])
            diverged = np.zeros(judged.shape, bool)
        else:
            strengths = [strengths_of(method, value, rate) for value in tries]
            _, history = fit_grid(seeds, strengths, test, epochs, len(tries) * len(seeds.keys), bar)
            diverged = history.diverged_at > 0
            judged = np.where(diverged, np.inf, history.record["judged"][..., -1])
        means = judged.mean(axis=1)
        best = int(np.argmin(means))
        if method == "nothing":
            rate, plain = tries[best], {name: curves[best] for name, curves in history.record.items()}
        with np.errstate(invalid="ignore"):  # of a try that diverged
            halves = mean_interval(judged, axis=1)[1]
        for k, value in enumerate(tries):
            chosen, edge = k == best, k == best and k in (0, len(tries) - 1)
            rows.append((method, value, means[k], halves[k], int(diverged[k].sum()), chosen, edge))
    columns = ["method", "strength", "validation loss", "±", "diverged", "chosen", "at_edge"]
    return pd.DataFrame(rows, columns=columns)


def correlation(activations: jax.Array) -> jax.Array:
    """Return the mean |correlation| over pairs of units (columns); units that are constant are left out.

    Examples
    --------
    >>> x = jnp.array([[1.0, -2.0, 1.0, 5.0], [2.0, -4.0, -2.0, 5.0], [3.0, -6.0, 1.0, 5.0]])
    >>> print(f"{correlation(x[:, [0, 1, 3]]):.3f} {correlation(x):.3f}")
    1.000 0.333
    """
    centred = activations - jnp.mean(activations, axis=0)
    length = jnp.linalg.norm(centred, axis=0)
    # Rounding of a constant column is not an activation.
    alive = length > 1e-5 * jnp.linalg.norm(activations, axis=0)
    unit = jnp.where(alive, centred / jnp.where(alive, length, 1), 0)
    live = jnp.sum(alive.astype(activations.dtype))
    return (jnp.sum(jnp.abs(unit.T @ unit)) - live) / (live * (live - 1))


def removal(params: mlp.Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean over hidden units of the rise of the loss when that unit's activation is set to 0.

    Examples
    --------
    Two equal units, each of which raises the logit of class 1 by ln 2: the loss is ln(5/4) with both, ln(3/2) with one.

    >>> outgoing = jnp.log(2.0) * jnp.array([[0.0, 1.0], [0.0, 1.0]])
    >>> params = (mlp.Layer(jnp.ones((1, 2)), jnp.zeros(2)), mlp.Layer(outgoing, jnp.zeros(2)))
    >>> print(f"{jnp.exp(removal(params, jnp.ones((1, 1)), jnp.array([1]))):.3f}")
    1.200
    """
    activations = ACTIVATION(mlp.forward(params[:-1], inputs, activation=ACTIVATION))
    logits = mlp.forward(params[-1:], activations)

    def without(activation: jax.Array, outgoing: jax.Array) -> jax.Array:
        return losses.mean(losses.cross_entropy(logits - activation[:, None] * outgoing, targets))

    raised = jax.vmap(without, in_axes=(1, 0))(activations, params[-1].weight)
    return jnp.mean(raised) - losses.mean(losses.cross_entropy(logits, targets))


@jax.jit
def assess(params: mlp.Params, train: datasets.Examples, test: datasets.Examples) -> dict[str, jax.Array]:
    """Return what is measured of each network (leading axis) at its end."""

    def one(params: mlp.Params, train: datasets.Examples) -> dict[str, jax.Array]:
        logits = mlp.forward(params, test.inputs, activation=ACTIVATION)
        hidden = ACTIVATION(mlp.forward(params[:1], test.inputs))
        found = {"train_loss": entropy(params, *train), "test_loss": entropy(params, *test)}
        return {
            **found,
            "gap": found["test_loss"] - found["train_loss"],
            "test_accuracy": 100 * losses.mean(losses.accuracy(logits, test.targets)),
            "correlation": correlation(hidden),
            "removal": removal(params, *test),
        }

    return jax.vmap(one)(params, train)


def against_nothing(runs: pd.DataFrame, column: str) -> dict[str, np.ndarray]:
    """Return for each method the differences of a column from nothing, seed by seed."""
    table = runs.pivot(index="seed", columns="method", values=column)
    return {method: (table[method] - table["nothing"]).to_numpy() for method in TRIES if method != "nothing"}


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row a method and measure: mean and difference from nothing, with 95 % half widths over seeds."""
    rows = []
    for column in MEASURES:
        differences = against_nothing(runs, column)
        for method in TRIES:
            row: dict[str, Any] = {"method": method, "measure": column}
            row["mean"], row["±"] = map(float, mean_interval(runs[column][(runs.method == method) & ~runs.diverged]))
            if method != "nothing":
                paired = differences[method][np.isfinite(differences[method])]
                row["minus nothing"], row["its ±"] = map(float, mean_interval(paired))
            rows.append(row)
    return pd.DataFrame(rows)


def printed(tuning: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Return for a screen one row a method: what was chosen, and each mean with its interval."""
    table = tuning[tuning.chosen][["method", "strength", "at_edge"]]
    table = table.assign(diverged=[int(runs.diverged[runs.method == method].sum()) for method in table.method])
    for column in MEASURES:
        parts = (runs[column][(runs.method == method) & ~runs.diverged] for method in table.method)
        table[column] = [show(part) for part in parts]
    gaps = against_nothing(runs, "gap")
    table["gap − nothing"] = [show(gaps[m][np.isfinite(gaps[m])], 2) if m in gaps else "" for m in table.method]
    return table.to_string(index=False, float_format="{:.3g}".format)


def measure(settings: Settings, share: float, bar: tqdm.tqdm) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Return the tuning table, one row a method and fresh seed, and the curves (seeds, epochs) by method."""
    numbers = range(settings.tuning_seeds + settings.seeds)
    samples, test = draw_samples(settings, share, numbers)
    keys, starts = draw_starts(jax.random.key(settings.seed), jnp.arange(len(numbers)), settings.hidden)
    seeds = Lanes(keys, starts, samples)
    first, fresh = (
        jax.tree.map(lambda a, part=part: a[part], seeds)
        for part in (slice(settings.tuning_seeds), slice(settings.tuning_seeds, None))
    )
    tuning = tune(first, test, settings.epochs, bar)
    best = dict(zip(tuning.method[tuning.chosen], tuning.strength[tuning.chosen], strict=True))
    plain = [method for method in TRIES if method != "early stopping"]
    strengths = [strengths_of(method, best[method], best["nothing"]) for method in plain]
    block = NUM_TRIES * settings.tuning_seeds
    params, history = fit_grid(fresh, strengths, test, settings.epochs, block, bar)
    ends = {method: jax.tree.map(lambda a, k=k: a[k], (params, history)) for k, method in enumerate(plain)}
    ends["early stopping"] = fit_stopping(fresh, best["nothing"], settings.epochs, int(best["early stopping"]))
    bar.update()
    frames, curves = [], {}
    for method in TRIES:
        params, history = ends[method]
        frame = pd.DataFrame(jax.tree.map(np.asarray, assess(params, fresh.samples.train, test)))
        lost = np.asarray(history.diverged_at) > 0
        frame[lost] = np.nan
        seed = np.arange(settings.seeds) + settings.tuning_seeds
        frames.append(frame.assign(method=method, seed=seed, diverged=lost, epoch=np.asarray(history.best_epoch)))
        if history.record is not None:
            curves[method] = jax.tree.map(np.asarray, history.record)
    return tuning, pd.concat(frames, ignore_index=True), curves


def draw(tuning: pd.DataFrame, runs: pd.DataFrame, curves: dict[str, Any]) -> matplotlib.figure.Figure:
    """Return the figure: curves of both losses, the gaps, the search, and co-adaptation."""
    figure = matplotlib.figure.Figure(figsize=(13, 7.5), layout="constrained")
    (train, test, gaps), (search, correlations, removals) = figure.subplots(2, 3)
    for axes, part in ((train, "train"), (test, "test")):
        _curves(axes, {method: losses_of[part] for method, losses_of in curves.items()})
        stopped = runs[(runs.method == "early stopping") & ~runs.diverged]
        (x, wide), (y, high) = mean_interval(stopped.epoch), mean_interval(stopped[f"{part}_loss"])
        axes.errorbar(
            x, y, high, wide, fmt="s", color=COLOURS["early stopping"], capsize=3, label="early stopping", zorder=5
        )
        axes.set(xlabel="epoch", ylabel=f"{part} loss, nats (mean, 95 %)", title=f"loss on {part} examples")
    train.set(yscale="log")
    train.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    train.yaxis.set_major_formatter("{x:g}")
    train.yaxis.set_minor_formatter("")
    finite = [values["test"][np.isfinite(values["test"])] for values in curves.values()]
    low = min(values.min() for values in finite)
    test.set(ylim=(0.9 * low, 2 * np.median(curves["nothing"]["test"][:, -1])))
    for k, (method, differences) in enumerate(against_nothing(runs, "gap").items()):
        mean, half = mean_interval(differences[np.isfinite(differences)])
        gaps.errorbar(mean, k, xerr=half, fmt=MARKERS[method], color=COLOURS[method], capsize=3)
    gaps.set(yticks=range(4), yticklabels=list(TRIES)[1:], xlabel="gap − gap of nothing, nats (paired, 95 %)")
    gaps.set(title="generalisation gap")
    gaps.axvline(0, color="black", lw=0.7)
    for method, part in tuning.groupby("method", sort=False):
        style = {"color": COLOURS[method], "ls": LINES[method], "marker": MARKERS[method], "ms": 4}
        search.plot(range(1, len(part) + 1), part["validation loss"], label=f"{method}: {CHOICE[method]}", **style)
        k = int(np.argmax(part.chosen))
        search.plot(k + 1, part["validation loss"].iloc[k], "o", ms=11, mfc="none", color=COLOURS[method])
    lowest = tuning["validation loss"].min()
    search.set(xlabel="try, from weak to strong", ylabel="validation loss, nats", ylim=(0.9 * lowest, 3 * lowest))
    search.set(title="the search (chosen: circled)", yscale="log")
    search.yaxis.set_major_formatter("{x:g}")
    search.yaxis.set_minor_formatter("{x:.1f}")  # less than a decade: the minor ticks are all there is
    for axes, column, title, name in (
        (correlations, "correlation", "do units move together?", "mean |correlation| of hidden units"),
        (removals, "removal", "do units rely on each other?", "rise of the test loss, one unit removed, nats"),
    ):
        for k, method in enumerate(TRIES):
            part = runs[(runs.method == method) & ~runs.diverged][column]
            mean, half = mean_interval(part)
            axes.errorbar(mean, k, xerr=half, fmt=MARKERS[method], color=COLOURS[method], capsize=3)
        axes.set(yticks=range(len(TRIES)), yticklabels=list(TRIES), xlabel=f"{name} (95 %)", title=title)
    for axes in (train, test, search):
        axes.legend(fontsize="small", framealpha=0.9)
    for axes in (gaps, correlations, removals):
        axes.locator_params(axis="x", nbins=5)
    return figure


def _curves(axes: matplotlib.axes.Axes, curves: dict[str, np.ndarray]) -> None:
    for method, values in curves.items():
        kept = values[np.isfinite(values).all(axis=1)]
        if len(kept):
            mean, half = mean_interval(kept)
            epochs = np.arange(1, len(mean) + 1)
            axes.plot(epochs, mean, color=COLOURS[method], ls=LINES[method], label=method)
            if len(kept) > 1:
                axes.fill_between(epochs, mean - half, mean + half, color=COLOURS[method], alpha=0.2, lw=0)


def conclusion(tuning: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Return what was found with one share of wrong labels, in words made from the numbers."""
    plain = runs[(runs.method == "nothing") & ~runs.diverged]
    found = {
        column: {method: change(values) for method, values in against_nothing(runs, column).items()}
        for column in MEASURES
    }
    said = {column: "; ".join(f"{method} {words}" for method, words in of.items()) for column, of in found.items()}
    helped = [method for method, words in found["test_loss"].items() if words.startswith("lower")]
    broken = [words.startswith("lower") for words in (found[column]["dropout"] for column in MEASURES[-2:])]
    edges = [f"{row.method} ({row.strength:g})" for row in tuning[tuning.chosen & tuning.at_edge].itertuples()]
    return (
        f"without regularisation the train loss ends at {plain.train_loss.mean():.2g}, the test loss at"
        f" {plain.test_loss.mean():.2g}: a gap of {show(plain.gap, 2)} nats. Against it the gap is: {said['gap']}."
        f" Test loss: {said['test_loss']}. Test accuracy, points: {said['test_accuracy']}."
        f" Diverged: {int(runs.diverged.sum())} of {len(runs)} runs. Chosen at an edge of the search:"
        f" {', '.join(edges) or 'none'}. With dropout mean |correlation| of hidden units:"
        f" {found['correlation']['dropout']}; rise of the loss when one unit is removed: {found['removal']['dropout']}."
        f" The notes say that all four help: by the test loss this was seen of {', '.join(helped) or 'none'}. They say"
        f" that dropout breaks co-adaptation: {('neither', 'one', 'both')[sum(broken)]} of the two measures fell."
    )


def run(settings: Settings) -> pd.DataFrame:
    """Tune, train, measure, print and save; return one row a share of wrong labels, method and fresh seed."""
    folder = RunFolder("regularization", settings, settings.output, resume=settings.resume)
    if settings.quick:
        seeds, tuning_seeds = min(6, settings.seeds), min(3, settings.tuning_seeds)
        settings = dataclasses.replace(
            settings,
            seeds=seeds,
            tuning_seeds=tuning_seeds,
            epochs=-(-settings.epochs // 2),
            wrong_labels=settings.wrong_labels[-1:],
        )
    blocks = 5 + -(-4 * settings.seeds // (NUM_TRIES * settings.tuning_seeds))
    tables: dict[str, list[pd.DataFrame]] = {"tuning": [], "runs": [], "summary": []}
    found = []
    with tqdm.tqdm(total=blocks * len(settings.wrong_labels), unit="block", leave=False, disable=None) as bar:
        for share in settings.wrong_labels:
            one = functools.partial(measure, settings, share, bar)
            tuning, runs, curves = folder.kept(f"wrong_labels_{share:g}", one)
            for name, frame in (("tuning", tuning), ("runs", runs), ("summary", summary(runs))):
                tables[name].append(frame.assign(wrong_labels=share))
            folder.figure(f"wrong_labels_{share:g}", draw(tuning, runs, curves))
            found.append(f"With {100 * share:g} % wrong labels {conclusion(tuning, runs)}")
    print(f"{settings.seeds} fresh seeds with {settings.examples} training digits each; losses in nats, 95 %.")
    for share, tuning, runs in zip(settings.wrong_labels, tables["tuning"], tables["runs"], strict=True):
        print(f"\n{100 * share:g} % wrong labels:\n{printed(tuning, runs)}")
    whole = {name: pd.concat(frames, ignore_index=True) for name, frames in tables.items()}
    for name, frame in whole.items():
        folder.table(name, frame)
    folder.conclude("\n".join(["Found, paired by seed, each interval by itself:", *found]))
    return whole["runs"]


def main() -> None:
    """Read the command line and run."""
    command_line.start("regularization", run, Settings, __doc__)


if __name__ == "__main__":
    main()
