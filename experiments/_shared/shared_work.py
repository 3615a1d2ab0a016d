"""The computations that `experiments.hosts` compares, each one call with `mesh=`."""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._shared import xor
from mlp_jax import critical, curvature, datasets, devices, losses, mlp, mlp_hessian, penalties, sweep, tree

DECAY = 1e-3
Arrays = dict[str, np.ndarray]


def _per_example(params: mlp.Params, x: jax.Array, y: jax.Array) -> jax.Array:
    return losses.cross_entropy(mlp.forward(params, x), y)


def _train_loss(params: mlp.Params, x: jax.Array, y: jax.Array, weights: jax.Array, key: jax.Array) -> jax.Array:
    return losses.mean(_per_example(params, x, y), weights)


def work(mesh: jax.sharding.Mesh | None, seed: int, quick: bool) -> Arrays:
    """Return the result of each computation as NAME, and its time as "NAME, seconds"."""
    key, results = jax.random.key(seed), {}
    pieces = {
        "sweep": _sweep,
        "find_many": _find_many,
        "Hessian": _hessian,
        "product, in chunks": _product,
        "eigenpairs": _eigenpairs,
        "verdict": _verdict,
    }
    for name, piece in pieces.items():
        began = time.perf_counter()
        results[name] = np.asarray(piece(mesh, key, quick))
        results[f"{name}, seconds"] = np.asarray(time.perf_counter() - began)
    return results


def _digits(quick: bool) -> tuple[np.ndarray, np.ndarray]:
    data = datasets.load("digits").train
    num = 100 if quick else 1000
    return np.asarray(data.inputs[:num], np.float64), np.asarray(data.targets[:num])


def _network(key: jax.Array, quick: bool) -> mlp.Params:
    return jax.tree.map(np.asarray, mlp.init(key, (64, 3 if quick else 8, 10), dtype=jnp.float64))


def _sweep(mesh: jax.sharding.Mesh | None, key: jax.Array, quick: bool) -> np.ndarray:
    init = functools.partial(mlp.init, sizes=(64, 8, 10), dtype=jnp.float64)
    result = sweep.run(
        key, _train_loss, init, _digits(quick), batch_sizes=(16, 64), learning_rates=(0.03, 0.1), seeds=4,
        epochs=1 if quick else 10, mesh=mesh,
    )  # fmt: skip
    return result.loss


def _find_many(mesh: jax.sharding.Mesh | None, key: jax.Array, quick: bool) -> np.ndarray:
    starts = jax.vmap(xor.init)(jax.random.split(key, 10 if quick else 200))
    points = critical.find_many(xor.loss, starts, xor.data("{0, 1}", 0.0), mesh=mesh)
    return np.asarray(jax.vmap(lambda p: tree.ravel(p)[0])(points.params))


def _hessian(mesh: jax.sharding.Mesh | None, key: jax.Array, quick: bool) -> jax.Array:
    x, y = map(jnp.asarray, _digits(quick))
    return mlp_hessian.dense(_network(key, quick), x, y, loss=losses.cross_entropy, mesh=mesh)


def _product(mesh: jax.sharding.Mesh | None, key: jax.Array, quick: bool) -> np.ndarray:
    params = _network(key, quick)

    @jax.jit
    def product(params: mlp.Params, x: Any, y: Any) -> jax.Array:
        matvec = curvature.hessian_of_mean(_per_example, params, (x, y), chunk_size=32, mesh=mesh)
        return tree.ravel(matvec(params))[0]

    return devices.to_host(product(params, *_digits(quick)))


def _decayed(mesh: jax.sharding.Mesh | None) -> Any:
    """Return the mean loss with weight decay, minus a linear term that can make any point critical."""
    mean = devices.mean(_per_example, mesh) if mesh else lambda p, x, y: losses.mean(_per_example(p, x, y))

    def fun(params: mlp.Params, x: Any, y: Any, tilt: Any) -> jax.Array:
        return mean(params, x, y) + penalties.l2(params, DECAY) - tree.dot(tilt, params)

    return fun


def _eigenpairs(mesh: jax.sharding.Mesh | None, key: jax.Array, quick: bool) -> np.ndarray:
    params = _network(key, quick)
    matvec = curvature.hessian_of_mean(_per_example, params, _digits(quick), mesh=mesh)
    pairs = curvature.eigenpairs(matvec, params, key, smallest=3, largest=3, dense_limit=0, mesh=mesh)
    if not np.all(pairs.converged):
        raise RuntimeError("eigenpairs: got a residual above its tolerance.")
    return np.asarray(pairs.values)


def _verdict(mesh: jax.sharding.Mesh | None, key: jax.Array, quick: bool) -> np.ndarray:
    """Return the inertia at a point that the linear term makes critical."""
    params, fun = _network(key, quick), _decayed(mesh)
    args = _digits(quick)
    zero = jax.tree.map(np.zeros_like, params)
    tilt = devices.to_host(jax.jit(jax.grad(fun))(params, *args, zero))
    return np.asarray(critical.classify(fun, params, (*args, tilt)).inertia[:3])


def work_of_process(mesh: jax.sharding.Mesh, seed: str, quick: str) -> Arrays:
    """Return the result of `work`, for arguments that are strings."""
    return work(mesh, int(seed), quick == "quick")
