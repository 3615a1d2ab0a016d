"""certify: prove that there is exactly one critical point near params, and its index; check: prove it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mlp_jax import _checks, _parallel, tree
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Progress, PyTree, Tangents
from mlp_jax.interval import batches
from mlp_jax.interval.certificate import Certificate, Interval
from mlp_jax.interval.proof import INDEPENDENCE, Settings, attempt

# The radii of a certificate are weaker by this share than those proved.
_SLACK = 2.0**-20
_MOST_BITS = 2**16
_INTERVALS = ("smallest", "nearest", "largest", "loss")


def certify(
    fun: Callable[..., jax.Array],
    params: PyTree,
    args: tuple = (),
    *,
    symmetries: Tangents | None = None,
    hessian: Callable[..., jax.Array] | None = None,
    enclosure: Callable[..., jax.Array] | None = None,
    reach: float = 1e-6,
    bits: int = 128,
    wide: bool = True,
    progress: Progress | None = None,
) -> Certificate:
    """Prove that exactly one critical point of fun lies near params, and its index; or refuse. Host-level.

    Newton's steps first move the centre to where the gradient vanishes to rounding, at most by `reach`. Then verified
    factorisations L D Lᵀ prove that no Hessian on a box is singular, which gives the index and uniqueness, and the
    Newton–Kantorovich theorem gives existence (see `proof`). A second call with the same `fun` object and shapes traces
    nothing.

    Memory: about 12 · 8 P² bytes, and a block of Hessian rows for each core. Work: P Hessian-vector products in ball
    arithmetic for each of two boxes, and five factorisations of 2/3 P³ flops at a minimum, eight at a saddle.

    Parameters
    ----------
    fun
        `(params, *args) -> scalar`, in float64 throughout, of primitives for which `interpreter` has rules.
    params
        Near a critical point, such as the params of `critical.find`.
    args
        Further arguments: data goes here, and is taken as exact.
    symmetries
        `params -> tangents` with a leading axis: directions in which fun does not change, as functions of params. Each
        is tested at random points with many bits. Those that fail are dropped; the others are named as assumptions.
    hessian
        `(params, *args) -> (P, P)`, a fast floating-point Hessian for polishing, such as a partial of
        `mlp_hessian.dense`; the proof does not rest on it.
    enclosure
        `(params, *args) -> (P, P)`, the Hessian as JAX operations that are faster in ball arithmetic than those of P
        Hessian-vector products, such as a partial of `mlp_hessian.enclosable`. Its products with a random vector are
        compared with those of fun's own Hessian, and it is named as an assumption. It also polishes without `hessian`.
    reach
        How far polishing may move any coordinate, in units of max(1, largest |params|).
    bits
        Precision of the gradient.
    wide
        Whether to look for a wide box of uniqueness: twice the work.
    progress
        Called as progress(rows, total) after each block of rows of an enclosure of the Hessian: P rows for each box.

    Returns
    -------
    Certificate; a refusal has proved=False and a reason.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `curvature.dense_hessian`; symmetries, a hessian or an enclosure of another shape; a reach that is negative
        or not finite, bits below 2.

    Examples
    --------
    >>> fun = lambda x: x[0] ** 3 - 3 * x[0] + x[1] ** 2
    >>> proof = certify(fun, jnp.array([-1.0, 0.0]))
    >>> proof.proved, proof.index, proof.radius < 1e-15, proof.unique_radius > 0.01
    (True, 1, True, True)
    >>> print(certify(fun, jnp.array([-0.99, 0.0])))
    Not proved (2 parameters): Newton's step, 0.01005, leaves the reach of 1e-06: params are not at a critical point.
    """
    reach = float(_checks.not_negative(reach, "reach"))
    bits = _checks.integer(bits, "bits", 2, _MOST_BITS)
    spend = None if progress is None else _counted(progress, (1 + wide) * tree.size(params))
    settings = Settings(symmetries, hessian, enclosure, reach, bits, None if wide else 0.0, True, spend)
    with precision.float64(), _parallel.blas_threads_for(tree.size(params)):
        traced, params, args = precision.traced_problem(fun, params, args)
        start = np.asarray(tree.ravel(params)[0])
        proved = attempt(traced, params, args, start, settings, None)
        if not proved.proved and not np.isfinite(jax.jit(traced)(params, *args)):
            fun(params, *args)  # given numbers, fun may raise an error that says more, such as a label out of range
        return _weakened(proved)


def certify_many(
    fun: Callable[..., jax.Array],
    points: PyTree,
    args: tuple = (),
    *,
    reach: float = 1e-6,
    progress: Progress | None = None,
) -> list[Certificate]:
    """Prove for each of many points with few parameters what `certify` proves for one; faster. Host-level.

    Slopes of the gradient are enclosed on boxes about all points at once, in float64 (see `batches`). What cannot be
    proved so, such as a point of a function with kinks, is left to `certify`, one point at a time.

    Parameters
    ----------
    points
        Params with a leading axis, such as those of a census.
    fun, args, reach
        See `certify`, also for errors.
    progress
        Called as progress(done, total) after each point that is proved alone.

    Returns
    -------
    A Certificate for each point.

    Examples
    --------
    >>> fun = lambda x: x[0] ** 3 - 3 * x[0] + x[1] ** 2
    >>> [proof.index for proof in certify_many(fun, jnp.array([[-1.0, 0.0], [1.0, 0.0]]))]
    [1, 0]
    """
    reach = float(_checks.not_negative(reach, "reach"))
    total = _checks.common_length(points, "points")
    if total == 0:
        return []
    with precision.float64():
        traced, params, data = precision.traced_problem(fun, _one(points, 0), args)
        starts = np.asarray(jax.vmap(lambda point: tree.ravel(point)[0])(precision.promote(points)))
        together = batches.attempt(traced, params, data, starts, reach)
    found = list[Certificate]()
    for i, proved in enumerate(together):
        found.append(certify(fun, _one(points, i), args, reach=reach) if proved is None else _weakened(proved))
        if progress is not None and proved is None:
            progress(i + 1, total)
    return found


def _one(points: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[i], points)


def _counted(progress: Progress, total: int) -> Callable[[int], None]:
    """Return what is told the number of rows of each block, from any thread, and reports their sum."""
    numbers = list[int]()

    def spend(number: int) -> None:
        numbers.append(number)
        progress(min(sum(numbers), total), total)

    return spend


def _weakened(proved: Certificate) -> Certificate:
    """Return a weaker theorem, which the same proof also implies on a machine that rounds differently."""
    if proved.radius is None or proved.unique_radius is None:
        return proved
    # Where uniqueness was proved for the tiny box only, its radius stays.
    wide = proved.unique_radius if proved.unique_radius == proved.radius else proved.unique_radius * (1 - _SLACK)
    intervals: dict[str, Any] = {name: _doubled(getattr(proved, name)) for name in _INTERVALS}
    return dataclasses.replace(proved, radius=proved.radius * (1 + _SLACK), unique_radius=wide, **intervals)


def _doubled(interval: Interval) -> Interval:
    half = (interval[1] - interval[0]) / 2
    return interval[0] - half, interval[1] + half


def check(
    certificate: Certificate,
    fun: Callable[..., jax.Array],
    params: PyTree,
    args: tuple = (),
    *,
    symmetries: Tangents | None = None,
    enclosure: Callable[..., jax.Array] | None = None,
) -> Certificate:
    """Prove a certificate's theorem again, at its location and with its radii, without trusting it.

    Parameters
    ----------
    certificate
        From `certify` or `load`.
    fun, args, symmetries, enclosure
        As `certify` was given.
    params
        Any pytree of the right structure; its numbers are not used.

    Returns
    -------
    Certificate: the theorem proved now; a refusal where that does not imply all of the given one.

    Raises
    ------
    ValueError
        The certificate is a refusal, or params are of another size.

    Examples
    --------
    >>> fun = lambda x: x[0] ** 2 - x[1] ** 2
    >>> check(certify(fun, jnp.zeros(2)), fun, jnp.ones(2)).proved
    True
    """
    if not certificate.proved:
        raise ValueError("certificate: got a refusal, expected one that proves something.")
    with precision.float64(), _parallel.blas_threads_for(tree.size(params)):
        traced, params, args = precision.traced_problem(fun, params, args)
        if tree.size(params) != certificate.size or certificate.location.shape != (certificate.size,):
            raise ValueError(f"params: got {tree.size(params)} numbers, expected the certificate's {certificate.size}.")
        if certificate.precision == batches.BITS:
            (new,) = batches.attempt(traced, params, args, certificate.location[None], None)
            if new is None:
                reason = "it is not proved in float64"
                return Certificate(False, reason, certificate.size, certificate.location, 0.0)
            return _agree(certificate, new)
        bits = certificate.precision or 0
        if not 2 <= bits <= _MOST_BITS:
            reason = f"its precision is {bits} bits, expected 2 to {_MOST_BITS}"
            return Certificate(False, reason, certificate.size, certificate.location, 0.0)
        settings = Settings(
            symmetries, None, enclosure, 0.0, bits, certificate.unique_radius, INDEPENDENCE in certificate.assumptions
        )
        new = attempt(traced, params, args, certificate.location, settings, certificate.radius)
    return _agree(certificate, new) if new.proved else new


def _agree(old: Certificate, new: Certificate) -> Certificate:
    """Return the new certificate if it implies the old one, else a refusal."""
    reason = None
    if old.data != new.data:
        reason = "args are not the numbers that the certificate is about"
    elif (old.index, old.null) != (new.index, new.null):
        reason = f"the index is {new.index} with {new.null} zeros, not {old.index} with {old.null}"
    elif not _at_most(new.radius, old.radius) or not _at_most(old.unique_radius, new.unique_radius):
        reason = f"the radii proved now are {new.radius:.3g} and {new.unique_radius:.3g}, not those of the certificate"
    elif not set(new.assumptions) <= set(old.assumptions):
        reason = "it is assumed that " + ", and ".join(sorted(set(new.assumptions) - set(old.assumptions)))
    else:
        for name in _INTERVALS:
            first, second = getattr(old, name), getattr(new, name)
            if not first[0] <= second[0] <= second[1] <= first[1]:
                reason = f"the {name} is in {second} as proved now, which is not inside {first}"
    return new if reason is None else Certificate(False, reason, new.size, new.location, 0.0)


def _at_most(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and a <= b
