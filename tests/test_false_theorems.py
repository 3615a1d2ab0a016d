"""No theorem is false: corners that the Hessian does not show, wrong derivative rules, changed claims."""

import dataclasses
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import constructed_theorems
from mlp_jax import interval, losses, mlp, penalties, tree
from mlp_jax.interval import ball, multiprecision
from mlp_jax.interval.ball import Ball
from mlp_jax.interval.interpreter import Tie, evaluate
from mlp_jax.interval.program import flatten

pytestmark = pytest.mark.implicit_promotion  # functions as users write them


@pytest.mark.slow
def test_theorems_about_constructed_functions_are_true_and_smooth_ones_are_proved():
    tallies = constructed_theorems.run(36, seed=5)
    assert [name for tally in tallies.values() for name in tally.false] == []
    for family in ("smooth closed form", "maximum that cancels"):
        assert tallies[family].refused == []
        assert tallies[family].proved == tallies[family].cases >= 6
    assert tallies["corner near the point"].proved > 0
    assert tallies["close to singular"].together > 0
    assert tallies["wrong derivative"].together == 0
    assert tallies["close to singular"].proved > 0
    assert tallies["wrong derivative"].proved == 0


@pytest.mark.parametrize("name", sorted(constructed_theorems.CORNERS))
def test_no_point_on_a_corner_or_a_jump_is_proved_whatever_its_size(name):
    corner = constructed_theorems.CORNERS[name]

    def fun(x, part):
        return x[0] ** 2 - x[1] ** 2 + part * (corner(x[0]) + corner(-x[0]))

    for part in (-1.0, 1e-30):
        assert not interval.certify(fun, np.zeros(2), (np.float64(part),)).proved


def test_uniqueness_ends_before_the_corner_between_mirrored_points():
    # x² − 2|x| has minima at ±1, and Σ w⁴/4 − w²/2 + .05 |w| has maxima at ± a root near .05; both have a corner at 0.
    double = interval.certify(lambda x: x**2 - 2 * jnp.abs(x), np.array(1.0))
    assert (double.proved, double.kind) == (True, "minimum")
    assert 0.4 < double.unique_radius < 1

    def decayed(w):
        return jnp.sum(w**4 / 4 - w**2 / 2) + penalties.l1(w, 0.05)

    root = min(np.roots([1, 0, -1, 0.05]), key=lambda r: abs(r - 0.05)).real
    proof = interval.certify(decayed, np.array([root]))
    assert (proof.proved, proof.kind) == (True, "maximum")
    assert 0.02 < proof.unique_radius < root


