"""The functions of `mlp_hessian` and `mlp_symmetry`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from benchmarks.bad_input.arguments import ACTIVATION, ARGS, BOOLEAN, INPUTS, LOSS, MESH, PARAMS, WEIGHTS
from benchmarks.bad_input.calls import call
from benchmarks.bad_input.oracles import (
    Unknown,
    a_mesh,
    an_activation,
    floating,
    gradient_of,
    is_own,
    near,
    need,
    network,
    no_data,
    numbers,
    real,
    shares,
    through,
    whole,
)
from benchmarks.bad_input.sources import square
from benchmarks.hostile_inputs import arrays, counts, functions, functions_of, reals, things

NETWORK = {
    "params": PARAMS,
    "inputs": INPUTS,
    "targets": ("jnp.zeros((2, 1))", arrays((2, 1))),
    "loss": LOSS,
    "activation": ACTIVATION,
    "weights": WEIGHTS,
    "penalty": (None, functions_of("square")),
    "gauss_newton": BOOLEAN,
    "residual": BOOLEAN,
    "max_bytes": (None, counts()),
    "mesh": MESH,
}


def mlp_loss(a: Any, vector: np.ndarray) -> float:
    """Return the loss at a vector of params of the shapes of a.params, in numpy."""
    made, first = [], 0
    for weight, bias in a.params:
        size = np.size(weight)
        made.append((vector[first : first + size].reshape(np.shape(weight)), vector[first + size :][: np.size(bias)]))
        first += size + np.size(bias)
    z = through(made, a.inputs, np.tanh)
    value = shares(a.weights, len(z)) @ (0.5 * ((z - numbers(a.targets, 2, kinds="fiub")) ** 2).sum(1))
    return float(value + (vector @ vector if a.penalty is not None else 0))


def mlp_matrix(a: Any) -> np.ndarray | None:
    """Return the Hessian by differences, or None where there is another activation, loss or penalty."""
    a_mesh(a.mesh)
    layers_ = network(a.params)
    for leaf in jax.tree.leaves((a.params, a.inputs, a.targets)):
        numbers(leaf, finite=True, kinds="fiub")
    need(callable(a.loss) and callable(a.activation) and (a.penalty is None or callable(a.penalty)))
    need(a.gauss_newton or a.residual)
    need(a.max_bytes is None or whole(a.max_bytes))
    through(layers_, a.inputs, a.activation)
    own = all(is_own(f) for f in (a.loss, a.activation, a.penalty or square))
    if not own or not (a.gauss_newton and a.residual):
        return None
    vector = np.concatenate([np.ravel(leaf) for layer in layers_ for leaf in layer])
    if max(np.abs(v).max() for v in (vector, *(numbers(v, kinds="fiub") for v in (a.inputs, a.targets)))) > 3:
        return None
    return gradient_of(lambda v: gradient_of(lambda u: mlp_loss(a, u), v), vector)


@call("mlp_hessian.dense", "hessian", "values", **NETWORK, weight=0.4)
def _(a: Any, result: Any) -> bool:
    matrix = mlp_matrix(a)
    return matrix is None or near(result, matrix, 0.01)


@call("mlp_hessian.blocks", "hessian", "values", layers=("(0, 1)", st.one_of(things(), st.tuples(
      counts(0), counts(0)).map("({0[0]}, {0[1]})".format))), **NETWORK, weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    matrix = mlp_matrix(a)
    ends = np.cumsum([0, *(np.size(w) + np.size(b) for w, b in a.params)])
    i, j = (whole(n, 0, len(a.params) - 1) for n in a.layers)
    return matrix is None or near(result, matrix[ends[i] : ends[i + 1], ends[j] : ends[j + 1]], 0.01)


WIDTH = ("4", counts())
PHI = ("jnp.tanh", functions_of("jax.nn.relu"))


@call("mlp_symmetry.traits", activation=PHI, width=WIDTH)
def _(a: Any, result: Any) -> bool:
    if not an_activation(a.activation, whole(a.width)):
        return True
    if isinstance(a.activation, type):
        raise Unknown  # rounds to its own dtype
    return result.separate and (result.odd if a.activation is jnp.tanh else result.homogeneous)


@call("mlp_symmetry.corners", activation=PHI, weight=0.4)
def _(a: Any, result: Any) -> bool:
    need(callable(a.activation) and np.shape(a.activation(jnp.ones(5))) == (5,))
    return not is_own(a.activation) or result == (() if a.activation is jnp.tanh else (0.0,))


@call("mlp_symmetry.kinks", activation=PHI, inputs=(None, functions()), weight=0.4)
def _(a: Any, result: Any) -> bool:
    need(callable(a.activation) and callable(a.inputs))
    need(np.shape(a.activation(jnp.ones((5, 12))))[:1] == (5,))
    return callable(result)


NETWORK_FUN = "lambda p, x: jnp.sum(mlp.forward(p, x) ** 2)"
ON_NETWORK = {
    "fun": (NETWORK_FUN, functions_of(f"({NETWORK_FUN})")),
    "params": PARAMS,
    "args": ("(jnp.array([[0.5, 1.0], [2.0, -1.0]]),)", ARGS[1]),
    "activation": ("jnp.tanh", functions_of("jnp.tanh")),
}


def on_network(a: Any) -> bool:
    """Return whether the function is our own network; raise if something is illegal."""
    no_data(a.args)
    layers_ = network(a.params)
    floating(a.params)
    own = all(an_activation(a.activation, len(bias)) for _, bias in layers_[:-1])
    need(callable(a.fun))
    return own and is_own(a.fun)


@call("mlp_symmetry.maps", **ON_NETWORK, weight=0.2)
def _(a: Any, result: Any) -> bool:
    return not on_network(a) or all(layer.permutations and layer.flips for layer in result.layers)


@call("mlp_symmetry.tangents", **ON_NETWORK, inputs=INPUTS, weight=0.2)
def _(a: Any, result: Any) -> bool:
    own = on_network(a)
    need(numbers(a.inputs, 2, finite=True, kinds="fiub").shape[1] == len(network(a.params)[0][0]))
    return not own or not any("rescaling" in name for name in result.names)


@call("mlp_symmetry.split_lines", **ON_NETWORK, tolerance=(None, reals()), weight=0.2)
def _(a: Any, result: Any) -> bool:
    real(a.tolerance, 0)
    on_network(a)
    return jax.tree.structure(result) == jax.tree.structure(a.params)
