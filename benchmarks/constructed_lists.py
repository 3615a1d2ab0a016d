"""Lists with a known answer, for `interval.complete`: are those proved complete the whole list?

- maps: products of linear factors in each of one to three coordinates, seen through a random linear map of space and
  of the equations, so that the zeros are a known grid; some boxes cut the grid
- functions: sums of polynomials in each coordinate of a rotated space, whose critical points are the grid of theirs,
  with known indices
- networks: every critical point at which searches of a small tanh network end is in the list of `mlp_census.complete`,
  up to symmetry, and the sum of copies · (−1)^index is 1
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.constructed_theorems import Tally
from mlp_jax import critical, interval, losses, mlp, mlp_census, penalties

_BOXES = 200_000


def _roots(generator: np.random.Generator, count: int) -> np.ndarray:
    """Draw roots that are not equal, some close."""
    gaps = 10 ** generator.uniform(-3, 0, count)
    roots = np.cumsum(gaps)
    return np.asarray((roots - roots.mean()) / max(1.0, np.ptp(roots)))


def _product(x: jax.Array, roots: np.ndarray) -> jax.Array:
    return functools.reduce(jnp.multiply, [x - float(r) for r in roots])


def maps(generator: np.random.Generator, tally: Tally) -> None:
    """Test one map with a grid of zeros."""
    size = int(generator.integers(1, 4))
    roots = [_roots(generator, int(generator.integers(1, 5 - size // 2))) for _ in range(size)]
    turn, mix = (np.eye(size) + 0.3 * generator.standard_normal((size, size)) for _ in range(2))
    inverse = np.linalg.inv(turn)

    def fun(x: jax.Array, turn: jax.Array, mix: jax.Array) -> jax.Array:
        y = turn @ x
        return mix @ jnp.stack([_product(y[k], roots[k]) for k in range(size)])

    grid = np.array(list(itertools.product(*roots))) @ inverse.T
    high = np.max(np.abs(grid), axis=0) * generator.uniform(0.3, 1.5, size) + 0.1
    inside = np.all(np.abs(grid) < high, axis=1)
    _judge(tally, "maps", interval.complete(fun, -high, high, (turn, mix), max_boxes=_BOXES), grid[inside], None)


def functions(generator: np.random.Generator, tally: Tally) -> None:
    """Test one function whose critical points are a grid with known indices."""
    size = int(generator.integers(1, 4))
    roots = [_roots(generator, 2 * int(generator.integers(1, 3)) - 1) for _ in range(size)]
    turn = np.linalg.qr(generator.standard_normal((size, size)))[0]
    polynomials = [np.polynomial.Polynomial.fromroots(r).integ() for r in roots]

    def fun(x: jax.Array, turn: jax.Array) -> jax.Array:
        y = turn @ x
        return sum(jnp.polyval(jnp.asarray(p.coef[::-1]), y[k]) for k, p in enumerate(polynomials))

    grid = np.array(list(itertools.product(*roots)))
    bends = [p.deriv(2) for p in polynomials]
    index = np.array([sum(bends[k](point[k]) < 0 for k in range(size)) for point in grid])
    found = interval.complete(fun, np.full(size, -2.5), np.full(size, 2.5), (turn,), max_boxes=_BOXES)
    _judge(tally, "functions", found, grid @ turn, index)


def networks(generator: np.random.Generator, tally: Tally) -> None:
    """Test the list of a network against the ends of searches."""
    features, units = int(generator.integers(1, 3)), 1
    inputs = np.round(generator.standard_normal((5, features)), 2)
    targets = np.round(generator.standard_normal(5), 2)
    decay = float(10 ** generator.uniform(-1.7, -0.5))
    found = mlp_census.complete(inputs, targets, units, decay, max_boxes=_BOXES)
    tally.cases += 1
    if not found.complete:
        return
    tally.proved += 1

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return losses.mean(losses.squared_error(mlp.forward(params, x, activation=jnp.tanh), y)) + penalties.l2(
            params, decay
        )

    keys = jax.random.split(jax.random.key(int(generator.integers(2**31))), 100)
    starts = jax.vmap(lambda k: mlp.init(k, (features, units, 1), bias_init=jax.nn.initializers.normal(1)))(keys)
    ends = critical.find_many(loss, starts, (inputs, targets[:, None]))
    rows = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.tree.map(lambda a, n=n: a[n], ends.params))])
            for n in np.flatnonzero(ends.converged)]  # fmt: skip
    images = [s * found.points for s in (1, -1)]
    images[1][:, -1] *= -1  # the output's bias stays
    listed = np.concatenate(images)
    gaps = [np.min(np.max(np.abs(listed - row), axis=1)) for row in rows]
    if max(gaps, default=0.0) > 1e-5 or found.degree != 1:
        tally.false.append(f"{features}-{units}-1, decay {decay:g}: gap {max(gaps):g}, degree {found.degree}")


def _judge(
    tally: Tally, family: str, found: interval.Completeness, zeros: np.ndarray, index: np.ndarray | None
) -> None:
    """Count a list, and note it if it is proved and wrong."""
    tally.cases += 1
    if not found.complete:
        return
    tally.proved += 1
    if len(zeros) == 0:
        right = found.count == 0
    else:
        order = [int(np.argmin(np.max(np.abs(zeros - p), axis=1))) for p in found.points]
        right = len(found.points) == len(zeros) and len(set(order)) == len(zeros)
        right = right and bool(np.max(np.abs(zeros[order] - found.points)) < 1e-6)
        right = right and (index is None or np.array_equal(index[order], found.index))
    if not right:
        tally.false.append(f"{family}: {len(zeros)} zeros, {found.count} listed, at {zeros.tolist()}")


FAMILIES: dict[str, Callable[[np.random.Generator, Tally], None]] = {
    "maps": maps, "functions": functions, "networks": networks,
}  # fmt: skip


def run(count: int, seed: int, shown: Callable[[Iterable[int]], Iterable[int]]) -> dict[str, Tally]:
    """Return a tally of each family, of `count` lists in all; networks are a tenth of them."""
    tallies = {f"lists of {name}": Tally() for name in FAMILIES}
    for number in shown(range(count)):
        name = "networks" if number % 10 == 0 else ("maps", "functions")[number % 2]
        FAMILIES[name](np.random.default_rng((seed, number)), tallies[f"lists of {name}"])
    return tallies
