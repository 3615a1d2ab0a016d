"""classify on the smallest inputs that once got a wrong name, and on well-behaved cousins that must keep theirs.

The comment beside each case gives the truth in closed form. A point that float64 cannot decide may stay unnamed.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlp_jax import critical, interval, losses, penalties, sweep, training

UNDETERMINED = {"undetermined"}
MINIMUM_OR_NONE, SADDLE_OR_NONE = {"minimum", "undetermined"}, {"saddle", "undetermined"}
NO_POINT = {"not critical", "undetermined"}  # smooth, and no critical point near
NO_SMOOTH_POINT = {"nonsmooth", "not critical", "undetermined"}
NO_VALUE = {"error", "undetermined", "not critical", "nonsmooth"}
LIE = NO_VALUE  # automatic differentiation gives the derivatives of another function


class Given(NamedTuple):
    """A function, a point, and the names that are true or withheld there."""

    fun: Callable[..., jax.Array]
    params: Any
    admissible: set[str]
    args: tuple = ()
    options: Mapping[str, Any] = MappingProxyType({})


CASES: dict[str, Callable[[], Given]] = {}
COUSINS: dict[str, Callable[[], Given]] = {}  # smooth, nondegenerate, well scaled: one right answer


def case(make):
    CASES[make.__name__] = make


def cousin(make):
    COUSINS[make.__name__] = make


def said(given: Given, evidence: str) -> str:
    """Return the name that classify gives, or "error"."""
    try:
        return critical.classify(given.fun, given.params, given.args, evidence=evidence, **given.options).kind
    except (TypeError, ValueError):
        return "error"


# Both kinds of evidence in one test, which then share compiled programs.
@pytest.mark.parametrize("name", CASES)
def test_a_name_is_true_or_withheld(name):
    given = CASES[name]()
    assert {said(given, evidence) for evidence in ("dense", "lanczos")} <= given.admissible


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_name_is_true_or_withheld_where_a_proof_is_tried(name):
    given = CASES[name]()
    assert said(given, "proved") in given.admissible


@pytest.mark.parametrize("name", COUSINS)
def test_a_well_behaved_cousin_keeps_its_name(name):
    given = COUSINS[name]()
    assert said(given, "dense") in given.admissible
    # Products alone do not use symmetries.
    unnamed = UNDETERMINED if "minimum modulo symmetry" in given.admissible else set()
    assert said(given, "lanczos") in given.admissible | unnamed


# --- 1. The end of the Newton step
# The derivative, −2π + sin x, has no zero.
CASES["slope_steeper_than_the_wave"] = lambda: Given(lambda x: -2 * math.pi * x - jnp.cos(x), np.float64(0.0), NO_POINT)
CASES["slope_steeper_than_the_wave_as_a_vector"] = lambda: Given(
    lambda x, slope: jnp.sum(-slope * x - jnp.cos(x)),
    np.zeros(5),
    NO_POINT,
    (np.array([2 * math.pi, 4 * math.pi, 0.0, 0.0, 0.0]),),
)
# The derivative, sin x − ½, is 0 at π/6, where cos x > 0.
COUSINS["slope_flatter_than_the_wave"] = lambda: Given(
    lambda x: jnp.sum(-0.5 * x - jnp.cos(x)), np.full(3, math.pi / 6 + 1e-4), {"minimum"}
)

# --- 2. A corner with the same curvature on both sides
# The derivative beside 0 is ±1.
CASES["corner_of_the_absolute_value"] = lambda: Given(
    lambda p: jnp.sum(p**2 + jnp.abs(p)), np.full(3, 0.01), NO_SMOOTH_POINT
)
CASES["corner_of_relu"] = lambda: Given(
    lambda p: jnp.sum(p**2 + jax.nn.relu(p) - p / 2), np.full(3, 0.01), NO_SMOOTH_POINT
)


def descended(gradient: Callable[[np.ndarray], np.ndarray], start: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """Return the end of a gradient descent."""
    for _ in range(steps):
        start = start - rate * gradient(start)
    return start


lasso = lambda w, x, y, strength: jnp.mean((x @ w - y) ** 2) / 2 + strength * jnp.sum(jnp.abs(w))


def lasso_data(strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return orthogonal inputs, targets, and the minimum: the soft threshold of xᵀ y / n."""
    generator = np.random.default_rng(0)
    x = math.sqrt(40) * np.linalg.qr(generator.standard_normal((40, 5)))[0]
    correlation = np.array([1.0, -0.7, 0.05, -0.03, 0.4])
    return x, x @ correlation, np.sign(correlation) * np.maximum(np.abs(correlation) - strength, 0)


