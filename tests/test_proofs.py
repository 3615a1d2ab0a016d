"""The proofs experiment, small: every point found is proved, saved, and proved again from its file."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import proofs
from mlp_jax import datasets, interval, mlp


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_points_on_xor_and_digits_are_proved_saved_and_proved_again(tmp_path, monkeypatch):
    few = datasets.Dataset(*(datasets.Examples(*(a[:200] for a in part)) for part in datasets.load("digits")))
    monkeypatch.setattr(datasets, "load", lambda _: few)  # the time of a proof grows with its examples
    settings = proofs.Settings(quick=True, output=tmp_path / "one")
    digits, xor = proofs.run(settings)
    assert digits["index"].tolist() == [0, 1]
    assert digits.parameters.tolist() == [160, 160]
    assert (digits.unique_radius > 1e-9).all()
    assert (digits.smallest_low <= digits.smallest_high).all()
    assert xor["index"].notna().all()
    assert len(xor) >= 4
    assert len(pd.read_csv(settings.output / "digits.csv")) == 2
    assert (settings.output / "proofs.png").exists()
    saved = sorted(pathlib.Path(settings.output).glob("digits_*.json"))
    with jax.enable_x64(True):
        model, data = proofs.classifier(settings.weight_decay), proofs.all_digits()
        like = mlp.init(jax.random.key(9), (64, 2, 10), dtype=jnp.float64)
        again = interval.check(interval.load(saved[0]), model.fun, like, data)
        assert again.proved, again.reason
        changed = (data[0] + np.eye(*data[0].shape) * 1e-3, data[1])
        assert not interval.check(interval.load(saved[0]), model.fun, like, changed).proved
