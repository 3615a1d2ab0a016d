"""Curvature of a mean over examples that are split over devices: on 1 device, 8 emulated ones, and 2 processes of 4.

The oracles are `jax.hessian` of the plain loss, in this process, and matrices whose eigenvalues are chosen.
"""

import itertools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import scaling_examples
from experiments._shared import processes
from mlp_jax import critical, curvature, devices, losses, mlp, mlp_hessian, penalties, tree
from mlp_jax.curvature import precision
from several_devices.layouts import LAYOUTS, results_on

pytestmark = pytest.mark.slow

SIZE, EXAMPLES = 53, 37  # no number of devices above 1 divides the examples, nor 8 the parameters
EVEN = 32
SPECTRUM = np.concatenate([[-1.0] * 3, np.linspace(0, 1, 50), [4.0] * 4])
OPERATORS = ("hessian", "hessian, weighted by 2", "ggn", "ggn by 2", "fisher by 2", "sampled by 2", "empirical")


def problem():
    numbers = np.random.default_rng(0)
    params = jax.tree.map(np.asarray, mlp.init(jax.random.key(0), (6, 5, 3)))
    inputs, targets = numbers.normal(size=(EXAMPLES, 6)), numbers.integers(0, 3, EXAMPLES)
    vector = jax.tree.map(lambda a: numbers.normal(size=a.shape), params)
    return params, (inputs, targets), vector, numbers.uniform(size=EXAMPLES)


per_example = lambda params, x, y: losses.cross_entropy(mlp.forward(params, x), y)
penalty = lambda params: penalties.l2(params, 0.1)
plain = lambda params, x, y: jnp.mean(per_example(params, x, y)) + penalty(params)


def operator(name, params, args, weights, mesh):
    """The matvec of a name: which matrix, in chunks of 2 or not, weighted or not."""
    options = {"chunk_size": 2 if "by 2" in name else None, "mesh": mesh}
    if "hessian" in name:
        weights = weights if "weighted" in name else None
        return curvature.hessian_of_mean(per_example, params, args, weights=weights, **options)
    if "sampled" in name:
        options |= {"sample": jax.random.categorical, "key": jax.random.key(1)}
    make = {"g": curvature.ggn, "e": curvature.empirical_fisher}.get(name[0], curvature.fisher)
    return make(mlp.forward, losses.cross_entropy, params, args, **options)


