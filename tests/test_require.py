import fractions
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlp_jax import require


@pytest.mark.parametrize("value", [3, np.int8(3), np.array(3), jnp.array(3), np.uint64(3)])
def test_whole_numbers_of_every_integer_type_come_back_as_an_int(value):
    assert type(require.whole(value, "n")) is int
    assert require.whole(value, "n") == 3


@pytest.mark.parametrize("value", [3.0, True, np.True_, "3", None, [3], np.array([3]), 1j, fractions.Fraction(3)])
def test_what_is_no_integer_is_no_whole_number(value):
    with pytest.raises(TypeError, match=r"n: got .*, expected a whole number of 1 or more\."):
        require.whole(value, "n")


def test_a_whole_number_out_of_range_is_refused_with_the_range():
    with pytest.raises(ValueError, match=re.escape("n: got 0, expected a whole number of 1 or more.")):
        require.whole(0, "n")
    with pytest.raises(ValueError, match=re.escape("n: got 6, expected a whole number from 1 to 5, the examples.")):
        require.whole(6, "n", 1, 5, "the examples")


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), jnp.array(0.5), fractions.Fraction(1, 2)])
def test_one_real_number_of_every_type_passes_with_its_value(value):
    assert float(require.real(value, "rate")) == 0.5


@pytest.mark.parametrize("value", ["0.5", None, 1j, np.array([0.5]), jax.random.key(0), np.float32, [0.5]])
def test_what_is_not_one_real_number_is_refused(value):
    with pytest.raises(TypeError, match=r"rate: got .*, expected a finite number\."):
        require.real(value, "rate")


@pytest.mark.parametrize("value", [np.nan, np.inf, -(10**400), np.float32("nan")])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match=r"rate: got .*, expected a finite number\."):
        require.real(value, "rate")


def test_traced_numbers_pass_and_their_values_are_not_looked_at():
    assert float(jax.jit(lambda x: require.positive(x, "width"))(-1.0)) == -1.0
    assert jax.jit(lambda x: jnp.sum(require.numbers([x, x], "values", finite=True)))(jnp.nan).shape == ()


@pytest.mark.parametrize(
    "value",
    [None, "text", [[1.0], [2.0, 3.0]], {1: 2}, np.ma.masked_array([1.0], [True]), np.ones(2, np.longdouble), [1j]],
    ids=["none", "text", "ragged", "dictionary", "masked", "longdouble", "complex"],
)
def test_what_is_no_array_of_real_numbers_is_refused(value):
    with pytest.raises(TypeError, match=r"values: got .*, expected "):
        require.numbers(value, "values")


def test_a_function_of_another_number_of_arguments_is_refused_before_it_is_called():
    with pytest.raises(TypeError, match=r"fun: got a function \(\) \(.*\), expected a function of one array\."):
        require.function(lambda: 1, "fun", "of one array", 1)
    require.function(lambda x, y=2: x, "fun", "of one array", 1)
    require.function(jnp.tanh, "fun", "of one array", 1)


@pytest.mark.parametrize("result", [None, "text", object()], ids=["nothing", "text", "object"])
def test_a_result_that_holds_no_arrays_is_named(result):
    if result is None:  # an empty pytree, which is for the caller to judge
        assert require.abstract_result(lambda x: result, "fun", "(x) -> value", 1.0) is None
        return
    with pytest.raises(TypeError, match=r"fun: got a result with .* in it, expected arrays\."):
        require.abstract_result(lambda x: result, "fun", "(x) -> value", 1.0)


def test_what_a_function_raises_itself_is_left_as_it_is():
    def fun(x):
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine"):
        require.abstract_result(fun, "fun", "(x) -> value", 1.0)


@pytest.mark.parametrize("path", ["\0", "\ud800"])
def test_names_that_no_file_can_have_are_refused(path):
    with pytest.raises(ValueError, match=r"path: got .*, expected a name that a file can have"):
        require.path(path)
