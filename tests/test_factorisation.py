"""Counts of eigenvalues and their enclosures hold for every matrix in the balls, whatever LAPACK returns."""

import flint
import numpy as np
import pytest

from mlp_jax.interval import ball, factorisation, spectra
from mlp_jax.interval.ball import Ball, Refusal

RNG = np.random.default_rng


def rational(value):
    return flint.fmpq(*(int(part) for part in float(value).as_integer_ratio()))


def number_above(matrix, level, sign=1):
    """Return the exact number of eigenvalues of sign · matrix above a level.

    All roots of the characteristic polynomial are real, so Descartes' rule of signs is exact.
    """
    size = len(matrix)
    entries = [sign * rational(x) for x in np.ravel(matrix)]
    shifted = flint.fmpq_mat(size, size, entries) - rational(level) * flint.fmpq_mat(
        size, size, [int(x) for x in np.eye(size).ravel()]
    )
    signs = [x > 0 for x in shifted.charpoly().coeffs() if x != 0]
    return int(np.sum(np.diff(signs)))


def symmetric(generator, size, scale=1.0):
    matrix = generator.standard_normal((size, size)) * scale
    return np.tril(matrix) + np.tril(matrix, -1).T


def close_to_singular(generator, size):
    """A matrix with eigenvalues at and near 0: a tilted diagonal, rounded."""
    values = generator.choice([-1.0, 1.0], size) * 10.0 ** generator.uniform(-18, 1, size)
    rotation = np.linalg.qr(generator.standard_normal((size, size)))[0]
    matrix = (rotation * values) @ rotation.T
    return np.tril(matrix) + np.tril(matrix, -1).T


def members(generator, matrix):
    """Yield the midpoint and random extreme members of a matrix of balls."""
    yield matrix.mid
    for _ in range(2):
        # Rounded towards the midpoint, so that it is a member.
        yield matrix.mid + 0.999 * matrix.radius * np.sign(symmetric(generator, len(matrix.mid)))


@pytest.mark.parametrize("seed", range(12))
def test_no_count_exceeds_that_of_exact_arithmetic_for_any_matrix_in_the_balls(seed, monkeypatch):
    # Small blocks, so that their borders and pairs of pivots meet.
    monkeypatch.setattr(factorisation, "_ROWS", 3 + seed % 3)
    generator = RNG(seed)
    size = int(generator.integers(1, 10))
    mid = close_to_singular(generator, size) if seed % 2 else symmetric(generator, size)
    scale = 10.0 ** generator.uniform(-40, 40, size) if seed % 3 == 0 else np.ones(size)
    radius = np.abs(mid) * 10.0 ** generator.uniform(-16, -2)
    matrix = Ball(mid * scale[:, None] * scale, np.tril(radius) * scale[:, None] * scale)
    matrix = Ball(np.tril(matrix.mid) + np.tril(matrix.mid, -1).T, np.tril(matrix.rad) + np.tril(matrix.rad, -1).T)
    bounds = factorisation.bounded(matrix)
    values = np.linalg.eigvalsh(mid) if seed % 3 else np.zeros(1)
    for sign in (1, -1):
        # Levels at eigenvalues to rounding, and shifts that leave no room for the error.
        for level in (0.0, *(sign * values), *(sign * values * (1 - 1e-12))):
            for room in (0.0, bounds.rounding, 4 * bounds.rounding):
                found = factorisation.above(bounds, sign, level * bounds.scale**2 + bounds.spread + room)
                assert found.error < 1e-9
                if found.number:
                    for member in members(generator, matrix):
                        assert found.number <= number_above(member, found.level, sign)


@pytest.mark.parametrize("name", ["_factors", "_cholesky"])
def test_a_factorisation_that_is_wrong_proves_nothing_false(name, monkeypatch):
    right, generator = getattr(factorisation, name), RNG(0)
    for case in range(40):
        matrix = symmetric(generator, 6)
        if name == "_cholesky":
            matrix = matrix @ matrix + 0.01 * np.eye(6)
            matrix = np.tril(matrix) + np.tril(matrix, -1).T
        size = 10.0 ** generator.uniform(-12, 1)

        def wrong(*args):
            factors, *others = right(*args)
            return factors + size * generator.standard_normal(factors.shape), *others

        monkeypatch.setattr(factorisation, name, wrong if case else right)
        found = factorisation.above(factorisation.bounded(ball.exact(matrix)), 1, np.full(6, 1e-3))
        assert found.number <= number_above(matrix, found.level)
        assert (found.level > 0) == (found.error < 1e-3)


def test_matrices_that_are_singular_within_their_radii_are_refused_and_just_outside_decided():
    exact = np.array([[2.0, 1, 0, 1], [1, 2, 1, 0], [0, 1, 2, 1], [1, 0, 1, 2]])  # eigenvalues 0, 2, 2, 4
    for sign in (1, -1):
        for shift, radius, decided in (
            (0.0, 0.0, False),
            (1e-9, 1.01e-9, False),
            (1e-9, 1e-11, True),
            (1e-15, 0.0, False),
        ):
            mid = sign * (exact + shift * np.eye(4))
            matrix = Ball(mid, radius * np.eye(4))
            bounds = factorisation.bounded(matrix)
            vector = np.array([1.0, -1, 1, -1]) / 2
            near = spectra.pair(matrix, sign * max(shift, 1e-18), vector)
            if decided:
                gap = spectra.decide(bounds, near)
                assert (gap.negative, gap.positive) == ((0, 4) if sign > 0 else (4, 0))
                assert 0 < gap.level <= shift - radius
            else:
                with pytest.raises(Refusal, match="degenerate"):
                    spectra.decide(bounds, near)


def test_sizes_at_the_ends_of_float64_prove_nothing_false():
    for size in (1e-300, 1e-160, 1e150, 1e300):
        matrix = size * np.array([[1.0, 2], [2, 1]])
        try:
            found = factorisation.gap(factorisation.bounded(ball.exact(matrix)), 0.0, 1e-14)
        except Refusal:
            continue
        assert (found.negative, found.positive) == (1, 1)
        assert found.level <= size
    with pytest.raises(Refusal, match="scaled too differently"):
        factorisation.bounded(ball.exact(np.diag([1e-305, 1e305])))


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("index", [0, 3, 12])
def test_enclosures_of_eigenvalues_contain_those_of_every_matrix(index, dense, monkeypatch):
    if not dense:
        monkeypatch.setattr(spectra, "_SMALL", 0)
    generator = RNG(index)
    values = np.sort(generator.uniform(0.1, 2, 12) * np.where(np.arange(12) < index, -1, 1))
    rotation = np.linalg.qr(generator.standard_normal((12, 12)))[0]
    mid = (rotation * values) @ rotation.T
    matrix = Ball(np.tril(mid) + np.tril(mid, -1).T, np.full((12, 12), 1e-6))
    bounds = factorisation.bounded(matrix)
    near = spectra.nearest(matrix, factorisation.solver(bounds), None)
    gap = spectra.decide(bounds, near)
    assert (gap.negative, gap.positive) == (index, 12 - index)
    found = spectra.enclose(matrix, bounds, gap, near, 0)
    for member in members(generator, matrix):
        true = np.linalg.eigvalsh(member)  # its error, 1e-15, is far below the radii
        closest = true[np.argmin(np.abs(true))]
        for (low, high), value in zip(found, (true[0], closest, true[-1]), strict=True):
            assert low <= value <= high
            assert high - low < 1e-4
