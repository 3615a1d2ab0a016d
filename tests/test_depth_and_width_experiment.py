"""Deep and shallow networks against formulas, exact fractions and plain training, and a small run."""

import fractions
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from experiments import depth_and_width
from experiments._shared import exact_networks, needed_sizes, padded_fits
from mlp_jax import mlp, training, tree


@pytest.mark.parametrize("depth", [1, 5])
def test_deep_and_shallow_networks_are_the_same_sawtooth(depth):
    deep, shallow = exact_networks.deep_sawtooth(depth), exact_networks.shallow_sawtooth(depth)
    x = np.linspace(0.0, 1.0, 2 ** (depth + 3) + 1, dtype=np.float32)
    position = (x * 2**depth) % 2.0
    triangle = np.minimum(position, 2.0 - position)
    for params in (deep, shallow):
        values = mlp.forward(params, jnp.asarray(x[:, None]), activation=jax.nn.relu)
        np.testing.assert_array_equal(values[:, 0], triangle)
    assert (tree.size(deep), tree.size(shallow)) == (6 * depth + 1, 3 * 2**depth + 1)


@pytest.mark.slow
@pytest.mark.implicit_promotion
def test_constructions_are_exact_and_have_the_parameters_of_the_formulas(x64):
    table = exact_networks.table((1, 2, 3, 6), 0.05, 0.1)
    assert (table["largest error"] == 0).all()
    saw, parity = (table[table.function == name].set_index(["network", "n"]) for name in ("sawtooth", "parity"))
    assert (saw.pieces == 2.0 ** saw.index.get_level_values("n")).all()
    for n in (1, 2, 3, 6):
        assert saw.parameters["n layers", n] == 6 * n + 1
        assert saw.parameters["1 layer", n] == 3 * 2**n + 1
    w, v = 2**3, 2**3
    assert saw.parameters["2 layers", 6] == 2 * w + w * v + v + v + 1
    for n in (2, 4, 8, 16):
        assert parity.parameters["1 layer", n] == (n + 1) ** 2
        assert parity.parameters["log₂ n layers", n] == 2 * n + 6 * int(math.log2(n)) - 1


def test_composition_agrees_with_the_tent_map_in_fractions(x64):
    points = expected = [fractions.Fraction(k, 97) for k in range(98)]
    for _ in range(5):
        expected = [1 - abs(2 * x - 1) for x in expected]
    network = exact_networks.compose(exact_networks.shallow_sawtooth(2), exact_networks.shallow_sawtooth(3))
    values = mlp.forward(network, np.array(points, float)[:, None], activation=jax.nn.relu)
    np.testing.assert_allclose(values[:, 0], np.array(expected, float), atol=1e-13)


def test_a_hidden_layer_bends_a_line_at_most_once_a_unit(x64):
    generator = np.random.default_rng(0)
    grid = jnp.arange(-20.0, 21.0)[:, None]
    for units in (1, 3, 8):
        signs, kinks = generator.choice([-1.0, 1.0], (1, units)), generator.integers(-15, 16, units)
        heights = generator.standard_normal((units, 1))
        hidden = mlp.Layer(jnp.asarray(signs), jnp.asarray(-signs[0] * kinks))
        params = (hidden, mlp.Layer(jnp.asarray(heights), jnp.zeros(1)))
        pieces = exact_networks.count_pieces(np.asarray(mlp.forward(params, grid, activation=jax.nn.relu))[:, 0])
        assert pieces == 1 + len(set(kinks.tolist()))
        assert pieces <= units + 1


def test_width_is_the_largest_that_fits():
    for num_inputs, depth, most in ((1, 1, 25), (8, 3, 400)):
        units = padded_fits.width(num_inputs, depth, most)
        shapes = [(num_inputs, *[w] * depth, 1) for w in (units, units + 1)]
        sizes = [tree.size(jax.eval_shape(lambda s=s: mlp.init(jax.random.key(0), s))) for s in shapes]
        assert sizes[0] == padded_fits.num_parameters(num_inputs, depth, units) <= most < sizes[1]


