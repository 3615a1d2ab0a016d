"""A traced function as a flat list of equations: calls inlined, loops unrolled, dead code removed.

Dead code is removed because differentiating a gradient leaves unused comparisons that a box may not decide.
max(a, b) + log1p(exp(−|a − b|)) becomes one operation, because its parts have a corner and their sum is smooth. `cut`
separates the equations that depend on chosen inputs, so that the others are evaluated once.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from mlp_jax.interval.ball import Refusal

_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
# Repeated equations of these primitives are merged: maxima, which a box may not decide, and the parts of logaddexp.
_SHARED = ("abs", "broadcast_in_dim", "clamp", "max", "min", "reduce_max", "reduce_min", "sub")
_MOST_EQUATIONS = 200_000


class Equation(NamedTuple):
    """One primitive applied to numbered variables; `avals` are the shapes and dtypes of the outputs."""

    name: str
    primitive: Any
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    avals: tuple[Any, ...]


class Program(NamedTuple):
    """Equations in order, with the numbers of the inputs and outputs and the values of the constants."""

    equations: tuple[Equation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: dict[int, np.ndarray]


def flatten(closed: Any) -> Program:
    """Return a closed jaxpr as a program without dead code.

    Refusal if loops unroll to too many equations or have no fixed length, or for random keys and callbacks.
    """
    builder = _Builder()
    inputs = tuple(builder.new() for _ in closed.jaxpr.invars)
    outputs = builder.inline(closed.jaxpr, closed.consts, inputs)
    program = Program(tuple(builder.equations), inputs, tuple(outputs), builder.constants)
    return _without_dead_code(_with_logaddexp(program))


class _Builder:
    """Collects equations, and numbers their variables."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.constants: dict[int, np.ndarray] = {}
        self.known: dict[Any, Any] = {}
        self.count = 0

    def new(self) -> int:
        self.count += 1
        return self.count

    def constant(self, value: Any) -> int:
        number = self.new()
        _require_no_key(getattr(value, "dtype", np.float64))
        self.constants[number] = np.asarray(value)
        return number

    def inline(self, jaxpr: Any, consts: Iterable[Any], inputs: Sequence[int]) -> list[int]:
        env = dict(zip(jaxpr.invars, inputs, strict=True))
        env.update({v: self.constant(c) for v, c in zip(jaxpr.constvars, consts, strict=True)})

        def read(v: Any) -> int:
            return self.literal(v.val) if isinstance(v, core.Literal) else env[v]

        for eqn in jaxpr.eqns:
            outputs = self._apply(eqn, [read(v) for v in eqn.invars])
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def literal(self, value: Any) -> int:
        """Return the number of a literal of a jaxpr, the same for equal literals."""
        array = np.asarray(value)
        key = array.dtype, array.tobytes()
        if key not in self.known:
            self.known[key] = self.constant(value)
        return self.known[key]

    def _apply(self, eqn: Any, inputs: list[int]) -> list[int]:
        name = eqn.primitive.name
        if name in _CALLS:
            inner = eqn.params[_CALLS[name]]
            closed = hasattr(inner, "consts")
            return self.inline(inner.jaxpr if closed else inner, inner.consts if closed else (), inputs)
        platforms = eqn.params.get("branches_platforms")
        if name == "cond" and platforms and jax.default_backend() == "cpu":
            number = next(i for i, names in enumerate(platforms) if names is None or "cpu" in names)
            branch = eqn.params["branches"][number]
            return self.inline(branch.jaxpr, branch.consts, inputs[1:])
        if name == "scan":
            return self._unroll(eqn, inputs)
        if name == "while" or "callback" in name:
            raise Refusal(f"{name}: this primitive is not supported")
        return self._append(name, eqn.primitive, eqn.params, inputs, [v.aval for v in eqn.outvars])

    def _append(self, name: str, primitive: Any, params: dict, inputs: list[int], avals: list[Any]) -> list[int]:
        if len(self.equations) >= _MOST_EQUATIONS:
            raise Refusal(f"the loops unroll to more than {_MOST_EQUATIONS} operations")
        for aval in avals:
            _require_no_key(aval.dtype)
        key = name, str(params), tuple(inputs)
        if name in _SHARED and key in self.known:
            return self.known[key]
        self.known[key] = outputs = [self.new() for _ in avals]
        self.equations.append(Equation(name, primitive, params, tuple(inputs), tuple(outputs), tuple(avals)))
        return outputs

    def _unroll(self, eqn: Any, inputs: list[int]) -> list[int]:
        p = eqn.params
        length, (num_consts, num_carry) = p["length"], _scan_counts(eqn)
        consts, carry = inputs[:num_consts], inputs[num_consts : num_consts + num_carry]
        stacked = inputs[num_consts + num_carry :]
        inner = p["jaxpr"]
        slices = [v.aval for v in inner.jaxpr.invars[num_consts + num_carry :]]
        results: list[list[int]] = [[] for _ in eqn.outvars[num_carry:]]
        for step in reversed(range(length)) if p["reverse"] else range(length):
            here = [
                self._append("take_step", None, {"step": step}, [number], [aval])[0]
                for number, aval in zip(stacked, slices, strict=True)
            ]
            outputs = self.inline(inner.jaxpr, inner.consts, [*consts, *carry, *here])
            carry = outputs[:num_carry]
            for result, number in zip(results, outputs[num_carry:], strict=True):
                result.append(number)
        avals = [v.aval for v in eqn.outvars[num_carry:]]
        if not length and avals:
            raise Refusal("scan: a loop of no steps that returns arrays is not supported")
        stacks = [
            self._append("stack_steps", None, {}, result[::-1] if p["reverse"] else result, [aval])[0]
            for result, aval in zip(results, avals, strict=True)
        ]
        return [*carry, *stacks]


