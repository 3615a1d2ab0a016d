"""How many parameters do deep and shallow ReLU networks need for an equal error, and what does a bound on |H| add?

Constructions first, exact and without training: a sawtooth of 2ⁿ pieces and the parity of n bits. Then networks of one
to four hidden layers and of equal numbers of parameters are trained on functions where theory says that depth pays
(sawtooth, parity) and on one where it does not (a sine), with equal numbers of updates and of learning rates tried.
Rates and the error to reach are chosen on seeds of their own. Last, the gap between the errors on sample and population
is set beside the deviation that the finite-hypothesis bound allows, at 32 bits a parameter.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
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
import scipy.stats
import tqdm
import tyro

from experiments import hypothesis_space
from experiments._shared import command_line
from experiments._shared.run_folder import RunFolder
from mlp_jax import datasets, losses, mlp, plots, training, tree
from mlp_jax.confidence import mean_interval

BATCH, DEVIATION, FAILURE = 32, 0.1, 0.05
PIECES, BITS = 4, 8  # of the trained functions: log₂ of the pieces of the sawtooth; bits of the parity
RATES = (0.003, 0.01, 0.03, 0.1)
# Shares of the variance that may be left over: each function gets the smallest that two depths reach when tuned, with a
# factor of two to spare, since the best of many tries flatters.
GOALS, SPARE = (0.01, 0.05, 0.1, 0.25, 0.5), 2.0
COLOURS, LINES, MARKERS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE), ("-", "--", "-.", ":"), "os^D"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the run; each is written to settings.json."""

    quick: bool = False
    """Depths 1 and 3, three sizes, four seeds, an eighth of the updates: too few for the sawtooth."""
    seed: int = 0
    """Of samples, starts and orders."""
    seeds: int = 8
    """Fresh seeds, a multiple of the four learning rates; a quarter as many others are used to tune."""
    updates: int = 3200
    """Of each run, in batches of 32."""
    examples: int = 512
    """In each sample, drawn with replacement; a power of two, 32 or more."""
    parameters: tuple[int, ...] = (25, 50, 100, 200, 400, 800)
    """Networks have at most so many parameters, and as many as fit."""
    depths: tuple[int, ...] = (1, 2, 3, 4)
    """Hidden layers."""
    pieces: tuple[int, ...] = (1, 2, 4, 6, 8, 10)
    """log₂ of the linear pieces of the sawtooths that are constructed."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A new folder for the results; runs/depth_and_width-DATE-TIME when not given."""
    resume: bool = False
    """Go on with the run that was stopped in the folder of --output."""

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.seeds % len(RATES):
            raise ValueError(f"seeds: got {self.seeds}, expected a multiple of the {len(RATES)} learning rates.")


# Constructions.


def compose(first: mlp.Params, second: mlp.Params) -> mlp.Params:
    """Return the network second ∘ first; the last affine map of one and the first of the other become one.

    Examples
    --------
    >>> tent = hypothesis_space.deep_sawtooth(1)
    >>> mlp.forward(compose(tent, tent), jnp.array([[0.125], [0.25]]), activation=jax.nn.relu).ravel().tolist()
    [0.5, 1.0]
    """
    (*early, inner), (outer, *late) = first, second
    joined = mlp.Layer(inner.weight @ outer.weight, inner.bias @ outer.weight + outer.bias)
    return (*early, joined, *late)


