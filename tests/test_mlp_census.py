"""Complete lists of networks, against searches, Morse theory, certificates and bounds by arb."""

import itertools

import flint
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import critical, interval, losses, mlp, mlp_census, penalties
from mlp_jax.interval import Ball, ball
from mlp_jax.interval.branching import Zero
from mlp_jax.mlp_census import bounds, census, orbits
from mlp_jax.mlp_census.equations import Equations

XOR = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0.0, 1, 1, 0])
LINE = np.linspace(-1, 1, 5)[:, None], np.linspace(-0.5, 0.5, 5)


def _loss(params, x, y, decay):
    outputs = mlp.forward(params, x, activation=jnp.tanh)
    return losses.mean(losses.squared_error(outputs, y[:, None])) + penalties.l2(params, decay)


def _coordinates(network, params):
    """(w, v) of params."""
    hidden, out = params
    return np.concatenate([np.column_stack([hidden.weight.T, hidden.bias]).ravel(), out.weight.ravel()])


def test_one_unit_has_three_points_and_certificates_agree():
    found = mlp_census.complete(*LINE, 1, 0.02)
    assert found.complete
    assert (found.indices, found.degree) == ({0: 2, 1: 1}, 1)
    params = mlp_census.params_of(found, 1)
    for number, index in enumerate(found.index):
        proof = interval.certify(_loss, jax.tree.map(lambda x, n=number: x[n], params), (*LINE, 0.02))
        assert proof.proved
        assert proof.index == index
        assert proof.displacement < 1e-7  # params are float32 here


