"""A descent of the function by L-BFGS to where Newton's steps contract, at a point of low index. Host-level.

With many parameters a step that uses the Hessian costs hundreds of products, and a step of L-BFGS one gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import scipy.optimize

from mlp_jax.critical.search.contract import RUN_OFF
from mlp_jax.critical.search.following import Found
from mlp_jax.curvature.deflation import Deflation

# Gradients that count as one step, and vectors kept.
GRADIENTS, _KEPT = 20, 30
# Newton's steps are tried where the gradient norm has fallen to this share of the first, and of that at the last try.
_FIRST_TRY, _NEXT_TRY = 1e-4, 0.1
# A descent to an index ends where the number of negative eigenvalues is no more than this multiple of it.
_EXCESS = 3


class _Ended(Exception):
    """The descent has found a critical point, or used its steps."""


def descend(
    slope: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    finish: Callable[[np.ndarray, np.ndarray], Found | None],
    spend: Callable[[np.ndarray], bool],
    scaling: Deflation | None = None,
) -> tuple[np.ndarray, Found | None]:
    """Return where the gradient was least on the descent from `start`, and the critical point that `finish` reached.

    Parameters
    ----------
    slope
        vector -> (value, gradient).
    finish
        (vector, gradient) -> the critical point that Newton's steps reach, or None.
    spend
        Called as spend(vector) once for each `GRADIENTS` gradients; returns whether there may be more.
    scaling
        Coordinates in which it descends.
    """
    least, tried, highest, found, count = (np.inf, start), np.inf, np.inf, None, 0
    begin = start if scaling is None else np.zeros_like(start)
    longest = RUN_OFF * max(1.0, float(np.linalg.norm(start)))

    def evaluate(place: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal least, tried, highest, found, count
        vector = place if scaling is None else start + scaling(place)
        value, gradient = slope(vector)
        size, count = float(np.linalg.norm(gradient)), count + 1
        if count == 1:
            tried = highest = _FIRST_TRY / _NEXT_TRY * size
        if size < least[0]:
            least = size, vector.copy()
        if size > tried / _NEXT_TRY**2:  # another valley
            tried = highest
        if size <= _NEXT_TRY * tried:
            tried, found = size, finish(vector, gradient)
        far = not np.linalg.norm(vector) <= longest
        if far or found is not None or (count % GRADIENTS == 0 and not spend(vector)):
            raise _Ended
        return float(value), gradient if scaling is None else scaling(gradient)

    with contextlib.suppress(_Ended):
        options = {"maxcor": _KEPT, "maxiter": 2**31 - 1, "maxfun": 2**31 - 1, "ftol": 0.0, "gtol": 0.0}
        scipy.optimize.minimize(evaluate, begin, jac=True, method="L-BFGS-B", options=options)
        found = finish(least[1], slope(least[1])[1])  # the value no longer falls
    return least[1], found


def descend_to_index(
    negative: Callable[[np.ndarray], int],
    slope: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    index: int,
    spend: Callable[[np.ndarray], bool],
) -> np.ndarray:
    """Return the first point on a descent whose Hessian has few negative eigenvalues for the index, or the last."""
    here, calls, next_look = start, 0, 4

    def above(vector: np.ndarray) -> bool:
        nonlocal here, calls, next_look
        here, calls = vector.copy(), calls + 1
        if calls < next_look:
            return spend(vector)
        next_look += max(1, calls // 2)
        return spend(vector) and negative(vector) > _EXCESS * index

    if negative(start) > _EXCESS * index:
        descend(slope, start, lambda vector, gradient: None, above)
    return here
