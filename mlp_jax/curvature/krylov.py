"""Eigenpairs at both ends of a symmetric operator, each with its own residual. Host-level."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator as operators
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import tree
from mlp_jax.curvature import krylov_space, matrices
from mlp_jax.curvature.krylov_space import Operator, Space
from mlp_jax.tree import PyTree

# Memory and length of the default basis: restarts cost products, long bases cost orthogonalisation.
_BASIS_BYTES = 2**28
_BASIS_ROWS = 600
# Spare rows beyond two for each wanted pair.
_SPARE_ROWS = 20
# Part of the basis that a restart keeps.
_KEPT = 0.4
# Probability that a random vector hides an eigenvalue from the search of the complement.
_MISSED = 1e-3
# Residuals near this many rounding errors of the operator get no better.
_FLOOR = 10.0


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "vectors", "residuals", "converged"],
    meta_fields=["complete", "num_matvecs", "method"],
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
        (k,) residual ≤ tolerance · ‖H‖, with ‖H‖ the largest |Ritz value|.
    complete
        Whether a random vector in the orthogonal complement found no eigenvalue beyond those returned, such as a
        copy of a multiple eigenvalue, or one that the first vector barely contained. Always when `method` is "dense".
    num_matvecs
        Products used, the k for `residuals` among them.
    method
        "dense" (the matrix was built from P products) or "lanczos".
    """

    values: jax.Array
    vectors: PyTree
    residuals: jax.Array
    converged: jax.Array
    complete: bool
    num_matvecs: int
    method: str


class _Wanted(NamedTuple):
    smallest: int
    largest: int
    tolerance: float
    max_matvecs: int

    @property
    def total(self) -> int:
        return self.smallest + self.largest

    def ends(self, size: int) -> np.ndarray:
        """Return the wanted positions among `size` ascending values."""
        return np.concatenate([np.arange(self.smallest), np.arange(size - self.largest, size)])


def eigenpairs(
    matvec: Callable[[PyTree], PyTree],
    params: PyTree,
    key: jax.Array,
    *,
    smallest: int = 0,
    largest: int = 0,
    tolerance: float = 1e-8,
    max_matvecs: int | None = None,
    basis_size: int | None = None,
    dense_limit: int = 1000,
) -> Eigenpairs:
    """Return the algebraically smallest and largest eigenvalues of a symmetric operator, with residuals. Host-level.

    H v = λ v. Lanczos with full orthogonalisation, twice, and thick restarts: both ends from one basis, so that no
    value is returned twice unless it has that multiplicity. One starting vector sees one vector of every eigenspace,
    so that after convergence a fresh random vector, orthogonal to the whole basis, is followed until nothing beyond
    the wanted values can be left in the complement (residual of its extreme Ritz values, and the failure probability
    of Kuczyński and Woźniakowski, 1e-3, where no restart was needed); what it finds joins the basis, and the search is
    repeated. It costs a few products where the ends are separated from the rest. Then one product for each vector
    returned gives the true residual. A pair counts as converged only by that.

    Where P is at most `dense_limit`, or at most six times the number of wanted pairs, and P products are allowed, the
    matrix is built and LAPACK used instead.

    A host loop around compiled steps: they are traced once for each matvec object, shapes and dtype, and data that the
    matvec closes over are passed as arguments, not compiled in. A `jax.tree_util.Partial(function, *data)` is traced
    once for each function: new data of the same shapes, such as the next point of a trajectory, compile nothing. It
    computes in the dtype of params (float64 is
    recommended), or that of the products where it is wider; a tolerance below what the dtype permits ends with
    `converged` False. Memory: two bases of `basis_size` · P numbers (8 bytes each in float64); dense, 6 · 8 P² bytes.

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
        Relative residual wanted: ‖H v − λ v‖ ≤ tolerance · ‖H‖.
    max_matvecs
        Products allowed; 1000 + 200 · (smallest + largest) when None.
    basis_size
        Vectors to keep, clipped to P; when None, what fits in 256 MiB, at most 600. A larger one needs fewer products.
    dense_limit
        Largest P for which the matrix is built; 0 for never.

    Returns
    -------
    Eigenpairs(values, vectors, residuals, converged, complete, num_matvecs, method)

    Raises
    ------
    TypeError
        Something of the wrong type, a matvec whose result is not like params, a call under jit.
    ValueError
        Counts that do not fit the dimension, a budget or basis too small for them, products with NaN or infinity.
    MemoryError
        The dense matrix would not fit in half of the memory of the machine.

    References
    ----------
    Wu and Simon (2000), "Thick-restart Lanczos method for large symmetric eigenvalue problems".
    Kuczyński and Woźniakowski (1992), "Estimating the largest eigenvalue by the power and Lanczos algorithms with a
    random start".

    Examples
    --------
    >>> diagonal = jnp.array([-1.0, 2.0, 2.0, 5.0])
    >>> pairs = eigenpairs(lambda v: diagonal * v, diagonal, jax.random.key(0), smallest=1, largest=2, tolerance=1e-5)
    >>> np.round(pairs.values, 3).tolist(), pairs.converged.all().item(), pairs.method
    ([-1.0, 2.0, 5.0], True, 'dense')
    """
    _require_concrete(matvec, params, key)
    operator = krylov_space.trace(matvec, params)
    size = operator.size()
    wanted = _require_counts(size, smallest, largest, tolerance, max_matvecs)
    rows = _basis_rows(operator, wanted, basis_size)
    if (size <= dense_limit or (dense_limit > 0 and size <= 6 * wanted.total)) and (
        size + wanted.total <= wanted.max_matvecs
    ):
        return _dense(operator, wanted)
    return _lanczos(operator, wanted, key, rows)


