"""How many examples does the bound for a finite hypothesis space ask for, and how loose is it?

A sample is bad if the error on it of some function of the space H differs from the true error by more than ε.
Hoeffding's inequality and the union bound give P(bad) ≤ |H| · 2 exp(−2 N ε²). The experiment draws samples for two
spaces of random classifiers with known true errors, and counts the bad samples: random labelings, which are nearly
independent, and half-planes, which overlap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import matplotlib.axes
import matplotlib.figure
import numpy as np
import pandas as pd
import scipy.stats
import tqdm

from experiments._shared import command_line, tables
from experiments._shared import finite_hypotheses as finite
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import plots

SIZES = (1, 10, 100, 1000)
# The size of the largest array of one block of samples, so that blocks stay in the cache.
_BLOCK = 2**18


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    deviation: float = 0.1
    """ε: the allowed difference between the error on a sample and the true error."""
    failure_probability: float = 0.05
    """δ: the allowed probability of a bad sample."""
    num_points: int = 300
    """Equally likely points on which the classifiers are defined."""
    trials: int = 3000
    """Samples drawn for each N."""


def random_labelings(rng: np.random.Generator, size: int, num_points: int) -> np.ndarray:
    """Return the mistakes (size, num_points) of classifiers that label every point at random."""
    return rng.random((size, num_points)) < 0.5


def half_planes(rng: np.random.Generator, size: int, num_points: int) -> np.ndarray:
    """Return the mistakes (size, num_points) of random half-planes, where one half-plane gives the true labels."""
    points = rng.standard_normal((num_points, 2))
    directions, offsets = rng.standard_normal((size + 1, 2)), 0.5 * rng.standard_normal(size + 1)
    sides = directions @ points.T > offsets[:, None]
    return sides[1:] != sides[0]


SPACES = {"random labelings": random_labelings, "half-planes": half_planes}


def count_bad_samples(
    rng: np.random.Generator, mistakes: np.ndarray, sizes: Sequence[int], num: int, deviation: float, trials: int
) -> np.ndarray:
    """Return for each size |H| how many of `trials` samples are bad for the first |H| classifiers.

    `mistakes` is (classifiers, M), on M equally likely points. A sample is `num` of them, drawn with replacement; all
    sizes share the samples.
    """
    num_points, counts = mistakes.shape[1], np.zeros(len(sizes), int)
    block = max(1, _BLOCK // max(num, *mistakes.shape))
    # Integers below 2²⁴ are exact in float32.
    table, totals = mistakes.astype(np.float32), mistakes.sum(axis=1)[:, None]
    for begin in range(0, trials, block):
        count = min(block, trials - begin)
        drawn = rng.integers(num_points, size=(count, num)) + num_points * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * num_points).reshape(count, num_points)
        wrong = table @ times.T.astype(np.float32)
        off = _is_off(wrong, totals, num, num_points, deviation)
        counts += [np.sum(np.any(off[:size], axis=0)) for size in sizes]
    return counts


def exact_union(mistakes: np.ndarray, num_samples: int, deviation: float) -> float:
    """Return Σ over classifiers of P(the error on a sample of N is off by more than ε), from exact binomial tails.

    It lies between P(bad), which differs by the union bound, and the whole bound, which differs by Hoeffding's.
    """
    num_points = mistakes.shape[1]
    totals, repeats = np.unique(mistakes.sum(axis=1), return_counts=True)
    wrong = np.arange(num_samples + 1)
    tails = scipy.stats.binom.pmf(wrong, num_samples, totals[:, None] / num_points)
    off = _is_off(wrong, totals[:, None], num_samples, num_points, deviation)
    return float(repeats @ np.sum(tails * off, axis=1))


def _is_off(wrong: np.ndarray, total: np.ndarray, num_samples: int, num_points: int, deviation: float) -> np.ndarray:
    """Return |wrong / N − total / M| > ε, compared in units of 1 / (N M)."""
    return np.abs(wrong * float(num_points) - total * float(num_samples)) > deviation * num_samples * num_points


def simulate(settings: Settings) -> pd.DataFrame:
    """Return one row for each space, |H| and N: bad samples with a 95 % interval, the sum of exact tails, the bound."""
    deviation, trials, rows = settings.deviation, settings.trials, []
    asked = [finite.sample_size(math.log(size), settings.failure_probability, deviation) for size in SIZES]
    even = np.linspace(asked[-1] / 16, asked[-1], 16).round().astype(int).tolist()
    for space, (name, draw) in enumerate(SPACES.items()):
        rng = np.random.default_rng((settings.seed, space))
        mistakes = draw(rng, SIZES[-1], settings.num_points)
        for num_samples in tqdm.tqdm(sorted({*asked, *even}), desc=name, unit="N", leave=False, disable=None):
            counts = count_bad_samples(rng, mistakes, SIZES, num_samples, deviation, trials)
            for size, bad in zip(SIZES, counts.tolist(), strict=True):
                union = exact_union(mistakes[:size], num_samples, deviation)
                bound = finite.bad_sample_bound(math.log(size), num_samples, deviation)
                interval = finite.proportion_interval(bad, trials)
                rows.append((name, size, num_samples, bad, trials, *interval, union, bound))
    columns = ["space", "size", "N", "bad", "trials", "low", "high", "exact union", "bound"]
    return pd.DataFrame(rows, columns=columns)


def needed(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return one row for each space and |H|: the N needed by the bound, by exact tails, and in the simulation.

    The last two are the smallest N tried from which the sum of exact tails, or the upper end of the simulation's 95 %
    interval, stays at most δ.
    """
    rows = []
    for (space, size), group in table.groupby(["space", "size"], sort=False):
        by_bound = finite.sample_size(math.log(size), settings.failure_probability, settings.deviation)
        by_union, measured = (
            finite.first_lasting(group["N"].to_numpy(), group[name].to_numpy(), settings.failure_probability)
            for name in ("exact union", "high")
        )
        there = group[group["N"] == by_bound].iloc[0]
        probability = (there["bad"] / there["trials"], there["low"], there["high"])
        rows.append((space, size, by_bound, by_union, measured, by_bound / measured, *probability))
    columns = ["space", "|H|", "N by bound", "N by exact tails", "N simulated", "bound / simulated"]
    return pd.DataFrame(rows, columns=[*columns, "P(bad) at N by bound", "95 % from", "to"])


