"""Each check returns a correct argument and names a wrong one; values under a transformation are not checked."""

import fractions
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import _checks

NAN = jnp.array([jnp.nan, 1, jnp.inf])


@pytest.mark.parametrize("value", [3, np.int8(3), np.array(3), jnp.array(3), np.uint64(3)])
def test_integers_of_every_type_are_returned_as_an_int(value):
    assert type(_checks.integer(value, "n")) is int
    assert _checks.integer(value, "n") == 3


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), jnp.array(0.5), fractions.Fraction(1, 2)])
def test_a_real_number_of_every_type_keeps_its_value(value):
    assert float(_checks.real(value, "rate")) == 0.5


@pytest.mark.parametrize("key", [jax.random.key(0), jax.random.PRNGKey(0)], ids=["typed", "two words"])
def test_both_forms_of_a_key_are_keys(key):
    _checks.key(key)
    jax.jit(lambda k: _checks.key(k))(key)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        *[(lambda v=v: _checks.integer(v, "n"), TypeError, "n: got ") for v in (3.0, True, "3", None, np.array([3]))],
        (lambda: _checks.integer(0, "n"), ValueError, "n: got 0, expected an integer of 1 or more."),
        (lambda: _checks.integer(6, "n", 1, 5, "the examples"), ValueError, "an integer from 1 to 5, the examples."),
        *[(lambda v=v: _checks.real(v, "r"), TypeError, "r: got ") for v in ("0.5", None, 1j, [0.5])],
        *[(lambda v=v: _checks.real(v, "r"), ValueError, "expected a finite number.") for v in (np.nan, np.inf)],
        (lambda: _checks.numbers([1, 2], "x", "(n, d)"), ValueError, "x: got shape (2,), expected (n, d)."),
        (lambda: _checks.numbers(["a"], "x"), TypeError, "x: got an array of dtype <U1"),
        (lambda: _checks.numbers(NAN, "x", finite=True), ValueError, "x: got 2 numbers that are NaN or infinite"),
        *[(lambda v=v: _checks.key(v), TypeError, "expected one JAX random key") for v in (0, None, np.zeros(2))],
        (lambda: _checks.key(jax.random.split(jax.random.key(0), 3)), TypeError, "use jax.vmap"),
        (lambda: _checks.params({}), ValueError, "params: got an empty pytree"),
        (lambda: _checks.params([jnp.zeros((2, 0))]), ValueError, "params: got an empty pytree"),
        (lambda: _checks.params({"w": jnp.arange(2)}), TypeError, "params['w']: got an array of dtype int32"),
        (lambda: _checks.params({"w": jnp.ones(2, complex)}), TypeError, "params['w']: got an array of dtype complex"),
        (lambda: _checks.params({"w": "tanh"}), TypeError, "params['w']: got 'tanh'"),
        (lambda: _checks.params([1.0, NAN]), ValueError, "params[1]: got 2 numbers that are NaN or infinite"),
        (lambda: _checks.args([1.0]), TypeError, "args: got a list, expected a tuple"),
        (lambda: _checks.args((NAN,)), ValueError, "args[0]: got 2 numbers"),
        (lambda: _checks.like((np.ones(2),), (np.ones(3),), "d"), ValueError, "d: got leaves of shapes ((2,),)"),
        (lambda: _checks.count_examples((np.ones(2), np.ones(3))), ValueError, "args: got shapes ((2,), (3,))"),
        (lambda: _checks.weights(np.array([0.5, -1.0])), ValueError, "weights: got numbers from -1.0 to 0.5, expected"),
        (lambda: _checks.scalar(jnp.ones(2), "fun"), TypeError, "fun: got a result of shape (2,) and dtype float32"),
        (lambda: _checks.scalar((1.0, 2.0), "fun"), TypeError, "fun: got a result of shapes"),
        (lambda: _checks.function(np, "activation"), TypeError, "activation: got a module, expected a function."),
    ],
)
def test_a_wrong_argument_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_an_integer_of_64_bits_is_a_number():
    _checks.leaves((2**40, np.int64(2**40)), "args")


def test_values_under_a_transformation_are_not_checked():
    jax.jit(lambda x: _checks.params({"x": x}))(jnp.array(jnp.nan))
    assert float(jax.jit(lambda x: _checks.positive(x, "width"))(-1.0)) == -1.0
