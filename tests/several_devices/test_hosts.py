"""The comparison of `experiments.hosts`, which CI also runs as a job of two processes."""

import numpy as np
import pandas as pd
import pytest

from experiments import hosts

PLAIN = {"sum": np.array([1.0, 2.0]), "sum, seconds": np.array(0.5), "count": np.array([3]), "count, seconds": 0.25}


def test_differences_are_relative_to_the_largest_entry():
    other = PLAIN | {"sum": np.array([1.0, 2.0 + 2.0**-50])}
    rows = pd.DataFrame(hosts.compared("8 devices", other, PLAIN)).set_index("work")
    assert rows.same_bits.to_dict() == {"sum": False, "count": True}
    assert rows.difference["sum"] == 2.0**-51
    said = hosts.conclusion(rows.reset_index())
    assert "on 1 layout of" in said
    assert "with the same bits as on one device are: count;" in said
    assert "4e-16 (sum, 8 devices)" in said


def test_processes_that_disagree_are_an_error():
    hosts._require_same(PLAIN, PLAIN | {"sum, seconds": np.array(9.0)})
    with pytest.raises(RuntimeError, match="sum: got different results in two processes"):
        hosts._require_same(PLAIN, PLAIN | {"sum": np.array([1.0, 3.0])})