@pytest.mark.slow
@pytest.mark.implicit_promotion
def test_a_padded_network_trains_as_the_small_one():
    size = {"seeds": 4, "updates": 64, "examples": 64, "parameters": (25, 200), "depths": (1, 2), "pieces": (1, 3)}
    small, task = depth_and_width.Settings(**size), depth_and_width.tasks()[0]
    ends = depth_and_width.launch(task, small, 2, [25, 200], np.full((2, 2), 0.01), [0, 1], [64, 32])
    for k, (most, size) in enumerate([(25, 64), (200, 32)]):
        shape = (1, *[padded_fits.width(1, 2, most)] * 2, 1)
        start = padded_fits.start(np.random.default_rng((0, 1, *shape)), shape, shape)
        rows = np.random.default_rng((0, 1)).integers(512, size=64)[:size]
        sample = tuple(np.tile(a[rows], (64 // size, 1)) for a in task[1:])
        optimizer = optax.adam(optax.cosine_decay_schedule(0.01, 64))
        params, _ = training.train(
            jax.random.key(1), padded_fits.loss, start, sample, optimizer=optimizer, batch_size=32, epochs=32
        )
        off = np.asarray(mlp.forward(params, task.inputs, activation=jax.nn.relu)) - task.targets
        assert ends.error[k, 1] == pytest.approx(np.mean(off**2), rel=1e-3)
        assert ends.wrong[k, 1] == pytest.approx(np.mean(np.abs(off) > 0.5), abs=2 / 512)


def test_a_censored_seed_counts_as_more_than_any_number():
    never, early = np.full(8, np.inf), np.zeros(8)
    assert needed_sizes.sign_test(never, early) == (8, 0, 2 * 0.5**8)
    assert needed_sizes.sign_test(early, never) == (0, 8, 2 * 0.5**8)
    assert needed_sizes.sign_test(never, never) == (0, 0, 1.0)


@pytest.mark.parametrize(
    ("deep", "verdict", "size"), [(4, "fewer", 100), (40, "more", np.inf), (18, "not significant", 400)]
)
def test_verdicts_follow_the_errors(deep, verdict, size):
    runs = [
        ("saw", 0.05, depth, most, most, seed, error / most * (1 + 0.001 * seed * depth), 0.01, False)
        for depth, error in ((1, 18), (2, deep))
        for most in (25, 100, 400)
        for seed in range(8)
    ]
    columns = ["task", "goal", "depth", "at most", "parameters", "seed", "error", "rate", "diverged"]
    row = needed_sizes.needed(pd.DataFrame(runs, columns=columns), depth_and_width.RATES).iloc[1]
    assert (row.depth, row.verdict, row.parameters) == (2, verdict, size)
    assert row["ratio from"] <= row.ratio <= row["ratio to"]
    assert row.ratio == pytest.approx(deep / 18, rel=0.02)


@pytest.mark.slow
@pytest.mark.implicit_promotion
def test_a_quick_run_agrees_with_its_own_tables(tmp_path):
    size = {"updates": 4096, "examples": 64, "parameters": (12, 25, 50, 100)}
    rows = depth_and_width.run(depth_and_width.Settings(quick=True, **size, output=tmp_path / "one"))
    assert len(rows) == 3 * 2 * 2 * 4
    assert not rows.diverged.any()
    # A run this short fits a sine, but not a sawtooth of 16 pieces.
    middle = rows[(rows.depth == 1) & (rows["at most"] == 100)].groupby("task").error.median()
    assert middle["sine"] < 0.05 < 0.7 < middle["sawtooth"]
    for row in pd.read_csv(tmp_path / "one" / "gaps.csv").to_dict("records"):
        log_size = row["parameters"] * 32 * math.log(2)
        assert row["bound's ε"] == pytest.approx(math.sqrt((log_size + math.log(40)) / (2 * row["N"])))
        assert row["N by bound"] == math.ceil((log_size + math.log(40)) / 0.02)
    needed = pd.read_csv(tmp_path / "one" / "needed.csv").set_index(["task", "depth"])
    for (task, depth), part in rows.groupby(["task", "depth"]):
        medians = part.groupby("parameters").error.median()
        reached = medians[medians <= needed.goal[task, depth]]
        assert needed.parameters[task, depth] == (reached.index.min() if len(reached) else np.inf)
