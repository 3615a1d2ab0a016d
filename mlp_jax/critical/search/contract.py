"""The contract of a search, the loops over one start or many, and the tests and steps that searches share."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax.curvature.deflation import Deflation


class Reason(enum.IntEnum):
    """Why a search stopped, as a number; `str` says it in words."""

    _words: str

    def __new__(cls, number: int, words: str = "") -> Reason:
        """Return a number with words."""
        reason = int.__new__(cls, number)
        reason._value_, reason._words = number, words
        return reason

    ROUNDING = 0, "the gradient is at the level of its own rounding"
    GRADIENT_FLAT = 1, "the gradient norm is stationary where the gradient is not zero (gradient-flat point)"
    NO_DESCENT = 2, "no step made the gradient smaller, above the level of its rounding"
    MAX_STEPS = 3, "the largest number of steps was reached"
    NOT_FINITE = 4, "the gradient or the Hessian is not finite"
    OTHER_INDEX = 5, "the gradient is at the level of its own rounding, at a point of another index"
    UNRESOLVED = 6, "the gradient is small, but some components or the Newton step are above their own rounding"
    SINGULAR = 7, "the parameters shrank to a point where the function is singular: away from it the gradient falls"
    RAN_OFF = 8, "the parameters grew a thousand times, and the gradient is above the level of its own rounding"
    TAIL = 9, "the gradient is too small for a number, as on a tail that falls to zero without end"

    def __str__(self) -> str:
        return self._words

    def because(self, words: str) -> Reason:
        """Return the same reason with words added."""
        more = int.__new__(Reason, self)
        more._name_, more._value_, more._words = self._name_, self._value_, f"{self}; {words}"
        return more


RUNNING = -1
# How many times as large as the start, or as 1, the parameters may become before a search is said to have run off.
RUN_OFF = 1e3
# Forced steps that a search may take where no step descends.
_MAX_ESCAPES = 4
# Rows of a matrix up to which a batch of them is handled at once.
_SMALL = 12


class Function(NamedTuple):
    """A function of one vector.

    gradient, matrix
        Its gradient (P,) and its Hessian (P, P).
    unit
        Its unit roundoff.
    rounded
        (vector, by) -> its Hessian with the data moved by `by` roundings; `matrix` is used when None.
    """

    gradient: Callable[[jax.Array], jax.Array]
    matrix: Callable[[jax.Array], jax.Array]
    unit: float
    rounded: Callable[[jax.Array, jax.Array], jax.Array] | None = None


class End(NamedTuple):
    """Where a search of vectors ended; `scaling` makes MINRES with the Hessian there converge sooner."""

    vector: jax.Array
    gradient: jax.Array
    steps: jax.Array
    reason: jax.Array
    scaling: Deflation | None = None


class Search(NamedTuple):
    """A search as a state machine, so that many can run side by side.

    begin
        start -> state. Evaluates nothing: the first `advance` looks at the start.
    advance
        state -> state. Evaluates the function at one point. A state has the fields of `End`; `reason` is `RUNNING`
        until the search is over.
    newton
        (vector, gradient, scaling) -> (residual, step), for a method without matrices: ‖H p + g‖ with p the
        minimum-residual Newton step over the modes above 1e-6 of the largest, and the Newton step over nearly all
        modes, (P,). None where the Hessian may be computed.

    `ends` examines the point where a search ends again, whatever its reason.
    """

    begin: Callable[[jax.Array], Any]
    advance: Callable[[Any], Any]
    newton: Callable[[jax.Array, jax.Array, Deflation | None], tuple[jax.Array, jax.Array]] | None = None


def run(search: Search, start: jax.Array) -> End:
    """Return where the search from one start ends. Transformable.

    Examples
    --------
    >>> from mlp_jax.critical import levenberg_marquardt
    >>> function = Function(lambda x: 2 * x, lambda x: 2 * jnp.eye(1), 2.0**-24)
    >>> float(run(levenberg_marquardt(function, 50), jnp.array([3.0])).vector[0])
    0.0
    """
    state = jax.lax.while_loop(lambda s: s.reason == RUNNING, search.advance, search.begin(start))
    return _end(state)


def run_many(search: Search, starts: jax.Array, lanes: int) -> End:
    """Return where the searches from (n, P) starts end, `lanes` of them running at a time. Transformable.

    A lane whose search is over takes the next start at once. One compiled loop, whatever n. Where n is below `lanes`,
    the number of lanes stays the same, because XLA may round differently for another number.
    """
    num = len(starts)
    if lanes == 1:
        return jax.lax.map(lambda start: run(search, start), starts)
    begin, advance = jax.vmap(search.begin), jax.vmap(search.advance)
    state = begin(starts[np.minimum(np.arange(lanes), num - 1)])
    ends = jax.tree.map(lambda leaf: jnp.zeros((num, *leaf.shape[1:]), leaf.dtype), _end(state))

    def turn(carry: tuple[Any, jax.Array, jax.Array, End]) -> tuple[Any, jax.Array, jax.Array, End]:
        state, owner, following, ends = carry
        state = advance(state)
        over = (state.reason != RUNNING) & (owner < num)
        # Rows past the last are dropped: lanes that run on, or have no start left.
        row = jnp.where(over, owner, num)
        ends = jax.tree.map(lambda all_, leaf: all_.at[row].set(leaf, mode="drop"), ends, _end(state))
        owner = jnp.where(over, following + jnp.cumsum(over, dtype=jnp.int32) - 1, owner)
        fresh = begin(starts[jnp.minimum(owner, num - 1)])
        state = jax.tree.map(lambda new, old: jnp.where(_like(over, new), new, old), fresh, state)
        return state, owner, following + jnp.sum(over, dtype=jnp.int32), ends

    owner = jnp.arange(lanes, dtype=jnp.int32)
    carry = state, owner, jnp.asarray(lanes, jnp.int32), ends
    return jax.lax.while_loop(lambda c: jnp.any(c[1] < num), turn, carry)[3]


def _like(mask: jax.Array, leaf: jax.Array) -> jax.Array:
    return mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))


def _end(state: Any) -> End:
    return End(state.vector, state.gradient, state.steps, state.reason)


def begun(start: jax.Array) -> dict[str, Any]:
    """Return the fields that every state begins with; `forced` because the start is taken whatever its gradient."""
    return {
        "vector": start,
        "gradient": jnp.full_like(start, jnp.inf),
        "step": jnp.zeros_like(start),
        "typical": typical_size(start),
        "forced": jnp.ones((), bool),
        "steps": jnp.zeros((), jnp.int32),
        "reason": jnp.full((), RUNNING, jnp.int32),
    }


def first_of(*choices: tuple[jax.Array, Reason]) -> jax.Array:
    """Return the number of the first reason whose condition holds, `RUNNING` when none does."""
    conditions, reasons = zip(*choices, strict=True)
    return jnp.select(list(conditions), [int(reason) for reason in reasons], RUNNING).astype(jnp.int32)


class Trial(NamedTuple):
    """A step that was tried: whether it was taken, whether it had to be, and how many failures end the search."""

    step: jax.Array
    taken: jax.Array
    forced: jax.Array
    max_failures: int


def descended(function: Function, state: Any, trial: Trial, level: jax.Array, flat: jax.Array, max_steps: int) -> Any:
    """Return the state of a descent of ‖g‖ after a trial, with the reason to stop, or an escape where no step descends.

    `level` is what rounding changes each component of the gradient by, `flat` whether ‖g‖ is stationary.
    """
    size = norm(state.gradient)
    negligible = jnp.linalg.norm(trial.step) <= 4 * function.unit * jnp.linalg.norm(state.vector)
    stuck = (state.failures >= trial.max_failures) | (~trial.taken & negligible)
    reason = first_of(
        ((size == 0) | (jnp.all(jnp.abs(state.gradient) <= level) & ~trial.taken), Reason.ROUNDING),
        ((size > 16 * norm(level)) & flat, Reason.GRADIENT_FLAT),
        (stuck & (size <= 16 * norm(level)), Reason.ROUNDING),
        (stuck, Reason.NO_DESCENT),
        (state.steps >= max_steps, Reason.MAX_STEPS),
    )
    lost = jnp.where(state.escapes > 0, int(Reason.NO_DESCENT), int(Reason.NOT_FINITE))
    reason = jnp.where(trial.forced & ~trial.taken, lost, reason).astype(jnp.int32)
    out = ((reason == int(Reason.GRADIENT_FLAT)) | (reason == int(Reason.NO_DESCENT))) & (state.escapes < _MAX_ESCAPES)
    return state._replace(
        step=jnp.where(out, _escape(state.gradient, state.typical, state.escapes), state.step),
        forced=out,
        escapes=state.escapes + out.astype(jnp.int32),
        failures=jnp.where(out, 0, state.failures).astype(jnp.int32),
        reason=jnp.where(out, RUNNING, reason).astype(jnp.int32),
    )


def _escape(gradient: jax.Array, typical: jax.Array, count: jax.Array) -> jax.Array:
    """Return the step away from a gradient-flat point: down the gradient, of length 2^count · typical · √P / 4.

    There g lies in the null space of H: along it the function changes at first order but the gradient does not, so
    that ‖g‖ shows no direction of descent.
    """
    size = jnp.linalg.norm(gradient)
    length = jnp.exp2(count.astype(gradient.dtype)) * typical * jnp.sqrt(jnp.asarray(gradient.size, gradient.dtype)) / 4
    return (-length / jnp.where(size > 0, size, 1) * gradient).astype(gradient.dtype)


def norm(vector: jax.Array) -> jax.Array:
    """Return the Euclidean norm; at least the largest entry, where the squares of all underflow."""
    return jnp.maximum(jnp.linalg.norm(vector), jnp.max(jnp.abs(vector)))


def rounding_level(unit: float, vector: jax.Array, matrix: jax.Array, typical: jax.Array) -> jax.Array:
    """Return what a rounding of the parameters changes each component of the gradient by: 4 u |H| max(|θ|, typical).

    `typical` is the mean size of the parameters where the search began: parameters near zero are rounded as the numbers
    they are added to.
    """
    return 4 * unit * times(jnp.abs(matrix), jnp.maximum(jnp.abs(vector), typical))


def typical_size(start: jax.Array) -> jax.Array:
    """Return the mean size of the parameters, or 1 where all are zero."""
    mean = jnp.mean(jnp.abs(start))
    return jnp.where(mean > 0, mean, 1).astype(start.dtype)


def damped_newton(matrix: jax.Array, gradient: jax.Array, damping: jax.Array) -> jax.Array:
    """Return −(H² + ν²)⁻¹ H g as −Re (H + iν)⁻¹ g: 1/(λ + iν) has the real part λ / (λ² + ν²).

    The complex solve keeps the condition number of H, where the normal equations would square it. 0 where H is 0.
    """
    damping = jnp.where(jnp.any(matrix != 0), damping, 1)  # relative to H, so that it would be 0 too
    shifted = jax.lax.complex(matrix, damping * jnp.eye(len(matrix), dtype=matrix.dtype))
    return -one_at_a_time(jnp.linalg.solve)(shifted, jax.lax.complex(gradient, jnp.zeros_like(gradient))).real


def one_at_a_time(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operation on a matrix that vmap turns into a loop, except for small matrices.

    On a CPU a batched LAPACK call gives parts of its batch to the thread pool in which it runs and waits for them; two
    such calls at once can deadlock (jaxlib 0.10.2). This was not seen with small matrices, which are faster in a batch.
    """

    def applied(matrix: jax.Array, *others: jax.Array) -> Any:
        if len(matrix) <= _SMALL:
            return operation(matrix, *others)
        return jax.custom_batching.sequential_vmap(lambda *operands: operation(*operands))(matrix, *others)

    return applied


def times(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """Return the product as a sum: for many small matrices XLA fuses it, where a product would be a call for each."""
    return jnp.sum(matrix * vector, axis=1)


def matrix_size(matrix: jax.Array) -> jax.Array:
    """Return the largest norm of a row."""
    return jnp.linalg.norm(matrix, axis=1).max()


def all_finite(*arrays: jax.Array) -> jax.Array:
    """Return whether every entry of every array is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in arrays]))
