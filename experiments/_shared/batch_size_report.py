"""What the comparison of batch sizes reports: paired differences and tables."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments._shared.batch_size_protocol import Times, Tuned
from experiments._shared.batch_size_sharpness import RADII, Sharpness
from mlp_jax import gradient_noise
from mlp_jax.confidence import mean_interval

SAME = 2.0
"""Two times count as the same when they are within this factor."""


class Measured(NamedTuple):
    """Everything that the experiment measured.

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
        """Return whether it is above 0: "yes", "no" (below), or "undecided"."""
        return "yes" if self.low > 0 else "no" if self.high < 0 else "undecided"


def paired(first: np.ndarray, second: np.ndarray, of_examples: np.ndarray | None = None) -> Difference:
    """Return first − second, paired by seed; NaN where a pair is not finite in both.

    of_examples
        (examples,) the difference of each test example, its mean over seeds: then the interval also holds what another
        test set would change.

    Examples
    --------
    >>> paired(np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0])).verdict()
    'yes'
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
    """Return a score of the winners at the end, (batch sizes, seeds); infinite where a run diverged."""
    return np.where(tuned.runs.diverged_at > 0, np.inf, tuned.runs.record[name][..., -1])[:, 0]


def differences(measured: Measured, budget: str, first: int, second: int) -> dict[str, Difference]:
    """Return how much better `first` (a number of a batch size) is than `second`: training loss, test accuracy."""
    tuned, correct = measured.tuned[budget], measured.correct[budget].mean(1)
    loss, accuracy = final(tuned, "train_loss"), final(tuned, "test_accuracy")
    return {
        "optimisation": paired(loss[second], loss[first]),
        "generalisation": paired(accuracy[first], accuracy[second], correct[first] - correct[second]),
    }


def relative_noise(measured: Measured) -> np.ndarray:
    """Return √(c(B) tr Σ / ‖G‖²) in the second half of training, (batch sizes, seeds): 1 where noise equals signal."""
    half = measured.noise.scale.shape[-1] // 2
    sizes = np.array(measured.batch_sizes)[:, None]
    share = (measured.num_examples - sizes) / (measured.num_examples - 1)
    return np.sqrt(share / sizes * np.median(measured.noise.scale[..., half:], axis=-1))


def pairs_table(measured: Measured) -> pd.DataFrame:
    """Return one row a budget, quantity and pair of batch sizes (the smallest against each other)."""
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
    """Return one row a batch size: what was measured, means over seeds."""
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
    """Return the table small against large: one row a row and side, with claim, measurement and whether it holds."""
    last = len(measured.batch_sizes) - 1
    sides = {"small": (0, last), "large": (last, 0)}
    sequential, parallel, per_epoch = measured.times
    middle = last // 2
    noise = relative_noise(measured)
    rows: list[dict[str, Any]] = []

    def add(row: str, side: str, claim: str, measurement: str, holds: str) -> None:
        rows.append({"row": row, "side": side, "claim": claim, "measured": measurement, "holds": holds})

    for side, (one, other) in sides.items():
        faster = sequential[one] < sequential[other]
        claim = "faster" if side == "small" else "slower"
        add(
            "time of an update, sequential",
            side,
            claim,
            f"{1e6 * sequential[one]:.0f} µs",
            _yes(faster == (side == "small")),
        )
    for side, (one, _) in sides.items():
        ratio = parallel[one] / parallel[middle]
        text = f"{1e6 * parallel[one]:.0f} µs, {ratio:.2g} × that of {measured.batch_sizes[middle]}"
        add("time of an update, parallel", side, "same", text, _yes(1 / SAME <= ratio <= SAME))
    for side, (one, other) in sides.items():
        epoch, its = parallel[one] * per_epoch[one], parallel[other] * per_epoch[other]
        claim = "slower" if side == "small" else "faster"
        add(
            "time of an epoch, parallel", side, claim, f"{1e3 * epoch:.2f} ms", _yes((epoch > its) == (side == "small"))
        )
    for side, (one, _) in sides.items():
        claim, text = ("noisy" if side == "small" else "stable"), f"noise / signal {noise[one].mean():.2g}"
        add("gradient", side, claim, text, _yes((noise[one].mean() > 1) == (side == "small")))
    for row in ("optimisation", "generalisation"):
        unit, scale = ("train loss", 1.0) if row == "optimisation" else ("test %", 100.0)
        for side, (one, other) in sides.items():
            texts, verdicts = [], []
            for budget, tuned in measured.tuned.items():
                name = "train_loss" if row == "optimisation" else "test_accuracy"
                texts.append(f"{budget} {scale * final(tuned, name)[one].mean():.3g}")
                difference = differences(measured, budget, one, other)[row]
                difference = (
                    difference if side == "small" else Difference(*(-x for x in (difference[0], *difference[:0:-1])))
                )
                verdicts.append(f"{budget} {difference.verdict()}")
            claim = "better" if side == "small" else "worse"
            add(row, side, claim, f"{unit}: {', '.join(texts)}", ", ".join(verdicts))
    return pd.DataFrame(rows)


def _yes(holds: bool | np.bool_) -> str:
    return "yes" if holds else "no"


def six_rows(table: pd.DataFrame, small: int, large: int) -> str:
    """Return the cells as six rows of text, small beside large."""
    names = {"small": f"small ({small})", "large": f"large ({large})"}
    lines = []
    for row, part in table.groupby("row", sort=False):
        lines.append(f"{row}")
        for cell in part.itertuples():
            lines.append(
                f"    {names[str(cell.side)]:<13} claim {cell.claim:<7} holds: {cell.holds}\n{'':22}{cell.measured}"
            )
    return "\n".join(lines)
