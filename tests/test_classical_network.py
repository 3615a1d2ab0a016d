"""The classical network in numpy: its gradients, updates and messages, and the same run in mlp_jax."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.special

from experiments import classical_network as classical
from experiments._shared import sigmoid_sgd
from experiments._shared.numpy_network import ExampleByExample, Network, sigmoid
from mlp_jax import datasets


def example_data(rng, num_examples=8, width=4, classes=3):
    return rng.standard_normal((num_examples, width)), rng.integers(classes, size=num_examples)


def summed_cost(network, inputs, targets, function=scipy.special.expit):
    """½ Σ (a − y)², with the outputs computed here."""
    for weight, bias in zip(network.weights, network.biases, strict=True):
        inputs = function(inputs @ weight + bias)
    return 0.5 * np.sum((inputs - targets) ** 2)


def finite_differences(cost, arrays, step=1e-6):
    gradients = [np.empty_like(array) for array in arrays]
    for array, gradient in zip(arrays, gradients, strict=True):
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + step
            above = cost()
            array[index] = kept - step
            gradient[index] = (above - cost()) / (2 * step)
            array[index] = kept
    return gradients


def assert_all_close(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


class Tanh(Network):
    activation = staticmethod(np.tanh)
    activation_derivative = staticmethod(lambda z: 1 - np.tanh(z) ** 2)


@pytest.mark.parametrize("sizes", [(4, 3), (4, 6, 5, 3)])
@pytest.mark.parametrize("kind", [Network, Tanh, ExampleByExample])
def test_backpropagation_is_the_finite_difference(sizes, kind):
    rng = np.random.default_rng(0)
    network = kind(sizes, rng)
    inputs, labels = example_data(rng)
    targets, function = np.eye(3)[labels], np.tanh if kind is Tanh else scipy.special.expit
    weights, biases = network.backpropagation(inputs, targets)
    cost = lambda: summed_cost(network, inputs, targets, function)
    assert_all_close([*weights, *biases], finite_differences(cost, [*network.weights, *network.biases]), atol=1e-8)


def test_quadratic_loss_is_the_mean_cost_of_the_examples_of_weight_one(x64):
    rng = np.random.default_rng(2)
    network = Network((4, 5, 3), rng)
    inputs, labels = example_data(rng)
    targets, weights = np.eye(3)[labels], np.array([1.0] * 5 + [0.0] * 3)
    value = jax.jit(sigmoid_sgd.quadratic_loss)(sigmoid_sgd.as_params(network), inputs, targets, weights)
    np.testing.assert_allclose(value, summed_cost(network, inputs[:5], targets[:5]) / 5, rtol=1e-13)


def test_runs_agree_update_by_update_and_epoch_by_epoch(x64):
    digits = jax.tree.map(np.asarray, datasets.load("digits"))
    make = lambda: Network((64, 12, 10), np.random.default_rng(5))
    differences = classical.largest_differences(make(), digits.train, 3.0, 10, 50)
    assert len(differences) == 50
    assert differences.max() < 1e-10

    data, network = jax.tree.map(lambda a: a[:95], digits), make()
    correct = network.train(data.train, epochs=4, batch_size=10, rate=3.0, test=data.test, report=lambda _: None)
    params, orders = sigmoid_sgd.start(make(), 95, 4)
    params, (counted, _) = sigmoid_sgd.train(params, *jax.tree.map(jnp.asarray, data), orders, jnp.asarray(3.0), 10)
    assert counted.tolist() == correct
    assert sigmoid_sgd.distance(params, sigmoid_sgd.as_params(network)) < 1e-10


def test_partial_batch_is_divided_by_its_own_length():
    inputs, labels = example_data(np.random.default_rng(6), num_examples=7)
    network, by_hand = (Network((4, 5, 3), np.random.default_rng(0)) for _ in range(2))
    network.train((inputs, labels), epochs=1, batch_size=5, rate=2.0, report=lambda _: None)
    order = by_hand.rng.permutation(7)
    for rows in (order[:5], order[5:]):
        cost = lambda: summed_cost(by_hand, inputs[rows], np.eye(3)[labels[rows]]) / len(rows)
        arrays = [*by_hand.weights, *by_hand.biases]
        for array, gradient in zip(arrays, finite_differences(cost, arrays), strict=True):
            array -= 2.0 * gradient
    assert_all_close([*network.weights, *network.biases], [*by_hand.weights, *by_hand.biases], atol=1e-8)


def test_messages_of_an_epoch(capsys):
    rng = np.random.default_rng(7)
    train, test = example_data(rng), example_data(rng, num_examples=6)
    network = Network((4, 5, 3), rng)
    network.train(train, epochs=2, batch_size=3, rate=0.5)
    assert capsys.readouterr().out == "Epoch 0 complete\nEpoch 1 complete\n"
    correct = network.train(train, epochs=2, batch_size=3, rate=0.5, test=test)
    assert capsys.readouterr().out == f"Epoch 0: {correct[0]} / 6\nEpoch 1: {correct[1]} / 6\n"
    assert correct[1] == np.sum(np.argmax(network.forward(test[0]), axis=1) == test[1])


class CrossEntropy(Network):
    cost_derivative = staticmethod(lambda outputs, targets: (outputs - targets) / (outputs * (1 - outputs)))


def test_cross_entropy_derivative_makes_the_output_error_a_minus_y():
    rng = np.random.default_rng(8)
    network = CrossEntropy((4, 5, 3), rng)
    inputs, labels = example_data(rng)
    targets = np.eye(3)[labels]
    weights, biases = network.backpropagation(inputs, targets)
    hidden = scipy.special.expit(inputs @ network.weights[0] + network.biases[0])
    delta = scipy.special.expit(hidden @ network.weights[1] + network.biases[1]) - targets
    np.testing.assert_allclose(biases[1], delta.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(weights[1], hidden.T @ delta, rtol=1e-12)


def test_start_is_standard_normal_and_float32_stays_float32():
    network = Network((300, 40, 10), np.random.default_rng(10), np.float32)
    drawn = np.concatenate([a.ravel() for a in (*network.weights, *network.biases)])
    assert abs(drawn.mean()) < 5 / np.sqrt(len(drawn))
    assert abs(drawn.std() - 1) < 5 / np.sqrt(2 * len(drawn))
    inputs, labels = example_data(np.random.default_rng(11), width=300)
    network.train((inputs.astype(np.float32), labels), epochs=1, batch_size=3, rate=3.0, report=lambda _: None)
    assert {a.dtype for a in (*network.weights, *network.biases)} == {np.dtype(np.float32)}


def test_sigmoid_is_scipys_to_rounding_and_never_overflows():
    z = np.array([-750.0, -40.0, -1.0, 0.0, 2.0, 40.0, 1e6])
    np.testing.assert_allclose(sigmoid(z), scipy.special.expit(z), rtol=1e-15)


@pytest.mark.slow
def test_experiment_writes_what_it_prints(tmp_path, capsys):
    classical.run(classical.Settings(data="digits", seed=1, output=tmp_path / "run", quick=True, batch_size=50))
    printed = capsys.readouterr().out
    assert "Found: the two are at most" in printed
    assert [line.partition(":")[0] for line in printed.splitlines()[:3]] == ["Epoch 0", "Epoch 1", "Epoch 2"]
    names = {"accuracy.csv", "accuracy.png", "report.html", "seconds.csv", "summary.csv", "trajectory.csv"}
    assert names <= {p.name for p in (tmp_path / "run").iterdir()}
    assert pd.read_csv(tmp_path / "run" / "trajectory.csv")["difference"].max() < 1e-10


def test_data_come_by_name_or_from_a_file(tmp_path):
    pixels, labels = np.array([[[0, 255]], [[51, 0]]], np.uint8), np.array([1, 0])
    np.savez(tmp_path / "mnist.npz", x_train=pixels, y_train=labels, x_test=pixels[:1], y_test=labels[:1])
    data = classical.load(str(tmp_path / "mnist.npz"))
    np.testing.assert_array_equal(data.train.inputs, np.float32([[0.0, 1.0], [0.2, 0.0]]))
    assert data.test.targets.tolist() == [1]
    assert classical.load("digits").test.inputs.shape == (297, 64)
