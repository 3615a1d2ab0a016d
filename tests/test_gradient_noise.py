"""Gradient noise against enumeration of every batch, and the trade-off against planted curves."""

import itertools
import re

import jax
import numpy as np
import pytest

from mlp_jax import curvature, gradient_noise, losses, mlp, tree

KEY = jax.random.key(11)


per_example = lambda theta, inputs, targets: 0.5 * (inputs @ theta - targets) ** 2


def line(num_examples=5, dtype=np.float64):
    """Least squares, and its per-example gradients (xᵢ·θ − yᵢ) xᵢ."""
    rng = np.random.default_rng(2)
    inputs, targets, theta = rng.normal(size=(num_examples, 3)), rng.normal(size=num_examples), rng.normal(size=3)
    gradients = (inputs @ theta - targets)[:, None] * inputs
    return theta.astype(dtype), (inputs.astype(dtype), targets.astype(dtype)), gradients


def by_hand(gradients):
    mean = gradients.mean(0)
    return mean @ mean, np.mean(np.sum((gradients - mean) ** 2, 1))


def mean_squared_norm(gradients, size, replace):
    """E‖G_B‖² over every batch of a size."""
    rows = range(len(gradients))
    batches = itertools.product(rows, repeat=size) if replace else itertools.combinations(rows, size)
    return np.mean([np.sum(gradients[list(batch)].mean(0) ** 2) for batch in batches])


exact = jax.jit(gradient_noise.exact, static_argnums=0, static_argnames="chunk_size")


@pytest.mark.usefixtures("x64")
def test_exact_noise_is_the_covariance_of_the_gradients_written_out():
    theta, data, gradients = line()
    squared, trace = by_hand(gradients)
    for chunk_size in (2, 256):
        noise = exact(per_example, theta, data, chunk_size=chunk_size)
        np.testing.assert_allclose(noise, [squared, trace, trace / squared], rtol=1e-12)
    loss, params, data, gradients = network()
    np.testing.assert_allclose(exact(loss, params, data)[:2], by_hand(gradients), rtol=1e-10)


def network():
    """A network on six examples, and its per-example gradients (6, P) by the Jacobian."""
    rng = np.random.default_rng(0)
    params = (mlp.Layer(rng.normal(size=(4, 3)), np.zeros(3)), mlp.Layer(rng.normal(size=(3, 2)), np.zeros(2)))
    data = rng.normal(size=(6, 4)), rng.integers(0, 2, 6)
    loss = lambda p, x, y: losses.cross_entropy(mlp.forward(p, x), y)
    rows = jax.tree.leaves(jax.jit(jax.jacobian(loss))(params, *data))
    return loss, params, data, np.hstack([np.reshape(a, (6, -1)) for a in rows])


def mean_of_outer_products(gradients):
    centred = gradients - gradients.mean(0)
    return sum(np.outer(row, row) for row in centred) / len(centred)


dense_covariance = jax.jit(gradient_noise.dense_covariance, static_argnums=0, static_argnames="chunk_size")


@pytest.mark.usefixtures("x64")
def test_the_covariance_as_products_and_as_a_matrix_is_the_mean_of_outer_products():
    loss, params, data, gradients = network()
    flat, unravel = tree.ravel(params)

    @jax.jit
    def rows(basis):
        matvec = gradient_noise.covariance(loss, params, data, chunk_size=4)
        return jax.vmap(lambda v: tree.ravel(matvec(unravel(v)))[0])(basis)

    expected = mean_of_outer_products(gradients)
    np.testing.assert_allclose(rows(np.eye(flat.size)), expected, atol=1e-13)
    np.testing.assert_allclose(dense_covariance(loss, params, data, chunk_size=4), expected, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_at_the_noise_scale_of_signs_gaussian_noise_has_the_l1_norm_of_the_gradient_times_root_2_over_pi():
    """Gradients μ + σ z with z standardised: (Σ σ / Σ |μ|)² in closed form, here 100."""
    rng = np.random.default_rng(3)
    z, sigma = rng.standard_normal((4000, 6)), 10 * np.array([2.0, 1, 1, 0.5, 0.3, 1.2])
    mu = np.array([1.0, -2, 0.5, 1, -0.25, 1.25])
    gradients = mu + sigma * (z - z.mean(0)) / z.std(0)
    scale = jax.jit(lambda y: gradient_noise.sign_scale(lambda p, y: y @ p, np.zeros(6), (y,), chunk_size=300))
    np.testing.assert_allclose(scale(gradients), 100, rtol=1e-12)
    noise = gradients[rng.integers(4000, size=(2000, 100))].mean(1) - mu
    np.testing.assert_allclose(np.abs(noise).sum(1).mean() / np.abs(mu).sum(), np.sqrt(2 / np.pi), rtol=0.03)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_lanczos_finds_the_leading_eigenpairs_of_the_covariance_from_products():
    loss, params, data, gradients = network()
    matvec = gradient_noise.covariance(loss, params, data)
    pairs = curvature.eigenpairs(matvec, params, KEY, largest=2, dense_limit=0)
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(mean_of_outer_products(gradients))[-2:], rtol=1e-8)
    assert pairs.method == "lanczos"


