"""A checkpoint or certificate is read as it was written or refused, whatever became of the file."""

import dataclasses
import tempfile
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from legal_calls import within

from mlp_jax import checkpoint, interval

pytestmark = pytest.mark.implicit_promotion

few = settings(deadline=None, max_examples=30, derandomize=True, database=None)


def written(save):
    """Return the bytes of the file that `save` writes to a path."""
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder, "file"))
        return Path(folder, "file").read_bytes()


def read(function, content):
    """Return what a function makes of a file with this content, or None where it refuses it."""
    with tempfile.TemporaryDirectory() as folder, within(30):
        path = Path(folder, "file")
        path.write_bytes(content)
        try:
            return function(path)
        except (TypeError, ValueError, OSError):
            return None


def replaced(content, changes):
    copy = bytearray(content)
    for position, value in changes:
        copy[position % len(copy)] = value
    return bytes(copy)


def damages(*good):
    """Contents of files made from good ones: bytes replaced, cut short, continued; and random bytes."""
    base = st.sampled_from(good)
    change = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=3)
    return st.one_of(
        st.builds(replaced, base, change),
        st.builds(lambda b, k: b[:k], base, st.integers(0, 700)),
        st.builds(lambda b, k: b[k:], base, st.integers(1, 100)),
        st.builds(lambda b, tail: b + tail, base, st.binary(min_size=1, max_size=4)),
        st.binary(max_size=60),
        base,
    )


STATE = {"w": np.arange(6.0).reshape(2, 3), "step": np.int32(7), "rate": 0.5}
GOOD = written(lambda path: checkpoint.save(path, STATE))
DTYPES = st.sampled_from((np.float64, np.float32, np.int32, np.uint8, bool, np.complex64, jax.numpy.bfloat16))
ARRAYS = st.builds(
    lambda shape, dtype, n: np.full(shape, n).astype(dtype), st.tuples(st.integers(0, 3)), DTYPES, st.integers(0, 200)
)
STATES = st.recursive(
    ARRAYS | st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


def same(a, b):
    """Return whether two states have the same structure, and leaves of the same bits."""
    bits = lambda tree: [(np.asarray(x).dtype, np.shape(x), np.asarray(x).tobytes()) for x in jax.tree.leaves(tree)]
    return jax.tree.structure(a) == jax.tree.structure(b) and bits(a) == bits(b)


@few
@given(state=STATES)
def test_a_state_comes_back_bit_for_bit(state):
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder, "state"), state)
        assert same(checkpoint.restore(Path(folder, "state"), state), state)


@few
@given(content=damages(GOOD))
def test_a_damaged_checkpoint_is_not_read_as_something_else_and_leaves_the_earlier_one(content):
    found = read(lambda path: checkpoint.restore(path, STATE), content)
    assert found is None or same(found, STATE)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which one was read
        path, later = Path(folder, "state"), {**STATE, "step": np.int32(8)}
        checkpoint.save(path, later)
        checkpoint.save(path, STATE)
        path.write_bytes(content)
        found = checkpoint.restore(path, STATE)
        assert same(found, STATE) or same(found, later)


@pytest.mark.parametrize("state", [{"w": object()}, {"w": len}, [np.array([None], object)]])
def test_a_state_that_cannot_be_saved_is_refused_and_leaves_the_earlier_file(state):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state")
        checkpoint.save(path, STATE)
        before = {file.name: file.read_bytes() for file in Path(folder).iterdir()}
        with pytest.raises((TypeError, ValueError), match=r"state|dtype"):
            checkpoint.save(path, state)
        assert {file.name: file.read_bytes() for file in Path(folder).iterdir()} == before


# --- Certificates -------------------------------------------------------------------------------------------------


def saddle(x):
    return x[0] ** 2 - x[1] ** 2


PROOF = interval.certify(saddle, np.zeros(2))
VALUES = st.sampled_from((0, 1, 2, 1e-300, 0.5, 1e300, (0.0, 1.0), (-2.0, 2.0), (5.0, 6.0), "data"))
CLAIMS = ("index", "null", "radius", "unique_radius", "smallest", "nearest", "largest", "loss", "data")


def require_true_where_confirmed(claim):
    """Check a claim: what is confirmed is a saddle at the origin, within radii and intervals that hold."""
    try:
        again = interval.check(claim, saddle, np.ones(2))
    except (TypeError, ValueError):
        return  # fields of other types and ranges, or a refusal
    if again.proved:
        assert (claim.index, claim.null, again.index, again.null) == (1, 0, 1, 0)
        assert np.max(np.abs(again.location)) <= again.radius <= claim.radius
        assert claim.unique_radius <= again.unique_radius
        for name, value in (("smallest", -2.0), ("largest", 2.0), ("loss", 0.0)):
            assert getattr(claim, name)[0] <= value <= getattr(claim, name)[1]


@few
@given(fields=st.dictionaries(st.sampled_from(CLAIMS), VALUES, min_size=1, max_size=2))
def test_a_certificate_that_was_changed_is_never_confirmed_for_what_it_says(fields):
    require_true_where_confirmed(dataclasses.replace(PROOF, **fields))


@few
@given(content=damages(written(PROOF.save)))
def test_a_damaged_certificate_is_refused_or_confirmed_for_what_holds(content):
    claim = read(interval.load, content)
    if claim is not None:
        require_true_where_confirmed(claim)
