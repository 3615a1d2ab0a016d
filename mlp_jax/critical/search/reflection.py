"""Minimise a function that is reflected along its lowest modes, to a critical point of a chosen index. Host-level.

With hundreds of parameters an eigenbasis costs as much as fifty gradients or more, and the few steps of `following` in
each are the slow part. Here L-BFGS minimises, in coordinates in which curvature is about one, the function whose slope
along the lowest modes has the other sign: it descends along all other modes as far as one Hessian serves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.optimize

from mlp_jax.critical.search import following, lowest_modes
from mlp_jax.critical.search.eigenbasis import Newton, basis
from mlp_jax.critical.search.following import Found
from mlp_jax.critical.search.lowest_modes import Frame
from mlp_jax.critical.search.spectra import Matrices

# Hessians used: so many in a descent; in a climb so many, or this number divided by that of parameters to the power
# 3/2, if that is less.
_ROUNDS, _CLIMBS, _WORK = 60, 120, 1.8e6
# Gradients for each, with and without modes that are climbed; distance climbed with each, relative to the parameters.
_CLIMBING, _DESCENDING, _CLIMB = 10, 300, 0.05


def reflect(
    objective: Matrices,
    slope: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    index: int | None,
    longest: float,
    most: int,
) -> Found | None:
    """Return a critical point found from `start`: that of the index closest to the one asked for, or None.

    slope
        vector -> (value, gradient).
    index
        Any if None: the search descends.
    longest
        Longest Newton step, and longest climb.
    most
        The search ends when the objective has used so many Hessians.
    """
    generator = np.random.default_rng(0)
    vector, known, near = start, list[Found](), None
    rounds = min(_CLIMBS, int(_WORK / start.size**1.5)) if index else _ROUNDS
    for _ in range(rounds):
        gradient, matrix = slope(vector)[1], objective.matrix(vector)
        if matrix is None or objective.hessians >= most:
            break
        climb = min(longest, _CLIMB * max(1.0, float(np.linalg.norm(vector))))
        whole = None
        if index:
            frame = lowest_modes.frame(matrix, gradient, index, climb, near)
        else:  # a descent ends in flat valleys, where Newton's steps need the modes that are not flat
            whole = basis(matrix, None, len(vector), objective.unit)
            frame = lowest_modes.from_eigenpairs(matrix, whole.values, whole.mixed, gradient, 0, climb)
        if frame is None:
            break
        near, solver = frame.modes, whole or frame

        def same(_: np.ndarray, solver: Newton = solver) -> Newton:
            return solver

        point = following.harvest(objective, solver, same, vector, gradient, longest, known)
        if point is not None:
            known.append(point)
            if index is None or point.negative == index:
                break
            vector = following.kicked(objective, point, index, generator, _CLIMB)
            continue
        vector = _lowered(slope, frame, vector, gradient, index or 0)
    return min(known, key=lambda point: following.missed(point, index), default=None)


def _lowered(
    slope: Callable[[np.ndarray], tuple[float, np.ndarray]],
    frame: Frame,
    vector: np.ndarray,
    gradient: np.ndarray,
    climbed: int,
) -> np.ndarray:
    """Return where f − 2 g·v + ½ v·B v is low, v along the lowest modes, g the gradient here and B what is added."""
    modes, bend = frame.modes.vectors[:, :climbed], frame.added[:climbed]
    up = gradient @ modes

    def reflected(y: np.ndarray) -> tuple[float, np.ndarray]:
        step = frame.step(y)
        value, ahead = slope(vector + step)
        v = step @ modes
        return value - 2 * up @ v + v @ (bend * v) / 2, frame.slope(ahead + modes @ (bend * v - 2 * up))

    most = _CLIMBING if climbed else _DESCENDING
    options = {"maxcor": 30, "maxiter": 2**31 - 1, "maxfun": most, "ftol": 0.0, "gtol": 0.0}
    end = scipy.optimize.minimize(reflected, np.zeros_like(vector), jac=True, method="L-BFGS-B", options=options)
    return vector + frame.step(end.x)
