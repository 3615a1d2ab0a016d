"""Hidden units that do something: what tells a critical point from a smaller network's, padded with dead units."""

from __future__ import annotations

import numpy as np

from mlp_jax import mlp


def live_units(params: mlp.Params) -> int:
    """Return the number of units of the hidden layer with incoming and outgoing weights that are not zero to rounding.

    Examples
    --------
    >>> first = mlp.Layer(np.array([[1.0, 0.0, 2.0]]), np.zeros(3))
    >>> live_units((first, mlp.Layer(np.array([[1.0], [1.0], [0.0]]), np.zeros(1))))
    1
    """
    incoming = np.linalg.norm(np.vstack([params[0].weight, params[0].bias]), axis=0)
    outgoing = np.linalg.norm(params[1].weight, axis=1)
    return int(np.sum(np.minimum(incoming, outgoing) > 1e-8))
