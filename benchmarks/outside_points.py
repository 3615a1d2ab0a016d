"""Points at which a verdict is easily wrong, in families named after the mechanism, with well-behaved counterparts.

Every family comes from a wrong verdict that a user or a search found. Two thirds of a family have the fault: no smooth
critical point is near (truth None), or float64 may be unable to determine its inertia. One third have no fault: the
same program and shapes, nondegenerate and well scaled, so that a verdict that withholds the kind is an abstention. The
truth never depends on the package: it is in closed form, or the sign of an exact sum of the given numbers.

Most functions depend on z = R (θ − a) with R a random orthogonal matrix: θ = a is z = 0 exactly, and no coordinate of θ
is special.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.known_points import Case
from mlp_jax import losses

FAMILIES: dict[str, Callable[[int], Iterator[Case]]] = {}


class Draw(NamedTuple):
    """The random choices from which every family makes a case."""

    number: int
    generator: np.random.Generator
    size: int
    rotation: np.ndarray
    at: np.ndarray
    weights: np.ndarray
    fault: bool
    options: dict[str, Any]

    @property
    def frame(self):
        """The first args of most functions."""
        return self.rotation, self.at, self.weights

    def place(self, z):
        """Return θ with R (θ − a) = z."""
        return self.at + self.rotation.T @ z

    def some(self):
        """Return a mask of one component, all of them, or a few."""
        most = int(self.generator.choice(np.array([1, self.size, self.generator.integers(1, self.size + 1)])))
        return np.isin(np.arange(self.size), self.generator.permutation(self.size)[:most])

    def sides(self):
        """Return a sign for each component."""
        return self.generator.choice([-1.0, 1.0], self.size)

    def decades(self, low, high, size=None):
        """Return a number between 10^low and 10^high, uniform in the exponent."""
        return 10 ** self.generator.uniform(low, high, size)

    def case(self, fun, params, args, truth, answerable=None):
        """Return the case; those without a fault are answerable."""
        return Case(fun, params, args, truth, not self.fault if answerable is None else answerable, self.options)


def draws(count: int, sizes: tuple[int, ...], positive: bool) -> Iterator[Draw]:
    """Return draws: a quarter with evidence from products, some small ones with proofs, a third without a fault."""
    for number in range(count):
        generator = np.random.default_rng([number, len(sizes)])
        size = sizes[number % len(sizes)]
        rotation = np.linalg.qr(generator.standard_normal((size, size)))[0]
        weights = np.exp(generator.uniform(np.log(0.1), 0, size))
        if not positive and generator.random() < 0.5:
            weights = weights * generator.choice([-1.0, 1.0], size)
        at = 10 ** generator.uniform(-2, 2) * generator.standard_normal(size)
        evidence = generator.random()
        options = {"evidence": "lanczos"} if evidence < 0.25 else {}
        if evidence > 0.9 and size <= 5:
            options = {"evidence": "proved"}
        yield Draw(number, generator, size, rotation, at, weights, generator.random() < 2 / 3, options)


def family(name: str, *sizes: int, positive: bool = False) -> Callable[[Callable[[Draw], Case | None]], Any]:
    """Add a family, by the function that makes a case from a draw, or None where there is none for it."""

    def add(make):
        def cases(count):
            made = map(make, draws(count, sizes, positive))
            return (case for case in made if case is not None)

        FAMILIES[name] = cases
        return make

    return add


def signs(values) -> tuple[int, int, int]:
    """Return the numbers of negative, zero and positive values."""
    return int(np.sum(values < 0)), int(np.sum(values == 0)), int(np.sum(values > 0))


def of_z(part: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Return a function of θ and its frame from one of z, the weights, and further args."""
    return lambda v, rotation, at, weights, *args: part(rotation @ (v - at), weights, *args)


def bowl_and(part):
    """Return Σ w z²/2 + part(z, args)."""
    return of_z(lambda z, w, *args: jnp.sum(w * z**2) / 2 + part(z, *args))


waves = of_z(lambda z, w, slope: jnp.sum(w * (-slope * z - jnp.cos(z))))
troughs = of_z(lambda z, w, slope: jnp.sum(w * (slope * z + jnp.logaddexp(z, -z))))
hyperbolas = of_z(lambda z, w, slope: jnp.sum(w * (slope * z + jnp.sqrt(1 + z**2))))


def flat(fun, generator, slope):
    """Return where the derivative vanishes, and the second derivative there, for |s| < 1."""
    if fun is waves:
        z = np.where(generator.random(len(slope)) < 0.5, np.arcsin(slope), np.pi - np.arcsin(slope))
        return z, np.cos(z)
    return (-np.arctanh(slope), 1 - slope**2) if fun is troughs else (-slope / np.sqrt(1 - slope**2), 1 - slope**2)


