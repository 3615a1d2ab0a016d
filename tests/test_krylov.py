"""Eigenpairs: what other tools miss, repeat or invent comes out right; a pair that has not converged says so."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_jax import curvature, losses, mlp, tree
from mlp_jax.curvature import dense_ends, hessian, krylov_basis, krylov_space, traced_operator
from mlp_jax.curvature.krylov import eigenpairs
from mlp_jax.curvature.thick_restart import Wanted

SEEDS, KEY = range(3), jax.random.key(0)
TOLERANCE = 1e-8


def rotated(spectrum, seed=0):
    """A symmetric matrix with the given spectrum in a random basis."""
    size = len(spectrum)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
    matrix = basis * np.asarray(spectrum, dtype=float) @ basis.T
    return jnp.asarray((matrix + matrix.T) / 2)


def multiply(matrix, v):
    return matrix @ v


def product(matrix):
    return jax.tree_util.Partial(multiply, matrix)


def ends(spectrum, smallest, largest):
    spectrum = np.sort(spectrum)
    return np.concatenate([spectrum[:smallest], spectrum[len(spectrum) - largest :]])


def solve(matrix, seed=0, **settings):
    """Pairs of a matrix by Lanczos; all matrices of one shape share a compiled product."""
    return eigenpairs(product(matrix), matrix[0], jax.random.key(seed), **{"dense_limit": 0} | settings)


def rows_of(pairs):
    """The vectors as rows (k, P)."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(pairs.vectors)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def true_residuals(pairs, matrix):
    rows = rows_of(pairs)
    return np.linalg.norm(rows @ np.asarray(matrix) - np.asarray(pairs.values)[:, None] * rows, axis=1)


def require_true(pairs, matrix, spectrum, smallest, largest, tolerance=TOLERANCE):
    """All flags set, and values, vectors and residuals are what numpy says."""
    norm, rows, true = np.max(np.abs(spectrum)), rows_of(pairs), true_residuals(pairs, matrix)
    assert pairs.complete
    assert np.all(pairs.converged)
    np.testing.assert_allclose(pairs.values, ends(spectrum, smallest, largest), atol=max(tolerance * norm, 1e-300))
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-12)
    np.testing.assert_allclose(pairs.residuals, true, atol=1e-13 * max(norm, 1e-300))
    assert np.all(true <= tolerance * norm + 1e-13 * norm)


# --- Where other tools go wrong ----------------------------------------------------------------------------------


