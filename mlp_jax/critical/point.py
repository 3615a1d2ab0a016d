"""Point: where a search ended, and how exact it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from mlp_jax import _checks, display, tree
from mlp_jax.critical.search.contract import Reason
from mlp_jax.tree import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Point:
    """Where a search ended; from `find_many` every field has a leading axis.

    params
        The point, float64; like the numbers below, numpy arrays when `find` was called outside jit.
    gradient_norm
        ‖g‖₂ there.
    flatness
        ‖H p + g‖ / ‖g‖ with p the minimum-residual Newton step over the modes above 1e-6 of the largest: near 0 where
        Newton's method would go on to a zero of the gradient, near 1 where the gradient lies in the null space of H
        (Frye et al. 2021). Meaningless once the gradient is at its rounding level.
    distance
        Length of the Newton step over all modes: an estimate of the distance to the critical point. Infinite where the
        search did not converge and that step or p leaves half of the gradient or more.
    error
        Bound on the error of each parameter, as params: the Newton step that is left, and the one that the rounding of
        the gradient could cause.
    converged
        True only when every component of the gradient is at the level of its own rounding, and `error` is small beside
        the parameters.
    index
        Number of negative eigenvalues of the Hessian there. None (−1, when vmapped, traced or from `find_many`) unless
        the search converged and every eigenvalue is larger than its rounding; not known with `newton_mr`, or above 4000
        parameters.
    reached
        Whether it converged at a point of the index asked for; without one, the same as `converged`. False where the
        index is not known.
    steps
        Number of points at which the Hessian was used.
    reason
        A `Reason` (its number, when vmapped, traced or from `find_many`); `str(point.reason)` says it in words.
    """

    params: PyTree
    gradient_norm: jax.Array
    flatness: jax.Array
    distance: jax.Array
    error: PyTree
    converged: jax.Array
    index: jax.Array | int | None
    reached: jax.Array
    steps: jax.Array
    reason: jax.Array | Reason

    def __str__(self) -> str:
        """Say in a sentence where the search ended, without the params; the repr where values are not known."""
        if _checks.is_traced(self):
            return repr(self)
        if np.ndim(self.converged):
            return f"{np.sum(self.converged)} of {np.size(self.converged)} searches converged."
        index = "" if self.index is None or self.index < 0 else f"; index {int(self.index)}"
        reason = self.reason if isinstance(self.reason, Reason) else Reason(int(self.reason))
        return (
            f"{'converged' if self.converged else 'not converged'}: {reason}."
            f" {tree.size(self.params)} parameters, gradient norm {float(self.gradient_norm):.1e}, flatness"
            f" {float(self.flatness):.1e}, distance {float(self.distance):.1e}, {int(self.steps)} Hessians{index}."
        )

    def _repr_html_(self) -> str:
        title, _, numbers = str(self).partition(": ")
        return display.table(title, [("find", numbers)], note="params: .params; classify says what the point is.")


def stack(points: Sequence[Point]) -> Point:
    """Return one or more points of `find` as one of `find_many`: with a leading axis on every field."""
    rows = [dataclasses.replace(point, index=-1 if point.index is None else point.index) for point in points]
    return jax.tree.map(lambda *leaves: np.array(leaves, np.int32 if isinstance(leaves[0], int) else None), *rows)


def zeroed(points: Point, i: int) -> PyTree:
    """Return the i-th params with components within their error set to zero, so that rounding makes no copies."""
    return jax.tree.map(
        lambda leaf, error: np.where(np.abs(leaf[i]) <= error[i], 0, leaf[i]), points.params, points.error
    )
