"""classify on the smallest inputs that once got a wrong name, and on well-behaved cousins, which have one name.

The comment beside each case gives the truth in closed form. A point that float64 cannot decide may stay unnamed.
Cases share functions, with coefficients as arguments, because compilation takes most of the time.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlp_jax import critical, interval, losses, penalties, sweep, training

MINIMUM, SADDLE, UNDETERMINED = {"minimum"}, {"saddle"}, {"undetermined"}
MINIMUM_OR_NONE, SADDLE_OR_NONE = MINIMUM | UNDETERMINED, SADDLE | UNDETERMINED
NO_POINT = {"not critical", "undetermined"}  # smooth, and no critical point near
NO_SMOOTH_POINT = {"nonsmooth", "not critical", "undetermined"}
NO_VALUE = {"error", "undetermined", "not critical", "nonsmooth"}
LIE = NO_VALUE  # automatic differentiation gives the derivatives of another function
FLAT_OR_NONE, MODULO_SYMMETRY = {"degenerate", "undetermined"}, {"minimum modulo symmetry"}


class Given(NamedTuple):
    """A function, a point, its arguments, and the names that are true or withheld there."""

    fun: Callable[..., jax.Array]
    params: np.ndarray
    admissible: set[str]
    args: tuple[np.ndarray, ...]
    options: Mapping[str, Any]


def given(fun, params, admissible, *args, **options):
    return Given(fun, np.asarray(params, float), admissible, tuple(np.asarray(a) for a in args), options)


bowl = lambda p: jnp.sum(p**2)


# --- 1, 13 and 14. The end of the Newton step, coordinates of very different sizes, a Hessian right at params only
def separable(p, centre, slope, cos, e, cosh):
    """A bowl about the centre or −Σ cos p, less a slope, plus eʸ and cosh y, for y the last component."""
    y = p[4]
    quadratic = jnp.sum((p[:4] - centre) ** 2) / 2
    return (1 - cos) * quadratic - slope @ p - cos * jnp.sum(jnp.cos(p)) + e * jnp.exp(y) + cosh * jnp.cosh(y)


def bent(p, *_):
    return jnp.diag(jnp.cosh(p).at[:4].set(1.0))


FLAT, TURN = np.zeros(5), 2 * math.pi
FAR = 1e6, 1e6, 1e6, 1e6, 0.0


# --- 2, 3 and 5. A corner, a jump of the Hessian, a jump of the value
ROUGH = (
    "the slope", "the absolute value", "relu", "x |x|", "where",
    "a comparison", "sign", "floor", "ceil", "round", "argmax", "an integer cast",
)  # fmt: skip
PART = dict(zip(ROUGH, np.eye(len(ROUGH)), strict=True))


def rough(p, part, at):
    """x² + y² + part · (a term for each name of ROUGH, which is not smooth where x = at)."""
    x, square = p[0] - at, p[0] ** 2
    corners = x, jnp.abs(x), jax.nn.relu(x) - x / 2, x * jnp.abs(x) - square, jnp.where(x > 0, x**2, -(x**2)) - square
    jumps = -jnp.where(x > 0, 1.0, 0.0), -jnp.sign(x), jnp.floor(x), -jnp.ceil(x), -jnp.round(x + 0.5)
    numbers = -jnp.argmax(jnp.stack([p[1], x])), -jnp.ceil(x).astype(int)
    return bowl(p) + part @ jnp.stack([*corners, *jumps, *(n.astype(x.dtype) for n in numbers)])


def descended(slope: Callable[[np.ndarray], np.ndarray], w: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """Return the end of a gradient descent."""
    for _ in range(steps):
        w = w - rate * slope(w)
    return w


def linear_model(w, x, y, square, hinge, absolute, decay):
    errors, margins = x @ w - y, y * (x @ w)
    loss = square * jnp.mean(errors**2) / 2 + hinge * jnp.mean(jax.nn.relu(1 - margins))
    return loss + absolute * jnp.sum(jnp.abs(w)) + decay * jnp.sum(w**2) / 2


def lasso_case(strength, admissible):
    """The minimum is the soft threshold of xᵀ y / n, x having orthogonal columns; gradient descent ends beside it."""
    generator = np.random.default_rng(0)
    x = math.sqrt(40) * np.linalg.qr(generator.standard_normal((40, 5)))[0]
    correlation = np.array([1.0, -0.7, 0.05, -0.03, 0.4])
    best, y = np.sign(correlation) * np.maximum(np.abs(correlation) - strength, 0), x @ correlation
    end = descended(lambda w: x.T @ (x @ w - y) / 40 + strength * np.sign(w), np.full(5, 0.1), 0.013, 3000)
    assert np.max(np.abs(end - best)) < 0.01
    point = end if np.any(best == 0) else best
    return given(linear_model, point, admissible, x, y, 1.0, 0.0, strength, 0.0)


# One of five weights counts.
HINGED = np.pad(np.tile([[1.0], [-1.0], [2.0], [-2.0]], (10, 1)), ((0, 0), (0, 4))), np.tile([1.0, -1.0, 1.0, -1.0], 10)


def hinge_end():
    """y x is 1 or 2: the slope is decay w − mean(y x [y x w < 1]), and the minimum is the corner w = 1."""
    margin = HINGED[1] * HINGED[0][:, 0]
    slope = lambda w: 0.1 * w - np.mean(np.where(margin * w < 1, margin, 0.0))
    assert slope(np.ones(1)) > 0 > slope(np.full(1, 1 - 1e-12))
    w = descended(slope, np.full(1, 0.3), 0.017, 2000)
    assert 0 < abs(w[0] - 1) < 0.02
    return [w[0], 0, 0, 0, 0]


errors = lambda w, x, y: jnp.mean(jnp.where(jnp.argmax(x @ w.reshape(2, 3), axis=-1) == y, 0.0, 1.0)) + bowl(w)
COUNTED = np.random.default_rng(0).standard_normal((30, 2))


# --- 4. A corner along equal components
def ridge(p, apart, below, largest):
    d = p[0] - p[1]
    return jnp.where(d >= apart, 3 * d**2, below * d**2) + bowl(p - 1) + largest * (jnp.max(p) - jnp.mean(p))


# --- 6, 7, 17 and 18. No value, and the ends of float64
def quadratic(p, a, b, centre, c):
    return a * (p[0] - centre) ** 2 + b * (p[1] - 2 * centre) ** 2 - jnp.log(c)


def class_loss(b, x, y):
    """The loss of constant logits b."""
    return losses.mean(losses.cross_entropy(jnp.broadcast_to(b, (len(x), 3)), y)) + penalties.l2(b, 0.1)


def labels_case(labels, shares, admissible):
    """Solve softmax(b) − shares + b / 10 = 0 by Newton's method."""
    b = np.zeros(3)
    for _ in range(50):
        p = np.exp(b) / np.sum(np.exp(b))
        b = b - np.linalg.solve(np.diag(p) - np.outer(p, p) + 0.1 * np.eye(3), p - shares + 0.1 * b)
    return given(class_loss, b, admissible, np.zeros((6, 1)), np.array(labels))


