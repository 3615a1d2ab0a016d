"""The combinators on 1 device, 8 emulated ones, and 2 processes of 4."""

import contextlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mlp_jax import checkpoint, devices
from several_devices.layouts import LAYOUTS, results_on


def work(mesh):
    """Sums, maps and means of 13 rows, which no number of devices above 1 divides."""
    rows, w = np.sin(np.arange(39.0)).reshape(13, 3), np.array([1.0, -2.0, 0.5])
    fun = devices.mean(lambda w, x: jnp.tanh(x @ w) ** 2, mesh)
    padded = devices.pad(rows, mesh)
    mapped = jax.jit(lambda x, w: devices.over_rows(lambda a, w: jnp.cumsum(a * w, axis=1), mesh, x, (w,)))(padded, w)
    total = jax.jit(lambda x: devices.sum_over_rows(lambda a: jnp.sum(a, axis=0), mesh, x))(padded[: 8 * (13 // 8)])
    hessian = jax.jit(jax.hessian(fun))(w, rows)
    if jax.process_count() == 1:
        require_gathered(padded, mesh)
    return devices.to_host(
        {"mean": jax.jit(fun)(w, rows), "gradient": jax.jit(jax.grad(fun))(w, rows), "hessian": hessian}
        | {"mapped": mapped, "total": total}
    )


def require_gathered(padded, mesh):
    """Arrays and keys that are split or on another device are restored on the first device."""
    split, last = NamedSharding(mesh, PartitionSpec("devices")), jax.devices()[-1]
    keys = jax.random.split(jax.random.key(0), 8)
    state = [jax.device_put(padded, split), jax.device_put(padded, last), jax.device_put(keys, split)]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(f"{folder}/state", state)
        got = checkpoint.restore(f"{folder}/state", state)
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in got)
    for leaf in got[:2]:
        np.testing.assert_array_equal(leaf, padded)
    np.testing.assert_array_equal(jax.random.key_data(got[2]), jax.random.key_data(keys))


@pytest.fixture(scope="module", params=LAYOUTS)
def results(request):
    return results_on(request.param, work)


def test_sums_maps_and_means_equal_those_of_numpy(results):
    rows, w = np.sin(np.arange(39.0)).reshape(13, 3), np.array([1.0, -2.0, 0.5])
    z = np.tanh(rows @ w)
    slope = 2 * z * (1 - z**2)
    bend = 2 * (1 - z**2) * (1 - 3 * z**2)
    for result in results:
        np.testing.assert_allclose(result["mean"], np.mean(z**2), rtol=1e-14)
        np.testing.assert_allclose(result["gradient"], np.mean(slope[:, None] * rows, axis=0), rtol=1e-13)
        np.testing.assert_allclose(result["hessian"], rows.T @ (bend[:, None] * rows) / 13, rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(result["mapped"][:13], np.cumsum(rows * w, axis=1))
        np.testing.assert_allclose(result["total"], rows[:8].sum(axis=0), rtol=1e-14)


@pytest.mark.parametrize("under", [contextlib.nullcontext, jax.set_mesh])
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("transform", [jax.jit, pytest.param(lambda fun: fun, marks=pytest.mark.slow, id="eager")])
def test_a_mesh_may_be_in_the_types_of_arrays_or_in_force(under, typed, transform):
    mesh = jax.make_mesh((1,), ("devices",))
    whole, split = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("devices")))
    fun = devices.mean(lambda w, x: (w * x - 1) ** 2, mesh)
    w, x = np.float32(2), np.arange(1, 5, dtype=np.float32)
    if typed:
        w, x = jax.device_put(w, whole), jax.device_put(x, split)
    with under(mesh):
        by_weight, by_row = transform(jax.grad(fun, (0, 1)))(w, x)
    np.testing.assert_allclose(by_weight, 25, rtol=1e-6)
    np.testing.assert_allclose(by_row, [1, 3, 5, 7], rtol=1e-6)


@pytest.mark.parametrize("members", [8, [], [0], jax.devices()[:1] * 2])
def test_a_mesh_of_devices_each_once_is_asked_for(members):
    mesh = jax.sharding.Mesh(np.array(members, object), ("devices",)) if isinstance(members, list) else members
    with pytest.raises((TypeError, ValueError), match=r"mesh: got .*, expected"):
        devices.mean(lambda w, x: w * x, mesh)
