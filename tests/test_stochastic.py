"""Lanczos, spectral density, trace and diagonal against closed forms for the probes that were used, and over seeds."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import tree
from mlp_jax.curvature.stochastic import Density, diagonal, rademacher_like, spectral_density, trace
from mlp_jax.curvature.tridiagonal import lanczos

pytestmark = pytest.mark.usefixtures("x64")

SEEDS = 10


def symmetric(eigenvalues, seed=0):
    """A dense symmetric matrix with these eigenvalues, in a random basis."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(eigenvalues),) * 2))
    matrix = basis * np.asarray(eigenvalues, float) @ basis.T
    return (matrix + matrix.T) / 2


def estimates_of(matvec, params, key, num_probes, num_steps=90):
    density = spectral_density(matvec, params, key, num_probes=num_probes, num_steps=num_steps)
    return (density, *(of(matvec, params, key, num_probes=num_probes) for of in (trace, diagonal)))


@functools.partial(jax.jit, static_argnames=("num_probes", "num_steps"))
def densities_of(matrix, keys, num_probes, num_steps):
    matvec = (lambda v: matrix * v) if matrix.ndim == 1 else (lambda v: matrix @ v)
    of = functools.partial(spectral_density, matvec, jnp.zeros(len(matrix), matrix.dtype))
    return jax.vmap(lambda key: of(key, num_probes=num_probes, num_steps=num_steps))(keys)


def densities(matrix, seeds=SEEDS, num_probes=10, num_steps=90):
    """One density per seed, computed together under jit and vmap; a vector stands for a diagonal matrix."""
    keys = jax.random.split(jax.random.key(3), seeds)
    return densities_of(jnp.asarray(matrix), keys, num_probes, num_steps)


def probes(params, key, num_probes):
    """The probes that an estimate with this key uses, as rows."""
    rows = [tree.ravel(rademacher_like(k, params))[0] for k in jax.random.split(key, num_probes)]
    return np.asarray(jnp.stack(rows))


def check_nodes_within(density, eigenvalues):
    """No node lies outside the spectrum, up to rounding; weights are a probability for each seed and probe."""
    nodes, weights = np.asarray(density.nodes), np.asarray(density.weights)
    slack = 100 * np.finfo(nodes.dtype).eps * max(np.max(np.abs(eigenvalues)), 1e-300)
    assert np.min(nodes) >= np.min(eigenvalues) - slack
    assert np.max(nodes) <= np.max(eigenvalues) + slack
    assert np.all(weights >= 0)
    np.testing.assert_allclose(np.sum(weights, axis=-1), 1 / weights.shape[-2], rtol=1e-12)


# Scale: an estimate for c A is c times that for A, in every dtype that holds c A.


@jax.jit
def scaled_estimates(matrix, key, scale):
    params = jnp.zeros(20, matrix.dtype)
    density, *estimates = estimates_of(lambda v: matrix @ v, params, key, 12, 20)
    return (*estimates, density.expectation(lambda x: x), density.smooth(GRID.astype(scale.dtype) * scale, 0.3 * scale))


GRID = np.linspace(-0.5, 2.5, 7)
SCALES = [(np.float32, c) for c in (1e-30, 1e30)] + [(np.float64, c) for c in (1e-200, 1.0, 1e200)]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_estimates_and_their_standard_errors_are_those_of_the_probes_and_scale_with_the_map(dtype, scale):
    size, num_probes, key = 20, 12, jax.random.key(0)
    values, basis = np.linalg.eigh(symmetric(np.linspace(-1, 3, size)))
    matrix = symmetric(np.linspace(-1, 3, size))
    rows = probes(jnp.zeros(size, dtype), key, num_probes).astype(np.float64)
    spread = lambda samples: np.std(samples, axis=0, ddof=1) / np.sqrt(num_probes)
    close = functools.partial(np.testing.assert_allclose, rtol=2e3 * np.finfo(dtype).eps, atol=1e-300)
    unscaled = lambda array, power=1: np.asarray(array, np.float64) / scale**power
    of_trace, of_diagonal, mean, smooth = scaled_estimates((matrix * scale).astype(dtype), key, dtype(scale))
    samples = np.einsum("ni,ij,nj->n", rows, matrix, rows)
    for estimate, expected in ((of_trace, samples), (of_diagonal, rows * (rows @ matrix)), (mean, samples / size)):
        close(unscaled(estimate.value), expected.mean(axis=0))
        close(unscaled(estimate.stderr), spread(expected))
    bumps = np.exp(-(((values[:, None] - GRID) / 0.3) ** 2) / 2) / (0.3 * np.sqrt(2 * np.pi))
    shares = (rows @ basis) ** 2 @ bumps / size
    close(unscaled(smooth.value, -1), shares.mean(axis=0))
    close(unscaled(smooth.stderr, -1), spread(shares))


