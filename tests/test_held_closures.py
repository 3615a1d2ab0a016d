"""No call keeps a closure, or its data, alive after the caller has dropped it."""

import gc
import weakref
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlp_jax import _compiled, curvature, landscape, losses, mlp, mlp_hessian, sweep, training

POINT = np.array([1.0, -0.5, 2.0], np.float32)


def closure_over(megabytes):
    """Return a function that closes over arrays of numpy and of JAX, and a weak reference to the first."""
    on_host = np.linspace(0.0, 1.0, round(megabytes * 2**20 / 16))
    on_device = jnp.asarray(on_host)

    def fun(p):
        scale = jnp.mean(on_device).astype(p.dtype) + jnp.mean(jnp.asarray(on_host)).astype(p.dtype)
        return scale * jnp.sum(p**2 + jnp.tanh(p))

    return fun, weakref.ref(on_host)


def live_bytes():
    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays())


KEY, ONES = jax.random.key(0), np.ones(4, np.float32)
NETWORK = mlp.init(KEY, (2, 3, 1))
RUN = {"optimizer": optax.sgd(0.1), "batch_size": 2, "epochs": 2}
GRID = {"batch_sizes": (2,), "learning_rates": (0.1,), "seeds": 1, "epochs": 1}
loss_of = lambda fun: lambda w, x, y, weights, key: fun(w)
record_of = lambda fun: lambda state: fun(state.params)
stopping = lambda fun: training.EarlyStopping(fun, (), 1)
CALLS = {
    "eigenpairs of a Partial": lambda fun: curvature.eigenpairs(
        jax.tree_util.Partial(lambda p, v: curvature.hessian(fun, p)(v), POINT), POINT, KEY, smallest=1, tolerance=1e-5
    ),
    "mlp_hessian.dense": lambda fun: mlp_hessian.dense(
        NETWORK, np.ones((5, 2)), np.ones((5, 1)), loss=losses.squared_error, penalty=lambda p: fun(p[0].bias)
    ),
    "train": lambda fun: training.train(
        KEY, loss_of(fun), POINT, (ONES, ONES), record=record_of(fun), early_stopping=stopping(fun), **RUN
    ),
    "sweep": lambda fun: sweep.run(
        KEY, loss_of(fun), lambda key: jnp.asarray(POINT), (ONES, ONES), record=record_of(fun), **GRID
    ),
    "line": lambda fun: landscape.line(fun, POINT, POINT, [0.0, 1.0]),
    "eigenvector_plane": lambda fun: landscape.eigenvector_plane(fun, POINT, key=KEY),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_a_dropped_closure_is_freed_with_its_data(name):
    before = live_bytes()
    fun, data = closure_over(4)
    held = weakref.ref(fun)
    CALLS[name](fun)
    del fun
    gc.collect()
    assert held() is None
    assert data() is None
    assert live_bytes() <= before + 2**20


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def loss(self, p):
        return self.factor * jnp.sum(p**2)


class Frozen(NamedTuple):
    factor: float
    loss = Scaled.loss


def counted(num_static=1):
    """Return a compiled function that adds what its functions return, and a list with one entry a trace."""
    traces = []

    @_compiled.by_function(num_static)
    def total(*given):
        *functions, x = given
        traces.append(x)
        leaves = jax.tree.leaves(functions, is_leaf=callable)
        return sum(leaf(x) for leaf in leaves if callable(leaf))

    return total, traces


def test_methods_of_one_object_are_traced_once_though_each_access_makes_another():
    total, traces = counted()
    double, triple = Scaled(2.0), Scaled(3.0)
    assert [float(total(m.loss, POINT)) for m in (double, double, triple, double)] == [10.5, 10.5, 15.75, 10.5]
    assert len(traces) == 2
    held = weakref.ref(double)
    del double
    gc.collect()
    assert held() is None


@pytest.mark.slow
def test_a_dropped_function_in_settings_is_freed_though_another_stays():
    total, traces = counted(2)
    stays = lambda x: jnp.sum(x)
    for k in range(3):
        beside = lambda x, k=k: k * jnp.sum(x)
        held = weakref.ref(beside)
        assert [float(total(stays, (beside, 3, None), POINT)) for _ in range(2)] == [2.5 * (1 + k)] * 2
        del beside
        gc.collect()
        assert held() is None
    assert len(traces) == 3


def test_functions_without_weak_references_are_traced_once_and_a_bounded_number_is_held():
    total, traces = counted()
    frozen = [Frozen(float(k)) for k in range(18)]
    assert [float(total(f.loss, POINT)) for f in frozen[-2:] for _ in range(2)] == [16 * 5.25] * 2 + [17 * 5.25] * 2
    assert len(traces) == 2
    data = np.ones(3)
    held = weakref.ref(data)
    total(Frozen(data).loss, POINT)
    del data
    for f in frozen:
        total(f.loss, POINT)
    gc.collect()
    assert held() is None


def test_a_remembered_result_goes_with_the_function_it_was_made_for():
    makings = []

    @_compiled.while_alive
    def program(fun, size):
        makings.append(size)
        return jax.make_jaxpr(fun)(np.zeros(size, np.float32))

    fun, data = closure_over(2)
    assert program(fun, 3) is program(fun, 3)
    assert program(fun, 3) is not program(fun, 4)
    assert makings == [3, 4]
    del fun
    gc.collect()
    assert data() is None
