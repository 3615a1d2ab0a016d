"""Inertia: counted right whatever the scale, and never wrong within the stated error."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_jax.curvature import cholesky, inertia, signs


def unimodular(generator, size, steps):
    """An integer matrix of determinant 1: a product of elementary operations, exact in float64."""
    matrix = np.eye(size, dtype=np.int64)
    for _ in range(steps):
        i, j = generator.choice(size, 2, replace=False)
        matrix[i] += generator.integers(-2, 3) * matrix[j]
    return matrix


def exact_inertia(matrix):
    """(negative, zero, positive) by symmetric elimination in rational arithmetic."""
    rows = [[Fraction(v) for v in row] for row in matrix.tolist()]
    negative = positive = 0
    while rows:
        size = len(rows)
        pivot = next((i for i in range(size) if rows[i][i] != 0), None)
        if pivot is None:
            pair = next(((i, j) for i in range(size) for j in range(i) if rows[i][j] != 0), None)
            if pair is None:
                return negative, size, positive
            i, j = pair  # the congruence row i += row j makes a diagonal entry 2 a_ij
            rows[i] = [a + b for a, b in zip(rows[i], rows[j], strict=True)]
            for row in rows:
                row[i] += row[j]
            pivot = i
        value = rows[pivot][pivot]
        negative, positive = negative + (value < 0), positive + (value > 0)
        column = [row[pivot] for row in rows]
        keep = [k for k in range(size) if k != pivot]
        rows = [[rows[a][b] - column[a] * column[b] / value for b in keep] for a in keep]
    return negative, 0, positive


@given(st.integers(0, 10**9), st.integers(2, 8), st.integers(0, 12))
@settings(max_examples=100, deadline=None)
def test_counts_equal_exact_rational_elimination(seed, size, steps):
    generator = np.random.default_rng(seed)
    basis = unimodular(generator, size, steps)
    matrix = basis.T @ np.diag(generator.integers(-2, 3, size)) @ basis
    exact = exact_inertia(matrix)
    got = inertia(matrix, error=0.0)
    assert got.negative <= exact[0]
    assert got.positive <= exact[2]
    assert got.unresolved >= exact[1]
    if exact[1] == 0:
        assert signs.negative(matrix) == exact[0]


@pytest.mark.parametrize("size", [1, 2, 3, 10, 60])
def test_well_conditioned_counts_are_complete(size):
    generator = np.random.default_rng(size)
    values = generator.choice([-2.0, -1.0, 0.0, 1.0, 3.0], size)
    rotation = np.linalg.qr(generator.standard_normal((size, size)))[0]
    matrix = (rotation * values) @ rotation.T
    got = inertia((matrix + matrix.T) / 2, error=1e-13)
    assert got[:3] == (np.sum(values < 0), np.sum(values == 0), np.sum(values > 0))
    assert 0 < got.bound < 1e-9


@pytest.mark.parametrize("spread", [1, 6, 12])
def test_counts_are_invariant_under_diagonal_congruence(spread):
    generator = np.random.default_rng(spread)
    core = generator.standard_normal((12, 12))
    core = core + core.T
    weights = 10.0 ** generator.uniform(-spread, spread, 12)
    scaled = core * weights[:, None] * weights
    scaled = np.triu(scaled) + np.triu(scaled, 1).T
    values = np.linalg.eigvalsh(core)
    assert inertia(core)[:3] == (np.sum(values < 0), 0, np.sum(values > 0))
    assert inertia(scaled)[:3] == inertia(core)[:3]


def test_no_perturbation_within_the_error_contradicts_the_counts():
    generator = np.random.default_rng(0)
    for _ in range(200):
        size = int(generator.integers(1, 9))
        factor = generator.standard_normal((size, size))
        values = generator.standard_normal(size) * 10.0 ** generator.integers(-8, 1, size)
        matrix = (factor * values) @ factor.T
        matrix = (matrix + matrix.T) / 2
        error = 10.0 ** generator.uniform(-12, 0) * np.abs(generator.standard_normal((size, size)))
        error = (error + error.T) / 2
        got = inertia(matrix, error)
        for _ in range(20):
            noise = np.triu(error * generator.uniform(-1, 1, (size, size)))
            noise = noise + np.triu(noise, 1).T
            values_there = np.linalg.eigvalsh(matrix + noise)
            slack = 1e-13 * np.abs(values_there).max()
            assert np.sum(values_there < slack) >= got.negative
            assert np.sum(values_there > -slack) >= got.positive


def test_a_norm_bound_resolves_exactly_the_larger_eigenvalues():
    matrix = np.diag([-1.0, -1e-3, -1e-6, 1e-6, 1e-3, 1.0])
    assert inertia(matrix, error=1e-4)[:3] == (2, 2, 2)
    assert inertia(matrix, error=1e-8)[:3] == (3, 0, 3)
    assert inertia(matrix, error=10.0)[:3] == (0, 6, 0)


def test_zero_rows_are_unresolved_and_hide_no_other():
    assert inertia(np.diag([0, 1e-30, -2.0, 5.0]))[:3] == (1, 1, 2)
    for size, error in ((1, None), (2, 0.0), (40, 1e-8)):
        assert inertia(np.zeros((size, size)), error)[:3] == (0, size, 0)


def test_a_row_of_rounding_noise_neither_counts_nor_spoils_the_others():
    noise = 1e-17 * np.random.default_rng(0).standard_normal((5, 5))
    matrix = np.diag([1e-6, 1.0, 1.0, -1.0, 0.0]) + noise + noise.T
    assert inertia(matrix, error=np.full((5, 5), 1e-16))[:3] == (1, 1, 3)


def test_pure_off_diagonal_is_half_negative_half_positive():
    block = np.array([[0.0, 1e-3], [1e-3, 0.0]])
    assert inertia(np.kron(np.eye(3), block))[:3] == (3, 0, 3)


def test_scaling_makes_definite_matrices_unit_diagonal_to_a_power_of_two():
    generator = np.random.default_rng(3)
    factor = generator.standard_normal((6, 6)) * 10.0 ** generator.uniform(-5, 5, 6)
    matrix = factor.T @ factor
    scale = signs.scaling(matrix)
    diagonal = np.diag(matrix) * scale**2
    assert np.all((diagonal > 0.4) & (diagonal < 2.1))
    assert np.array_equal(np.log2(scale), np.round(np.log2(scale)))


EYE = np.diag([1.0, -1.0])


@pytest.mark.parametrize(
    ("matrix", "settings", "error", "message"),
    [
        (np.ones((2, 3)), {}, ValueError, r"matrix: got shape \(2, 3\), expected a square matrix"),
        (np.array([[0.0, 1.0], [0.5, 0.0]]), {}, ValueError, "matrix: .*asymmetry of 0.5"),
        (np.array([[np.nan]]), {}, ValueError, "matrix: got 1 entries that are NaN"),
        (EYE, {"error": -1.0}, ValueError, "error: got -1.0, expected a bound of 0 or more"),
        (EYE, {"error": np.ones(3)}, ValueError, r"error: got .*\(3,\)"),
        (EYE, {"scale": np.array([1.0, -1.0])}, ValueError, "scale: .*positive finite numbers"),
    ],
)
def test_wrong_arguments_are_named(matrix, settings, error, message):
    with pytest.raises(error, match=message):
        inertia(matrix, **settings)


def test_a_diagonal_bound_counts_as_the_entries_that_it_bounds():
    generator = np.random.default_rng(5)
    matrix = np.diag([3.0, 1e-3, -1e-3, -2.0]) + 1e-5 * np.ones((4, 4))
    error = 1e-4 * np.abs(generator.standard_normal((4, 4)))
    error = (error + error.T) / 2
    scale = signs.scaling(matrix)
    by_entries = inertia(matrix, error, scale=scale)
    assert by_entries == inertia(matrix, signs.diagonal_bound(error, scale), scale=scale)


@pytest.mark.parametrize("values", ["positive", "negative", "both"])
def test_counting_takes_one_matrix_of_memory_beside_its_arguments(values):
    size, generator = 700, np.random.default_rng(0)
    factor = generator.standard_normal((size, size))
    sides = {"positive": 1.0, "negative": -1.0, "both": np.where(np.arange(size) % 3, 1.0, -1.0)}[values]
    matrix = (factor * (sides * (1 + np.arange(size) / size))) @ factor.T
    matrix = (matrix + matrix.T) / 2
    error = np.full((size, size), 1e-13)
    tracemalloc.start()
    got = inertia(matrix, error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got[:3] == (np.sum(sides * np.ones(size) < 0), 0, np.sum(sides * np.ones(size) > 0))
    assert peak < 1.9 * 8 * size**2


def test_a_wide_first_bound_resolves_as_much_as_a_narrow_one(monkeypatch):
    # Large matrices start with a bound of 64 P² u, here 100 times that of small ones.
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.standard_normal((100, 100)))[0]
    values = np.r_[-1.0, 3e-11, np.linspace(0.5, 1, 98)]
    matrix = (rotation * values) @ rotation.T
    matrix = (matrix + matrix.T) / 2
    monkeypatch.setattr(signs, "_LARGE", 10)
    got = inertia(matrix, 1e-13)
    assert got[:3] == (1, 0, 99)
    assert got.bound < 64 * 100**2 * 2.0**-53
    assert inertia(np.diag(np.r_[-1.0, np.ones(99)]))[:3] == (1, 0, 99)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero):RuntimeWarning")
def test_numbers_and_scales_at_the_limits_of_float64_give_no_wrong_sign():
    matrix = np.array([[2.0, 1.0], [1.0, -3.0]])
    cases = [inertia(matrix, scale=np.full(2, scale)) for scale in (1e-300, 1e300)]
    for got in (*cases, inertia(np.diag([5e-324, -5e-324]))):
        assert got.negative + got.unresolved + got.positive == 2
        assert got.negative in (0, 1)
        assert got.positive in (0, 1)


def test_cholesky_factors_by_halves_are_those_of_numpy_and_indefinite_matrices_have_none(monkeypatch):
    monkeypatch.setattr(cholesky, "_LARGEST", 7)
    generator = np.random.default_rng(0)
    root = generator.standard_normal((41, 41))
    matrix = root @ root.T
    found = np.tril(matrix).copy(order="F")  # what is above the diagonal is not read
    assert cholesky.factor(found)
    np.testing.assert_allclose(np.tril(found), np.linalg.cholesky(matrix), rtol=1e-9, atol=1e-9)
    for k in (0, 12, 30, 40):
        lowered = matrix.copy(order="F")
        lowered[k, k] -= 1.01 / np.linalg.inv(matrix)[k, k]
        assert not cholesky.factor(lowered)