TRAPS = {
    "extremes of opposite sign": (np.concatenate([[-3, 3], np.linspace(-0.5, 0.5, 98)]), 1, 1),
    "one small negative value among zeros": (np.r_[-1e-4, np.zeros(160), np.linspace(0.5, 2, 39)], 1, 0),
    "a dominant value": (np.concatenate([[100.0, 40, 30, 25, 20], np.linspace(0, 10, 195)]), 0, 10),
    "multiplicity five": (np.concatenate([[-2.0] * 5, [7.0] * 5, np.linspace(0, 5, 190)]), 7, 6),
    "fewer copies than the multiplicity": (np.concatenate([[1e-3] * 48, np.linspace(0.01, 3, 152)]), 10, 2),
    "three distinct values, which end a Krylov space": (np.repeat([-1.0, 0.0, 2.0], [10, 80, 10]), 12, 3),
    "the identity": (np.full(100, 1.0), 6, 5),
    "zero": (np.zeros(100), 6, 5),
    "a negative multiple of the identity": (np.full(100, -3.0), 6, 5),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_spectra_that_other_tools_miss_or_repeat_are_right_for_every_seed(x64, trap):
    spectrum, smallest, largest = TRAPS[trap]
    matrix = rotated(spectrum)
    for seed, options in (*((seed, {}) for seed in SEEDS), (0, {"basis_size": 60}), (0, {"dense_limit": 1000})):
        pairs = solve(matrix, seed, smallest=smallest, largest=largest, **options)
        require_true(pairs, matrix, spectrum, smallest, largest)
        assert pairs.method == ("dense" if "dense_limit" in options else "lanczos")


def test_a_basis_larger_than_the_dimension_gives_no_value_outside_the_spectrum(x64):
    spectrum = np.linspace(1, 10, 100)
    matrix = rotated(spectrum)
    for seed in SEEDS:
        pairs = solve(matrix, seed, smallest=5, largest=5, basis_size=190, tolerance=1e-12)
        require_true(pairs, matrix, spectrum, 5, 5)
        assert np.min(pairs.values) >= 1 - 1e-12
        assert np.max(pairs.values) <= 10 + 1e-12


def test_a_vector_that_the_first_start_lacks_is_found(x64):
    """The first vector is orthogonal to the lowest eigenvector: only the search of the complement finds it."""
    size, key = 100, jax.random.key(3)
    start = np.random.default_rng(np.asarray(jax.random.key_data(key))).normal(size=size)
    lowest = np.random.default_rng(0).normal(size=size)
    lowest -= start * (start @ lowest) / (start @ start)
    lowest /= np.linalg.norm(lowest)
    basis = np.linalg.qr(np.column_stack([lowest, np.random.default_rng(1).normal(size=(size, size - 1))]))[0]
    spectrum = np.concatenate([[-5.0], np.linspace(1, 10, size - 1)])
    matrix = jnp.asarray(basis * spectrum @ basis.T)
    require_true(solve(matrix, 3, smallest=2, largest=1), matrix, spectrum, 2, 1)


def test_spikes_above_a_two_thousand_dimensional_bulk_are_found(x64):
    generator = np.random.default_rng(0)
    spectrum = np.concatenate([generator.normal(size=1990) * 1e-2, [-1, -0.6, -0.3, 0.5, 1, 2, 4, 8, 16, 32]])
    diagonal = jnp.asarray(generator.permutation(spectrum))
    matvec = lambda v: diagonal * v
    for seed in SEEDS:
        pairs = eigenpairs(matvec, diagonal, jax.random.key(seed), smallest=3, largest=7)
        assert pairs.method == "lanczos"
        assert pairs.num_matvecs < 200
        require_true(pairs, np.diag(diagonal), spectrum, 3, 7)


@pytest.mark.parametrize("dense_limit", [0, 1000])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_dimensions_one_two_three_give_any_split_of_the_spectrum(x64, size, dense_limit):
    spectrum = np.array([-1.0, 0.5, 2.0])[:size]
    matrix = rotated(spectrum)
    for smallest in range(size + 1):
        for largest in range(smallest == 0, size + 1 - smallest):
            pairs = solve(matrix, smallest=smallest, largest=largest, dense_limit=dense_limit)
            require_true(pairs, matrix, spectrum, smallest, largest)


def test_pairs_of_a_nearby_operator_save_products(x64):
    spectrum = np.concatenate([np.linspace(-1, 1, 290), np.linspace(2, 9, 10)])
    before = solve(rotated(spectrum), largest=5)
    change = np.random.default_rng(1).normal(size=(300, 300)) * 1e-6
    matrix = rotated(spectrum) + change + change.T
    cold, warm = (solve(matrix, 1, largest=5, start=start) for start in (None, before))
    exact = np.linalg.eigvalsh(matrix)
    require_true(warm, matrix, exact, 0, 5)
    assert warm.num_matvecs < 0.9 * cold.num_matvecs
    chex.assert_trees_all_equal(solve(matrix, 1, largest=5, start=before.vectors), warm)
    assert solve(matrix, 1, largest=5, start=before, block_size=3).complete


@pytest.mark.parametrize("copies", [1, 3])
def test_a_start_that_lacks_an_eigenvector_does_not_hide_it(x64, copies):
    """The start is exact and orthogonal to all of what is now lowest, and to the other copies of what it holds."""
    spectrum = np.concatenate([[-3.0], [-1.0] * copies, np.linspace(0, 5, 99 - copies)])
    for seed in SEEDS:
        start = np.eye(100)[1:3]
        diagonal = jnp.asarray(spectrum)
        matvec = jax.tree_util.Partial(jnp.multiply, diagonal)
        pairs = eigenpairs(matvec, diagonal, jax.random.key(seed), smallest=3, start=start, dense_limit=0)
        require_true(pairs, np.diag(diagonal), spectrum, 3, 0)


# --- Agreement ---------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    first: jax.Array
    second: jax.Array


def multiply_tree(matrix, v):
    vector, unravel = tree.ravel(v)
    return unravel(matrix @ vector)


@given(st.integers(0, 10**6), st.integers(0, 12), st.sampled_from([3, 12]))
@settings(max_examples=8, deadline=None)
def test_values_agree_with_numpy_on_random_symmetric_operators_of_pytrees(seed, smallest, total):
    with jax.enable_x64(True):
        matrix = np.random.default_rng(seed).integers(-3, 4, (12, 12)).astype(float)
        matrix = jnp.asarray(matrix + matrix.T)
        params = {"b": np.zeros(4), "a": [Pair(np.zeros((2, 3)), np.zeros(())), np.zeros((1, 0)), np.zeros(1)]}
        matvec, smallest = jax.tree_util.Partial(multiply_tree, matrix), min(smallest, total)
        options = {"smallest": smallest, "largest": total - smallest, "dense_limit": 0 if seed % 2 else 1000}
        pairs = eigenpairs(matvec, params, jax.random.key(seed), **options)
        chex.assert_trees_all_equal_shapes(jax.tree.map(lambda v: v[0], pairs.vectors), params)
        require_true(pairs, matrix, np.linalg.eigvalsh(matrix), smallest, total - smallest)


def test_restarts_and_the_block_size_change_the_cost_and_not_the_answer(x64):
    spectrum = np.geomspace(1e-3, 1, 200)
    matrix = rotated(spectrum)
    for basis_size in (34, 150):
        pairs = solve(matrix, smallest=3, largest=4, basis_size=basis_size, max_matvecs=3000)
        assert pairs.num_matvecs > 200
        require_true(pairs, matrix, spectrum, 3, 4)
    spectrum = np.concatenate([[-2.0] * 4, np.linspace(0, 5, 92), [7.0] * 4])
    matrix = rotated(spectrum)
    for block_size in (1, 3, 8):
        require_true(solve(matrix, smallest=5, largest=3, block_size=block_size), matrix, spectrum, 5, 3)


# --- With hessian= -----------------------------------------------------------------------------------------------

MATRICES = {
    "spread": np.geomspace(1e-6, 10, 200),
    "multiple": np.concatenate([[1e-3] * 7, np.linspace(0.1, 3, 186), [5.0] * 7]),
    "close": np.concatenate([1e-3 + np.array([1, 2, 3]) * 1e-9, np.linspace(0.5, 1, 197)]),
    "indefinite": np.concatenate([[-1e-4], np.zeros(150), np.linspace(1, 2, 49)]),
    "identity": np.full(200, 2.0),
}


def test_ends_of_a_multiple_of_the_identity_perturbed_by_rounding_are_found():
    draw = np.random.default_rng(1).integers
    beside = draw(-8, 9, 199) * 1e-16
    matrix = np.diag(2 + draw(-8, 9, 200) * 2.0**-52) + np.diag(beside, 1) + np.diag(beside, -1)
    rows, norm = dense_ends.both_ends(matrix, Wanted(smallest=4, largest=4))
    assert norm == pytest.approx(2, rel=1e-14)
    np.testing.assert_allclose(rows @ rows.T, np.eye(8), atol=1e-12)


@pytest.mark.parametrize("counts", [(5, 4), (0, 3), (3, 0)])
@pytest.mark.parametrize("case", MATRICES)
def test_ends_of_a_matrix_are_right_to_rounding(x64, case, counts):
    spectrum, (smallest, largest) = MATRICES[case], counts
    matrix = rotated(spectrum)
    pairs = solve(matrix, smallest=smallest, largest=largest, hessian=lambda: matrix, tolerance=1e-12, dense_limit=None)
    assert pairs.method == "dense"
    assert pairs.num_matvecs == smallest + largest
    require_true(pairs, matrix, spectrum, smallest, largest, tolerance=1e-12)


WRONG = {
    "another": lambda matrix: rotated(np.linspace(1, 9, 100), seed=1),
    "a multiple": lambda matrix: 1e10 * matrix,
    "one more large eigenvalue": lambda matrix: matrix + 1e10,
    "an eigenvalue changed": lambda matrix: matrix + 20 * np.outer(*2 * [np.linalg.eigh(matrix)[1][:, 0]]),
}


@pytest.mark.parametrize("smallest", [0, 1, 2])
@pytest.mark.parametrize("wrong", WRONG)
def test_flags_of_pairs_from_a_matrix_are_those_of_the_operator(x64, wrong, smallest):
    matrix = rotated(np.linspace(-1, 3, 100))
    given = WRONG[wrong](matrix)
    pairs = solve(matrix, smallest=smallest, largest=1, hessian=lambda: given, dense_limit=None)
    true = true_residuals(pairs, matrix)
    np.testing.assert_allclose(pairs.residuals, true, atol=1e-13)
    np.testing.assert_array_equal(pairs.converged, true <= TOLERANCE * 3)
    assert not pairs.complete


# --- Scales ------------------------------------------------------------------------------------------------------

SCALES = [(np.float32, 1e-30), (np.float32, 1e30), (np.float64, 1e-200), (np.float64, 1e200)]


@pytest.mark.parametrize(("block_size", "dense_limit"), [(1, 0), (3, 0), (1, 1000)])
@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_a_multiple_of_an_operator_has_that_multiple_of_its_eigenvalues(x64, dtype, scale, block_size, dense_limit):
    spectrum, eps = np.linspace(-1, 3, 100), np.finfo(dtype).eps
    matrix = jnp.asarray((np.asarray(rotated(spectrum)) * scale).astype(dtype))
    tolerance = 1e-5 if dtype is np.float32 else TOLERANCE
    pairs = solve(matrix, smallest=2, largest=1, tolerance=tolerance, block_size=block_size, dense_limit=dense_limit)
    assert pairs.complete
    assert np.all(pairs.converged)
    values, residuals = (np.asarray(a, np.float64) / scale for a in (pairs.values, pairs.residuals))
    rows = rows_of(pairs).astype(np.float64)
    np.testing.assert_allclose(values, ends(spectrum, 2, 1), atol=3 * tolerance)
    np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=10 * eps)
    true = np.linalg.norm(rows @ (np.asarray(matrix, np.float64) / scale) - values[:, None] * rows, axis=1)
    np.testing.assert_allclose(residuals, true, atol=30 * eps)


