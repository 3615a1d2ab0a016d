"""Sharpness at the end of training: the largest eigenvalue of the Hessian, and Keskar's measure."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import tqdm

from experiments._shared.batch_size_protocol import Problem, mean_loss
from mlp_jax import curvature, tree


class Sharpness(NamedTuple):
    """The largest eigenvalue and its residual, each (batch sizes, seeds), and Keskar's (radii, batch sizes, seeds)."""

    eigenvalue: np.ndarray
    residual: np.ndarray
    keskar: np.ndarray


RADII = (1e-3, 5e-4)


def _product(params: Any, inputs: jax.Array, targets: jax.Array, vector: Any) -> Any:
    return curvature.hessian(mean_loss, params, (inputs, targets))(vector)


_value_and_grad = jax.jit(jax.value_and_grad(mean_loss))


def measure_sharpness(key: jax.Array, problem: Problem, params: Any, seeds: int, bar: tqdm.tqdm) -> Sharpness:
    """Measure the sharpness of the first `seeds` runs in float64; `params` has the axes (batch size, 1, seed)."""
    with jax.enable_x64(True):
        inputs, targets = jnp.asarray(np.asarray(problem.train.inputs), float), jnp.asarray(problem.train.targets)
        shape = (jax.tree.leaves(params)[0].shape[0], seeds)
        eigenvalue, residual, keskar = np.empty(shape), np.empty(shape), np.empty((len(RADII), *shape))
        for lane in np.ndindex(*shape):
            point = jax.tree.map(lambda a, lane=lane: jnp.asarray(a[lane[0], 0, lane[1]], float), params)
            matvec = jax.tree_util.Partial(_product, point, inputs, targets)
            pairs = curvature.eigenpairs(matvec, point, key, largest=1, tolerance=1e-5, dense_limit=0, basis_size=40)
            eigenvalue[lane], residual[lane] = pairs.values[-1], pairs.residuals[-1]
            for number, radius in enumerate(RADII):
                keskar[number][lane] = keskar_sharpness(point, (inputs, targets), radius)
            bar.set_postfix_str(f"sharpness {lane}")
    return Sharpness(eigenvalue, residual, keskar)


def keskar_sharpness(params: Any, data: tuple, radius: float) -> float:
    """Return 100 (max f(x + z) − f(x)) / (1 + f(x)) over |zᵢ| ≤ radius (|xᵢ| + 1), by ten L-BFGS-B iterations.

    This is a lower bound of the maximum. Source: Keskar et al. (2017), "On large-batch training for deep learning",
    metric 2.1, in the full space.
    """
    start, unravel = tree.ravel(params)
    x = np.asarray(start)
    width = radius * (np.abs(x) + 1)

    def ascent(u: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _value_and_grad(unravel(jnp.asarray(x + width * u)), *data)
        return float(value), width * np.asarray(tree.ravel(gradient)[0])

    # Scaled so that the box has half width 1 and a gradient step reaches its sides: unscaled, L-BFGS-B stays at the
    # centre of a box narrower than its own tolerance.
    here, slope = ascent(np.zeros_like(x))
    unit = np.linalg.norm(slope) / np.sqrt(slope.size) / 10 or 1.0

    def negative(u: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = ascent(u)
        return (here - value) / unit, -gradient / unit

    box, options = scipy.optimize.Bounds(-np.ones_like(x), np.ones_like(x)), {"maxiter": 10, "gtol": 0.0, "ftol": 0.0}
    found = scipy.optimize.minimize(
        negative, np.zeros_like(x), jac=True, bounds=box, method="L-BFGS-B", options=options
    )
    return float(-100 * unit * found.fun / (1 + here))
