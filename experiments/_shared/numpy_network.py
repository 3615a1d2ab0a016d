"""The classical `Network` in numpy: sigmoid layers, quadratic cost, backpropagation by hand, mini-batch SGD.

Source: Rumelhart, Hinton & Williams (1986), "Learning representations by back-propagating errors".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Gradients = tuple[list[np.ndarray], list[np.ndarray]]
Report = Callable[[str], None]


def sigmoid(z: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(−z)), without overflow."""
    decay = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, decay) / (1.0 + decay)


class Network:
    """Layers zₗ = aₗ₋₁ Wₗ + bₗ, aₗ = σ(zₗ), including the output; the cost of an example is ½ Σ (a_L − y)².

    `sizes` is (inputs, hidden, ..., classes). `rng` draws weights and biases from N(0, 1), then the order of each
    epoch. Subclasses may override `activation` with `activation_derivative`, and `cost_derivative`.
    """

    def __init__(self, sizes: Sequence[int], rng: np.random.Generator, dtype: Any = np.float64) -> None:
        self.sizes, self.rng = tuple(sizes), rng
        shapes = list(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        self.weights = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
        self.biases = [rng.standard_normal(width).astype(dtype) for _, width in shapes]

    def activation(self, z: np.ndarray) -> np.ndarray:
        """Return σ(z), elementwise."""
        return sigmoid(z)

    def activation_derivative(self, z: np.ndarray) -> np.ndarray:
        """Return σ'(z) = σ(z) (1 − σ(z)), elementwise."""
        value = sigmoid(z)
        return value * (1.0 - value)

    def cost_derivative(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return ∂C/∂a_L = a_L − y of each example, (n, classes)."""
        return outputs - targets

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        """Return the outputs (n, classes) for inputs (n, d)."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            inputs = self.activation(inputs @ weight + bias)
        return inputs

    def backpropagation(self, inputs: np.ndarray, targets: np.ndarray) -> Gradients:
        """Return the gradients of the summed cost with respect to weights and biases, for targets (n, classes).

        δ_L = ∂C/∂a_L ⊙ σ'(z_L); δₗ = (δₗ₊₁ Wₗ₊₁ᵀ) ⊙ σ'(zₗ); ∂C/∂Wₗ = aₗ₋₁ᵀ δₗ; ∂C/∂bₗ = Σ δₗ over examples.
        """
        activations, sums = [inputs], []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            sums.append(activations[-1] @ weight + bias)
            activations.append(self.activation(sums[-1]))
        delta = self.cost_derivative(activations[-1], targets) * self.activation_derivative(sums[-1])
        weight_gradients, bias_gradients = [], []
        for layer in reversed(range(len(sums))):
            weight_gradients.append(activations[layer].T @ delta)
            bias_gradients.append(delta.sum(axis=0))
            if layer:
                delta = (delta @ self.weights[layer].T) * self.activation_derivative(sums[layer - 1])
        return weight_gradients[::-1], bias_gradients[::-1]

    def update_mini_batch(self, inputs: np.ndarray, targets: np.ndarray, rate: float) -> None:
        """Make a step along the negative mean gradient of the batch."""
        step = rate / len(inputs)
        weight_gradients, bias_gradients = self.backpropagation(inputs, targets)
        self.weights = [w - step * g for w, g in zip(self.weights, weight_gradients, strict=True)]
        self.biases = [b - step * g for b, g in zip(self.biases, bias_gradients, strict=True)]

    def evaluate(self, data: tuple[Any, Any]) -> int:
        """Return how many of the examples (inputs (n, d), classes (n,)) are classified correctly."""
        inputs, labels = data
        return int(np.sum(np.argmax(self.forward(inputs), axis=1) == labels))

    def train(
        self, data: Any, *, epochs: int, batch_size: int, rate: float, test: Any = None, report: Report = print
    ) -> list[int]:
        """Train in a new order each epoch; with `test` examples, return how many are correct after each epoch.

        `report` receives "Epoch j: correct / total" with test examples, "Epoch j complete" without.
        """
        inputs, labels = (np.asarray(a) for a in data)
        targets = np.eye(self.sizes[-1], dtype=inputs.dtype)[labels]
        correct = []
        for epoch in range(epochs):
            for rows in batches(self.rng.permutation(len(inputs)), batch_size):
                self.update_mini_batch(inputs[rows], targets[rows], rate)
            if test is None:
                report(f"Epoch {epoch} complete")
            else:
                correct.append(self.evaluate(test))
                report(f"Epoch {epoch}: {correct[-1]} / {len(test[1])}")
        return correct


class ExampleByExample(Network):
    """The same network with the gradient of a batch summed one example at a time, as it is often taught."""

    def backpropagation(self, inputs: np.ndarray, targets: np.ndarray) -> Gradients:
        """Return the gradients of the summed cost, with one backward pass for each example."""
        one = super().backpropagation
        each = [one(x[None], y[None]) for x, y in zip(inputs, targets, strict=True)]
        weights, biases = zip(*each, strict=True)
        return [sum(layer) for layer in zip(*weights, strict=True)], [sum(layer) for layer in zip(*biases, strict=True)]


def batches(order: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Yield the rows of each batch, in order; the last may be shorter."""
    return (order[start : start + batch_size] for start in range(0, len(order), batch_size))
