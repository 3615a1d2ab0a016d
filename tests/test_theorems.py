"""certify proves what is true, refuses what is not, and never the other way round."""

import dataclasses

import flint
import ground_truth
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_verdicts import DATA, NET, TANGENTS, XOR, linear_loss, tilted, xor_constant, xor_loss

from mlp_jax import critical, interval, losses, mlp, mlp_symmetry, tree


def xor_start(seed):
    return mlp.init(jax.random.key(seed), (2, 2, 1))


@pytest.mark.parametrize("decay", [0.01, 0.1])
def test_the_spurious_minimum_in_closed_form_is_proved_with_its_loss_and_eigenvalue(decay):
    bias = 0.5 / (1 + decay)
    proof = interval.certify(xor_loss, xor_constant(bias), (decay,))
    assert (proof.proved, proof.kind, proof.index, proof.null) == (True, "minimum", 0, 0)
    with flint.ctx.workprec(200):
        wd = flint.arb(decay)  # the float64 number, exactly
        c = flint.arb("0.5") / (1 + wd)
        loss = flint.arb("0.25") - flint.arb("0.125") / (1 + wd)
        least = wd - abs(c - flint.arb("0.5")) * flint.arb("1.5").sqrt()
        for value, (low, high) in ((loss, proof.loss), (least, proof.smallest), (least, proof.nearest)):
            assert value > low
            assert value < high
            assert high - low < 1e-12
        assert abs(c - float(proof.location[-1])) < proof.radius
    assert np.max(np.abs(proof.location[:-1])) <= proof.radius
    assert proof.radius < 1e-14
    assert proof.unique_radius > 1e-6


@pytest.mark.slow
def test_every_xor_point_found_from_random_starts_is_proved():
    proofs = {}
    for seed in range(40):
        start = jax.tree.map(lambda leaf: (0.5 + seed % 4) * np.asarray(leaf), xor_start(seed))
        point = critical.find(xor_loss, start, (0.01,))
        where = tuple(np.round(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(point.params)]), 9))
        if point.converged and where not in proofs:
            proofs[where] = interval.certify(xor_loss, point.params, (0.01,))
            verdict = critical.classify(xor_loss, point.params, (0.01,))
            assert verdict.index in (None, proofs[where].index)
    assert len(proofs) >= 10
    assert [proof.reason for proof in proofs.values() if not proof.proved] == []
    assert {0, 1} <= {proof.index for proof in proofs.values()}


def relu_population(student, teacher):
    return losses.population(student, teacher, losses.relu_products)


def erf_population(student, teacher):
    return losses.population(student, teacher, losses.erf_products)


def test_a_reversed_relu_unit_is_a_saddle_with_five_units_and_a_spurious_minimum_with_six():
    """Safran & Shamir 2018; Arjevani & Field 2021: the index changes between five and six."""
    for units, index, (own, other, reversed_, last, corner) in (
        (5, 3, (0.96161, -0.07908, 0.37607, 0.28755, -0.55978)),
        (6, 0, (0.9867, -0.05041, 0.30801, 0.22452, -0.60151)),
    ):
        student = np.full((units, units), other) + (own - other) * np.eye(units)
        student[:, -1], student[-1] = reversed_, last
        student[-1, -1] = corner
        proof = interval.certify(relu_population, student, (np.eye(units),), reach=1e-4)
        assert (proof.proved, proof.index) == (True, index), proof.reason
        assert 0.025 < proof.loss[0] < proof.loss[1] < 0.027
    assert not interval.certify(relu_population, np.eye(6), (np.eye(6),)).proved  # third derivatives jump there


def test_erf_units_at_the_teacher_are_proved_and_the_plateau_before_they_specialise_is_refused_as_degenerate():
    """Saad & Solla 1995: on the plateau k units have an overlap of 1 / √(k (2k − 1)) with each of k teachers."""
    assert interval.certify(erf_population, np.eye(2), (np.eye(2),)).index == 0
    plateau = np.full((2, 2), 1 / np.sqrt(6))
    with jax.enable_x64(True):
        loss = 2 / np.pi * (np.pi / 6 - 2 * np.arcsin(0.25))
        assert abs(erf_population(plateau, np.eye(2)) - loss) < 1e-15
    assert ": degenerate" in interval.certify(erf_population, plateau, (np.eye(2),)).reason