def _require_concrete(matvec: Any, params: PyTree, key: Any) -> None:
    if not callable(matvec):
        raise TypeError(f"matvec: got {type(matvec).__name__}, expected a function v -> H v.")
    tree.require_floating(params)
    tree.require_key(key)
    if tree.is_traced((params, key)):
        raise TypeError("params, key: got traced values, expected concrete ones; call eigenpairs outside jit.")


def _require_counts(size: int, smallest: Any, largest: Any, tolerance: float, max_matvecs: int | None) -> _Wanted:
    smallest, largest = _count("smallest", smallest), _count("largest", largest)
    total = smallest + largest
    if not 1 <= total <= size:
        raise ValueError(
            f"smallest + largest: got {smallest} + {largest}, expected between 1 and the dimension, {size}."
        )
    if not (isinstance(tolerance, (int, float)) and 0 < tolerance < math.inf):
        raise ValueError(f"tolerance: got {tolerance}, expected a positive number.")
    allowed = 1000 + 200 * total if max_matvecs is None else _count("max_matvecs", max_matvecs)
    if allowed < 2 * total:
        raise ValueError(
            f"max_matvecs: got {allowed}, expected at least {2 * total}, two for each of the {total} wanted pairs."
        )
    return _Wanted(smallest, largest, float(tolerance), allowed)


def _count(name: str, value: Any) -> int:
    try:
        number = operators.index(value)
    except TypeError:
        raise TypeError(f"{name}: got {type(value).__name__}, expected an integer of 0 or more.") from None
    if number < 0:
        raise ValueError(f"{name}: got {number}, expected an integer of 0 or more.")
    return number


def _basis_rows(operator: Operator, wanted: _Wanted, basis_size: int | None) -> int:
    size, least = operator.size(), 2 * wanted.total + _SPARE_ROWS
    if basis_size is None:
        fitting = _BASIS_BYTES // (operator.program.dtype.itemsize * size)
        return min(size, max(least, min(fitting, _BASIS_ROWS)))
    rows = min(size, _count("basis_size", basis_size))
    if rows < min(size, least):
        raise ValueError(
            f"basis_size: got {basis_size}, expected at least {min(size, least)} vectors for {wanted.total} pairs of a"
            f" {size}-dimensional operator."
        )
    return rows


# --- The whole matrix --------------------------------------------------------------------------------------------


def _dense(operator: Operator, wanted: _Wanted) -> Eigenpairs:
    size = operator.size()
    matrices.require_memory(size, matrices=6)
    matrix = np.asarray(krylov_space.matrix(operator.program, operator.constants), np.float64)
    if not np.all(np.isfinite(matrix)):
        raise ValueError(f"matvec: got NaN or infinity in the first {size} products, expected numbers.")
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    rows = jnp.asarray(vectors[:, wanted.ends(size)].T, operator.program.dtype)
    return _measured(operator, wanted, rows, np.max(np.abs(values)), True, size, "dense")


