"""A tanh classifier with weight decay: its loss, batch loss and Hessian."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import datasets, losses, mlp, mlp_hessian, penalties, training


class Classifier(NamedTuple):
    """The loss of all examples, the loss of a batch, and the Hessian of the former: fast, and for fast proofs."""

    fun: Callable[..., jax.Array]
    batch_loss: training.Loss
    hessian: Callable[..., jax.Array]
    enclosure: Callable[..., jax.Array]


def classifier(weight_decay: float) -> Classifier:
    """Return the classifier whose loss is mean cross-entropy plus (weight_decay / 2) ‖θ‖², biases included."""

    def penalty(params: mlp.Params) -> jax.Array:
        return penalties.l2(params, weight_decay)

    def fun(params: mlp.Params, inputs: Any, targets: Any) -> jax.Array:
        return losses.mean(losses.cross_entropy(mlp.forward(params, inputs), targets)) + penalty(params)

    def batch_loss(params: mlp.Params, inputs: Any, targets: Any, weights: Any, key: Any) -> jax.Array:
        return losses.mean(losses.cross_entropy(mlp.forward(params, inputs), targets), weights) + penalty(params)

    forms = (
        functools.partial(form, loss=losses.cross_entropy, activation=jnp.tanh, penalty=penalty)
        for form in (mlp_hessian.dense, mlp_hessian.enclosable)
    )
    return Classifier(fun, batch_loss, *forms)


def all_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs (float64) and targets of all 1,797 digits."""
    digits = datasets.load("digits")
    inputs, targets = (np.concatenate(pair) for pair in zip(digits.train, digits.test, strict=True))
    return inputs.astype(np.float64), targets
