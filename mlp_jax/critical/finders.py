"""Find critical points of any function of any pytree: points where its gradient is zero to rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, _compiled, curvature, devices, display, tree
from mlp_jax.critical.search.contract import End, Function, Reason, Search, norm, run, run_many
from mlp_jax.critical.search.eigenvector_following import eigenvector_following
from mlp_jax.critical.search.ends import settle
from mlp_jax.critical.search.gradient_norm import levenberg_marquardt
from mlp_jax.critical.search.newton_mr import newton_mr
from mlp_jax.curvature import matrices, precision, units
from mlp_jax.tree import PyTree

HessianMatrix = Callable[..., jax.Array]
Method = Callable[[Function, int], Search]

# Above this many parameters the default method uses no matrices: a step of Levenberg–Marquardt is 11 P³ flops.
_DENSE = 1500
# Searches of `find_many` under way at a time, times parameters: enough to fill vector instructions, and no more,
# because lanes that have no start left run on until the last search is over. With more parameters than `_WIDE` one
# search fills them by itself.
_WIDTH, _WIDE = 288, 48


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Point:
    """Where a search ended; from `find_many` every field has a leading axis.

    params
        The point, float64; like the numbers below, numpy arrays when `find` was called outside jit.
    gradient_norm
        ‖g‖₂ there.
    flatness
        ‖H p + g‖ / ‖g‖ with p the minimum-residual Newton step over the modes above 1e-6 of the largest: near 0 where
        Newton's method would go on to a zero of the gradient, near 1 where the gradient lies in the null space of H
        (Frye et al. 2021). Meaningless once the gradient is at its rounding level.
    distance
        Length of the Newton step over all modes: an estimate of how far the critical point is. Infinite where the
        search did not converge, and that step or p leaves half of the gradient or more.
    error
        What each parameter may be off by, as params: the Newton step that is left, and the one that the rounding of the
        gradient could make.
    converged
        True only when every component of the gradient is at the level of its own rounding, and `error` is small beside
        the parameters.
    index
        Number of negative eigenvalues of the Hessian there. None (−1, when vmapped, traced or from `find_many`) unless
        the search converged and every eigenvalue is larger than its rounding; not known without matrices.
    reached
        Whether it converged at a point of the index asked for; without one, the same as `converged`. False where the
        index is not known.
    steps
        Number of points at which the Hessian was used.
    reason
        A `Reason` (its number, when vmapped, traced or from `find_many`); `str(point.reason)` says it in words.
    """

    params: PyTree
    gradient_norm: jax.Array
    flatness: jax.Array
    distance: jax.Array
    error: PyTree
    converged: jax.Array
    index: jax.Array | int | None
    reached: jax.Array
    steps: jax.Array
    reason: jax.Array | Reason

    def __str__(self) -> str:
        """Say in a sentence where the search ended, without the params; the whole where values cannot be looked at."""
        if _checks.is_traced(self):
            return repr(self)
        if np.ndim(self.converged):
            return f"{np.sum(self.converged)} of {np.size(self.converged)} searches converged."
        index = "" if self.index is None or self.index < 0 else f"; index {int(self.index)}"
        return (
            f"{'converged' if self.converged else 'not converged'}: {Reason(int(self.reason))}."
            f" {tree.size(self.params)} parameters, gradient norm {float(self.gradient_norm):.1e}, flatness"
            f" {float(self.flatness):.1e}, distance {float(self.distance):.1e}, {int(self.steps)} Hessians{index}."
        )

    def _repr_html_(self) -> str:
        title, _, numbers = str(self).partition(": ")
        return display.table(title, [("find", numbers)], note="params: .params; classify says what the point is.")


class _Settings(NamedTuple):
    """What is fixed when a search is compiled."""

    method: Method
    hessian: HessianMatrix | None
    max_steps: int
    radius: float | None
    lanes: int


def find(
    fun: Callable[..., jax.Array],
    params: PyTree,
    args: tuple = (),
    *,
    index: int | None = None,
    method: Method | None = None,
    hessian: HessianMatrix | None = None,
    max_steps: int = 200,
    radius: float | None = None,
) -> Point:
    """Go from params to a critical point, of any index or of a chosen one. Transformable.

    Without `index` it descends the gradient norm, which reaches critical points of any index, and can end at
    gradient-flat points, which are not critical: it says which. `levenberg_marquardt` is the method up to 1500
    parameters, `newton_mr`, which needs no matrices, above. With `index` it climbs along that many eigenvectors and
    descends along the others (`eigenvector_following`); index 0 looks for minima, by saddle-free Newton steps. All
    end with Newton's steps, and report convergence only where each component of the gradient is within what a rounding
    of params changes it by. With `index` the point may be of another one all the same: `reached` says whether it is.

    Outside jit it computes in float64 whatever the caller's default; a second call with the same functions, settings
    and shapes compiles nothing. Memory with matrices: 8 of 8 P² bytes, and O(P³) work a step.

    Parameters
    ----------
    fun
        `(params, *args) -> scalar`.
    params
        Start: any pytree of floating arrays.
    args
        Further arguments of `fun`: data goes here.
    index
        None, or the number of negative eigenvalues wanted, from 0 to P.
    method
        `critical.levenberg_marquardt`, `critical.newton_mr`, or any function `(Function, max_steps) -> Search` of
        `critical.searches`; chosen by P when None. Not together with `index`.
    hessian
        `(params, *args) -> (P, P)` in the order of `tree.ravel`, such as a partial of `mlp_hessian.dense`;
        `curvature.dense_hessian` of `fun` when None.
    max_steps
        Most points at which to use the Hessian.
    radius
        Longest step towards a chosen index; a sixth of ‖params‖, or of 1 if that is larger, when None.

    Returns
    -------
    Point(params, gradient_norm, flatness, distance, error, converged, index, reached, steps, reason)

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `curvature.dense_hessian`; an index, a number of steps or a radius out of range; index and method both.

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
    require_params(params)
    _require_settings(index, method, max_steps, radius)
    _require_hessian(hessian, args)
    if _checks.is_traced((params, args)):
        precision.require_scalar_function(fun, params, args)
        settings = _settings(index, method, hessian, max_steps, radius, tree.size(params), lanes=1)
        return _find(fun, settings, None, index, params, args)
    with precision.float64():
        traced, params, args = precision.traced_problem(fun, params, args)
        settings = _settings(index, method, hessian, max_steps, radius, tree.size(params), lanes=1)
        point = _compiled_find(traced, settings, units.traced_unit(traced, params), index, params, args)
        if int(point.reason) == Reason.NOT_FINITE:
            fun(params, *args)  # with numbers to look at, fun may say what is wrong with them
        # numpy, because JAX warns at every use of a float64 array where x64 is off.
        known = int(point.index) if int(point.index) >= 0 else None
        return dataclasses.replace(devices.to_host(point), index=known, reason=Reason(int(point.reason)))


