"""Block Lanczos with thick restarts: grow a Space until the wanted ends of the spectrum have converged."""

import math
from typing import NamedTuple

import numpy as np

from mlp_jax.curvature.krylov_space import Space

# Rows of a basis beyond two for each wanted pair and two blocks.
SPARE_ROWS = 12
# Fraction of the basis that a restart keeps.
_KEPT = 0.4
# Failure probability of the search of the complement from a random vector.
_MISSED = 1e-3


class Wanted(NamedTuple):
    """How many eigenpairs of each end are wanted."""

    smallest: int
    largest: int

    @property
    def total(self) -> int:
        """The number of pairs."""
        return self.smallest + self.largest

    def ends(self, size: int) -> np.ndarray:
        """Return the wanted positions among `size` ascending values."""
        return np.concatenate([np.arange(self.smallest), np.arange(size - self.largest, size)])


def solve(space: Space, wanted: Wanted, target: float, budget: int) -> bool:
    """Grow a space until residual estimates of the wanted pairs are at most target · ‖H‖ and none can be missing.

    The wanted pairs are then at the ends of `space.ritz()`. Returns whether `budget` products were enough.
    """
    complete = False
    while not complete and _search(space, wanted, target, budget) and space.products < budget:
        complete = _search_complement(space, wanted, target, budget)
    return complete


def _search(space: Space, wanted: Wanted, target: float, budget: int) -> bool:
    """Extend the space, restarting when it is full, until the wanted Ritz values converge; return whether they did."""
    while not _settled(space, wanted, target):
        if space.products >= budget:
            return False
        if _room(space) < space.block:
            _restart(space, wanted, target)
        if space.pending == 0:
            space.add_random(space.block)
        # More frequent checks would cost more than the products that they save.
        steps = max(2 * space.block, wanted.total - space.position, space.position // 12)
        space.extend(min(steps, budget - space.products, _room(space)))
    return True


def _room(space: Space) -> int:
    """Return how many products fit; a basis that can hold the whole space needs no limit."""
    return space.size if space.rows == space.size else space.rows - space.used


def _settled(space: Space, wanted: Wanted, target: float) -> bool:
    if space.position < wanted.total:
        return False
    values, _, residuals = space.ritz()
    return bool(np.all(residuals[wanted.ends(len(values))] <= target * np.max(np.abs(values))))


def _restart(space: Space, wanted: Wanted, target: float) -> None:
    """Keep the wanted Ritz vectors and their neighbours, more at the end with more unconverged pairs."""
    values, _, residuals = space.ritz()
    unsettled = residuals > target * np.max(np.abs(values))
    low, high = wanted
    fitting = min(len(values), space.rows - space.pending - space.block - SPARE_ROWS // 2) - low - high
    spare = max(0, min(max(int(_KEPT * len(values)) - low - high, 6), fitting))
    todo = (low > 0) + 9 * np.sum(unsettled[:low]), (high > 0) + 9 * np.sum(unsettled[len(values) - high :])
    extra = round(spare * todo[0] / sum(todo))
    space.restart(Wanted(low + extra, high + spare - extra).ends(len(values)))


# --- Eigenvectors that the starting vectors lack -----------------------------------------------------------------


def _search_complement(space: Space, wanted: Wanted, target: float, budget: int) -> bool:
    """Run Lanczos from a random vector orthogonal to the whole space; return whether it shows that nothing is missing.

    On span(basis)⊥ the operator is compressed, B = (I − VVᵀ) H (I − VVᵀ): a missed eigenvector is one of B too, while
    B's other values lie inside the ends that the basis reaches. Vectors found join the space. The failure probability
    is known only while the basis has room; after a restart the residuals alone decide.
    """
    if space.rows < space.size:
        _make_room(space, wanted)
    if space.used == space.rows:
        return True
    known = space.ritz()[0]
    waiting = space.freeze()
    space.add_random(1)
    fresh, found, done = True, False, False
    while not done and space.products < budget:
        if _room(space) == 0:
            _restart_complement(space)
            fresh = False
        steps = max(4, (space.position - space.frozen) // 4)
        space.extend(min(steps, budget - space.products, _room(space)))
        found, done = _verdict(space, wanted, known, target, fresh)
    space.thaw(waiting, merge=found)
    return done and not found


def _make_room(space: Space, wanted: Wanted) -> None:
    """Leave at least half of the basis for the complement; at worst keep only the wanted pairs."""
    if space.used <= space.rows // 2:
        return
    values = space.ritz()[0]
    many = space.pending > space.rows // 10
    spare = 0 if many else max(0, int(_KEPT * space.rows) - wanted.total - space.pending)
    at_low = round(spare * wanted.smallest / wanted.total)
    kept = Wanted(wanted.smallest + at_low, wanted.largest + spare - at_low)
    if many or kept.total < len(values):
        space.restart(kept.ends(len(values)), keep_pending=not many)


def _restart_complement(space: Space) -> None:
    size = len(space.ritz()[0])
    half = max(1, int(_KEPT * size) // 2)
    space.restart(Wanted(half, half).ends(size))


def _verdict(space: Space, wanted: Wanted, known: np.ndarray, target: float, fresh: bool) -> tuple[bool, bool]:
    """Return (whether the complement holds a value beyond the wanted ones, whether the search is done)."""
    values, _, residuals = space.ritz()
    slack = target * max(np.max(np.abs(known)), np.max(np.abs(values)))
    steps = len(values) if fresh else None
    ends = []
    if wanted.smallest:
        ends.append(_end(known[: wanted.smallest], values, residuals, slack, steps, space.size))
    if wanted.largest:
        known_top = -known[::-1][: wanted.largest]
        ends.append(_end(known_top, -values[::-1], residuals[::-1], slack, steps, space.size))
    found = any(end[0] for end in ends)
    return found, space.pending == 0 or all(end[1] for end in ends)


def _end(
    known: np.ndarray, values: np.ndarray, residuals: np.ndarray, slack: float, steps: int | None, size: int
) -> tuple[bool, bool]:
    """Return (found, done) at the lower end: `known` the wanted values, `values` the complement's, both ascending."""
    edge = np.sort(np.concatenate([known, values]))[len(known) - 1]
    beyond = int(np.sum((values < known[-1] - slack) & (values <= edge)))
    if np.any(residuals[:beyond] > slack) or beyond == len(values):
        return beyond > 0, False
    value, residual = values[beyond], residuals[beyond]
    if residual <= slack:
        return beyond > 0, True
    clear = value - residual >= edge
    width = values[-1] + residuals[-1] - edge
    return beyond > 0, bool(clear and (steps is None or _miss_probability(value - edge, width, steps, size) <= _MISSED))


def _miss_probability(error: float, width: float, steps: int, size: int) -> float:
    """Bound the probability that the extreme Ritz value is wrong by `error` (Kuczyński and Woźniakowski 1992)."""
    return 1.648 * math.sqrt(size) * math.exp(-math.sqrt(max(0.0, error / width)) * (2 * steps - 1))