# Lanczos.

SPECTRA = {"distinct": np.linspace(-2, 5, 12), "three values": np.repeat([-1.0, 0.0, 3.0], 4), "zero": np.zeros(12)}


@jax.jit
def decomposition_of(matrix, start):
    unravel = tree.ravel({"w": np.zeros((5, 2)), "b": np.zeros(2)})[1]
    found = lanczos(lambda v: unravel(matrix @ tree.ravel(v)[0]), unravel(start), num_steps=9)
    return found, found.ritz(smallest=2, largest=3)


@pytest.mark.parametrize("name", SPECTRA)
def test_a_krylov_decomposition_holds_and_its_basis_is_orthonormal(name):
    matrix, start = symmetric(SPECTRA[name]), np.random.default_rng(1).standard_normal(12)
    found, pairs = decomposition_of(jnp.asarray(matrix), jnp.asarray(start))
    rows = np.asarray(jax.vmap(lambda v: tree.ravel(v)[0])(found.basis))
    used = np.flatnonzero(np.any(rows, axis=1))
    np.testing.assert_allclose(rows[used] @ rows[used].T, np.eye(len(used)), atol=1e-13)
    np.testing.assert_allclose(rows[0], start / np.linalg.norm(start), rtol=1e-13)
    beside = np.diag(found.off_diagonal, 1)
    projected = np.diag(found.diagonal) + beside + beside.T
    np.testing.assert_allclose(rows[used] @ matrix @ rows[used].T, projected[np.ix_(used, used)], atol=1e-12)
    values, vectors = np.linalg.eigh(projected[np.ix_(used, used)])
    ritz = rows[used].T @ vectors
    residuals = np.linalg.norm(matrix @ ritz - ritz * values, axis=0)
    np.testing.assert_allclose(residuals, found.residual * np.abs(vectors[-1]), atol=1e-12)
    if name != "distinct":  # the space ends
        assert np.max(np.min(np.abs(values[:, None] - np.unique(SPECTRA[name])), axis=1)) < 1e-12
    # The pairs at the ends; those that the space has no dimension for are zero, with an infinite residual.
    ends, present = np.asarray(jax.vmap(lambda v: tree.ravel(v)[0])(pairs.vectors)), np.isfinite(pairs.residuals)
    assert present.sum() == min(5, len(used)) or name == "three values"
    np.testing.assert_allclose(np.linalg.norm(ends, axis=1), present, atol=1e-12)
    true = np.linalg.norm(ends @ matrix - np.asarray(pairs.values)[:, None] * ends, axis=1)
    np.testing.assert_allclose(true[present], pairs.residuals[present], atol=1e-12)
    np.testing.assert_allclose(pairs.values[np.r_[0, -1]], values[[0, -1]], atol=1e-12)


