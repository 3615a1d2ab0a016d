"""Whether a program is real-analytic in some of its inputs, everywhere.

Two analytic functions on a connected set that agree at a random point of it agree everywhere, with probability 1. So an
identity between two such programs is tested once, at one point, and not in each box. Neither can have a corner.
"""

import numpy as np

from mlp_jax.interval.movement import MOVES
from mlp_jax.interval.program import Equation, Program

_MAXIMA = ("max", "min", "reduce_max", "reduce_min")
# Analytic at every number.
_TOTAL = frozenset((
    "add", "add_any", "asinh", "atan", "convert_element_type", "cos", "cosh", "dot_general", "erf", "erfc", "exp",
    "expm1", "logaddexp", "logistic", "mul", "neg", "one_minus_square", "reduce_sum", "scatter-add", "sin", "sinh",
    "square", "sub", "tanh",
)) | MOVES  # fmt: skip
# Analytic where the first operand is positive.
_POSITIVE_DOMAIN = frozenset(("abs", "log", "log1p", "pow", "rsqrt", "sqrt"))
_POSITIVE = frozenset(("cosh", "erfc", "exp", "logistic"))
# Positive where all operands are.
_KEEPS_SIGN = frozenset((
    "abs", "add", "add_any", "convert_element_type", "div", "dot_general", "integer_pow", "log1p", "mul", "pow",
    "reduce_sum", "rsqrt", "sqrt", "square",
)) | MOVES  # fmt: skip


def maxima(program: Program) -> list[int]:
    """Return the positions of the equations that are maxima or minima of numbers that depend on the first input."""
    moving = set(program.inputs[:1])
    found = []
    for at, equation in enumerate(program.equations):
        if moving.intersection(equation.inputs):
            moving.update(equation.outputs)
            if equation.name in _MAXIMA:
                found.append(at)
    return found


def is_analytic(program: Program, variables: int = 1) -> bool:
    """Return whether a program is proved analytic everywhere in its first inputs and its maxima, as variables."""
    moving = set(program.inputs[:variables])
    positive = {
        number for number, value in program.constants.items() if value.dtype.kind in "iuf" and (value > 0).all()
    }
    for equation in program.equations:
        depends = not moving.isdisjoint(equation.inputs)
        if depends and not _is_constant(equation, program, positive):
            if equation.name not in _MAXIMA and not _is_analytic(equation, moving, positive):
                return False
            moving.update(equation.outputs)
        if equation.name in _POSITIVE or (equation.name in _KEEPS_SIGN and positive.issuperset(equation.inputs)):
            positive.update(equation.outputs)
    return True


def _is_constant(equation: Equation, program: Program, positive: set[int]) -> bool:
    """Return whether the result is the same for all real numbers."""
    if equation.name in ("eq", "ge", "gt", "le", "lt", "ne"):
        first, second = equation.inputs
        constant = program.constants.get(second, np.zeros(0))
        beyond = np.isinf(constant) | ((constant <= 0) & (first in positive))
        return first == second or (constant.size > 0 and bool(np.all(beyond)))
    return equation.name == "is_finite"


def _is_analytic(equation: Equation, moving: set[int], positive: set[int]) -> bool:
    name, first = equation.name, equation.inputs[0]
    if any(aval.dtype.kind != "f" for aval in equation.avals):
        return False
    if name == "div":
        return equation.inputs[1] in positive or equation.inputs[1] not in moving
    if name == "select_n":
        return first not in moving
    if name == "integer_pow":
        return equation.params["y"] >= 0 or first in positive
    return name in _TOTAL or (name in _POSITIVE_DOMAIN and first in positive)
