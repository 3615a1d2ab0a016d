"""Do enclosures contain the values computed with 50 digits, and are theorems true?

A case is one composition on one box. The composition is traced by JAX and evaluated by `interval`; the oracle evaluates
it with mpmath, which shares no code with either, at random points and corners of the box. Every other composition
is differentiated: JAX's gradient, as `interval` encloses it, against forward differentiation with 50 digits. Then
`certify` is tested on functions with known critical points and corners (see `constructed_theorems`), and the Hessians
of random networks are compared with their enclosures by layer blocks (see `network_enclosures`), and complete lists
with known ones (see `constructed_lists`).

    python -m benchmarks.soundness --cases 100000 --theorems 500 --networks 300 --lists 300
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import flint
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import tqdm
import tyro

from benchmarks import constructed_lists, constructed_theorems, network_enclosures
from benchmarks.side_by_side import machine
from mlp_jax.interval import ball, multiprecision
from mlp_jax.interval.ball import Ball, Refusal
from mlp_jax.interval.interpreter import evaluate
from mlp_jax.interval.program import flatten

WIDTH = 3  # numbers in a box
ROWS = 50  # boxes a composition
POINTS = 3  # points a box
mpmath.mp.dps = 50


class Jet:
    """A number with its derivatives with respect to the coordinates of the box."""

    def __init__(self, value: Any, slope: list[Any] | None = None) -> None:
        self.value = mpmath.mpf(value)
        self.slope = [mpmath.mpf(0)] * WIDTH if slope is None else slope

    def chain(self, value: Any, derivative: Any) -> Jet:
        """Return a function of this number, from its value and derivative here."""
        return Jet(value, [derivative * s for s in self.slope])

    def __add__(self, other: Jet) -> Jet:
        return Jet(self.value + other.value, [a + b for a, b in zip(self.slope, other.slope, strict=True)])

    def __neg__(self) -> Jet:
        return self.chain(-self.value, -1)

    def __sub__(self, other: Jet) -> Jet:
        return self + (-other)

    def __mul__(self, other: Jet) -> Jet:
        slopes = zip(self.slope, other.slope, strict=True)
        return Jet(self.value * other.value, [a * other.value + self.value * b for a, b in slopes])

    def inverse(self) -> Jet:
        """Return 1 / this number."""
        return self.chain(1 / self.value, -1 / self.value**2)


_plus = lambda shift: lambda a: a * a + Jet(shift)
_chained = lambda function, derivative: lambda a: a.chain(function(a.value), derivative(a.value))
_exp = _chained(mpmath.exp, mpmath.exp)
_log = _chained(mpmath.log, lambda v: 1 / v)
_sqrt = _chained(mpmath.sqrt, lambda v: 1 / (2 * mpmath.sqrt(v)))
_tanh = _chained(mpmath.tanh, lambda v: mpmath.sech(v) ** 2)
_sin = _chained(mpmath.sin, mpmath.cos)
# JAX's rule of erfc has the constant as a float64 number, and the gradient as traced is what is enclosed.
_SLOPE_OF_ERFC = mpmath.mpf(-2 / np.sqrt(np.pi))
SMOOTH: dict[str, tuple[Callable[[Any], Any], Callable[[Jet], Jet]]] = {
    "tanh": (jnp.tanh, _tanh),
    "logistic": (
        jax.nn.sigmoid,
        _chained(lambda v: 1 / (1 + mpmath.exp(-v)), lambda v: 1 / (2 + mpmath.exp(v) + mpmath.exp(-v))),
    ),
    "exp of tanh": (lambda x: jnp.exp(jnp.tanh(x)), lambda a: _exp(_tanh(a))),
    "expm1 of sin": (lambda x: jnp.expm1(jnp.sin(x)), lambda a: _chained(mpmath.expm1, mpmath.exp)(_sin(a))),
    "log": (lambda x: jnp.log(x * x + 2.0), lambda a: _log(_plus(2)(a))),
    "log1p": (lambda x: jnp.log1p(x * x), lambda a: _log(_plus(1)(a))),
    "sqrt": (lambda x: jnp.sqrt(jnp.square(x) + 1.5), lambda a: _sqrt(_plus(1.5)(a))),
    "rsqrt": (lambda x: jax.lax.rsqrt(x * x + 0.5), lambda a: _sqrt(_plus(0.5)(a)).inverse()),
    "erfc": (jax.lax.erfc, _chained(mpmath.erfc, lambda v: _SLOPE_OF_ERFC * mpmath.exp(-(v**2)))),
    "cube": (lambda x: x**3, lambda a: a * a * a),
    "power -2": (lambda x: (x * x + 1.0) ** -2, lambda a: (_plus(1)(a) * _plus(1)(a)).inverse()),
    "power 1.5": (lambda x: (x * x + 1.0) ** 1.5, lambda a: _plus(1)(a) * _sqrt(_plus(1)(a))),
    "cos": (jnp.cos, _chained(mpmath.cos, lambda v: -mpmath.sin(v))),
    "scale": (lambda x: -0.3 * x, lambda a: Jet(-0.3) * a),
}


_larger = lambda a, b: a if a.value >= b.value else b
KINKED: dict[str, tuple[Callable[[Any], Any], Callable[[Jet], Jet]]] = {
    "abs": (jnp.abs, _chained(abs, mpmath.sign)),
    "relu": (lambda x: jnp.maximum(x, 0.0), lambda a: _larger(a, Jet(0))),
    "clamp": (
        lambda x: jnp.minimum(jnp.maximum(x, -1.0), 2.0),
        lambda a: Jet(2) if a.value >= 2 else _larger(a, Jet(-1)),
    ),
}
BINARY: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Jet, Jet], Jet]]] = {
    "add": (lambda x, y: x + y, lambda a, b: a + b),
    "sub": (lambda x, y: x - y, lambda a, b: a - b),
    "mul": (lambda x, y: x * y, lambda a, b: a * b),
    "div": (lambda x, y: x / (y * y + 0.75), lambda a, b: a * _plus(0.75)(b).inverse()),
}

MATRIX = np.array([[0.5, -1.25, 0.1], [2.0, 0.3, 0.0], [-0.7, 0.9, 1.1]])
ORDER = np.array([2, 0, 1])
TWICE = np.array([1, 1, 2])


def _scan(x: Any) -> Any:
    steps = jnp.moveaxis(x, 1, 0)
    _, result = jax.lax.scan(lambda carry, v: (carry * 0.5 + v, carry + v), jnp.zeros_like(steps[0]), steps)
    return jnp.moveaxis(result, 0, 1)


def _scanned(row: list[Jet]) -> list[Jet]:
    carry, result = Jet(0), []
    for a in row:
        result.append(carry + a)
        carry = carry * Jet(0.5) + a
    return result


_total = lambda row: functools.reduce(Jet.__add__, row, Jet(0))


def _softmax(row: list[Jet]) -> list[Jet]:
    exponentials = [_exp(a) for a in row]
    return [e * _total(exponentials).inverse() for e in exponentials]


ROWWISE: dict[str, tuple[Callable[[Any], Any], Callable[[list[Jet]], list[Jet]]]] = {
    "matmul": (
        lambda x: x @ MATRIX,
        lambda row: [_total([row[i] * Jet(MATRIX[i, j]) for i in range(WIDTH)]) for j in range(WIDTH)],
    ),
    "outer": (
        lambda x: jnp.einsum("nij,nj->ni", x[:, :, None] * x[:, None, :], x),
        lambda row: [_total([a * b * b for b in row]) for a in row],
    ),
    "sum": (lambda x: x + jnp.sum(x, axis=-1, keepdims=True), lambda row: [a + _total(row) for a in row]),
    "softmax": (lambda x: jax.nn.softmax(x, axis=-1), _softmax),
    "logsumexp": (
        lambda x: x - jax.nn.logsumexp(x, axis=-1, keepdims=True),
        lambda row: [a - _log(_total([_exp(b) for b in row])) for a in row],
    ),
    "gather": (lambda x: jnp.take(x, ORDER, axis=1), lambda row: [row[k] for k in ORDER]),
    "scatter": (lambda x: jnp.zeros_like(x).at[:, TWICE].add(x), lambda row: [Jet(0), row[0] + row[1], row[2]]),
    "scan": (_scan, _scanned),
    "reverse": (lambda x: jnp.flip(x, axis=-1), lambda row: row[::-1]),
    "roll": (lambda x: jnp.concatenate([x[:, 1:], x[:, :1]], axis=1), lambda row: row[1:] + row[:1]),
    "transpose": (lambda x: (2.0 * x.T).T.reshape(x.shape), lambda row: [Jet(2) * a for a in row]),
}


@dataclasses.dataclass(frozen=True)
class Composition:
    """A function of boxes (rows, WIDTH): for JAX on all rows, for the oracle on one."""

    jax: Callable[[Any], Any]
    oracle: Callable[[list[Jet]], list[Jet]]
    name: str


def compose(generator: np.random.Generator, kinks: bool) -> Composition:
    """Draw a composition of two to seven operations."""
    table: dict[str, tuple[Any, Any]] = {**SMOOTH, **(KINKED if kinks else {})}
    now = Composition(lambda x: x, lambda row: row, "x")
    for _ in range(int(generator.integers(2, 8))):
        now = _extend(generator, now, table)
    return now


def _extend(generator: np.random.Generator, now: Composition, table: dict[str, tuple[Any, Any]]) -> Composition:
    kind = generator.integers(4)
    if kind == 0:
        name = str(generator.choice(list(BINARY)))
        first, second = BINARY[name]
        side = SMOOTH[str(generator.choice(list(SMOOTH)))]
        return Composition(
            lambda x: first(now.jax(x), side[0](x)),
            lambda row: [second(a, side[1](b)) for a, b in zip(now.oracle(row), row, strict=True)],
            f"{name}({now.name}, ...)",
        )
    chosen = ROWWISE if kind == 1 else table
    name = str(generator.choice(list(chosen)))
    outer, rowwise = chosen[name]
    oracle = rowwise if kind == 1 else lambda row: [rowwise(a) for a in row]
    return Composition(lambda x: outer(now.jax(x)), lambda row: oracle(now.oracle(row)), f"{name}({now.name})")


def boxes(generator: np.random.Generator) -> Ball:
    """Draw boxes: midpoints of several sizes, radii from none to wide."""
    mid = generator.standard_normal((ROWS, WIDTH)) * 10.0 ** generator.integers(-3, 2)
    sizes = 10.0 ** generator.uniform(-17, -1, (ROWS, 1)) * generator.random((ROWS, WIDTH))
    sizes[generator.random(ROWS) < 0.1] = 0
    if generator.random() < 0.05:
        mid, sizes = mid * 1e-310, sizes * 1e-310
    return Ball(mid, sizes)


@dataclasses.dataclass
class Count:
    """The numbers of cases by outcome."""

    cases: int = 0
    points: int = 0
    missed: int = 0
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    widest: float = 0.0
    examples: list[str] = dataclasses.field(default_factory=list)


def run(cases: int, seed: int = 0, progress: bool = False) -> Count:
    """Draw compositions until `cases` cases have been decided; refused ones do not count."""
    generator, count = np.random.default_rng(seed), Count()
    with jax.enable_x64(True), tqdm.tqdm(total=cases, unit="case", disable=None if progress else True) as bar:
        number = 0
        while count.cases < cases:
            differentiate, arb = bool(number % 2), number % 5 == 0
            _one(generator, count, compose(generator, kinks=not differentiate), differentiate, arb)
            bar.update(count.cases - bar.n)
            number += 1
    return count


def _one(generator, count: Count, composition: Composition, differentiate: bool, arb: bool) -> None:
    box = boxes(generator)
    function = jax.grad(lambda x: jnp.sum(composition.jax(x))) if differentiate else composition.jax
    program = flatten(jax.make_jaxpr(function)(jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float64)))
    try:
        if arb:
            with flint.ctx.workprec(60):
                found = multiprecision.to_ball(evaluate(program, [multiprecision.from_ball(box)], multiprecision)[0])
        else:
            found = evaluate(program, [box], ball)[0]
    except Refusal as refusal:
        count.refused[str(refusal).partition(":")[0]] += ROWS
        return
    count.widest = max(count.widest, float(np.max(found.radius)))
    for row in range(ROWS):
        inside = [_contains(generator, box, found, composition, differentiate, row, point) for point in range(POINTS)]
        count.cases += 1
        count.points += POINTS
        count.missed += not all(inside)
        if not all(inside):
            count.examples.append(composition.name)


def _contains(
    generator, box: Ball, found: Ball, composition: Composition, gradient: bool, row: int, point: int
) -> bool:
    """Return whether the enclosure contains the 50-digit value at a random point or corner of a box."""
    share = generator.choice([-1.0, 1.0], WIDTH) if point == 0 else generator.uniform(-1, 1, WIDTH)
    place = [
        Jet(mpmath.mpf(mid) + mpmath.mpf(rad) * mpmath.mpf(part), [mpmath.mpf(v) for v in unit])
        for mid, rad, part, unit in zip(box.mid[row], box.radius[row], share, np.eye(WIDTH), strict=True)
    ]
    values = composition.oracle(place)
    exact = _total(values).slope if gradient else [v.value for v in values]
    # Enclosures by arb may be narrower than the rounding of 50 digits.
    allowed = [mpmath.mpf(found.radius[row, k]) + mpmath.mpf(10) ** -45 * abs(exact[k]) for k in range(WIDTH)]
    return all(abs(exact[k] - mpmath.mpf(found.mid[row, k])) <= allowed[k] for k in range(WIDTH))


def main(cases: int = 100_000, theorems: int = 500, networks: int = 300, lists: int = 300, seed: int = 0) -> None:
    began = time.perf_counter()
    count = run(cases, seed, progress=True)
    print(f"{machine()}\nseed {seed}")
    print(
        f"{count.cases} cases, {count.points} points with 50 digits: {count.missed} outside their enclosure;"
        f" {sum(count.refused.values())} more cases refused, by {dict(count.refused)};"
        f" {time.perf_counter() - began:.0f} s"
    )
    for name in count.examples[:10]:
        print("outside:", name)
    found = network_enclosures.run(networks, seed, functools.partial(tqdm.tqdm, unit="network", disable=None))
    print(
        f"{found.networks} networks: {found.outside} of {found.entries} entries of their Hessians outside;"
        f" {found.refused} refused"
    )
    tallies = constructed_theorems.run(theorems, seed, functools.partial(tqdm.tqdm, unit="theorem", disable=None))
    tallies |= constructed_lists.run(lists, seed, functools.partial(tqdm.tqdm, unit="list", disable=None))
    for family, tally in tallies.items():
        print(f"{family}: {tally.cases} functions, {tally.proved} theorems,"
              f" {tally.together} more in float64, {len(tally.false)} false")  # fmt: skip
        for name in tally.false[:10]:
            print("false:", name)
    raise SystemExit(bool(count.missed or found.outside) or any(tally.false for tally in tallies.values()))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
