"""Lanczos under tracing: an orthonormal basis of a Krylov space and the operator on it. Transformable."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, tree
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Matvec, PyTree


class RitzPairs(NamedTuple):
    """Approximate eigenpairs from a Krylov space. Made by `Krylov.ritz`.

    values
        (k,) ascending: the smallest ones, then the largest ones.
    vectors
        Pytree like `start` with a leading axis of k, orthonormal.
    residuals
        (k,) ‖H v − λ v‖. Some eigenvalue lies within it of λ; a value within the spectrum may still be missing.
        Infinite if the space ended before it had k dimensions: the vector is then zero.
    """

    values: jax.Array
    vectors: PyTree
    residuals: jax.Array


class Krylov(NamedTuple):
    """A Krylov decomposition H V = V T + β w eₘᵀ of m steps. Made by `lanczos`.

    basis
        V: a pytree like `start` with a leading axis of m orthonormal vectors; the first is start / ‖start‖.
    diagonal, off_diagonal
        (m,) and (m − 1,), the entries of the symmetric tridiagonal matrix T = Vᵀ H V.
    residual
        β: a Ritz pair (θ, V s) of T has the residual ‖H V s − θ V s‖ = β |sₘ|.

    If the space is invariant under H before m steps, an off-diagonal entry is zero or of the size of rounding. After a
    zero, vectors and off-diagonal entries are zero, and the diagonal repeats its first entry.
    """

    basis: PyTree
    diagonal: jax.Array
    off_diagonal: jax.Array
    residual: jax.Array

    @precision.whole_products
    def ritz(self, *, smallest: int = 0, largest: int = 0) -> RitzPairs:
        """Return the outermost Ritz pairs with their residuals, from the products already made. Transformable.

        TypeError or ValueError unless the counts are integers of 0 or more, and 1 to m in all.

        Examples
        --------
        The sharpness along a run, from 20 products an epoch: `training.train(..., record=sharpness)`.

        >>> def sharpness(state):
        ...     matvec = lambda v: state.params * v  # curvature.hessian(fun, state.params, data)
        ...     top = lanczos(matvec, jnp.ones(30), num_steps=20).ritz(largest=1)
        ...     return top.values[0], top.residuals[0]
        >>> from types import SimpleNamespace as State
        >>> value, residual = jax.jit(lambda p: sharpness(State(params=p)))(jnp.append(jnp.linspace(0, 1, 29), 2))
        >>> print(f"{value:.3f} {residual < 1e-3}")
        2.000 True
        """
        steps = len(self.diagonal)
        low, high = _checks.integer(smallest, "smallest", 0), _checks.integer(largest, "largest", 0)
        _checks.integer(low + high, "smallest + largest", 1, steps, "the number of steps")
        values, vectors = eigenpairs_of(self.diagonal, self.off_diagonal)
        ends = np.r_[:low, steps - high : steps]
        chosen = vectors[:, ends].T
        # After the end of the space the rows of the basis are zero.
        within = jnp.append(1, jnp.cumprod(self.off_diagonal != 0))
        inside = jnp.sum(jnp.where(within, chosen**2, 0), axis=1) > 0.5
        residuals = jnp.where(inside, self.residual * jnp.abs(chosen[:, -1]), jnp.inf)
        rows = jax.tree.map(lambda leaf: jnp.tensordot(chosen.astype(leaf.dtype), leaf, 1), self.basis)
        return RitzPairs(values[ends], rows, residuals)


@precision.whole_products
def lanczos(matvec: Matvec, start: PyTree, *, num_steps: int) -> Krylov:
    """Return the Krylov decomposition of a symmetric linear map from one starting vector. Transformable.

    m steps of the Lanczos process, each new vector orthogonalised twice against all others, so that the basis is
    orthonormal to rounding (Parlett 1998, "The Symmetric Eigenvalue Problem", section 6.9). T's eigenvalues (Ritz
    values) lie within the spectrum of H, and the outermost converge first. One starting vector contains one vector of
    each eigenspace; use `eigenpairs` for multiplicities and residuals.

    Costs m products; memory (m + a few) · P numbers plus those of one product. Use it inside the function that you
    jit: outside jit the loop is compiled again at every call.

    Parameters
    ----------
    matvec
        A symmetric linear map on pytrees like `start`, such as `curvature.hessian(fun, params, args)`.
    start
        Any pytree of floating arrays, P numbers in all, not all zero.
    num_steps
        1 or more; m is the smaller of this and P.

    Raises
    ------
    TypeError
        `matvec` is not a function, or its result differs from its argument in structure, shape or dtype; `start` is
        not floating; `num_steps` is not an integer.
    ValueError
        `num_steps` is below 1; `start` is empty; outside jit, it is zero or not finite.

    Examples
    --------
    >>> scale = jnp.array([-1.0, 2.0, 5.0])
    >>> found = lanczos(lambda v: scale * v, jnp.ones(3), num_steps=3)
    >>> beside = jnp.diag(found.off_diagonal, 1)
    >>> np.round(jnp.linalg.eigvalsh(jnp.diag(found.diagonal) + beside + beside.T), 4).tolist()
    [-1.0, 2.0, 5.0]
    """
    require_matvec(matvec, start, "start")
    vector, unravel = tree.ravel(start)
    if not _checks.is_traced(vector) and not np.any(np.asarray(vector)):
        raise ValueError("start: got zeros, expected a vector that is not zero.")
    steps = min(_checks.integer(num_steps, "num_steps"), vector.size)
    basis, diagonal, beside = tridiagonalise(lambda v: tree.ravel(matvec(unravel(v)))[0], vector, steps)
    return Krylov(jax.vmap(unravel)(basis), diagonal, beside[:-1], beside[-1])


def tridiagonalise(
    matvec: Callable[[jax.Array], jax.Array], start: jax.Array, num_steps: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (basis (m, P), diagonal (m,), off-diagonal (m,)), as `lanczos` does, of a map on vectors."""
    # Not matfree's `tridiag_sym` (0.6): when the space ends early it continues with copies of its last vector, and of
    # v ↦ 2v it finds eigenvalues from −3 to 7.

    def step(state: tuple[jax.Array, jax.Array, jax.Array], index: jax.Array) -> tuple[Any, Any]:
        basis, vector, scale = state
        basis = basis.at[index].set(vector)
        image = matvec(vector)
        quotient = vector @ image
        once = image - basis.T @ (basis @ image)
        twice = once - basis.T @ (basis @ once)
        size = safe_norm(twice)
        scale = jnp.maximum(scale, jnp.abs(quotient) + size)
        # Twice is enough (Parlett 1998, section 6.9), unless the first pass leaves only rounding: then the space has
        # ended. A direction of rounding that survives is orthogonal to the others and has weight ~ eps².
        ended = (size <= safe_norm(once) / 2) | (size <= jnp.finfo(start.dtype).eps * scale)
        following = jnp.where(ended, 0, twice / jnp.where(ended, 1, size))
        return (basis, following, scale), (quotient, jnp.where(ended, 0, size), ended)

    basis = jnp.zeros((num_steps, start.size), start.dtype)
    state = (basis, start / jnp.linalg.norm(start), jnp.zeros((), start.dtype))
    (basis, _, _), (diagonal, beside, ended) = jax.lax.scan(step, state, jnp.arange(num_steps))
    # After the end the diagonal repeats a Rayleigh quotient: nodes of weight 0, inside the spectrum.
    absent = jnp.arange(num_steps) > jnp.where(jnp.any(ended), jnp.argmax(ended), num_steps)
    return basis, jnp.where(absent, diagonal[0], diagonal), beside


