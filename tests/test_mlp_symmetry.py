"""mlp_symmetry: tangents against closed forms and the null spaces of Hessians, maps against the loss itself."""

import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import critical, curvature, datasets, losses, mlp, mlp_symmetry, penalties, tree
from mlp_jax.mlp import Layer


def identity(z):
    return z


ACTIVATIONS = {"tanh": jnp.tanh, "cos": jnp.cos, "relu": jax.nn.relu, "maxout": mlp.maxout(2), "identity": identity}


@functools.cache
def network_loss(name, loss=losses.squared_error):
    def fun(params, x, y, decay=0.0):
        return losses.mean(loss(mlp.forward(params, x, activation=ACTIVATIONS[name]), y)) + penalties.l2(params, decay)

    return fun


def tangents_of(name, params, x, y, decay=0.0, loss=losses.squared_error):
    fun = network_loss(name, loss)
    return mlp_symmetry.tangents(fun, params, (x, y, decay), inputs=x, activation=ACTIVATIONS[name])


def draw(sizes, num=30, seed=0, pieces=1):
    normal, params = np.random.default_rng(seed).standard_normal, []
    for depth, (entering, leaving) in enumerate(itertools.pairwise(sizes)):
        width = leaving * (pieces if depth < len(sizes) - 2 else 1)
        params.append(Layer(normal((entering, width)) / np.sqrt(entering), 0.3 * normal(width)))
    return tuple(params), normal((num, sizes[0]))


def rows(stacked):
    leaves = jax.tree.leaves(stacked)
    return np.concatenate([np.reshape(leaf, (len(leaf), math.prod(leaf.shape[1:]))) for leaf in leaves], axis=1)


def dimension(found, params):
    with jax.enable_x64(True):
        matrix = rows(found(params))
    return 0 if len(matrix) == 0 else np.linalg.matrix_rank(matrix, tol=1e-9 * np.max(np.abs(matrix)))


def model_kernel(params, x, name):
    """The number of directions in which no output moves, at random params: P minus the rank of the Jacobian."""
    with jax.enable_x64(True):
        vector, unravel = tree.ravel(params)
        outputs = lambda v: mlp.forward(unravel(v), jnp.asarray(x), activation=ACTIVATIONS[name]).ravel()
        sizes = np.linalg.svd(np.asarray(jax.jit(jax.jacrev(outputs))(vector)), compute_uv=False)
    return len(vector) - int(np.sum(sizes > 1e-10 * sizes[0]))


# --- Guaranteed zero modes ----------------------------------------------------------------------------------------


def test_softmax_shifts_are_null_and_weight_decay_leaves_none():
    params, x = draw((3, 4, 3))
    y = np.arange(len(x)) % 3
    found = tangents_of("relu", params, x, y, 0.0, losses.cross_entropy)
    assert found.names[: 4 + 1] == ("softmax shift",) * (4 + 1)  # one for each last hidden unit, one for the bias
    matrix = np.asarray(curvature.dense_hessian(network_loss("relu", losses.cross_entropy), params, (x, y, 0.0)))
    np.testing.assert_allclose(matrix @ rows(found(params))[: 4 + 1].T, 0, atol=1e-15)
    decayed = tangents_of("relu", params, x, y, 1e-6, losses.cross_entropy)
    assert decayed.names == ()
    assert "softmax shift" in decayed.dropped


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes", "pieces"),
    [("relu", (3, 4, 3, 2), 1), ("maxout", (2, 4, 1), 2), ("identity", (5, 2, 4), 1), ("identity", (4, 5, 2), 1)],
)
def test_tangents_span_the_kernel_of_the_jacobian_at_random_params_and_weight_decay_leaves_rotations(
    name, sizes, pieces
):
    # If no unit is dead and outputs outnumber parameters, only symmetries leave the outputs unchanged.
    params, x = draw(sizes, num=60, pieces=pieces)
    y = np.random.default_rng(1).standard_normal((len(x), sizes[-1]))
    found = tangents_of(name, params, x, y)
    assert dimension(found, params) == model_kernel(params, x, name)
    assert "softmax shift" in found.dropped
    left = {"linear gauge of layer 1"} if name == "identity" else set()
    assert set(tangents_of(name, params, x, y, 1e-6).names) <= left