SIXTHS, WITHOUT_ZERO = np.array([1, 2, 3]) / 6, np.array([0, 1, 1]) / 3

# --- 8, 9, 10. Rounding that no move of params shows
variance = lambda w, x: jnp.mean((w * x) ** 2) - jnp.mean(w * x) ** 2
DATA = np.random.default_rng(0).standard_normal(1000)
regression = lambda p, x, y: jnp.mean((x @ p - y) ** 2)


def regression_case(n, admissible, *, dependent):
    """With a dependent column, H (1, 1, −1) = 0, exactly."""
    generator = np.random.default_rng(0)
    x = np.round(generator.standard_normal((n, 3)) * 2**20) / 2**20  # so that sums of them are exact
    if dependent:
        x[:, 2] = x[:, 0] + x[:, 1]
    y = generator.standard_normal(n)
    return given(regression, np.linalg.lstsq(x, y)[0], admissible, x, y)


def captured(given):
    """The same case, its arguments constants of the function."""
    fun, args = given.fun, given.args
    return given._replace(fun=lambda p: fun(p, *args), args=())


def absorbed(p, k, c, d, large, s, square):
    """y² + (κ x² / 2, where κ or x is added to a constant), or the difference of two large curvatures along x."""
    differing = large * (s * p[0]) ** 2 / square - large * p[0] ** 2
    return ((k + c) - c) * ((p[0] + d) - d) ** 2 / 2 + differing + p[1] ** 2


TERMS = np.array([1e8 / 3, 1e-10, 2e8 / 3, -1e8 / 3, 2e-10, -2e8 / 3])
assert math.fsum(TERMS) > 0
summed = lambda p: jnp.sum(TERMS) * p[0] ** 2 / 2 + p[1] ** 2


