"""Figures of results: each function draws on an Axes that it is given, and returns it. Needs the extra `plots`.

Every group has a marker or a line style of its own, so that figures read in grey.
"""

from mlp_jax.plots.census import census_levels, saddle_graph
from mlp_jax.plots.colours import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, YELLOW
from mlp_jax.plots.critical_points import eigenvalues, loss_against_index

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "SKY",
    "YELLOW",
    "census_levels",
    "eigenvalues",
    "loss_against_index",
    "saddle_graph",
]
