"""How much of an old task is forgotten while a new one is learnt, and how much does selective plasticity save?

A network learns the old task, then the new one without the old examples. With selective synaptic plasticity (elastic
weight consolidation) the second loss is L(θ) + λ Σ bᵢ (θᵢ − θ*ᵢ)², θ* the parameters after the old task and b their
importances for it: the diagonal of the Fisher matrix, that of the exact Hessian (negative entries set to zero), or
the same number for all (the mean of the Fisher diagonal). Against them: plain training; plain training with smaller
steps, whose learning rate has as many tries as λ; and, as a ceiling, both tasks learnt at once.

*Permuted*: digits, then the same digits with their pixels permuted, another permutation for each seed. *Split*: digits
0 to 4, then 5 to 9 at the same five outputs. λ and rates are those of the best mean validation accuracy over both
tasks on tuning seeds; the figures are test accuracies of fresh seeds, compared seed by seed.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.axes
import matplotlib.figure
import numpy as np
import optax
import pandas as pd
import tqdm
import tyro

from experiments._shared import command_line
from experiments._shared.run_folder import RunFolder
from mlp_jax import datasets, losses, mlp, mlp_hessian, penalties, plots, training, tree
from mlp_jax.confidence import mean_interval
from mlp_jax.datasets import Examples

PROBLEMS = ("permuted", "split")
# Tries of every contender: λ, the learning rate of the old task, and shares of that rate for the new one.
TRIES = 11
STRENGTHS, RATES, SHARES = (np.geomspace(*ends, TRIES) for ends in ((0.1, 1e4), (1e-5, 1.0), (1.0, 1e-3)))
SELECTIVE = ("Fisher", "Hessian", "uniform")
STYLES = {
    "Fisher": (plots.BLUE, "o", "-"),
    "Hessian": (plots.ORANGE, "s", "--"),
    "uniform": (plots.GREEN, "^", "-."),
    "smaller steps": (plots.PURPLE, "D", ":"),
    "plain": ("black", "X", "none"),
    "both at once": (plots.GREY, "*", "none"),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the run; each is written to settings.json."""

    quick: bool = False
    """Six seeds, five epochs, permuted digits only."""
    seed: int = 0
    """Of starts, orders and permutations."""
    seeds: int = 16
    """Fresh seeds of each measurement; as many others are used to tune."""
    epochs: int = 20
    """Passes over the examples of each task."""
    hidden: int = 16
    """Hidden tanh units."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A new folder for the results; runs/continual_learning-DATE-TIME when not given."""
    resume: bool = False
    """Go on with the run that was stopped in the folder of --output."""


class Task(NamedTuple):
    """Examples of one task, each array with a leading axis of seeds."""

    train: Examples
    validation: Examples
    test: Examples