def large_curvatures_case(seed):
    generator = np.random.default_rng(seed)
    s, large = np.float64(generator.uniform(0.5, 2)), np.float64(1e8 * generator.uniform(0.5, 2))
    # Half of the second derivative along x, exactly.
    half = Fraction(large) * Fraction(s) ** 2 / Fraction(s * s) - Fraction(large)
    assert 0 < abs(half) < 1e-8
    names = MINIMUM_OR_NONE if half > 0 else SADDLE_OR_NONE
    return given(absorbed, np.zeros(2), names, 0.0, 0.0, 0.0, large, s, s * s)


# --- 11. An eigenvalue that the step hides
def hidden(p, small, data):
    x, y = p[0] - 1, p[1]
    rest = jnp.sum((p[2:] - 1) ** 2) / 2 + jnp.sum(data) * p[2] ** 2
    return x**2 / 2 + small * y**2 / 2 + x * y**2 + y**3 + rest


# At (1, 0, 1, …) the Hessian is diag(1, small, 1, …).
HIDDEN = np.r_[1 + 1e-4, 0.0, np.ones(63)]

# --- 12. Params that are tiny beside the data
TINY = 5.01611696e-6
mixture = lambda mu, y: -jnp.sum(jax.nn.logsumexp(-((y[:, None] - mu) ** 2) / 2, axis=1))


def far_apart():
    """The minimum t = 3 tanh 3t lies far from 0."""
    t = 3.0
    for _ in range(100):
        t = 3 * math.tanh(3 * t)
    return [-t, t]


# --- 15. Derivatives that are not those of the value
falling, rising = jax.custom_jvp(lambda x: -(x**2)), jax.custom_jvp(lambda x: x**2)
for _fun in (falling, rising):
    _fun.defjvp(lambda primals, tangents, fun=_fun: (fun(*primals), 2 * primals[0] * tangents[0]))  # that of x²


def lying(p, part):
    """x² + y², and parts of which the derivatives of JAX are not those of the value, but for the last two."""
    stop, (x, y) = jax.lax.stop_gradient, p
    rounded, shift = x + stop(jnp.round(x) - x), stop(jnp.max(p))
    softmax = jnp.log(jnp.sum(jnp.exp(p - shift))) + shift - jnp.mean(p)  # the shift leaves the value as it is
    parts = 3 * stop(x) * y, 3 * stop(y) * x, rounded**2 - x**2, falling(x) - x**2, rising(x) - x**2, softmax
    return x**2 + y**2 + part @ jnp.stack(parts)


ONE_STOP, OTHER_STOP, ROUNDED, FALLING, RISING, SHIFTED = np.eye(6)


# --- 16. Coarser arithmetic inside
@jax.custom_vjp
def in_bfloat16(p, matrix):
    """Return ½ |A p|², with residuals saved as bfloat16."""
    return jnp.sum((matrix @ p) ** 2) / 2


in_bfloat16.defvjp(
    lambda p, matrix: (in_bfloat16(p, matrix), ((matrix @ p).astype(jnp.bfloat16), matrix)),
    lambda saved, g: (g * (saved[0].astype(saved[1].dtype) @ saved[1]), jnp.zeros_like(saved[1])),
)


def in_complex64(p, matrix):
    product = (matrix.astype(jnp.complex64) @ p.astype(jnp.complex64)).astype(jnp.complex128)
    return jnp.sum(jnp.real(product * jnp.conj(product))) / 2


in_reduced_precision = lambda p, matrix: jnp.sum(jax.lax.reduce_precision(matrix @ p, 8, 7) ** 2) / 2


def conditioned(smallest: float) -> np.ndarray:
    """Return a matrix of singular values from 1 to `smallest`."""
    generator = np.random.default_rng(0)
    left, right = (np.linalg.qr(generator.standard_normal((6, 6)))[0] for _ in range(2))
    return (left * np.geomspace(1, smallest, 6)) @ right


# --- 19. A tilt against a symmetry
def tilted_ring(p, tilt):
    return (p[0] ** 2 + p[1] ** 2 - 1) ** 2 / 4 + tilt * p[0] + jnp.sum(p[2:] ** 2) / 2


def turn(p):
    return jnp.zeros((1, len(p)), p.dtype).at[0, 0].set(-p[1]).at[0, 1].set(p[0])


