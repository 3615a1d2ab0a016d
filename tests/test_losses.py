import itertools
import re

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.special
from sklearn import metrics

from mlp_jax import interval, losses, mlp, mlp_hessian

RNG = np.random.default_rng(0)
cross_entropy, accuracy = jax.jit(losses.cross_entropy), jax.jit(losses.accuracy)
gradient = jax.jit(jax.grad(lambda z, y: losses.cross_entropy(z, y).sum()))
LOGITS = 3 * RNG.normal(size=(12, 5))
CLASSES = RNG.integers(5, size=12)


def exact_cross_entropy(row, target):
    with mpmath.workdps(50):
        return float(mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(z)) for z in row)) - mpmath.mpf(row[target]))


@pytest.mark.usefixtures("x64")
def test_cross_entropy_is_that_of_fifty_digits_its_gradient_softmax_minus_one_hot_and_its_mean_the_log_loss():
    expected = [exact_cross_entropy(row.tolist(), target) for row, target in zip(LOGITS, CLASSES, strict=True)]
    values = cross_entropy(LOGITS, CLASSES)
    np.testing.assert_allclose(values, expected, rtol=1e-14)
    weights, probabilities = RNG.uniform(size=12), np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    theirs = metrics.log_loss(CLASSES, probabilities, sample_weight=weights, labels=range(5))
    np.testing.assert_allclose(losses.mean(values, weights), theirs, rtol=1e-13)
    np.testing.assert_allclose(gradient(LOGITS, CLASSES), probabilities - np.eye(5)[CLASSES], atol=1e-15)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.usefixtures("x64")
def test_cross_entropy_is_exact_at_logits_of_ten_thousand(dtype):
    rows = [[1e4, -1e4, 0.0], [1e4, 1e4, -1e4], [-1e4, -1e4, -1e4]]
    logits, targets = np.array(rows, dtype), np.array([1, 0, 2])
    expected = [exact_cross_entropy(row, target) for row, target in zip(rows, (1, 0, 2), strict=True)]
    values = cross_entropy(logits, targets)
    assert values.dtype == dtype
    np.testing.assert_allclose(values, expected, rtol=2 * float(jnp.finfo(dtype).eps))
    slopes = [[1, -1, 0], [-0.5, 0.5, 0], [1 / 3, 1 / 3, -2 / 3]]
    np.testing.assert_allclose(gradient(logits, targets), slopes, rtol=1e-6, atol=1e-30)


@pytest.mark.usefixtures("x64")
def test_squared_error_is_half_the_sum_over_outputs():
    outputs, targets = RNG.normal(size=(2, 7, 3))
    np.testing.assert_allclose(losses.squared_error(outputs, targets), 0.5 * ((outputs - targets) ** 2).sum(-1))
    doubled = 2 * losses.mean(losses.squared_error(outputs[:, :1], targets[:, :1]))
    np.testing.assert_allclose(doubled, metrics.mean_squared_error(outputs[:, :1], targets[:, :1]))


@pytest.mark.parametrize("sizes", [(12,), (5, 5, 2), (1,) * 12])
@pytest.mark.usefixtures("x64")
def test_mean_over_batches_does_not_depend_on_the_partition(sizes):
    """Batches padded to a common length, each weighted by its examples, give the mean over all examples."""
    values, weights = RNG.uniform(size=(2, 12))
    ends = np.cumsum(sizes)[:-1]
    padded = lambda a, by: [np.pad(part, (0, max(sizes) - len(part)), constant_values=by) for part in np.split(a, ends)]
    held = np.array(padded(weights, 0.0))
    means = jax.vmap(losses.mean)(np.array(padded(values, 1e6)), held)
    combined = losses.mean(means, held.sum(axis=1))
    np.testing.assert_allclose(combined, np.average(values, weights=weights), rtol=1e-14)


