"""One network written in four ways (plain, flax linen, flax nnx, equinox): the same analysis gives the same numbers."""

import functools

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training import train_state

from mlp_jax import critical, curvature, losses, mlp, tree

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.implicit_promotion]

INPUTS, HIDDEN, OUTPUTS = 3, 2, 2


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        hidden = jnp.tanh(linen.Dense(HIDDEN, param_dtype=float)(x))
        return linen.Dense(OUTPUTS, param_dtype=float)(hidden)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(INPUTS, HIDDEN, param_dtype=float, rngs=rngs)
        self.out = nnx.Linear(HIDDEN, OUTPUTS, param_dtype=float, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))


DRAW = np.random.default_rng(0)
DATA = DRAW.standard_normal((12, INPUTS)), DRAW.integers(0, OUTPUTS, 12)


def with_loss(model):
    """Return (params, x, y) -> mean cross-entropy with weight decay, of a model (params, x) -> logits."""
    return lambda params, x, y: losses.mean(losses.cross_entropy(model(params, x), y)) + 0.05 * tree.dot(params, params)


def linen_model(first, second):
    as_dense = lambda layer: {"kernel": layer.weight, "bias": layer.bias}
    module, params = Linen(), {"params": {"Dense_0": as_dense(first), "Dense_1": as_dense(second)}}
    made = jax.eval_shape(module.init, jax.random.key(0), DATA[0])
    assert jax.tree.structure(params) == jax.tree.structure(made)
    return params, module.apply


def nnx_model(first, second):
    network = Nnx(nnx.Rngs(0))
    for ours, theirs in ((first, network.hidden), (second, network.out)):
        theirs.kernel[...], theirs.bias[...] = ours.weight, ours.bias
    graph, state = nnx.split(network)
    return state, lambda state, x: nnx.merge(graph, state)(x)


def equinox_model(first, second):
    network = equinox.nn.MLP(INPUTS, OUTPUTS, HIDDEN, 1, activation=jnp.tanh, key=jax.random.key(0), dtype=jnp.float64)
    leaves = lambda m: [a for layer in m.layers for a in (layer.weight, layer.bias)]
    network = equinox.tree_at(leaves, network, [first.weight.T, first.bias, second.weight.T, second.bias])
    arrays, rest = equinox.partition(network, equinox.is_inexact_array)
    return arrays, lambda arrays, x: jax.vmap(equinox.combine(arrays, rest))(x)


MODELS = {
    "plain": lambda *layers: (layers, mlp.forward),
    "linen": linen_model,
    "nnx": nnx_model,
    "equinox": equinox_model,
}


@functools.cache
def made(name):
    """Return the parameters and the loss of one model, the same function in each test."""
    params, model = MODELS[name](*mlp.init(jax.random.key(3), (INPUTS, HIDDEN, OUTPUTS)))
    return params, with_loss(model)


def analysed(name):
    """Return the values at the start and the end of a search, its verdict with a proof, and two spectra."""
    params, fun = made(name)
    point = critical.find(fun, params, args=DATA, index=0)
    assert jax.tree.structure(point.params) == jax.tree.structure(params)
    verdict = critical.classify(fun, point.params, args=DATA, evidence="proved")
    exact = np.linalg.eigvalsh(curvature.dense_hessian(fun, point.params, args=DATA))
    matvec = curvature.hessian(fun, point.params, args=DATA)
    pairs = curvature.eigenpairs(matvec, point.params, jax.random.key(0), smallest=2, largest=2)
    values = jax.jit(fun)
    return values(params, *DATA), values(point.params, *DATA), verdict, exact, pairs.values


@pytest.fixture(scope="module")
def reference():
    with jax.enable_x64(True):
        return analysed("plain")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["linen", pytest.param("nnx", marks=pytest.mark.slow), pytest.param("equinox", marks=pytest.mark.slow)]
)
def test_a_model_of_another_library_has_the_verdict_and_spectrum_of_the_plain_one(name, reference):
    start, end, verdict, exact, values = analysed(name)
    known_start, known_end, known_verdict, known_exact, known_values = reference
    np.testing.assert_allclose(start, known_start, rtol=1e-14)
    np.testing.assert_allclose(end, known_end, rtol=1e-12)
    for found in (verdict, known_verdict):
        assert (found.kind, found.index, found.certificate.proved) == ("minimum", 0, True)
    np.testing.assert_allclose(exact, known_exact, rtol=0, atol=1e-10)
    np.testing.assert_allclose(values, known_values, rtol=0, atol=1e-8)
    for low, high in (verdict.certificate.smallest, verdict.certificate.largest):
        assert np.min(np.abs(known_exact - (low + high) / 2)) < 1e-9


@pytest.mark.slow
def test_the_params_of_a_train_state_go_straight_in():
    params, fun = made("linen")
    state = train_state.TrainState.create(apply_fn=Linen().apply, params=params, tx=optax.adam(0.05))
    step = jax.jit(lambda state: state.apply_gradients(grads=jax.grad(fun)(state.params, *DATA)))
    for _ in range(30):
        state = step(state)
    assert critical.classify(fun, state.params, args=DATA).kind == "not critical"
    state = state.replace(params=critical.find(fun, state.params, args=DATA, index=0).params)
    assert critical.classify(fun, state.params, args=DATA).kind == "minimum"


@pytest.mark.slow
def test_a_float32_model_of_flax_is_searched_in_float64_and_its_rounding_is_noticed():
    # A module with dtype=float32 rounds inside, whatever it is given.
    module = linen.Dense(OUTPUTS, dtype=jnp.float32)
    params = {"params": {"kernel": np.ones((INPUTS, OUTPUTS), np.float32), "bias": np.zeros(OUTPUTS, np.float32)}}
    fun = with_loss(module.apply)
    point = critical.find(fun, params, args=DATA)
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(point.params))
    assert curvature.rounding_unit(fun, point.params, DATA) >= 2.0**-24