def on_the_ring(tilt, admissible):
    """(r² − 1) x + tilt = 0 at y = 0, x > 0, where the curvature along y is r² − 1 = −tilt / x: index 1."""
    x = 1.0
    for _ in range(20):
        x -= ((x**2 - 1) * x + tilt) / (3 * x**2 - 1)
    return given(tilted_ring, np.r_[x, np.zeros(64)], admissible, tilt, symmetries=turn)


CASES = {
    # 1. The derivative is sin x − slope, and has no zero where the slope is above 1; at π/6, cos x > 0.
    "slope steeper than the wave": given(separable, FLAT, NO_POINT, 0.0, [TURN, 0, 0, 0, 0], 1.0, 0.0, 0.0),
    "two slopes steeper than the wave": given(separable, FLAT, NO_POINT, 0.0, [TURN, 2 * TURN, 0, 0, 0], 1.0, 0.0, 0.0),
    "slope flatter than the wave": given(separable, FLAT + TURN / 12 + 1e-4, MINIMUM, 0.0, FLAT + 0.5, 1.0, 0.0, 0.0),
    # 2. The derivative beside the corner is ±1; 2x − 1 is 0 at ½, and that corner is at 3.
    "corner of the absolute value": given(rough, [0.01, 0.01], NO_SMOOTH_POINT, PART["the absolute value"], 0.0),
    "corner of relu": given(rough, [0.01, 0.01], NO_SMOOTH_POINT, PART["relu"], 0.0),
    "maximum on a corner": given(rough, np.zeros(2), NO_SMOOTH_POINT, -2 * PART["relu"], 0.0),  # x² − |x|
    "corner far away": given(rough, [0.5, 0.0], MINIMUM, PART["the absolute value"], 3.0),
    "lasso after gradient descent": lasso_case(0.1, NO_SMOOTH_POINT),  # two weights of the minimum are 0
    "lasso of large weights": lasso_case(0.01, MINIMUM),
    # With decay 10 the minimum, mean(y x) / 10 = .15, has every margin below 1.
    "hinge after gradient descent": given(linear_model, hinge_end(), NO_SMOOTH_POINT, *HINGED, 0.0, 1.0, 0.0, 0.1),
    "hinge with every margin open": given(linear_model, [0.15, 0, 0, 0, 0], MINIMUM, *HINGED, 0.0, 1.0, 0.0, 10.0),
    # 3. x |x| rises everywhere; 2 |x| − 1 is 0 at ½.
    "curvature that jumps at the end of the step": given(rough, [0.5, 0.0], NO_SMOOTH_POINT, PART["x |x|"], 0.0),
    "curvature that jumps just before the point": given(rough, [1e-9, 1.0], NO_SMOOTH_POINT, PART["where"], 0.0),
    "curvature that jumps elsewhere": given(rough, [0.51, 0.0], MINIMUM, PART["x |x|"] - PART["the slope"], 0.0),
    # 4. It falls as −d²/2 where d < 0. The largest of five equal components has a slope of 1 along each of them.
    "corner along equal components": given(ridge, np.ones(5), NO_SMOOTH_POINT, 0.0, -1.0, 0.0),
    "captured corner along equal components": captured(given(ridge, np.ones(5), NO_SMOOTH_POINT, 0.0, -1.0, 0.0)),
    "corner of the largest of five": given(ridge, np.ones(5), NO_SMOOTH_POINT, -5.0, -1.0, 1.0),
    "equal components without a corner": given(ridge, np.ones(5), MINIMUM, -5.0, -1.0, 0.0),
    # 5. From .3 the Newton step ends at 0, where the value jumps.
    **{f"jump of {name}": given(rough, np.zeros(2), NO_SMOOTH_POINT, PART[name], 0.0) for name in ROUGH[5:]},
    "jump at the end of the step": given(rough, [0.3, -0.2], NO_SMOOTH_POINT, -PART["a comparison"], 0.0),
    "jump of the value elsewhere": given(rough, np.zeros(2), MINIMUM, PART["a comparison"], 1.0),
    # Any small w of the right sign recognises class 1; at 0 all logits tie, and class 0 is chosen.
    "jump of a count": given(errors, np.zeros(6), NO_SMOOTH_POINT, COUNTED, np.where(COUNTED[:, 0] > 0, 1, 2)),
    # 6 and 7.
    "logarithm of a negative constant": captured(given(quadratic, np.zeros(2), NO_VALUE, 1.0, 1.0, 0.0, -1.0)),
    "logarithm of negative data": given(quadratic, np.zeros(2), NO_VALUE, 1.0, 1.0, 0.0, -1.0),
    "infinite value": given(quadratic, np.zeros(2), NO_VALUE, 1.0, 1.0, 0.0, 0.0),
    "logarithm of positive data": given(quadratic, np.zeros(2), MINIMUM, 1.0, 1.0, 0.0, 2.0),
    "labels from 1 to 3": labels_case([1, 2, 3, 1, 2, 3], WITHOUT_ZERO, NO_VALUE),  # 3 has no part in the gradient
    "captured labels from 1 to 3": captured(labels_case([1, 2, 3, 1, 2, 3], WITHOUT_ZERO, NO_VALUE)),
    "label of -1": labels_case([-1, 2, 2, 1, 1, 0], SIXTHS, {"error"}),  # the last class, if it is taken for that
    "labels in range": labels_case([2, 2, 2, 1, 1, 0], SIXTHS, MINIMUM),
    # 8. Half of the second derivative is the variance of x.
    "variance far from zero": given(variance, 0.0, MINIMUM_OR_NONE, 1e8 + DATA),
    "captured variance far from zero": captured(given(variance, 0.0, MINIMUM_OR_NONE, 1e8 + DATA[::-1])),
    "variance near zero": given(variance, 0.0, MINIMUM, 10 + DATA),
    # 9.
    "dependent column": regression_case(100_000, FLAT_OR_NONE, dependent=True),
    "captured dependent column": captured(regression_case(20_000, FLAT_OR_NONE, dependent=True)),
    "independent columns": regression_case(100_000, MINIMUM, dependent=False),
    # 10. (κ + c) − c is κ > 0, and 0 in float64; (x + c) − c is x, and in float64 a staircase of steps of 1.5e-8.
    "curvature absorbed by a constant": given(absorbed, np.zeros(2), MINIMUM_OR_NONE, 1e-10, 1e8, 0.0, 0.0, 1.0, 1.0),
    "coordinate absorbed by a constant": given(absorbed, np.zeros(2), MINIMUM_OR_NONE, 1e-10, 0.0, 1e8, 0.0, 1.0, 1.0),
    "constant that absorbs nothing": given(absorbed, np.zeros(2), MINIMUM, 1.0, 1e8, 0.0, 0.0, 1.0, 1.0),
    "curvature absorbed by captured constants": given(summed, np.zeros(2), MINIMUM_OR_NONE),
    **{f"difference of large curvatures {seed}": large_curvatures_case(seed) for seed in (2, 5, 16, 31, 39)},
    # 11.
    "eigenvalue hidden by the step": given(hidden, HIDDEN, MINIMUM_OR_NONE, 1e-4, np.zeros(1)),
    "eigenvalue that the step does not hide": given(hidden, HIDDEN, MINIMUM, 1.0, np.zeros(1)),
    "eigenvalue hidden with much data": given(hidden, HIDDEN[:4], MINIMUM_OR_NONE, 1e-4, np.zeros(30_000)),
    # 12. Along μ = t (−1, 1) the function is t² − 2 log cosh t = t⁴/6 − …: critical at 0 only, and singular there.
    "params tiny beside the data": given(mixture, [-TINY, TINY], {"degenerate", *NO_POINT}, [-1.0, 1.0]),
    "params as large as the data": given(mixture, far_apart(), MINIMUM, [-3.0, 3.0]),
    # 13 and 14. e^y has no critical point.
    "slope beside large coordinates": given(separable, FAR, NO_POINT, 1e6, FLAT, 0.0, 1e-10, 0.0),
    "curvature beside large coordinates": given(separable, FAR, MINIMUM, 1e6, FLAT, 0.0, 0.0, 1.0),
    "constant Hessian of an exponential": given(
        separable, FLAT, {"error", *NO_POINT}, 0.0, FLAT, 0.0, 1.0, 0.0, hessian=lambda p, *_: np.eye(5)
    ),
    "right Hessian": given(separable, [0, 0, 0, 0, 0.1], MINIMUM, 0.0, FLAT, 0.0, 0.0, 1.0, hessian=bent),
    # 15. The value x² + y² + 3xy has eigenvalues −1 and 5; with 6xy, −4 and 8, and the traced Hessian is symmetric.
    "stopped gradient": given(lying, np.zeros(2), SADDLE | LIE, ONE_STOP),
    "two stopped gradients": given(lying, np.zeros(2), SADDLE | LIE, ONE_STOP + OTHER_STOP),
    # The value does not depend on x between −½ and ½.
    "straight-through rounding": given(lying, np.zeros(2), {"degenerate", *LIE}, ROUNDED),
    "custom_jvp of the wrong sign": given(lying, np.zeros(2), SADDLE | LIE, FALLING),
    "custom_jvp of the right sign": given(lying, np.zeros(2), MINIMUM, RISING),
    "stopped gradient of a shift": given(lying, np.zeros(2), MINIMUM, SHIFTED),
    # 16. Values through reduced precision are a staircase.
    "complex64": given(in_complex64, np.zeros(6), MINIMUM_OR_NONE, conditioned(1e-6)),
    "well conditioned complex64": given(in_complex64, np.zeros(6), MINIMUM, conditioned(0.3)),
    "reduced precision": given(in_reduced_precision, np.zeros(6), {"nonsmooth", *MINIMUM_OR_NONE}, conditioned(1e-5)),
    "custom_vjp in bfloat16": given(in_bfloat16, np.zeros(6), MINIMUM_OR_NONE, conditioned(1e-5)),
    # 17 and 18.
    "saddle at the small end": given(quadratic, np.zeros(2), SADDLE_OR_NONE, 1e-308, -1e-308, 0.0, 1.0),
    "saddle at the small end away from zero": given(quadratic, [1.0, 2.0], SADDLE_OR_NONE, 1e-308, -1e-308, 1.0, 1.0),
    "saddle at the large end": given(quadratic, np.zeros(2), SADDLE_OR_NONE, 1e300, -1e300, 0.0, 1.0),
    "small saddle": given(quadratic, np.zeros(2), SADDLE, 1e-100, -1e-100, 0.0, 1.0),
    "bowl at the smallest number": given(quadratic, [np.finfo(float).tiny, 0.0], MINIMUM, 1.0, 1.0, 0.0, 1.0),
    "bowl below the smallest number": given(quadratic, [-2.2e-308, 0.0], MINIMUM, 1.0, 1.0, 0.0, 1.0),
    # 19.
    "tilt too small to see": on_the_ring(1e-15, SADDLE_OR_NONE),
    "tilt that is seen": on_the_ring(1e-3, SADDLE),
    "no tilt": on_the_ring(0.0, MODULO_SYMMETRY),
}


