"""The functions of `landscape`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from benchmarks.bad_input.arguments import ACTIVATION, FUN, KEY, PARAMS, POINT_ARGS, VECTOR, trees
from benchmarks.bad_input.calls import call
from benchmarks.bad_input.oracles import (
    a_key,
    alike,
    an_activation,
    factor_of,
    floating,
    is_own,
    near,
    near_trees,
    need,
    network,
    no_data,
    numbers,
    point,
    single,
    through,
    whole,
)
from benchmarks.hostile_inputs import arrays, counts, functions

OFFSETS = ("[0.0, 0.5, 1.0]", arrays((3,)))
ALONG = {"fun": FUN, "args": POINT_ARGS, "chunk_size": (None, counts())}


def values_on(a: Any, points: np.ndarray) -> np.ndarray | None:
    """Return the saddle at points (..., 2); None for another function."""
    no_data(a.args)
    whole(a.chunk_size)
    need(callable(a.fun))
    with np.errstate(all="ignore"):
        factor = factor_of(a.fun, np.float32)
        return factor * (points[..., 0] ** 2 - points[..., 1] ** 2) if is_own(a.fun) else None


@call("landscape.line", **ALONG, params=VECTOR, direction=VECTOR, offsets=OFFSETS)
def _(a: Any, result: Any) -> bool:
    t = numbers(a.offsets, 1, finite=True, kinds="fiub")
    expected = values_on(a, point(a.params) + t[:, None] * point(a.direction))
    return expected is None or near(result, expected, 0.05)


@call("landscape.interpolation", "direction", "offsets", **ALONG, start=VECTOR, end=VECTOR, fractions=OFFSETS)
def _(a: Any, result: Any) -> bool:
    t = numbers(a.fractions, 1, finite=True, kinds="fiub")[:, None]
    expected = values_on(a, (1 - t) * point(a.start) + t * point(a.end))
    return expected is None or near(result, expected, 0.05)


@call(
    "landscape.plane",
    **ALONG,
    params=VECTOR,
    first=VECTOR,
    second=VECTOR,
    first_offsets=OFFSETS,
    second_offsets=OFFSETS,
)
def _(a: Any, result: Any) -> bool:
    s, t = (numbers(v, 1, finite=True, kinds="fiub") for v in (a.first_offsets, a.second_offsets))
    points = point(a.params) + s[:, None, None] * point(a.first) + t[:, None] * point(a.second)
    expected = values_on(a, points)
    return expected is None or near(result, expected, 0.05)


@call("landscape.barrier", values=("[1.0, 5.0, 2.0]", arrays((3,))), fractions=("[0.0, 0.5, 1.0]", st.one_of(
      arrays((3,)), st.sampled_from(("[0.0, 2.0, 1.0]", "[0, 1]", "[0.0, nan, 1.0]", "[0.0, 0.3, 1.0]")))))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    values, t = single(a.values, 1), numbers(a.fractions, 1, finite=True, kinds="fiub")
    need(values.shape == t.shape and len(t) > 1 and t[0] == 0 and t[-1] == 1 and np.all(np.diff(t) >= 0))
    with np.errstate(all="ignore"):
        return near(result, np.max(values - ((1 - t) * values[0] + t * values[-1])), 0.01)


def _scaled(d: np.ndarray, w: np.ndarray, others: tuple[int, ...] | None) -> np.ndarray:
    length, wanted = (np.sqrt(np.sum(v**2, axis=others, keepdims=True)) for v in (d, w))
    return d * np.where(length > 0, wanted / np.where(length > 0, length, 1), 0)


MATRIX = ("jnp.array([[0.5, -1.0], [2.0, 3.0]])", trees((2, 2)))


@call("landscape.filter_normalized", direction=MATRIX, params=MATRIX, axis=(None, counts(-2)))
def _(a: Any, result: Any) -> bool:
    alike(a.direction, a.params)
    pairs = zip(*(map(single, floating(part, finite=False)) for part in (a.direction, a.params)), strict=True)
    expected = []
    for d, w in pairs:
        axis = whole(a.axis, -max(w.ndim, 1), max(w.ndim - 1, 0))
        others = tuple(i for i in range(w.ndim) if i != axis % w.ndim) if w.ndim else ()
        with np.errstate(all="ignore"):
            expected.append(_scaled(d, w, others) if w.ndim > 1 else 0 * np.ones_like(d))
    return near_trees(result, expected, 0.05)


@call("landscape.layer_normalized", direction=MATRIX, params=MATRIX)
def _(a: Any, result: Any) -> bool:
    alike(a.direction, a.params)
    pairs = zip(*(map(single, floating(part, finite=False)) for part in (a.direction, a.params)), strict=True)
    with np.errstate(all="ignore"):
        return near_trees(result, [_scaled(d, w, None) for d, w in pairs], 0.05)


@call(
    "landscape.principal_plane", trajectory=("jnp.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])", trees((3, 2), (4, 3)))
)
def _(a: Any, result: Any) -> bool:
    leaves = floating(a.trajectory)
    need(all(leaf.ndim for leaf in leaves) and len({len(leaf) for leaf in leaves}) == 1 and len(leaves[0]) > 2)
    rows = np.concatenate([(leaf - leaf[-1]).reshape(len(leaf), -1) for leaf in leaves], 1)
    need(rows.shape[1] > 1)
    squares = np.linalg.svd(rows, compute_uv=False) ** 2
    return near(result.explained, squares[:2] / (squares.sum() or 1), 0.02)


@call(
    "landscape.eigenvector_plane",
    "numbers",
    "eigenvectors",
    "matvec",
    "hessian",
    fun=FUN,
    params=VECTOR,
    args=POINT_ARGS,
    key=KEY,
    hessian_matrix=(None, st.one_of(functions(), arrays((2, 2)).map("constant({})".format))),
    weight=0.2,
)
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    a_key(a.key)
    need(callable(a.fun) and (a.hessian_matrix is None or callable(a.hessian_matrix)))
    if not is_own(a.fun):
        return True
    point(a.params)
    return near(result.values / factor_of(a.fun), [-2, 2], 0.01) and near(np.abs(result.first), [0, 1], 0.01)


@call("landscape.match_units", "shapes", params=PARAMS, reference=PARAMS, activation=("jnp.tanh", ACTIVATION[1]),
      max_sweeps=(None, counts()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    ours, theirs = network(a.params), network(a.reference)
    need(all(np.isfinite(leaf).all() for layer in ours + theirs for leaf in layer))
    need([w.shape for w, _ in ours] == [w.shape for w, _ in theirs])
    whole(a.max_sweeps)
    own = all(an_activation(a.activation, len(bias)) for _, bias in ours[:-1])
    x = np.random.default_rng(0).standard_normal((5, len(ours[0][0])))
    return not own or near(through(network(result), x, np.tanh), through(ours, x, np.tanh), 0.01)
