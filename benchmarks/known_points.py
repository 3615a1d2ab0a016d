"""Critical points whose inertia is known in closed form or by construction, in families; used by `benchmarks.verdicts`.

Where an oracle is numerical (manufactured and split points), it is the spectrum of a Hessian that the package did not
compute, and a point is taken only if no eigenvalue of it is smaller than a ten-millionth of the largest.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import losses, mlp, penalties, tree
from tests import ground_truth

ACTIVATIONS = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "softplus": jax.nn.softplus}
_MARGIN = 1e-7


class Case(NamedTuple):
    """A point and its numbers of (negative, zero, positive) eigenvalues, or None if it is not critical.

    `answerable`: nondegenerate modulo symmetry, so that a verdict that withholds the kind is an abstention.
    """

    fun: Callable[..., jax.Array]
    params: Any
    args: tuple
    truth: tuple[int, int, int] | None
    answerable: bool
    options: dict[str, Any]


def signs(values: Any, zeros: int = 0) -> tuple[int, int, int]:
    """Return the numbers of negative and positive values, with the known number of zeros."""
    return int(np.sum(values < 0)), zeros, int(np.sum(values > 0))


linear_loss = lambda params, x, y: jnp.sum((x @ params[0] @ params[1] - y) ** 2) / (2 * len(x))
_identity = lambda z: z
biased_loss = lambda params, x, y: losses.mean(losses.squared_error(mlp.forward(params, x, activation=_identity), y))


def gauge(params: Any) -> Any:
    """Return the tangents of W₁ → W₁ (I + A), W₂ → (I − A) W₂, for each unit matrix A."""
    first, second = params
    units = jnp.eye(first.shape[1] ** 2, dtype=first.dtype).reshape(-1, first.shape[1], first.shape[1])
    return jnp.einsum("di,kij->kdj", first, units), -jnp.einsum("kij,jm->kim", units, second)


def biased_gauge(params: Any) -> Any:
    """Return the gauge tangents with biases: W₁, b₁ follow A, and b₁ → b₁ + c, b₂ → b₂ − c W₂."""
    (first, b1), (second, b2) = params
    turned_first, turned_second = gauge((first, second))
    hidden, zeros = len(b1), functools.partial(jnp.zeros, dtype=first.dtype)
    shifts = jnp.eye(hidden, dtype=first.dtype)
    turned_bias = jnp.einsum("i,kij->kj", b1, jnp.eye(hidden**2, dtype=first.dtype).reshape(-1, hidden, hidden))
    return (
        mlp.Layer(
            jnp.concatenate([turned_first, zeros((hidden, *first.shape))]), jnp.concatenate([turned_bias, shifts])
        ),
        mlp.Layer(
            jnp.concatenate([turned_second, zeros((hidden, *second.shape))]),
            jnp.concatenate([zeros((hidden**2, len(b2))), -shifts @ second]),
        ),
    )


SHAPES = ((4, 2, 4), (6, 3, 6), (5, 2, 3), (3, 2, 5), (8, 4, 8))


def _classes(conds: tuple[float, ...], seeds: int, shapes: Any) -> Iterator[tuple[int, Any, Any]]:
    """Yield (hidden units, network, critical class) along gauges of given condition numbers."""
    for seed, shape in itertools.product(range(seeds), shapes):
        net = ground_truth.linear_network(*shape, seed=seed)
        for cond in conds:
            for point in ground_truth.linear_classes(net, cond, seed=seed):
                yield shape[1], net, point


def _full_rank(point: Any, hidden: int) -> bool:
    return bool(np.linalg.matrix_rank(point.params[0] @ point.params[1], tol=1e-6) == hidden)


def linear(conds: tuple[float, ...], seeds: int, shapes: Any = SHAPES) -> Iterator[Case]:
    """Every class of linear networks without biases, along gauges of given condition numbers."""
    for hidden, net, point in _classes(conds, seeds, shapes):
        truth = (point.index, point.zeros, tree.size(point.params) - point.index - point.zeros)
        full = point.zeros == hidden**2 and _full_rank(point, hidden)
        yield Case(linear_loss, point.params, (net.inputs, net.targets), truth, full, {"symmetries": gauge})


def biased(conds: tuple[float, ...], seeds: int) -> Iterator[Case]:
    """The same with biases on centred data: m positives and h zeros more."""
    for hidden, net, point in _classes(conds, seeds, SHAPES[:4]):
        args = (np.concatenate([net.inputs, -net.inputs]), np.concatenate([net.targets, -net.targets]))
        first, second = point.params
        params = mlp.Layer(first, np.zeros(hidden)), mlp.Layer(second, np.zeros(second.shape[1]))
        zeros = point.zeros + hidden
        truth = (point.index, zeros, tree.size(params) - point.index - zeros)
        yield Case(biased_loss, params, args, truth, _full_rank(point, hidden), {"symmetries": biased_gauge})


@functools.cache
def network(sizes: tuple[int, ...], activation: str, per_example: Callable[..., jax.Array]) -> Any:
    """Return the mean loss of a network as a function of its raveled parameters, its outputs, and their number."""
    theta, unravel = tree.ravel(mlp.init(jax.random.key(0), sizes))
    outputs = lambda v, x: mlp.forward(unravel(v), x, activation=ACTIVATIONS[activation])
    return lambda v, x, y: losses.mean(per_example(outputs(v, x), y)), outputs, theta.size


@functools.cache
def tilted_fun(sizes: tuple[int, ...], activation: str, per_example: Callable[..., jax.Array]) -> Any:
    """Return loss − ⟨slope, θ⟩ + ½ (θ − θ₀)ᵀ D (θ − θ₀), and its jitted gradient and Hessian without the tilt."""
    loss, _, size = network(sizes, activation, per_example)

    def fun(v: jax.Array, x: Any, y: Any, at: jax.Array, slope: jax.Array, tilt: jax.Array) -> jax.Array:
        return loss(v, x, y) - slope @ v + (v - at) @ tilt @ (v - at) / 2

    return fun, jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss)), size


TILTED = (
    ((3, 4, 3), "tanh", losses.cross_entropy), ((3, 5, 2), "sigmoid", losses.squared_error),
    ((2, 3, 3, 2), "softplus", losses.cross_entropy), ((3, 2, 2, 2, 3), "tanh", losses.squared_error),
)  # fmt: skip


def chosen_spectrum(generator: np.random.Generator, size: int, smallest: float) -> np.ndarray:
    """Return eigenvalues between `smallest` and 1 in size, of one sign or of both."""
    values = np.exp(generator.uniform(np.log(smallest), 0, size))
    return values * [np.ones(size), -np.ones(size), generator.choice([-1.0, 1.0], size)][generator.integers(3)]


def tilted(count: int, smallest: float = 1e-6, spectrum: Any = chosen_spectrum) -> Iterator[Case]:
    """A network's loss tilted so that a random point is critical with a chosen spectrum."""
    for number in range(count):
        generator = np.random.default_rng(number)
        sizes, activation, per_example = TILTED[number % len(TILTED)]
        fun, gradient, hessian, size = tilted_fun(sizes, activation, per_example)
        theta, x = generator.standard_normal(size), generator.standard_normal((20, sizes[0]))
        classes = per_example is losses.cross_entropy
        y = generator.integers(0, sizes[-1], 20) if classes else generator.standard_normal((20, sizes[-1]))
        values = spectrum(generator, size, smallest)
        rotation = np.linalg.qr(generator.standard_normal((size, size)))[0]
        wanted = (rotation * values) @ rotation.T
        tilt = (wanted + wanted.T) / 2 - np.asarray(hessian(theta, x, y))
        args = (x, y, theta, np.asarray(gradient(theta, x, y)), (tilt + tilt.T) / 2)
        yield Case(fun, theta, args, signs(values), True, {})