@case
def lasso_after_gradient_descent():
    """Two weights of the minimum are 0, on the corner; gradient descent ends beside it."""
    x, y, best = lasso_data(0.1)
    assert np.sum(best == 0) == 2
    slope = lambda w: x.T @ (x @ w - y) / 40 + 0.1 * np.sign(w)
    w = descended(slope, np.full(5, 0.1), 0.013, 3000)
    assert 0 < np.max(np.abs(w - best)) < 0.01
    return Given(lambda p: lasso(p, x, y, 0.1), w, NO_SMOOTH_POINT)


@cousin
def lasso_of_large_weights():
    x, y, best = lasso_data(0.01)
    assert np.all(best != 0)
    return Given(lasso, best, {"minimum"}, (x, y, np.float64(0.01)))


HINGED = np.array([[1.0], [-1.0], [2.0], [-2.0]]), np.array([1.0, -1.0, 1.0, -1.0])
hinge = lambda w, x, y, decay: jnp.mean(jax.nn.relu(1 - y * (x @ w))) + decay * jnp.sum(w**2) / 2


@case
def hinge_after_gradient_descent():
    """y x is 1 or 2: the slope is decay w − mean(y x [y x w < 1]), and the minimum is the corner w = 1."""
    margin = HINGED[1] * HINGED[0][:, 0]
    slope = lambda w: 0.1 * w - np.mean(np.where(margin * w < 1, margin, 0.0))
    assert slope(np.ones(1)) > 0 > slope(np.full(1, 1 - 1e-12))
    w = descended(slope, np.full(1, 0.3), 0.017, 2000)
    assert 0 < abs(w[0] - 1) < 0.02
    return Given(hinge, w, NO_SMOOTH_POINT, (*HINGED, np.float64(0.1)))


# With decay 10 the minimum, mean(y x) / 10 = .15, has every margin below 1.
COUSINS["hinge_with_every_margin_open"] = lambda: Given(
    hinge, np.full(1, 0.15), {"minimum"}, (*HINGED, np.float64(10.0))
)


# 2p − 1 is 0 at ½; the corner is at 3.
COUSINS["corner_far_away"] = lambda: Given(lambda p: jnp.sum(p**2 + jnp.abs(p - 3)), np.full(3, 0.5), {"minimum"})

# --- 3. A jump of the Hessian, at the end of the step
# x |x| rises everywhere.
CASES["curvature_that_jumps_at_the_end_of_the_step"] = lambda: Given(
    lambda p: p[0] * jnp.abs(p[0]) + p[1] ** 2, np.array([0.5, 0.0]), NO_SMOOTH_POINT
)
CASES["curvature_that_jumps_just_before_the_point"] = lambda: Given(
    lambda p: jnp.where(p[0] > 0, p[0] ** 2, -(p[0] ** 2)) + jnp.sum(p[1:] ** 2),
    np.array([1e-9, 1.0, -2.0]),
    NO_SMOOTH_POINT,
)
# 2 |x| − 1 is 0 at ½.
COUSINS["curvature_that_jumps_elsewhere"] = lambda: Given(
    lambda p: p[0] * jnp.abs(p[0]) - p[0] + p[1] ** 2, np.array([0.51, 0.0]), {"minimum"}
)


# --- 4. A corner along equal components
def ridge(p, apart, below):
    d = p[0] - p[1]
    return jnp.where(d >= apart, 3 * d**2, below * d**2) + (p[0] + p[1] - 2) ** 2


