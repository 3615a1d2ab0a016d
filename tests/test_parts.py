"""Parts of a network: restrictions of a function, overlaps of spaces, and operators in another metric."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from mlp_jax import critical, curvature, losses, mlp, tree

KEY = jax.random.key(0)
INPUTS, TARGETS = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2
PARTS = {
    "a layer": lambda p: p[1],
    "two layers, the other way round": lambda p: (p[2], p[0]),
    "all weight matrices": lambda p: [leaf for leaf in jax.tree.leaves(p) if leaf.ndim == 2],
    "one bias": lambda p: p[0].bias,
    "everything": lambda p: p,
}


def fun(params, x, y):
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y))


def network(seed):
    return mlp.init(jax.random.key(seed), (3, 4, 3, 2), dtype=jnp.float64)


@pytest.mark.parametrize("name", PARTS)
def test_the_hessian_of_a_part_is_a_block_of_the_hessian(x64, name):
    params, part = network(0), PARTS[name]
    whole = curvature.dense_hessian(fun, params, (INPUTS, TARGETS))
    part_fun, part_params = curvature.restrict(fun, params, part)
    chosen = tree.ravel(part(tree.ravel(params)[1](np.arange(float(len(whole))))))[0].astype(int)
    block = np.asarray(whole)[np.ix_(chosen, chosen)]
    args = (params, INPUTS, TARGETS)
    assert part_fun(part_params, *args) == fun(params, INPUTS, TARGETS)
    np.testing.assert_allclose(curvature.dense_hessian(part_fun, part_params, args), block, atol=1e-15)
    if name == "a layer":
        matvec = curvature.hessian(part_fun, part_params, args)
        found = curvature.eigenpairs(matvec, part_params, KEY, largest=1)
        np.testing.assert_allclose(found.values, np.linalg.eigvalsh(block)[-1:], atol=1e-12)


def test_a_saddle_restricted_to_a_coordinate_is_a_minimum_or_a_maximum():
    saddle = lambda p, scale: scale * (p["x"] ** 2 - p["y"] ** 2)
    origin = {"x": np.zeros(()), "y": np.zeros(())}
    kinds = {}
    for name in origin:
        part_fun, part = curvature.restrict(saddle, origin, lambda p, name=name: p[name])
        kinds[name] = critical.classify(part_fun, part, (origin, 2.0)).kind
    assert kinds == {"x": "minimum", "y": "maximum"}


def test_other_params_and_another_choice_function_compile_nothing(x64, compilations):
    blocks = []
    for seed in range(3):
        params = network(seed)
        compilations.clear()
        part_fun, part = curvature.restrict(fun, params, lambda p: p[0])
        blocks.append(curvature.dense_hessian(part_fun, part, (params, INPUTS, TARGETS)))
        del part_fun
    assert compilations == []
    assert not np.allclose(blocks[1], blocks[2])


def test_a_part_keeps_its_function_alive_and_nothing_else_does(x64):
    data = jnp.arange(3.0)
    scaled = lambda p: jnp.sum(data * p**2)
    held = weakref.ref(scaled)
    part_fun, part = curvature.restrict(scaled, np.ones(3), lambda p: p)
    del scaled
    gc.collect()
    np.testing.assert_array_equal(curvature.dense_hessian(part_fun, part, (np.ones(3),)), 2 * np.diag(data))
    del part_fun
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("part", [lambda p: [], lambda p: (p[0], p[0]), lambda p: np.ones(2), lambda p: p[0].weight.T])
def test_a_part_that_is_not_some_leaves_of_params_is_refused(part):
    with pytest.raises((ValueError, AttributeError), match=r"part: got|attribute 'T'"):
        curvature.restrict(fun, mlp.init(KEY, (3, 4, 2)), part)


# --- Overlap -----------------------------------------------------------------------------------------------------


def as_vectors(columns):
    """Columns (5, k) as vectors like {"a": (2,), "b": (1, 3)} with a leading axis."""
    rows = jnp.asarray(columns).T
    return {"a": rows[:, :2], "b": rows[:, 2:].reshape(-1, 1, 3)}


def test_the_overlap_of_rotated_planes_is_the_mean_squared_cosine_of_their_angles(x64):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    angles = np.array([0.3, 1.1])
    plane = basis[:, :2] * np.cos(angles) + basis[:, 2:4] * np.sin(angles)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(2, 2)))[0]
    share = np.mean(np.cos(angles) ** 2)
    measured = jax.jit(curvature.overlap)(as_vectors(plane @ turn), as_vectors(basis[:, :2]))
    np.testing.assert_allclose(measured, share, rtol=1e-14)
    # One direction of the plane, and a space that contains the plane.
    np.testing.assert_allclose(
        curvature.overlap(as_vectors(basis[:, :1]), as_vectors(plane)), np.cos(0.3) ** 2, rtol=1e-14
    )
    np.testing.assert_allclose(curvature.overlap(as_vectors(plane), as_vectors(basis[:, :4])), 1, rtol=1e-14)


def test_a_gradient_of_any_length_has_the_share_of_its_square_in_a_space(x64):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    sizes = np.array([3.0, -1.0, 0.5, 2.0, 0.0])
    gradients = as_vectors(np.stack([basis @ sizes, -7e-9 * basis @ sizes], axis=1))
    top = as_vectors(basis[:, :2])
    shares = jax.vmap(curvature.overlap, (0, None))(gradients, top)
    np.testing.assert_allclose(shares, 10 / np.sum(sizes**2), rtol=1e-14)
    one = jax.tree.map(lambda leaf: leaf[0], gradients)
    np.testing.assert_allclose(curvature.overlap(top, one), 10 / np.sum(sizes**2), rtol=1e-14)


def test_vectors_of_another_structure_shape_or_count_are_refused():
    a = {"w": np.ones((2, 3)), "b": np.ones((2, 1))}
    for b in (
        {"w": np.ones((2, 4)), "b": np.ones((2, 1))},
        {"w": np.ones((3, 3)), "b": np.ones((2, 1))},
        [np.ones((2, 3))],
    ):
        with pytest.raises(ValueError, match="got"):
            curvature.overlap(a, b)
    with pytest.raises(ValueError, match="got 5 vectors of dimension 1"):
        curvature.overlap(np.ones(5), np.ones(5))


# --- Another metric ----------------------------------------------------------------------------------------------


def test_eigenpairs_in_the_metric_of_an_optimizer_solve_the_generalised_problem(x64):
    params = network(0)
    diagonal = jax.tree.map(lambda leaf: 0.1 + leaf**2, params)
    matvec = curvature.preconditioned(curvature.hessian(fun, params, (INPUTS, TARGETS)), diagonal)
    pairs = curvature.eigenpairs(matvec, params, KEY, smallest=2, largest=2)
    matrix = curvature.dense_hessian(fun, params, (INPUTS, TARGETS))
    exact = scipy.linalg.eigh(matrix, np.diag(tree.ravel(diagonal)[0]), eigvals_only=True)
    np.testing.assert_allclose(pairs.values, exact[[0, 1, -2, -1]], atol=1e-12)
    with pytest.raises(ValueError, match="diagonal: got an entry of 0"):
        curvature.preconditioned(matvec, jax.tree.map(jnp.zeros_like, params))
