"""Searches and sweeps on 1 device, 8 emulated ones, and 2 processes of 4, against the same calls without a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlp_jax import critical, losses, mlp, penalties, sweep
from mlp_jax.sweep import grid, spread
from several_devices import launch

KEY = jax.random.key(3)
ENDS = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])


def two_wells(x):
    """Minima at (±1, 0), a saddle of index 1 at the origin."""
    return (x[0] ** 2 - 1) ** 2 + x[1] ** 2


def starts():
    """Return 29, which 8 does not divide; one is not finite."""
    begin = np.random.default_rng(0).uniform(-1.5, 1.5, (29, 2))
    begin[7, 0] = np.nan
    return begin


def loss(params, inputs, targets, weights, key, decay):
    values = losses.cross_entropy(mlp.forward(params, inputs), targets)
    return losses.mean(values, weights) + penalties.l2(params, decay)


def init(key):
    return mlp.init(key, (6, 5, 3))


def record(inputs, targets, state):
    return losses.mean(losses.cross_entropy(mlp.forward(state.params, inputs), targets))


def searches(mesh, index=None):
    points = critical.find_many(two_wells, starts(), index=index, mesh=mesh)
    return {name: getattr(points, name) for name in ("params", "distance", "converged", "steps", "reason")}


def swept(mesh, **settings):
    """Three decays by five seeds: 8 devices take them as 2 × 4, of which the fullest has 2 × 2."""
    generator = np.random.default_rng(0)
    data = jnp.asarray(generator.normal(size=(25, 6))), jnp.asarray(generator.integers(0, 3, 25), np.int32)
    result = sweep.run(
        KEY, loss, init, data, batch_sizes=(10, 25), learning_rates=(0.1,), seeds=5, epochs=3,
        loss_settings={"decay": (0.0, 0.01, 0.1)}, record=jax.tree_util.Partial(record, *data), mesh=mesh, **settings,
    )  # fmt: skip
    leaves = jax.tree.leaves(result.params)
    return {"loss": result.loss, "record": result.record, "diverged": result.diverged_at} | {
        f"params {i}": leaf for i, leaf in enumerate(leaves)
    }


CALLS = {
    "searches": searches,
    "searches of index 1": lambda mesh: searches(mesh, index=1),
    "sweep": swept,
    "sweep, per batch size": lambda mesh: swept(mesh, programs="per batch size"),
    "sweep, a lane at once": lambda mesh: swept(mesh, lanes_at_once=1),
}


def work(mesh):
    found = {f"{call}: {name}": a for call, function in CALLS.items() for name, a in function(mesh).items()}
    return found


@pytest.fixture(scope="module")
def expected():
    with jax.enable_x64(True):
        return work(None)


@pytest.fixture(scope="module", params=[(1, 1), (1, 8), (2, 4)], ids=["1 device", "8 devices", "2 processes of 4"])
def results(request):
    return launch.run(work, *request.param)

def test_x(results, expected):
    for result in results:
        for name, a in expected.items():
            d = np.abs(np.where(np.isfinite(a), result[name]*1., 0) - np.where(np.isfinite(a), a*1., 0))
            print(name, np.array_equal(result[name], a, equal_nan=True), np.nanmax(d) if d.size else 0, a.shape, a.dtype)
