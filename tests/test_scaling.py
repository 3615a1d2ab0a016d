"""Scaling with the width against the networks with explicit factors that define it, and by what an update changes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlp_jax import losses, mlp, scaling

KEY = jax.random.key(3)
BASE = mlp.init(KEY, (5, 4, 4, 2))


# Multipliers m of W = m w by layer for three times the base width, as squares, and the variance of w times fan-in.
# Neural tangent: w / √fan-in, variance 1 (Jacot et al. 2018). Maximal update: √n, 1, 1/√n and variance 1/n (Yang & Hu
# 2021, table 1). Both with constants that make them standard at the base width; m of a bias is that of the first layer.
DEFINITIONS = {
    scaling.neural_tangent: ([1, 1 / 3, 1 / 3], [1, 1, 1], [1, 3, 3]),
    scaling.maximal_update: ([3, 1, 1 / 3], [3, 3, 1], [1 / 3, 1, 1]),
}


@pytest.mark.parametrize("rule", DEFINITIONS)
@pytest.mark.usefixtures("x64")
def test_descent_with_factors_is_descent_on_the_network_with_explicit_multipliers(rule):
    params = mlp.init(KEY, (5, 12, 12, 2))
    factors = rule(params, BASE)
    by_weight, by_bias, variances = map(np.sqrt, DEFINITIONS[rule])
    m = tuple(mlp.Layer(*pair) for pair in zip(by_weight, by_bias, strict=True))
    rng = np.random.default_rng(0)
    data = rng.normal(size=(7, 5)), rng.normal(size=(7, 2))
    loss = lambda p: losses.mean(losses.squared_error(mlp.forward(p, data[0]), data[1]))
    multiply = lambda a, b: jax.tree.map(jnp.multiply, a, b)
    start = multiply(params, factors.start)
    drawn = tuple(mlp.Layer(v * layer.weight, layer.bias) for v, layer in zip(variances, params, strict=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), start, multiply(drawn, m))

    def descend(fun, params, optimizer):
        state = optimizer.init(params)
        for _ in range(4):
            updates, state = optimizer.update(jax.grad(fun)(params), state, params)
            params = optax.apply_updates(params, updates)
        return params

    run = jax.jit(descend, static_argnums=(0, 2))
    ours = run(loss, start, optax.chain(optax.sgd(0.1, momentum=0.5), scaling.by_leaf(factors.sgd)))
    theirs = run(lambda w: loss(multiply(w, m)), drawn, optax.sgd(0.1, momentum=0.5))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), ours, multiply(theirs, m))


# What the first update of each leaf changes in the output, to first order: η ‖∇f‖² for SGD, η ‖∇f‖₁ for signs.
CHANGES = {"sgd": lambda g: np.sum(np.square(g)), "adam": lambda g: np.sum(np.abs(g))}


X = np.linspace(-1.0, 1.0, 5, dtype=np.float32)
gradient_of = jax.jit(jax.grad(lambda p: mlp.forward(p, X)[0]))


def drawn(width, seed=0):
    rng, sizes = np.random.default_rng(seed), (5, width, width, 1)
    draw = lambda n, m: mlp.Layer(np.float32(rng.normal(size=(n, m)) / np.sqrt(n)), np.zeros(m, np.float32))
    return tuple(itertools.starmap(draw, itertools.pairwise(sizes)))


def changes(rule, name, width):
    """Mean over seeds of what the update of each leaf of a 5-n-n-1 network changes in its output."""
    factors = rule(drawn(width), drawn(64))
    found = []
    for seed in range(6):
        gradient = gradient_of(jax.tree.map(np.multiply, drawn(width, seed), factors.start))
        pairs = zip(jax.tree.leaves(getattr(factors, name)), jax.tree.leaves(gradient), strict=True)
        found.append([factor * float(CHANGES[name](g)) for factor, g in pairs])
    return np.mean(found, axis=0)


def standard(params, base):
    ones = jax.tree.map(lambda leaf: 1.0, params)
    return scaling.Factors(ones, ones, ones)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_what_an_update_of_a_layer_changes_does_not_depend_on_the_width_and_does_without_factors(name):
    for rule in (scaling.neural_tangent, scaling.maximal_update):
        np.testing.assert_allclose(changes(rule, name, 1024), changes(rule, name, 64), rtol=0.3)
    assert np.max(changes(standard, name, 1024) / changes(standard, name, 64)) > 3.5


def test_hidden_units_move_at_every_width_with_maximal_update_and_ever_less_with_the_neural_tangent():
    hidden = jax.jit(lambda p, u: jax.jvp(lambda p: mlp.forward(p[:-1], X), (p,), (u,))[1])

    def moved(rule, width):
        factors = rule(drawn(width), drawn(64))
        start = jax.tree.map(np.multiply, drawn(width), factors.start)
        update = jax.tree.map(jnp.multiply, gradient_of(start), factors.sgd)
        return np.sqrt(np.mean(hidden(start, update) ** 2))

    assert 0.7 < moved(scaling.maximal_update, 1024) / moved(scaling.maximal_update, 64) < 1.4
    # 16 times as wide: a quarter.
    assert 0.17 < moved(scaling.neural_tangent, 1024) / moved(scaling.neural_tangent, 64) < 0.35


def test_another_structure_and_other_axes_are_refused():
    with pytest.raises(ValueError, match=r"params, base: got shapes \(3, 3, 1\) and \(3, 3, 1\), expected \(in, out\)"):
        scaling.maximal_update(jnp.zeros((3, 3, 1)), jnp.zeros((3, 3, 1)))
    with pytest.raises(ValueError, match="different lengths of tuple"):
        scaling.maximal_update(BASE, BASE[:2])