def find_many(
    fun: Callable[..., jax.Array],
    starts: PyTree,
    args: tuple = (),
    *,
    index: int | None = None,
    method: Method | None = None,
    hessian: HessianMatrix | None = None,
    max_steps: int = 200,
    radius: float | None = None,
    lanes: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Point:
    """Run `find` from many starts in one compiled call. Transformable.

    `lanes` searches run side by side; one that is over makes room for the next start at once, so that none waits for
    the slowest. A start that is not finite gives a point with reason `NOT_FINITE`, and does not disturb the others.
    Critical points reached from several starts appear as often: see `distinct`.

    Parameters
    ----------
    fun, args, index, method, hessian, max_steps, radius
        As for `find`.
    starts
        params with a leading axis of the same length n on every leaf.
    lanes
        Searches under way at a time on one device; 32 for up to 9 parameters, fewer for more, and one above 48, when
        None. Memory with matrices: 10 of 8 P² bytes for each.
    mesh
        When given, such as `mesh=jax.make_mesh((jax.device_count(),), ("devices",))`, its devices share the starts, n /
        devices for each, and none waits for another before the end. In several processes each makes the same call, and
        has all points. They have the bits of those without a mesh, for each device has as many lanes as one alone would
        have; with fewer starts than that some are idle, which fewer `lanes` avoid.

    Returns
    -------
    Point, every field with a leading axis n, in the order of `starts`; under jit with a mesh, split over its devices

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `find`; leaves of `starts` without a common leading axis; mesh is no Mesh; under jit, n is not a multiple of
        its devices.

    Examples
    --------
    >>> fun = lambda x: x[0] ** 3 - 3 * x[0] + x[1] ** 2
    >>> points = find_many(fun, jnp.array([[2.0, 1.0], [-2.0, 1.0], [jnp.nan, 0.0]]))
    >>> points.converged.tolist(), (points.params[:2].round(9) + 0.0).tolist()
    ([True, True, False], [[1.0, 0.0], [-1.0, 0.0]])
    >>> print(Reason(points.reason[2]))
    the gradient or the Hessian is not finite
    """
    _require_settings(index, method, max_steps, radius)
    _require_hessian(hessian, args)
    num = _require_starts(starts, lanes)
    if mesh is not None:
        devices.require_mesh(mesh)
    one = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf)[1:], jnp.result_type(leaf)), starts)
    size = max(1, tree.size(one))
    lanes = min(num, (min(32, _WIDTH // size) if size <= _WIDE else 1) if lanes is None else lanes)
    if _checks.is_traced((starts, args)):
        precision.require_scalar_function(fun, one, args)
        if mesh is not None and num % mesh.size:
            raise ValueError(f"starts: got {num} for {mesh.size} devices, expected a multiple of that under jit.")
        settings = _settings(index, method, hessian, max_steps, radius, tree.size(one), lanes)
        return _find_many(fun, settings, None, mesh, index, starts, args)
    with precision.float64():
        traced, one, args = precision.traced_problem(fun, one, args)
        settings = _settings(index, method, hessian, max_steps, radius, tree.size(one), lanes)
        unit = units.traced_unit(traced, one)
        starts = precision.promote(starts)
        if mesh is not None:
            starts = devices.pad(starts, mesh)
        points = devices.to_host(_compiled_find_many(traced, settings, unit, mesh, index, starts, args))
        return jax.tree.map(lambda leaf: leaf[:num], points)


def require_params(params: PyTree) -> None:
    """Raise TypeError for a Point, whose params are meant."""
    if isinstance(params, Point):
        raise TypeError("params: got a Point, expected a pytree of parameters, as in point.params.")


def _require_hessian(hessian: HessianMatrix | None, args: tuple) -> None:
    if hessian is not None:
        _checks.function(hessian, "hessian", "(params, *args) -> (P, P)")


def _require_settings(index: int | None, method: Method | None, max_steps: int, radius: float | None) -> None:
    if index is not None and method is not None:
        raise ValueError("index and method: got both, expected one: a chosen index has a method of its own.")
    if method is not None:
        _checks.function(method, "method", "(Function, max_steps) -> Search, such as critical.newton_mr")
    _checks.integer(max_steps, "max_steps", 1, 2**31 - 1)
    if radius is not None:
        _checks.real(radius, "radius", "a number above 0", lambda x: x > 0)


def _require_starts(starts: PyTree, lanes: int | None) -> int:
    _checks.leaves(starts, "starts")
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(starts)]
    lengths = sorted({shape[0] if shape else None for shape in shapes}, key=str)
    if len(lengths) != 1 or not lengths[0]:
        raise ValueError(
            f"starts: got leaves of shapes {shapes}, expected params with a leading axis of the same length, 1 or more,"
            " on every leaf."
        )
    _checks.leaves(starts, "starts", floating=True)
    if lanes is not None:
        _checks.integer(lanes, "lanes")
    return lengths[0]


def _settings(
    index: int | None,
    method: Method | None,
    hessian: HessianMatrix | None,
    max_steps: int,
    radius: float | None,
    size: int,
    lanes: int,
) -> _Settings:
    if index is not None:
        _checks.integer(index, "index", 0, size)
    if method is None:
        method = levenberg_marquardt if size <= _DENSE else newton_mr
    if index is not None or method is levenberg_marquardt:
        matrices.require_memory(size, matrices=8 if lanes == 1 else 10 * lanes)
    return _Settings(method, hessian, int(max_steps), None if radius is None else float(radius), lanes)


def _require_matrix(made: Any, size: int) -> jax.Array:
    """Return what a Hessian that was given returns, being traced; raise unless it is (P, P) real numbers."""
    shape, dtype = getattr(made, "shape", None), getattr(made, "dtype", None)
    if shape != (size, size) or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        got = _checks.describe(made) if dtype is None else f"shape {shape} and dtype {dtype}"
        raise ValueError(f"hessian: got a result of {got}, expected real floating point of shape {(size, size)}.")
    return made


def _search(
    fun: Callable[..., jax.Array],
    settings: _Settings,
    unit: float | None,
    index: int | jax.Array | None,
    params: PyTree,
    args: tuple,
) -> tuple[Search, Function]:
    """Return the search in vectors, and what it searches."""
    vector, unravel = tree.ravel(params)
    unit = float(jnp.finfo(vector.dtype).eps) / 2 if unit is None else unit

    def gradient(at: jax.Array) -> jax.Array:
        return tree.ravel(jax.grad(fun)(unravel(at), *args))[0]

    def matrix(at: jax.Array, args: tuple = args) -> jax.Array:
        if settings.hessian is None:
            return curvature.dense_hessian(fun, unravel(at), args)
        return _require_matrix(settings.hessian(unravel(at), *args), at.size).astype(at.dtype)

    def rounded(at: jax.Array, by: jax.Array) -> jax.Array:
        return matrix(at, jax.tree.map(lambda leaf: _rounded(leaf, unit, by), args))

    function = Function(gradient, matrix, unit, rounded)
    if index is None:
        search = settings.method(function, settings.max_steps)
        if not isinstance(search, Search):
            raise TypeError(f"method: got one that returns {_checks.describe(search)}, expected a Search.")
        return search, function
    return eigenvector_following(function, settings.max_steps, index, settings.radius), function


def _rounded(leaf: Any, unit: float, by: jax.Array) -> Any:
    """Return floating data moved by so many roundings, up or down by a hash of the place."""
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return leaf
    leaf = jnp.asarray(leaf)
    place = jnp.arange(leaf.size, dtype=jnp.uint32) * jnp.uint32(2654435761)
    signs = jnp.where((place >> 15) % 2 == 0, 1, -1).astype(leaf.dtype).reshape(leaf.shape)
    return leaf * (1 + by.astype(leaf.dtype) * 2 * max(unit, float(jnp.finfo(leaf.dtype).eps) / 2) * signs)


def _point(
    search: Search,
    function: Function,
    index: int | jax.Array | None,
    start: jax.Array,
    end: End,
    unravel: Callable[[jax.Array], PyTree],
) -> Point:
    settled = settle(search, function, start, end)
    end = settled.end
    reached = settled.converged if index is None else settled.converged & (settled.negative == index)
    other = settled.converged & ~reached & (settled.negative >= 0)
    return Point(
        params=unravel(end.vector),
        gradient_norm=norm(end.gradient),
        flatness=settled.flatness,
        distance=settled.distance,
        error=unravel(settled.error),
        converged=settled.converged,
        index=settled.negative,
        reached=reached,
        steps=end.steps,
        reason=jnp.where(other, int(Reason.OTHER_INDEX), end.reason).astype(jnp.int32),
    )


@precision.whole_products
def _find(
    fun: Callable[..., jax.Array],
    settings: _Settings,
    unit: float | None,
    index: int | jax.Array | None,
    params: PyTree,
    args: tuple,
) -> Point:
    search, function = _search(fun, settings, unit, index, params, args)
    start, unravel = tree.ravel(params)
    return _point(search, function, index, start, run(search, start), unravel)


@precision.whole_products
def _find_many(
    fun: Callable[..., jax.Array],
    settings: _Settings,
    unit: float | None,
    mesh: jax.sharding.Mesh | None,
    index: int | jax.Array | None,
    starts: PyTree,
    args: tuple,
) -> Point:
    def searches(starts: PyTree, index: int | jax.Array | None, args: tuple) -> Point:
        one = jax.tree.map(lambda leaf: leaf[0], starts)
        search, function = _search(fun, settings, unit, index, one, args)
        unravel = tree.ravel(one)[1]
        vectors = jax.vmap(lambda start: tree.ravel(start)[0])(starts)
        ends = run_many(search, vectors, settings.lanes)
        # Whole batches, because XLA may round otherwise for what would be left over.
        num = len(ends.reason)
        rows = np.minimum(np.arange(-(-num // settings.lanes) * settings.lanes), num - 1)
        points = jax.lax.map(
            lambda both: _point(search, function, index, both[0], both[1], unravel),
            jax.tree.map(lambda leaf: leaf[rows], (vectors, ends)),
            batch_size=settings.lanes,
        )
        return jax.tree.map(lambda leaf: leaf[:num], points)

    if mesh is None:
        return searches(starts, index, args)
    return devices.over_rows(searches, mesh, starts, (index, args))


_compiled_find = _compiled.by_function(3)(_find)
_compiled_find_many = _compiled.by_function(4)(_find_many)
