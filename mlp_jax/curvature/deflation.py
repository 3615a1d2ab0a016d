"""Coordinates in which the outermost eigenvalues of a symmetric operator are no larger than the others.

With the largest Ritz pairs (θᵢ, uᵢ) and σ the smallest |θᵢ|, W = I − Σ (1 − √(σ/|θᵢ|)) uᵢuᵢᵀ. As the pairs converge,
W H W has σ in place of |θᵢ|. Whatever their error, W is symmetric with eigenvalues in (0, 1]. So W H W has as many
negative eigenvalues as H (Sylvester); if its smallest is positive, it is no larger than that of H; and an error of H is
no larger in W H W. With pairs of small |θᵢ| too, W has eigenvalues above 1, and only the first of these holds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mlp_jax.curvature.krylov_space import Space

# Ritz pairs whose residual is below this share of their value are used.
_CONVERGED = 0.1
# Values that are a smaller share of the largest count as 0, which no coordinates change.
_NULL = 1e-12
# Their number is made a multiple of this, with zeros, so that few programs are compiled.
_MULTIPLE = 32


class Deflation(NamedTuple):
    """W, as a function of vectors in numpy or JAX.

    modes, shares, largest
        Rows uᵢ (r, P); 1 − √(σ/|θᵢ|), (r,); σ, the largest size of the eigenvalues that are left, by estimate.
    """

    modes: Any
    shares: Any
    largest: Any

    def __call__(self, vector: Any) -> Any:
        """Return W v for a vector (P,)."""
        return vector - ((self.modes @ vector) * self.shares) @ self.modes

    def inverse(self, vector: Any) -> Any:
        """Return W⁻¹ v for a vector (P,)."""
        return vector + ((self.modes @ vector) * (self.shares / (1 - self.shares))) @ self.modes


def identity(size: int) -> Deflation:
    """Return W = I of a dimension."""
    return Deflation(np.zeros((0, size)), np.zeros(0), np.inf)


def deflation(space: Space, both_ends: bool = False) -> Deflation:
    """Return W of the largest Ritz values of a Krylov space that have converged; with `both_ends`, of the least too."""
    values, vectors, residuals = space.ritz()
    sizes = np.abs(values)
    order = np.argsort(-sizes)
    null = sizes <= _NULL * np.max(sizes)
    open_ = np.flatnonzero((null | (residuals > _CONVERGED * sizes))[order])
    first, last = (open_[0], open_[-1]) if len(open_) else (len(order), len(order))
    largest = sizes[order[max(0, first - 1)]]
    chosen = np.r_[order[:first], order[last + 1 :]] if both_ends else order[:first]
    padding = -len(chosen) % _MULTIPLE
    modes = np.pad(space.combine(vectors[:, chosen]), ((0, padding), (0, 0)))
    return Deflation(modes, np.pad(1 - np.sqrt(largest / sizes[chosen]), (0, padding)), float(largest))