def test_constant_and_dependent_inputs_give_a_tangent_for_each_unit():
    params, x = draw((5, 4, 2))
    x[:, 1], x[:, 2] = 0.0, 0.7
    for dependent in (2, 3):  # the constant inputs, then an affine copy of another as well
        if dependent == 3:
            x[:, 4] = 2 * x[:, 0] - 1
        found = tangents_of("tanh", params, x, np.zeros((len(x), 2)))
        rank = np.linalg.matrix_rank(np.concatenate([x, np.ones((len(x), 1))], axis=1))
        assert dimension(found, params) == 4 * (6 - rank) == 4 * dependent
        assert set(found.names) == {"dependent inputs of layer 1"}


def test_integer_inputs_have_the_tangents_of_the_same_floats():
    x = np.array([[1, 0], [1, 0], [1, 0]])
    params = mlp.init(jax.random.key(0), (2, 1))
    fun = lambda p: jnp.sum(p[0].weight[0] + p[0].bias)  # the output, for an input of (1, 0)
    floats, integers = (
        mlp_symmetry.tangents(fun, params, inputs=x.astype(dtype), activation=jnp.tanh) for dtype in (float, np.uint8)
    )
    # The softmax shift changes the weight of a pixel that is always 0, as a dependent input does.
    assert floats.names == ("softmax shift", "dependent inputs of layer 1", "dependent inputs of layer 1")
    assert integers.names == floats.names
    jax.tree.map(np.testing.assert_array_equal, integers(params), floats(params))


def test_a_dead_relu_unit_frees_its_incoming_and_outgoing_weights():
    params, x = draw((3, 4, 2))
    params[0].weight[:, 2], params[0].bias[2] = 0.01, -5.0
    found = tangents_of("relu", params, x, np.zeros((len(x), 2)))
    assert found.names.count("dead pre-activations of layer 1") == 3 + 1
    assert found.names.count("dependent inputs of layer 2") == 2
    assert dimension(found, params) == 3 + (3 + 1) + 2


def test_a_tanh_unit_without_output_is_not_a_symmetry():
    # fun is constant along its incoming weights only while its outgoing weights are zero: higher orders decide.
    params, x = draw((3, 4, 2))
    params[1].weight[2] = 0.0
    assert tangents_of("tanh", params, x, np.ones((len(x), 2))).names == ()


@pytest.mark.slow
@pytest.mark.parametrize(("decay", "gauge", "shifts"), [(0.0, 2**2, 2), (0.1, 1, 0)])
def test_a_linear_minimum_is_one_modulo_its_gauge_of_which_weight_decay_leaves_the_rotations(decay, gauge, shifts):
    # x is centred and white: the minimum is the projection of the map on its largest singular values, less the decay.
    draws = np.random.default_rng(0).standard_normal((40, 4))
    x = np.linalg.qr(draws - draws.mean(0))[0] * np.sqrt(40)
    y, root = x @ np.diag([3.0, 2.0, 1.5, 1.0])[:, :3], np.sqrt(np.array([3.0, 2.0]) - decay)
    params = Layer(np.eye(4, 2) * root, np.zeros(2)), Layer(root[:, None] * np.eye(2, 3), np.zeros(3))
    found = tangents_of("identity", params, x, y, decay)
    assert found.names.count("linear gauge of layer 1") == gauge
    assert found.names.count("translation of layer 1") == shifts
    assert ("linear gauge of layer 1" in found.dropped) == (decay > 0)
    assert dimension(found, params) == gauge + shifts
    verdict = critical.classify(network_loss("identity"), params, (x, y, decay), symmetries=found)
    assert verdict.kind == "minimum modulo symmetry"
    assert verdict.symmetries == verdict.inertia.unresolved == gauge + shifts


