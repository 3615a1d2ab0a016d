"""Activations: theory against closed forms and wide networks, bounds that no run can beat, and a small run."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from experiments import activations
from experiments._shared import activation_networks as networks
from experiments._shared import maxout_fits
from mlp_jax import losses, mlp, tree


def test_chi_of_the_sigmoid_is_its_integral_and_at_most_a_sixteenth():
    variances = np.array([0.0, 0.3, 2.0])
    found = networks.propagate("sigmoid", variances)
    slope = lambda z: scipy.special.expit(z) * scipy.special.expit(-z)
    for f, moments in zip((scipy.special.expit, slope), found, strict=True):
        square = lambda z, q: f(np.sqrt(q) * z) ** 2 * scipy.stats.norm.pdf(z)
        assert moments == pytest.approx([scipy.integrate.quad(square, -12, 12, (q,))[0] for q in variances], rel=1e-5)
    assert np.all(found[1] <= 1 / 16 + 1e-7)  # σ' ≤ ¼


@pytest.mark.slow
@pytest.mark.implicit_promotion
@pytest.mark.parametrize("name", networks.KINDS)
def test_errors_of_wide_networks_shrink_as_at_infinite_width(name):
    inputs = np.random.default_rng(0).standard_normal((20, 64)).astype(np.float32)
    params = networks.draw_starts(name, (64, *[300] * 3, 10), jax.random.split(jax.random.key(0), 4))
    error = np.asarray(networks.layer_norms(name, params, inputs, np.arange(20) % 10)[1])
    ratio = np.sqrt(np.mean(error[:, 0] ** 2) / np.mean(error[:, 2] ** 2))
    assert ratio == pytest.approx(networks.predicted_ratio(name, 3, inputs), rel=0.1)


@pytest.mark.implicit_promotion
def test_gradient_norms_are_those_of_jax_grad_and_errors_obey_the_chain_of_norms():
    params = networks.draw_starts("sigmoid", (3, 5, 5, 5, 2), jax.random.split(jax.random.key(1), 2))
    inputs, targets = np.random.default_rng(2).standard_normal((6, 3)).astype(np.float32), np.arange(6) % 2
    gradient, error = networks.layer_norms("sigmoid", params, inputs, targets)
    one = jax.tree.map(lambda a: a[1], params)
    loss = lambda p: losses.mean(losses.cross_entropy(mlp.forward(p, inputs, activation=jax.nn.sigmoid), targets))
    expected = [np.sqrt(sum(np.sum(np.square(a)) for a in layer)) for layer in jax.jit(jax.grad(loss))(one)]
    assert np.asarray(gradient[1]) == pytest.approx(np.array(expected), rel=1e-4)
    # ‖δ_l‖ ≤ max σ' · ‖W_{l+1}‖ · ‖δ_{l+1}‖ for every example, and so for the root mean squares.
    for layer in range(3):
        largest = np.linalg.norm(np.asarray(one[layer + 1].weight), 2)
        assert float(error[1, layer]) <= 0.25 * largest * float(error[1, layer + 1]) * (1 + 1e-5)


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_the_least_errors_on_the_square_are_reached_by_equal_pieces_only(pieces):
    x, centres = np.linspace(-1, 1, 200_001), -1 + (2 * np.arange(pieces) + 1) / pieces
    errors = lambda slopes, values: np.max(slopes[:, None] * x + values[:, None], axis=0) - x**2
    # Tangents at the centres, raised: by half of l²/4 for the largest error, by l²/12 for the mean square, l = 2/k.
    largest, square = maxout_fits.least_errors(pieces)
    best = lambda raised: errors(2 * centres, -(centres**2) + raised)
    assert np.abs(best(1 / (2 * pieces**2))).max() == pytest.approx(largest, rel=1e-6)
    assert np.mean(best(1 / (3 * pieces**2)) ** 2) == pytest.approx(square, rel=1e-3)
    generator = np.random.default_rng(pieces)
    for size in (1e-3, 1e-2, 1e-1, 1.0):
        moved = errors(*(a + size * generator.standard_normal(pieces) for a in (2 * centres, -(centres**2))))
        assert np.abs(moved).max() > largest
        assert np.mean(moved**2) > square


@pytest.mark.implicit_promotion
def test_a_trained_unit_reaches_the_least_error_with_two_pieces_and_never_less():
    tangents = (np.array([[-0.7, 0.6]] * 2), np.array([[-0.2, -0.15]] * 2))
    starts = (mlp.Layer(jnp.asarray(tangents[0][:, None], jnp.float32), jnp.asarray(tangents[1], jnp.float32)),)
    found = maxout_fits.fit(2, starts, jnp.array([0.1, 0.003]), 1.0)
    assert float(found["mean square"][0]) == pytest.approx(4 / (45 * 16), rel=2e-2)
    assert np.all(np.asarray(found["mean square"]) > 0.999 * 4 / (45 * 16))
    assert np.all(np.asarray(found["largest"]) > 1 / 8)
    # The best mean square is off by l²/6 at the ends of its pieces, l = 1.
    assert float(found["largest"][0]) == pytest.approx(1 / 6, rel=5e-2)
    concave = maxout_fits.fit(2, starts, jnp.array([0.1, 0.1]), -1.0)
    assert np.all(np.asarray(concave["mean square"]) > 0.999 * 4 / 45)


def test_networks_have_nearly_equal_numbers_of_parameters():
    for depth in (2, 8):
        counts = []
        for kind in networks.KINDS.values():
            sizes = networks.sizes_of(kind, depth, 16)
            counts.append(tree.size(jax.eval_shape(lambda: mlp.init(jax.random.key(0), sizes, pieces=kind.pieces))))
            assert counts[-1] == networks.num_parameters(depth, sizes[1], kind.pieces)
        assert max(counts) < 1.1 * min(counts)


@pytest.mark.implicit_promotion
@pytest.mark.slow
def test_the_tables_are_those_of_the_runs(tmp_path):
    tables = activations.run(activations.Settings(quick=True, epochs=3, seeds=2, output=tmp_path / "one"))
    runs = pd.read_csv(tmp_path / "one" / "runs.csv")
    pivot = runs[runs.aim == "accuracy"].pivot(index="seed", columns="activation", values="accuracy")
    summary = tables["summary"].set_index("activation")
    for name in ("sigmoid", "ReLU", "maxout"):
        interval = scipy.stats.ttest_rel(pivot[name], pivot["tanh"]).confidence_interval(0.95)
        found = summary["over tanh"][name] + np.array([-1, 1]) * summary["over tanh ±"][name]
        assert 100 * np.array(interval) == pytest.approx(found, abs=1e-9)
    slopes = tables["slopes"][tables["slopes"].when == "start"].set_index("activation")
    assert slopes["δ a layer"].to_numpy() == pytest.approx(slopes.theory.to_numpy(), rel=0.15)
    assert slopes["gradient first / last"]["sigmoid"] < 0.05 < 0.5 < slopes["gradient first / last"]["ReLU"]
    fits = tables["fits"]
    assert (fits["mean square"] > 0.999 * fits["least mean square"]).all()
