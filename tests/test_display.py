"""Results in a notebook and a terminal: well-formed and complete tables, with all text escaped."""

import dataclasses
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlp_jax import critical, curvature, datasets, display, interval, losses, mlp, sweep


def cells(html):
    """The text and the rows of cells of a table of well-formed HTML."""
    root = ElementTree.fromstring(html.replace("<br>", "<br/>"))
    return "".join(root.itertext()), [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]


def read(result):
    return cells(result._repr_html_())


def test_markup_in_a_cell_is_shown_as_text():
    evil = "<script>alert('x')</script>"
    text, rows = cells(display.table(evil, [(evil, evil)], (evil, evil), evil))
    assert rows == [[evil, evil], [evil, evil]]
    assert text.count(evil) == 6


@pytest.fixture(scope="module")
def verdict():
    return critical.classify(lambda x: x[0] ** 2 - 3 * x[1] ** 2, np.zeros(2))


def test_a_verdict_shows_its_name_and_every_number_of_its_sentence(verdict):
    text, rows = read(verdict)
    assert "saddle of index 1" in text
    facts = {"eigenvalues": "1 negative, 0 unresolved, 1 positive", "smallest, largest": "-6, 2", "evidence": "dense"}
    assert facts.items() <= dict(rows).items()


def test_a_certificate_shows_the_theorem_or_the_refusal():
    fun = lambda x, a: jnp.sum(a * x**2 + x**4)
    text, rows = read(interval.certify(fun, np.zeros(2), (1.0,)))
    assert "Theorem: minimum" in text
    assert ["index", "0"] in rows
    assert "Not proved" in read(interval.certify(fun, np.zeros(2), (0.0,)))[0]


def test_eigenpairs_show_each_value_with_its_residual(x64):
    scale = jnp.array([-2.0, 1.0, 5.0])
    pairs = curvature.eigenpairs(lambda v: scale * v, jnp.zeros(3), jax.random.key(0), smallest=1, largest=1)
    header, *rows = read(pairs)[1]
    assert header == ["", "eigenvalue", "residual", "converged"]
    assert [float(row[1]) for row in rows] == pytest.approx([-2, 5])
    assert [row[3] for row in rows] == ["yes", "yes"]


@pytest.mark.slow
def test_a_sweep_shows_one_row_a_batch_size_and_rate_and_counts_what_diverged():
    data = datasets.xor()
    loss = lambda p, x, y, w, key: losses.mean(losses.squared_error(mlp.forward(p, x), y), w)
    init = lambda key: mlp.init(key, (2, 3, 1))
    result = sweep.run(
        jax.random.key(0), loss, init, data,
        batch_sizes=(2, 4), learning_rates=(0.1, 1e6), seeds=3, epochs=40, optimizer=optax.sgd,
    )  # fmt: skip
    rows = read(result)[1][1:]
    assert [row[:3] for row in rows] == [[f"{b}", r, "3"] for b in (2, 4) for r in ("0.1", "1e+06")]
    diverged, losses_at_end = result.diverged_at.reshape(4, 3) > 0, result.loss[..., -1].reshape(4, 3)
    for row, stopped, last in zip(rows, diverged, losses_at_end, strict=True):
        assert int(row[3]) == stopped.sum()
        assert row[4] == (f"{last[~stopped].mean():.5g}" if not stopped.all() else "")
    assert "12 lanes" in str(result)
    assert len(str(result).splitlines()) == 6


def test_data_show_their_sizes_ranges_and_classes():
    data = datasets.load("digits")
    _, rows = read(data)
    assert rows[:2] == [["", "train", "test"], ["examples", "1500", "297"]]
    assert "10, of" in rows[3][1]
    assert str(data).startswith("train: examples: 1500; inputs: (1500, 64)")


def test_a_census_shows_a_row_for_each_point(verdict):
    kinds = ["minimum", "maximum", "minimum"]
    verdicts = tuple(dataclasses.replace(verdict, kind=kind) for kind in kinds)
    found = critical.Census(np.zeros((3, 2)), np.arange(3.0), verdicts, np.array([1, 2, 4]), np.ones(3), 9, 8, 0, True)
    rows = read(found)[1][1:]
    assert [row[0] for row in rows] == kinds
    assert [row[2] for row in rows] == ["1", "2", "4"]