# --- Split units --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sign"), [("tanh", 1.0), ("tanh", -1.0), ("cos", -1.0)])
def test_a_split_unit_lies_on_a_line_of_critical_points(name, sign):
    # One unit without input weights, and outputs equal to the mean target, is a critical point of XOR.
    fun, phi, args = network_loss(name), ACTIVATIONS[name], (*map(np.asarray, datasets.xor()), 0.0)
    w, b, v = np.zeros((2, 1)), np.array([0.7]), np.array([[1.3]])
    c = 0.5 - 1.3 * getattr(np, name)(b)
    back = sign if name == "tanh" else 1.0  # cos is even: the copy with opposite weights has the same output
    split = Layer(np.hstack([w, sign * w]), np.hstack([b, sign * b])), Layer(np.vstack([0.3 * v, back * 0.7 * v]), c)
    found = mlp_symmetry.split_lines(fun, split, args, activation=phi)
    assert found[0].weight.shape[0] == 1
    line = rows(found)[0] / np.linalg.norm(rows(found)[0])
    matrix = np.asarray(curvature.dense_hessian(fun, split, args))
    np.testing.assert_allclose(matrix @ line, 0, atol=1e-12)
    np.testing.assert_allclose(np.abs(found[1].weight[0]), np.abs(found[1].weight[0][0, 0]))
    split[0].bias[1] += 1  # units that differ give no line
    assert len(mlp_symmetry.split_lines(fun, split, args, activation=phi)[0].weight) == 0


# --- Properties of an activation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (jnp.tanh, {"separate", "odd"}),
        (jax.nn.sigmoid, {"separate"}),
        (jnp.square, {"separate", "even"}),
        (jax.nn.relu, {"separate", "homogeneous"}),
        (jax.nn.leaky_relu, {"separate", "homogeneous"}),
        (jax.nn.soft_sign, {"separate", "odd"}),
        (identity, {"separate", "odd", "homogeneous", "linear", "translation"}),
        (lambda z: -2.0 * z, {"separate", "odd", "homogeneous", "linear"}),
        (mlp.maxout(3), {"separate", "exchangeable", "homogeneous", "translation"}),
        (jax.nn.softmax, set()),
    ],
)
def test_traits_are_measured(activation, expected):
    found = mlp_symmetry.traits(activation, 6)._asdict()
    found["exchangeable"] &= found["pieces"] > 1
    assert {name for name, value in found.items() if value is True or value is np.True_} == expected


def test_corners_are_where_a_derivative_jumps():
    for activation, expected in (
        (jax.nn.elu, (0.0,)), (jax.nn.relu6, (0.0, 6.0)), (jax.nn.hard_tanh, (-1.0, 1.0)),
        (jnp.tanh, ()), (jax.nn.gelu, ()), (lambda z: jnp.tanh(20 * z), ()),
    ):  # fmt: skip
        np.testing.assert_allclose(mlp_symmetry.corners(activation), expected, atol=1e-12)


def test_kinks_are_pre_activations_and_gaps_of_maxout():
    params, x = draw((3, 4, 2, 1))
    with jax.enable_x64(True):
        first = x @ params[0].weight + params[0].bias
        second = np.maximum(first, 0) @ params[1].weight + params[1].bias
        found = mlp_symmetry.kinks(jax.nn.relu)(params, x, None)
        np.testing.assert_allclose(found, np.concatenate([first.ravel(), second.ravel()]), rtol=1e-12)
        params, x = draw((3, 4, 1), pieces=2)
        pairs = (x @ params[0].weight + params[0].bias).reshape(-1, 2)
        found = mlp_symmetry.kinks(mlp.maxout(2), inputs=lambda a, b: b)(params, None, x)
        np.testing.assert_allclose(found, np.abs(pairs[:, 0] - pairs[:, 1]), rtol=1e-12)


# --- Discrete maps ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes", "pieces", "order"),
    [
        ("tanh", (2, 2, 3, 1), 1, 2**2 * 2 * 2**3 * 6),
        ("cos", (2, 2, 3, 1), 1, 2**2 * 2 * 2**3 * 6),
        ("relu", (2, 3, 1), 1, 6),
        ("maxout", (2, 3, 1), 2, 6 * 2**3),
    ],
)
def test_every_copy_has_the_same_loss_and_the_same_canonical_form(name, sizes, pieces, order):
    params, x = draw(sizes, pieces=pieces)
    fun, y = network_loss(name), np.ones((len(x), sizes[-1]))
    found = mlp_symmetry.maps(fun, params, (x, y), activation=ACTIVATIONS[name])
    assert found.orbit_size(params) == order
    form = tree.ravel(found.canonical(params))[0]
    generator, copy = np.random.default_rng(0), params
    generators = list(found.generators(params).values())
    for _ in range(20):
        copy = generators[generator.integers(len(generators))](copy)
        np.testing.assert_array_equal(tree.ravel(found.canonical(copy))[0], form)
    with jax.enable_x64(True):
        value = jax.jit(fun)
        for same in (copy, found.canonical(params)):
            assert np.isclose(value(same, x, y), value(params, x, y), rtol=1e-14)
    other = jax.tree.map(lambda p: 1.01 * p, params)
    assert not np.allclose(tree.ravel(found.canonical(other))[0], form)