# It falls as −d² where d < 0.
CASES["corner_along_equal_components"] = lambda: Given(lambda p: ridge(p, 0.0, -1.0), np.ones(2), NO_SMOOTH_POINT)
CASES["corner_along_equal_components_with_the_data_as_arguments"] = lambda: Given(
    ridge, np.ones(2), NO_SMOOTH_POINT, (np.float64(0.0), np.float64(-1.0))
)
# The largest of five equal components, less a bowl: a slope of 1 along each of them.
CASES["corner_of_the_largest_of_five"] = lambda: Given(
    lambda p: jnp.sum((p - 1) ** 2) + jnp.max(p) - jnp.mean(p), np.ones(5), NO_SMOOTH_POINT
)
COUSINS["equal_components_without_a_corner"] = lambda: Given(
    ridge, np.ones(2), {"minimum"}, (np.float64(-5.0), np.float64(-1.0))
)


# --- 5. A jump of the value
bowl = lambda p: jnp.sum(p**2)
errors = lambda w, x, y: jnp.mean(jnp.where(jnp.argmax(x @ w.reshape(2, 3), axis=-1) == y, 0.0, 1.0)) + bowl(w)
JUMPS = ("a_comparison", "sign", "floor", "ceil", "round", "argmax", "integer_cast")


def jumping(p, part):
    """All jumps as one function, so that it is compiled once; `part` chooses one."""
    x, whole = p[0], jnp.ceil(p[0])
    jumps = [jnp.where(x > 0, 1.0, 0.0), jnp.sign(x), -jnp.floor(x), whole, jnp.round(x + 0.5)]
    return bowl(p) - part @ jnp.stack([*jumps, jnp.argmax(p[::-1]).astype(x.dtype), whole.astype(int).astype(x.dtype)])


for _name, _part in zip(JUMPS, np.eye(len(JUMPS)), strict=True):
    CASES[f"jump_of_the_value_by_{_name}"] = lambda part=_part: Given(jumping, np.zeros(2), NO_SMOOTH_POINT, (part,))


@case
def jump_of_a_count_of_errors():
    """Any small w of the right sign recognises class 1; at 0 all logits tie, and class 0 is chosen."""
    x = np.random.default_rng(0).standard_normal((30, 2))
    y = np.where(x[:, 0] > 0, 1, 2)
    return Given(errors, np.zeros(6), NO_SMOOTH_POINT, (x, y))


# From .3 the Newton step ends at 0, where the value jumps.
CASES["jump_at_the_end_of_the_step"] = lambda: Given(
    lambda p: bowl(p) - jnp.where(p[0] > 0, 0.0, 1.0), np.array([0.3, -0.2]), NO_SMOOTH_POINT
)
COUSINS["jump_of_the_value_elsewhere"] = lambda: Given(
    lambda p: bowl(p) - jnp.where(p[0] > 1, 1.0, 0.0), np.zeros(2), {"minimum"}
)

# --- 6 and 7. No value
CASES["logarithm_of_a_negative_constant"] = lambda: Given(
    lambda p: bowl(p) + jnp.log(jnp.float64(-1.0)), np.zeros(2), NO_VALUE
)
CASES["logarithm_of_negative_data"] = lambda: Given(
    lambda p, c: bowl(p) + jnp.log(c), np.zeros(2), NO_VALUE, (np.float64(-1.0),)
)
CASES["infinite_value"] = lambda: Given(lambda p, c: bowl(p) + 1 / c, np.zeros(2), NO_VALUE, (np.float64(0.0),))
COUSINS["logarithm_of_positive_data"] = lambda: Given(
    lambda p, c: bowl(p) + jnp.log(c), np.zeros(2), {"minimum"}, (np.float64(2.0),)
)


def class_loss(b, x, y):
    """The loss of constant logits b."""
    return losses.mean(losses.cross_entropy(jnp.broadcast_to(b, (len(x), 3)), y)) + penalties.l2(b, 0.1)


