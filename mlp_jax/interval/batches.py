"""Many small proofs at once: slopes of the gradient on boxes about all points (see `systems` for the theorems)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax._compiled import while_alive
from mlp_jax.curvature.types import PyTree
from mlp_jax.interval import ball, enclosures, proof, trust
from mlp_jax.interval.ball import Array, Ball, Refusal
from mlp_jax.interval.certificate import Certificate
from mlp_jax.interval.spectra import Spectrum
from mlp_jax.interval.systems import Traced, excludes_zero

BITS = 53  # of float64: what certificates of this kind give as their precision
_BATCH = 512  # a number for which `systems` traces programs
_SIDE = 2.0**-7  # of the box on which rules that JAX takes on trust are tested
_REASON = (
    "slopes of the gradient map a box about the location into itself, so that it holds a critical point by Brouwer's"
    " theorem, are regular in the box of uniqueness, and give the index by Gershgorin's discs; all in float64"
)


def attempt(
    fun: Callable[..., Any], params: PyTree, args: tuple, starts: Array, reach: float | None
) -> list[Certificate | None]:
    """Return certificates for points (count, P), polished unless reach is None; None where there is no proof."""
    found = list[Certificate | None]()
    try:
        trust.require_ieee()
        system, shared = _system(fun, params, args, starts)
        for first in range(0, len(starts), _BATCH):
            found += _prove(system, starts[first : first + _BATCH], reach, shared)
    except Refusal:
        pass  # a proof for each point alone says why
    return found + [None] * (len(starts) - len(found))


def _system(fun: Callable[..., Any], params: PyTree, args: tuple, starts: Array) -> tuple[Traced, dict[str, Any]]:
    """Return the gradient, followed by the value, as a system, and what all certificates share; or raise Refusal."""
    traced, data = enclosures.trace(fun, params, args)
    problem = proof.begin(traced, data, params, starts[0], proof.Settings(None, None, None, 0.0, BITS, None, True))
    if not problem.smoothness.everywhere:
        raise Refusal("fun is not known to be smooth everywhere")
    proof.test_assumptions(problem, starts[0], _SIDE)
    shared = {"data": problem.digest, "assumptions": proof.assumptions(problem)}
    # The same unit for all points, so that `check` does for one what was done for many.
    return Traced(_gradient_and_value(traced.function), np.ones(starts.shape[1]), data), shared


@while_alive
def _gradient_and_value(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    def both(v: jax.Array, *data: jax.Array) -> jax.Array:
        value, gradient = jax.value_and_grad(function)(v, *data)
        return jnp.append(gradient, value)

    return both


def _prove(system: Traced, starts: Array, reach: float | None, shared: dict[str, Any]) -> list[Certificate | None]:
    points, moved = starts, np.zeros(len(starts))
    if reach is not None:
        points = system.polish(starts)
        moved = np.max(np.abs(points - starts), axis=1)
        near_enough = moved <= reach * np.maximum(1.0, np.max(np.abs(starts), axis=1))
        points = np.where(near_enough[:, None], points, starts)
    near, unique = system.locate(points)
    discs, ranges, known = system.discs(Ball(points, near))
    proved = known & np.all(unique > 0, axis=1) & excludes_zero(discs)
    eigenvalues, loss = ball.bounds(discs), ball.bounds(ranges)
    return [
        Certificate(
            proved=True,
            reason=_REASON,
            size=points.shape[1],
            location=points[i],
            displacement=float(moved[i]),
            index=int(np.sum(discs.mid[i] < 0)),
            null=0,
            radius=float(np.max(near[i])),
            unique_radius=float(np.min(unique[i])),
            loss=(float(loss[0][i, -1]), float(loss[1][i, -1])),
            precision=BITS,
            **_spectrum(*(ends[i] for ends in eigenvalues))._asdict(),
            **shared,
        )
        if proved[i]
        else None
        for i in range(len(points))
    ]


def _spectrum(low: Array, high: Array) -> Spectrum:
    """Return what intervals that each hold an eigenvalue, and together all, tell of the extreme ones."""
    size = np.maximum(low, -high)  # of the end next to 0
    k, gap = int(np.argmin(size)), float(np.min(size))
    nearest = (gap, float(high[k])) if low[k] > 0 else (float(low[k]), -gap)
    return Spectrum((float(np.min(low)), float(np.min(high))), nearest, (float(np.max(low)), float(np.max(high))))