@pytest.mark.parametrize(("split", "scale"), [(False, 1.0), (True, 1.0), (True, 1e-200), (True, 1e200)])
def test_a_space_holds_an_orthonormal_basis_and_the_operator_on_it_through_restarts_and_mergers(x64, split, scale):
    matrix = scale * np.asarray(rotated(np.concatenate([np.zeros(20), np.geomspace(1e-6, 1, 60)])))
    if split:
        operator = traced_operator.trace(product(jnp.asarray(matrix)), matrix[0])
        basis = krylov_basis.SplitBasis(operator, 60, 3, jax.make_mesh((1,), ("devices",)))
    else:
        basis = krylov_basis.HostBasis(lambda rows: rows @ matrix, 80, np.float64, 60)
    space = krylov_space.Space(basis, 3, np.random.default_rng(0))
    space.add_random(3)
    for merge in (True, False, True):
        space.extend(12)
        space.restart(np.r_[0:3, 6:10])
        space.extend(6)
        waiting = space.freeze()
        space.add_random(1)
        space.extend(4)
        space.thaw(waiting, merge)
        used, done = space.used, space.position
        rows = basis.combine(np.eye(used), 0, used)
        np.testing.assert_allclose(rows @ rows.T, np.eye(used), atol=1e-13)
        expected = rows @ (matrix / scale) @ rows[:done].T
        np.testing.assert_allclose(space.coupling[:used, :done] * (space.unit / scale), expected, atol=1e-13)


