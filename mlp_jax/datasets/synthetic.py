"""Data given by a formula: XOR, parity, sawtooth, spirals, teacher-student.

Functions with a `key` are *transformable* in it: they work under jit and vmap. The others are host-level tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks
from mlp_jax.datasets.examples import Examples, as_examples

_LARGEST_TABLE = 2**24  # rows; float32 is exact for integers up to here
_MOST_NUMBERS = 2**30  # 8 GiB of float64; a larger request would end the process


def xor(*, coding: tuple[float, float] = (0.0, 1.0)) -> Examples:
    """Return `parity(2, coding=coding)`, the four examples of exclusive or, in the order FF, FT, TF, TT.

    It is the smallest problem that no linear model solves (Minsky & Papert 1969, "Perceptrons").

    Examples
    --------
    >>> xor(coding=(-1, 1)).targets[:, 0].tolist()
    [-1.0, 1.0, 1.0, -1.0]
    """
    return parity(2, coding=coding)


def parity(num_bits: int, *, coding: tuple[float, float] = (0.0, 1.0)) -> Examples:
    """Return all 2ⁿ strings of n bits (2ⁿ, n); the target (2ⁿ, 1) is true for an odd number of true bits.

    Row i has the binary digits of i, the most significant first. Every proper subset of the bits is independent of the
    target (Minsky & Papert 1969, "Perceptrons"). num_bits: n, from 1 to 20; coding: two different finite numbers for
    false and true.

    Examples
    --------
    >>> data = parity(3)
    >>> data.inputs[6].tolist(), data.targets[6].tolist()
    ([1.0, 1.0, 0.0], [0.0])
    """
    num_bits = _checks.integer(num_bits, "num_bits", 1, 20)  # 84 MB in float32
    values = np.asarray(_checks.numbers(coding, "coding", finite=True), np.float64)
    if values.shape != (2,) or values[0] == values[1]:
        raise ValueError(f"coding: got {coding}, expected two different numbers such as (0, 1) or (-1, 1).")
    bits = (np.arange(2**num_bits)[:, None] >> np.arange(num_bits)[::-1]) & 1
    odd = bits.sum(axis=1, keepdims=True) & 1
    return as_examples(values[bits], values[odd], name="parity")


def sawtooth(depth: int, *, points_per_piece: int = 4) -> Examples:
    """Return the tent map composed with itself `depth` times, on 2^depth · points_per_piece + 1 points over [0, 1].

    T(x) = 1 − |2x − 1|; the target is T(T(…T(x))), which has 2^depth linear pieces of slope ±2^depth. A network of
    `depth` layers represents it with two ReLU units a layer; a shallow one needs exponentially many units (Telgarsky
    2016, "Benefits of depth in neural networks"). Every piece begins and ends on the grid. Targets are computed from
    integers, so that each is rounded once; if `points_per_piece` is a power of two, inputs and targets are exact. At
    most 20 maps and 2²⁴ points.

    Examples
    --------
    >>> data = sawtooth(2, points_per_piece=1)
    >>> data.inputs[:, 0].tolist(), data.targets[:, 0].tolist()
    ([0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 1.0, 0.0, 1.0, 0.0])
    """
    depth = _checks.integer(depth, "depth", 1, 20)
    most = (_LARGEST_TABLE - 1) // 2**depth
    points_per_piece = _checks.integer(points_per_piece, "points_per_piece", 1, most, f"for {2**depth} pieces")
    intervals = 2**depth * points_per_piece
    steps = np.arange(intervals + 1)
    phase = steps % (2 * points_per_piece)  # one tooth: up for points_per_piece steps, then down as many
    heights = np.minimum(phase, 2 * points_per_piece - phase)
    return as_examples(steps[:, None] / intervals, heights[:, None] / points_per_piece, name="sawtooth")


def spirals(
    key: jax.Array, num_examples: int, *, classes: int = 2, turns: float = 1.0, noise: float = 0.02
) -> Examples:
    """Draw points on spirals that start at the origin and wind around each other, one spiral a class.

    x = r (cos φ, sin φ) + noise · ε with φ = 2π (turns · r + class / classes), r uniform on [0, 1), ε standard normal
    (after the two spirals of Lang & Witbrock 1988). Row i is of class i mod classes, so that class sizes differ by one
    at most. Negative `turns` wind clockwise. *Transformable* in `key`.

    Examples
    --------
    >>> data = spirals(jax.random.key(0), 90, classes=3)
    >>> data.inputs.shape, data.targets[:4].tolist()
    ((90, 2), [0, 1, 2, 0])
    """
    _checks.key(key)
    classes = _checks.integer(classes, "classes", 1)
    num_examples = _checks.integer(num_examples, "num_examples", classes, _MOST_NUMBERS, "enough for each class")
    turns = _checks.real(turns, "turns")
    noise = _checks.not_negative(noise, "noise")
    radius_key, noise_key = jax.random.split(key)
    radii = jax.random.uniform(radius_key, (num_examples,))
    labels = jnp.arange(num_examples, dtype=jnp.int32) % classes
    angles = 2 * math.pi * (turns * radii + labels.astype(radii.dtype) / classes)
    points = radii[:, None] * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    return Examples(points + noise * jax.random.normal(noise_key, points.shape), labels)


def teacher_student(
    key: jax.Array,
    teacher: Callable[[jax.Array], jax.Array],
    num_examples: int,
    num_inputs: int,
    *,
    noise: float = 0.0,
) -> Examples:
    """Draw standard normal inputs and label them with a teacher, so that a perfect student exists.

    targets = teacher(inputs) + noise · ε, ε standard normal (Gardner & Derrida 1989; Seung, Sompolinsky & Tishby
    1992). The inputs do not depend on the teacher. *Transformable* in `key` when `teacher` is transformable.

    Parameters
    ----------
    teacher
        inputs (n, num_inputs) -> values (n, out), floating and finite: for a network,
        `lambda inputs: mlp.forward(params, inputs)`. TypeError or ValueError otherwise.
    num_examples, num_inputs
        n and the number of input columns; ValueError for more than 2³⁰ numbers.
    noise
        Standard deviation of the noise added to the targets.

    Examples
    --------
    >>> data = teacher_student(jax.random.key(0), lambda inputs: inputs[:, :1] ** 2, 50, 3)
    >>> data.inputs.shape, data.targets.shape
    ((50, 3), (50, 1))
    """
    _checks.key(key)
    num_examples = _checks.integer(num_examples, "num_examples", 1, _MOST_NUMBERS)
    num_inputs = _checks.integer(num_inputs, "num_inputs", 1, _MOST_NUMBERS // num_examples)
    noise = _checks.not_negative(noise, "noise")
    input_key, noise_key = jax.random.split(key)
    inputs = jax.random.normal(input_key, (num_examples, num_inputs))
    values = jnp.asarray(teacher(inputs))
    if values.shape[:1] != (num_examples,) or values.ndim != 2:
        raise ValueError(f"teacher: got values of shape {values.shape}, expected ({num_examples}, out).")
    _checks.params(values, "teacher's values")
    return Examples(inputs, values + noise * jax.random.normal(noise_key, values.shape, values.dtype))
