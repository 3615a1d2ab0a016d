"""What do early stopping, dropout, L1 and L2 do to a network that overfits, and does dropout prevent co-adaptation?

Every seed draws its own small training set of digits, initial parameters and order of examples. All methods get the
same number of epochs and of tries. The baseline, "nothing", chooses the learning rate, which the others share; the
others choose their strength, all by the loss on validation examples over tuning seeds. Early stopping watches a second
set of validation examples. The results are those of fresh seeds, paired by seed against the baseline, on shared test
examples: with correct labels, and with some wrong ones, which a network can only memorise.

Co-adaptation is measured on test examples in two ways: the correlation of hidden units, and the increase of the loss
when one unit is removed. The second also grows with the size of the logits, which every method changes, so the two may
disagree.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import pandas as pd
import tqdm

from experiments._shared import command_line, tables, tuning
from experiments._shared import regularized as nets
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import datasets, losses, mlp
from mlp_jax.confidence import mean_interval

TEST_SIZE = 797
# Six values for each method, from weak to strong: learning rates, patience in epochs, dropout rates, and λ twice.
TRIES: dict[str, tuple[float, ...]] = {
    "nothing": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "early stopping": (64, 32, 16, 8, 4, 2),
    "dropout": (0.1, 0.2, 0.3, 0.4, 0.5, 0.7),
    "L1": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "L2": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}
MEASURES = ("train_loss", "test_loss", "gap", "test_accuracy", "correlation", "removal")


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    seeds: int = 36
    """Fresh seeds, which give the results."""
    tuning_seeds: int = 8
    """Seeds on which strengths are chosen."""
    epochs: int = 100
    """Epochs of every run; early stopping may end sooner."""
    examples: int = 100
    """Training examples of each seed; early stopping and tuning get as many validation examples each."""
    wrong_labels: tuple[float, ...] = (0.0, 0.2)
    """Shares of the training labels that are replaced by a random class."""
    hidden: int = 64
    """Hidden ReLU units."""


def draw_seeds(settings: Settings, share: float, numbers: range) -> tuple[nets.Seeds, datasets.Examples]:
    """Return the draws of the seeds, and the test examples that all share."""
    digits = datasets.load("digits")
    inputs, targets = (np.concatenate([np.asarray(part) for part in pair]) for pair in zip(*digits, strict=True))
    pool, test = datasets.stratified_split(targets, TEST_SIZE)
    count, drawn = settings.examples, []
    if 3 * count > len(pool):
        raise ValueError(f"examples: got {count}, expected at most {len(pool) // 3}.")
    for number in numbers:
        generator = np.random.default_rng((settings.seed, number))
        rows = generator.permutation(pool)[: 3 * count].reshape(3, count)
        train, *others = (datasets.Examples(inputs[part], targets[part]) for part in rows)
        wrong = generator.random(count) < share
        labels = np.where(wrong, generator.integers(10, size=count), train.targets).astype(np.int32)
        drawn.append((train._replace(targets=jnp.asarray(labels)), *others))
    parts = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *drawn)
    keys, starts = _draw_starts(jax.random.key(settings.seed), jnp.asarray(numbers), settings.hidden)
    return nets.Seeds(keys, starts, *parts), datasets.Examples(jnp.asarray(inputs[test]), jnp.asarray(targets[test]))


# A separate program at the lowest level: random numbers under vmap are slow to compile.
@functools.partial(jax.jit, static_argnames="hidden", compiler_options={"xla_backend_optimization_level": 0})
def _draw_starts(key: jax.Array, numbers: jax.Array, hidden: int) -> tuple[jax.Array, mlp.Params]:
    def one(number: jax.Array) -> tuple[jax.Array, mlp.Params]:
        run_key, init_key = jax.random.split(jax.random.fold_in(key, number))
        return run_key, mlp.init(init_key, (64, hidden, 10), weight_init=jax.nn.initializers.he_normal())

    return jax.vmap(one)(numbers)


def tune(seeds: nets.Seeds, epochs: int) -> pd.DataFrame:
    """Return one row for each strength tried: its mean validation loss over tuning seeds, and whether it is chosen."""
    tables, rate, curves = [], 0.0, dict[str, np.ndarray]()
    for method, values in TRIES.items():
        if method == "early stopping":
            # A run with early stopping is the beginning of a run without it.
            watched, judged = curves["watched"], curves["judged"]
            judged = np.stack([nets.stopped_losses(watched, judged, int(value)) for value in values])
            diverged = np.zeros(judged.shape, bool)
        else:
            history = jax.tree.map(np.asarray, nets.fit(seeds, nets.strengths_of(method, values, rate), epochs)[1])
            diverged = history.diverged_at > 0
            judged = np.where(diverged, np.inf, history.record["judged"][..., -1])
        table = tuning.tries("strength", values, "validation loss", judged, diverged)
        if method == "nothing":
            rate = table.strength[table.chosen].item()
            curves = {name: kept[np.argmax(table.chosen)] for name, kept in history.record.items()}
        with np.errstate(invalid="ignore"):  # infinite losses
            table.insert(2, "±", mean_interval(judged, axis=1)[1])
        table.insert(0, "method", method)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


@jax.jit
def assess(params: mlp.Params, train: datasets.Examples, test: datasets.Examples) -> dict[str, jax.Array]:
    """Return the measures of each trained network (leading axis)."""

    def one(params: mlp.Params, train: datasets.Examples) -> dict[str, jax.Array]:
        hidden = nets.ACTIVATION(mlp.forward(params[:1], test.inputs))
        before, after = nets.entropy(params, *train), nets.entropy(params, *test)
        accuracy = 100 * losses.mean(losses.accuracy(mlp.forward(params[1:], hidden), test.targets))
        units = nets.correlation(hidden), nets.removal(hidden, params[1], test.targets)
        return dict(zip(MEASURES, (before, after, after - before, accuracy, *units), strict=True))

    return jax.vmap(one)(params, train)


def measure(settings: Settings, share: float, bar: tqdm.tqdm) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row for each strength tried, and one for each method and fresh seed, at one share of wrong labels."""
    numbers = range(settings.tuning_seeds + settings.seeds)
    seeds, test = draw_seeds(settings, share, numbers)
    tried = tune(jax.tree.map(lambda a: a[: settings.tuning_seeds], seeds), settings.epochs)
    bar.update()
    best = dict(zip(tried.method[tried.chosen], tried.strength[tried.chosen], strict=True))
    fresh = jax.tree.map(lambda a: a[settings.tuning_seeds :], seeds)
    frames = []
    for method, value in best.items():
        strengths, patience = nets.strengths_of(method, (value,), best["nothing"]), int(value)
        ends = nets.fit(fresh, strengths, settings.epochs, patience if method == "early stopping" else None)
        params, history = jax.tree.map(lambda a: a[0], ends)
        frame = pd.DataFrame(jax.tree.map(np.asarray, assess(params, fresh.train, test)))
        lost = np.asarray(history.diverged_at > 0)
        frame[lost] = np.nan
        frame = frame.assign(method=method, seed=numbers[settings.tuning_seeds :], diverged=lost)
        frames.append(frame.assign(epoch=np.asarray(history.best_epoch), wrong_labels=share))
        bar.update()
    return tried.assign(wrong_labels=share), pd.concat(frames, ignore_index=True)


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each method and measure: mean and difference from "nothing", with 95 % half widths."""
    rows = []
    for share, part in runs.groupby("wrong_labels", sort=False):
        for column in MEASURES:
            table = part.pivot(index="seed", columns="method", values=column)
            for method in TRIES:
                paired = (table[method] - table["nothing"]).dropna()
                difference = (np.nan, np.nan) if method == "nothing" else mean_interval(paired)
                figures = map(float, (*mean_interval(table[method].dropna()), *difference))
                rows.append((method, column, *figures, share))
    columns = ["method", "measure", "mean", "±", "minus nothing", "its ±", "wrong_labels"]
    return pd.DataFrame(rows, columns=columns)


def printed(table: pd.DataFrame) -> str:
    """Return the printed table: one row for each share of wrong labels and method, one column for each measure."""
    shown = [f"{mean:.3g} ± {half:.2g}" for mean, half in zip(table["mean"], table["±"], strict=True)]
    wide = table.assign(shown=shown).pivot(index=["wrong_labels", "method"], columns="measure", values="shown")
    wide = wide.reindex(list(TRIES), level="method").rename_axis(["wrong labels", "method"])
    return tables.text(wide[["test_loss", "gap", "test_accuracy", "removal"]], "summary", index=True)


def draw(table: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: measures minus those of "nothing", by method and share of wrong labels."""
    figure = matplotlib.figure.Figure(figsize=(13, 3.6), layout="constrained")
    names = {"test_loss": "test loss", "gap": "test − train loss", "correlation": "|correlation| of hidden units"}
    names["removal"] = "loss increase, one unit removed"
    for axes, (measure, name) in zip(figure.subplots(1, 4, sharey=True), names.items(), strict=True):
        kept = table[(table.measure == measure) & (table.method != "nothing")].groupby("wrong_labels")
        for k, (share, part) in enumerate(kept):
            label, rows = f"{100 * share:g} % wrong labels", np.arange(len(part)) + 0.15 * k
            axes.errorbar(part["minus nothing"], rows, xerr=part["its ±"], fmt="os^vD"[k % 5], capsize=3, label=label)
        axes.axvline(0, color="black", lw=0.7)
        axes.set(yticks=range(4), yticklabels=list(TRIES)[1:], title=name, xlabel="minus nothing (paired, 95 %)")
        axes.locator_params(axis="x", nbins=4)
    axes.legend(fontsize="small")
    return figure


