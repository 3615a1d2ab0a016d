"""Do many devices, and several hosts, give the answers of one device?

Compares a sweep, searches from many starts, a Hessian, products, eigenpairs and a verdict with a mesh of all devices
against the same calls without a mesh. By default it runs on 8 emulated devices of this machine, and in 2 processes of 4
devices over loopback. On a cluster, start one process on each host by one of

    srun --ntasks-per-node=1 python -m experiments.hosts --cluster
    python -m experiments.hosts --submit slurm --nodes 4      (with submitit: pip install -e '.[cluster]')

`--submit local` runs the submitted job on this machine.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import jax
import matplotlib.figure
import numpy as np
import pandas as pd
import tqdm

from experiments._shared import all_devices, command_line, processes, tables
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from experiments._shared.shared_work import work, work_of_process
from mlp_jax import plots

# Processes on this machine, and emulated devices of each.
LAYOUTS = ((1, 1), (1, 8), (2, 4))


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    cluster: bool = False
    """Run as one of the processes that srun or mpirun started; jax.distributed finds the others."""
    submit: Literal["slurm", "local"] | None = None
    """Start the processes with submitit, as a Slurm job or on this machine."""
    nodes: int = 2
    """Hosts of the submitted job, with one process on each."""
    partition: str | None = None
    """Slurm partition of the submitted job."""
    minutes: int = 30
    """Time limit of the submitted job."""


def compared(layout: str, results: Mapping[str, np.ndarray], plain: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return one row for each computation: the largest difference from `plain`, relative to its largest entry."""
    rows = []
    for name in _names(plain):
        mine, truth = np.float64(results[name]), np.float64(plain[name])
        difference = float(np.max(np.abs(mine - truth)) / np.max(np.abs(truth)))
        row = {"layout": layout, "work": name, "same_bits": bool(np.array_equal(results[name], plain[name]))}
        rows.append(row | {"difference": difference, "seconds": float(results[f"{name}, seconds"])})
    return rows


def _names(results: Mapping[str, np.ndarray]) -> list[str]:
    """Return the names of the computations, without their seconds."""
    return [name for name in results if not name.endswith(", seconds")]


def _require_same(first: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
    for name in _names(first):
        if not np.array_equal(first[name], other[name]):
            raise RuntimeError(f"{name}: got different results in two processes, expected the same bits.")


def conclusion(table: pd.DataFrame) -> str:
    """Return what was found, as one sentence filled with numbers."""
    worst = table.loc[table.difference.idxmax()]
    same = sorted(set(table.work) - set(table.work[~table.same_bits]))
    number = len(set(table.layout))
    return (
        f"Found: on {number} layout{'s' if number > 1 else ''} of devices and processes, the results with the same bits"
        f" as on one device are: {', '.join(same) or 'none'}; the largest relative difference is"
        f" {worst.difference:.1g} ({worst.work}, {worst.layout})."
    )


def draw(table: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: the difference of each computation on each layout, on a logarithmic axis."""
    figure = matplotlib.figure.Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.subplots()
    colours = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.SKY)
    for (layout, part), color, marker in zip(table.groupby("layout", sort=False), colours, "os^D", strict=False):
        shown = np.maximum(part.difference, 1e-18)
        axes.plot(part.work, shown, marker, color=color, mfc="none", ms=8, label=layout)
    axes.axhline(2.0**-53, color="black", ls=":", lw=1, label="unit roundoff, 2⁻⁵³")
    axes.set(yscale="log", ylim=(3e-19, 1e-6), ylabel="relative difference from one device\n(0 is drawn at 1e-18)")
    axes.set_title("results on many devices against those on one")
    axes.tick_params(axis="x", rotation=20)
    axes.legend(frameon=False, fontsize="small")
    return figure


def _save(folder: RunFolder, rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    folder.table("layouts", table)
    folder.figure("layouts", draw(table))
    print(tables.text(table, "layouts", float_format="{:.2g}".format))
    folder.conclude(conclusion(table))
    return table


def run(settings: Settings) -> pd.DataFrame:
    """Compute on each layout of this machine, compare, print and save; return the table."""
    folder = RunFolder("hosts", settings, settings.output, resume=settings.resume)
    with jax.enable_x64(True):
        plain = folder.kept("without a mesh", functools.partial(work, None, settings.seed, settings.quick))
    arguments = (str(settings.seed), "quick" if settings.quick else "full")
    rows = []
    for number, each in tqdm.tqdm(LAYOUTS, unit="layout", disable=None):
        layout = f"{number} process{'es' if number > 1 else ''} of {each} device{'s' if each > 1 else ''}"
        first, *others = folder.kept(layout, functools.partial(processes.run, work_of_process, number, each, arguments))
        for other in others:
            _require_same(first, other)
        rows += compared(layout, first, plain)
    return _save(folder, rows)


def run_on_cluster(settings: Settings, *address: Any) -> None:
    """Compute in this process as one of many; the first process writes the results.

    `address` is (address of the first process, number of processes, number of this one), where
    `jax.distributed.initialize` cannot find them. ValueError with `resume`: a run on a cluster keeps no pieces.
    """
    if settings.resume:
        raise ValueError("resume: got True on a cluster, expected False, because nothing is kept there.")
    jax.config.update("jax_enable_x64", True)
    jax.distributed.initialize(*address)
    first = jax.process_index() == 0
    folder = RunFolder("hosts", settings, settings.output) if first else None
    results = work(all_devices.everywhere(), settings.seed, settings.quick)
    layout = f"{jax.process_count()} processes, {jax.device_count()} devices"
    if folder is not None:
        _save(folder, compared(layout, results, work(None, settings.seed, settings.quick)))
    jax.distributed.shutdown()


def _run_submitted(settings: Settings) -> None:
    """Find the other processes of a submitit job, and run as one of them."""
    import submitit

    job = submitit.JobEnvironment()
    host = job.hostnames[0] if job.num_nodes > 1 else "127.0.0.1"
    port = 20_000 + zlib.crc32(str(job.job_id).encode()) % 20_000
    run_on_cluster(settings, f"{host}:{port}", job.num_tasks, job.global_rank)


def submit(settings: Settings) -> None:
    """Submit the job, wait for it, and print the output of its first process."""
    try:
        import submitit
    except ModuleNotFoundError:
        raise ModuleNotFoundError("submitit is missing: pip install -e '.[cluster]'.") from None
    from experiments import hosts  # not __main__, so that the job can import it

    logs = pathlib.Path("runs") / "submitted"
    executor = submitit.AutoExecutor(folder=logs / "%j", cluster=settings.submit)
    nodes, tasks = (settings.nodes, 1) if settings.submit == "slurm" else (1, settings.nodes)
    limits = {"timeout_min": settings.minutes, "slurm_partition": settings.partition}
    executor.update_parameters(name="hosts", nodes=nodes, tasks_per_node=tasks, **limits)
    job = executor.submit(hosts._run_submitted, hosts.Settings(**dataclasses.asdict(settings)))
    print(f"job {job.job_id}: waiting; its output is in {logs / str(job.job_id)}")
    job.results()
    print(job.task(0).stdout())


def start(settings: Settings) -> None:
    """Run here, as one process of many, or through submitit."""
    if settings.submit:
        submit(settings)
    elif settings.cluster:
        run_on_cluster(settings)
    else:
        run(settings)


if __name__ == "__main__":
    command_line.start("hosts", start, Settings, __doc__)
