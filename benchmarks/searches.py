"""How often does a search end at a critical point of a network, how often at the index asked for, and how fast?

    python -m benchmarks.searches [--quick] [--parameters 94 610 1210 2410] [--peers] [--output FOLDER]

Networks on the digits (on their first ten principal components where P = 94), with one or two hidden layers, tanh or
softplus, cross-entropy or squared error, and weight decay 1e-3, 1e-2 or 1e-1, drawn at random. A search begins at a
random epoch of a training run, with noise of 0 to 30 %, or at a random initialisation times .5 to 3. It asks for any
index, for one from 0 to 3, or for one from 5 to 20. As many searches run at a time as there are cores.

A search arrives if the Newton step at its end, by numpy from the exact Hessian, is below 1e-8 of the parameters; its
index is counted in the eigenvalues of that Hessian. A network may have no point of the index asked for. One is known
where any search on that network, by any method, arrives at a point of that index; `as_asked_where_known` is the share
among those searches. `median_s` is of the seconds of single searches while others run; `share_s` is the wall time of
all searches on a network divided by their number, as a mean over networks. With `--peers` the searches for any index
are repeated by Newton-MR, Levenberg–Marquardt and scipy's root.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import scipy.optimize
import tqdm

from benchmarks import side_by_side
from mlp_jax import critical, datasets, devices, losses, mlp, mlp_hessian, penalties, training, tree

# Widths with about as many parameters, with one and two hidden layers.
SIZES = {
    94: ((10, 4, 10), (10, 3, 4, 10)),
    610: ((64, 8, 10), (64, 7, 7, 10)),
    1210: ((64, 16, 10), (64, 14, 12, 10)),
    2410: ((64, 32, 10), (64, 28, 15, 10)),
}
EPOCHS = 30


@dataclasses.dataclass(frozen=True)
class Settings(side_by_side.Settings):
    """Settings of the benchmark; `quick` makes one network of 94 parameters, and three searches."""

    parameters: tuple[int, ...] = tuple(SIZES)
    """Numbers of parameters."""
    networks: int = 6
    """Networks for each number of parameters."""
    searches: int = 12
    """Searches for each network."""
    peers: bool = False
    """Repeat the searches for any index by other methods."""
    seed: int = 0


class Network(NamedTuple):
    """A network to search: its loss fun(params, *args), its Hessian, its data and a training run."""

    name: str
    sizes: tuple[int, ...]
    fun: Callable[..., jax.Array]
    hessian: Callable[..., jax.Array]
    args: tuple
    run: mlp.Params


class Start(NamedTuple):
    """Where a search begins, and the index it asks for."""

    network: Network
    params: mlp.Params
    index: int | None


@functools.cache
def problem(activation: Callable[..., Any], loss: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the penalised mean loss, and its Hessian by layer blocks, as functions of (params, x, y, decay)."""

    def fun(params, x, y, decay, weights=None):
        values = loss(mlp.forward(params, x, activation=activation), y)
        return losses.mean(values, weights) + penalties.l2(params, decay)

    def hessian(params, x, y, decay):
        penalty = lambda params: penalties.l2(params, decay)
        return mlp_hessian.dense(params, x, y, loss=loss, activation=activation, penalty=penalty)

    return fun, hessian


