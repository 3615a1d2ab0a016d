"""The functions of `critical`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from benchmarks.bad_input.arguments import AT, FUN, KEY, KNOWN_POINT, MATRICES, MESH, POINT_ARGS, SYMMETRIES, VECTOR
from benchmarks.bad_input.calls import call
from benchmarks.bad_input.oracles import (
    Unknown,
    a_key,
    a_mesh,
    floating,
    is_own,
    near,
    need,
    no_data,
    point,
    real,
    truth,
    whole,
)
from benchmarks.hostile_inputs import arrays, counts, functions, functions_of, keys, reals, things


def wrong_name(said: str, order: int, sign: float) -> bool:
    """Return whether a verdict contradicts what is known of (x₀ − c)² + sign · x₁^order."""
    if said.startswith(("minimum", "maximum")):
        return not (said == "minimum" and order == 2 and sign > 0)
    if said == "saddle":
        return not (order == 2 and sign < 0)
    if said == "degenerate saddle":
        return not (order > 2 and sign < 0)
    return said == "degenerate" and order == 2


@call("critical.classify", "gradient", "Hessian", "result", weight=1,
      fun=("power(2, -1.0, 0.0, 1.0)", st.one_of(functions(), KNOWN_POINT, KNOWN_POINT)), params=AT, args=POINT_ARGS,
      hessian=(None, MATRICES), symmetries=(None, SYMMETRIES), kinks=(None, st.one_of(functions(),
      arrays((2,)).map("constant({})".format))), key=(None, keys()), evidence=(None, st.one_of(
      things(), st.sampled_from(("'dense'", "'lanczos'", "'proved'")))))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    p = floating(a.params)
    need(a.key is None or a_key(a.key) is not None)
    need(all(f is None or callable(f) for f in (a.hessian, a.symmetries, a.kinks)))
    known = truth(a.fun)
    if known is None or len(p) != 1 or p[0].shape != (2,):
        # A function that returns NaN, or another one of those that misbehave and yet are functions.
        return result.kind in ("not critical", "undetermined", "nonsmooth", "degenerate") or is_own(a.fun)
    order, sign, place, _ = known
    if np.abs(p[0] - [place, 0]).max() > 1e-8 and result.kind not in ("not critical", "nonsmooth"):
        # Claims hold within `distance`: near is enough, and a quartic is nearly flat far around its point.
        return not wrong_name(result.kind, order, sign) or order > 2
    return not wrong_name(result.kind, order, sign)


@call(
    "critical.classify*",
    "gradient",
    "Hessian",
    weight=3,
    together=4,
    symmetries=(None, SYMMETRIES),
    fun=("power(4, -1.0, 0.0, 1.0)", KNOWN_POINT),
    evidence=(None, st.sampled_from(("'dense'", "'lanczos'", "'proved'"))),
    params=("jnp.zeros(2)", st.sampled_from(("jnp.zeros(2)", "jnp.array([1.0, 0.0])", "np.array([1e-6, 0.0])"))),
)
def _(a: Any, result: Any) -> bool:
    order, sign, place, _ = truth(a.fun) or (2, 1.0, 0.0, 1.0)
    if np.abs(np.asarray(a.params) - [place, 0]).max() > 0:
        return result.kind in ("not critical", "nonsmooth", "undetermined") or not wrong_name(result.kind, order, sign)
    return not wrong_name(result.kind, order, sign)


SEARCH = {
    "index": (None, counts(0)),
    "method": (None, st.one_of(functions(), st.sampled_from(("critical.newton_mr", "critical.levenberg_marquardt")))),
    "hessian": (None, MATRICES),
    "max_steps": (None, counts(huge=False)),
    "radius": (None, reals()),
}


def searched(a: Any) -> None:
    """Raise Illegal unless the settings of a search are legal."""
    no_data(a.args)
    whole(a.max_steps)
    need(a.radius is None or float(a.radius) > 0)
    need(a.index is None or whole(a.index, 0, 2) >= 0)
    need(a.index is None or a.method is None)
    need(all(f is None or callable(f) for f in (a.method, a.hessian)) and callable(a.fun))


@call("critical.find", "Hessian", fun=FUN, params=VECTOR, args=POINT_ARGS, **SEARCH, weight=1)
def _(a: Any, result: Any) -> bool:
    searched(a)
    if not is_own(a.fun):
        return len(floating(a.params)) > 0
    if [np.shape(p) for p in floating(a.params)] == [(1,)]:
        raise Unknown  # JAX clamps indices: of one number the saddle is 0
    point(a.params)
    return near(result.params, [0, 0]) or not result.converged


@call("critical.find_many", "Hessian", "params", fun=FUN, starts=("jnp.array([[0.5, -1.0], [2.0, 1.0]])", arrays(
      (3, 2))), args=POINT_ARGS, **SEARCH, lanes=(None, counts()), mesh=MESH, weight=0.3)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_mesh(a.mesh)
    searched(a)
    need(a.lanes is None or whole(a.lanes))
    (starts,) = floating(a.starts, finite=False)
    if not is_own(a.fun):
        return True
    if starts.shape[1:] == (1,):
        raise Unknown  # JAX clamps indices: of one number the saddle is 0
    need(starts.ndim == 2 and starts.shape[1] == 2 and len(starts))
    return bool(np.all(np.isfinite(starts).all(1) | ~result.converged)) and near(
        result.params[result.converged], np.zeros((int(result.converged.sum()), 2))
    )


@call("critical.distinct", points=("critical.find_many(saddle, jnp.ones((2, 2)))", st.one_of(things(),
      st.just("critical.find(saddle, jnp.ones(2))"))), canonical=(None, functions_of("lambda p: p")),
      tolerance=(None, reals()), weight=0.3)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    need(a.tolerance is None or real(a.tolerance, 0) >= 0)
    need(a.canonical is None or callable(a.canonical))
    return result.hits.sum() == 2


@call("critical.along_run", key=KEY, run=("jnp.arange(6.0).reshape(3, 2)", arrays((3, 2))),
      num_starts=("2", counts()), noise=("0.0", reals()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    n, noise = whole(a.num_starts), real(a.noise, 0)
    (run,) = floating(a.run)
    need(run.ndim and len(run))
    places = np.round(np.linspace(0, len(run) - 1, n)).astype(int)
    return near(result, run[places]) if noise == 0 else result.shape == run[places].shape


@call("critical.census", "starts", "Hessian", "params", fun=FUN, init=("start", functions_of("start")), key=KEY,
      num_starts=("4", counts()), args=POINT_ARGS, symmetries=(None, things()), tangents=(None, SYMMETRIES),
      hessian=(None, MATRICES), evidence=(None, things()), passes=("1", counts(huge=False)),
      complete_sum=(None, counts(0)), mesh=MESH, weight=0.2)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_mesh(a.mesh)
    no_data(a.args)
    a_key(a.key)
    whole(a.num_starts), whole(a.passes)
    need(
        a.evidence in (None, "dense", "lanczos", "proved")
        and (a.complete_sum is None or whole(a.complete_sum, -(10**9)))
    )
    need(callable(a.init) and callable(a.fun) and (a.tangents is None or callable(a.tangents)))
    if not (is_own(a.init) and is_own(a.fun)):
        return True
    return result.num_converged == 0 or {v.kind for v in result.verdicts} <= {"saddle", "nonsmooth", "undetermined"}