def _require_no_key(dtype: Any) -> None:
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        raise Refusal("random keys cannot be enclosed: draw the numbers first and pass them in args")


def _with_logaddexp(program: Program) -> Program:
    """Return a program in which sums max(a, b) + log1p(exp(−|a − b|)) are log(eᵃ + eᵇ), which they equal."""
    made = {equation.outputs[0]: equation for equation in program.equations}

    def source(number: int, *names: str) -> int | None:
        """Return the operand of a chain of unary primitives, the last first, that ends at a number; or None."""
        for name in names:
            if number not in made or made[number].name != name:
                return None
            number = made[number].inputs[0]
        return number

    def operands(large: int, small: int) -> tuple[int, ...] | None:
        difference = source(small, "log1p", "exp", "neg", "abs")
        if difference is None or source(large, "max") is None:
            return None
        pair = made[large].inputs
        if source(difference, "sub") is not None and set(made[difference].inputs) == set(pair):
            return pair
        other = set(pair) - {difference}
        zeros = [n for n in other if n in program.constants and not np.any(program.constants[n])]
        return pair if len(other) == len(zeros) == 1 else None

    def replaced(equation: Equation) -> Equation:
        if equation.name != "add":
            return equation
        pair = operands(*equation.inputs) or operands(*equation.inputs[::-1])
        return equation if pair is None else equation._replace(name="logaddexp", inputs=pair)

    return program._replace(equations=tuple(map(replaced, program.equations)))


def _scan_counts(eqn: Any) -> tuple[int, int]:
    """Return the numbers of constants and of carried values: all others have one more axis, of the steps."""
    inner = eqn.params["jaxpr"].jaxpr

    def plain(outside: list[Any], inside: list[Any]) -> int:
        return sum(len(a.aval.shape) == len(b.aval.shape) for a, b in zip(outside, inside, strict=True))

    num_carry = plain(eqn.outvars, inner.outvars)
    return plain(eqn.invars, inner.invars) - num_carry, num_carry


def _without_dead_code(program: Program) -> Program:
    live, kept = set(program.outputs), []
    for equation in reversed(program.equations):
        if live.intersection(equation.outputs):
            kept.append(equation)
            live.update(equation.inputs)
    constants = {number: value for number, value in program.constants.items() if number in live}
    return program._replace(equations=tuple(reversed(kept)), constants=constants)


def cut(program: Program, varying: Iterable[int]) -> tuple[Program, Program]:
    """Return the part that does not depend on the varying inputs, and the rest.

    The inputs of the rest are the outputs of the first part, followed by the varying inputs.
    """
    varying = tuple(varying)
    reached, first, second = set(varying), [], []
    for equation in program.equations:
        if reached.intersection(equation.inputs):
            reached.update(equation.outputs)
            second.append(equation)
        else:
            first.append(equation)
    needed = {number for equation in second for number in equation.inputs} | set(program.outputs)
    links = tuple(sorted(needed - reached))
    inputs = tuple(number for number in program.inputs if number not in varying)
    return (
        Program(tuple(first), inputs, links, program.constants),
        Program(tuple(second), links + varying, program.outputs, {}),
    )


def with_releases(program: Program) -> list[tuple[Equation, list[int]]]:
    """Return each equation with the numbers that nothing after it uses."""
    seen, pairs = set(program.outputs), []
    for equation in reversed(program.equations):
        last = {number for number in (*equation.inputs, *equation.outputs) if number not in seen}
        seen |= last
        pairs.append((equation, sorted(last)))
    return pairs[::-1]