def network(generator: np.random.Generator, size: int) -> Network:
    """Draw and train a network of about `size` parameters."""
    sizes = SIZES[size][generator.integers(2)]
    activation = (jnp.tanh, jax.nn.softplus)[generator.integers(2)]
    loss = (losses.cross_entropy, losses.squared_error)[generator.integers(2)]
    decay = float(generator.choice([1e-3, 1e-2, 1e-1]))
    fun, hessian = problem(activation, loss)
    train = datasets.load("digits").train
    inputs, targets = np.asarray(train.inputs, float), np.asarray(train.targets)
    if sizes[0] < inputs.shape[1]:
        inputs -= inputs.mean(axis=0)
        inputs = inputs @ np.linalg.svd(inputs, full_matrices=False)[2][: sizes[0]].T
    if loss is losses.squared_error:
        targets = np.eye(10)[targets]

    def batch_loss(params, x, y, weights, key):
        return fun(params, x, y, decay, weights)

    keys = jax.random.split(jax.random.key(int(generator.integers(2**31))))
    _, history = training.train(
        keys[0], batch_loss, mlp.init(keys[1], sizes),
        train._replace(inputs=inputs.astype(np.float32), targets=targets),
        optimizer=optax.sgd(0.1), batch_size=64, epochs=EPOCHS, record=lambda state: state.params,
    )  # fmt: skip
    name = f"{'-'.join(map(str, sizes))} {activation.__name__}, {loss.__name__}, decay {decay:g}"
    run = jax.tree.map(lambda leaf: np.asarray(leaf, float), history.record)
    return Network(name, sizes, fun, hessian, (inputs, targets, decay), run)


def start(generator: np.random.Generator, here: Network, index: int | None) -> Start:
    """Draw where a search begins: a point of the run with noise, or a random point."""
    if generator.random() < 0.5:
        share, epoch = generator.uniform(0, 0.3), generator.integers(EPOCHS)
        noisy = lambda leaf: leaf + share * np.std(leaf) * generator.standard_normal(leaf.shape)
        return Start(here, jax.tree.map(lambda leaf: noisy(leaf[epoch]), here.run), index)
    factor, key = generator.uniform(0.5, 3), jax.random.key(int(generator.integers(2**31)))
    random = mlp.init(key, here.sizes, bias_init=jax.nn.initializers.normal(0.1))
    return Start(here, jax.tree.map(lambda leaf: factor * np.asarray(leaf, float), random), index)


def truth(here: Start, params: mlp.Params) -> tuple[bool, int]:
    """Return whether params are critical, by numpy's Newton step from the exact Hessian, and the index."""
    with jax.enable_x64(True):
        gradient = np.asarray(tree.ravel(jax.grad(here.network.fun)(params, *here.network.args))[0])
        matrix = np.asarray(here.network.hessian(params, *here.network.args))
    vector = np.asarray(tree.ravel(params)[0])
    if not np.all(np.isfinite(matrix)):
        return False, -1
    step = np.linalg.norm(np.linalg.solve(matrix, gradient))
    return bool(step < 1e-8 * np.linalg.norm(vector)), int(np.sum(np.linalg.eigvalsh(matrix) < 0))


Method = Callable[[Start], tuple[Any, bool, int, str]]


def by_find(here: Start, **settings: Any) -> tuple[Any, bool, int, str]:
    settings = {"index": here.index, "hessian": here.network.hessian} | settings
    point = critical.find(here.network.fun, here.params, here.network.args, **settings)
    return point.params, bool(point.converged), int(point.steps), str(point.reason)


def by_scipy(here: Start) -> tuple[Any, bool, int, str]:
    """MINPACK's hybrid method on the gradient, with the exact Hessian, both compiled."""
    with jax.enable_x64(True):
        vector, unravel = tree.ravel(jax.tree.map(jnp.asarray, here.params))
        gradient = lambda v: np.asarray(_gradient(here.network.fun)(unravel(jnp.asarray(v)), *here.network.args))
        matrix = lambda v: np.asarray(jax.jit(here.network.hessian)(unravel(jnp.asarray(v)), *here.network.args))
        end = scipy.optimize.root(gradient, np.asarray(vector), jac=matrix, method="hybr", options={"xtol": 1e-12})
        return jax.tree.map(np.asarray, unravel(jnp.asarray(end.x))), end.success, end.njev, end.message


@functools.cache
def _gradient(fun):
    return jax.jit(lambda params, *args: tree.ravel(jax.grad(fun)(params, *args))[0])


