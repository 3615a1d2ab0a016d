"""Channels to infinity: two hidden units merge while their outgoing weights diverge. For `critical.find`."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from mlp_jax import _compiled, mlp, tree
from mlp_jax.curvature import precision, units
from mlp_jax.mlp import Activations, Params
from mlp_jax.mlp_symmetry.network import entering
from mlp_jax.mlp_symmetry.pairs import NearestPair, near_pairs

Places = tuple[np.ndarray, np.ndarray]  # of the first and of the second unit

# Units whose incoming weights differ by a larger share are not said to merge; pairs that are tried, the nearest first.
_NEAR, _TRIED = 0.5, 3
# Share of the distance to which it must fall when the outgoing weights are doubled.
_CLOSER = 0.7
# Times that the outgoing weights are doubled, and steps of L-BFGS to the minimum over the other parameters.
_DOUBLINGS, _STEPS = 6, 200
# Roundings of its value by which `fun` must fall.
_ROUNDINGS = 64


def channels(activation: Activations) -> Callable[..., str]:
    """Return `(fun, params, args) -> words` about a channel to infinity; the words are empty if none is seen.

    For the argument `channels` of `critical.find` and `critical.classify`. Let two units have the incoming weights
    w ± d, with d small, and the outgoing weights v ± u. With u → ∞ and d ∝ 1/u they tend to the unit 2 v φ(w x) and its
    derivative 2 u (d x) φ'(w x): a minimum there is approached and never reached (Martinelli, Van Meegen, Şimşek,
    Gerstner & Brea 2025, "Flat channels to infinity in neural loss landscapes").

    The words name two units with opposite outgoing weights if the minimum of `fun` over all other parameters, by a
    descent from params, is seen to fall and the units to approach each other each time that u is doubled, six times.
    Of the pairs at a relative distance below ½ the three nearest are tried, with 3,000 gradients each at most, 700 if
    the first doubling decides. Host-level, float64.
    activation: of `mlp.forward`; of maxout and softmax units nothing is said.

    Examples
    --------
    >>> hidden = mlp.Layer(jnp.array([[1.0, 1.0]]), jnp.array([0.1, -0.1]))
    >>> params, x = (hidden, mlp.Layer(jnp.array([[5.0], [-5.0]]))), jnp.linspace(-2, 2, 21)[:, None]
    >>> fun = lambda p, x: jnp.mean((mlp.forward(p, x) - 1 + jnp.tanh(x) ** 2) ** 2)
    >>> print(channels(jnp.tanh)(fun, params, (x,)))  # doctest: +ELLIPSIS
    units 0 and 1 of hidden layer 0 merge while their outgoing weights diverge with opposite signs: ...
    """

    def words(fun: Callable[..., jax.Array], params: Params, args: tuple = ()) -> str:
        # No warnings of a descent that overflows, or of units without incoming weights: nothing is said of them.
        with precision.float64(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            fun, params, args = precision.traced_problem(fun, params, args)
            mlp.require_layers(params)
            vector, unravel = tree.ravel(params)
            unit = units.traced_unit(fun, params)

            def slope(at: np.ndarray) -> tuple[float, np.ndarray]:
                value, gradient = _slope(fun, at, params, args)
                return float(value), np.array(gradient)

            places = unravel(jnp.arange(vector.size, dtype=float))
            near = sorted(near_pairs(params, activation), key=lambda pair: pair.distance)
            for pair in [pair for pair in near if pair.distance < _NEAR][:_TRIED]:
                looks = _Channel(slope, *_places(places, pair), pair.sign).follow(np.asarray(vector), unit)
                if looks is not None:
                    return _sentence(pair, *looks)
        return ""

    return words


@_compiled.by_function()
def _slope(
    fun: Callable[..., jax.Array], vector: jax.Array, params: Params, args: tuple
) -> tuple[jax.Array, jax.Array]:
    unravel = tree.ravel(params)[1]
    return jax.value_and_grad(lambda at: fun(unravel(at), *args))(vector)


class _Look(NamedTuple):
    """The value of a function, the relative distance of two units, and the opposite part of their outgoing weights."""

    value: float
    distance: float
    norm: float


class _Channel(NamedTuple):
    """The way on which two units merge: a function of vectors, with its gradient, and the places of their weights."""

    slope: Callable[[np.ndarray], tuple[float, np.ndarray]]
    incoming: Places
    outgoing: Places
    sign: int

    def follow(self, start: np.ndarray, unit: float) -> tuple[_Look, _Look] | None:
        """Return looks before and after the opposite part is doubled again and again; None unless the function falls.

        It must fall each time, below where the descent would have led without: a minimum may be farther on the way.
        """
        same, opposite = _halves(start, self.outgoing, self.sign)
        if not np.linalg.norm(opposite) > np.linalg.norm(same):
            return None
        here = self.lowest(start)
        first = last = self.look(here)
        for _ in range(_DOUBLINGS if first.distance < _NEAR else 0):
            stayed, here = self.look(self.lowest(here)), self.lowest(self.doubled(here))
            before, last = last, self.look(here)
            falls = last.value < stayed.value - _ROUNDINGS * unit * abs(stayed.value)
            if not falls or not last.distance < _CLOSER * before.distance:
                return None
        return (first, last) if last is not first else None

    def lowest(self, start: np.ndarray) -> np.ndarray:
        """Return the end of a descent that keeps the opposite part of the outgoing weights."""
        i, j = self.outgoing

        def slope(at: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = self.slope(at)
            gradient[i] = (gradient[i] + self.sign * gradient[j]) / 2
            gradient[j] = self.sign * gradient[i]
            return value, gradient

        options = {"maxiter": _STEPS, "maxcor": 100, "ftol": 0, "gtol": 0}
        return scipy.optimize.minimize(slope, start, jac=True, method="L-BFGS-B", options=options).x

    def doubled(self, start: np.ndarray) -> np.ndarray:
        """Return a vector with that part doubled, and the difference of the incoming weights halved."""
        moved = start.copy()
        for places, sign, factor in ((self.incoming, self._alike(start), 0.5), (self.outgoing, self.sign, 2.0)):
            same, opposite = _halves(start, places, sign)
            moved[places[0]], moved[places[1]] = same + factor * opposite, sign * (same - factor * opposite)
        return moved

    def look(self, at: np.ndarray) -> _Look:
        """Return what is to be seen at a vector."""
        apart = 2 * np.linalg.norm(_halves(at, self.incoming, self._alike(at))[1])
        largest = max(np.linalg.norm(at[places]) for places in self.incoming)
        norm = np.linalg.norm(_halves(at, self.outgoing, self.sign)[1])
        return _Look(self.slope(at)[0], float(apart / largest), float(norm))

    def _alike(self, at: np.ndarray) -> int:
        i, j = self.incoming
        return 1 if at[i] @ at[j] > 0 else -1


def _halves(vector: np.ndarray, places: Places, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Return half the sum and half the difference of two parts of a vector, the second times a sign."""
    i, j = (vector[part] for part in places)
    return (i + sign * j) / 2, (i - sign * j) / 2


def _places(numbers: Params, pair: NearestPair) -> tuple[Places, Places]:
    """Return where the incoming and the outgoing weights of both units are in a vector, given where all are."""
    columns, rows = entering(numbers[pair.layer]).astype(int), np.asarray(numbers[pair.layer + 1].weight, int)
    i, j = pair.units
    return (columns[:, i], columns[:, j]), (rows[i], rows[j])


def _sentence(pair: NearestPair, before: _Look, after: _Look) -> str:
    i, j = pair.units
    return (
        f"units {i} and {j} of hidden layer {pair.layer} merge while their outgoing weights diverge with opposite"
        f" signs: when the norm of these grows from {before.norm:.3g} to {after.norm:.3g}, the relative distance of the"
        f" units falls from {before.distance:.3g} to {after.distance:.3g}, and fun by {before.value - after.value:.1e}"
    )
