"""Functions with critical points known by construction, and whether the theorems of `certify` about them are true.

In coordinates t = Qx, with Q random and orthogonal, a function is one of the families below in t₀ plus a quadratic in
the others, times a random scale. Its critical point is x = 0, and its corners lie on hyperplanes at known distances, so
every part of a theorem has a correct answer that `interval` did not compute.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np

from mlp_jax import interval
from mlp_jax.interval import batches

Function = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Case:
    """A function and the truth about it.

    eigenvalues, value
        Those of the Hessian and of the function at the critical point 0; None if 0 is not critical.
    corner
        A plane on which the function is not smooth, normal · x = offset: no box of a theorem may touch it.
    """

    family: str
    name: str
    fun: Function
    size: int
    eigenvalues: np.ndarray | None = None
    value: float = 0.0
    corner: tuple[np.ndarray, float] | None = None


def falsehood(case: Case, proof: interval.Certificate) -> str | None:
    """Return what is false in a certificate, None if nothing is."""
    if not proof.proved:
        return None
    if case.corner is not None:
        normal, offset = case.corner
        if abs(normal @ proof.location - offset) <= proof.unique_radius * np.sum(np.abs(normal)):
            return "the corner is inside"
        if case.eigenvalues is None:
            return None  # polishing has found a critical point beside the corner
    if case.eigenvalues is None:
        return "there is no such theorem"
    slack = 1e-13 * np.max(np.abs(case.eigenvalues))  # Q is orthogonal to rounding
    holds = lambda bounds, value, slack: bounds[0] - slack <= value <= bounds[1] + slack
    true = {
        "index": proof.index == np.sum(case.eigenvalues < 0),
        "location": proof.radius is not None and bool(np.max(np.abs(proof.location)) <= proof.radius),
        "smallest": holds(proof.smallest, case.eigenvalues.min(), slack),
        "nearest": any(holds(proof.nearest, value, slack) for value in case.eigenvalues),
        "largest": holds(proof.largest, case.eigenvalues.max(), slack),
        "loss": holds(proof.loss, case.value, 1e-15 * abs(case.value)),
    }
    return next((name for name, right in true.items() if not right), None)


_TABLE = np.array([0.0, 1.0])

CORNERS: dict[str, Function] = {
    "relu": jax.nn.relu,
    "maximum": lambda u: jnp.maximum(u, 0.0),
    "minimum": lambda u: -jnp.minimum(-u, 0.0),
    "abs": lambda u: (jnp.abs(u) + u) / 2,
    "clip": lambda u: jnp.clip(u, 0.0, 1e6),
    "where": lambda u: jnp.where(u > 0, u, 0.0),
    "where of a square": lambda u: jnp.where(u >= 0, u + u * u, 0.0),
    "leaky relu": lambda u: (jax.nn.leaky_relu(u, 0.125) - 0.125 * u) / 0.875,
    "elu": lambda u: u - jnp.minimum(u, 0.0),
    "hinge squared": lambda u: jax.nn.relu(u) ** 2,
    "u |u|": lambda u: (u * jnp.abs(u) + u * u) / 2,
    "root of a square": lambda u: (jnp.sqrt(u * u) + u) / 2,
    "max of a stack": lambda u: jnp.max(jnp.stack([u, 0.0 * u])),
    "sorted": lambda u: jnp.sort(jnp.stack([u, 0.0 * u]))[1],
    "step": lambda u: jnp.where(u > 0, 1.0, 0.0),
    "truth value": lambda u: 1.0 * (u > 0),
    "sign": lambda u: (jnp.sign(u) + 1) / 2,
    "floor": lambda u: jnp.floor(jnp.clip(u, -0.5, 0.5)) + 1.0,
    "argmax": lambda u: 1.0 * jnp.argmax(jnp.stack([0.0 * u, u])),
    "table": lambda u: jnp.asarray(_TABLE)[(u > 0).astype(int)],
    "cond": lambda u: jax.lax.cond(u > 0, lambda: u, lambda: 0.0 * u),
    "stopped step": lambda u: jax.lax.stop_gradient(jnp.where(u > 0, 1.0, 0.0)),
    "stopped relu": lambda u: jax.lax.stop_gradient(jax.nn.relu(u)),
}


def _shifted(t: jax.Array, shift: jax.Array) -> jax.Array:
    return jnp.log(jnp.sum(jnp.exp(t - shift))) + shift


# Of a scalar: value and curvature at 0, where the slope is 0.
SMOOTH: dict[str, tuple[Function, float, float]] = {
    "softplus": (lambda t: jax.nn.softplus(t) - t / 2, np.log(2), 0.25),
    "log sigmoid": (lambda t: -jax.nn.log_sigmoid(t) + t / 2, np.log(2), 0.25),
    "logaddexp": (lambda t: jnp.logaddexp(t, -t), np.log(2), 1.0),
    "mapped logaddexp": (lambda t: jnp.sum(jax.vmap(jnp.logaddexp)(t[None], -t[None])), np.log(2), 1.0),
    "softplus of tanh": (lambda t: jax.nn.softplus(jnp.tanh(t)) - jnp.tanh(t) / 2, np.log(2), 0.25),
}

# Of a vector t: log Σ exp t − mean t, in several ways.
TIED: dict[str, Function] = {
    "logsumexp": lambda t: jax.nn.logsumexp(t) - jnp.mean(t),
    "log softmax": lambda t: -jnp.mean(jax.nn.log_softmax(t)),
    "softmax": lambda t: -jnp.mean(jnp.log(jax.nn.softmax(t))),
    "by hand": lambda t: _shifted(t, jnp.max(t)) - jnp.mean(t),
    "by hand, two maxima": lambda t: jnp.log(jnp.sum(jnp.exp(t - jnp.max(t)))) + jnp.max(t) - jnp.mean(t),
    "by hand, stopped": lambda t: _shifted(t, jax.lax.stop_gradient(jnp.max(t))) - jnp.mean(t),
    "by hand, two at a time": lambda t: _shifted(t, functools.reduce(jnp.maximum, list(t))) - jnp.mean(t),
    "rows": lambda t: jnp.mean(jax.nn.logsumexp(jnp.stack([t, t + 1.0]), axis=1)) - jnp.mean(t) - 0.5,
}


def ruled(function: Function, rule: Callable[[jax.Array, jax.Array], jax.Array]) -> Function:
    """Return a function with its derivative (t, tangent) given."""
    result: Any = jax.custom_jvp(function)
    result.defjvp(lambda primals, tangents: (result(primals[0]), rule(primals[0], tangents[0])))
    return result


_square = lambda t: t * t
_STOP = jax.lax.stop_gradient

WRONG: dict[str, Callable[[float], Function]] = {
    "slope by a factor": lambda e: ruled(_square, lambda t, v: (2 + e) * t * v),
    "slope of other sign": lambda e: ruled(_square, lambda t, v: -2 * t * v),
    "slope shifted": lambda e: ruled(_square, lambda t, v: (2 * t + e) * v),
    "wrong near 0 only": lambda e: ruled(_square, lambda t, v: jnp.where(jnp.abs(t + 1e-4) < 1e-3, -2 * t, 2 * t) * v),
    "curvature 0": lambda e: ruled(_square, lambda t, v: 2 * _STOP(t) * v),
    "product with a constant": lambda e: lambda t: t * t + e * t * _STOP(t),
    "straight-through rounding": lambda e: lambda t: (t + _STOP(jnp.round(t) - t)) ** 2,
    "straight-through relu": lambda e: lambda t: (t + _STOP(jax.nn.relu(t) - t)) ** 2 + e * t * t,
    "straight-through square": lambda e: lambda t: t * t / 2 + e * _STOP(t * t),
}


def cases(number: int, seed: int = 0) -> Iterator[Case]:
    """Yield cases, the families in turn."""
    generator = np.random.default_rng(seed)
    makers = (_at_a_corner, _near_a_corner, _smooth, _tied, _wrong, _close_to_singular)
    for count in range(number):
        yield makers[count % len(makers)](generator)


def _rotation(generator: np.random.Generator, size: int) -> np.ndarray:
    return np.linalg.qr(generator.standard_normal((size, size)))[0]


def _build(generator, family: str, name: str, first: Function, curvature, value=0.0, corner=None) -> Case:
    """Return the case of a function of t₀, with its curvature, value and corner, and a quadratic in the rest."""
    size = int(generator.choice([1, 2, 3, 6, 12]))
    rotation = _rotation(generator, size)
    rest = generator.choice([-1.0, 1.0], size - 1) * 10.0 ** generator.uniform(-3, 1, size - 1)
    scale = 10.0 ** generator.uniform(-6, 6) if generator.random() < 0.8 else 10.0 ** generator.uniform(-120, 120)

    def fun(x: jax.Array) -> jax.Array:
        t = jnp.asarray(rotation) @ x
        return scale * (first(t[0]) + jnp.sum(rest * t[1:] ** 2) / 2)

    eigenvalues = None if curvature is None else scale * np.array([curvature, *rest])
    plane = None if corner is None else (rotation[0], corner)
    return Case(family, name, fun, size, eigenvalues, scale * value, plane)


def _draw(generator: np.random.Generator, table: dict[str, Any]) -> tuple[str, Any]:
    name = str(generator.choice(list(table)))
    return name, table[name]


def _at_a_corner(generator: np.random.Generator) -> Case:
    name, corner = _draw(generator, CORNERS)
    part, bend = generator.choice([-1.0, 1.0]) * 10.0 ** generator.uniform(-20, 1), generator.choice([-1.0, 1.0])
    both = generator.random() < 0.5
    fun = lambda t: bend * t * t + part * (corner(t) + (corner(-t) if both else 0.0))
    return _build(generator, "corner at the point", name, fun, None, corner=0.0)


def _near_a_corner(generator: np.random.Generator) -> Case:
    name, corner = _draw(generator, CORNERS)
    distance, bend = 10.0 ** generator.uniform(-9, 0), generator.choice([-1.0, 1.0])
    part = generator.choice([-1.0, 1.0]) * 10.0 ** generator.uniform(-3, 2)
    function = functools.partial(lambda t, d: bend * t * t / 2 + part * corner(t - d), d=distance)
    return _build(generator, "corner near the point", name, function, bend, corner=distance)


def _smooth(generator: np.random.Generator) -> Case:
    name, (function, value, curvature) = _draw(generator, SMOOTH)
    return _build(generator, "smooth closed form", name, function, curvature, value=value)


def _tied(generator: np.random.Generator) -> Case:
    name, function = _draw(generator, TIED)
    size = int(generator.choice([2, 4, 8]))
    rotation, bend = _rotation(generator, size), 10.0 ** generator.uniform(-2, 1)
    sign = generator.choice([-1.0, 1.0])

    def fun(x: jax.Array) -> jax.Array:
        t = jnp.asarray(rotation) @ x
        return sign * (function(t) + bend * jnp.sum(t * t) / 2)

    eigenvalues = sign * np.array([bend, *[bend + 1 / size] * (size - 1)])
    return Case("maximum that cancels", name, fun, size, eigenvalues, sign * np.log(size))


def _wrong(generator: np.random.Generator) -> Case:
    name, make = _draw(generator, WRONG)
    return _build(generator, "wrong derivative", name, make(10.0 ** generator.uniform(-7, 0)), None)


def _close_to_singular(generator: np.random.Generator) -> Case:
    """A quadratic with eigenvalues of both signs next to 0, known from 50 digits."""
    size = int(generator.integers(2, 8))
    values = generator.choice([-1.0, 1.0], size) * 10.0 ** generator.uniform(-18, 1, size)
    rotation = _rotation(generator, size)
    matrix = np.tril((rotation * values) @ rotation.T)
    matrix = matrix + np.tril(matrix, -1).T
    with mpmath.workdps(50):
        exact = mpmath.eigsy(mpmath.matrix(matrix.tolist()), eigvals_only=True)
    eigenvalues = np.array([float(v) for v in exact])
    return Case("close to singular", "quadratic", lambda x: x @ jnp.asarray(matrix) @ x / 2, size, eigenvalues)


@dataclasses.dataclass
class Tally:
    """The counts of outcomes of a family."""

    cases: int = 0
    proved: int = 0
    together: int = 0  # proved by `certify_many` in float64
    false: list[str] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)


def _together(case: Case) -> interval.Certificate:
    return interval.certify_many(case.fun, np.zeros((1, case.size)))[0]


def run(number: int, seed: int = 0, progress: Callable[[Any], Any] = iter) -> dict[str, Tally]:
    """Certify cases and compare each theorem with the truth."""
    tallies: dict[str, Tally] = {}
    for case in progress(cases(number, seed)):
        tally = tallies.setdefault(case.family, Tally())
        tally.cases += 1
        alone, together = interval.certify(case.fun, np.zeros(case.size)), _together(case)
        tally.proved += alone.proved
        tally.together += together.precision == batches.BITS
        for proof in (alone, together):
            wrong = falsehood(case, proof)
            if wrong is not None:
                tally.false.append(f"{case.name}: {wrong}")
        if not alone.proved and case.eigenvalues is not None:
            tally.refused.append(f"{case.name}: {alone.reason}")
    return tallies