def said(given: Given, evidence: str) -> str:
    """Return the name that classify gives, or "error"."""
    try:
        return critical.classify(given.fun, given.params, given.args, evidence=evidence, **given.options).kind
    except (TypeError, ValueError):
        return "error"


@pytest.mark.parametrize("name", CASES)
def test_a_name_is_true_or_withheld_and_a_well_behaved_cousin_keeps_its_name(name):
    admissible = CASES[name].admissible
    assert said(CASES[name], "dense") in admissible
    # Products alone do not use symmetries.
    assert said(CASES[name], "lanczos") in (admissible | UNDETERMINED if admissible == MODULO_SYMMETRY else admissible)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_name_is_true_or_withheld_where_a_proof_is_tried(name):
    assert said(CASES[name], "proved") in CASES[name].admissible


def stochastic(b, x, y, weights, _):
    logits = jnp.broadcast_to(b, (len(x), 3))
    return losses.mean(losses.cross_entropy(logits, y), weights) + penalties.l2(b, 0.1)


KEY, START = jax.random.key(0), np.zeros(3, np.float32)
SETTINGS = {"optimizer": optax.sgd(0.1), "batch_size": 3, "epochs": 1}
GRID = {"batch_sizes": (3,), "learning_rates": (0.1,), "seeds": 1, "epochs": 1}
LABEL_ENTRIES = {
    "find": lambda *data: critical.find(class_loss, START, data),
    "classify": lambda *data: critical.classify(class_loss, START, data),
    "certify": lambda *data: interval.certify(class_loss, START, data),
    "train": lambda *data: training.train(KEY, stochastic, START, data, **SETTINGS),
    "sweep": lambda *data: sweep.run(KEY, stochastic, lambda _: jnp.asarray(START), data, **GRID),
}


@pytest.mark.parametrize("entry", LABEL_ENTRIES)
def test_a_label_out_of_range_is_an_error_wherever_it_enters(entry):
    for wrong in (-1, 3):
        x, y = np.zeros((6, 1), np.float32), np.array([wrong, 2, 2, 1, 1, 0], np.int32)
        with pytest.raises(ValueError, match=r"target|label"):
            LABEL_ENTRIES[entry](x, y)
