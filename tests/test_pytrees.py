"""The transformable curvature functions on several kinds of params: right, under jit and vmap, traced once."""

from typing import NamedTuple

import chex
import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mlp_jax import tree
from mlp_jax.curvature import dense_hessian, diagonal, hessian, spectral_density, trace

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.implicit_promotion]


class Affine(NamedTuple):
    weight: jax.Array
    bias: jax.Array


def models():
    """Params of each kind, and the model (params, inputs) -> outputs."""
    draw = np.random.default_rng(0).standard_normal
    weight, bias = jnp.asarray(draw((3, 2))), jnp.asarray(draw(2))
    graph, state = nnx.split(nnx.Linear(3, 2, param_dtype=float, rngs=nnx.Rngs(0)))
    arrays, rest = equinox.partition(
        equinox.nn.Linear(3, 2, key=jax.random.key(0), dtype=float), equinox.is_inexact_array
    )
    return {
        "dict": ({"w": [Affine(weight, bias)]}, lambda p, x: x @ p["w"][0].weight + p["w"][0].bias),
        "flax nnx": (state, lambda s, x: nnx.merge(graph, s)(x)),
        "equinox": (arrays, lambda a, x: jax.vmap(equinox.combine(a, rest))(x)),
    }


@pytest.mark.parametrize("kind", ["dict", "flax nnx", "equinox"])
def test_curvature_of_any_params_is_that_of_their_vector_and_traced_once(kind):
    params, model = models()[kind]
    inputs = jnp.asarray(np.random.default_rng(1).standard_normal((5, 3)))
    fun = lambda p, x: jnp.mean(jnp.sum(jnp.tanh(model(p, x)) ** 2, axis=1))
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def measure(points, key, x):
        def at(p):
            matvec = hessian(fun, p, (x,))
            estimates = [of(matvec, p, key, num_probes=3) for of in (trace, diagonal)]
            density = spectral_density(matvec, p, key, num_probes=3)
            return dense_hessian(fun, p, (x,)), matvec(p), estimates, density

        return jax.vmap(at)(points)

    points = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    for shift in (1.0, 0.0):
        matrices, products, (total, entries), density = measure(points, jax.random.key(0), inputs + shift)
    _, unravel = tree.ravel(params)
    for i, scale in enumerate((1.0, 2.0)):
        vector = scale * tree.ravel(params)[0]
        truth = np.asarray(jax.jit(jax.hessian(lambda v: fun(unravel(v), inputs)))(vector))
        of_point = lambda t: jax.tree.map(lambda leaf: leaf[i], t)
        close = lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
        close(matrices[i], truth)
        close(tree.ravel(of_point(products))[0], truth @ vector)
        assert jax.tree.structure(of_point(products)) == jax.tree.structure(params)
        close(np.sum(tree.ravel(of_point(entries.value))[0]), total.value[i])
        values = np.linalg.eigvalsh(truth)
        assert np.all((density.nodes[i] >= values[0] - 1e-12) & (density.nodes[i] <= values[-1] + 1e-12))
        close(8 * np.sum(density.weights[i] * density.nodes[i]), total.value[i])


def test_dense_hessian_traces_nothing_on_a_second_call():
    traced = []

    def fun(p, x):
        traced.append(1)
        return jnp.sum(jnp.tanh(x @ p["w"]) ** 2)

    params, inputs = {"w": jnp.ones((3, 2))}, jnp.ones((4, 3))
    dense_hessian(fun, params, (inputs,))
    first = len(traced)
    dense_hessian(fun, jax.tree.map(lambda a: 2 * a, params), (inputs + 1,))
    assert len(traced) == first
