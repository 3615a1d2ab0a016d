"""The layouts that every test here goes through: (processes, devices of each)."""

import pytest

LAYOUTS = [
    pytest.param((1, 1), id="1 device"),
    pytest.param((1, 8), id="8 devices"),
    pytest.param((2, 4), id="2 processes of 4", marks=pytest.mark.slow),
]
