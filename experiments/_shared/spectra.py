"""What experiments on spectra share: parameters along a training run, and what is counted in a spectrum."""

from __future__ import annotations

import numpy as np

from mlp_jax import mlp, training


def outliers(spectrum: np.ndarray, most: int = 20) -> int:
    """Return how many eigenvalues lie above the largest ratio between neighbours among the top `most`."""
    top = spectrum[spectrum > 0][::-1][: most + 1]
    return int(np.argmax(top[:-1] / top[1:])) + 1


def recorded_params(state: training.State) -> mlp.Params:
    """Return the parameters, for `record=`; one function for all runs, so that each shape is compiled once."""
    return state.params
