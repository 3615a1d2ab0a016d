"""The schedules compared: five decays, each with and without warm-up, from the same peak."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mlp_jax import schedules

DECAYS = ("constant", "step", "linear", "exponential", "cosine")
CONTENDERS = tuple((decay, warm) for warm in (False, True) for decay in DECAYS)


def shapes(updates: int) -> list[schedules.Schedule]:
    """Return the schedules of CONTENDERS over `updates` updates, with a peak of 1; warm-up takes a tenth of them.

    Step decay divides by 10 after each third. Exponential decay ends at a hundredth, linear and cosine decay at 0.
    """
    found: list[schedules.Schedule] = []
    for rise in (0, max(1, updates // 10)):
        rest = updates - rise
        decays = (
            optax.constant_schedule(1.0),
            optax.exponential_decay(1.0, -(-rest // 3), 0.1, staircase=True),
            optax.linear_schedule(1.0, 0.0, rest),
            optax.exponential_decay(1.0, rest, 0.01),
            optax.cosine_decay_schedule(1.0, rest),
        )
        # Warm-up starts at 1/rise, not 0, so that the first update changes the params.
        found += [schedules.warmup(decay, rise, start=1 / rise) if rise else decay for decay in decays]
    return found


def scheduled_sgd(updates: int) -> Callable[..., optax.GradientTransformation]:
    """Return (peak, contender number) -> SGD with both arguments traced, so that all contenders share a program."""
    steps = jnp.arange(updates)
    table = jnp.stack([jnp.broadcast_to(shape(steps), updates).astype(jnp.float32) for shape in shapes(updates)])

    def optimizer(peak: jax.Array, contender: jax.Array) -> optax.GradientTransformation:
        return optax.sgd(lambda step: peak * table[contender.astype(jnp.int32), step])

    return optimizer