def test_accuracy_is_that_of_scikit_learn():
    values = np.asarray(accuracy(LOGITS.astype(np.float32), CLASSES.astype(np.int32)))
    assert values.dtype == np.float32
    assert 0 < values.mean() < 1
    np.testing.assert_allclose(values.mean(), metrics.accuracy_score(CLASSES, LOGITS.argmax(-1)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
@pytest.mark.usefixtures("x64")
def test_a_class_number_out_of_range_gives_nan_and_nan_derivatives_under_jit(dtype):
    logits = RNG.normal(size=(4, 200))
    last = 100 if jnp.iinfo(dtype).bits == 8 else 199
    wrong = -1 if jnp.iinfo(dtype).min < 0 else 255
    targets = np.array([0, last, wrong, 7]).astype(dtype)
    expected = [exact_cross_entropy(logits[i].tolist(), int(targets[i])) if i != 2 else np.nan for i in range(4)]
    np.testing.assert_allclose(cross_entropy(logits, targets), expected, rtol=1e-14)
    slopes, product = jax.jit(lambda z, t: jax.jvp(lambda z: gradient(z, t), (z,), (z,)))(logits, targets)
    np.testing.assert_array_equal(np.isnan(slopes), np.isnan(np.array(expected))[:, None] & np.ones(200, bool))
    np.testing.assert_array_equal(np.isnan(product).all(axis=1), np.isnan(expected))
    assert np.all(accuracy(logits, np.argmax(logits, 1)) == 1)
    assert accuracy(logits, targets)[2] == 0


def test_labels_shifted_by_one_give_a_nan_hessian_under_jit():
    draw = lambda *shape: RNG.normal(size=shape).astype(np.float32)
    params, inputs, labels = (mlp.Layer(draw(2, 3), draw(3)),), draw(9, 2), np.arange(9, dtype=np.int32) % 3
    dense = lambda y: mlp_hessian.dense(params, inputs, y, loss=losses.cross_entropy)
    jitted = jax.jit(dense)
    assert np.all(np.isfinite(jitted(labels)))
    for shifted in (labels - 1, labels + 1):
        assert np.any(np.isnan(jitted(shifted)))
        with pytest.raises(ValueError, match="targets: got class numbers"):
            dense(shifted)


def test_a_proof_takes_labels_in_range_and_refuses_others():
    # At w = 0 the gradient is xᵀ (1/3 − one-hot) / 3 = 0 for as many labels of each class at either input.
    inputs, good = np.repeat(np.eye(2), 3, axis=0), np.array([0, 1, 2, 0, 1, 2])
    fun = lambda w, x, y: losses.mean(losses.cross_entropy(x @ w, y)) + jnp.sum(w**2)
    point = np.zeros((2, 3))
    assert interval.certify(fun, point, (inputs, good)).proved
    hidden = jax.jit(fun)  # the loss sees tracers, and cannot refuse them itself
    for wrong in (3, -1):
        assert not interval.certify(hidden, point, (inputs, np.where(good == 2, wrong, good))).proved


def test_targets_captured_by_jit_are_checked_too():
    wrong = jnp.array([0, 3])
    with pytest.raises(ValueError, match="got class numbers from 0 to 3, expected 0 to 2"):
        jax.jit(lambda z: losses.cross_entropy(z, wrong))(jnp.zeros((2, 3)))
    assert jax.jit(lambda z: losses.cross_entropy(z, jnp.array([0, 2])))(jnp.zeros((2, 3))).shape == (2,)


@pytest.mark.parametrize(
    ("loss", "targets", "message"),
    [
        (
            losses.cross_entropy,
            jnp.array([0.0, 1.0]),
            "targets: got dtype float32, expected class numbers as integers",
        ),
        (losses.cross_entropy, jnp.array([0, 1, 2]), "targets: got shape (3,), expected (2,) for logits (2, 3)."),
        (losses.cross_entropy, jnp.array([-1, 2]), "targets: got class numbers from -1 to 2, expected 0 to 2."),
        (losses.accuracy, jnp.array([0]), "targets: got shape (1,), expected (2,) for logits (2, 3)."),
        (losses.squared_error, jnp.zeros(2), "targets: got shape (2,), expected the shape of the outputs, (2, 3)."),
        (losses.mean, jnp.ones(3), "weights: got shape (3,), expected the shape of the values, (2, 3)."),
        (losses.mean, jnp.zeros((2, 3)), "weights: got numbers from 0.0 to 0.0, expected finite numbers"),
        (losses.mean, jnp.full((2, 3), jnp.nan).at[0].set(-1.0), "weights: got numbers from nan to nan, expected"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(loss, targets, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        loss(jnp.zeros((2, 3)), targets)


def relu_quadrature(a, b):
    """(1/π) ∫ relu(a·û) relu(b·û) dφ, the expectation in polar coordinates, between the angles of the corners."""
    corners = [np.arctan2(w[0], -w[1]) % np.pi for w in (a, b)]
    ends = sorted({0.0, 2 * np.pi, *corners, *(corner + np.pi for corner in corners)})
    value = lambda t: np.prod([max(0.0, w @ (np.cos(t), np.sin(t))) for w in (a, b)])
    return sum(scipy.integrate.quad(value, *piece)[0] for piece in itertools.pairwise(ends)) / np.pi


def erf_quadrature(a, b):
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    x, y = np.meshgrid(nodes, nodes)
    first, second = (scipy.special.erf((w[0] * x + w[1] * y) / np.sqrt(2)) for w in (a, b))
    return weights @ (first * second) @ weights / (2 * np.pi)


@pytest.mark.parametrize(
    ("products", "quadrature"), [(losses.relu_products, relu_quadrature), (losses.erf_products, erf_quadrature)]
)
@pytest.mark.usefixtures("x64")
def test_the_population_loss_is_that_of_quadrature_in_the_plane_of_each_pair(products, quadrature):
    units, sign = 0.5 * np.random.default_rng(3).standard_normal((5, 3)), np.array([1, 1, 1, -1, -1])
    expected = np.empty((5, 5))
    for i, j in np.ndindex(5, 5):
        plane = np.linalg.qr(units[[i, j if j != i else i - 1]].T)[0].T
        expected[i, j] = quadrature(plane @ units[i], plane @ units[j])
    np.testing.assert_allclose(products(units), expected, atol=1e-10)
    loss = losses.population(units[:3], units[3:], products)
    np.testing.assert_allclose(loss, sign @ expected @ sign / 2, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_at_the_teacher_the_population_loss_and_its_gradient_are_0_and_the_hessian_is_that_of_safran_and_shamir():
    one = np.eye(4)
    loss = lambda student: losses.population(student, one, losses.relu_products)
    assert abs(loss(one)) < 1e-15
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(one), 0, atol=1e-15)
    blocks = jax.jit(jax.hessian(loss))(one)
    for i, j in np.ndindex(4, 4):
        mixed = np.outer(one[i], one[j]) + np.outer(one[j], one[i])
        expected = one / 2 if i == j else one / 4 + mixed / (2 * np.pi)
        np.testing.assert_allclose(blocks[i, :, j], expected, atol=1e-15)


def test_weights_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got shapes \(2, 3\) and \(2, 2\), expected \(k, d\) and \(m, d\)"):
        losses.population(np.ones((2, 3)), np.ones((2, 2)), losses.erf_products)
