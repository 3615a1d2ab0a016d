"""The tables of the batch-size comparison, and its paired differences."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments._shared.batch_size_protocol import Times, Tuned
from experiments._shared.batch_size_sharpness import RADII, Sharpness
from mlp_jax import gradient_noise
from mlp_jax.confidence import mean_interval

SAME = 2.0
"""Two times are the same if they are within this factor."""


class Measured(NamedTuple):
    """All measurements of the experiment.

    `tuned`, `correct` (batch sizes, seeds, test examples) and `sharpness` by budget; `noise` (batch sizes, seeds,
    records), `noise_examples` (batch sizes, records); `updates_to_target`, `reached` (batch sizes, seeds).
    """

    batch_sizes: tuple[int, ...]
    num_examples: int
    num_classes: int
    times: Times
    tuned: dict[str, Tuned]
    correct: dict[str, np.ndarray]
    noise: gradient_noise.Noise
    noise_examples: np.ndarray
    sharpness: dict[str, Sharpness]
    target: float
    at_target: Tuned
    updates_to_target: np.ndarray
    reached: np.ndarray
    tradeoff: gradient_noise.Tradeoff | None


class Difference(NamedTuple):
    """A mean difference with its 95 % interval."""

    mean: float
    low: float
    high: float

    def verdict(self) -> str:
        """Return "yes" if it is above 0, "no" if below, else "undecided"."""
        return "yes" if self.low > 0 else "no" if self.high < 0 else "undecided"

    def __neg__(self) -> Difference:
        return Difference(-self.mean, -self.high, -self.low)


def paired(first: np.ndarray, second: np.ndarray, of_examples: np.ndarray | None = None) -> Difference:
    """Return the mean of first − second, paired by seed; pairs that are not finite are left out.

    With `of_examples` (examples,), the difference of each test example averaged over seeds, the interval also covers
    the choice of test examples.
    """
    difference = first - second
    difference = difference[np.isfinite(difference)]
    if len(difference) < 2:
        return Difference(float("nan"), -float("inf"), float("inf"))
    mean, width = mean_interval(difference)
    if of_examples is not None:
        width = np.hypot(width, 1.96 * of_examples.std(ddof=1) / np.sqrt(len(of_examples)))
    return Difference(float(mean), float(mean - width), float(mean + width))


def final(tuned: Tuned, name: str) -> np.ndarray:
    """Return the final score of the chosen rates, (batch sizes, seeds); infinite where a run diverged."""
    return np.where(tuned.runs.diverged_at > 0, np.inf, tuned.runs.record[name][..., -1])[:, 0]


def differences(measured: Measured, budget: str, first: int, second: int) -> dict[str, Difference]:
    """Return how much better batch size number `first` is than `second`, in training loss and in test accuracy."""
    tuned, correct = measured.tuned[budget], measured.correct[budget].mean(1)
    loss, accuracy = final(tuned, "train_loss"), final(tuned, "test_accuracy")
    return {
        "optimisation": paired(loss[second], loss[first]),
        "generalisation": paired(accuracy[first], accuracy[second], correct[first] - correct[second]),
    }


def relative_noise(measured: Measured) -> np.ndarray:
    """Return √(c(B) tr Σ / ‖G‖²) in the second half of training, (batch sizes, seeds); 1 if noise equals signal."""
    half = measured.noise.scale.shape[-1] // 2
    sizes = np.array(measured.batch_sizes)[:, None]
    share = (measured.num_examples - sizes) / (measured.num_examples - 1)
    return np.sqrt(share / sizes * np.median(measured.noise.scale[..., half:], axis=-1))


def pairs_table(measured: Measured) -> pd.DataFrame:
    """Return one row for each budget, quantity and pair of batch sizes: the smallest against every other."""
    rows = [
        (budget, quantity, measured.batch_sizes[0], size, *difference, difference.verdict())
        for budget in measured.tuned
        for number, size in enumerate(measured.batch_sizes)
        if number
        for quantity, difference in differences(measured, budget, 0, number).items()
    ]
    columns = ["budget", "quantity", "smaller", "larger", "smaller is better by", "95 % from", "to", "smaller better"]
    return pd.DataFrame(rows, columns=columns)


def by_batch_size(measured: Measured) -> pd.DataFrame:
    """Return one row for each batch size: all measurements, as means over seeds."""
    sequential, parallel, per_epoch = measured.times
    frame = pd.DataFrame({"batch": measured.batch_sizes})
    frame["µs an update, one by one"] = 1e6 * sequential
    frame["µs an update"] = 1e6 * parallel
    frame["ms an epoch"] = 1e3 * parallel * per_epoch
    frame["noise / signal"] = relative_noise(measured).mean(1)
    for budget, tuned in measured.tuned.items():
        edge = np.where(tuned.at_edge, " (edge)", "")
        frame[f"rate, {budget}"] = [f"{rate:g}{mark}" for rate, mark in zip(tuned.rates, edge, strict=True)]
        frame[f"train loss, {budget}"] = final(tuned, "train_loss").mean(1)
        frame[f"test %, {budget}"] = 100 * final(tuned, "test_accuracy").mean(1)
    tuned = measured.tuned["epochs"]
    frame["gap (points), epochs"] = 100 * (final(tuned, "train_accuracy") - final(tuned, "test_accuracy")).mean(1)
    for budget, sharpness in measured.sharpness.items():
        frame[f"top eigenvalue, {budget}"] = sharpness.eigenvalue.mean(1)
        for radius, values in zip(RADII, sharpness.keskar, strict=True):
            frame[f"Keskar {radius:g}, {budget}"] = values.mean(1)
    runs = np.where(measured.reached, measured.updates_to_target, np.inf)
    frame["median updates to target"] = np.median(runs, axis=1)
    frame["reached it"] = [f"{row.sum()}/{len(row)}" for row in measured.reached]
    loss = np.where(tuned.search.diverged_at > 0, np.inf, tuned.search.record["train_loss"][..., -1])
    frame["failed in search"] = (loss > np.log(measured.num_classes)).mean((1, 2))
    return frame


def cells(measured: Measured) -> pd.DataFrame:
    """Return two rows, small and large, for each of the six claims: the claim, the measurement, whether it holds."""
    last = len(measured.batch_sizes) - 1
    middle, noise = last // 2, relative_noise(measured).mean(1)
    sequential, parallel, per_epoch = measured.times
    rows = []
    for side, one, other in (("small", 0, last), ("large", last, 0)):
        small = side == "small"
        microseconds = f"{1e6 * sequential[one]:.0f} µs"
        faster = _yes((sequential[one] < sequential[other]) == small)
        rows.append((0, "time of an update, sequential", side, _claim(small, "faster/slower"), microseconds, faster))
        ratio = parallel[one] / parallel[middle]
        text = f"{1e6 * parallel[one]:.0f} µs, {ratio:.2g} × that of {measured.batch_sizes[middle]}"
        rows.append((1, "time of an update, parallel", side, "same", text, _yes(1 / SAME <= ratio <= SAME)))
        epoch, its = parallel[one] * per_epoch[one], parallel[other] * per_epoch[other]
        text, slower = f"{1e3 * epoch:.2f} ms", _yes((epoch > its) == small)
        rows.append((2, "time of an epoch, parallel", side, _claim(small, "slower/faster"), text, slower))
        text, noisy = f"noise / signal {noise[one]:.2g}", _yes((noise[one] > 1) == small)
        rows.append((3, "gradient", side, _claim(small, "noisy/stable"), text, noisy))
        for order, row, name, unit, scale in (
            (4, "optimisation", "train_loss", "train loss", 1.0),
            (5, "generalisation", "test_accuracy", "test %", 100.0),
        ):
            values = {budget: scale * final(tuned, name)[one].mean() for budget, tuned in measured.tuned.items()}
            found = {budget: differences(measured, budget, one, other)[row] for budget in measured.tuned}
            holds = {budget: (d if small else -d).verdict() for budget, d in found.items()}
            text = f"{unit}: {', '.join(f'{budget} {value:.3g}' for budget, value in values.items())}"
            held = ", ".join(f"{budget} {verdict}" for budget, verdict in holds.items())
            rows.append((order, row, side, _claim(small, "better/worse"), text, held))
    rows.sort(key=lambda row: row[0])
    return pd.DataFrame(rows, columns=["", "row", "side", "claim", "measured", "holds"]).drop(columns="")


def _claim(small: bool, words: str) -> str:
    return words.split("/")[0 if small else 1]


def _yes(holds: bool | np.bool_) -> str:
    return "yes" if holds else "no"


def six_rows(table: pd.DataFrame, small: int, large: int) -> str:
    """Return the cells as text: a heading for each claim, then small and large."""
    names = {"small": f"small ({small})", "large": f"large ({large})"}
    lines = []
    for row, part in table.groupby("row", sort=False):
        lines.append(str(row))
        for cell in part.itertuples():
            lines.append(f"    {names[str(cell.side)]:<13} claim {cell.claim:<7} holds: {cell.holds}")
            lines.append(f"{'':22}{cell.measured}")
    return "\n".join(lines)
