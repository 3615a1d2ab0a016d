"""What is counted in a spectrum."""

from __future__ import annotations

import numpy as np


def outliers(spectrum: np.ndarray, most: int = 20) -> int:
    """Return how many eigenvalues lie above the largest ratio between neighbours among the top `most`."""
    top = spectrum[spectrum > 0][::-1][: most + 1]
    return int(np.argmax(top[:-1] / top[1:])) + 1
