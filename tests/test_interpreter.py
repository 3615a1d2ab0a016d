"""The interpreter: its results contain the truth, and an unknown primitive is refused by name."""

import ground_truth
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from benchmarks import soundness
from mlp_jax import curvature, losses, mlp, tree
from mlp_jax.interval import ball, enclosures, multiprecision
from mlp_jax.interval.ball import Ball, Refusal
from mlp_jax.interval.interpreter import evaluate
from mlp_jax.interval.program import flatten


def test_random_compositions_hold_the_50_digit_values_and_gradients():
    count = soundness.run(1000, seed=1)
    assert count.missed == 0
    assert count.points == 3 * count.cases >= 3000
    assert count.widest > 0


def test_the_comparison_with_50_digits_would_notice_radii_a_tenth_too_small(monkeypatch):
    outward = ball.outward

    def shrunk(mid, rad, *rest, **named):
        found = outward(mid, rad, *rest, **named)
        return Ball(found.mid, 0.1 * found.rad)

    monkeypatch.setattr(ball, "outward", shrunk)
    assert soundness.run(100, seed=1).missed > 10


def program_of(fun, *values):
    return flatten(jax.make_jaxpr(fun)(*values))


def on_box(fun, mid, radius):
    box = Ball(np.asarray(mid, dtype=float), np.full(np.shape(mid), radius))
    with jax.enable_x64(True):
        return evaluate(program_of(fun, jnp.asarray(box.mid)), [box], ball)[0]


@pytest.mark.parametrize(
    ("fun", "words"),
    [
        (lambda x: jnp.sort(x), "sort: this primitive is not supported"),
        (lambda x: jax.lax.while_loop(lambda v: v[0] < 3, lambda v: v + 1, x), "while: this primitive is not"),
        (lambda x: jnp.where(x > 0.0, x, 2 * x), "gt: the box does not decide 1 of 2 comparisons"),
        (lambda x: jnp.sign(x), "sign: the box does not decide 1 of 2 signs"),
        (lambda x: x.astype(jnp.float32).astype(x.dtype), "computes in float32, expected float64"),
        (lambda x: 1.0 / x, "division"),
        (lambda x: jnp.log(x), "log: the box holds points where it is undefined"),
        (lambda x: jnp.exp(1e3 * (x + 1.0)), "exp: a value overflows"),
        (lambda x: (1e200 * x) * 1e200, "overflow"),
    ],
)
def test_a_refusal_names_the_primitive_and_the_reason(fun, words):
    with pytest.raises(Refusal, match=words):
        on_box(fun, [0.0, 1.0], 1e-3)


def test_the_angle_of_a_vector_holds_that_of_50_digits_and_is_refused_where_it_jumps():
    generator = np.random.default_rng(0)
    for mid in [*generator.standard_normal((20, 2)), np.array([0.3, 0.0]), np.array([0.0, -2.0])]:
        found = on_box(lambda v: jnp.arctan2(v[1], v[0]), mid, 1e-3)
        for corner in (mid, mid + 1e-3 * generator.choice([-1.0, 1.0], 2)):
            with mpmath.workdps(50):
                exact = mpmath.atan2(mpmath.mpf(corner[1]), mpmath.mpf(corner[0]))
                assert abs(exact - mpmath.mpf(float(found.mid))) <= mpmath.mpf(float(found.radius))
    for mid in ([-1.0, 0.0], [0.0, 0.0]):
        with pytest.raises(Refusal, match="atan2: the box holds points where it jumps"):
            on_box(lambda v: jnp.arctan2(v[1], v[0]), mid, 1e-3)


def test_a_diagonal_whose_branch_depends_on_the_platform_is_enclosed():
    found = on_box(lambda x: jnp.diagonal(jnp.outer(x, x)), [0.5, -3.0], 0.0)
    assert np.all(np.abs(found.mid - [0.25, 9.0]) <= found.radius)


