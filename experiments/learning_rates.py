"""Which learning rates are too small, right and too large, where does theory draw the line, and do schedules help?

First, full-batch gradient descent on 150 digits at multiples of 2/λ_max, where λ_max is the largest eigenvalue of the
Hessian at each start: on a quadratic loss a larger rate diverges, and a smaller one does not. That of a linear model
with squared error is quadratic; those of networks are not. A run has diverged when its last loss is not a number or is
above its first one.

Then five schedules (constant, step, linear, exponential, cosine), each with and without warm-up, for minibatches and an
equal number of updates. The peak of each is chosen on validation examples and tuning seeds, from the same rates; the
figures are of fresh seeds, paired by seed. Here a run has diverged when its training loss ends above that of guessing,
ln 10.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import matplotlib.ticker
import numpy as np
import optax
import pandas as pd
import tqdm
import tyro

from experiments._shared import all_devices, command_line
from experiments._shared.run_folder import RunFolder
from mlp_jax import curvature, datasets, losses, mlp, plots, schedules, sweep, training
from mlp_jax.confidence import change, mean_interval, show

HIDDEN, BATCH_SIZE, EXAMPLES = 32, 32, 150
MULTIPLES = (
    0.03,
    0.06,
    0.12,
    0.25,
    0.5,
    0.8,
    0.95,
    1.05,
    1.25,
    1.5,
    1.75,
    2.0,
    2.5,
    3.0,
    3.5,
    4.0,
    5.0,
    6.0,
    8.0,
    16.0,
    64.0,
)
UNITS = ("in units of 2/λ_max", "from", "to")
PEAKS = tuple(np.geomspace(0.125, 4.0, 9).round(3).tolist())
DECAYS = ("constant", "step", "linear", "exponential", "cosine")
CONTENDERS = tuple((decay, warm) for warm in (False, True) for decay in DECAYS)
COLOURS = dict(zip(DECAYS, ("black", plots.ORANGE, plots.GREEN, plots.YELLOW, plots.BLUE), strict=True))
MARKERS = dict(zip(DECAYS, "osD^v", strict=True))
PROBLEM_STYLES = ((plots.GREEN, "D", ":"), (plots.ORANGE, "s", "--"), (plots.BLUE, "o", "-"))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the run; each is written to settings.json."""

    quick: bool = False
    """Six fresh seeds, two to tune on, a third of the steps and epochs, and two of the three problems."""
    seed: int = 0
    """Of starts and orders."""
    seeds: int = 40
    """Fresh seeds of the schedules; gradient descent at multiples of 2/λ_max has a quarter of them."""
    tuning_seeds: int = 8
    """Seeds on which rates are chosen."""
    steps: int = 150
    """Steps of full-batch gradient descent."""
    epochs: int = 12
    """Epochs of every schedule."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A new folder for the results; runs/learning_rates-DATE-TIME when not given."""
    resume: bool = False
    """Go on with the run that was stopped in the folder of --output."""


class Problem(NamedTuple):
    """A full-batch loss `(params, inputs, targets) -> scalar`, and the layer sizes of its network."""

    fun: Callable[..., jax.Array]
    sizes: tuple[int, ...]


