"""A search with Hessians as matrices: a descent, perhaps reflected, and `following`. Host-level."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from mlp_jax.critical.search import following, lbfgs, reflection, spectra
from mlp_jax.critical.search.following import Found
from mlp_jax.critical.search.of_pytrees import Settings
from mlp_jax.critical.search.programs import Programs

# Number of parameters above which a search first descends.
MATRICES = 200
# Number of parameters up to which a search for an index above _FEW first follows eigenvectors, for this share of its
# steps, and one for a lower index begins again if it fails.
FOLLOWED, _FEW, _FOLLOWING = 1000, 4, 0.2
# Share of the steps that a search for an index may use before it descends.
_LATE = 0.6
# Steps of a descent by L-BFGS before it continues in scaled coordinates.
_BRIEF = 100


def search(
    programs: Programs, start: np.ndarray, index: int | None, settings: Settings, tell: Callable[[int], None]
) -> tuple[Found, int]:
    """Return where the search from `start` ends, and the number of steps; `tell` is called with that of each."""
    typical = following.typical_size(start)
    objective = spectra.Matrices(programs.gradient, programs.matrix, programs.unit, typical, tell)
    most, few = settings.max_steps, index is None or index <= _FEW
    follow = functools.partial(following.follow, objective, index=index, max_hessians=most, radius=settings.radius)
    descend = functools.partial(_descended, objective, programs.slope, start, index, settings)
    if start.size <= MATRICES:
        found = follow(start)
    elif few or start.size > FOLLOWED:
        begin, descended = descend()
        found = follow(begin) if descended is None else descended
    else:
        found = follow(start, patience=max(1, int(_FOLLOWING * most)))
        if found.negative is None or following.missed(found, index):
            found = _closest([found, descend()[1]], index) or found
    return found, objective.hessians


def _descended(
    objective: spectra.Matrices,
    slope: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    index: int | None,
    settings: Settings,
) -> tuple[np.ndarray, Found | None]:
    """Return where the search continues if it must, and the critical point that a descent found."""
    longest = following.longest_step(start, settings.radius)
    reflect = functools.partial(reflection.reflect, objective, slope, longest=longest)
    near = functools.partial(objective.finish_near, longest=longest)
    most, begin, found = settings.max_steps, start, None

    def brief(most: int) -> Callable[[np.ndarray], bool]:
        last = min(most, objective.hessians + _BRIEF)
        return lambda _: objective.spend() < last

    if index is None:
        found = near(start, objective.gradient(start))
    elif index > 0:
        latest = int(_LATE * most)
        again = following.beside(start, following.typical_size(start), np.random.default_rng(0))
        for origin in [start, again] if index <= _FEW and start.size <= FOLLOWED else [start]:
            begin = lbfgs.descend_to_index(objective.negative, slope, origin, index, brief(latest))
            point = reflect(begin, index, most=latest)
            found = _closest([found, point], index)
            if objective.hessians >= latest or (point is not None and point.negative == index):
                break
    if found is None:
        begin, found = lbfgs.descend(slope, begin, near, brief(most))
    if found is None or (index == 0 and found.negative != 0):
        found = reflect(begin, None if index else index, most=most) or found
    return begin, found


def _closest(found: list[Found | None], index: int | None) -> Found | None:
    """Return the critical point whose index is closest to the one asked for."""
    known = [point for point in found if point is not None and point.negative is not None]
    return min(known, key=lambda point: following.missed(point, index), default=None)
