"""Random networks for `benchmarks.soundness`: is the Hessian of the loss inside its enclosure by layer blocks?

The oracle differentiates the loss twice by JAX and evaluates it with 60 digits, at random points and corners of a box.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import losses, mlp, mlp_hessian, penalties, tree
from mlp_jax.interval import ball, multiprecision
from mlp_jax.interval.ball import Ball, Refusal
from mlp_jax.interval.interpreter import evaluate
from mlp_jax.interval.program import flatten

BITS, POINTS = 200, 3
ACTIVATIONS = (jnp.tanh, jax.nn.softplus, jax.nn.sigmoid, jnp.sin)
LOSSES = (losses.cross_entropy, losses.squared_error)
SIZES = ((2, 2, 2), (2, 3, 2), (2, 2, 2, 2))


class Count(NamedTuple):
    """Numbers of networks, of entries compared, of those outside, and of networks refused."""

    networks: int
    entries: int
    outside: int
    refused: int


def run(networks: int, seed: int, progress: Callable[[Iterable[int]], Iterable[int]] = lambda x: x) -> Count:
    """Draw networks and boxes, and count the entries of their Hessians outside the enclosures."""
    generator, entries, outside, refused = np.random.default_rng(seed), 0, 0, 0
    with jax.enable_x64(True):
        for _ in progress(range(networks)):
            try:
                compared, missed = _one(generator)
            except Refusal:
                refused += 1
                continue
            entries, outside = entries + compared, outside + missed
    return Count(networks, entries, outside, refused)


def _one(generator: np.random.Generator) -> tuple[int, int]:
    sizes = SIZES[generator.integers(len(SIZES))]
    activation, loss = ACTIVATIONS[generator.integers(len(ACTIVATIONS))], LOSSES[generator.integers(len(LOSSES))]
    inputs = generator.standard_normal((int(generator.integers(1, 6)), sizes[0]))
    classes = generator.integers(sizes[-1], size=len(inputs))
    targets = classes if loss is losses.cross_entropy else np.eye(sizes[-1])[classes]
    decay = float(10.0 ** generator.uniform(-3, 0))
    vector, unravel = tree.ravel(jax.tree.map(jnp.asarray, mlp.init(jax.random.key(0), sizes, dtype=jnp.float64)))

    def penalty(params: mlp.Params) -> jax.Array:
        return penalties.l2(params, decay)

    def total(v: jax.Array) -> jax.Array:
        outputs = mlp.forward(unravel(v), inputs, activation=activation)
        return losses.mean(loss(outputs, targets)) + penalty(unravel(v))

    def enclosed(v: jax.Array) -> jax.Array:
        settings: dict[str, Any] = {"loss": loss, "activation": activation, "penalty": penalty}
        return mlp_hessian.enclosable(unravel(v), inputs, targets, **settings)

    programs = [flatten(jax.make_jaxpr(f)(vector)) for f in (enclosed, jax.hessian(total))]
    center = generator.standard_normal(vector.size) * 10.0 ** generator.uniform(-2, 1)
    box = Ball(center, 10.0 ** generator.uniform(-16, -1) * generator.random(vector.size))
    found = evaluate(programs[0], [box], ball)[0]
    outside = 0
    for point in range(POINTS):
        share = generator.choice([-1.0, 1.0], vector.size) if point == 0 else generator.uniform(-1, 1, vector.size)
        with multiprecision.bits(BITS):
            place = multiprecision.exact(center) + multiprecision.exact(box.radius) * multiprecision.exact(share)
            exact = evaluate(programs[1], [place], multiprecision)[0]
            entries = zip(exact.ravel(), found.mid.ravel(), found.radius.ravel(), strict=True)
            outside += sum(not abs(value - middle) <= radius for value, middle, radius in entries)
    return POINTS * found.mid.size, outside
