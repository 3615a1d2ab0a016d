"""census on functions whose critical points are all known, and on XOR, whose list must satisfy Poincaré–Hopf."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments._shared import xor as xor_problem
from mlp_jax import critical, tree
from mlp_jax.critical.counting import chao

WELLS = np.array([-1.2, 0.3, 1.5])


def wells(x):
    """Σ ∫ (x − a)(x − b)(x − c): in each coordinate minima at a and c and a maximum at b."""
    polynomial = np.polyint(np.poly(WELLS))
    return jnp.sum(jnp.polyval(jnp.asarray(polynomial), x))


def normal(size):
    return lambda key: jax.random.normal(key, (size,))


DRAW = normal(2)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 3))])
def test_a_product_of_wells_has_its_known_list(size):
    found = critical.census(wells, normal(size), jax.random.key(size), num_starts=60 * size**2)
    assert len(found.verdicts) == 3**size
    index = {tuple(np.round(p, 6)): i for p, i in zip(found.params, found.indices, strict=True)}
    expected = {p: sum(v == 0.3 for v in p) for p in itertools.product(WELLS.tolist(), repeat=size)}
    assert index == expected
    assert found.euler_sum == 1
    assert np.all(np.diff(found.values) >= 0)
    assert found.hits.sum() == found.num_converged
    assert "symmetric copies, if there are any" in str(found)


def squares(x):
    return jnp.sum((x**2 - 1) ** 2)


class Reflections:
    """x → −x in each coordinate."""

    def canonical(self, x):
        return np.abs(x)

    def orbit_size(self, x):
        return 2 ** int(np.sum(np.abs(x) > 1e-6))


@pytest.mark.slow
def test_copies_are_counted_once_with_the_size_of_their_orbit():
    found = critical.census(squares, DRAW, jax.random.key(0), num_starts=200, symmetries=Reflections())
    rows = sorted(zip(found.indices, found.orbit_sizes.tolist(), strict=True))
    # Each coordinate is ±1 or 0: the index is the number of zeros, the copies are 2 to the number of ones.
    assert rows == [(0, 4), (1, 2), (1, 2), (2, 1)]
    assert found.euler_sum == 1
    assert "modulo discrete symmetries" in str(found)


def columns(x, p):
    """x⁴/4 − (p − 1) x²/2 + (y² − 1)²: at p = 2 the critical points are x, y = 0, ±1, with index [x = 0] + [y = 0]."""
    return x[0] ** 4 / 4 - (p - 1) * x[0] ** 2 / 2 + (x[1] ** 2 - 1) ** 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 3])
def test_a_walk_adds_the_points_on_the_branches_of_the_only_search(seed):
    # The pitchfork in x at p = 1 joins the three points of one y; nothing joins points of different y.
    found = critical.census(
        columns, DRAW, jax.random.key(seed), num_starts=1, passes=1, args=(2.0,), parameter=0, low=0.5, high=3.0
    )
    x, y = found.params.T
    np.testing.assert_allclose(np.sort(x), [-1, 0, 1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.abs(y), np.round(np.abs(y[0])), rtol=0, atol=1e-9)
    assert found.indices == tuple((np.abs(found.params) < 0.5).sum(axis=1))
    assert sorted(found.hits) == [0, 0, 1]
    assert (found.num_starts, found.num_converged, found.num_rejected) == (1, 1, 0)


@pytest.mark.slow
def test_degenerate_points_are_neither_minima_nor_counted_in_the_sum():
    fun = lambda x: x[0] ** 4 + (x[1] ** 2 - 1) ** 2  # degenerate along x at all of its points
    found = critical.census(fun, DRAW, jax.random.key(0), num_starts=200, passes=1)
    assert set(found.indices) <= {None}
    assert found.euler_sum == 0
    assert not any(v.kind == "minimum" for v in found.verdicts)


def test_the_estimate_of_unseen_points_is_right_on_average_where_all_are_equally_likely():
    # Of 30 classes, 60 draws leave 30 (29 / 30)^60 = 3.92 unseen on average. Chao's estimate, a lower bound in
    # expectation, is within a fifth of that here, over 2000 repetitions.
    generator = np.random.default_rng(0)
    draws = generator.multinomial(60, np.full(30, 1 / 30), size=2000)
    estimates = [chao(row[row > 0]) for row in draws]
    assert abs(np.mean(estimates) - 30 * (29 / 30) ** 60) < 0.2 * 3.92
    assert chao(np.array([4, 5, 6])) == 0


@pytest.fixture(scope="module")
def counted():
    return xor_problem.count(jax.random.key(0), "{0, 1}", 0.01, 200)


@pytest.fixture
def xor(counted):
    return counted.census


@pytest.mark.slow
def test_the_list_of_xor_satisfies_poincare_hopf_and_holds_the_spurious_minimum(xor):
    assert xor.euler_sum == 1
    assert len(xor.verdicts) == 18
    assert None not in xor.indices
    c = 0.5 / 1.01
    spurious = int(np.argmin(np.abs(xor.values - (0.25 - 0.125 / 1.01))))
    assert xor.values[spurious] == pytest.approx(0.126237624, abs=1e-9)
    assert xor.verdicts[spurious].kind == "minimum"
    assert xor.verdicts[spurious].smallest == pytest.approx(0.01 - abs(c - 0.5) * np.sqrt(1.5), abs=1e-12)
    assert xor.orbit_sizes[spurious] == 1
    assert xor.unseen < 1


@pytest.mark.slow
@pytest.mark.slow
def test_the_list_of_xor_is_the_same_for_another_key(xor):
    again = xor_problem.count(jax.random.key(5), "{0, 1}", 0.01, 200).census
    assert_same_list(again, xor)


@pytest.mark.slow
@pytest.mark.slow
def test_the_list_of_xor_is_the_same_from_searches_alone(xor, counted):
    again = critical.census(
        xor_problem.loss, xor_problem.init, jax.random.key(0), num_starts=600, args=counted.args,
        symmetries=counted.maps, passes=8, complete_sum=1,
    )  # fmt: skip
    assert_same_list(again, xor)
    assert again.num_starts > xor.num_starts


def assert_same_list(again, xor):
    assert again.indices == xor.indices
    np.testing.assert_allclose(again.values, xor.values, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(again.orbit_sizes, xor.orbit_sizes)


@pytest.mark.slow
def test_orbit_sizes_are_those_of_the_group_written_out(xor, counted):
    swap, *flips = counted.maps.generators(xor_problem.init(jax.random.key(0))).values()
    for i, size in enumerate(xor.orbit_sizes):
        copies = [jax.tree.map(lambda leaf, i=i: leaf[i], xor.params)]
        for generator in (swap, *flips):
            copies += [generator(copy) for copy in copies]
        vectors = np.stack([np.asarray(tree.ravel(copy)[0]) for copy in copies])
        assert len(np.unique(np.round(vectors + 0.0, 7), axis=0)) == size


def test_a_bad_setting_is_named():
    with pytest.raises(ValueError, match="num_starts: got 0, expected an integer"):
        critical.census(wells, normal(1), jax.random.key(0), num_starts=0)
    with pytest.raises(TypeError, match="key"):
        critical.census(wells, normal(1), np.arange(2), num_starts=2)
    with pytest.raises(TypeError, match="low: got None, expected a finite number above 0"):
        critical.census(columns, DRAW, jax.random.key(0), args=(2.0,), parameter=0)
    with pytest.raises(TypeError, match="parameter: got None, expected an integer"):
        critical.census(columns, DRAW, jax.random.key(0), args=(2.0,), low=0.5, high=3.0)


def test_a_second_census_compiles_nothing(x64, compilations):
    looking = lambda key: critical.census(squares, DRAW, key, num_starts=200, passes=1)
    first = looking(jax.random.key(0))
    compilations.clear()
    second = looking(jax.random.key(1))
    assert len(first.verdicts) == len(second.verdicts) == 9
    assert not compilations
