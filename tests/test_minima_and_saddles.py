"""The main job on a few digits: its verdicts, proofs, tables and figures."""

import json

import pandas as pd
import pytest

from experiments import minima_and_saddles
from mlp_jax import datasets, interval


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    settings = minima_and_saddles.Settings(quick=True, hidden=2, epochs=60, weight_decay=0.03, output=folder)
    few = datasets.Dataset(*(datasets.Examples(*(a[:300] for a in part)) for part in datasets.load("digits")))
    with pytest.MonkeyPatch.context() as patch:  # the time of a proof is that of its examples
        patch.setattr(datasets, "load", lambda _: few)
        return folder, settings, minima_and_saddles.run(settings)


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_a_minimum_and_a_saddle_are_found_with_every_sign_resolved_and_proved(run):
    folder, _, rows = run
    assert {"minimum", "saddle"} <= set(rows.kind)
    known = rows[rows["index"].notna()]
    assert (known.negative == known["index"]).all()
    assert (known.negative + known.unresolved + known.positive == 64 * 2 + 2 + 2 * 10 + 10).all()
    assert (known[known.kind == "minimum"].smallest > 0).all()
    assert (known[known.kind == "saddle"].smallest < 0).all()
    assert known.proved.all()
    for number, row in known.iterrows():
        assert interval.load(folder / f"search_{number}.json").index == row["index"]


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_table_settings_and_figures_are_saved_and_never_overwritten(run):
    folder, settings, rows = run
    assert len(pd.read_csv(folder / "critical_points.csv")) == len(rows)
    assert json.loads((folder / "settings.json").read_text())["settings"]["hidden"] == 2
    assert {p.name for p in folder.glob("*.png")} == {"loss_against_index.png", "spectra.png"}
    with pytest.raises(FileExistsError, match="not empty"):
        minima_and_saddles.run(settings)
