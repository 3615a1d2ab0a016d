"""The directions at params along which continuous symmetries leave the loss unchanged."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, mlp, tree
from mlp_jax.curvature import precision, units
from mlp_jax.mlp import Activations, Params
from mlp_jax.mlp_symmetry.fields import Field, candidates
from mlp_jax.mlp_symmetry.network import gradient
from mlp_jax.tree import PyTree

_POINTS = 3
# Relative to the parameters: dead units stay dead, and special points are left.
_SPREAD = 1e-3
# Factor on the largest change seen when params move by a rounding, which only samples the roundings.
_SAFETY = 16.0


@dataclasses.dataclass(frozen=True)
class Tangents:
    """A function from params to Layers with a leading axis: one tangent for each entry of `names`.

    names
        The family of each tangent, such as `rescaling of layer 1`.
    dropped
        Families of which at least one tangent is a symmetry of the network but not of the loss.
    """

    names: tuple[str, ...]
    dropped: tuple[str, ...]
    _fields: tuple[Field, ...]
    _kept: np.ndarray

    def __call__(self, params: Params) -> Params:
        """Return the tangents at params, (k, ...) for each leaf; k may be 0.

        Transformable, except dependent inputs of a hidden layer and cancelling translations, which numpy computes.
        """
        with jax.enable_x64(True):
            return jax.tree.map(lambda leaf: leaf[self._kept], _stacked(self._fields, params))


def tangents(
    fun: Callable[..., jax.Array],
    params: Params,
    args: tuple = (),
    *,
    inputs: jax.Array,
    activation: Activations,
    residual: bool = False,
) -> Tangents:
    """Return the continuous symmetries of `fun` around params, for the argument `symmetries` of `critical.classify`.

    Candidates, by the properties of the activation (`traits`) and the structure of the network at params:

    - softmax shift: the same change to all logits (h_last + 1, h_last without a last bias)
    - rescaling: φ(c z) = c φ(z), by unit (ReLU, leaky ReLU, maxout)
    - linear gauge: GL(h) for a layer with φ(z) = c z (h², of which weight decay leaves h (h − 1) / 2 rotations)
    - translation: φ(z + t) = φ(z) + t, absorbed by the next bias (h), or cancelling in the next layer (maxout, linear)
    - dependent inputs: [a, 1] n = 0 on all inputs (a n = 0 without a bias), n added to the next weights: constant
      pixels, dead units
    - dead pre-activations: the weights and bias of a pre-activation whose slope is zero on all inputs

    Each is kept if ⟨∇fun, tangent⟩ is within its rounding at three random points near params. Tangents may be linearly
    dependent. Host-level, float64.

    Parameters
    ----------
    fun, params, args
        See `critical.classify`, also for errors; params are a tuple of Layer.
    inputs
        (n, in), the inputs of the network in `fun`.
    activation
        What `fun` gives to `mlp.forward`: one function, or one for each hidden layer.
    residual
        What `fun` gives to `mlp.forward`. A unit and those to which its output is added are then rescaled together.

    Examples
    --------
    >>> fun = lambda p, x: jnp.sum(mlp.forward(p, x, activation=jax.nn.relu) ** 2)
    >>> params, x = mlp.init(jax.random.key(0), (1, 2, 1)), np.linspace(-1, 1, 5)[:, None]
    >>> tangents(fun, params, (x,), inputs=x, activation=jax.nn.relu).names
    ('rescaling of layer 1', 'rescaling of layer 1')
    """
    with precision.float64():
        fun, params, args = precision.traced_problem(fun, params, args)
        mlp.require_layers(params)
        inputs = jnp.asarray(_checks.numbers(inputs, "inputs", "(n, in)", finite=True), float)  # pixels may be integers
        fields = tuple(candidates(params, inputs, mlp.each_layer(activation, params), residual))
        unit = units.traced_unit(fun, params)
        names = [field.name for field in fields for _ in range(len(_stacked((field,), params)[0].weight))]
        kept = _valid(fun, params, args, fields, unit)
    dropped = dict.fromkeys(name for name, keep in zip(names, kept, strict=True) if not keep)
    return Tangents(tuple(np.asarray(names)[kept].tolist()), tuple(dropped), fields, np.flatnonzero(kept))


def _stacked(fields: Sequence[Field], params: Params) -> Params:
    traced = _checks.is_traced(params)
    concatenate = jnp.concatenate if traced else np.concatenate
    params = params if traced else jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    return jax.tree.map(lambda *leaves: concatenate(leaves), *(field.tangents(params) for field in fields))


def _valid(
    fun: Callable[..., jax.Array], params: Params, args: tuple, fields: Sequence[Field], unit: float
) -> np.ndarray:
    """Return which tangents leave `fun` unchanged at random points near params and are not zero there."""
    vector, unravel = tree.ravel(params)
    size, generator = np.abs(vector), np.random.default_rng(0)
    typical = float(np.mean(size)) or 1.0
    valid = np.array(True)
    for _ in range(_POINTS):
        there = vector + _SPREAD * (size + typical) * generator.standard_normal(vector.shape)
        nudge = 2 * unit * (np.abs(there) + typical) * generator.choice([-1.0, 1.0], vector.shape)
        here, above, below = (np.asarray(gradient(fun, v, params, args)) for v in (there, there + nudge, there - nudge))
        change = np.maximum(np.abs(above - here), np.abs(below - here))
        error = _SAFETY * (np.maximum(change, np.median(change)) + unit * np.abs(here))
        rows = _rows(_stacked(fields, unravel(there)))
        valid = valid & (np.abs(rows @ here) <= np.abs(rows) @ error) & np.any(rows != 0, axis=1)
    return valid


def _rows(stacked: PyTree) -> np.ndarray:
    """Return (k, P) tangents as rows in the order of `tree.ravel`."""
    leaves = jax.tree.leaves(stacked)
    return np.concatenate([leaf.reshape(len(leaf), math.prod(leaf.shape[1:])) for leaf in leaves], axis=1)
