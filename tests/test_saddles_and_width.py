"""The census by width, small: counts are consistent, and padded points are marked."""

import pandas as pd
import pytest

from experiments import saddles_and_width


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_points_are_counted_by_width_and_saved(tmp_path):
    settings = saddles_and_width.Settings(quick=True, widths=(1, 2), teachers=2, output=tmp_path / "one")
    table = saddles_and_width.run(settings)
    assert len(table) == 4
    assert (table.points == table.minima + table.saddles).all()
    assert (table.minima >= 1).all()
    # A padded point of the wider network is one of the narrower network, or the zero network, which both have.
    assert (table[table.width == 2].padded >= 1).all()
    points = pd.read_csv(settings.output / "points.csv")
    assert set(points.copies[points.width == 1]) <= {1, 2}
    assert set(points.copies[points.width == 2]) <= {1, 2, 4, 8}
    assert (settings.output / "saddles_and_width.png").exists()
