"""Searches and sweeps on 1 device, 8 emulated ones, and 2 processes of 4, against the same calls without a mesh."""

import contextlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import critical, losses, mlp, penalties, sweep
from mlp_jax.sweep import spread
from several_devices.layouts import LAYOUTS, results_on

pytestmark = pytest.mark.slow
KEY = jax.random.key(3)
ENDS = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
# 8 devices take them as 2 × 4, and so have two settings or one of one seed.
SEEDS, DECAYS = 3, (0.0, 0.01, 0.1)


def two_wells(x):
    """Minima at (±1, 0), a saddle of index 1 at the origin."""
    return (x[0] ** 2 - 1) ** 2 + x[1] ** 2


def starts():
    """Return 29, which 8 does not divide; one is not finite."""
    begin = np.random.default_rng(0).uniform(-1.5, 1.5, (29, 2))
    begin[7, 0] = np.nan
    return begin


def searches(mesh):
    points = critical.find_many(two_wells, starts(), mesh=mesh)
    return {name: getattr(points, name) for name in ("params", "distance", "converged", "steps", "reason")}


def loss(params, inputs, targets, weights, key, decay):
    values = losses.cross_entropy(mlp.forward(params, inputs), targets)
    return losses.mean(values, weights) + penalties.l2(params, decay)


init = lambda key: mlp.init(key, (6, 5, 3))


def record(inputs, targets, state):
    return losses.mean(losses.cross_entropy(mlp.forward(state.params, inputs), targets))


def swept(mesh, batch_sizes, **settings):
    rng = np.random.default_rng(0)
    data = jnp.asarray(rng.normal(size=(25, 6))), jnp.asarray(rng.integers(0, 3, 25), np.int32)
    result = sweep.run(
        KEY, loss, init, data, batch_sizes=batch_sizes, learning_rates=(0.1,), seeds=SEEDS, epochs=3,
        loss_settings={"decay": DECAYS}, record=jax.tree_util.Partial(record, *data), mesh=mesh, **settings,
    )  # fmt: skip
    numbers = {f"params {number}": leaf for number, leaf in enumerate(jax.tree.leaves(result.params))}
    return {"loss": result.loss, "record": result.record, "diverged": result.diverged_at} | numbers


CALLS = {
    "searches": searches,
    "one program": lambda mesh: swept(mesh, (10, 25)),
    "a lane at once": lambda mesh: swept(mesh, (10,), programs="per batch size", lanes_at_once=1),
}


def work(mesh):
    with compilations() as first, shards() as seen:
        found = {f"{call}: {name}": a for call, function in CALLS.items() for name, a in function(mesh).items()}
    with compilations() as again:
        for function in CALLS.values():
            function(mesh)
    return found | {"compiled": np.array([len(first), len(again)])} | seen


@contextlib.contextmanager
def compilations():
    """Give a list that grows with every program that is compiled."""
    counted = []
    count = lambda name, seconds, **_: counted.append(seconds) if name.endswith("/backend_compile_duration") else None
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        yield counted
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


@contextlib.contextmanager
def shards():
    """Give a dict with the shapes of what each device holds in the first call of a sweep."""
    seen, run = {}, spread._run_lanes

    def watched(*arguments, **settings):
        ends = run(*arguments, **settings)
        for name, a in {"orders": arguments[2], "losses": ends.loss}.items():
            seen.setdefault(f"shards of {name}", np.array([shard.data.shape for shard in a.addressable_shards]))
        return ends

    with mock.patch.object(spread, "_run_lanes", watched):
        yield seen


@pytest.fixture(scope="module")
def expected():
    with jax.enable_x64(True):
        return work(None)


@pytest.fixture(scope="module", params=LAYOUTS)
def results(request):
    return results_on(request.param, work)


def test_searches_end_at_the_known_points_with_the_bits_of_those_without_a_mesh(results, expected):
    bad = np.arange(29) == 7
    for result in results:
        ours, plain = ({k.split(": ")[1]: a for k, a in r.items() if "searches" in k} for r in (result, expected))
        np.testing.assert_array_equal(ours["converged"], ~bad)
        np.testing.assert_array_equal(ours["reason"] == critical.Reason.NOT_FINITE, bad)
        distances = np.linalg.norm(ours["params"][~bad, None] - ENDS, axis=-1)
        assert np.all(distances.min(axis=1) < 1e-12)
        assert set(distances.argmin(axis=1)) == {0, 1, 2}
        for name in plain:
            np.testing.assert_array_equal(ours[name], plain[name])


def test_a_sweep_is_the_one_without_a_mesh_and_a_lane_at_once_has_the_same_bits(results, expected):
    for result in results:
        for name in (name for name in expected if name.startswith(("one program", "a lane at once"))):
            tolerance = {"rtol": 1e-12, "atol": 1e-14} if name.startswith("one program") else {"rtol": 0}
            np.testing.assert_allclose(result[name], expected[name], **tolerance)


def test_each_device_holds_its_own_lanes_alone_and_a_second_call_compiles_nothing(results):
    for result in results:
        first, again = result["compiled"]
        assert first > again == 0
        devices = len(results) * len(result["shards of orders"])
        orders, losses = {1: ((3, 3, 25), (3, 3, 3)), 8: ((3, 1, 25), (2, 1, 3))}[devices]
        np.testing.assert_array_equal(np.unique(result["shards of orders"], axis=0), [orders])
        np.testing.assert_array_equal(np.unique(result["shards of losses"], axis=0), [losses])


def test_under_jit_a_number_of_starts_that_the_devices_do_not_divide_is_refused():
    eight = np.array([mock.Mock(spec=jax.Device) for _ in range(8)])
    mesh = mock.Mock(spec=jax.sharding.Mesh, size=8, devices=eight)
    with pytest.raises(ValueError, match="starts: got 29 for 8 devices"):
        jax.jit(lambda begin: critical.find_many(two_wells, begin, mesh=mesh))(starts())


def test_a_census_with_a_mesh_is_the_one_without():
    fun, draw = lambda x: jnp.sum((x**2 - 1) ** 2), lambda key: jax.random.normal(key, (2,))
    mesh = jax.make_mesh((1,), ("devices",))
    ours, plain = (critical.census(fun, draw, KEY, num_starts=100, mesh=m) for m in (mesh, None))
    np.testing.assert_array_equal(ours.params, plain.params)
    np.testing.assert_array_equal(ours.hits, plain.hits)
    assert sorted(ours.indices) == [0, 0, 0, 0, 1, 1, 1, 1, 2]
