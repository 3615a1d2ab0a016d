"""Learning-rate schedules that optax does not have. Transformable.

A schedule is a function step -> value, as in optax, which has the usual ones:

- step decay: `optax.exponential_decay(0.1, 30, 0.5, staircase=True)`, `optax.piecewise_constant_schedule`
- linear decay: `optax.linear_schedule(0.1, 0.0, 100)`
- exponential decay: `optax.exponential_decay(0.1, 30, 0.5)`
- cosine decay: `optax.cosine_decay_schedule(0.1, 100)`

The functions here make one schedule from another: `warmup` adds a linear rise before it, `per_epoch` holds it constant
within an epoch. Every optax optimiser takes the result as its learning rate:
`optax.sgd(warmup(optax.cosine_decay_schedule(0.1, 100), 10))`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mlp_jax import _checks

__all__ = ["per_epoch", "warmup"]
__dir__ = __all__.copy

Schedule = Callable[[jax.Array], jax.Array]

_MOST_STEPS = 2**31 - 1  # steps are counted in int32


def warmup(schedule: Schedule, steps: int, *, start: float = 0.0) -> Schedule:
    """Return a schedule that rises linearly to the first value of `schedule`, then follows it.

    w(t) = start + (s(0) − start) · t / steps for t < steps; w(t) = s(t − steps) from there (Goyal et al. 2017,
    "Accurate, Large Minibatch SGD"). Unlike `optax.join_schedules`, it reads the peak from the schedule, and never
    calls the schedule with a negative step. With the default start of 0, the first update changes nothing.

    schedule: step -> value; steps: length of the rise in updates, 0 or more; start: value at step 0.

    Examples
    --------
    >>> import optax
    >>> rate = warmup(optax.linear_schedule(0.8, 0.0, 4), 4)
    >>> [round(float(rate(t)), 1) for t in range(9)]
    [0.0, 0.2, 0.4, 0.6, 0.8, 0.6, 0.4, 0.2, 0.0]
    """
    steps, start = _checks.integer(steps, "steps", 0, _MOST_STEPS), _checks.real(start, "start")

    def warmed(step: jax.Array) -> jax.Array:
        value = schedule(jnp.maximum(step - steps, 0))
        rising = start + (value - start) * (step / max(steps, 1))
        return jnp.where(step < steps, rising, value)

    return warmed


def per_epoch(schedule: Schedule, steps_per_epoch: int) -> Schedule:
    """Return a schedule in updates from one in epochs: t -> s(⌊t / steps_per_epoch⌋).

    schedule: epoch -> value; steps_per_epoch: updates per epoch, ⌈examples / batch size⌉ in `training.train`.

    Examples
    --------
    >>> import optax
    >>> rate = per_epoch(optax.exponential_decay(0.8, 1, 0.5), 3)
    >>> [round(float(rate(t)), 1) for t in range(7)]
    [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2]
    """
    steps_per_epoch = _checks.integer(steps_per_epoch, "steps_per_epoch", 1, _MOST_STEPS)
    return lambda step: schedule(step // steps_per_epoch)
