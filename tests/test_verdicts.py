"""classify: never a wrong name, on critical points whose type is known from elsewhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ground_truth import (
    counts,
    exact,
    linear_classes,
    linear_network,
    orthogonal_residual,
    series_hessian,
    series_network,
)

from mlp_jax import critical, losses, mlp, penalties, tree
from mlp_jax.critical.evidence import extremes, measurements
from mlp_jax.curvature import signs

SLOW = pytest.mark.slow


def kind_of(inertia):
    negative, _, positive = inertia
    return "saddle" if negative and positive else "minimum" if positive else "maximum"


ACTIVATIONS = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "softplus": jax.nn.softplus}


def linear_loss(params, inputs, targets):
    first, second = params
    return jnp.sum((inputs @ first @ second - targets) ** 2) / (2 * len(inputs))


def gauge_tangents(hidden, params):
    """The GL(h) orbit: W1 → W1 (I + A), W2 → (I − A) W2 for each unit matrix A."""
    first, second = params
    units = jnp.eye(hidden * hidden, dtype=first.dtype).reshape(-1, hidden, hidden)
    return jnp.einsum("di,kij->kdj", first, units), -jnp.einsum("kij,jm->kim", units, second)


TANGENTS = functools.partial(gauge_tangents, 2)
NET = linear_network(5, 2, 4)
DATA = NET.inputs, NET.targets


# --- Two-layer linear networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "net", [NET, *(pytest.param(linear_network(*s), marks=SLOW) for s in ((4, 2, 4), (6, 3, 6), (3, 2, 5)))]
)
@pytest.mark.parametrize("cond", [1.0, 1e3])
def test_every_linear_class_has_the_closed_form_index_and_zeros_along_its_orbit(net, cond):
    for point in linear_classes(net, cond):
        verdict = critical.classify(linear_loss, point.params, (net.inputs, net.targets))
        total = tree.size(point.params)
        assert verdict.inertia[:3] == (point.index, point.zeros, total - point.index - point.zeros)
        assert verdict.kind == ("saddle" if point.index else "degenerate")
        assert verdict.index_range == (point.index, point.index + point.zeros)
        first, second = point.params
        loss = np.sum((net.inputs @ first @ second - net.targets) ** 2) / (2 * len(net.inputs))
        np.testing.assert_allclose(loss, point.loss, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cond", [1e4, 1e8])
def test_a_gauge_beyond_float64_gives_no_wrong_sign(cond):
    for point in linear_classes(NET, cond):
        verdict = critical.classify(linear_loss, point.params, DATA)
        total = tree.size(point.params)
        assert verdict.inertia.negative <= point.index
        assert verdict.inertia.positive <= total - point.index - point.zeros
        assert verdict.kind not in ("minimum", "maximum")
        if verdict.kind == "saddle":
            assert verdict.index_range[0] <= point.index <= verdict.index_range[1]


@pytest.mark.parametrize("eigenvectors", [True, False])
@pytest.mark.parametrize("cond", [1.0, 1e3])
def test_symmetry_explains_the_orbit_of_a_linear_class_with_eigenvectors_and_without(cond, eigenvectors, monkeypatch):
    if not eigenvectors:
        monkeypatch.setattr(measurements, "EIGENVECTOR_LIMIT", 0)
    for point in linear_classes(NET, cond):
        verdict = critical.classify(linear_loss, point.params, DATA, symmetries=TANGENTS)
        assert (verdict.inertia.negative, verdict.inertia.unresolved) == (point.index, point.zeros)
        assert verdict.kind == ("saddle" if point.index else "minimum modulo symmetry")
        if np.linalg.matrix_rank(point.params[0] @ point.params[1], tol=1e-6) == 2:
            assert (verdict.symmetries, verdict.index) == (4, point.index)


# --- Manufactured and tilted points -------------------------------------------------------------------------------


MADE = [("softplus", (2, 3, 1)), ("tanh", (2, 2, 2, 2, 1))]
REST = [(a, s) for a in ACTIVATIONS for s in ((2, 3, 1), (2, 2, 2, 1), (2, 2, 2, 2, 1)) if (a, s) not in MADE]


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "sizes"), [*MADE, *(pytest.param(*pair, marks=SLOW) for pair in REST)])
def test_manufactured_points_have_the_inertia_of_60_digit_arithmetic(activation, sizes, x64):
    forward = functools.partial(mlp.forward, activation=ACTIVATIONS[activation])
    theta, unravel = tree.ravel(mlp.init(jax.random.key(0), sizes, dtype=float))
    fun = lambda v, x, y: losses.mean(losses.squared_error(forward(unravel(v), x), y))
    outputs = lambda v, x: forward(unravel(v), x).ravel()
    both = jax.jit(lambda v, x: (outputs(v, x), jax.jacobian(outputs)(v, x)))
    # A Jacobian that is singular to float64 makes a point that float64 cannot place: draw another. Those of deep
    # networks are always near singular.
    gain, least = (2.0, 3e-8) if len(sizes) == 5 else (1.5, 1e-5)
    for seed in range(100):
        draw = np.random.default_rng(seed).standard_normal
        theta, inputs = gain * draw(theta.size), gain * draw((theta.size + 6, sizes[0]))
        values, jacobian = (np.asarray(a) for a in both(theta, inputs))
        singular = np.linalg.svd(jacobian, compute_uv=False)
        if singular[-1] > least * singular[0]:
            break
    for scale in (0.1, 3.0):
        residual = scale * orthogonal_residual(jacobian, seed=1) * np.sqrt(len(inputs))
        targets = (values - residual).reshape(-1, sizes[-1])

        def series_loss(vector):
            error = series_network(vector, sizes, inputs, activation) - exact(targets)
            return (error * error).sum() / (2 * len(inputs))

        truth = counts(series_hessian(series_loss, theta))
        verdict = critical.classify(fun, theta, (inputs, targets))
        assert verdict.inertia[:3] == truth
        assert verdict.kind == kind_of(truth)


@functools.cache
def tilted(sizes):
    """Return a loss tilted to be critical at a point and bent by its argument, the point, its Hessian, and a basis."""
    generator = np.random.default_rng(len(sizes))
    params = mlp.init(jax.random.key(1), sizes)
    theta, unravel = tree.ravel(params)
    x, y = generator.standard_normal((20, 3)), generator.integers(0, 3, 20)
    base = lambda v: losses.mean(losses.cross_entropy(mlp.forward(unravel(v), x), y))
    slope, bend = (np.asarray(a) for a in jax.jit(lambda v: (jax.grad(base)(v), jax.hessian(base)(v)))(theta))

    def fun(v, d):
        return base(v) - slope @ v + (v - theta) @ d @ (v - theta) / 2

    return fun, theta, bend, np.linalg.qr(generator.standard_normal((theta.size, theta.size)))[0]


@pytest.mark.parametrize("spectrum", [(1e-6, 1.0), (-1e-6, 1.0), (-2.0, -1e-3), (-1.0, 1.0)])
@pytest.mark.parametrize("sizes", [(3, 2, 3), *(pytest.param(s, marks=SLOW) for s in ((3, 2, 3, 3), (3, 2, 2, 2, 3)))])
def test_tilted_points_have_the_chosen_spectrum(spectrum, sizes, x64):
    fun, theta, hessian, rotation = tilted(sizes)
    low, high = spectrum
    values = np.geomspace(abs(low), abs(high), theta.size) * np.sign(high)
    if low < 0 < high:
        values[: theta.size // 3] = np.linspace(low, low / 2, theta.size // 3)
    tilt = (rotation * values) @ rotation.T - hessian
    verdict = critical.classify(fun, theta, ((tilt + tilt.T) / 2,))
    truth = int(np.sum(values < 0)), 0, int(np.sum(values > 0))
    assert verdict.inertia[:3] == truth
    assert verdict.kind == kind_of(truth)
    np.testing.assert_allclose([verdict.smallest, verdict.largest], [values.min(), values.max()], atol=1e-13)


@pytest.mark.slow
def test_splitting_a_unit_adds_one_zero_and_the_inertia_of_its_matrix():
    generator = np.random.default_rng(5)
    w, x = generator.standard_normal(2), generator.standard_normal((14, 2))
    out, share, extended = 1.2, 0.3, np.hstack([x, np.ones((14, 1))])
    z = x @ w + 0.3
    rise = 1 - np.tanh(z) ** 2
    jacobian = np.hstack([out * rise[:, None] * extended, np.tanh(z)[:, None], np.ones((14, 1))])
    residual = 2 * orthogonal_residual(jacobian, seed=2)
    y = (out * np.tanh(z) - 0.1 - residual)[:, None]

    def fun(p, x, y):
        return losses.mean(losses.squared_error(mlp.forward(p, x), y))

    matrix = (extended * (residual * out * -2 * np.tanh(z) * rise)[:, None]).T @ extended / 14
    inner = np.linalg.eigvalsh(share * (1 - share) * matrix)
    whole = jacobian.T @ jacobian / 14
    whole[:3, :3] += matrix
    whole[:3, 3] += extended.T @ (residual * rise) / 14
    whole[3, :3] = whole[:3, 3]
    values = np.r_[np.linalg.eigvalsh(whole), inner]  # of the unit before it is split, and of the split
    hidden = mlp.Layer(np.tile(w[:, None], (1, 2)), np.full(2, 0.3))
    split = hidden, mlp.Layer(np.array([[share * out], [(1 - share) * out]]), np.array([-0.1]))
    assert critical.classify(fun, split, (x, y)).inertia[:3] == (np.sum(values < 0), 1, np.sum(values > 0))


# --- Closed forms -------------------------------------------------------------------------------------------------

XOR = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([[0.0], [1.0], [1.0], [0.0]])


def xor_loss(params, decay):
    return losses.mean(losses.squared_error(mlp.forward(params, XOR[0]), XOR[1])) + penalties.l2(params, decay)


def xor_constant(value):
    """Return params that are zero but for the output bias."""
    return mlp.Layer(np.zeros((2, 2)), np.zeros(2)), mlp.Layer(np.zeros((2, 1)), np.array([value]))


@SLOW
def test_xor_at_zero_is_degenerate_and_falls_at_fourth_order():
    verdict = critical.classify(xor_loss, xor_constant(0.5), (0.0,))
    assert verdict.kind == "degenerate saddle"
    assert verdict.index is None
    assert verdict.inertia[:3] == (0, 8, 1)
    assert verdict.higher_order.order == 4
    assert verdict.higher_order.falls
    with jax.enable_x64(True):  # the loss falls, at fourth order
        vector, unravel = tree.ravel(xor_constant(0.5))
        steps = 0.3 * np.random.default_rng(0).standard_normal((2000, len(vector)))
        values = jax.vmap(lambda step: xor_loss(unravel(vector + step), 0.0))(steps)
        assert jnp.min(values) < xor_loss(xor_constant(0.5), 0.0)


@pytest.mark.parametrize("decay", [0.01, 0.4])
def test_the_spurious_minimum_of_xor_has_its_closed_form(decay):
    c = 0.5 / (1 + decay)
    verdict = critical.classify(xor_loss, xor_constant(c), (decay,))
    smallest = decay - abs(c - 0.5) * np.sqrt(1.5)
    assert verdict.kind == "minimum"
    assert verdict.index == 0
    np.testing.assert_allclose(verdict.smallest, smallest, rtol=1e-12)


def polynomial(x, coefficients):
    """One function for many polynomials, so that its programs are compiled once."""
    a, b = x
    powers = a, b, a**2, a * b, b**2, a**3, a * b**2, b**3, a * b**3, b**4, b**6, b**8
    return jnp.stack(powers) @ coefficients


def terms(**coefficients):
    """The coefficients of `polynomial`, by letters: terms(aa=1.0, bbbb=1.0) is a² + b⁴."""
    names = ["a", "b", "aa", "ab", "bb", "aaa", "abb", "bbb", "abbb", "bbbb", "b" * 6, "b" * 8]
    return (np.array([coefficients.pop(name, 0.0) for name in names]),)


def closed(kind, inertia, at=(0.0, 0.0), **coefficients):
    return polynomial, at, terms(**coefficients), kind, inertia


def valley(x):
    return x[0] ** 2 + jnp.exp(x[1])


CLOSED = {
    "minimum": closed("minimum", (0, 0, 2), aa=1.0, bb=1.0, ab=1.0),
    "maximum": closed("maximum", (2, 0, 0), aa=-1.0, bb=-2.0, ab=1.0, bbbb=-1.0),
    "saddle": closed("saddle", (1, 0, 1), ab=1.0),
    "monkey saddle": closed("degenerate saddle", (0, 2, 0), aaa=1.0, abb=-3.0),
    "quartic": closed("degenerate", (0, 1, 1), aa=1.0, bbbb=1.0),
    "quartic down": closed("degenerate saddle", (1, 1, 0), aa=-1.0, bbbb=1.0),
    "constant": closed("degenerate", (0, 2, 0), at=(1.0, 2.0)),
    "deep linear": (lambda x: (jnp.prod(x) - 1) ** 2, (0.0, 0.0, 0.0), (), "degenerate saddle", (0, 3, 0)),
    "tiny scale": closed("minimum", (0, 0, 2), aa=1e-200, bb=1e-200),
    "huge spread": closed("minimum", (0, 0, 2), aa=1e12, bb=1e-12),
    "slope": closed("not critical", None, a=1e-3, bb=1.0),
    "gradient-flat": closed("not critical", None, aaa=1.0, a=1e-6, bb=1.0),
    "valley": (valley, (0.0, -5.0), (), "not critical", None),
    "nearly flat": closed("minimum", (0, 0, 2), aa=1.0, bb=1e-9),
    "nearly flat saddle": closed("saddle", (1, 0, 1), aa=1 - 1e-9, bb=1 - 1e-9, ab=2 + 2e-9),
    "quartic saddle": closed("degenerate saddle", (0, 1, 1), aa=1.0, bbbb=-1.0),
    # (a − b²)(a − 2b²), Peano's: it rises on every line.
    "peano": closed("degenerate saddle", (0, 1, 1), aa=1.0, abb=-3.0, bbbb=2.0),
    # Order 6 is not examined: no claim.
    "sextic": closed("degenerate", (0, 1, 1), aa=1.0, bbbbbb=1.0),
    "sextic down": closed("degenerate", (0, 1, 1), aa=1.0, bbbbbb=-1.0),
    "quartic maximum": closed("degenerate", (1, 1, 0), aa=-1.0, bbbb=-1.0),
}


@pytest.mark.parametrize("eigenvectors", [True, False])
@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_get_their_names_with_eigenvectors_and_without(name, eigenvectors, monkeypatch):
    fun, at, args, kind, inertia = CLOSED[name]
    if not eigenvectors:
        monkeypatch.setattr(measurements, "EIGENVECTOR_LIMIT", 0)
        kind = kind.replace("degenerate saddle", "degenerate")
    verdict = critical.classify(fun, np.array(at), args)
    assert verdict.kind == kind
    assert inertia is None or verdict.inertia[:3] == inertia
    assert verdict.kind in str(verdict)
    if kind.startswith("degenerate") and verdict.inertia.negative:
        assert "not a minimum" in str(verdict)


def form(x, a):
    return x @ a @ x


def test_an_eigenvalue_below_rounding_is_never_given_a_sign():
    for tiny in (1e-17, -1e-17, 1e-19, -1e-19):
        # (x + y)² + tiny (x − y)² as a matrix whose entries round tiny away
        matrix = np.array([[2.0, 2.0], [2.0, 2.0]]) + 2 * tiny * np.array([[1.0, -1.0], [-1.0, 1.0]])
        verdict = critical.classify(form, jnp.zeros(2), (matrix / 2,))
        assert verdict.inertia[:3] == (0, 1, 1)
        assert verdict.kind in ("degenerate", "undetermined")


def test_an_explanation_of_no_critical_point_says_no_and_counts_the_error_at_the_point_alone():
    # The Newton step, of length 1, solves H p = −g.
    verdict = critical.classify(valley, np.zeros(2))
    first, second, _ = verdict.explain().splitlines()
    assert first.endswith("changes its signs: no.")
    assert "over the distance" not in second
    assert "The scaled Hessian here" in second
    assert "critical.find may reach one" in verdict.reason


# --- Kinks --------------------------------------------------------------------------------------------------------


def relu_loss(params, x, y, centre):
    outputs = mlp.forward(params, x, activation=jax.nn.relu)
    return jnp.sum((outputs - y) ** 2) + jnp.sum((tree.ravel(params)[0] - centre) ** 2)


def relu_pre_activations(params, x, *_):
    return x @ params[0].weight + params[0].bias


def test_a_relu_network_is_classified_away_from_its_kink_and_nonsmooth_on_it():
    x = np.array([[0.5], [1.0], [2.0], [-0.4], [0.1]])
    unit = lambda w, b, v: (mlp.Layer(np.array([[w]]), np.array([b])), mlp.Layer(np.array([[v]]), np.zeros(1)))
    away, dead = (unit(1.0, 3.0, 1.0), np.array([1.0, 3.0, 1.0, 0.0])), (unit(0.0, 0.0, 0.0), np.zeros(4))
    for (params, centre), y, kinks, kind in (
        (away, x + 3, relu_pre_activations, "minimum"),
        (dead, x - 0.12, relu_pre_activations, "nonsmooth"),
        (dead, x - 0.12, None, "nonsmooth"),
    ):
        assert critical.classify(relu_loss, params, (x, y, centre), kinks=kinks).kind == kind


def kinked(x, curvature, even, one_sided):
    return x @ (curvature * x) / 2 + even @ jnp.abs(x) + one_sided * jax.nn.relu(x[0])


@pytest.mark.parametrize("evidence", ["dense", "lanczos"])
@pytest.mark.parametrize(
    ("curvature", "even", "one_sided"),
    [
        *(((curvature, 2.0), (slope, 0.0), 0.0) for curvature in (1.0, -1.0) for slope in (1e-12, 1e-2)),
        *(((2.0, 2.0), (0.0, 0.0), slope) for slope in (0.5, 2.0)),
        ((0.0, 0.0), (1.0, 1.0), 0.0),
    ],
)
def test_a_kink_under_the_point_is_noticed_however_small_its_slope(curvature, even, one_sided, evidence):
    args = (np.array(curvature), np.array(even), np.float64(one_sided))
    assert critical.classify(kinked, np.zeros(2), args, evidence=evidence).kind == "nonsmooth"


# --- Precision ----------------------------------------------------------------------------------------------------


def test_float32_callers_get_float64_verdicts_and_keep_their_configuration():
    assert not jax.config.jax_enable_x64
    verdict = critical.classify(polynomial, np.zeros(2, np.float32), terms(aa=1.0, bb=1e-9, ab=1e-6))
    assert verdict.kind == "minimum"
    np.testing.assert_allclose(verdict.smallest, 2e-9 - 5e-13, rtol=1e-6)
    assert verdict.bound < 1e-13
    assert not jax.config.jax_enable_x64
    assert jnp.ones(1).dtype == jnp.float32


@pytest.mark.implicit_promotion
def test_float32_inside_the_function_is_noticed_and_nothing_finer_is_resolved():
    def inside(x, a):
        low = x.astype(jnp.float32)
        return (low @ a.astype(jnp.float32) @ low).astype(x.dtype)

    coarse, fine = np.diag([1.0, -1.0]), np.array([[1.0, 1.0], [1.0, 1.0 + 1e-9]])
    verdict = critical.classify(inside, jnp.zeros(2), (coarse,))
    assert verdict.kind == "saddle"
    assert "6.0e-08" in verdict.reason
    assert critical.classify(inside, jnp.zeros(2), (fine,)).kind == "undetermined"
    assert critical.classify(form, jnp.zeros(2), (fine,)).kind == "minimum"


# --- A given Hessian, and bad arguments ---------------------------------------------------------------------------


def test_a_hessian_of_another_function_is_refused():
    fun = lambda x, a, decay: form(x, a) + penalties.l2(x, decay)
    without_decay = lambda x, a, decay: a + a.T
    matrix = np.array([[1.0, 2.0], [2.0, -1.0]])
    with pytest.raises(ValueError, match="not the Hessian of fun"):
        critical.classify(fun, np.ones(2), (matrix, 1e-2), hessian=without_decay)
    assert critical.classify(fun, np.zeros(2), (matrix, 0.0), hessian=without_decay).kind == "saddle"


SQUARE = lambda x: jnp.sum(x**2)


@pytest.mark.parametrize(
    ("fun", "params", "args", "kind", "words"),
    [
        (SQUARE, {"a": np.array([np.inf])}, (), ValueError, r"params\['a'\]: got 1 numbers that are NaN or infinite"),
        (SQUARE, jnp.arange(3), (), TypeError, "params: .*dtype int32"),
        (SQUARE, jnp.array([1j]), (), TypeError, "params: .*dtype complex64"),
        (lambda x: x, np.ones(3), (), TypeError, r"fun: .*shape \(3,\)"),
        (3.0, np.ones(3), (), TypeError, "fun: got 3.0, expected a function"),
        (lambda x, y: x @ y, jnp.ones(2), jnp.ones(2), TypeError, "args: got .*, expected a tuple"),
        (lambda x, y: x @ y, jnp.ones(2), (np.array([1.0, np.nan]),), ValueError, r"args\[0\]: got 1 numbers"),
    ],
)
@pytest.mark.parametrize("entry", [critical.classify, critical.find])
def test_a_bad_argument_is_named(entry, fun, params, args, kind, words):
    with pytest.raises(kind, match=words):
        entry(fun, params, args)


def test_a_function_that_is_not_finite_has_no_verdict_and_its_searches_do_not_converge():
    powers = lambda x, power: jnp.sum(x**power)
    for power, words in ((-1.0, "a value of inf at params, expected"), (0.5, "gradient components that are NaN")):
        with pytest.raises(ValueError, match=words):
            critical.classify(powers, np.zeros(2), (power,))
    assert not critical.find(powers, np.zeros(2), (0.5,)).converged


# --- Symmetries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("falling", [{"bbbb": -1.0}, {"bbbbbbbb": -1.0}, {"bbbbbb": -1e-6}])
def test_a_direction_that_is_not_a_symmetry_explains_no_null_mode_however_flat(falling):
    # At the origin and elsewhere: fun falls along the second axis, and the given tangents are false.
    coefficients = terms(aa=1.0, **falling)[0]
    for at, beside in ((0.0, 0.0), (0.5, 0.0), (0.0, 1e-6)):
        shift, point = np.array([0.0, at]), np.array([beside, at])
        verdict = critical.classify(moved, point, (coefficients, shift), symmetries=lambda x: jnp.eye(2))
        assert verdict.symmetries == 0
        assert "minimum" not in verdict.kind


def moved(x, coefficients, shift):
    return 1 + polynomial(x - shift, coefficients)


def test_a_null_mode_that_256_bits_see_is_not_explained_by_a_false_tangent():
    # Negative curvature of 4e-25, which no test in float64 can see.
    fun = lambda p: (p[0] + p[1]) ** 2 - 1e-25 * (p[0] - p[1]) ** 2
    for point in ([0.0, 0.0], [0.5, -0.5]):
        verdict = critical.classify(fun, jnp.array(point), symmetries=lambda p: jnp.array([[1.0, -1.0]]))
        assert "minimum" not in verdict.kind


def test_a_dead_unit_is_a_symmetry_near_the_point_and_explains_its_null_modes():
    # Two ReLU units on inputs above 0: the second is dead, and its parameters do nothing until it wakes.
    x = np.array([[1.0], [2.0], [3.0]])

    def fun(p, x, y):
        hidden = jax.nn.relu(x * p[:2] + jnp.array([0.5, -9.0]))
        return jnp.mean((hidden @ p[2:4] - y) ** 2) + (p[0] - 1) ** 2 + (p[2] - 1) ** 2

    dead = lambda p: jnp.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    verdict = critical.classify(fun, np.array([1.0, 0.3, 1.0, 0.4]), (x, x[:, 0] + 0.5), symmetries=dead)
    assert verdict.symmetries == 2
    assert verdict.kind == "minimum modulo symmetry"


def test_extreme_eigenvalues_of_large_matrices_are_those_of_all():
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.standard_normal((200, 200)))[0]
    size = np.geomspace(1e-6, 1, 200)
    few = np.where(np.arange(200) % 70 == 60, -1.0, 1.0)
    for sides in (np.ones(200), generator.choice([-1.0, 1.0], 200), -np.ones(200), few):
        matrix = (rotation * (size * sides)) @ rotation.T
        matrix = (matrix + matrix.T) / 2
        scale = signs.scaling(matrix)
        up = signs.above(matrix, scale, np.zeros(200), 16.0)
        found, values = extremes.extremes(matrix, scale, up), np.linalg.eigvalsh(matrix)
        np.testing.assert_allclose(found, values[[0, -1]], rtol=1e-3, atol=1e-9)
