"""Bifurcations of branches of critical points: where they are, and the other branches that meet there. Host-level."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import scipy.optimize

from mlp_jax.critical.search.arclength import Equations, Limits, Place, bordered_matrix, correct, scale

# Newton's method at a bifurcation, where it converges slowly, and from a rough guess beside one.
_AT, _BESIDE = Limits(1e-7, np.inf, 20), Limits(1e-5, np.inf, 15)
# How far from a bifurcation the other branches are entered; the second where the first fails.
_DISTANCES = (1e-2, 1e-3)
# Directions tried for each dimension of the kernel, where it has more than one.
_DIRECTIONS = 6


class Bifurcation(NamedTuple):
    """A point where branches meet, and the dimension of the space that their tangents span beyond the walk's own."""

    place: Place
    dimension: int


def located(equations: Equations, old: Place, new: Place) -> Bifurcation | None:
    """Return the bifurcation that a step passes; None if there is none, or it cannot be located.

    At a fold ds/dτ changes sign, and the index by one. Anything else is a bifurcation: a change of the index without a
    fold, or a change of that sign without one of the index, as on the sides of a pitchfork.
    """
    change = abs(new.negative - old.negative)
    if change == (old.tangent[-1] * new.tangent[-1] < 0):
        return None
    number = min(old.negative, new.negative) + (change - 1) // 2

    def place(length: float) -> Place:
        return correct(equations, old.at + length * old.tangent, old.tangent, _AT)

    def test(length: float) -> float:
        here = place(length)
        return float(here.values[number] if change else here.tangent[-1])

    whole = float(old.tangent @ (new.at - old.at))
    try:
        # Beside the turn of a pitchfork the sign of ds/dτ is soon rounding.
        within = (1e-7 if change else 2e-3) * scale(old.at)
        length = scipy.optimize.brentq(test, 0, whole, xtol=within, rtol=1e-8)
        return Bifurcation(place(length), max(1, change))
    except (np.linalg.LinAlgError, ValueError):  # ValueError: the signs at the ends are rounding
        return None


def switched(equations: Equations, meeting: Bifurcation) -> list[Place]:
    """Return points of the other branches that meet at a bifurcation, each in the direction away from it."""
    place = meeting.place
    _, matrix, slope = equations(place.at)
    # Null vectors of the bordered matrix: tangents of the other branches, or sums of these and of the walk's own.
    kernel = np.linalg.svd(bordered_matrix(matrix, slope, place.tangent))[2][-meeting.dimension :]
    if meeting.dimension > 1:
        draws = np.random.default_rng(0).standard_normal((_DIRECTIONS * meeting.dimension, meeting.dimension))
        kernel = draws / np.linalg.norm(draws, axis=1, keepdims=True) @ kernel
    found: list[Place] = []
    for direction in itertools.chain.from_iterable(zip(kernel, -kernel, strict=True)):
        entered = _entered(equations, place.at, direction)
        if entered is not None and not any(_near(entered, other) for other in found):
            found.append(entered)
    return found


def _entered(equations: Equations, at: np.ndarray, direction: np.ndarray) -> Place | None:
    for beside in np.multiply(_DISTANCES, scale(at)):
        try:
            place = correct(equations, at + beside * direction, direction, _BESIDE)
        except np.linalg.LinAlgError:
            continue
        if np.linalg.norm(place.at - at) <= 4 * beside:
            return place
    return None


def _near(one: Place, other: Place) -> bool:
    return bool(np.linalg.norm(one.at - other.at) <= _DISTANCES[-1] / 10 * scale(one.at))
