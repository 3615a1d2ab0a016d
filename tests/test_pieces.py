"""What a run keeps of its pieces comes back bit for bit, and reading builds nothing but data."""

import json

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments._shared import pieces
from experiments.minima_and_saddles import Search
from mlp_jax import critical, interval, mlp
from mlp_jax.critical import Reason

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ARRAYS = hypothesis.extra.numpy.arrays(
    hypothesis.extra.numpy.scalar_dtypes(), hypothesis.extra.numpy.array_shapes(min_dims=0, min_side=0)
)
VALUES = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a, b):
    """Equal to the last bit, of the same types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and np.shape(a) == np.shape(b) and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes() or a != a
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(VALUES)
def test_values_come_back_bit_for_bit(value):
    assert same(pieces.from_text(pieces.to_text(value)), value)


def test_tables_come_back_with_dtypes_missing_values_and_index():
    table = pd.DataFrame(
        {
            "n": pd.array([1, None, 3], dtype="Int64"),
            "x": [0.1, np.nan, -0.0],
            "name": ["a", "b ± c", ""],
            "yes": [True, False, True],
            "mixed": pd.Series([None, 2, "x"], dtype=object),
            "counts": np.arange(3),
        },
        index=[4, 2, 7],
    )
    back = pieces.from_text(pieces.to_text(table))
    pd.testing.assert_frame_equal(back, table, check_exact=True)
    assert np.signbit(back.x.to_numpy()[2])
    empty = table.iloc[:0]
    pd.testing.assert_frame_equal(pieces.from_text(pieces.to_text(empty)), empty)


def test_verdicts_certificates_and_records_come_back_whole():
    fun = lambda x: x[0] ** 2 - x[1] ** 2
    verdict = critical.classify(fun, jnp.zeros(2), evidence="proved")
    back = pieces.from_text(pieces.to_text(verdict))
    assert str(back) == str(verdict)
    assert str(back.certificate) == str(verdict.certificate)
    assert isinstance(back.certificate, interval.Certificate)
    layer = mlp.Layer(jnp.ones((2, 3)), jnp.zeros(3))
    search = Search("origin", (layer,), 3)
    again = pieces.from_text(pieces.to_text((search, Reason.MAX_STEPS)))
    assert isinstance(again[0], Search)
    assert isinstance(again[0].params[0], mlp.Layer)
    assert again[1] is Reason.MAX_STEPS


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "subprocess:Popen",
        "builtins:eval",
        "experiments._shared.run_folder:RunFolder",
        "mlp_jax.mlp:init",
        "x",
        ":",
    ],
)
@pytest.mark.parametrize("kind", ["record", "enum"])
def test_nothing_but_data_types_of_this_project_is_built(name, kind):
    text = json.dumps({"is": kind, "type": name, "fields": {}, "value": 0})
    with pytest.raises(ValueError, match="expected a dataclass, NamedTuple or Enum"):
        pieces.from_text(text)


def test_what_cannot_come_back_is_refused_when_it_is_kept():
    for value in ({1, 2}, lambda: 0, np.array([object()]), object()):
        with pytest.raises(TypeError, match="cannot be kept as text"):
            pieces.to_text(value)
