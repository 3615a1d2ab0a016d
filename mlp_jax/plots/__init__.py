"""Figures: each function draws on a given Axes and returns it, `descents` an animation. Needs the extra `plots`.

- critical points: `loss_against_index`, `eigenvalues`, `spectral_density`, `census_levels`
- how they hang together: `disconnectivity`, `transition_network`, `along_path`, `bifurcations`; `descents`, animated
- training and sweeps: `training_curve`, `against_batch_size`, `updates_to_target`, `heat_map`
- landscapes: `profile`, `contours`, `surface`

Every group has its own marker or line style, so that figures are readable in grey.
"""

from mlp_jax.plots.animations import descents
from mlp_jax.plots.batch_sizes import against_batch_size, heat_map, updates_to_target
from mlp_jax.plots.census import census_levels
from mlp_jax.plots.colours import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, YELLOW
from mlp_jax.plots.critical_points import eigenvalues, loss_against_index
from mlp_jax.plots.landscapes import contours, profile, surface
from mlp_jax.plots.networks import along_path, bifurcations, disconnectivity, transition_network
from mlp_jax.plots.spectra import spectral_density
from mlp_jax.plots.training import training_curve

__all__ = [
    "BLUE", "GREEN", "GREY", "ORANGE", "PURPLE", "SKY", "YELLOW", "against_batch_size", "along_path",
    "bifurcations", "census_levels", "contours", "descents", "disconnectivity", "eigenvalues", "heat_map",
    "loss_against_index", "profile", "spectral_density", "surface", "training_curve", "transition_network",
    "updates_to_target",
]  # fmt: skip
__dir__ = __all__.copy