def squared(params: mlp.Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return half the mean squared error against one-hot targets."""
    outputs = mlp.forward(params, inputs)
    return losses.mean(losses.squared_error(outputs, jax.nn.one_hot(targets, 10, dtype=outputs.dtype)))


def entropy(params: mlp.Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    return losses.mean(losses.cross_entropy(mlp.forward(params, inputs), targets))


def batch_entropy(params: mlp.Params, inputs: Any, targets: Any, weights: Any, key: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of a batch."""
    return losses.mean(losses.cross_entropy(mlp.forward(params, inputs), targets), weights)


PROBLEMS = {
    "linear, squared error": Problem(squared, (64, 10)),
    "tanh, squared error": Problem(squared, (64, HIDDEN, 10)),
    "tanh, cross-entropy": Problem(entropy, (64, HIDDEN, 10)),
}


# Full-batch gradient descent.


def product(
    fun: Callable[..., jax.Array], params: mlp.Params, inputs: Any, targets: Any, vector: mlp.Params
) -> mlp.Params:
    """Return the Hessian times a vector."""
    return curvature.hessian(fun, params, (inputs, targets))(vector)


def largest_eigenvalue(problem: Problem, params: mlp.Params, data: datasets.Examples, key: jax.Array) -> float:
    """Return the largest eigenvalue of the Hessian, to a thousandth of its size."""
    matvec = jax.tree_util.Partial(PRODUCTS[problem.fun], params, *data)
    pairs = curvature.eigenpairs(matvec, params, key, largest=1, tolerance=1e-3, dense_limit=0, basis_size=40)
    if not np.all(pairs.converged):
        raise RuntimeError(f"the top eigenvalue did not converge: residual {float(pairs.residuals[-1]):.1e}.")
    return float(pairs.values[-1])


PRODUCTS = {fun: functools.partial(product, fun) for fun in (squared, entropy)}


# At this level the program compiles in less time, and runs as fast.
@functools.partial(jax.jit, static_argnames=("fun", "steps"), compiler_options={"xla_backend_optimization_level": 1})
def descend(
    fun: Callable[..., jax.Array], starts: mlp.Params, rates: jax.Array, data: datasets.Examples, steps: int
) -> jax.Array:
    """Return the losses (rates, starts, steps + 1) of gradient descent at `rates` (rates, starts)."""

    def one(params: mlp.Params, rate: jax.Array) -> jax.Array:
        def step(params: mlp.Params, _: None) -> tuple[mlp.Params, jax.Array]:
            value, gradient = jax.value_and_grad(fun)(params, *data)
            return jax.tree.map(lambda p, g: p - rate * g, params, gradient), value

        return jax.lax.scan(step, params, None, length=steps + 1)[1]

    return jax.vmap(jax.vmap(one), in_axes=(None, 0))(starts, rates)


def has_diverged(values: np.ndarray) -> np.ndarray:
    """Return whether the last loss (last axis) is not a number, or above the first.

    Examples
    --------
    >>> has_diverged(np.array([[3.0, 9.0, 1.0], [3.0, 1.0, 4.0], [3.0, np.inf, np.nan]])).tolist()
    [False, True, True]
    """
    return ~(values[..., -1] <= values[..., 0])


def first_diverging(diverged: np.ndarray, multiples: tuple[float, ...] = MULTIPLES) -> np.ndarray:
    """Return for each run (columns) the smallest multiple (rows) at which it diverged; infinite for none.

    Examples
    --------
    >>> first_diverging(np.array([[False, False], [True, False], [True, False]]), (0.5, 1.0, 2.0)).tolist()
    [1.0, inf]
    """
    return np.where(diverged.any(axis=0), np.array(multiples)[np.argmax(diverged, axis=0)], np.inf)


# A program of its own at the lowest level: random numbers under vmap are slow to compile.
@functools.partial(jax.jit, static_argnames="sizes", compiler_options={"xla_backend_optimization_level": 0})
def draw_starts(keys: jax.Array, sizes: tuple[int, ...]) -> mlp.Params:
    """Return start values, with a leading axis of keys."""
    return jax.vmap(lambda key: mlp.init(key, sizes))(keys)


def problems_of(settings: Settings) -> dict[str, Problem]:
    """Return the problems: all, or the first and the last when quick."""
    return {name: PROBLEMS[name] for name in list(PROBLEMS)[:: 2 if settings.quick else 1]}


def at_multiples(
    settings: Settings, data: datasets.Examples, bar: tqdm.tqdm
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return by problem the losses (multiples, seeds, steps + 1), tuning seeds first, and 2/λ_max (seeds,)."""
    count = settings.tuning_seeds + max(2, settings.seeds // 4)
    keys = jax.random.split(jax.random.key(settings.seed), count)
    traces, thresholds = {}, {}
    for name, problem in problems_of(settings).items():
        starts = draw_starts(keys, problem.sizes)
        each = [jax.tree.map(lambda a, k=k: a[k], starts) for k in range(count)]
        thresholds[name] = np.array([2 / largest_eigenvalue(problem, p, data, keys[0]) for p in each])
        rates = jnp.asarray(np.outer(MULTIPLES, thresholds[name]), jnp.float32)
        traces[name] = np.asarray(descend(problem.fun, starts, rates, data, settings.steps))
        bar.update()
    return traces, thresholds


def edges(traces: dict[str, np.ndarray], thresholds: dict[str, np.ndarray], tuning: int) -> pd.DataFrame:
    """Return one row a problem: the threshold of theory, and where fresh seeds first diverged, with 95 % intervals."""
    rows = []
    for name, values in traces.items():
        theory = thresholds[name][tuning:]
        first = first_diverging(has_diverged(values[:, tuning:]))
        seen = np.isfinite(first)
        row: dict[str, Any] = {
            "problem": name,
            "2/λ_max": _shown(theory),
            "diverged at some rate": f"{seen.sum()}/{len(seen)}",
        }
        below = np.array([has_diverged(values[k, tuning:]).sum() for k, m in enumerate(MULTIPLES) if m < 1]).sum()
        row["diverged below 2/λ_max"] = int(below)
        # A ratio: its mean and interval are those of its logarithm.
        mean, half = map(float, mean_interval(np.log(first[seen]))) if seen.any() else (np.nan, np.nan)
        row["first diverging η"] = _shown((first * theory)[seen]) if seen.any() else "none"
        row |= dict(zip(UNITS, np.exp([mean, mean - half, mean + half]), strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def _shown(values: np.ndarray) -> str:
    # The Hessian of the linear model is the same at every start: equal numbers have no interval.
    return f"{values[0]:.3g}" if np.ptp(values) <= 1e-9 * abs(values[0]) else show(values)


def three_rates(values: np.ndarray, thresholds: np.ndarray, tuning: int) -> pd.DataFrame:
    """Return one row for a rate that is too small, right, and too large, chosen on tuning seeds, of fresh seeds.

    Right: the lowest mean last loss. Too small: the smallest tried. Too large: the smallest above the right one at
    which at least half of the runs diverged; the largest tried if there is none.
    """
    last = np.where(has_diverged(values), np.inf, values[..., -1])
    right = int(np.argmin(last[:, :tuning].mean(axis=1)))
    half = np.flatnonzero(has_diverged(values[:, :tuning]).mean(axis=1) >= 0.5)
    larger = half[half > right]
    rows = []
    for name, k in (("too small", 0), ("right", right), ("too large", int(larger[0]) if len(larger) else -1)):
        ends, fell = values[k, tuning:, -1], ~has_diverged(values[k, tuning:])
        row = {
            "rate": name,
            "row": k,
            "multiple of 2/λ_max": MULTIPLES[k],
            "η": show(MULTIPLES[k] * thresholds[tuning:]),
        }
        row |= {"at_edge": name == "right" and k in (0, len(MULTIPLES) - 1), "diverged": f"{(~fell).sum()}/{len(fell)}"}
        row["last loss of the others"] = show(ends[fell]) if fell.any() else "none"
        rows.append(row)
    return pd.DataFrame(rows)


# Schedules.


def shapes(updates: int) -> list[schedules.Schedule]:
    """Return the schedules of CONTENDERS with a peak of 1, over so many updates; warm-up takes a tenth of them.

    Step: divided by 10 after each third. Exponential: down to a hundredth. Linear and cosine: down to 0.

    Examples
    --------
    >>> [round(float(shape(50)), 3) for shape in shapes(100)]
    [1.0, 0.1, 0.5, 0.1, 0.5, 1.0, 0.1, 0.556, 0.129, 0.587]
    """
    found = []
    for _, warm in CONTENDERS[:: len(DECAYS)]:
        rise = max(1, updates // 10) if warm else 0
        rest = updates - rise
        decays = (
            optax.constant_schedule(1.0),
            optax.exponential_decay(1.0, -(-rest // 3), 0.1, staircase=True),
            optax.linear_schedule(1.0, 0.0, rest),
            optax.exponential_decay(1.0, rest, 0.01),
            optax.cosine_decay_schedule(1.0, rest),
        )
        # From 1/rise and not from 0, so that the first update is one.
        found += [schedules.warmup(decay, rise, start=1 / rise) if warm else decay for decay in decays]
    return found


def scheduled_sgd(updates: int) -> Callable[..., optax.GradientTransformation]:
    """Return (peak, number of the contender) -> SGD, both traced, so that all contenders are one program."""
    steps = jnp.arange(updates)
    table = np.stack([np.broadcast_to(shape(steps), updates).astype(np.float32) for shape in shapes(updates)])

    def optimizer(peak: jax.Array, contender: jax.Array) -> optax.GradientTransformation:
        row = jnp.asarray(table)[contender.astype(jnp.int32)]
        return optax.sgd(lambda step: peak * row[step])

    return optimizer


def scores(validation: datasets.Examples, test: datasets.Examples, state: training.State) -> dict[str, jax.Array]:
    """Return what every run keeps after each epoch."""
    logits = mlp.forward(state.params, test.inputs)
    return {
        "validation_loss": entropy(state.params, *validation),
        "test_loss": losses.mean(losses.cross_entropy(logits, test.targets)),
        "test_accuracy": 100 * losses.mean(losses.accuracy(logits, test.targets)),
    }


def start(key: jax.Array) -> mlp.Params:
    """Return start values of the network of the schedules."""
    return mlp.init(key, (64, HIDDEN, 10))


def compare_schedules(
    settings: Settings, folder: RunFolder, bar: tqdm.tqdm
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Return one row a try, one row a contender and fresh seed, and training losses (contenders, seeds, epochs)."""
    digits = datasets.load("digits")
    kept, held = datasets.stratified_split(np.asarray(digits.train.targets), 300)
    train, validation = (datasets.Examples(*(a[rows] for a in digits.train)) for rows in (kept, held))
    optimizer = scheduled_sgd(settings.epochs * -(-len(kept) // BATCH_SIZE))
    run_all = functools.partial(
        sweep.run,
        jax.random.key(settings.seed),
        batch_entropy,
        start,
        train,
        batch_sizes=(BATCH_SIZE,),
        epochs=settings.epochs,
        optimizer=optimizer,
        programs="per batch size",
        record=jax.tree_util.Partial(scores, validation, digits.test),
        mesh=all_devices.mesh(),
    )
    everyone = {"contender": range(len(CONTENDERS))}
    search = folder.kept(
        "search", lambda: run_all(learning_rates=PEAKS, seeds=settings.tuning_seeds, settings=everyone)
    )
    bar.update()
    tuning = tries(_lost(search)[0], search.record["validation_loss"][0, ..., -1])
    frames, curves = [], []
    fresh = range(settings.tuning_seeds, settings.tuning_seeds + settings.seeds)
    for k, (decay, warm) in enumerate(CONTENDERS):
        peak = tuning.peak[tuning.chosen & (tuning.decay == decay) & (tuning.warmup == warm)].item()
        one = functools.partial(run_all, learning_rates=(peak,), seeds=fresh, settings={"contender": (k,)})
        ends = folder.kept(f"{decay}_warm_{warm}", one)
        last = {name: values[0, 0, 0, :, -1].astype(float) for name, values in ends.record.items()}
        frame = pd.DataFrame({"seed": fresh, **last, "train_loss": ends.loss[0, 0, 0, :, -1]})
        frame[_lost(ends)[0, 0, 0]] = np.nan
        frames.append(frame.assign(seed=fresh, decay=decay, warmup=warm, diverged=_lost(ends)[0, 0, 0]))
        curves.append(ends.loss[0, 0, 0])
        bar.update()
    return tuning, pd.concat(frames, ignore_index=True), np.stack(curves)


def _lost(result: sweep.Result) -> np.ndarray:
    return (result.diverged_at > 0) | ~(result.loss[..., -1] <= math.log(10))


def tries(diverged: np.ndarray, validation: np.ndarray) -> pd.DataFrame:
    """Return one row a try from arrays (peaks, contenders, tuning seeds): mean loss, and whether it is chosen.

    Runs that diverged count as an infinite loss, so that a peak is chosen only if all runs could use it.
    """
    means = np.where(diverged, np.inf, validation).mean(axis=-1)
    best, rows = np.argmin(means, axis=0), []
    for k, (decay, warm) in enumerate(CONTENDERS):
        for i, peak in enumerate(PEAKS):
            chosen = i == best[k]
            edge = chosen and i in (0, len(PEAKS) - 1)
            rows.append((decay, warm, peak, means[i, k], int(diverged[i, k].sum()), chosen, edge))
    return pd.DataFrame(rows, columns=["decay", "warmup", "peak", "validation_loss", "diverged", "chosen", "at_edge"])


def against(runs: pd.DataFrame, column: str, one: tuple[str, bool], other: tuple[str, bool]) -> np.ndarray:
    """Return one contender minus another, seed by seed; NaN where either diverged."""
    first, second = (
        runs[(runs.decay == decay) & (runs.warmup == warm)].set_index("seed")[column] for decay, warm in (one, other)
    )
    return (first - second).to_numpy()


def usable(tuning: pd.DataFrame, decay: str, warm: bool) -> float:
    """Return the largest peak such that no tuning run diverged with it or with a smaller one; 0 if there is none."""
    part = tuning[(tuning.decay == decay) & (tuning.warmup == warm)].sort_values("peak")
    return float(part.peak[(part.diverged == 0).cummin()].max()) if part.diverged.iloc[0] == 0 else 0.0


def summary(tuning: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row a contender: what was chosen, means with 95 % intervals, the difference from a constant rate."""
    rows: list[dict[str, Any]] = []
    for decay, warm in CONTENDERS:
        chosen = tuning[tuning.chosen & (tuning.decay == decay) & (tuning.warmup == warm)].iloc[0]
        part = runs[(runs.decay == decay) & (runs.warmup == warm)]
        row = {"decay": decay, "warmup": warm, "peak": chosen.peak, "at_edge": chosen.at_edge}
        row |= {"usable to": usable(tuning, decay, warm), "diverged": f"{part.diverged.sum()}/{len(part)}"}
        kept = part[~part.diverged]
        for column in ("train_loss", "test_loss", "test_accuracy"):
            row[column] = show(kept[column]) if len(kept) else "none"
        for column, name in (("test_loss", "loss − constant"), ("test_accuracy", "accuracy − constant")):
            difference = against(runs, column, (decay, warm), CONTENDERS[0])
            difference = difference[np.isfinite(difference)]
            row[name] = show(difference, 2) if len(difference) and rows else ""
        rows.append(row)
    return pd.DataFrame(rows)


def draw(
    traces: dict[str, np.ndarray], rates: pd.DataFrame, tuning: pd.DataFrame, runs: pd.DataFrame, curves: np.ndarray
) -> matplotlib.figure.Figure:
    """Return the figure: divergence and three rates of gradient descent; search, curves and ends of the schedules."""
    figure = matplotlib.figure.Figure(figsize=(14, 8), layout="constrained")
    (where, three, lost), (search, train, ends) = figure.subplots(2, 3)
    first = runs.seed.min()
    for name, values in traces.items():
        colour, marker, line = PROBLEM_STYLES[list(PROBLEMS).index(name)]
        share = 100 * has_diverged(values[:, first:]).mean(axis=1)
        where.semilogx(MULTIPLES, share, color=colour, marker=marker, ls=line, ms=4, label=name)
    where.axvline(1, color="black", lw=0.7)
    where.set(xlabel="learning rate in units of 2/λ_max at the start", ylabel="runs that diverged, %")
    where.set(title="gradient descent: theory's line is 1")
    values = traces["tanh, cross-entropy"]
    styles = ((plots.SKY, "--"), (plots.BLUE, "-"), (plots.ORANGE, ":"))
    for row, (colour, line) in zip(rates.itertuples(), styles, strict=True):
        for number, trace in enumerate(values[row.row, first:]):
            label = f"{row.rate}: {MULTIPLES[row.row]:g} · 2/λ_max" if number == 0 else None
            three.semilogy(trace, color=colour, ls=line, lw=1, label=label)
    three.set(xlabel="step", ylabel="train loss, nats (each line a seed)", title="three rates (tanh, cross-entropy)")
    for decay, warm in CONTENDERS:
        style = {"color": COLOURS[decay], "ls": "--" if warm else "-", "marker": MARKERS[decay], "ms": 4}
        style["mfc"] = "none" if warm else COLOURS[decay]
        part = tuning[(tuning.decay == decay) & (tuning.warmup == warm)]
        label = f"{decay}{', warm-up' if warm else ''}"
        lost.semilogx(part.peak, part.diverged, label=label, **style)
        search.loglog(part.peak, part.validation_loss, **style)
        k = CONTENDERS.index((decay, warm))
        mean, _ = mean_interval(curves[k][np.isfinite(curves[k]).all(axis=1)])
        train.semilogy(np.arange(1, len(mean) + 1), mean, label=label, **style)
        if k:
            difference = against(runs, "test_loss", (decay, warm), CONTENDERS[0])
            mean, half = mean_interval(difference[np.isfinite(difference)])
            ends.errorbar(mean, k, xerr=half, color=COLOURS[decay], fmt=MARKERS[decay], mfc=style["mfc"], capsize=3)
    lost.set(
        xlabel="peak learning rate", ylabel="tuning runs that diverged", title="schedules: peaks that are too large"
    )
    search.set(xlabel="peak learning rate", ylabel="validation loss, nats", title="search, where no run diverged")
    train.set(xlabel="epoch", ylabel="train loss during the epoch, nats", title="chosen peaks, fresh seeds")
    names = [f"{decay}{', warm-up' if warm else ''}" for decay, warm in CONTENDERS]
    ends.set(yticks=range(1, len(names)), yticklabels=names[1:], title="against a constant rate (paired, 95 %)")
    ends.set(xlabel="test loss − that of a constant rate, nats")
    ends.axvline(0, color="black", lw=0.7)
    for axes in (where, three, lost):
        axes.legend(fontsize="small", framealpha=0.9)
    for axis in (lost.yaxis, train.xaxis):
        axis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    for axes in (lost, search):
        axes.minorticks_off()
        axes.set_xticks(PEAKS[::2], [f"{peak:.2g}" for peak in PEAKS[::2]])
    search.yaxis.set_major_formatter("{x:g}")
    search.set_yticks([0.2, 0.5, 1, 2])
    three.set_ylim(top=1e3)
    return figure


def conclusion(theory: pd.DataFrame, rates: pd.DataFrame, tuning: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Return what was found, in words made from the numbers."""
    lines = "; ".join(
        f"{row['problem']} {row['in units of 2/λ_max']:.2f} ({row['from']:.2f} to {row['to']:.2f})"
        f" with {row['diverged below 2/λ_max']} divergences below 1"
        if np.isfinite(row["in units of 2/λ_max"])
        else f"{row['problem']} none"
        for _, row in theory.iterrows()
    )
    next_above = min(multiple for multiple in MULTIPLES if multiple > 1)
    survived = [row["problem"] for _, row in theory.iterrows() if not row["from"] <= next_above * (1 + 1e-9)]
    three = "; ".join(
        f"{row['rate']} (η = {row['η']}) {row['diverged']} diverged, the others end at {row['last loss of the others']}"
        for _, row in rates.iterrows()
    )
    decays, warms = (
        {
            column: {name: change(against(runs, column, *pair(name))) for name in names}
            for column in ("test_loss", "test_accuracy")
        }
        for names, pair in (
            (DECAYS[1:], lambda name: ((name, False), CONTENDERS[0])),
            (DECAYS, lambda name: ((name, True), (name, False))),
        )
    )
    larger = [name for name in DECAYS if usable(tuning, name, True) > usable(tuning, name, False)]
    edges_hit = [f"{row.decay} ({row.peak:g})" for row in tuning[tuning.chosen & tuning.at_edge].itertuples()]
    return (
        f"Found: the smallest tried rate that diverged, in units of 2/λ_max: {lines}. The whole interval is above"
        f" theory's line and the next rate tried for: {', '.join(survived) or 'none'}. Gradient descent on"
        f" cross-entropy: {three}. Schedules at equal updates and tries, each interval by itself. Test loss against a"
        f" constant rate: {_listed(decays['test_loss'])}. Test accuracy, points: {_listed(decays['test_accuracy'])}."
        f" With warm-up against without, test loss: {_listed(warms['test_loss'])}; accuracy:"
        f" {_listed(warms['test_accuracy'])}. Warm-up made larger peaks usable (no tuning run diverged) for:"
        f" {', '.join(larger) or 'none'}. Diverged with the chosen peaks: {int(runs.diverged.sum())} of {len(runs)}"
        f" fresh runs. Chosen at an edge of the search: {', '.join(edges_hit) or 'none'}. The notes list decay and"
        f" warm-up as helpful: a better test loss or accuracy than without was seen of the decays"
        f" {_better(decays)}, and of warm-up with {_better(warms)}."
    )


def _better(found: dict[str, dict[str, str]]) -> str:
    loss, accuracy = found["test_loss"], found["test_accuracy"]
    seen = [name for name in loss if loss[name].startswith("lower") or accuracy[name].startswith("higher")]
    return ", ".join(seen) or "none"


def _listed(found: dict[str, str]) -> str:
    return "; ".join(f"{name} {words}" for name, words in found.items())


def run(settings: Settings) -> pd.DataFrame:
    """Descend, tune, train, print and save; return one row a contender and fresh seed."""
    folder = RunFolder("learning_rates", settings, settings.output, resume=settings.resume)
    if settings.quick:
        settings = dataclasses.replace(
            settings,
            seeds=min(6, settings.seeds),
            tuning_seeds=min(2, settings.tuning_seeds),
            steps=-(-settings.steps // 3),
            epochs=-(-settings.epochs // 3),
        )
    digits = datasets.load("digits").train
    with tqdm.tqdm(
        total=len(problems_of(settings)) + 1 + len(CONTENDERS), unit="part", leave=False, disable=None
    ) as bar:
        few = datasets.Examples(*(a[:EXAMPLES] for a in digits))
        traces, thresholds = folder.kept("multiples", lambda: at_multiples(settings, few, bar))
        tuning, runs, curves = compare_schedules(settings, folder, bar)
    theory = edges(traces, thresholds, settings.tuning_seeds)
    rates = three_rates(traces["tanh, cross-entropy"], thresholds["tanh, cross-entropy"], settings.tuning_seeds)
    table = summary(tuning, runs)
    tables = {"thresholds": theory, "three_rates": rates, "schedules": table}
    titles = (
        "Full-batch gradient descent: theory's threshold, and the smallest tried rate that diverged (95 %):",
        "Three rates on tanh, cross-entropy:",
        f"Schedules, {settings.epochs} epochs, {settings.seeds} fresh seeds (95 %):",
    )
    for title, (name, frame) in zip(titles, tables.items(), strict=True):
        folder.table(name, frame)
        print(f"{title}\n{frame.to_string(index=False, float_format='{:.3g}'.format)}\n")
    folder.table("tuning", tuning)
    folder.table("runs", runs)
    folder.figure("learning_rates", draw(traces, rates, tuning, runs, curves))
    folder.conclude(conclusion(theory, rates, tuning, runs))
    return runs


def main() -> None:
    """Read the command line and run."""
    command_line.start("learning_rates", run, Settings, __doc__)


if __name__ == "__main__":
    main()
