"""The functions of `training`, `sweep` and `gradient_noise`."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import strategies as st

from benchmarks.bad_input.arguments import BOOLEAN, KEY, MEAN, MESH, VECTOR, lists_of, trees
from benchmarks.bad_input.calls import call
from benchmarks.bad_input.oracles import (
    a_key,
    a_mesh,
    abstract,
    floating,
    gradients,
    is_own,
    near,
    near_trees,
    need,
    numbers,
    pair,
    real,
    whole,
)
from benchmarks.bad_input.sources import start
from benchmarks.hostile_inputs import arrays, counts, functions, functions_of, reals, things

DATA = ("(jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), jnp.array([1.0, 2.0, 3.0]))", st.one_of(
    things(), arrays((3, 2)).map("({}, jnp.ones(3))".format),
    arrays((3,)).map("(jnp.ones((3, 2)), {})".format),
    st.sampled_from(("(jnp.ones((3, 2)), jnp.ones(3), jnp.ones(3))", "(jnp.ones((3, 2)),)", "jnp.ones((2, 3))",
                     "{'inputs': jnp.ones((3, 2)), 'targets': jnp.ones(3)}"))))  # fmt: skip
OPTIMIZERS = st.one_of(
    things(),
    st.sampled_from(("optax.sgd", "optax.sgd(nan)", "optax.sgd(-0.1)", "optax.sgd(0.0)", "optax.sgd(inf)",
                     "optax.sgd(1e30)", "optax.adam(0.1)", "(len, len)", "raises", "optax.identity()",
                     "optax.sgd(raises)", "optax.GradientTransformation(raises, raises)",
                     "optax.GradientTransformation(returns_none, returns_none)")),
)  # fmt: skip
PARTS = {
    "key": KEY,
    "loss": ("fit", functions_of("fit")),
    "params": ("jnp.zeros(2)", trees((2,))),
    "data": DATA,
}


@call("training.train", "learning rate", "criterion", "patience", "min improvement", **PARTS,
      optimizer=("optax.sgd(0.1)", OPTIMIZERS), batch_size=("3", counts()), epochs=("2", counts()),
      record=(None, functions_of("lambda state: state.params")), record_every=(None, counts()),
      early_stopping=(None, st.one_of(things(), functions().map(
          "training.EarlyStopping({}, (), 1)".format), counts().map(
          "training.EarlyStopping(square, (), {})".format), reals().map(
          "training.EarlyStopping(square, (), 2, {})".format), st.just("training.EarlyStopping(square, None, 1)"))),
      weight=0.5)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    x, y = pair(a.data)
    params, history = result
    a_key(a.key)
    floating(a.params)
    batch, epochs = whole(a.batch_size, 1, len(x)), whole(a.epochs, 1, 10**9)
    need(history.loss.shape == (epochs,) and jax.tree.structure(params) == jax.tree.structure(a.params))
    need(a.record is None or callable(a.record))
    need(a.record_every is None or (a.record is not None and whole(a.record_every) <= epochs * -(-len(x) // batch)))
    finite = all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
    if not finite or a.early_stopping is not None or batch < len(x):
        return finite or int(history.diverged_at) > 0 or a.early_stopping is not None
    w = np.asarray(a.params, float)
    if w.shape != (2,) or x.shape[1:] != (2,) or y.ndim != 1 or a.optimizer is None or "fit" not in repr(a.loss):
        return True
    ones = jnp.ones(2)
    step, twice = (np.asarray(a.optimizer.update(k * ones, a.optimizer.init(ones), ones)[0]) for k in (1, 2))
    if not np.allclose(step, step[0]) or not np.allclose(twice, 2 * step):
        return True  # no plain gradient descent
    for _ in range(epochs):
        w = w + step[0] * x.T @ (x @ w - y) / len(x)
    return near(params, w, 0.01)


STATE = "training.State(jnp.zeros(2), optax.sgd(0.1).init(jnp.zeros(2)), jnp.array(0), jax.random.key(0))"


@call("training.apply", optimizer=("optax.with_extra_args_support(optax.sgd(0.1))", OPTIMIZERS),
      state=(STATE, things()), value=("jnp.array(1.0)", arrays(())), gradient=VECTOR,
      value_fn=("square", functions()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    slope, updates = numbers(a.gradient), a.optimizer.update
    need(slope.shape == (2,) and callable(updates) and callable(a.value_fn) and np.shape(a.value) == ())
    need(jnp.issubdtype(jnp.asarray(a.value).dtype, jnp.floating))
    return result.step == 1 and (a.optimizer is None or np.shape(result.params) == (2,))


@call("training.order", key=KEY, epoch=("0", counts(0)), num_examples=("5", counts()))
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    whole(a.epoch, 0, 2**32 - 1)
    return sorted(result.tolist()) == list(range(whole(a.num_examples)))


@call("training.require_data", data=DATA)
def _(a: Any, result: Any) -> bool:
    return near_trees(result, tuple(a.data)) and len(pair(a.data)) == 2


@call("training.require_loss", "inputs", "data", loss=PARTS["loss"], params=PARTS["params"], key=PARTS["key"],
      inputs=("jnp.ones((3, 2))", arrays((3, 2))), targets=("jnp.ones(3)", arrays((3,))),
      batch_size=("3", counts()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    batch = whole(a.batch_size)
    abstract(a.params)
    need(callable(a.loss) and all(numbers(part, kinds="fiub") is not None for part in (a.inputs, a.targets)))
    need(np.ndim(a.inputs) and np.ndim(a.targets) and batch)
    return result is None


@call("training.widest_dtype", params=PARTS["params"])
def _(a: Any, result: Any) -> bool:
    abstract(a.params)
    return result == max((jnp.result_type(leaf) for leaf in jax.tree.leaves(a.params)), key=lambda d: d.itemsize)


@call("sweep.run", "settings", "init", "updates", "data", "batch", key=KEY, loss=PARTS["loss"], data=DATA,
      init=("start", functions_of("start")), batch_sizes=("[3]", lists_of(counts())),
      learning_rates=("[0.1]", st.one_of(lists_of(reals()), st.sampled_from(("{3: [0.1]}", "{2: [0.1]}")))),
      seeds=("2", st.one_of(counts(), lists_of(counts(0)))), epochs=("2", counts()),
      updates=(None, st.one_of(counts(), st.just("{3: 2}"))),
      optimizer=(None, st.one_of(functions_of("optax.sgd"), st.just("optax.sgd(0.1)"))),
      settings=(None, st.one_of(things(), st.sampled_from(("{'momentum': [0.9]}", "{'seed': [1]}",
          "{'momentum': []}", "{'momentum': [nan]}", "{'nothing': [1.0]}", "{'momentum': 0.9}", "{1: [0.9]}")))),
      loss_settings=(None, st.one_of(things(), st.sampled_from(("{'key': [0.9]}", "{'loss': [1]}",
          "{'nothing': [1.0]}")))),
      record=(None, functions_of("lambda state: state.params")), records=(None, counts()),
      programs=(None, st.one_of(things(), st.just("'per batch size'"))), micro_batch=(None, counts()),
      lanes_at_once=(None, counts()), progress=(None, functions()), mesh=MESH, weight=0.5)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_mesh(a.mesh)
    x, y = pair(a.data)
    a_key(a.key)
    sizes = [whole(size, 1, len(x)) for size in a.batch_sizes]
    rates = a.learning_rates[3] if isinstance(a.learning_rates, dict) else a.learning_rates
    rates = [real(rate) for rate in rates]
    seeds = list(range(whole(a.seeds))) if np.ndim(a.seeds) == 0 else [whole(s, 0, 2**32 - 1) for s in a.seeds]
    need(len(seeds) and len(rates) and len(sizes) and (a.epochs is None) != (a.updates is None))
    need(a.progress is None or callable(a.progress))
    need(a.lanes_at_once is None or whole(a.lanes_at_once))
    for setting in (a.settings, a.loss_settings):
        need(setting is None or isinstance(setting, dict))
    shape = [len(sizes), len(rates), *(len(v) for v in (a.settings or {}).values()), len(seeds)]
    if list(result.diverged_at.shape) != shape or np.any(np.isnan(result.loss)):
        return False
    if sizes != [3] or a.init is not start or x.shape != (3, 2) or y.shape != (3,) or "fit" not in repr(a.loss):
        return True
    if a.settings or a.updates is not None or a.optimizer is not optax.sgd:
        return True
    for (i, rate), (j, seed) in itertools.product(enumerate(rates), enumerate(seeds)):
        w = np.asarray(start(jax.random.split(jax.random.fold_in(a_key(a.key), seed))[0]), float)
        with np.errstate(all="ignore"):
            for _ in range(whole(a.epochs)):
                w = w - rate * x.T @ (x @ w - y) / len(x)
        if result.diverged_at[0, i, j] == 0 and not near(result.params[0, i, j], w, 0.02):
            return False
    return True


@call("gradient_noise.exact", **MEAN, chunk_size=(None, counts()))
def _(a: Any, result: Any) -> bool:
    whole(a.chunk_size)
    if not is_own(a.per_example):
        return True
    g = gradients(a)
    mean = g.mean(0)
    with np.errstate(all="ignore"):
        return near(result.squared_gradient, mean @ mean, 0.01) and near(
            result.trace, ((g - mean) ** 2).sum(1).mean(), 0.01
        )


@call("gradient_noise.two_batches", "batch sizes", small=("jnp.array(5.0)", arrays(())),
      large=("jnp.array(4.5)", arrays(())), small_size=("1", counts()),
      large_size=("2", counts()), num_examples=(None, counts()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    n = np.inf if a.num_examples is None else whole(a.num_examples)
    large = whole(a.large_size, 1, n)
    small = whole(a.small_size, 1, large - 1)
    low, high = numbers(a.small, kinds="fiub"), numbers(a.large, kinds="fiub")
    c = [1 / b if n == np.inf else (n - b) / (b * (n - 1)) for b in (small, large)]
    with np.errstate(all="ignore"):
        return near(result.trace, (low - high) / (c[0] - c[1]), 0.05)


@call("gradient_noise.estimate", "batch sizes", key=KEY, **MEAN, small=("1", counts()), large=("2", counts()),
      num_pairs=("4", counts()), replace=BOOLEAN, weight=0.3)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    large = whole(a.large, 1, len(a.args[0]) if not a.replace else np.inf)
    whole(a.small, 1, large - 1)
    whole(a.num_pairs, 2)
    if not is_own(a.per_example):
        return True
    gradients(a)
    return bool(np.all(np.isfinite(result.value.trace)))


@call("gradient_noise.fit_tradeoff", batch_sizes=("[1, 4, 16, 64]", arrays((4,))),
      updates=("[90.0, 30.0, 15.0, 11.0]", arrays((4,))), reached=(None, arrays((4,))), weight=0.5)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    sizes, updates = (numbers(v, 1, finite=True, kinds="fiub") for v in (a.batch_sizes, a.updates))
    hit = np.ones(len(sizes), bool) if a.reached is None else np.asarray(a.reached)
    need(hit.dtype == bool and sizes.shape == updates.shape == hit.shape and np.all(sizes > 0) and np.all(updates > 0))
    return result.min_updates > 0 and result.min_examples > 0


@call("sweep.Result.table", self=("sweep.run(jax.random.key(0), fit, start, (jnp.ones((2, 2)), jnp.ones(2)),"
      " batch_sizes=[2, 2], learning_rates=[0.1, 0.1, 1e9], seeds=[3, 3], epochs=1)", st.just(
      "sweep.run(jax.random.key(0), fit, start, (jnp.ones((2, 2)), jnp.ones(2)), batch_sizes=[1, 2],"
      " learning_rates={1: [0.1], 2: [0.2]}, seeds=1, epochs=1)")), weight=0.02)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    return len(result) == a.self.diverged_at.size
