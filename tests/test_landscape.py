"""Lines, planes and directions against closed forms; matched units against every permutation and flip."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import landscape, losses, mlp
from mlp_jax.mlp import Layer

filter_normalized = jax.jit(landscape.filter_normalized, static_argnames="axis")
layer_normalized = jax.jit(landscape.layer_normalized)
principal_plane = jax.jit(landscape.principal_plane)
forward = jax.jit(mlp.forward, static_argnames="activation")
A = np.array([[3.0, 1.0, 0.0], [1.0, -2.0, 0.5], [0.0, 0.5, 1.0]])
quadratic = lambda x, matrix: 0.5 * x @ matrix @ x


def network(sizes, seed=0, dtype=np.float64):
    """Normal weights and biases, by numpy, divided by √fan-in."""
    draw = np.random.default_rng(seed).standard_normal
    return tuple(
        Layer(*(np.asarray(draw(shape) / np.sqrt(fan_in), dtype) for shape in ((fan_in, fan_out), (fan_out,))))
        for fan_in, fan_out in itertools.pairwise(sizes)
    )


@pytest.mark.usefixtures("x64")
def test_a_quadratic_along_a_line_and_on_a_plane_is_its_polynomial():
    point, a, b = np.random.default_rng(0).standard_normal((3, 3))
    s, t = np.linspace(-2, 2, 7), np.linspace(-1, 3, 5)
    values = landscape.line(quadratic, point, a, s, (A,))
    np.testing.assert_allclose(values, quadratic(point, A) + s * (a @ A @ point) + s**2 * quadratic(a, A), atol=1e-13)
    grid = landscape.plane(quadratic, point, a, b, s, t, (A,))
    points = point + s[:, None, None] * a + t[None, :, None] * b
    np.testing.assert_allclose(grid, 0.5 * np.einsum("ijk,kl,ijl->ij", points, A, points), atol=1e-12)


def test_chunks_change_the_memory_and_not_the_values():
    params, direction = (network((20, 30, 1), seed, np.float32) for seed in (0, 1))
    x = np.random.default_rng(2).standard_normal((100, 20)).astype(np.float32)
    fun = lambda p, x: jnp.mean(mlp.forward(p, x) ** 2)
    offsets = np.linspace(-1, 1, 203)

    def values_and_bytes(chunk_size):
        run = jax.jit(lambda p, x: landscape.line(fun, p, direction, offsets, (x,), chunk_size=chunk_size))
        compiled = run.lower(params, x).compile()
        return compiled(params, x), compiled.memory_analysis().temp_size_in_bytes

    (few, few_bytes), (many, many_bytes) = map(values_and_bytes, (4, 203))
    np.testing.assert_allclose(few, many, rtol=1e-5)
    # Hidden values of all points at once would be 203 · 100 · 30 · 4 bytes.
    assert many_bytes > 203 * 100 * 30 * 4
    assert few_bytes < 203 * 100 * 30 * 4 / 8


@pytest.mark.usefixtures("x64")
def test_lines_are_differentiable_and_vmapped():
    point, direction = np.random.default_rng(0).standard_normal((2, 3))
    slope = jax.grad(lambda d: landscape.line(quadratic, point, d, [2.0], (A,))[0])(direction)
    np.testing.assert_allclose(slope, 2 * A @ (point + 2 * direction), atol=1e-13)
    both = jax.vmap(lambda p: landscape.line(quadratic, p, direction, [0.5], (A,)))(jnp.stack([point, 2 * point]))
    np.testing.assert_allclose(both[:, 0], [quadratic(k * point + 0.5 * direction, A) for k in (1, 2)], atol=1e-13)


POINT, EYE = jnp.ones(3), (jnp.eye(3),)
LINE = lambda *args, **options: landscape.line(quadratic, POINT, *args, **options)
NETWORK, OTHER = (network((3, width, 2)) for width in (4, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LINE(jnp.ones(2), [0.0], EYE), "direction: got leaves of shapes (2,), expected those of params, (3,)"),
        (lambda: LINE((POINT,), [0.0], EYE), "direction: got leaves of shapes ((3,),)"),
        (lambda: LINE(POINT, [np.nan], EYE), "offsets: got 1 numbers that are NaN or infinite"),
        (lambda: LINE(POINT, 0.0, EYE), "offsets: got shape (), expected (n,)."),
        (lambda: LINE(POINT, [0.0], EYE, chunk_size=0), "chunk_size: got 0"),
        (lambda: landscape.line(lambda x: x, POINT, POINT, [0.0]), "expected one real floating-point scalar"),
        (lambda: landscape.filter_normalized(jnp.ones((1, 2)), jnp.ones((2, 2))), "direction: got leaves of shapes"),
        (lambda: landscape.layer_normalized(jnp.ones((1, 2)), jnp.ones((2, 2))), "direction: got leaves of shapes"),
        (lambda: landscape.principal_plane({"a": jnp.ones((2, 3))}), "trajectory: got 2 points of 3 parameters"),
        (lambda: landscape.barrier([1.0, 2.0], [0.0, 0.5]), "fractions: got 0.0 to 0.5, expected them ascending from"),
        (lambda: landscape.barrier([1.0, 5.0, 2.0], [0.0, 2.0, 1.0]), "fractions: got 0.0 to 1.0, expected them asc"),
        (lambda: landscape.match_units(NETWORK, NETWORK, activation=jax.nn.softmax), "joins pre-activations of layer"),
        (lambda: landscape.match_units(NETWORK, OTHER, activation=jnp.tanh), "params: got leaves of shapes"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(call, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        call()


def by_hand(direction, params):
    """The weights of a direction, scaled by filter and by layer."""
    lengths = lambda axis: np.linalg.norm(params, axis=axis) / np.linalg.norm(direction, axis=axis)
    return direction * lengths(0), direction * lengths(None)


def test_filters_and_layers_get_the_length_of_those_of_params():
    params, direction = (network((5, 4, 3), seed, np.float32) for seed in (0, 1))
    filters, layers = filter_normalized(direction, params), layer_normalized(direction, params)
    for scaled, whole, given, raw in zip(filters, layers, params, direction, strict=True):
        by_filter, by_layer = by_hand(raw.weight, given.weight)
        np.testing.assert_allclose(scaled.weight, by_filter, rtol=1e-5)
        np.testing.assert_allclose(whole.weight, by_layer, rtol=1e-5)
        assert not np.any(scaled.bias)
    # The same network in the layout (out, in).
    turned = filter_normalized(direction[0].weight.T, params[0].weight.T, axis=0)
    np.testing.assert_array_equal(turned.T, filters[0].weight)


@pytest.mark.usefixtures("x64")
def test_filter_normalised_pictures_do_not_depend_on_the_scale_of_relu_units():
    """A ReLU network rescaled layer by layer is the same function, and so is its picture (Li et al. 2018)."""
    (first, second), draw = network((3, 8, 2)), network((3, 8, 2), 1)
    params, rescaled = (
        (Layer(first.weight * scale, np.zeros(8)), Layer(second.weight / scale, np.zeros(2))) for scale in (1, 4)
    )
    x, offsets = np.random.default_rng(2).standard_normal((20, 3)), np.linspace(-1, 1, 9)
    fun = lambda p, x: jnp.mean(mlp.forward(p, x, activation=jax.nn.relu) ** 2)
    one, other = (landscape.line(fun, p, filter_normalized(draw, p), offsets, (x,)) for p in (params, rescaled))
    np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_run_in_a_plane_is_found_with_its_coordinates():
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.standard_normal((6, 2)))[0]
    places = generator.standard_normal((10, 2)) * [5, 1]
    rows = places @ basis.T + generator.standard_normal(6)
    run = {"a": rows[:, :4].reshape(10, 2, 2), "b": rows[:, 4:]}
    found = principal_plane(run)
    assert float(found.explained.sum()) == pytest.approx(1, abs=1e-12)
    singular = np.linalg.svd(rows - rows[-1], compute_uv=False)
    np.testing.assert_allclose(found.explained, singular[:2] ** 2 / np.sum(singular**2), atol=1e-12)
    axes = np.stack([np.concatenate([d["a"].ravel(), d["b"]]) for d in (found.first, found.second)])
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(rows[-1] + found.coordinates @ axes, rows, atol=1e-12)


def test_a_saddle_looks_like_one_along_its_extreme_eigenvectors():
    values, vectors = np.linalg.eigh(A)
    found = landscape.eigenvector_plane(quadratic, np.zeros(3, np.float32), (A,), key=jax.random.key(0))
    np.testing.assert_allclose(found.values, values[[0, -1]], atol=1e-12)
    np.testing.assert_allclose(np.abs(found.first), np.abs(vectors[:, 0]), atol=1e-10)
    down, up = (landscape.line(quadratic, np.zeros(3), d, [-1.0, 0.0, 1.0], (A,)) for d in (found.first, found.second))
    assert down[1] > max(down[0], down[2])
    assert up[1] < min(up[0], up[2])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_lengths_and_shares_are_right_where_their_squares_overflow_or_underflow(scale):
    draw = np.random.default_rng(0).standard_normal
    direction, params = draw((5, 3)), draw((5, 3))
    given = [np.asarray(a * scale, np.float32) for a in (direction, params)]
    found = [np.asarray(normalized(*given), float) / scale for normalized in (filter_normalized, layer_normalized)]
    np.testing.assert_allclose(found, by_hand(direction, params), rtol=1e-5)
    run = np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]) @ draw((2, 20))
    found = principal_plane(np.asarray(run * scale, np.float32))
    squares = np.linalg.svd(run - run[-1])[1] ** 2
    np.testing.assert_allclose(found.explained, squares[:2] / squares.sum(), rtol=1e-5)


def test_a_plane_is_not_spanned_by_the_ends_of_another_matrix():
    args, other = (np.diag([2.0, 4.0, -6.0]),), lambda: np.diag([2.0, 4.0, 3.0])
    with pytest.raises(RuntimeError, match="there may be others beyond"):
        landscape.eigenvector_plane(quadratic, jnp.zeros(3), args, key=jax.random.key(0), hessian_matrix=other)


def test_the_barrier_between_two_wells_is_their_hill():
    fractions, well = np.linspace(0, 1, 5), jnp.ones(1)
    values = landscape.interpolation(lambda x: (x[0] ** 2 - 1) ** 2, -well, well, fractions)
    np.testing.assert_allclose(values, [0, 0.5625, 1, 0.5625, 0], atol=1e-6)
    assert float(landscape.barrier(values, fractions)) == pytest.approx(1, abs=1e-6)


def rearranged(first, second, order, signs):
    """Two layers with the units between them permuted and flipped."""
    order, signs = np.array(order), np.array(signs)
    moved = Layer(first.weight[:, order] * signs, first.bias[order] * signs)
    return moved, Layer(second.weight[order] * signs[:, None], second.bias)


def distance(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return float(sum(np.sum((np.asarray(x) - np.asarray(y)) ** 2) for x, y in pairs))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("activation", "signs"), [(jnp.tanh, (1, -1)), (jax.nn.relu, (1,)), (jax.nn.sigmoid, (1,))])
def test_matched_units_are_the_nearest_of_all_copies(activation, signs):
    x = np.random.default_rng(2).standard_normal((7, 3))
    for seed in range(2):
        params, reference = (network((3, 4, 2), 10 * seed + k) for k in (0, 1))
        matched = landscape.match_units(params, reference, activation=activation)
        ways = itertools.product(itertools.permutations(range(4)), itertools.product(signs, repeat=4))
        nearest = min(distance(rearranged(*params, *way), reference) for way in ways)
        assert distance(matched, reference) == pytest.approx(nearest, rel=1e-12)
        outputs = [forward(p, x, activation=activation) for p in (params, matched)]
        np.testing.assert_allclose(*outputs, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_shuffled_deep_network_is_put_back_and_has_no_barrier():
    reference = network((4, 8, 8, 2))
    generator, layers = np.random.default_rng(0), list(reference)
    for depth in (0, 1):
        how = generator.permutation(8), generator.choice([-1.0, 1.0], 8)
        layers[depth : depth + 2] = rearranged(*layers[depth : depth + 2], *how)
    # A small change, so that the copies are not equal to the last bit.
    other = jax.tree.map(lambda leaf: leaf + 1e-3, tuple(layers))
    x, t = generator.standard_normal((50, 4)), np.linspace(0, 1, 11)
    y = forward(reference, x, activation=jnp.tanh)
    fun = lambda p, x, y: losses.mean(losses.squared_error(mlp.forward(p, x), y))
    between = lambda end: landscape.barrier(landscape.interpolation(fun, reference, end, t, (x, y)), t)
    matched = landscape.match_units(other, reference, activation=jnp.tanh)
    assert distance(matched, reference) < 1e-3
    assert between(matched) < 1e-4 < between(other)
