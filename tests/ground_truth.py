"""Critical points with known answers, and Hessians to 60 digits: oracles that the package did not produce."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flint
import jax.numpy as jnp
import mpmath
import numpy as np
import scipy.optimize

# --- Hessians by univariate power series in ball arithmetic ------------------------------------------------------


def series_hessian(fun: Callable[[np.ndarray], Any], theta: np.ndarray, digits: int = 60) -> mpmath.matrix:
    """Return the Hessian of `fun`, written with +, *, / and the functions below, as an mpmath matrix.

    fun(θ + t v) is expanded to second order in t as a power series over arb balls; polarisation gives the entries.
    """
    old = flint.ctx.dps, flint.ctx.cap
    flint.ctx.dps, flint.ctx.cap = digits, 3
    mpmath.mp.dps = digits
    try:
        size = len(theta)

        def along(direction: np.ndarray) -> mpmath.mpf:
            point = np.empty(size, dtype=object)
            for k in range(size):
                point[k] = flint.arb_series([flint.arb(float(theta[k])), int(direction[k])])
            return 2 * mpmath.mpf(fun(point)[2].mid().str(digits, radius=False))

        unit = np.eye(size, dtype=int)
        matrix = mpmath.matrix(size, size)
        for i in range(size):
            matrix[i, i] = along(unit[i])
        for i, j in itertools.combinations(range(size), 2):
            matrix[i, j] = matrix[j, i] = (along(unit[i] + unit[j]) - matrix[i, i] - matrix[j, j]) / 2
        return matrix
    finally:
        flint.ctx.dps, flint.ctx.cap = old


def exp(z: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda v: v.exp(), otypes=[object])(z)


def log(z: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda v: v.log(), otypes=[object])(z)


ACTIVATIONS = {
    "tanh": lambda z: (exp(2 * z) - 1) / (exp(2 * z) + 1),
    "sigmoid": lambda z: 1 / (1 + exp(-z)),
    "softplus": lambda z: log(1 + exp(z)),
}


def series_network(theta: np.ndarray, sizes: tuple[int, ...], inputs: np.ndarray, activation: str) -> np.ndarray:
    """Return the outputs (n, out) of an MLP whose parameters are raveled as weight (in, out), bias, layer by layer."""
    hidden, at = exact(inputs), 0
    for depth, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        weight = theta[at : at + n_in * n_out].reshape(n_in, n_out)
        bias = theta[at + n_in * n_out : at + (n_in + 1) * n_out]
        at += (n_in + 1) * n_out
        hidden = (ACTIVATIONS[activation](hidden) if depth else hidden) @ weight + bias
    return hidden


def exact(array: np.ndarray) -> np.ndarray:
    """Return float64 numbers as exact balls."""
    return np.vectorize(lambda v: flint.arb(float(v)), otypes=[object])(np.asarray(array, dtype=float))


def counts(matrix: mpmath.matrix, threshold: float = 1e-25) -> tuple[int, int, int]:
    """Return (negative, zero, positive) eigenvalues of a matrix known to many digits."""
    values = mpmath.eigsy(matrix, eigvals_only=True)
    size = max(abs(v) for v in values)
    negative = sum(v < -threshold * size for v in values)
    positive = sum(v > threshold * size for v in values)
    return negative, len(values) - negative - positive, positive


# --- Two-layer linear networks: every critical class in closed form -----------------------------------------------


class LinearClass(NamedTuple):
    """One critical point of L = ‖Y − X W1 W2‖² / 2N and what theory says of it."""

    params: tuple[np.ndarray, np.ndarray]
    loss: float
    index: int
    zeros: int


class LinearNetwork(NamedTuple):
    """Data of a d-h-m linear network with the singular values s of S_yx S_xx^(−1/2), all distinct."""

    inputs: np.ndarray
    targets: np.ndarray
    hidden: int
    left: np.ndarray
    values: np.ndarray
    right: np.ndarray
    whiten: np.ndarray


def linear_network(d: int, hidden: int, m: int, seed: int = 0) -> LinearNetwork:
    """Return data with a well separated spectrum; an autoencoder when d == m."""
    generator = np.random.default_rng(seed)
    num = 4 * d
    basis = np.linalg.qr(generator.standard_normal((num, d)))[0] * np.sqrt(num)
    rotation = np.linalg.qr(generator.standard_normal((d, d)))[0]
    spectrum = np.linspace(1.0, 2.0, d)
    inputs = basis * spectrum @ rotation
    if d == m:
        targets = inputs
    else:
        least = min(d, m)
        left, right = (np.linalg.qr(generator.standard_normal((n, n)))[0][:, :least] for n in (d, m))
        mixing = left * np.linspace(0.5, 1.5, least) @ right.T
        targets = basis @ mixing + 0.1 * generator.standard_normal((num, m))
    s_xx, s_yx = inputs.T @ inputs / num, targets.T @ inputs / num
    eigenvalues, vectors = np.linalg.eigh(s_xx)
    whiten = vectors / np.sqrt(eigenvalues) @ vectors.T
    left, values, right = np.linalg.svd(s_yx @ whiten)
    rank = min(d, m)
    return LinearNetwork(inputs, targets, hidden, left[:, :rank], values[:rank], right[:rank], whiten)


def linear_classes(net: LinearNetwork, cond: float = 1.0, seed: int = 0) -> Iterator[LinearClass]:
    """Yield every critical class, with a random gauge whose singular values are spread over [1, cond]."""
    generator = np.random.default_rng(seed)
    d, m, h, rank = net.inputs.shape[1], net.targets.shape[1], net.hidden, len(net.values)
    total = np.sum(net.targets**2) / len(net.targets) / 2
    for q in range(min(h, rank) + 1):
        for subset in itertools.combinations(range(rank), q):
            rows = list(subset)
            gauge = _gauge(generator, q, cond)
            inner = (net.values[rows, None] * net.right[rows]) @ net.whiten
            second, first = np.zeros((m, h)), np.zeros((h, d))
            second[:, :q] = net.left[:, rows] @ gauge
            first[:q] = np.linalg.solve(gauge, inner)
            others = [j for j in range(rank) if j not in subset]
            index = sum(net.values[j] > net.values[i] for i in rows for j in others) + (h - q) * (rank - q)
            zeros = q * q + (h - q) * (m + d - 2 * (rank - q))
            loss = total - np.sum(net.values[rows] ** 2) / 2
            yield LinearClass((first.T.copy(), second.T.copy()), loss, index, zeros)


def _gauge(generator: np.random.Generator, size: int, cond: float) -> np.ndarray:
    if size == 0:
        return np.zeros((0, 0))
    u, v = (np.linalg.qr(generator.standard_normal((size, size)))[0] for _ in range(2))
    spread = np.linspace(0, 1, size) if size > 1 else np.zeros(1)
    return u * cond**spread @ v


# --- Manufactured critical points of squared-error networks -------------------------------------------------------


def orthogonal_residual(jacobian: np.ndarray, seed: int) -> np.ndarray:
    """Return a unit vector r with Jᵀ r = 0: targets f(θ) − r make θ critical, whatever the network."""
    left, values, _ = np.linalg.svd(jacobian, full_matrices=True)
    rank = int(np.sum(values > 1e-14 * values[0]))
    null = left[:, rank:]
    if null.shape[1] == 0:
        raise ValueError("the Jacobian has no left null space: use more examples than parameters")
    draw = null @ np.random.default_rng(seed).standard_normal(null.shape[1])
    draw -= left[:, :rank] @ (left[:, :rank].T @ draw)
    return draw / np.linalg.norm(draw)


# --- Landscapes with known saddles ----------------------------------------------------------------------------------

# Müller & Brown (1979), Theoretica Chimica Acta 53, 75.
HEIGHT, A, B, C, X, Y = np.array([
    [-200, -100, -170, 15], [-1, -1, -6.5, 0.7], [0, 0, 11, 0.6], [-10, -10, -6.5, 0.7], [1, 0, -0.5, -1],
    [0, 0.5, 1.5, 1],
])  # fmt: skip
# Its minima from left to right, then its saddles, to three digits as published.
PUBLISHED = np.array([[-0.558, 1.442], [-0.050, 0.467], [0.623, 0.028], [-0.822, 0.624], [0.212, 0.293]])


def mueller_brown(p, numpy=jnp):
    dx, dy = p[0] - X, p[1] - Y
    return numpy.sum(HEIGHT * numpy.exp(A * dx**2 + B * dx * dy + C * dy**2))


def stationary_points():
    """Return the points and their values, by scipy and the derivatives written out."""

    def slope(p):
        dx, dy = p[0] - X, p[1] - Y
        parts = HEIGHT * np.exp(A * dx**2 + B * dx * dy + C * dy**2)
        return [np.sum(parts * (2 * A * dx + B * dy)), np.sum(parts * (B * dx + 2 * C * dy))]

    points = np.array([scipy.optimize.root(slope, start, tol=1e-13).x for start in PUBLISHED])
    return points, np.array([mueller_brown(p, np) for p in points])


ROTATION = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))[0]


def rotated_well(x):
    """A double well along one direction, with curvatures from .01 to 100 along the others."""
    y = jnp.asarray(ROTATION) @ x
    return (y[0] ** 2 - 1) ** 2 + jnp.dot(np.geomspace(0.01, 100, 19), y[1:] ** 2)
