import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import tree

PARAMS = {"b": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "a": (np.array(7.0), [np.array([8.0, 9.0])])}
FLAT = np.array([7.0, 8.0, 9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])  # "a" before "b", each leaf row by row


def test_ravel_follows_the_order_of_leaves_and_of_c_and_unravel_undoes_it():
    vector, unravel = tree.ravel(jax.tree.map(jnp.asarray, PARAMS))
    np.testing.assert_array_equal(vector, FLAT)
    jax.tree.map(np.testing.assert_array_equal, unravel(vector), PARAMS)
    new = unravel(jnp.arange(9.0))
    np.testing.assert_array_equal(new["b"], [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])
    np.testing.assert_array_equal(new["a"][1][0], [1.0, 2.0])


def test_size_counts_scalars():
    assert [tree.size(t) for t in (PARAMS, {}, jnp.zeros((3, 0)), 2.0)] == [9, 0, 0, 1]


@pytest.mark.usefixtures("x64")
def test_dot_and_norm_are_those_of_the_flat_vectors():
    rng = np.random.default_rng(0)
    a, b = (jax.tree.map(lambda x: rng.normal(size=x.shape), PARAMS) for _ in range(2))
    flat_a, flat_b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(t)]) for t in (a, b))
    np.testing.assert_allclose(jax.jit(tree.dot)(a, b), flat_a @ flat_b, rtol=1e-14)
    np.testing.assert_allclose(jax.jit(tree.norm)(a), np.linalg.norm(flat_a), rtol=1e-14)


def test_gradient_of_half_the_squared_norm_is_the_vector_itself():
    params = jax.tree.map(np.float32, PARAMS)
    gradient = jax.jit(jax.grad(lambda p: 0.5 * tree.dot(p, p)))(params)
    jax.tree.map(np.testing.assert_array_equal, gradient, params)


def test_random_like_is_standard_normal_and_independent_between_leaves():
    n = 20_000
    draw = jax.jit(tree.random_like)(jax.random.key(0), {"a": np.zeros(n, "f4"), "b": np.ones((2, n // 2), "f4")})
    a, b = np.asarray(draw["a"]), np.asarray(draw["b"]).ravel()
    for values in (a, b):
        assert abs(values.mean()) < 5 / np.sqrt(n)
        assert abs(values.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(n)


def test_random_like_depends_on_the_key_only_and_keeps_shapes_and_dtypes():
    shape = {"a": jnp.zeros(4, jnp.bfloat16), "b": jnp.ones((2, 3), jnp.float32)}
    first, again, other = (jax.jit(tree.random_like)(jax.random.key(seed), shape) for seed in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first["b"], other["b"])
    assert jax.tree.map(lambda x: (x.shape, x.dtype), first) == jax.tree.map(lambda x: (x.shape, x.dtype), shape)


def test_products_of_small_integers_do_not_wrap_around():
    values = {"a": np.full(3, 254, np.uint8)}
    assert float(tree.dot(values, values)) == 3 * 254**2


@pytest.mark.parametrize("leaf", [jnp.ones(1), np.array([1j, 2]), None, np.array([None, 1], object)])
def test_dot_refuses_other_structures_other_shapes_and_leaves_that_are_not_real(leaf):
    with pytest.raises((TypeError, ValueError), match=r"^b: "):
        tree.dot({"a": jnp.ones(2)}, {"a": leaf})
