"""Branch and prune: every zero of a system in a box, by excluding, contracting and bisecting boxes until none is left.

A box is dropped if it has no zero, or lies in a box that is known to hold exactly one, which is listed. So when no box
is left, the zeros listed are all there are. Zeros are found by Newton's method on the way.
"""

import functools
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from joblib.externals.loky import get_reusable_executor

from mlp_jax import _parallel
from mlp_jax.interval.ball import Array
from mlp_jax.interval.contraction import Contracted

# Boxes tested at once: many enough to hide the interpreter, few enough to learn of new zeros soon.
BATCH = 4096
# Random points from which Newton's method starts before boxes are tested.
_STARTS = 64
# Boxes after which it pays to start processes (threads wait for each other between short operations), and the batches
# given to them at a time: the same number everywhere, so that results do not depend on the machine.
_LONG, _AHEAD = 50_000, 4
# Of glibc: keep memory that is freed, since numpy asks for the same sizes again.
_ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
# Boxes narrower than this share of the domain are left undecided.
_NARROWEST = 2.0**-45
# A box that keeps less than this share of its width in some coordinate is tested again before it is bisected.
# Coordinates that are so much thinner than the widest neither count in that nor are bisected.
_SHRUNK, _THIN = 0.6, 2.0**-7
# Newton's method starts from boxes that keep less than this share of their width in every coordinate, or are small.
_CONVERGING, _SMALL = 0.5, 2.0**-30


class Zero(NamedTuple):
    """Exactly one zero is in the box `unique`, and it is in the box `near`; each is (low, high)."""

    point: Array
    near: tuple[Array, Array]
    unique: tuple[Array, Array]


class System(Protocol):
    """Equations whose zeros are wanted; `picklable` says whether `contract` can be given to other processes."""

    picklable: bool

    def contract(self, low: Array, high: Array) -> Contracted:
        """Return what is left of boxes, (count, n)."""

    def polish(self, points: Array) -> Array:
        """Return where Newton's method leads, (count, n); NaN where it leads nowhere."""

    def enclose(self, points: Array) -> list[Zero]:
        """Return the zeros next to points of which there is a proof."""


class Boxes(NamedTuple):
    """Boxes with their shares of the volume of the domain: (count, n), (count, n), (count,)."""

    low: Array
    high: Array
    share: Array

    def chosen(self, which: Any) -> "Boxes":
        """Return some of the boxes."""
        return Boxes(*(x[which] for x in self))


class Explored(NamedTuple):
    """The zeros found, and the boxes that are neither excluded nor inside a box of one; how many were tested."""

    zeros: list[Zero]
    left: Boxes
    tested: int
    seconds: float


class _Tree:
    """The zeros found so far, and how boxes are tested."""

    def __init__(self, system: System, width: Array, zeros: list[Zero]) -> None:
        self.system = system
        self.width = width
        self.zeros = zeros

    def children(self, boxes: Boxes, found: Contracted) -> tuple[Boxes, Boxes, Boxes]:
        """Return the boxes to be tested again, those to be bisected with their halves, and those too narrow."""
        left, share, kept = self._left(boxes, found)
        wide = np.any(left.high - left.low > _NARROWEST * self.width, axis=1)
        before = ((boxes.high - boxes.low) / self.width)[kept]
        counts = before > _THIN * np.max(before, axis=1, keepdims=True)
        now = (left.high - left.low) / self.width
        shrunk = np.any((now < _SHRUNK * before) & counts, axis=1)
        share = np.where(now > _THIN * np.max(now, axis=1, keepdims=True), share, -1)
        again, split = left.chosen(wide & shrunk), left.chosen(wide & ~shrunk)
        return again, _bisected(split, share[wide & ~shrunk]), left.chosen(~wide)

    def _left(self, boxes: Boxes, found: Contracted) -> tuple[Boxes, Array, Array]:
        """Return what is left of boxes, how much each coordinate adds to the width, and which number each box had."""
        kept = np.flatnonzero(~found.empty & ~self._known(found.low, found.high))
        low, high, share = found.low[kept], found.high[kept], found.share[kept]
        # Where all coordinates shrink at once, Newton's method converges.
        before = np.maximum(boxes.high - boxes.low, _SMALL * self.width)[kept]
        near = np.all(high - low < _CONVERGING * before, axis=1)
        if self.find((low + high)[near] / 2):
            open_ = ~self._known(low, high)
            kept, low, high, share = kept[open_], low[open_], high[open_], share[open_]
        return Boxes(low, high, boxes.share[kept]), share, kept

    def _known(self, low: Array, high: Array) -> Array:
        known = np.zeros(len(low), bool)
        for zero in self.zeros:
            known |= np.all((low >= zero.unique[0]) & (high <= zero.unique[1]), axis=1)
        return known

    def find(self, starts: Array) -> bool:
        """Polish starts, and list the zeros that are new."""
        starts = starts[~self._known(starts, starts)]
        if not len(starts):
            return False
        ends = self.system.polish(starts)
        ends = ends[np.all(np.isfinite(ends), axis=1)]
        ends = _distinct(ends[~self._known(ends, ends)], self.width * _NARROWEST)
        before = len(self.zeros)
        for zero in self.system.enclose(ends) if len(ends) else []:
            if not any(_same(zero, other) for other in self.zeros):
                self.zeros.append(zero)
        return len(self.zeros) > before


