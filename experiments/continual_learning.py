"""How much of an old task is forgotten while a new one is learnt, and how much does selective plasticity save?

A network learns the old task, then the new one without the old examples. With selective synaptic plasticity (elastic
weight consolidation) the second loss is L(θ) + λ Σ bᵢ (θᵢ − θ*ᵢ)², where θ* are the parameters after the old task and b
their importances: the diagonal of the Fisher matrix, the diagonal of the exact Hessian (negative entries set to zero),
or a uniform value (the mean of the Fisher diagonal). The baselines are plain training, plain training with a smaller
learning rate (as many values tried as of λ), and training on both tasks at once, which is the upper limit.

*Permuted*: digits, then the same digits with their pixels permuted, differently for each seed. *Split*: digits 0 to 4,
then 5 to 9 at the same five outputs. λ and rates have the best mean validation accuracy over both tasks on tuning
seeds; the results are test accuracies of fresh seeds, paired by seed.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import pandas as pd
import tqdm

from experiments._shared import command_line, tables
from experiments._shared import selective_plasticity as plasticity
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import datasets, mlp, plots, tree
from mlp_jax.confidence import mean_interval
from mlp_jax.datasets import Examples

PROBLEMS = ("permuted", "split")
# The values tried by every contender: λ, the learning rate of the old task, and shares of that rate for the new one.
TRIES = 11
STRENGTHS, RATES, SHARES = (np.geomspace(*ends, TRIES) for ends in ((0.1, 1e4), (1e-5, 1.0), (1.0, 1e-3)))
SELECTIVE, SMALLER = ("Fisher", "Hessian", "uniform"), "smaller steps"
STYLES = {
    "Fisher": (plots.BLUE, "o", "-"),
    "Hessian": (plots.ORANGE, "s", "--"),
    "uniform": (plots.GREEN, "^", "-."),
    SMALLER: (plots.PURPLE, "D", ":"),
    "plain": ("black", "X", "none"),
    "both at once": (plots.GREY, "*", "none"),
}


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    seeds: int = 16
    """Fresh seeds of each measurement; tuning uses as many others."""
    epochs: int = 20
    """Passes over the examples of each task."""
    hidden: int = 16
    """Hidden tanh units."""


class Task(NamedTuple):
    """Examples of one task, each array with a leading axis of seeds."""

    train: Examples
    validation: Examples
    test: Examples


def make_tasks(problem: str, seed: Sequence[int], seeds: int) -> tuple[Task, Task]:
    """Return the old and the new task; a fifth of the training examples is held out for validation."""
    train, test = (tuple(np.asarray(a) for a in part) for part in datasets.load("digits"))
    splits = datasets.stratified_split(train[1], len(train[1]) // 5)
    parts = [*((train[0][rows], train[1][rows]) for rows in splits), test]
    pixels = np.tile(np.arange(train[0].shape[1]), (2, seeds, 1))
    if problem == "permuted":
        pixels[1] = np.random.default_rng(seed).permuted(pixels[1], axis=1)

    def examples(x: np.ndarray, y: np.ndarray, new: int) -> Examples:
        # Inputs (seeds, n, pixels); the classes of a half are numbered from 0.
        rows = y // 5 == new if problem == "split" else np.full(len(y), True)
        targets = y[rows] % 5 if problem == "split" else y
        return Examples(jnp.moveaxis(x[rows][:, pixels[new]], 1, 0), jnp.tile(targets, (seeds, 1)))

    old, new = (Task(*(examples(x, y, new) for x, y in parts)) for new in (0, 1))
    return old, new


def importances(params: mlp.Params, examples: Examples) -> tuple[dict[str, mlp.Params], pd.DataFrame]:
    """Return the three kinds of importances for params with a leading axis of seeds, and one row of facts per seed."""
    rows, facts = [], []
    for seed in range(len(examples.targets)):
        one, data = jax.tree.map(operator.itemgetter(seed), (params, examples))
        fisher, hessian = plasticity.diagonals(one, *data).values()
        rows.append((fisher, np.maximum(hessian, 0), np.full_like(fisher, fisher.mean())))
        row = {"Fisher sum": fisher.sum(), "Hessian sum": hessian.sum(), "negative entries": np.mean(hessian < 0)}
        row["their share of the sum"] = -np.minimum(hessian, 0).sum() / np.abs(hessian).sum()
        facts.append(row | {"correlation": np.corrcoef(fisher, hessian)[0, 1]})
    unravel = jax.vmap(tree.ravel(jax.tree.map(operator.itemgetter(0), params))[1])
    kinds = zip(SELECTIVE, np.swapaxes(rows, 0, 1).astype(params[0].weight.dtype), strict=True)
    return {name: unravel(jnp.asarray(values)) for name, values in kinds}, pd.DataFrame(facts)


def measure(problem: str, settings: Settings, bar: tqdm.tqdm) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row for each stage (tuning, fresh), contender, value and seed, and facts of the fresh importances."""
    sizes, epochs = (64, settings.hidden, 10 if problem == "permuted" else 5), settings.epochs
    tables, rate, facts = [], 0, pd.DataFrame()

    def rows_of(name: str, tried: np.ndarray, ends: Any) -> pd.DataFrame:
        old, new = (np.asarray(plasticity.accuracy(ends[0], getattr(task, part)), float) for task in tasks)
        columns = {"old": old.ravel(), "new": new.ravel(), "diverged": np.ravel(ends[1])}
        tries, seeds = np.repeat(tried, old.shape[1]), np.tile(np.arange(old.shape[1]), len(tried))
        return pd.DataFrame({"contender": name, "tried": tries, "seed": seeds, **columns})

    for stage, part in enumerate(("validation", "test")):
        tasks = make_tasks(problem, (settings.seed, stage), settings.seeds)
        key = jax.random.fold_in(jax.random.key(settings.seed), stage)
        keys, starts = plasticity.draw_starts(key, settings.seeds, sizes)
        nothing, none, rates = jax.tree.map(jnp.zeros_like, starts), jnp.zeros(TRIES), jnp.asarray(RATES, jnp.float32)
        # All rates for fresh seeds too: that program is already compiled.
        olds, lost = plasticity.learn(keys, starts, tasks[0].train, nothing, none, rates, epochs)
        scores = np.asarray(plasticity.accuracy(olds, getattr(tasks[0], part)), float)
        rate = int(scores.mean(1).argmax()) if stage == 0 else rate
        before = jax.tree.map(operator.itemgetter(rate), olds)
        weights, facts = importances(before, tasks[0].train)
        found = []
        for name in (*SELECTIVE, SMALLER):
            shares, strengths = SHARES if name == SMALLER else np.ones(TRIES), jnp.asarray(STRENGTHS, jnp.float32)
            arguments = (weights.get(name, nothing), strengths, jnp.asarray(RATES[rate] * shares, jnp.float32))
            ends = plasticity.learn(keys, before, tasks[1].train, *arguments, epochs)
            found.append(rows_of(name, SHARES if name == SMALLER else STRENGTHS, ends))
            bar.update()
        found.append(found[-1][found[-1].tried == 1].assign(contender="plain"))
        rows = pd.concat(found, ignore_index=True)
        rows["diverged"] |= np.asarray(lost)[rate][rows.seed]
        if stage == 1:
            both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), tasks[0].train, tasks[1].train)
            ends = plasticity.learn(keys, starts, both, nothing, none[:1], rates[rate : rate + 1], epochs)
            rows = pd.concat([rows, rows_of("both at once", np.ones(1), ends)])
        rows["before"] = scores[rate][rows.seed]
        tables.append(rows.assign(problem=problem, stage=("tuning", "fresh")[stage], rate=RATES[rate]))
    return pd.concat(tables, ignore_index=True), facts


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each contender, at the value with the best mean tuning accuracy over both tasks.

    Means over fresh seeds in percent, with 95 % half widths; all differences are paired by seed. `forgotten` is the
    loss of accuracy on the old task while the new one is learnt, `saved` how much smaller that loss is than with plain
    training, `both` the mean accuracy over both tasks; the other differences compare `both` with other contenders.
    """
    runs, picked, table = runs.assign(both=(runs.old + runs.new) / 2), {}, []
    tuning, fresh = (runs[runs.stage == stage] for stage in ("tuning", "fresh"))
    for name in STYLES:
        means, part = tuning[tuning.contender == name].groupby("tried").both.mean(), fresh[fresh.contender == name]
        picked[name] = part[part.tried == (means.idxmax() if len(means) else 1.0)].set_index("seed")
    plain, uniform, hessian, ceiling = (picked[name] for name in ("plain", "uniform", "Hessian", "both at once"))
    for name, part in picked.items():
        tried, chosen = fresh.tried[fresh.contender == name].unique(), part.tried.iloc[0]
        at_edge = len(tried) > 1 and chosen in (tried.min(), tried.max())
        row = {"contender": name, "tried": chosen, "at edge": at_edge, "diverged": part.diverged.sum()}
        figures = {
            "old before": part.before,
            "old": part.old,
            "new": part.new,
            "both": part.both,
            "forgotten": part.before - part.old,
            "saved": part.old - plain.old,
            "lost on new": plain.new - part.new,
            "over uniform": part.both - uniform.both,
            "over Hessian": part.both - hessian.both,
            "below both at once": ceiling.both - part.both,
        }
        for figure, samples in figures.items():
            mean, half = mean_interval(100 * samples)
            row |= {figure: float(mean), f"{figure} ±": float(half)}
        table.append(row)
    return pd.DataFrame(table).assign(problem=runs.problem.iloc[0])


def draw(runs: pd.DataFrame, table: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: accuracy on the old task against accuracy on the new one, for each problem."""
    problems = table.problem.unique()
    figure = matplotlib.figure.Figure(figsize=(6 * len(problems), 5), layout="constrained")
    for axes, problem in zip(figure.subplots(1, len(problems), squeeze=False)[0], problems, strict=True):
        fresh, chosen = runs[(runs.problem == problem) & (runs.stage == "fresh")], table[table.problem == problem]
        for name, (colour, marker, line) in STYLES.items():
            part, one = fresh[fresh.contender == name], chosen[chosen.contender == name].iloc[0]
            means = 100 * part.groupby("tried")[["old", "new"]].mean()
            axes.plot(means.new, means.old, color=colour, marker=marker, ls=line, ms=4, lw=1)
            look: dict[str, Any] = {"color": colour, "marker": marker, "ms": 9, "label": name}
            axes.errorbar(one["new"], one["old"], one["old ±"], one["new ±"], **look)
        axes.set(xlabel="test accuracy on the new task (%)", ylabel="test accuracy on the old task (%)")
        axes.set_title(f"{problem}: every λ or rate tried; large: the chosen value, 95 %", fontsize="medium")
        axes.legend(frameon=False, fontsize="small")
    return figure


