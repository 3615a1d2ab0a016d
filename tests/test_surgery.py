"""Surgery on hidden units keeps the function, and the nearest pair is the one that was split."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import critical, losses, mlp, mlp_symmetry, penalties

# Sizes, biases, activation, pieces.
NETWORKS = {
    "deep": ((2, 3, 4, 2), (True, False, True), (jnp.tanh, jax.nn.sigmoid), 1),
    "maxout": ((3, 4, 3, 1), True, mlp.maxout(2), 2),
}


def network(name):
    """Float64 numpy parameters, and the function of the network."""
    sizes, bias, activation, pieces = NETWORKS[name]
    rng = np.random.default_rng(0)
    params = mlp.init(jax.random.key(0), sizes, bias=bias, pieces=pieces)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), params)
    return params, lambda p: mlp.forward(p, jnp.asarray(rng_inputs(sizes[0])), activation=activation)


def rng_inputs(width):
    return np.random.default_rng(1).standard_normal((9, width))


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_split_merged_removed_and_added_units_leave_the_function_unchanged(x64, name, layer):
    params, outputs = network(name)
    count = len(params[layer + 1].weight)
    split = mlp.split_unit(params, layer, 1, -0.7)
    merged = mlp.merge_units(split, layer, count, 1)  # the copy stays, with all outgoing weights
    if name == "deep" and layer == 0:  # tanh is odd
        opposite = jax.tree.map(lambda leaf: leaf * np.where(np.arange(count + 1) == 1, -1, 1), split[0])
        after = split[1]._replace(weight=split[1].weight * np.where(np.arange(count + 1) == 1, -1, 1)[:, None])
        merged = mlp.merge_units((opposite, after, *split[2:]), 0, count, 1, sign=-1)
    grown = mlp.add_unit(params, layer, jax.tree.map(lambda leaf: leaf[..., -leaf.shape[-1] // count :], params[layer]))
    padded = mlp.add_unit(params, layer)
    expected = outputs(params)
    for changed, units in ((split, count + 1), (merged, count), (grown, count + 1), (padded, count + 1)):
        assert len(changed[layer + 1].weight) == units
        np.testing.assert_allclose(outputs(changed), expected, rtol=1e-13)
    assert np.all(padded[layer].weight[:, -1] == 0)
    for longer in (grown, padded):
        jax.tree.map(np.testing.assert_array_equal, mlp.remove_unit(longer, layer, count), params)
    assert not np.allclose(outputs(mlp.remove_unit(split, layer, 1)), expected)


def test_units_split_under_vmap_and_keep_their_dtype():
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), network("deep")[0])
    shares = jnp.array([0.25, 1.5])
    many = jax.jit(jax.vmap(lambda share: mlp.split_unit(params, 0, 2, share)))(shares)
    for k, share in enumerate(shares.tolist()):
        one = mlp.split_unit(params, 0, 2, share)
        jax.tree.map(lambda a, b, k=k: np.testing.assert_array_equal(a[k], b), many, one)
        assert {leaf.dtype for leaf in jax.tree.leaves(one)} == {np.dtype(np.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(mlp.split_unit(network("deep")[0], 1, 0, 0.5))} == {np.dtype(float)}


@pytest.mark.parametrize(
    ("activation", "sign", "scale"), [(jnp.tanh, -1, 1.0), (jax.nn.sigmoid, 1, 1.0), (jax.nn.relu, 1, 4.0)]
)
def test_the_nearest_pair_is_the_unit_that_was_split_and_its_copy(x64, activation, sign, scale):
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), mlp.init(jax.random.key(0), (3, 5, 4, 2)))
    split = mlp.split_unit(params, 1, 2, 1000.0)
    split[1].weight[:, -1] *= sign * scale  # a copy up to what the activation allows
    split[1].bias[-1] *= sign * scale
    split[2].weight[-1] *= sign / scale
    split[1].bias[-1] += scale * 1e-6
    found = mlp_symmetry.nearest_pair(split, activation)
    assert (found.layer, found.units, found.sign) == (1, (2, 4), sign)
    size, out = np.linalg.norm([*params[1].weight[:, 2], params[1].bias[2]]), np.linalg.norm(params[2].weight[2])
    # Of units that can be rescaled, the angle counts.
    sine, norm = (1, 1) if scale == 1 else (np.linalg.norm(params[1].weight[:, 2]) / size, size)
    np.testing.assert_allclose(found.distance, 1e-6 / size * sine, rtol=1e-5)
    np.testing.assert_allclose(found.outgoing, (1000 * out * norm, 999 * out * norm), rtol=1e-5)


def merging(layer, sign, outgoing):
    """The first and last unit of hidden layer 0 or 1, equal up to a sign and a shift; and what they tend to."""
    x = np.linspace(-2, 2, 21)[:, None]
    before = (mlp.Layer(np.array([[0.7]])),) * layer
    for weight in before:
        x = np.tanh(x @ weight.weight)
    hidden = mlp.Layer(np.array([[1.0, -0.5, sign]]), np.array([0.2, 0.8, -0.2 * sign]))
    out = mlp.Layer(np.array([[2.5], [0.7], [2.5 * sign * outgoing]]))
    kept = np.array([0, 2] if layer else [0, 1, 2])
    hidden, out = jax.tree.map(lambda leaf: leaf[..., kept], hidden), mlp.Layer(out.weight[kept])
    return (*before, hidden, out), (1 - np.tanh(x) ** 2) + (not layer) * 0.7 * np.tanh(-0.5 * x + 0.8)


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "sign", "units"), [(0, -1.0, "0 and 2"), (1, 1.0, "0 and 1")])
def test_the_channel_to_the_derivative_of_a_unit_is_that_of_the_pair_which_merges(layer, sign, units):
    # The target has the derivative of tanh, the limit of v (tanh(z + b) − tanh(z − b)) with 2 v b = 1.
    params, target = merging(layer, sign, -1.0)
    x = np.linspace(-2, 2, 21)[:, None]
    words = mlp_symmetry.channels(jnp.tanh)
    fun = lambda p, x, y: losses.mean(losses.squared_error(mlp.forward(p, x), y))
    assert words(fun, params, (x, target)).startswith(f"units {units} of hidden layer {layer} merge")
    # No channel: units without incoming weights; a fit that is exact here; outgoing weights of the same sign.
    with jax.enable_x64(True):
        here = np.asarray(mlp.forward(params, jnp.asarray(x)))
    dead = *params[:layer], jax.tree.map(np.zeros_like, params[layer]), params[-1]
    for other, y in ((dead, target), (params, here), (merging(layer, sign, 1.0)[0], target)):
        assert words(fun, other, (x, y)) == ""


@pytest.mark.slow
def test_a_fit_of_the_derivative_of_tanh_says_that_it_ends_near_a_pair_whose_outgoing_weights_diverge():
    # v (tanh(w x + b) − tanh(w x + b')) tends to tanh'(x) as w → 1 and b − b' → 0 with v (b − b') = 1.
    x = np.linspace(-2, 2, 21)[:, None]
    args = x, 1 - np.tanh(x) ** 2
    fun = lambda p, x, y, decay=0.0: losses.mean(losses.squared_error(mlp.forward(p, x), y)) + penalties.l2(p, decay)
    start = mlp.init(jax.random.key(0), (1, 2, 1), bias=(True, False))
    channels = mlp_symmetry.channels(jnp.tanh)
    point = critical.find(fun, start, args, index=0, channels=channels)
    pair = mlp_symmetry.nearest_pair(point.params, jnp.tanh)
    assert not point.converged
    np.testing.assert_allclose(pair.distance * np.array(pair.outgoing), 1.0, rtol=0.05)
    assert pair.distance < 0.5
    assert str(point.reason).startswith(f"{critical.Reason(int(point.reason))}; units 0 and 1")
    verdict = critical.classify(fun, point.params, args, channels=channels)
    assert verdict.kind == "not critical"
    for words in (str(point), str(point.reason), verdict.reason):
        assert "; units 0 and 1 of hidden layer 0 merge while their outgoing weights diverge" in words
        assert f"the norm of these grows from {pair.outgoing[0]:.3g} to {64 * pair.outgoing[0]:.3g}, " in words
    # Searches that end elsewhere: at their beginning, and, with weight decay, at a minimum.
    assert "units" not in str(critical.find(fun, start, args, index=0, channels=channels, max_steps=2))
    decayed = critical.find(fun, point.params, (*args, 1e-6), index=0, channels=channels)
    assert decayed.converged
    assert "units" not in str(decayed)
    nowhere = critical.find(lambda p, x, y: jnp.nan * fun(p, x, y), start, args, index=0, channels=channels)
    assert nowhere.reason is critical.Reason.NOT_FINITE


PARAMS = network("deep")[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mlp.split_unit(PARAMS, 2, 0, 0.5), "layer: got 2, expected an integer from 0 to 1."),
        (lambda: mlp.remove_unit(PARAMS, 0, 3), "unit: got 3, expected an integer from 0 to 2."),
        (lambda: mlp.merge_units(PARAMS, 0, 0, -1), "unit: got -1, expected an integer from 0 to 2."),
        (lambda: mlp.merge_units(PARAMS, 0, 1, 1), "units: got unit 1 twice, expected two units."),
        (lambda: mlp.remove_unit(mlp.remove_unit(PARAMS[1:], 0, 1)[:2], 0, 9), "unit: got 9"),
        (lambda: mlp.add_unit(PARAMS[:1], 0), "params: got one layer, expected a network with a hidden layer."),
        (lambda: mlp.add_unit(PARAMS, 0, mlp.Layer(np.ones((2, 1)))), "incoming: got leaves of shapes"),
        (lambda: mlp_symmetry.nearest_pair(network("maxout")[0], mlp.maxout(2)), "params: got no two hidden units"),
    ],
)
def test_a_unit_that_is_not_there_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
