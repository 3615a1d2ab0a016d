"""Eigenpairs at both ends of a symmetric operator, each with its own residual. Host-level."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mlp_jax import _checks, _parallel, display
from mlp_jax.curvature import dense_ends, matrices, precision, thick_restart, traced_operator
from mlp_jax.curvature.krylov_basis import Basis, HostBasis, SplitBasis
from mlp_jax.curvature.krylov_space import Space, power_of_two
from mlp_jax.curvature.thick_restart import SPARE_ROWS, Wanted
from mlp_jax.curvature.traced_operator import Operator
from mlp_jax.curvature.types import Matvec, Progress, PyTree

# Largest memory and length of the default basis: restarts cost products, long bases cost orthogonalisation.
_BASIS_BYTES = 2**28
_BASIS_ROWS = 1500
# Largest P for which the matrix is built: from P products, and by `hessian`.
_DENSE_LIMIT, _FAST_DENSE_LIMIT = 1000, 5000
# Residuals near this many rounding errors of the operator do not improve.
_FLOOR = 10.0
# The default tolerance: this, or so many times the spacing eps of a coarser dtype.
_TOLERANCE, _COARSE = 1e-8, 64


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "vectors", "residuals", "converged"],
    meta_fields=["complete", "num_matvecs", "method", "tolerance"],
)
@dataclasses.dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues and eigenvectors at the ends of a spectrum. A pytree.

    values
        (k,) ascending: the smallest ones, then the largest ones.
    vectors
        Pytree like params with a leading axis of k, orthonormal.
    residuals
        (k,) ‖H v − λ v‖ from a product with the vectors returned. Some eigenvalue lies within it of λ.
    converged
        (k,) residual ≤ tolerance · ‖H‖, with ‖H‖ the largest |Ritz value|; with `hessian`, the largest ‖H v‖ of the
        unit vectors multiplied.
    complete
        Whether the search of the orthogonal complement found no further eigenvalue, such as another copy of a multiple
        one. Always true if the matrix was built from products; with `hessian`, whether the matrix agrees with the
        product of a random vector.
    num_matvecs
        Products used, including the k for `residuals`. The matrix from `hessian` counts as none, as do the products
        that compare it with the operator.
    method
        "lanczos", or "dense": by LAPACK from the whole matrix.
    tolerance
        That of `converged`.
    """

    values: jax.Array
    vectors: PyTree
    residuals: jax.Array
    converged: jax.Array
    complete: bool
    num_matvecs: int
    method: str
    tolerance: float

    def __str__(self) -> str:
        rows = [f"{value:>14} {residual:>10} {converged}" for _, value, residual, converged in self._rows()]
        return "\n".join([f"{'eigenvalue':>14} {'residual':>10} converged", *rows, self._note()])

    def _repr_html_(self) -> str:
        header = ("", "eigenvalue", "residual", "converged")
        return display.table(f"{len(self.values)} eigenpairs", self._rows(), header, self._note())

    def _rows(self) -> list[tuple[int, str, str, str]]:
        columns = (np.asarray(self.values), np.asarray(self.residuals), np.asarray(self.converged))
        return [
            (number, f"{value:.8g}", f"{residual:.1e}", "yes" if converged else "no")
            for number, (value, residual, converged) in enumerate(zip(*columns, strict=True), start=1)
        ]

    def _note(self) -> str:
        beyond = "none seen beyond these" if self.complete else "there may be others beyond these"
        return f"{self.method}, {self.num_matvecs} products, tolerance {self.tolerance:.2g}; {beyond}"


class _Limits(NamedTuple):
    tolerance: float
    max_matvecs: int
    rows: int
    block: int
    mesh: Mesh | None


