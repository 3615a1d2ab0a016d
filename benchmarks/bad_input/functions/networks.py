"""The functions of `mlp`, `losses`, `penalties`, `schedules` and `backpropagation`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from benchmarks.bad_input.arguments import (
    ACTIVATION,
    BOOLEAN,
    COUNTS,
    INPUTS,
    KEY,
    LAYERS,
    LOSS,
    PARAMS,
    TREE,
    VECTOR,
    WEIGHTS,
)
from benchmarks.bad_input.calls import call
from benchmarks.bad_input.oracles import (
    Unknown,
    a_key,
    alike,
    floating,
    integers,
    is_own,
    near,
    need,
    network,
    numbers,
    real,
    single,
    through,
    whole,
)
from benchmarks.hostile_inputs import arrays, counts, functions, functions_of, keys, reals, things

SIZES = ("(3, 4, 2)", st.one_of(things(), st.lists(COUNTS, max_size=4).map(
    lambda sizes: f"({', '.join(sizes)},)" if sizes else "()")))  # fmt: skip


@call("mlp.init", key=KEY, sizes=SIZES, pieces=(None, counts()), dtype=(None, things()),
      weight_init=(None, functions_of("jax.nn.initializers.he_normal()")), bias_init=(None, functions()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    sizes, pieces = [whole(n, 1, 2**31) for n in a.sizes], whole(a.pieces)
    need(len(sizes) > 1)
    wide = [n * pieces for n in sizes[1:-1]] + sizes[-1:]
    network(result)
    shapes = [(w.shape, b.shape) for w, b in result]
    need(a.dtype is None or jnp.issubdtype(a.dtype, jnp.floating))
    return shapes == [((n, m), (m,)) for n, m in zip(sizes, wide, strict=False)]


@call("mlp.forward", "dropout rate", "activations", params=PARAMS, inputs=INPUTS, activation=ACTIVATION,
      dropout_rate=(None, reals()), key=(None, keys()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    rate = real(a.dropout_rate, 0, 1)
    outputs = through(network(a.params), a.inputs, a.activation, ndim=None)
    if rate:
        a_key(a.key)
        return outputs.shape == result.shape
    return near(result, outputs, 0.05)


@call("mlp.maxout", pieces=("2", counts()))
def _(a: Any, result: Any) -> bool:
    pieces = whole(a.pieces)
    if pieces > 10**6:
        return callable(result)
    values = np.random.default_rng(0).standard_normal((2, 3 * pieces)).astype(np.float32)
    return near(result(values), values.reshape(2, 3, pieces).max(-1))


@call("mlp.dropout", "dropout rate", key=KEY, values=VECTOR, rate=("0.5", reals()))
def _(a: Any, result: Any) -> bool:
    values, rate = numbers(a.values, kinds="f"), real(a.rate, 0, 1 - 1e-9)
    a_key(a.key)
    kept = near(0 * values, 0 * values) and np.isclose(result, values / (1 - rate), rtol=0.01, equal_nan=True)
    return bool(np.all(kept | (np.asarray(result) == 0) | ~np.isfinite(np.asarray(values, np.float32))))


@call("mlp.require_layers", params=PARAMS)
def _(a: Any, result: Any) -> bool:
    return len(network(a.params)) > 0 and result is None


@call("mlp.require_fit", "activations", "inputs", values=INPUTS, depth=("0", counts(0)),
      layer=("mlp.Layer(jnp.ones((2, 3)), jnp.zeros(3))", st.one_of(things(), arrays((2, 3)).map(
          "mlp.Layer({}, jnp.zeros(3))".format))))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    return np.shape(a.values)[-1] == np.shape(a.layer.weight)[0] and whole(a.depth, 0) >= 0


LOGITS = ("jnp.array([[0.5, 1.0, 0.0], [2.0, -1.0, 0.0]])", arrays((2, 3)))
CLASSES = ("jnp.array([2, 0])", st.one_of(arrays((2,)), st.sampled_from(("np.array([3, 0])", "[2, 0]",
           "np.array([-1, 0])", "np.array([0.0, 1.0])", "np.array([2, 0], np.uint8)", "np.array([2**40, 0])",
           "np.array([True, False])", "np.array([2**63], np.uint64)"))))  # fmt: skip


@call("losses.cross_entropy", logits=LOGITS, targets=CLASSES)
def _(a: Any, result: Any) -> bool:
    with np.errstate(all="ignore"):
        logits, targets = single(a.logits), integers(a.targets)
    need(targets.shape == logits.shape[:-1] and np.all((targets >= 0) & (targets < logits.shape[-1])))
    with np.errstate(all="ignore"):
        shifted = logits - logits.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return near(result, -np.take_along_axis(logs, targets[..., None], -1)[..., 0], 0.02)


@call("losses.squared_error", outputs=LOGITS, targets=("jnp.zeros((2, 3))", arrays((2, 3))))
def _(a: Any, result: Any) -> bool:
    outputs, targets = numbers(a.outputs, kinds="fiub"), numbers(a.targets, kinds="fiub")
    need(outputs.shape == targets.shape and outputs.ndim)
    with np.errstate(all="ignore"):
        return near(result, 0.5 * ((outputs - targets) ** 2).sum(-1), 0.02)


@call("losses.mean", values=("jnp.array([1.0, 2.0])", arrays((2,))), weights=WEIGHTS)
def _(a: Any, result: Any) -> bool:
    values = numbers(a.values, kinds="fiub")
    weights = np.ones_like(values) if a.weights is None else numbers(a.weights, finite=True, kinds="fiub")
    need(values.size and values.shape == weights.shape and np.all(weights >= 0) and np.any(weights))
    with np.errstate(all="ignore"):
        return near(result, (weights * values).sum() / weights.sum(), 0.02)


@call("losses.accuracy", logits=LOGITS, targets=CLASSES)
def _(a: Any, result: Any) -> bool:
    logits, targets = numbers(a.logits, kinds="fiub"), integers(a.targets)
    need(targets.shape == logits.shape[:-1] and np.all((targets >= 0) & (targets < logits.shape[-1])))
    return near(result, (logits.argmax(-1) == targets).astype(float))


for _name, _order in (("l1", 1), ("l2", 2)):

    @call(f"penalties.{_name}", params=TREE, strength=("0.5", reals()), biases=BOOLEAN)
    def _(a: Any, result: Any, order: int = _order) -> bool:
        leaves = [numbers(leaf, kinds="fiub") for leaf in jax.tree.leaves(a.params)]
        leaves, strength = [leaf for leaf in leaves if a.biases or leaf.ndim > 1], float(a.strength)
        need(strength >= 0)
        need(leaves)
        if strength > np.finfo(np.float32).max:
            raise Unknown  # infinite there; times what is below float32 it is NaN
        with np.errstate(all="ignore"):
            return near(result, strength / order * sum(np.sum(np.abs(leaf) ** order) for leaf in leaves), 0.02)


@call("penalties.selective_synaptic_plasticity", params=TREE, strength=("0.5", reals()), reference=TREE,
      importances=TREE)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    strength = real(a.strength, 0)
    alike(a.params, a.reference)
    alike(a.params, a.importances)
    parts = [floating(part, finite=False) for part in (a.params, a.reference, a.importances)]
    need(all(np.all(leaf >= 0) for leaf in parts[2]))
    with np.errstate(all="ignore"):
        return near(result, strength * sum(np.sum(b * (p - r) ** 2) for p, r, b in zip(*parts, strict=True)), 0.02)


def values_of(schedule: Any, steps: Any) -> Any:
    """Return the values of a schedule; the type of the error where it raises one."""
    try:
        return [np.asarray(schedule(step), float) for step in steps]
    except Exception as error:
        return type(error)


SCHEDULE = ("optax.linear_schedule(0.8, 0.0, 4)", functions_of("optax.linear_schedule(0.8, 0.0, 4)"))


@call("schedules.warmup", schedule=SCHEDULE, steps=("4", counts(0)), start=(None, reals()))
def _(a: Any, result: Any) -> bool:
    steps, first = whole(a.steps, 0), real(a.start)
    if not is_own(a.schedule) or steps > 10**6:
        return callable(result)
    after = values_of(a.schedule, range(7))
    if isinstance(after, type):
        return values_of(result, range(7)) is after
    expected = [first + (after[0] - first) * t / steps if t < steps else after[t - steps] for t in range(7)]
    return near(values_of(result, range(7)), expected, 0.01)


@call("schedules.per_epoch", schedule=SCHEDULE, steps_per_epoch=("3", counts()))
def _(a: Any, result: Any) -> bool:
    steps = whole(a.steps_per_epoch)
    if not is_own(a.schedule):
        return callable(result)
    expected, got = values_of(a.schedule, [t // steps for t in range(7)]), values_of(result, range(7))
    return got is expected if isinstance(expected, type) else near(got, expected)


@call("backpropagation.forward", "activations", params=PARAMS, inputs=INPUTS, activation=ACTIVATION)
def _(a: Any, result: Any) -> bool:
    return near(result.preactivations[-1], through(network(a.params), a.inputs, a.activation), 0.05)


@call(
    "backpropagation.backward",
    params=PARAMS,
    activation=ACTIVATION,
    derivative=(None, functions()),
    trace=(
        f"backpropagation.forward({LAYERS}, jnp.ones((2, 2)))",
        st.one_of(
            things(),
            st.sampled_from(
                (
                    "backpropagation.Trace((), ())",
                    f"backpropagation.forward({LAYERS}[1:], jnp.ones((2, 3)))",
                    f"backpropagation.forward({LAYERS}, jnp.ones((5, 2)))",
                    "backpropagation.Trace((1,), (jnp.ones((2, 1)),))",
                )
            ),
        ),
    ),
    output_delta=("jnp.ones((2, 1))", arrays((2, 1))),
)
def _(a: Any, result: Any) -> bool:
    weights, delta = (
        [(None, None), (numbers(a.params[1][0], 2, kinds="fiub"), None)],
        numbers(a.output_delta, 2, kinds="fiub"),
    )
    need(len(a.params) == 2 and callable(a.activation) and (a.derivative is None or callable(a.derivative)))
    z = numbers(a.trace.preactivations[0], 2)
    need(delta.shape == a.trace.preactivations[1].shape and z.shape[1] == len(weights[1][0]) and len(z) == len(delta))
    slope = 1 - np.tanh(z) ** 2 if a.derivative is None else numbers(a.derivative(z))
    need(slope.shape == z.shape)
    need(a.activation(z).shape == z.shape)
    need(near(a.activation(z), np.tanh(z)) or np.isnan(numbers(a.activation(z))).any())
    with np.errstate(all="ignore"):
        return near(result[0], (delta @ weights[1][0].T) * slope, 0.02)


@call("backpropagation.gradient", "output_delta", "values", params=PARAMS, inputs=INPUTS, loss=LOSS,
      targets=("jnp.zeros((2, 1))", arrays((2, 1))), activation=ACTIVATION, weights=WEIGHTS,
      derivative=(None, functions()), loss_derivative=(None, functions()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    layers_, x = network(a.params), numbers(a.inputs, 2, kinds="fiub")
    z, y = through(layers_, x, np.tanh), numbers(a.targets, kinds="fiub")
    need(y.shape == z.shape and callable(a.loss) and callable(a.activation))
    need(np.shape(a.loss(jnp.asarray(z, jnp.float32), jnp.asarray(y, jnp.float32))) == (len(x),))
    weights = np.ones(len(x)) if a.weights is None else numbers(a.weights, 1, finite=True, kinds="fiub")
    need(weights.shape == (len(x),) and np.all(weights >= 0) and np.any(weights))
    for given in (a.derivative, a.loss_derivative):
        need(given is None or callable(given))
    if a.derivative is not None or a.loss_derivative is not None:
        return [(w.shape, b.shape) for w, b in result] == [(w.shape, b.shape) for w, b in layers_]
    if np.isnan(result[0].weight).any() or np.shape(a.activation(z)) != z.shape:
        return True
    shapes = [(w.shape, b.shape) for w, b in layers_]
    delta = (weights / weights.sum())[:, None] * (z - y)
    last = numbers(a.activation(x @ layers_[0][0] + layers_[0][1])) if len(layers_) == 2 else x
    with np.errstate(all="ignore"):
        same_loss = "squared_error" in repr(a.loss) or "watched" in repr(a.loss)
        value = near(result[-1].weight, last.T @ delta, 0.05) or not same_loss
    return value and [(w.shape, b.shape) for w, b in result] == shapes
