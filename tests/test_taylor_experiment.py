"""The second-order model at a minimum, a saddle and a maximum, small."""

import numpy as np
import pandas as pd
import pytest

from experiments import taylor


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_the_remainder_falls_with_slope_three_along_most_eigenvectors(tmp_path):
    rows = taylor.run(taylor.Settings(networks=3, output=tmp_path / "one"))
    assert set(rows.kind) == set(taylor.KINDS)
    assert (rows.eigenvalue[rows.kind == "minimum"] > 0).all()
    assert (rows.eigenvalue[rows.kind == "maximum"] < 0).all()
    assert (rows[rows.kind == "saddle"].groupby("network").eigenvalue.min() < 0).all()
    assert np.nanmedian(rows.slope) == pytest.approx(3, abs=0.1)
    assert rows.slope.min() > 2.5
    # A quadratic tilt changes no third derivative: the same slopes along the same eigenvectors in reverse order.
    slopes = {kind: rows[(rows.kind == kind) & (rows.network == 0)] for kind in ("minimum", "maximum")}
    assert np.nanmedian(slopes["minimum"].slope) == pytest.approx(np.nanmedian(slopes["maximum"].slope), abs=0.05)
    assert len(pd.read_csv(tmp_path / "one" / "eigenvectors.csv")) == len(rows)