def test_canonical_forms_of_points_that_differ_by_a_rounding_differ_by_a_rounding():
    params, x = draw((1, 3, 1))
    found = mlp_symmetry.maps(network_loss("tanh"), params, (x, np.ones((len(x), 1))), activation=jnp.tanh)
    # Ties on purpose: two equal units, one unit without bias.
    params[0].weight[:, 1] = params[0].weight[:, 0]
    params[0].bias[1] = params[0].bias[0]
    params[0].weight[:, 2], params[0].bias[2] = 1.0, 0.0
    generator = np.random.default_rng(0)
    form = tree.ravel(found.canonical(params))[0]
    for _ in range(20):
        near = jax.tree.map(lambda p: p + 1e-12 * generator.standard_normal(p.shape), params)
        np.testing.assert_allclose(tree.ravel(found.canonical(near))[0], form, atol=1e-11)


def _orbit_by_enumeration(found, params):
    """All copies, listed by applying generators until nothing new appears."""
    moves = list(found.generators(params).values())
    key = lambda p: tuple(np.round(np.asarray(tree.ravel(p)[0], float), 8) + 0.0)
    seen, waiting = {key(params)}, [params]
    while waiting:
        point = waiting.pop()
        for move in moves:
            image = move(point)
            if key(image) not in seen:
                seen.add(key(image))
                waiting.append(image)
    return len(seen)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tanh", "cos"])
@pytest.mark.parametrize("case", ["equal", "opposite", "padded", "input only", "deep", "deep equal", "deep padded"])
def test_orbit_sizes_of_points_with_equal_or_empty_units_are_those_of_enumeration(case, name):
    params, x = draw((1, 2, 2, 1) if "deep" in case else (1, 3, 1))
    fun, activation = network_loss(name), ACTIVATIONS[name]
    found = mlp_symmetry.maps(fun, params, (x, np.ones((len(x), 1))), activation=activation)
    first, second, *_ = params
    if "equal" in case or case == "opposite":
        sign = -1 if case == "opposite" else 1
        first.weight[:, 1], first.bias[1] = sign * first.weight[:, 0], sign * first.bias[0]
        second.weight[1] = (sign if name == "tanh" else 1) * second.weight[0]
    if "padded" in case or case == "input only":
        first.weight[:, 1], first.bias[1] = 0.0, 0.0
        second.weight[1] = 0.7 if case == "input only" else 0.0
    assert found.orbit_size(params) == _orbit_by_enumeration(found, params)


def test_a_penalty_that_tells_units_apart_leaves_no_permutation_but_keeps_flips():
    params, x = draw((2, 3, 1))

    def fun(p, inputs):
        return jnp.sum(mlp.forward(p, inputs) ** 2) + jnp.sum(jnp.arange(3.0) * p[0].bias ** 2)

    found = mlp_symmetry.maps(fun, params, (x,), activation=jnp.tanh)
    assert not found.layers[0].permutations
    assert found.layers[0].flips
    assert found.orbit_size(params) == 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fun, p, x: mlp_symmetry.tangents(fun, (np.ones(3),), inputs=x, activation=jnp.tanh), "params[0]: got"),
        (lambda fun, p, x: mlp_symmetry.tangents(fun, p, inputs=x, activation=np), "'module' object is not callable"),
        (lambda fun, p, x: mlp_symmetry.maps(fun, [], activation=jnp.tanh), "params: got an empty pytree"),
        (lambda fun, p, x: mlp_symmetry.traits(lambda z: z[:, :4], 6), "activation: got shape"),
        (lambda fun, p, x: mlp_symmetry.corners(lambda z: z[:4]), "activation: got one that changes the shape"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(call, message):
    layers = (Layer(np.ones((3, 1)), np.ones(1)), Layer(np.ones((1, 1)), np.ones(1)))
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        call(lambda p: jnp.sum(jax.tree.leaves(p)[0]), layers, np.ones((2, 3)))
