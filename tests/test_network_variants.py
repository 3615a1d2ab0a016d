"""Networks without some biases, and with an activation for each layer: all that takes params follows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ground_truth import linear_classes, linear_network, orthogonal_residual
from test_mlp_hessian import assert_close, autodiff
from test_mlp_symmetry import ACTIVATIONS, dimension, draw, identity, model_kernel, network_loss, rows

from mlp_jax import (
    backpropagation,
    checkpoint,
    critical,
    interval,
    landscape,
    losses,
    mlp,
    mlp_hessian,
    mlp_symmetry,
    penalties,
    sweep,
    training,
    tree,
)

SLOW = pytest.mark.slow
MIXED = jnp.tanh, jax.nn.softplus, jnp.sin
# Sizes, biases by layer, activations, pieces of the maxout layers; whether with residual connections.
VARIANTS = {
    "linear model": ((3, 2), False, jnp.tanh, 1),
    "last bias only": ((3, 3, 2), (False, True), jnp.tanh, 1),
    "no last bias": ((2, 3, 2, 2), (True, True, False), MIXED[:2], 1),
    "no bias": ((2, 3, 2, 2, 2), False, MIXED, 1),
    "maxout": ((2, 2, 2, 2), (False, True, False), (mlp.maxout(2), mlp.maxout(2)), 2),
}
FAST = "no last bias", "residual"
RESIDUAL = {
    "residual": ((2, 2, 3, 3, 2), (True, False, True, True), MIXED, 1),
    "residual in a row": ((3, 3, 3, 3, 2), False, MIXED, 1),
    "residual maxout": ((3, 2, 2, 2), True, mlp.maxout(2), 2),
}


def variant(name, num=7):
    """Parameters, inputs and class numbers, float64 numpy arrays, and the activation."""
    sizes, bias, activation, pieces = (VARIANTS | RESIDUAL)[name]
    rng = np.random.default_rng(len(sizes))
    params = mlp.init(jax.random.key(0), sizes, bias=bias, pieces=pieces)
    params = jax.tree.map(lambda leaf: 0.8 * rng.standard_normal(leaf.shape), params)
    return params, rng.standard_normal((num, sizes[0])), rng.integers(sizes[-1], size=num), activation


def by_node(params, inputs, activation, residual=False):
    """The outputs of the network by numpy, with an activation for each layer."""
    for depth, (weight, bias) in enumerate(params):
        z = inputs @ weight if bias is None else inputs @ weight + bias
        if depth == len(params) - 1:
            return z
        hidden = np.asarray(activation[depth](z))
        inputs = hidden + inputs if residual and hidden.shape == inputs.shape else hidden


# --- The network and its derivatives ------------------------------------------------------------------------------


def test_init_leaves_out_the_biases_and_draws_the_same_weights():
    sizes, key = (3, 4, 5, 2), jax.random.key(0)
    biased, some = (mlp.init(key, sizes, bias=bias) for bias in (True, (False, True, False)))
    assert [layer.bias is None for layer in some] == [True, False, True]
    assert [layer.shape for layer in some] == [(3, 4), (5, 5), (5, 2)]
    for a, b in zip(biased, some, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
    with pytest.raises(ValueError, match=r"bias: got \(True, False\), expected a bool, or one for each of 3 layers."):
        mlp.init(key, sizes, bias=(True, False))
    with pytest.raises(ValueError, match="activation: got 1 functions, expected one, or one for each of 2 hidden"):
        mlp.forward(some, jnp.ones((1, 3)), activation=[jnp.tanh])


def test_residual_connections_add_the_input_of_hidden_layers_where_widths_agree(x64):
    params, inputs, _, activation = variant("residual")
    outputs = mlp.forward(params, inputs, activation=activation, residual=True)
    np.testing.assert_allclose(outputs, by_node(params, inputs, activation, residual=True), rtol=1e-13)


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=SLOW) for n in VARIANTS | RESIDUAL])
def test_the_layered_hessian_of_a_variant_is_that_of_automatic_differentiation(x64, name):
    params, inputs, targets, activation = variant(name)
    penalty = functools.partial(penalties.l2, strength=0.1)
    options = {"loss": losses.cross_entropy, "activation": activation, "penalty": penalty}
    forward = functools.partial(mlp.forward, activation=activation, residual=name in RESIDUAL)
    fun = lambda p, x, y: losses.mean(losses.cross_entropy(forward(p, x), y)) + penalty(p)
    expected = autodiff(fun, params, inputs, targets)
    ends = np.cumsum([0, *(tree.size(layer) for layer in params)])
    pair = len(params) - 1, 0

    @jax.jit
    def ours(params):
        data, settings = (params, inputs, targets), options | {"residual_connections": name in RESIDUAL}
        whole = [matrix(*data, **settings) for matrix in (mlp_hessian.dense, mlp_hessian.enclosable)]
        return mlp_hessian.blocks(*data, layers=pair, **settings), whole

    block, whole = ours(params)
    assert_close(block, expected[ends[pair[0]] : ends[pair[0] + 1], : ends[1]])
    for matrix in whole:
        assert_close(matrix, expected)


@SLOW
def test_losses_and_gradients_are_right_for_every_number_of_examples_modulo_16(x64):
    params, inputs, targets, activation = variant("no last bias", num=31)

    @jax.jit
    def ours(params):
        found = []
        for num in range(16, 32):
            data = inputs[:num], targets[:num]
            fun = lambda p, x, y: losses.mean(losses.cross_entropy(mlp.forward(p, x, activation=activation), y))
            by_hand = backpropagation.gradient(params, *data, loss=losses.cross_entropy, activation=activation)
            found.append((*jax.value_and_grad(fun)(params, *data), by_hand))
        return found

    def value(params, num):
        outputs = by_node(params, inputs[:num], activation)
        return np.mean(np.log(np.sum(np.exp(outputs), axis=1)) - outputs[np.arange(num), targets[:num]])

    vector, unravel = tree.ravel(params)
    direction = np.random.default_rng(0).standard_normal(vector.size)
    for num, (loss, gradient, by_hand) in zip(range(16, 32), ours(params), strict=True):
        np.testing.assert_allclose(loss, value(params, num), rtol=1e-14)
        steps = [value(unravel(vector + side * 1e-5 * direction), num) for side in (1, -1)]
        for found in (gradient, by_hand):
            np.testing.assert_allclose(tree.ravel(found)[0] @ direction, (steps[0] - steps[1]) / 2e-5, rtol=1e-8)


# --- Critical points ----------------------------------------------------------------------------------------------

NET = linear_network(5, 2, 4)


def test_a_linear_network_without_biases_has_the_index_in_closed_form_and_its_orbit_explained():
    fun = network_loss("identity")
    options = {"loss": losses.squared_error, "activation": identity}
    for point in list(linear_classes(NET))[::3]:
        params = tuple(map(mlp.Layer, point.params))
        args = NET.inputs, NET.targets
        symmetries = mlp_symmetry.tangents(fun, params, args, inputs=NET.inputs, activation=identity)
        hessian = lambda p, x, y: mlp_hessian.dense(p, x, y, **options)
        verdict = critical.classify(fun, params, args, symmetries=symmetries, hessian=hessian)
        assert (verdict.inertia.negative, verdict.inertia.unresolved) == (point.index, point.zeros)
        assert verdict.kind == ("saddle" if point.index else "minimum modulo symmetry")
        if np.linalg.matrix_rank(point.params[0] @ point.params[1], tol=1e-6) == 2:
            assert (verdict.symmetries, verdict.index) == (4, point.index)


@pytest.mark.parametrize(
    ("size", "kind", "residual"),
    [
        (0.0, "minimum modulo symmetry", False),
        (9.0, "saddle", False),
        pytest.param(0.0, "minimum modulo symmetry", True, marks=SLOW),
    ],
)
def test_relu_units_without_bias_are_rescalable_and_the_verdict_is_that_of_the_slice(x64, size, kind, residual):
    rng = np.random.default_rng(18 if residual else 0)
    # A bias keeps units of the second layer off their corner where all of the first are 0.
    sizes, bias = ((3, 2, 2, 2), (False, True, False)) if residual else ((3, 2, 2), False)
    params, x = mlp.init(jax.random.key(0), sizes, bias=bias), rng.standard_normal((30, 3))
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), params)
    vector, unravel = tree.ravel(params)
    network = {"activation": jax.nn.relu, "residual": residual}
    outputs = lambda v: mlp.forward(unravel(v), jnp.asarray(x), **network)
    orthogonal = orthogonal_residual(np.asarray(jax.jacobian(outputs)(vector)).reshape(60, -1), 0)
    args = x, np.asarray(outputs(vector)) - size * orthogonal.reshape(30, 2)
    fun = lambda p, x, y: losses.mean(losses.squared_error(mlp.forward(p, x, **network), y))
    values = np.linalg.eigvalsh(autodiff(fun, params, *args))
    negative, zero = int(np.sum(values < -1e-8)), int(np.sum(np.abs(values) < 1e-12))
    symmetries = mlp_symmetry.tangents(fun, params, args, inputs=x, **network)
    assert symmetries.names == ("rescaling of layer 1" + " to 2" * residual,) * 2
    kinks = mlp_symmetry.kinks(jax.nn.relu, residual=residual)
    verdict = critical.classify(fun, params, args, symmetries=symmetries, kinks=kinks)
    expected = kind, zero, (negative, 2, vector.size - 2 - negative)
    assert (verdict.kind, verdict.symmetries, verdict.inertia[:3]) == expected


@SLOW
@pytest.mark.parametrize("bias", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("name", "sizes", "pieces"), [("relu", (3, 4, 2), 1), ("maxout", (2, 4, 2), 2), ("identity", (4, 5, 2), 1)]
)
def test_tangents_span_the_kernel_of_the_jacobian_whatever_the_biases(name, sizes, pieces, bias):
    params, x = draw(sizes, num=300, pieces=pieces)
    params = tuple(layer if has else mlp.Layer(layer.weight) for layer, has in zip(params, bias, strict=True))
    fun, y = network_loss(name), np.random.default_rng(1).standard_normal((len(x), sizes[-1]))
    found = mlp_symmetry.tangents(fun, params, (x, y), inputs=x, activation=ACTIVATIONS[name])
    assert dimension(found, params) == model_kernel(params, x, name)
    if "cancelling translations of layer 1" not in found.names:  # numpy computes those
        with jax.enable_x64(True):
            jax.tree.map(np.testing.assert_allclose, jax.jit(lambda p: found(p))(params), found(params))


def test_copies_of_a_network_without_biases_have_one_canonical_form_and_match():
    activation = jnp.tanh, jax.nn.softplus
    params, x = draw((2, 3, 2, 1))
    params = tuple(mlp.Layer(layer.weight) for layer in params)
    fun = lambda p, x: jnp.sum(mlp.forward(p, x, activation=activation) ** 2)
    found = mlp_symmetry.maps(fun, params, (x,), activation=activation)
    assert [layer.flips for layer in found.layers] == [-1, 0]
    assert found.orbit_size(params) == 2**3 * 6 * 2
    form, copy = tree.ravel(found.canonical(params))[0], params
    for move in found.generators(params).values():
        copy = move(copy)
        np.testing.assert_array_equal(tree.ravel(found.canonical(copy))[0], form)
    matched = landscape.match_units(copy, params, activation=activation)
    jax.tree.map(np.testing.assert_array_equal, matched, params)


@SLOW
@pytest.mark.parametrize("residual", [False, True])
def test_a_proof_for_a_network_without_biases_is_the_same_with_the_layered_enclosure(residual):
    sizes, activation = (2, 2, 2, 2), MIXED[:2]
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((9, 2)), rng.integers(2, size=9)
    penalty = lambda p: penalties.l2(p, 0.05)
    forward = functools.partial(mlp.forward, activation=activation, residual=residual)
    fun = lambda p, x, y: losses.mean(losses.cross_entropy(forward(p, x), y)) + penalty(p)
    settings = {"loss": losses.cross_entropy, "activation": activation, "penalty": penalty}
    enclosure, other = (
        functools.partial(mlp_hessian.enclosable, residual_connections=connections, **settings)
        for connections in (residual, not residual)
    )
    point = critical.find(fun, mlp.init(jax.random.key(1), sizes, bias=False), (x, y))
    ours, own, refused = (interval.certify(fun, point.params, (x, y), enclosure=e) for e in (enclosure, None, other))
    assert ours.proved
    assert own.proved
    assert ours.index == own.index == critical.classify(fun, point.params, (x, y)).index
    assert max(ours.smallest[0], own.smallest[0]) <= min(ours.smallest[1], own.smallest[1])
    # The Hessian of the network with, or without, the connections is another.
    assert "enclosure: it is not of the Hessian of fun" in refused.reason
    with pytest.raises(ValueError, match="hessian"):
        critical.classify(fun, point.params, (x, y), hessian=other)


# --- Symmetries with residual connections -------------------------------------------------------------------------


# Without dead or rarely active units, whose inputs depend on each other. In the last three the inputs are added too.
TIED = [
    ("relu", (4, 3, 3, 2), 1, {"rescaling of layer 1 to 2"}),
    ("maxout", (4, 3, 3, 2), 2, {"rescaling of layer 1 to 2", "rescaling of layer 2"}),
    ("relu", (3, 3, 2), 1, set()),
    ("maxout", (2, 2, 2, 1), 2, {"rescaling of layer 1 to 2", "rescaling of layer 2"}),
    ("identity", (3, 3, 3, 2), 1, {"linear gauge of layer 1 to 2", "linear gauge of layer 2"}),
]


@SLOW
@pytest.mark.parametrize(("name", "sizes", "pieces", "scales"), TIED)
def test_tangents_of_a_residual_network_span_the_kernel_of_its_jacobian(name, sizes, pieces, scales):
    params, x = draw(sizes, num=300, pieces=pieces, seed=1)
    y = np.random.default_rng(1).standard_normal((len(x), sizes[-1]))
    fun = lambda p, x, y: losses.mean(losses.squared_error(forward(p, x), y))
    forward = functools.partial(mlp.forward, activation=ACTIVATIONS[name], residual=True)
    found, plain = (
        mlp_symmetry.tangents(fun, params, (x, y), inputs=x, activation=ACTIVATIONS[name], residual=residual)
        for residual in (True, False)
    )
    with jax.enable_x64(True):
        vector, unravel = tree.ravel(params)
        jacobian = np.asarray(jax.jit(jax.jacrev(lambda v: forward(unravel(v), jnp.asarray(x)).ravel()))(vector))
        assert dimension(found, params) == vector.size - np.linalg.matrix_rank(jacobian, tol=1e-10)
        # Those of the network without connections are kept only if they are null here too.
        np.testing.assert_allclose(jacobian @ rows(plain(params)).T, 0, atol=1e-13)
    assert {family for family in found.names if "rescaling" in family or "gauge" in family} == scales


def test_kinks_of_a_residual_network_are_its_own_pre_activations(x64):
    params, inputs = draw((2, 3, 3, 1))
    hidden = np.maximum(inputs @ params[0].weight + params[0].bias, 0)
    expected = [inputs @ params[0].weight + params[0].bias, hidden @ params[1].weight + params[1].bias]
    np.testing.assert_allclose(
        mlp_symmetry.kinks(jax.nn.relu, residual=True)(params, inputs), np.ravel(expected), rtol=1e-12
    )


@SLOW
def test_a_loss_that_ties_the_units_of_layers_has_no_maps_of_single_layers():
    x = np.random.default_rng(0).standard_normal((5, 3))

    def maps_of(sizes, activation, residual):
        fun = lambda p, x: jnp.sum(mlp.forward(p, x, activation=activation, residual=residual) ** 3)
        return mlp_symmetry.maps(fun, draw(sizes)[0], (x,), activation=activation)

    for sizes, activation in (((3, 2, 2, 1), jax.nn.sigmoid), ((3, 1, 1, 1), jnp.tanh)):
        with pytest.raises(ValueError, match="fun: got one that ties the units of layers 1 to 2"):
            maps_of(sizes, activation, True)
        assert all(kind.permutations for kind in maps_of(sizes, activation, False).layers)
    # The order of units is that of the inputs, and the sign too, unless the activation is even.
    for activation, flips in ((jnp.tanh, 0), (jnp.cos, 1)):
        (kind,) = maps_of((3, 3, 1), activation, True).layers
        assert (kind.permutations, kind.flips) == (False, flips)


def test_units_of_a_residual_layer_with_equal_weights_are_not_on_a_line_of_critical_points(x64):
    params, x = draw((3, 3, 3, 1))
    params[1].weight[:, 2], params[1].bias[2] = params[1].weight[:, 0], params[1].bias[0]
    for residual, number in ((False, 1), (True, 0)):
        fun = lambda p, x, y, residual=residual: jnp.sum((mlp.forward(p, x, residual=residual) - y) ** 2)
        exact = x, mlp.forward(params, jnp.asarray(x), residual=residual)
        assert len(mlp_symmetry.split_lines(fun, params, exact, activation=jnp.tanh)[0].weight) == number


# --- Training and files -------------------------------------------------------------------------------------------


def test_training_sweeps_and_checkpoints_keep_a_network_without_biases(x64, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((19, 3)), rng.standard_normal((19, 2))
    start = mlp.init(jax.random.key(0), (3, 4, 2), bias=False)

    def loss(params, x, y, weights, key):
        return losses.mean(losses.squared_error(mlp.forward(params, x), y), weights)

    first, second = (np.asarray(layer.weight) for layer in start)
    for _ in range(3):  # gradient descent by the chain rule
        hidden = np.tanh(x @ first)
        delta = (hidden @ second - y) / len(x)
        first, second = first - 0.1 * x.T @ (delta @ second.T * (1 - hidden**2)), second - 0.1 * hidden.T @ delta
    run = training.train(jax.random.key(1), loss, start, (x, y), optimizer=optax.sgd(0.1), batch_size=19, epochs=3)
    grid = {"batch_sizes": (19, 7), "learning_rates": (0.1,), "seeds": 1, "epochs": 3}
    lanes = sweep.run(jax.random.key(1), loss, lambda key: start, (x, y), **grid)
    for trained in (run[0], jax.tree.map(lambda leaf: leaf[0, 0, 0], lanes.params)):
        assert [layer.bias for layer in trained] == [None, None]
        np.testing.assert_allclose(trained[0].weight, first, rtol=1e-12)
        np.testing.assert_allclose(trained[1].weight, second, rtol=1e-12)
    checkpoint.save(tmp_path / "run", run[0])
    restored = checkpoint.restore(tmp_path / "run", start)
    assert jax.tree.structure(restored) == jax.tree.structure(start)
    jax.tree.map(np.testing.assert_array_equal, restored, run[0])
