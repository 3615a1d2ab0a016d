"""LDLᵀ, factors by halves, and the signs and directions that rest on them, against dense eigenvalues."""

import numpy as np
import pytest

from mlp_jax import critical
from mlp_jax.critical.evidence import measurements
from mlp_jax.curvature import halves, ldl, signs

# Of matrices of side 60: some or few negative eigenvalues, some close to 0.
SPECTRA = {
    "indefinite": np.linspace(-1.0, 1.3, 60),
    "three negative": np.r_[-0.5, -1e-2, -3e-3, np.geomspace(1e-3, 1, 57)],
    "near singular": np.r_[-1.0, -1e-9, np.geomspace(1e-9, 1, 58)],
    "degenerate": np.r_[-0.5, -0.5, np.ones(58)],
}


def with_spectrum(values, seed=0):
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    matrix = (rotation * values) @ rotation.T
    return (matrix + matrix.T) / 2


def by_halves(matrix):
    half = len(matrix) // 2
    parts = matrix[:half, :half], matrix[half:, :half], matrix[half:, half:]
    return halves.factor(*(np.array(part, order="F") for part in parts))


def bordered(number):
    """A matrix of side 60 with a definite first half and as many negative eigenvalues."""
    matrix = with_spectrum(np.geomspace(1e-2, 1, 60), 1)
    matrix[np.arange(60 - number, 60), np.arange(60 - number, 60)] -= 3.0
    return matrix


PAIRS = np.kron(np.eye(20), [[0.0, 1.0], [1.0, 0.0]]) + np.diag(np.tile([0.0, 0.0, 1e-3, 0.0], 10))
CASES = {name: (with_spectrum(values), ldl.factor) for name, values in SPECTRA.items()}
CASES |= {"pivots of 2×2": (PAIRS, ldl.factor)}
CASES |= {f"halves, {number} negative": (bordered(number), by_halves) for number in (1, 3, 20)}


@pytest.mark.parametrize("name", CASES)
def test_factors_count_solve_and_show_negative_directions_as_dense_eigenvalues_do(name):
    matrix, method = CASES[name]
    factors, values = method(np.array(matrix, order="F")), np.linalg.eigvalsh(matrix)
    assert factors.positive == np.sum(values > 0)
    right = np.random.default_rng(1).standard_normal((len(matrix), 2))
    found = factors.solve(right)
    backward = np.linalg.norm(matrix @ found - right) / (np.linalg.norm(matrix) * np.linalg.norm(found))
    assert backward < 1e-14
    along = factors.negative_directions()
    assert along.shape[1] == np.sum(values < 0)
    np.testing.assert_allclose(np.linalg.norm(along, axis=0), 1)
    assert np.linalg.eigvalsh(along.T @ matrix @ along)[-1] < 0


def test_cholesky_by_halves_solves_and_an_indefinite_first_half_has_none():
    matrix, right = with_spectrum(np.geomspace(1e-3, 1, 61)), np.ones((61, 1))
    factors = by_halves(matrix)
    assert factors.definite
    assert factors.positive == 61
    np.testing.assert_allclose(factors.solve(right), np.linalg.solve(matrix, right), rtol=1e-10)
    matrix[0, 0] = -1
    assert by_halves(matrix) is None


@pytest.mark.parametrize("name", CASES)
def test_the_backward_error_bounds_what_the_product_of_the_factors_lacks(name):
    matrix, method = CASES[name]
    factors = method(np.array(matrix, order="F"))
    whole, unit = np.zeros(matrix.shape, np.longdouble), np.zeros(matrix.shape, np.longdouble)
    last = factors if method is ldl.factor else factors.last
    size, half = len(last.diagonal), len(matrix) - len(last.diagonal)
    block = np.diag(last.diagonal) + np.diag(last.below, 1) + np.diag(last.below, -1)
    unit[half:, half:][last.order] = np.tril(last.lower, -1) + np.eye(size)
    whole[half:, half:] = block
    if half:
        unit[:half, :half], unit[half:, :half] = np.tril(factors.first), factors.below
        whole[:half, :half] = np.eye(half)
    assert np.linalg.norm((unit @ whole @ unit.T - matrix).astype(float), 2) <= factors.backward() < 1e-10


@pytest.mark.parametrize("large", [0, 2000])
@pytest.mark.parametrize(("nearest", "few"), [(-0.3, 3), (-5e-4, 0), (5e-4, 0)])
def test_few_negatives_are_known_unless_an_eigenvalue_is_within_the_shift(nearest, few, large, monkeypatch):
    monkeypatch.setattr(signs, "_LARGE", large)
    matrix = with_spectrum(np.r_[-1.0, -0.5, nearest, np.linspace(0.5, 1, 57)])
    up = signs.above(matrix, np.ones(60), np.full(60, 1e-3), 16.0)
    assert (up.negative, up.positive, up.resolves) == (few, 57, few == 3)


@pytest.mark.parametrize("large", [0, 2000])
def test_known_signs_answer_a_question_of_less_error_and_no_other(large, monkeypatch):
    monkeypatch.setattr(signs, "_LARGE", large)
    matrix, scale = bordered(3) + 0.2 * np.eye(60), np.ones(60)
    known = signs.above(matrix, scale, np.full(60, 0.1), signs.wide(60))
    assert known.resolves
    asked = []
    monkeypatch.setattr(signs, "above", lambda *args, **settings: asked.append(args) or above(*args, **settings))
    assert signs.count(matrix, 0.09, scale, known)[:3] == (3, 0, 57)
    assert not asked
    assert signs.count(matrix, 0.19, scale, known)[:3] == (3, 0, 57)
    assert signs.count(matrix, 0.5, scale, known).unresolved == np.sum(np.abs(np.linalg.eigvalsh(matrix)) < 0.5)
    assert asked


above = signs.above


@pytest.mark.parametrize("negative", [0, 3])
def test_a_verdict_without_eigenvectors_takes_one_factorisation(negative, monkeypatch):
    monkeypatch.setattr(measurements, "EIGENVECTOR_LIMIT", 0)
    monkeypatch.setattr(signs, "_LARGE", 0)
    taken = []
    for module in (halves, ldl):
        for_real = module.factor
        monkeypatch.setattr(module, "factor", lambda *a, f=for_real: taken.append(len(a[-1])) or f(*a))
    matrix = bordered(negative) if negative else with_spectrum(np.geomspace(1e-2, 1, 60))
    verdict = critical.classify(lambda x, a: x @ a @ x / 2 + (x**4).sum(), np.full(60, 1e-9), (matrix,))
    assert verdict.inertia[:3] == (negative, 0, 60 - negative)
    assert taken == ([30, 30] if negative else [30])
    values = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose((verdict.smallest, verdict.largest), values[[0, -1]], rtol=2e-2)