def test_products_are_counted_as_they_are_made(x64):
    calls = []

    def matvec(v):
        jax.debug.callback(lambda _: calls.append(1), v[0])
        return np.arange(30.0) * v

    for dense_limit in (0, 30):
        calls.clear()
        pairs = eigenpairs(matvec, np.zeros(30), KEY, smallest=2, largest=1, dense_limit=dense_limit)
        jax.block_until_ready(pairs)
        jax.effects_barrier()
        assert len(calls) == pairs.num_matvecs


# --- Precision and budget ----------------------------------------------------------------------------------------


def test_pairs_that_have_not_converged_are_flagged(x64):
    matrix = rotated(np.linspace(0, 1, 200))
    for budget in (4, 5, 20, 60):
        pairs = solve(matrix, smallest=1, largest=1, max_matvecs=budget, dense_limit=None)
        np.testing.assert_allclose(pairs.residuals, true_residuals(pairs, matrix), atol=1e-13)
        assert pairs.num_matvecs <= budget
        assert pairs.method == "lanczos"  # the dense matrix takes 200 products
        assert not pairs.complete
        assert not np.any(pairs.converged)


@pytest.mark.parametrize("dense_limit", [0, 1000])
def test_float32_stays_float32_and_does_not_claim_what_it_cannot_have(dense_limit):
    matrix = rotated(np.concatenate([[-3.0, 3.0], np.linspace(-1, 1, 98)])).astype(jnp.float32)
    for tolerance, reachable in ((1e-5, True), (1e-12, False)):
        pairs = solve(matrix, smallest=1, largest=1, tolerance=tolerance, dense_limit=dense_limit)
        assert pairs.values.dtype == pairs.residuals.dtype == pairs.vectors.dtype == jnp.float32
        np.testing.assert_allclose(pairs.values, [-3, 3], atol=1e-5)
        assert bool(np.all(pairs.converged)) == reachable
        assert pairs.num_matvecs < 200


