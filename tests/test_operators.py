"""Hessian, Gauss–Newton and Fisher products against explicit Jacobians, in float64, on networks and foreign models."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.ode import odeint

from mlp_jax import losses, mlp, tree
from mlp_jax.curvature.information import empirical_fisher, fisher
from mlp_jax.curvature.matrices import dense_hessian
from mlp_jax.curvature.operators import ggn, hessian, hessian_of_mean, hessian_product

N, CLASSES = 10, 3


def network(params, inputs):
    return mlp.forward(params, inputs, activation=jnp.tanh)


def classify(params, inputs, targets):
    return losses.cross_entropy(network(params, inputs), targets)


def regress(params, inputs, targets):
    return losses.squared_error(network(params, inputs), targets)


def poisson(outputs, targets):
    """−log p of counts with log-rate z, up to a constant; its second derivative, exp(z), reads no target."""
    return jnp.sum(jnp.exp(outputs) - targets * outputs, axis=-1)


def student(outputs, targets):
    """−log p of Student's t with 5 degrees of freedom, up to a constant: its curvature depends on the residual."""
    return 3 * jnp.sum(jnp.log1p((outputs - targets) ** 2 / 5), axis=-1)


def example(num_outputs=CLASSES, seed=0):
    """A tanh network 4-5-outputs, inputs, class numbers, outputs to fit, and weights with a zero among them."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape))
    params = (mlp.Layer(draw(4, 5), draw(5)), mlp.Layer(draw(5, num_outputs), draw(num_outputs)))
    weights = np.where(np.arange(N) == 3, 0, rng.uniform(0.5, 2.0, N))
    return params, draw(N, 4), jnp.asarray(rng.integers(0, num_outputs, N)), draw(N, num_outputs), jnp.asarray(weights)


def as_matrix(make, params, *data):
    """The matrix of make(params, *data), made and applied inside jit."""

    def columns(p, *rest):
        flat, unravel = tree.ravel(p)
        matvec = make(p, *rest)
        return jax.lax.map(lambda v: tree.ravel(matvec(unravel(v)))[0], jnp.eye(flat.size, dtype=flat.dtype))

    return np.asarray(jax.jit(columns)(params, *data)).T


def jacobian(of, params):
    """Derivative of `of` in the flat params, by jax.jacrev."""
    flat, unravel = tree.ravel(params)
    return np.asarray(jax.jit(jax.jacrev(lambda v: of(unravel(v))))(flat))


def explicit_hessian(fun, params):
    flat, unravel = tree.ravel(params)
    return np.asarray(jax.jit(jax.hessian(lambda v: fun(unravel(v))))(flat))


def explicit_ggn(loss, params, inputs, targets, weights):
    single = lambda z, t: loss(z[None], t[None])[0]
    inner = jax.jit(jax.vmap(jax.hessian(single)))(network(params, inputs), targets)
    jac = jacobian(lambda p: network(p, inputs), params)
    return np.einsum("n,nip,nij,njq->pq", np.asarray(weights) / np.sum(weights), jac, inner, jac)


def close(ours, theirs, rtol=1e-12):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=rtol * np.max(np.abs(theirs)))


pytestmark = pytest.mark.usefixtures("x64")


def decay(params):
    """½ Σ y(1)² for dy/dt = −k y, y(0) = y₀, by a solver whose backward pass has no forward mode."""
    start, rates = params["start"], params["rates"]
    times = jnp.array([0.0, 1.0])
    return jnp.sum(odeint(lambda y, t, k: -k * y, start, times, rates, rtol=1e-11, atol=1e-11)[-1] ** 2) / 2


@pytest.mark.slow
def test_the_hessian_of_the_solution_of_a_differential_equation_is_its_closed_form():
    y, k = np.array([1.0, -0.5, 2.0]), np.array([0.3, 1.0, -0.2])
    params = {"rates": jnp.asarray(k), "start": jnp.asarray(y)}
    factor = np.exp(-2 * k)
    mixed = np.diag(-2 * y * factor)
    expected = np.block([[np.diag(2 * y**2 * factor), mixed], [mixed, np.diag(factor)]])
    close(dense_hessian(decay, params), expected, 1e-7)
    close(as_matrix(lambda p: lambda v: hessian_product(decay)(p, (), v), params), expected, 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [losses.squared_error, student, poisson])
def test_ggn_and_fisher_have_their_closed_forms(loss):
    params, x, _, targets, weights = example()
    ours = as_matrix(lambda p: ggn(network, loss, p, (x, targets), weights=weights), params)
    expected = explicit_ggn(loss, params, x, targets, weights)
    close(ours, expected)
    if loss is not student:  # for student, the curvature in z depends on the target
        close(as_matrix(lambda p: fisher(network, loss, p, (x, targets), weights=weights), params), expected)


@pytest.mark.slow
def test_ggn_is_the_hessian_where_every_residual_is_zero_and_of_a_linear_model():
    params, x, y, _, weights = example()
    targets, features = network(params, x), jnp.tanh(x @ params[0].weight)
    for loss, per_example, p, data in (
        (losses.squared_error, regress, params, (x, targets)),
        (losses.cross_entropy, classify, params[1:], (features, y)),
    ):
        ours = as_matrix(lambda p: ggn(network, loss, p, data, weights=weights), p)
        close(ours, explicit_hessian(lambda p: losses.mean(per_example(p, *data), weights), p))


def test_ggn_of_a_model_with_a_pytree_of_outputs_adds_up():
    params, x, y, t, _ = example()
    both = lambda p, x: {"logits": network(p, x), "values": network(p, 2 * x)}
    loss = lambda z, t: losses.cross_entropy(z["logits"], t[0]) + losses.squared_error(z["values"], t[1])
    ours = as_matrix(lambda p: ggn(both, loss, p, (x, (y, t)), chunk_size=4), params)
    parts = explicit_ggn(losses.cross_entropy, params, x, y, np.ones(N))
    close(ours, parts + explicit_ggn(losses.squared_error, params, 2 * x, t, np.ones(N)))


def test_fisher_is_the_expected_second_moment_of_scores_and_not_the_ggn_if_outputs_are_not_natural_parameters():
    """With probabilities ∝ z² + 0.1, ∂²loss/∂z² depends on the class, and only the sum over classes is the Fisher."""
    params, x, y, _, _ = example()
    squares = lambda z, y: losses.cross_entropy(jnp.log(z**2 + 0.1), y)
    probabilities = jax.nn.softmax(jnp.log(network(params, x) ** 2 + 0.1))
    at_class = lambda p, k: squares(network(p, x), jnp.full(N, k))
    scores = jacobian(lambda p: jax.vmap(lambda k: at_class(p, k))(jnp.arange(CLASSES)), params)
    ours = as_matrix(lambda p: fisher(network, squares, p, (x, y)), params)
    close(ours, np.einsum("nk,knp,knq->pq", probabilities, scores, scores) / N)
    assert np.max(np.abs(ours - explicit_ggn(squares, params, x, y, np.ones(N)))) > 0.01 * np.max(ours)


def test_fisher_from_draws_is_the_exact_one_within_its_spread():
    """Of Gaussian outputs: the mean of S draws of g gᵀ, Wishart entries of variance (FᵢᵢFⱼⱼ + Fᵢⱼ²) a rank-one term."""
    params, x, _, t, _ = example(num_outputs=1)
    draw = lambda key, z: z + jax.random.normal(key, z.shape, z.dtype)
    count = 4000
    options = {"sample": draw, "key": jax.random.key(0), "num_samples": count}
    make = lambda p: fisher(network, losses.squared_error, p, (x, t), **options)
    jac = jacobian(lambda p: network(p, x)[:, 0], params)
    exact = jac.T @ jac / N
    spread = np.sqrt(2 * np.einsum("np,nq->pq", jac**2, jac**2) / count) / N
    assert np.max(np.abs(as_matrix(make, params) - exact) / (spread + 1e-15)) < 5


def test_fisher_from_draws_holds_the_draws_fixed_though_they_move_with_params():
    """A draw z + ε differentiated through z would give a score of zero."""
    params, x, _, t, _ = example()
    draw = lambda key, z: z + 2.0
    options = {"sample": draw, "key": jax.random.key(0)}
    ours = as_matrix(lambda p: fisher(network, losses.squared_error, p, (x, t), **options), params)
    scores = 2 * jacobian(lambda p: jnp.sum(network(p, x), axis=1), params)
    close(ours, scores.T @ scores / N)


DRAWN = {"sample": jax.random.categorical, "key": jax.random.key(7), "num_samples": 2}
OPERATORS = {
    "hessian_of_mean": lambda p, x, y, **options: hessian_of_mean(classify, p, (x, y), **options),
    "ggn": lambda p, x, y, **options: ggn(network, losses.cross_entropy, p, (x, y), **options),
    "fisher": lambda p, x, y, **options: fisher(network, losses.cross_entropy, p, (x, y), **options),
    "fisher from draws": lambda p, x, y, **options: fisher(
        network, losses.cross_entropy, p, (x, y), **DRAWN, **options
    ),
    "empirical": lambda p, x, y, **options: empirical_fisher(network, losses.cross_entropy, p, (x, y), **options),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_matrices_are_symmetric_definite_where_they_must_be_and_independent_of_the_partition(name):
    params, x, y, _, weights = example()
    sizes = None, 1, 7, N + 5
    matvecs = lambda p, w: [OPERATORS[name](p, x, y, weights=w, chunk_size=size) for size in sizes]
    together = lambda p, w: lambda v: [matvec(v) for matvec in matvecs(p, w)]
    whole, *others = np.split(as_matrix(together, params, weights), len(sizes))
    close(whole, whole.T, rtol=1e-14)
    for matrix in others:
        close(matrix, matrix.T, rtol=1e-14)
        close(matrix, whole, rtol=1e-13)
    least = np.min(np.linalg.eigvalsh((whole + whole.T) / 2))
    assert least < 0 if name == "hessian_of_mean" else least > -1e-14 * np.max(np.abs(whole))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chunk_size"), [("fisher", 4), ("hessian_of_mean", None)])
def test_products_work_under_jit_and_vmap_of_points_and_vectors(name, chunk_size):
    pairs = [(example(seed=seed)[0], example(seed=seed + 2)[0]) for seed in (0, 1)]
    _, x, y, _, _ = example()
    product = jax.jit(lambda p, v: tree.ravel(OPERATORS[name](p, x, y, chunk_size=chunk_size)(v))[0])
    together = jax.jit(jax.vmap(product))(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs))
    close(together, jnp.stack([product(p, v) for p, v in pairs]), rtol=1e-13)


@pytest.mark.slow
def test_products_can_be_differentiated():
    """The gradient of vᵀHv in the point is the third derivative along v, v."""
    params, x, y, _, _ = example()
    vector = tree.random_like(jax.random.key(1), params)
    flat, unravel = tree.ravel(params)
    along = lambda p, t: jnp.mean(classify(unravel(p + t * tree.ravel(vector)[0]), x, y))
    theirs = jax.jit(jax.grad(lambda p: jax.grad(jax.grad(along, 1), 1)(p, 0.0)))(flat)
    for chunk_size in (None, 4):
        ours = lambda p: tree.dot(vector, hessian_of_mean(classify, p, (x, y), chunk_size=chunk_size)(vector))
        close(tree.ravel(jax.jit(jax.grad(ours))(params))[0], theirs)


@pytest.mark.slow
def test_memory_of_a_streaming_product_does_not_grow_with_the_examples():
    params = (mlp.Layer(jnp.ones((4, 300)), jnp.ones(300)), mlp.Layer(jnp.ones((300, 3)), jnp.ones(3)))

    def temporary_bytes(name, num, chunk_size):
        args = (params, jax.ShapeDtypeStruct((num, 4), float), jax.ShapeDtypeStruct((num,), int))
        product = lambda p, x, y: OPERATORS[name](p, x, y, chunk_size=chunk_size)(p)
        return jax.jit(product).lower(*args).compile().memory_analysis().temp_size_in_bytes

    for name in ("hessian_of_mean", "ggn"):
        small, large = (temporary_bytes(name, num, 100) for num in (1_000, 40_000))
        # An example's weight and a share of its data may grow, its 300 hidden units may not.
        assert large - small < 40_000 * 8 * 12
        assert temporary_bytes(name, 40_000, None) > 40_000 * 8 * 300


# Any pytree, and a model of another library, as a closure.


class Pair(NamedTuple):
    weight: jax.Array
    bias: jax.Array


def check_model(model, params):
    """All operators of a model against the Hessian and the Jacobian of its flat function."""
    _, x, y, _, weights = example()
    flat, unravel = tree.ravel(params)
    values = lambda p, x, y: losses.cross_entropy(model(p, x), y)
    mean_loss = lambda p, x, y: losses.mean(values(p, x, y), weights)
    options = {"weights": weights, "chunk_size": 4}
    parts = {
        "hessian": lambda p: hessian(mean_loss, p, (x, y)),
        "mean": lambda p: hessian_of_mean(values, p, (x, y), weights=weights),
        "ggn": lambda p: ggn(model, losses.cross_entropy, p, (x, y), **options),
        "fisher": lambda p: fisher(model, losses.cross_entropy, p, (x, y), weights=weights),
        "empirical": lambda p: empirical_fisher(model, losses.cross_entropy, p, (x, y), **options),
    }

    @jax.jit
    def matrices(p):
        columns = lambda matvec: jax.vmap(lambda v: tree.ravel(matvec(unravel(v)))[0], out_axes=1)(jnp.eye(flat.size))
        return {name: columns(make(p)) for name, make in parts.items()}

    @jax.jit
    def oracles(v):
        share = weights / jnp.sum(weights)
        inner = jax.vmap(jax.hessian(jax.nn.logsumexp))(model(unravel(v), x))
        jac = jax.jacrev(lambda v: model(unravel(v), x))(v)
        scores = jax.jacrev(lambda v: values(unravel(v), x, y))(v)
        full = jax.hessian(lambda v: share @ values(unravel(v), x, y))(v)
        sandwich = jnp.einsum("n,nip,nij,njq->pq", share, jac, inner, jac)
        second = jnp.einsum("n,np,nq->pq", share, scores, scores)
        return {"hessian": full, "mean": full, "ggn": sandwich, "fisher": sandwich, "empirical": second}

    ours, theirs = matrices(params), oracles(flat)
    for name in parts:
        close(ours[name], theirs[name])
    close(dense_hessian(mean_loss, params, (x, y)), theirs["hessian"])


@pytest.mark.slow
def test_operators_of_a_network_are_those_of_its_jacobian():
    check_model(network, example()[0])


@pytest.mark.slow
def test_operators_of_any_pytree_of_params_are_those_of_its_jacobian():
    rng = np.random.default_rng(5)
    params = {"layer": [Pair(rng.standard_normal((4, CLASSES)), jnp.asarray(rng.standard_normal(CLASSES)))]}
    check_model(lambda p, inputs: jnp.tanh(inputs @ p["layer"][0].weight + p["layer"][0].bias), params)
    product = hessian(lambda p: jnp.sum(p["layer"][0].weight ** 2), params)(params)
    assert jax.tree.structure(product) == jax.tree.structure(params)


@pytest.mark.slow
@pytest.mark.implicit_promotion
def test_operators_of_a_state_of_flax_nnx_are_those_of_its_jacobian():
    graph, state = nnx.split(nnx.Linear(4, CLASSES, param_dtype=float, rngs=nnx.Rngs(0)))
    check_model(lambda s, inputs: jnp.tanh(nnx.merge(graph, s)(inputs)), state)


def test_dense_hessian_traces_nothing_on_a_second_call():
    traced = []

    def fun(p, x):
        traced.append(1)
        return jnp.sum(jnp.tanh(x @ p["w"]) ** 2)

    dense_hessian(fun, {"w": np.ones((3, 2))}, (np.ones((4, 3)),))
    first = len(traced)
    dense_hessian(fun, {"w": np.zeros((3, 2))}, (np.zeros((4, 3)),))
    assert len(traced) == first


def test_float32_stays_float32():
    params, x, y, _, weights = example()
    params, x = jax.tree.map(lambda a: a.astype(jnp.float32), (params, x))
    for name, make in OPERATORS.items():
        product = jax.eval_shape(lambda p: make(p, x, y, weights=weights, chunk_size=4)(p), params)
        assert {leaf.dtype for leaf in jax.tree.leaves(product)} == {jnp.dtype("float32")}, name


# Errors: what, got, expected, before anything is compiled.


def given(**change):
    params, x, y, _, _ = example()
    return {"model": network, "loss": losses.cross_entropy, "params": params, "args": (x, y)} | change


@pytest.mark.parametrize("make", [ggn, fisher, empirical_fisher])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"args": (np.ones((2, 4)),)}, TypeError, "args: got 1 items, expected a pair"),
        ({"args": (np.ones((2, 4)), np.zeros(3, int))}, ValueError, "args.*first axes of one length"),
        ({"args": (np.full((2, 4), np.nan), np.zeros(2, int))}, ValueError, r"args\[0\]: got 8 numbers that are NaN"),
        ({"loss": lambda z, y: z**2}, ValueError, r"loss: got .*\(10, 3\), expected shape \(10,\)"),
        ({"chunk_size": 0}, ValueError, "chunk_size: got 0"),
        ({"weights": np.ones(9)}, ValueError, r"weights: got shape \(9,\), expected \(10,\)"),
        ({"weights": np.zeros(10)}, ValueError, "weights: got numbers from 0.0 to 0.0"),
    ],
)
def test_wrong_arguments_are_named(make, change, error, message):
    with pytest.raises(error, match=message):
        make(**given(**change))


def test_a_function_that_returns_no_scalar_has_no_hessian():
    with pytest.raises(TypeError, match=r"fun: got a result of shape \(2,\)"):
        hessian(lambda p: p, jnp.ones(2))
    with pytest.raises(ValueError, match=r"per_example: got .*expected shape \(2,\)"):
        hessian_of_mean(lambda p, x: jnp.sum(x @ p), jnp.ones(4), (jnp.ones((2, 4)),))


def test_integers_of_64_bits_among_args_are_not_refused():
    fun = lambda p, n: jnp.sum(p**2) * (n % 7)
    np.testing.assert_allclose(dense_hessian(fun, jnp.ones(2), (2**40,)), 2 * (2**40 % 7) * np.eye(2))


def test_fisher_without_a_known_expectation_is_refused():
    params, x, _, t, _ = example()
    with pytest.raises(TypeError, match=r"sample: got None, but the Fisher .* float64.*expected sample="):
        fisher(network, student, params, (x, t))
    with pytest.raises(TypeError, match="sample: got None with a key"):
        fisher(network, losses.squared_error, params, (x, t), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"sample: got leaves of shapes \(10,\), expected .* \(10, 3\)"):
        fisher(network, student, params, (x, t), sample=lambda key, z: z[0], key=jax.random.key(0))


def test_values_that_do_not_follow_their_chunk_are_refused():
    matvec = hessian_of_mean(lambda p, x: p * jnp.ones(10), jnp.ones(()), (jnp.ones(10),), chunk_size=3)
    with pytest.raises(ValueError, match=r"loss: got shape \(10,\) for 3 examples, expected one value"):
        matvec(jnp.ones(()))


def test_a_zero_weight_keeps_its_place_whatever_the_number_of_chunks():
    """One example of weight 1 among zeros: the mean is that example's Hessian, wherever the chunks fall."""
    values = lambda p, x: x * p**2 / 2
    inputs = jnp.arange(1.0, 8.0)
    for size in (2, 5):
        product = lambda w: hessian_of_mean(values, jnp.array(1.0), (inputs,), weights=w, chunk_size=size)(
            jnp.array(1.0)
        )
        np.testing.assert_array_equal(jax.jit(jax.vmap(product))(jnp.eye(7)), inputs)
