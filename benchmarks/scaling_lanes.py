"""How time and memory of a sweep fall with the number of devices that share its lanes.

The devices are CPU devices emulated by XLA, in one process for each number of devices. They share the cores of the
machine, so the memory of each, not the time, shows how the work is split. Memory is that of the compiled program:
arguments, results and temporaries.
"""

from __future__ import annotations

import functools
import time
from typing import Any
from unittest import mock

import jax
import pandas as pd

from benchmarks.classifier import batch_loss
from benchmarks.side_by_side import seconds
from experiments._shared import processes
from mlp_jax import mlp, sweep
from mlp_jax.sweep import spread

DEVICES = (1, 2, 4, 8)


init = functools.partial(mlp.init, sizes=(64, 32, 10))


def swept(seeds: int, epochs: int) -> sweep.Result:
    """Four learning rates from each seed on 1797 examples of 64 inputs, over all devices."""
    input_key, target_key = jax.random.split(jax.random.key(0))
    data = jax.random.normal(input_key, (1797, 64)), jax.random.randint(target_key, (1797,), 0, 10)
    return sweep.run(
        jax.random.key(1), batch_loss, init, data, batch_sizes=(32,), learning_rates=(0.03, 0.1, 0.3, 1.0), seeds=seeds,
        epochs=epochs, mesh=jax.make_mesh((jax.device_count(),), ("devices",)),
    )  # fmt: skip


def measure(seeds: int, epochs: int) -> dict[str, Any]:
    """Return seconds of a first and a second sweep, core-seconds of the second, and MiB on each device."""
    run = spread._run_lanes
    with mock.patch.object(spread, "_run_lanes", side_effect=run) as watched:
        first, _ = seconds(lambda: swept(seeds, epochs).loss)
        start = time.process_time()
        again, _ = seconds(lambda: swept(seeds, epochs).loss)
        cores = time.process_time() - start
    call = watched.call_args
    sizes = run.lower(*call.args, **call.kwargs).compile().memory_analysis()
    parts = {name: getattr(sizes, f"{name}_size_in_bytes") / 2**20 for name in ("argument", "output", "temp")}
    times = {"first_s": first, "again_s": again, "again_core_s": cores}
    memory = {"MiB": sum(parts.values())} | {f"{name}_MiB": size for name, size in parts.items()}
    return {"devices": jax.device_count()} | times | memory


def measure_in_process(mesh: jax.sharding.Mesh, seeds: str, epochs: str) -> dict[str, Any]:
    """Return the result of `measure`, in a process started by `experiments._shared.processes`."""
    with jax.enable_x64(False):
        return measure(int(seeds), int(epochs))


def table(quick: bool = False, devices: tuple[int, ...] = DEVICES) -> pd.DataFrame:
    """Return one row for each number of devices, each measured in its own process."""
    sizes = ("8", "1") if quick else ("32", "10")
    rows = [processes.run(measure_in_process, 1, number, sizes)[0] for number in devices]
    return pd.DataFrame([{name: value.item() for name, value in row.items()} for row in rows])