def test_no_point_that_is_not_critical_is_proved():
    for seed in range(10):
        assert not interval.certify(xor_loss, xor_start(seed), (0.01,)).proved
    starts = jax.vmap(lambda key: mlp.init(key, (2, 2, 1)))(jax.random.split(jax.random.key(0), 10))
    assert not any(proof.proved for proof in interval.certify_many(xor_loss, starts, (0.01,)))


def test_a_centre_displaced_by_1e_3_is_refused_and_by_1e_9_proved_with_the_true_point_inside():
    truth = np.zeros(9)
    truth[-1] = 0.5 / (1 + 0.01)
    generator = np.random.default_rng(0)
    for _ in range(5):
        direction = generator.choice([-1.0, 1.0], 9)
        for size, expected in ((1e-3, False), (1e-9, True)):
            a, b, c, d = np.split(truth + size * direction, [4, 6, 8])
            displaced = mlp.Layer(a.reshape(2, 2), b), mlp.Layer(c[:, None], d)
            alone = interval.certify(xor_loss, displaced, (0.01,))
            (of_many,) = interval.certify_many(xor_loss, jax.tree.map(lambda leaf: leaf[None], displaced), (0.01,))
            for proof in (alone, of_many):
                assert proof.proved == expected
                if expected:
                    assert np.max(np.abs(proof.location - truth)) <= proof.radius + 1e-16
                    assert 0.5 * size < proof.displacement < 2 * size
                else:
                    assert "reach" in proof.reason


@pytest.fixture(scope="module")
def xor_points():
    starts = jax.vmap(lambda key: mlp.init(key, (2, 2, 1)))(jax.random.split(jax.random.key(0), 60))
    found = critical.find_many(xor_loss, jax.tree.map(lambda leaf: 2 * leaf, starts), (0.01,))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[np.asarray(found.converged)], found.params)


def test_many_points_are_proved_together_as_each_is_alone(xor_points):
    together = interval.certify_many(xor_loss, xor_points, (0.01,))
    assert len({proof.index for proof in together}) >= 3
    for i in range(0, len(together), 3):
        alone = interval.certify(xor_loss, jax.tree.map(lambda leaf: leaf[i], xor_points), (0.01,))
        assert (together[i].proved, together[i].kind, together[i].index) == (True, alone.kind, alone.index)
        assert np.all(np.abs(together[i].location - alone.location) <= together[i].radius + alone.radius)
        assert alone.unique_radius / 4 < together[i].unique_radius < 4 * alone.unique_radius
        for name in ("smallest", "nearest", "largest", "loss"):
            (low, high), (least, most) = getattr(together[i], name), getattr(alone, name)
            assert max(low, least) <= min(high, most), name  # both hold the true number


def test_a_certificate_of_many_is_checked_alone_and_a_changed_one_refused(xor_points):
    proof = interval.certify_many(xor_loss, xor_points, (0.01,))[0]
    params = xor_constant(0.0)
    assert interval.check(proof, xor_loss, params, (0.01,)).index == proof.index
    assert not interval.check(proof, xor_loss, params, (0.02,)).proved
    for change in (
        {"index": proof.index + 1}, {"unique_radius": 4 * proof.unique_radius}, {"radius": proof.radius / 4},
        {"location": proof.location + 4 * proof.radius}, {"loss": (proof.loss[0], proof.loss[0])},
        {"smallest": (proof.smallest[0] + 1e-3, proof.smallest[1] + 1e-3)},
    ):  # fmt: skip
        assert not interval.check(dataclasses.replace(proof, **change), xor_loss, params, (0.01,)).proved, change


