"""Run a function in fresh processes of this machine, as the hosts of a cluster would, and return its results.

The processes find one another through `jax.distributed` on the loopback interface. Each has its own emulated CPU
devices (`--xla_force_host_platform_device_count`), or the machine's accelerators if there are any.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments._shared import all_devices

Work = Callable[..., Mapping[str, Any]]


def run(work: Work, processes: int, devices: int, arguments: Sequence[str] = (), timeout: float = 600) -> list[dict]:
    """Return the result of work(mesh, *arguments) in each process, as dicts of numpy arrays.

    `work` is a top-level function of its module; the mesh has the `devices` of all `processes`. If a process fails or
    takes more than `timeout` seconds, all are killed: RuntimeError with the end of its output, or TimeoutExpired.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder) / f"{number}.npz" for number in range(processes)]
        port = _free_port()
        started = [
            _start([work.__module__, work.__name__, str(file), str(processes), str(n), str(port), *arguments], devices)
            for n, file in enumerate(files)
        ]
        try:
            for process in started:
                output = process.communicate(timeout=timeout)[0]
                if process.returncode:
                    raise RuntimeError(f"a process ended with {process.returncode}:\n{output[-4000:]}")
        finally:
            for process in started:
                process.kill()
        return [dict(np.load(file)) for file in files]


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def _start(arguments: list[str], devices: int) -> subprocess.Popen:
    flag = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}",
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
    }
    command = [sys.executable, "-m", __name__, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _main(module: str, function: str, file: str, processes: str, number: str, port: str, *arguments: str) -> None:
    jax.config.update("jax_enable_x64", True)
    if int(processes) > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(number))
    results = getattr(importlib.import_module(module), function)(all_devices.everywhere(), *arguments)
    np.savez(file, **results)


if __name__ == "__main__":
    _main(*sys.argv[1:])