@pytest.mark.usefixtures("x64")
def test_alignment_is_the_frobenius_cosine_and_the_quotients_along_vectors_and_one_for_a_true_model():
    """Residuals ±1 at every input make Σ = E[x xᵀ] = H; another targets' covariance is compared by numpy."""
    rng = np.random.default_rng(4)
    inputs = np.repeat(rng.normal(size=(7, 3)), 2, axis=0)
    theta, signs = rng.normal(size=3), np.tile([1.0, -1.0], 7)
    hessian = inputs.T @ inputs / 14

    def found(residuals, vectors):
        data = inputs, inputs @ theta - residuals
        matvec = curvature.hessian(lambda p, x, y: losses.mean(per_example(p, x, y)), theta, data)
        return gradient_noise.alignment(gradient_noise.covariance(per_example, theta, data), matvec, vectors)

    np.testing.assert_allclose(found(signs, np.eye(3)).cosine, 1, rtol=1e-12)
    residuals = rng.normal(size=14)
    covariance = np.cov(residuals * inputs.T, bias=True)
    cosine = np.sum(covariance * hessian) / np.linalg.norm(covariance) / np.linalg.norm(hessian)
    values, vectors = np.linalg.eigh(hessian)
    measured = jax.jit(found)(residuals, vectors.T)
    np.testing.assert_allclose(measured.cosine, cosine, rtol=1e-12)
    np.testing.assert_allclose(measured.curvature, values, rtol=1e-12)
    np.testing.assert_allclose(measured.noise, np.diag(vectors.T @ covariance @ vectors), rtol=1e-12)


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.usefixtures("x64")
def test_the_gradient_of_a_batch_has_the_covariance_times_the_coefficient_over_all_batches(replace):
    theta, data, gradients = line()
    covariance = dense_covariance(per_example, theta, data)
    for size in (1, 2, 3, 4):
        batches = itertools.product(range(5), repeat=size) if replace else itertools.combinations(range(5), size)
        measured = np.cov([gradients[list(batch)].mean(0) for batch in batches], rowvar=False, bias=True)
        coefficient = gradient_noise.coefficient(size, num_examples=None if replace else 5)
        np.testing.assert_allclose(measured, coefficient * covariance, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.usefixtures("x64")
def test_two_batches_are_unbiased_over_all_batches(replace):
    _, _, gradients = line()
    norms = [mean_squared_norm(gradients, size, replace) for size in (2, 3)]
    noise = gradient_noise.two_batches(*norms, 2, 3, num_examples=None if replace else 5)
    np.testing.assert_allclose(noise[:2], by_hand(gradients), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("replace", [True, False])
def test_estimates_are_within_their_standard_errors_of_the_exact_value_and_the_errors_are_calibrated(replace):
    theta, data, _ = line(40, np.float32)
    theta *= 3
    one = lambda key: gradient_noise.estimate(
        key, per_example, theta, data, small=2, large=12, num_pairs=300, replace=replace
    )
    value, stderr = jax.jit(jax.vmap(one))(jax.random.split(KEY, 100))
    for estimates, errors, truth in zip(value, stderr, exact(per_example, theta, data), strict=True):
        z = (np.asarray(estimates) - float(truth)) / np.asarray(errors)
        # 100 z-scores: their mean within 4 / √100, their deviation within 4 / √200.
        assert abs(z.mean()) < 4 / np.sqrt(100)
        assert abs(z.std() - 1) < 4 / np.sqrt(200)


def test_noise_without_signal_has_an_infinite_scale_and_not_a_negative_one():
    noise = jax.jit(lambda: gradient_noise.two_batches(1.0, 0.1, 1, 2))()
    assert float(noise.squared_gradient) < 0
    assert np.isinf(noise.scale)


SIZES = np.repeat(2.0 ** np.arange(2, 11), 6)


def planted(rng, spread):
    """S = 40 + 4000 / B with log-normal spread: critical batch size 100."""
    return (40 + 4000 / SIZES) * np.exp(spread * rng.normal(size=len(SIZES)))


def test_the_fit_is_exact_on_the_curve_and_otherwise_within_calibrated_standard_errors():
    exact = gradient_noise.fit_tradeoff(SIZES, 40 + 4000 / SIZES)
    np.testing.assert_allclose(exact[:3], [40, 4000, 100], rtol=1e-4)
    rng, z = np.random.default_rng(0), []
    for _ in range(12):
        fit = gradient_noise.fit_tradeoff(SIZES, planted(rng, 0.2))
        z.append((np.log(fit[:3]) - np.log([40, 4000, 100])) / fit.stderr)
    assert np.all(np.abs(np.mean(z, 0)) < 4 / np.sqrt(12))
    assert np.all((np.std(z, 0) > 0.6) & (np.std(z, 0) < 1.4))


def test_censored_runs_are_counted_and_dropping_them_would_be_wrong():
    """Runs are stopped after 200 updates, which censors the small batches: S(4) = 1040 and S(32) = 165."""
    rng, fit, counted, dropped = np.random.default_rng(1), gradient_noise.fit_tradeoff, [], []
    for _ in range(5):
        true = planted(rng, 0.3)
        reached = true <= 200
        counted.append(fit(SIZES, np.minimum(true, 200), reached).min_examples)
        dropped.append(fit(SIZES[reached], true[reached]).min_examples)
    assert abs(np.mean(np.log(counted)) - np.log(4000)) < 0.1
    assert np.mean(np.log(dropped)) < np.log(4000) - 0.1


def test_a_curve_that_never_flattens_has_no_critical_batch_size_in_sight():
    spread = np.exp(0.05 * np.random.default_rng(3).normal(size=len(SIZES)))
    fit = gradient_noise.fit_tradeoff(SIZES, 4000 / SIZES * spread)
    assert fit.critical_batch_size > 10 * SIZES.max()
    assert fit.stderr[2] > 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t, d: gradient_noise.exact(per_example, t, (d[0], d[1][:3])), "args: got shapes ((5, 3), (3,))"),
        (lambda t, d: gradient_noise.exact(lambda p, x, y: p[0], t, d), "expected shape (5,), one value each."),
        (lambda t, d: gradient_noise.exact(per_example, t, d, chunk_size=0), "chunk_size: got 0, expected"),
        (lambda t, d: gradient_noise.covariance(lambda p, x, y: p[0], t, d), "expected shape (5,), one value each."),
        (lambda t, d: gradient_noise.dense_covariance(per_example, t, d, chunk_size=0), "chunk_size: got 0, expected"),
        (lambda t, d: gradient_noise.estimate(KEY, per_example, t, d, small=2, large=6), "batch sizes: got 6"),
        (lambda t, d: gradient_noise.two_batches(t[0], t[1], 3, 3), "batch sizes: got 3, expected an integer of 4"),
        (lambda t, d: gradient_noise.fit_tradeoff([1, 2], [3]), "updates, reached: got leaves of shapes"),
        (lambda t, d: gradient_noise.fit_tradeoff([1, 2], [3, 0]), "batch_sizes, updates: got numbers of 0 or below"),
        (lambda t, d: gradient_noise.fit_tradeoff([1, 1, 1], [3, 4, 5]), "expected at least 3 of 2."),
    ],
)
def test_a_wrong_argument_is_refused_by_name(call, message):
    theta, data, _ = line(dtype=np.float32)
    with pytest.raises(ValueError, match=re.escape(message)):
        call(theta, data)
