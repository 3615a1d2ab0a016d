"""Hoeffding's bound for a finite class: its values, its inverse, and exact probabilities for tiny classes."""

import fractions
import itertools
import math

import numpy as np
import pandas as pd
import pytest

from experiments import hypothesis_space as space
from experiments._shared import finite_hypotheses as finite


def test_bound_has_the_values_computed_by_hand():
    # 10 · 2 exp(−2 · 500 · 0.01) = 20 exp(−10)
    np.testing.assert_allclose(finite.bad_sample_bound(math.log(10), 500, 0.1), 20 * 4.5399929762484854e-05, rtol=1e-12)
    # 2 exp(−2 · 100 · 0.01) = 2 exp(−2) for one function
    np.testing.assert_allclose(finite.bad_sample_bound(0.0, 100, 0.1), 0.27067056647322535, rtol=1e-12)
    assert finite.bad_sample_bound(math.log(10), 100, 0.1) == 1.0  # 20 exp(−2) = 2.7 says nothing
    # ln(2 · 1000 / .05) / .02 = ln(40000) / .02 = 529.8
    assert finite.sample_size(math.log(1000), 0.05, 0.1) == 530
    log_size = math.log(2**1000000)  # 693147.18…
    np.testing.assert_allclose(finite.log_bad_sample_bound(log_size, 0, 0.1), 1000001 * math.log(2), rtol=1e-14)
    assert finite.bad_sample_bound(log_size, 10**9, 0.1) == 0.0
    # (1000001 ln 2 + ln 20) / .02
    assert finite.sample_size(log_size, 0.05, 0.1) == math.ceil((1000001 * math.log(2) + math.log(20)) / 0.02)


def test_sample_size_inverts_the_bound():
    for log_size, failure, deviation in itertools.product((0.0, 50.0, 1e6), (0.5, 0.05, 1e-9), (1.0, 0.1, 0.003)):
        num_samples = finite.sample_size(log_size, failure, deviation)
        assert finite.log_bad_sample_bound(log_size, num_samples, deviation) <= math.log(failure) + 1e-9
        assert finite.log_bad_sample_bound(log_size, num_samples - 1, deviation) > math.log(failure) - 1e-9


def enumerated(mistakes, num_samples, deviation):
    """P(bad) and the sum of single probabilities, by listing all M^N samples with exact fractions."""
    num_points = len(mistakes[0])
    bad, single = 0, 0
    for sample in itertools.product(range(num_points), repeat=num_samples):
        errors = [fractions.Fraction(sum(row[i] for i in sample), num_samples) for row in mistakes]
        true = [fractions.Fraction(sum(row), num_points) for row in mistakes]
        off = [abs(a - b) > fractions.Fraction(deviation) for a, b in zip(errors, true, strict=True)]
        bad, single = bad + any(off), single + sum(off)
    total = num_points**num_samples
    return bad / total, single / total


TINY = [[1, 0, 0, 1], [1, 1, 0, 1], [0, 0, 0, 1]]


def test_union_and_simulation_agree_with_all_samples_and_stay_below_the_bounds():
    mistakes, trials = np.array(TINY, bool), 40000
    probability, single = enumerated(TINY, 5, 0.25)
    np.testing.assert_allclose(space.exact_union(mistakes, 5, 0.25), single, rtol=1e-12)
    alone, _ = enumerated(TINY[:1], 5, 0.25)
    counts = space.count_bad_samples(np.random.default_rng(0), mistakes, (1, 3), 5, 0.25, trials)
    for count, exact in zip(counts, (alone, probability), strict=True):
        assert abs(count / trials - exact) < 5 * math.sqrt(exact * (1 - exact) / trials)
    assert probability <= single <= 3 * 2 * math.exp(-2 * 5 * 0.25**2)


def test_a_deviation_of_exactly_epsilon_is_not_bad_and_blocks_count_every_sample(monkeypatch):
    # One mistake in two points, two examples: errors 0, ½, 1 against ½; |1 − ½| is not more than ½.
    half, rng = np.array([[True, False]]), np.random.default_rng(0)
    assert space.count_bad_samples(rng, half, (1,), 2, 0.5, 100).tolist() == [0]
    assert space.exact_union(half, 2, 0.5) == 0.0
    monkeypatch.setattr(space, "_BLOCK", 7)
    assert space.count_bad_samples(rng, np.ones((1, 4), bool), (1,), 3, 0.1, 10).tolist() == [0]
    assert space.count_bad_samples(rng, half, (1,), 1, 0.1, 10).tolist() == [10]


@pytest.mark.slow
def test_experiment_writes_what_it_prints(tmp_path, capsys):
    space.run(space.Settings(num_points=40, trials=300, output=tmp_path / "run", quick=True))
    assert "Found: for 1000 functions" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "run").glob("*.*")} >= {"bound.png", "probabilities.csv", "sizes.csv"}
    table = pd.read_csv(tmp_path / "run" / "probabilities.csv")
    assert (table["low"] <= table["bound"]).all()
    assert (table["trials"] == 30).all()
