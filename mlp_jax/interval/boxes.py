"""Boxes around a point that hold exactly one critical point: a tiny one, and a wide one (see `proof`)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mlp_jax.interval import ball, enclosures, factorisation, spectra, symmetry
from mlp_jax.interval.ball import Array, Ball, Refusal
from mlp_jax.interval.factorisation import Bounded
from mlp_jax.interval.smoothness import Smoothness
from mlp_jax.interval.spectra import Spectrum

_TRIES = 3
# The share of bounds that might be singular which those on the wide box should have, and with which it is accepted.
_AIM, _ENOUGH = 0.9, 0.3
# Largest factor between two radii that are tried.
_MOST = 1e9


class Problem(NamedTuple):
    """fun as programs, its data, the boxes on which it is smooth, its symmetries and the bits of its gradient."""

    traced: enclosures.Traced
    data: list[Array]
    digest: str
    smoothness: Smoothness
    tangents: symmetry.Tangents | None
    bits: int
    spend: Callable[[int], Any] | None = None  # called with the number of rows of each Hessian, as they are made

    def gradient(self, point: Array) -> Ball:
        """Return the gradient at a point."""
        return enclosures.gradient(self.traced, point, self.data, self.bits)

    def hessian(self, box: Ball) -> Ball:
        """Return the Hessian on a box, on which fun is smooth."""
        self.smoothness.require(box)
        return enclosures.hessian(self.traced, box, self.data, self.spend)


class Center(NamedTuple):
    """The centre of the boxes, and the gradient there."""

    point: Array
    gradient: Ball

    def cube(self, radius: float) -> Ball:
        """Return the cube of a radius about the point."""
        return Ball(self.point, np.full(self.point.shape, radius))


class Existence(NamedTuple):
    """What the tiny box proves.

    negative
        Number of negative eigenvalues of the Hessian.
    spectrum
        Eigenvalues of the Hessian of fun at the critical point.
    side, radius
        Of cubes on which this Hessian is enclosed, and which contains the critical point.
    change
        An upper bound on |fun(θ) − fun(c)| in that cube.
    solve, scale, growth
        Of the Hessian on the larger of the two, augmented by the slice term if any: the inverse of its midpoint, its
        scale, and the ratio of its bounds to those that might be singular.
    error
        The error of its factorisations.
    """

    center: Center
    negative: int
    spectrum: Spectrum
    side: float
    radius: float
    change: float
    solve: Callable[[Array], Array]
    scale: Array
    growth: float
    error: float
    slice_: symmetry.Slice | None


def tiny_box(problem: Problem, center: Center, side: float, test: Callable[[Ball, Ball], None]) -> Existence:
    """Prove that a cube of about `side` holds exactly one critical point, or raise Refusal.

    `test` is called with the cube and the Hessian of fun on it.
    """
    point = center.point
    floor = 2.0**-60 * max(1.0, float(np.max(np.abs(point))))
    side = max(side, 4 * floor)
    for _ in range(_TRIES):
        cube = center.cube(side)
        plain = problem.hessian(cube)
        slice_ = None if problem.tangents is None else symmetry.slice_at(problem.tangents, point, plain.mid)
        matrix = plain if slice_ is None else slice_.augment(plain)
        bounds = factorisation.bounded(matrix)
        solve = factorisation.solver(bounds)
        if solve is None:
            raise Refusal("the Hessian is singular to rounding: a critical point here is degenerate")
        near = spectra.nearest(matrix, solve, None if slice_ is None else slice_.normals)
        # θ* = c − p − H⁻¹(g − H p) for a mean H of Hessians: the step p, and a bound on the rest.
        step = solve(center.gradient.mid)
        size = float(np.max(np.abs(step)))
        rest = spectra.length(ball.sub(center.gradient, spectra.product(matrix, ball.exact(step))))
        if not size + 2 * rest / abs(near.value) > side:
            break
        side = 4 * (size + 2 * rest / abs(near.value) + floor)
    else:
        if size * abs(near.value) < 2 * rest:
            raise spectra.undecided(len(point), near)
        raise Refusal(f"Newton's step, {size:.3g}, leaves every box that was tried")
    test(cube, plain)
    gap = spectra.decide(bounds, near)
    moved = (size + rest / gap.level) * (1 + 8 * ball.UNIT) + ball.TINY
    if not moved < side:
        raise Refusal(f"Newton's step, {moved:.3g}, leaves the box of {side:.3g} on which the Hessian is enclosed")
    if slice_ is not None:
        slice_.require_transversal(cube)
    radius = min(2 * moved + floor, side)
    spectrum = _spectrum(problem, plain, bounds, gap, near)
    change = _change(center.gradient, plain, radius)
    growth = spectra.growth(bounds, solve)
    return Existence(
        center, gap.negative, spectrum, side, radius, change, solve, bounds.scale, growth, gap.error, slice_
    )


def _spectrum(problem: Problem, plain: Ball, bounds: Bounded, gap: factorisation.Gap, near: spectra.Pair) -> Spectrum:
    """Return the eigenvalues of fun's own Hessian, in which those of the slice term are 0."""
    if problem.tangents is None:
        return spectra.enclose(plain, bounds, gap, near, 0)
    null = len(problem.tangents.rows)
    bounds, near = factorisation.bounded(plain), spectra.pair(plain, near.value, near.vector)
    try:
        found = spectra.decide(bounds, near, null)
    except Refusal:
        found = gap._replace(positive=gap.positive - null, level=0.0)
    return spectra.enclose(plain, bounds, found, near, null)


