"""Learning-rate schedules that optax does not have. Transformable.

A schedule is a function step -> value, as in optax, and the usual ones come from there:

- step decay: `optax.exponential_decay(0.1, 30, 0.5, staircase=True)`, `optax.piecewise_constant_schedule`
- linear decay: `optax.linear_schedule(0.1, 0.0, 100)`
- exponential decay: `optax.exponential_decay(0.1, 30, 0.5)`
- cosine decay: `optax.cosine_decay_schedule(0.1, 100)`

This module has what turns one schedule into another: `warmup` before any of them, `per_epoch` to hold any of them
constant within an epoch. Both give what every optax optimiser takes as its learning rate:
`optax.sgd(warmup(optax.cosine_decay_schedule(0.1, 100), 10))`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mlp_jax import _checks

Schedule = Callable[[jax.Array], jax.Array]

# The number of an update is an int32.
_MOST_STEPS = 2**31 - 1


def warmup(schedule: Schedule, steps: int, *, start: float = 0.0) -> Schedule:
    """Return a schedule that rises in a straight line to the first value of `schedule`, then follows it.

    w(t) = start + (s(0) − start) · t / steps for t < steps; w(t) = s(t − steps) from there (Goyal et al. 2017,
    "Accurate, Large Minibatch SGD"). The peak is read from the schedule, which is never asked for a negative step;
    `optax.join_schedules` needs the peak a second time, and asks.

    Parameters
    ----------
    schedule
        Any function step -> value.
    steps
        Length of the rise in updates, 0 (none) or more.
    start
        Value at step 0. With the default of 0 the first update changes nothing.

    Returns
    -------
    function step -> value

    Raises
    ------
    TypeError, ValueError
        `schedule` is no function, `steps` not an integer of 0 or more, or `start` not a finite number; when called,
        the schedule returns no real number.

    Examples
    --------
    >>> import optax
    >>> rate = warmup(optax.linear_schedule(0.8, 0.0, 4), 4)
    >>> [round(float(rate(t)), 1) for t in range(9)]
    [0.0, 0.2, 0.4, 0.6, 0.8, 0.6, 0.4, 0.2, 0.0]
    """
    _checks.function(schedule, "schedule", "step -> value")
    steps, start = _checks.integer(steps, "steps", 0, _MOST_STEPS), _checks.real(start, "start")

    def warmed(step: jax.Array) -> jax.Array:
        value = _value(schedule, jnp.maximum(step - steps, 0))
        rising = start + (value - start) * (step / max(steps, 1))
        return jnp.where(step < steps, rising, value)

    return warmed


def per_epoch(schedule: Schedule, steps_per_epoch: int) -> Schedule:
    """Return a schedule in updates from one in epochs: t -> s(⌊t / steps_per_epoch⌋), constant within an epoch.

    Parameters
    ----------
    schedule
        Any function epoch -> value.
    steps_per_epoch
        Updates an epoch: ⌈examples / batch size⌉ in `training.train`.

    Returns
    -------
    function step -> value

    Raises
    ------
    TypeError, ValueError
        `schedule` is no function, or `steps_per_epoch` not an integer of 1 or more; when called, the schedule
        returns no real number.

    Examples
    --------
    >>> import optax
    >>> rate = per_epoch(optax.exponential_decay(0.8, 1, 0.5), 3)
    >>> [round(float(rate(t)), 1) for t in range(7)]
    [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2]
    """
    _checks.function(schedule, "schedule", "epoch -> value")
    steps_per_epoch = _checks.integer(steps_per_epoch, "steps_per_epoch", 1, _MOST_STEPS)
    return lambda step: _value(schedule, step // steps_per_epoch)


def _value(schedule: Schedule, step: jax.Array) -> jax.Array:
    value = schedule(step)
    _checks.numbers(value, "schedule")
    return value
