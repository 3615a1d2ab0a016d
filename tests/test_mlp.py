import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import mlp

SIZES = (3, 5, 4, 2)
KEY, X = jax.random.key(0), np.ones((4, 3), np.float32)
forward = jax.jit(mlp.forward, static_argnames="activation")
init = jax.jit(mlp.init, static_argnums=1, static_argnames=("weight_init", "dtype"))


def network(*, pieces=1, sizes=SIZES, dtype=np.float32):
    """Normal weights and biases, by numpy: most theorems here are not about init."""
    rng = np.random.default_rng(0)
    widths = [size * pieces for size in sizes[1:-1]] + [sizes[-1]]
    draw = lambda *shape: rng.normal(size=shape).astype(dtype)
    return tuple(
        mlp.Layer(draw(fan_in, fan_out), draw(fan_out)) for fan_in, fan_out in zip(sizes[:-1], widths, strict=True)
    )


def node_by_node(params, inputs, hidden_unit):
    """zᵢ = Σⱼ aⱼ Wⱼᵢ + bᵢ with one loop for each index; hidden_unit turns a list of z into a list of a."""
    rows = []
    for values in inputs.tolist():
        for depth, (weight, bias) in enumerate(params):
            values = hidden_unit(values) if depth else values
            fan_in, fan_out = weight.shape
            values = [sum(values[j] * weight[j, i] for j in range(fan_in)) + bias[i] for i in range(fan_out)]
        rows.append(values)
    return np.array(rows)


UNITS = {
    "tanh": (jnp.tanh, 1, lambda z: [np.tanh(v) for v in z]),
    "relu": (jax.nn.relu, 1, lambda z: [max(v, 0.0) for v in z]),
    "sigmoid": (jax.nn.sigmoid, 1, lambda z: [1 / (1 + np.exp(-v)) for v in z]),
    "maxout": (mlp.maxout(3), 3, lambda z: [max(z[i : i + 3]) for i in range(0, len(z), 3)]),
}


@pytest.mark.parametrize(("activation", "pieces", "unit"), UNITS.values(), ids=UNITS)
@pytest.mark.usefixtures("x64")
def test_forward_is_the_sum_over_nodes(activation, pieces, unit):
    params, inputs = network(pieces=pieces, dtype=np.float64), np.random.default_rng(0).normal(size=(4, 3))
    outputs = forward(params, inputs, activation=activation)
    np.testing.assert_allclose(outputs, node_by_node(params, inputs, unit), rtol=1e-12)


INITIALIZERS = {
    "default": (None, 1.0),
    "he_normal": (jax.nn.initializers.he_normal(), 2.0),
    "glorot_uniform": (jax.nn.initializers.glorot_uniform(), 2.0 * 300 / (300 + 200)),
    "normal": (jax.nn.initializers.normal(1.0), 300.0),
}


@pytest.mark.parametrize(("weight_init", "gain"), INITIALIZERS.values(), ids=INITIALIZERS)
def test_weights_have_mean_zero_and_variance_gain_over_fan_in(weight_init, gain):
    weight = np.asarray(init(KEY, (300, 200), weight_init=weight_init)[0].weight)
    variance = gain / 300
    assert abs(weight.mean()) < 5 * np.sqrt(variance / weight.size)
    # No law used here has heavier tails than a normal one, whose sample variance has relative error √(2/n).
    assert abs(weight.var() / variance - 1) < 5 * np.sqrt(2 / weight.size)


