"""The main job on a few digits: its verdicts, proofs, tables and figures."""

import json

import pandas as pd
import pytest

from experiments import minima_and_saddles
from mlp_jax import datasets, interval


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_a_minimum_and_a_saddle_are_found_resolved_proved_and_saved(tmp_path, monkeypatch):
    folder = tmp_path / "one"
    settings = minima_and_saddles.Settings(quick=True, hidden=2, weight_decay=0.03, prove="all", output=folder)
    few = datasets.Dataset(*(datasets.Examples(*(a[:300] for a in part)) for part in datasets.load("digits")))
    monkeypatch.setattr(datasets, "load", lambda _: few)  # the time of a proof grows with its examples
    rows = minima_and_saddles.run(settings)
    assert {"minimum", "saddle"} <= set(rows.kind)
    known = rows[rows["index"].notna()]
    assert (known.negative == known["index"]).all()
    assert (known.negative + known.unresolved + known.positive == 64 * 2 + 2 + 2 * 10 + 10).all()
    assert (known[known.kind == "minimum"].smallest > 0).all()
    assert (known[known.kind == "saddle"].smallest < 0).all()
    assert known.proved.all()
    for number, row in known.iterrows():
        assert interval.load(folder / f"point_{number}.json").index == row["index"]
    assert len(pd.read_csv(folder / "critical_points.csv")) == len(rows)
    assert json.loads((folder / "settings.json").read_text())["settings"]["hidden"] == 2
    assert (folder / "loss_against_index.png").exists()
    with pytest.raises(FileExistsError, match="not empty"):
        minima_and_saddles.run(settings)
