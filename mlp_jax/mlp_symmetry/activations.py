"""The properties of an activation, measured on a sample of points, so that any function can be passed."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks
from mlp_jax.mlp import Activation

_POINTS = 64
_MOST_UNITS = 2**20
# The range of the search for corners; the grid is irregular so that no corner lies on it.
_REACH, _CELLS = 20.0, 4001


class Traits(NamedTuple):
    """Properties of an activation φ that computes each unit from `pieces` adjacent pre-activations.

    pieces
        Pre-activations per unit: 1, or the pieces of maxout.
    separate
        Units do not depend on each other: φ commutes with permutations of whole units.
    exchangeable
        φ does not change when the pieces of a unit are permuted.
    odd, even
        φ(−z) = −φ(z); φ(−z) = φ(z).
    homogeneous
        φ(c z) = c φ(z) for c > 0.
    linear
        φ(z) = c z for a number c.
    translation
        φ(z + t) = φ(z) + t, with one number t per unit, added to all its pieces.
    """

    pieces: int
    separate: bool
    exchangeable: bool
    odd: bool
    even: bool
    homogeneous: bool
    linear: bool
    translation: bool


def traits(activation: Activation, width: int) -> Traits:
    """Measure an activation on `width` pre-activations, in float64, at 64 points of sizes from 0.01 to 10. Host-level.

    Raises TypeError or ValueError if `activation` is not a function of one array, or does not return units whose number
    divides `width`.

    Examples
    --------
    >>> traits(jax.nn.relu, 3).homogeneous, traits(jnp.tanh, 3).odd
    (True, True)
    """
    width = _checks.integer(width, "width", 1, _MOST_UNITS)
    generator = np.random.default_rng(0)
    sizes = 10.0 ** generator.uniform(-2, 1, (_POINTS, 1))
    z = sizes * generator.standard_normal((_POINTS, width))
    with jax.enable_x64(True):

        def phi(values: np.ndarray) -> np.ndarray:
            return np.asarray(activation(jnp.asarray(values)), np.float64)

        a = phi(z)
        units = a.shape[-1] if a.ndim else 0
        if a.ndim != 2 or len(a) != _POINTS or units == 0 or width % units:
            raise ValueError(f"activation: got shape {a.shape} from {z.shape}, expected units that divide {width}.")
        pieces = width // units
        grouped = z.reshape(_POINTS, units, pieces)
        order = generator.permutation(units) if units > 2 else np.arange(units)[::-1]
        shift = sizes * generator.standard_normal((_POINTS, units))
        turned = np.roll(grouped, 1, axis=2) if pieces < 3 else grouped[:, :, generator.permutation(pieces)]
        slope = float(np.vdot(a, z) / np.vdot(z, z)) if pieces == 1 else 0.0
        return Traits(
            pieces=pieces,
            separate=_equal(phi(grouped[:, order].reshape(z.shape)), a[:, order]) and _is_separate(phi, z, pieces),
            exchangeable=_equal(phi(turned.reshape(z.shape)), a),
            odd=_equal(phi(-z), -a),
            even=_equal(phi(-z), a),
            homogeneous=all(_equal(phi(c * z), c * a) for c in (0.3, 7.0)),
            linear=pieces == 1 and _equal(a, slope * z),
            translation=_equal(phi(z + np.repeat(shift, pieces, axis=1)), a + shift),
        )


def _is_separate(phi: Callable[[np.ndarray], np.ndarray], z: np.ndarray, pieces: int) -> bool:
    """Return whether the first unit does not change when all other units do."""
    other = np.where(np.arange(z.shape[1]) < pieces, z, -1.7 * z + 0.3)
    return _equal(phi(other)[:, 0], phi(z)[:, 0])


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    # Elementary functions are accurate to a few roundings; a property that does not hold fails by far more than 1e3.
    scale = np.max(np.abs(a)) + np.max(np.abs(b))
    return bool(np.max(np.abs(a - b)) <= 1e3 * np.finfo(np.float64).eps * scale)


def corners(activation: Activation) -> tuple[float, ...]:
    """Return where φ' or φ'' of an elementwise activation jumps, between −20 and 20. Host-level.

    Every cell of a grid is halved towards the larger change of the derivative, down to a rounding: a change that
    does not shrink is a jump. Raises ValueError if `activation` does not keep the shape of an array.

    Examples
    --------
    >>> corners(jax.nn.relu), corners(jnp.tanh), corners(jax.nn.relu6)
    ((0.0,), (), (0.0, 6.0))
    """
    with jax.enable_x64(True):
        if shape_of(activation, (_CELLS,)) != (_CELLS,):
            raise ValueError("activation: got one that changes the shape of an array, expected an elementwise one.")
        slope = _derivative(activation)
        found = np.concatenate([_jumps(jax.jit(derivative)) for derivative in (slope, _derivative(slope))])
    places: list[float] = []
    for place in np.sort(found):
        # Both derivatives find a corner, up to rounding: report it once, as a short number if possible.
        rounded = float(np.round(place, 12)) + 0.0
        if not places or rounded - places[-1] > 1e-9:
            places.append(rounded)
    return tuple(places)


def shape_of(activation: Activation, given: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the activations for pre-activations of a given shape; raise unless they are floating."""
    made = jax.eval_shape(activation, jax.ShapeDtypeStruct(given, jnp.result_type(float)))
    if not isinstance(made, jax.ShapeDtypeStruct) or not jnp.issubdtype(made.dtype, jnp.floating):
        raise TypeError(f"activation: got a result of {made}, expected an array of real floating point.")
    return made.shape


def _derivative(phi: Activation) -> Activation:
    return lambda z: jax.jvp(phi, (z,), (jnp.ones_like(z),))[1]


def _jumps(compiled: Activation) -> np.ndarray:
    def derivative(z: np.ndarray) -> np.ndarray:
        return np.asarray(compiled(jnp.asarray(z)))

    low = np.linspace(-_REACH, _REACH * 1.0007, _CELLS)
    low, high = low[:-1], low[1:]
    below, above = derivative(low), derivative(high)
    for _ in range(60):
        middle = (low + high) / 2
        inside = derivative(middle)
        left = np.abs(inside - below) >= np.abs(above - inside)
        low, below = np.where(left, low, middle), np.where(left, below, inside)
        high, above = np.where(left, middle, high), np.where(left, inside, above)
    return high[np.abs(above - below) > 1e-6 * (1 + np.abs(above) + np.abs(below))]
