"""What does the work on examples take of each device, and what is sent between them, as devices are added?

    python -m benchmarks.scaling_examples [--quick]

Nothing is timed, and nothing but a step of Lanczos is run: memory and collectives are read from the compiled programs,
on emulated CPU devices, in a process of its own for each number of them.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mlp_jax import curvature, devices, losses, mlp, mlp_hessian, tree
from mlp_jax.curvature import krylov_basis, traced_operator

DEVICES = (1, 2, 4, 8)
WIDTHS, EXAMPLES, BASIS = (64, 32, 10), 4096, 200
QUICK_WIDTHS, QUICK_EXAMPLES, QUICK_BASIS = (6, 5, 3), 40, 32
_COLLECTIVE = re.compile(r"= (\S.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def per_example(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return losses.cross_entropy(mlp.forward(params, x), y)


def collectives(compiled: Any) -> list[tuple[str, int]]:
    """Return what a compiled program sends between devices: kinds of collective, and how many numbers each returns."""
    return [
        (kind, sum(math.prod(map(int, filter(None, s.split(",")))) for s in re.findall(r"\w+\[([\d,]*)\]", shapes)))
        for shapes, kind in _COLLECTIVE.findall(compiled.as_text())
    ]


def programs(mesh: Mesh, widths: tuple[int, ...], examples: int, rows: int) -> dict[str, Any]:
    """Return compiled programs by name: their examples, and the basis of `rows` vectors, split over the mesh."""
    split, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec(mesh.axis_names), PartitionSpec()))
    like = functools.partial(jax.tree.map, lambda a, s=whole: jax.ShapeDtypeStruct(a.shape, jnp.float64, sharding=s))
    params = like(jax.eval_shape(lambda: mlp.init(jax.random.key(0), widths)))
    x = jax.ShapeDtypeStruct((examples, widths[0]), jnp.float64, sharding=split)
    y = jax.ShapeDtypeStruct((examples,), jnp.int64, sharding=split)
    mean = devices.mean(per_example, mesh)

    def product(chunk_size: int | None) -> Callable[..., Any]:
        return lambda p, v, *args: curvature.hessian_of_mean(per_example, p, args, chunk_size=chunk_size, mesh=mesh)(v)

    chunk = max(1, examples // (16 * DEVICES[-1]))
    dense = functools.partial(mlp_hessian.dense, loss=losses.cross_entropy, mesh=mesh)
    return {
        "gradient": jax.jit(jax.grad(mean)).lower(params, x, y).compile(),
        "product": jax.jit(product(None)).lower(params, params, x, y).compile(),
        f"product by {chunk}": jax.jit(product(chunk)).lower(params, params, x, y).compile(),
        "dense Hessian": jax.jit(dense).lower(params, x, y).compile(),
    } | lanczos(mesh, tree.size(params), rows)


def lanczos(mesh: Mesh, size: int, rows: int) -> dict[str, Any]:
    """Return the two programs of a step of Lanczos: a pass of the Gram–Schmidt process, and a product by a diagonal."""
    operator = traced_operator.trace(lambda v: 2 * v, jnp.zeros(size))
    basis = krylov_basis.SplitBasis(operator, rows, 1, mesh)
    row, columns = basis.place(np.ones((1, size))), basis.columns
    return {
        "Gram–Schmidt pass": krylov_basis.project_split.lower(columns, row, 0, rows, mesh).compile(),
        "gather for a product": krylov_basis.multiply_split.lower(operator.program, (), columns, 0, 1, mesh).compile(),
    }


def measure(settings: tuple) -> list[dict[str, Any]]:
    """Return one line for each program on all devices of this process."""
    mesh = jax.make_mesh((jax.device_count(),), ("devices",))
    lines = []
    for name, compiled in programs(mesh, *settings).items():
        memory = compiled.memory_analysis()
        lines.append({
            "program": name,
            "devices": mesh.size,
            "held": memory.argument_size_in_bytes / 2**20,
            "made": (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 2**20,
            "sent": [f"{kind} {numbers}" for kind, numbers in collectives(compiled)],
        })  # fmt: skip
    return lines


def in_processes(settings: tuple) -> list[dict[str, Any]]:
    """Return the lines of all numbers of devices, each measured in a process of its own."""
    lines = []
    for number in DEVICES:
        flag = f"--xla_force_host_platform_device_count={number}"
        environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "benchmarks.scaling_examples", "--settings", json.dumps(settings)]
        lines += json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tiny network: to see that everything runs")
    parser.add_argument("--settings", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.settings:
        with jax.enable_x64(True):
            print(json.dumps(measure(options.settings)))
        return
    settings = (QUICK_WIDTHS, QUICK_EXAMPLES, QUICK_BASIS) if options.quick else (WIDTHS, EXAMPLES, BASIS)
    size = sum((a + 1) * b for a, b in zip(settings[0], settings[0][1:], strict=False))
    print(f"P = {size}, P² = {size**2}, {settings[1]} examples, a basis of {settings[2]} vectors; MiB for each device")
    print(f"{'program':<22}{'devices':>8}{'held':>10}{'made':>10}  numbers sent between devices")
    for line in sorted(in_processes(settings), key=lambda line: line["program"]):
        sent = ", ".join(line["sent"]) or "none"
        print(f"{line['program']:<22}{line['devices']:>8}{line['held']:>10.3f}{line['made']:>10.3f}  {sent}")


if __name__ == "__main__":
    main()