@pytest.mark.parametrize("dense_limit", [0, 1000])
def test_the_default_tolerance_is_one_that_the_dtype_can_reach(dense_limit):
    x, y = np.random.default_rng(0).standard_normal((500, 20)), np.arange(500) % 4
    params = mlp.init(jax.random.key(0), (20, 8, 4))
    fun = lambda p, x, y: losses.mean(losses.cross_entropy(mlp.forward(p, x), y))
    with jax.enable_x64(True):
        exact = np.linalg.eigvalsh(curvature.dense_hessian(fun, params, (x, y)))
    data = x.astype(np.float32), y
    pairs = eigenpairs(hessian(fun, params, args=data), params, KEY, largest=10, dense_limit=dense_limit)
    assert pairs.values.dtype == jnp.float32
    assert pairs.tolerance == 64 * np.finfo(np.float32).eps
    assert "tolerance 7.6e-06" in str(pairs)
    assert np.all(pairs.converged)
    np.testing.assert_allclose(pairs.values, exact[-10:], rtol=0, atol=pairs.tolerance * exact[-1])


def test_a_float64_matvec_of_float32_params_computes_in_float64(x64):
    matrix = rotated(np.linspace(0, 1, 50))
    pairs = eigenpairs(lambda v: matrix @ v.astype(float), np.zeros(50, np.float32), KEY, largest=2)
    require_true(pairs, matrix, np.linspace(0, 1, 50), 0, 2)


def test_leaves_of_several_dtypes_keep_them(x64):
    params = {"a": np.ones(2, np.float32), "b": np.ones(3), "c": np.ones(1, jnp.bfloat16)}
    double = lambda v: jax.tree.map(lambda leaf: 2 * leaf, v)
    pairs = eigenpairs(double, params, KEY, largest=1, dense_limit=0)
    assert jax.tree.map(lambda x: x.dtype, pairs.vectors) == jax.tree.map(lambda x: x.dtype, params)
    np.testing.assert_allclose(pairs.values, [2.0], atol=1e-2)


def test_near_the_rounding_of_float64_the_flags_are_still_true(x64):
    matrix = rotated(np.geomspace(1e-6, 1e6, 200))
    for tolerance in (1e-13, 1e-15, 1e-17):
        pairs = solve(matrix, largest=3, tolerance=tolerance)
        flags = np.asarray(pairs.residuals) <= tolerance * np.max(np.abs(pairs.values)) * (1 + 1e-12)
        np.testing.assert_array_equal(pairs.converged, flags)
        assert pairs.num_matvecs < 500


