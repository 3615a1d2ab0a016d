"""Run a function of a module in fresh processes with emulated CPU devices, and read back what it computed."""

import importlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
_SECONDS = 240


def run(work, processes, devices):
    """Return what `work(mesh)` returned in each of some processes of so many devices each, as dicts of numpy arrays.

    `work` is a function at the top of its module: mesh -> {name: array}.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder) / f"{number}.npz" for number in range(processes)]
        port = _free_port()
        started = [
            _start(work, file, f"--processes={processes}", f"--number={number}", f"--port={port}", devices=devices)
            for number, file in enumerate(files)
        ]
        outputs = [process.communicate(timeout=_SECONDS)[0] for process in started]
        for process, output in zip(started, outputs, strict=True):
            if process.returncode:
                raise RuntimeError(f"a process ended with {process.returncode}:\n{output[-4000:]}")
        return [dict(np.load(file)) for file in files]


def _free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def _start(work, file, *flags, devices):
    flag = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    command = [sys.executable, "-m", __name__, work.__module__, work.__name__, str(file), *flags]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _main(module, function, file, *flags):
    import jax

    settings = dict(flag.removeprefix("--").split("=") for flag in flags)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
    if int(settings["processes"]) > 1:
        address = f"127.0.0.1:{settings['port']}"
        jax.distributed.initialize(address, int(settings["processes"]), int(settings["number"]))
    mesh = jax.make_mesh((jax.device_count(),), ("devices",))
    np.savez(file, **getattr(importlib.import_module(module), function)(mesh))


if __name__ == "__main__":
    _main(*sys.argv[1:])
