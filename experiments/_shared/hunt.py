"""A hunt for critical points of one loss: searches from given starts, then ladders from what they found."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import tqdm

from experiments._shared.live import live_units
from experiments._shared.run_folder import RunFolder
from mlp_jax import critical, devices, mlp
from mlp_jax.critical.point import stack

# Hessians of a search of a ladder: one that takes more ends where another begins.
LADDER_STEPS = 60

T = TypeVar("T")
Result = TypeVar("Result")


class Start(NamedTuple):
    """Where a search starts, and the index it is after (None: any)."""

    origin: str
    params: mlp.Params
    wanted: int | None


class Found(NamedTuple):
    """A critical point, where the search for it began, its loss, and how many searches ended there."""

    origin: str
    point: critical.Point
    loss: float
    hits: int = 1

    @property
    def negative(self) -> int:
        """Return the number of negative eigenvalues, −1 where it is not known."""
        return -1 if self.point.index is None else int(self.point.index)


class Hunt(NamedTuple):
    """What is searched: a loss with its Hessians, data and one form for copies; and where pieces of work are kept."""

    fun: Callable[..., jax.Array]
    hessian: Callable[..., jax.Array]
    enclosure: Callable[..., jax.Array]
    args: tuple
    canonical: Callable[[mlp.Params], mlp.Params] | None
    folder: RunFolder

    def searched(self, starts: Sequence[Start]) -> list[Found]:
        """Return the end of each search, converged or not."""

        def search(number: int) -> critical.Point:
            find = functools.partial(critical.find, self.fun, starts[number].params, self.args, hessian=self.hessian)
            return self.folder.kept(f"search_{number}", lambda: find(index=starts[number].wanted))

        points = on_cores(search, range(len(starts)), "search", "searching")
        aims = ["any index" if start.wanted is None else f"index {start.wanted}" for start in starts]
        return [self.found(f"{s.origin}, {aim}", p) for s, aim, p in zip(starts, aims, points, strict=True)]

    def found(self, origin: str, point: critical.Point) -> Found:
        """Return a point with its loss."""
        return Found(origin, point, float(self.fun(point.params, *self.args)))

    def laddered(self, found: list[Found], in_time: Callable[[], bool]) -> list[Found]:
        """Return the points with those that ladders from them reach, and ladders from these, while the time lasts.

        Ladders begin at points without dead units, at each index in turn.
        """
        begun: collections.Counter[int] = collections.Counter()
        climbed: set[int] = set()
        with tqdm.tqdm(unit="ladder", desc="ladders", disable=None) as bar:
            while in_time():
                live = [f for f in self.distinct(found) if is_live(f.point.params)]
                fresh = [f for f in live if f.negative >= 0 and id(f.point) not in climbed]
                if not fresh:
                    break
                start = min(fresh, key=lambda f: (begun[f.negative], f.negative))
                begun[start.negative] += 1
                climbed.add(id(start.point))
                climb = functools.partial(self.ladder, start.point.params)
                ends = self.folder.kept(f"ladder_{len(climbed)}", climb)
                found = found + [self.found(f"ladder from index {start.negative}", end) for end in ends]
                bar.update()
                bar.set_postfix_str(f"{len(live)} points")
        return found

    def ladder(self, params: mlp.Params, up: int = 1, down: int = 1) -> list[critical.Point]:
        """Return points of neighbouring index."""
        points = critical.ladder(
            self.fun, params, self.args, up=up, down=down, canonical=self.canonical, hessian=self.hessian,
            max_steps=LADDER_STEPS,
        )  # fmt: skip
        return [jax.tree.map(lambda leaf, i=i: leaf[i], points) for i in range(len(points.converged))]

    def distinct(self, found: list[Found]) -> list[Found]:
        """Return the converged points, copies counted as one, by index and loss."""
        every = critical.distinct(stack([f.point for f in found]), canonical=self.canonical)
        first = [found[np.flatnonzero(every.labels == label)[0]] for label in range(len(every.hits))]
        points = [f._replace(hits=int(hits)) for f, hits in zip(first, every.hits, strict=True)]
        return sorted(points, key=lambda f: (f.negative, f.loss))

    def verdict(self, found: Found, **settings: Any) -> critical.Verdict:
        """Return the verdict on a point."""
        settings = {"hessian": self.hessian, "enclosure": self.enclosure} | settings
        return critical.classify(self.fun, found.point.params, self.args, **settings)


def is_live(params: mlp.Params) -> bool:
    """Return whether no hidden unit is dead."""
    return live_units(params) == params[0].shape[1]


def on_cores(work: Callable[[T], Result], items: Sequence[T], unit: str, description: str) -> list[Result]:
    """Return `devices.over_cores(work, items)`, with a progress bar."""
    with tqdm.tqdm(total=len(items), unit=unit, desc=description, disable=None) as bar:

        def counted(item: T) -> Result:
            result = work(item)
            bar.update()
            return result

        return devices.over_cores(counted, items)