# --- Compilation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dense_limit", [0, 1000])
def test_a_second_call_traces_and_compiles_nothing_and_gives_the_same_bits(x64, dense_limit, compilations):
    matrix, traced = rotated(np.linspace(0, 1, 50)), []

    def matvec(v):
        traced.append(1)
        return matrix @ v

    call = lambda: eigenpairs(matvec, matrix[0], KEY, smallest=2, largest=1, dense_limit=dense_limit)
    first = call()
    compilations.clear()
    second = call()
    assert len(traced) == 1
    assert compilations == []
    chex.assert_trees_all_equal(first, second)


def test_a_partial_with_other_data_traces_and_compiles_nothing(x64):
    first, second = (rotated(np.linspace(0, top, 50)) for top in (1, 2))
    traced = []

    def counted(matrix, v):
        traced.append(1)
        return matrix @ v

    for matrix, top in ((first, 1), (second, 2)):
        matvec = jax.tree_util.Partial(counted, matrix)
        pairs = eigenpairs(matvec, matrix[0], KEY, largest=2, dense_limit=0)
        require_true(pairs, matrix, np.linspace(0, top, 50), 0, 2)
    assert len(traced) == 1


def test_data_of_the_matvec_are_arguments_of_the_program_and_not_constants(x64):
    matrix = rotated(np.linspace(0, 1, 50))
    operator = traced_operator.trace(lambda v: matrix @ v, matrix[0])
    assert [c.shape for c in operator.constants] == [(50, 50)]
    linear = hessian(lambda x, m: x @ m @ x / 2, matrix[0], args=(matrix,))
    operator = traced_operator.trace(linear, matrix[0])
    assert (50, 50) in [c.shape for c in operator.constants]
    assert traced_operator.trace(linear, matrix[0]).program == operator.program


# --- Errors ------------------------------------------------------------------------------------------------------

DOUBLE = lambda v: 2 * v
ERRORS = {
    "no pairs": (DOUBLE, {}, ValueError, r"smallest \+ largest: got 0 \+ 0, expected between 1 and .* 3"),
    "budget": (DOUBLE, {"largest": 2, "max_matvecs": 3}, ValueError, "max_matvecs: got 3"),
    "basis": (DOUBLE, {"largest": 1, "basis_size": 1}, ValueError, "basis_size: got 1, expected at least 3"),
    "start": (DOUBLE, {"largest": 1, "start": np.ones((1, 2))}, ValueError, r"start: got leaves of shapes \(2,\)"),
    "shape": (lambda v: v[:2], {"largest": 1}, ValueError, r"matvec.*\(2,\)"),
    "integers": (lambda v: v.astype(int), {"largest": 1}, TypeError, "matvec.*int32"),
    "hessian": (DOUBLE, {"largest": 1, "hessian": lambda: np.ones((2, 2))}, ValueError, "hessian"),
    "NaN in hessian": (DOUBLE, {"largest": 1, "hessian": lambda: np.full((3, 3), np.nan)}, ValueError, "hessian"),
    "NaN": (lambda v: v * jnp.nan, {"largest": 1}, ValueError, "matvec: got NaN"),
    "NaN in Lanczos": (lambda v: v * jnp.nan, {"largest": 1, "dense_limit": 0}, ValueError, "matvec: got NaN"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_was_got_and_expected(case):
    matvec, options, error, message = ERRORS[case]
    with pytest.raises(error, match=message):
        eigenpairs(matvec, jnp.ones(3), KEY, **options)


def test_calls_under_jit_are_refused():
    of_params = lambda a: eigenpairs(DOUBLE, a, KEY, largest=1)
    of_data = lambda a: eigenpairs(lambda v: a * v, jnp.ones(3), KEY, largest=1)
    for call in (of_params, of_data):
        with pytest.raises(TypeError, match="expected concrete ones; call eigenpairs outside jit"):
            jax.jit(call)(jnp.ones(3))
