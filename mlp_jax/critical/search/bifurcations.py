"""Bifurcations of branches of critical points: where they are, and the other branches that meet there. Host-level."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import scipy.optimize

from mlp_jax.critical.search.arclength import Equations, Limits, Place, bordered_matrix, correct, scale

# Newton's method at a bifurcation, where it converges slowly, and from a rough guess beside one.
_AT, _BESIDE = Limits(1e-7, np.inf, 20), Limits(1e-5, np.inf, 15)
# Ratio of an eigenvalue at a bifurcation to that at an end of the step, below which it is taken to be zero.
_VANISHING = 0.02
# Distances from a bifurcation at which the other branches are entered; the second where the first fails.
_DISTANCES = (1e-2, 1e-3)
# Directions tried for each dimension, if there are several, and the cosine above which two are the same.
_DIRECTIONS, _SAME_WAY = 6, 0.999


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
        here = place(length)
    except (np.linalg.LinAlgError, ValueError):  # ValueError: the signs at the ends are rounding
        return None
    vanishing = np.abs(here.values) < _VANISHING * np.maximum(np.abs(old.values), np.abs(new.values))
    return Bifurcation(here, max(1, int(np.sum(vanishing))))


def switched(equations: Equations, meeting: Bifurcation) -> list[Place]:
    """Return points of the other branches that meet at a bifurcation, each in the direction away from it."""
    at, tangent = meeting.place.at, meeting.place.tangent
    _, matrix, slope = equations(at)
    # Null vectors of the bordered matrix: tangents of the other branches, or sums of these and of the walk's own.
    kernel = np.linalg.svd(bordered_matrix(matrix, slope, tangent))[2][-meeting.dimension :]
    attempts = [(way, False) for way in kernel]
    if meeting.dimension > 1:
        span = np.vstack([kernel, tangent])
        draws = np.random.default_rng(0).standard_normal((_DIRECTIONS * len(span), len(span)))
        attempts += [(way, True) for way in draws / np.linalg.norm(draws, axis=1, keepdims=True) @ span]
    ways, found = [tangent, -tangent], []
    for (direction, balanced), sign in itertools.product(attempts, (1, -1)):
        entered = _entered(equations, at, sign * direction, balanced)
        if entered is not None:
            way = (entered.at - at) / np.linalg.norm(entered.at - at)
            if all(way @ other < _SAME_WAY for other in ways):
                ways.append(way)
                found.append(entered)
    return found


def _entered(equations: Equations, at: np.ndarray, direction: np.ndarray, balanced: bool) -> Place | None:
    """Return a point of a branch that leaves `at` near this direction, one of `_DISTANCES` away."""
    for distance in np.multiply(_DISTANCES, scale(at)):
        try:
            guess = at + distance * direction
            guess = _balanced(equations, guess, direction) if balanced else guess
            away = correct(equations, guess, direction, _BESIDE).at
            length = np.linalg.norm(away - at)
            if length <= 4 * distance:
                way = (away - at) / length
                return correct(equations, at + distance * way, way, _BESIDE)
        except np.linalg.LinAlgError:
            continue
    return None


def _balanced(equations: Equations, at: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return a point beside a bifurcation with s such that the gradient in this direction is about zero.

    From there Newton's method goes to the nearest branch, where the kernel has several dimensions.
    """
    gradient, _, slope = equations(at)
    value, change = direction[:-1] @ gradient, direction[:-1] @ slope
    moved = at.copy()
    if abs(value) < _DISTANCES[0] * abs(change):
        moved[-1] -= value / change
    return moved
