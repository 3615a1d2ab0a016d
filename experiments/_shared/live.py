"""Live hidden units: they distinguish a critical point from one of a smaller network padded with dead units."""

from __future__ import annotations

import jax
import numpy as np

from mlp_jax import mlp


def live_units(params: mlp.Params) -> int:
    """Return the number of hidden units whose incoming and outgoing weights are both nonzero beyond rounding."""
    incoming = np.linalg.norm(np.vstack(jax.tree.leaves(params[0])), axis=0)
    outgoing = np.linalg.norm(params[1].weight, axis=1)
    return int(np.sum(np.minimum(incoming, outgoing) > 1e-8))
