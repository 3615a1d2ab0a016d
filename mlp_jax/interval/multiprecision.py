"""The functions of `ball` on object arrays of arb, at the precision of `flint.ctx.prec`; and elementary functions.

arb is the ball arithmetic of FLINT (Johansson 2017, "Arb: efficient arbitrary-precision midpoint-radius interval
arithmetic"): every result encloses the exact one. Host-level.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import flint
import numpy as np

from mlp_jax.interval import ball
from mlp_jax.interval.ball import Array, Ball, Refusal

# Beyond float64, so that the error of a result is that of rounding back to float64.
_ELEMENTARY_BITS = 80

# The precision of FLINT is one number for all threads.
_LOCK = threading.RLock()


@contextlib.contextmanager
def bits(number: int) -> Iterator[None]:
    """Compute with that many bits in the context, one thread at a time; start no threads inside."""
    with _LOCK, flint.ctx.workprec(number):
        yield


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(flint.arb, name)
        for name in ("acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "digamma", "erf", "erfc", "exp",
                     "expm1", "lgamma", "log", "log1p", "rsqrt", "sin", "sinh", "sqrt", "tan", "tanh")
    },
    "atan2": lambda y, x: _atan2(y, x),
    "logaddexp": lambda x, y: _logaddexp(x, y),
    "logistic": lambda x: 1 / (1 + (-x).exp()),
    "pow": lambda x, y: x**y,
}  # fmt: skip
_MONOTONE = {"asinh", "atan", "erf", "erfc", "exp", "expm1", "log", "log1p", "logistic", "rsqrt", "sinh", "sqrt",
             "tanh"}  # fmt: skip
_WIDE = 2.0**-10


def _atan2(y: Any, x: Any) -> Any:
    """Return the angle of (x, y), off the half line on which it jumps."""
    if not (x > 0 or y > 0 or y < 0):
        raise Refusal("atan2: the box holds points where it jumps")
    return flint.arb.atan2(y, x)


def _logaddexp(x: Any, y: Any) -> Any:
    """Return log(eˣ + eʸ), monotone in both, from the ends of both."""
    ends = []
    for a, b in ((x.lower(), y.lower()), (x.upper(), y.upper())):
        high, low = (a, b) if a > b else (b, a)
        ends.append(high + (low - high).exp().log1p())
    return ends[0].union(ends[1])


def _apply(name: str, values: tuple[Any, ...]) -> Any:
    """Return a function of arbs, from both ends where it is monotone and the arb is wide."""
    if name in _MONOTONE and values[0].rad() > _WIDE:
        ends = values[0].lower(), values[0].upper()
        return _finite(FUNCTIONS[name](ends[0]), name).union(_finite(FUNCTIONS[name](ends[1]), name))
    return _finite(FUNCTIONS[name](*values), name)


def elementwise(name: str, *arguments: Array) -> Array:
    """Return a function of arrays of arb, elementwise; raise Refusal where a ball is not inside its domain."""
    result = _array(np.broadcast_shapes(*(a.shape for a in arguments)))
    flat = zip(*(np.broadcast_to(a, result.shape).ravel().tolist() for a in arguments), strict=True)
    result.ravel()[:] = [_apply(name, values) for values in flat]
    return result


def ball_elementary(name: str, *arguments: Ball) -> Ball:
    """Return a function of float64 balls, elementwise, by arb; raise Refusal outside its domain or at an overflow.

    The value is rounded to float64, and the radius is the distance from there to the far end of arb's ball.
    """
    shape = np.broadcast_shapes(*(a.shape for a in arguments))
    columns = [_arbs(a, shape) for a in arguments]
    mids, rads = [], []
    with bits(_ELEMENTARY_BITS):
        for values in zip(*columns, strict=True):
            result = _apply(name, values)
            mid = float(result)
            if not abs(mid) < np.inf:
                raise Refusal(f"{name}: a value overflows float64")
            mids.append(mid)
            rads.append(float((result - mid).abs_upper()))
    # float() rounds to nearest; `outward` covers its relative error.
    return ball.outward(np.array(mids).reshape(shape), np.array(rads).reshape(shape), what=name)


def _arbs(a: Ball, shape: tuple[int, ...]) -> list[Any]:
    mids = np.broadcast_to(a.mid, shape).ravel().tolist()
    if a.rad is None:
        return [flint.arb(m) for m in mids]
    rads = np.broadcast_to(a.rad, shape).ravel().tolist()
    return [flint.arb(m, r) for m, r in zip(mids, rads, strict=True)]


def _finite(value: Any, what: str) -> Any:
    if not value.is_finite():
        raise Refusal(f"{what}: the box holds points where it is undefined or infinite")
    return value


def _array(shape: tuple[int, ...]) -> Array:
    return np.empty(shape, dtype=object)


# --- The functions of `ball` ---------------------------------------------------------------------------------------


def exact(values: Any) -> Array:
    """Return float64 numbers as exact arbs."""
    values = np.asarray(values, dtype=np.float64)
    result = _array(values.shape)
    result.ravel()[:] = [flint.arb(v) for v in values.ravel().tolist()]
    return result


def from_ball(a: Ball) -> Array:
    """Return float64 balls as arbs."""
    result = _array(a.shape)
    result.ravel()[:] = _arbs(a, a.shape)
    return result


def random_point(box: Ball, generator: np.random.Generator) -> Array:
    """Return a random point of float64 balls, exact arbs that may lie between two float64 numbers."""
    return add(exact(box.mid), mul(exact(box.radius), exact(generator.uniform(-1, 1, box.shape))))


def to_ball(values: Array) -> Ball:
    """Return float64 balls that contain the arbs."""
    mids, rads = [], []
    for value in np.asarray(values, dtype=object).ravel().tolist():
        mids.append(float(_finite(value, "result")))
        rads.append(float((value - mids[-1]).abs_upper()))
    shape = np.shape(values)
    return ball.outward(np.array(mids).reshape(shape), np.array(rads).reshape(shape), what="rounding to float64")


def is_finite(a: Array) -> Array:
    """Return where numbers are finite."""
    return np.array([x.is_finite() for x in a.ravel()], dtype=bool).reshape(a.shape)


def is_zero(a: Array) -> bool:
    """Return False: exact zeros are not tracked here."""
    return False


def add(a: Array, b: Array) -> Array:
    """Return a + b."""
    return np.asarray(a + b, dtype=object)


def sub(a: Array, b: Array) -> Array:
    """Return a − b."""
    return np.asarray(a - b, dtype=object)


def neg(a: Array) -> Array:
    """Return −a."""
    return np.asarray(-a, dtype=object)


def mul(a: Array, b: Array) -> Array:
    """Return a · b."""
    return np.asarray(a * b, dtype=object)


def div(a: Array, b: Array) -> Array:
    """Return a / b, for b that exclude 0."""
    result = np.asarray(a / b, dtype=object)
    for value in result.ravel().tolist():
        _finite(value, "division")
    return result


def matmul(a: Array, b: Array) -> Array:
    """Return the matrix products a (…, m, k) @ b (…, k, n), by FLINT."""
    rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    result = _array((*stack, rows, columns))
    if result.size == 0 or inner == 0:
        result.ravel()[:] = [flint.arb(0)] * result.size
        return result
    a, b = np.broadcast_to(a, (*stack, rows, inner)), np.broadcast_to(b, (*stack, inner, columns))
    for at in np.ndindex(stack):
        left = flint.arb_mat(rows, inner, a[at].ravel().tolist())
        right = flint.arb_mat(inner, columns, b[at].ravel().tolist())
        result[at].ravel()[:] = (left * right).entries()
    return result


def total(a: Array, axes: tuple[int, ...]) -> Array:
    """Return the sum over some axes."""
    result: Any = np.add.reduce(a, axis=axes, initial=flint.arb(0))
    return np.asarray(result, dtype=object)


def move(function: Callable[..., Array], *values: Array) -> Array:
    """Apply a function that only rearranges numbers."""
    return np.asarray(function(*values), dtype=object)


def scatter_add(a: Array, positions: Array, updates: Array) -> Array:
    """Return a with updates added at flat positions; negative positions are dropped."""
    result = a.ravel().copy()
    for position, value in zip(positions.ravel().tolist(), updates.ravel().tolist(), strict=True):
        if position >= 0:
            result[position] = result[position] + value
    return result.reshape(a.shape)


def compare(a: Array, b: Array) -> Array:
    """Return 1 where every a > b, −1 where every a < b, 0 where both are exact and equal, 2 where undecided."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    pairs = zip(np.broadcast_to(a, shape).ravel().tolist(), np.broadcast_to(b, shape).ravel().tolist(), strict=True)
    return np.array([_order(x, y) for x, y in pairs], dtype=np.int8).reshape(shape)


def _order(x: Any, y: Any) -> int:
    if x > y:
        return 1
    if x < y:
        return -1
    return 0 if x == y else 2


def select(choice: Array, *cases: Array) -> Array:
    """Return cases[choice], elementwise."""
    shape = np.broadcast_shapes(choice.shape, *(c.shape for c in cases))
    result = np.broadcast_to(cases[0], shape).copy()
    for number, case in enumerate(cases):
        result = np.where(np.broadcast_to(choice, shape) == number, np.broadcast_to(case, shape), result)
    return result


def hull_of_maximum(a: Array, b: Array) -> Array:
    """Return arbs that contain the larger of a and b, as values."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    result = _array(shape)
    pairs = zip(np.broadcast_to(a, shape).ravel().tolist(), np.broadcast_to(b, shape).ravel().tolist(), strict=True)
    result.ravel()[:] = [x.max(y) for x, y in pairs]
    return result
