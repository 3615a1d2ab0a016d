"""Points at which a verdict is easily wrong, in families named after the mechanism, with their well-behaved cousins.

Every family grew out of a wrong name that a user or a search found. Two thirds of a family have the fault: no smooth
critical point is within reach (truth None), or float64 may be unable to know its inertia. One third have none: the same
program and shapes, nondegenerate and well scaled, so that a verdict without a name is an abstention. No truth rests on
the package: it is in closed form, or the sign of an exact sum of the given numbers.

Most functions see z = R (θ − a) with R a random orthogonal matrix: θ = a is z = 0 exactly, and no coordinate of θ is
special.
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

Array = np.ndarray
Truth = tuple[int, int, int]


class Draw(NamedTuple):
    """What the cases of every family are made from."""

    number: int
    generator: np.random.Generator
    size: int
    rotation: Array
    at: Array
    weights: Array
    fault: bool
    options: dict[str, Any]

    def place(self, z: Array) -> Array:
        """Return θ with R (θ − a) = z."""
        return self.at + self.rotation.T @ z

    def some(self) -> Array:
        """Return a mask of one component, all of them, or a few."""
        most = int(self.generator.choice(np.array([1, self.size, self.generator.integers(1, self.size + 1)])))
        return np.isin(np.arange(self.size), self.generator.permutation(self.size)[:most])

    def decades(self, low: float, high: float, size: int | None = None) -> Any:
        """Return a number between 10^low and 10^high, uniform in the exponent."""
        return 10 ** self.generator.uniform(low, high, size)

    def case(self, fun: Callable[..., jax.Array], params: Array, args: tuple, truth: Truth | None) -> Case:
        """Return the case; those without a fault are answerable."""
        return Case(fun, params, args, truth, not self.fault, self.options)


def draws(count: int, sizes: tuple[int, ...], *, positive: bool = False) -> Iterator[Draw]:
    """Return draws: a quarter with products as evidence, some small ones with proofs, a third without a fault."""
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


def signs(values: Array) -> Truth:
    """Return how many values are negative, zero and positive."""
    return int(np.sum(values < 0)), int(np.sum(values == 0)), int(np.sum(values > 0))


# --- No critical point at the end of the step ----------------------------------------------------------------------


def waves(v: Any, rotation: Any, at: Any, weights: Any, slope: Any) -> jax.Array:
    """Σ w (−s z − cos z): no zero of its derivative where |s| > 1."""
    z = rotation @ (v - at)
    return jnp.sum(weights * (-slope * z - jnp.cos(z)))


def troughs(v: Any, rotation: Any, at: Any, weights: Any, slope: Any) -> jax.Array:
    """Σ w (s z + log 2 cosh z): no zero of its derivative where |s| > 1."""
    z = rotation @ (v - at)
    return jnp.sum(weights * (slope * z + jnp.logaddexp(z, -z)))


def hyperbolas(v: Any, rotation: Any, at: Any, weights: Any, slope: Any) -> jax.Array:
    """Σ w (s z + √(1 + z²)): no zero of its derivative where |s| > 1."""
    z = rotation @ (v - at)
    return jnp.sum(weights * (slope * z + jnp.sqrt(1 + z**2)))


def _flat(fun: Any, generator: np.random.Generator, slope: Array) -> tuple[Array, Array]:
    """Return where the derivative vanishes, and the second derivative there, for |s| < 1."""
    if fun is waves:
        z = np.where(generator.random(len(slope)) < 0.5, np.arcsin(slope), np.pi - np.arcsin(slope))
        return z, np.cos(z)
    return (-np.arctanh(slope), 1 - slope**2) if fun is troughs else (-slope / np.sqrt(1 - slope**2), 1 - slope**2)


def no_critical_point(count: int) -> Iterator[Case]:
    """Slopes that no curvature answers."""
    for draw in draws(count, (1, 2, 5, 20, 65, 200)):
        fun = (waves, troughs, hyperbolas)[draw.number // 6 % 3]
        generator, size = draw.generator, draw.size
        slope = generator.uniform(-0.9, 0.9, size)
        z, bend = _flat(fun, generator, slope)
        if draw.fault:
            steep, side = draw.some(), generator.choice([-1.0, 1.0], size)
            whole = 2 * np.pi * generator.integers(1, 6, size)  # the step ends where the Hessian is the same again
            much = generator.uniform(1.05, 20, size)
            slope = np.where(steep, side * np.where(draw.number % 4 < 3, whole, much), slope)
            z = np.where(steep, generator.choice([0.0, 0.3]) * generator.standard_normal(size), z)
        elif generator.random() < 0.5:
            z = z + 1e-6 * generator.standard_normal(size)
        args = (draw.rotation, draw.at, draw.weights, slope)
        yield draw.case(fun, draw.place(z), args, None if draw.fault else signs(draw.weights * bend))


# --- A corner with equal curvature on both sides -------------------------------------------------------------------


def absolute(v: Any, rotation: Any, at: Any, weights: Any, strength: Any, corner: Any) -> jax.Array:
    """Σ w z²/2 + s |z − c|."""
    z = rotation @ (v - at)
    return jnp.sum(weights * z**2 / 2 + strength * jnp.abs(z - corner))


def ramps(v: Any, rotation: Any, at: Any, weights: Any, strength: Any, corner: Any) -> jax.Array:
    """Σ w z²/2 + s (relu(z − c) − z/2)."""
    z = rotation @ (v - at)
    return jnp.sum(weights * z**2 / 2 + strength * (jax.nn.relu(z - corner) - z / 2))


def lasso(w: Any, x: Any, y: Any, strength: Any) -> jax.Array:
    """Least squares with an absolute penalty."""
    return jnp.mean((x @ w - y) ** 2) / 2 + strength * jnp.sum(jnp.abs(w))


def hinge(w: Any, x: Any, y: Any, decay: Any) -> jax.Array:
    """A linear support vector machine."""
    return jnp.mean(jax.nn.relu(1 - y * (x @ w))) + decay * jnp.sum(w**2) / 2


def _descend(gradient: Callable[[Array], Array], start: Array, rate: float, steps: int) -> Array:
    for _ in range(steps):
        start = start - rate * gradient(start)
    return start


def _lasso(draw: Draw) -> Case:
    """Return a lasso with orthogonal inputs: its minimum is the soft threshold of xᵀ y / n."""
    generator, size = draw.generator, draw.size
    x = math.sqrt(250) * np.linalg.qr(generator.standard_normal((250, size)))[0]
    strength = 0.2 if draw.fault else 0.02
    correlation = generator.choice([-1.0, 1.0], size) * generator.uniform(0.3, 1, size)
    if draw.fault:
        small = draw.some()
        correlation[small] = generator.uniform(-0.18, 0.18, int(np.sum(small)))  # of these the minimum has a weight 0
    y, best = x @ correlation, np.sign(correlation) * np.maximum(np.abs(correlation) - strength, 0)
    if draw.fault:
        best = _descend(
            lambda w: w - correlation + strength * np.sign(w),
            0.1 * generator.standard_normal(size),
            draw.decades(-4, -1.5),
            3000,
        )
    return draw.case(lasso, best, (x, y, np.float64(strength)), None if draw.fault else (0, 0, size))


def _hinge(draw: Draw) -> Case | None:
    """Return a support vector machine of which the minimum has margins of exactly 1; None for other data."""
    generator, size = draw.generator, draw.size
    x, direction = generator.standard_normal((24, size)), generator.standard_normal(size)
    y = np.where(x @ direction > 0, 1.0, -1.0)
    signed = x * y[:, None]
    if not draw.fault:  # decay so large that every margin is below 1: w = mean(y x) / decay
        decay = 4 * np.max(np.abs(signed @ np.mean(signed, axis=0)))
        return draw.case(hinge, np.mean(signed, axis=0) / decay, (x, y, np.float64(decay)), (0, 0, size))
    decay, alpha = 0.05, np.zeros(24)
    square = signed @ signed.T / (24 * decay)
    for _ in range(400):  # coordinate ascent of the dual problem; w = Σ α y x / (n decay)
        for i in range(24):
            alpha[i] = np.clip(alpha[i] + (1 - square[i] @ alpha) / square[i, i], 0, 1)
    if not np.any((alpha > 1e-3) & (alpha < 1 - 1e-3)):  # no margin of exactly 1, and so no corner
        return None

    def slope(w: Array) -> Array:
        return decay * w - np.mean(signed * (signed @ w < 1)[:, None], axis=0)

    w = _descend(slope, signed.T @ alpha / (24 * decay), draw.decades(-4, -2), 500)
    return draw.case(hinge, w, (x, y, np.float64(decay)), None)


def corners(count: int) -> Iterator[Case]:
    """Slopes of both signs on the two sides of a corner, and the same Hessian."""
    for draw in draws(count, (1, 2, 5, 20, 65, 200)):
        generator, size, kind = draw.generator, draw.size, draw.number // 6 % 4
        if kind == 2:
            yield _lasso(draw)
            continue
        if kind == 3 and size in (2, 5, 20):
            case = _hinge(draw)
            if case is not None:
                yield case
            continue
        fun, weights, strength = (absolute, ramps)[kind % 2], draw.weights, np.zeros(size)
        if draw.fault:
            bad = draw.some()
            weights = np.where(bad, np.abs(weights), weights)
            strength = np.where(bad, draw.decades(-3, 1, size), 0.0)
            z = np.where(bad, generator.choice([-1.0, 1.0], size) * draw.decades(-9, -0.5, size), 0.0)
            corner, truth = np.zeros(size), None
        else:
            strength, corner = generator.uniform(0, 1, size) * np.abs(weights), np.full(size, 3.0)
            z = strength / weights / (1 if fun is absolute else 2)
            truth = signs(weights)
        yield draw.case(fun, draw.place(z), (draw.rotation, draw.at, weights, strength, corner), truth)


# --- A jump of the Hessian on one side -----------------------------------------------------------------------------


def half_bowls(v: Any, rotation: Any, at: Any, weights: Any, above: Any, below: Any, corner: Any) -> jax.Array:
    """Σ w z²/2 + a relu(z − c)²/2 + b relu(c − z)²/2."""
    z = rotation @ (v - at)
    sides = above * jax.nn.relu(z - corner) ** 2 + below * jax.nn.relu(corner - z) ** 2
    return jnp.sum(weights * z**2 + sides) / 2


def chosen_bowls(v: Any, rotation: Any, at: Any, weights: Any, above: Any, below: Any, corner: Any) -> jax.Array:
    """The same by a comparison."""
    z = rotation @ (v - at)
    return jnp.sum(weights * z**2 + jnp.where(z > corner, above, below) * (z - corner) ** 2) / 2


def absolute_bowls(v: Any, rotation: Any, at: Any, weights: Any, above: Any, below: Any, corner: Any) -> jax.Array:
    """The same by absolute values."""
    z = rotation @ (v - at)
    far = z - corner
    return jnp.sum(weights * z**2 + (above + below) / 2 * far**2 + (above - below) / 2 * far * jnp.abs(far)) / 2


def half_curvatures(count: int) -> Iterator[Case]:
    """Curvatures of both signs on the two sides of a point."""
    for draw in draws(count, (1, 2, 5, 20, 65, 200)):
        fun = (half_bowls, chosen_bowls, absolute_bowls)[draw.number // 6 % 3]
        generator, size = draw.generator, draw.size
        if draw.fault:
            bad = draw.some()
            one, other = (draw.decades(-2, 1, size) for _ in range(2))
            side = generator.choice([-1.0, 1.0], size)
            above, below = (np.where(bad, s * c - draw.weights, 0.0) for s, c in ((side, one), (-side, other)))
            away = generator.choice([-1.0, 1.0], size) * draw.decades(-12, -0.5, size)
            z, corner = np.where(bad & (draw.number % 3 > 0), away, 0.0), np.zeros(size)
            truth = None
        else:  # the corner at 2, the zero of w z − b (2 − z) at 1 or below
            below = generator.uniform(0, 1, size) * np.maximum(draw.weights, 0)
            above, corner = -generator.uniform(0, 1, size), np.full(size, 2.0)
            z, truth = 2 * below / (draw.weights + below), signs(draw.weights + below)
        yield draw.case(fun, draw.place(z), (draw.rotation, draw.at, draw.weights, above, below, corner), truth)


# --- A corner along equal components -------------------------------------------------------------------------------


def pair(v: Any, level: Any, apart: Any, below: Any) -> jax.Array:
    """Of d = θ₀ − θ₁: 3 d² above `apart`, and a multiple of d² below."""
    d = v[0] - v[1]
    rest = jnp.sum((v[2:] - level) ** 2)
    return jnp.where(d >= apart, 3 * d**2, below * d**2) + (v[0] + v[1] - 2 * level) ** 2 + rest


def largest(v: Any, centre: Any, strength: Any) -> jax.Array:
    """|θ − c|²/2 + s (max θ − mean θ)."""
    return jnp.sum((v - centre) ** 2) / 2 + strength * (jnp.max(v) - jnp.mean(v))


def variation(v: Any, centre: Any, strength: Any) -> jax.Array:
    """|θ − c|²/2 + s Σ |θᵢ₊₁ − θᵢ|."""
    return jnp.sum((v - centre) ** 2) / 2 + strength * jnp.sum(jnp.abs(v[1:] - v[:-1]))


def ranked(v: Any, centre: Any, strength: Any) -> jax.Array:
    """|θ − c|²/2 + s Σ kᵢ θ₍ᵢ₎, the components in ascending order, k from −1 to 1."""
    return jnp.sum((v - centre) ** 2) / 2 + strength * jnp.dot(jnp.linspace(-1.0, 1.0, len(v)), jnp.sort(v))


def equal_components(count: int) -> Iterator[Case]:
    """Corners that lie along equal components, which move together in sums."""
    for draw in draws(count, (2, 5, 20, 65, 200), positive=True):
        generator, size, kind = draw.generator, draw.size, draw.number // 5 % 4
        level = generator.choice([1.0, 0.3, -7.1, 1e3, 0.0])
        truth = None if draw.fault else (0, 0, size)
        if kind == 0:
            args = (np.float64(level), np.float64(0.0 if draw.fault else -5.0), np.float64(-draw.decades(-2, 1)))
            yield draw.case(pair, np.full(size, level), args, truth)
            continue
        fun, strength = (largest, variation, ranked)[kind - 1], generator.uniform(0.1, 1)
        centre = np.full(size, level) if draw.fault else level + 3.0 * np.arange(size)
        pull = np.zeros(size)
        if not draw.fault and fun is largest:
            pull = np.append(np.zeros(size - 1), 1.0) - 1 / size
        elif not draw.fault and fun is variation:
            pull[[0, -1]] = -1, 1
        elif not draw.fault:
            pull = np.linspace(-1, 1, size)
        yield draw.case(fun, centre - strength * pull, (centre, np.float64(strength)), truth)


# --- A jump of the value -------------------------------------------------------------------------------------------

_STEPS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "comparison": lambda z: jnp.where(z > 0, 1.0, 0.0),
    "sign": jnp.sign,
    "floor": lambda z: -jnp.floor(z),
    "ceil": jnp.ceil,
    "round": lambda z: jnp.round(z + 0.5),
    "argmax": lambda z: jnp.argmax(jnp.stack([jnp.zeros_like(z), z])).astype(z.dtype),
    "integer": lambda z: jnp.ceil(z).astype(jnp.int32).astype(z.dtype),
}


def _stepped(step: Callable[[jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    def fun(v: Any, rotation: Any, at: Any, weights: Any, height: Any, place: Any) -> jax.Array:
        z = rotation @ (v - at)
        return jnp.sum(weights * z**2) / 2 - height * step(z[0] - place)

    return fun


STEPPED = tuple(_stepped(step) for step in _STEPS.values())


def count_of_errors(v: Any, rotation: Any, at: Any, weights: Any, height: Any, teacher: Any, x: Any, y: Any) -> Any:
    """Σ w z²/2 + h (share of wrong classes)."""
    far = v - at
    logits = x @ (far + teacher).reshape(x.shape[1], -1)
    wrong = jnp.mean(jnp.where(jnp.argmax(logits, axis=1) == y, 0.0, 1.0))
    return jnp.sum(weights * (rotation @ far) ** 2) / 2 + height * wrong


def _errors(draw: Draw) -> Case:
    classes = {2: 2, 20: 4, 65: 5, 200: 10}[draw.size]
    teacher = draw.generator.standard_normal((draw.size // classes, classes))
    x = draw.generator.standard_normal((400, draw.size // classes))
    logits = x @ teacher
    ordered = np.sort(logits, axis=1)
    clear = np.flatnonzero(ordered[:, -1] - ordered[:, -2] > 0.2)[:50]
    teacher = np.zeros(draw.size) if draw.fault else teacher.ravel()
    height = np.float64(draw.decades(-3, 0))
    args = (draw.rotation, draw.at, draw.weights, height, teacher, x[clear], np.argmax(logits[clear], axis=1))
    return draw.case(count_of_errors, draw.at, args, None if draw.fault else signs(draw.weights))


def value_jumps(count: int) -> Iterator[Case]:
    """Values that jump down beside the point, where gradient and Hessian are those of a quadratic form."""
    for draw in draws(count, (1, 2, 5, 20, 65, 200)):
        kind = draw.number // 6 % 8
        if kind == 7 and draw.size in (2, 20, 65, 200):
            yield _errors(draw)
            continue
        z = np.zeros(draw.size)
        if draw.fault and draw.number % 3 == 2:
            z[0] = draw.generator.choice([-1.0, 1.0]) * draw.decades(-6, -0.5)  # the step ends at the jump
        height, place = np.float64(draw.decades(-6, 0)), np.float64(0.0 if draw.fault else 2.5)
        args = (draw.rotation, draw.at, draw.weights, height, place)
        yield draw.case(STEPPED[kind % 7], draw.place(z), args, None if draw.fault else signs(draw.weights))


# --- No value ------------------------------------------------------------------------------------------------------

_VALUES: tuple[tuple[Callable[[Any], jax.Array], tuple[float, ...]], ...] = (
    (jnp.log, (-1.0, 0.0, -1e-300)),
    (jnp.sqrt, (-2.0,)),
    (jnp.arcsin, (1.5, -7.0)),
    (lambda c: 1 / (c - 0.5) ** 2, (0.5,)),
    (lambda c: jnp.exp(1000 * c), (1.0, 3.0)),
)


def _valued(part: Callable[[Any], jax.Array], constant: float | None) -> Callable[..., jax.Array]:
    def fun(v: Any, rotation: Any, at: Any, weights: Any, number: Any) -> jax.Array:
        kept = number if constant is None else np.float64(constant)
        return jnp.sum(weights * (rotation @ (v - at)) ** 2) / 2 + part(kept)

    return fun


VALUED = tuple(_valued(part, None) for part, _ in _VALUES)
CAPTURED = tuple(_valued(part, bad[0]) for part, bad in _VALUES)


def no_value(count: int) -> Iterator[Case]:
    """A constant that is NaN or infinite beside a quadratic form."""
    for draw in draws(count, (1, 5, 65)):
        kind = draw.number // 3 % 5
        captured = draw.fault and draw.number % 5 == 0
        fun = CAPTURED[kind] if captured else VALUED[kind]
        number = draw.generator.choice(_VALUES[kind][1]) if draw.fault else 0.4
        args = (draw.rotation, draw.at, draw.weights, np.float64(number))
        yield draw.case(fun, draw.at, args, None if draw.fault else signs(draw.weights))


# --- Labels out of range -------------------------------------------------------------------------------------------


def softmax_loss(v: Any, x: Any, y: Any, decay: Any) -> jax.Array:
    """Softmax regression with the losses of the package."""
    logits = x @ v.reshape(x.shape[1], -1)
    return losses.mean(losses.cross_entropy(logits, y)) + decay * jnp.sum(v**2) / 2


def own_softmax_loss(v: Any, x: Any, y: Any, decay: Any) -> jax.Array:
    """The same as users write it; a label that is too large is NaN."""
    logarithms = jax.nn.log_softmax(x @ v.reshape(x.shape[1], -1))
    return -jnp.mean(jnp.take_along_axis(logarithms, y[:, None], axis=1)) + decay * jnp.sum(v**2) / 2


def _softmax_minimum(x: Array, wanted: Array, decay: float) -> Array:
    """Return where the gradient vanishes: Newton's method on a strongly convex function."""
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


