"""How many examples does a hypothesis space ask for, and how loose is that bound?

A sample is bad when some function of the space H has an error on it that is more than ε away from its true error.
Hoeffding's inequality for each function and the union over all give P(bad) ≤ |H| · 2 exp(−2 N ε²). The experiment
draws samples for two spaces of random classifiers whose true errors are known, and counts the bad ones: random
labelings, which are nearly independent, and half-planes, which overlap. Then it counts the functions of deep and
shallow networks that compute the same sawtooth: fewer parameters, a smaller space, fewer examples.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import matplotlib.axes
import matplotlib.figure
import numpy as np
import pandas as pd
import scipy.stats
import tqdm

from experiments._shared import command_line
from experiments._shared.run_folder import RunFolder
from mlp_jax import mlp, plots, tree

# The bound.


def log_bad_sample_bound(log_size: float, num_samples: float, deviation: float) -> float:
    """Return ln(|H| · 2 exp(−2 N ε²)), the logarithm of the bound on the probability of a bad sample.

    Parameters
    ----------
    log_size
        ln |H|, so that a space too large for a float can be given: `math.log(2**1000000)`.
    num_samples
        N: independent examples.
    deviation
        ε, between 0 and 1: how far the error on the sample may be from the true error.

    Returns
    -------
    float; above 0 the bound is above 1 and says nothing

    Raises
    ------
    ValueError
        `log_size` or `num_samples` is negative or not finite, or `deviation` is not in (0, 1].

    References
    ----------
    Hoeffding (1963), "Probability inequalities for sums of bounded random variables", theorem 2.

    Examples
    --------
    >>> print(f"{log_bad_sample_bound(math.log(2**1000000), 35_000_000, 0.1):.0f}")
    -6852
    """
    _require(log_size, num_samples, deviation)
    return log_size + math.log(2.0) - 2.0 * num_samples * deviation**2


def bad_sample_bound(log_size: float, num_samples: float, deviation: float) -> float:
    """Return min(1, |H| · 2 exp(−2 N ε²)) ≥ P(some function's error is off by more than ε on a sample of N).

    Parameters, errors and source as `log_bad_sample_bound`.

    Examples
    --------
    >>> print(f"{bad_sample_bound(math.log(10), 500, 0.1):.6f}")
    0.000908
    """
    return math.exp(min(0.0, log_bad_sample_bound(log_size, num_samples, deviation)))


def sample_size(log_size: float, failure_probability: float, deviation: float) -> int:
    """Return the smallest whole N ≥ ln(2 |H| / δ) / (2 ε²): the bound is then at most δ.

    Parameters
    ----------
    log_size
        ln |H|.
    failure_probability
        δ, in (0, 1).
    deviation
        ε, in (0, 1].

    Raises
    ------
    ValueError
        An argument is out of range.

    Examples
    --------
    >>> sample_size(math.log(1000), 0.05, 0.1)
    530
    >>> sample_size(math.log(2**1000000), 0.05, 0.1)
    34657544
    """
    if not 0 < failure_probability < 1:
        raise ValueError(f"failure_probability: got {failure_probability}, expected a number between 0 and 1.")
    _require(log_size, 0, deviation)
    return math.ceil((log_size + math.log(2.0) - math.log(failure_probability)) / (2.0 * deviation**2))


def _require(log_size: float, num_samples: float, deviation: float) -> None:
    for name, value in (("log_size", log_size), ("num_samples", num_samples)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: got {value}, expected a finite number of 0 or more.")
    if not 0 < deviation <= 1:
        raise ValueError(f"deviation: got {deviation}, expected a number above 0 and at most 1.")


# Numbers in the largest array of one block of samples.
_BLOCK = 2**18


# Spaces whose true errors are known: mistakes (|H|, M) on M equally likely points.


def random_labelings(rng: np.random.Generator, size: int, num_points: int) -> np.ndarray:
    """Return the mistakes (size, num_points) of classifiers that guess every point by the toss of a coin."""
    return rng.random((size, num_points)) < 0.5


def half_planes(rng: np.random.Generator, size: int, num_points: int) -> np.ndarray:
    """Return the mistakes (size, num_points) of random lines through a plane, against one line that is right."""
    points = rng.standard_normal((num_points, 2))
    directions, offsets = rng.standard_normal((size + 1, 2)), 0.5 * rng.standard_normal(size + 1)
    sides = directions @ points.T > offsets[:, None]
    return sides[1:] != sides[0]


def count_bad_samples(
    rng: np.random.Generator,
    mistakes: np.ndarray,
    sizes: Sequence[int],
    num_samples: int,
    deviation: float,
    trials: int,
) -> np.ndarray:
    """Count the samples that are bad for the first |H| classifiers, for each size |H|.

    Parameters
    ----------
    rng
        Draws the samples: N points with replacement.
    mistakes
        (classifiers, M) booleans on M equally likely points.
    sizes
        Increasing numbers of classifiers; the same samples serve all.
    num_samples, deviation
        N and ε.
    trials
        Samples drawn.

    Returns
    -------
    (len(sizes),) counts, at most `trials`
    """
    num_points, counts = mistakes.shape[1], np.zeros(len(sizes), int)
    # Blocks that stay in the cache. Whole numbers below 2²⁴ are exact in float32.
    block = max(1, _BLOCK // max(num_samples, *mistakes.shape))
    table, totals = mistakes.astype(np.float32), mistakes.sum(axis=1)[:, None]
    for begin in range(0, trials, block):
        count = min(block, trials - begin)
        drawn = rng.integers(num_points, size=(count, num_samples)) + num_points * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * num_points).reshape(count, num_points)
        wrong = table @ times.T.astype(np.float32)
        off = _is_off(wrong, totals, num_samples, num_points, deviation)
        counts += [np.sum(np.any(off[:size], axis=0)) for size in sizes]
    return counts


def exact_union(mistakes: np.ndarray, num_samples: int, deviation: float) -> float:
    """Return Σ over classifiers of P(its error on a sample of N is off by more than ε), from exact binomial tails.

    It lies between P(bad) and Hoeffding's bound, and shows how much of the looseness the union is to blame for.
    """
    num_points = mistakes.shape[1]
    totals, repeats = np.unique(mistakes.sum(axis=1), return_counts=True)
    wrong = np.arange(num_samples + 1)
    tails = scipy.stats.binom.pmf(wrong, num_samples, totals[:, None] / num_points)
    off = _is_off(wrong, totals[:, None], num_samples, num_points, deviation)
    return float(repeats @ np.sum(tails * off, axis=1))


def _is_off(wrong: np.ndarray, total: np.ndarray, num_samples: int, num_points: int, deviation: float) -> np.ndarray:
    """Return |wrong / N − total / M| > ε, compared as multiples of 1 / (N M)."""
    return np.abs(wrong * float(num_points) - total * float(num_samples)) > deviation * num_samples * num_points


# The same function, deep and shallow.


def deep_sawtooth(depth: int) -> mlp.Params:
    """Return a ReLU network with `depth` hidden layers of 2 units: the tent map composed with itself.

    t(x) = 2 max(x, 0) − 4 max(x − ½, 0) on [0, 1]; t∘t∘…∘t has 2^depth linear pieces. 6·depth + 1 parameters.

    References
    ----------
    Telgarsky (2015), "Representation benefits of deep feedforward networks".

    Examples
    --------
    >>> mlp.forward(deep_sawtooth(2), jnp.array([[0.25], [0.5], [0.625]]), activation=jax.nn.relu).ravel().tolist()
    [1.0, 0.0, 0.5]
    """
    mix, bias = np.array([[2.0], [-4.0]]), np.array([0.0, -0.5])
    first, middle, last = (np.ones((1, 2)), bias), (mix @ np.ones((1, 2)), bias), (mix, np.zeros(1))
    return _as_params([first, *([middle] * (depth - 1)), last])


def shallow_sawtooth(depth: int) -> mlp.Params:
    """Return a ReLU network with one hidden layer that computes the same on [0, 1]: one unit a linear piece.

    No fewer will do: on a line each hidden unit bends the function once. 3·2^depth + 1 parameters.

    Examples
    --------
    >>> mlp.forward(shallow_sawtooth(2), jnp.array([[0.25], [0.5], [0.625]]), activation=jax.nn.relu).ravel().tolist()
    [1.0, 0.0, 0.5]
    """
    pieces = 2**depth
    slopes = float(pieces) * (-1.0) ** np.arange(pieces)
    bends = np.diff(slopes, prepend=0.0)
    hidden = (np.ones((1, pieces)), -np.arange(pieces) / pieces)
    return _as_params([hidden, (bends[:, None], np.zeros(1))])


def _as_params(layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> mlp.Params:
    dtype = jnp.result_type(float)
    return tuple(mlp.Layer(jnp.asarray(weight, dtype), jnp.asarray(bias, dtype)) for weight, bias in layers)


@jax.jit
def largest_difference(a: mlp.Params, b: mlp.Params, inputs: jax.Array) -> jax.Array:
    """Return max |f_a − f_b| of two ReLU networks over inputs (n, d). Transformable."""
    outputs = [mlp.forward(params, inputs, activation=jax.nn.relu) for params in (a, b)]
    return jnp.max(jnp.abs(outputs[0] - outputs[1]))


def network_log_size(num_parameters: int, bits: int = 32) -> float:
    """Return ln of the number of settings of so many parameters of so many bits: an upper bound of ln |H|.

    Examples
    --------
    >>> print(f"{network_log_size(10):.2f}")
    221.81
    """
    return num_parameters * bits * math.log(2.0)


# The experiment.


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to run."""

    deviation: float = 0.1
    """ε: how far the error on a sample may be from the true error."""
    failure_probability: float = 0.05
    """δ: how often a sample may be bad."""
    num_points: int = 300
    """Equally likely points on which the classifiers are defined."""
    trials: int = 3000
    """Samples drawn at each size."""
    depths: tuple[int, ...] = (1, 2, 4, 6, 8, 10)
    """Hidden layers of the deep networks that compute a sawtooth."""
    seed: int = 0
    """Seed of the classifiers and of the samples."""
    output: pathlib.Path | None = None
    """Folder for settings, tables and the figure; a new one under runs/ when not given."""
    resume: bool = False
    """Go on with the run that was stopped in the folder of --output."""
    quick: bool = False
    """A tenth of the samples, to see that everything works."""

    def __post_init__(self) -> None:
        for name, least in (("num_points", self.num_points), ("trials", self.trials), ("depths", min(self.depths))):
            if least < 1:
                raise ValueError(f"{name}: got {least}, expected 1 or more.")


SIZES = (1, 10, 100, 1000)
SPACES = {"random labelings": random_labelings, "half-planes": half_planes}


def simulate(settings: Settings, progress: tqdm.tqdm | None = None) -> pd.DataFrame:
    """Return one row a space, size |H| and N: bad samples with a 95 % interval, and the two bounds. Host-level."""
    rows = []
    grid = sample_sizes(settings)
    for space, (name, draw) in enumerate(SPACES.items()):
        rng = np.random.default_rng((settings.seed, space))
        mistakes = draw(rng, SIZES[-1], settings.num_points)
        for num_samples in grid:
            counts = count_bad_samples(rng, mistakes, SIZES, num_samples, settings.deviation, settings.trials)
            for size, bad in zip(SIZES, counts.tolist(), strict=True):
                union = exact_union(mistakes[:size], num_samples, settings.deviation)
                bound = bad_sample_bound(math.log(size), num_samples, settings.deviation)
                rows.append(
                    (name, size, num_samples, bad, settings.trials, *interval(bad, settings.trials), union, bound)
                )
            if progress is not None:
                progress.update()
    columns = ["space", "size", "N", "bad", "trials", "low", "high", "exact union", "bound"]
    return pd.DataFrame(rows, columns=columns)


def sample_sizes(settings: Settings) -> list[int]:
    """Return the N that are tried: an even grid, and the N that the bound asks for at each size of the space."""
    asked = [sample_size(math.log(size), settings.failure_probability, settings.deviation) for size in SIZES]
    return sorted({*asked, *np.linspace(asked[-1] / 16, asked[-1], 16).round().astype(int).tolist()})


def interval(count: int, trials: int) -> tuple[float, float]:
    """Return the exact 95 % (Clopper–Pearson) interval of a probability from `count` successes in `trials`.

    Examples
    --------
    >>> low, high = interval(0, 1000)
    >>> print(f"{low:.4f} to {high:.4f}")
    0.0000 to 0.0037
    """
    limits = scipy.stats.binomtest(count, trials).proportion_ci(method="exact")
    return float(limits.low), float(limits.high)


def needed(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return one row a space and size: N by the bound, N by exact tails, N that did in the simulation.

    The last two are the smallest of those tried from which on the sum of exact tails, or the upper end of the
    simulation's 95 % interval, stays at most δ.
    """
    rows = []
    for (space, size), group in table.groupby(["space", "size"], sort=False):
        by_bound = sample_size(math.log(size), settings.failure_probability, settings.deviation)
        by_union = _first_lasting(group, group["exact union"], settings.failure_probability)
        measured = _first_lasting(group, group["high"], settings.failure_probability)
        there = group[group["N"] == by_bound].iloc[0]
        probability = (there["bad"] / there["trials"], there["low"], there["high"])
        rows.append((space, size, by_bound, by_union, measured, by_bound / measured, *probability))
    columns = ["space", "|H|", "N by bound", "N by exact tails", "N simulated", "bound / simulated"]
    return pd.DataFrame(rows, columns=[*columns, "P(bad) at N by bound", "95 % from", "to"])


def _first_lasting(group: pd.DataFrame, values: pd.Series, limit: float) -> float:
    """Return the smallest N from which on all values are at most the limit; NaN where the last is not."""
    above = np.flatnonzero(values.to_numpy() > limit)
    first = above[-1] + 1 if len(above) else 0
    return float(group["N"].iloc[first]) if first < len(group) else math.nan


def depth_table(settings: Settings) -> pd.DataFrame:
    """Return one row a depth: parameters of the deep and the shallow sawtooth, and the N that each asks for."""
    rows = []
    for depth in settings.depths:
        deep, shallow = deep_sawtooth(depth), shallow_sawtooth(depth)
        grid = np.linspace(0.0, 1.0, 2 ** (depth + 2) + 1)[:, None]
        difference = largest_difference(deep, shallow, jnp.asarray(grid, deep[0].bias.dtype))
        counts = [tree.size(params) for params in (deep, shallow)]
        examples = [sample_size(network_log_size(n), settings.failure_probability, settings.deviation) for n in counts]
        rows.append((depth, 2**depth, *counts, *examples, float(difference)))
    columns = ["depth", "pieces", "parameters deep", "shallow", "N deep", "N shallow", "largest difference"]
    return pd.DataFrame(rows, columns=columns)


def plot(table: pd.DataFrame, settings: Settings) -> matplotlib.figure.Figure:
    """Draw P(bad) against N for each space: simulated points with 95 % intervals, and the bounds."""
    figure = matplotlib.figure.Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, len(SPACES), sharex=True, sharey=True)
    for axes, (space, group) in zip(panels, table.groupby("space", sort=False), strict=True):
        _panel(axes, group, settings)
        axes.set(title=f"{space}")
    figure.supxlabel(
        "N, examples in a sample (no marker: none was bad; lines of a kind, from the left: |H| grows)",
        fontsize="medium",
    )
    panels[0].set(ylabel=f"P(bad), ε = {settings.deviation:g}", yscale="log", ylim=(0.5 / settings.trials, 1.5))
    panels[-1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure


def _panel(axes: matplotlib.axes.Axes, group: pd.DataFrame, settings: Settings) -> None:
    colours, markers = (plots.BLUE, plots.GREEN, plots.YELLOW, plots.PURPLE), ("o", "s", "^", "D")
    for (size, rows), colour, marker in zip(group.groupby("size"), colours, markers, strict=True):
        estimate = rows["bad"] / rows["trials"]
        errors = np.array([estimate - rows["low"], rows["high"] - estimate])
        seen = (rows["bad"] > 0).to_numpy()
        axes.plot(rows["N"], rows["bound"], color=colour, linestyle="--", label=f"|H| = {size}: bound")
        axes.plot(
            rows["N"],
            np.minimum(rows["exact union"], 1.0),
            color=colour,
            linestyle=":",
            label=f"|H| = {size}: exact tails",
        )
        axes.errorbar(
            rows["N"][seen],
            estimate[seen],
            errors[:, seen],
            color=colour,
            marker=marker,
            linestyle="none",
            markersize=4,
            linewidth=0.8,
            label=f"|H| = {size}: simulated, 95 %",
        )
    axes.axhline(settings.failure_probability, color="0.4", linewidth=0.8)
    axes.annotate("δ", (group["N"].min(), settings.failure_probability), va="bottom", fontsize="small")
    axes.grid(alpha=0.3)


def conclusion(table: pd.DataFrame, sizes: pd.DataFrame, depths: pd.DataFrame, settings: Settings) -> str:
    """Return what was found, in one sentence of measured and computed numbers."""
    largest = sizes[sizes["|H|"] == SIZES[-1]].set_index("space")
    found = [
        f"{row['N simulated']:.0f} did for {space} ({row['bound / simulated']:.1f} times fewer)"
        if row["N simulated"] > 0
        else f"{settings.trials} samples cannot tell for {space}"
        for space, row in largest.iterrows()
    ]
    broken = int(np.sum(table["low"] > table["bound"]))
    last = depths.iloc[-1]
    return (
        f"Found: for {SIZES[-1]} functions, ε = {settings.deviation:g} and δ = {settings.failure_probability:g} the"
        f" bound asks for {largest['N by bound'].iloc[0]} examples, where {' and '.join(found)}; the simulation"
        f" contradicts the bound at {broken} of {len(table)} points; counting parameters, a sawtooth of"
        f" {last['pieces']:.0f} pieces takes {last['parameters deep']:.0f} deep against {last['shallow']:.0f} shallow,"
        f" so the bound asks for {last['N deep']:.0f} against {last['N shallow']:.0f} examples."
    )


def run(settings: Settings) -> None:
    """Run the experiment: print the tables, and write them with a figure to a run folder. Host-level."""
    if settings.quick:
        settings = dataclasses.replace(settings, trials=max(1, settings.trials // 10))
    folder = RunFolder("hypothesis_space", settings, settings.output, resume=settings.resume)
    with tqdm.tqdm(total=len(sample_sizes(settings)) * len(SPACES), unit="size", leave=False, disable=None) as bar:
        table = folder.kept("simulation", lambda: simulate(settings, bar))
    sizes, depths = needed(table, settings), depth_table(settings)
    for name, frame in (("probabilities", table), ("sizes", sizes), ("depths", depths)):
        folder.table(name, frame)
    folder.figure("bound", plot(table, settings))
    print(f"Examples so that a sample is bad with probability at most δ = {settings.failure_probability:g}, where bad")
    print(f"means that some error is off by more than ε = {settings.deviation:g} ({settings.trials} samples a point):")
    print(sizes.to_string(index=False, float_format=_short))
    print("\nOne sawtooth on [0, 1] as a deep and as a shallow ReLU network, 32 bits a parameter:")
    print(depths.to_string(index=False, float_format=_short))
    folder.conclude(conclusion(table, sizes, depths, settings))


def _short(value: float) -> str:
    return f"{value:.3g}"


def main() -> None:
    """Read the settings from the command line, and run."""
    command_line.start("hypothesis_space", run, Settings, __doc__)


if __name__ == "__main__":
    main()