METHODS: dict[str, Method] = {
    "newton_mr": functools.partial(by_find, method=critical.newton_mr),
    "levenberg_marquardt": functools.partial(by_find, method=critical.levenberg_marquardt),
    "scipy root(hybr)": by_scipy,
}


def measure(starts: list[Start], name: str, search: Method) -> pd.DataFrame:
    """Return one row for each search, with its own seconds and its share of those of all."""

    def timed(here: Start) -> tuple[float, tuple[Any, bool, int, str]]:
        began = time.perf_counter()
        found = search(here)
        return time.perf_counter() - began, found

    began = time.perf_counter()
    searched = devices.over_cores(timed, starts)
    share = (time.perf_counter() - began) / max(1, len(starts))

    def row(number: int) -> dict[str, Any]:
        here, (took, (params, converged, steps, reason)) = starts[number], searched[number]
        arrived, index = truth(here, params)
        asked = "any" if here.index is None else "0 to 3" if here.index <= 3 else "5 to 20"
        return {
            "P": tree.size(here.params), "network": here.network.name, "method": name, "index_asked": asked,
            "asked": -1 if here.index is None else here.index, "arrived": arrived, "claimed": converged,
            "index": index, "as_asked": arrived and here.index in (None, index), "hessians": steps, "seconds": took,
            "share_of_wall": share, "reason": reason,
        }  # fmt: skip

    return pd.DataFrame(devices.over_cores(row, range(len(starts))))


def known(table: pd.DataFrame) -> pd.Series:
    """Return for each search of one network whether any of them arrived at a point of the index it asks for."""
    return (table.asked < 0) | table.asked.isin(table["index"][table.arrived])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return shares and medians by size, method and kind of index."""
    groups = table.groupby(["size", "method", "index_asked"], sort=False)
    shares = groups.agg(
        searches=("arrived", "size"), arrived=("arrived", "mean"), as_asked=("as_asked", "mean"),
        median_s=("seconds", "median"), longest_s=("seconds", "max"), share_s=("share_of_wall", "mean"),
        hessians=("hessians", "median"),
    )  # fmt: skip
    where_known = table[table.known].groupby(["size", "method", "index_asked"]).as_asked.mean()
    wrongly = (table.claimed & ~table.arrived).groupby([table["size"], table.method, table.index_asked]).sum()
    shares.insert(3, "as_asked_where_known", where_known)
    return shares.join(wrongly.rename("claimed_wrongly")).reset_index()


def tables(settings: Settings) -> side_by_side.Report:
    generator = np.random.default_rng(settings.seed)
    parts = []
    networks, searches = (1, 3) if settings.quick else (settings.networks, settings.searches)
    for size in (94,) if settings.quick else settings.parameters:
        for _ in tqdm.trange(networks, desc=f"P = {size}", disable=None):
            here = network(generator, size)
            limit = min(21, size // 4)
            indices = [None, int(generator.integers(4)), int(generator.integers(5, limit))]
            begin = [start(generator, here, index) for index in (indices * searches)[:searches]]
            # Compiled first, so that seconds are those of a search.
            by_find(begin[0], max_steps=1)
            found = [measure(begin, "find", by_find)]
            if settings.peers:
                free = [one for one in begin if one.index is None]
                found += [measure(free, name, search) for name, search in METHODS.items()]
            searched = pd.concat(found)
            parts.append(searched.assign(known=known(searched), size=size))
    table = pd.concat(parts)
    yield "searches", table
    short = summary(table)
    yield "summary", short
    reasons = collections.Counter(table[(table.method == "find") & ~table.arrived].reason)
    yield "why", pd.DataFrame(reasons.most_common(), columns=["reason", "searches"])
    ours = short[short.method == "find"]
    labels = [f"P = {row.size}, index {row.index_asked}" for row in ours.itertuples()]
    yield "as_asked", side_by_side.bars(labels, ours.as_asked, "share of searches that end at the index asked for")


if __name__ == "__main__":
    side_by_side.run("benchmark_searches", Settings, tables, __doc__)
