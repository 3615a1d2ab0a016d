"""Equations from a traced function on many boxes at once: what branch and prune asks of them (see `branching`).

Existence: let Y be any matrix, and S slopes on a box T about its middle x. If x − Y F(x) + (I − Y S)(T − x) is inside
T, Brouwer's theorem gives a zero in T. Uniqueness: let S be slopes on U about all points of T, so that F(u) − F(t) =
S (u − t). If |I − Y S| w < w for a positive vector w, every such S is regular, so F(u) = F(t) = 0 implies u = t.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax.interval import ball, contraction, slopes
from mlp_jax.interval.ball import Array, Ball, Refusal, part
from mlp_jax.interval.branching import BATCH, Zero
from mlp_jax.interval.contraction import Contracted
from mlp_jax.interval.derivatives import size
from mlp_jax.interval.interpreter import evaluate
from mlp_jax.interval.program import Program, flatten

# Numbers of boxes for which a program is traced: batches are padded to the next.
_BATCHES = (64, 512, BATCH)
_STEPS = 20
# Points are enclosed this closely, in units of the domain, or not at all.
_CLOSE = 2.0**-30
# Boxes of uniqueness that are tried, in units of the domain, widest first.
_WIDTHS = 2.0 ** -np.concatenate([np.arange(1, 13), np.arange(14, 40, 2)])
# Slack for the rounding of sums of non-negative numbers.
_SLACK = 1 + 2.0**-40


class _Sloped(NamedTuple):
    """Values at centres, (count, m), ranges and slopes, (count, m, n), on boxes; `known` where they are not refused."""

    values: Ball
    ranges: Ball
    slopes: Ball
    known: Array


class Traced:
    """The zeros of a traced function, vector -> n or more numbers; the first n are the equations, the others follow.

    `refusal` is the last reason for which a box had no enclosure.
    """

    def __init__(self, function: Callable[..., jax.Array], width: Array, data: list[Array]) -> None:
        self._function = function
        self._width = width
        self._data = data
        self._programs: dict[int, Program] = {}
        self.refusal: str | None = None

    def _program(self, count: int) -> Program:
        if count not in self._programs:
            batch = jax.ShapeDtypeStruct((count, self._width.size), jnp.float64)
            shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in self._data]
            each = jax.vmap(self._function, (0, *(None for _ in shapes)))
            with jax.enable_x64(True):  # in each thread
                self._programs[count] = flatten(jax.make_jaxpr(each)(batch, *shapes))
        return self._programs[count]

    def slopes(self, center: Ball, box: Ball) -> _Sloped:
        """Return the function and its slopes on boxes, (count, n), in halves where a whole batch is refused."""
        count = len(box.mid)
        total = next(number for number in _BATCHES if number >= count)
        try:
            inputs = slopes.variables(_padded(center, total), _padded(box, total))
            result = evaluate(self._program(total), [inputs, *self._data], slopes)[0]
        except Refusal as refusal:
            self.refusal = str(refusal)
            return self._halves(center, box)
        each = result.slopes if result.slopes is not None else ball.zeros((self._width.size, *result.shape))
        columns = ball.move(lambda x: np.moveaxis(x, 0, -1), each)
        whole = slice(count)
        return _Sloped(
            part(result.center, whole), part(result.range, whole), part(columns, whole), np.ones(count, bool)
        )

    def _halves(self, center: Ball, box: Ball) -> _Sloped:
        count, half = len(box.mid), len(box.mid) // 2
        if count == 1:
            outputs = self._program(_BATCHES[0]).equations[-1].avals[0].shape[1]
            nothing = Ball(np.zeros((1, outputs)), np.zeros((1, outputs)))
            matrix = np.zeros((1, outputs, self._width.size))
            return _Sloped(nothing, nothing, Ball(matrix, matrix), np.zeros(1, bool))
        parts = [self.slopes(part(center, s), part(box, s)) for s in (slice(half), slice(half, None))]
        known = np.concatenate([p.known for p in parts])
        values, ranges, matrices = (ball.move(_stacked, *(p[k] for p in parts)) for k in range(3))  # type: ignore[arg-type]
        return _Sloped(values, ranges, matrices, known)

    def contract(self, low: Array, high: Array) -> Contracted:
        """Return what is left of boxes."""
        center = low + (high - low) / 2
        here = self.slopes(ball.exact(center), ball.between(low, high))
        found = contraction.contract(low, high, center, here.values, here.slopes)
        least, most = ball.bounds(here.ranges)
        empty = found.empty | np.any((least > 0) | (most < 0), axis=1)
        known = here.known[:, None]
        return Contracted(
            np.where(known, found.low, low), np.where(known, found.high, high), empty & here.known,
            np.where(known, found.share, (high - low) / self._width),
        )  # fmt: skip

    def polish(self, points: Array) -> Array:
        """Return where Newton's method leads; NaN where it leads nowhere."""
        for _ in range(_STEPS):
            here = self._at(points)
            step = _times(contraction.inverse(here.slopes.mid[:, : points.shape[1]]), here.values.mid)
            lost = ~here.known | ~np.all(np.abs(step) < 1e3 * self._width, axis=1)
            points = np.where(lost[:, None], np.nan, points - step)
            if not np.any(np.abs(step[~lost]) > 2.0**-50 * (self._width + np.abs(points[~lost]))):
                break
            points = np.where(lost[:, None], self._width, points)
        return points

    def _at(self, points: Array) -> _Sloped:
        return self.slopes(ball.exact(points), Ball(points, np.zeros_like(points)))

    def enclose(self, points: Array) -> list[Zero]:
        """Return the zeros next to points of which there is a proof."""
        count = points.shape[1]
        here = self._at(points)
        inverse = contraction.inverse(here.slopes.mid[:, :count])
        unit = 2.0**-50 * np.maximum(np.abs(points), 2.0**-20 * self._width)
        near = 4 * _times(np.abs(inverse), size(here.values)) + unit
        exists = self._exist(points, near, inverse) & np.all(near < _CLOSE * self._width, axis=1)
        points, near, inverse = points[exists], near[exists], inverse[exists]
        found = []
        for first in range(0, len(points), BATCH // len(_WIDTHS)):
            window = slice(first, first + BATCH // len(_WIDTHS))
            widest = self._widest(points[window], near[window], inverse[window])
            for point, radius, width in zip(points[window], near[window], widest, strict=True):
                if np.all(width > 2 * radius):  # twice, because the ends of boxes are rounded
                    ends = (point - 2 * radius, point + 2 * radius), (point - width, point + width)
                    found.append(Zero(point, *ends))
        return found

    def _exist(self, points: Array, near: Array, inverse: Array) -> Array:
        here = self.slopes(ball.exact(points), Ball(points, near))
        values = ball.matmul(ball.exact(inverse), ball.move(lambda x: x[:, : points.shape[1], None], here.values))
        reach = size(values)[..., 0] + _times(_defect(inverse, here.slopes), near)
        return here.known & np.all(reach * _SLACK < near, axis=1)

    def _widest(self, points: Array, near: Array, inverse: Array) -> Array:
        """Return the radii of the widest boxes in which zeros are unique; 0 where there is none."""
        count, levels = len(points), len(_WIDTHS)
        widths = np.tile(_WIDTHS[:, None] * self._width, (count, 1))
        point, radius, matrix = (np.repeat(x, levels, axis=0) for x in (points, near, inverse))
        here = self.slopes(Ball(point, radius), Ball(point, widths + radius))
        unique = here.known & np.all(_times(_defect(matrix, here.slopes), widths) * _SLACK < widths, axis=1)
        unique = unique.reshape(count, levels)
        widest = widths[:levels][np.argmax(unique, axis=1)]
        return np.where(np.any(unique, axis=1)[:, None], widest, 0.0)

    def indices(self, zeros: list[Zero]) -> Array:
        """Return how many negative eigenvalues the derivative, a symmetric matrix, has at zeros; −1 without a proof.

        Slopes between the points of a box contain the derivative there, H. Where no Gershgorin disc of VᵀHV contains 0,
        V is regular and the signs of the diagonal are those of the eigenvalues of H, by Sylvester's law of inertia.
        """
        found = []
        for first in range(0, len(zeros), BATCH):
            part = zeros[first : first + BATCH]
            box = ball.between(*(np.array([z.near[k] for z in part]) for k in range(2)))
            here = self.slopes(box, box)
            vectors = ball.exact(np.linalg.eigh((here.slopes.mid + np.swapaxes(here.slopes.mid, 1, 2)) / 2)[1])
            turned = ball.matmul(ball.move(lambda x: np.swapaxes(x, 1, 2), vectors), ball.matmul(here.slopes, vectors))
            diagonal = np.einsum("bii->bi", turned.mid)
            off = np.sum(size(turned), axis=2) - np.abs(diagonal)
            proved = here.known & np.all(np.abs(diagonal) > off * _SLACK + 2.0**-40 * np.abs(diagonal), axis=1)
            found.append(np.where(proved, np.sum(diagonal < 0, axis=1), -1))
        return np.concatenate([np.zeros(0, np.int64), *found])


def _times(matrices: Array, vectors: Array) -> Array:
    return np.einsum("bij,bj->bi", matrices, vectors[:, : matrices.shape[1]])


def _defect(inverse: Array, matrix: Ball) -> Array:
    """Return bounds on the entries of I − Y S."""
    count = inverse.shape[-1]
    square = ball.move(lambda x: x[:, :count], matrix)
    return size(ball.sub(ball.exact(np.eye(count)), ball.matmul(ball.exact(inverse), square)))


def _padded(a: Ball, count: int) -> Ball:
    """Return count rows, the first repeated at the end."""

    def pad(x: Array) -> Array:
        return np.concatenate([x, np.broadcast_to(x[:1], (count - len(x), x.shape[1]))])

    return Ball(pad(a.mid), None if a.rad is None else pad(a.radius))


def _stacked(*parts: Array) -> Array:
    return np.concatenate(parts)
