"""The update rules of the learning notes, as optax has them, against their formulas written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

# optax's bias correction mixes an integer step with floats.
pytestmark = [pytest.mark.implicit_promotion, pytest.mark.usefixtures("x64")]

MATRIX = np.array([[3.0, 0.5, 0.0], [0.5, 1.0, -0.2], [0.0, -0.2, 0.3]])
MINIMUM = np.array([1.0, -2.0, 0.5])
START = np.array([4.0, 3.0, -1.0])
RATE, STEPS = 0.05, 60


def gradient(theta):
    return MATRIX @ (theta - MINIMUM)


def written(rule):
    """Follow a rule (t, theta, gradient, memory) -> (theta, memory) from START; memory starts as None."""
    theta, memory, path = START, None, []
    for t in range(1, STEPS + 1):
        theta, memory = rule(t, theta, gradient(theta), memory)
        path.append(theta)
    return np.array(path)


def followed(optimizer):
    def step(carry, _):
        theta, state = carry
        grads = jnp.asarray(MATRIX) @ (theta - jnp.asarray(MINIMUM))
        updates, state = optimizer.update(grads, state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), theta

    start = jnp.asarray(START)
    return jax.jit(lambda: jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS)[1])()


def sgd(t, theta, g, memory):
    return theta - RATE * g, None


def momentum(t, theta, g, velocity):
    """v ← 0.9 v + g; θ ← θ − η v."""
    velocity = g if velocity is None else 0.9 * velocity + g
    return theta - RATE * velocity, velocity


def nesterov(t, theta, g, velocity):
    """v ← 0.9 v + g; θ ← θ − η (g + 0.9 v): the gradient at the point ahead, in optax's and torch's variables."""
    velocity = g if velocity is None else 0.9 * velocity + g
    return theta - RATE * (g + 0.9 * velocity), velocity


def adagrad(t, theta, g, total):
    """s ← s + g², from 0.1; θ ← θ − η g / √(s + ε), ε = 1e-7 inside the root."""
    total = (0.1 if total is None else total) + g**2
    return theta - RATE * g / np.sqrt(total + 1e-7), total


def rmsprop(t, theta, g, average):
    """s ← 0.9 s + 0.1 g², from 0; θ ← θ − η g / √(s + ε), ε = 1e-8 inside the root."""
    average = 0.9 * (0 if average is None else average) + 0.1 * g**2
    return theta - RATE * g / np.sqrt(average + 1e-8), average


def adam(t, theta, g, memory, weight_decay=0.0):
    """m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ); θ ← θ − η (m̂ / (√v̂ + ε) + decay · θ), ε = 1e-8 outside the root."""
    first, second = (0, 0) if memory is None else memory
    first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
    direction = first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return theta - RATE * (direction + weight_decay * theta), (first, second)


def adamw(t, theta, g, memory):
    """Weight decay apart from the moments (Loshchilov & Hutter 2019)."""
    return adam(t, theta, g, memory, weight_decay=0.03)


RULES = {
    "sgd": (optax.sgd(RATE), sgd),
    "momentum": (optax.sgd(RATE, momentum=0.9), momentum),
    "nesterov": (optax.sgd(RATE, momentum=0.9, nesterov=True), nesterov),
    "adagrad": (optax.adagrad(RATE), adagrad),
    "rmsprop": (optax.rmsprop(RATE), rmsprop),
    "adam": (optax.adam(RATE), adam),
    "adamw": (optax.adamw(RATE, weight_decay=0.03), adamw),
}


@pytest.mark.parametrize(("optimizer", "rule"), RULES.values(), ids=RULES.keys())
def test_each_update_rule_follows_its_written_formula(optimizer, rule):
    np.testing.assert_allclose(followed(optimizer), written(rule), rtol=1e-10, atol=1e-12)


def test_nesterov_in_these_variables_is_the_gradient_at_the_point_ahead():
    """With φ = θ + η 0.9 v: v ← 0.9 v + ∇L(φ − η 0.9 v), φ ← φ − η v (Sutskever et al. 2013)."""
    position, velocity, path = START, np.zeros(3), []
    for _ in range(STEPS):
        velocity = 0.9 * velocity + gradient(position - RATE * 0.9 * velocity)
        position = position - RATE * velocity
        path.append(position - RATE * 0.9 * velocity)
    np.testing.assert_allclose(written(nesterov), path, rtol=1e-10, atol=1e-12)