MANUFACTURED = (
    ((2, 3, 1), "tanh"), ((3, 3, 1), "sigmoid"), ((2, 4, 2), "softplus"), ((2, 2, 2, 1), "tanh"),
    ((2, 3, 2, 1), "softplus"),
)  # fmt: skip


@functools.cache
def manufactured_tools(sizes: tuple[int, ...], activation: str) -> Any:
    """Return the loss, outputs and the jitted Jacobian and Hessian of a squared-error network."""
    loss, outputs, size = network(sizes, activation, losses.squared_error)
    jacobian = jax.jit(jax.jacobian(lambda v, x: outputs(v, x).ravel()))
    return loss, outputs, jacobian, jax.jit(jax.hessian(loss)), size


def manufactured(count: int) -> Iterator[Case]:
    """Targets f(θ) − r with r orthogonal to the columns of the Jacobian; the size of r changes the index."""
    number = made = 0
    while made < count:
        number += 1
        generator = np.random.default_rng(number)
        sizes, activation = MANUFACTURED[number % len(MANUFACTURED)]
        loss, outputs, jacobian, hessian, size = manufactured_tools(sizes, activation)
        theta, x = 1.5 * generator.standard_normal(size), 1.5 * generator.standard_normal((size + 6, sizes[0]))
        matrix = np.asarray(jacobian(theta, x))
        singular = np.linalg.svd(matrix, compute_uv=False)
        if singular[-1] <= 1e-5 * singular[0]:
            continue
        residual = ground_truth.orthogonal_residual(matrix, seed=number) * np.sqrt(len(x))
        scale = 10 ** generator.uniform(-1.5, 0.7)
        y = np.asarray(outputs(theta, x)) - scale * residual.reshape(-1, sizes[-1])
        values = np.linalg.eigvalsh(np.asarray(hessian(theta, x, y)))
        if np.min(np.abs(values)) < _MARGIN * np.max(np.abs(values)):
            continue
        made += 1
        yield Case(loss, theta, (x, y), signs(values), True, {})


