"""Follow eigenvectors to a critical point on the host, with one eigenbasis for several steps. Host-level.

The step is that of `eigenvector_following`. An eigenbasis serves for up to five steps, as long as it predicts the
change of the gradient: the modes keep their order, and a step costs one gradient. Wherever Newton's steps contract,
they are followed to the critical point, whatever its index; if that is not the one asked for, the search continues. A
search for an index that makes no progress restarts beside a critical point of an index close to it or, where none has
been found, at multiples of its start, those first where the inertia of the Hessian is closest to the index. After that
it continues from where it is, and climbs fewer modes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from mlp_jax.critical.search.contract import RUN_OFF, Reason
from mlp_jax.critical.search.eigenbasis import Basis, Newton
from mlp_jax.critical.search.eigenvector_following import HALVE, REJECT

# Steps in one eigenbasis.
_STEPS = 5
# Error of the model, relative to the step, below which the radius is doubled after the last step in a basis, and below
# which it is doubled after any step, even beyond the longest.
_DOUBLE, _EXACT = 0.4, 1e-3
# A search has stalled when the least gradient norm falls by less than this factor in so many steps.
_STALLED, _WINDOW = 0.7, 30
# Multiples of the start from which a search for an index restarts, unless the Hessian there has fewer negative
# eigenvalues than this share of the index; number of restarts at the start itself, where these would lead elsewhere;
# size of the noise added, relative to params.
_MULTIPLES, _ENOUGH, _TRIES, _NOISE = (0.1, 0.2, 0.35, 0.5, 0.7, 1.3), 0.5, 4, 0.05
# A search restarts beside a point whose index misses by no more than this, so many times, at this distance relative to
# params.
_CLOSE, _KICKS, _KICK = 3, 2, 0.15
# Factor by which the aim is lowered where a search continues.
_LOWER = 0.5
# Number of attempts, and of parts of the Hessians allowed; an attempt may use one part.
_ATTEMPTS, _PARTS = 12, 5
# Without a chosen index the aim is this share of the start's negative eigenvalues, and no more than so many; after a
# search that ran off it is all of them.
_SHARE, _MOST = 3, 12
# Newton's steps contract when the second is no longer than this share of the first.
CONTRACTS = 0.4


class _Trust(NamedTuple):
    """The trust radius, the longest it may be, and whether that may grow."""

    radius: float
    longest: float
    grows: bool

    @classmethod
    def begin(cls, start: np.ndarray, longest: float | None) -> _Trust:
        """Return the radius at the start of a search, for which the caller may choose the longest."""
        first = longest_step(start, longest)
        return cls(first, first, longest is None)

    def adapted(self, error: float, length: float, age: int) -> _Trust:
        """Return the radius after a step of this length with this error of the model, the basis `age` steps old."""
        if error > HALVE:  # of which the age is a part
            return self._replace(radius=min(self.radius, length) / 2 ** (1 / (1 + age)))
        if error >= _DOUBLE or (age < _STEPS - 1 and error >= _EXACT):
            return self
        longest = max(self.longest, 2 * self.radius) if error < _EXACT and self.grows else self.longest
        return self._replace(radius=min(2 * self.radius, longest), longest=longest)


class Found(NamedTuple):
    """Where a search ended; `negative` is the index of the critical point there, None where none was reached."""

    vector: np.ndarray
    gradient: np.ndarray
    negative: int | None
    reason: Reason


class Objective(Protocol):
    """A function of one vector, as searched; `hessians` counts the points at which the Hessian was used."""

    unit: float
    hessians: int

    def gradient(self, vector: np.ndarray) -> np.ndarray:
        """Return the gradient."""
        ...

    def look(self, vector: np.ndarray, gradient: np.ndarray) -> Callable[[np.ndarray], Basis] | None:
        """Return the function from a gradient to an eigenbasis of the Hessian at vector.

        A basis of a subspace contains that gradient. None where the Hessian is not finite.
        """
        ...

    def finish(self, vector: np.ndarray, gradient: np.ndarray, longest: float) -> Found | None:
        """Return where Newton's steps end, at the level of rounding; None if they do not contract."""
        ...


