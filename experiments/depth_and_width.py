"""How many parameters do deep and shallow ReLU networks need for an equal error, and what does a bound on |H| add?

First, networks are constructed that compute a sawtooth of 2ⁿ pieces and the parity of n bits exactly. Then networks of
one to four hidden layers and equal size are trained on functions for which theory favours depth (sawtooth, parity) and
on one for which it does not (a sine), with equal numbers of updates and of learning rates tried. Rates and the error to
reach are chosen on separate seeds. Last, the gap between the errors on sample and population is compared with the
deviation that the finite-hypothesis bound allows, at 32 bits per parameter.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import matplotlib.figure
import numpy as np
import pandas as pd
import tqdm

from experiments._shared import command_line, exact_networks, needed_sizes, padded_fits, tables
from experiments._shared import finite_hypotheses as finite
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import datasets, plots
from mlp_jax.confidence import mean_interval

DEVIATION, FAILURE, ALLOWED = 0.1, 0.05, "bound's ε"
PIECES, BITS = 4, 8  # the trained functions: log₂ of the pieces of the sawtooth, bits of the parity
RATES = (0.003, 0.01, 0.03, 0.1)
# Remaining shares of the variance. The goal is the smallest that two depths reach in tuning with a factor of two to
# spare, because the best of many tries is biased.
GOALS, SPARE = (0.01, 0.05, 0.1, 0.25, 0.5), 2.0
LOOKS = tuple(zip((plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE), ("-", "--", "-.", ":"), "os^D", strict=True))


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    seeds: int = 8
    """Fresh seeds, a multiple of the four learning rates; tuning uses a quarter as many others."""
    updates: int = 3200
    """Updates of each run, in batches of 32."""
    examples: int = 512
    """Examples of each sample, drawn with replacement; a power of two, 32 or more."""
    parameters: tuple[int, ...] = (25, 50, 100, 200, 400, 800)
    """Limits on the number of parameters, increasing; each network is the widest within its limit."""
    depths: tuple[int, ...] = (1, 2, 3, 4)
    """Hidden layers, increasing."""
    pieces: tuple[int, ...] = (1, 2, 4, 6, 8, 10)
    """log₂ of the linear pieces of the constructed sawtooths."""

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.seeds % len(RATES):
            raise ValueError(f"seeds: got {self.seeds}, expected a multiple of the {len(RATES)} learning rates.")


class Task(NamedTuple):
    """The whole population of a function: inputs (m, d), targets (m, 1) of mean 0 and variance 1."""

    name: str
    inputs: np.ndarray
    targets: np.ndarray


def tasks() -> list[Task]:
    """Return a sawtooth and one period of a sine on 512 points, and the parity of 8 bits, each string twice."""
    saw, bits = datasets.sawtooth(PIECES, points_per_piece=32), datasets.parity(BITS, coding=(-1.0, 1.0))
    line = np.asarray(saw.inputs)[:-1]
    return [
        Task("sawtooth", _standard(line), _standard(saw.targets[:-1])),
        Task("sine", _standard(line), _standard(np.sin(2 * np.pi * line))),
        Task("parity", np.tile(bits.inputs, (2, 1)), _standard(np.tile(bits.targets, (2, 1)))),
    ]


def _standard(values: Any) -> np.ndarray:
    array = np.asarray(values)
    return (array - array.mean()) / array.std()


def launch(
    task: Task, settings: Settings, depth: int, most: list[int], rates: Any, seeds: list[int], sizes: list[int]
) -> padded_fits.Ends:
    """Train (networks, seeds): network k has at most most[k] parameters and a sample of sizes[k] examples."""
    num_inputs = task.inputs.shape[1]
    padded = (BITS, *[padded_fits.width(1, depth, max(settings.parameters))] * depth, 1)
    shapes = [(num_inputs, *[padded_fits.width(num_inputs, depth, number)] * depth, 1) for number in most]
    starts = padded_fits.stacked_starts(settings.seed, shapes, seeds, padded)
    keys = jax.vmap(jax.random.key)(np.array(seeds, np.uint32) + 100_000 * settings.seed)
    inputs = np.pad(task.inputs, [(0, 0), (0, BITS - num_inputs)])
    rows = padded_fits.sample_rows(settings.seed, len(inputs), seeds, sizes, settings.examples)
    samples, population = (inputs[rows], task.targets[rows]), (inputs, task.targets)
    return padded_fits.train(keys, starts, rates.astype(np.float32), samples, population, settings.updates)


def measure(task: Task, settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tune, then train on fresh seeds; return one row for each depth, size and seed, and the gaps of the largest."""
    train, ladder, seeds = functools.partial(launch, task, settings), list(settings.parameters), range(settings.seeds)
    full, repeats = [settings.examples] * len(ladder), settings.seeds // len(RATES)
    others = [10_000 + s for s in range(repeats) for _ in RATES]
    tried = np.tile(RATES, (len(ladder), repeats))
    tuned = {depth: train(depth, ladder, tried, others, full) for depth in settings.depths}
    errors = {d: _finite(ends.error).reshape(len(ladder), -1, len(RATES)).mean(axis=1) for d, ends in tuned.items()}
    second = sorted(mean.min() for mean in errors.values())[:2][-1]
    goal = next((goal for goal in GOALS if SPARE * second <= goal), GOALS[-1])
    chosen = {depth: np.array(RATES)[mean.argmin(axis=1)] for depth, mean in errors.items()}
    fresh = {d: train(d, ladder, np.tile(r[:, None], len(seeds)), list(seeds), full) for d, r in chosen.items()}
    tables = []
    for depth, ends in fresh.items():
        rows = pd.DataFrame({name: np.ravel(values) for name, values in ends._asdict().items()})
        numbers = [_size(task, depth, most) for most in ladder]
        by_size = {"at most": ladder, "parameters": numbers, "rate": chosen[depth]}
        rows = rows.assign(**{name: np.repeat(values, len(seeds)) for name, values in by_size.items()})
        rows = rows.assign(task=task.name, depth=depth, seed=np.tile(seeds, len(ladder)), goal=goal)
        tables.append(rows.assign(error=_finite(ends.error).ravel()))
    # One sample for each network: nothing new is compiled.
    sizes = [settings.examples >> k for k in reversed(range(len(ladder)))]
    rates = np.full((len(ladder), len(seeds)), chosen[depth][-1])
    ends = train(depth, ladder[-1:] * len(ladder), rates, list(seeds), sizes)
    return pd.concat(tables, ignore_index=True), gaps(task.name, depth, _size(task, depth, ladder[-1]), sizes, ends)