def draw(table: pd.DataFrame, settings: Settings) -> matplotlib.figure.Figure:
    """Return the figure: P(bad) against N for each space, simulated with 95 % intervals, with the bounds."""
    figure = matplotlib.figure.Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, len(SPACES), sharex=True, sharey=True)
    for axes, (space, group) in zip(panels, table.groupby("space", sort=False), strict=True):
        _panel(axes, group, settings)
        axes.set(title=space, xlabel="N, examples in a sample")
    panels[0].set(ylabel=f"P(bad), ε = {settings.deviation:g}", yscale="log", ylim=(0.5 / settings.trials, 1.5))
    panels[-1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure


def _panel(axes: matplotlib.axes.Axes, group: pd.DataFrame, settings: Settings) -> None:
    looks = zip((plots.BLUE, plots.GREEN, plots.YELLOW, plots.PURPLE), "os^D", strict=True)
    for (size, rows), (colour, marker) in zip(group.groupby("size"), looks, strict=True):
        estimate, seen = rows["bad"] / rows["trials"], rows["bad"] > 0
        bars = np.array([estimate - rows["low"], rows["high"] - estimate])[:, seen]
        axes.plot(rows["N"], rows["bound"], color=colour, ls="--", label=f"|H| = {size}: bound")
        union = rows["exact union"].clip(upper=1)
        axes.plot(rows["N"], union, color=colour, ls=":", label=f"|H| = {size}: exact tails")
        look: dict[str, Any] = {"marker": marker, "ls": "none", "ms": 4, "lw": 0.8, "color": colour}
        axes.errorbar(rows["N"][seen], estimate[seen], bars, label=f"|H| = {size}: simulated, 95 %", **look)
    axes.axhline(settings.failure_probability, color="0.4", lw=0.8)
    axes.annotate("δ", (group["N"].min(), settings.failure_probability), va="bottom", fontsize="small")
    axes.grid(alpha=0.3)


def conclusion(table: pd.DataFrame, sizes: pd.DataFrame, settings: Settings) -> str:
    """Return what was found, as one sentence filled with numbers."""
    largest = sizes[sizes["|H|"] == SIZES[-1]].set_index("space")
    found = [
        f"for {space} {row['N simulated']:.0f} are enough ({row['bound / simulated']:.1f} times fewer)"
        if row["N simulated"] > 0
        else f"for {space} {settings.trials} samples are too few to tell"
        for space, row in largest.iterrows()
    ]
    return (
        f"Found: for {SIZES[-1]} functions, ε = {settings.deviation:g} and δ = {settings.failure_probability:g} the"
        f" bound asks for {largest['N by bound'].iloc[0]} examples; {' and '.join(found)}; the simulation contradicts"
        f" the bound at {np.sum(table['low'] > table['bound'])} of {len(table)} points."
    )


def run(settings: Settings) -> None:
    """Simulate, print and save."""
    folder = RunFolder("hypothesis_space", settings, settings.output, resume=settings.resume)
    if settings.quick:
        settings = dataclasses.replace(settings, trials=max(1, settings.trials // 10))
    table = folder.kept("simulation", lambda: simulate(settings))
    sizes = needed(table, settings)
    folder.table("probabilities", table)
    folder.table("sizes", sizes)
    folder.figure("bound", draw(table, settings))
    print(f"Examples needed for P(bad) ≤ δ = {settings.failure_probability:g}; a sample is bad if some error is off by")
    print(f"more than ε = {settings.deviation:g} ({settings.trials} samples for each N):")
    print(tables.text(sizes.iloc[:, :6], "sizes", float_format="{:.3g}".format))
    folder.conclude(conclusion(table, sizes, settings))


if __name__ == "__main__":
    command_line.start("hypothesis_space", run, Settings, __doc__)