def parity_network(num_bits: int, saw: mlp.Params) -> mlp.Params:
    """Return the network saw(mean of the bits); with the sawtooth of as many pieces as bits, this is their parity.

    Examples
    --------
    >>> network = parity_network(2, hypothesis_space.deep_sawtooth(1))
    >>> mlp.forward(network, datasets.xor().inputs, activation=jax.nn.relu).ravel().tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    return compose((mlp.Layer(jnp.full((num_bits, 1), 1 / num_bits), jnp.zeros(1)),), saw)


def count_pieces(values: np.ndarray) -> int:
    """Return the number of linear pieces of a function given on an even grid that holds its kinks.

    Examples
    --------
    >>> count_pieces(np.array([0.0, 1.0, 2.0, 1.0, 0.0, 0.0]))
    3
    """
    slopes = np.diff(values)
    return 1 + int(np.sum(np.abs(np.diff(slopes)) > 1e-9 * np.max(np.abs(slopes))))


def constructions(settings: Settings) -> pd.DataFrame:
    """Return one row a function and network: its size, its largest error on the data, what the bound asks for."""
    rows = []
    for n in settings.pieces:
        data, half = datasets.sawtooth(n, points_per_piece=2), n // 2
        networks = {"n layers": hypothesis_space.deep_sawtooth(n), "1 layer": hypothesis_space.shallow_sawtooth(n)}
        if half:
            parts = [hypothesis_space.shallow_sawtooth(k) for k in (half, n - half)]
            networks["2 layers"] = compose(*parts)
        rows += [("sawtooth", n, *_check(name, params, data)) for name, params in networks.items()]
    for k in range(1, 5):
        bits = 2**k
        for name, saw in (
            ("log₂ n layers", hypothesis_space.deep_sawtooth),
            ("1 layer", hypothesis_space.shallow_sawtooth),
        ):
            rows.append(("parity", bits, *_check(name, parity_network(bits, saw(k)), datasets.parity(bits))))
    columns = ["function", "n", "network", "layers", "units", "parameters", "pieces", "largest error", "N by bound"]
    return pd.DataFrame(rows, columns=columns)


def _check(name: str, params: mlp.Params, data: datasets.Examples) -> tuple[Any, ...]:
    values = np.asarray(mlp.forward(params, data.inputs, activation=jax.nn.relu))
    units, size = sum(layer.bias.size for layer in params[:-1]), tree.size(params)
    pieces = count_pieces(values[:, 0]) if data.inputs.shape[1] == 1 else np.nan
    error = float(np.max(np.abs(values - np.asarray(data.targets))))
    asked = hypothesis_space.sample_size(hypothesis_space.network_log_size(size), FAILURE, DEVIATION)
    return name, len(params) - 1, units, size, pieces, error, asked


# Trained networks.


class Task(NamedTuple):
    """A function by its whole population: inputs (m, d), targets (m, 1) of mean 0 and variance 1."""

    name: str
    inputs: np.ndarray
    targets: np.ndarray


def tasks() -> list[Task]:
    """Return a sawtooth and one period of a sine, on 512 points; the parity of 8 bits, each string twice."""
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


def num_parameters(num_inputs: int, depth: int, units: int) -> int:
    """Return the number of parameters with `depth` hidden layers of as many units, and one output.

    Examples
    --------
    >>> num_parameters(1, 1, 16), num_parameters(8, 3, 7)
    (49, 183)
    """
    return (depth - 1) * units**2 + (depth + 1 + num_inputs) * units + 1


def width(num_inputs: int, depth: int, most: int) -> int:
    """Return the largest number of units a layer with at most so many parameters; at least 1.

    Examples
    --------
    >>> width(1, 1, 50), width(8, 3, 200)
    (16, 7)
    """
    return next(w for w in itertools.count(1) if num_parameters(num_inputs, depth, w + 1) > most)


def start(generator: np.random.Generator, sizes: tuple[int, ...], padded: tuple[int, ...]) -> mlp.Params:
    """Return He's start values for a network of some sizes, padded with zeros to larger ones.

    A ReLU unit of zero weights stays at zero, since its gradient is zero, and so do the weights of an input that is
    always zero: one compiled program trains networks of every width.
    """

    def he(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> Any:
        return (math.sqrt(2 / shape[0]) * generator.standard_normal(shape)).astype(dtype)

    def biases(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> Any:
        return (0.5 * generator.standard_normal(shape)).astype(dtype)

    params = mlp.init(jax.random.key(0), sizes, weight_init=he, bias_init=biases)
    extra = [(0, new - old) for new, old in zip(padded, sizes, strict=True)]
    pad: Any = np.pad  # arrays of numpy, until lanes are stacked
    return tuple(
        mlp.Layer(pad(layer.weight, extra[k : k + 2]), pad(layer.bias, extra[k + 1])) for k, layer in enumerate(params)
    )


def loss(params: mlp.Params, x: jax.Array, y: jax.Array, weights: jax.Array, key: jax.Array) -> jax.Array:
    """Return half the weighted mean of the squared error."""
    return losses.mean(losses.squared_error(mlp.forward(params, x, activation=jax.nn.relu), y), weights)


class Ends(NamedTuple):
    """What is left of the variance, and the share of examples off by more than half a standard deviation."""

    error: jax.Array
    wrong_on_sample: jax.Array
    wrong: jax.Array
    diverged: jax.Array


# Level 1 compiles in two thirds of the time, and its code is as fast here.
@functools.partial(jax.jit, static_argnames="updates", compiler_options={"xla_backend_optimization_level": 1})
def train(
    keys: jax.Array, starts: mlp.Params, rates: jax.Array, samples: tuple, population: tuple, updates: int
) -> Ends:
    """Train lanes of (networks, seeds) by Adam with cosine decay, each on its own sample; keys are by seed."""

    def off(params: mlp.Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.abs(mlp.forward(params, x, activation=jax.nn.relu) - y)

    def lane(key: jax.Array, params: mlp.Params, rate: jax.Array, sample: tuple) -> Ends:
        optimizer = optax.adam(optax.cosine_decay_schedule(rate, updates))
        epochs = updates * BATCH // len(sample[0])
        params, history = training.train(
            key, loss, params, sample, optimizer=optimizer, batch_size=BATCH, epochs=epochs
        )
        on_sample, everywhere = off(params, *sample), off(params, *population)
        # Written so that a distance which is not a number counts as wrong.
        wrong_on_sample, wrong = (1 - jnp.mean(distance <= 0.5) for distance in (on_sample, everywhere))
        return Ends(jnp.mean(everywhere**2), wrong_on_sample, wrong, history.diverged_at > 0)

    return jax.vmap(jax.vmap(lane), (None, 0, 0, 0))(keys, starts, rates, samples)


def samples(task: Task, seeds: list[int], sizes: list[int], settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Return samples (sizes, seeds, examples, …), each of its size, repeated to the full number of examples."""
    most = settings.examples
    drawn = np.stack([np.random.default_rng((settings.seed, s)).integers(len(task.inputs), size=most) for s in seeds])
    rows = np.stack([np.tile(drawn[:, :size], (1, most // size)) for size in sizes])
    return _eight_columns(task.inputs)[rows], task.targets[rows]


def _eight_columns(inputs: np.ndarray) -> np.ndarray:
    return np.pad(inputs, [(0, 0), (0, BITS - inputs.shape[1])])


def launch(
    task: Task,
    depth: int,
    networks: list[int],
    rates: np.ndarray,
    seeds: list[int],
    sizes: list[int],
    settings: Settings,
) -> Ends:
    """Train (networks, seeds): network k has at most networks[k] parameters and a sample of sizes[k] examples."""
    num_inputs = task.inputs.shape[1]
    padded = (BITS, *[width(1, depth, max(settings.parameters))] * depth, 1)
    starts = []
    for units in (width(num_inputs, depth, most) for most in networks):
        shape = (num_inputs, *[units] * depth, 1)
        lanes = [start(np.random.default_rng((settings.seed, s, *shape)), shape, padded) for s in seeds]
        starts.append(jax.tree.map(lambda *leaves: np.stack(leaves), *lanes))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
    keys = jax.vmap(jax.random.key)(np.array(seeds, np.uint32) + 100_000 * settings.seed)
    population = (_eight_columns(task.inputs), task.targets)
    data = samples(task, seeds, sizes, settings)
    return train(keys, stacked, rates.astype(np.float32), data, population, settings.updates)


def tune(task: Task, settings: Settings) -> tuple[dict[int, np.ndarray], float]:
    """Return the best rate of each network, by depth, and the smallest goal that two depths reach, on tuning seeds."""
    others = [10_000 + s for s in range(settings.seeds // len(RATES)) for _ in RATES]
    rates = np.tile(RATES, (len(settings.parameters), settings.seeds // len(RATES)))
    full = [settings.examples] * len(settings.parameters)
    ends = {d: launch(task, d, list(settings.parameters), rates, others, full, settings) for d in settings.depths}
    chosen, lowest = {}, []
    for depth, end in ends.items():
        errors = _finite(end.error).reshape(len(full), -1, len(RATES)).mean(axis=1)
        chosen[depth] = np.array(RATES)[errors.argmin(axis=1)]
        lowest.append(errors.min())
    second = sorted(lowest)[min(1, len(lowest) - 1)]
    return chosen, next((goal for goal in GOALS if SPARE * second <= goal), GOALS[-1])


def _finite(errors: Any) -> np.ndarray:
    """Return errors of at most 10, that of a diverged run among them, so that means exist."""
    return np.nan_to_num(np.asarray(errors, float), nan=10.0, posinf=10.0).clip(max=10.0)


def measure(task: Task, settings: Settings) -> tuple[pd.DataFrame, float]:
    """Tune, then train on fresh seeds; return one row a depth, size and seed, and the goal of the task."""
    chosen, goal = tune(task, settings)
    seeds, ladder, num_inputs = list(range(settings.seeds)), list(settings.parameters), task.inputs.shape[1]
    full, ends = [settings.examples] * len(ladder), {}
    for depth in settings.depths:
        rates = np.repeat(chosen[depth][:, None], settings.seeds, axis=1)
        ends[depth] = launch(task, depth, ladder, rates, seeds, full, settings)
    tables = []
    for depth, end in ends.items():
        rows = pd.DataFrame({name: np.ravel(values) for name, values in end._asdict().items()})
        sizes = [num_parameters(num_inputs, depth, width(num_inputs, depth, most)) for most in ladder]
        for name, values in (("at most", ladder), ("parameters", sizes), ("rate", chosen[depth])):
            rows[name] = np.repeat(values, settings.seeds)
        rows = rows.assign(
            task=task.name, depth=depth, seed=np.tile(seeds, len(ladder)), error=_finite(end.error).ravel()
        )
        tables.append(rows)
    return pd.concat(tables, ignore_index=True), goal


def smallest(errors: np.ndarray, goal: float) -> np.ndarray:
    """Return the first place along the last axis with an error of at most `goal`; infinite where there is none.

    Examples
    --------
    >>> smallest(np.array([[0.5, 0.05, 0.2], [0.5, 0.4, 0.3]]), 0.1).tolist()
    [1.0, inf]
    """
    reached = errors <= goal
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1), np.inf)


def sign_test(shallow: np.ndarray, deep: np.ndarray) -> tuple[int, int, float]:
    """Return in how many pairs deep and shallow needed less, and the two-sided p of the sign test; ties are left out.

    Infinite is more than any number, and two infinite ones are a tie: a pair can be judged though one is censored.

    Examples
    --------
    >>> sign_test(np.array([2.0, np.inf, np.inf, 1.0]), np.array([1.0, 2.0, np.inf, 0.0]))
    (3, 0, 0.25)
    """
    fewer, more = int(np.sum(deep < shallow)), int(np.sum(deep > shallow))
    return fewer, more, float(scipy.stats.binomtest(fewer, fewer + more).pvalue) if fewer + more else 1.0


def needed(rows: pd.DataFrame, goals: dict[str, float], settings: Settings) -> pd.DataFrame:
    """Return one row a task and depth: the smallest network that reaches the goal, and how seeds pair with depth 1.

    A network reaches it when its median error over seeds does. Ratio: error over that of the first depth at the largest
    size, geometric mean of the paired seeds with its 95 % interval.
    """
    table = []
    for task, part in rows.groupby("task", sort=False):
        first = _grid(part[part.depth == settings.depths[0]])
        for depth, runs in part.groupby("depth"):
            pairs = sign_test(smallest(first, goals[str(task)]), smallest(_grid(runs), goals[str(task)]))
            verdict = "" if depth == settings.depths[0] else _word(*pairs, len(settings.depths) - 1)
            middle, half = mean_interval(_log(_grid(runs)[:, -1]) - _log(first[:, -1]))
            row = {"task": task, "goal": goals[str(task)], "depth": depth, **_reached(runs, goals[str(task)])}
            row |= dict(zip(("fewer", "more", "p"), pairs, strict=True)) | {"verdict": verdict}
            row |= {
                "ratio": math.exp(middle),
                "ratio from": math.exp(middle - half),
                "ratio to": math.exp(middle + half),
            }
            table.append(row | {"diverged": int(runs.diverged.sum())})
    return pd.DataFrame(table)


def _reached(runs: pd.DataFrame, goal: float) -> dict[str, float]:
    """Return the first size whose median reaches the goal, and how many seeds do there (at the largest if none)."""
    grid, sizes = _grid(runs), runs["parameters"].unique()
    found = smallest(np.median(grid, axis=0), goal)
    column = int(found) if np.isfinite(found) else len(sizes) - 1
    there = int(np.sum(grid[:, column] <= goal))
    low, high = hypothesis_space.interval(there, len(grid))
    return {
        "parameters": float(sizes[column]) if np.isfinite(found) else np.inf,
        "seeds there": there,
        "share from": low,
        "to": high,
        "censored": int(np.sum(np.isinf(smallest(grid, goal)))),
        "rate at edge": int(runs[runs.rate.isin((RATES[0], RATES[-1]))].parameters.nunique()),
    }


def _grid(runs: pd.DataFrame) -> np.ndarray:
    """Return the errors of one task and depth as (seeds, sizes)."""
    return runs.pivot(index="seed", columns="at most", values="error").to_numpy()


def _log(errors: Any) -> np.ndarray:
    return np.log(np.maximum(np.asarray(errors, float), 1e-12))


def _word(fewer: int, more: int, p: float, comparisons: int) -> str:
    """Return what the sign test says at 5 % in all, divided by the number of comparisons (Bonferroni)."""
    return "no difference seen" if p >= 0.05 / comparisons else "fewer" if fewer > more else "more"


# The bound.


def allowed_deviation(log_size: float, num_samples: int, failure: float = FAILURE) -> float:
    """Return the ε at which |H| · 2 exp(−2 N ε²) is δ; above 1 the bound says nothing.

    Examples
    --------
    >>> epsilon = allowed_deviation(math.log(1000), 2000)
    >>> print(f"{hypothesis_space.bad_sample_bound(math.log(1000), 2000, epsilon):.3f}")
    0.050
    """
    return math.sqrt((log_size + math.log(2 / failure)) / (2 * num_samples))


def gaps(task: Task, depth: int, most: int, rate: float, settings: Settings) -> pd.DataFrame:
    """Return one row a sample size: the gap between the shares of wrong examples, and what the bound allows."""
    rungs = len(settings.parameters)  # as many sizes as networks, so that nothing is compiled
    sizes = [settings.examples >> k for k in reversed(range(rungs))]
    seeds = list(range(settings.seeds))
    ends = launch(task, depth, [most] * rungs, np.full((rungs, len(seeds)), rate), seeds, sizes, settings)
    num_inputs = task.inputs.shape[1]
    parameters = num_parameters(num_inputs, depth, width(num_inputs, depth, most))
    gap = np.abs(np.asarray(ends.wrong, float) - np.asarray(ends.wrong_on_sample))
    log_size = hypothesis_space.network_log_size(parameters)
    mean, half = mean_interval(gap, axis=1)
    return pd.DataFrame(
        {
            "task": task.name,
            "depth": depth,
            "parameters": parameters,
            "N": sizes,
            "wrong on sample": np.mean(ends.wrong_on_sample, axis=1),
            "wrong": np.mean(ends.wrong, axis=1),
            "gap": mean,
            "gap ±": half,
            "largest gap": gap.max(axis=1),
            "bound's ε": [allowed_deviation(log_size, n) for n in sizes],
            "N by bound": hypothesis_space.sample_size(log_size, FAILURE, DEVIATION),
        }
    )


def looseness(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a task: the N from which on no seed's gap is above ε = .1, the N of the bound, and their ratio."""
    rows = []
    for task, part in table.groupby("task", sort=False):
        above = np.flatnonzero(part["largest gap"].to_numpy() > DEVIATION)
        first = above[-1] + 1 if len(above) else 0
        measured = float(part.N.iloc[first]) if first < len(part) else np.inf
        bound, parameters = int(part["N by bound"].iloc[0]), int(part.parameters.iloc[0])
        rows.append((task, parameters, part["bound's ε"].iloc[-1], part["largest gap"].iloc[-1], bound, measured))
    columns = ["task", "parameters", "bound's ε", "largest gap", "N by bound", "N measured"]
    return pd.DataFrame(rows, columns=columns)


# The report.


def draw(
    built: pd.DataFrame, rows: pd.DataFrame, goals: dict[str, float], gap: pd.DataFrame
) -> matplotlib.figure.Figure:
    """Return the figure: parameters of the constructions, error against parameters for each task, and the gaps."""
    figure = matplotlib.figure.Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    for k, (name, part) in enumerate(built[built.function == "sawtooth"].groupby("network", sort=False)):
        axes[0].loglog(2.0**part.n, part.parameters, label=name, **_style(k))
    axes[0].set(xlabel="linear pieces of the sawtooth", ylabel="parameters", title="constructed, exact")
    axes[0].set_xscale("log", base=2)
    for panel, (task, part) in zip(axes[1:], rows.groupby("task", sort=False), strict=False):
        _errors(panel, part)
        panel.axhline(goals[str(task)], color="black", lw=0.8)
        panel.set(title=f"{task}, trained: median and range", xlabel="parameters (line: the error to reach)")
    last = axes[1 + rows.task.nunique()]
    for k, (task, part) in enumerate(gap.groupby("task", sort=False)):
        last.errorbar(part.N, part.gap, part["gap ±"], label=f"{task}: measured, 95 %", **_style(k))
    part = gap[gap.parameters == gap.parameters.min()].drop_duplicates("N")
    last.plot(part.N, part["bound's ε"], color="black", label=f"bound, {part.parameters.iloc[0]} parameters")
    last.set(
        xlabel="N, examples in the sample",
        ylabel="gap, share of examples",
        title="generalisation gap (above 1: empty)",
    )
    last.set_xscale("log", base=2)
    last.set_yscale("symlog", linthresh=0.01)
    last.set_ylim(0, 100)
    last.axhline(1, color=plots.GREY, lw=0.8)
    for panel in axes[2 + rows.task.nunique() :]:
        panel.remove()
    axes[0].legend(fontsize="small", framealpha=0.9)
    for panel in axes[1 : 1 + rows.task.nunique()]:
        panel.legend(fontsize="small", framealpha=0.9, loc="lower left")
    # Curves fill that panel; the place beside it is empty.
    last.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1)).set_in_layout(False)
    return figure


def _style(k: int) -> dict[str, Any]:
    return {"color": COLOURS[k], "ls": LINES[k], "marker": MARKERS[k], "ms": 4}


def _errors(panel: matplotlib.axes.Axes, part: pd.DataFrame) -> None:
    for k, (depth, runs) in enumerate(part.groupby("depth")):
        middle = runs.groupby("parameters").error.quantile([0.0, 0.5, 1.0]).unstack()
        panel.fill_between(middle.index, middle[0.0], middle[1.0], color=COLOURS[k], alpha=0.12, lw=0)
        panel.loglog(middle.index, middle[0.5], label=f"{depth} hidden layer{'s' * (depth > 1)}", **_style(k))
    ladder = sorted(part["at most"].unique())
    panel.set_xticks(ladder, [str(size) for size in ladder])
    panel.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    panel.set_ylim(top=2, bottom=min(0.1, panel.get_ylim()[0]))
    if panel.get_ylim()[0] == 0.1:  # hardly more than a decade: plain numbers
        panel.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
        panel.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    panel.set_ylabel("share of variance left")


def conclusion(built: pd.DataFrame, need: pd.DataFrame, loose: pd.DataFrame, settings: Settings) -> str:
    """Return what was found, in words made from the numbers."""
    return f"{_built_words(built)} {_trained_words(need, settings)} {_bound_words(loose, settings)}"


def _built_words(built: pd.DataFrame) -> str:
    parts = []
    for function, part in built.groupby("function", sort=False):
        last = part[part.n == part.n.max()]
        counts = ", ".join(f"{row.parameters} in {row.layers}" for row in last.itertuples())
        parts.append(f"{function} with n = {part.n.max()}, {counts}")
    return (
        f"Found, constructed (largest error {built['largest error'].max():.1g}), parameters in hidden layers:"
        f" {'; '.join(parts)}. The sawtooth of 2ⁿ pieces takes 3 · 2ⁿ + 1 in one layer and 6 n + 1 in n: exponential."
        " The parity of n bits takes (n + 1)² in one and 2 n + 6 log₂ n − 1 in log₂ n, by the sum of the bits: no"
        " exponential gap; that is a theorem of other circuits (AND and OR gates of bounded depth)."
    )


def _trained_words(need: pd.DataFrame, settings: Settings) -> str:
    first, parts = settings.depths[0], []
    for task, part in need.groupby("task", sort=False):
        counts = ", ".join(f"{_count(row.parameters, settings)} at {row.depth}" for row in part.itertuples())
        parts.append(f"{task} to {part.goal.iloc[0]:g}, {counts}")
    deep = need[need.depth != first]
    fewer, more = deep[deep.verdict == "fewer"], deep[deep.verdict == "more"]
    better, worse = deep[deep["ratio to"] < 1], deep[deep["ratio from"] > 1]
    seeds = [f"{word} for {_places(part, word)}" for word, part in (("fewer", fewer), ("more", more)) if not part.empty]
    errors_ = [f"{word} for {_ratios(part)}" for word, part in (("lower", better), ("higher", worse)) if not part.empty]
    apart = len(fewer) > 0 and len(more) + len(worse) > 0
    exact = tree.size(hypothesis_space.shallow_sawtooth(PIECES))
    shallow = need[(need.task == "sawtooth") & (need.depth == 1)].parameters.max()
    otherwise = ", else no difference seen"
    return (
        f"Trained, parameters that leave at most a share of the variance, by depth: {'; '.join(parts)}. Seed by seed,"
        f" against depth {first}: {', '.join(seeds) + otherwise if seeds else 'no difference seen'}."
        f" Ratio of the errors with {max(settings.parameters)} parameters or just below, to depth {first}:"
        f" {', '.join(errors_) + otherwise if errors_ else 'no difference seen'}."
        + " The notes' 'fewer parameters when deep' holds for particular functions, not for every function."
        * apart
        + f" One layer with {exact} parameters is that sawtooth exactly, and trained it took"
        f" {_count(shallow, settings)}: there the search fails, not the space." * bool(shallow > exact)
    )


def _places(part: pd.DataFrame, word: str) -> str:
    return ", ".join(
        f"{row['task']} at {row['depth']} ({row[word]} seeds to {row['fewer'] + row['more'] - row[word]})"
        for _, row in part.iterrows()
    )


def _ratios(part: pd.DataFrame) -> str:
    return ", ".join(
        f"{r['task']} at {r['depth']} ({r['ratio']:.2g} [{r['ratio from']:.2g}, {r['ratio to']:.2g}])"
        for _, r in part.iterrows()
    )


def _count(parameters: float, settings: Settings) -> str:
    return f"{parameters:.0f}" if np.isfinite(parameters) else f"more than {max(settings.parameters)}"


def _bound_words(loose: pd.DataFrame, settings: Settings) -> str:
    parts = [
        f"{row['N measured']:.0f} for {row.task} ({row['N by bound'] / row['N measured']:.0f} times fewer)"
        if np.isfinite(row["N measured"])
        else f"more than {settings.examples} for {row.task}"
        for _, row in loose.iterrows()
    ]
    asked = " to ".join(str(n) for n in sorted({loose["N by bound"].min(), loose["N by bound"].max()}))
    allowed, seen = loose["bound's ε"].min(), loose["largest gap"].max()
    return (
        f"Bound: at {loose.parameters.min()} to {loose.parameters.max()} parameters of 32 bits it asks for {asked}"
        f" examples for a gap of at most {DEVIATION:g}; no gap of {settings.seeds} samples was larger from these sizes"
        f" on: {', '.join(parts)}. With {settings.examples} examples it allows a gap of {allowed:.1f}"
        f"{', which says nothing,' if allowed >= 1 else ''} where the largest was {seen:.2g}. It covers every function"
        f" of the space, the simulation the one that was learnt; {settings.seeds} samples show P(bad) ≤"
        f" {hypothesis_space.interval(0, settings.seeds)[1]:.2f} at best."
    )


def _quick(settings: Settings) -> Settings:
    settings = dataclasses.replace(settings, seeds=len(RATES), updates=settings.updates // 8, depths=(1, 3))
    return dataclasses.replace(settings, parameters=settings.parameters[1::2], pieces=settings.pieces[:4])


def run(settings: Settings) -> pd.DataFrame:
    """Construct, train, measure, print and save; return one row a task, depth, size and seed."""
    folder = RunFolder("depth_and_width", settings, settings.output, resume=settings.resume)
    settings = _quick(settings) if settings.quick else settings
    with jax.enable_x64(True):
        built = constructions(settings)
    parts, goals, gap = [], {}, []
    for task in tqdm.tqdm(tasks(), unit="function", leave=False, disable=None):
        rows, goals[task.name] = folder.kept(f"{task.name}", functools.partial(measure, task, settings))
        parts.append(rows)
        deepest, most = settings.depths[-1], max(settings.parameters)
        rate = rows[(rows.depth == deepest) & (rows["at most"] == most)].rate.iloc[0]
        one = functools.partial(gaps, task, deepest, most, rate, settings)
        gap.append(folder.kept(f"gaps_{task.name}", one))
    rows, gap_rows = pd.concat(parts, ignore_index=True), pd.concat(gap, ignore_index=True)
    need, loose = needed(rows, goals, settings), looseness(gap_rows)
    tables = {"constructions": built, "runs": rows, "errors": errors(rows), "needed": need, "gaps": gap_rows}
    for name, table in tables.items():
        folder.table(name, table)
    folder.figure("depth_and_width", draw(built, rows, goals, gap_rows))
    _report(built, tables["errors"], need, gap_rows, settings)
    folder.conclude(conclusion(built, need, loose, settings))
    return rows


def errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row a task, depth and size: the geometric mean of the error over seeds, with its 95 % interval."""
    table = []
    for (task, depth, parameters), runs in rows.groupby(["task", "depth", "parameters"], sort=False):
        middle, half = mean_interval(_log(runs.error))
        low, mean, high = (float(np.exp(v)) for v in (middle - half, middle, middle + half))
        table.append((task, depth, runs["at most"].iloc[0], parameters, runs.rate.iloc[0], mean, low, high))
    columns = ["task", "depth", "at most", "parameters", "rate", "error", "from", "to"]
    return pd.DataFrame(table, columns=columns)


def _report(
    built: pd.DataFrame, means: pd.DataFrame, need: pd.DataFrame, gap: pd.DataFrame, settings: Settings
) -> None:
    shown = means.assign(cell=[f"{r.error:.2g} [{r._7:.2g}, {r.to:.2g}]" for r in means.itertuples()])
    grid = shown.pivot(index=["task", "at most"], columns="depth", values="cell").reset_index()
    titles = (
        "Constructed, without training:",
        f"Trained: share of the variance left, geometric mean and 95 % of {settings.seeds} seeds, by depth:",
        "The smallest network whose median reaches the goal (inf: none), and the seeds paired with depth"
        f" {settings.depths[0]}:",
        f"Examples off by more than ½ standard deviation: gap, and bound (δ = {FAILURE:g}, 32 bits a parameter):",
    )
    for title, table in zip(titles, (built, grid, need, gap), strict=True):
        print(f"{title}\n{table.to_string(index=False, float_format='{:.3g}'.format)}\n")


def main() -> None:
    """Read the command line and run."""
    command_line.start("depth_and_width", run, Settings, __doc__)


if __name__ == "__main__":
    main()
