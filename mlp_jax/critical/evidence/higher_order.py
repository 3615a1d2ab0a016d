"""The lowest order at which a function changes along null directions of its Hessian, its range minimised out.

With N the null space and f expanded at a critical point, the range follows a null direction v along t v + t² w / 2:

    f − f(θ) = t³/6 D³f[v,v,v] + t⁴/24 (D⁴f[v,v,v,v] − 3 cᵀ H⁺ c) + O(t⁵),    c = D³f[v,v,·],  w = −H⁺ c

(the splitting lemma of singularity theory; Gilmore 1981, "Catastrophe theory", chapter 2). Where the cubic form is
not zero on N, f both rises and falls; where it is zero, the quartic form decides as far as it is not zero itself.

D³f[v,v,·] and D⁴f[v,v,v,·] are central differences of the gradient along v, of eighth and sixth order; two step lengths
give their error. So only the gradient is compiled.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mlp_jax.critical.evidence.measurements import Measurements
from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.critical.evidence.slopes import typical_size

_SAMPLES = 128
_REFINED = 8
_ITERATIONS = 40
_SAFETY = 4.0
# Step lengths of the differences tried, relative to the size of params; each is compared with twice itself.
_LENGTHS = 2e-2, 2e-3
_OFFSETS = np.array([1.0, 2.0, 3.0, 4.0])
# Weights of F(kh) ± F(−kh) for the second and third derivatives of F (Fornberg 1988).
_MIDDLE, _SECOND = -205 / 72, np.array([8 / 5, -1 / 5, 8 / 315, -1 / 560])
_THIRD = np.array([-61 / 30, 169 / 120, -3 / 10, 7 / 240])


class HigherOrder(NamedTuple):
    """The change of a function along null directions.

    order
        3 or 4, or None where neither is resolved.
    falls, rises
        Whether a direction was found along which it falls or rises at that order, also in its values.
    lowest, highest, bound
        Extremes, over the directions tried, of the form of that order (of the quartic one where none is resolved), and
        a bound on their errors.
    """

    order: int | None
    falls: bool
    rises: bool
    lowest: float
    highest: float
    bound: float

    def __str__(self) -> str:
        if self.order is None:
            return f"no change is resolved up to order 4 (bound {self.bound:.1e})"
        ways = " and ".join(word for word, holds in (("falls", self.falls), ("rises", self.rises)) if holds)
        extremes = f"from {self.lowest:.3g} to {self.highest:.3g}, bound {self.bound:.1e}"
        return f"along null directions the function {ways} at order {self.order} (form {extremes})"


class _Forms(NamedTuple):
    """Forms of directions v, (n,); D³f[v,v,·], D⁴f[v,v,v,·] and the bends −H⁺ D³f[v,v,·] of the paths, (n, P) each."""

    cubic: np.ndarray
    quartic: np.ndarray
    third: np.ndarray
    fourth: np.ndarray
    bend: np.ndarray


class _Differences(NamedTuple):
    """Derivatives of the gradient along directions, from differences of a length."""

    problem: Problem
    gradient: np.ndarray
    pseudo_inverse: np.ndarray
    length: float

    def along(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return D³f[v,v,·] and D⁴f[v,v,v,·], (n, P) each, for each row v."""
        steps = self.length * _OFFSETS[:, None, None] * rows
        points = self.problem.vector + np.concatenate([steps, -steps]).reshape(-1, rows.shape[1])
        ahead, behind = self.problem.gradients(points).reshape(2, len(_OFFSETS), *rows.shape)
        second = np.tensordot(_SECOND, ahead + behind, 1) + _MIDDLE * self.gradient
        return second / self.length**2, np.tensordot(_THIRD, ahead - behind, 1) / self.length**3

    def forms(self, rows: np.ndarray) -> _Forms:
        """Return the forms of each row."""
        third, fourth = self.along(rows)
        bend = -third @ self.pseudo_inverse
        cubic, bent = np.sum(third * rows, axis=1), np.sum(third * bend, axis=1)
        return _Forms(cubic, np.sum(fourth * rows, axis=1) + 3 * bent, third, fourth, bend)

    def slope(self, rows: np.ndarray, forms: _Forms, order: int) -> np.ndarray:
        """Return the slope of a form in each row, (n, P)."""
        if order == 3:
            return 3 * forms.third
        size = np.linalg.norm(forms.bend, axis=1, keepdims=True)
        unit = forms.bend / np.where(size > 0, size, 1)
        mixed = size * (self.along(rows + unit)[0] - self.along(rows - unit)[0]) / 4
        return 4 * forms.fourth + 12 * mixed

    def rounding(self, m: Measurements, rows: np.ndarray, forms: _Forms, order: int) -> float:
        """Return a bound on the error of a form due to the rounding of the gradient."""
        second = np.abs(rows) @ m.gradient_error * (abs(_MIDDLE) + 2 * np.sum(np.abs(_SECOND))) / self.length**2
        if order == 3:
            return float(np.max(second))
        third = np.abs(rows) @ m.gradient_error * 2 * np.sum(np.abs(_THIRD)) / self.length**3
        return float(np.max(third + 6 * np.linalg.norm(forms.bend, axis=1) * second))


