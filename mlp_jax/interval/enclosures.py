"""Enclosures of a function's value, gradient and Hessian on a box, from its jaxpr.

The Hessian comes from differentiating the traced gradient, a block of rows at a time. Equations that do not depend on
the row are evaluated once; memory beyond the matrix is that of one block for each core.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.flatten_util import ravel_pytree

from mlp_jax._compiled import while_alive
from mlp_jax._parallel import over_cores
from mlp_jax.curvature import operators
from mlp_jax.interval import ball, multiprecision
from mlp_jax.interval.analytic import is_analytic
from mlp_jax.interval.ball import Ball, Refusal
from mlp_jax.interval.interpreter import evaluate
from mlp_jax.interval.program import Program, cut, flatten

# Numbers in the largest array of a block of rows: few enough to stay in the cache.
_BLOCK_NUMBERS = 2**18
# Rows of a block in which the matrix is made symmetric.
_ROWS = 256


class Traced(NamedTuple):
    """A function of a vector as programs: value, gradient, and a block of Hessian rows cut at the tangents.

    function
        What JAX can trace, (vector, *data) -> scalar.
    whole
        The whole Hessian as the caller computes it, or None.
    trusted
        Names of the derivative rules that JAX takes on trust.
    analytic
        Whether all of them are analytic everywhere, in their maxima as variables too.
    tested
        What has been tested at a random point, for an analytic function: names of tests and digests of data.
    """

    function: Callable[..., Any]
    value: Program
    gradient: Program
    fixed: Program
    rows: Program
    block: int
    whole: Program | None
    trusted: tuple[str, ...]
    analytic: bool
    tested: dict[tuple[str, str], bool]


def trace(
    fun: Callable[..., Any],
    params: Any,
    args: tuple,
    constants: tuple[str, ...] = (),
    enclosure: Callable[..., Any] | None = None,
) -> tuple[Traced, list[np.ndarray]]:
    """Return the programs of fun, and its data as numpy arrays. Call it inside `jax.enable_x64(True)`.

    Programs are kept as long as fun and enclosure, `(params, *args) -> (P, P)`, so that a second call with the same
    shapes traces nothing. The primitives in `constants`, "max" or "reduce_max", are differentiated as constants, which
    is right where fun does not depend on them. Refusal as from `program.flatten`.
    """
    leaves, structure = jax.tree.flatten(args)
    if any(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves if hasattr(leaf, "dtype")):
        raise Refusal("args hold a random key: draw the numbers first and pass them in args")
    data = [np.asarray(leaf) for leaf in leaves]
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in data)
    parameters, parameter_structure = jax.tree.flatten(params)
    sizes = tuple(np.shape(leaf) for leaf in parameters)
    return _trace(fun, enclosure, parameter_structure, sizes, structure, shapes, constants), data


@while_alive
def _trace(
    fun: Callable[..., Any],
    enclosure: Callable[..., Any] | None,
    parameters: Any,
    sizes: tuple,
    structure: Any,
    shapes: tuple,
    constants: tuple[str, ...],
) -> Traced:
    template = jax.tree.unflatten(parameters, [np.zeros(size) for size in sizes])
    vector, unravel = ravel_pytree(template)

    def plain(v: jax.Array, *leaves: jax.Array) -> jax.Array:
        return fun(unravel(v), *jax.tree.unflatten(structure, leaves))

    point = jax.ShapeDtypeStruct(vector.shape, jnp.float64)
    value_jaxpr = jax.make_jaxpr(plain)(point, *shapes)
    # Refused here, before JAX is asked for derivatives that it lacks, such as those of `while`.
    value_program = flatten(value_jaxpr)
    if constants:
        value_jaxpr = jax.make_jaxpr(functools.partial(_with_constants, value_jaxpr, constants))(point, *shapes)
    closed = value_jaxpr

    def value(v: jax.Array, *leaves: jax.Array) -> jax.Array:
        return core.jaxpr_as_fun(closed)(v, *leaves)[0]

    def gradient(v: jax.Array, *leaves: jax.Array) -> jax.Array:
        return jax.grad(value)(v, *leaves)

    def rows(v: jax.Array, *leaves: jax.Array, tangents: jax.Array) -> jax.Array:
        return jax.vmap(lambda t: operators.hessian_product(value)(v, leaves, t))(tangents)

    def matrix(v: jax.Array, *leaves: jax.Array) -> jax.Array:
        assert enclosure is not None
        return enclosure(unravel(v), *jax.tree.unflatten(structure, leaves))

    first = jax.make_jaxpr(gradient)(point, *shapes)
    gradient_program = flatten(first)
    largest = max((int(np.prod(a.shape)) for e in gradient_program.equations for a in e.avals), default=1)
    block = int(np.clip(_BLOCK_NUMBERS // max(1, largest), 1, vector.size))
    tangents = jax.ShapeDtypeStruct((block, vector.size), jnp.float64)
    second = flatten(jax.make_jaxpr(lambda t, v, *leaves: rows(v, *leaves, tangents=t))(tangents, point, *shapes))
    fixed, rest = cut(second, second.inputs[:1])
    trusted = tuple(sorted(_trusted(value_jaxpr.jaxpr)))
    whole = None if enclosure is None else _square(jax.make_jaxpr(matrix)(point, *shapes), vector.size)
    analytic = is_analytic(value_program) and is_analytic(gradient_program) and is_analytic(second, variables=2)
    analytic = analytic and (whole is None or is_analytic(whole))
    return Traced(value, value_program, gradient_program, fixed, rest, block, whole, trusted, analytic, {})


def _square(closed: Any, size: int) -> Program:
    """Return the program of an enclosure of the Hessian; ValueError unless it returns a matrix of that size."""
    shapes = [aval.shape for aval in closed.out_avals]
    if shapes != [(size, size)]:
        raise ValueError(f"enclosure: got shapes {shapes}, expected one array of shape {(size, size)}.")
    return flatten(closed)


def _with_constants(closed: Any, constants: tuple[str, ...], *inputs: Any) -> Any:
    """Evaluate a jaxpr with some primitives as constants of differentiation, except inside loops and rules."""
    values = dict(zip(closed.jaxpr.invars, inputs, strict=True))
    values.update(zip(closed.jaxpr.constvars, closed.consts, strict=True))

    def read(v: Any) -> Any:
        return v.val if isinstance(v, core.Literal) else values[v]

    for eqn in closed.jaxpr.eqns:
        operands = map(read, eqn.invars)
        if eqn.primitive.name in ("jit", "pjit"):
            results = _with_constants(eqn.params["jaxpr"], constants, *operands)
        else:
            results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
            results = results if eqn.primitive.multiple_results else [results]
        if eqn.primitive.name in constants:
            results = jax.lax.stop_gradient(results)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in closed.jaxpr.outvars]


def _trusted(jaxpr: Any) -> set[str]:
    names = set()
    for eqn in jaxpr.eqns:
        if eqn.primitive.name.startswith(("custom_jvp", "custom_vjp", "stop_gradient")):
            names.add(eqn.primitive.name)
        for parameter in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if isinstance(inner, core.Jaxpr):
                names |= _trusted(inner)
    return names


def value(traced: Traced, point: np.ndarray, data: list[np.ndarray], bits: int) -> Ball:
    """Return the value of the function at a point, computed with `bits` bits, as a float64 ball."""
    with multiprecision.bits(bits):
        return multiprecision.to_ball(evaluate(traced.value, [point, *data], multiprecision)[0])


def gradient(traced: Traced, point: np.ndarray, data: list[np.ndarray], bits: int) -> Ball:
    """Return the gradient at a point, (P,), computed with `bits` bits, as float64 balls."""
    with multiprecision.bits(bits):
        return multiprecision.to_ball(evaluate(traced.gradient, [point, *data], multiprecision)[0])


def hessian(traced: Traced, box: Ball, data: list[np.ndarray], spend: Callable[[int], Any] | None = None) -> Ball:
    """Return a matrix of balls, (P, P), that contains the Hessian at every point of a box.

    It is exactly symmetric: since the Hessian is, either of two mirrored entries encloses both. Refusal as from
    `interpreter.evaluate`, or where mirrored entries have no common number, so that derivative rules are wrong.
    """
    if traced.whole is None:
        matrix = hessian_rows(traced, box, data, np.arange(box.shape[0]), spend)
    else:
        matrix = evaluate(traced.whole, [box, *data], ball)[0]
        if spend is not None:
            spend(box.shape[0])
    return symmetric(matrix)


def hessian_rows(
    traced: Traced, box: Ball, data: list[np.ndarray], rows: np.ndarray, spend: Callable[[int], Any] | None = None
) -> Ball:
    """Return some rows of the Hessian on a box, (rows, P), as balls; `spend` is told how many, as they are made."""
    links = evaluate(traced.fixed, [box, *data], ball)
    mid, rad = np.empty((len(rows), box.shape[0])), np.empty((len(rows), box.shape[0]))

    def fill(first: int) -> None:
        window = slice(first, min(first + traced.block, len(rows)))
        part = _rows(traced, links, rows[window], box.shape[0])
        mid[window], rad[window] = part.mid, part.radius
        if spend is not None:
            spend(window.stop - first)

    starts = range(0, len(rows), traced.block)
    if len(starts) == 1:
        fill(0)
        return Ball(mid, rad)
    over_cores(fill, starts)  # numpy releases Python's lock
    return Ball(mid, rad)


def hessian_product(traced: Traced, box: Ball, data: list[np.ndarray], direction: np.ndarray) -> Ball:
    """Return the Hessian on a box times a vector, (P,), as balls, from fun itself."""
    links = evaluate(traced.fixed, [box, *data], ball)
    tangents = np.zeros((traced.block, box.shape[0]))
    tangents[0] = direction
    part = evaluate(traced.rows, [*links, tangents], ball)[0]
    return Ball(part.mid[0], part.radius[0])


def _rows(traced: Traced, links: list[Any], rows: np.ndarray, size: int) -> Ball:
    tangents = np.zeros((traced.block, size))
    tangents[np.arange(len(rows)), rows] = 1
    part = evaluate(traced.rows, [*links, tangents], ball)[0]
    return Ball(part.mid[: len(rows)], part.radius[: len(rows)])


def symmetric(matrix: Ball) -> Ball:
    """Return the narrower of two mirrored entries in both places, some rows at a time; Refusal as from `hessian`."""
    mid, rad = matrix.mid, matrix.radius
    middle, radius = np.empty(mid.shape), np.empty(mid.shape)
    for first in range(0, len(mid), _ROWS):
        rows, rest = slice(first, first + _ROWS), slice(first, None)
        a, b, r, s = mid[rows, rest], mid[rest, rows].T, rad[rows, rest], rad[rest, rows].T
        if np.any(np.abs(a - b) > (r + s) * (1 + 8 * ball.UNIT) + 4 * ball.UNIT * np.abs(a)):
            raise Refusal(
                "the traced Hessian is not symmetric: a custom derivative rule or stop_gradient is wrong here"
            )
        narrower = r <= s
        middle[rows, rest], radius[rows, rest] = np.where(narrower, a, b), np.minimum(r, s)
        _mirror(middle, rows)
        _mirror(radius, rows)
    return Ball(middle, radius)


def _mirror(matrix: np.ndarray, rows: slice) -> None:
    """Copy what is right of the diagonal in some rows to the columns below it."""
    corner = matrix[rows, rows]
    corner[...] = np.triu(corner) + np.triu(corner, 1).T
    matrix[rows.stop :, rows] = matrix[rows, rows.stop :].T
