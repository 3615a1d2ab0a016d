"""Initial scales and learning rates by layer, so that a network of another width trains like the one at hand.

Standard, neural-tangent and maximal-update scaling are the same at a base width. At other widths they multiply the
initial values and the updates of each leaf by powers of its fan-in and fan-out. For weights (in, out), with
r = in / base in and s = out / base out, and for biases (out,), with r = 1:

| | initial values | SGD rate | Adam rate |
|---|---|---|---|
| standard | 1 | 1 | 1 |
| `neural_tangent` | 1 | 1 / r | 1 / (r √s) |
| `maximal_update` | min(1, √(s / r)) | s / r | 1 / r |

They are for initial values of variance 1 / fan-in, such as those of `mlp.init`. To multiply initial values and updates
is the same as a factor before each weight in the network, which therefore stays as it is. Transformable.

>>> from mlp_jax import mlp
>>> base, sizes = (mlp.init(jax.random.key(0), (8, width, 1)) for width in (4, 16)), (8, 16, 1)
>>> small, wide = base
>>> factors = maximal_update(wide, small)
>>> params = jax.tree.map(jnp.multiply, wide, factors.start)
>>> [(layer.weight, layer.bias) for layer in factors.sgd]
[(4.0, 4.0), (0.25, 1.0)]

The learning rate that is best for `small` is then good for `params`, with either optimizer:

>>> import optax
>>> descent = optax.chain(optax.sgd(0.1), by_leaf(factors.sgd))
>>> adam = optax.chain(optax.adam(0.01), by_leaf(factors.adam))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlp_jax.tree import PyTree

__all__ = ["Factors", "by_leaf", "maximal_update", "neural_tangent"]
__dir__ = __all__.copy


class Factors(NamedTuple):
    """Numbers to multiply with, each a pytree like params with one float for each leaf.

    start: the initial values; sgd, adam: the updates of an optimizer that is linear in the gradient, as SGD with and
    without momentum, or that normalises it entry by entry, as Adam, RMSProp, Adagrad and sign descent.
    """

    start: PyTree
    sgd: PyTree
    adam: PyTree


def maximal_update(params: PyTree, base: PyTree) -> Factors:
    """Return the factors of maximal-update scaling (μP), in which every layer learns at every width.

    The updates of each layer change its outputs, and those of the network, by amounts that do not depend on the width,
    so that the best learning rate does not either (Yang & Hu 2021, "Feature learning in infinite-width neural
    networks"; Yang et al. 2022, "Tensor programs V", table 3; with powers of fan-in and fan-out for all layers alike,
    Yang, Simon & Bernstein 2023, "A spectral condition for feature learning"). Input and output size are those of base.

    Parameters
    ----------
    params, base
        Weights (in, out) and biases (out,) in any pytree, at the width wanted and at the base width: arrays, or
        shapes from `jax.eval_shape`.

    Raises
    ------
    ValueError
        The pytrees differ in structure or numbers of axes, or a leaf has not one or two axes.

    Examples
    --------
    >>> weights = [jnp.zeros((64, 128)), jnp.zeros((128, 128)), jnp.zeros((128, 10))]
    >>> maximal_update(weights, [jnp.zeros((64, 32)), jnp.zeros((32, 32)), jnp.zeros((32, 10))])
    Factors(start=[1.0, 1.0, 0.5], sgd=[4.0, 1.0, 0.25], adam=[1.0, 0.25, 0.25])
    """
    return _factors(params, base, lambda r, s: (min(1.0, math.sqrt(s / r)), s / r, 1 / r))


def neural_tangent(params: PyTree, base: PyTree) -> Factors:
    """Return the factors of neural-tangent scaling (NTK), in which wide networks train like linear models.

    The updates of each layer change the outputs of the network by an amount that does not depend on the width, and
    hidden units by ever less (Jacot, Gabriel & Hongler 2018, "Neural tangent kernel"). The rates of Adam follow from
    the same condition, for updates of a given size that have the sign of the gradient. Arguments and errors: see
    `maximal_update`.

    Examples
    --------
    >>> weights = [jnp.zeros((64, 128)), jnp.zeros((128, 128)), jnp.zeros((128, 10))]
    >>> neural_tangent(weights, [jnp.zeros((64, 32)), jnp.zeros((32, 32)), jnp.zeros((32, 10))])
    Factors(start=[1.0, 1.0, 1.0], sgd=[1.0, 0.25, 0.25], adam=[0.5, 0.125, 0.25])
    """
    return _factors(params, base, lambda r, s: (1.0, 1 / r, 1 / (r * math.sqrt(s))))


def by_leaf(factors: PyTree) -> optax.GradientTransformation:
    """Return the transformation that multiplies the updates of each leaf by its factor.

    Chain it after the optimizer, whose rate it multiplies: `optax.chain(optax.adam(0.01), by_leaf(factors.adam))`.
    It multiplies the weight decay of `optax.adamw` too. ValueError if the updates have another structure.

    Examples
    --------
    >>> double = by_leaf((2.0, 1.0))
    >>> [float(update) for update in double.update((jnp.array(1.0), jnp.array(5.0)), double.init(()))[0]]
    [2.0, 5.0]
    """
    return optax.stateless(lambda updates, params: jax.tree.map(jnp.multiply, updates, factors))


def _factors(params: PyTree, base: PyTree, rule: Callable[[float, float], tuple[float, float, float]]) -> Factors:
    """Return the factors that `rule` gives for the ratios of fan-in and of fan-out of each leaf."""

    def of_leaf(leaf: Any, at_base: Any) -> tuple[float, float, float]:
        shapes = np.shape(leaf), np.shape(at_base)
        if len(shapes[0]) not in (1, 2) or len(shapes[1]) != len(shapes[0]):
            raise ValueError(f"params, base: got shapes {shapes[0]} and {shapes[1]}, expected (in, out) or (out,).")
        ratios = [one / other for one, other in zip(*shapes, strict=True)]
        return rule(ratios[0] if len(ratios) == 2 else 1.0, ratios[-1])

    return Factors(*(jax.tree.map(lambda *leaves, k=k: of_leaf(*leaves)[k], params, base) for k in range(3)))
