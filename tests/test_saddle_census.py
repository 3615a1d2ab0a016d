"""The census experiment, small: every point is proved, the sum is right, saddles join points of the list."""

import pandas as pd
import pytest

from experiments import saddle_census
from mlp_jax import interval


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_every_point_is_proved_and_every_saddle_joins_points_of_the_list(tmp_path):
    settings = saddle_census.Settings(quick=True, starts=2400, output=tmp_path / "one")
    points, table = saddle_census.run(settings)
    assert table["sum"].tolist() == [1]
    assert (points["index"] == points.proved_index).all()
    assert (points.smallest_low <= points.smallest).all()
    assert (points.smallest <= points.smallest_high).all()
    joined = points[points["index"] == 1].joins
    assert len(joined) >= 5
    assert not joined.str.contains("None").any()
    assert len(pd.read_csv(settings.output / "points.csv")) == len(points)
    assert {p.name for p in settings.output.glob("*.png")} == {"levels.png", "joined.png"}
    assert interval.load(settings.output / "zero_one_0.01_0.json").proved
