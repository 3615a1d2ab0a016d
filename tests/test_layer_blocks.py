"""The Hessian from layer blocks is that of automatic differentiation, and of 60-digit arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ground_truth import exact, series_hessian, series_network

from mlp_jax import losses, mlp, mlp_hessian, penalties, tree


@pytest.mark.parametrize("sizes", [(3, 2), (3, 4, 2), (3, 2, 3, 2), (2, 2, 2, 2, 2)])
@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.softplus])
def test_blocks_equal_automatic_differentiation_at_every_depth(sizes, activation, x64):
    generator = np.random.default_rng(0)
    params = mlp.init(jax.random.key(0), sizes)
    x, y = generator.standard_normal((7, sizes[0])), generator.integers(0, sizes[-1], 7)
    weights = generator.uniform(0, 2, 7)

    def penalty(p):
        return penalties.l2(p, 0.1)

    theta, unravel = tree.ravel(params)

    def fun(v):
        logits = mlp.forward(unravel(v), x, activation=activation)
        return losses.mean(losses.cross_entropy(logits, y), weights) + penalty(unravel(v))

    ours = mlp_hessian.dense(
        params, x, y, loss=losses.cross_entropy, activation=activation, weights=weights, penalty=penalty
    )
    theirs = jax.hessian(fun)(theta)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())


def test_blocks_equal_60_digit_arithmetic(x64):
    sizes, generator = (2, 3, 1), np.random.default_rng(1)
    params = mlp.init(jax.random.key(1), sizes)
    x, y = generator.standard_normal((6, 2)), generator.standard_normal((6, 1))

    def series_loss(vector):
        error = series_network(vector, sizes, x, "tanh") - exact(y)
        return (error * error).sum() / 12

    truth = np.array(series_hessian(series_loss, np.asarray(tree.ravel(params)[0])).tolist(), dtype=float)
    ours = mlp_hessian.dense(params, x, y, loss=losses.squared_error, activation=jnp.tanh)
    np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-14 * np.abs(truth).max())
