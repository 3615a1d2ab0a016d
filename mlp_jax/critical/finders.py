"""find and find_many: points where the gradient of any function of any pytree is zero to rounding."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, _parallel, tree
from mlp_jax.critical.point import Point
from mlp_jax.critical.search import of_pytrees, on_host
from mlp_jax.critical.search.contract import Reason
from mlp_jax.critical.search.levenberg_marquardt import levenberg_marquardt
from mlp_jax.critical.search.newton_mr import newton_mr
from mlp_jax.critical.search.of_pytrees import Method, Settings
from mlp_jax.curvature import matrices, precision, units
from mlp_jax.curvature.types import Channels, Fun, HessianMatrix, Progress, PyTree

# Concurrent searches of `find_many` times parameters: enough to fill vector instructions, and no more, because lanes
# without a start left run until the last search ends. With more parameters than `_WIDE` one search fills them.
_WIDTH, _WIDE = 288, 48


def find(
    fun: Fun,
    params: PyTree,
    args: tuple = (),
    *,
    index: int | None = None,
    method: Method | None = None,
    hessian: HessianMatrix | None = None,
    max_steps: int = 500,
    radius: float | None = None,
    channels: Channels | None = None,
    progress: Progress | None = None,
) -> Point:
    """Go from params to a critical point, of any index or of a chosen one. Transformable.

    It climbs along `index` eigenvectors of the Hessian and descends along the others (Cerjan & Miller 1981; for index 0
    saddle-free Newton, Dauphin et al. 2014); without `index` it climbs along a third of those that are unstable at the
    start. A search for an index that makes no progress, or ends at a point of another index, restarts beside a critical
    point of an index close to it or, with 5 % noise, at params or multiples of it from .1 to 1.3. After that, and
    without `index`, it continues from where it is and climbs along fewer eigenvectors. It may still end at a point of
    another index, or at no critical point, even if there is one. `reached` says whether the index is the one asked for;
    above 4000 parameters the index is not known.

    Above 200 parameters a search for index 0, or without `index`, first descends by L-BFGS (20 gradients count as a
    step) until Newton's steps converge, at a minimum or at a saddle of low index on the way; up to 4000 parameters in
    coordinates in which curvature is about 1 if that takes more than 2000 gradients. For another index it minimises,
    from where few eigenvalues are negative, the function with its slope along the lowest eigenvectors reversed; if it
    finds no critical point there, it descends. Up to 1000 parameters a search for an index up to 4 does this a second
    time from beside params if it ends at another; one for a higher index first follows eigenvectors, with a fifth of
    its steps. Above 4000 parameters it uses no matrices: after a short descent it continues in coordinates that deflate
    the largest curvatures, and the eigenvectors are those on a Krylov space of dimension 120.

    A point counts as converged only if each component of the gradient is within the change that a rounding of params
    causes.

    Outside jit it computes in float64 whatever the caller's default; a second call with the same functions, settings
    and shapes compiles nothing. Under jit, or with a `method`, one search is one compiled program:
    `eigenvector_following` with an index, `levenberg_marquardt` (above 1500 parameters `newton_mr`) without. The latter
    two descend the gradient norm and may end at gradient-flat points, which are not critical; `reason` says so. With
    matrices a search takes 64 P² bytes, and O(P³) work for each step.

    Parameters
    ----------
    fun, params, args
        As for `classify`; params is the start.
    index
        None, or the number of negative eigenvalues wanted, from 0 to P.
    method
        `critical.levenberg_marquardt`, `critical.newton_mr`, or any function `(Function, max_steps) -> Search` of
        `critical.search.contract`. Not together with `index`.
    hessian
        `(params, *args) -> (P, P)` in the order of `tree.ravel`, such as a partial of `mlp_hessian.dense`;
        `curvature.dense_hessian` of `fun` when None.
    max_steps
        Largest number of points at which the Hessian is used; Newton's last steps may add a dozen.
    radius
        Longest step of a search without `method`; a sixth of ‖params‖, or of 1 if that is larger, when None.
    channels
        `(fun, params, args) -> words` about a channel to infinity, such as `mlp_symmetry.channels(activation)`. Called
        where the search ends without converging, under jit never; the words are added to `reason`.
    progress
        Called as progress(steps, max_steps) after each step; with a `method` at the end only, under jit never.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `curvature.dense_hessian`; an index, a number of steps or a radius out of range; both index and method.

    Examples
    --------
    >>> fun = lambda x: x[0] ** 3 - 3 * x[0] + x[1] ** 2
    >>> point = find(fun, jnp.array([2.0, 1.0]))
    >>> bool(point.converged), [round(float(v), 12) + 0.0 for v in point.params]
    (True, [1.0, 0.0])
    >>> [round(float(v), 12) + 0.0 for v in find(fun, jnp.array([-0.2, 1.0]), index=1).params]
    [-1.0, 0.0]
    >>> print(point)  # doctest: +ELLIPSIS
    converged: the gradient is at the level of its own rounding. 2 parameters, gradient norm ...
    """
    traced = _checks.is_traced((params, args))
    on_cores = method is None and not traced
    settings = _settings(index, method, hessian, max_steps, radius, tree.size(params), on_cores)
    if channels is not None:
        _checks.function(channels, "channels", "(fun, params, args) -> words, such as mlp_symmetry.channels(jnp.tanh)")
    if traced:
        precision.require_scalar_function(fun, params, args)
        return of_pytrees.find_one(fun, settings, index, params, args)
    with precision.float64():
        function, params, args = precision.traced_problem(fun, params, args)
        settings = settings._replace(unit=units.traced_unit(function, params))
        search: Any = of_pytrees.compiled_find_one
        if on_cores:
            search = functools.partial(on_host.follow_one, progress)
        # numpy, because JAX warns at every use of a float64 array where x64 is off.
        point = _parallel.to_host(search(function, settings, index, params, args))
        if progress is not None:
            progress(min(int(point.steps), max_steps), max_steps)
        if point.reason == Reason.NOT_FINITE:
            fun(params, *args)  # given numbers, fun may say what is wrong with them
        known, reason = int(point.index) if point.index >= 0 else None, Reason(int(point.reason))
        if channels is not None and not point.converged and reason != Reason.NOT_FINITE:
            words = channels(function, point.params, args)
            reason = reason.because(words) if words else reason
        return dataclasses.replace(point, index=known, reason=reason)


def find_many(
    fun: Fun,
    starts: PyTree,
    args: tuple = (),
    *,
    index: int | None = None,
    method: Method | None = None,
    hessian: HessianMatrix | None = None,
    max_steps: int = 500,
    radius: float | None = None,
    lanes: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    progress: Progress | None = None,
) -> Point:
    """Run `find` from many starts: a Point with a leading axis n on every field. Transformable.

    Above 48 parameters each search is that of `find`, with one search per core. Up to 48, under jit, or with `method`,
    `lanes` or `mesh`, all run in one compiled program, `lanes` of them side by side; when one ends, its lane takes the
    next start at once, so that none waits for the slowest. A start that is not finite gives a point with reason
    `NOT_FINITE`, and does not affect the others. A critical point reached from several starts appears several times:
    see `distinct`.

    Parameters
    ----------
    fun, args, index, method, hessian, max_steps, radius
        As for `find`.
    starts
        params with a leading axis of the same length n on every leaf.
    lanes
        Searches that run at a time on one device; 32 for up to 9 parameters, fewer for more, when None. With matrices
        each takes 80 P² bytes.
    mesh
        When given, such as `mesh=jax.make_mesh((jax.device_count(),), ("devices",))`, its devices share the starts, n /
        devices for each, and none waits for another before the end. With several processes, each makes the same call
        and gets all points; under jit they stay split over the devices. The results equal those without a mesh and with
        the same `lanes` bit for bit, because each device has as many lanes as a single one would have. With few starts
        some lanes are idle: ask for fewer.
    progress
        Called as progress(searches done, n) after each search, or at the end only where all run in one program.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `find`; leaves of `starts` without a common leading axis; under jit, n is not a multiple of the devices.

    Examples
    --------
    >>> fun = lambda x: x[0] ** 3 - 3 * x[0] + x[1] ** 2
    >>> points = find_many(fun, jnp.array([[2.0, 1.0], [-2.0, 1.0], [jnp.nan, 0.0]]))
    >>> points.converged.tolist(), (points.params[:2].round(9) + 0.0).tolist()
    ([True, True, False], [[1.0, 0.0], [-1.0, 0.0]])
    >>> print(Reason(points.reason[2]))
    the gradient or the Hessian is not finite
    """
    _checks.params(starts, "starts", finite=False)
    num = _checks.common_length(starts, "starts")
    one: Any = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf)[1:], jnp.result_type(leaf)), starts)
    size = tree.size(one)
    traced = _checks.is_traced((starts, args))
    on_cores = size > _WIDE and method is None and lanes is None and mesh is None and not traced
    lanes = (min(32, _WIDTH // size) if size <= _WIDE else 1) if lanes is None else _checks.integer(lanes, "lanes")
    mesh = None if mesh is None else _parallel.require_mesh(mesh)
    settings = _settings(index, method, hessian, max_steps, radius, size, on_cores, min(num, lanes))
    settings = settings._replace(mesh=mesh)
    if traced:
        precision.require_scalar_function(fun, one, args)
        if mesh is not None and num % mesh.size:
            raise ValueError(f"starts: got {num} for {mesh.size} devices, expected a multiple of that under jit.")
        return of_pytrees.find_each(fun, settings, index, starts, args)
    with precision.float64():
        function, one, args = precision.traced_problem(fun, one, args)
        settings = settings._replace(unit=units.traced_unit(function, one))
        starts = precision.promote(starts)
        if mesh is not None:
            starts = _parallel.pad(starts, mesh)
        search: Any = of_pytrees.compiled_find_each
        if on_cores:
            search = functools.partial(on_host.follow_each, progress)
        points = _parallel.to_host(search(function, settings, index, starts, args))
        if progress is not None and not on_cores:
            progress(num, num)
        return jax.tree.map(lambda leaf: leaf[:num], points)


def _settings(
    index: int | None,
    method: Method | None,
    hessian: HessianMatrix | None,
    max_steps: int,
    radius: float | None,
    size: int,
    on_cores: bool,
    lanes: int = 1,
) -> Settings:
    """Return the settings of a search over `size` parameters, checked, with the method for that many.

    A search on the cores needs no matrices above `on_host.COUNTED` parameters.
    """
    if index is not None:
        if method is not None:
            raise ValueError("index and method: got both, expected one: a chosen index has a method of its own.")
        _checks.integer(index, "index", 0, size)
    if method is not None:
        _checks.function(method, "method", "(Function, max_steps) -> Search, such as critical.newton_mr")
    elif index is None:
        method = levenberg_marquardt if size <= on_host.GIVEN else newton_mr
    if hessian is not None:
        _checks.function(hessian, "hessian", "(params, *args) -> (P, P)")
    max_steps = _checks.integer(max_steps, "max_steps", 1, 2**31 - 1)
    if radius is not None:
        radius = float(_checks.real(radius, "radius", "a number above 0", lambda x: x > 0))
    by_products = on_cores and size > on_host.COUNTED
    if (index is not None and not by_products) or method is levenberg_marquardt:
        matrices.require_memory(size, matrices=8 if lanes == 1 else 10 * lanes)
    return Settings(method, hessian, max_steps, radius, lanes)
