"""The public functions, each with its arguments and its oracle: importing this registers all of them in `CALLS`."""

from benchmarks.bad_input.functions import (
    checkpoints,
    critical_points,
    curvature,
    data,
    figures,
    landscapes,
    mlps,
    networks,
    proofs,
    runs,
    vectors,
)

__all__ = [
    "checkpoints",
    "critical_points",
    "curvature",
    "data",
    "figures",
    "landscapes",
    "mlps",
    "networks",
    "proofs",
    "runs",
    "vectors",
]
