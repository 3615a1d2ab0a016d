"""A Hessian given as an enclosure gives the same theorems, and a wrong one none; tests that hold everywhere."""

import dataclasses
import functools
import threading

import flint
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import critical, devices, interval, losses, mlp, mlp_hessian, penalties
from mlp_jax.interval import enclosures, multiprecision

X, Y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2


@functools.cache
def problem(loss, activation):
    """A penalised loss, its Hessian by layer blocks in two forms, and data."""
    penalty = lambda params: penalties.l2(params, 0.05)
    targets = Y if loss is losses.cross_entropy else np.eye(2)[Y]

    def fun(params, x, y):
        return losses.mean(loss(mlp.forward(params, x, activation=activation), y)) + penalty(params)

    settings = {"loss": loss, "activation": activation, "penalty": penalty}
    dense, enclosure = (functools.partial(f, **settings) for f in (mlp_hessian.dense, mlp_hessian.enclosable))
    return fun, dense, enclosure, (X, targets)


def point(fun, dense, args, sizes=(3, 2, 2), index=0):
    found = critical.find(fun, mlp.init(jax.random.key(3), sizes), args, hessian=dense, index=index)
    assert found.converged
    return found.params


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "activation", "sizes"),
    [
        (losses.cross_entropy, jnp.tanh, (3, 2, 2)),
        (losses.squared_error, jnp.tanh, (3, 2, 2)),
        (losses.cross_entropy, jax.nn.softplus, (3, 2, 2, 2)),
    ],
)
def test_an_enclosure_by_layer_blocks_proves_what_hessian_vector_products_prove(loss, activation, sizes):
    fun, dense, enclosure, args = problem(loss, activation)
    params = point(fun, dense, args, sizes)
    ours, own = (interval.certify(fun, params, args, enclosure=e) for e in (enclosure, None))
    assert ours.proved, ours.reason
    assert own.proved, own.reason
    assert (ours.index, ours.null, ours.kind) == (own.index, own.null, own.kind)
    assert np.max(np.abs(ours.location - own.location)) <= ours.radius + own.radius
    for name in ("smallest", "nearest", "largest", "loss"):
        (low, high), (below, above) = getattr(ours, name), getattr(own, name)
        assert max(low, below) <= min(high, above)
    assert any("enclosure" in assumption for assumption in ours.assumptions)
    assert not any("enclosure" in assumption for assumption in own.assumptions)
    assert interval.check(ours, fun, params, args, enclosure=enclosure).proved


def test_the_hessian_for_enclosures_is_the_dense_one():
    _, dense, enclosure, args = problem(losses.cross_entropy, jnp.tanh)
    params = mlp.init(jax.random.key(0), (3, 4, 3, 2))
    np.testing.assert_allclose(enclosure(params, *args), dense(params, *args), rtol=0, atol=1e-15)


def test_an_enclosure_of_another_hessian_proves_nothing():
    fun, dense, _, args = problem(losses.cross_entropy, jnp.tanh)
    params = point(fun, dense, args)
    part = functools.partial(mlp_hessian.enclosable, loss=losses.cross_entropy, penalty=lambda p: penalties.l2(p, 0.05))

    def one_entry(params, x, y):
        return part(params, x, y).at[1, 2].add(1e-6).at[2, 1].add(1e-6)

    wrong = {
        "another penalty": functools.partial(part, penalty=lambda p: penalties.l2(p, 0.0500001)),
        "another activation": functools.partial(part, activation=jnp.sin),
        "other data": lambda params, x, y: part(params, x + 1e-5, y),
        "one entry": one_entry,
        "not symmetric": lambda params, x, y: part(params, x, y).at[0, 1].add(1e-3),
    }
    for name, enclosure in wrong.items():
        refused = interval.certify(fun, params, args, hessian=dense, enclosure=enclosure)
        assert not refused.proved, name
        # A second call is refused again: nothing is remembered of a test that failed.
        assert not interval.certify(fun, params, args, hessian=dense, enclosure=enclosure).proved, name


def test_an_enclosure_of_another_shape_is_named():
    with pytest.raises(ValueError, match="enclosure"):
        interval.certify(lambda x: x @ x, jnp.zeros(2), enclosure=lambda x: jnp.eye(3))