def labels(count: int) -> Iterator[Case]:
    """Labels of −1, or past the last class, at the point where the gradient vanishes as it is computed."""
    for draw in draws(count, (3, 20, 200)):
        generator, classes = draw.generator, {3: 3, 20: 5, 200: 10}[draw.size]
        x = generator.standard_normal((60, draw.size // classes))
        y, decay = generator.integers(0, classes, 60), draw.decades(-2, 0)
        own = draw.number // 3 % 3 == 2
        if draw.fault:
            bad = generator.permutation(60)[: int(generator.integers(1, 30))]
            y[bad] = classes + generator.integers(0, 3) if own or generator.random() < 0.5 else -1
        wanted = np.concatenate([np.eye(classes), np.zeros((4, classes)), np.eye(classes)[-1:]])[y]
        params = _softmax_minimum(x, wanted, decay)
        fun = own_softmax_loss if own else softmax_loss
        yield draw.case(fun, params, (x, y, np.float64(decay)), None if draw.fault else (0, 0, draw.size))


# --- Cancellation in the data --------------------------------------------------------------------------------------


def variances(v: Any, at: Any, weights: Any, x: Any) -> jax.Array:
    """Σⱼ wⱼ (mean (zⱼ xⱼ)² − (mean zⱼ xⱼ)²): half the second derivatives are variances."""
    z = (v - at) * x
    return jnp.sum(weights * (jnp.mean(z**2, axis=0) - jnp.mean(z, axis=0) ** 2))


def determinants(v: Any, rotation: Any, at: Any, rows: Any) -> jax.Array:
    """Σ (a d − b c) z²/2."""
    z = rotation @ (v - at)
    return jnp.sum((rows[:, 0] * rows[:, 3] - rows[:, 1] * rows[:, 2]) * z**2) / 2


def _unimodular(generator: np.random.Generator, size: int) -> list[int]:
    """Return whole a, b, c, d of about `size` with a d − b c = ±1."""
    a, b, c, d = 1, 0, 0, 1
    while max(abs(a), abs(b), abs(c), abs(d)) < size:
        k = int(generator.integers(1, 9))
        a, b, c, d = (a + k * c, b + k * d, c, d) if generator.random() < 0.5 else (a, b, c + k * a, d + k * b)
    return [a, b, c, d] if generator.random() < 0.5 else [c, d, a, b]


def cancellation(count: int) -> Iterator[Case]:
    """Curvatures that are small differences of large numbers in the data."""
    for draw in draws(count, (1, 5, 20)):
        generator, size = draw.generator, draw.size
        if draw.number // 3 % 2 == 0:
            examples = (10, 1000, 30_000)[draw.number // 6 % 3]
            far = draw.decades(6, 9, size) if draw.fault else draw.decades(0, 1, size)
            x = far + generator.standard_normal((examples, size))
            args: tuple = (draw.at, draw.weights, x)
            yield draw.case(variances, draw.at, args, signs(draw.weights))
            continue
        if draw.fault:
            rows = np.array([_unimodular(generator, 10 ** int(generator.integers(8, 12))) for _ in range(size)])
        else:
            rows = generator.integers(1, 12, (size, 4))
            rows[rows[:, 0] * rows[:, 3] == rows[:, 1] * rows[:, 2]] = 2, 1, 1, 2
        exact = [int(a) * int(d) - int(b) * int(c) for a, b, c, d in rows]
        args = (draw.rotation, draw.at, rows.astype(float))
        yield draw.case(determinants, draw.at, args, signs(np.array(exact)))


# --- Long sums -----------------------------------------------------------------------------------------------------


def least_squares(w: Any, x: Any, y: Any) -> jax.Array:
    """Mean squares of x w − y."""
    return jnp.mean((x @ w - y) ** 2)


def logistic(w: Any, x: Any, y: Any) -> jax.Array:
    """Mean log(1 + exp(−y x w))."""
    return jnp.mean(jax.nn.softplus(-y * (x @ w)))


def _logistic_minimum(x: Array, y: Array) -> Array:
    w = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(y * (x @ w)))
        w = w + np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (y * p))
    return w


def long_sums(count: int) -> Iterator[Case]:
    """Columns that depend on each other exactly: H times a whole vector is 0."""
    for draw in draws(count, (3, 6), positive=True):
        generator, size = draw.generator, draw.size
        examples = (100, 10_000, 100_000, 300_000)[int(generator.choice(4, p=[0.35, 0.35, 0.25, 0.05]))]
        x = np.round(generator.standard_normal((examples, size)) * 2**20) / 2**20  # so that sums of columns are exact
        zeros = (size // 3) if draw.fault else 0
        free = size - zeros
        for k in range(zeros):
            x[:, free + k] = x[:, 2 * k] + x[:, 2 * k + 1]
        w = np.zeros(size)
        if draw.number // 2 % 2 == 0:
            fun, y = least_squares, generator.standard_normal(examples)
            w[:free] = np.linalg.lstsq(x[:, :free], y)[0]
        else:
            fun, y = logistic, generator.choice([-1.0, 1.0], examples)
            w[:free] = _logistic_minimum(x[:, :free], y)
        for k in range(zeros):  # along the null direction to somewhere else
            w[[2 * k, 2 * k + 1, free + k]] += generator.standard_normal() * np.array([1, 1, -1])
        yield draw.case(fun, w, (x, y), (0, zeros, free))


# --- Absorbed curvature --------------------------------------------------------------------------------------------


def absorbed(v: Any, rotation: Any, at: Any, weights: Any, small: Any, large: Any) -> jax.Array:
    """((s + c) − c) z₀²/2 beside a quadratic form."""
    z = rotation @ (v - at)
    return ((small + large) - large) * z[0] ** 2 / 2 + jnp.sum(weights[1:] * z[1:] ** 2) / 2


def two_ways(v: Any, rotation: Any, at: Any, weights: Any, small: Any, large: Any) -> jax.Array:
    """(c (s z₀)²/t − c z₀²)/2, t about s²."""
    z = rotation @ (v - at)
    first = large * (small[0] * z[0]) ** 2 / small[1] - large * z[0] ** 2
    return first / 2 + jnp.sum(weights[1:] * z[1:] ** 2) / 2


def summed(v: Any, rotation: Any, at: Any, weights: Any, terms: Any) -> jax.Array:
    """(Σ c) z₀²/2."""
    z = rotation @ (v - at)
    return jnp.sum(terms) * z[0] ** 2 / 2 + jnp.sum(weights[1:] * z[1:] ** 2) / 2


def staircase(v: Any, rotation: Any, at: Any, weights: Any, small: Any, large: Any) -> jax.Array:
    """s ((z₀ + c) − c)²/2."""
    z = rotation @ (v - at)
    return small * ((z[0] + large) - large) ** 2 / 2 + jnp.sum(weights[1:] * z[1:] ** 2) / 2


def absorption(count: int) -> Iterator[Case]:
    """Curvatures that a large number swallows: their sign is that of an exact sum."""
    for draw in draws(count, (2, 5, 20)):
        generator, kind, eps = draw.generator, draw.number // 3 % 4, 2.0**-52
        fun: Callable[..., jax.Array]
        args: tuple
        side = generator.choice([-1.0, 1.0])
        large = np.float64(draw.decades(4, 14) if draw.fault else draw.decades(2, 6))
        frame, rest = (draw.rotation, draw.at, draw.weights), draw.weights[1:]
        if kind in (0, 3):
            small = np.float64(
                side * (draw.decades(-2, 0.5) * eps * large if draw.fault else generator.uniform(0.3, 1))
            )
            fun, args, first = (absorbed if kind == 0 else staircase), (*frame, small, large), Fraction(small)
        elif kind == 1:
            s = np.float64(generator.uniform(0.5, 2))
            t = s * s if draw.fault else s * s / (1 + side * generator.uniform(0.3, 1) / large)
            first = Fraction(large) * Fraction(s) ** 2 / Fraction(t) - Fraction(large)
            fun, args = two_ways, (*frame, np.array([s, t]), large)
        else:
            terms = large * generator.standard_normal(64)
            terms[-1] = -math.fsum(terms[:-1]) + (0.0 if draw.fault else side)
            first = sum(map(Fraction, terms), Fraction(0))
            fun, args = summed, (*frame, terms)
        if first == 0:
            continue
        yield draw.case(fun, draw.at, args, signs(np.append(rest, np.sign(float(first)))))


# --- An eigenvalue that the step hides -----------------------------------------------------------------------------


def valley(v: Any, rotation: Any, at: Any, weights: Any, small: Any, cubic: Any) -> jax.Array:
    """z₀²/2 + s z₁²/2 + z₀ z₁² + c z₁³ + 4 z₁⁴ + Σ w z²/2."""
    z = rotation @ (v - at)
    x, y = z[0], z[1]
    return x**2 / 2 + small * y**2 / 2 + x * y**2 + cubic * y**3 + 4 * y**4 + jnp.sum(weights[2:] * z[2:] ** 2) / 2


def valley_with_data(v: Any, rotation: Any, at: Any, weights: Any, small: Any, cubic: Any, data: Any) -> jax.Array:
    """The same with a mean over data, sorted, that is 0."""
    return valley(v, rotation, at, weights, small, cubic) + jnp.mean(jnp.sort(data)) * (v[0] - at[0]) ** 2


def hidden_eigenvalues(count: int) -> Iterator[Case]:
    """A small eigenvalue, from a point whose distance changes the Hessian by as much."""
    data = np.zeros(30_000)
    for draw in draws(count, (2, 5, 20, 65, 200), positive=True):
        generator, z = draw.generator, np.zeros(draw.size)
        small = draw.decades(-8, -3) if draw.fault else generator.uniform(0.1, 1)
        z[0] = generator.choice([-1.0, 1.0]) * (small * draw.decades(-1, 0.5) if draw.fault else draw.decades(-9, -4))
        if generator.random() < 0.4:
            small = -small
        # With a cubic term a second critical point, of the other sign, is about as far away: only as it was found.
        cubic = 1.0 if draw.fault and small > 0 and draw.number % 2 else 0.0
        args: tuple = (draw.rotation, draw.at, draw.weights, np.float64(small), np.float64(cubic))
        fun: Any = valley
        if draw.size == 5:
            fun, args = valley_with_data, (*args, data)
        truth = (1, 0, draw.size - 1) if small < 0 else (0, 0, draw.size)
        yield draw.case(fun, draw.place(z), args, truth)


# --- Params that are tiny beside the data --------------------------------------------------------------------------


def mixture(v: Any, y: Any, weights: Any) -> jax.Array:
    """Minus the log-likelihood of two means; along (−t, t), with data ±s, it is t² − 2 log cosh(s t) + …."""
    likelihood = jnp.sum(jax.nn.logsumexp(-((y[:, None] - v[:2]) ** 2) / 2, axis=1))
    return -likelihood + jnp.sum(weights[2:] * v[2:] ** 2) / 2


def one_unit(v: Any, x: Any, y: Any, weights: Any) -> jax.Array:
    """Half the mean square of v₀ tanh(v₁ x) − y: the Hessian at 0 is −mean(x y) off the diagonal, and 0 on it.

    Where y is even in x, every point with v₀ = 0 is critical, with a curvature of mean tanh²(v₁ x) along v₀.
    """
    residual = v[0] * jnp.tanh(v[1] * x) - y
    return jnp.mean(residual**2) / 2 + jnp.sum(weights[2:] * v[2:] ** 2) / 2


def tiny_params(count: int) -> Iterator[Case]:
    """A singular critical point at 0, from params that are nearly 0."""
    for draw in draws(count, (2, 5, 20, 65), positive=True):
        generator, rest = draw.generator, draw.size - 2
        a = draw.decades(-8, -4) if draw.fault else draw.decades(-12, -7)
        if draw.number // 4 % 2 == 0:
            s = 1.0 if draw.fault else generator.choice([generator.uniform(0.3, 0.8), generator.uniform(1.3, 3)])
            v = np.append([-a, a], np.zeros(rest))
            truth = (0, 1, rest + 1) if draw.fault else (1, 0, rest + 1) if s > 1 else (0, 0, rest + 2)
            yield draw.case(mixture, v, (np.array([-s, s]), draw.weights), truth)
            continue
        half, even = generator.standard_normal(20), generator.standard_normal(20)
        order = generator.permutation(40)
        x, y = np.append(half, -half)[order], np.append(even, even)[order]
        y = y if draw.fault else y + generator.uniform(0.3, 1) * x
        v = np.append(a * generator.standard_normal(2), np.zeros(rest))
        yield draw.case(one_unit, v, (x, y, draw.weights), (0, 1, rest + 1) if draw.fault else (1, 0, rest + 1))


# --- Coordinates of very different scales --------------------------------------------------------------------------


def far_and_flat(v: Any, centre: Any, weights: Any, height: Any, back: Any) -> jax.Array:
    """Σ w (x − c)²/2 + h (e^y + b e^−y): without a critical point where b = 0."""
    last = height * (jnp.exp(v[-1]) + back * jnp.exp(-v[-1]))
    return jnp.sum(weights[:-1] * (v[:-1] - centre) ** 2) / 2 + last


def far_and_soft(v: Any, centre: Any, weights: Any, height: Any, back: Any) -> jax.Array:
    """Σ w (x − c)²/2 + h (softplus(y) + b softplus(−y)): without a critical point where b = 0."""
    last = height * (jax.nn.softplus(v[-1]) + back * jax.nn.softplus(-v[-1]))
    return jnp.sum(weights[:-1] * (v[:-1] - centre) ** 2) / 2 + last


def different_scales(count: int) -> Iterator[Case]:
    """A slope of a small coordinate beside large ones; half with products as evidence."""
    for draw in draws(count, (2, 5, 20, 65)):
        fun, back = (far_and_flat, far_and_soft)[draw.number // 4 % 2], 0.0
        centre = draw.decades(2, 10 if draw.fault else 6) * (1 + draw.generator.uniform(0, 1, draw.size - 1))
        height, y = (draw.decades(-12, 0), draw.generator.uniform(-1, 1)) if draw.fault else (1.0, 0.0)
        if not draw.fault:
            back = draw.generator.uniform(0.5, 2)
            y = math.log(back) / (2 if fun is far_and_flat else 1)  # e^y = b e^−y; σ(y) = b σ(−y)
        args = (centre, draw.weights, np.float64(height), np.float64(back))
        if draw.number % 2 == 0:
            draw = draw._replace(options={"evidence": "lanczos"})
        yield draw.case(fun, np.append(centre, y), args, None if draw.fault else signs(np.append(draw.weights[:-1], 1)))


# --- A Hessian that is right at params only ------------------------------------------------------------------------


def troughs_with_matrix(v: Any, rotation: Any, at: Any, weights: Any, slope: Any, matrix: Any) -> jax.Array:
    """Return `troughs`; the matrix is for the Hessian that is given."""
    del matrix
    return troughs(v, rotation, at, weights, slope)


def given_matrix(v: Any, *args: Any) -> Any:
    """Return the last argument, wherever params are."""
    del v
    return args[-1]


def right_matrix(v: Any, rotation: Any, at: Any, weights: Any, slope: Any, matrix: Any) -> jax.Array:
    """Return the Hessian of `troughs`."""
    del slope, matrix
    bend = weights * (1 - jnp.tanh(rotation @ (v - at)) ** 2)
    return (rotation.T * bend) @ rotation


def quadratic_with_matrix(v: Any, rotation: Any, at: Any, weights: Any, matrix: Any) -> jax.Array:
    """Return Σ w z²/2."""
    del matrix
    return jnp.sum(weights * (rotation @ (v - at)) ** 2) / 2


def given_hessians(count: int) -> Iterator[Case]:
    """Matrices that are right at params only, or wrong by less than the comparison sees."""
    for draw in draws(count, (1, 5, 20, 65)):
        generator, size = draw.generator, draw.size
        options = {k: v for k, v in draw.options.items() if v != "lanczos"}
        if draw.fault and draw.number // 4 % 3 == 2 and size > 1:
            weights = np.abs(draw.weights)
            weights[0] = -draw.decades(-11, -8.5)
            matrix = (draw.rotation.T * np.abs(weights)) @ draw.rotation
            args: tuple = (draw.rotation, draw.at, weights, (matrix + matrix.T) / 2)
            options["hessian"] = given_matrix
            yield Case(quadratic_with_matrix, draw.at, args, (1, 0, size - 1), False, options)
            continue
        slope = generator.uniform(-0.9, 0.9, size)
        z, truth = -np.arctanh(slope), None
        if draw.fault:
            steep = draw.some()
            slope = np.where(steep, generator.choice([-1, 1], size) * generator.uniform(1.05, 5, size), slope)
            z = np.where(steep, 0.3 * generator.standard_normal(size), z)
        else:
            truth, z = signs(draw.weights), z + 1e-6 * generator.standard_normal(size)
        matrix = (draw.rotation.T * (draw.weights * (1 - np.tanh(z) ** 2))) @ draw.rotation
        args = (draw.rotation, draw.at, draw.weights, slope, (matrix + matrix.T) / 2)
        options["hessian"] = given_matrix if draw.fault else right_matrix
        yield Case(troughs_with_matrix, draw.place(z), args, truth, not draw.fault, options)


# --- Derivatives that lie ------------------------------------------------------------------------------------------


@jax.custom_jvp
def falling(x: jax.Array, much: jax.Array) -> jax.Array:
    """Return −m x², with the derivative of m x²."""
    return -much * x**2


falling.defjvp(lambda p, t: (falling(*p), 2 * p[1] * p[0] * t[0]))


@jax.custom_jvp
def rising(x: jax.Array, much: jax.Array) -> jax.Array:
    """Return m x², with its derivative."""
    return much * x**2


rising.defjvp(lambda p, t: (rising(*p), 2 * p[1] * p[0] * t[0]))


@jax.custom_vjp
def forgotten(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return x y, with no derivative along x."""
    return x * y


forgotten.defvjp(lambda x, y: (x * y, x), lambda x, ct: (jnp.zeros_like(x), ct * x))

_LIES: tuple[Callable[[Any, Any], jax.Array], ...] = (
    lambda z, much: 3 * much * jax.lax.stop_gradient(z[0]) * z[1],
    lambda z, much: 3 * much * (jax.lax.stop_gradient(z[0]) * z[1] + jax.lax.stop_gradient(z[1]) * z[0]) / 2,
    lambda z, much: 3 * much * forgotten(z[0], z[1]),
    lambda z, much: falling(z[0], much),
    lambda z, much: much * (z[0] + jax.lax.stop_gradient(jnp.round(z[0]) - z[0])) ** 2 - much * z[0] ** 2,
)


def _honest_shift(z: Any, much: Any) -> jax.Array:
    shift = jax.lax.stop_gradient(jnp.max(z))
    return much * (jnp.log(jnp.sum(jnp.exp(z - shift))) + shift - jnp.mean(z))


_TRUE: tuple[Callable[[Any, Any], jax.Array], ...] = (
    lambda z, much: 3 * much * z[0] * z[1],
    lambda z, much: rising(z[0], much),
    _honest_shift,
)


def _with_part(part: Callable[[Any, Any], jax.Array]) -> Callable[..., jax.Array]:
    def fun(v: Any, rotation: Any, at: Any, weights: Any, much: Any) -> jax.Array:
        z = rotation @ (v - at)
        return jnp.sum(weights * z**2) / 2 + part(z, much)

    return fun


LYING, TRUTHFUL = tuple(map(_with_part, _LIES)), tuple(map(_with_part, _TRUE))


def lies(count: int) -> Iterator[Case]:
    """Rules of derivatives that are not those of the values; the truth is that of the values."""
    for draw in draws(count, (2, 5, 20, 65), positive=True):
        size, much, weights = draw.size, np.float64(draw.generator.uniform(1, 3)), draw.weights
        kind = draw.number // 4 % (5 if draw.fault else 3)
        fun = (LYING if draw.fault else TRUTHFUL)[kind]
        truth = (1, 0, size - 1) if draw.fault or kind == 0 else (0, 0, size)
        yield draw.case(fun, draw.at, (draw.rotation, draw.at, weights, much), truth)


# --- Coarser arithmetic inside -------------------------------------------------------------------------------------


@jax.custom_vjp
def saved_in_bfloat16(z: jax.Array, matrix: jax.Array) -> jax.Array:
    """Return ½ |A z|², with residuals that are saved as bfloat16."""
    return jnp.sum((matrix @ z) ** 2) / 2


def _save(z: jax.Array, matrix: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return saved_in_bfloat16(z, matrix), ((matrix @ z).astype(jnp.bfloat16), matrix)


def _use(saved: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    residual, matrix = saved
    return cotangent * (residual.astype(matrix.dtype) @ matrix), jnp.zeros_like(matrix)


saved_in_bfloat16.defvjp(_save, _use)


def bfloat16_squares(v: Any, at: Any, matrix: Any) -> jax.Array:
    """½ |A (θ − a)|² with a gradient in bfloat16."""
    return saved_in_bfloat16(v - at, matrix)


def complex_squares(v: Any, at: Any, matrix: Any) -> jax.Array:
    """½ |A (θ − a)|² by complex64."""
    product = (matrix.astype(jnp.complex64) @ (v - at).astype(jnp.complex64)).astype(jnp.complex128)
    return jnp.sum(jnp.real(product * jnp.conj(product))) / 2


def reduced_squares(v: Any, at: Any, matrix: Any) -> jax.Array:
    """½ |A (θ − a)|² by products of 8 bits."""
    return jnp.sum(jax.lax.reduce_precision(matrix @ (v - at), 8, 7) ** 2) / 2


def reduced_to_float32(v: Any, at: Any, matrix: Any) -> jax.Array:
    """½ |A (θ − a)|² by products of 24 bits."""
    return jnp.sum(jax.lax.reduce_precision(matrix @ (v - at), 8, 23) ** 2) / 2


def coarse_arithmetic(count: int) -> Iterator[Case]:
    """Sums of squares, so that no eigenvalue is negative, in arithmetic too coarse for the smallest."""
    for draw in draws(count, (2, 5, 20, 65, 200), positive=True):
        kind = draw.number // 5 % 4
        fun = (bfloat16_squares, complex_squares, reduced_squares, reduced_to_float32)[kind]
        if not draw.fault:
            fun = complex_squares if kind % 2 else reduced_to_float32
        spectrum = np.geomspace(1, draw.decades(-7, -5), draw.size) if draw.fault else np.linspace(0.5, 1, draw.size)
        matrix = (np.linalg.qr(draw.generator.standard_normal((draw.size, draw.size)))[0] * spectrum) @ draw.rotation
        yield draw.case(fun, draw.at, (draw.at, matrix), (0, 0, draw.size))


# --- The ends of float64 -------------------------------------------------------------------------------------------


def scaled(v: Any, rotation: Any, at: Any, weights: Any, size: Any) -> jax.Array:
    """A small or large multiple of a quadratic form."""
    return size * jnp.sum(weights * (rotation @ (v - at)) ** 2) / 2


def stretched(v: Any, rotation: Any, at: Any, weights: Any, size: Any) -> jax.Array:
    """A quadratic form of params that are measured in another unit."""
    return jnp.sum(weights * (rotation @ ((v - at) * size)) ** 2) / 2


def ends_of_float64(count: int) -> Iterator[Case]:
    """Values or params with scales of 1e±100 and far beyond."""
    for draw in draws(count, (1, 2, 5, 20, 65)):
        fun = (scaled, stretched)[draw.number // 5 % 2]
        # Curvature from 1e-308 to 1e300; that of `stretched` is the square of the scale.
        exponent = draw.generator.uniform(120, 307) if draw.fault else draw.generator.uniform(0, 80)
        exponent = exponent * draw.generator.choice([-1.0, 1.0])
        exponent = min(exponent, 300.0) / (1 if fun is scaled else 2)
        at = draw.at if fun is scaled else draw.at * 10**-exponent
        yield draw.case(fun, at, (draw.rotation, at, draw.weights, np.float64(10**exponent)), signs(draw.weights))


# --- Params near the smallest number -------------------------------------------------------------------------------


def quadratic(v: Any, rotation: Any, weights: Any) -> jax.Array:
    """Σ w z²/2."""
    return jnp.sum(weights * (rotation @ v) ** 2) / 2


def cosines(v: Any, rotation: Any, weights: Any) -> jax.Array:
    """Σ −w cos z."""
    return -jnp.sum(weights * jnp.cos(rotation @ v))


def smallest_numbers(count: int) -> Iterator[Case]:
    """Params that are zero but for a few numbers about 2.2e-308; nothing is wrong there."""
    for draw in draws(count, (1, 2, 5, 20, 65)):
        fun = (quadratic, cosines)[draw.number // 5 % 2]
        tiny = np.finfo(float).tiny
        sizes = np.array([0.0, tiny, tiny * (1 + 2**-50), 2 * tiny, tiny / 2, 5e-324, 1e-300])
        v = draw.generator.choice(sizes, draw.size) * draw.generator.choice([-1.0, 1.0], draw.size)
        v[0] = tiny * draw.generator.choice([-1.0, 1.0])
        rotation = np.eye(draw.size) if draw.number % 3 else draw.rotation
        yield Case(fun, v, (rotation, draw.weights), signs(draw.weights), True, draw.options)


# --- A tilt against a symmetry -------------------------------------------------------------------------------------


def tilted_ring(v: Any, rotation: Any, tilt: Any, weights: Any) -> jax.Array:
    """(x² + y² − 1)²/4 + t x + Σ w z²/2: at y = 0 the curvature along y is −t/x."""
    z = rotation @ v
    return (z[0] ** 2 + z[1] ** 2 - 1) ** 2 / 4 + tilt * z[0] + jnp.sum(weights[2:] * z[2:] ** 2) / 2


@functools.cache
def turns(size: int, exact: bool) -> tuple[Array, Callable[[Any], jax.Array]]:
    """Return a rotation, and the tangent of turning (x, y) as a function of params.

    A random rotation is orthogonal to rounding only, and so is the tangent then; a permutation of the axes is exact.
    """
    generator = np.random.default_rng(size)
    rotation = np.linalg.qr(generator.standard_normal((size, size)))[0]
    if exact:
        rotation = np.eye(size)[generator.permutation(size)] * generator.choice([-1.0, 1.0], size)

    def tangent(v: Any) -> jax.Array:
        z = rotation @ v
        return (-z[1] * rotation[0] + z[0] * rotation[1])[None]

    return rotation, tangent


def tilts(count: int) -> Iterator[Case]:
    """A symmetry that is given, and broken by 1e-17 to 1e-12, by 1e-5 and more, or not at all."""
    for draw in draws(count, (2, 5, 65, 200), positive=True):
        side = draw.generator.choice([-1.0, 1.0])
        tilt = side * (draw.decades(-17, -12) if draw.fault else draw.generator.choice([0.0, draw.decades(-5, -1)]))
        rotation, tangent = turns(draw.size, bool(tilt == 0 or draw.number % 3 == 0))
        x = 1.0
        for _ in range(20):  # (x² − 1) x + t = 0
            x -= ((x**2 - 1) * x + tilt) / (3 * x**2 - 1)
        z = np.zeros(draw.size)
        z[0] = x
        truth = (1, 0, draw.size - 1) if tilt > 0 else (0, int(tilt == 0), draw.size - int(tilt == 0))
        answerable = not draw.fault and not (tilt == 0 and draw.options.get("evidence") == "lanczos")
        options = {**draw.options, "symmetries": tangent}
        args = (rotation, np.float64(tilt), draw.weights)
        yield Case(tilted_ring, rotation.T @ z, args, truth, answerable, options)


FAMILIES: dict[str, Callable[[int], Iterator[Case]]] = {
    "no critical point at the end of the step": no_critical_point,
    "corner with equal curvature on both sides": corners,
    "jump of the Hessian on one side": half_curvatures,
    "corner along equal components": equal_components,
    "jump of the value": value_jumps,
    "no value": no_value,
    "label out of range": labels,
    "cancellation in the data": cancellation,
    "long sums, exactly dependent columns": long_sums,
    "absorbed curvature (x + c) - c": absorption,
    "eigenvalue hidden by the step": hidden_eigenvalues,
    "params tiny beside the data": tiny_params,
    "coordinates of very different scales": different_scales,
    "a Hessian that is right at params only": given_hessians,
    "derivative rules that lie": lies,
    "coarser arithmetic inside": coarse_arithmetic,
    "scales near the ends of float64": ends_of_float64,
    "params near the smallest number": smallest_numbers,
    "tilt against a symmetry": tilts,
}