def test_a_warm_start_follows_the_top_of_a_changing_operator_inside_one_program(x64):
    """H(t) of known spectrum turns slowly; 6 steps from the last Ritz vector reach what 6 from a fixed start do not."""
    turn = 0.02 * symmetric(np.linspace(-1, 1, 12))[:, ::-1]
    turn, spectrum, start = turn - turn.T, np.r_[np.linspace(-2, 2, 11), 3.0], np.ones(12)

    def look(vector, t):
        basis = jax.scipy.linalg.expm(t * turn)
        top = lambda v: lanczos(lambda u: basis @ (spectrum * (basis.T @ u)), v, num_steps=6).ritz(largest=1)
        warm = top(vector)
        return warm.vectors[0], (warm.values[0], warm.residuals[0], top(start).residuals[0])

    times = jnp.arange(8.0)
    run = jax.jit(jax.vmap(lambda scale: jax.lax.scan(look, jnp.asarray(start), scale * times)[1]))
    values, warm, cold = run(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(values[:, 2:], 3.0, atol=1e-5)
    assert np.all(warm[:, 2:] < 0.1 * cold[:, 2:])


def test_a_start_of_zeros_is_refused():
    with pytest.raises(ValueError, match="start: got zeros"):
        lanczos(lambda v: v, jnp.zeros(3), num_steps=2)


# The density: the traps of other tools, over seeds.


def test_density_of_an_indefinite_diagonal_is_exact_from_each_probe():
    eigenvalues = np.array([-7.0, -2.0, -0.5, 0.0, 1.0, 3.0, 4.0, 20.0])
    density = densities(eigenvalues, num_probes=2)
    np.testing.assert_allclose(density.nodes, np.tile(eigenvalues, (SEEDS, 2, 1)), atol=1e-13)
    np.testing.assert_allclose(density.weights, 1 / 16, rtol=1e-12)
    negative = jax.jit(jax.vmap(lambda d: d.expectation(lambda nodes: nodes < -0.1)))(density)
    np.testing.assert_allclose(negative.value, 3 / 8, rtol=1e-12)
    np.testing.assert_allclose(negative.stderr, 0, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("eigenvalues", "num_steps"), [([0.0], 90), ([1.0, 1.0], 90), ([2.0, 2.0, 5.0], 90), ([2.0, 2.0, 5.0], 1)], ids=str
)
def test_density_in_one_two_and_three_dimensions(eigenvalues, num_steps):
    density = densities(symmetric(eigenvalues, seed=4), num_steps=num_steps)
    assert density.nodes.shape == (SEEDS, 10, min(num_steps, len(eigenvalues)))
    check_nodes_within(density, eigenvalues)


MULTIPLE = {
    "identity": np.ones(50),
    "zero": np.zeros(50),
    "two values": np.repeat([1.0, 3.0], 25),
    "multiplicity 5": np.repeat(np.arange(-4.0, 6.0), 5),
    "hundred ten times": np.concatenate([np.full(10, 100.0), np.linspace(1, 40, 40)]),
    "zeros and one below": np.concatenate([np.zeros(40), [-1e-4], np.linspace(1, 2, 9)]),
    "graded": np.geomspace(1e-12, 1, 50),
    "a minimum": np.linspace(1, 10, 50),
    "extremes": np.concatenate([[-3.0, 3.0], np.linspace(-1, 1, 48)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("basis", ["diagonal", "random"])
@pytest.mark.parametrize("name", MULTIPLE)
def test_breakdown_leaves_no_node_outside_the_spectrum(name, basis, dtype):
    eigenvalues = MULTIPLE[name]
    matrix = (np.diag(eigenvalues) if basis == "diagonal" else symmetric(eigenvalues)).astype(dtype)
    density = densities(matrix, num_probes=2)
    assert density.nodes.dtype == dtype
    true = np.linalg.eigvalsh(matrix.astype(float))
    nodes, weights = np.asarray(density.nodes, float), np.asarray(density.weights, float)
    slack = 50 * np.finfo(dtype).eps * np.max(np.abs(eigenvalues))
    assert np.min(nodes) >= np.min(true) - slack
    assert np.max(nodes) <= np.max(true) + slack
    # Mass sits on eigenvalues: with few distinct ones, every node of weight is one of them.
    if name in ("identity", "zero", "two values", "multiplicity 5"):
        distances = np.min(np.abs(nodes[..., None] - np.unique(eigenvalues)), axis=-1)
        assert np.max(distances[weights > 1e-12]) < max(1e3 * slack, 1e-300)


@pytest.mark.parametrize(
    ("bulk", "spikes", "num_steps"),
    [
        # 41 distinct values: 41 steps end the space with every one of them.
        (np.concatenate([np.zeros(160), np.linspace(1, 2, 39)]), [-1e-4], 45),
        (np.linspace(-1, 1, 1996), [-20.0, 40.0, 60.0, 100.0], 60),
    ],
)
def test_spikes_beside_many_zeros_or_a_large_spectrum_are_found_with_their_weights(bulk, spikes, num_steps):
    eigenvalues = np.concatenate([bulk, spikes])
    density = densities(eigenvalues, num_probes=1, num_steps=num_steps)
    check_nodes_within(density, eigenvalues)
    nodes, weights = np.asarray(density.nodes)[:, 0], np.asarray(density.weights)[:, 0]
    for spike in spikes:
        nearest = np.argmin(np.abs(nodes - spike), axis=1)[:, None]
        np.testing.assert_allclose(np.take_along_axis(nodes, nearest, 1), spike, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(np.take_along_axis(weights, nearest, 1), 1 / len(eigenvalues), rtol=1e-9)
    if len(spikes) > 1:
        assert np.all(np.sum(np.abs(nodes) > 2, axis=1) == len(spikes))


# The density: closed forms for the probes that were used.


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [3, 90])
def test_moments_are_those_of_the_probes(num_steps):
    """Gauss quadrature: exact for degrees below twice the number of steps."""
    matrix, key = symmetric(np.linspace(-2, 5, 12)), jax.random.key(8)

    @jax.jit
    def moments(matrix, key):
        density = spectral_density(lambda v: matrix @ v, jnp.zeros(12), key, num_probes=7, num_steps=num_steps)
        return density.expectation(lambda nodes: jnp.stack([nodes**degree for degree in range(6)]))

    z = probes(jnp.zeros(12), key, 7)
    samples = np.stack([np.einsum("ni,ij,nj->n", z, np.linalg.matrix_power(matrix, k), z) / 12 for k in range(6)], 1)
    found = moments(matrix, key)
    np.testing.assert_allclose(found.value, np.mean(samples, axis=0), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(found.stderr, np.std(samples, axis=0, ddof=1) / np.sqrt(7), rtol=1e-9, atol=1e-12)


def test_density_agrees_with_the_true_one_within_its_standard_error():
    eigenvalues = np.concatenate([np.linspace(0, 1, 90), np.linspace(5, 8, 10)])
    density = densities(symmetric(eigenvalues), seeds=40, num_steps=30)
    grid = np.linspace(-1, 9, 21)
    smooth = jax.jit(jax.vmap(lambda d: d.smooth(jnp.asarray(grid), 0.5)))(density)
    true = np.mean(np.exp(-((grid[:, None] - eigenvalues) ** 2) / 0.5) / (0.5 * np.sqrt(2 * np.pi)), axis=1)
    score = (np.asarray(smooth.value) - true) / np.asarray(smooth.stderr)
    assert np.mean(np.abs(score) < 4) > 0.95


# Trace and diagonal.


def test_trace_and_diagonal_are_within_their_standard_errors_and_those_follow_the_closed_forms():
    matrix = symmetric(np.linspace(-2, 5, 40))
    keys = jax.random.split(jax.random.key(0), 40)
    both = lambda k: [of(lambda v: jnp.asarray(matrix) @ v, jnp.zeros(40), k) for of in (trace, diagonal)]
    (values, errors), (entries, entry_errors) = jax.jit(jax.vmap(both))(keys)
    assert np.mean(np.abs(np.asarray(values) - np.trace(matrix)) <= 4 * np.asarray(errors)) >= 0.95
    variance = 2 * (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2)) / 100
    np.testing.assert_allclose(np.mean(np.asarray(errors) ** 2), variance, rtol=0.1)
    # The spread of 40 values: a chi-square of 39 degrees of freedom, of relative deviation 0.23.
    np.testing.assert_allclose(np.var(values, ddof=1), variance, rtol=4 * np.sqrt(2 / 39))

    assert np.mean(np.abs(np.asarray(entries) - np.diag(matrix)) <= 4 * np.asarray(entry_errors)) >= 0.99
    variance = (np.sum(matrix**2, axis=1) - np.diag(matrix) ** 2) / 100
    np.testing.assert_allclose(np.mean(np.asarray(entry_errors) ** 2, axis=0), variance, rtol=0.15)


def test_a_diagonal_map_has_a_standard_error_of_zero():
    entries = np.random.default_rng(0).standard_normal(30)
    keys = jax.random.split(jax.random.key(0), SEEDS)
    both = lambda k: [of(lambda v: entries * v, jnp.zeros(30), k, num_probes=7) for of in (trace, diagonal)]
    for (value, stderr), exact in zip(jax.jit(jax.vmap(both))(keys), (np.sum(entries), entries), strict=True):
        np.testing.assert_allclose(value, np.broadcast_to(exact, value.shape), rtol=1e-14)
        np.testing.assert_array_equal(stderr, 0)


def test_the_standard_error_of_one_probe_is_nan():
    density, *estimates = jax.jit(lambda key: estimates_of(lambda v: v, jnp.zeros(3), key, 1))(jax.random.key(0))
    smooth = jax.jit(lambda d: d.smooth(jnp.zeros(1), 1.0))(density)
    for estimate in (*estimates, smooth):
        assert np.all(np.isnan(estimate.stderr))


# Contracts: pytrees, keys, transformations, memory.


class Pair(NamedTuple):
    weight: jax.Array
    bias: jax.Array


@pytest.mark.slow
def test_any_pytree_gives_the_estimates_of_its_flat_vector():
    params = {"w": [Pair(np.zeros((2, 2)), np.zeros(())), Pair(np.zeros(1), np.zeros((1, 2)))], "b": np.zeros(2)}
    size = tree.size(params)
    matrix = symmetric(np.linspace(-2, 5, size))
    _, unravel = tree.ravel(params)
    matvec = lambda v: unravel(jnp.asarray(matrix) @ tree.ravel(v)[0])
    density, total, entries = jax.jit(lambda p, key: estimates_of(matvec, p, key, 10))(params, jax.random.key(0))
    z = probes(params, jax.random.key(0), 10)
    np.testing.assert_allclose(density.nodes, np.tile(np.linspace(-2, 5, size), (10, 1)), atol=1e-12)
    square = np.sum(np.asarray(density.weights) * np.asarray(density.nodes) ** 2)
    np.testing.assert_allclose(square, np.mean(np.sum((z @ matrix) ** 2, axis=1)) / size, rtol=1e-11)
    assert jax.tree.structure(entries.value) == jax.tree.structure(entries.stderr) == jax.tree.structure(params)
    np.testing.assert_allclose(np.sum(tree.ravel(entries.value)[0]), total.value, rtol=1e-12)
    np.testing.assert_allclose(total.value, np.trace(matrix), atol=4 * total.stderr)


def test_the_same_key_gives_the_same_numbers_and_another_gives_others():
    matrix, keys = symmetric(np.linspace(-2, 5, 12)), jax.random.split(jax.random.key(0), 2)
    first, again, other = (densities_of(matrix, k, 6, 90) for k in (keys[:1], keys[:1], keys[1:]))
    chex.assert_trees_all_equal(first, again)
    assert np.any(np.asarray(first.weights) != np.asarray(other.weights))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_probes():
    def temporary_bytes(num_probes):
        make = lambda v, k: estimates_of(lambda u: 2 * u, v, k, num_probes)
        compiled = jax.jit(make).lower(jnp.zeros(1000), jax.random.key(0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # A probe may keep a few numbers (its key, its nodes and weights), not a vector of 1000.
    assert temporary_bytes(1050) - temporary_bytes(50) < 1000 * 8 * 400


def test_trace_can_be_differentiated():
    """d/ds tr(diag(s²)) = 2s."""
    gradient = jax.grad(lambda s: trace(lambda v: s**2 * v, jnp.zeros(3), jax.random.key(0)).value)
    np.testing.assert_allclose(jax.jit(gradient)(jnp.array([1.0, 2.0, 3.0])), [2.0, 4.0, 6.0], rtol=1e-13)


# Errors: what, got, expected, before anything is compiled.


@pytest.mark.parametrize("of", [spectral_density, trace, diagonal])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"matvec": lambda v: v[:1]}, TypeError, r"matvec: got a result of float64\[1\], expected .* float64\[2\]"),
        ({"matvec": lambda v: [v]}, TypeError, r"matvec: got a result of \["),
        ({"matvec": lambda v: v.astype(int)}, TypeError, r"matvec: got a result of int64\[2\]"),
        ({"key": 0}, TypeError, "key: got 0, expected one JAX random key"),
        ({"num_probes": 0}, ValueError, "num_probes: got 0, expected an integer from 1"),
    ],
)
def test_wrong_arguments_are_named(of, change, error, message):
    given = {"matvec": lambda v: v, "key": jax.random.key(0)} | change
    with pytest.raises(error, match=message):
        of(given.pop("matvec"), np.ones(2), given.pop("key"), **given)


@pytest.mark.parametrize("width", [0.0, np.nan, np.inf])
def test_the_width_of_a_density_is_positive_and_finite(width):
    with pytest.raises(ValueError, match=r"width: got .*, expected a finite number above 0"):
        Density(jnp.zeros((1, 2)), jnp.full((1, 2), 0.5))(jnp.zeros(3), width)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_params_of_half_precision_have_nodes_in_single(dtype):
    density = densities(np.full(3, 2, dtype), seeds=1, num_probes=2)
    assert density.nodes.dtype == density.weights.dtype == jnp.float32
    np.testing.assert_allclose(density.nodes, 2, rtol=4 * float(jnp.finfo(dtype).eps))