def higher_order(problem: Problem, measured: Measurements, null: np.ndarray) -> HigherOrder:
    """Return the lowest order at which the function changes along the marked modes of the scaled Hessian. Host-level.

    Directions are random ones of the null space; the best are improved by a shifted power iteration (Kolda and Mayo
    2011) towards the lowest and the highest value of each form. A minimum over a sphere is so estimated, not
    bounded: `falls` is evidence, its absence is not. `null`, (P,), marks the eigenvectors that span the null space.
    """
    basis, pseudo_inverse = spaces(measured, null)
    directions = _sphere(basis.shape[1])
    lengths = typical_size(problem) * np.array(_LENGTHS)
    tools = [_Differences(problem, measured.gradient, pseudo_inverse, length) for length in lengths]
    for order in (3, 4):
        # The length with the smallest error from rounding and higher orders.
        choices = [_extremes(tool, measured, basis, directions, order) for tool in tools]
        rows, forms, bound = min(choices, key=lambda choice: choice[2])
        values = forms.cubic if order == 3 else forms.quartic
        lowest, highest = float(values[0]), float(values[1])
        if max(-lowest, highest) > bound:
            seen = [_seen(problem, rows[i], forms.bend[i], values[i], order) for i in range(2)]
            falls, rises = bool(values[0] < -bound and seen[0]), bool(values[1] > bound and seen[1])
            return HigherOrder(order if falls or rises else None, falls, rises, lowest, highest, bound)
    return HigherOrder(None, False, False, lowest, highest, bound)


def smallest(eigenvalues: np.ndarray, number: int) -> np.ndarray:
    """Return a mask of the modes of smallest size."""
    null = np.zeros(len(eigenvalues), dtype=bool)
    null[np.argsort(np.abs(eigenvalues))[:number]] = True
    return null


def spaces(m: Measurements, null: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an orthonormal basis (P, k) of the null space, and the inverse of H on the other modes."""
    assert m.eigenvalues is not None
    assert m.eigenvectors is not None
    basis, _ = np.linalg.qr(m.scale[:, None] * m.eigenvectors[:, null])
    rest = m.scale[:, None] * m.eigenvectors[:, ~null]
    return basis, (rest / m.eigenvalues[~null]) @ rest.T


def _sphere(dimension: int) -> np.ndarray:
    if dimension == 1:
        return np.array([[1.0], [-1.0]])
    draws = np.random.default_rng(3).standard_normal((_SAMPLES, dimension))
    draws = np.concatenate([np.eye(dimension)[:_SAMPLES], draws])
    return draws / np.linalg.norm(draws, axis=1, keepdims=True)


def _extremes(
    tool: _Differences, m: Measurements, basis: np.ndarray, directions: np.ndarray, order: int
) -> tuple[np.ndarray, _Forms, float]:
    """Return the directions of the lowest and highest form, (2, P), the forms, and a bound on their errors."""
    forms = tool.forms(directions @ basis.T)
    values = forms.cubic if order == 3 else forms.quartic
    found = np.stack([_climbed(tool, basis, directions, sign * values, sign, order) for sign in (-1.0, 1.0)]) @ basis.T
    here, wider = tool.forms(found), tool._replace(length=2 * tool.length).forms(found)
    apart = np.max(np.abs(here[order - 3] - wider[order - 3]))
    bound = _SAFETY * apart + tool.rounding(m, found, here, order)
    return found, here, float(bound) if np.isfinite(bound) else np.inf


def _climbed(
    tool: _Differences, basis: np.ndarray, directions: np.ndarray, values: np.ndarray, sign: float, order: int
) -> np.ndarray:
    """Return the direction, in coordinates of the basis, with the largest sign · form of those tried."""
    best = directions[np.argsort(-values)[:_REFINED]]
    # Larger than any slope, so that the iteration climbs and the sum is not zero.
    shift = 2 * order * float(np.max(np.abs(values)))
    if len(directions[0]) == 1 or not 0 < shift < np.inf:
        return best[0]
    tried, scores = [best], []
    for _ in range(_ITERATIONS):
        rows = tried[-1] @ basis.T
        forms = tool.forms(rows)
        scores.append(sign * (forms.cubic if order == 3 else forms.quartic))
        moved = sign * tool.slope(rows, forms, order) @ basis + shift * tried[-1]
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        if np.max(np.abs(moved - tried[-1])) < 1e-9:
            break
        tried.append(moved)
    step, row = np.unravel_index(int(np.argmax(scores)), np.shape(scores))
    return tried[step][row]


def _seen(problem: Problem, direction: np.ndarray, bend: np.ndarray, value: float, order: int) -> bool:
    """Return whether values of the function along the path change as the form predicts, within a factor of two."""
    if value == 0:
        return False
    typical = max(float(np.mean(np.abs(problem.vector))), 1.0)
    times = typical * np.geomspace(1e-4, 1.0, 13)
    moves = [t * direction + t**2 / 2 * bend * (order == 4) for t in (0.0, *times)]
    values = problem.slopes(problem.vector + np.stack(moves))[0]
    start, paths = values[0], values[1:]
    rounding = 64 * problem.unit * np.maximum(np.abs(paths), abs(start))
    expected = value * times**order / math.factorial(order)
    close = np.abs(paths - start - expected) <= np.abs(expected) / 2
    return bool(np.any(close & (np.abs(expected) > rounding)))
