import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import backpropagation, losses, mlp

pytestmark = pytest.mark.usefixtures("x64")

# An activation, its pieces, and its derivative if the closed form is given.
ACTIVATIONS = {
    "tanh": (jnp.tanh, 1, lambda z: 1 - jnp.tanh(z) ** 2),
    "sigmoid": (jax.nn.sigmoid, 1, lambda z: jax.nn.sigmoid(z) * (1 - jax.nn.sigmoid(z))),
    "relu": (jax.nn.relu, 1, lambda z: (z > 0).astype(z.dtype)),
    "gelu": (jax.nn.gelu, 1, None),
    "maxout": (mlp.maxout(3), 3, None),
}
softmax_minus_one_hot = lambda z, t: jax.nn.softmax(z) - jax.nn.one_hot(t, 3)
WEIGHTS = np.array([1.0, 2.0, 0.0, 0.5, 3.0, 1.0, 1.0])


def problem(depth, pieces, loss):
    """A network of `depth` affine maps with random biases, which keep ReLU and maxout away from their kinks."""
    rng = np.random.default_rng(depth)
    draw = lambda *shape: rng.normal(size=shape)
    shapes = zip((5,) + (4,) * (depth - 1), (4 * pieces,) * (depth - 1) + (3,), strict=True)
    params = tuple(mlp.Layer(draw(fan_in, out) / np.sqrt(fan_in), draw(out)) for fan_in, out in shapes)
    return params, draw(7, 5), rng.integers(3, size=7) if loss is losses.cross_entropy else draw(7, 3)


def by_jax(params, inputs, targets, loss, activation, weights):
    fun = lambda p: losses.mean(loss(mlp.forward(p, inputs, activation=activation), targets), weights)
    return jax.grad(fun)(params)


def relative_error(result, expected):
    """Largest error of an entry, relative to the largest entry of its array, over all arrays."""
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max() / np.abs(b).max(), result, expected)))


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "pieces", "derivative"), ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_the_chain_rule_is_the_gradient_of_jax_for_every_depth_loss_and_weighting(activation, pieces, derivative):
    cross_entropy, squared_error = losses.cross_entropy, losses.squared_error
    cases = (1, cross_entropy, None), (2, squared_error, WEIGHTS), (4, cross_entropy, WEIGHTS)
    problems = [problem(depth, pieces, loss) for depth, loss, _ in cases]

    @jax.jit
    def both(problems):
        by_hand, expected = [], []
        for args, (_, loss, weights) in zip(problems, cases, strict=True):
            settings = {"loss": loss, "activation": activation, "weights": weights}
            by_hand.append(backpropagation.gradient(*args, **settings))
            expected.append(by_jax(*args, **settings))
        if derivative is not None:
            settings |= {"derivative": derivative, "loss_derivative": softmax_minus_one_hot}
            by_hand.append(backpropagation.gradient(*args, **settings))
            expected.append(expected[-1])
        return by_hand, expected

    assert relative_error(*both(problems)) < 1e-12


def test_it_is_the_same_under_vmap_over_networks():
    params, *data = problem(2, 1, losses.cross_entropy)
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf, -leaf]), params)
    run = lambda p: backpropagation.gradient(p, *data, loss=losses.cross_entropy)
    one = lambda p: by_jax(p, *data, losses.cross_entropy, jnp.tanh, None)
    assert relative_error(*jax.jit(lambda p: (jax.vmap(run)(p), jax.lax.map(one, p)))(stacked)) < 1e-12


def test_deltas_are_the_derivatives_by_the_preactivations():
    """δₗ is what the loss gains when zₗ is moved: here by an extra bias for each example, differentiated by JAX."""
    params, inputs, targets = problem(4, 1, losses.squared_error)

    def moved(shifts):
        values = inputs
        for depth, (layer, shift) in enumerate(zip(params, shifts, strict=True)):
            values = (jnp.tanh(values) if depth else values) @ layer.weight + layer.bias + shift
        return losses.squared_error(values, targets).sum()

    @jax.jit
    def deltas():
        trace = backpropagation.forward(params, inputs)
        by_hand = backpropagation.backward(params, trace, trace.preactivations[-1] - targets)
        return list(by_hand), jax.grad(moved)([jnp.zeros_like(z) for z in trace.preactivations])

    assert relative_error(*deltas()) < 1e-12


def test_cross_entropy_learns_from_a_saturated_wrong_sigmoid_where_squared_error_does_not():
    """At output a = σ(z), target 1: ½(a−1)² has δ = (a−1)a(1−a), about −exp(z); −log a has δ = a − 1, about −1."""
    params = (mlp.Layer(np.ones((1, 1)), np.array([-20.0])),)
    x, y = np.zeros((1, 1)), np.ones((1, 1))
    quadratic = lambda z, t: losses.squared_error(jax.nn.sigmoid(z), t)
    logistic = lambda z, t: jnp.sum(t * jax.nn.softplus(-z) + (1 - t) * jax.nn.softplus(z), axis=-1)
    run = lambda loss: backpropagation.gradient(params, x, y, loss=loss)[0].bias
    slow, fast = jax.jit(lambda: (run(quadratic), run(logistic)))()
    a = 1 / (1 + np.exp(20.0))
    np.testing.assert_allclose(slow, [(a - 1) * a * (1 - a)], rtol=1e-12)
    np.testing.assert_allclose(fast, [a - 1], rtol=1e-12)


GRADIENT = lambda p, x, y, **options: backpropagation.gradient(p, x, y, loss=losses.squared_error, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, x, y: GRADIENT((), x, y), "params: got no layers, expected at least one Layer(weight, bias)."),
        (lambda p, x, y: GRADIENT(p, x[0], y), "inputs: got shape (5,), expected (n, in)."),
        (lambda p, x, y: GRADIENT(p, x[:, :4], y), "to have the same shape, got (4,) and (5,)"),
        (
            lambda p, x, y: GRADIENT(p, x, y, weights=jnp.ones((7, 1))),
            "weights: got shape (7, 1), expected the shape of the values, (7,).",
        ),
        (lambda p, x, y: GRADIENT(p, x, y, derivative=lambda z: z[0]), "derivative: got shape (4,), expected (7, 4)."),
        (
            lambda p, x, y: backpropagation.backward(p, backpropagation.forward(p, x), jnp.ones((7, 4))),
            "output_delta: got shape (7, 4), expected (7, 3).",
        ),
        (
            lambda p, x, y: backpropagation.backward(p, backpropagation.forward(p[:1], x), jnp.ones((7, 3))),
            "trace: got pre-activations of shapes [(7, 4)], expected those of `forward` for params.",
        ),
    ],
)
def test_a_wrong_argument_is_refused_by_name(call, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        call(*problem(2, 1, losses.squared_error))