def test_dead_comparisons_are_removed_before_they_could_be_undecided():
    with jax.enable_x64(True):
        gradient = jax.grad(lambda z: jax.nn.log_softmax(z)[0])
        program = program_of(lambda z, t: jax.jvp(gradient, (z,), (t,))[1], jnp.zeros(3), jnp.zeros(3))
    assert "eq" not in {equation.name for equation in program.equations}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "pieces"),
    [(jax.nn.relu, 1), (jax.nn.leaky_relu, 1), (mlp.maxout(2), 2), (lambda z: jnp.maximum(z, 0.1 * z), 1)],
)
def test_networks_with_corners_are_enclosed_away_from_them_and_refused_on_them(activation, pieces):
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((6, 3)), np.arange(6) % 2
    with jax.enable_x64(True):
        params = mlp.init(jax.random.key(0), (3, 4, 2), pieces=pieces, dtype=jnp.float64)

        def fun(p, x, y):
            return losses.mean(losses.cross_entropy(mlp.forward(p, x, activation=activation), y))

        traced, data = enclosures.trace(fun, params, (x, y))
        vector = np.asarray(tree.ravel(params)[0])
        found = enclosures.hessian(traced, Ball(vector, np.full(vector.shape, 1e-10)), data)
        expected = np.asarray(curvature.dense_hessian(fun, params, (x, y)))
        assert np.all(np.abs(found.mid - expected) <= found.radius + 1e-14)
        assert np.max(found.radius) < 1e-7
        with pytest.raises(Refusal, match="does not decide"):
            enclosures.hessian(traced, Ball(vector, np.full(vector.shape, 3.0)), data)


def test_scan_equals_its_loop_in_value_and_derivative():
    def scanned(x):
        return jax.lax.scan(lambda c, a: (jnp.tanh(c * a), c + a), 0.5, x, reverse=True)

    def looped(x):
        carry, kept = 0.5, []
        for a in x[::-1]:
            kept.append(carry + a)
            carry = jnp.tanh(carry * a)
        return carry, jnp.stack(kept[::-1])

    def total(fun):
        return lambda x: jax.grad(lambda v: fun(v)[0] + jnp.sum(fun(v)[1] ** 2))(x)

    x = np.array([0.3, -0.8, 1.2])
    with jax.enable_x64(True):
        found = evaluate(program_of(total(scanned), jnp.asarray(x)), [x], ball)[0]
        expected = np.asarray(jax.jit(total(looped))(x))
    assert np.all(np.abs(found.mid - expected) <= found.radius + 1e-15)
    assert np.max(found.radius) < 1e-14


SIZES = (2, 3, 2)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus"])
def test_hessian_enclosures_hold_the_60_digit_hessian_at_points_of_the_box(activation):
    generator = np.random.default_rng(0)
    inputs, targets = generator.standard_normal((4, 2)), generator.standard_normal((4, 2))
    with jax.enable_x64(True):
        params = mlp.init(jax.random.key(1), SIZES, dtype=jnp.float64)
        function = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "softplus": jax.nn.softplus}[activation]

        def fun(p, x, y):
            return jnp.sum(losses.squared_error(mlp.forward(p, x, activation=function), y))

        traced, data = enclosures.trace(fun, params, (inputs, targets))
        center = np.asarray(tree.ravel(params)[0])
        for radius in (0.0, 1e-9, 1e-3):
            box = Ball(center, np.full(center.shape, radius) if radius else None)
            found = enclosures.hessian(traced, box, data)
            point = center + 0.99 * radius * generator.uniform(-1, 1, center.shape)

            def exact_fun(theta):
                outputs = ground_truth.series_network(theta, SIZES, inputs, activation)
                return np.sum((outputs - ground_truth.exact(targets)) ** 2) / 2

            truth = ground_truth.series_hessian(exact_fun, point)
            # The oracle is right to 60 digits of the largest entries; some entries are exactly 0.
            assert all(
                abs(truth[i, j] - mpmath.mpf(found.mid[i, j])) <= mpmath.mpf(found.radius[i, j]) + mpmath.mpf("1e-55")
                for i in range(center.size)
                for j in range(center.size)
            )


