"""Slopes on boxes: numbers with their value at a centre, their range on a box, and how they change between the two.

A `Slope` stands for a function f on a box X about a centre c: f(c) is in `center`, f(x) is in `range`, and f(x) − f(c)
is in Σⱼ slopesⱼ (xⱼ − cⱼ), for all x in X. Slopes are narrower than derivatives on X: those of x² are X + c, not 2X
(Krawczyk & Neumaier 1985, "Interval slopes for rational functions and associated centered forms"). The centre may be a
ball; all of this then holds for each point in it.

For an elementary function φ of u, the mean of φ' between u(c) and u(x) differs from φ'(u(c)) by at most
max |φ''| |u(x) − u(c)| / 2, and lies in φ'(u(X)).

This is the third field of `interpreter`. Many boxes are evaluated at once: programs are traced under vmap.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_jax.interval import ball, derivatives, elementary
from mlp_jax.interval.ball import Array, Ball


@dataclasses.dataclass(frozen=True, slots=True)
class Slope:
    """A function on boxes: its value at the centres, its range, both of one shape, and slopes, (n, *shape).

    `slopes` is None for a constant.
    """

    center: Ball
    range: Ball
    slopes: Ball | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.range.shape


def variables(center: Ball, box: Ball) -> Slope:
    """Return the coordinates of boxes, (count, n), as functions on them."""
    count, size = box.shape
    return Slope(center, box, ball.exact(np.broadcast_to(np.eye(size)[:, None, :], (size, count, size))))


def constant(value: Ball) -> Slope:
    """Return a function that is the same at every point of every box."""
    return Slope(value, value)


def exact(values: Any) -> Slope:
    """Return float64 numbers as constants."""
    return constant(ball.exact(values))


def zeros(shape: tuple[int, ...]) -> Slope:
    """Return exact zeros."""
    return constant(ball.zeros(shape))


def is_zero(a: Slope) -> bool:
    """Return whether every number is known to be 0."""
    return a.range.zero


def is_finite(a: Slope) -> Array:
    """Return where numbers are finite."""
    return ball.is_finite(a.range)


def add(a: Slope, b: Slope) -> Slope:
    """Return a + b."""
    return _linear(ball.add, a, b, lambda slopes: slopes)


def sub(a: Slope, b: Slope) -> Slope:
    """Return a − b."""
    return _linear(ball.sub, a, b, ball.neg)


def _linear(apply: Callable[[Ball, Ball], Ball], a: Slope, b: Slope, second: Callable[[Ball], Ball]) -> Slope:
    center = apply(a.center, b.center)
    if a.slopes is None and b.slopes is None:
        return constant(center)
    range_ = apply(a.range, b.range)
    if a.slopes is None or b.slopes is None:
        slopes = a.slopes if b.slopes is None else second(b.slopes)
        assert slopes is not None
        wide = (len(slopes.mid), *range_.shape)
        return Slope(center, range_, slopes if slopes.shape == wide else _broadcast(slopes, wide))
    return Slope(center, range_, apply(a.slopes, b.slopes))


def _broadcast(slopes: Ball, shape: tuple[int, ...]) -> Ball:
    padded = (slopes.shape[0], *(1,) * (len(shape) - len(slopes.shape)), *slopes.shape[1:])
    return ball.move(lambda x: np.broadcast_to(x.reshape(padded), shape), slopes)


def neg(a: Slope) -> Slope:
    """Return −a."""
    return Slope(ball.neg(a.center), ball.neg(a.range), None if a.slopes is None else ball.neg(a.slopes))


def mul(a: Slope, b: Slope) -> Slope:
    """Return a · b, with the slopes b(X) ∂a + a(c) ∂b, or (a(X) + a(c)) ∂a of a square."""
    if a is b:
        square = ball.square(a.range)
        if a.slopes is None:
            return constant(square)
        slopes = ball.product(ball.add(a.range, a.center), a.slopes)
        return Slope(ball.square(a.center), square, slopes)
    center = ball.mul(a.center, b.center)
    parts = []
    if a.slopes is not None:
        parts.append(ball.product(b.range, a.slopes))
    if b.slopes is not None:
        parts.append(ball.mul(a.center, b.slopes))
    return (
        Slope(center, ball.product(a.range, b.range), functools.reduce(ball.add, parts)) if parts else constant(center)
    )


def div(a: Slope, b: Slope) -> Slope:
    """Return a / b, with the slopes (∂a − (a/b)(c) ∂b) / b(X), for b that exclude 0."""
    center = ball.div(a.center, b.center)
    if a.slopes is None and b.slopes is None:
        return constant(center)
    inverse = ball.inverse(b.range)
    slopes = a.slopes
    if b.slopes is not None:
        part = ball.mul(center, b.slopes)
        slopes = ball.neg(part) if slopes is None else ball.sub(slopes, part)
    assert slopes is not None
    return Slope(center, ball.product(a.range, inverse), ball.product(inverse, slopes))


def matmul(a: Slope, b: Slope) -> Slope:
    """Return the matrix products a (…, m, k) @ b (…, k, n)."""
    if a.slopes is None and b.slopes is None:
        return constant(ball.matmul(a.center, b.center))
    if a.slopes is None or b.slopes is None:
        slopes = ball.matmul(a.range, b.slopes) if b.slopes else ball.matmul(a.slopes, b.range)  # type: ignore[arg-type]
        return Slope(ball.matmul(a.center, b.center), ball.matmul(a.range, b.range), slopes)
    # Elementwise, because the product of two wide balls is narrower than in a product of matrices.
    columns = move(lambda x: x[..., :, :, None], a)
    rows = move(lambda x: x[..., None, :, :], b)
    return total(mul(columns, rows), (len(a.shape) - 1,))


def total(a: Slope, axes: tuple[int, ...]) -> Slope:
    """Return the sum over some axes."""
    center = ball.total(a.center, axes)
    if a.slopes is None:
        return constant(center)
    return Slope(center, ball.total(a.range, axes), ball.total(a.slopes, tuple(axis + 1 for axis in axes)))


def move(function: Callable[..., Array], *values: Slope) -> Slope:
    """Apply a function that only rearranges numbers."""
    center = ball.move(function, *(a.center for a in values))
    sizes = [len(a.slopes.mid) for a in values if a.slopes is not None]
    if not sizes:
        return constant(center)
    parts = [_slopes(a, sizes[0]) for a in values]

    def each(*arrays: Array) -> Array:
        return np.stack([function(*rows) for rows in zip(*arrays, strict=True)])

    return Slope(center, ball.move(function, *(a.range for a in values)), ball.move(each, *parts))


def _slopes(a: Slope, size: int, shape: tuple[int, ...] | None = None) -> Ball:
    """Return slopes, 0 for a constant, broadcast to a shape if one is given."""
    wide = (size, *(a.shape if shape is None else shape))
    if a.slopes is None:
        return ball.zeros(wide)
    return a.slopes if a.slopes.shape == wide else _broadcast(a.slopes, wide)


def scatter_add(a: Slope, positions: Array, updates: Slope) -> Slope:
    """Return a with updates added at flat positions; negative positions are dropped."""
    center = ball.scatter_add(a.center, positions, updates.center)
    sizes = [len(x.slopes.mid) for x in (a, updates) if x.slopes is not None]
    if not sizes:
        return constant(center)
    whole = int(np.prod(a.shape))
    shift = whole * np.arange(sizes[0]).reshape(-1, *(1,) * positions.ndim)
    everywhere = np.where(positions < 0, -1, positions + shift)
    slopes = ball.scatter_add(_slopes(a, sizes[0]), everywhere, _slopes(updates, sizes[0]))
    return Slope(center, ball.scatter_add(a.range, positions, updates.range), slopes)


def compare(a: Slope, b: Slope) -> Array:
    """Return 1 where every a > b, −1 where every a < b, 0 where both are exact and equal, 2 where undecided."""
    return ball.compare(a.range, b.range)


def select(choice: Array, *cases: Slope) -> Slope:
    """Return cases[choice], elementwise."""
    center = ball.select(choice, *(c.center for c in cases))
    sizes = [len(c.slopes.mid) for c in cases if c.slopes is not None]
    if not sizes:
        return constant(center)
    slopes = ball.select(choice[None], *(_slopes(c, sizes[0], center.shape) for c in cases))
    return Slope(center, ball.select(choice, *(c.range for c in cases)), slopes)


def hull_of_maximum(a: Slope, b: Slope) -> Slope:
    """Return the larger of a and b, whose slopes are in the hull of those of a and b."""
    center = ball.hull_of_maximum(a.center, b.center)
    sizes = [len(c.slopes.mid) for c in (a, b) if c.slopes is not None]
    if not sizes:
        return constant(center)
    slopes = ball.hull(*(_slopes(c, sizes[0], center.shape) for c in (a, b)))
    return Slope(center, ball.hull_of_maximum(a.range, b.range), slopes)


def elementwise(name: str, *arguments: Slope) -> Slope:
    """Return a function of numbers, elementwise; raise Refusal for one without known derivatives."""
    center = elementary.elementwise(name, *(a.center for a in arguments))
    if all(a.slopes is None for a in arguments):
        return constant(center)
    range_ = elementary.elementwise(name, *(a.range for a in arguments))
    parts = derivatives.of(name, arguments, center, range_)
    slopes = None
    for argument, derivative in zip(arguments, parts, strict=True):
        if argument.slopes is not None:
            part = ball.product(derivative, argument.slopes)
            slopes = part if slopes is None else ball.add(slopes, part)
    return Slope(center, range_, slopes)