def _size(task: Task, depth: int, most: int) -> int:
    num_inputs = task.inputs.shape[1]
    return padded_fits.num_parameters(num_inputs, depth, padded_fits.width(num_inputs, depth, most))


def _finite(errors: Any) -> np.ndarray:
    """Return the errors clipped to 10, also those of diverged runs, so that means exist."""
    return np.nan_to_num(np.asarray(errors, float), nan=10.0, posinf=10.0).clip(max=10.0)


def gaps(name: str, depth: int, parameters: int, sizes: list[int], ends: padded_fits.Ends) -> pd.DataFrame:
    """Return one row for each sample size: the gap between the shares of wrong examples, and the bound on it."""
    gap, log_size = np.abs(np.asarray(ends.wrong, float) - ends.wrong_on_sample), finite.network_log_size(parameters)
    mean, half = mean_interval(gap, axis=1)
    columns = {
        "task": name,
        "depth": depth,
        "parameters": parameters,
        "N": sizes,
        "wrong on sample": np.mean(ends.wrong_on_sample, axis=1),
        "wrong": np.mean(ends.wrong, axis=1),
        "gap": mean,
        "gap ±": half,
        "largest gap": gap.max(axis=1),
        ALLOWED: [finite.allowed_deviation(log_size, n, FAILURE) for n in sizes],
        "N by bound": finite.sample_size(log_size, FAILURE, DEVIATION),
    }
    return pd.DataFrame(columns)