def class_minimum(shares: np.ndarray) -> np.ndarray:
    """Solve softmax(b) − shares + b / 10 = 0 by Newton's method."""
    b = np.zeros(3)
    for _ in range(50):
        p = np.exp(b) / np.sum(np.exp(b))
        b = b - np.linalg.solve(np.diag(p) - np.outer(p, p) + 0.1 * np.eye(3), p - shares + 0.1 * b)
    return b


def labels_from_one_to_three_of_three_classes():
    shares = np.array([0.0, 1 / 3, 1 / 3])  # a label out of range has no part in the gradient
    return Given(class_loss, class_minimum(shares), NO_VALUE, (np.zeros((6, 1)), np.array([1, 2, 3, 1, 2, 3])))


case(labels_from_one_to_three_of_three_classes)


@case
def captured_labels_from_one_to_three_of_three_classes():
    given = labels_from_one_to_three_of_three_classes()
    return given._replace(fun=lambda b: class_loss(b, *given.args), args=())


@case
def label_minus_one():
    shares = np.array([1 / 6, 1 / 3, 1 / 2])  # the last class, if it is taken for that
    return Given(class_loss, class_minimum(shares), {"error"}, (np.zeros((6, 1)), np.array([-1, 2, 2, 1, 1, 0])))


@cousin
def labels_in_range():
    shares = np.array([1 / 6, 1 / 3, 1 / 2])
    return Given(class_loss, class_minimum(shares), {"minimum"}, (np.zeros((6, 1)), np.array([2, 2, 2, 1, 1, 0])))


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


@pytest.mark.parametrize("wrong", [-1, 3])
@pytest.mark.parametrize("entry", LABEL_ENTRIES)
def test_a_label_out_of_range_is_an_error_wherever_it_enters(entry, wrong):
    x, y = np.zeros((6, 1), np.float32), np.array([wrong, 2, 2, 1, 1, 0], np.int32)
    with pytest.raises(ValueError, match=r"target|label"):
        LABEL_ENTRIES[entry](x, y)


# --- 8, 9, 10. Rounding that no move of params shows
variance = lambda w, x: jnp.mean((w * x) ** 2) - jnp.mean(w * x) ** 2


@case
def variance_of_data_far_from_zero():
    """Half of the second derivative is the variance of x."""
    x = 1e8 + np.random.default_rng(0).standard_normal(1000)
    return Given(variance, np.float64(0.0), MINIMUM_OR_NONE, (x,))


@case
def variance_of_captured_data_far_from_zero():
    x = 1e8 + np.random.default_rng(1).standard_normal(1000)
    return Given(lambda w: variance(w, x), np.float64(0.0), MINIMUM_OR_NONE)


COUSINS["variance_of_data_near_zero"] = lambda: Given(
    variance, np.float64(0.0), {"minimum"}, (10 + np.random.default_rng(0).standard_normal(1000),)
)

regression = lambda p, x, y: jnp.mean((x @ p - y) ** 2)