def test_arb_and_float64_gradients_overlap_and_arb_is_narrow():
    generator = np.random.default_rng(2)
    x, y = generator.standard_normal((7, 3)), np.arange(7) % 2
    with jax.enable_x64(True):
        params = mlp.init(jax.random.key(0), (3, 4, 2), dtype=jnp.float64)

        def fun(p, x, y):
            return losses.mean(losses.cross_entropy(mlp.forward(p, x), y))

        traced, data = enclosures.trace(fun, params, (x, y))
        point = np.asarray(tree.ravel(params)[0])
        narrow = enclosures.gradient(traced, point, data, 128)
        wide = evaluate(traced.gradient, [point, *data], ball)[0]
        expected = np.asarray(jax.jit(lambda *given: tree.ravel(jax.grad(fun)(*given))[0])(params, x, y))
    assert np.all(np.abs(narrow.mid - wide.mid) <= narrow.radius + wide.radius)
    assert np.max(narrow.radius / np.abs(narrow.mid)) < 1e-15
    assert np.allclose(narrow.mid, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("fun", "known"),
    [
        (lambda x, y: jnp.logaddexp(x, y), True),
        (lambda x, y: jax.nn.softplus(x), True),
        (lambda x, y: jnp.log1p(jnp.exp(-jnp.abs(x))) + jnp.maximum(0.0, x), True),
        (lambda x, y: jnp.maximum(x, y) + jnp.log1p(jnp.exp(-jnp.abs(y - x))), True),
        (lambda x, y: jax.lax.scan(lambda c, a: (c, jnp.logaddexp(a, c)), y[0], x)[1], True),
        (lambda x, y: jax.vmap(jnp.logaddexp, (0, None))(x, y[0]), True),
        (lambda x, y: jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(y))), False),
        (lambda x, y: jnp.maximum(x, y) + jnp.log1p(jnp.exp(-jnp.abs(x))), False),
        (lambda x, y: jnp.maximum(x, y) + jnp.log1p(jnp.exp(-jnp.abs(x - 2 * y))), False),
        (lambda x, y: jnp.maximum(x, 1.0) + jnp.log1p(jnp.exp(-jnp.abs(x))), False),
        (lambda x, y: jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(jnp.abs(x))), False),
    ],
)
def test_exactly_the_sums_that_equal_logaddexp_are_evaluated_as_it(fun, known):
    x, y = np.array([0.3, -2.0, 0.0]), np.array([1.5, -2.0, 0.25])
    with jax.enable_x64(True):
        program = program_of(fun, jnp.asarray(x), jnp.asarray(y))
        found = evaluate(program, [x, y], ball)[0]
        expected = np.asarray(jax.jit(fun)(x, y))
    names = {equation.name for equation in program.equations}
    assert ("logaddexp" in names, "abs" in names) == (known, not known)
    assert np.all(np.abs(found.mid - expected) <= found.radius + 1e-15)


def test_integers_beyond_float64_and_random_keys_are_refused():
    with jax.enable_x64(True):
        program = program_of(lambda n: n.astype(jnp.float64), jnp.asarray(2**53 + 1))
        with pytest.raises(Refusal, match=r"above 2\^53"):
            evaluate(program, [np.asarray(2**53 + 1)], ball)
        key = jax.random.key(0)
        with pytest.raises(Refusal, match="random keys"):
            program_of(lambda x: x * jax.random.uniform(key, dtype=x.dtype), 1.0)


def test_both_scalars_know_that_a_maximum_equals_its_largest_operand():
    def fun(x):
        return jnp.where(x == jnp.max(x), x, 0.0)

    with jax.enable_x64(True):
        program = program_of(fun, jnp.zeros(3))
        box = Ball(np.array([1.0, 3.0, 2.0]), np.full(3, 0.1))
        for field, value in ((ball, box), (multiprecision, multiprecision.from_ball(box))):
            found = evaluate(program, [value], field)[0]
            mid = found.mid if field is ball else multiprecision.to_ball(found).mid
            assert mid.tolist() == [0.0, 3.0, 0.0]
        with pytest.raises(Refusal, match="eq: the box does not decide"):
            evaluate(program, [Ball(np.array([1.0, 3.0, 2.95]), np.full(3, 0.1))], ball)