def eigenpairs_of(diagonal: jax.Array, beside: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return eigenvalues (m,), ascending, and eigenvectors (m, m), as columns, of a symmetric tridiagonal matrix."""
    matrix = jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
    if matrix.dtype.itemsize < 4:  # LAPACK has no float16 or bfloat16
        matrix = matrix.astype(jnp.float32)
    unit = next_power_of_two(jnp.max(jnp.abs(matrix)))
    values, vectors = jnp.linalg.eigh(matrix / unit)
    return values * unit, vectors


def safe_norm(values: jax.Array) -> jax.Array:
    """Return the norm along the first axis without over- or underflow of squares."""
    unit = next_power_of_two(jnp.max(jnp.abs(values), axis=0))
    return jnp.linalg.norm(values / unit, axis=0) * unit


def next_power_of_two(size: jax.Array) -> jax.Array:
    """Return the power of two above `size`, within the normal numbers of the dtype; 1 if it is 0 or not finite."""
    limits = jnp.finfo(size.dtype)
    exponent = jnp.clip(jnp.frexp(size)[1], limits.minexp, limits.maxexp - 1)
    power = jnp.ldexp(jnp.ones_like(size), exponent)
    return jax.lax.stop_gradient(jnp.where((size > 0) & jnp.isfinite(size), power, 1))


def require_matvec(matvec: Any, params: PyTree, name: str = "params") -> None:
    """Raise unless params are finite floats and `matvec` keeps their structure, shapes and dtypes."""
    _checks.params(params, name)
    given = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), params)
    pair = given, jax.eval_shape(matvec, given)
    expected, got = (jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", each) for each in pair)
    if expected != got:
        raise TypeError(f"matvec: got a result of {got}, expected that of {name}, {expected}.")
