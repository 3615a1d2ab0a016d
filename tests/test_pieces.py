"""The pieces of a run come back bit for bit, and loading builds only data."""

import json
import pathlib
import tempfile

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments._shared import pieces
from mlp_jax import _files, critical, interval, mlp
from mlp_jax.critical import Reason

ARRAYS = hypothesis.extra.numpy.arrays(
    hypothesis.extra.numpy.scalar_dtypes(), hypothesis.extra.numpy.array_shapes(min_dims=0, min_side=0)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def through_file(value):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "piece.npz")
        pieces.save(file, value)
        return pieces.load(file)


def same(a, b):
    """Equal to the last bit, of the same types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes() or a != a
    if isinstance(a, dict):
        return same([*a.items()], [*b.items()])
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, list | tuple) else a == b


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(VALUES)
def test_values_come_back_bit_for_bit(value):
    assert same(through_file(value), value)


def test_tables_come_back_with_dtypes_missing_values_and_index():
    columns = {
        "n": pd.array([1, None, 3], dtype="Int64"),
        "x": [0.1, np.nan, -0.0],
        "name": ["a", "b ± c", ""],
        "yes": [True, False, True],
        "mixed": pd.Series([None, 2, "x"], index=[4, 2, 7], dtype=object),
        "counts": np.arange(3),
    }
    table = pd.DataFrame(columns, index=[4, 2, 7])
    back = through_file(table)
    pd.testing.assert_frame_equal(back, table, check_exact=True)
    assert np.signbit(back.x.to_numpy()[2])
    pd.testing.assert_frame_equal(through_file(table.iloc[:0]), table.iloc[:0])


def test_verdicts_certificates_and_named_tuples_come_back_equal():
    verdict = critical.classify(lambda x: x[0] ** 2 - x[1] ** 2, jnp.zeros(2), evidence="proved")
    back, layer, reason = through_file((verdict, mlp.Layer(jnp.ones((2, 3)), jnp.zeros(3)), Reason.MAX_STEPS))
    assert (str(back), str(back.certificate)) == (str(verdict), str(verdict.certificate))
    assert isinstance(back.certificate, interval.Certificate)
    assert isinstance(layer, mlp.Layer)
    assert reason is Reason.MAX_STEPS


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "experiments._shared.run_folder:RunFolder", "x", ":"])
def test_only_data_types_of_this_project_are_built(name, tmp_path):
    text = json.dumps({"is": name, "of": []})
    _files.write_npz(tmp_path / "piece.npz", {"value": np.frombuffer(text.encode(), np.uint8)})
    with pytest.raises(ValueError, match="expected a dataclass, NamedTuple or Enum"):
        pieces.load(tmp_path / "piece.npz")


def test_a_type_that_cannot_be_loaded_is_refused_when_it_is_saved(tmp_path):
    for value in ({1, 2}, lambda: 0, np.array([object()]), object()):
        with pytest.raises(TypeError, match="cannot be kept"):
            pieces.save(tmp_path / "piece.npz", value)
    assert not list(tmp_path.iterdir())
