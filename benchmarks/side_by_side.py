"""One way to run a benchmark: its settings, the timing of several ways to one result, and tables printed and saved."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import itertools
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import jax
import matplotlib.figure
import numpy as np
import pandas as pd
import tqdm
import tyro

from experiments._shared.run_folder import RunFolder

_PACKAGES = (
    "jax", "numpy", "scipy", "optax", "flax", "matfree", "torch", "curvlinops-for-pytorch", "pyhessian",
    "hessian-eigenthings",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of every benchmark."""

    quick: bool = False
    """Tiny sizes, one round: to see that everything runs."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A new folder for the results; runs/NAME-DATE-TIME when not given."""


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to a result.

    run
        Returns the result, an array; None if the package is not installed.
    note
        Printed instead of the numbers if there are none.
    slow
        Timed once after its first call, not in every round.
    """

    name: str
    run: Callable[[], Any] | None
    note: str = ""
    slow: bool = False


def machine() -> str:
    """Return one line with the machine and the versions of the installed peers."""
    installed = importlib.metadata.distributions()
    found = {dist.metadata["Name"].lower().replace("_", "-"): dist.version for dist in installed}
    versions = ", ".join(f"{name} {found.get(name, 'not installed')}" for name in _PACKAGES)
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "unset")
    return (
        f"{processor()}, {os.cpu_count()} CPUs, OPENBLAS_NUM_THREADS {threads}, Python {platform.python_version()};"
        f" {versions}"
    )


def processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def find(name: str) -> Any:
    """Return a peer's module; None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds until the result of a call is ready, and the result."""
    start = time.perf_counter()
    result = jax.block_until_ready(run())
    return time.perf_counter() - start, result


def first_and_warm(run: Callable[[], Any], calls: int) -> tuple[float, float]:
    """Return the seconds of the first call, and the median of `rounds` warm calls."""
    first, _ = seconds(run)
    return first, statistics.median(seconds(run)[0] for _ in range(calls))


def compare(ways: list[Way], rounds: int, reference: str) -> pd.DataFrame:
    """Time all ways in turn, for `rounds` rounds; return one row for each way.

    first_s, warm_s
        Seconds of the first call, and the median of the later ones.
    difference
        Largest difference from the result of the way named `reference`, relative to its largest entry.
    """
    installed = [way for way in ways if way.run is not None]
    first, results = {}, {}
    for way in tqdm.tqdm(installed, desc="first calls", leave=False, disable=None):
        first[way.name], results[way.name] = seconds(way.run)
        results[way.name] = np.asarray(results[way.name])
    warm: dict[str, list[float]] = {way.name: [] for way in installed}
    for index in tqdm.trange(rounds, desc="rounds", leave=False, disable=None):
        for way in installed:
            if index == 0 or not way.slow:
                if not way.slow:
                    seconds(way.run)  # not timed: threads of the previous way may still be spinning
                warm[way.name].append(seconds(way.run)[0])
    truth = results[reference]
    rows = []
    for way in ways:
        row = {"way": way.name, "note": way.note}
        if way.run is not None:
            times, result = warm[way.name], results[way.name]
            row |= {"first_s": first[way.name], "warm_s": statistics.median(times), "calls": len(times)}
            if result.shape == truth.shape:
                row["difference"] = np.max(np.abs(result - truth)) / np.max(np.abs(truth))
        rows.append(row)
    return pd.DataFrame(rows, columns=["way", "first_s", "warm_s", "calls", "difference", "note"])


Report = Iterator[tuple[str, pd.DataFrame | matplotlib.figure.Figure]]
_MOST_ROWS = 60


def run(
    name: str, settings: type, measure: Callable[[Any], Report], description: str | None
) -> dict[str, pd.DataFrame]:
    """Run a benchmark from the command line: print each table as it comes, and write all to a new folder.

    A table of more than 60 rows is written but not printed. Returns the tables.
    """
    chosen, tables = tyro.cli(settings, description=description), {}
    folder = RunFolder(name, chosen, chosen.output)
    print(machine())
    for title, item in measure(chosen):
        if isinstance(item, matplotlib.figure.Figure):
            folder.figure(title, item)
            continue
        tables[title] = item
        folder.table(title, item)
        if len(item) <= _MOST_ROWS:
            text = item.to_string(index=False, na_rep="", line_width=220, float_format="{:.3g}".format)
            print(f"\n{title}\n{text}", flush=True)
    print(f"\nresults in {folder.path}")
    return tables


def parts(makers: dict[str, Callable[[], pd.DataFrame]], chosen: tuple[str, ...]) -> Report:
    """Yield the chosen tables, computed in float64; SystemExit if a name is unknown."""
    if unknown := set(chosen) - set(makers):
        raise SystemExit(f"parts: got {', '.join(sorted(unknown))}, expected some of {', '.join(makers)}.")
    for part in makers:
        if part in chosen:
            with jax.enable_x64(True):
                table = makers[part]()
            yield part, table


def bars(labels: Sequence[str], values: Any, xlabel: str, *, log: bool = False, color: Any = None) -> Any:
    """Return horizontal bars, the first on top."""
    figure = matplotlib.figure.Figure(figsize=(8, 0.4 * len(labels) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(labels), values, color=color)
    axes.set(xlabel=xlabel, xscale="log" if log else "linear")
    axes.invert_yaxis()
    return figure


def curves(table: pd.DataFrame, panel: str, x: str, y: str, line: str, ylabel: str) -> matplotlib.figure.Figure:
    """Return y against x on log axes: a panel for each value of one column, a line for each of another."""
    panels = table.groupby(panel, sort=False)
    figure = matplotlib.figure.Figure(figsize=(4.5 * len(panels), 4.6), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for marker, (name, part) in zip(itertools.cycle("os^Dv*PX"), rows.groupby(line, sort=False), strict=False):
            axes.loglog(part[x], part[y], marker=marker, label=name)
        axes.set(xlabel=f"{x}, {title}", ylabel=ylabel)
        axes.legend(frameon=False, fontsize="x-small", ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def gemm_seconds(multiply_adds: float, size: int, calls: int = 5) -> float:
    """Return the seconds that a number of multiply-adds takes at the rate of a matrix product of this size.

    The rate is the better of numpy's and XLA's, each the median of several calls.
    """
    matrix = np.random.default_rng(0).standard_normal((size, size))
    here = jax.numpy.asarray(matrix)
    product = jax.jit(lambda a: a @ a)
    times = [first_and_warm(call, calls)[1] for call in (lambda: matrix @ matrix, lambda: product(here))]
    return multiply_adds / size**3 * min(times)


def exponent(sizes: list[float], times: list[float]) -> float:
    """Return the slope of log time against log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def memory_now() -> float:
    """Return the memory of this process in bytes, and reset `memory_peak`; NaN except on Linux."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    return _status("VmRSS")


def memory_peak() -> float:
    """Return the peak memory of this process in bytes since `memory_now`; NaN except on Linux."""
    try:
        return _status("VmHWM")
    except OSError:
        return float("nan")


def _status(field: str) -> float:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(field))