def chosen():
    """A symmetric matrix with the spectrum above: multiple eigenvalues at both ends."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(len(SPECTRUM), len(SPECTRUM))))[0]
    return (turn * SPECTRUM) @ turn.T


def work(mesh):
    params, args, vector, weights = problem()
    mean = devices.mean(per_example, mesh)

    def fun(params, x, y):
        return mean(params, x, y) + penalty(params)

    hessian = jax.jit(lambda p, a: mlp_hessian.dense(p, *a, loss=losses.cross_entropy, weights=weights, mesh=mesh))
    results = {"gradient": jax.jit(jax.grad(fun))(params, *args), "hessian of mean": hessian(params, args)}
    results["blocks"] = mlp_hessian.blocks(
        params, *args, layers=(1, 0), loss=losses.cross_entropy, penalty=penalty, mesh=mesh
    )
    results["dense"] = curvature.dense_hessian(fun, params, args)
    products = jax.jit(
        lambda p, a, v: {name: operator(name, p, a, weights, mesh)(v) for name in OPERATORS}
    )(params, args, vector)  # fmt: skip
    results = {name: jax.flatten_util.ravel_pytree(devices.to_host(value))[0] for name, value in results.items()}
    results |= {name: tree.ravel(devices.to_host(value))[0] for name, value in products.items()}
    return results | split_arrays(mesh, fun) | eigenvalues(mesh, fun) | verdicts(fun)


def split_arrays(mesh, fun):
    """The Hessian from float32 data split over processes, and the error for a NaN in one part."""
    params, args, _, _ = problem()
    inputs, targets = devices.split((args[0].astype(np.float32)[:EVEN], args[1][:EVEN]), mesh)
    spoilt = devices.split(np.where(np.arange(EVEN)[:, None] == EVEN - 1, np.nan, args[0][:EVEN]), mesh)
    try:
        curvature.dense_hessian(fun, params, (spoilt, targets))
        said = ""
    except ValueError as error:
        said = str(error)
    dense = devices.to_host(curvature.dense_hessian(fun, params, (inputs, targets)))
    promoted = precision.promote(inputs)
    held = [shard.data.shape[0] * mesh.size for shard in promoted.addressable_shards]
    return {"from parts": dense, "said": said, "held": held}


def eigenvalues(mesh, fun):
    params, args, _, _ = problem()
    matvec = jax.tree_util.Partial(lambda p, a, v: curvature.hessian(fun, p, a)(v), params, args)
    options = {"smallest": 2, "largest": 3, "tolerance": 1e-10, "dense_limit": 0}
    pairs = curvature.eigenpairs(matvec, params, jax.random.key(0), mesh=mesh, **options)
    results = {"eigenvalues": pairs.values, "settled": [pairs.converged.all(), pairs.complete]}
    matrix = jax.tree_util.Partial(jnp.matmul, chosen())
    for name, more in {"restarts": {"basis_size": 34}, "blocks of 3": {"block_size": 3}}.items():
        pairs = curvature.eigenpairs(matrix, SPECTRUM, jax.random.key(0), mesh=mesh, **options | more)
        results[f"multiple, {name}"] = pairs.values
        results[f"settled, {name}"] = [pairs.converged.all(), pairs.complete]
        results[f"orthonormal, {name}"] = np.asarray(pairs.vectors) @ np.asarray(pairs.vectors).T
    key = jax.random.key(2)
    density = jax.jit(lambda m: curvature.spectral_density(m, params, key, num_probes=2, num_steps=8))(matvec)
    return results | {"nodes": devices.to_host(density.nodes)}


def verdicts(fun):
    """Verdicts at params, which a linear term makes a critical point."""
    params, args, _, _ = problem()
    slope = jax.tree.map(np.asarray, jax.jit(jax.grad(plain))(params, *args))

    def tilted(params, x, y, slope):
        return fun(params, x, y) - tree.dot(slope, params)

    dense, products = (critical.classify(tilted, params, (*args, slope), evidence=e) for e in ("dense", "lanczos"))
    return {"kinds": [dense.kind, products.kind], "inertia": dense.inertia[:3]}


@pytest.fixture(scope="module", params=LAYOUTS)
def results(request):
    return results_on(request.param, work)


@pytest.fixture(scope="module")
def oracle():
    """The same gradients, matrices and products by nested differentiation of the plain loss on one device."""
    with jax.enable_x64(True):
        params, args, vector, weights = problem()
        flat, unravel = tree.ravel(params)
        first = args[0].astype(np.float32).astype(np.float64)[:EVEN], args[1][:EVEN]
        per_row = lambda v, rows=args: per_example(unravel(v), *rows)
        hessian = lambda rows: jax.jit(jax.hessian(lambda v: per_row(v, rows)))(flat)
        hessians, decay = hessian(args), 0.1 * np.eye(SIZE)
        gradients = jax.jit(jax.jacobian(per_row))(flat)
        jacobian = jax.jit(jax.jacobian(lambda v: mlp.forward(unravel(v), args[0])))(flat)
        shares = jax.nn.softmax(mlp.forward(params, args[0]))
        bend = jnp.einsum("nk,kl->nkl", shares, jnp.eye(3)) - jnp.einsum("nk,nl->nkl", shares, shares)
        ggn = jnp.einsum("nkp,nkl,nlq->pq", jacobian, bend, jacobian) / EXAMPLES
        mean, weighted = jnp.mean(hessians, axis=0), jnp.tensordot(weights, hessians, 1) / jnp.sum(weights)
        # The Fisher matrix of a softmax with cross-entropy is its Gauss–Newton matrix.
        matrices = mean, weighted, ggn, ggn, ggn, None, gradients.T @ gradients / EXAMPLES
        products = {n: m @ tree.ravel(vector)[0] for n, m in zip(OPERATORS, matrices, strict=True) if m is not None}
        sampled = jax.jit(lambda p, a, v: operator("sampled", p, a, None, None)(v))(params, args, vector)
        return jax.tree.map(np.asarray, products | {
            "gradient": jnp.mean(gradients, axis=0) + 0.1 * flat,
            "dense": mean + decay,
            "hessian of mean": weighted,
            "blocks": (mean + decay)[35:, :35],
            "from parts": jnp.mean(hessian(first), axis=0) + decay,
            "sampled by 2": tree.ravel(sampled)[0],
        })  # fmt: skip


def test_gradients_matrices_products_and_drawn_targets_equal_those_of_one_device_for_any_chunks(results, oracle):
    for result, (name, expected) in itertools.product(results, oracle.items()):
        found = result[name].reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.max(np.abs(expected)), err_msg=name)


def test_arrays_split_over_processes_are_accepted_and_checked(results):
    for result in results:
        assert set(result["held"].tolist()) == {EVEN}
        assert result["said"] == "args[0]: got 6 numbers that are NaN or infinite, expected finite numbers."


def test_a_split_basis_finds_the_ends_of_a_spectrum(results, oracle):
    values = np.linalg.eigvalsh(oracle["dense"])
    for result in results:
        np.testing.assert_allclose(result["eigenvalues"], values[[0, 1, -3, -2, -1]], rtol=0, atol=1e-10)
        assert result["settled"].all()


@pytest.mark.parametrize("name", ["restarts", "blocks of 3"])
def test_a_split_basis_misses_no_copy_of_an_eigenvalue(results, name):
    for result in results:
        np.testing.assert_allclose(result[f"multiple, {name}"], [-1, -1, 4, 4, 4], rtol=0, atol=1e-9)
        np.testing.assert_allclose(result[f"orthonormal, {name}"], np.eye(5), rtol=0, atol=1e-12)
        assert result[f"settled, {name}"].all()


def test_a_spectral_density_equals_that_of_the_matrix(results, oracle):
    with jax.enable_x64(True):
        params, key = problem()[0], jax.random.key(2)
        matvec = lambda v: tree.ravel(v)[1](oracle["dense"] @ tree.ravel(v)[0])
        nodes = curvature.spectral_density(matvec, params, key, num_probes=2, num_steps=8).nodes
    for result in results:
        np.testing.assert_allclose(result["nodes"], nodes, rtol=0, atol=1e-9)


def test_a_verdict_is_the_same_on_any_devices(results, oracle):
    values = np.linalg.eigvalsh(oracle["dense"])
    assert np.min(np.abs(values)) > 1e-6
    for result in results:
        assert result["kinds"].tolist() == ["saddle", "saddle"]
        assert result["inertia"].tolist() == [np.sum(values < 0), 0, np.sum(values > 0)]


def communication(mesh):
    sent = {}
    for name, compiled in scaling_examples.programs(mesh, (6, 5, 3), 40, 32).items():
        kinds, numbers = zip(*scaling_examples.collectives(compiled), strict=True)
        sent |= {f"kinds {name}": kinds, f"numbers {name}": numbers}
        sent[f"memory {name}"] = compiled.memory_analysis().argument_size_in_bytes
    return sent


def test_a_product_sends_one_sum_of_the_size_of_the_parameters():
    sent = processes.run(communication, 1, 8)[0]
    for name in ("product", "product by 1"):
        assert sent[f"kinds {name}"].tolist() == ["all-reduce"]
        assert sent[f"numbers {name}"].tolist() == [SIZE]
    assert sorted(sent["numbers gradient"]) == [1, SIZE]
    assert sent["kinds dense Hessian"].tolist() == ["all-reduce"]
    assert sent["numbers dense Hessian"].sum() < SIZE**2 / 2
    assert sorted(sent["numbers Gram–Schmidt pass"]) == [1, 32]
    assert sent["kinds gather for a product"].tolist() == ["all-gather"]
    assert sent["numbers gather for a product"].tolist() == [56]  # the parameters, padded
    for name in ("Gram–Schmidt pass", "gather for a product"):
        assert sent[f"memory {name}"] < 8 * 32 * SIZE / 6  # of a basis of 32 vectors


def test_lower_precision_is_seen_inside_the_devices():
    mesh = jax.make_mesh((1,), ("devices",))
    for dtype, unit in ((jnp.float64, 2.0**-53), (jnp.float32, 2.0**-24)):
        fun = devices.mean(lambda p, x, dtype=dtype: (p * x).astype(dtype).astype(p.dtype), mesh)
        assert curvature.rounding_unit(fun, np.ones(()), (np.ones(3),)) == unit
