"""Spectral density, trace and diagonal of a symmetric linear map from random probes. Transformable.

Each estimate comes with its standard error over the probes. Probes run one after another in one compiled loop, so
that memory does not grow with their number. Call these functions, and make the matvec, inside the function that you
jit; outside jit the loop is compiled again at every call:

>>> from mlp_jax.curvature import hessian
>>> fun = lambda p, scale: jnp.sum(scale * p**2) / 2
>>> hessian_trace = jax.jit(lambda p, key, scale: trace(hessian(fun, p, (scale,)), p, key))
>>> float(hessian_trace(jnp.ones(3), jax.random.key(0), jnp.array([1.0, 2.0, -5.0])).value)
-2.0
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax import _checks, tree
from mlp_jax.curvature import precision
from mlp_jax.curvature.tridiagonal import eigenpairs_of, require_matvec, safe_norm, tridiagonalise
from mlp_jax.curvature.types import Matvec, PyTree

# As many keys take 8 GiB.
_MOST_PROBES = 2**30


class Estimate(NamedTuple):
    """A mean over random probes.

    value
        The estimate: a scalar, an array or a pytree.
    stderr
        Its standard error, of the same shape: sample standard deviation over the probes / √(number of probes);
        NaN from one probe.
    """

    value: Any
    stderr: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Density:
    """A spectral density as Ritz values with weights; call it for a smooth curve. Made by `spectral_density`.

    nodes
        (num_probes, m) Ritz values, ascending for each probe; m is the smaller of num_steps and the dimension.
    weights
        (num_probes, m) non-negative; 1 / num_probes for each probe, 1 in all. Where a Krylov space ended before
        step m, the remaining nodes have weight 0 and lie inside the spectrum.

    A pytree; densities stacked by vmap are called under vmap.
    """

    nodes: jax.Array
    weights: jax.Array

    def __call__(self, grid: jax.Array, width: float) -> jax.Array:
        """Return the density at the points of `grid`, each node a Gaussian of standard deviation `width`.

        φ(t) = Σ w exp(−(t − θ)² / 2 width²) / (width √2π); its integral over all t is 1. Errors: see `smooth`.
        """
        return self.smooth(grid, width).value

    def smooth(self, grid: jax.Array, width: float) -> Estimate:
        """Return the density that a call returns, with its standard error at each point of `grid`.

        Raises TypeError if the grid is not floating, ValueError if the width is not above 0.
        """
        _checks.params(grid, "grid")
        width = _checks.positive(width, "width")
        points, scale = (jnp.asarray(x).astype(self.nodes.dtype) for x in (grid, width))

        def gaussian(nodes: jax.Array) -> jax.Array:
            # That of jax.scipy.stats squares the scale.
            return jnp.exp(-jnp.square((points[..., None] - nodes) / scale) / 2) / (scale * math.sqrt(2 * math.pi))

        return self.expectation(gaussian)

    def expectation(self, fun: Callable[[jax.Array], jax.Array]) -> Estimate:
        """Return the mean of fun(eigenvalue) over the spectrum, that is tr fun(A) / P, with its standard error.

        `fun` takes (m,) nodes and returns (..., m) values. Exact for each probe if fun is a polynomial of degree
        below 2m (Golub & Meurant 2010, "Matrices, Moments and Quadrature with Applications"). Raises ValueError if
        `fun` does not return one real number per node.

        Examples
        --------
        The share of negative eigenvalues:

        >>> density = Density(nodes=jnp.array([[-1.0, 2.0]]), weights=jnp.array([[0.25, 0.75]]))
        >>> float(density.expectation(lambda values: values < 0).value)
        0.25
        """

        def of_probe(probe: tuple[jax.Array, jax.Array]) -> jax.Array:
            nodes, weights = probe
            values = jnp.asarray(fun(nodes))
            if values.shape[-1:] != nodes.shape:
                raise ValueError(f"fun: got values of shape {values.shape}, expected (..., {nodes.size}).")
            return jnp.sum(values.astype(weights.dtype) * weights, axis=-1)

        num_probes = self.nodes.shape[0]
        return _mean_of(jax.lax.map(of_probe, (self.nodes, self.weights * num_probes)))


@precision.whole_products
def spectral_density(
    matvec: Matvec, params: PyTree, key: jax.Array, *, num_probes: int = 10, num_steps: int = 90
) -> Density:
    """Estimate the spectral density of a symmetric linear map by stochastic Lanczos quadrature. Transformable.

    For each probe z, m steps of `lanczos` give a tridiagonal matrix; its eigenvalues are the nodes θⱼ, the squared
    first entries of its eigenvectors the weights, and Σ wⱼ f(θⱼ) is zᵀf(A)z / P exactly for polynomials of degree
    below 2m. The mean over probes estimates tr f(A) / P without bias. To rounding, nodes lie within the spectrum of A;
    the outermost converge first, and weights below the rounding of A are lost.

    Probes have independent entries ±1, so that one probe with num_steps = P gives a diagonal A exactly. An eigenvector
    orthogonal to a probe (likely only in a few dimensions) has no node there; on average other probes compensate.

    Costs num_probes · m products; memory (m + a few) · P numbers plus those of one product.

    Parameters
    ----------
    matvec
        A symmetric linear map on pytrees shaped like params, such as `curvature.hessian(fun, params, args)`.
    params
        Any pytree of floating arrays, P numbers in all; only shapes and dtypes are used.
    key
        JAX random key.
    num_probes
        Random vectors, 1 or more; 2 or more for a standard error.
    num_steps
        Lanczos steps per probe, 1 or more; m is the smaller of this and P.

    Raises
    ------
    TypeError, ValueError
        See `lanczos`; also if `key` is not a JAX random key, or `num_probes` is not an integer of 1 or more.

    References
    ----------
    Ubaru, Chen & Saad (2017), "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature"; Ghorbani, Krishnan &
    Xiao (2019), "An investigation into neural net optimization via Hessian eigenvalue density".

    Examples
    --------
    >>> scale = jnp.array([-1.0, 2.0, 5.0])
    >>> density = spectral_density(lambda v: scale * v, jnp.zeros(3), jax.random.key(0), num_probes=1)
    >>> np.round(density.nodes, 4).tolist(), np.round(3 * density.weights, 4).tolist()
    ([[-1.0, 2.0, 5.0]], [[1.0, 1.0, 1.0]])
    """
    _require(matvec, params, key, num_probes)
    steps = min(_checks.integer(num_steps, "num_steps"), tree.size(params))
    _, unravel = tree.ravel(params)

    def of_probe(probe_key: jax.Array) -> tuple[jax.Array, jax.Array]:
        start = tree.ravel(rademacher_like(probe_key, params))[0]
        _, diagonal, beside = tridiagonalise(lambda v: tree.ravel(matvec(unravel(v)))[0], start, steps)
        nodes, vectors = eigenpairs_of(diagonal, beside[:-1])
        return nodes, vectors[0] ** 2

    nodes, weights = jax.lax.map(of_probe, jax.random.split(key, num_probes))
    return Density(nodes, weights / jnp.sum(weights, axis=1, keepdims=True) / num_probes)


@precision.whole_products
def trace(matvec: Matvec, params: PyTree, key: jax.Array, *, num_probes: int = 100) -> Estimate:
    """Estimate the trace of a linear map, with its standard error. Transformable.

    The mean of zᵀAz over probes z with independent entries ±1 (Hutchinson 1989). For symmetric A its variance is
    2 (‖A‖_F² − Σ aᵢᵢ²) / num_probes: zero for a diagonal A. Costs num_probes products. For the arguments and the errors
    raised see `spectral_density`. Returns Estimate(value, stderr), two scalars.

    Examples
    --------
    >>> estimate = jax.jit(lambda key: trace(lambda v: {"a": 2 * v["a"]}, {"a": jnp.zeros(7)}, key))
    >>> value, stderr = estimate(jax.random.key(0))
    >>> float(value), float(stderr)
    (14.0, 0.0)
    """
    _require(matvec, params, key, num_probes)

    def of_probe(probe_key: jax.Array) -> jax.Array:
        probe = rademacher_like(probe_key, params)
        return tree.dot(probe, matvec(probe))

    return _mean_of(jax.lax.map(of_probe, jax.random.split(key, num_probes)))


@precision.whole_products
def diagonal(matvec: Matvec, params: PyTree, key: jax.Array, *, num_probes: int = 100) -> Estimate:
    """Estimate the diagonal of a linear map, with the standard error of each entry. Transformable.

    The mean of z ⊙ Az over probes z with independent entries ±1 (Bekas, Kokiopoulou & Saad 2007, "An estimator for
    the diagonal of a matrix"). The variance of entry i is Σ_{j≠i} aᵢⱼ² / num_probes. Costs num_probes products; memory
    is three vectors and that of one product. For the arguments and the errors raised see `spectral_density`. Returns
    Estimate(value, stderr), two pytrees shaped like params.

    Examples
    --------
    >>> scale = jnp.array([1.0, -3.0])
    >>> estimate = diagonal(lambda v: scale * v, jnp.zeros(2), jax.random.key(0), num_probes=5)
    >>> estimate.value.tolist(), estimate.stderr.tolist()
    ([1.0, -3.0], [0.0, 0.0])
    """
    _require(matvec, params, key, num_probes)

    def add_probe(moments: tuple[PyTree, PyTree], step: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        mean, deviation = moments
        count, probe_key = step
        probe = rademacher_like(probe_key, params)
        change = jax.tree.map(lambda z, product, m: z * product - m, probe, matvec(probe), mean)
        # Welford (1962): means and roots of sums of squared deviations in one pass, without cancellation.
        share = jnp.sqrt((count - 1) / count)
        deviation = jax.tree.map(lambda s, d: jnp.hypot(s, d * share.astype(d.dtype)), deviation, change)
        mean = jax.tree.map(lambda m, d: m + d / count.astype(d.dtype), mean, change)
        return (mean, deviation), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    counts = jnp.arange(1, num_probes + 1, dtype=jnp.result_type(float))
    (mean, deviation), _ = jax.lax.scan(add_probe, (zeros, zeros), (counts, jax.random.split(key, num_probes)))
    return Estimate(mean, jax.tree.map(lambda s: _standard_error(s, num_probes), deviation))


def rademacher_like(key: jax.Array, params: PyTree) -> PyTree:
    """Return a pytree of independent ±1, each with probability ½, with the shapes and dtypes of `params`."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.tree.unflatten(structure, list(jax.random.split(key, len(leaves))))
    return jax.tree.map(lambda x, k: jax.random.rademacher(k, jnp.shape(x), jnp.result_type(x)), params, keys)


def _mean_of(samples: jax.Array) -> Estimate:
    """Return the mean over the first axis; differences from the first sample keep equal samples exact."""
    num_samples = samples.shape[0]
    change = samples - samples[0]
    shift = jnp.mean(change, axis=0)
    return Estimate(samples[0] + shift, _standard_error(safe_norm(change - shift), num_samples))


def _standard_error(deviation: jax.Array, num_samples: int) -> jax.Array:
    """Return the standard error of a mean from √(Σ squared deviations)."""
    if num_samples == 1:
        return jnp.full_like(deviation, jnp.nan)
    return deviation / math.sqrt(num_samples * (num_samples - 1))


def _require(matvec: Any, params: PyTree, key: Any, num_probes: Any) -> None:
    require_matvec(matvec, params)
    _checks.key(key)
    _checks.integer(num_probes, "num_probes", 1, _MOST_PROBES)