def test_layers_are_drawn_independently_and_from_the_key_alone():
    first, again, other = (init(jax.random.key(seed), (40, 40, 40, 40)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    weights = np.stack([np.ravel(layer.weight) for params in (first, other) for layer in params])
    correlations = np.corrcoef(weights) - np.eye(6)
    assert np.abs(correlations).max() < 5 / 40


def test_biases_start_at_zero_dtypes_are_those_requested_or_the_default_and_pieces_widen_the_hidden_layers():
    assert not np.any(init(KEY, (3, 2))[0].bias)
    shaped = lambda **options: jax.eval_shape(lambda: mlp.init(KEY, SIZES, **options))
    dtypes = lambda **options: {str(leaf.dtype) for leaf in jax.tree.leaves(shaped(**options))}
    assert dtypes(dtype=jnp.bfloat16) == {"bfloat16"}
    assert dtypes() == {"float32"}
    with jax.enable_x64(True):
        assert dtypes() == {"float64"}
    assert [layer.weight.shape for layer in shaped(pieces=3)] == [(3, 15), (5, 12), (4, 2)]


@pytest.mark.usefixtures("x64")
def test_one_maxout_unit_is_the_maximum_of_its_lines():
    """Five tangents of x² in one unit: |unit − x²| at the tangent points is 0, and nowhere is the unit above x²."""
    points = np.linspace(-1, 1, 5)
    params = (mlp.Layer(2 * points[None, :], -(points**2)), mlp.Layer(np.ones((1, 1)), np.zeros(1)))
    x = np.linspace(-1, 1, 81)
    unit = np.asarray(forward(params, x[:, None], activation=mlp.maxout(5)))[:, 0]
    np.testing.assert_allclose(unit, np.max([2 * p * x - p**2 for p in points], axis=0), atol=1e-15)
    np.testing.assert_allclose(unit[::20], x[::20] ** 2, atol=1e-15)
    # Between tangent points ½ apart the gap of x² to its tangents is at most (¼)².
    assert np.all((unit <= x**2 + 1e-15) & (unit >= x**2 - 1 / 16 - 1e-15))


def test_equal_maxouts_are_one_function_so_that_jit_traces_once():
    traces = []

    def apply(values, activation):
        traces.append(activation)
        return activation(values)

    jitted = jax.jit(apply, static_argnums=1)
    for pieces in (2, 2, 4):
        jitted(jnp.ones(4), mlp.maxout(pieces))
    assert len(traces) == 2


def test_mean_over_keys_of_dropout_is_the_value_itself():
    values, rate, keys = jnp.array([-1.0, 0.5, 3.0]), 0.6, jax.random.split(jax.random.key(0), 20_000)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: mlp.dropout(key, values, rate)))(keys), np.float64)
    errors = np.abs(np.asarray(values)) * np.sqrt(rate / (1 - rate) / len(keys))
    assert np.all(np.abs(draws.mean(0) - np.asarray(values)) < 5 * errors)
    assert np.all(np.abs(np.corrcoef(draws, rowvar=False) - np.eye(3)) < 5 / np.sqrt(len(keys)))


def test_gradient_of_dropout_is_its_mask_and_at_rate_zero_it_is_the_identity_also_when_traced():
    values, drop = np.full(100, 2.0, np.float32), jax.jit(mlp.dropout)
    gradient = jax.jit(jax.grad(lambda v: mlp.dropout(KEY, v, 0.5).sum()))(values)
    assert 0 < np.count_nonzero(gradient) < 100
    np.testing.assert_array_equal(gradient, drop(KEY, values, 0.5) / 2)
    for at_zero in (mlp.dropout(KEY, values, 0.0), drop(KEY, values, 0.0)):
        np.testing.assert_array_equal(at_zero, values)


def test_without_dropout_forward_is_the_same_program():
    params, inputs = network(), jnp.ones((4, 3))
    plain = str(jax.make_jaxpr(mlp.forward)(params, inputs))
    affine = lambda layer, x: x @ layer.weight + layer.bias
    by_hand = lambda p, x: affine(p[2], jnp.tanh(affine(p[1], jnp.tanh(affine(p[0], x)))))
    assert plain == str(jax.make_jaxpr(by_hand)(params, inputs))
    ignored = jax.make_jaxpr(lambda p, x: mlp.forward(p, x, dropout_rate=0.0, key=jax.random.key(0)))(params, inputs)
    assert "random_bits" not in str(ignored)


@pytest.mark.usefixtures("x64")
def test_forward_drops_hidden_units_only_and_each_layer_by_its_own_mask():
    """With identity weights and activation the outputs are products of masks, each 0 or 1 / (1 − rate)."""
    layer, ones, identity = mlp.Layer(jnp.eye(200), jnp.zeros(200)), jnp.ones((50, 200)), lambda z: z
    run = lambda params: mlp.forward(params, ones, activation=identity, dropout_rate=0.25, key=KEY)
    without, *noisy = map(np.asarray, jax.jit(lambda: [run((layer,) * depth) for depth in (1, 2, 3)])())
    np.testing.assert_array_equal(without, 1.0)  # no hidden layer, nothing to drop
    for outputs, kept in zip(noisy, (0.75, 0.75**2), strict=True):
        np.testing.assert_allclose(np.unique(outputs), [0, 1 / kept])
        assert abs((outputs > 0).mean() - kept) < 5 * np.sqrt(kept * (1 - kept) / outputs.size)


