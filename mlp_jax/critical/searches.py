"""What the searches share: where they look, why they stop, and when a gradient is zero to rounding."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Reason(enum.IntEnum):
    """Why a search stopped."""

    ROUNDING = 0
    GRADIENT_FLAT = 1
    NO_DESCENT = 2
    MAX_STEPS = 3
    NOT_FINITE = 4

    def __str__(self) -> str:
        return _REASONS[self]


_REASONS = {
    Reason.ROUNDING: "the gradient is at the level of its own rounding",
    Reason.GRADIENT_FLAT: "the gradient norm is stationary where the gradient is not zero (gradient-flat point)",
    Reason.NO_DESCENT: "no step made the gradient smaller, above the level of its rounding",
    Reason.MAX_STEPS: "the largest number of steps was reached",
    Reason.NOT_FINITE: "the gradient or the Hessian is not finite",
}

RUNNING = -1


class Function(NamedTuple):
    """A function of one vector: its gradient, its Hessian matrix, its unit roundoff."""

    gradient: Callable[[jax.Array], jax.Array]
    matrix: Callable[[jax.Array], jax.Array]
    unit: float


class End(NamedTuple):
    """Where a search of vectors ended."""

    vector: jax.Array
    gradient: jax.Array
    matrix: jax.Array
    steps: jax.Array
    reason: jax.Array


def rounding_level(function: Function, vector: jax.Array, matrix: jax.Array) -> jax.Array:
    """Return what a rounding of the parameters changes the gradient norm by: 4 u ‖|H| |θ|‖.

    Examples
    --------
    >>> function = Function(None, None, 0.5)
    >>> float(rounding_level(function, jnp.array([3.0]), jnp.array([[-2.0]])))
    12.0
    """
    return 4 * function.unit * jnp.linalg.norm(jnp.abs(matrix) @ jnp.abs(vector))


def all_finite(*arrays: jax.Array) -> jax.Array:
    """Return whether every entry of every array is finite.

    Examples
    --------
    >>> bool(all_finite(jnp.ones(2), jnp.array(jnp.nan)))
    False
    """
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in arrays]))