def conclusion(tried: pd.DataFrame, runs: pd.DataFrame, table: pd.DataFrame) -> str:
    """Return what was found, as one sentence filled with numbers."""
    signed = zip(table.method, table["minus nothing"], table["its ±"], strict=True)
    words = table.assign(words=[f"{method} {mean:+.2g} ± {half:.1g}" for method, mean, half in signed])
    words = words[words.method != "nothing"].groupby(["wrong_labels", "measure"]).words.agg(", ".join)
    found = "; ".join(
        f"with {100 * share:g} % wrong labels test loss: {words[share, 'test_loss']}; increase of the loss when one"
        f" hidden unit is removed: {words[share, 'removal']}"
        for share in table.wrong_labels.unique()
    )
    return (
        f"Found, each minus the baseline: {found}; {runs.diverged.sum()} of {len(runs)} runs diverged, and"
        f" {tried.at_edge.sum()} of {tried.chosen.sum()} strengths were chosen at an edge of the search."
    )


def run(settings: Settings) -> pd.DataFrame:
    """Tune, train, measure, print and save; return one row for each share of wrong labels, method and fresh seed."""
    folder = RunFolder("regularization", settings, settings.output, resume=settings.resume)
    if settings.quick:
        seeds, tuning_seeds = min(6, settings.seeds), min(3, settings.tuning_seeds)
        epochs, shares = -(-settings.epochs // 2), settings.wrong_labels[-1:]
        settings = dataclasses.replace(settings, seeds=seeds, tuning_seeds=tuning_seeds, epochs=epochs)
        settings = dataclasses.replace(settings, wrong_labels=shares)
    with tqdm.tqdm(total=6 * len(settings.wrong_labels), unit="part", leave=False, disable=None) as bar:
        pieces = [
            folder.kept(f"wrong_labels_{share:g}", functools.partial(measure, settings, share, bar))
            for share in settings.wrong_labels
        ]
    tried, runs = (pd.concat(frames, ignore_index=True) for frames in zip(*pieces, strict=True))
    table = summary(runs)
    for name, frame in {"summary": table, "tuning": tried, "runs": runs}.items():
        folder.table(name, frame)
    print(f"{settings.seeds} fresh seeds with {settings.examples} training digits each (nats, points; 95 %):")
    print(printed(table))
    folder.figure("regularization", draw(table))
    folder.conclude(conclusion(tried, runs, table))
    return runs


if __name__ == "__main__":
    command_line.start("regularization", run, Settings, __doc__)
