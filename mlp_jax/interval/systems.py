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

from mlp_jax._compiled import while_alive
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


class Located(NamedTuple):
    """A zero is within `near` of a point, and no other within `unique`, (count, n); `unique` is 0 without a proof."""

    near: Array
    unique: Array


class Traced:
    """The zeros of a traced function, vector -> n or more numbers; the first n are the equations, the others follow.

    `refusal` is the last reason for which a box had no enclosure.
    """

    picklable = False  # because of what JAX traced

    def __init__(self, function: Callable[..., jax.Array], width: Array, data: list[Array]) -> None:
        self._function = function
        self._width = width
        self._data = data
        self.refusal: str | None = None

    def _program(self, count: int) -> Program:
        shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in self._data)
        return _traced(self._function, (count, self._width.size), shapes)

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
        last = np.full(len(points), np.inf)
        for _ in range(_STEPS):
            here = self._at(points)
            step = _times(contraction.inverse(here.slopes.mid[:, : points.shape[1]]), here.values.mid)
            lost = ~here.known | ~np.all(np.abs(step) < 1e3 * self._width, axis=1)
            points = np.where(lost[:, None], np.nan, points - step)
            length = np.max(np.abs(step) / (self._width + np.abs(points)), axis=1)
            done = lost | (length <= 2.0**-50) | ((length >= last / 2) & (length < _CLOSE))  # or rounding
            if np.all(done):
                break
            last = length
            points = np.where(lost[:, None], self._width, points)
        return points

    def _at(self, points: Array) -> _Sloped:
        return self.slopes(ball.exact(points), Ball(points, np.zeros_like(points)))

    def enclose(self, points: Array) -> list[Zero]:
        """Return the zeros next to points of which there is a proof."""
        return [
            Zero(point, (point - near, point + near), (point - unique, point + unique))
            for point, near, unique in zip(points, *self.locate(points), strict=True)
            if np.all(unique > 0)
        ]

    def locate(self, points: Array) -> Located:
        """Return within what of each point, (count, n), there is a zero, and only one."""
        count = points.shape[1]
        here = self._at(points)
        inverse = contraction.inverse(here.slopes.mid[:, :count])
        unit = 2.0**-50 * np.maximum(np.abs(points), 2.0**-20 * self._width)
        near = 4 * _times(np.abs(inverse), size(here.values)) + unit
        exists = self._exist(points, near, inverse) & np.all(near < _CLOSE * self._width, axis=1)
        unique = np.zeros_like(points)
        unique[exists] = self._widest(points[exists], near[exists], inverse[exists])
        near = 2 * near  # because the ends of boxes are rounded
        return Located(near, np.where(np.all(unique > near, axis=1)[:, None], unique, 0.0))

    def _exist(self, points: Array, near: Array, inverse: Array) -> Array:
        here = self.slopes(ball.exact(points), Ball(points, near))
        values = ball.matmul(ball.exact(inverse), ball.move(lambda x: x[:, : points.shape[1], None], here.values))
        reach = size(values)[..., 0] + _times(_defect(inverse, here.slopes), near)
        return here.known & np.all(reach * _SLACK < near, axis=1)

    def _widest(self, points: Array, near: Array, inverse: Array) -> Array:
        """Return the radii of the widest boxes in which zeros are unique, by bisection; 0 where there is none."""
        wide, narrow = np.zeros(len(points), np.int64), np.full(len(points), len(_WIDTHS))
        while np.any(wide < narrow):
            level = (wide + narrow) // 2
            width = _WIDTHS[np.minimum(level, len(_WIDTHS) - 1), None] * self._width
            here = self.slopes(Ball(points, near), Ball(points, width + near))
            unique = here.known & np.all(_times(_defect(inverse, here.slopes), width) * _SLACK < width, axis=1)
            unique &= level < len(_WIDTHS)
            wide, narrow = np.where(unique | (wide >= narrow), wide, level + 1), np.where(unique, level, narrow)
        return np.append(_WIDTHS, 0.0)[narrow, None] * self._width

    def indices(self, zeros: list[Zero]) -> Array:
        """Return how many negative eigenvalues the derivative, a symmetric matrix, has at zeros; −1 without a proof."""
        found = []
        for first in range(0, len(zeros), BATCH):
            part = zeros[first : first + BATCH]
            discs, _, known = self.discs(ball.between(*(np.array([z.near[k] for z in part]) for k in range(2))))
            found.append(np.where(known & excludes_zero(discs), np.sum(discs.mid < 0, axis=1), -1))
        return np.concatenate([np.zeros(0, np.int64), *found])

    def discs(self, box: Ball) -> tuple[Ball, Ball, Array]:
        """Return eigenvalues of symmetric derivatives on boxes, ranges of the function, and where these are known.

        Slopes between the points of a box contain the derivative there, H. With columns V, of unit length to rounding,
        every eigenvalue of T = VᵀHV is in one of its Gershgorin discs, and each disc holds one of them, because the
        k-th column of T is within the radius of T[k, k] times the k-th unit vector. Those of H are λ(T) / θ, with
        θ within ‖VᵀV − I‖ of 1 (Ostrowski; Horn and Johnson, theorem 4.5.9).
        """
        here = self.slopes(box, box)
        matrix = ball.move(lambda x: x[:, : x.shape[2]], here.slopes)
        vectors = np.linalg.eigh((matrix.mid + np.swapaxes(matrix.mid, 1, 2)) / 2)[1]
        rows, columns = ball.exact(np.swapaxes(vectors, 1, 2)), ball.exact(vectors)
        turned = ball.matmul(rows, ball.matmul(matrix, columns))
        diagonal = np.einsum("bii->bi", turned.mid)
        off = np.sum(size(turned), axis=2) - np.abs(diagonal)
        off = off * _SLACK + 2.0**-40 * np.abs(diagonal)
        skew = size(ball.sub(ball.matmul(rows, columns), ball.exact(np.eye(vectors.shape[1]))))
        theta = np.max(np.sum(skew, axis=2), axis=1, keepdims=True) * _SLACK
        return ball.div(Ball(diagonal, off), Ball(np.ones_like(theta), theta)), here.ranges, here.known


def excludes_zero(a: Ball) -> Array:
    """Return for which rows no ball contains 0."""
    return np.all(np.abs(a.mid) > a.radius, axis=1)


@while_alive
def _traced(function: Callable[..., jax.Array], shape: tuple[int, int], data: tuple) -> Program:
    """Return the program of a function on a batch of vectors."""
    each = jax.vmap(function, (0, *(None for _ in data)))
    with jax.enable_x64(True):  # in each thread
        return flatten(jax.make_jaxpr(each)(jax.ShapeDtypeStruct(shape, jnp.float64), *data))


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
