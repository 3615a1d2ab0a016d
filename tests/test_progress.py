"""Long computations report how far they are, in their own unit of work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import critical, curvature, interval

SCALES = np.linspace(1, 3, 60)
wells = lambda x, scales: jnp.dot(scales, (x**2 - 1) ** 2)
two_wells = lambda x: jnp.sum((x**2 - 1) ** 2)
scaled = lambda x, factor: factor * two_wells(x)
two = lambda key: jax.random.normal(key, (2,))


def eigenpairs(progress):
    matvec = lambda v: jnp.arange(1.0, 1501.0) * v
    pairs = curvature.eigenpairs(
        matvec, jnp.zeros(1500), jax.random.key(0), largest=1, tolerance=1e-4, progress=progress
    )
    return pairs.num_matvecs, 1200


def find(progress):
    point = critical.find(wells, np.full(60, 0.8), (SCALES,), progress=progress)
    return int(point.steps), 500


def find_many(progress):
    critical.find_many(wells, np.full((3, 60), 0.8), (SCALES,), progress=progress)
    return 3, 3


def find_many_in_one_program(progress):
    critical.find_many(two_wells, np.full((3, 2), 0.8), progress=progress)
    return 3, 3


def census(progress):
    found = critical.census(two_wells, two, jax.random.key(0), num_starts=20, passes=3, progress=progress)
    return found.num_starts, 60


def classify(progress):
    critical.classify(wells, np.ones(60), (SCALES,), progress=progress)
    return None, 5


def certify(progress):
    interval.certify(two_wells, np.ones(2), wide=False, progress=progress)
    return 2, 2


def descents(progress):
    critical.descents(two_wells, np.zeros(2), jax.random.key(0), number=4, progress=progress)
    return 4, 4


def network(progress):
    critical.network(two_wells, np.array([[0.0, 0.0], [0.0, 1.0]]), jax.random.key(0), progress=progress)
    return 2, 2


def path(progress):
    ends = np.array([[-1.0, 1.0], [1.0, 1.0]])
    critical.path(two_wells, *ends, jax.random.key(0), progress=progress)
    return 1, 20


def branches(progress):
    settings = {"parameter": 0, "low": 0.5, "high": 2.0, "max_steps": 30}
    critical.branches(scaled, np.array([1.0]), (1.0,), **settings, progress=progress)
    return None, 30


RUNS = [
    eigenpairs,
    find,
    find_many,
    find_many_in_one_program,
    pytest.param(census, marks=pytest.mark.slow),
    classify,
    certify,
    descents,
    network,
    path,
    branches,
]


@pytest.mark.parametrize("run", RUNS)
def test_work_done_never_falls_and_ends_at_what_was_done(run):
    calls = []
    done, total = run(lambda *call: calls.append(call))
    assert [call[1] for call in calls] == len(calls) * [total]
    numbers = [call[0] for call in calls]
    assert numbers == sorted(numbers)
    assert 0 < numbers[-1] <= total
    assert done is None or numbers[-1] == done
