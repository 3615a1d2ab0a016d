"""Memory per device and communication of work on examples, as devices are added.

Memory and collectives are read from the compiled programs, on emulated CPU devices, in a separate process for each
number of devices. Nothing is timed, and only a step of Lanczos is run.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.classifier import per_example
from experiments._shared import processes
from mlp_jax import curvature, devices, losses, mlp, mlp_hessian, tree
from mlp_jax.curvature import krylov_basis, traced_operator

DEVICES = (1, 2, 4, 8)
# Widths, examples, vectors of a Krylov basis.
SIZES, QUICK_SIZES = ((64, 32, 10), 4096, 200), ((6, 5, 3), 40, 32)
_COLLECTIVE = re.compile(r"= (\S.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def collectives(compiled: Any) -> list[tuple[str, int]]:
    """Return the communication of a compiled program: kinds of collectives, and how many numbers each returns."""
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


def measure(mesh: Mesh, quick: str = "") -> dict[str, list]:
    """Return the columns of the table for all devices of this process; a line for each program."""
    widths, examples, rows = QUICK_SIZES if quick else SIZES
    compiled = programs(mesh, widths, examples, rows)
    memory = [program.memory_analysis() for program in compiled.values()]
    sent = [collectives(program) for program in compiled.values()]
    return {
        "program": list(compiled),
        "held": [m.argument_size_in_bytes / 2**20 for m in memory],
        "made": [(m.temp_size_in_bytes + m.output_size_in_bytes) / 2**20 for m in memory],
        "sent": [", ".join(f"{kind} {numbers}" for kind, numbers in pairs) or "nothing" for pairs in sent],
    }


def table(quick: bool) -> pd.DataFrame:
    """Return one row for each program and number of devices: MiB of arguments and results, numbers communicated."""
    arguments = ["quick"] if quick else []
    columns = {number: processes.run(measure, 1, number, arguments)[0] for number in DEVICES}
    return pd.concat([pd.DataFrame(found).assign(devices=number) for number, found in columns.items()])
