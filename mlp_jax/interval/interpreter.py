"""Evaluate a program on balls. Each primitive has a rule that encloses it; others are refused by name.

The arithmetic is a module: `ball` (float64), `multiprecision` (arb) or `slopes` (many boxes). A comparison must be
decided on the whole box; an undecided comparison is refused. A maximum, minimum, clip or absolute value that the box
does not decide is enclosed and reported as a `Tie`, because the function may not be smooth there (see `smoothness`).
Identities are labels that move with the numbers: they tell that x and max(x, y) are the same number when x > y on the
whole box.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mlp_jax.interval import ball, elementary, maxima, movement, multiprecision
from mlp_jax.interval.ball import Ball, Refusal
from mlp_jax.interval.maxima import Tie
from mlp_jax.interval.program import Equation, Program, with_releases
from mlp_jax.interval.slopes import Slope

Field = Any  # the module `ball`, `multiprecision` or `slopes`

_COMPARISONS: dict[str, tuple[int, ...]] = {  # the orders (1: a > b) in which the answer is yes
    "lt": (-1,), "le": (-1, 0), "gt": (1,), "ge": (1, 0), "eq": (0,), "ne": (1, -1),
}  # fmt: skip


def evaluate(
    program: Program,
    inputs: Sequence[Any],
    field: Field,
    ties: dict[int, Tie] | None = None,
    instead: Mapping[int, Tie] | None = None,
) -> list[Any]:
    """Return enclosures of the outputs of a program for all points of its inputs: balls, or numpy arrays (exact).

    `ties` is filled with the maxima that the box does not decide, by equation number; `instead` holds values to use at
    such maxima in place of their enclosures. Refusal for a primitive without a rule, a comparison that the box does not
    decide, a function outside its domain, an overflow, or a precision other than float64.
    """
    return _Run(field, program, {} if ties is None else ties, instead or {}).run(inputs)


class _Run:
    """The values of one evaluation."""

    def __init__(self, field: Field, program: Program, ties: dict[int, Tie], instead: Mapping[int, Tie]) -> None:
        self.field = field
        self.program = program
        self.ties = ties
        self.instead = instead
        self.at = 0
        self.values: dict[int, Any] = {}
        # Identities are followed only where a program compares for equality.
        self.identities: dict[int, np.ndarray] | None = None
        if any(equation.name in ("eq", "ne") for equation in program.equations):
            self.identities = {}
        self.counter = itertools.count()

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        for number, value in self.program.constants.items():
            self.values[number] = self.read(value)
        for number, value in zip(self.program.inputs, inputs, strict=True):
            self.values[number] = self.read(value)
        for number, (equation, released) in enumerate(with_releases(self.program)):
            self.at = number
            operands = [self.values[number] for number in equation.inputs]
            for number, value in zip(equation.outputs, self.apply(equation, operands), strict=True):
                self.values[number] = value
            for number in released:
                del self.values[number]
                if self.identities is not None:
                    self.identities.pop(number, None)
        return [self.values[number] for number in self.program.outputs]

    def read(self, value: Any) -> Any:
        """Return a constant or an input as a value: floats as exact balls, integers as they are."""
        if is_real(value):
            return value
        value = np.asarray(value)
        if value.dtype.kind in "biu":
            return value
        # bfloat16 and similar types are of kind V.
        if value.dtype.kind in "fV" and value.dtype.itemsize <= 8:
            return self.field.exact(value)
        raise Refusal(f"constants: numbers of dtype {value.dtype} cannot be enclosed")

    def apply(self, equation: Equation, operands: list[Any]) -> list[Any]:
        name = equation.name
        real = [x for x in operands if is_real(x)]
        produces_real = any(aval.dtype.kind in "fcV" for aval in equation.avals)
        functions = movement.moves(equation, operands)
        if functions is not None:
            return self.move(equation, operands, functions)
        if not real and not produces_real:
            return movement.bind(equation.primitive, equation.params, operands)
        for aval in equation.avals:
            if aval.dtype.kind in "fcV" and aval.dtype != np.float64:
                raise Refusal(f"{name}: computes in {aval.dtype}, expected float64 throughout")
        shortcut = self.zero(equation, operands)
        if shortcut is not None:
            return [shortcut]
        if name in multiprecision.FUNCTIONS:
            numbers = [x if is_real(x) else self.whole(x) for x in operands]
            functions_of = elementary if self.field is ball else self.field
            return [functions_of.elementwise(name, *numbers)]
        if name not in RULES:
            raise Refusal(f"{name}: this primitive is not supported")
        return [RULES[name](self, equation, *operands)]

    def move(self, equation: Equation, operands: list[Any], functions: list[movement.Move]) -> list[Any]:
        moved = [x for x in operands if is_real(x)]
        if not moved:
            return [function(*operands) for function in functions]
        if all(self.field.is_zero(x) for x in moved):
            return [self.field.zeros(aval.shape) for aval in equation.avals]
        if self.identities is not None:
            names = [self.identity(n, x) for n, x in zip(equation.inputs, operands, strict=True) if is_real(x)]
            for number, function in zip(equation.outputs, functions, strict=True):
                self.identities[number] = function(*names)
        return [self.field.move(function, *moved) for function in functions]

    def zero(self, equation: Equation, operands: list[Any]) -> Any | None:
        """Return a result that follows from exact zeros, or None; numbers are finite, so 0 · x = 0."""
        name, shape = equation.name, equation.avals[0].shape
        flags = [is_real(x) and self.field.is_zero(x) for x in operands]
        if not any(flags):
            return None
        if name in ("mul", "dot_general") or (name in ("neg", "reduce_sum", "add", "add_any", "sub") and all(flags)):
            # The rule refuses an infinite constant times 0.
            finite = all(not is_real(x) or np.all(self.field.is_finite(x)) for x in operands)
            return self.field.zeros(shape) if finite else None
        if name in ("add", "add_any") or (name == "sub" and flags[1]):
            other = operands[0] if flags[1] else operands[1]
            return other if other.shape == shape else self.field.move(lambda x: np.broadcast_to(x, shape), other)
        return None

    def identity(self, number: int, value: Any) -> np.ndarray:
        """Return the identities of the numbers of a value, new ones if it has none."""
        assert self.identities is not None
        if number not in self.identities:
            size = int(np.prod(value.shape))
            start = next(self.counter) << 40
            self.identities[number] = np.arange(start, start + size).reshape(value.shape)
        return self.identities[number]

    def order(self, equation: Equation, a: Any, b: Any) -> np.ndarray:
        order = self.field.compare(a, b)
        if self.identities is None:
            return order
        same = self.identity(equation.inputs[0], a) == self.identity(equation.inputs[1], b)
        return np.where(same, np.int8(0), order)

    def whole(self, values: np.ndarray) -> Any:
        """Return integers as exact balls."""
        if values.dtype.kind != "b" and values.size and max(abs(int(values.min())), abs(int(values.max()))) > 2**53:
            raise Refusal("convert_element_type: an integer above 2^53 is not a float64 number")
        return self.field.exact(values.astype(np.float64))


def is_real(value: Any) -> bool:
    """Return whether a value stands for real numbers, not integers or truth values."""
    return isinstance(value, Ball | Slope) or (isinstance(value, np.ndarray) and value.dtype == object)


# --- Rules: (run, equation, *operands) -> value --------------------------------------------------------------------


def _of_field(name: str) -> Callable[..., Any]:
    return lambda run, equation, *operands: getattr(run.field, name)(*operands)


def _square(run: _Run, equation: Equation, a: Any) -> Any:
    return run.field.mul(a, a)


def _one_minus_square(run: _Run, equation: Equation, a: Any) -> Any:
    one = run.field.exact(np.ones(a.shape))
    return run.field.mul(run.field.sub(one, a), run.field.add(one, a))


def _integer_pow(run: _Run, equation: Equation, a: Any) -> Any:
    exponent = equation.params["y"]
    power = _power(run, a, abs(exponent)) if exponent else run.field.exact(np.ones(a.shape))
    return power if exponent >= 0 else run.field.div(run.field.exact(np.ones(a.shape)), power)


def _power(run: _Run, a: Any, exponent: int) -> Any:
    """Return a positive power by squares, which are narrow where a has both signs."""
    if exponent == 1:
        return a
    half = _power(run, a, exponent // 2)
    square = run.field.mul(half, half)
    return run.field.mul(square, a) if exponent % 2 else square


def _reduce_sum(run: _Run, equation: Equation, a: Any) -> Any:
    return run.field.total(a, tuple(int(axis) for axis in equation.params["axes"]))


def _dot_general(run: _Run, equation: Equation, a: Any, b: Any) -> Any:
    (inner_a, inner_b), (batch_a, batch_b) = equation.params["dimension_numbers"]
    outer_a = [d for d in range(len(a.shape)) if d not in (*inner_a, *batch_a)]
    outer_b = [d for d in range(len(b.shape)) if d not in (*inner_b, *batch_b)]
    batch = [a.shape[d] for d in batch_a]
    inner = int(np.prod([a.shape[d] for d in inner_a]))

    def rows(x: np.ndarray) -> np.ndarray:
        return x.transpose(*batch_a, *outer_a, *inner_a).reshape(*batch, -1, inner)

    def columns(x: np.ndarray) -> np.ndarray:
        return x.transpose(*batch_b, *inner_b, *outer_b).reshape(*batch, inner, -1)

    if 0 in (*a.shape, *b.shape):
        return run.field.exact(np.zeros(equation.avals[0].shape))
    product = run.field.matmul(run.field.move(rows, a), run.field.move(columns, b))
    return run.field.move(lambda x: x.reshape(equation.avals[0].shape), product)


def _compare(run: _Run, equation: Equation, a: Any, b: Any) -> np.ndarray:
    order = run.order(equation, a, b)
    undecided = int(np.sum(order == 2))
    if undecided:
        raise Refusal(
            f"{equation.name}: the box does not decide {undecided} of {order.size} comparisons (a kink, a tie or a"
            " branch lies inside)"
        )
    return np.isin(order, _COMPARISONS[equation.name])


def _select_n(run: _Run, equation: Equation, which: np.ndarray, *cases: Any) -> Any:
    choice = np.asarray(which).astype(np.int64)
    if run.identities is not None:
        names = [run.identity(n, x) for n, x in zip(equation.inputs[1:], cases, strict=True)]
        shape = np.broadcast_shapes(choice.shape, *(n.shape for n in names))
        run.identities[equation.outputs[0]] = np.choose(choice, [np.broadcast_to(n, shape) for n in names])
    return run.field.select(choice, *cases)


def _sign(run: _Run, equation: Equation, a: Any) -> Any:
    order = run.field.compare(a, run.field.exact(np.zeros(a.shape)))
    if np.any(order == 2):
        raise Refusal(f"sign: the box does not decide {int(np.sum(order == 2))} of {order.size} signs (a kink inside)")
    return run.field.exact(order)


def _is_finite(run: _Run, equation: Equation, a: Any) -> np.ndarray:
    return run.field.is_finite(a)


def _convert(run: _Run, equation: Equation, a: Any) -> Any:
    target = equation.avals[0].dtype
    if is_real(a) and target == np.float64:
        return a
    if not is_real(a) and target == np.float64:
        return run.whole(a)
    raise Refusal(f"convert_element_type: a conversion to {target} rounds or cuts, expected float64 throughout")


def _iota(run: _Run, equation: Equation) -> Any:
    return run.field.exact(movement.iota(equation.avals[0].shape, equation.params["dimension"], np.float64))


def _scatter_add(run: _Run, equation: Equation, a: Any, indices: np.ndarray, updates: Any) -> Any:
    if is_real(indices):
        raise Refusal("scatter-add: indices that are not integers")
    positions = movement.scatter_positions(equation, a.shape, indices, updates)
    return run.field.scatter_add(a, positions, updates)


RULES: dict[str, Callable[..., Any]] = {
    **{name: _of_field(name) for name in ("add", "sub", "mul", "div", "neg")},
    "add_any": _of_field("add"),
    **dict.fromkeys(_COMPARISONS, _compare),
    "abs": maxima.absolute,
    "clamp": maxima.clamp,
    "convert_element_type": _convert,
    "dot_general": _dot_general,
    "integer_pow": _integer_pow,
    "iota": _iota,
    "is_finite": _is_finite,
    "max": maxima.maximum,
    "min": maxima.minimum,
    "one_minus_square": _one_minus_square,
    "reduce_max": maxima.reduce_max,
    "reduce_min": maxima.reduce_min,
    "reduce_sum": _reduce_sum,
    "scatter-add": _scatter_add,
    "select_n": _select_n,
    "sign": _sign,
    "square": _square,
}
