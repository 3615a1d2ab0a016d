"""Verdicts from Hessian-vector products alone, on known spectra."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import outside_points
from mlp_jax import critical
from mlp_jax.curvature.deflation import deflation
from mlp_jax.curvature.krylov_basis import HostBasis
from mlp_jax.curvature.krylov_space import Space


def quadratic(x, diagonal):
    return jnp.sum(diagonal * x**2) / 2


def anharmonic(x, diagonal, tail):
    return jnp.sum(diagonal * (jnp.cosh(x) - 1)) + tail * jnp.sum(jnp.exp(-x))


SPECTRA = {
    "minimum": np.linspace(0.1, 3, 400),
    "maximum": -np.linspace(0.1, 3, 400),
    "saddle": np.r_[-0.5, np.linspace(0.1, 3, 399)],
    "saddle among zeros": np.r_[-1e-1, np.zeros(300), np.ones(99)],
    "null modes": np.r_[np.zeros(5), np.linspace(0.1, 3, 395)],
}
KINDS = {"saddle among zeros": "saddle", "null modes": "undetermined"}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("seed", range(2))
def test_known_spectra_get_their_names_from_products(name, seed):
    spectrum = SPECTRA[name]
    verdict = critical.classify(quadratic, np.zeros(400), (spectrum,), evidence="lanczos", key=jax.random.key(seed))
    assert verdict.kind == KINDS.get(name, name)
    assert verdict.index_range[0] <= np.sum(spectrum < 0) <= verdict.index_range[1]
    assert "failure probability 1e-06" in verdict.evidence


def test_a_weak_negative_mode_is_never_hidden_by_a_minimum():
    # Power iteration and Lanczos with few steps miss it. It may stay undetermined; a minimum would be wrong.
    spectrum = np.r_[-1e-4, np.zeros(300), np.linspace(0.5, 1, 99)]
    for seed in range(5):
        key = jax.random.key(seed)
        verdict = critical.classify(quadratic, np.zeros(400), (spectrum,), evidence="lanczos", key=key)
        assert verdict.kind in ("saddle", "undetermined")


def graded(weakest):
    """Eigenvalues of one sign over five orders of magnitude, and the weakest."""
    return np.r_[np.geomspace(1, 1e-2, 100), np.linspace(1e-3, 2e-3, 1899), weakest]


def test_a_weak_mode_beside_large_ones_gets_its_sign():
    # Undeflated, Kuczyński and Woźniakowski's bound asks for 4,000 products here.
    for sign, kind in ((1, "minimum"), (-1, "maximum")):
        verdict = critical.classify(quadratic, np.zeros(2000), (sign * graded(1e-5),), evidence="lanczos")
        assert verdict.kind == kind
        assert min(abs(verdict.smallest), abs(verdict.largest)) == pytest.approx(1e-5)
    for seed in range(5):
        key, spectrum = jax.random.key(seed), graded(-1e-9)
        verdict = critical.classify(quadratic, np.zeros(2000), (spectrum,), evidence="lanczos", key=key)
        assert verdict.kind in ("saddle", "undetermined")


def test_a_deflation_that_the_budget_does_not_allow_leaves_the_sign_open():
    for most in (180, 200, 300):
        arguments = {"evidence": "lanczos", "max_products": most}
        verdict = critical.classify(quadratic, np.zeros(2000), (graded(1e-5),), **arguments)
        assert verdict.kind == "undetermined"
        assert "would decide" in verdict.reason


def test_deflation_keeps_the_signs_and_lowers_the_largest():
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.standard_normal((300, 300)))[0]
    for values in (np.r_[np.geomspace(100, 1, 60), np.linspace(0.01, 0.5, 240)], generator.standard_normal(300) ** 5):
        matrix = (rotation * values) @ rotation.T
        space = Space(HostBasis(lambda rows, m=matrix: rows @ m, 300, np.float64, 81), 1, generator)
        space.add_random(1)
        space.extend(80)
        scaling = deflation(space)
        scaled = np.stack([scaling(row) for row in np.eye(300)])
        shares = np.linalg.eigvalsh(scaled)
        np.testing.assert_allclose(scaled, scaled.T, atol=1e-14)
        assert 0 < shares[0] <= shares[-1] < 1 + 1e-12
        left = np.linalg.eigvalsh(scaled @ matrix @ scaled)
        assert np.sum(left < 0) == np.sum(values < 0)
        assert np.max(np.abs(left)) < 2 * scaling.largest < 0.2 * np.max(np.abs(values))


def test_a_point_away_from_every_critical_point_is_not_critical():
    verdict = critical.classify(anharmonic, np.full(60, -9.0), (np.ones(60), 1.0), evidence="lanczos")
    assert verdict.kind == "not critical"
    assert verdict.distance == np.inf


def test_a_point_off_by_a_millionth_keeps_its_name_and_says_the_distance():
    verdict = critical.classify(anharmonic, np.full(60, 1e-6), (np.linspace(1, 2, 60), 0.0), evidence="lanczos")
    assert verdict.kind == "minimum"
    assert np.sqrt(60) * 1e-6 < verdict.distance < 1e-4
    assert 0 < verdict.change <= verdict.bound


@pytest.mark.parametrize(("size", "kind"), [(40_000, "minimum"), pytest.param(10**6, "saddle", marks=pytest.mark.slow)])
def test_points_of_many_parameters_are_named_from_products(size, kind):
    spectrum = np.linspace(0.5, 3, size)
    if kind == "saddle":
        spectrum[1234] = -0.5
    verdict = critical.classify(quadratic, np.zeros(size), (spectrum,))
    assert verdict.kind == kind
    assert verdict.evidence.startswith("lanczos")


def test_products_that_do_not_suffice_leave_a_verdict_that_says_how_many_would():
    args, calls = (np.linspace(0.02, 3, 400),), []
    few = critical.classify(
        quadratic, np.zeros(400), args, evidence="lanczos", max_products=150,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert few.kind == "undetermined"
    assert [done for done, _ in calls] == list(range(1, len(calls) + 1))
    assert len(calls) <= 150 == calls[0][1]
    needed = int(few.reason.split("about ")[1].split()[0])
    enough = critical.classify(quadratic, np.zeros(400), args, evidence="lanczos", max_products=2 * needed + 100)
    assert enough.kind == "minimum"
    assert int(enough.evidence.split("(")[1].split()[0]) < 1.6 * needed


@jax.custom_vjp
def reverse_only(x):
    return jnp.sum(x**2) / 2


reverse_only.defvjp(lambda x: (reverse_only(x), x), lambda x, slope: (slope * x,))


def test_a_function_without_a_forward_mode_is_named_from_products():
    diagonal = SPECTRA["saddle"]
    fun = lambda x, diagonal: reverse_only(x) + jnp.sum((diagonal - 1) * x**2) / 2
    assert critical.classify(fun, np.zeros(400), (diagonal,), evidence="lanczos").kind == "saddle"


def test_unknown_evidence_is_refused():
    with pytest.raises(ValueError, match="evidence: got 'guess'"):
        critical.classify(quadratic, np.zeros(2), (np.ones(2),), evidence="guess")
    with pytest.raises(MemoryError, match=r"needs .* GiB"):
        critical.classify(quadratic, np.zeros(10**6), (np.ones(10**6),), evidence="dense")


@pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero):RuntimeWarning")
@pytest.mark.parametrize("factor", [1e200, 1e-200])
def test_functions_whose_numbers_leave_float64_are_not_named_from_products(factor):
    # The function falls along the second axis; the squares of its curvatures are outside float64.
    fun = lambda x, factor: factor * (x[0] ** 2 - x[1] ** 4)
    verdict = critical.classify(fun, np.zeros(2), (np.float64(factor),), evidence="lanczos")
    assert verdict.kind == "undetermined"
    assert "outside float64" in verdict.reason


def test_where_nothing_is_critical_the_spectrum_is_only_looked_at():
    # Eigenvalues of both signs near 0: the signs at the ends would take many steps.
    weights = np.concatenate([np.geomspace(1e-6, 1, 300), [-1e-9]])
    fun = lambda x: jnp.sum(weights * (x**2 / 2 + x**4))
    verdict = critical.classify(fun, np.full(301, 0.3), evidence="lanczos")
    assert verdict.kind == "not critical"
    assert int(verdict.evidence.split("(")[1].split()[0]) <= 33
    assert verdict.index_range == (0, 301)
    assert "None is claimed here" in verdict.explain()
    # Criticality is decided by the gradient, which is not 0 here and 0 there.
    assert critical.classify(fun, np.zeros(301), evidence="lanczos").kind != "not critical"


@pytest.mark.parametrize("number", [4, 13])
def test_no_sign_is_claimed_where_neither_the_point_is_critical_nor_the_function_smooth(number):
    # Degenerate points without a negative eigenvalue; beside them, at params of rounded sums, there is one.
    case = next(itertools.islice(outside_points.FAMILIES["params tiny beside the data"](125), number, None))
    verdict = critical.classify(case.fun, case.params, case.args, **case.options)
    assert case.truth[0] == 0
    assert verdict.inertia.negative == 0