def split(count: int) -> Iterator[Case]:
    """A unit of a manufactured 2-1-1 tanh network split in two (Fukumizu and Amari): one zero more."""
    _, outputs, jacobian, hessian, size = manufactured_tools((2, 1, 1), "tanh")
    big = network((2, 2, 1), "tanh", losses.squared_error)[0]
    number = made = 0
    while made < count:
        number += 1
        generator = np.random.default_rng(10_000 + number)
        w1, w2, b, v, c = theta = generator.standard_normal(size)
        x = generator.standard_normal((14, 2))
        residual = ground_truth.orthogonal_residual(np.asarray(jacobian(theta, x)), seed=number)
        residual = residual * 10 ** generator.uniform(-0.5, 1)
        y = np.asarray(outputs(theta, x)) - residual[:, None]
        share = generator.uniform(-0.5, 1.5)
        z = x @ np.array([w1, w2]) + b
        extended = np.hstack([x, np.ones((14, 1))])
        bend = -2 * np.tanh(z) * (1 - np.tanh(z) ** 2)
        matrix = share * (1 - share) * (extended * (residual * v * bend)[:, None]).T @ extended / 14
        values = np.concatenate([np.linalg.eigvalsh(np.asarray(hessian(theta, x, y))), np.linalg.eigvalsh(matrix)])
        if np.min(np.abs(values)) < 1e-5 * np.max(np.abs(values)):
            continue
        made += 1
        params = np.array([w1, w1, w2, w2, b, b, share * v, (1 - share) * v, c])
        yield Case(big, params, (x, y), signs(values, 1), False, {})


def decayed_loss(params: Any, x: jax.Array, y: jax.Array, decay: jax.Array) -> jax.Array:
    return losses.mean(losses.squared_error(mlp.forward(params, x), y)) + penalties.l2(params, decay)


