"""Valid calls of the main functions, and a time limit for a call."""

import contextlib
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlp_jax import critical, curvature, interval, losses, mlp, mlp_hessian, sweep, training

KEY = jax.random.key(0)
LAYERS = (mlp.Layer(np.full((2, 3), 0.1), np.zeros(3)), mlp.Layer(np.ones((3, 1)), np.zeros(1)))
INPUTS = np.array([[0.5, 1.0], [2.0, -1.0], [0.0, 3.0], [1.0, 1.0]])
EXAMPLES = INPUTS.astype(np.float32), np.array([1.0, -1.0, 0.5, 2.0], np.float32)


def saddle(x, *args):
    return x[0] ** 2 - x[1] ** 2 + sum(jnp.sum(arg) for arg in args)


multiply = lambda v: v * jnp.array([-1.0, 2.0, 5.0], v.dtype)
regression = lambda w, x, y, weights, key: losses.mean((x @ w - y) ** 2, weights) / 2
start = lambda key: jax.random.normal(key, (2,))
wells = lambda x, factor: jnp.sum((factor * x**2 - 1) ** 2)
WELLS = {"fun": wells, "args": (1.0,)}
POINT = {"fun": saddle, "params": np.array([0.5, -1.0]), "args": ()}
NETWORK = {"params": LAYERS, "inputs": INPUTS}
RUN = {"key": KEY, "loss": regression, "data": EXAMPLES, "epochs": 2}
CALLS = {
    "mlp.init": (mlp.init, {"key": KEY, "sizes": (2, 3, 1)}),
    "mlp.forward": (mlp.forward, NETWORK),
    "training.train": (
        training.train,
        {**RUN, "params": np.zeros(2, np.float32), "optimizer": optax.sgd(0.1), "batch_size": 2},
    ),
    "sweep.run": (sweep.run, {**RUN, "init": start, "batch_sizes": (2, 4), "learning_rates": (0.1,), "seeds": 2}),
    "critical.find": (critical.find, POINT),
    "critical.find_many": (critical.find_many, {"fun": saddle, "starts": np.ones((3, 2)), "args": ()}),
    "critical.classify": (critical.classify, {**POINT, "params": np.zeros(2)}),
    "critical.census": (critical.census, {"fun": saddle, "init": start, "key": KEY, "num_starts": 4, "args": ()}),
    "critical.descents": (critical.descents, {**WELLS, "saddle": np.array([0.0, 1.0]), "key": KEY}),
    "critical.network": (critical.network, {**WELLS, "points": np.array([[0.0, 1.0]]), "key": KEY}),
    "critical.path": (
        critical.path,
        {**WELLS, "a": np.array([-1.0, 1.0]), "b": np.ones(2), "key": KEY},
    ),
    "critical.branches": (
        critical.branches,
        {**WELLS, "points": np.ones((1, 2)), "parameter": 0, "low": 0.5, "high": 2.0, "max_steps": 20},
    ),
    "interval.certify": (interval.certify, {**POINT, "params": np.zeros(2)}),
    "mlp_hessian.dense": (mlp_hessian.dense, {**NETWORK, "targets": np.ones((4, 1)), "loss": losses.squared_error}),
    "curvature.dense_hessian": (curvature.dense_hessian, POINT),
    "curvature.eigenpairs": (
        curvature.eigenpairs,
        {"matvec": multiply, "params": np.zeros(3, np.float32), "key": KEY, "smallest": 1, "largest": 1},
    ),
}


class Endless(BaseException):
    """A call exceeded its time limit."""


@contextlib.contextmanager
def within(seconds):
    """Raise Endless if the body takes longer."""

    def stop(number, frame):
        raise Endless(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
