"""Directions of continuous symmetries: which of the given ones are valid, and whether they explain the null modes."""

import math

import jax
import numpy as np

from mlp_jax.critical.evidence.measurements import Measurements
from mlp_jax.critical.evidence.problem import Problem
from mlp_jax.curvature import signs
from mlp_jax.curvature.types import Tangents

# Beyond this angle the null modes are not called symmetry directions.
_LARGEST_ANGLE = 5.0
# How much larger than H times the tangents all other modes must be where angles are not computed.
_GAP = 100.0
# Distances, relative to the parameters, of the points at which tangents are tested: near ones, where dead units stay
# dead, and far ones, where a direction that is only flat at params changes fun.
_NEAR, _FAR = 1e-3, (0.1, 1.0)


def valid_tangents(problem: Problem, symmetries: Tangents | None) -> np.ndarray:
    """Return (P, k) an orthonormal basis of the tangents along which `fun` is constant, by test. Host-level.

    A tangent is dropped where ∇f · t exceeds its rounding at any of three random points near params, or where t is zero
    there; also where that happens at points further away, unless near params no bit of ∇f changes along it, as with
    dead units.
    """
    if symmetries is None:
        return np.zeros((len(problem.vector), 0))
    here, kept = constant_tangents(problem, symmetries)
    return _independent(here[:, kept])


def constant_tangents(problem: Problem, symmetries: Tangents) -> tuple[np.ndarray, np.ndarray]:
    """Return (P, k) all tangents at params, and a mask of those along which `fun` is constant, by test."""
    size = len(problem.vector)
    here = _tangents(problem, symmetries, problem.vector)
    generator = np.random.default_rng(2)
    typical = np.mean(np.abs(problem.vector)) or 1.0
    draws = generator.standard_normal((3, size)) * (np.abs(problem.vector) + typical)
    near = np.all([_constant(problem, symmetries, _NEAR * draw) for draw in draws], axis=0)
    # Where params are close to zero, a flat direction shows only at the usual size of params, 1.
    spreads = [spread * scale for scale in {1.0, max(1.0, 1.0 / typical)} for spread in _FAR]
    far = np.all([_constant(problem, symmetries, spread * draw) for spread in spreads for draw in draws], axis=0)
    for number in np.flatnonzero(near & ~far):
        far[number] = _unmoved(problem, here[:, number], _NEAR * typical)
    return here, near & far


def _constant(problem: Problem, symmetries: Tangents, offset: np.ndarray) -> np.ndarray:
    """Return for each tangent, at params + offset, whether it is nonzero and ∇f · t is zero to rounding."""
    there = problem.vector + offset
    nudge = 2 * problem.unit * np.abs(there)
    gradients = problem.gradients(np.stack([there, there + nudge, there - nudge]))
    tangents = _tangents(problem, symmetries, there)
    if not np.all(np.isfinite(gradients)):
        return np.zeros(tangents.shape[1], dtype=bool)
    change = np.max(np.abs(gradients[1:] - gradients[0]), axis=0)
    error = 16 * np.maximum(change, np.median(change)) + 64 * problem.unit * np.abs(gradients[0])
    return (np.abs(gradients[0] @ tangents) <= error @ np.abs(tangents)) & np.any(tangents != 0, axis=0)


def _unmoved(problem: Problem, tangent: np.ndarray, distance: float) -> bool:
    """Return whether no bit of ∇f changes along a line through params."""
    steps = np.array([0.0, 1.0, -0.37, 0.11, -0.93]) * distance / np.linalg.norm(tangent)
    gradients = problem.gradients(problem.vector + steps[:, None] * tangent)
    return bool(np.all(gradients == gradients[0]))


def _tangents(problem: Problem, symmetries: Tangents, vector: np.ndarray) -> np.ndarray:
    given = symmetries(problem.unravel(vector))
    leaves = [np.asarray(leaf, dtype=np.float64) for leaf in jax.tree.leaves(given)]
    rows = [leaf.reshape(*leaf.shape[:1], math.prod(leaf.shape[1:])) for leaf in leaves]
    tangents = np.concatenate(rows, axis=1).T
    if tangents.shape[0] != len(vector) or not np.all(np.isfinite(tangents)):
        expected = f"finite ones of {len(vector)}, with a leading axis on every leaf"
        raise ValueError(f"symmetries: got tangents of {tangents.shape[0]} numbers, expected {expected}.")
    return tangents


def _independent(tangents: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the span of the columns."""
    lengths = np.linalg.norm(tangents, axis=0)
    tangents = tangents[:, lengths > 0] / lengths[lengths > 0]
    if tangents.shape[1] == 0:
        return tangents
    left, values, _ = np.linalg.svd(tangents, full_matrices=False)
    return left[:, values > 1e-10 * values[0]]


def explained(m: Measurements, unresolved: int, tangents: np.ndarray) -> float | None:
    """Return the largest angle, in degrees, between null modes and equally many tangents; None if they differ.

    At a critical point the Hessian is zero along a symmetry: where the counts are equal, every null mode is explained.
    Without eigenvectors, all other modes must be a hundred times larger than H times the tangents, which bounds the
    angle.
    """
    if unresolved == 0 or tangents.shape[1] != unresolved:
        return None
    basis, _ = np.linalg.qr(tangents / m.scale[:, None])
    if m.eigenvectors is None or m.eigenvalues is None:
        turned = m.scale[:, None] * (m.matrix @ (m.scale[:, None] * basis))
        # All but the null modes are larger than H t by this factor, so that t has no part along them.
        others = signs.count(m.matrix, _GAP * np.linalg.norm(turned, ord=2) / m.scale**2, m.scale)
        return float(np.degrees(np.arcsin(1 / _GAP))) if others.unresolved == unresolved else None
    null = m.eigenvectors[:, np.argsort(np.abs(m.eigenvalues))[:unresolved]]
    sine = float(np.linalg.norm(null - basis @ (basis.T @ null), ord=2))
    angle = float(np.degrees(np.arcsin(min(sine, 1.0))))
    return angle if angle <= _LARGEST_ANGLE else None