@pytest.mark.slow
@pytest.mark.parametrize(("decay", "count"), [(0.05, 1), (0.02, 5), (0.01, 13)])
def test_xor_with_one_unit_has_as_many_points_as_an_independent_search_finds(decay, count):
    found = mlp_census.complete(*XOR, 1, decay)
    assert found.complete
    assert found.count == count
    assert found.degree == 1
    # Searches from random starts end at listed points or their images only, and at each of them.
    starts = jax.vmap(lambda k: mlp.init(k, (2, 1, 1), bias_init=jax.nn.initializers.normal(1)))(
        jax.random.split(jax.random.key(0), 300)
    )
    points = critical.find_many(_loss, starts, (*XOR, decay))
    network = census._network(*XOR, 1, decay)
    listed = np.array([census._coordinates(network, p) for p in found.points])
    group = network.symmetries
    images = np.concatenate([group.signs * p[group.order] for p in listed])
    seen = set()
    for number in np.flatnonzero(points.converged):
        here = _coordinates(network, jax.tree.map(lambda x, n=number: np.asarray(x[n]), points.params))
        gaps = np.max(np.abs(images - here), axis=1)
        assert np.min(gaps) < 1e-6
        seen.add(int(np.argmin(gaps)) // len(group.order))
    assert seen == set(range(len(listed)))


@pytest.mark.slow
def test_two_units_on_a_line_have_nine_points():
    found = mlp_census.complete(*LINE, 2, 0.05)
    assert found.complete
    assert (found.indices, found.degree) == ({0: 4, 1: 4, 2: 1}, 1)
    assert sorted(found.copies) == [1, 4, 4]


def test_a_strong_decay_leaves_the_trivial_point():
    found = mlp_census.complete(*XOR, 1, 0.5)
    assert found.complete
    assert (found.count, found.indices) == (1, {0: 1})
    np.testing.assert_allclose(found.points[0, :-1], 0, atol=1e-12)
    np.testing.assert_allclose(found.points[0, -1], 0.5 / 1.5)  # the mean, shrunk by the decay


@pytest.fixture(scope="module")
def known():
    """Critical points of networks with two units, by search: (equations, (w, v))."""
    found = []
    for seed, (data, decay) in enumerate(itertools.product((XOR, LINE), (0.01, 0.03))):
        starts = jax.vmap(
            lambda k, d=data: mlp.init(k, (d[0].shape[1], 2, 1), bias_init=jax.nn.initializers.normal(1))
        )(jax.random.split(jax.random.key(seed), 60))
        points = critical.find_many(_loss, starts, (*data, decay))
        network = census._network(*data, 2, decay)
        for number in np.flatnonzero(points.converged):
            params = jax.tree.map(lambda x, n=number: np.asarray(x[n]), points.params)
            found.append((network, _coordinates(network, params)))
    assert len(found) > 100
    return found


@pytest.mark.slow
def test_critical_points_satisfy_the_bounds(known):
    for network, point in known:
        equations = network.equations
        w, v = point[:-2].reshape(2, -1), point[-2:]
        assert np.sum(v**2) <= equations.bounds.outgoing
        assert np.max(np.sum(w**2, axis=1)) <= equations.bounds.incoming
        h = np.tanh(network.inputs @ w[:, :-1].T + w[:, -1])
        gap = h @ v - network.targets
        r = gap - np.mean(gap) / (1 + equations.decay)
        most = bounds.residual(equations.bounds, equations.decay, np.sum(v**2) * (1 - 1e-9))
        assert np.mean(r**2) <= most


@pytest.mark.slow
def test_no_box_about_a_critical_point_is_excluded_or_loses_it(known):
    generator = np.random.default_rng(0)
    for network, point in known:
        size = 10 ** generator.uniform(-5, 0.5, (30, len(point)))
        low = point - size * generator.uniform(0, 1, size.shape)
        high = low + size
        keep = np.all((low <= point) & (point <= high), axis=1)
        # The order of units is a choice of representatives, so it is left out here.
        network.equations._exchange = ()
        sorted_ = point[network.equations.width - 1 : -2 : network.equations.width]
        if np.any(np.diff(sorted_) > 0):
            continue
        found = network.equations.contract(low[keep], high[keep])
        assert not np.any(found.empty)
        assert np.all((found.low <= point + 1e-9) & (point - 1e-9 <= found.high))


def test_slopes_of_the_equations_hold_between_any_two_points():
    generator = np.random.default_rng(1)
    equations = Equations(*XOR, 2, 0.05, ())
    inputs, targets = XOR
    count = 20
    center = generator.uniform(-1, 1, (count, equations.size))
    size = 10 ** generator.uniform(-3, 0, center.shape)
    equations._most = lambda v: np.full(v.shape[-1], 1e6)  # a bound that holds at critical points only
    values, _ = equations._values(center - size, center + size)
    center = (center - size) + ((center + size) - (center - size)) / 2
    from mlp_jax.mlp_census.equations import _Terms

    first, matrix = _Terms(equations, values).equations()
    gradient = jax.jit(jax.vmap(census._reduced_gradient(2, 3, 0.05), (0, None, None)))
    with jax.enable_x64(True):
        start = np.asarray(gradient(center, inputs, targets))
        np.testing.assert_allclose(first.mid, start, atol=1e-13)
        for _ in range(100):
            step = size * generator.uniform(-1, 1, size.shape)
            change = np.asarray(gradient(center + step, inputs, targets)) - start
            middle = np.einsum("bij,bj->bi", matrix.mid, step)
            radius = np.einsum("bij,bj->bi", matrix.radius, np.abs(step))
            assert np.all(np.abs(change - middle) <= radius + 1e-12)


@pytest.mark.parametrize("name", ["peaked", "imbalance"])
def test_functions_of_the_balance_enclose_their_values(name):
    generator = np.random.default_rng(2)
    middle, radius = generator.uniform(-3, 3, 2000), 10 ** generator.uniform(-6, 0.5, 2000)
    low, high = ball.bounds(getattr(bounds, name)(bounds.ends(Ball(middle, radius))))
    for share in np.linspace(-1, 1, 41):
        z = middle + share * radius
        value = z / np.cosh(z) ** 2 - (np.tanh(z) if name == "imbalance" else 0)
        assert np.all((value >= low - 1e-14) & (value <= high + 1e-14))


def test_constants_of_the_bounds_are_proved_by_arb():
    with flint.ctx.workprec(100):
        slope = lambda z: 2 * z * z.tanh()  # z sech² z is stationary where this is 1
        before, after = (flint.arb(x) for x in bounds.PEAK_AT)
        assert slope(before) < 1 < slope(after)
        assert after * (1 - before.tanh() ** 2) < flint.arb(bounds.PEAK) + flint.arb(1e-3)
        top = [z * (1 - z.tanh() ** 2) for z in (flint.arb(0.771) + flint.arb(k) * 1e-6 for k in range(1001))]
        assert max(float(x.upper()) for x in top) + 1e-6 < bounds.PEAK  # the slope there is below 1
        assert flint.arb(bounds.PEAK) * 3 * flint.arb(3).sqrt() / 16 < flint.arb(bounds._SQUARE)


def test_exchanged_inputs_are_a_symmetry_only_where_the_data_allow_it():
    assert len(orbits.group(*XOR, 1).order) == 4
    assert len(orbits.group(XOR[0], np.array([0.0, 1, 0, 0]), 1).order) == 2
    assert len(orbits.group(*LINE, 3).order) == 48


def test_the_loss_is_invariant_under_the_group():
    group = orbits.group(*XOR, 2)
    generator = np.random.default_rng(3)
    point = generator.standard_normal(8)
    value = census._reduced_gradient(2, 3, 0.1)
    sizes = [
        np.linalg.norm(value(jnp.asarray(s * point[o]), *XOR)) for o, s in zip(group.order, group.signs, strict=True)
    ]
    np.testing.assert_allclose(sizes, sizes[0], rtol=1e-5)
    assert len({tuple(s * point[o]) for o, s in zip(group.order, group.signs, strict=True)}) == 16


def test_points_too_close_to_tell_apart_are_refused():
    point = np.array([1e-12, 0.0, 0.1])
    near = point - 1e-11, point + 1e-11
    zero = Zero(point, near, (point - 1.5e-11, point + 0.9e-11))
    with pytest.raises(interval.Refusal, match="too close"):
        orbits.orbits([zero], orbits.group(*LINE, 1))


def test_arithmetic_that_rounds_otherwise_proves_nothing(monkeypatch):
    monkeypatch.setattr(ball, "UNIT", 2.0**-52)  # as if sums were rounded away from zero
    parabola = lambda x: jnp.sum(x**2)
    for claim in (
        mlp_census.complete(*LINE, 1, 0.1),
        interval.complete(parabola, np.array(-1.0), np.array(2.0)),
    ):
        assert not claim.complete
        assert "round" in claim.reason
    certificate = interval.certify(parabola, np.zeros(2))
    assert not certificate.proved
    assert "round" in certificate.reason


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LINE[0], LINE[1][:3], 1, 0.1), "got shapes"),
        ((LINE[0], LINE[1], 0, 0.1), "hidden"),
        ((LINE[0], LINE[1], 1, 0.0), "decay"),
        ((LINE[0], LINE[1] + np.inf, 1, 0.1), "finite"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mlp_census.complete(*arguments)


def test_a_budget_that_ends_is_a_refusal_that_goes_on():
    whole = mlp_census.complete(*LINE, 1, 0.05)
    first = mlp_census.complete(*LINE, 1, 0.05, max_boxes=50)
    assert not first.complete
    assert interval.agree(whole, mlp_census.complete(*LINE, 1, 0.05, resume=first))
