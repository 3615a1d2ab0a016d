"""The gradient flow dx/dt = −∇f from beside a critical point down to the one where it ends. Host-level, numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.integrate

# vector (P,) -> the value and the gradient (P,) there; vector -> the Hessian (P, P).
Slope = Callable[[np.ndarray], tuple[float, np.ndarray]]
Matrix = Callable[[np.ndarray], np.ndarray]

# Longest first step, relative to params or to 1, and how well the Hessian must predict the gradient at its end.
_FIRST, _LINEAR, _HALVINGS = 0.1, 0.05, 40
# Relative and absolute error of a step of the integrator, the latter relative to 1 + ‖x‖; largest number of steps.
_RELATIVE, _ABSOLUTE, _STEPS = 1e-6, 1e-9, 3000
# The flow has arrived where the Newton step is this small beside the way come, and where its part along unstable modes
# is this small beside the rest: near a saddle that it only passes, that part grows.
_NEAR, _HELD = 1e-4, 1e-3


class Flow(NamedTuple):
    """A descent.

    path, values
        (t, P) points, the first of which is the critical point above, and the values of the function there, falling.
    negative
        The number of negative eigenvalues at the last point, beside a critical point; None where the flow did not
        arrive at one.
    step
        Length of the Newton step there.
    """

    path: np.ndarray
    values: np.ndarray
    negative: int | None = None
    step: float = np.inf


def descend(slope: Slope, matrix: Matrix, above: np.ndarray, direction: np.ndarray) -> Flow:
    """Return the descent from a critical point in a direction of its unstable space, a unit vector."""
    path, values = [above], [slope(above)[0]]
    start = _leave(slope, matrix(above) @ direction, above, direction)
    if start is None:
        return Flow(np.array(path), np.array(values))
    solver = scipy.integrate.BDF(
        lambda _, x: -slope(x)[1], 0.0, start, np.inf, jac=lambda _, x: -matrix(x),
        rtol=_RELATIVE, atol=_ABSOLUTE * (1 + np.linalg.norm(above)),
    )  # fmt: skip
    steepest = 0.0
    for _ in range(_STEPS):
        value, gradient = slope(solver.y)
        if not value < values[-1]:  # also NaN
            break
        path.append(solver.y.copy())
        values.append(value)
        size = float(np.linalg.norm(gradient))
        steepest = max(steepest, size)
        if size < 0.1 * steepest:
            negative, step = _newton(matrix(solver.y), gradient, _NEAR * float(np.linalg.norm(solver.y - above)))
            if negative is not None:
                return Flow(np.array(path), np.array(values), negative, step)
        solver.step()
        if solver.status == "failed":
            break
    return Flow(np.array(path), np.array(values))


def _leave(slope: Slope, rate: np.ndarray, above: np.ndarray, direction: np.ndarray) -> np.ndarray | None:
    """Return the farthest point tried in a direction where the gradient is that of the second-order model."""
    length = _FIRST * max(1.0, float(np.linalg.norm(above)))
    for _ in range(_HALVINGS):
        off = slope(above + length * direction)[1] - length * rate
        if np.linalg.norm(off) <= _LINEAR * length * np.linalg.norm(rate):
            return above + length * direction
        length /= 2
    return None


def _newton(matrix: np.ndarray, gradient: np.ndarray, near: float) -> tuple[int | None, float]:
    """Return the number of negative eigenvalues and the length of the Newton step; None where the flow passes on."""
    # No step is shorter than this. An eigendecomposition takes longer than the rest of a step of the integrator.
    if np.linalg.norm(gradient) > near * np.linalg.norm(matrix):
        return None, np.inf
    values, vectors = np.linalg.eigh(matrix)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = (vectors.T @ gradient) / values
    unstable = values < 0
    held = np.linalg.norm(step[unstable]) <= _HELD * np.linalg.norm(step[~unstable])
    length = float(np.linalg.norm(step))
    return int(np.sum(unstable)) if held and length <= near else None, length