@pytest.mark.parametrize("name", sorted(constructed_theorems.TIED))
@pytest.mark.parametrize("classes", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_a_maximum_that_cancels_is_proved_at_a_tie_with_the_value_and_eigenvalues_in_closed_form(name, classes):
    function = constructed_theorems.TIED[name]
    proof = interval.certify(lambda t: function(t) + jnp.sum(t * t) / 4, np.zeros(classes))
    assert proof.proved, proof.reason
    known = (proof.loss, np.log(classes)), (proof.smallest, 0.5), (proof.largest, 0.5 + 1 / classes)
    for (low, high), value in known:
        assert low - 1e-15 <= value <= high + 1e-15
    assert proof.unique_radius > 1e-3
    assert "does not depend on the maxima that a box leaves open" in str(proof)


def test_balanced_classes_without_inputs_are_proved_at_tied_logits():
    # All logits are equal at the minimum: the penalised mean cross-entropy is log 3 there.
    inputs, targets = np.tile(np.eye(2), (3, 1)), np.repeat(np.arange(3), 2)

    def fun(params, x, y):
        return losses.mean(losses.cross_entropy(mlp.forward(params, x), y)) + 0.05 * tree.dot(params, params)

    zeros = (mlp.Layer(np.zeros((2, 3)), np.zeros(3)),)
    proof = interval.certify(fun, zeros, (inputs, targets))
    assert (proof.proved, proof.kind) == (True, "minimum"), proof.reason
    assert proof.loss[0] <= np.log(3) <= proof.loss[1]
    assert interval.check(proof, fun, zeros, (inputs, targets)).proved


def test_active_minima_and_clips_are_proved_away_from_their_corners():
    def fun(x):
        return jnp.minimum(x[0] ** 2, 4.0) + jnp.clip(x[1], -1.0, 1.0) ** 2 - jnp.min(jnp.stack([x[2], 5.0])) ** 2

    proof = interval.certify(fun, np.zeros(3))
    assert (proof.proved, proof.index) == (True, 1), proof.reason
    assert proof.unique_radius < 1


def test_a_tiny_part_of_a_maximum_is_a_dependence_on_it():
    fun = lambda x, a: jnp.sum(x**2) + a * jnp.max(x)
    for part in (1e-12, 1e-60):
        proof = interval.certify(fun, np.zeros(2), (np.float64(part),))
        assert "fun depends on which it is" in proof.reason or "not at a critical point" in proof.reason
        assert not proof.proved


KEY = jax.random.key(0)
NOT_ENCLOSED = {
    "key": (lambda x: x[0] * jax.random.uniform(jax.random.key(0), dtype=x.dtype), "random keys cannot be enclosed"),
    "permutation": (lambda x: x[jax.random.permutation(jax.random.key(0), 1)][0], "random keys cannot be enclosed"),
    "captured key": (lambda x: x[0] * jax.random.uniform(KEY, dtype=x.dtype), "random key"),
    "complex": (lambda x: jnp.real(1j * jnp.exp(1j * x[0])), "complex128"),
    "table": (lambda x: jnp.asarray([1.0, 2.0])[x[0].astype(int)], "a conversion to int"),
    "callback": (
        lambda x: x[0] * jax.pure_callback(lambda: np.int64(1), jax.ShapeDtypeStruct((), np.int64)),
        "pure_callback: this primitive is not supported",
    ),
    "while": (lambda x: jax.lax.while_loop(lambda c: c[0] < 3, lambda c: c + 1, x)[0], "while: this primitive is not"),
    "no number": (lambda x: jnp.log(-1.0), "infinite"),
    "infinity": (lambda x: jnp.inf, "infinite"),
    "no number by a choice": (lambda x: jnp.where(jnp.asarray(True), jnp.nan, x[0]), "infinite"),
}


@pytest.mark.parametrize("name", NOT_ENCLOSED)
def test_what_has_no_enclosure_or_no_finite_value_is_refused_by_name(name):
    part, words = NOT_ENCLOSED[name]
    proof = interval.certify(lambda x: jnp.sum(x**2) + part(x), np.zeros(1))
    assert not proof.proved
    assert words in proof.reason


def test_a_rule_for_reverse_mode_alone_is_proved_if_right_and_refused_if_wrong():
    for factor, right in ((2.0, True), (-2.0, False)):

        @jax.custom_vjp
        def squared(x):
            return jnp.sum(x * x)

        # The forward pass calls the function itself, so that its gradient has no forward mode.
        squared.defvjp(lambda x, f=squared: (f(x), x), lambda x, g, c=factor: (g * c * x,))
        proof = interval.certify(squared, np.zeros(2))
        assert (proof.proved, proof.kind) == ((True, "minimum") if right else (False, "not proved")), proof.reason


def test_rules_that_are_wrong_on_one_side_of_a_corner_next_to_the_point_are_found():
    # t² − 6e-5 t has its minimum at 3e-5; with the rule 3t it is at 2e-5. Left of 1e-5 the rule is right.
    ruled = constructed_theorems.ruled(lambda t: t * t, lambda t, v: jnp.where(t < 1e-5, 2 * t, 3 * t) * v)
    fun = lambda x, shift: ruled(x[0] - shift) - 6e-5 * x[0] + x[1] ** 2
    for shift in (0.25, -0.25, 1.0):
        proof = interval.certify(fun, np.array([shift + 2e-5, 0.0]), (np.float64(shift),), reach=1e-7)
        assert not proof.proved
        assert "the gradient is not that of fun" in proof.reason


@pytest.fixture(scope="module")
def saddle():
    def fun(x, a):
        return jax.nn.logsumexp(x) - jnp.mean(x) + x @ a @ x / 2

    args = (np.diag([1.0, -2.0, 3.0]),)
    return fun, args, interval.certify(fun, np.zeros(3), args)


def test_the_same_claim_and_a_weaker_one_are_proved_again(saddle):
    fun, args, proof = saddle
    assert interval.check(proof, fun, np.ones(3), args).proved
    weaker = dataclasses.replace(
        proof,
        loss=(proof.loss[0] - 1, proof.loss[1] + 1),
        radius=2 * proof.radius,
        unique_radius=proof.unique_radius / 2,
    )
    assert interval.check(weaker, fun, np.ones(3), args).proved


@pytest.mark.parametrize("name", ["smallest", "nearest", "largest", "loss"])
def test_an_interval_that_was_narrowed_or_only_touches_does_not_pass(saddle, name):
    fun, args, proof = saddle
    low, high = getattr(proof, name)
    middle, width = (low + high) / 2, high - low
    touching = (high, high + width), (low - width, low)
    for changed in ((middle, high), (low, middle), *touching, (middle, middle), (high + 1, low - 1)):
        again = interval.check(dataclasses.replace(proof, **{name: changed}), fun, np.zeros(3), args)
        assert not again.proved
        assert f"the {name} is in" in again.reason


def test_a_certificate_that_says_something_else_does_not_pass_the_check(saddle):
    fun, args, proof = saddle
    assert interval.certify(fun, np.zeros(3), args, wide=False).proved
    for change, words in (
        ({"radius": proof.radius / 2}, "radii proved now"),
        ({"radius": np.nan}, "is undefined"),
        ({"unique_radius": 4 * proof.unique_radius + 10}, "the box does not decide"),
        ({"assumptions": proof.assumptions[:-1]}, "it is assumed that"),
        ({"index": 0}, "the index is 1"),
        ({"null": 1}, "the index is 1 with 0 zeros"),
        ({"location": np.full(3, 0.1)}, "is undefined"),
        ({"data": "0"}, "args are not the numbers"),
        *(({"precision": bits}, f"its precision is {bits} bits") for bits in (2**40, 0, 1)),
    ):
        again = interval.check(dataclasses.replace(proof, **change), fun, np.zeros(3), args)
        assert not again.proved
        assert words in again.reason


def test_the_nearest_of_equal_eigenvalues_does_not_depend_on_rounding():
    # ±2 are equally near to 0; rotated, neither is computed exactly.
    generator = np.random.default_rng(0)
    fun = lambda x, a: x @ a @ x / 2
    for _ in range(5):
        rotation = np.linalg.qr(generator.standard_normal((4, 4)))[0]
        matrix = (rotation * np.array([2.0, -2.0, 5.0, 2.0])) @ rotation.T
        assert interval.certify(fun, np.zeros(4), ((matrix + matrix.T) / 2,)).nearest[1] < 0


def test_a_proof_holds_neither_the_function_nor_its_data():
    def prove():
        data = np.linspace(0.0, 1.0, 10)

        def fun(x):
            return jnp.sum((x - jnp.mean(jnp.asarray(data))) ** 2) + jax.nn.softplus(x[0])

        assert interval.certify(fun, np.full(2, 0.5), reach=1.0).proved
        return weakref.ref(fun), weakref.ref(data)

    held = prove()
    gc.collect()
    assert [reference() for reference in held] == [None, None]


def test_numbers_in_place_of_open_maxima_are_used():
    with jax.enable_x64(True):
        program = flatten(jax.make_jaxpr(lambda x: 3.0 * jnp.max(x))(jnp.zeros(2)))
    ties: dict = {}
    box = Ball(np.zeros(2), np.ones(2))
    evaluate(program, [box], ball, ties)
    ((number, tie),) = ties.items()
    assert tie.open.all()
    other = Tie(tie.open, multiprecision.exact(np.array(7.0)))
    found = evaluate(program, [np.zeros(2)], multiprecision, instead={number: other})[0]
    assert float(found[()]) == 21.0