def test_what_cannot_be_proved_together_is_proved_alone_or_refused_with_its_reason():
    fun = lambda x: x[0] ** 2 - x[1] ** 2 + jnp.abs(x[1] - 1) * x[0] ** 2
    saddle, refused = interval.certify_many(fun, np.array([[0.0, 0.0], [0.0, 0.5]]))
    assert (saddle.proved, saddle.index, saddle.precision) == (True, 1, 128)
    assert not refused.proved
    assert "reach" in refused.reason


DEGENERATE = {
    "xor without weight decay": (lambda p: xor_loss(p, 0.0), xor_constant(0.5)),
    "monkey saddle": (lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2, np.zeros(2)),
    "quartic": (lambda x: x[0] ** 4 + x[1] ** 2, np.zeros(2)),
    "orbit of minima": (lambda x: (x[0] * x[1] - 1) ** 2, np.array([2.0, 0.5])),
    "constant": (lambda x: jnp.sum(x) * 0.0, np.zeros(3)),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_points_are_never_proved(name):
    fun, point = DEGENERATE[name]
    (of_many,) = interval.certify_many(fun, jax.tree.map(lambda leaf: np.asarray(leaf)[None], point))
    for proof in (interval.certify(fun, point), of_many):
        assert not proof.proved
        assert proof.kind == "not proved"
        assert proof.index is None
        assert proof.reason


def test_points_of_zero_residual_with_more_parameters_than_outputs_are_never_proved():
    fun = lambda params, y: losses.mean(losses.squared_error(mlp.forward(params, XOR[0]), y))
    for seed in range(6):
        draw = np.random.default_rng(seed).standard_normal
        first, second = mlp.Layer(draw((2, 2)), draw(2)), mlp.Layer(draw((2, 1)), draw(1))
        fitted = np.tanh(XOR[0] @ first.weight + first.bias) @ second.weight + second.bias
        assert not interval.certify(fun, (first, second), (fitted,)).proved


def test_gradient_flat_points_and_points_next_to_a_critical_point_are_refused():
    assert not interval.certify(lambda x: x[0] ** 3 + 1e-9 * x[0] + x[1] ** 2, np.zeros(2)).proved
    assert "not at a critical point" in interval.certify(lambda x: jnp.sum(x**2), np.array([0.5, 0.5])).reason


@pytest.mark.slow
def test_index_is_that_of_a_tilted_function_of_chosen_spectrum(x64):
    fun, theta, hessian, rotation = tilted((3, 2, 3))
    generator = np.random.default_rng(0)
    spectra = generator.choice([-1.0, 1.0], (4, theta.size)) * 10.0 ** generator.uniform(-4, 1, (4, theta.size))
    for values in spectra:
        tilt = (rotation * values) @ rotation.T - hessian
        proof = interval.certify(fun, theta, ((tilt + tilt.T) / 2,))
        assert proof.proved, proof.reason
        assert proof.index == np.sum(values < 0)
        assert abs(proof.smallest[0] - values.min()) < 1e-9
        nearest = values[np.argmin(np.abs(values))]
        assert proof.nearest[0] - 1e-12 < nearest < proof.nearest[1] + 1e-12


def test_signs_are_decided_whatever_the_scale_of_the_coordinates():
    scale = np.array([1e-6, 1.0, 1e4, 1e-2])
    core = np.array([[2.0, 1.0, 0.5, 0.1], [1.0, -3.0, 0.2, 0.3], [0.5, 0.2, 1.5, 0.0], [0.1, 0.3, 0.0, -1.0]])
    matrix = core * scale[:, None] * scale

    def fun(x, a):
        return 0.5 * x @ a @ x + jnp.sum((x * scale) ** 4)

    proof = interval.certify(fun, np.zeros(4), (matrix,))
    assert proof.proved, proof.reason
    assert proof.index == np.sum(np.linalg.eigvalsh(core) < 0) == 2


@pytest.mark.parametrize("cond", [1.0, 30.0, 1000.0])
def test_linear_networks_are_proved_modulo_gl_h_with_the_index_in_closed_form(cond):
    classes = [c for c in ground_truth.linear_classes(NET, cond) if np.linalg.matrix_rank(c.params[0]) == 2]
    assert len(classes) == 6
    assert {c.zeros for c in classes} == {4}
    for known in classes:
        proof = interval.certify(linear_loss, known.params, DATA, symmetries=TANGENTS)
        assert proof.proved, proof.reason
        assert (proof.index, proof.null) == (known.index, known.zeros)
        assert proof.loss[0] - 1e-12 < known.loss < proof.loss[1] + 1e-12
        assert "4 given symmetry directions" in str(proof)
        assert not interval.certify(linear_loss, known.params, DATA).proved


def test_directions_that_are_not_symmetries_are_dropped_and_prove_nothing():
    known = next(c for c in ground_truth.linear_classes(NET) if np.linalg.matrix_rank(c.params[0]) == 2)
    wrong = lambda params: (params[0][None], params[1][None])
    assert not interval.certify(linear_loss, known.params, DATA, symmetries=wrong).proved
    # A positive definite quadratic has no symmetry: the given direction is dropped, and the proof is the plain one.
    proof = interval.certify(lambda x: jnp.sum(x**2), np.zeros(3), symmetries=lambda x: x[None] + 1.0)
    assert (proof.proved, proof.null) == (True, 0)


@pytest.mark.slow
def test_softmax_without_decay_of_the_last_layer_is_proved_modulo_the_shift():
    generator = np.random.default_rng(3)
    x, y = generator.standard_normal((24, 4)), generator.integers(0, 3, 24)

    def fun(params, x, y):
        # The penalty of the last layer depends only on what the shift leaves unchanged.
        shifted = [leaf - jnp.mean(leaf, axis=-1, keepdims=True) for leaf in params[1]]
        penalty = 0.05 * (tree.dot(params[0], params[0]) + tree.dot(shifted, shifted))
        return losses.mean(losses.cross_entropy(mlp.forward(params, x), y)) + penalty

    point = critical.find(fun, mlp.init(jax.random.key(1), (4, 2, 3)), (x, y))
    shift = mlp_symmetry.tangents(fun, point.params, (x, y), inputs=x, activation=jnp.tanh)
    assert shift.names == ("softmax shift",) * 3
    verdict = critical.classify(fun, point.params, (x, y), symmetries=shift, evidence="proved")
    proof = verdict.certificate
    assert proof.proved, proof.reason
    assert verdict.evidence == "proved"
    assert proof.null == 3
    assert proof.kind.endswith("modulo symmetry")


def test_symmetries_that_cannot_be_traced_are_refused_with_the_reason():
    numpy_only = lambda params: np.asarray(params)[None]
    proof = interval.certify(lambda x: jnp.sum(x**2), np.zeros(3), symmetries=numpy_only)
    assert "cannot trace" in proof.reason


def test_a_saved_certificate_is_read_back_bit_for_bit_and_proved_again_for_the_same_data_alone(tmp_path):
    proof = interval.certify(xor_loss, xor_constant(0.5 / 1.01), (0.01,))
    proof.save(tmp_path / "point.json")
    read = interval.load(tmp_path / "point.json")
    for field in dataclasses.fields(proof):
        assert np.array_equal(getattr(read, field.name), getattr(proof, field.name)), field.name
    again = interval.check(read, xor_loss, xor_constant(0.0), (0.01,))
    assert again.proved
    assert again.index == proof.index
    assert not interval.check(proof, xor_loss, xor_constant(0.0), (0.02,)).proved
    wider = interval.check(dataclasses.replace(proof, unique_radius=10.0), xor_loss, xor_constant(0.0), (0.01,))
    assert not wider.proved
    assert "not proved to be nonsingular in the cube" in wider.reason


def test_a_refusal_has_nothing_to_check():
    refusal = interval.certify(xor_loss, xor_constant(0.5), (0.0,))
    with pytest.raises(ValueError, match="got a refusal"):
        interval.check(refusal, xor_loss, xor_constant(0.0), (0.0,))


def wrong_first(x):
    return x[0] ** 2 + x[1] ** 2 + jax.lax.stop_gradient(x[0]) * x[1]


@jax.custom_jvp
def half_square(x):
    return 0.5 * x**2


@half_square.defjvp
def _half_square_jvp(primals, tangents):
    # The gradient is right; its derivative is 0.
    return half_square(primals[0]), jax.lax.stop_gradient(primals[0]) * tangents[0]


@pytest.mark.parametrize(
    ("fun", "words"),
    [
        (wrong_first, "the gradient is not that of fun: a rule of stop_gradient is wrong"),
        (
            lambda x: jnp.sum(half_square(x)) + x[0] ** 2 - x[1] ** 2,
            "the Hessian is not that of fun: a rule of custom_",
        ),
    ],
)
def test_a_wrong_derivative_rule_is_found(fun, words):
    for proof in (interval.certify(fun, np.zeros(2)), *interval.certify_many(fun, np.zeros((1, 2)))):
        assert not proof.proved
        assert words in proof.reason


def test_rules_taken_on_trust_are_named_and_the_theorem_is_printed():
    # The derivative is σ(x) + 2x − σ(1) − 2.
    fun = lambda x, slope: jax.nn.softplus(x[0]) + x[0] ** 2 - slope * x[0] + x[1] ** 2
    text = str(interval.certify(fun, np.array([1.0, 0.0]), (1 / (1 + np.exp(-1)) + 2,)))
    assert text.startswith("Theorem. Within ")
    assert "exactly 0 negative and 2 positive eigenvalues: a strict local minimum of index 0" in text
    assert "custom_jvp_call" in text


def test_a_second_proof_traces_nothing_and_the_default_precision_is_left_alone():
    traced = []

    def fun(x, a):
        traced.append(1)
        return jnp.sum((x - a) ** 2)

    first = interval.certify(fun, np.ones(2), (np.ones(2),))
    before = len(traced)
    second = interval.certify(fun, 2 * np.ones(2), (2 * np.ones(2),))
    assert first.proved
    assert second.proved
    assert len(traced) == before
    assert jnp.ones(1).dtype == jnp.float32


def test_float32_inside_is_refused_and_bad_arguments_are_named():
    proof = interval.certify(lambda x: jnp.sum(x.astype(jnp.float32) ** 2).astype(x.dtype), np.zeros(2))
    assert "float32" in proof.reason
    with pytest.raises(TypeError, match="expected one real floating-point scalar"):
        interval.certify(lambda x: x, np.zeros(2))
    with pytest.raises(ValueError, match="NaN or infinite"):
        interval.certify(lambda x: jnp.sum(x), np.array([np.nan]))
    with pytest.raises(ValueError, match="symmetries: got tangents of 3 numbers"):
        interval.certify(lambda x: jnp.sum(x**2), np.zeros(2), symmetries=lambda x: jnp.zeros((1, 3)))


def test_a_proved_verdict_carries_its_certificate_and_a_refusal_its_reason():
    fun = lambda x, a: x[0] ** 4 / 4 - a * x[0] ** 2 / 2 + x[1] ** 2
    verdict = critical.classify(fun, np.zeros(2), (1.0,), evidence="proved")
    assert (verdict.kind, verdict.index, verdict.evidence) == ("saddle", 1, "proved")
    assert verdict.certificate.proved
    assert critical.classify(fun, np.zeros(2), (1.0,)).certificate is None
    refused = critical.classify(fun, np.zeros(2), (0.0,), evidence="proved")
    assert (refused.kind, refused.evidence) == ("degenerate", "dense")
    assert "singular" in refused.certificate.reason
    for words in (str(refused), refused.explain(), refused._repr_html_()):
        assert f"(not proved: {refused.certificate.reason})" in words
    assert "not proved" not in str(verdict)


@pytest.mark.parametrize("content", ["", "null", '{"proved": true}'], ids=["empty", "null", "short"])
def test_a_file_that_is_not_a_certificate_is_refused(tmp_path, content):
    (tmp_path / "file").write_text(content)
    with pytest.raises(ValueError, match=r"path: got .*, which is not a certificate"):
        interval.load(tmp_path / "file")
