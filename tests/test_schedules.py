import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlp_jax import schedules

# optax's own schedules and optimisers mix an integer step with floats.
pytestmark = [pytest.mark.implicit_promotion, pytest.mark.usefixtures("x64")]
STEPS = np.arange(40)
DECAYS = {
    "step": (optax.exponential_decay(0.1, 8, 0.5, staircase=True), 0.1 * 0.5 ** (STEPS // 8)),
    "cosine": (optax.cosine_decay_schedule(0.1, 20), 0.05 * (1 + np.cos(np.pi * np.minimum(STEPS / 20, 1)))),
    "inverse square root": (lambda step: 0.1 / jnp.sqrt(step + 1.0), 0.1 / np.sqrt(STEPS + 1)),
}
each_decay = pytest.mark.parametrize(("schedule", "expected"), DECAYS.values(), ids=DECAYS.keys())


def table(schedule):
    return np.array([float(schedule(step)) for step in STEPS])


@each_decay
@pytest.mark.parametrize(("steps", "start"), [(6, 0.02), (0, 0.0)])
def test_warmup_is_a_straight_line_to_the_first_value_and_then_the_schedule_itself(schedule, expected, steps, start):
    line = start + (expected[0] - start) * np.arange(steps) / max(steps, 1)
    warmed = jax.jit(schedules.warmup(schedule, steps, start=start))
    np.testing.assert_allclose(table(warmed), np.concatenate([line, expected])[:40], rtol=1e-12, atol=1e-17)


def test_warmup_of_a_cosine_is_the_one_of_optax():
    ours = schedules.warmup(optax.cosine_decay_schedule(0.1, 20), 10)
    theirs = optax.warmup_cosine_decay_schedule(0.0, 0.1, warmup_steps=10, decay_steps=30)
    np.testing.assert_allclose(table(ours), table(theirs), rtol=1e-12, atol=1e-17)


def test_warmup_never_calls_the_schedule_with_a_negative_step():
    asked = []
    table(schedules.warmup(lambda step: asked.append(int(step)) or 0.1, 6))
    assert min(asked) == 0
    assert max(asked) == 33


@each_decay
def test_per_epoch_repeats_the_value_of_an_epoch_for_each_of_its_updates(schedule, expected):
    np.testing.assert_allclose(
        table(jax.jit(schedules.per_epoch(schedule, 7))), np.repeat(expected, 7)[:40], rtol=1e-12, atol=1e-17
    )


def test_an_optimiser_follows_the_schedule_update_by_update():
    rate = schedules.warmup(schedules.per_epoch(optax.exponential_decay(0.1, 1, 0.5), 2), 3)
    optimizer = optax.sgd(rate)
    start = optimizer.init(jnp.zeros(()))
    moved = jax.jit(lambda: jax.lax.scan(lambda s, _: optimizer.update(-jnp.ones(()), s)[::-1], start, length=8)[1])()
    np.testing.assert_allclose(moved, [0, 0.1 / 3, 0.2 / 3, 0.1, 0.1, 0.05, 0.05, 0.025], rtol=1e-6)


def test_schedules_work_under_strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        warmed = schedules.warmup(schedules.per_epoch(optax.linear_schedule(0.1, 0.0, 4), 2), 2)
        values = [float(jax.jit(warmed)(jnp.int32(step))) for step in range(5)]
    np.testing.assert_allclose(values, [0.0, 0.05, 0.1, 0.1, 0.075], rtol=1e-6)


@pytest.mark.parametrize(("steps", "error"), [(-1, ValueError), (2.5, TypeError), (True, TypeError)])
def test_lengths_that_are_not_integers_are_refused(steps, error):
    with pytest.raises(error, match=f"steps: got {steps}, expected an integer from 0"):
        schedules.warmup(optax.constant_schedule(0.1), steps)
    with pytest.raises(error, match=f"steps_per_epoch: got {steps}, expected an integer from 1"):
        schedules.per_epoch(optax.constant_schedule(0.1), steps)
