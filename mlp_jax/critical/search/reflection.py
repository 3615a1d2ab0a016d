"""Minimise a function that is reflected along its lowest modes, to a critical point of a chosen index. Host-level.

With hundreds of parameters an eigenbasis costs as much as hundreds of gradients, and the few steps of `following` in
each are the slow part. Here L-BFGS minimises, in coordinates scaled so that curvature is about one, the function whose
slope along the lowest modes has the other sign: it descends along all other modes as far as one eigenbasis serves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.optimize

from mlp_jax.critical.search import following
from mlp_jax.critical.search.following import Basis, Found, Objective

# Eigenbases used: so many in a descent; in a climb so many, or this number divided by that of parameters to the power
# 3/2, if that is less.
_ROUNDS, _CLIMBS, _WORK = 60, 120, 1.8e6
# Gradients in each, with and without modes that are climbed; distance climbed in each, relative to the parameters.
_CLIMBING, _DESCENDING, _CLIMB = 10, 300, 0.05
# Curvature, relative to the largest, below which a mode is scaled no further.
_FLAT = 1e-6


def reflect(
    objective: Objective,
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
    vector, known = start, list[Found]()
    rounds = min(_CLIMBS, int(_WORK / start.size**1.5)) if index else _ROUNDS
    for _ in range(rounds):
        gradient = slope(vector)[1]
        basis_for = objective.look(vector, gradient)
        if basis_for is None or objective.hessians >= most:
            break
        basis = basis_for(gradient)
        point = following.harvest(objective, basis, basis_for, vector, gradient, longest, known)
        if point is not None:
            known.append(point)
            if index is None or point.negative == index:
                break
            vector = following.kicked(objective, point, index, generator, _CLIMB)
            continue
        climb = min(longest, _CLIMB * max(1.0, float(np.linalg.norm(vector))))
        vector = _lowered(slope, basis, vector, gradient, index or 0, climb)
    return min(known, key=lambda point: following.missed(point, index), default=None)


def _lowered(
    slope: Callable[[np.ndarray], tuple[float, np.ndarray]],
    basis: Basis,
    vector: np.ndarray,
    gradient: np.ndarray,
    climbed: int,
    climb: float,
) -> np.ndarray:
    """Return where f − 2 g·v + ½ v·B v is low, v along the lowest modes and g the gradient here.

    B makes its curvature along v that of |f|, and as large as holds v to the length `climb`.
    """
    scale = 1 / np.sqrt(basis.sizes + _FLAT * np.max(basis.sizes))
    up, low = basis.along(gradient)[:climbed], scale[:climbed]
    bend = np.maximum(-2 * basis.values[:climbed], 0) + np.linalg.norm(up) / climb

    def reflected(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        value, ahead = slope(vector + basis.vector(scale * scaled))
        v, slopes = low * scaled[:climbed], scale * basis.along(ahead)
        slopes[:climbed] += low * (bend * v - 2 * up)
        return value - 2 * up @ v + v @ (bend * v) / 2, slopes

    most = _CLIMBING if climbed else _DESCENDING
    options = {"maxcor": 30, "maxiter": 2**31 - 1, "maxfun": most, "ftol": 0.0, "gtol": 0.0}
    end = scipy.optimize.minimize(reflected, np.zeros_like(vector), jac=True, method="L-BFGS-B", options=options)
    return vector + basis.vector(scale * end.x)