def _distinct(points: Array, near: Array) -> Array:
    """Return points without those that are close to one before."""
    kept: list[Array] = []
    for point in points:
        if not any(np.all(np.abs(point - other) <= near) for other in kept):
            kept.append(point)
    return np.array(kept).reshape(-1, points.shape[1])


def _same(a: Zero, b: Zero) -> bool:
    """Return whether two zeros may be one: either is where the other is the only one."""
    return not bool(np.any((a.near[0] > b.near[1]) | (b.near[0] > a.near[1])))


def _bisected(boxes: Boxes, share: Array) -> Boxes:
    rows, axis = np.arange(len(boxes.low)), np.argmax(share, axis=1)
    middle = boxes.low[rows, axis] + (boxes.high[rows, axis] - boxes.low[rows, axis]) / 2
    low, high = boxes.low.copy(), boxes.high.copy()
    high[rows, axis], low[rows, axis] = middle, middle
    return Boxes(np.concatenate([boxes.low, low]), np.concatenate([high, boxes.high]), np.tile(boxes.share / 2, 2))


def explore(
    system: System,
    domain: Boxes,
    corners: tuple[Array, Array],
    zeros: list[Zero],
    *,
    max_boxes: float = np.inf,
    progress: Callable[[float], Any] | None = None,
    excluded: Callable[[Array, Array], Any] | None = None,
) -> Explored:
    """Return all zeros in boxes, or those found when a budget is spent, with the boxes left.

    domain
        The boxes, with their shares of the volume.
    corners
        Of the box that they are part of.
    zeros
        Those known before.
    progress
        Called with the share of the volume that is decided.
    excluded
        Called with the corners of the boxes that hold no zero, some at a time.
    """
    began = time.perf_counter()
    tree, stack, narrow = _Tree(system, corners[1] - corners[0], list(zeros)), [domain], list[Boxes]()
    tree.find(np.random.default_rng(0).uniform(*corners, (_STARTS, len(corners[0]))))
    tested, decided = 0, 1 - float(np.sum(domain.share))
    pending = deque[tuple[Boxes, Callable[[], Contracted]]]()
    with _parallel.one_blas_thread():
        while (stack or pending) and tested < max_boxes:
            far = system.picklable and tested > _LONG
            while stack and len(pending) < (_AHEAD if far else 1):
                batch, stack = _take(stack, BATCH)
                work = functools.partial(system.contract, batch.low, batch.high)
                pending.append((batch, _elsewhere(work) if far else work))
            batch, result = pending.popleft()
            found = result()
            if excluded is not None:
                excluded(batch.low[found.empty], batch.high[found.empty])
            again, halves, small = tree.children(batch, found)
            stack += [part for part in (again, halves) if len(part.low)]
            narrow.append(small)
            tested += len(batch.low)
            decided += float(np.sum(batch.share) - sum(np.sum(part.share) for part in (again, halves, small)))
            if progress is not None:
                progress(decided)
    left = _joined([*stack, *(batch for batch, _ in pending), *narrow, domain.chosen(slice(0))])
    return Explored(tree.zeros, left, tested, time.perf_counter() - began)


def _elsewhere(work: Callable[[], Contracted]) -> Callable[[], Contracted]:
    """Start work in another process, and return what waits for its result."""
    return get_reusable_executor(os.cpu_count(), env=_ENVIRONMENT).submit(work).result


def expected(
    system: System, corners: tuple[Array, Array], descents: int, generator: np.random.Generator, most: int = 300
) -> float:
    """Return an unbiased estimate of how many boxes are tested, from random descents through the tree."""
    tree = _Tree(system, corners[1] - corners[0], [])
    low, high = (np.tile(x, (descents, 1)) for x in corners)
    boxes, total = Boxes(low, high, np.ones(descents)), 0.0
    for _ in range(most):
        if not len(boxes.low):
            break
        total += float(np.sum(boxes.share))  # here, of how many boxes this is one
        parts = []
        for first in range(0, len(boxes.low), BATCH):
            batch = boxes.chosen(slice(first, first + BATCH))
            again, halves, _ = tree.children(batch, system.contract(batch.low, batch.high))
            count = len(halves.low) // 2
            chosen = halves.chosen(np.arange(count) + count * generator.integers(2, size=count))
            parts += [again, chosen._replace(share=4 * chosen.share)]
        boxes = _joined(parts)
    return total / descents


def _take(stack: list[Boxes], count: int) -> tuple[Boxes, list[Boxes]]:
    """Return the last boxes of a stack, and the rest of it."""
    taken: list[Boxes] = []
    while stack and count:
        last = stack.pop()
        part = min(count, len(last.low))
        taken.append(last.chosen(slice(len(last.low) - part, None)))
        if part < len(last.low):
            stack.append(last.chosen(slice(None, len(last.low) - part)))
        count -= part
    return _joined(taken), stack


def _joined(parts: list[Boxes]) -> Boxes:
    return Boxes(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
