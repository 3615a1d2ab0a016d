"""The coordinates in which a search climbs the lowest modes, against numpy's eigenbasis."""

import numpy as np
import pytest

from mlp_jax.critical.search import lowest_modes

SIZE, CLIMBED = 200, 3


def hessian(seed: int, values: np.ndarray) -> np.ndarray:
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((SIZE, SIZE)))[0]
    matrix = (rotation * values) @ rotation.T
    return (matrix + matrix.T) / 2


@pytest.fixture
def matrix():
    return hessian(0, np.concatenate([-np.geomspace(1, 0.1, 6), np.geomspace(0.1, 10, SIZE - 6)]))


@pytest.fixture
def moved(matrix):
    return matrix + 1e-2 * hessian(1, np.linspace(-1, 1, SIZE))


def framed(matrix, near=None, climbed=CLIMBED):
    return lowest_modes.frame(matrix, np.ones(SIZE), climbed, 0.5, near)


def test_modes_of_a_hessian_nearby_lead_to_those_of_this_one(matrix, moved):
    found = framed(moved, framed(matrix).modes)
    values, vectors = np.linalg.eigh(moved)
    np.testing.assert_allclose(found.modes.values[:6], values[:6], rtol=1e-4)
    overlaps = np.linalg.svd(vectors[:, :CLIMBED].T @ found.modes.vectors[:, :CLIMBED], compute_uv=False)
    assert overlaps[-1] > 0.999


@pytest.mark.parametrize("climbed", [0, CLIMBED, 8])
def test_curvature_in_the_coordinates_is_that_of_the_reflected_function(matrix, climbed):
    found = framed(matrix, climbed=climbed)
    values, vectors = np.linalg.eigh(matrix)
    slope = np.linalg.norm(vectors[:, :climbed].T @ np.ones(SIZE)) / 0.5
    added = np.where(values < 0, -2 * values, 0) + np.where(np.arange(SIZE) < climbed, slope, 0)
    wanted = matrix + (vectors * added) @ vectors.T
    np.testing.assert_allclose(found.slope(found.slope(wanted).T), np.eye(SIZE), atol=1e-4)
    y = np.linspace(-1, 1, SIZE)
    np.testing.assert_allclose(found.step(y) @ wanted @ found.step(y), y @ y, rtol=1e-4)


def test_newtons_step_is_that_of_the_hessian_and_not_of_the_reflected_function(matrix, moved):
    for found, whole in ((framed(matrix), matrix), (framed(moved, framed(matrix).modes), moved)):
        exact = np.linalg.solve(whole, -np.ones(SIZE))
        assert np.linalg.norm(found.newton(np.ones(SIZE), 1.0) - exact) < 1e-10 * np.linalg.norm(exact)


def test_where_far_lower_modes_appear_the_whole_eigenbasis_is_taken(matrix):
    other = matrix - 5 * np.outer(np.eye(SIZE)[0], np.eye(SIZE)[0])
    found = framed(other, framed(matrix).modes)
    np.testing.assert_allclose(found.modes.values[0], np.linalg.eigvalsh(other)[0], rtol=1e-4)


def test_a_hessian_of_zeros_has_no_coordinates():
    assert framed(np.zeros((SIZE, SIZE))) is None
