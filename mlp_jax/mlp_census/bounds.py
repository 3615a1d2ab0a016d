"""Bounds that hold at every critical point of a network with one hidden layer, tanh, one output and weight decay.

The loss is L = ⟨(f − y)²⟩/2 + λ/2 ‖θ‖² with f = Σⱼ vⱼ hⱼ + c, hⱼ = tanh zⱼ, zⱼ = wⱼ·x̃, x̃ = (x, 1); ⟨⟩ is the mean over
the data, λ > 0. Write t = Σⱼ vⱼ hⱼ, and C a = a − ⟨a⟩/(1 + λ), ⟨a, b⟩_M = ⟨a C b⟩, E₀ = ⟨y, y⟩_M.

c. ∂L/∂c = 0 gives c = ⟨y − t⟩/(1 + λ), so the residual f − y is r = C (t − y). C has the eigenvalues 1 and λ/(1 + λ),
so ⟨r²⟩ ≤ ‖t − y‖²_M. L is strictly convex in c (and in (v, c)), so critical points of L and their indices are those of
R(w, v) = min over c of L (Haynsworth 1968, "Determination of the inertia of a partitioned Hermitian matrix").

At a critical point ∂L/∂vⱼ = ⟨r hⱼ⟩ + λ vⱼ = 0 and ∂L/∂wⱼ = vⱼ ⟨r hⱼ' x̃⟩ + λ wⱼ = 0. Hence:

B1. λ ‖v‖² = −⟨r t⟩ = ⟨t, y − t⟩_M = E₀/4 − ‖t − y/2‖²_M ≤ E₀/4. Since ‖t‖_M ≥ 0, also
    λ ‖v‖² ≤ ⟨t, y⟩_M = Σⱼ vⱼ ⟨hⱼ, y⟩_M.
B2. ‖t − y‖_M ≤ ‖y/2‖_M + ‖t − y/2‖_M, so ⟨r²⟩ ≤ E₀ (1/2 + √(1/4 − s²))² with s² = λ ‖v‖²/E₀.
B3. λ ‖wⱼ‖² = −vⱼ ⟨r zⱼ hⱼ'⟩, and |z sech² z| ≤ .4478, so λ ‖wⱼ‖² ≤ .4478 |vⱼ| ⟨r²⟩^(1/2). With ‖v‖ = s √(E₀/λ) and B2,
    s (1/2 + √(1/4 − s²)) ≤ 3√3/16, hence ‖wⱼ‖² ≤ .1455 E₀ λ^(−3/2). Summed over units, ‖v‖₁ ≤ √h ‖v‖:
    Σⱼ ‖wⱼ‖² ≤ √h times that.
B4. λ (‖wⱼ‖² − vⱼ²) = −vⱼ ⟨r (zⱼ hⱼ' − hⱼ)⟩, the balance of the layers, where z tanh' z − tanh z decreases.

Every orbit of the sign changes (wⱼ, vⱼ) → (−wⱼ, −vⱼ) and permutations of units meets the set with b₁ ≥ b₂ ≥ … ≥ 0.
"""

from typing import NamedTuple

import numpy as np

from mlp_jax.interval import ball, elementary
from mlp_jax.interval.ball import Array, Ball

# At most |z sech² z|, which is largest between the next two numbers, and B3's factor, .4478 · 3√3/16 rounded up.
PEAK = 0.4478
PEAK_AT = 0.771, 0.772
_SQUARE = 0.1455


class Bounds(NamedTuple):
    """Upper bounds on E₀, and at every critical point on ‖v‖² and ‖wⱼ‖²."""

    energy: float
    outgoing: float
    incoming: float


def bounds(targets: Array, decay: float) -> Bounds:
    """Return the bounds B1 and B3 for targets y, (N,), and weight decay λ."""
    y, one = ball.exact(targets), ball.exact(np.array(1.0))
    count = ball.exact(np.array(float(targets.size)))
    decay_ = ball.exact(np.array(decay))
    mean = ball.div(ball.total(y, (0,)), count)
    square = ball.div(ball.total(ball.square(y), (0,)), count)
    energy = ball.sub(square, ball.div(ball.square(mean), ball.add(one, decay_)))
    outgoing = ball.div(energy, ball.mul(ball.exact(np.array(4.0)), decay_))
    root = ball.mul(decay_, elementary.elementwise("sqrt", decay_))
    incoming = ball.div(ball.mul(ball.exact(np.array(_SQUARE)), energy), root)
    above = [float(ball.bounds(x)[1]) * (1 + ball.UNIT * 4) for x in (energy, outgoing, incoming)]
    return Bounds(*above)


def residual(found: Bounds, decay: float, least: Array) -> Array:
    """Return an upper bound on ⟨r²⟩, B2, where ‖v‖² is at least `least`."""
    share = np.minimum(decay * least / max(found.energy, ball.TINY) * (1 - 8 * ball.UNIT), 0.25)
    root = 0.5 + np.sqrt(0.25 - share) * (1 + 4 * ball.UNIT)
    return np.asarray(found.energy * root * root * (1 + 16 * ball.UNIT))


class Ends(NamedTuple):
    """Pre-activations at both ends of boxes, and tanh there."""

    low: Ball
    high: Ball
    tanh_low: Ball
    tanh_high: Ball

    @property
    def tanh(self) -> Ball:
        """The range of tanh."""
        return ball.between(ball.bounds(self.tanh_low)[0], ball.bounds(self.tanh_high)[1])

    def peaks(self) -> tuple[Ball, Ball]:
        """Return z tanh' z at both ends."""
        one, pairs = ball.exact(np.ones(self.low.shape)), ((self.low, self.tanh_low), (self.high, self.tanh_high))
        first, last = (ball.mul(z, ball.sub(one, ball.square(tanh))) for z, tanh in pairs)
        return first, last


def ends(z: Ball) -> Ends:
    """Return the ends of balls."""
    low, high = (Ball(end) for end in ball.bounds(z))
    return Ends(low, high, elementary.elementwise("tanh", low), elementary.elementwise("tanh", high))


def peaked(z: Ends) -> Ball:
    """Return z tanh' z on boxes: it grows up to `PEAK_AT` and then falls, and is odd."""
    first, last = map(ball.bounds, z.peaks())
    least, most = np.minimum(first[0], last[0]), np.maximum(first[1], last[1])
    inside, outside = PEAK_AT
    most = np.where((z.low.mid < outside) & (z.high.mid > inside), PEAK, most)
    least = np.where((z.low.mid < -inside) & (z.high.mid > -outside), -PEAK, least)
    return ball.between(least, most)


def imbalance(z: Ends) -> Ball:
    """Return z tanh' z − tanh z on boxes, from the ends: it decreases."""
    first, last = z.peaks()
    first, last = ball.sub(first, z.tanh_low), ball.sub(last, z.tanh_high)
    return ball.between(ball.bounds(last)[0], ball.bounds(first)[1])