def test_a_proved_verdict_takes_an_enclosure():
    fun, dense, enclosure, args = problem(losses.cross_entropy, jnp.tanh)
    params = point(fun, dense, args)
    verdict = critical.classify(fun, params, args, hessian=dense, enclosure=enclosure, evidence="proved")
    assert verdict.evidence == "proved"
    assert any("enclosure" in assumption for assumption in verdict.certificate.assumptions)


def _is_analytic(fun, size=3):
    with jax.enable_x64(True):
        return enclosures.trace(fun, np.ones(size), ())[0].analytic


@pytest.mark.parametrize(
    ("fun", "expected"),
    [
        (lambda x: jnp.sum(jnp.tanh(x) ** 2), True),
        (lambda x: jnp.sum(jax.nn.softplus(x)), True),
        (lambda x: jax.nn.logsumexp(x), True),
        (lambda x: jnp.sum(jnp.log(1 + jnp.exp(x)) / jnp.cosh(x)), True),
        (lambda x: jnp.sum(jax.nn.sigmoid(x) ** -2), True),
        (lambda x: jnp.sum(jnp.where(jnp.arange(3) > 1, x, jnp.sin(x))), True),
        (lambda x: jnp.sum(1 / x), False),
        (lambda x: jnp.sum(jnp.sqrt(x * x)), False),
        (lambda x: jnp.sum(jnp.log(x)), False),
        (lambda x: jnp.sum(jnp.abs(x)), False),
        (lambda x: jnp.sum(jax.nn.relu(x)), False),
        (lambda x: jnp.sum(jnp.where(x > 0, x, jnp.sin(x))), False),
        (lambda x: jnp.sum(jnp.floor(x)), False),
        (lambda x: jnp.sum(jnp.tan(x)), False),
        (lambda x: jnp.sum(x) * (jnp.max(x) + jnp.sqrt(jnp.max(x) ** 2)), False),
        (lambda x: x[jnp.argmax(x)], False),
    ],
)  # fmt: skip
def test_functions_are_analytic_everywhere_or_not_known_to_be(fun, expected):
    assert _is_analytic(fun) == expected


def test_a_maximum_that_matters_is_not_taken_as_a_constant():
    fun = lambda x: jnp.sum(x**2) + jax.lax.stop_gradient(jnp.max(x)) * x[0]
    assert _is_analytic(fun)
    first = interval.certify(fun, jnp.zeros(3))
    assert not first.proved


@jax.custom_jvp
def _size(x):
    return jnp.sqrt(x * x)


@_size.defjvp
def _size_jvp(primals, tangents):
    return _size(primals[0]), tangents[0]  # right where x > 0 only


def test_a_rule_that_is_right_on_one_side_proves_nothing_on_the_other():
    fun = lambda x: jnp.sum(_size(x) + x**3 / 3 - 2 * x)  # the rule makes the gradient x² − 1
    assert interval.certify(fun, np.ones(2)).kind == "minimum"
    refused = interval.certify(fun, -np.ones(2))
    assert "a rule of custom_jvp_call is wrong" in refused.reason


def test_one_thread_at_a_time_sets_the_precision():
    entered = threading.Event()

    def other():
        with multiprecision.bits(60):
            entered.set()

    with multiprecision.bits(300):
        thread = threading.Thread(target=other)
        thread.start()
        assert not entered.wait(0.2)
        assert flint.arb(2).sqrt().rel_accuracy_bits() > 290
    thread.join()
    assert entered.is_set()


def test_proofs_side_by_side_are_those_in_turn():
    fun, dense, enclosure, args = problem(losses.cross_entropy, jnp.tanh)
    params = [point(fun, dense, args, index=index) for index in (0, 1, 0)]
    prove = lambda p: dataclasses.asdict(interval.certify(fun, p, args, hessian=dense, enclosure=enclosure))
    side_by_side, in_turn = devices.over_cores(prove, params), list(map(prove, params))
    assert all(first["proved"] for first in in_turn)
    for first, second in zip(side_by_side, in_turn, strict=True):
        assert {k: np.array_equal(v, second[k]) for k, v in first.items()} == dict.fromkeys(first, True)