def draw(runs: pd.DataFrame, gap: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: remaining error against parameters for each task, and the generalisation gap against N."""
    figure = matplotlib.figure.Figure(figsize=(11, 8), layout="constrained")
    *panels, last = figure.subplots(2, 2).ravel()
    for panel, (task, part) in zip(panels, runs.groupby("task", sort=False), strict=True):
        for (depth, of_depth), (colour, line, marker) in zip(part.groupby("depth"), LOOKS, strict=False):
            error = of_depth.groupby("parameters").error.quantile([0.0, 0.5, 1.0]).unstack()
            panel.fill_between(error.index, error[0.0], error[1.0], color=colour, alpha=0.12, lw=0)
            panel.loglog(error[0.5], color=colour, ls=line, marker=marker, ms=4, label=f"hidden layers: {depth}")
        panel.axhline(part.goal.iloc[0], color="black", lw=0.8)
        panel.set(title=f"{task}: median, range over seeds", xlabel="parameters", ylabel="variance left (line: goal)")
        panel.set_xticks(part["at most"].unique())
        panel.set_ylim(min(0.1, panel.get_ylim()[0]), 2)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
    for (task, part), (colour, line, marker) in zip(gap.groupby("task", sort=False), LOOKS, strict=False):
        last.errorbar(part.N, part.gap, part["gap ±"], color=colour, ls=line, marker=marker, label=f"{task}, measured")
    part = gap[gap.parameters == gap.parameters.min()].drop_duplicates("N")
    last.plot(part.N, part[ALLOWED], color="black", label=f"bound, {part.parameters.iloc[0]} parameters")
    last.axhline(1, color=plots.GREY, lw=0.8)
    last.set(xlabel="N, examples in the sample", ylabel="gap, share of examples", title="generalisation gap, 95 %")
    last.set_xscale("log", base=2)
    last.set_yscale("symlog", linthresh=0.01)
    last.set_ylim(0, 100)
    for panel in (*panels, last):
        panel.legend(fontsize="small")
    return figure


def conclusion(built: pd.DataFrame, need: pd.DataFrame, gap: pd.DataFrame, settings: Settings) -> str:
    """Return what was found, as one sentence filled with numbers."""
    saw = built[(built.function == "sawtooth") & (built.n == max(settings.pieces))].set_index("network")
    counts = [
        f"{task} (goal {part.goal.iloc[0]:g}) {', '.join(f'{row.parameters:.0f}' for row in part.itertuples())}"
        for task, part in need.groupby("task", sort=False)
    ]
    fewer = [f"{row.task} at {row.depth}" for row in need[need.verdict == "fewer"].itertuples()]
    full = gap[gap.N.eq(settings.examples)]
    return (
        f"Found: a sawtooth of 2^{max(settings.pieces)} pieces takes {saw.parameters['n layers']} parameters in"
        f" {saw.layers['n layers']} layers and {saw.parameters['1 layer']} in one, exactly; in training, the parameters"
        f" needed to reach the goal (inf: more than {max(settings.parameters)}) at depths"
        f" {', '.join(map(str, settings.depths))} are {'; '.join(counts)}; paired by seed, fewer than at the first"
        f" depth for {', '.join(fewer) or 'none'}; with {settings.examples} examples the bound allows a gap of"
        f" {full[ALLOWED].min():.1f} or more, and the largest measured is {full['largest gap'].max():.2g}."
    )


def run(settings: Settings) -> pd.DataFrame:
    """Construct, train, print and save; return one row for each task, depth, size and seed."""
    folder = RunFolder("depth_and_width", settings, settings.output, resume=settings.resume)
    if settings.quick:
        settings = dataclasses.replace(settings, seeds=len(RATES), updates=settings.updates // 8, depths=(1, 3))
        settings = dataclasses.replace(settings, parameters=settings.parameters[1::2], pieces=settings.pieces[:4])
    with jax.enable_x64(True):
        built = exact_networks.table(settings.pieces, FAILURE, DEVIATION)
    measured = [
        folder.kept(task.name, functools.partial(measure, task, settings))
        for task in tqdm.tqdm(tasks(), unit="function", leave=False, disable=None)
    ]
    runs, gap = (pd.concat(tables, ignore_index=True) for tables in zip(*measured, strict=True))
    need = needed_sizes.needed(runs, RATES)
    for name, table in {"constructions": built, "runs": runs, "needed": need, "gaps": gap}.items():
        folder.table(name, table)
    folder.figure("depth_and_width", draw(runs, gap))
    print("The smallest network whose median error reaches the goal (inf: none), and the pairs of seeds with depth 1:")
    shown = ["task", "goal", "depth", "parameters", "seeds there", "fewer", "more", "p", "verdict", "ratio"]
    print(tables.text(need[shown], "needed", float_format="{:.3g}".format))
    folder.conclude(conclusion(built, need, gap, settings))
    return runs


if __name__ == "__main__":
    command_line.start("depth_and_width", run, Settings, __doc__)