def follow(
    objective: Objective,
    start: np.ndarray,
    index: int | None,
    max_hessians: int,
    radius: float | None,
    patience: int | None = None,
) -> Found:
    """Return where a search for an index (None: any) ends, at most `patience` Hessians after it began."""
    generator = np.random.default_rng(0)
    near = functools.partial(beside, typical=typical_size(start), generator=generator)
    origin, aim, share, best, kicks = start, index, _SHARE, None, 0
    origins: list[np.ndarray] | None = None

    for attempt in range(_ATTEMPTS):
        most = min(patience or max_hessians, objective.hessians + max(1, max_hessians // _PARTS))
        ended, aim = _attempt(objective, origin, index, aim, radius, most, share)
        if attempt == 0 or ended.reason != Reason.NOT_FINITE:  # a restart may lie outside the domain
            found = ended
        if found.negative is not None and (best is None or missed(found, index) < missed(best, index)):
            best, kicks = found, 0
        if objective.hessians >= (patience or max_hessians) or found.reason == Reason.NOT_FINITE:
            break
        if best is not None and missed(best, index) == 0:
            break
        if index is None and np.linalg.norm(found.vector) > RUN_OFF * max(1.0, float(np.linalg.norm(start))):
            origin, aim, share = start if share == _SHARE else near(start), None, 1
            continue
        if index is not None:
            if best is not None and missed(best, index) <= _CLOSE and kicks < _KICKS:
                origin, aim, kicks = kicked(objective, best, index, generator, _KICK), index, kicks + 1
                continue
            if origins is None:
                origins = _origins(objective, start, index, found)
            if origins:
                origin, aim = near(origins.pop(0)), index
                continue
        if best is not None:
            break
        origin, aim = found.vector, int(_LOWER * aim)
    return best or found


def beside(vector: np.ndarray, typical: float, generator: np.random.Generator) -> np.ndarray:
    """Return a vector with noise, relative to each component or, for small ones, to a typical size."""
    return vector + _NOISE * np.maximum(np.abs(vector), typical) * generator.standard_normal(vector.size)


def _origins(objective: Objective, start: np.ndarray, index: int, first: Found) -> list[np.ndarray]:
    """Return multiples of the start, those first whose inertia is closest to the index, as a ratio.

    The start itself, if its inertia is below the index, as one rung down a ladder, or if the first search from it ended
    on a tail.
    """
    tail = np.linalg.norm(first.gradient) <= np.sqrt(objective.unit) * np.linalg.norm(objective.gradient(start))
    here = _inertia(objective, start)
    if tail or here is None or here < index:
        return _TRIES * [start]
    ranked = list[tuple[float, np.ndarray]]()
    for multiple in _MULTIPLES:
        vector = multiple * start
        inertia = _inertia(objective, vector)
        if inertia is not None and inertia >= _ENOUGH * index:
            ranked.append((abs(np.log((inertia + 1) / (index + 1))), vector))
    return [vector for _, vector in sorted(ranked, key=lambda pair: pair[0])]


def _inertia(objective: Objective, vector: np.ndarray) -> int | None:
    gradient = objective.gradient(vector)
    basis_for = objective.look(vector, gradient)
    return None if basis_for is None else int(np.sum(basis_for(gradient).values < 0))


def kicked(
    objective: Objective, near: Found, index: int, generator: np.random.Generator, distance: float
) -> np.ndarray:
    """Return a point beside a critical point, along the modes whose signs must change for the index."""
    basis_for = objective.look(near.vector, near.gradient)
    assert basis_for is not None
    assert near.negative is not None
    basis = basis_for(near.gradient)
    along = np.zeros(len(basis.values))
    modes = slice(*sorted((near.negative, index)))
    along[modes] = generator.choice([-1.0, 1.0], along[modes].size)
    length = float(np.linalg.norm(near.vector)) or 1.0
    return near.vector + distance * length * basis.vector(along / (np.linalg.norm(along) or 1))


def longest_step(start: np.ndarray, radius: float | None) -> float:
    """Return the longest step: the one chosen, or a sixth of the parameters."""
    return max(1.0, float(np.linalg.norm(start))) / 6 if radius is None else radius


def typical_size(start: np.ndarray) -> float:
    """Return the mean size of the parameters, or 1 where all are zero."""
    return float(np.mean(np.abs(start))) or 1.0


def missed(found: Found, index: int | None) -> int:
    """Return by how much the index of a critical point misses the one asked for."""
    return 0 if index is None or found.negative is None else abs(found.negative - index)


def _attempt(
    objective: Objective,
    start: np.ndarray,
    index: int | None,
    aim: int | None,
    radius: float | None,
    most: int,
    share: int,
) -> tuple[Found, int]:
    """Return where the search from one start ends, and how many modes it climbed."""
    vector, gradient = start, objective.gradient(start)
    trust = _Trust.begin(start, radius)
    age, reason = _STEPS, Reason.NO_DESCENT
    least, known = [float(np.linalg.norm(gradient))], list[Found]()
    while objective.hessians < most:
        fresh = age >= _STEPS
        if fresh:
            basis_for, age = objective.look(vector, gradient), 0
            if basis_for is None or not np.all(np.isfinite(gradient)):
                return Found(vector, gradient, None, Reason.NOT_FINITE), aim or 0
        assert basis_for is not None
        basis = basis_for(gradient)
        if aim is None:
            aim = min(_MOST, int(np.sum(basis.values < 0)) // share)
        point = harvest(objective, basis, basis_for, vector, gradient, trust.longest, known) if fresh else None
        if point is not None:
            known.append(point)
            if missed(point, index) == 0:
                break
        damping = _damping(basis, gradient, trust.radius)
        step = _step(basis, gradient, aim, damping)
        length = float(np.linalg.norm(step))
        if not length > 0:
            break
        there = vector + basis.vector(step)
        ahead = objective.gradient(there)
        error = _error(basis, ahead - gradient, step, damping)
        trust = trust.adapted(error, length, age)
        if error <= REJECT:
            vector, gradient, age = there, ahead, age + 1
            least.append(min(least[-1], float(np.linalg.norm(gradient))))
        if _stalled(least) or (error > REJECT and trust.radius <= objective.unit * np.linalg.norm(vector)):
            break
        if error > HALVE and age > 0:
            age = _STEPS
    else:
        reason = Reason.MAX_STEPS
    nearest = min(known, key=lambda point: missed(point, index), default=None)
    return nearest or Found(vector, gradient, None, reason), aim or 0


def _stalled(least: list[float]) -> bool:
    """Return whether the least gradient norm so far, after each step, no longer falls."""
    return len(least) > _WINDOW + 10 and least[-1] > _STALLED * least[-_WINDOW]


def _error(basis: Basis, change: np.ndarray, step: np.ndarray, damping: float) -> float:
    """Return the error of the model over the step, relative to the step."""
    if not np.all(np.isfinite(change)):
        return np.inf
    wrong = basis.along(change) - basis.values * step
    error = float(np.linalg.norm(wrong / (basis.sizes + damping)) / np.linalg.norm(step))
    return np.inf if np.isnan(error) else error


def _damping(basis: Basis, gradient: np.ndarray, radius: float) -> float:
    """Return the least μ ≥ 0, to 1 %, for which |c| / (|Λ| + μ) is no longer than the radius."""
    along = basis.along(gradient)

    def length(damping: float) -> float:
        return float(np.linalg.norm(along / (basis.sizes + damping)))

    if length(0.0) <= radius:
        return 0.0
    high = float(np.linalg.norm(along)) / radius
    low = max(high - float(np.max(basis.sizes)), 1e-6 * high)
    while high > 1.01 * low:
        middle = np.sqrt(low * high)
        low, high = (middle, high) if length(middle) > radius else (low, middle)
    return high


def _step(basis: Basis, gradient: np.ndarray, climbed: int, damping: float) -> np.ndarray:
    """Return σ c / (|Λ| + μ), in the eigenbasis: up along the lowest modes, down along the others."""
    along = basis.along(gradient)
    along[climbed:] *= -1
    return along / (basis.sizes + damping)


def harvest(
    objective: Objective,
    basis: Newton,
    basis_for: Callable[[np.ndarray], Newton],
    vector: np.ndarray,
    gradient: np.ndarray,
    longest: float,
    known: list[Found],
) -> Found | None:
    """Return the critical point that Newton's steps reach from here, if they contract and it is not a known one."""
    step = basis.newton(gradient, longest / 2)
    size = float(np.linalg.norm(step))
    level = 4 * objective.unit * (1 + float(np.linalg.norm(vector)))
    contracts = CONTRACTS if size <= longest / 2 else _EXACT
    if not np.isfinite(size) or any(np.linalg.norm(vector + step - other.vector) <= size + level for other in known):
        return None
    ahead = objective.gradient(vector + step)
    if not np.all(np.isfinite(ahead)):
        return None
    if not np.linalg.norm(basis_for(ahead).newton(ahead, longest / 2)) <= max(contracts * size, level):
        return None
    return objective.finish(vector + step, ahead, max(longest, size))
