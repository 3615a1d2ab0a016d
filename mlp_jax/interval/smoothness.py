"""Whether fun is smooth on a box, and the traced derivatives are its own. The Hessian alone does not show a corner.

The value and the gradient are evaluated on the whole box, before dead code is removed. If the box decides every
comparison and every choice, both are compositions of analytic functions; on a larger box they are their analytic
continuations.

An undecided maximum is allowed if it cancels, such as the shift in a softmax. Write fun(θ) = F(θ, s(θ)) with s the
maximum. If F does not depend on s, fun equals F(·, s) for any constant s. F is analytic in s, so this is tested at one
random point of the box with many bits: an F that depends on s differs there with probability 1. Where F is analytic in
all of space, as of most networks without kinks, one test holds for every box.
"""

import flint
import numpy as np

from mlp_jax.interval import analytic, ball, multiprecision
from mlp_jax.interval.ball import Array, Ball, Refusal
from mlp_jax.interval.enclosures import Traced
from mlp_jax.interval.interpreter import Tie, evaluate
from mlp_jax.interval.program import Program

_BITS = 384


class TieInGradient(Refusal):
    """The value does not depend on a maximum that the box leaves open, but the traced gradient is refused there."""


class Smoothness:
    """Boxes on which fun is smooth; `independent` holds the open maxima on which fun does not depend.

    everywhere
        Whether fun is known to be smooth on every box; all its maxima are open then.
    """

    def __init__(self, traced: Traced, data: list[Array], everywhere: bool = False) -> None:
        self._traced = traced
        self._data = data
        self.everywhere = everywhere
        self.independent: dict[tuple[str, int], Array] = {}
        if everywhere:
            named = {"value": traced.value, "gradient": traced.gradient}
            found = [(name, at) for name, program in named.items() for at in analytic.maxima(program)]
            self.independent = dict.fromkeys(found, np.array(True))
        self._known: list[Ball] = []

    def require(self, box: Ball) -> None:
        """Raise Refusal unless fun is smooth on a box; TieInGradient where only the traced gradient is not."""
        if self.everywhere or any(
            np.array_equal(box.mid, known.mid) and np.all(box.radius <= known.radius) for known in self._known
        ):
            return
        tied = self._evaluate("value", self._traced.value, box)
        try:
            self._evaluate("gradient", self._traced.gradient, box)
        except Refusal as refusal:
            if tied:
                raise TieInGradient(str(refusal)) from refusal
            raise
        self._known.append(box)

    def _evaluate(self, name: str, program: Program, box: Ball) -> bool:
        """Evaluate a program on a box, test the undecided maxima, and return whether there were any."""
        ties: dict[int, Tie] = {}
        result = evaluate(program, [box, *self._data], ball, ties)[0]
        if not np.all(np.isfinite(result.mid)):
            raise Refusal(f"the {name} is NaN or infinite")
        known = {number: self.independent.get((name, number), False) for number in ties}
        if any(np.any(tie.open & np.logical_not(known[number])) for number, tie in ties.items()):
            _require_independent(program, box, self._data, ties)
        for number, tie in ties.items():
            self.independent[name, number] = tie.open | known[number]
        return bool(ties)


def is_smooth_everywhere(traced: Traced, size: int, data: list[Array]) -> bool:
    """Return whether fun is analytic everywhere, and does not depend on its maxima at a random point."""
    if not traced.analytic:
        return False
    unit = Ball(np.zeros(size), np.ones(size))
    try:
        for program in (traced.value, traced.gradient):
            ties = {at: _open(program.equations[at].avals[0].shape) for at in analytic.maxima(program)}
            if ties:
                _require_independent(program, unit, data, ties)
    except Refusal:
        return False
    return True


def _open(shape: tuple[int, ...]) -> Tie:
    return Tie(np.ones(shape, bool), Ball(np.zeros(shape), np.ones(shape)))


def _require_independent(program: Program, box: Ball, data: list[Array], ties: dict[int, Tie]) -> None:
    """Raise Refusal if the results of a program depend on the values of undecided maxima."""
    generator = np.random.default_rng(0)
    with multiprecision.bits(_BITS):
        point = multiprecision.random_point(box, generator)

        def result() -> Array:
            others = {
                number: Tie(tie.open, multiprecision.random_point(tie.value, generator)) for number, tie in ties.items()
            }
            return np.ravel(evaluate(program, [point, *data], multiprecision, instead=others)[0])

        first, second = result(), result()
        size = max((abs(x).upper() for x in first), default=flint.arb(0))
        same = all(d.contains(0) and d.rad() <= size * 2.0 ** (-_BITS // 2) for d in (first - second).tolist())
    if not same:
        number, tie = next(iter(ties.items()))
        raise Refusal(
            f"{program.equations[number].name}: the box leaves {int(np.sum(tie.open))} of {tie.open.size} open, and fun"
            " depends on which it is (a kink inside)"
        )
