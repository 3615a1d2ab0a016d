"""The XOR problem: a 2-2-1 tanh network with weight decay, and its census of critical points."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from experiments._shared import all_devices
from experiments._shared.bars import bar
from mlp_jax import critical, losses, mlp, mlp_symmetry, tree

SIZES = (2, 2, 1)
# False and true as numbers.
CODINGS = {"{0, 1}": (0.0, 1.0), "{-1, 1}": (-1.0, 1.0)}

Args = tuple[np.ndarray, np.ndarray, np.float64]


class Counted(NamedTuple):
    """A census of XOR, with the arguments and symmetries that it was made for."""

    args: Args
    maps: mlp_symmetry.DiscreteMaps
    census: critical.Census


def loss(params: mlp.Params, x: ArrayLike, y: ArrayLike, decay: ArrayLike) -> jax.Array:
    """Return half the mean squared error plus (decay / 2) ‖θ‖²."""
    fit = losses.mean(losses.squared_error(mlp.forward(params, jnp.asarray(x)), jnp.asarray(y)))
    return fit + 0.5 * decay * tree.dot(params, params)


def data(coding: str, decay: float) -> Args:
    """Return inputs (4, 2), targets (4, 1) and the weight decay: the arguments of `loss`."""
    low, high = CODINGS[coding]
    inputs = np.array([[low, low], [low, high], [high, low], [high, high]])
    return inputs, np.where(inputs[:, :1] == inputs[:, 1:], low, high), np.float64(decay)


def init(key: jax.Array) -> mlp.Params:
    """Return initial parameters of the 2-2-1 network."""
    return mlp.init(key, SIZES)


def count(key: jax.Array, coding: str, decay: float, num_starts: int) -> Counted:
    """Return the census of a coding at a weight decay, modulo permutations and sign flips of the hidden units.

    Branches are followed over weight decays from 1e-4 to 1.
    """
    args = data(coding, decay)
    maps = mlp_symmetry.maps(loss, init(jax.random.key(0)), args, activation=jnp.tanh)
    with bar("census", "search") as progress:
        census = critical.census(
            loss, init, key, num_starts=num_starts, args=args, symmetries=maps, passes=8, complete_sum=1,
            parameter=2, low=1e-4, high=1.0, mesh=all_devices.mesh(), progress=progress,
        )  # fmt: skip
    return Counted(args, maps, census)