def conclusion(table: pd.DataFrame) -> str:
    """Return what was found, as one sentence filled with numbers."""
    parts = []
    for problem, part in table.groupby("problem", sort=False):
        rows = part.set_index("contender")
        saved = ", ".join(
            f"{name} saves {row['saved']:.1f} ± {row['saved ±']:.1f} (losing {row['lost on new']:.1f} on the new task)"
            for name, row in rows.loc[[*SELECTIVE, SMALLER]].iterrows()
        )
        forgotten, half, before = rows.loc["plain", ["forgotten", "forgotten ±", "old before"]]
        parts.append(
            f"on {problem} digits plain training forgets {forgotten:.1f} ± {half:.1f} points of {before:.1f}, {saved}"
        )
    return f"Found: {'; '.join(parts)}."


def run(settings: Settings) -> pd.DataFrame:
    """Train, measure, print and save; return the summary."""
    folder = RunFolder("continual_learning", settings, settings.output, resume=settings.resume)
    if settings.quick:
        settings = dataclasses.replace(settings, seeds=min(6, settings.seeds), epochs=min(5, settings.epochs))
    problems, found = PROBLEMS[:1] if settings.quick else PROBLEMS, []
    with tqdm.tqdm(total=8 * len(problems), unit="contender", leave=False, disable=None) as bar:
        for problem in problems:
            runs, facts = folder.kept(problem, functools.partial(measure, problem, settings, bar))
            folder.table(f"importances_{problem}", facts)
            found.append(runs)
    runs, table = pd.concat(found), pd.concat([summary(rows) for rows in found])
    folder.table("runs", runs)
    folder.table("summary", table)
    folder.figure("continual_learning", draw(runs, table))
    print(f"Percent, {settings.seeds} fresh seeds; tried: λ, or share of the learning rate of the old task:")
    shown = ["problem", "contender", "tried", "at edge", "old", "new", "both", "forgotten", "saved", "saved ±"]
    print(tables.text(table[shown], "summary", float_format="{:.3g}".format))
    folder.conclude(conclusion(table))
    return table


if __name__ == "__main__":
    command_line.start("continual_learning", run, Settings, __doc__)