def regression_data(n: int, *, dependent: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = np.round(generator.standard_normal((n, 3)) * 2**20) / 2**20  # so that sums of them are exact
    if dependent:
        x[:, 2] = x[:, 0] + x[:, 1]
    return x, generator.standard_normal(n)


def dependent_column(n: int) -> Given:
    """H (1, 1, −1) = 0, exactly."""
    data = regression_data(n, dependent=True)
    return Given(regression, critical.find(regression, np.zeros(3), data).params, {"degenerate", *UNDETERMINED}, data)


CASES["dependent_column_of_many_data"] = lambda: dependent_column(100_000)


@case
def captured_dependent_column_of_many_data():
    given = dependent_column(20_000)
    return given._replace(fun=lambda p: regression(p, *given.args), args=())


@cousin
def independent_columns_of_many_data():
    x, y = regression_data(100_000, dependent=False)
    return Given(regression, np.linalg.lstsq(x, y)[0], {"minimum"}, (x, y))


absorbed = lambda p, k, c: ((k + c) - c) * p[0] ** 2 / 2 + p[1] ** 2
# (κ + c) − c is κ > 0, and 0 in float64.
CASES["curvature_absorbed_by_a_constant"] = lambda: Given(
    absorbed, np.zeros(2), MINIMUM_OR_NONE, (np.float64(1e-10), np.float64(1e8))
)


@case
def curvature_absorbed_by_captured_constants():
    terms = np.array([1e8 / 3, 1e-10, 2e8 / 3, -1e8 / 3, 2e-10, -2e8 / 3])
    assert math.fsum(terms) > 0
    fun = lambda p: jnp.sum(terms) * p[0] ** 2 / 2 + p[1] ** 2
    return Given(fun, np.zeros(2), MINIMUM_OR_NONE)


def large_curvatures(p, large, s, square):
    return large * (s * p[0]) ** 2 / square - large * p[0] ** 2 + p[1] ** 2


@pytest.mark.parametrize("seed", [2, 5, 16, 31, 39])
@pytest.mark.parametrize("evidence", ["dense", "lanczos"])
def test_the_difference_of_two_large_curvatures_has_its_own_sign_or_none(evidence, seed):
    generator = np.random.default_rng(seed)
    s, large = np.float64(generator.uniform(0.5, 2)), np.float64(1e8 * generator.uniform(0.5, 2))
    # Half of the second derivative along x, exactly.
    half = Fraction(large) * Fraction(s) ** 2 / Fraction(s * s) - Fraction(large)
    assert 0 < abs(half) < 1e-8
    admissible = {"minimum" if half > 0 else "saddle", *UNDETERMINED}
    assert said(Given(large_curvatures, np.zeros(2), admissible, (large, s, s * s)), evidence) in admissible


# (x + c) − c is x, and in float64 a staircase of steps of 1.5e-8.
CASES["coordinate_absorbed_by_a_constant"] = lambda: Given(
    lambda p, c: 1e-10 * ((p[0] + c) - c) ** 2 / 2 + p[1] ** 2, np.zeros(2), MINIMUM_OR_NONE, (np.float64(1e8),)
)
COUSINS["constant_that_absorbs_nothing"] = lambda: Given(
    absorbed, np.zeros(2), {"minimum"}, (np.float64(1.0), np.float64(1e8))
)


# --- 11. An eigenvalue that the step hides
def hidden(p, small):
    x, y = p[0] - 1, p[1]
    return x**2 / 2 + small * y**2 / 2 + x * y**2 + y**3 + jnp.sum((p[2:] - 1) ** 2) / 2


# At (1, 0, 1, …) the Hessian is diag(1, small, 1, …).
HIDDEN = np.r_[1 + 1e-4, 0.0, np.ones(63)]
CASES["eigenvalue_hidden_by_the_step"] = lambda: Given(hidden, HIDDEN, MINIMUM_OR_NONE, (np.float64(1e-4),))
COUSINS["eigenvalue_that_the_step_does_not_hide"] = lambda: Given(hidden, HIDDEN, {"minimum"}, (np.float64(1.0),))


@case
def eigenvalue_hidden_by_the_step_with_much_data():
    fun = lambda p, small, data: hidden(p, small) + jnp.sum(data) * p[2] ** 2
    args = (np.float64(1e-4), np.zeros(30_000))
    return Given(fun, HIDDEN[:4], MINIMUM_OR_NONE, args)


# --- 12. Params that are tiny beside the data
mixture = lambda mu, y: -jnp.sum(jax.nn.logsumexp(-((y[:, None] - mu) ** 2) / 2, axis=1))


@case
def params_tiny_beside_the_data():
    """Along μ = t (−1, 1) the function is t² − 2 log cosh t = t⁴/6 − …: critical at 0 only, and singular there."""
    a = 5.01611696e-6
    return Given(mixture, np.array([-a, a]), {"degenerate", *NO_POINT}, (np.array([-1.0, 1.0]),))


@cousin
def params_as_large_as_the_data():
    """The minimum t = 3 tanh 3t lies far from 0."""
    t = 3.0
    for _ in range(100):
        t = 3 * math.tanh(3 * t)
    return Given(mixture, np.array([-t, t]), {"minimum"}, (np.array([-3.0, 3.0]),))


# --- 13. Coordinates of very different sizes
FAR = np.array([1e6, 1e6, 1e6, 0.0])
# e^y has no critical point.
CASES["slope_beside_large_coordinates"] = lambda: Given(
    lambda p: jnp.sum((p[:-1] - 1e6) ** 2) / 2 + 1e-10 * jnp.exp(p[-1]), FAR, NO_POINT
)
COUSINS["curvature_beside_large_coordinates"] = lambda: Given(
    lambda p: jnp.sum((p[:-1] - 1e6) ** 2) / 2 + jnp.cosh(p[-1]), FAR, {"minimum"}
)


# --- 14. A Hessian that is right at params only
@case
def constant_hessian_of_an_exponential():
    """e^x has no critical point."""
    options = {"hessian": lambda p: np.diag([1.0, 2.0])}
    return Given(lambda p: jnp.exp(p[0]) + p[1] ** 2, np.zeros(2), {"error", *NO_POINT}, options=options)


@cousin
def right_hessian():
    options = {"hessian": lambda p: jnp.diag(jnp.stack([jnp.cosh(p[0]), 2.0 + 0 * p[0]]))}
    return Given(lambda p: jnp.cosh(p[0]) + p[1] ** 2, np.array([0.1, 0.0]), {"minimum"}, options=options)


# --- 15. Derivatives that are not those of the value
falling = jax.custom_jvp(lambda x: -(x**2))
falling.defjvp(lambda primals, tangents: (falling(*primals), 2 * primals[0] * tangents[0]))  # that of x²
rising = jax.custom_jvp(lambda x: x**2)
rising.defjvp(lambda primals, tangents: (rising(*primals), 2 * primals[0] * tangents[0]))
# The value is x² + y² + 3xy, of eigenvalues −1 and 5.
CASES["stopped_gradient"] = lambda: Given(
    lambda p: p[0] ** 2 + p[1] ** 2 + 3 * jax.lax.stop_gradient(p[0]) * p[1], np.zeros(2), {"saddle", *LIE}
)


@case
def two_stopped_gradients():
    """The traced Hessian, diag(2, 2), is symmetric; that of the value has eigenvalues −4 and 8."""
    stop = jax.lax.stop_gradient
    fun = lambda p: p[0] ** 2 + p[1] ** 2 + 3 * stop(p[0]) * p[1] + 3 * stop(p[1]) * p[0]
    return Given(fun, np.zeros(2), {"saddle", *LIE})


@case
def straight_through_rounding():
    """The value does not depend on x between −½ and ½."""

    def fun(p):
        x = p[0] + jax.lax.stop_gradient(jnp.round(p[0]) - p[0])
        return x**2 + p[1] ** 2

    return Given(fun, np.zeros(2), {"degenerate", *LIE})


CASES["custom_jvp_of_the_wrong_sign"] = lambda: Given(
    lambda p: falling(p[0]) + p[1] ** 2, np.zeros(2), {"saddle", *LIE}
)
COUSINS["custom_jvp_of_the_right_sign"] = lambda: Given(lambda p: rising(p[0]) + p[1] ** 2, np.zeros(2), {"minimum"})


@cousin
def stopped_gradient_of_a_shift():
    """log Σ e^x − x̄ + |x|²/2 with the usual shift, which leaves the value as it is."""

    def fun(p):
        shift = jax.lax.stop_gradient(jnp.max(p))
        return jnp.log(jnp.sum(jnp.exp(p - shift))) + shift - jnp.mean(p) + jnp.sum(p**2) / 2

    return Given(fun, np.zeros(3), {"minimum"})


# --- 16. Coarser arithmetic inside
@jax.custom_vjp
def saved_in_bfloat16(p, matrix):
    """Return ½ |A p|², with residuals saved as bfloat16."""
    return jnp.sum((matrix @ p) ** 2) / 2


def _save(p, matrix):
    return saved_in_bfloat16(p, matrix), ((matrix @ p).astype(jnp.bfloat16), matrix)


def _use(saved, cotangent):
    residual, matrix = saved
    return cotangent * (residual.astype(matrix.dtype) @ matrix), jnp.zeros_like(matrix)


saved_in_bfloat16.defvjp(_save, _use)


def through_complex64(p, matrix):
    product = (matrix.astype(jnp.complex64) @ p.astype(jnp.complex64)).astype(jnp.complex128)
    return jnp.sum(jnp.real(product * jnp.conj(product))) / 2


through_reduced_precision = lambda p, matrix: jnp.sum(jax.lax.reduce_precision(matrix @ p, 8, 7) ** 2) / 2


def conditioned(smallest: float) -> np.ndarray:
    """Return a matrix of singular values from 1 to `smallest`."""
    generator = np.random.default_rng(0)
    left, right = (np.linalg.qr(generator.standard_normal((6, 6)))[0] for _ in range(2))
    return (left * np.geomspace(1, smallest, 6)) @ right


CASES["sum_of_squares_through_complex64"] = lambda: Given(
    through_complex64, np.zeros(6), MINIMUM_OR_NONE, (conditioned(1e-6),)
)
# Its values are a staircase.
CASES["sum_of_squares_through_reduced_precision"] = lambda: Given(
    through_reduced_precision, np.zeros(6), {"minimum", "nonsmooth", *UNDETERMINED}, (conditioned(1e-5),)
)
CASES["sum_of_squares_through_a_custom_vjp_in_bfloat16"] = lambda: Given(
    saved_in_bfloat16, np.zeros(6), MINIMUM_OR_NONE, (conditioned(1e-5),)
)
COUSINS["well_conditioned_sum_of_squares_through_complex64"] = lambda: Given(
    through_complex64, np.zeros(6), {"minimum"}, (conditioned(0.3),)
)

# --- 17 and 18. Near the ends of float64
scaled_saddle = lambda p, size: size * (p[0] ** 2 - p[1] ** 2)
CASES["saddle_at_the_small_end"] = lambda: Given(scaled_saddle, np.zeros(2), SADDLE_OR_NONE, (np.float64(1e-308),))
CASES["saddle_at_the_small_end_away_from_zero"] = lambda: Given(
    lambda p: 1e-308 * ((p[0] - 1) ** 2 - (p[1] - 2) ** 2), np.array([1.0, 2.0]), SADDLE_OR_NONE
)
CASES["saddle_at_the_large_end"] = lambda: Given(scaled_saddle, np.zeros(2), SADDLE_OR_NONE, (np.float64(1e300),))
COUSINS["small_saddle"] = lambda: Given(scaled_saddle, np.zeros(2), {"saddle"}, (np.float64(1e-100),))
COUSINS["bowl_at_the_smallest_number"] = lambda: Given(bowl, np.array([np.finfo(float).tiny, 0.0, 0.0]), {"minimum"})
COUSINS["bowl_below_the_smallest_number"] = lambda: Given(bowl, np.array([-2.2e-308, 0.0, 0.0]), {"minimum"})


# --- 19. A tilt against a symmetry
def tilted_ring(p, tilt):
    return (p[0] ** 2 + p[1] ** 2 - 1) ** 2 / 4 + tilt * p[0] + jnp.sum(p[2:] ** 2) / 2


def turn(p):
    return jnp.zeros((1, len(p)), p.dtype).at[0, 0].set(-p[1]).at[0, 1].set(p[0])


def on_the_ring(tilt: float) -> Given:
    """(r² − 1) x + tilt = 0 at y = 0, x > 0, where the curvature along y is r² − 1 = −tilt / x: index 1."""
    point = np.zeros(65)
    point[0] = 1.0
    for _ in range(20):
        point[0] -= ((point[0] ** 2 - 1) * point[0] + tilt) / (3 * point[0] ** 2 - 1)
    return Given(tilted_ring, point, {"saddle"}, (np.float64(tilt),), options={"symmetries": turn})


CASES["tilt_too_small_to_see"] = lambda: on_the_ring(1e-15)._replace(admissible=SADDLE_OR_NONE)
COUSINS["tilt_that_is_seen"] = lambda: on_the_ring(1e-3)
COUSINS["no_tilt"] = lambda: on_the_ring(0.0)._replace(admissible={"minimum modulo symmetry"})
