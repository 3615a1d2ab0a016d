"""Branches of critical points in a parameter s: pseudo-arclength continuation of g(x, s) = 0. Host-level, numpy.

A point of a branch is one vector y = (x, s). Steps go along the tangent of the branch and are corrected in the
hyperplane across it, where the bordered matrix of Newton's method is regular, also at a fold (Keller 1977; Allgower &
Georg 1990, Numerical Continuation Methods). It is singular where branches meet, at a bifurcation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

# y (P + 1,) -> the gradient (P,), the Hessian (P, P) and dg/ds (P,) there.
Equations = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]

# Lengths of steps, here and below relative to 1 + ‖y‖.
_LONGEST, _SHORTEST = 0.25, 1e-6
# Several eigenvalues that change sign in a step of this length or less are taken to do so together.
_TOGETHER = 1e-3
# What a step aims at: the contraction of Newton's method, and the angle between the tangents; the largest angle.
_CONTRACTION, _ANGLE, _MAX_ANGLE = 0.1, 0.2, 0.6
# A branch whose point becomes this much longer than its start has run off.
_RUN_OFF = 1e3


class Place(NamedTuple):
    """A point of a branch.

    at
        (P + 1,) x and s.
    tangent
        (P + 1,) the unit tangent, in the direction of the walk.
    values
        (P,) eigenvalues of the Hessian, rising.
    contraction
        Largest ratio of successive Newton steps on the way here.
    """

    at: np.ndarray
    tangent: np.ndarray
    values: np.ndarray
    contraction: float = 0.0

    @property
    def negative(self) -> int:
        """Return the number of negative eigenvalues, the index."""
        return int(np.sum(self.values < 0))

    def turned(self) -> Place:
        """Return the same point with the opposite direction."""
        return self._replace(tangent=-self.tangent)


class Limits(NamedTuple):
    """When Newton's method has converged, by the length of its step, and when it has failed."""

    close: float = 1e-5
    contraction: float = 0.5
    steps: int = 6


# Along a branch, and at a chosen parameter.
_ALONG, _AT_PARAMETER = Limits(), Limits(1e-8, 0.9, 10)


def correct(equations: Equations, guess: np.ndarray, normal: np.ndarray, limits: Limits = _ALONG) -> Place:
    """Return the point of a branch in the hyperplane through `guess` with this normal; its tangent has normal · t > 0.

    LinAlgError if Newton's method does not converge.
    """
    at, before, contraction = guess, np.inf, 0.0
    for _ in range(limits.steps):
        gradient, matrix, slope = equations(at)
        bordered = bordered_matrix(matrix, slope, normal)
        right = np.zeros((len(at), 2))
        right[:-1, 0], right[-1] = -gradient, (normal @ (guess - at), 1)
        if not (np.isfinite(bordered).all() and np.isfinite(right).all()):
            break
        move, tangent = _solved(bordered, right).T
        length = float(np.linalg.norm(move))
        contraction = max(contraction, length / before)
        if not contraction <= limits.contraction:
            break
        at, before = at + move, length
        if length <= limits.close * scale(at):
            return Place(at, tangent / np.linalg.norm(tangent), np.linalg.eigvalsh(matrix), contraction)
    raise np.linalg.LinAlgError("Newton's method did not converge to a point of a branch.")


def at_parameter(equations: Equations, x: np.ndarray, s: float) -> Place:
    """Return the critical point near x at the parameter s, in the direction of rising s; errors as `correct`."""
    upwards = np.zeros(len(x) + 1)
    upwards[-1] = 1
    place = correct(equations, np.append(x, s), upwards, _AT_PARAMETER)
    place.at[-1] = s  # exactly
    return place


def branch(equations: Equations, start: Place, length: float) -> Iterator[tuple[Place, Place]]:
    """Yield the steps of a walk along a branch, each as its two ends; the first has this length, or is shorter.

    The walk ends where the branch closes on itself, runs off, or no step succeeds.
    """
    place, number = start, 0
    while length > _SHORTEST * scale(place.at) and scale(place.at) < _RUN_OFF * scale(start.at):
        try:
            new = correct(equations, place.at + length * place.tangent, place.tangent)
        except np.linalg.LinAlgError:
            length /= 4
            continue
        angle = float(np.arccos(min(1.0, place.tangent @ new.tangent)))
        several = abs(new.negative - place.negative) > 1 and length > _TOGETHER * scale(place.at)
        if angle > _MAX_ANGLE or several:
            length /= 2
            continue
        yield place, new
        number += 1
        if number > 2 and _passes(place, new, start):
            return
        factor = min(np.sqrt(_CONTRACTION / max(new.contraction, 1e-3)), _ANGLE / max(angle, 1e-3))
        length = min(length * float(np.clip(factor, 0.5, 2)), _LONGEST * scale(new.at))
        place = new


def crossings(equations: Equations, old: Place, new: Place, s: float) -> list[Place]:
    """Return the points of the branch at parameter s within a step, in order, in the direction of the walk."""
    length = np.linalg.norm(new.at - old.at)
    # The cubic that has the ends and the tangents of the step: it also shows two crossings beside a fold.
    first, rise = length * old.tangent, new.at - old.at
    last = length * new.tangent
    cubic = np.array([first + last - 2 * rise, 3 * rise - 2 * first - last, first, old.at])
    roots = np.roots(cubic[:, -1] - (0, 0, 0, s))
    real = np.sort(roots.real[np.abs(roots.imag) < 1e-9])
    found = []
    for part in real[(real > 1e-6) & (real <= 1 + 1e-6)]:
        guess = part ** np.arange(3, -1, -1) @ cubic
        try:
            place = at_parameter(equations, guess[:-1], s)
        except np.linalg.LinAlgError:
            continue
        if np.linalg.norm(place.at - guess) <= length:
            slope = np.polyval(np.polyder(cubic[:, -1]), part)
            found.append(place if slope > 0 else place.turned())
    return found


def _solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:  # exactly at a bifurcation
        return np.linalg.lstsq(matrix, right)[0]


def bordered_matrix(matrix: np.ndarray, slope: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return the matrix of Newton's method, (P + 1, P + 1): the derivative of g by y above the normal."""
    return np.vstack([np.column_stack([matrix, slope]), normal])


def _passes(old: Place, new: Place, start: Place) -> bool:
    """Return whether a step passes the start of the walk in its direction."""
    across = start.at - old.at
    along = old.tangent @ across
    length = np.linalg.norm(new.at - old.at)
    beside = np.linalg.norm(across - along * old.tangent)
    return bool(0 <= along <= length and beside <= 0.2 * length and old.tangent @ start.tangent > 0.8)


def scale(at: np.ndarray) -> float:
    """Return 1 + ‖y‖, the unit of lengths."""
    return 1 + float(np.linalg.norm(at))