@family("no critical point at the end of the step", 1, 2, 5, 20, 65, 200)
def no_critical_point(draw):
    fun = (waves, troughs, hyperbolas)[draw.number // 6 % 3]
    generator, size = draw.generator, draw.size
    slope = generator.uniform(-0.9, 0.9, size)
    z, bend = flat(fun, generator, slope)
    if draw.fault:
        steep, side = draw.some(), draw.sides()
        whole = 2 * np.pi * generator.integers(1, 6, size)  # the step ends where the Hessian is the same again
        much = generator.uniform(1.05, 20, size)
        slope = np.where(steep, side * np.where(draw.number % 4 < 3, whole, much), slope)
        z = np.where(steep, generator.choice([0.0, 0.3]) * generator.standard_normal(size), z)
    elif generator.random() < 0.5:
        z = z + 1e-6 * generator.standard_normal(size)
    return draw.case(fun, draw.place(z), (*draw.frame, slope), None if draw.fault else signs(draw.weights * bend))


absolute = of_z(lambda z, w, strength, corner: jnp.sum(w * z**2 / 2 + strength * jnp.abs(z - corner)))
ramps = of_z(lambda z, w, strength, corner: jnp.sum(w * z**2 / 2 + strength * (jax.nn.relu(z - corner) - z / 2)))
lasso = lambda w, x, y, strength: jnp.mean((x @ w - y) ** 2) / 2 + strength * jnp.sum(jnp.abs(w))
hinge = lambda w, x, y, decay: jnp.mean(jax.nn.relu(1 - y * (x @ w))) + decay * jnp.sum(w**2) / 2


def descend(gradient, start, rate, steps):
    for _ in range(steps):
        start = start - rate * gradient(start)
    return start


def lasso_case(draw):
    """A lasso with orthogonal inputs: its minimum is the soft threshold of xᵀ y / n."""
    generator, size = draw.generator, draw.size
    x = math.sqrt(250) * np.linalg.qr(generator.standard_normal((250, size)))[0]
    strength = 0.2 if draw.fault else 0.02
    correlation = draw.sides() * generator.uniform(0.3, 1, size)
    if draw.fault:
        small = draw.some()
        correlation[small] = generator.uniform(-0.18, 0.18, int(np.sum(small)))  # of these the minimum has a weight 0
    best = np.sign(correlation) * np.maximum(np.abs(correlation) - strength, 0)
    if draw.fault:
        start = 0.1 * generator.standard_normal(size)
        best = descend(lambda w: w - correlation + strength * np.sign(w), start, draw.decades(-4, -1.5), 3000)
    return draw.case(lasso, best, (x, x @ correlation, np.float64(strength)), None if draw.fault else (0, 0, size))


def hinge_case(draw):
    """A support vector machine of which the minimum has margins of exactly 1; None for other data."""
    x, direction = draw.generator.standard_normal((24, draw.size)), draw.generator.standard_normal(draw.size)
    y = np.where(x @ direction > 0, 1.0, -1.0)
    signed = x * y[:, None]
    if not draw.fault:  # decay so large that every margin is below 1: w = mean(y x) / decay
        decay = 4 * np.max(np.abs(signed @ np.mean(signed, axis=0)))
        return draw.case(hinge, np.mean(signed, axis=0) / decay, (x, y, np.float64(decay)), (0, 0, draw.size))
    decay, alpha = 0.05, np.zeros(24)
    square = signed @ signed.T / (24 * decay)
    for _ in range(400):  # coordinate ascent of the dual problem; w = Σ α y x / (n decay)
        for i in range(24):
            alpha[i] = np.clip(alpha[i] + (1 - square[i] @ alpha) / square[i, i], 0, 1)
    if not np.any((alpha > 1e-3) & (alpha < 1 - 1e-3)):  # no margin of exactly 1, and so no corner
        return None
    slope = lambda w: decay * w - np.mean(signed * (signed @ w < 1)[:, None], axis=0)
    w = descend(slope, signed.T @ alpha / (24 * decay), draw.decades(-4, -2), 500)
    return draw.case(hinge, w, (x, y, np.float64(decay)), None)


@family("corner with equal curvature on both sides", 1, 2, 5, 20, 65, 200)
def corners(draw):
    size, kind = draw.size, draw.number // 6 % 4
    if kind == 2:
        return lasso_case(draw)
    if kind == 3 and size in (2, 5, 20):
        return hinge_case(draw)
    fun, weights, strength = (absolute, ramps)[kind % 2], draw.weights, np.zeros(size)
    if draw.fault:
        bad = draw.some()
        weights = np.where(bad, np.abs(weights), weights)
        strength = np.where(bad, draw.decades(-3, 1, size), 0.0)
        z = np.where(bad, draw.sides() * draw.decades(-9, -0.5, size), 0.0)
        corner, truth = np.zeros(size), None
    else:
        strength, corner = draw.generator.uniform(0, 1, size) * np.abs(weights), np.full(size, 3.0)
        z, truth = strength / weights / (1 if fun is absolute else 2), signs(weights)
    return draw.case(fun, draw.place(z), (draw.rotation, draw.at, weights, strength, corner), truth)


def relu_bowls(z, weights, above, below, corner):
    sides = above * jax.nn.relu(z - corner) ** 2 + below * jax.nn.relu(corner - z) ** 2
    return jnp.sum(weights * z**2 + sides) / 2


def absolute_bowls(z, weights, above, below, corner):
    far = z - corner
    return jnp.sum(weights * z**2 + (above + below) / 2 * far**2 + (above - below) / 2 * far * jnp.abs(far)) / 2


# Σ w z²/2 + a relu(z − c)²/2 + b relu(c − z)²/2, in three ways.
chosen_bowls = lambda z, w, a, b, c: jnp.sum(w * z**2 + jnp.where(z > c, a, b) * (z - c) ** 2) / 2
BOWLS = of_z(relu_bowls), of_z(chosen_bowls), of_z(absolute_bowls)


@family("jump of the Hessian on one side", 1, 2, 5, 20, 65, 200)
def half_curvatures(draw):
    fun = BOWLS[draw.number // 6 % 3]
    size, weights = draw.size, draw.weights
    if draw.fault:
        bad = draw.some()
        one, other = (draw.decades(-2, 1, size) for _ in range(2))
        side = draw.sides()
        above, below = (np.where(bad, s * c - weights, 0.0) for s, c in ((side, one), (-side, other)))
        away = draw.sides() * draw.decades(-12, -0.5, size)
        z, corner, truth = np.where(bad & (draw.number % 3 > 0), away, 0.0), np.zeros(size), None
    else:  # the corner at 2, the zero of w z − b (2 − z) at 1 or below
        below = draw.generator.uniform(0, 1, size) * np.maximum(weights, 0)
        above, corner = -draw.generator.uniform(0, 1, size), np.full(size, 2.0)
        z, truth = 2 * below / (weights + below), signs(weights + below)
    return draw.case(fun, draw.place(z), (*draw.frame, above, below, corner), truth)


def pair(v, level, apart, below):
    """Of d = θ₀ − θ₁: 3 d² above `apart`, and a multiple of d² below."""
    d, rest = v[0] - v[1], jnp.sum((v[2:] - level) ** 2)
    return jnp.where(d >= apart, 3 * d**2, below * d**2) + (v[0] + v[1] - 2 * level) ** 2 + rest


largest = lambda v, c, strength: jnp.sum((v - c) ** 2) / 2 + strength * (jnp.max(v) - jnp.mean(v))
variation = lambda v, c, strength: jnp.sum((v - c) ** 2) / 2 + strength * jnp.sum(jnp.abs(v[1:] - v[:-1]))
ranked = lambda v, c, s: jnp.sum((v - c) ** 2) / 2 + s * jnp.dot(jnp.linspace(-1.0, 1.0, len(v)), jnp.sort(v))


@family("corner along equal components", 2, 5, 20, 65, 200, positive=True)
def equal_components(draw):
    generator, size, kind = draw.generator, draw.size, draw.number // 5 % 4
    level = generator.choice([1.0, 0.3, -7.1, 1e3, 0.0])
    truth = None if draw.fault else (0, 0, size)
    if kind == 0:
        args = (np.float64(level), np.float64(0.0 if draw.fault else -5.0), np.float64(-draw.decades(-2, 1)))
        return draw.case(pair, np.full(size, level), args, truth)
    fun, strength = (largest, variation, ranked)[kind - 1], generator.uniform(0.1, 1)
    centre, pull = np.full(size, level), np.zeros(size)
    if not draw.fault:
        centre = level + 3.0 * np.arange(size)
        ends = np.append(-1.0, np.zeros(size - 1)) + np.append(np.zeros(size - 1), 1.0)
        pull = (np.append(np.zeros(size - 1), 1.0) - 1 / size, ends, np.linspace(-1, 1, size))[kind - 1]
    return draw.case(fun, centre - strength * pull, (centre, np.float64(strength)), truth)


STEPS = (
    lambda z: jnp.where(z > 0, 1.0, 0.0), jnp.sign, lambda z: -jnp.floor(z), jnp.ceil, lambda z: jnp.round(z + 0.5),
    lambda z: jnp.argmax(jnp.stack([jnp.zeros_like(z), z])).astype(z.dtype),
    lambda z: jnp.ceil(z).astype(jnp.int32).astype(z.dtype),
)  # fmt: skip


STEPPED = tuple(
    of_z(lambda z, w, height, place, step=step: jnp.sum(w * z**2) / 2 - height * step(z[0] - place)) for step in STEPS
)


def count_of_errors(v, rotation, at, weights, height, teacher, x, y):
    """Σ w z²/2 + h (share of wrong classes)."""
    far = v - at
    logits = x @ (far + teacher).reshape(x.shape[1], -1)
    wrong = jnp.mean(jnp.where(jnp.argmax(logits, axis=1) == y, 0.0, 1.0))
    return jnp.sum(weights * (rotation @ far) ** 2) / 2 + height * wrong


def errors_case(draw):
    classes = {2: 2, 20: 4, 65: 5, 200: 10}[draw.size]
    teacher = draw.generator.standard_normal((draw.size // classes, classes))
    x = draw.generator.standard_normal((400, draw.size // classes))
    logits = x @ teacher
    ordered = np.sort(logits, axis=1)
    clear = np.flatnonzero(ordered[:, -1] - ordered[:, -2] > 0.2)[:50]
    teacher = np.zeros(draw.size) if draw.fault else teacher.ravel()
    args = (*draw.frame, np.float64(draw.decades(-3, 0)), teacher, x[clear], np.argmax(logits[clear], axis=1))
    return draw.case(count_of_errors, draw.at, args, None if draw.fault else signs(draw.weights))


@family("jump of the value", 1, 2, 5, 20, 65, 200)
def value_jumps(draw):
    kind = draw.number // 6 % 8
    if kind == 7 and draw.size in (2, 20, 65, 200):
        return errors_case(draw)
    z = np.zeros(draw.size)
    if draw.fault and draw.number % 3 == 2:
        z[0] = draw.generator.choice([-1.0, 1.0]) * draw.decades(-6, -0.5)  # the step ends at the jump
    args = (*draw.frame, np.float64(draw.decades(-6, 0)), np.float64(0.0 if draw.fault else 2.5))
    return draw.case(STEPPED[kind % 7], draw.place(z), args, None if draw.fault else signs(draw.weights))


# Functions, and numbers at which they are NaN or infinite.
VALUES = (
    (jnp.log, (-1.0, 0.0, -1e-300)), (jnp.sqrt, (-2.0,)), (jnp.arcsin, (1.5, -7.0)),
    (lambda c: 1 / (c - 0.5) ** 2, (0.5,)), (lambda c: jnp.exp(1000 * c), (1.0, 3.0)),
)  # fmt: skip


VALUED = tuple(bowl_and(lambda z, number, part=part: part(number)) for part, _ in VALUES)
CAPTURED = tuple(bowl_and(lambda z, number, part=part, bad=bad: part(np.float64(bad[0]))) for part, bad in VALUES)


@family("no value", 1, 5, 65)
def no_value(draw):
    kind = draw.number // 3 % 5
    number = draw.generator.choice(VALUES[kind][1]) if draw.fault else 0.4
    fun = (CAPTURED if draw.fault and draw.number % 5 == 0 else VALUED)[kind]
    return draw.case(fun, draw.at, (*draw.frame, np.float64(number)), None if draw.fault else signs(draw.weights))


def softmax_loss(v, x, y, decay):
    """Softmax regression with the losses of the package."""
    logits = x @ v.reshape(x.shape[1], -1)
    return losses.mean(losses.cross_entropy(logits, y)) + decay * jnp.sum(v**2) / 2


def own_softmax_loss(v, x, y, decay):
    """The same as users write it; a label that is too large is NaN."""
    logarithms = jax.nn.log_softmax(x @ v.reshape(x.shape[1], -1))
    return -jnp.mean(jnp.take_along_axis(logarithms, y[:, None], axis=1)) + decay * jnp.sum(v**2) / 2


def softmax_minimum(x, wanted, decay):
    """Newton's method on a strongly convex function."""
    (n, d), classes = x.shape, wanted.shape[1]
    v = np.zeros((d, classes))
    for _ in range(15):
        p = np.exp(x @ v - np.max(x @ v, axis=1, keepdims=True))
        p = p / np.sum(p, axis=1, keepdims=True)
        gradient = x.T @ (p - wanted) / n + decay * v
        bend = np.einsum("nc,ce->nce", p, np.eye(classes)) - np.einsum("nc,ne->nce", p, p)
        rows = np.einsum("ni,nce->neic", x, bend).reshape(n, classes, d * classes)
        hessian = np.einsum("nek,nj->kje", rows, x).reshape(d * classes, -1) / n + decay * np.eye(d * classes)
        v = v - np.linalg.solve(hessian, gradient.ravel()).reshape(d, classes)
    return v.ravel()


@family("label out of range", 3, 20, 200)
def labels(draw):
    generator, classes = draw.generator, {3: 3, 20: 5, 200: 10}[draw.size]
    x = generator.standard_normal((60, draw.size // classes))
    y, decay = generator.integers(0, classes, 60), draw.decades(-2, 0)
    own = draw.number // 3 % 3 == 2
    if draw.fault:
        bad = generator.permutation(60)[: int(generator.integers(1, 30))]
        y[bad] = classes + generator.integers(0, 3) if own or generator.random() < 0.5 else -1
    wanted = np.concatenate([np.eye(classes), np.zeros((4, classes)), np.eye(classes)[-1:]])[y]
    fun, params = own_softmax_loss if own else softmax_loss, softmax_minimum(x, wanted, decay)
    return draw.case(fun, params, (x, y, np.float64(decay)), None if draw.fault else (0, 0, draw.size))


def variances(v, at, weights, x):
    """Σⱼ wⱼ (mean (zⱼ xⱼ)² − (mean zⱼ xⱼ)²): half the second derivatives are variances."""
    z = (v - at) * x
    return jnp.sum(weights * (jnp.mean(z**2, axis=0) - jnp.mean(z, axis=0) ** 2))


# Σ (a d − b c) z²/2, with the rows in the place of the weights.
determinants = of_z(lambda z, rows: jnp.sum((rows[:, 0] * rows[:, 3] - rows[:, 1] * rows[:, 2]) * z**2) / 2)


def unimodular(generator, size):
    """Return integers a, b, c, d of about `size` with a d − b c = ±1."""
    a, b, c, d = 1, 0, 0, 1
    while max(abs(a), abs(b), abs(c), abs(d)) < size:
        k = int(generator.integers(1, 9))
        a, b, c, d = (a + k * c, b + k * d, c, d) if generator.random() < 0.5 else (a, b, c + k * a, d + k * b)
    return [a, b, c, d] if generator.random() < 0.5 else [c, d, a, b]


@family("cancellation in the data", 1, 5, 20)
def cancellation(draw):
    generator, size = draw.generator, draw.size
    if draw.number // 3 % 2 == 0:
        examples = (10, 1000, 30_000)[draw.number // 6 % 3]
        far = draw.decades(6, 9, size) if draw.fault else draw.decades(0, 1, size)
        x = far + generator.standard_normal((examples, size))
        return draw.case(variances, draw.at, (draw.at, draw.weights, x), signs(draw.weights))
    if draw.fault:
        rows = np.array([unimodular(generator, 10 ** int(generator.integers(8, 12))) for _ in range(size)])
    else:
        rows = generator.integers(1, 12, (size, 4))
        rows[rows[:, 0] * rows[:, 3] == rows[:, 1] * rows[:, 2]] = 2, 1, 1, 2
    exact = [int(a) * int(d) - int(b) * int(c) for a, b, c, d in rows]
    return draw.case(determinants, draw.at, (draw.rotation, draw.at, rows.astype(float)), signs(np.array(exact)))


least_squares = lambda w, x, y: jnp.mean((x @ w - y) ** 2)
logistic = lambda w, x, y: jnp.mean(jax.nn.softplus(-y * (x @ w)))


def logistic_minimum(x, y):
    w = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(y * (x @ w)))
        w = w + np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (y * p))
    return w


@family("long sums, exactly dependent columns", 3, 6, positive=True)
def long_sums(draw):
    generator, size = draw.generator, draw.size
    examples = (100, 10_000, 100_000, 300_000)[int(generator.choice(4, p=[0.35, 0.35, 0.25, 0.05]))]
    x = np.round(generator.standard_normal((examples, size)) * 2**20) / 2**20  # so that sums of columns are exact
    zeros = (size // 3) if draw.fault else 0
    free, w = size - zeros, np.zeros(size)
    for k in range(zeros):
        x[:, free + k] = x[:, 2 * k] + x[:, 2 * k + 1]
    if draw.number // 2 % 2 == 0:
        fun, y = least_squares, generator.standard_normal(examples)
        w[:free] = np.linalg.lstsq(x[:, :free], y)[0]
    else:
        fun, y = logistic, generator.choice([-1.0, 1.0], examples)
        w[:free] = logistic_minimum(x[:, :free], y)
    for k in range(zeros):  # along the null direction to somewhere else
        w[[2 * k, 2 * k + 1, free + k]] += generator.standard_normal() * np.array([1, 1, -1])
    return draw.case(fun, w, (x, y), (0, zeros, free))


def beside_bowl(first):
    """Return a function of z₀ beside a quadratic form of the rest."""
    return of_z(lambda z, w, *args: first(z, *args) + jnp.sum(w[1:] * z[1:] ** 2) / 2)


absorbed = beside_bowl(lambda z, small, large: ((small + large) - large) * z[0] ** 2 / 2)
two_ways = beside_bowl(lambda z, small, large: (large * (small[0] * z[0]) ** 2 / small[1] - large * z[0] ** 2) / 2)
summed = beside_bowl(lambda z, terms: jnp.sum(terms) * z[0] ** 2 / 2)
staircase = beside_bowl(lambda z, small, large: small * ((z[0] + large) - large) ** 2 / 2)


@family("absorbed curvature (x + c) - c", 2, 5, 20)
def absorption(draw):
    generator, kind, side = draw.generator, draw.number // 3 % 4, draw.generator.choice([-1.0, 1.0])
    large = np.float64(draw.decades(4, 14) if draw.fault else draw.decades(2, 6))
    if kind in (0, 3):
        size = draw.decades(-2, 0.5) * 2.0**-52 * large if draw.fault else generator.uniform(0.3, 1)
        small = np.float64(side * size)
        fun, args, first = (absorbed if kind == 0 else staircase), (small, large), Fraction(small)
    elif kind == 1:
        s = np.float64(generator.uniform(0.5, 2))
        t = s * s if draw.fault else s * s / (1 + side * generator.uniform(0.3, 1) / large)
        first = Fraction(large) * Fraction(s) ** 2 / Fraction(t) - Fraction(large)
        fun, args = two_ways, (np.array([s, t]), large)
    else:
        terms = large * generator.standard_normal(64)
        terms[-1] = -math.fsum(terms[:-1]) + (0.0 if draw.fault else side)
        fun, args, first = summed, (terms,), sum(map(Fraction, terms), Fraction(0))
    truth = signs(np.append(draw.weights[1:], np.sign(float(first))))
    return None if first == 0 else draw.case(fun, draw.at, (*draw.frame, *args), truth)


@of_z
def valley(z, weights, small, cubic):
    """z₀²/2 + s z₁²/2 + z₀ z₁² + c z₁³ + 4 z₁⁴ + Σ w z²/2."""
    x, y = z[0], z[1]
    return x**2 / 2 + small * y**2 / 2 + x * y**2 + cubic * y**3 + 4 * y**4 + jnp.sum(weights[2:] * z[2:] ** 2) / 2


def valley_with_data(v, rotation, at, *args):
    """Return the same plus a mean over data, sorted, that is 0."""
    return valley(v, rotation, at, *args[:-1]) + jnp.mean(jnp.sort(args[-1])) * (v[0] - at[0]) ** 2


@family("eigenvalue hidden by the step", 2, 5, 20, 65, 200, positive=True)
def hidden_eigenvalues(draw):
    generator, z = draw.generator, np.zeros(draw.size)
    small = draw.decades(-8, -3) if draw.fault else generator.uniform(0.1, 1)
    z[0] = generator.choice([-1.0, 1.0]) * (small * draw.decades(-1, 0.5) if draw.fault else draw.decades(-9, -4))
    if generator.random() < 0.4:
        small = -small
    # With a cubic term a second critical point, of the other sign, is about as far away: only as it was found.
    cubic = 1.0 if draw.fault and small > 0 and draw.number % 2 else 0.0
    args = (*draw.frame, np.float64(small), np.float64(cubic))
    fun, args = (valley_with_data, (*args, np.zeros(30_000))) if draw.size == 5 else (valley, args)
    return draw.case(fun, draw.place(z), args, (int(small < 0), 0, draw.size - int(small < 0)))


def mixture(v, y, weights):
    """Minus the log-likelihood of two means; along (−t, t), with data ±s, it is t² − 2 log cosh(s t) + …."""
    likelihood = jnp.sum(jax.nn.logsumexp(-((y[:, None] - v[:2]) ** 2) / 2, axis=1))
    return -likelihood + jnp.sum(weights[2:] * v[2:] ** 2) / 2


def one_unit(v, x, y, weights):
    """Half the mean square of v₀ tanh(v₁ x) − y: the Hessian at 0 is −mean(x y) off the diagonal, and 0 on it.

    Where y is even in x, every point with v₀ = 0 is critical, with a curvature of mean tanh²(v₁ x) along v₀.
    """
    residual = v[0] * jnp.tanh(v[1] * x) - y
    return jnp.mean(residual**2) / 2 + jnp.sum(weights[2:] * v[2:] ** 2) / 2


@family("params tiny beside the data", 2, 5, 20, 65, positive=True)
def tiny_params(draw):
    generator, rest = draw.generator, draw.size - 2
    a = draw.decades(-8, -4) if draw.fault else draw.decades(-12, -7)
    if draw.number // 4 % 2 == 0:
        s = 1.0 if draw.fault else generator.choice([generator.uniform(0.3, 0.8), generator.uniform(1.3, 3)])
        truth = (0, 1, rest + 1) if draw.fault else (1, 0, rest + 1) if s > 1 else (0, 0, rest + 2)
        return draw.case(mixture, np.append([-a, a], np.zeros(rest)), (np.array([-s, s]), draw.weights), truth)
    half, even = generator.standard_normal(20), generator.standard_normal(20)
    order = generator.permutation(40)
    x, y = np.append(half, -half)[order], np.append(even, even)[order]
    y = y if draw.fault else y + generator.uniform(0.3, 1) * x
    v = np.append(a * generator.standard_normal(2), np.zeros(rest))
    return draw.case(one_unit, v, (x, y, draw.weights), (0, 1, rest + 1) if draw.fault else (1, 0, rest + 1))


def far_and(tail, v, centre, weights, height, back):
    """Σ w (x − c)²/2 + h (tail(y) + b tail(−y)): without a critical point where b = 0."""
    last = height * (tail(v[-1]) + back * tail(-v[-1]))
    return jnp.sum(weights[:-1] * (v[:-1] - centre) ** 2) / 2 + last


far_and_flat, far_and_soft = (functools.partial(far_and, tail) for tail in (jnp.exp, jax.nn.softplus))


@family("coordinates of very different scales", 2, 5, 20, 65)
def different_scales(draw):
    fun, back = (far_and_flat, far_and_soft)[draw.number // 4 % 2], 0.0
    centre = draw.decades(2, 10 if draw.fault else 6) * (1 + draw.generator.uniform(0, 1, draw.size - 1))
    height, y = (draw.decades(-12, 0), draw.generator.uniform(-1, 1)) if draw.fault else (1.0, 0.0)
    if not draw.fault:
        back = draw.generator.uniform(0.5, 2)
        y = math.log(back) / (2 if fun is far_and_flat else 1)  # e^y = b e^−y; σ(y) = b σ(−y)
    args = (centre, draw.weights, np.float64(height), np.float64(back))
    if draw.number % 2 == 0:
        draw = draw._replace(options={"evidence": "lanczos"})
    return draw.case(fun, np.append(centre, y), args, None if draw.fault else signs(np.append(draw.weights[:-1], 1)))


troughs_with_matrix = lambda *args: troughs(*args[:-1])
quadratic_with_matrix = of_z(lambda z, w, matrix: jnp.sum(w * z**2) / 2)
given_matrix = lambda v, *args: args[-1]
right_matrix = lambda v, turn, at, w, slope, _: (turn.T * (w * (1 - jnp.tanh(turn @ (v - at)) ** 2))) @ turn


@family("a Hessian that is right at params only", 1, 5, 20, 65)
def given_hessians(draw):
    generator, size, rotation = draw.generator, draw.size, draw.rotation
    options = {k: v for k, v in draw.options.items() if v != "lanczos"}
    draw = draw._replace(options={**options, "hessian": given_matrix if draw.fault else right_matrix})
    if draw.fault and draw.number // 4 % 3 == 2 and size > 1:
        weights = np.abs(draw.weights)
        weights[0] = -draw.decades(-11, -8.5)
        matrix = (rotation.T * np.abs(weights)) @ rotation
        args = (rotation, draw.at, weights, (matrix + matrix.T) / 2)
        return draw.case(quadratic_with_matrix, draw.at, args, (1, 0, size - 1))
    slope = generator.uniform(-0.9, 0.9, size)
    z, truth = -np.arctanh(slope), None
    if draw.fault:
        steep = draw.some()
        slope = np.where(steep, generator.choice([-1, 1], size) * generator.uniform(1.05, 5, size), slope)
        z = np.where(steep, 0.3 * generator.standard_normal(size), z)
    else:
        truth, z = signs(draw.weights), z + 1e-6 * generator.standard_normal(size)
    matrix = (rotation.T * (draw.weights * (1 - np.tanh(z) ** 2))) @ rotation
    return draw.case(troughs_with_matrix, draw.place(z), (*draw.frame, slope, (matrix + matrix.T) / 2), truth)


def with_slope(value):
    """Return a function of (x, m) with the derivative of m x²."""
    function = jax.custom_jvp(value)
    function.defjvp(lambda p, t: (function(*p), 2 * p[1] * p[0] * t[0]))
    return function


falling, rising = with_slope(lambda x, much: -much * x**2), with_slope(lambda x, much: much * x**2)
forgotten = jax.custom_vjp(lambda x, y: x * y)  # no derivative along x
forgotten.defvjp(lambda x, y: (x * y, x), lambda x, ct: (jnp.zeros_like(x), ct * x))


def honest_shift(z, much):
    shift = jax.lax.stop_gradient(jnp.max(z))
    return much * (jnp.log(jnp.sum(jnp.exp(z - shift))) + shift - jnp.mean(z))


LIES = tuple(map(bowl_and, (
    lambda z, much: 3 * much * jax.lax.stop_gradient(z[0]) * z[1],
    lambda z, much: 3 * much * (jax.lax.stop_gradient(z[0]) * z[1] + jax.lax.stop_gradient(z[1]) * z[0]) / 2,
    lambda z, much: 3 * much * forgotten(z[0], z[1]),
    lambda z, much: falling(z[0], much),
    lambda z, much: much * (z[0] + jax.lax.stop_gradient(jnp.round(z[0]) - z[0])) ** 2 - much * z[0] ** 2,
)))  # fmt: skip
TRUE = tuple(map(bowl_and, (
    lambda z, much: 3 * much * z[0] * z[1], lambda z, much: rising(z[0], much), honest_shift,
)))  # fmt: skip


@family("derivative rules that lie", 2, 5, 20, 65, positive=True)
def lies(draw):
    much, funs = np.float64(draw.generator.uniform(1, 3)), LIES if draw.fault else TRUE
    kind = draw.number // 4 % len(funs)
    negative = int(draw.fault or kind == 0)
    return draw.case(funs[kind], draw.at, (*draw.frame, much), (negative, 0, draw.size - negative))


def use(saved, cotangent):
    residual, matrix = saved
    return cotangent * (residual.astype(matrix.dtype) @ matrix), jnp.zeros_like(matrix)


# ½ |A z|², with residuals that are saved as bfloat16.
saved_in_bfloat16 = jax.custom_vjp(lambda z, matrix: jnp.sum((matrix @ z) ** 2) / 2)
saved_in_bfloat16.defvjp(lambda z, a: (saved_in_bfloat16(z, a), ((a @ z).astype(jnp.bfloat16), a)), use)


def complex_squares(v, at, matrix):
    product = (matrix.astype(jnp.complex64) @ (v - at).astype(jnp.complex64)).astype(jnp.complex128)
    return jnp.sum(jnp.real(product * jnp.conj(product))) / 2


SQUARES = (
    lambda v, at, matrix: saved_in_bfloat16(v - at, matrix),
    complex_squares,
    lambda v, at, matrix: jnp.sum(jax.lax.reduce_precision(matrix @ (v - at), 8, 7) ** 2) / 2,
    lambda v, at, matrix: jnp.sum(jax.lax.reduce_precision(matrix @ (v - at), 8, 23) ** 2) / 2,
)


@family("coarser arithmetic inside", 2, 5, 20, 65, 200, positive=True)
def coarse_arithmetic(draw):
    kind = draw.number // 5 % 4
    fun = SQUARES[kind if draw.fault else 1 if kind % 2 else 3]
    spectrum = np.geomspace(1, draw.decades(-7, -5), draw.size) if draw.fault else np.linspace(0.5, 1, draw.size)
    matrix = (np.linalg.qr(draw.generator.standard_normal((draw.size, draw.size)))[0] * spectrum) @ draw.rotation
    return draw.case(fun, draw.at, (draw.at, matrix), (0, 0, draw.size))


scaled = of_z(lambda z, w, size: size * jnp.sum(w * z**2) / 2)
stretched = lambda v, rotation, at, weights, size: jnp.sum(weights * (rotation @ ((v - at) * size)) ** 2) / 2


@family("scales near the ends of float64", 1, 2, 5, 20, 65)
def ends_of_float64(draw):
    fun = (scaled, stretched)[draw.number // 5 % 2]
    exponent = draw.generator.uniform(120, 307) if draw.fault else draw.generator.uniform(0, 80)
    exponent = exponent * draw.generator.choice([-1.0, 1.0])
    exponent = min(exponent, 300.0) / (1 if fun is scaled else 2)
    at = draw.at if fun is scaled else draw.at * 10**-exponent
    return draw.case(fun, at, (draw.rotation, at, draw.weights, np.float64(10**exponent)), signs(draw.weights))


quadratic = lambda v, rotation, weights: jnp.sum(weights * (rotation @ v) ** 2) / 2
cosines = lambda v, rotation, weights: -jnp.sum(weights * jnp.cos(rotation @ v))


@family("params near the smallest number", 1, 2, 5, 20, 65)
def smallest_numbers(draw):
    fun, tiny = (quadratic, cosines)[draw.number // 5 % 2], np.finfo(float).tiny
    sizes = np.array([0.0, tiny, tiny * (1 + 2**-50), 2 * tiny, tiny / 2, 5e-324, 1e-300])
    v = draw.generator.choice(sizes, draw.size) * draw.sides()
    v[0] = tiny * draw.generator.choice([-1.0, 1.0])
    rotation = np.eye(draw.size) if draw.number % 3 else draw.rotation
    return draw.case(fun, v, (rotation, draw.weights), signs(draw.weights), True)


def tilted_ring(v, rotation, tilt, weights):
    """(x² + y² − 1)²/4 + t x + Σ w z²/2: at y = 0 the curvature along y is −t/x."""
    z = rotation @ v
    return (z[0] ** 2 + z[1] ** 2 - 1) ** 2 / 4 + tilt * z[0] + jnp.sum(weights[2:] * z[2:] ** 2) / 2


@functools.cache
def turns(size, exact):
    """Return a rotation, and the tangent of turning (x, y) as a function of params.

    A random rotation is orthogonal to rounding only, and so is the tangent then; a permutation of the axes is exact.
    """
    generator = np.random.default_rng(size)
    rotation = np.linalg.qr(generator.standard_normal((size, size)))[0]
    if exact:
        rotation = np.eye(size)[generator.permutation(size)] * generator.choice([-1.0, 1.0], size)

    def tangent(v):
        z = rotation @ v
        return (-z[1] * rotation[0] + z[0] * rotation[1])[None]

    return rotation, tangent


@family("tilt against a symmetry", 2, 5, 65, 200, positive=True)
def tilts(draw):
    side = draw.generator.choice([-1.0, 1.0])
    tilt = side * (draw.decades(-17, -12) if draw.fault else draw.generator.choice([0.0, draw.decades(-5, -1)]))
    rotation, tangent = turns(draw.size, bool(tilt == 0 or draw.number % 3 == 0))
    z = np.zeros(draw.size)
    z[0] = 1.0
    for _ in range(20):  # (x² − 1) x + t = 0
        z[0] -= ((z[0] ** 2 - 1) * z[0] + tilt) / (3 * z[0] ** 2 - 1)
    truth = (1, 0, draw.size - 1) if tilt > 0 else (0, int(tilt == 0), draw.size - int(tilt == 0))
    answerable = not draw.fault and not (tilt == 0 and draw.options.get("evidence") == "lanczos")
    draw = draw._replace(options={**draw.options, "symmetries": tangent})
    return draw.case(tilted_ring, rotation.T @ z, (rotation, np.float64(tilt), draw.weights), truth, answerable)
