"""The layer-block Hessian of an MLP loss: against 60-digit arithmetic, jax.hessian and the explicit chain rule."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ground_truth import exact, series_hessian, series_network

from mlp_jax import losses, mlp, mlp_hessian, penalties, tree
from mlp_jax.curvature import precision
from mlp_jax.mlp_hessian import activations, matrix, penalty_part, separable, sums

SMOOTH = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "softplus": jax.nn.softplus}


def network(sizes, seed=0, num=7, pieces=1, scale=0.7):
    """Parameters with random biases, and data for a network; float64 numpy arrays."""
    rng = np.random.default_rng(seed)
    layers = []
    for depth, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        width = n_out * (pieces if depth < len(sizes) - 2 else 1)
        layers.append(mlp.Layer(scale * rng.standard_normal((n_in, width)), scale * rng.standard_normal(width)))
    return tuple(layers), rng.standard_normal((num, sizes[0])), rng


def classification(sizes, **kwargs):
    params, inputs, rng = network(sizes, **kwargs)
    return params, inputs, rng.integers(sizes[-1], size=len(inputs))


def regression(sizes, **kwargs):
    params, inputs, rng = network(sizes, **kwargs)
    return params, inputs, rng.standard_normal((len(inputs), sizes[-1]))


def objective(loss, activation, weights=None, penalty=lambda params: 0.0):
    return lambda p, x, y: losses.mean(loss(mlp.forward(p, x, activation=activation), y), weights) + penalty(p)


def autodiff(fun, params, *args):
    """The matrix by jax.hessian."""
    vector, unravel = tree.ravel(jax.tree.map(jnp.asarray, params))
    args = [jnp.asarray(a) for a in args]
    return jax.jit(jax.hessian(lambda v: fun(unravel(v), *args)))(vector)


def coupled(params):
    """A penalty that mixes all layers, with a Hessian that is nowhere zero."""
    return jnp.sin(sum(jnp.sum(leaf**2 + leaf) for leaf in jax.tree.leaves(params)) / 3)


def assert_close(actual, expected, relative=1e-12):
    expected = np.asarray(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * max(np.max(np.abs(expected)), 1e-300))


# --- The matrix ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "activation"),
    [((2, 3, 2), "sigmoid"), ((2, 3, 2), "softplus"), ((1, 2, 2, 2, 1), "tanh"), ((1, 2, 2, 2, 1), "softplus")],
)
def test_hessian_has_the_value_of_sixty_digit_arithmetic(sizes, activation):
    params, inputs, targets = regression(sizes, num=3)

    def fun(theta):
        errors = series_network(theta, sizes, inputs, activation) - exact(targets)
        return np.sum(errors * errors) / (2 * len(inputs))

    with jax.enable_x64(True):
        theta = np.asarray(tree.ravel(params)[0])
    expected = np.array(series_hessian(fun, theta).tolist(), dtype=float)
    actual = mlp_hessian.dense(params, inputs, targets, loss=losses.squared_error, activation=SMOOTH[activation])
    assert_close(actual, expected)


def gate(z):
    """Products of neighbours: a shorter last axis, and a second derivative that is not zero."""
    return z[..., ::2] * z[..., 1::2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "activation", "pieces"),
    [
        ((3, 4, 2), jax.nn.gelu, 1),
        ((2, 3, 3, 4, 3), jnp.sin, 1),
        ((3, 4, 2), jax.nn.relu, 1),
        # Activations that mix units.
        ((3, 4, 2), mlp.maxout(3), 3),
        ((2, 3, 2, 3, 2), gate, 2),
        ((3, 4, 2), jax.nn.softmax, 1),
    ],
)
def test_hessian_of_cross_entropy_is_that_of_automatic_differentiation(x64, sizes, activation, pieces):
    params, inputs, targets = classification(sizes, pieces=pieces)
    actual = mlp_hessian.dense(params, inputs, targets, loss=losses.cross_entropy, activation=activation)
    assert_close(actual, autodiff(objective(losses.cross_entropy, activation), params, inputs, targets))


PENALTIES = {
    "l2": (lambda p: penalties.l2(p, 0.3), True),
    "l2 of weights": (lambda p: penalties.l2(p, 0.3, biases=False), True),
    "l1": (lambda p: penalties.l1(p, 0.3), True),
    "quartic": (lambda p: sum(jnp.sum(leaf**4) for leaf in jax.tree.leaves(p)), True),
    "log cosh, compiled": (jax.jit(lambda p: sum(jnp.sum(jnp.log(jnp.cosh(w))) for w in jax.tree.leaves(p))), True),
    "square of l2": (lambda p: penalties.l2(p, 0.3) ** 2, False),
    "neighbours": (lambda p: jnp.sum(p[0].weight[1:] * p[0].weight[:-1]), False),
    "transposed": (lambda p: jnp.sum(p[0].weight * p[0].weight.T), False),
    "two layers": (lambda p: jnp.sum(p[0].weight * p[1].weight), False),
    "reversed": (lambda p: jnp.sum(p[0].bias * p[0].bias[::-1]), False),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_the_hessian_of_a_penalty_is_taken_as_diagonal_only_where_it_is(x64, name):
    penalty, separable_ = PENALTIES[name]
    params, inputs, targets = classification((3, 3, 3))
    found = separable.diagonal(penalty, jax.tree.map(jnp.asarray, params))
    assert (found is not None) == separable_
    wanted = autodiff(lambda p, x, y: penalty(p), params, inputs, targets)
    without = mlp_hessian.enclosable(params, inputs, targets, loss=losses.cross_entropy)
    for function in (mlp_hessian.enclosable, mlp_hessian.dense):
        whole = function(params, inputs, targets, loss=losses.cross_entropy, penalty=penalty)
        assert_close(whole - without, wanted)


@pytest.mark.slow
def test_weights_and_penalty_count_whatever_the_cut_into_strips_and_chunks(x64, monkeypatch):
    params, inputs, targets = classification((3, 4, 2))
    weights = np.array([0.0, 1.0, 2.0, 0.5, 0.0, 3.0, 1.0])
    options = {"loss": losses.cross_entropy, "weights": weights, "penalty": coupled}
    hessian = lambda: np.asarray(jax.jit(lambda p: mlp_hessian.dense(p, inputs, targets, **options))(params))
    whole = hessian()
    assert_close(whole, autodiff(objective(losses.cross_entropy, jnp.tanh, weights, coupled), params, inputs, targets))
    for strip_bytes, chunk, left_bytes in ((700, 7, 2**25), (2**24, 1, 2**25), (2**24, 3, 1)):
        monkeypatch.setattr(penalty_part, "_STRIP_BYTES", strip_bytes)
        monkeypatch.setattr(matrix, "_chunk_size", lambda params, chunk=chunk: chunk)
        monkeypatch.setattr(sums, "_LEFT_BYTES", left_bytes)
        again = hessian()
        assert_close(again, whole, 1e-14)
        assert (again == again.T).all()


def test_softmax_regression_has_its_closed_form(x64):
    params, inputs, targets = classification((3, 4))
    p = np.asarray(jax.nn.softmax(mlp.forward(jax.tree.map(jnp.asarray, params), jnp.asarray(inputs))))
    extended = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    fisher = [np.diag(row) - np.outer(row, row) for row in p]
    expected = sum(np.kron(np.outer(a, a), f) for a, f in zip(extended, fisher, strict=True)) / len(inputs)
    assert_close(mlp_hessian.dense(params, inputs, targets, loss=losses.cross_entropy), expected)


def test_memory_is_less_than_twice_that_of_the_matrix(x64, monkeypatch):
    # The matrix is small here, and so must be the two strips of the penalty that are held.
    monkeypatch.setattr(penalty_part, "_STRIP_BYTES", 2**20)
    params, inputs, targets = classification((20, 60, 5), num=40)
    size = tree.size(params)
    for penalty in (None, lambda p: penalties.l2(p, 0.1)):
        make = lambda p: mlp_hessian.dense(p, inputs, targets, loss=losses.cross_entropy, penalty=penalty)
        memory = jax.jit(make).lower(params).compile().memory_analysis()
        chunk = 40 * 8 * 4 * 65**2
        assert memory.temp_size_in_bytes + memory.output_size_in_bytes < 2 * 8 * size**2 + chunk


ELEMENTWISE = [
    jnp.tanh, jnp.sin, jnp.abs, jnp.square, jax.nn.relu, jax.nn.relu6, jax.nn.sigmoid, jax.nn.softplus, jax.nn.silu,
    jax.nn.gelu, lambda z: jax.nn.gelu(z, approximate=False), jax.nn.elu, jax.nn.selu, jax.nn.celu, jax.nn.mish,
    jax.nn.leaky_relu, jax.nn.hard_swish, jax.nn.hard_tanh, jax.nn.log_sigmoid, jax.nn.soft_sign, jax.nn.squareplus,
    lambda z: z, lambda z: jnp.where(z > 0, z, 0.1 * z),
]  # fmt: skip
MIXING = [
    jax.nn.softmax, mlp.maxout(2), gate, lambda z: z - z.mean(-1, keepdims=True), lambda z: z[..., ::-1],
    lambda z: jnp.sort(z, -1), lambda z: jnp.cumsum(z, -1), lambda z: jnp.roll(z, 1, -1),
    lambda z: z @ jnp.eye(z.shape[-1], dtype=z.dtype), lambda z: z * z[..., :1], lambda z: z / jnp.linalg.norm(z),
    lambda z: jax.lax.scan(lambda c, _: (c[..., ::-1], None), z, None, 2)[0], lambda z: z[..., jnp.array([1, 0, 2, 3])],
]  # fmt: skip


def test_activations_that_mix_units_are_never_taken_for_elementwise():
    values = np.arange(4.0, dtype=np.float32)[None]
    assert all(activations.is_elementwise(activation, values) for activation in ELEMENTWISE)
    assert not any(activations.is_elementwise(activation, values) for activation in MIXING)
    moved = values + np.eye(4, dtype=np.float32)
    for results, at_values in jax.jit(lambda: [(of(moved), of(values)) for of in ELEMENTWISE])():
        changed = np.asarray(results != at_values)
        assert not np.any(changed[~np.eye(4, dtype=bool)])


# --- Blocks and parts ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "pieces", "parts"),
    [
        (jnp.tanh, 1, {}),
        pytest.param(mlp.maxout(2), 2, {"residual": False}, marks=pytest.mark.slow),
        pytest.param(jnp.tanh, 1, {"gauss_newton": False}, marks=pytest.mark.slow),
    ],
)
def test_blocks_are_those_of_the_matrix(activation, pieces, parts):
    params, inputs, targets = classification((3, 4, 3, 2), pieces=pieces)
    options = {"loss": losses.cross_entropy, "activation": activation, "penalty": coupled, **parts}
    whole = mlp_hessian.dense(params, inputs, targets, **options)
    ends = np.cumsum([0] + [tree.size(layer) for layer in params])
    for i, j in [(1, 1), (1, 0), (0, 2)]:
        block = mlp_hessian.blocks(params, inputs, targets, layers=(i, j), **options)
        assert_close(block, whole[ends[i] : ends[i + 1], ends[j] : ends[j + 1]], 1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("activation", [jnp.tanh, pytest.param(jax.nn.softmax, marks=pytest.mark.slow)])
def test_gauss_newton_part_is_the_loss_hessian_seen_through_the_jacobian(x64, activation):
    params, inputs, targets = classification((3, 4, 2))

    @jax.jit
    def parts(params):
        vector, unravel = tree.ravel(params)
        outputs = lambda v: mlp.forward(unravel(v), jnp.asarray(inputs), activation=activation)
        jacobian, p = jax.jacobian(outputs)(vector), jax.nn.softmax(outputs(vector))
        slope = p - jax.nn.one_hot(targets, 2)
        fisher = jnp.eye(2) * p[:, None] - p[:, :, None] * p[:, None]
        bent = jax.hessian(lambda v: jnp.sum(slope * outputs(v)))(vector)
        return jnp.einsum("nap,nab,nbq->pq", jacobian, fisher, jacobian) / len(inputs), bent / len(inputs)

    options = {"loss": losses.cross_entropy, "activation": activation, "penalty": coupled}
    gauss_newton = mlp_hessian.dense(params, inputs, targets, residual=False, **options)
    residual = mlp_hessian.dense(params, inputs, targets, gauss_newton=False, **options)
    expected, bent = parts(params)
    assert_close(gauss_newton, expected + autodiff(coupled, params))
    assert_close(residual, bent)
    assert np.linalg.eigvalsh(expected)[0] > -1e-14


# --- Precision, transformations, compilation ----------------------------------------------------------------------


def test_float32_session_computes_in_float64():
    params, inputs, targets = classification((3, 4, 2))
    single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    rounded = jax.tree.map(lambda a: np.asarray(a, np.float64), single)
    actual = mlp_hessian.dense(single, inputs, targets, loss=losses.cross_entropy)
    assert actual.dtype == np.float64
    assert jnp.ones(1).dtype == jnp.float32
    with jax.enable_x64(True):
        assert_close(actual, autodiff(objective(losses.cross_entropy, jnp.tanh), rounded, inputs, targets), 1e-13)


def test_works_under_jit_and_vmap(x64):
    starts = [classification((3, 4, 2), seed=seed)[0] for seed in range(3)]
    _, inputs, targets = classification((3, 4, 2))
    stacked = jax.tree.map(lambda *a: np.stack(a), *starts)
    one = lambda p: mlp_hessian.dense(p, inputs, targets, loss=losses.cross_entropy)
    block = lambda p: mlp_hessian.blocks(p, inputs, targets, layers=(1, 0), loss=losses.cross_entropy)
    whole, blocks = jax.jit(jax.vmap(lambda p: (one(p), block(p))))(stacked)
    for params, matrix_of_one in zip(starts, whole, strict=True):
        assert_close(matrix_of_one, one(params), 1e-13)
    assert_close(blocks, whole[:, 16:, :16], 1e-13)


def test_trace_of_the_hessian_is_differentiable(x64):
    params, inputs, targets = regression((2, 3, 2))
    trace = lambda p: jnp.trace(mlp_hessian.dense(p, inputs, targets, loss=losses.squared_error))
    vector, unravel = tree.ravel(jax.tree.map(jnp.asarray, params))
    slope = jax.jit(jax.grad(lambda v: trace(unravel(v))))(vector)
    direction = jnp.linspace(-1, 1, vector.size)
    steps = [trace(unravel(vector + sign * 1e-5 * direction)) for sign in (1, -1)]
    np.testing.assert_allclose(slope @ direction, (steps[0] - steps[1]) / 2e-5, rtol=1e-7)


def test_second_call_compiles_nothing(compilations):
    traced = []

    def loss(outputs, targets):
        traced.append(outputs.shape)
        return losses.cross_entropy(outputs, targets)

    params, inputs, targets = classification((3, 4, 2), num=11)
    calls = [lambda p: mlp_hessian.dense(p, inputs, targets, loss=loss),
             lambda p: mlp_hessian.blocks(p, inputs, targets, layers=(0, 1), loss=loss)]  # fmt: skip
    for call in calls:
        call(params)
        compilations.clear()
        traced.clear()
        call(jax.tree.map(lambda a: 2 * a, params))
        assert compilations == []
        assert traced == [(11, 2)]  # by the check of shapes, not by the program


# --- Refusals -----------------------------------------------------------------------------------------------------


BAD = {
    "params": [
        ((mlp.Layer(np.ones((3, 2)), np.ones(3)),), "params[0]: got weight (3, 2), bias (3,), expected (in, out)"),
        ((mlp.Layer(np.ones((3, 2)), np.array([1.0, np.nan])),), "params[0].bias: got 1 numbers that are NaN"),
        ((mlp.Layer(np.ones((3, 2), int), np.ones(2)),), "params[0].weight: got an array of dtype int64"),
    ],
    "inputs": [
        (np.ones((5, 3)), "inputs, targets: got shapes (5, 3) and (7,)"),
        (np.full((7, 3), np.nan), "inputs: got 21 numbers that are NaN or infinite"),
    ],
    "targets": [
        (np.arange(7), "targets: got class numbers from 0 to 6, expected 0 to 1"),
        (np.zeros(7), "targets: got dtype float64"),
    ],
    "weights": [
        (np.ones(3), "weights: got shape (3,), expected (7,)."),
        (-np.ones(7), "weights: got numbers from -1.0 to -1.0"),
    ],
    "loss": [(lambda z, y: losses.cross_entropy(z, y).mean(), "expected (7,) floating-point losses")],
    "activation": [(mlp.maxout(2), "to have the same shape, got (2,) and (4,)")],
    "penalty": [(lambda p: p[0].bias, "expected one real floating-point scalar")],
    "residual": [(False, "got False for both")],
    "max_bytes": [(1000, "A Hessian of 26 parameters needs")],
}


@pytest.mark.parametrize(("name", "value", "message"), [(name, *case) for name, cases in BAD.items() for case in cases])
def test_a_wrong_argument_is_refused_before_compilation(name, value, message, compilations):
    params, inputs, targets = classification((3, 4, 2))
    arguments = {"params": params, "inputs": inputs, "targets": targets, "loss": losses.cross_entropy, name: value}
    arguments |= {"gauss_newton": name != "residual"}
    with precision.float64():  # JAX compiles a copy to the device for the first array of a shape
        [jnp.asarray(leaf) for leaf in jax.tree.leaves(arguments) if isinstance(leaf, np.ndarray)]
    compilations.clear()
    with pytest.raises((TypeError, ValueError, MemoryError), match=re.escape(message)):
        mlp_hessian.dense(**arguments)
    assert compilations == []


def test_a_block_of_no_layer_or_that_would_not_fit_is_refused_and_one_of_a_large_network_is_not():
    block = functools.partial(mlp_hessian.blocks, *classification((3, 4, 2)), loss=losses.cross_entropy)
    for layers in ((0, 2), (-1, 0)):
        with pytest.raises(ValueError, match=r"layers: got .*, expected an integer from 0 to 1"):
            block(layers=layers)
    with pytest.raises(MemoryError, match="A Hessian block with 10 columns of 16 parameters needs"):
        block(layers=(0, 1), max_bytes=1000)
    large = classification((784, 128, 10), num=3, scale=0.05)
    with pytest.raises(MemoryError, match="A Hessian of 101770 parameters needs"):
        mlp_hessian.dense(*large, loss=losses.cross_entropy, max_bytes=2**34)
    last = mlp_hessian.blocks(*large, layers=(1, 1), loss=losses.cross_entropy, max_bytes=2**27)
    assert last.shape == (1290, 1290)