def make_tasks(problem: str, seed: Sequence[int], seeds: int) -> tuple[Task, Task]:
    """Return the old and the new task; a fifth of the training examples is kept for validation."""
    data = datasets.load("digits")
    train, test = (tuple(np.asarray(a) for a in part) for part in data)
    splits = datasets.stratified_split(train[1], len(train[1]) // 5)
    parts = [*((train[0][rows], train[1][rows]) for rows in splits), test]
    generator = np.random.default_rng(seed)
    pixels = np.tile(np.arange(train[0].shape[1]), (2, seeds, 1))
    if problem == "permuted":
        pixels[1] = generator.permuted(pixels[1], axis=1)

    def task(new: int) -> Task:
        rows = [np.flatnonzero(y // 5 == new) if problem == "split" else np.arange(len(y)) for _, y in parts]
        # (seeds, n, pixels); the classes of a half are numbered from 0.
        inputs = [np.moveaxis(x[r][:, pixels[new]], 1, 0) for (x, _), r in zip(parts, rows, strict=True)]
        targets = [y[r] % 5 if problem == "split" else y for (_, y), r in zip(parts, rows, strict=True)]
        return Task(*(Examples(jnp.asarray(x), jnp.tile(y, (seeds, 1))) for x, y in zip(inputs, targets, strict=True)))

    return task(0), task(1)


def cross_entropy(params: mlp.Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the cross-entropy of each example."""
    return losses.cross_entropy(mlp.forward(params, inputs), targets)


@functools.partial(jax.jit, static_argnames="epochs")
def learn(
    keys: jax.Array,
    starts: mlp.Params,
    examples: Examples,
    importances: mlp.Params,
    strengths: jax.Array,
    rates: jax.Array,
    epochs: int,
) -> tuple[mlp.Params, jax.Array]:
    """Train from every start, held near it with each strength: params and divergence (settings, seeds, ...).

    `keys`, `starts`, `examples` and `importances` have a leading axis of seeds; strengths and rates go in pairs.
    """

    def one(
        strength: Any, rate: Any, key: jax.Array, start: mlp.Params, data: Examples, weights: mlp.Params
    ) -> tuple[mlp.Params, jax.Array]:
        def loss(params: mlp.Params, x: jax.Array, y: jax.Array, shares: jax.Array, _: jax.Array) -> jax.Array:
            held = penalties.selective_synaptic_plasticity(params, strength, reference=start, importances=weights)
            return losses.mean(cross_entropy(params, x, y), shares) + held

        params, history = training.train(
            key, loss, start, data, optimizer=optax.adam(rate), batch_size=32, epochs=epochs
        )
        return params, history.diverged_at > 0

    over_seeds = jax.vmap(one, in_axes=(None, None, 0, 0, 0, 0))
    return jax.vmap(over_seeds, in_axes=(0, 0, None, None, None, None))(
        strengths, rates, keys, starts, examples, importances
    )


@jax.jit
def accuracy(params: mlp.Params, examples: Examples) -> jax.Array:
    """Return the accuracy (settings, seeds) of params with those leading axes."""

    def one(params: mlp.Params, data: Examples) -> jax.Array:
        return losses.mean(losses.accuracy(mlp.forward(params, data.inputs), data.targets))

    return jax.vmap(jax.vmap(one), in_axes=(0, None))(params, examples)


def diagonals(params: mlp.Params, inputs: jax.Array, targets: jax.Array) -> dict[str, np.ndarray]:
    """Return the diagonals (P,) of the Fisher matrix and of the exact Hessian of the mean cross-entropy.

    The Fisher matrix of softmax outputs is the Gauss–Newton part of that Hessian (Martens 2020, section 9).

    Examples
    --------
    One logit above a fixed one, probability ½: both are ¼ for the weight of each.

    >>> params = (mlp.Layer(jnp.zeros((1, 2)), jnp.zeros(2)),)
    >>> found = diagonals(params, jnp.ones((3, 1)), jnp.array([0, 1, 1]))
    >>> found["Fisher"].tolist(), found["Hessian"].tolist()
    ([0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25])
    """
    part = functools.partial(mlp_hessian.dense, params, inputs, targets, loss=losses.cross_entropy)
    fisher = np.diag(part(residual=False))
    return {"Fisher": fisher, "Hessian": fisher + np.diag(part(gauss_newton=False))}


def importances(params: mlp.Params, examples: Examples) -> tuple[dict[str, mlp.Params], pd.DataFrame]:
    """Return importances of three kinds for params with a leading axis of seeds, and one row of facts a seed."""
    seeds = len(examples.targets)
    pick = [jax.tree.map(lambda a, seed=seed: a[seed], (params, examples)) for seed in range(seeds)]
    unravel = tree.ravel(pick[0][0])[1]
    found: dict[str, list[np.ndarray]] = {name: [] for name in SELECTIVE}
    facts = []
    for one, (inputs, targets) in pick:
        diagonal = diagonals(one, inputs, targets)
        fisher, hessian = diagonal["Fisher"], diagonal["Hessian"]
        for name, values in zip(SELECTIVE, (fisher, np.maximum(hessian, 0), fisher.mean() + 0 * fisher), strict=True):
            found[name].append(values)
        facts.append(
            {
                "Fisher sum": fisher.sum(),
                "Hessian sum": hessian.sum(),
                "negative entries": np.mean(hessian < 0),
                "their share of the sum": -np.minimum(hessian, 0).sum() / np.abs(hessian).sum(),
                "correlation": np.corrcoef(fisher, hessian)[0, 1],
            }
        )
    dtype = params[0].weight.dtype
    stacked = {name: jax.vmap(unravel)(jnp.asarray(np.stack(rows), dtype)) for name, rows in found.items()}
    return stacked, pd.DataFrame(facts)


@functools.partial(jax.jit, static_argnames=("seeds", "sizes"), compiler_options={"xla_backend_optimization_level": 0})
def draw_starts(key: jax.Array, seeds: int, sizes: tuple[int, ...]) -> tuple[jax.Array, mlp.Params]:
    """Return the key of its orders and start parameters for each seed."""
    keys, init_keys = jnp.swapaxes(jax.vmap(jax.random.split)(jax.random.split(key, seeds)), 0, 1)
    return keys, jax.vmap(functools.partial(mlp.init, sizes=sizes))(init_keys)


def learn_new(
    keys: jax.Array, before: mlp.Params, tasks: tuple[Task, Task], part: str, rate: float, epochs: int, bar: tqdm.tqdm
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row a contender, try and seed, accuracies those on one part; and the facts of importances."""
    weights, facts = importances(before, tasks[0].train)
    nothing = jax.tree.map(jnp.zeros_like, before)
    rows = []
    for name in (*SELECTIVE, "smaller steps"):
        shares = SHARES if name == "smaller steps" else np.ones(TRIES)
        arguments = (
            weights.get(name, nothing),
            jnp.asarray(STRENGTHS, jnp.float32),
            jnp.asarray(rate * shares, jnp.float32),
        )
        ends = learn(keys, before, tasks[1].train, *arguments, epochs)
        rows.append(as_rows(name, SHARES if name == "smaller steps" else STRENGTHS, ends, tasks, part))
        bar.update()
    rows.append(rows[-1][rows[-1].tried == 1].assign(contender="plain"))
    return pd.concat(rows, ignore_index=True), facts


def as_rows(
    name: str, tried: np.ndarray, ends: tuple[mlp.Params, jax.Array], tasks: tuple[Task, Task], part: str
) -> pd.DataFrame:
    """Return one row a try and seed."""
    old, new = (np.asarray(accuracy(ends[0], getattr(task, part)), float) for task in tasks)
    columns = {"old": old, "new": new, "diverged": np.asarray(ends[1])}
    tries, seeds = np.repeat(tried, old.shape[1]), np.tile(np.arange(old.shape[1]), len(tried))
    return pd.DataFrame(
        {"contender": name, "tried": tries, "seed": seeds, **{k: v.ravel() for k, v in columns.items()}}
    )


def choose(rows: pd.DataFrame) -> dict[str, float]:
    """Return what each contender tried with the best mean accuracy over both tasks and all seeds.

    Examples
    --------
    >>> rows = pd.DataFrame({"contender": "a", "tried": [0.1, 0.1, 1.0, 1.0], "old": [0.9, 0.7, 0.8, 0.9],
    ...                      "new": [0.5, 0.5, 0.6, 0.5]})
    >>> choose(rows)
    {'a': 1.0}
    """
    means = rows.assign(both=(rows.old + rows.new) / 2).groupby(["contender", "tried"]).both.mean()
    return {str(name): float(part.idxmax()[1]) for name, part in means.groupby("contender", sort=False)}


def summary(fresh: pd.DataFrame, chosen: dict[str, float]) -> pd.DataFrame:
    """Return one row a contender, with what was chosen: means over fresh seeds in percent, with 95 % half widths.

    `forgotten` is the accuracy on the old task before the new one minus that after it; `saved` how much less that is
    than with plain training; `both` the mean accuracy over both tasks; `over uniform`, `over Hessian` and `below both
    at once` are differences in that to other contenders. All differences are taken seed by seed.
    """
    picked = {
        name: fresh[(fresh.contender == name) & (fresh.tried == chosen.get(name, 1.0))].set_index("seed")
        for name in STYLES
    }
    both = {name: (part.old + part.new) / 2 for name, part in picked.items()}
    plain, table = picked["plain"], []
    for name, part in picked.items():
        tried = fresh.tried[fresh.contender == name]
        at_edge = len(set(tried)) > 1 and chosen[name] in (tried.min(), tried.max())
        row = {"contender": name, "tried": part.tried.iloc[0], "at edge": at_edge, "diverged": part.diverged.sum()}
        figures = {
            "old before": part.before,
            "old": part.old,
            "new": part.new,
            "both": both[name],
            "forgotten": part.before - part.old,
            "saved": part.old - plain.old,
            "lost on new": plain.new - part.new,
            "over uniform": both[name] - both["uniform"],
            "over Hessian": both[name] - both["Hessian"],
            "below both at once": both["both at once"] - both[name],
        }
        for figure, samples in figures.items():
            mean, half = mean_interval(100 * samples)
            row |= {figure: float(mean), f"{figure} ±": float(half)}
        table.append(row)
    return pd.DataFrame(table)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table for the screen: each mean and its half width in one cell.

    Examples
    --------
    >>> shown(pd.DataFrame({"contender": ["a"], "old": [97.66], "old ±": [0.34]})).iloc[0].tolist()
    ['a', '97.7 ± 0.3']
    """
    halves = [name for name in table if name.endswith(" ±")]
    cells = {
        half[:-2]: [f"{m:.1f} ± {h:.1f}" for m, h in zip(table[half[:-2]], table[half], strict=True)] for half in halves
    }
    return table.drop(columns=halves).assign(**cells)


def draw(fresh: dict[str, pd.DataFrame], tables: dict[str, pd.DataFrame]) -> matplotlib.figure.Figure:
    """Return the figure: for each problem the trade-off between the tasks, and the mean of both against λ."""
    figure = matplotlib.figure.Figure(figsize=(6 * len(fresh), 9), layout="constrained")
    axes = figure.subplots(2, len(fresh), squeeze=False)
    for column, (problem, rows) in enumerate(fresh.items()):
        picked = tables[problem].set_index("contender")
        for name, (colour, marker, line) in STYLES.items():
            part = 100 * rows[rows.contender == name].groupby("tried")[["old", "new"]].mean()
            axes[0, column].plot(part.new, part.old, color=colour, marker=marker, ls=line, ms=4, lw=1)
            one = picked.loc[name]
            axes[0, column].errorbar(
                one["new"], one["old"], one["old ±"], one["new ±"], color=colour, marker=marker, ms=9, label=name
            )
            _against_strength(axes[1, column], rows[rows.contender == name], name, one)
        axes[0, column].set(
            xlabel="test accuracy on the new task (%)",
            ylabel="test accuracy on the old task (%)",
            title=f"{problem}: what is kept, what is learnt",
        )
        axes[1, column].set(
            xlabel="λ, strength of the penalty", ylabel="mean test accuracy of both tasks (%)", xscale="log"
        )
        axes[1, column].set(title=f"{problem}: both tasks (chosen: ringed)")
        for panel in axes[:, column]:
            panel.legend(frameon=False, fontsize="small", loc="best")
    return figure


def _against_strength(axes: matplotlib.axes.Axes, rows: pd.DataFrame, name: str, chosen: pd.Series) -> None:
    colour, marker, line = STYLES[name]
    if name not in SELECTIVE:
        if name != "smaller steps":
            axes.axhline(chosen["both"], color=colour, ls="--" if name == "plain" else "-", lw=1, label=name)
        return
    means = rows.assign(both=50 * (rows.old + rows.new)).pivot(index="seed", columns="tried", values="both")
    mean, half = mean_interval(means)
    axes.errorbar(means.columns, mean, half, color=colour, marker=marker, ls=line, capsize=2, label=name)
    axes.plot(chosen.tried, mean[list(means.columns).index(chosen.tried)], marker, color=colour, ms=10, mfc="none")


def difference(mean: float, half: float) -> str:
    """Return a paired difference in points, and whether its interval excludes 0.

    Examples
    --------
    >>> difference(2.0, 0.5), difference(0.2, 0.5)
    ('+2.0 ± 0.5', '+0.2 ± 0.5, no difference seen')
    """
    return f"{mean:+.1f} ± {half:.1f}{'' if abs(mean) > half else ', no difference seen'}"


def conclusion(problem: str, table: pd.DataFrame, facts: pd.DataFrame) -> str:
    """Return what was found for one problem, in words made from the numbers."""
    rows = {row["contender"]: row for _, row in table.iterrows()}
    plain = rows["plain"]

    def compared(name: str, figure: str) -> str:
        return difference(rows[name][figure], rows[name][f"{figure} ±"])

    saved = "; ".join(
        f"{name} ({'λ = ' if name in SELECTIVE else 'rate × '}{rows[name]['tried']:.2g}"
        f"{', at the edge' * rows[name]['at edge']}) {compared(name, 'saved')}, and lost"
        f" on the new task {compared(name, 'lost on new')}"
        for name in (*SELECTIVE, "smaller steps")
    )
    clear = [name for name in SELECTIVE if rows[name]["saved"] > rows[name]["saved ±"]]
    over = ", ".join(f"{name} {compared(name, 'over uniform')}" for name in ("Fisher", "Hessian", "smaller steps"))
    return (
        f"{problem}: plain training forgets {plain['forgotten']:.1f} ± {plain['forgotten ±']:.1f} points of"
        f" {plain['old before']:.1f}. Points saved on the old task: {saved}. The interval of the reduction lies"
        f" above 0 for {', '.join(clear) or 'none'} of the importances. Mean accuracy of both tasks, over uniform"
        f" importances: {over}; Fisher over Hessian: {compared('Fisher', 'over Hessian')}. The two diagonals correlate"
        f" at {facts.correlation.mean():.3f}; {100 * facts['negative entries'].mean():.1f} % of the Hessian's entries"
        f" are negative, with {100 * facts['their share of the sum'].mean():.1g} % of its size, and were set to zero."
    )


def differs(tables: dict[str, pd.DataFrame]) -> str:
    """Return what the notes do not say, in words made from the numbers."""
    parts = []
    for problem, table in tables.items():
        rows = table.set_index("contender").loc[["Fisher", "Hessian"]].iterrows()
        found = [
            f"{name} λ = {row.tried:.2g}, {difference(row['below both at once'], row['below both at once ±'])}"
            for name, row in rows
        ]
        parts.append(f"{problem}: {'; '.join(found)}")
    return (
        "What the notes do not say: which λ (½, if the penalty were the second-order expansion of the old loss), and by"
        f" how many points of mean accuracy learning both at once is ahead. Here, {'. '.join(parts)}."
    )


def compare(problem: str, seed: int, settings: Settings, bar: tqdm.tqdm) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all runs of one problem (`stage` tuning or fresh), and the facts of importances of the fresh seeds."""
    tables, rate, facts = [], 0, pd.DataFrame()
    sizes = (64, settings.hidden, 10 if problem == "permuted" else 5)
    for stage, part in enumerate(("validation", "test")):
        tasks = make_tasks(problem, (seed, stage), settings.seeds)
        keys, starts = draw_starts(jax.random.fold_in(jax.random.key(seed), stage), settings.seeds, sizes)
        nothing, none, rates = jax.tree.map(jnp.zeros_like, starts), jnp.zeros(TRIES), jnp.asarray(RATES, jnp.float32)
        # All rates for the fresh seeds as well: it is the program that is compiled already.
        olds, lost = learn(keys, starts, tasks[0].train, nothing, none, rates, settings.epochs)
        scores = np.asarray(accuracy(olds, getattr(tasks[0], part)), float)
        if stage == 0:
            rate = int(scores.mean(1).argmax())
        before = jax.tree.map(lambda a, rate=rate: a[rate], olds)
        rows, facts = learn_new(keys, before, tasks, part, RATES[rate], settings.epochs, bar)
        rows["diverged"] |= np.asarray(lost)[rate][rows.seed]
        if stage == 1:
            both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), tasks[0].train, tasks[1].train)
            ends = learn(keys, starts, both, nothing, none[:1], rates[rate : rate + 1], settings.epochs)
            rows = pd.concat([rows, as_rows("both at once", np.ones(1), ends, tasks, part)])
        rows["before"] = scores[rate][rows.seed]
        tables.append(rows.assign(problem=problem, stage=("tuning", "fresh")[stage], rate=RATES[rate]))
    return pd.concat(tables, ignore_index=True), facts


def run(settings: Settings) -> dict[str, pd.DataFrame]:
    """Learn, measure, print and save; return the summary of each problem."""
    folder = RunFolder("continual_learning", settings, settings.output, resume=settings.resume)
    if settings.quick:
        settings = dataclasses.replace(settings, seeds=min(6, settings.seeds), epochs=min(5, settings.epochs))
    problems = PROBLEMS[:1] if settings.quick else PROBLEMS
    runs, fresh, tables, words = [], {}, {}, []
    with tqdm.tqdm(total=8 * len(problems), unit="contender", leave=False, disable=None) as bar:
        for problem in problems:
            rows, facts = folder.kept(problem, functools.partial(compare, problem, settings.seed, settings, bar))
            runs.append(rows)
            fresh[problem] = rows[rows.stage == "fresh"]
            tables[problem] = summary(fresh[problem], choose(rows[rows.stage == "tuning"]))
            words.append(conclusion(problem, tables[problem], facts))
            folder.table(f"importances_{problem}", facts)
            rate = rows.rate.iloc[0]
            print(
                f"{problem} digits, percent, {settings.seeds} fresh seeds, 95 %; Adam, learning rate {rate:.2g}"
                f"{' (at the edge of its search)' * (rate in RATES[[0, -1]])}; tried: λ, or share of that rate:"
            )
            print(shown(tables[problem]).to_string(index=False, float_format="{:.2g}".format), "\n")
    folder.table("runs", pd.concat(runs))
    folder.table("summary", pd.concat([table.assign(problem=name) for name, table in tables.items()]))
    folder.figure("continual_learning", draw(fresh, tables))
    folder.conclude("\n".join(["Found:", *words, differs(tables)]))
    return tables


def main() -> None:
    """Read the command line and run."""
    command_line.start("continual_learning", run, Settings, __doc__)


if __name__ == "__main__":
    main()
