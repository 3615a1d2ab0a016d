"""A certificate is confirmed only for claims that hold, however its fields or its file were changed."""

import contextlib
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from legal_calls import within

from mlp_jax import interval

pytestmark = pytest.mark.implicit_promotion

few = settings(deadline=None, max_examples=30, derandomize=True, database=None)


def loaded(content):
    """Return the certificate in a file with this content, or None if it is refused."""
    with tempfile.TemporaryDirectory() as folder, within(30), contextlib.suppress(TypeError, ValueError, OSError):
        Path(folder, "file").write_bytes(content)
        return interval.load(Path(folder, "file"))


def replaced(content, changes):
    copy = bytearray(content)
    for position, value in changes:
        copy[position % len(copy)] = value
    return bytes(copy)


def damages(good):
    """Contents of files: the good one with bytes replaced, removed or appended, and random bytes."""
    base = st.just(good)
    change = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=3)
    return st.one_of(
        st.builds(replaced, base, change),
        st.builds(lambda b, k: b[:k], base, st.integers(0, 700)),
        st.builds(lambda b, k: b[k:], base, st.integers(1, 100)),
        st.builds(lambda b, tail: b + tail, base, st.binary(min_size=1, max_size=4)),
        st.binary(max_size=60),
        base,
    )


def saddle(x):
    return x[0] ** 2 - x[1] ** 2


PROOF = interval.certify(saddle, np.zeros(2))
VALUES = st.sampled_from((0, 1, 2, 1e-300, 0.5, 1e300, (0.0, 1.0), (-2.0, 2.0), (5.0, 6.0), "data"))
CLAIMS = ("index", "null", "radius", "unique_radius", "smallest", "nearest", "largest", "loss", "data")


def assert_true_if_confirmed(claim):
    """Check a claim; if it is confirmed, it is of a saddle at the origin, with radii and intervals that hold."""
    try:
        again = interval.check(claim, saddle, np.ones(2))
    except (TypeError, ValueError):
        return
    if again.proved:
        assert (claim.index, claim.null, again.index, again.null) == (1, 0, 1, 0)
        assert np.max(np.abs(again.location)) <= again.radius <= claim.radius
        assert claim.unique_radius <= again.unique_radius
        for name, value in (("smallest", -2.0), ("largest", 2.0), ("loss", 0.0)):
            assert getattr(claim, name)[0] <= value <= getattr(claim, name)[1]


@few
@given(fields=st.dictionaries(st.sampled_from(CLAIMS), VALUES, min_size=1, max_size=2))
def test_a_changed_certificate_is_confirmed_only_for_what_holds(fields):
    assert_true_if_confirmed(dataclasses.replace(PROOF, **fields))


@few
@given(data=st.data())
def test_a_damaged_certificate_is_refused_or_confirmed_for_what_holds(data, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "certificate"
    PROOF.save(file)
    claim = loaded(data.draw(damages(file.read_bytes())))
    if claim is not None:
        assert_true_if_confirmed(claim)