@precision.whole_products
def eigenpairs(
    matvec: Matvec,
    params: PyTree,
    key: jax.Array,
    *,
    smallest: int = 0,
    largest: int = 0,
    tolerance: float | None = None,
    start: PyTree | Eigenpairs | None = None,
    max_matvecs: int | None = None,
    basis_size: int | None = None,
    block_size: int = 1,
    hessian: Callable[[], jax.Array] | None = None,
    dense_limit: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> Eigenpairs:
    """Return the algebraically smallest and largest eigenvalues of a symmetric operator, with residuals. Host-level.

    H v = λ v. Lanczos with full orthogonalisation and thick restarts (Wu and Simon 2000, "Thick-restart Lanczos method
    for large symmetric eigenvalue problems"): both ends come from one basis, so that no value is returned more often
    than its multiplicity. A single starting vector contains one vector of each eigenspace. After convergence Lanczos
    therefore runs again from a random vector orthogonal to the whole basis, until the complement cannot contain an
    eigenvalue beyond the wanted ones: by the residuals of its extreme Ritz values and, if no restart was needed, with a
    failure probability of 1e-3 (Kuczyński and Woźniakowski 1992, "Estimating the largest eigenvalue by the power and
    Lanczos algorithms with a random start"). Vectors found there join the basis, and the search is repeated. One
    product with each vector returned gives the true residual, which alone decides whether the pair has converged.

    If P is at most `dense_limit`, or at most six times the number of wanted pairs, LAPACK works on the whole matrix
    instead: from `hessian`, or from P products if `max_matvecs` allows them.

    The matvec is traced once for each object, shapes and dtype; a `jax.tree_util.Partial(function, *data)` once for
    each function, so that new data of the same shapes compile nothing. The computation is in the dtype of params
    (float64 is recommended), or in a wider dtype of the products; a tolerance below the precision of the dtype ends
    with `converged` False. Memory: up to two bases of `basis_size` · P numbers; dense, 6 · 8 P² bytes.

    Parameters
    ----------
    matvec
        v -> H v, symmetric, on pytrees like params; pure and traceable, such as `curvature.hessian(fun, params)`.
    params
        Pytree of P numbers that gives structure, shapes and dtype.
    key
        A JAX random key. Same key, same result.
    smallest, largest
        How many eigenpairs from the lower and from the upper end.
    tolerance
        Relative residual wanted: ‖H v − λ v‖ ≤ tolerance · ‖H‖. When None 1e-8, or in a coarser dtype 64 eps, which is
        7.6e-6 in float32.
    start
        Vectors near the wanted ones, as `Eigenpairs.vectors`, or Eigenpairs: those of the epoch before, for example.
        Lanczos then starts from a random combination of them in place of a random vector, which takes fewer products
        the less the operator has changed. The search of the complement is the same. The dense method ignores it.
    max_matvecs
        Products allowed; 1000 + 200 · (smallest + largest) when None.
    basis_size
        Vectors to keep, clipped to P; when None, what fits in 256 MiB, at most 1500. A larger one needs fewer products.
    block_size
        Vectors multiplied together by `jax.vmap`: less time for each product, but more products. 4 can halve the time
        if P is large and the basis is long enough to need no restart.
    hessian
        () -> (P, P), the same operator as a matrix in the order of `tree.ravel`, if it costs less than P products:
        `lambda: mlp_hessian.dense(params, ...)`. Values, residuals and flags still come from `matvec`.
    dense_limit
        Largest P for which the matrix is built; 0 for never; when None 1000, or 5000 with `hessian`.
    mesh
        A `jax.sharding.Mesh` over whose devices the basis is split; the default `basis_size` then fills 256 MiB on
        each. A step sends two or three sums of basis_size numbers between devices, and gathers the vector to multiply.
        None keeps the basis in numpy. The matvec splits its own work, as `hessian_of_mean(..., mesh=mesh)` does.
    progress
        Called as progress(products, max_matvecs) after each block of products, and at the end.

    Raises
    ------
    TypeError
        An argument has the wrong type, the products are not floating, or the call is under jit.
    ValueError
        The counts do not fit the dimension, the budget or basis is too small for them, or a product is not like params
        or holds NaN or infinity.
    MemoryError
        The dense matrix would not fit in half of the machine's memory.

    Examples
    --------
    >>> diagonal = jnp.array([-1.0, 2.0, 2.0, 5.0])
    >>> pairs = eigenpairs(lambda v: diagonal * v, diagonal, jax.random.key(0), smallest=1, largest=2, tolerance=1e-5)
    >>> np.round(pairs.values, 3).tolist(), pairs.converged.all().item(), pairs.method
    ([-1.0, 2.0, 5.0], True, 'dense')
    """
    _checks.params(params)
    _checks.key(key)
    if _checks.is_traced((params, key)):
        raise TypeError("params, key: got traced values, expected concrete ones; call eigenpairs outside jit.")
    operator = traced_operator.trace(matvec, params)
    size = operator.size()
    wanted = Wanted(_checks.integer(smallest, "smallest", 0), _checks.integer(largest, "largest", 0))
    if not 1 <= wanted.total <= size:
        raise ValueError(f"smallest + largest: got {smallest} + {largest}, expected between 1 and P = {size}.")
    if dense_limit is None:
        dense_limit = _DENSE_LIMIT if hessian is None else _FAST_DENSE_LIMIT
    dense_limit = _checks.integer(dense_limit, "dense_limit", 0)
    limits = _checked_limits(operator, wanted, tolerance, max_matvecs, basis_size, block_size, mesh)
    near = None if start is None else _start_rows(start.vectors if isinstance(start, Eigenpairs) else start, params)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    allowed = hessian is not None or size + wanted.total <= limits.max_matvecs
    if allowed and dense_limit > 0 and size <= max(dense_limit, 6 * wanted.total):
        pairs = _dense(operator, wanted, limits, hessian, generator)
    else:
        pairs = _lanczos(operator, wanted, limits, generator, near, progress)
    if progress is not None:
        progress(min(pairs.num_matvecs, limits.max_matvecs), limits.max_matvecs)
    return pairs


def _start_rows(vectors: PyTree, params: PyTree) -> np.ndarray:
    """Return vectors with a leading axis as rows (k, P)."""
    _checks.params(vectors, "start")
    count = _checks.common_length(vectors, "start")
    _checks.like(jax.tree.map(lambda leaf: leaf[0], vectors), params, "start")
    leaves = [np.asarray(_parallel.to_host(leaf), np.float64) for leaf in jax.tree.leaves(vectors)]
    return np.concatenate([leaf.reshape(count, -1) for leaf in leaves], axis=1)


def _checked_limits(
    operator: Operator,
    wanted: Wanted,
    tolerance: Any,
    max_matvecs: int | None,
    basis_size: int | None,
    block_size: int,
    mesh: Mesh | None,
) -> _Limits:
    size, total = operator.size(), wanted.total
    num_devices = 1 if mesh is None else _parallel.require_mesh(mesh).size
    if tolerance is None:
        tolerance = max(_TOLERANCE, _COARSE * float(jnp.finfo(operator.program.dtype).eps))
    tolerance = float(_checks.positive(tolerance, "tolerance"))
    allowed = 1000 + 200 * total if max_matvecs is None else _checks.integer(max_matvecs, "max_matvecs", 0)
    if allowed < 2 * total:
        raise ValueError(f"max_matvecs: got {allowed}, expected at least {2 * total}, two for each wanted pair.")
    block = min(_checks.integer(block_size, "block_size"), size)
    least = min(size, 2 * total + SPARE_ROWS + 2 * block)
    fitting = num_devices * _BASIS_BYTES // (operator.program.dtype.itemsize * size)
    default = max(least, min(fitting, _BASIS_ROWS))
    rows = min(size, default if basis_size is None else _checks.integer(basis_size, "basis_size", 0))
    if rows < least:
        raise ValueError(f"basis_size: got {basis_size}, expected at least {least} with blocks of {block}.")
    return _Limits(tolerance, allowed, rows, block, mesh)


def _dense(
    operator: Operator,
    wanted: Wanted,
    limits: _Limits,
    hessian: Callable[[], Any] | None,
    generator: np.random.Generator,
) -> Eigenpairs:
    size = operator.size()
    matrices.require_memory(size, matrices=6)
    matrix = np.asarray(operator.matrix(), np.float64) if hessian is None else matrices.as_hessian(hessian(), size)
    if not np.all(np.isfinite(matrix)):
        source = "matvec" if hessian is None else "hessian"
        raise ValueError(f"{source}: got NaN or infinity in the matrix, expected finite numbers.")
    unit = power_of_two(float(np.max(np.abs(matrix))), np.float64) or 1.0
    matrix = matrix if unit == 1 else matrix / unit
    # Products with a vector of each end give the norm of the operator, if the matrix is not made of its products.
    more = wanted if hessian is None or wanted.total == size else Wanted(*(max(1, count) for count in wanted))
    rows, norm = dense_ends.both_ends(matrix, more)
    rows, norm, agrees, used = rows.astype(operator.program.dtype), norm * unit, True, size
    # Threads of BLAS that wait for work would take the cores from the products.
    with _parallel.one_blas_thread():
        if hessian is not None:
            (norm, agrees), used = _compared(operator, rows, matrix, unit, limits, generator), 0
        rows = rows[more.smallest - wanted.smallest : len(rows) - (more.largest - wanted.largest)]
        return _measured(operator, limits, rows, norm, agrees, used, "dense")


def _compared(
    operator: Operator, rows: np.ndarray, matrix: np.ndarray, unit: float, limits: _Limits, generator: Any
) -> tuple[float, bool]:
    """Return the largest ‖H v‖ of the first row, the last row and a random vector, and whether matrix · unit agrees.

    The rows are unit eigenvectors in ascending order; agreement is tested on the product of the random vector.
    """
    vector = generator.normal(size=(1, operator.size()))
    tried = np.concatenate([rows[[0, -1]], (vector / np.linalg.norm(vector)).astype(rows.dtype)])
    products = operator.multiply(tried, limits.block).astype(np.float64)
    own = power_of_two(float(np.max(np.abs(products))), np.float64) or 1.0
    norm = float(np.max(np.linalg.norm(products / own, axis=1))) * own
    difference = products[-1] / unit - matrix @ tried[-1].astype(np.float64)
    rounding = _FLOOR * float(np.finfo(rows.dtype).eps) * math.sqrt(operator.size())
    return norm, bool(np.linalg.norm(difference) <= max(limits.tolerance, rounding) * norm / unit)


def _measured(
    operator: Operator, limits: _Limits, rows: np.ndarray, norm: float, complete: bool, used: int, method: str
) -> Eigenpairs:
    """Return the pairs whose vectors are rows (k, P), with values and residuals from one product each."""
    products = operator.multiply(rows, limits.block)
    unit = power_of_two(float(np.max(np.abs(products))), products.dtype) or 1.0
    products = products / products.dtype.type(unit)
    values = np.sum(rows * products, axis=1) / np.sum(rows * rows, axis=1)
    residuals = np.linalg.norm(products - values[:, None] * rows, axis=1)
    order = np.argsort(values, kind="stable")
    values, residuals = values[order], residuals[order]
    return Eigenpairs(
        values=jnp.asarray(values * values.dtype.type(unit)),
        vectors=operator.unravel(rows[order]),
        residuals=jnp.asarray(residuals * residuals.dtype.type(unit)),
        converged=jnp.asarray(residuals <= limits.tolerance * (norm / unit)),
        complete=complete,
        num_matvecs=used + len(rows),
        method=method,
        tolerance=limits.tolerance,
    )


def _lanczos(
    operator: Operator,
    wanted: Wanted,
    limits: _Limits,
    generator: np.random.Generator,
    near: np.ndarray | None,
    progress: Progress | None,
) -> Eigenpairs:
    basis: Basis
    if limits.mesh is None:
        multiply = functools.partial(operator.multiply, block=limits.block)
        basis = HostBasis(multiply, operator.size(), operator.program.dtype, limits.rows)
    else:
        basis = SplitBasis(operator, limits.rows, limits.block, limits.mesh)
    spend = None if progress is None else lambda number: progress(min(number, limits.max_matvecs), limits.max_matvecs)
    space = Space(basis, limits.block, generator, spend)
    if near is not None:
        space.add(generator.normal(size=(min(limits.block, len(near)), len(near))) @ near)
    floor = _FLOOR * space.eps
    target = max(limits.tolerance / 2, floor)
    budget = limits.max_matvecs - wanted.total
    while True:
        complete = thick_restart.solve(space, wanted, target, budget)
        values, vectors, _ = space.ritz()
        rows = space.combine(vectors[:, wanted.ends(len(values))])
        norm = float(np.max(np.abs(values)))
        pairs = _measured(operator, limits, rows, norm, complete, space.products, "lanczos")
        # Near rounding the estimates can be too small: request more accuracy while dtype and budget allow.
        used = space.products + wanted.total
        if not complete or bool(np.all(pairs.converged)) or target <= floor or used >= budget:
            return pairs
        space.products, target = used, max(target / 10, floor)