def _change(gradient: Ball, plain: Ball, radius: float) -> float:
    """Return a bound on |fun(θ) − fun(c)| ≤ Σ r max|∇ᵢfun| in a cube, with ∇fun in g(c) + H(B)(θ − c)."""
    size = len(plain.mid)
    slope = spectra.upper(gradient) + (np.abs(plain.mid).sum(axis=1) + plain.radius.sum(axis=1)) * radius
    return float(slope.sum() * radius) * (1 + 16 * size * ball.UNIT) + size * ball.TINY


def wide_radius(problem: Problem, found: Existence, wanted: float | None) -> float:
    """Return the radius of a cube that holds no second critical point; raise Refusal if `wanted` is not such a radius.

    It is the radius of the tiny box where no wider cube is found.
    """
    tiny = found.radius
    if wanted is not None:
        if wanted > tiny and not _nonsingular(found, _bounds(problem, found, wanted)):
            raise Refusal(f"the Hessian is not proved to be nonsingular in the cube of radius {wanted:.3g}")
        return max(wanted, tiny)
    # The bounds grow about in proportion to the radius, once they are above rounding.
    radius = found.side * _factor(found.growth)
    for last in (False, False, True):
        smooth = _smooth_radius(problem, found, radius)
        if not smooth > 2 * tiny:
            break
        try:
            bounds = _bounds(problem, found, smooth)
        except Refusal:
            radius = smooth / 16
            continue
        ratio = spectra.growth(bounds, found.solve)
        if ratio < 1 and (last or smooth < radius or ratio > _ENOUGH) and _nonsingular(found, bounds):
            return smooth
        radius = smooth * min(_factor(ratio), 0.5 if ratio > _ENOUGH else _MOST)
    return tiny


def _factor(ratio: float) -> float:
    """Return by how much to change a radius, given the ratio of the bounds there to those that might be singular."""
    return min(_AIM / max(ratio, 1e-300), _MOST)


def _smooth_radius(problem: Problem, found: Existence, radius: float) -> float:
    """Return the radius of a cube on which fun is smooth, between that of the tiny box and the given one."""
    while radius > 2 * found.radius:
        try:
            problem.smoothness.require(found.center.cube(radius))
        except Refusal:
            radius /= 2
        else:
            return radius
    return found.radius


def _bounds(problem: Problem, found: Existence, radius: float) -> Bounded:
    """Return bounds on the Hessian, augmented by the slice term if any, on a cube."""
    cube = found.center.cube(radius)
    if found.slice_ is not None:
        found.slice_.require_transversal(cube)
    matrix = problem.hessian(cube)
    matrix = matrix if found.slice_ is None else found.slice_.augment(matrix)
    return factorisation.bounded(matrix, found.scale)


def _nonsingular(found: Existence, bounds: Bounded) -> bool:
    """Return whether all Hessians within the bounds are proved to be nonsingular."""
    gap = factorisation.gap(bounds, 0.0, 4 * max(bounds.rounding, found.error))
    return gap.negative + gap.positive == len(bounds.scale) and gap.level >= 0
