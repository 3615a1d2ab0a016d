"""A walk over all branches of critical points that are connected to given points. Host-level, numpy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from mlp_jax.critical.search import arclength, bifurcations
from mlp_jax.critical.search.arclength import Equations, Place
from mlp_jax.curvature.types import Progress

# First step along a branch, and how far apart equal points and equal bifurcations may be, relative to 1 + their size.
_FIRST, _SAME, _SAME_BIFURCATION = 0.03, 1e-6, 1e-3
# Ratio of the smallest eigenvalue to the largest below which a point is not isolated: it has no branch to follow.
_SINGULAR = 1e-10


class Walk:
    """A walk over all branches that are connected to the starts; each part is walked once.

    Points at the wanted parameter, and bifurcations, are numbered as they are met. Two parts of a branch leave a point,
    of rising and of falling parameter; `covered` holds those that were walked, from either end. `branches` holds the
    points of each part, and `waiting` the first points of those that are not walked yet.
    """

    def __init__(self, equations: Equations, wanted: float, form: Callable[[np.ndarray], np.ndarray]) -> None:
        self.equations, self.wanted, self.form = equations, wanted, form
        self.points: list[np.ndarray] = []
        self.meetings: list[np.ndarray] = []
        self.covered: set[tuple[int, bool]] = set()
        self.found: list[np.ndarray] = []
        self.waiting: deque[list[Place]] = deque()
        self.branches: list[list[Place]] = []

    def run(
        self, starts: list[np.ndarray], low: float, high: float, max_steps: int, progress: Progress | None
    ) -> list[np.ndarray]:
        """Return the points found."""
        for x in starts:
            self._begin(x)
        steps = 0
        while self.waiting and steps < max_steps:
            begun = self.waiting.popleft()
            place = begun[-1]
            if place.at[-1] == self.wanted and not self._leave(place):
                continue
            self.branches.append(begun)
            for old, new in arclength.branch(self.equations, place, _FIRST * arclength.scale(place.at)):
                steps += 1
                if progress is not None:
                    progress(steps, max_steps)
                points = arclength.crossings(self.equations, old, new, self.wanted)
                if not all(self._arrive(point) for point in points):
                    break
                self.branches[-1].append(new)
                if not (low <= new.at[-1] <= high and self._branch_off(old, new)) or steps == max_steps:
                    break
        return self.found

    def _begin(self, x: np.ndarray) -> None:
        """Put the two parts that leave a given point in the queue, unless the point is not isolated."""
        try:
            place = arclength.at_parameter(self.equations, x, self.wanted)
        except np.linalg.LinAlgError:
            return
        sizes = np.abs(place.values)
        if np.min(sizes) > _SINGULAR * np.max(sizes):
            self._number(self.points, self.form(place.at[:-1]), _SAME)
            self.waiting += [[place], [place.turned()]]

    def _leave(self, place: Place) -> bool:
        """Return whether the part that leaves a point in this direction was not walked before."""
        number = self._number(self.points, self.form(place.at[:-1]), _SAME)
        part = number, bool(place.tangent[-1] > 0)
        first = part not in self.covered
        self.covered.add(part)
        return first

    def _arrive(self, place: Place) -> bool:
        """Note a point of a branch at the wanted parameter; return whether the branch goes on from it.

        The part that leads here is dropped from the branches if it was walked before, as a copy of itself.
        """
        before = len(self.points)
        self.branches[-1].append(place)
        if not self._leave(place.turned()):
            self.branches.pop()
        self.branches.append([place])
        if len(self.points) > before:
            self.found.append(place.at[:-1])
        return self._leave(place)

    def _branch_off(self, old: Place, new: Place) -> bool:
        """Put the branches that meet a step in the queue; return whether their bifurcation, if any, is new."""
        meeting = bifurcations.located(self.equations, old, new)
        if meeting is None:
            return True
        before = len(self.meetings)
        self._number(self.meetings, self._whole_form(meeting.place), _SAME_BIFURCATION)
        # An eigenvalue is zero there: its sign is that beside it.
        self.branches[-1][-1:] = [meeting.place._replace(values=old.values)]
        if len(self.meetings) == before:
            return False
        self.branches.append([meeting.place._replace(values=new.values), new])
        forms: list[np.ndarray] = []
        for place in bifurcations.switched(self.equations, meeting):
            if self._number(forms, self._whole_form(place), _SAME_BIFURCATION) == len(forms) - 1:
                self.waiting.append([meeting.place._replace(values=place.values), place])
        return True

    def _whole_form(self, place: Place) -> np.ndarray:
        return np.append(self.form(place.at[:-1]), place.at[-1])

    @staticmethod
    def _number(known: list[np.ndarray], form: np.ndarray, same: float) -> int:
        """Return the number of a form among those known, to which it is added if it is new."""
        for number, other in enumerate(known):
            if np.max(np.abs(form - other)) <= same * (1 + np.max(np.abs(other))):
                return number
        known.append(form)
        return len(known) - 1
