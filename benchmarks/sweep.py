"""How long do six batch sizes from eight seeds take, as one sweep, as loops of programs, with masks, and in torch?

    python -m benchmarks.sweep [--quick] [--output FOLDER]

Each way runs in its own process, in turn for several rounds, so that the time to the first result includes all
compilation and initialization (no imports, no persistent cache). Peers: `pip install -e '.[benchmarks]'`. Prints a
table, and writes it as CSV with a figure to a new folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pandas as pd
import tqdm

from benchmarks import side_by_side
from benchmarks.sweep_ways import WAYS


@dataclasses.dataclass(frozen=True)
class Settings(side_by_side.Settings):
    """Settings of the benchmark."""

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


def times(settings: Settings) -> pd.DataFrame:
    """Return one row for each way and round, in seconds; ways that fail are printed with the reason and left out."""
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


def measure(settings: Settings) -> side_by_side.Report:
    """Return the times, and one row for each way: best seconds, and their ratio to those of sweep.run."""
    frame = times(settings)
    grouped = frame.drop(columns="round").groupby("way", sort=False)
    table = grouped[["first", "again"]].min()
    if "sweep.run" in table.index:
        for column in ("first", "again"):
            table[f"{column}: times sweep.run"] = table[column] / table.loc["sweep.run", column]
    names = [name for name in frame.columns if name.startswith("accuracy")]
    means = grouped[names].mean()
    table["test accuracy, smallest batch"], table["largest"] = means[names[0]], means[names[-1]]
    table = table.reset_index()
    yield from (("sweep", frame), ("seconds", table))
    for column, title in (("first", "to the first result"), ("again", "again")):
        label = f"seconds {title}: six batch sizes from every seed"
        yield column, side_by_side.bars(table.way, table[column], label, log=True)


if __name__ == "__main__":
    side_by_side.run("sweep", Settings, measure, __doc__)
