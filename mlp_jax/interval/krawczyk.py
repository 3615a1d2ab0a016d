"""Boxes around a point that hold exactly one critical point: a tiny one, and a wide one (see `theorems`)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mlp_jax.curvature import signs
from mlp_jax.interval import ball, enclosures, spectra, symmetry
from mlp_jax.interval.ball import Array, Ball, Refusal
from mlp_jax.interval.smoothness import Smoothness
from mlp_jax.interval.spectra import Contraction, Spectrum

_TRIES = 3
# Target for |I − A·H(B)| 1 on the wide box: below 1, with a margin for the error of the estimate.
_AIM = 0.4


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

    plain, augmented
        The Hessian of fun on the box, and the Hessian augmented by the slice term (the same without symmetries).
    spectrum
        Of the augmented Hessian, which is nonsingular.
    negative
        Number of its negative eigenvalues.
    inverse
        A, an approximate inverse of it.
    step
        Upper bounds on |A g|.
    radius
        Of the box, which is a cube.
    """

    center: Center
    plain: Ball
    augmented: Ball
    spectrum: Spectrum
    negative: int
    inverse: Array
    step: Array
    radius: float
    slice_: symmetry.Slice | None


def tiny_box(problem: Problem, center: Center, side: float) -> Existence:
    """Prove that a tiny box holds exactly one critical point, or raise Refusal.

    The Hessian is enclosed on a cube of about `side`, which contains the box, of radius about 2 max|A g|.
    """
    point = center.point
    floor = 2.0**-60 * max(1.0, float(np.max(np.abs(point))))
    side = max(side, 4 * floor)
    for _ in range(_TRIES):
        cube = center.cube(side)
        plain = problem.hessian(cube)
        slice_ = None if problem.tangents is None else symmetry.slice_at(problem.tangents, point, plain.mid)
        augmented = plain if slice_ is None else slice_.augment(plain)
        spectrum, negative, inverse = _decide(augmented)
        step = spectra.upper(spectra.product(ball.exact(inverse), center.gradient))
        radius = 2.02 * float(np.max(step)) + floor
        if radius <= side:
            break
        side = 4 * float(np.max(step)) + 4 * floor
    else:
        raise Refusal(f"Newton's step, {np.max(step):.3g}, leaves every box that was tried")
    ratio = _ratio(step, Contraction(inverse, augmented), radius)
    if not ratio < 1:
        raise Refusal(f"Krawczyk's test maps the tiny box to {ratio:.3g} times itself, and not into itself")
    if slice_ is not None:
        slice_.require_transversal(cube)
    return Existence(center, plain, augmented, spectrum, negative, inverse, step, radius, slice_)


def _decide(matrix: Ball) -> tuple[Spectrum, int, Array]:
    """Return the spectrum, the proved number of negative eigenvalues, and an approximate inverse.

    Where the enclosures leave a sign open, the signs are those of S H S, scaled by congruence (Sylvester).
    """
    spectrum = decided = spectra.spectrum(matrix)
    scale = np.ones(len(matrix.mid))
    if spectrum.negative + spectrum.positive < len(scale):
        scale = signs.scaling(matrix.mid)
        both = scale[:, None] * scale
        if not np.min(both) > ball.TINY:
            raise Refusal("the coordinates are scaled too differently for float64")
        decided = spectra.spectrum(spectra.mirrored(ball.mul(matrix, ball.exact(both))))
        _require_decided(decided)
    inverse = scale[:, None] * ((decided.vectors / decided.values) @ decided.vectors.T) * scale
    return spectrum, decided.negative, inverse


def _require_decided(spectrum: Spectrum) -> None:
    undecided = len(spectrum.values) - spectrum.negative - spectrum.positive
    if undecided:
        near = spectrum.values[np.argmin(np.abs(spectrum.values))]
        raise Refusal(
            f"{undecided} of {len(spectrum.values)} eigenvalues are 0 within the bounds (the nearest {near:.3g} ±"
            f" {spectrum.error:.3g}): degenerate, or too close to it for float64"
        )


def wide_radius(problem: Problem, found: Existence, wanted: float | None) -> float:
    """Return the radius of a cube that holds no second critical point; raise Refusal if `wanted` is not such a radius.

    It is the radius of the tiny box where no wider cube is found.
    """
    tiny = found.radius
    if wanted is not None:
        if wanted > tiny:
            ratio = _mapped(problem, found, wanted)
            if not ratio < 1:
                raise Refusal(f"Krawczyk's test maps the cube of radius {wanted:.3g} to {ratio:.3g} times itself")
        return max(wanted, tiny)
    radius = _smooth_radius(problem, found, _estimate(problem, found))
    for _ in range(2):
        if not radius > 2 * tiny:
            break
        try:
            ratio = _mapped(problem, found, radius)
        except Refusal:
            radius /= 16
            continue
        if ratio < 1:
            return radius
        radius *= _AIM / ratio
    return tiny


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


def _mapped(problem: Problem, found: Existence, radius: float) -> float:
    """Return the ratio by which Krawczyk's operator maps a cube into itself: below 1, it holds exactly one point."""
    cube = found.center.cube(radius)
    if found.slice_ is not None:
        found.slice_.require_transversal(cube)
    matrix = problem.hessian(cube)
    matrix = matrix if found.slice_ is None else found.slice_.augment(matrix)
    return _ratio(found.step, Contraction(found.inverse, matrix), radius)


def _ratio(step: Array, contraction: Contraction, radius: float) -> float:
    """Return an upper bound on the ratio of Krawczyk's operator on a cube: (|A g| + |I − A·H| r) / r."""
    moved = step + contraction(np.full(step.shape, radius))
    return float(np.max(moved)) / radius * (1 + 8 * ball.UNIT)


def _estimate(problem: Problem, found: Existence) -> float:
    """Return a radius at which Krawczyk's test should pass, from the Hessian on cubes: a few rows of it, or all."""
    size, whole = found.step.size, problem.traced.whole is not None
    rows = np.arange(size) if whole else np.random.default_rng(0).permutation(size)[: 2 * problem.traced.block]
    radius = (1e-7 if whole else 1e-4) * max(1.0, float(np.max(np.abs(found.center.point))))
    for _ in range(1 if whole else 6):
        cube = found.center.cube(radius)
        try:
            part = problem.hessian(cube) if whole else enclosures.hessian_rows(problem.traced, cube, problem.data, rows)
        except Refusal:
            radius /= 64
            continue
        sums = np.full(size, part.radius.sum(axis=1).mean())
        sums[rows] = part.radius.sum(axis=1)
        ratio = float(np.max(np.abs(found.inverse) @ sums))
        if 0.25 * _AIM < ratio < 1.2 * _AIM:
            return radius
        radius *= float(np.clip(_AIM / max(ratio, 1e-300), 1 / 256, 1e5 if whole else 256))
    return radius
