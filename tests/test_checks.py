"""Each check passes what is right and names the argument otherwise; values under a transformation are not looked at."""

import fractions
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import _checks


@pytest.mark.parametrize("value", [3, np.int8(3), np.array(3), jnp.array(3), np.uint64(3)])
def test_integers_of_every_type_come_back_as_an_int(value):
    assert type(_checks.integer(value, "n")) is int
    assert _checks.integer(value, "n") == 3


@pytest.mark.parametrize("value", [3.0, True, np.True_, "3", None, np.array([3]), 1j, fractions.Fraction(3)])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(TypeError, match=r"n: got .*, expected an integer of 1 or more\."):
        _checks.integer(value, "n")


def test_an_integer_out_of_range_is_refused_with_the_range():
    with pytest.raises(ValueError, match=re.escape("n: got 0, expected an integer of 1 or more.")):
        _checks.integer(0, "n")
    with pytest.raises(ValueError, match=re.escape("n: got 6, expected an integer from 1 to 5, the examples.")):
        _checks.integer(6, "n", 1, 5, "the examples")


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), jnp.array(0.5), fractions.Fraction(1, 2)])
def test_one_real_number_of_every_type_passes_with_its_value(value):
    assert float(_checks.real(value, "rate")) == 0.5


@pytest.mark.parametrize("value", ["0.5", None, 1j, np.array([0.5]), jax.random.key(0), [0.5]])
def test_what_is_not_one_real_number_is_refused(value):
    with pytest.raises(TypeError, match=r"rate: got .*, expected a finite number\."):
        _checks.real(value, "rate")


@pytest.mark.parametrize("value", [np.nan, np.inf, np.float32("nan")])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match=r"rate: got .*, expected a finite number\."):
        _checks.real(value, "rate")


@pytest.mark.parametrize("key", [jax.random.key(0), jax.random.PRNGKey(0)], ids=["typed", "two words"])
def test_both_forms_of_a_key_are_keys(key):
    _checks.key(key)
    jax.jit(lambda k: _checks.key(k))(key)


@pytest.mark.parametrize("key", [0, None, np.zeros(2), jax.random.split(jax.random.key(0), 3)])
def test_what_is_not_one_key_is_refused(key):
    with pytest.raises(TypeError, match=r"key: got .*, expected one JAX random key"):
        _checks.key(key)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({}, ValueError, "params: got an empty pytree"),
        ([jnp.zeros((2, 0))], ValueError, "params: got an empty pytree"),
        ({"w": jnp.arange(2)}, TypeError, "params['w']: got an array of dtype int32"),
        ({"w": jnp.ones(2, complex)}, TypeError, "params['w']: got an array of dtype complex64"),
        ({"w": "tanh"}, TypeError, "params['w']: got 'tanh'"),
        ([1.0, jnp.array([jnp.nan, 1, jnp.inf])], ValueError, "params[1]: got 2 numbers that are NaN or infinite"),
    ],
)
def test_parameters_that_are_not_finite_and_floating_are_refused_by_name(params, error, message):
    with pytest.raises(error, match=re.escape(message)):
        _checks.params(params)


def test_an_integer_of_64_bits_is_a_number():
    _checks.leaves((2**40, np.int64(2**40)), "args")


def test_values_under_a_transformation_are_traced_and_not_looked_at():
    seen = []
    jax.jit(lambda x: seen.append((_checks.is_traced({"x": x}), _checks.is_traced({"one": 1.0}))))(1.0)
    assert seen == [(True, False)]
    jax.jit(lambda x: _checks.params({"x": x}))(jnp.array(jnp.nan))
    assert float(jax.jit(lambda x: _checks.positive(x, "width"))(-1.0)) == -1.0
    assert jax.jit(lambda x: jnp.sum(_checks.numbers([x, x], "values", finite=True)))(jnp.nan).shape == ()
