"""A search over pytrees on the host: from one start, or from several, one search per core. Host-level, float64."""

from __future__ import annotations

import itertools

import jax
import numpy as np

from mlp_jax import _parallel, tree
from mlp_jax.critical.point import Point, stack
from mlp_jax.critical.search import by_matrices, by_products
from mlp_jax.critical.search.levenberg_marquardt import levenberg_marquardt
from mlp_jax.critical.search.newton_mr import newton_mr
from mlp_jax.critical.search.of_pytrees import Settings
from mlp_jax.critical.search.programs import Programs
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Fun, Progress, PyTree

# Numbers of parameters up to which a search under jit uses matrices, and up to which one on the host does, for its
# steps and for the index of its end.
GIVEN, COUNTED = 1500, 4000


def follow_each(
    progress: Progress | None, fun: Fun, settings: Settings, index: int | None, starts: PyTree, args: tuple
) -> Point:
    """Return where the searches from starts end, one search per core, as a Point with a leading axis."""
    number, done = len(jax.tree.leaves(starts)[0]), itertools.count(1)

    def search(row: int) -> Point:
        with precision.float64():  # a setting of each thread
            point = follow_one(None, fun, settings, index, jax.tree.map(lambda leaf: leaf[row], starts), args)
        if progress is not None:
            progress(next(done), number)
        return point

    return stack(_parallel.over_cores(search, range(number)))


def follow_one(
    progress: Progress | None, fun: Fun, settings: Settings, index: int | None, params: PyTree, args: tuple
) -> Point:
    """Return where the search from params ends."""
    start = np.asarray(tree.ravel(params)[0])
    # One set of programs for searches of any length.
    method = levenberg_marquardt if start.size <= COUNTED else newton_mr
    programs = Programs(fun, Settings(method, settings.hessian, 1, None, unit=settings.unit), params, args)

    def tell(steps: int) -> None:
        if progress is not None:
            progress(min(steps, settings.max_steps), settings.max_steps)

    # No warnings of numbers that overflow: the search refuses steps that are infinite or NaN, and gradients that are.
    with _parallel.one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        task = programs, start, index, settings, tell
        if start.size <= COUNTED:
            return programs.ended(index, *by_matrices.search(*task))
        return programs.ended(index, *by_products.search(*task))
