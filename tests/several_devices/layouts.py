"""The layouts that every test here goes through: (processes, devices of each)."""

import jax
import numpy as np
import pytest

from experiments._shared import processes

LAYOUTS = [
    pytest.param((1, 1), id="1 device"),
    pytest.param((1, 8), id="8 devices"),
    pytest.param((2, 4), id="2 processes of 4", marks=pytest.mark.slow),
]


def results_on(layout, work):
    """Return the arrays of work(mesh) in each process, which must be the same: here if there is one device."""
    if layout == (1, 1):
        with jax.enable_x64(True):
            return [{name: np.asarray(a) for name, a in work(jax.make_mesh((1,), ("devices",))).items()}]
    found = processes.run(work, *layout)
    for other in found[1:]:
        np.testing.assert_equal(other, found[0])
    return found
