"""Timing of several ways to the same result, interleaved, with their agreement: one way to measure for a benchmark."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pandas as pd
import tqdm

from experiments._shared.run_folder import RunFolder

_PACKAGES = ("jax", "numpy", "scipy", "torch", "curvlinops-for-pytorch", "pyhessian", "hessian-eigenthings")


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to a result.

    run
        Returns the result, an array; None where the package is not installed.
    note
        Printed in place of the numbers where there are none.
    slow
        Timed once after its first call, not in every round.
    """

    name: str
    run: Callable[[], Any] | None
    note: str = ""
    slow: bool = False


def machine() -> str:
    """Return the machine and the versions of this project and its peers, in one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"{processor()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; {versions}"


def processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call takes until its result is there, and the result."""
    start = time.perf_counter()
    result = jax.block_until_ready(run())
    return time.perf_counter() - start, result


def compare(ways: list[Way], rounds: int, reference: str) -> pd.DataFrame:
    """Time all ways in turn, `rounds` times over; one row a way.

    first_s, warm_s
        Seconds of the first call, and the median of the later ones.
    difference
        Largest difference from the result of the way named `reference`, relative to its largest entry.
    """
    installed = [way for way in ways if way.run is not None]
    first, results = {}, {}
    for way in tqdm.tqdm(installed, desc="first calls", leave=False):
        first[way.name], results[way.name] = seconds(way.run)
        results[way.name] = np.asarray(results[way.name])
    warm: dict[str, list[float]] = {way.name: [] for way in installed}
    for index in tqdm.trange(rounds, desc="rounds", leave=False):
        for way in installed:
            if index == 0 or not way.slow:
                if not way.slow:
                    seconds(way.run)  # not timed: the threads of the way before may still be spinning
                warm[way.name].append(seconds(way.run)[0])
    truth = results[reference]
    rows = []
    for way in ways:
        if way.run is None:
            rows.append({"way": way.name, "note": way.note})
            continue
        same_shape = results[way.name].shape == truth.shape
        rows.append({
            "way": way.name,
            "first_s": first[way.name],
            "warm_s": statistics.median(warm[way.name]),
            "calls": len(warm[way.name]),
            "difference": np.max(np.abs(results[way.name] - truth)) / np.max(np.abs(truth)) if same_shape else np.nan,
            "note": way.note,
        })  # fmt: skip
    return pd.DataFrame(rows)


def require_parts(chosen: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raise SystemExit unless every chosen table is one that there is."""
    unknown = set(chosen) - set(known)
    if unknown:
        raise SystemExit(f"parts: got {', '.join(sorted(unknown))}, expected some of {', '.join(known)}.")


def show(tables: dict[str, pd.DataFrame], folder: RunFolder) -> None:
    """Print tables by name, and write each to the run folder."""
    with pd.option_context("display.width", 220, "display.max_columns", 20, "display.float_format", "{:.3g}".format):
        for name, table in tables.items():
            print(f"\n{name}\n{table.to_string(index=False, na_rep='')}")
            folder.table(name, table)


def gemm_seconds(multiply_adds: float, size: int, calls: int = 5) -> float:
    """Return the seconds that so many multiply-adds take at the rate of a matrix product of this size.

    The rate is the better of numpy's and XLA's, each the median of some calls.
    """
    matrix = np.random.default_rng(0).standard_normal((size, size))
    here = jax.numpy.asarray(matrix)
    product = jax.jit(lambda a: a @ a)
    seconds(lambda: product(here))
    times = [[seconds(run)[0] for _ in range(calls)] for run in (lambda: matrix @ matrix, lambda: product(here))]
    return multiply_adds / size**3 * min(statistics.median(row) for row in times)


def exponent(sizes: list[float], times: list[float]) -> float:
    """Return the slope of log time against log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def memory_now() -> float:
    """Return the bytes that this process takes, and let `memory_peak` count from here; NaN where not on Linux."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    return _status("VmRSS")


def memory_peak() -> float:
    """Return the most bytes that this process took since `memory_now`; NaN where not on Linux."""
    try:
        return _status("VmHWM")
    except OSError:
        return float("nan")


def _status(field: str) -> float:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(field))
