import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import mlp, penalties

pytestmark = pytest.mark.usefixtures("x64")


def network():
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape)
    return (mlp.Layer(draw(3, 4), draw(4)), mlp.Layer(draw(4, 2), draw(2)))


def numbers(params, *, biases=True):
    leaves = [np.asarray(leaf).ravel() for layer in params for leaf in (layer if biases else layer[:1])]
    return np.concatenate(leaves)


@pytest.mark.parametrize("biases", [True, False])
def test_penalties_are_their_sums_and_their_gradients_strength_times_sign_or_parameter(biases):
    params = network()
    kept = numbers(params, biases=biases)
    sums = {penalties.l1: np.abs(kept).sum(), penalties.l2: 0.5 * (kept**2).sum()}
    for penalty, derivative in ((penalties.l1, np.sign), (penalties.l2, np.asarray)):
        both = jax.jit(jax.value_and_grad(lambda p, s, penalty=penalty: penalty(p, s, biases=biases)))
        value, gradient = both(params, 0.3)
        np.testing.assert_allclose(value, 0.3 * sums[penalty], rtol=1e-14)
        for layer, theta in zip(gradient, params, strict=True):
            np.testing.assert_allclose(layer.weight, 0.3 * derivative(theta.weight), rtol=1e-15)
            np.testing.assert_allclose(layer.bias, 0.3 * derivative(theta.bias) * biases, rtol=1e-15)


def test_gradient_of_l1_at_zero_is_zero():
    np.testing.assert_array_equal(jax.jit(jax.grad(penalties.l1))(np.array([0.0, -2.0]), 0.3), [0.0, -0.3])


def test_hessian_of_l2_is_strength_times_identity():
    fun = lambda v: penalties.l2({"w": v[:4].reshape(2, 2), "b": v[4:]}, 0.3)
    np.testing.assert_allclose(jax.jit(jax.hessian(fun))(np.ones(6)), 0.3 * np.eye(6), atol=1e-16)


def test_plasticity_is_the_weighted_distance_to_the_reference():
    rng = np.random.default_rng(0)
    params = network()
    reference, importances = (jax.tree.map(lambda x: rng.uniform(size=x.shape), params) for _ in range(2))
    theta, center, b = (numbers(p) for p in (params, reference, importances))
    penalty = jax.jit(
        lambda p: penalties.selective_synaptic_plasticity(p, 0.7, reference=reference, importances=importances)
    )
    np.testing.assert_allclose(penalty(params), 0.7 * (b * (theta - center) ** 2).sum(), rtol=1e-14)
    np.testing.assert_allclose(numbers(jax.grad(penalty)(params)), 1.4 * b * (theta - center), rtol=1e-13)
    assert penalty(reference) == 0


def test_plasticity_holds_important_parameters_and_frees_the_others():
    """The minimum of the new loss ½‖θ − t‖² plus λ b (θ − θ*)² is (t + 2λbθ*) / (1 + 2λb)."""
    reference, target, b = np.array([1.0, 1.0]), np.array([-1.0, -1.0]), np.array([1e3, 0.0])
    total = lambda theta: (
        0.5 * jnp.sum((theta - target) ** 2)
        + penalties.selective_synaptic_plasticity(theta, 2.0, reference=reference, importances=b)
    )
    hessian, slope = jax.jit(lambda theta: (jax.hessian(total)(theta), jax.grad(total)(theta)))(jnp.zeros(2))
    minimum = np.linalg.solve(hessian, -np.asarray(slope))
    np.testing.assert_allclose(minimum, [(-1 + 4e3) / (1 + 4e3), -1.0], rtol=1e-14)


def plasticity(reference, importances, strength=1.0):
    return penalties.selective_synaptic_plasticity(
        {"w": jnp.ones(2)}, strength, reference={"w": reference}, importances={"w": importances}
    )


BAD = np.array([-1.0, np.nan])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: penalties.l1(jnp.ones(2), -0.1), "strength: got -0.1, expected a finite number of 0 or more"),
        (lambda: penalties.l2(jnp.ones(2), float("nan")), "strength: got nan, expected a finite number of 0 or more"),
        (lambda: penalties.l1(jnp.ones(3), 0.1, biases=False), "params: got 1 leaves and biases=False"),
        (lambda: plasticity(np.ones(2), np.ones(2), -1), "strength: got -1"),
        (lambda: plasticity(np.ones(3), np.ones(2)), "reference: got leaves of shapes {'w': (3,)}"),
        (lambda: plasticity(np.ones(2), np.ones(1)), "importances: got leaves of shapes {'w': (1,)}"),
        (lambda: plasticity(np.ones(2), BAD), "importances: got 2 numbers that are negative or NaN"),
        (lambda: jax.jit(lambda p: plasticity(p, BAD))(np.ones(2)), "importances: got 2 numbers that are"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
