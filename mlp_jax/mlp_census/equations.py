"""The equations of a critical point on boxes of (w, v), in slope form, and tests that exclude boxes (see `bounds`).

Coordinates are w (h, d + 1), bias last, then v (h,). Arrays have the boxes on the last axis, before it units (j, k),
data (i) and inputs (a, b). About a middle (w°, v°), with s and q slopes of tanh and tanh', δ = x − x°:

    hⱼ − hⱼ° = sⱼ δzⱼ       r − r° = Σₖ (C hₖ) δvₖ + C (vₖ° sₖ x̃) δwₖ
    ⟨r hⱼ⟩ − ⟨r° hⱼ°⟩ = ⟨r° sⱼ x̃⟩ δwⱼ + ⟨hⱼ (r − r°)⟩
    vⱼ ⟨r gⱼ x̃⟩ − vⱼ° ⟨r° gⱼ° x̃⟩ = ⟨r gⱼ x̃⟩ δvⱼ + vⱼ° (⟨r° qⱼ x̃ x̃⟩ δwⱼ + ⟨gⱼ x̃ (r − r°)⟩)

where g = tanh', and symbols without a circle are ranges on the box. Coefficients of one δ are added before their
absolute values are taken.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from mlp_jax.interval import ball, contraction, derivatives, elementary
from mlp_jax.interval.ball import Array, Ball, part
from mlp_jax.interval.contraction import Contracted
from mlp_jax.mlp_census import bounds as bounds_


class _Values(NamedTuple):
    """A network on boxes: weights, activations, slopes and the residual; `0` marks the middle."""

    w: Ball
    v: Ball
    w0: Ball
    v0: Ball
    h: Ball
    h0: Ball
    g: Ball
    g0: Ball
    s: Ball
    q: Ball
    r: Ball
    r0: Ball
    centred: Ball  # C hⱼ
    turned: Ball  # C sⱼ x̃
    moved: Ball  # C vⱼ° sⱼ x̃

    def chosen(self, which: Array) -> "_Values":
        """Return some of the boxes."""
        return _Values(*(ball.move(lambda a: np.compress(which, a, axis=-1), x) for x in self))


_EACH = slice(None)


class Equations:
    """The equations for data (N, d), (N,), h units and a weight decay."""

    def __init__(self, inputs: Array, targets: Array, units: int, decay: float, exchange: tuple[tuple[int, int], ...]):
        count = len(inputs)
        self.units, self.width = units, inputs.shape[1] + 1
        self.size = units * (self.width + 1)
        self.bounds = bounds_.bounds(targets, decay)
        self.decay = decay
        self._exchange = exchange
        extended = np.concatenate([inputs, np.ones((count, 1))], axis=1)
        self._x = ball.exact(extended[:, :, None])  # i, a, box
        self._xx = ball.mul(part(self._x, _EACH, _EACH, None), part(self._x, _EACH, None))
        self._y = ball.exact(targets[:, None])
        self._decay = ball.exact(np.array(decay))
        number = ball.exact(np.array(float(count)))
        self._share = ball.inverse(number)
        self._center = ball.inverse(ball.mul(number, ball.add(ball.exact(np.array(1.0)), self._decay)))
        self._centred_y = self._centred(self._y, 0)

    def contract(self, low: Array, high: Array) -> Contracted:
        """Return what is left of boxes, (count, n)."""
        share = high - low
        low, high, empty = low.copy(), high.copy(), self._outside(low, high)
        rows = np.flatnonzero(~empty)
        values, ends = self._values(low[rows], high[rows])
        excluded = self._excluded(values, ends)
        empty[rows], rows, values = excluded, rows[~excluded], values.chosen(~excluded)
        if len(rows):
            found = self._contracted(low[rows], high[rows], values)
            low[rows], high[rows], empty[rows], share[rows] = found.low, found.high, found.empty, found.share
        return Contracted(low, high, empty, share)

    def _mean(self, a: Ball, axis: int) -> Ball:
        return ball.mul(ball.total(a, (axis,)), self._share)

    def _centred(self, a: Ball, axis: int) -> Ball:
        """Return C a = a − ⟨a⟩/(1 + λ) along the axis of the data."""
        mean = ball.mul(ball.total(a, (axis,)), self._center)
        return ball.sub(a, ball.move(lambda x: np.expand_dims(x, axis), mean))

    def _along(self, a: Ball) -> Ball:
        """Return a x̃ for a (j, i, box): (j, i, a, box)."""
        return ball.mul(part(a, _EACH, _EACH, None), part(self._x, None))

    def _outside(self, low: Array, high: Array) -> Array:
        """Return which boxes the bounds B1 and B3 and the order of units exclude."""
        count, units = len(low), self.units
        least = np.maximum(np.maximum(low, -high), 0)
        slack = 1 - 4 * self.size * ball.UNIT
        incoming = np.sum(least[:, : units * self.width].reshape(count, units, self.width) ** 2, axis=2) * slack
        outgoing = np.sum(least[:, units * self.width :] ** 2, axis=1) * slack
        empty = np.any(incoming > self.bounds.incoming, axis=1) | (outgoing > self.bounds.outgoing)
        empty |= np.sum(incoming, axis=1) * slack > self.bounds.incoming * np.sqrt(units) * (1 + 4 * ball.UNIT)
        bias = np.arange(units) * self.width + self.width - 1
        empty |= np.any(high[:, bias[:-1]] < low[:, bias[1:]], axis=1)
        for first, second in self._exchange:
            empty |= high[:, first] < low[:, second]
        return empty

    def _values(self, low: Array, high: Array) -> tuple[_Values, bounds_.Ends]:
        low, high = np.array(low.T, order="C"), np.array(high.T, order="C")  # the boxes last in memory: faster
        center = low + (high - low) / 2
        first, shape = self.units * self.width, (self.units, self.width, -1)
        w, v = (
            ball.between(low[:first].reshape(shape), high[:first].reshape(shape)),
            ball.between(low[first:], high[first:]),
        )
        w0, v0 = ball.exact(center[:first].reshape(shape)), ball.exact(center[first:])
        z, z0 = (ball.total(ball.mul(part(x, _EACH, None), part(self._x, None)), (2,)) for x in (w, w0))
        ends = bounds_.ends(z)
        h, h0 = ends.tanh, elementary.elementwise("tanh", z0)
        one = ball.exact(np.ones(h.shape))
        g, g0 = (ball.sub(one, ball.square(x)) for x in (h, h0))
        half = derivatives.distance(z0, z) / 2
        # |tanh''| = 2 |h| g is at most 4/√27 < .77, and |tanh'''| = 2 g |1 − 3 h²| at most 2.
        s = derivatives.near(g, g0, half * np.minimum(2 * derivatives.size(h) * derivatives.size(g), 0.77))
        third = (
            2 * derivatives.size(g) * derivatives.size(ball.sub(one, ball.mul(ball.exact(3 * one.mid), ball.square(h))))
        )
        second, second0 = (ball.mul(ball.exact(np.array(-2.0)), ball.product(*x)) for x in ((h, g), (h0, g0)))
        q = derivatives.near(second, second0, half * np.minimum(third, 2.0))
        centred, turned = self._centred(h, 1), self._centred(self._along(s), 1)
        moved = ball.mul(part(v0, _EACH, None, None), turned)
        r, r0 = (self._residual(*x) for x in ((v, h), (v0, h0)))
        change = ball.add(
            ball.total(ball.product(centred, part(ball.sub(v, v0), _EACH, None)), (0,)),
            ball.total(ball.product(moved, part(ball.sub(w, w0), _EACH, None)), (0, 2)),
        )
        most = np.sqrt(len(r.mid) * self._most(v)) * (1 + 8 * ball.UNIT)
        r = _overlap(r, Ball(np.zeros(r.shape), np.broadcast_to(most, r.shape)))
        r = _overlap(r, ball.add(r0, change))
        return _Values(w, v, w0, v0, h, h0, g, g0, s, q, r, r0, centred, turned, moved), ends

    def _residual(self, v: Ball, h: Ball) -> Ball:
        """Return C (Σ v h − y), (i, box)."""
        return self._centred(ball.sub(ball.total(ball.product(part(v, _EACH, None), h), (0,)), self._y), 0)

    def _most(self, v: Ball) -> Array:
        """Return the bound B2 on ⟨r²⟩."""
        least = np.sum(np.maximum(np.abs(v.mid) - v.radius, 0) ** 2, axis=0) * (1 - 4 * self.size * ball.UNIT)
        return bounds_.residual(self.bounds, self.decay, least)

    def _excluded(self, x: _Values, ends: bounds_.Ends) -> Array:
        """Return which boxes the identities of `bounds` exclude."""
        square = np.sum(np.maximum(np.abs(x.r.mid) - x.r.radius, 0) ** 2, axis=0) / len(x.r.mid)
        empty = square * (1 - 4 * len(x.r.mid) * ball.UNIT) > self._most(x.v)
        # λ ‖v‖² ≤ Σ vⱼ ⟨hⱼ, y⟩_M, with ⟨hⱼ, y⟩_M in slope form
        weights = part(self._centred_y, None)
        moved = ball.total(ball.product(self._mean(self._along(ball.mul(weights, x.s)), 1), ball.sub(x.w, x.w0)), (1,))
        near = ball.add(self._mean(ball.mul(weights, x.h0), 1), moved)
        projection = ball.intersection(near, self._mean(ball.mul(weights, x.h), 1))
        squares = ball.square(x.v)
        gain = ball.sub(
            ball.total(ball.product(x.v, projection), (0,)), ball.mul(self._decay, ball.total(squares, (0,)))
        )
        empty |= ball.bounds(gain)[1] < 0
        # λ ‖wⱼ‖² = −vⱼ ⟨r zⱼ hⱼ'⟩ and λ (‖wⱼ‖² − vⱼ²) = −vⱼ ⟨r (zⱼ hⱼ' − hⱼ)⟩
        incoming = ball.total(ball.square(x.w), (1,))
        for function, sum_ in ((bounds_.peaked, incoming), (bounds_.imbalance, ball.sub(incoming, squares))):
            mean = self._mean(ball.product(part(x.r, None), function(ends)), 1)
            low, high = ball.bounds(ball.add(ball.product(x.v, mean), ball.mul(self._decay, sum_)))
            empty |= np.any((low > 0) | (high < 0), axis=0)
        return empty

    def _contracted(self, low: Array, high: Array, x: _Values) -> Contracted:
        center = low + (high - low) / 2
        terms = _Terms(self, x)
        low, high, empty = self._natural(low, high, x, terms)
        values, slopes = terms.equations()
        found = contraction.contract(
            np.where(empty[:, None], center, low), np.where(empty[:, None], center, high), center, values, slopes
        )
        wide = np.sqrt(np.maximum(found.high - found.low, 0))
        return found._replace(empty=found.empty | empty, share=found.share * wide)

    def _natural(self, low: Array, high: Array, x: _Values, terms: "_Terms") -> tuple[Array, Array, Array]:
        """Return the ends of boxes after each equation for w and for v is solved for its own unknown."""
        first = self.units * self.width
        found = [ball.neg(ball.product(ball.product(part(x.v, _EACH, None), terms.pull), ball.inverse(self._decay)))]
        w = ball.move(lambda a: a.reshape(first, -1).T, found[0])
        v = [self._own(j, x, terms) for j in range(self.units)]
        ends = [ball.bounds(w), ball.bounds(ball.move(lambda *a: np.stack(a, axis=1), *v))]
        low = np.maximum(low, np.concatenate([e[0] for e in ends], axis=1))
        high = np.minimum(high, np.concatenate([e[1] for e in ends], axis=1))
        return low, high, np.any(low > high, axis=1)

    def _own(self, j: int, x: _Values, terms: "_Terms") -> Ball:
        """Return vⱼ = −⟨hⱼ C (Σ_{k≠j} vₖ hₖ − y)⟩ / (⟨hⱼ C hⱼ⟩ + λ)."""
        others = np.arange(self.units) != j
        rest = self._residual(part(x.v, others), part(x.h, others))
        low, high = ball.bounds(part(terms.gram, j, j))
        divisor = ball.between(np.maximum(low, self.decay), np.maximum(high, self.decay))
        top = self._mean(ball.product(rest, part(x.h, j)), 0)
        return ball.neg(ball.product(top, ball.inverse(divisor)))


def _overlap(a: Ball, b: Ball) -> Ball:
    """Return what two enclosures have in common; a number of one where that is nothing, so that the box is empty."""
    (low, high), (least, most) = ball.bounds(a), ball.bounds(b)
    low = np.maximum(low, least)
    return ball.between(low, np.maximum(low, np.minimum(high, most)))


@dataclasses.dataclass
class _Terms:
    """Sums over the data that the equations share."""

    of: Equations
    values: _Values

    def __post_init__(self) -> None:
        x, mean = self.values, self.of._mean
        self.pull = mean(self.of._along(ball.product(part(x.r, None), x.g)), 1)  # ⟨r gⱼ x̃⟩: j, a
        self.gram = self._gram(x.turned, ball.sub(x.w, x.w0))

    def _gram(self, turned: Ball, dw: Ball) -> Ball:
        """Return ⟨hⱼ C hₖ⟩ + λ: j, k."""
        of, x, mean, each = self.of, self.values, self.of._mean, _EACH
        direct = mean(ball.product(part(x.h, each, None), part(x.centred, None)), 2)
        middle = of._centred(x.h0, 1)
        one = mean(ball.product(part(turned, each, None), part(x.h, None, each, each, None)), 2)  # ⟨C(sⱼ x̃) hₖ⟩
        two = mean(ball.mul(part(middle, each, None, each, None), part(of._along(x.s), None)), 2)  # ⟨C(hⱼ°) sₖ x̃⟩
        apart = ball.add(
            ball.total(ball.product(one, part(dw, each, None)), (2,)),
            ball.total(ball.product(two, part(dw, None)), (2,)),
        )
        same = ball.total(ball.product(ball.add(one, two), part(dw, each, None)), (2,))
        change = ball.select(np.eye(of.units, dtype=np.int64)[:, :, None], apart, same)
        near = ball.add(mean(ball.mul(part(x.h0, each, None), part(middle, None)), 2), change)
        return ball.add(ball.intersection(direct, near), ball.mul(of._decay, _identity(of.units)))

    def equations(self) -> tuple[Ball, Ball]:
        """Return the equations at the middles, (count, n), and their slopes, (count, n, n)."""
        of, x, mean, each = self.of, self.values, self.of._mean, _EACH
        product, mul, along = ball.product, ball.mul, of._along
        r0 = part(x.r0, None)
        by_v = mul(of._decay, x.v0), mul(of._decay, x.w0)
        for_v = ball.add(mean(mul(r0, x.h0), 1), by_v[0])
        for_w = ball.add(mul(part(x.v0, each, None), mean(along(mul(r0, x.g0)), 1)), by_v[1])
        vw = mean(product(part(x.h, each, None, each, None), part(x.moved, None)), 2)  # j, k, a
        vw = ball.add(vw, _diagonal(mean(along(mul(r0, x.s)), 1)))
        crossed = product(part(x.g, each, None), part(x.centred, None))  # gⱼ C hₖ: j, k, i
        wv = mean(mul(part(crossed, each, each, each, None), part(of._x, None, None)), 2)  # j, k, a
        wv = ball.add(mul(part(x.v0, each, None, None), wv), _diagonal(self.pull))
        outer = mul(part(x.v0, each, None, None), along(x.g))  # vⱼ° gⱼ x̃: j, i, a
        ww = mean(product(part(outer, each, None, each, each, None), part(x.moved, None, each, each, None)), 2)
        bent = mul(part(x.v0, each, None), mul(r0, x.q))  # j, i
        own = mean(mul(part(bent, each, each, None, None), part(of._xx, None)), 1)  # j, a, b
        own = ball.add(own, part(mul(of._decay, _identity(of.width)), None))
        ww = ball.add(ww, _diagonal(own))  # j, k, a, b
        return _stacked(for_w, for_v), _matrix(ww, wv, vw, self.gram)


def _identity(size: int) -> Ball:
    return ball.exact(np.eye(size)[:, :, None])


def _diagonal(a: Ball) -> Ball:
    """Return a (j, …) as (j, k, …), 0 where j and k differ."""
    identity = np.eye(a.shape[0]).reshape(a.shape[0], a.shape[0], *(1,) * (len(a.shape) - 1))
    return Ball(a.mid[:, None] * identity, a.radius[:, None] * identity)


def _stacked(w: Ball, v: Ball) -> Ball:
    return ball.move(lambda a, b: np.concatenate([a.reshape(-1, a.shape[-1]), b]).T, w, v)


def _matrix(ww: Ball, wv: Ball, vw: Ball, vv: Ball) -> Ball:
    def matrix(ww: Array, wv: Array, vw: Array, vv: Array) -> Array:
        units, width, count = ww.shape[0], ww.shape[2], ww.shape[-1]
        first = units * width
        upper = np.moveaxis(ww, 2, 1).reshape(first, first, count), np.moveaxis(wv, 2, 1).reshape(first, units, count)
        rows = [np.concatenate(upper, axis=1), np.concatenate([vw.reshape(units, first, count), vv], axis=1)]
        return np.moveaxis(np.concatenate(rows), 2, 0)

    return ball.move(matrix, ww, wv, vw, vv)
