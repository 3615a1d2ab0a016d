"""The functions of `curvature`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from hypothesis import strategies as st

from benchmarks.bad_input.arguments import (
    ARGS,
    CHUNK,
    DENSITY,
    EXAMPLES,
    FACTORS,
    FUN,
    KEY,
    MEAN,
    MESH,
    VECTOR,
    WEIGHTS,
)
from benchmarks.bad_input.calls import call
from benchmarks.bad_input.oracles import (
    Unknown,
    a_key,
    a_mesh,
    alike,
    factor_of,
    floating,
    gradients,
    is_own,
    near,
    near_trees,
    need,
    no_data,
    numbers,
    point,
    real,
    shares,
    single,
    whole,
)
from benchmarks.bad_input.sources import evaluate
from benchmarks.hostile_inputs import arrays, counts, functions_of, keys, reals

MATVEC = ("spread(1.0)", st.one_of(functions_of("spread(1.0)"), functions_of("spread(1.0)"),
          st.sampled_from([f"spread({factor})" for factor in FACTORS])))  # fmt: skip


@call("curvature.hessian", fun=FUN, params=VECTOR, args=ARGS)
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    p = floating(a.params)
    if not is_own(a.fun):
        return True
    if len(p) != 1 or p[0].shape != (2,):
        raise Unknown  # JAX clamps indices: one number has a saddle too
    factor = factor_of(a.fun, jnp.result_type(a.params))
    return near(np.asarray(result(jnp.asarray([1.0, 3.0], jnp.result_type(a.params))), float) / factor, [2, -6])


@call("curvature.dense_hessian", "Hessian", fun=FUN, params=VECTOR, args=ARGS, max_bytes=(None, counts()))
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    need(a.max_bytes is None or whole(a.max_bytes, 96))
    p = floating(a.params)
    if not is_own(a.fun):
        return True
    if len(p) != 1 or p[0].shape != (2,):
        raise Unknown  # JAX clamps indices: one number has a saddle too
    return near(np.asarray(result) / factor_of(a.fun), [[2, 0], [0, -2]]) and result.dtype == np.float64


def products(a: Any, matrix: np.ndarray, result: Any) -> bool:
    """Return whether a matvec is that of a matrix."""
    return near(result(jnp.asarray([1.0, 3.0], jnp.result_type(a.params))), matrix @ [1, 3], 0.02)


@call("curvature.hessian_of_mean", **MEAN, weights=WEIGHTS, chunk_size=CHUNK, mesh=MESH)
def _(a: Any, result: Any) -> bool:
    a_mesh(a.mesh)
    need(a.chunk_size is None or whole(a.chunk_size))
    x = numbers(a.args[0], 2, finite=True, kinds="fiub")
    if not is_own(a.per_example):
        return True
    gradients(a)
    with np.errstate(all="ignore"):
        return products(a, x.T @ (shares(a.weights, len(x))[:, None] * x), result)


@call("devices.mean", "result", per_example=MEAN["per_example"], mesh=("jax.make_mesh((1,), ('devices',))", MESH[1]))
def _(a: Any, result: Any) -> bool:
    need(a.mesh is not None)
    a_mesh(a.mesh)
    p, x = jnp.asarray([0.5, -1.0]), jnp.asarray([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]])
    if a.per_example is not evaluate("per_example"):
        return callable(result)  # what it is given is called later
    return near(result(p, x), np.mean(np.square(np.asarray(x) @ np.asarray(p))) / 2)


MODEL = {
    "model": ("linear", functions_of("linear")),
    "loss": ("half_square", functions_of("half_square")),
    "params": VECTOR,
    "args": ("(jnp.array([[1.0, 0.0], [2.0, 1.0]]), jnp.zeros(2))", EXAMPLES[1]),
    "weights": WEIGHTS,
    "chunk_size": CHUNK,
    "mesh": MESH,
}
for _name in ("ggn", "fisher", "empirical_fisher"):
    _more: dict[str, Any] = {}
    if _name == "fisher":
        _more = {"sample": (None, functions_of("lambda key, z: z + jax.random.normal(key)")),
                     "key": (None, keys()), "num_samples": (None, counts())}  # fmt: skip

    @call(f"curvature.{_name}", **MODEL, **_more)
    def _(a: Any, result: Any, name: str = _name) -> bool:
        a_mesh(a.mesh)
        need(a.chunk_size is None or whole(a.chunk_size))
        x, y = (numbers(v, finite=True, kinds="fiub") for v in a.args)
        need(x.ndim == 2 and len(a.args) == 2 and callable(a.model) and callable(a.loss) and len(x) == len(y) > 0)
        if name == "fisher" and a.sample is not None:
            a_key(a.key)
            return whole(a.num_samples) > 0 and callable(a.sample)
        need(name != "fisher" or (a.key is None and a.num_samples == 1))
        if not is_own(a.model) or not is_own(a.loss):
            return True
        p = point(a.params)
        need(y.shape == (len(x),))
        residual = np.ones(len(x)) if name != "empirical_fisher" else (x @ p - y) ** 2
        with np.errstate(all="ignore"):
            return products(a, x.T @ ((shares(a.weights, len(x)) * residual)[:, None] * x), result)


@call("curvature.inertia", matrix=("np.array([[2.0, 1.0], [1.0, -3.0]])", st.one_of(
          arrays((2, 2)), st.lists(st.floats(), min_size=3, max_size=3).map(
              lambda v: f"np.array([[{v[0]}, {v[1]}], [{v[1]}, {v[2]}]])"),
          st.sampled_from(("np.array([[1.0, 2.0], [3.0, 4.0]])", "[[1, 2], [2, 1]]", "np.diag([1e308, -1e308, 1e-308])",
                           "np.full((2, 2), 1e308)", "np.diag([5e-324, -5e-324])")))),
      error=(None, st.one_of(reals(), arrays((2,), (2, 2)))), scale=(None, arrays((2,))), weight=2)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    matrix = numbers(a.matrix, 2, finite=True)
    need(matrix.size and matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, matrix.T))
    error = np.zeros(()) if a.error is None else numbers(a.error, finite=True, kinds="fiub")
    need(error.shape in ((), matrix.shape[:1], matrix.shape) and np.all(error >= 0))
    if a.scale is not None:
        scale = numbers(a.scale, 1, finite=True, kinds="fiub")
        need(scale.shape == matrix.shape[:1] and np.all(scale > 0))
    size = np.abs(matrix).max() or 1.0
    values = np.linalg.eigvalsh(matrix / size) * size
    allowed = error.max() * len(matrix) + 1e-12 * size
    low, high = np.sum(values < -allowed), np.sum(values > allowed)
    surely = result.negative <= len(matrix) - high and result.positive <= len(matrix) - low
    return bool(surely and sum(result[:3]) == len(matrix) and min(result[:3]) >= 0)


@call("curvature.eigenpairs", "smallest + largest", "called", matvec=MATVEC, params=VECTOR, key=KEY,
      smallest=("1", counts(0)), largest=("1", counts(0)), tolerance=(None, reals()),
      max_matvecs=(None, counts()), basis_size=(None, counts()), block_size=(None, counts()),
      hessian=(None, functions_of("lambda: 2 * jnp.eye(2)")), dense_limit=(None, st.one_of(counts(0),
      st.just("0"))), mesh=MESH, weight=0.5)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_mesh(a.mesh)
    a_key(a.key)
    p = floating(a.params)
    size = sum(leaf.size for leaf in p)
    count = whole(a.smallest, 0, size) + whole(a.largest, 0, size)
    need(1 <= count <= size and real(a.tolerance) > 0)
    need(a.dense_limit is None or whole(a.dense_limit, -np.inf) < np.inf)
    for number in (a.max_matvecs, a.basis_size, a.block_size):
        need(number is None or whole(number))
    need(a.hessian is None or callable(a.hessian))
    if not is_own(a.matvec) or (a.hessian is not None and not is_own(a.hessian)):
        return bool(np.all(np.isfinite(result.values)))
    true = np.sort([-1.0, 2.0] if [leaf.shape for leaf in p] == [(2,)] else 2 * np.ones(size))
    wanted = np.concatenate([true[: whole(a.smallest, 0)], true[size - whole(a.largest, 0) :]])
    values = np.asarray(result.values, float) / factor_of(a.matvec, result.values.dtype)
    return near(values, wanted, 1e-2) or not np.all(result.converged)


PROBES = (None, st.one_of(counts(), st.just("3")))
for _name in ("trace", "diagonal", "spectral_density"):
    _more = {} if _name != "spectral_density" else {"num_steps": (None, counts())}

    @call(f"curvature.{_name}", matvec=MATVEC, params=VECTOR, key=KEY, num_probes=PROBES, **_more, weight=0.5)
    def _(a: Any, result: Any, name: str = _name) -> bool:
        a_key(a.key)
        p = floating(a.params)
        probes = whole(a.num_probes)
        if not is_own(a.matvec):
            return True
        factor = factor_of(a.matvec, jnp.result_type(*jax.tree.leaves(a.params)))
        diagonal = [np.array([-1.0, 2.0]) if leaf.shape == (2,) else 2 * np.ones_like(leaf) for leaf in p]
        if name == "trace":
            return near(np.asarray(result.value, float) / factor, sum(np.sum(leaf) for leaf in diagonal), 0.01)
        if name == "diagonal":
            return near_trees([np.asarray(x, float) / factor for x in jax.tree.leaves(result.value)], diagonal, 0.01)
        mean = np.sum(np.asarray(result.nodes, float) / factor * np.asarray(result.weights, float))
        ends = np.ptp(np.asarray(result.nodes, float) / factor) if whole(a.num_steps) > 1 else None
        exact = np.concatenate([np.ravel(leaf) for leaf in diagonal])
        same = np.isclose(mean, exact.mean(), 0.02) and (ends is None or np.isclose(ends, np.ptp(exact), 0.02, 0.02))
        return bool(same) and near(result.weights.sum(), 1) and result.nodes.shape[0] == probes


@call("curvature.quadratic_model", fun=FUN, params=VECTOR, args=ARGS)
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    if not is_own(a.fun):
        return len(floating(a.params)) > 0
    if [leaf.shape for leaf in floating(a.params)] != [(2,)]:
        raise Unknown
    factor = factor_of(a.fun, jnp.result_type(a.params))
    return near(np.asarray(result(jnp.asarray([3.0, 1.0], jnp.result_type(a.params))), float) / factor, 8, 0.05)


@call("curvature.taylor_remainder", fun=FUN, params=VECTOR, direction=VECTOR, steps=("jnp.array([0.1, 0.2])",
      arrays((2,))), args=ARGS)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    alike(a.params, a.direction)
    floating(a.params), floating(a.direction)
    steps = numbers(a.steps, 1, kinds="fiub")
    need(np.all(np.isfinite(steps)) and np.all(steps != 0))
    factor = factor_of(a.fun, jnp.result_type(*jax.tree.leaves(a.params)))
    return not is_own(a.fun) or only_rounding(a, result, steps, factor)


def only_rounding(a: Any, result: Any, steps: np.ndarray, factor: float) -> bool:
    """Return whether what is left of a quadratic function is rounding: that which is returned, and that of its values.

    Those are differences of two squares of θ + t v, in the dtype of params; what is beyond its range is not judged.
    """
    kinds = [jnp.finfo(jnp.result_type(leaf)) for leaf in (*jax.tree.leaves(a.params), result.values)]
    eps, tiny = (max(float(getattr(kind, name)) for kind in kinds) for name in ("eps", "tiny"))
    largest = min(float(kind.max) for kind in kinds)
    with np.errstate(all="ignore"):
        p, v = (np.sqrt(sum(np.sum(leaf**2) for leaf in floating(part))) for part in (a.params, a.direction))
        size = (p + np.abs(steps) * v) ** 2
        below = 8 * tiny * max(factor, 1.0) * (1 + np.abs(steps) * (1 + v)) ** 2
        allowed = 10 * np.asarray(result.rounding, float) + 8 * eps * factor * size + below
        beyond = ~(4 * max(factor, 1.0) * (size + (1 + np.abs(steps)) ** 2 * (1 + v) ** 2) < largest)
        return bool(np.all((np.asarray(result.values, float) <= allowed) | beyond))


@call("curvature.log_log_slope", x=("jnp.array([1.0, 2.0, 4.0])", arrays((3,))),
      y=("jnp.array([1.0, 8.0, 64.0])", arrays((3,))), mask=(None, arrays((3,))))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    x, y = single(a.x, 1), single(a.y, 1)
    mask = np.ones(len(x), bool) if a.mask is None else np.asarray(a.mask)
    need(mask.dtype == bool)
    need(x.shape == y.shape == mask.shape)
    with np.errstate(all="ignore"):
        u, v = np.log(x[mask]), np.log(y[mask])
        if len(u) < 2 or not np.all(np.isfinite(u)) or np.ptp(u) == 0 or not np.all(np.isfinite(v)):
            return bool(np.isnan(result)) or len(u) > 1
        return near(result, np.polyfit(u, v, 1)[0], 0.05)


@call("curvature.rounding_unit", fun=FUN, params=VECTOR, args=ARGS)
def _(a: Any, result: Any) -> bool:
    need(isinstance(a.args, tuple) and callable(a.fun))
    floating(a.params, finite=False)
    return result in (2.0**-53, 2.0**-24) or not is_own(a.fun)


@call("curvature.Density.smooth", self=(DENSITY, st.just(DENSITY)), grid=("jnp.array([0.0, 1.0])", arrays((2,))),
      width=("1.0", reals()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    grid, width = numbers(a.grid, finite=True, kinds="f"), real(a.width)
    need(width > 0)
    with np.errstate(all="ignore"):
        expected = sum(scipy.stats.norm(node, width).pdf(grid) / 2 for node in (0.0, 1.0))
        return near(result.value, expected, 0.05) or not 1e-3 < width < 1e3


@call("curvature.Density.expectation", self=(DENSITY, st.just(DENSITY)), fun=("jnp.sin", functions_of("jnp.sin")))
def _(a: Any, result: Any) -> bool:
    return a.fun is not jnp.sin or near(result.value, np.sin(1) / 2)
