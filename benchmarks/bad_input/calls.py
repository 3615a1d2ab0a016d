"""A public function with its arguments and its oracle, and a case: one call of it, written as source."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

from benchmarks.hostile_inputs import Source

MODULES = {
    name: importlib.import_module(f"mlp_jax.{name}")
    for name in (
        "tree", "display", "intervals", "checkpoint", "devices", "mlp", "losses", "penalties", "schedules",
        "backpropagation", "datasets", "training", "sweep", "gradient_noise", "curvature",
        "mlp_hessian", "mlp_symmetry", "interval", "critical", "landscape", "plots",
    )
}  # fmt: skip


class Argument(NamedTuple):
    """Source of a legal value (None: left out), and what may take its place."""

    legal: str | None
    hostile: Source


@dataclasses.dataclass(frozen=True)
class Call:
    """A public function, its arguments, and whether a result is right for them: raises where they are illegal.

    names
        Other words that an error may use for an argument.
    weight
        Share of the cases; small where a case is dear.
    together
        Most arguments replaced in one case.
    """

    name: str
    arguments: dict[str, Argument]
    right: Callable[[Any, Any], bool]
    names: tuple[str, ...] = ()
    weight: float = 1.0
    together: int = 2

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself."""
        module, *path = self.name.rstrip("*").split(".")
        return functools.reduce(getattr, path, MODULES[module])

    def case(self, /, **changed: str) -> Case:
        """Return the legal call with the sources of some arguments replaced."""
        sources = {name: argument.legal for name, argument in self.arguments.items()} | changed
        given = tuple((name, source) for name, source in sources.items() if source is not None)
        return Case(self.name, given, tuple(sorted(changed)))

    def draw(self, argument: str | None = None) -> st.SearchStrategy[Case]:
        """Return a strategy for cases in which one argument, if it is named, or any are replaced."""
        return _cases(self, argument)


class Case(NamedTuple):
    """Source of every argument, and the names of those that were replaced."""

    name: str
    sources: tuple[tuple[str, str], ...]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={source}' for key, source in self.sources)})"


@st.composite
def _cases(draw: Any, call: Call, argument: str | None) -> Case:
    names = list(call.arguments) if argument is None else [argument]
    number = draw(st.sampled_from((1, 1, *range(1, call.together + 1))))
    changed = draw(st.lists(st.sampled_from(names), min_size=1, max_size=min(number, len(names)), unique=True))
    return call.case(**{name: draw(call.arguments[name].hostile) for name in changed})


CALLS: dict[str, Call] = {}


def call(
    name: str, /, *names: str, weight: float = 1.0, together: int = 2, **arguments: tuple[str | None, Source]
) -> Callable[..., Any]:
    """Register a public function; what is decorated is its oracle."""

    def register(right: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
        made = {argument: Argument(*pair) for argument, pair in arguments.items()}
        CALLS[name] = Call(name, made, right, names, weight, together)
        return right

    return register
