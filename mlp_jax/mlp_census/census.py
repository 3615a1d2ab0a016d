"""complete: prove that a list holds all critical points of a small network, in all of parameter space."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, mlp
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Progress
from mlp_jax.interval import Completeness, Refusal, ball, elementary, trust
from mlp_jax.interval.ball import Array, Ball
from mlp_jax.interval.branching import Explored, Zero, expected
from mlp_jax.interval.contraction import Contracted
from mlp_jax.interval.listing import ASSUMPTIONS, searched
from mlp_jax.interval.proof import digest
from mlp_jax.interval.systems import Traced
from mlp_jax.mlp_census.equations import Equations
from mlp_jax.mlp_census.orbits import Group, group, orbits


@dataclasses.dataclass(frozen=True)
class _Network:
    """A network's equations: boxes by `equations`, Newton's method, uniqueness and indices by `traced`."""

    equations: Equations
    traced: Traced
    symmetries: Group
    low: Array
    high: Array
    inputs: Array
    targets: Array
    picklable = True

    @property
    def contract(self) -> Callable[[Array, Array], Contracted]:
        return self.equations.contract

    def polish(self, points: Array) -> Array:
        return self.traced.polish(points)

    def enclose(self, points: Array) -> list[Zero]:
        return self.traced.enclose(points)


def complete(
    inputs: Any,
    targets: Any,
    hidden: int,
    decay: float,
    *,
    max_boxes: int = 2_000_000,
    resume: Completeness | None = None,
    progress: Progress | None = None,
    excluded: Callable[[Array, Array], Any] | None = None,
) -> Completeness:
    """Prove that a list holds all critical points of a tanh network with one hidden layer; or refuse. Host-level.

    The loss is the mean of half the squared error plus `decay`/2 times the sum of squares of all parameters, biases
    included, as of `losses.squared_error` and `penalties.l2`. A priori bounds hold at every critical point, so that a
    box holds them all up to symmetry (see `bounds`); it is searched by branch and prune, with the output layer's bias
    eliminated. One point of each orbit is listed, with the size of the orbit.

    For one to three hidden units, few inputs and up to about 20 examples. The cost grows quickly with the number of
    parameters and as the decay falls; `expected_boxes` estimates it.

    Parameters
    ----------
    inputs, targets
        (N, d) and (N,), exact numbers.
    hidden
        Number of hidden units.
    decay
        Weight decay λ > 0.
    max_boxes
        The budget; a refusal shows the boxes left.
    resume
        A refusal of the same problem: go on from its boxes.
    progress
        Called as progress(done, total) with the share of the volume that is decided, in parts per million.
    excluded
        Called as excluded(low, high) with the corners, (m, n), of boxes that hold no critical point: for figures.

    Returns
    -------
    Completeness. Points are in the order of `tree.ravel` of params of sizes (d, hidden, 1): `params_of` turns them into
    params. The boxes are those of the hidden weights and biases, unit by unit, and the output weights.

    Raises
    ------
    ValueError
        Shapes that do not fit, numbers that are not finite, hidden or max_boxes below 1, decay not above 0.

    Examples
    --------
    >>> x, y = np.array([[-1.0], [0.0], [1.0]]), np.array([-1.0, 0.0, 1.0])
    >>> found = complete(x, y, 1, 0.1)
    >>> found.complete, found.count, found.indices, found.degree
    (True, 3, {0: 2, 1: 1}, 1)
    """
    max_boxes = _checks.integer(max_boxes, "max_boxes", 1)
    network = _network(inputs, targets, hidden, decay)
    corners, place = (network.low, network.high), functools.partial(_coordinates, network)
    with precision.float64():
        found = searched(network, corners, _digest(network), max_boxes, resume, progress, excluded, place)
    return _conclude(network, found)


def expected_boxes(
    inputs: Any, targets: Any, hidden: int, decay: float, *, descents: int = 2000, seed: int = 0
) -> float:
    """Return an estimate of how many boxes `complete` would test; see `interval.expected_boxes`.

    Examples
    --------
    >>> expected_boxes(np.array([[-1.0], [0.0], [1.0]]), np.array([-1.0, 0.0, 1.0]), 1, 0.1) < 2000
    True
    """
    descents = _checks.integer(descents, "descents", 1)
    network = _network(inputs, targets, hidden, decay)
    with precision.float64():
        return expected(network, (network.low, network.high), descents, np.random.default_rng(seed))


def params_of(found: Completeness, hidden: int) -> mlp.Params:
    """Return the points of a list as params with a leading axis.

    Examples
    --------
    >>> x, y = np.array([[-1.0], [0.0], [1.0]]), np.array([-1.0, 0.0, 1.0])
    >>> params_of(complete(x, y, 1, 0.1), 1)[0].weight.shape
    (2, 1, 1)
    """
    points = found.points
    features = (points.shape[1] - 1) // hidden - 2
    weight, bias, out, last = np.split(points, np.cumsum([features * hidden, hidden, hidden]), axis=1)
    return (
        mlp.Layer(jnp.asarray(weight.reshape(-1, features, hidden)), jnp.asarray(bias)),
        mlp.Layer(jnp.asarray(out.reshape(-1, hidden, 1)), jnp.asarray(last)),
    )


def _network(inputs: Any, targets: Any, hidden: int, decay: float) -> _Network:
    inputs, targets = np.asarray(inputs, float), np.asarray(targets, float)
    hidden, decay = _checks.integer(hidden, "hidden", 1), float(_checks.positive(decay, "decay"))
    if inputs.ndim != 2 or targets.shape != inputs.shape[:1] or not len(targets):
        raise ValueError(f"inputs, targets: got shapes {inputs.shape}, {targets.shape}, expected (N, d) and (N,).")
    if not (np.all(np.isfinite(inputs)) and np.all(np.isfinite(targets))):
        raise ValueError("inputs, targets: expected finite numbers.")
    symmetries = group(inputs, targets, hidden)
    equations = Equations(inputs, targets, hidden, decay, symmetries.descending)
    out, weight = (np.sqrt(x) * (1 + 4 * ball.UNIT) for x in (equations.bounds.outgoing, equations.bounds.incoming))
    high = np.concatenate([np.full(hidden * equations.width, weight), np.full(hidden, out)])
    low = -high
    low[np.arange(1, hidden + 1) * equations.width - 1] = 0
    traced = Traced(_reduced_gradient(hidden, equations.width, decay), high - low, [inputs, targets])
    return _Network(equations, traced, symmetries, low, high, inputs, targets)


def _reduced_gradient(hidden: int, width: int, decay: float) -> Callable[..., jax.Array]:
    """Return the gradient of the loss minimised over the output's bias, as a function of (w, v)."""

    def loss(vector: jax.Array, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        w, v = vector[: hidden * width].reshape(hidden, width), vector[hidden * width :]
        gap = jnp.tanh(inputs @ w[:, :-1].T + w[:, -1]) @ v - targets
        return (jnp.mean(gap**2) - jnp.mean(gap) ** 2 / (1 + decay) + decay * jnp.sum(vector**2)) / 2

    return jax.grad(loss)


def _conclude(network: _Network, found: Explored) -> Completeness:
    reason = ""
    try:
        trust.require_ieee()
        zeros, copies = orbits(found.zeros, network.symmetries)
    except Refusal as refusal:
        zeros, copies, reason = found.zeros, np.ones(len(found.zeros), np.int64), str(refusal)
    with precision.float64():
        index = network.traced.indices(zeros)
    if len(found.left.low):
        share = float(np.sum(found.left.share))
        reason = f"{len(found.left.low):,} boxes, {share:.2g} of the volume, are undecided"
    elif np.any(index < 0):
        reason = f"the index at {zeros[int(np.argmin(index))].point.tolist()} is not proved"
    where = [_point(network, zero) for zero in zeros]
    parameters = network.equations.size + 1
    sizes = f"{network.inputs.shape[1]}-{network.equations.units}-1"
    return Completeness(
        complete=not reason,
        reason=reason
        or "critical points satisfy a priori bounds; every box within them is excluded, or holds exactly one of them",
        subject=(
            f"the loss of a tanh {sizes} network on {len(network.targets)} examples with weight decay"
            f" {network.equations.decay:g}",
            "critical points",
        ),
        region="In all of parameter space",
        low=network.low,
        high=network.high,
        points=np.array([x.mid for x in where]).reshape(-1, parameters),
        radii=np.array([x.radius for x in where]).reshape(-1, parameters),
        copies=copies,
        index=index,
        boxes=found.tested,
        seconds=found.seconds,
        undecided_low=found.left.low,
        undecided_high=found.left.high,
        undecided_share=found.left.share,
        assumptions=ASSUMPTIONS,
        data=_digest(network),
    )


def _digest(network: _Network) -> str:
    return digest([network.inputs, network.targets, np.array([network.equations.units, network.equations.decay])])


def _point(network: _Network, zero: Zero) -> Ball:
    """Return all parameters at a zero, the output's bias too, in the order of `tree.ravel`."""
    units, width = network.equations.units, network.equations.width
    radius = np.maximum(zero.near[1] - zero.point, zero.point - zero.near[0])
    x = Ball(zero.point, radius)
    w = ball.move(lambda a: a[: units * width].reshape(units, width), x)
    v = ball.move(lambda a: a[units * width :], x)
    extended = ball.exact(np.concatenate([network.inputs, np.ones((len(network.inputs), 1))], axis=1).T)
    outputs = ball.matmul(ball.move(lambda a: a[None], v), elementary.elementwise("tanh", ball.matmul(w, extended)))
    gap = ball.total(ball.sub(ball.exact(network.targets[None]), outputs), (1,))
    number = ball.exact(np.array(float(len(network.targets))))
    one = ball.exact(np.array(1.0))
    bias = ball.div(gap, ball.mul(number, ball.add(one, ball.exact(np.array(network.equations.decay)))))
    return ball.move(lambda a, b, c: np.concatenate([a[:, :-1].T.ravel(), a[:, -1], b, c]), w, v, bias)


def _coordinates(network: _Network, point: Array) -> Array:
    """Return (w, v) from all parameters."""
    units, features = network.equations.units, network.inputs.shape[1]
    weight, bias, out, _ = np.split(point, np.cumsum([features * units, units, units]))
    return np.concatenate([np.column_stack([weight.reshape(features, units).T, bias]).ravel(), out])
