"""How long do six batch sizes from eight seeds take, as one sweep, as loops of programs, with masks, and in torch?

    python -m benchmarks.sweep [--quick] [--output FOLDER]

Each way in a process of its own, so that the time to the first result has all of its compilation and initialisation
(no imports, no persistent cache), in turn, some rounds. Peers: `pip install -e '.[benchmarks]'`. Prints a table, and
writes it as CSV with a figure to a new folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Annotated

import matplotlib.figure
import numpy as np
import pandas as pd
import tqdm
import tyro

from benchmarks.sweep_ways import WAYS
from benchmarks.training_peers import machine
from experiments._shared.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the benchmark."""

    quick: bool = False
    """Two seeds and two epochs, one round: to see that everything runs."""
    ways: tuple[str, ...] = tuple(WAYS)
    """Which ways to time."""
    seeds: int = 8
    """Runs of each batch size."""
    epochs: int = 20
    """Epochs of each run."""
    rounds: int = 1
    """Processes of each way, in turn; the fastest counts."""
    limit: int = 100
    """Seconds after which a way is given up and reported as slower than that."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A new folder for the results; runs/sweep-DATE-TIME when not given."""


def measure(settings: Settings) -> pd.DataFrame:
    """Return one row a way and round, in seconds; ways that fail are printed with the reason, and left out."""
    rows = []
    seeds, epochs, rounds = (2, 2, 1) if settings.quick else (settings.seeds, settings.epochs, settings.rounds)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    todo = [(number, name) for number in range(rounds) for name in settings.ways]
    for number, name in (bar := tqdm.tqdm(todo, unit="way", leave=False, disable=None)):
        command = [sys.executable, "-m", "benchmarks.sweep_ways", name, str(seeds), str(epochs)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment, timeout=settings.limit
            )
        except subprocess.TimeoutExpired:
            bar.write(f"{name}: not done after {settings.limit} s")
            continue
        if done.returncode:
            bar.write(f"{name}: does not work here: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
            continue
        result = json.loads(done.stdout.splitlines()[-1])
        accuracies = {f"accuracy {i}": value for i, value in enumerate(result["accuracy"])}
        rows.append({"way": name, "round": number, "first": result["first"], "again": result["again"], **accuracies})
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row a way: best seconds, and how many times those of sweep.run."""
    best = frame.drop(columns="round").groupby("way", sort=False).min()
    table = best[["first", "again"]].round(2)
    if "sweep.run" in best.index:
        table["first: times sweep.run"] = (best["first"] / best.loc["sweep.run", "first"]).round(2)
        table["again: times sweep.run"] = (best["again"] / best.loc["sweep.run", "again"]).round(2)
    names = [name for name in frame.columns if name.startswith("accuracy")]
    means = frame.groupby("way", sort=False)[names].mean()
    table["test accuracy, smallest batch"], table["largest"] = means[names[0]].round(3), means[names[-1]].round(3)
    return table


def draw(table: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the seconds of each way as bars on a logarithmic axis."""
    figure = matplotlib.figure.Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    at = np.arange(len(table))[::-1]
    axes.barh(at + 0.2, table["first"], 0.4, label="to the first result", color="#D55E00")
    axes.barh(at - 0.2, table["again"], 0.4, label="again", color="#0072B2")
    for height, column in ((0.2, "first"), (-0.2, "again")):
        for y, value in zip(at, table[column], strict=True):
            axes.text(value * 1.05, y + height, f"{value:.2f}", va="center", fontsize="x-small")
    axes.set_yticks(at, table.index)
    axes.set(xscale="log", xlabel="seconds", title="six batch sizes from every seed: 64-32-10 on digits")
    axes.set_xlim(right=1.5 * table[["first", "again"]].max().max())
    axes.legend(frameon=False)
    return figure


def run(settings: Settings) -> pd.DataFrame:
    """Time, print and save; return the table."""
    print(machine())
    folder = RunFolder("sweep", settings, settings.output)
    frame = measure(settings)
    table = summary(frame)
    folder.table("sweep", frame)
    folder.figure("sweep", draw(table))
    print("Seconds for the whole sweep, and how many times those of sweep.run:")
    print(table.to_string())
    print(f"Written to {folder.path}")
    return table


if __name__ == "__main__":
    run(tyro.cli(Settings, description=__doc__))