def _measured(
    operator: Operator, wanted: _Wanted, rows: jax.Array, norm: float, complete: bool, used: int, method: str
) -> Eigenpairs:
    """Return the pairs whose vectors are rows (k, P), with values and residuals from one product each."""
    values, residuals = (np.asarray(a) for a in _residuals(operator.program, operator.constants, rows))
    order = np.argsort(values, kind="stable")
    values, residuals = values[order], residuals[order]
    return Eigenpairs(
        values=jnp.asarray(values),
        vectors=operator.unravel(rows[order]),
        residuals=jnp.asarray(residuals),
        converged=jnp.asarray(residuals <= wanted.tolerance * norm),
        complete=complete,
        num_matvecs=used + wanted.total,
        method=method,
    )


@functools.partial(jax.jit, static_argnums=0)
def _residuals(program: Any, constants: tuple[Any, ...], rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    products = krylov_space.products(program, constants, rows)
    values = jnp.sum(rows * products, axis=1) / jnp.sum(rows * rows, axis=1)
    return values, jnp.linalg.norm(products - values[:, None] * rows, axis=1)


# --- Lanczos -----------------------------------------------------------------------------------------------------


def _lanczos(operator: Operator, wanted: _Wanted, key: jax.Array, rows: int) -> Eigenpairs:
    space = Space(operator, key, rows)
    floor = _FLOOR * float(jnp.finfo(operator.program.dtype).eps)
    target = max(wanted.tolerance / 2, floor)
    budget = wanted.max_matvecs - wanted.total
    while True:
        complete = False
        while not complete and _search(space, wanted, target, budget) and space.products < budget:
            complete = _search_complement(space, wanted, target, budget)
        pairs = _returned(space, wanted, complete)
        # The estimates can be smaller than the truth near rounding: ask for more, as long as more can be had.
        used = space.products + wanted.total
        if not complete or bool(np.all(pairs.converged)) or target <= floor or used >= budget:
            return pairs
        space.products, target = used, max(target / 10, floor)


def _returned(space: Space, wanted: _Wanted, complete: bool) -> Eigenpairs:
    values, vectors, _ = space.ritz()
    rows = space.combine(vectors[:, wanted.ends(len(values))])
    norm = float(np.max(np.abs(values)))
    return _measured(space.operator, wanted, rows, norm, complete, space.products, "lanczos")


def _search(space: Space, wanted: _Wanted, target: float, budget: int) -> bool:
    """Extend the space, restarting when it is full, until the wanted Ritz values settle; return whether they did."""
    while not _settled(space, wanted, target):
        if space.products >= budget:
            return False
        if space.rows < space.operator.size() and space.used == space.rows:
            _restart(space, wanted, target)
        if space.pending == 0:
            space.add_random()
        # Looking more often would cost more than the products it saves.
        steps = max(8, wanted.total - space.position, space.position // 12)
        space.extend(min(steps, budget - space.products, _room(space)))
    return True


def _room(space: Space) -> int:
    """Return how many steps fit; where the basis can hold the whole space, the steps themselves see when it is full."""
    return space.operator.size() if space.rows == space.operator.size() else space.rows - space.used


def _settled(space: Space, wanted: _Wanted, target: float) -> bool:
    if space.position < wanted.total:
        return False
    values, residuals = space.estimates()
    return bool(np.all(residuals[wanted.ends(len(values))] <= target * np.max(np.abs(values))))


def _restart(space: Space, wanted: _Wanted, target: float) -> None:
    """Keep the wanted Ritz vectors and, of those next to them, most at the end that has further to go."""
    values, vectors, residuals = space.ritz()
    open_ = residuals > target * np.max(np.abs(values))
    low, high = wanted.smallest, wanted.largest
    fitting = min(len(values), space.rows - space.pending - _SPARE_ROWS // 2) - low - high
    spare = max(0, min(max(int(_KEPT * len(values)) - low - high, 6), fitting))
    todo = (low > 0) + 9 * np.sum(open_[:low]), (high > 0) + 9 * np.sum(open_[len(values) - high :])
    extra = round(spare * todo[0] / max(1, sum(todo)))
    low, high = low + extra, high + spare - extra
    kept = np.r_[0:low, len(values) - high : len(values)]
    space.restart(values[kept], vectors[:, kept])


# --- What one starting vector cannot see -------------------------------------------------------------------------


def _search_complement(space: Space, wanted: _Wanted, target: float, budget: int) -> bool:
    """Follow a random vector orthogonal to the whole space; return whether it saw that nothing wanted is left.

    On span(basis)⊥ the operator is compressed, B = (I − VVᵀ) H (I − VVᵀ): a vector that was missed is an eigenvector
    of B too, while B's other values are further from the ends than the basis reaches. What is found joins the space.
    The failure probability is known only while the basis has room; after a restart here the residuals decide alone.
    """
    if space.rows < space.operator.size():
        _make_room(space, wanted)
    if space.used == space.rows:
        return True
    known = space.estimates()[0]
    waiting = space.freeze()
    space.add_random()
    fresh, found, over = True, False, False
    while not over and space.products < budget:
        if _room(space) == 0:
            _restart_complement(space)
            fresh = False
        steps = max(4, (space.position - space.frozen) // 4)
        space.extend(min(steps, budget - space.products, _room(space)))
        found, over = _verdict(space, wanted, known, target, fresh)
    space.thaw(waiting, merge=found)
    return over and not found


def _make_room(space: Space, wanted: _Wanted) -> None:
    """Leave at least half of the basis for the complement; at worst keep only the wanted pairs, which have settled."""
    if space.used <= space.rows // 2:
        return
    values, vectors, _ = space.ritz()
    many = space.pending > space.rows // 10
    spare = 0 if many else max(0, int(_KEPT * space.rows) - wanted.total - space.pending)
    at_low = round(spare * wanted.smallest / wanted.total)
    low, high = wanted.smallest + at_low, wanted.largest + spare - at_low
    if many or low + high < len(values):
        kept = np.r_[0:low, len(values) - high : len(values)]
        space.restart(values[kept], vectors[:, kept], keep_pending=not many)


def _restart_complement(space: Space) -> None:
    values, vectors, _ = space.ritz()
    half = max(1, int(_KEPT * len(values)) // 2)
    kept = np.r_[0:half, len(values) - half : len(values)]
    space.restart(values[kept], vectors[:, kept])


def _verdict(space: Space, wanted: _Wanted, known: np.ndarray, target: float, fresh: bool) -> tuple[bool, bool]:
    """Return (the complement holds a value beyond the wanted ones, all has been seen that is needed)."""
    values, residuals = space.estimates()
    slack = target * max(np.max(np.abs(known)), np.max(np.abs(values)))
    steps = len(values) if fresh else None
    ends = []
    if wanted.smallest:
        ends.append(_end(known[: wanted.smallest], values, residuals, slack, steps, space.operator.size()))
    if wanted.largest:
        known_top = -known[::-1][: wanted.largest]
        ends.append(_end(known_top, -values[::-1], residuals[::-1], slack, steps, space.operator.size()))
    found = any(end[0] for end in ends)
    return found, space.pending == 0 or all(end[1] for end in ends)


def _end(
    known: np.ndarray, values: np.ndarray, residuals: np.ndarray, slack: float, steps: int | None, size: int
) -> tuple[bool, bool]:
    """Return (found, over) at the lower end: `known` the wanted values, `values` the complement's, both ascending."""
    edge = np.sort(np.concatenate([known, values]))[len(known) - 1]
    beyond = int(np.sum((values < known[-1] - slack) & (values <= edge)))
    if np.any(residuals[:beyond] > slack) or beyond == len(values):
        return beyond > 0, False
    value, residual = values[beyond], residuals[beyond]
    if residual <= slack:
        return beyond > 0, True
    clear = value - residual >= edge
    width = values[-1] + residuals[-1] - edge
    return beyond > 0, bool(clear and (steps is None or _miss_probability(value - edge, width, steps, size) <= _MISSED))


def _miss_probability(error: float, width: float, steps: int, size: int) -> float:
    """Bound the probability that the extreme Ritz value is wrong by `error` (Kuczyński and Woźniakowski 1992)."""
    return 1.648 * math.sqrt(size) * math.exp(-math.sqrt(max(0.0, error / width)) * (2 * steps - 1))