def at_zero(d: int, hidden: int, bias: float) -> Any:
    """Return the params of a network that are zero except for the output bias."""
    params = mlp.Layer(np.zeros((d, 1)), np.zeros(1)), mlp.Layer(np.zeros((1, 1)), np.array([bias]))
    for _ in range(hidden - 1):
        params = mlp.add_unit(params, 0)
    return params


def padded(count: int) -> Iterator[Case]:
    """Only the output bias c = mean(y)/(1 + decay) is not zero: for each unit decay ± ‖mean r x̃‖, and decay."""
    for number in range(count):
        generator = np.random.default_rng(number)
        d, hidden = int(generator.integers(1, 5)), int(generator.integers(1, 6))
        x, y = generator.standard_normal((12, d)), generator.standard_normal((12, 1))
        decay = 10 ** generator.uniform(-3, 0)
        c = float(np.mean(y)) / (1 + decay)
        coupling = np.linalg.norm(np.mean((c - y) * np.hstack([x, np.ones((12, 1))]), axis=0))
        if abs(coupling - decay) < 1e-6:
            continue
        params, negative = at_zero(d, hidden, c), hidden if coupling > decay else 0
        truth = (negative, 0, tree.size(params) - negative)
        yield Case(decayed_loss, params, (x, y, np.float64(decay)), truth, True, {})


def double_wells(x: jax.Array, mixing: jax.Array, depth: jax.Array) -> jax.Array:
    """Σ zᵢ⁴/4 − aᵢ zᵢ²/2 with z = M x: critical where each zᵢ is 0 (curvature −aᵢ) or ±√aᵢ (2aᵢ)."""
    z = mixing @ x
    return jnp.sum(z**4 / 4 - depth * z**2 / 2)


def coupled_pairs(x: jax.Array, a: jax.Array) -> jax.Array:
    """Σ over pairs (u, v) of a (u² + v²) + u² v²/2 − u²: critical at v = 0 only, for a > 0."""
    u, v = x[::2], x[1::2]
    return jnp.sum(a * (u**2 + v**2) + u**2 * v**2 / 2 - u**2)


def polynomials(count: int) -> Iterator[Case]:
    """Sums of one- and two-dimensional polynomials, mixed by matrices of determinant one."""
    for number in range(count):
        generator = np.random.default_rng(number)
        size = int(generator.integers(1, 7))
        if number % 3 == 2:
            a = generator.uniform(0.05, 3.0, size)
            a = np.where(np.abs(a - 1) < 1e-3, 2.0, a)
            negative = int(np.sum(a < 1))
            yield Case(coupled_pairs, np.zeros(2 * size), (a,), (negative, 0, 2 * size - negative), True, {})
            continue
        lower = np.tril(generator.integers(-2, 3, (size, size)), -1) + np.eye(size)
        mixing = lower @ lower.T  # integers, determinant 1: the inverse is exact
        root = generator.choice([0.25, 0.5, 1.0, 1.5, 2.0], size)
        z = root * generator.integers(-1, 2, size)
        x = np.round(np.linalg.solve(lower.T, np.linalg.solve(lower, z)) * 2**20) / 2**20
        negative = int(np.sum(z == 0))
        yield Case(double_wells, x, (mixing, root**2), (negative, 0, size - negative), True, {})


def xor_spurious(count: int) -> Iterator[Case]:
    """The closed-form spurious minimum of XOR, tanh 2-2-1, over weight decays: smallest eigenvalue in closed form."""
    x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = np.array([[0.0], [1.0], [1.0], [0.0]])
    for decay in np.geomspace(1e-4, 1.0, count):
        c = 0.5 / (1 + decay)
        negative = 2 if decay - abs(c - 0.5) * np.sqrt(1.5) < 0 else 0  # two units, each decay ± |c − ½| √1.5
        yield Case(decayed_loss, at_zero(2, 2, c), (x, y, np.float64(decay)), (negative, 0, 9 - negative), True, {})
