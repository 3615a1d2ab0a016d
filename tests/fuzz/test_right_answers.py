"""Random critical points of known kind are named, searched and proved correctly; false inputs give no false answer."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from legal_calls import KEY, saddle, within

from mlp_jax import critical, curvature, interval

pytestmark = pytest.mark.implicit_promotion

few = settings(deadline=None, max_examples=8, derandomize=True, database=None)
SEEDS = st.integers(0, 2**32 - 1)


quadratic = lambda x, matrix, at: (x - at) @ matrix @ (x - at) / 2
product = lambda matrix, at, vector: curvature.hessian(quadratic, at, (matrix, at))(vector)


@st.composite
def forms(draw):
    """A symmetric matrix, its eigenvalues (none near 0), and a point."""
    signs = np.array(draw(st.lists(st.sampled_from((-1.0, 1.0)), min_size=3, max_size=3)))
    generator = np.random.default_rng(draw(SEEDS))
    values = signs * 10 ** generator.uniform(-2, 1, 3)
    rotation = np.linalg.qr(generator.standard_normal((3, 3)))[0]
    matrix = (rotation * values) @ rotation.T
    return (matrix + matrix.T) / 2, np.sort(values), generator.standard_normal(3) * draw(st.sampled_from((0, 1, 1e3)))


def kind_by(values):
    return "minimum" if min(values) > 0 else "maximum" if max(values) < 0 else "saddle"


@few
@given(form=forms())
def test_quadratic_forms_are_found_classified_and_proved_correctly(form):
    matrix, values, at = form
    index, args = np.count_nonzero(values < 0), (matrix, at)
    np.testing.assert_allclose(curvature.dense_hessian(quadratic, at, args), matrix, rtol=1e-12, atol=1e-13)
    with jax.enable_x64(True):
        matvec = jax.tree_util.Partial(product, jnp.asarray(matrix), jnp.asarray(at))
        pairs = curvature.eigenpairs(matvec, at, KEY, smallest=1, largest=2)
    np.testing.assert_allclose(pairs.values, values, atol=1e-8 * np.max(np.abs(values)))
    point = critical.find(quadratic, at + 1, args)
    points = critical.find_many(quadratic, at + np.array([[1, 2, 3], [0, 0, np.nan]]), args)
    np.testing.assert_allclose(point.params, at, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(points.params[0], at, rtol=1e-6, atol=1e-6)
    assert (bool(point.converged), point.index) == (True, index)
    assert points.converged.tolist() == [True, False]
    verdict = critical.classify(quadratic, at, args)
    assert (verdict.kind, verdict.index) == (kind_by(values), index)
    proof = interval.certify(quadratic, at, args)
    assert (proof.proved, proof.index, proof.null) == (True, index, 0)
    assert np.max(np.abs(proof.location - at)) <= proof.radius
    assert proof.smallest[0] - 1e-12 <= values[0] <= proof.smallest[1] + 1e-12


WITHHELD = {"error", "undetermined", "nonsmooth", "not critical"}
# Coefficients of x₁² and x₁⁴ beside x₀². The matrix is for the functions that return it.
FORMS = ((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))
form = lambda x, square, fourth, matrix: x[0] ** 2 + square * x[1] ** 2 + fourth * x[1] ** 4
given_matrix = lambda x, square, fourth, matrix: matrix
given_row = lambda x, square, fourth, matrix: matrix[0]
nan_matrix = lambda x, square, fourth, matrix: jnp.full((2, 2), jnp.nan)


def kind_of(fun, args=(), **options):
    """Return the kind of the origin, or "error"."""
    try:
        return critical.classify(fun, np.zeros(2), args, **options).kind
    except (TypeError, ValueError):
        return "error"


def assert_kind_of_form(kind, square, fourth):
    """Fail if the kind contradicts the form."""
    if square:
        assert kind in ({"minimum"} if square > 0 else {"saddle"}) | WITHHELD
    else:
        assert not kind.startswith(("minimum", "maximum", "saddle"))
        assert kind != "degenerate saddle" or fourth < 0


@pytest.mark.parametrize("coefficients", FORMS)
def test_a_false_hessian_never_gives_a_false_kind(coefficients):
    for matrix in (np.diag([2.0, 2.0]), np.array([[2.0, 5.0], [-5.0, -2.0]]), np.diag([2.0, -2.0])):
        assert_kind_of_form(kind_of(form, (*coefficients, matrix), hessian=given_matrix), *coefficients)
    assert_kind_of_form(kind_of(form, (*coefficients, np.eye(2)), hessian=nan_matrix), *coefficients)


@settings(few, max_examples=4)
@given(tangents=st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=2, max_size=2).map(np.array))
def test_false_symmetries_and_kinks_never_give_a_false_kind(tangents):
    for coefficients in FORMS:
        kind = kind_of(form, (*coefficients, tangents), symmetries=lambda x: jnp.asarray(tangents))
        assert kind != "error"
        assert_kind_of_form(kind, *coefficients)
    assert kind_of(form, (-1.0, 0.0, tangents), kinks=given_row) in ("saddle", "nonsmooth")


@jax.custom_jvp
def ruled(x, factor):
    """x², with a derivative rule that gives factor · 2x."""
    return x**2


@ruled.defjvp
def _(primals, tangents):
    x, factor = primals
    return x**2, factor * 2 * x * tangents[0]


with_false_rule = lambda x, factor: ruled(x[0], factor) + x[1] ** 2


@settings(few, max_examples=4)
@given(factor=st.floats(-3, 3).filter(lambda f: abs(f - 1) > 0.1))
def test_a_false_derivative_rule_gives_no_false_kind_and_no_proof(factor):
    # The origin is the minimum of the values x₀² + x₁²; the traced Hessian has the sign of the factor.
    args = (np.float64(factor),)
    assert kind_of(with_false_rule, args) in WITHHELD | ({"minimum"} if factor > 0 else set())
    assert not interval.certify(with_false_rule, np.zeros(2), args).proved


with_number = lambda x, number: jnp.sum(x**2) + number * x[0]
with_quotient = lambda x, a, b: jnp.sum(x**2) + jnp.log(a) / b * x[0]


def test_a_function_that_is_not_finite_has_no_kind_no_convergence_and_no_proof():
    with within(60):
        for call, value in itertools.product((critical.classify, critical.find, interval.certify), (np.nan, np.inf)):
            with pytest.raises(ValueError, match="args"):
                call(with_number, np.zeros(2), (np.float64(value),))
        for args in ((np.float64(-1), np.float64(1)), (np.float64(2), np.float64(0))):  # NaN, infinity
            assert kind_of(with_quotient, args) in WITHHELD
            assert not critical.find(with_quotient, np.ones(2), args).converged
            assert not interval.certify(with_quotient, np.zeros(2), args).proved


# --- Certificates that were changed, in memory or in their file ---

PROOF = interval.certify(saddle, np.zeros(2))
VALUES = st.sampled_from((0, 1, 2, 1e-300, 0.5, 1e300, (0.0, 1.0), (-2.0, 2.0), (5.0, 6.0), "data"))
CLAIMS = ("index", "null", "radius", "unique_radius", "smallest", "nearest", "largest", "loss", "data")
CHANGED = st.dictionaries(st.sampled_from(CLAIMS), VALUES, min_size=1, max_size=2).map(
    lambda fields: dataclasses.replace(PROOF, **fields)
)


def replaced(content, changes):
    copy = bytearray(content)
    for position, value in changes:
        copy[position % len(copy)] = value
    return bytes(copy)


def damaged(content):
    """Contents of files: the good one with bytes replaced, removed or appended, and random bytes."""
    change = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=3)
    return st.one_of(
        change.map(lambda changes: replaced(content, changes)),
        st.integers(0, 700).map(lambda k: content[:k]),
        st.integers(1, 100).map(lambda k: content[k:]),
        st.binary(min_size=1, max_size=4).map(lambda tail: content + tail),
        st.binary(max_size=60),
    )


@settings(few, max_examples=60)
@given(data=st.data())
def test_a_changed_or_damaged_certificate_is_refused_or_confirmed_for_what_holds(data, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "certificate"
    PROOF.save(file)
    content, changed = data.draw(st.tuples(damaged(file.read_bytes()), st.none() | CHANGED))
    file.write_bytes(content)
    try:
        with within(30):
            claim = interval.load(file) if changed is None else changed
            again = interval.check(claim, saddle, np.ones(2))
    except (TypeError, ValueError):
        return
    if again.proved:
        assert (claim.index, claim.null, again.index, again.null) == (1, 0, 1, 0)
        assert np.max(np.abs(again.location)) <= again.radius <= claim.radius
        assert claim.unique_radius <= again.unique_radius
        for name, value in (("smallest", -2.0), ("largest", 2.0), ("loss", 0.0)):
            assert getattr(claim, name)[0] <= value <= getattr(claim, name)[1]