def test_each_seed_has_its_own_masks_under_vmap_and_the_rate_may_be_traced():
    params, keys = network(), jax.random.split(KEY, 3)
    traced = jax.jit(lambda key, rate: mlp.forward(params, X, dropout_rate=rate, key=key))
    together = jax.jit(jax.vmap(lambda key: mlp.forward(params, X, dropout_rate=0.5, key=key)))(keys)
    for outputs, key in zip(together, keys, strict=True):
        np.testing.assert_allclose(outputs, traced(key, 0.5), rtol=1e-5, atol=1e-6)
    assert len(np.unique(together, axis=0)) == 3
    np.testing.assert_allclose(traced(KEY, 0.0), forward(params, X, activation=jnp.tanh), rtol=1e-5)


NOT_FITTING = mlp.Layer(jnp.ones((3, 2)), jnp.ones(3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mlp.init(0, SIZES), TypeError, "key: got 0, expected one JAX random key"),
        (lambda: mlp.init(KEY, (3,)), ValueError, "sizes: got (3,), expected two integers or more"),
        (lambda: mlp.init(KEY, (3, 0, 2)), ValueError, "sizes: got 0, expected an integer of 1 or more."),
        (lambda: mlp.init(KEY, (3, 2.5)), TypeError, "sizes: got 2.5, expected an integer"),
        (lambda: mlp.init(KEY, (2**16, 2**16)), ValueError, "sizes: got a weight of 65536 × 65536"),
        (lambda: mlp.init(KEY, (3, 2), pieces=0), ValueError, "pieces: got 0, expected an integer"),
        (lambda: mlp.init(KEY, (3, 2), dtype=int), (TypeError, ValueError), "dtype"),
        (lambda: mlp.forward((), X), ValueError, "params: got no layers, expected at least one Layer(weight, bias)."),
        (lambda: mlp.forward((X,), X), TypeError, "params[0]: got an array of dtype float32 and shape (4, 3)"),
        (lambda: mlp.forward((NOT_FITTING,), X), ValueError, "params[0]: got weight (3, 2), bias (3,), expected"),
        (lambda: mlp.forward(network(), X[:, :2]), TypeError, "to have the same shape, got (2,) and (3,)"),
        (lambda: mlp.forward(network(pieces=2), X), TypeError, "to have the same shape, got (10,) and (5,)"),
        (lambda: mlp.forward(network(), X, activation=mlp.maxout(2)), TypeError, "reshape array of shape (4, 5)"),
        (lambda: mlp.forward(network(), X, activation=jnp), TypeError, "'module' object is not callable"),
        (lambda: mlp.forward(network(), X, dropout_rate=0.5), TypeError, "key: got None, expected one JAX random key"),
        (lambda: mlp.dropout(KEY, X, 1.0), ValueError, "dropout rate: got 1.0, expected a number from 0 to below 1."),
        (lambda: mlp.dropout(KEY, X, -0.1), ValueError, "dropout rate: got -0.1"),
        (lambda: mlp.dropout(KEY, jnp.arange(3), 0.1), TypeError, "values: got dtype int32, expected real floating"),
        (lambda: mlp.maxout(0), ValueError, "pieces: got 0, expected an integer of 1 or more."),
    ],
)
def test_a_wrong_argument_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_the_gradient_of_maxout_is_that_of_the_largest_piece_and_it_is_nan_if_any_piece_is():
    # With one input, XLA fuses w x + b into its consumers, and may round it differently in each.
    x = jnp.linspace(-1.0, 1.0, 50)[:, None]
    unit = lambda weight, bias, x: jnp.sum(mlp.maxout(8)(x @ weight + bias) ** 2)
    gradient = jax.jit(jax.grad(unit, argnums=(0, 1)))
    for seed in range(10):
        draw = np.random.default_rng(seed).standard_normal
        weight, bias = draw((1, 8)).astype(np.float32), draw(8).astype(np.float32)
        lines = np.asarray(x, np.float64) @ weight + bias
        top = np.eye(8)[lines.argmax(axis=1)]
        slope = 2 * lines.max(axis=1, keepdims=True) * top
        by_weight, by_bias = gradient(weight, bias, x)
        np.testing.assert_allclose(by_weight[0], np.sum(slope * np.asarray(x), axis=0), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(by_bias, np.sum(slope, axis=0), rtol=1e-4, atol=1e-4)

    rows = np.where(np.eye(3), np.nan, 0).astype(np.float32)
    assert np.all(np.isnan(jax.jit(mlp.maxout(3))(rows)))
