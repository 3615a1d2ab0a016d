"""What do the public functions do with bad input? Each is called with hostile arguments, drawn by hypothesis.

A case is one call, written as source: a legal call in which one argument or two are replaced. It must end with a clear
error (raised on purpose by this package, naming the argument and what was got), or with an answer that is right by an
oracle in numpy. Anything else is a defect:

    unclear    an error from the inside of JAX, numpy or Python, or one that names no argument
    accepted   an answer to what should have been refused
    wrong      an answer that the oracle contradicts
    hang       no end within 20 s; slow: an error after more than 5 s
    memory     more than 1 GiB taken
    crash      the interpreter died
    changed    the configuration of JAX, numpy or Python, an argument, or a file is not what it was

    python -m benchmarks.bad_input [--cases 10000] [--only TEXT] [--seed 0]

Cases run in a process of their own, which is started again after a crash.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import functools
import gc
import gzip
import html.parser
import importlib
import inspect
import itertools
import json
import linecache
import multiprocessing
import os
import pathlib
import random
import resource
import signal
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import hypothesis
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.figure
import numpy as np
import optax
import scipy.stats
import sklearn.datasets  # noqa: F401  # sets environment variables when it is first imported
import tqdm
from hypothesis import strategies as st

import mlp_jax
from benchmarks import hostile_inputs as hostile
from benchmarks.hostile_inputs import (
    Source,
    arrays,
    counts,
    damages,
    functions,
    functions_of,
    idx_files,
    keys,
    npz_files,
    paths,
    reals,
    things,
)
from mlp_jax import (
    curvature,
    interval,
    tree,
)

SECONDS, SLOW = 20, 5.0
MEMORY, ADDRESSES = 2**30, 5 * 2**30  # bytes a case may take; bytes of addresses beyond those at the start
OUTCOMES = ("clear", "right", "unclear", "accepted", "wrong", "slow", "hang", "memory", "crash", "changed")
LIBRARY = str(pathlib.Path(mlp_jax.__file__).parent)
MODULES = {
    name: importlib.import_module(f"mlp_jax.{name}")
    for name in (
        "tree", "display", "intervals", "mlp", "losses", "penalties", "schedules", "backpropagation", "datasets",
        "training", "sweep", "gradient_noise", "curvature", "mlp_hessian", "mlp_symmetry", "interval", "critical",
        "landscape", "plots",
    )
}  # fmt: skip


class Illegal(Exception):
    """The oracle's word for arguments that should have been refused."""


class Unknown(Exception):
    """The oracle's word for what it cannot tell."""


class Hang(BaseException):
    """The alarm."""


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

    def case(self, **changed: str) -> Case:
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


class Outcome(NamedTuple):
    """One of OUTCOMES, what was seen, and where it came from."""

    kind: str
    seen: str = ""
    where: str = ""
    seconds: float = 0.0


@st.composite
def _cases(draw: Any, call: Call, argument: str | None) -> Case:
    names = list(call.arguments) if argument is None else [argument]
    number = draw(st.sampled_from((1, 1, *range(1, call.together + 1))))
    changed = draw(st.lists(st.sampled_from(names), min_size=1, max_size=min(number, len(names)), unique=True))
    return call.case(**{name: draw(call.arguments[name].hostile) for name in changed})


# --- Judging one case ----------------------------------------------------------------------------------------------


def judge(call: Call, case: Case, allowed: float = SECONDS) -> Outcome:
    """Run a case and say how it ended, with an alarm after the seconds allowed."""
    arguments = {name: evaluate(source) for name, source in case.sources}
    kept, before, peak = _copies(arguments), configuration(), _peak()
    began = time.perf_counter()
    outcome = _run(call, case, arguments, allowed)
    seconds = time.perf_counter() - began
    if outcome.kind == "clear" and seconds > SLOW:
        outcome = Outcome("slow", f"{seconds:.1f} s: {outcome.seen}", outcome.where)
    if outcome.kind != "hang" and _peak() - peak > MEMORY:
        outcome = Outcome("memory", f"{(_peak() - peak) / 2**30:.1f} GiB, then {outcome.kind}: {outcome.seen}")
    changes = [name for name, value in configuration().items() if value != before[name]]
    changes += [name for name, value in kept.items() if not _same(arguments[name], value)]
    if changes:
        outcome = Outcome("changed", f"{', '.join(changes)}; {outcome.kind} {outcome.seen}")
    return outcome._replace(seconds=seconds)


def _run(call: Call, case: Case, arguments: dict[str, Any], allowed: float) -> Outcome:
    try:
        with alarm(allowed):
            result = call.function(**arguments)
            jax.block_until_ready([x for x in jax.tree.leaves(result) if isinstance(x, jax.Array)])
    except Hang as error:
        return Outcome("hang", f"after {allowed} s", where_raised(error))
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return Outcome("clear" if is_clear(error, call) else "unclear", text, where_raised(error))
    try:
        bound = inspect.signature(call.function).bind(**{n: evaluate(s) for n, s in case.sources})
        bound.apply_defaults()
        right = call.right(types.SimpleNamespace(**bound.arguments), result)
    except (hostile.Mischief, Unknown):
        return Outcome("right", _short(result))  # a function that was given may raise when the result calls it
    except Exception as error:
        return Outcome("accepted", f"{_short(result)} ({type(error).__name__}: {str(error)[:100]})")
    return Outcome("right" if right else "wrong", _short(result))


def is_clear(error: Exception, call: Call) -> bool:
    """Return whether an error was raised on purpose and names what was wrong, or is that of the function given."""
    frames = list(_frames(error))
    inside = max((i for i, (file, _, _) in enumerate(frames) if file.startswith(LIBRARY)), default=len(frames))
    beyond = frames[inside + 1 :]
    if any(file in (hostile.__file__, __file__, "<string>") for file, _, _ in beyond):
        return True  # raised by, or below, a function that was given
    if not isinstance(error, (TypeError, ValueError, ImportError, MemoryError, FileNotFoundError, RuntimeError)):
        return False
    file, line, _ = frames[-1]
    if not file.startswith(LIBRARY) or not linecache.getline(file, line).strip().startswith("raise"):
        return False
    message = _plain(str(error))
    return len(message) > 20 and any(_plain(name) in message for name in (*call.arguments, *call.names))


def _plain(text: str) -> str:
    return text.lower().replace("_", " ")


def _frames(error: BaseException) -> Iterator[tuple[str, int, str]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno, trace.tb_frame.f_code.co_name
        trace = trace.tb_next


def where_raised(error: BaseException) -> str:
    """Return the last line of this package that an error passed."""
    lines = [f"{pathlib.Path(f).relative_to(LIBRARY)}:{n}" for f, n, _ in _frames(error) if f.startswith(LIBRARY)]
    return lines[-1] if lines else ""


@contextlib.contextmanager
def alarm(allowed: float) -> Iterator[None]:
    """Raise Hang in the block after some seconds."""

    def ring(number: int, frame: Any) -> None:
        raise Hang

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, allowed)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def configuration() -> dict[str, Any]:
    """Return what a library must leave as it is."""
    return {
        "jax.config": {name: str(value) for name, value in jax.config.values.items()},
        "jax.enable_x64": jax.config.jax_enable_x64,
        "np.geterr": np.geterr(),
        "np.get_printoptions": {name: str(value) for name, value in np.get_printoptions().items()},
        "np.random": np.random.get_state()[1].tobytes(),  # type: ignore[index]  # noqa: NPY002  # is it left alone?
        "random": hash(random.getstate()),
        "matplotlib.rcParams": hash(str(dict(matplotlib.rcParams))),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "files": sorted(
            (str(path), path.read_bytes() if path.is_file() else b"")
            for path in FILES.iterdir()
            if path.name != "written"
        ),
    }


def _copies(arguments: dict[str, Any]) -> dict[str, Any]:
    found = {name: np.asarray(value) for name, value in arguments.items() if isinstance(value, np.ndarray)}
    return {name: array.copy() for name, array in found.items()}


def _same(a: Any, b: Any) -> bool:
    a = np.asarray(a)
    return a.dtype == b.dtype and a.shape == b.shape and (a.dtype == object or a.tobytes() == b.tobytes())


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _short(value: Any) -> str:
    return " ".join(repr(value).split())[:160]


# --- What sources may use ------------------------------------------------------------------------------------------

_FOLDER = tempfile.TemporaryDirectory(prefix="bad-input-")
FILES = pathlib.Path(_FOLDER.name)


def file(content: bytes, name: str = "data") -> str:
    """Return the path of a file with this content."""
    path = FILES / name
    path.write_bytes(content)
    return str(path)


def square(p: Any, *args: Any) -> Any:
    """Σ p², whatever else is given."""
    return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(p))


def saddle(x: Any, *args: Any) -> Any:
    """x₀² − x₁²."""
    return x[0] ** 2 - x[1] ** 2


def per_example(p: Any, x: Any) -> Any:
    """½ (x p)² of each row."""
    return jnp.square(x @ p) / 2


def linear(p: Any, x: Any) -> Any:
    """The model x p."""
    return x @ p


def half_square(z: Any, y: Any) -> Any:
    """The loss ½ (z − y)²."""
    return jnp.square(z - y) / 2


def fit(w: Any, x: Any, y: Any, weights: Any, key: Any) -> Any:
    """Weighted mean of ½ (x w − y)²."""
    return jnp.sum(weights * jnp.square(x @ w - y)) / 2 / jnp.sum(weights)


def start(key: Any) -> Any:
    """The start of a sweep."""
    return jax.random.normal(key, (2,))


@functools.cache
def spread(factor: float) -> Callable[[Any], Any]:
    """Return the operator diag(−1, 2) · factor on vectors of two numbers, 2 · factor on others."""

    def multiply(v: Any) -> Any:
        return jax.tree.map(
            lambda leaf: leaf * jnp.asarray(factor * np.array([-1.0, 2.0] if leaf.shape == (2,) else 2.0), leaf.dtype),
            v,
        )

    multiply.factor = factor  # type: ignore[attr-defined]  # for the oracle
    return multiply


@functools.cache
def scaled(factor: float) -> Callable[..., Any]:
    """Return factor · (x₀² − x₁²), in units of factor."""

    def fun(x: Any, *args: Any) -> Any:
        return jnp.asarray(factor, x.dtype) * (x[0] ** 2 - x[1] ** 2)

    fun.factor = factor  # type: ignore[attr-defined]  # for the oracle
    return fun


def axes(**settings: Any) -> Any:
    """New axes of matplotlib."""
    return matplotlib.figure.Figure().subplots(**settings)


NAMES: dict[str, Any] = {
    **hostile.NAMES,
    **MODULES,
    **{f.__name__: f for f in (
        square, saddle, per_example, linear, half_square, fit, start, spread, scaled, axes, file,
    )},
    "optax": optax,
}  # fmt: skip


def evaluate(source: str) -> Any:
    """Return the value of a source."""
    return eval(source, dict(NAMES))


def evaluates(source: str) -> bool:
    """Return whether a source has a value: a module in an object array, for example, cannot be pickled."""
    try:
        evaluate(source)
    except Exception:
        return False
    return True


# --- What oracles use ----------------------------------------------------------------------------------------------


def need(condition: Any) -> None:
    """Raise Illegal unless a condition holds."""
    if not condition:
        raise Illegal


def whole(value: Any, low: int = 1, high: float = np.inf) -> int:
    """Return a whole number in a range."""
    need(np.ndim(value) == 0 and not isinstance(value, str | bytes) and int(value) == value and low <= value <= high)
    return int(value)


def real(value: Any, low: float = -np.inf, high: float = np.inf) -> float:
    """Return a finite number in a range."""
    need(np.ndim(value) == 0 and not isinstance(value, str | bytes | complex))
    need(np.isfinite(float(value)) and low <= float(value) <= high)
    return float(value)


def numbers(value: Any, ndim: int | None = None, *, finite: bool = False, kinds: str = "fiu") -> np.ndarray:
    """Return real numbers in float64."""
    array = np.asarray(value)
    need(array.dtype.kind in kinds or jnp.issubdtype(array.dtype, jnp.floating))
    array = array.astype(np.float64)
    need(ndim is None or array.ndim == ndim)
    need(not finite or np.all(np.isfinite(array)))
    return array


def single(value: Any, ndim: int | None = None) -> np.ndarray:
    """Return what real numbers are in float32, which computes with them."""
    with np.errstate(all="ignore"):
        return np.float32(numbers(value, ndim, kinds="fiub")).astype(np.float64)


def integers(value: Any, ndim: int | None = None) -> np.ndarray:
    """Return integers."""
    array = np.asarray(value)
    need(array.dtype.kind in "iu" and (ndim is None or array.ndim == ndim))
    return array.astype(np.int64)


def floating(values: Any, *, finite: bool = True) -> list[np.ndarray]:
    """Return the leaves of a pytree of real floating arrays, at least one number in all."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(values)]
    need(sum(leaf.size for leaf in leaves))
    need(all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves))
    return [numbers(leaf, finite=finite) for leaf in leaves]


def alike(a: Any, b: Any) -> None:
    """Raise Illegal unless two pytrees have the same structure and shapes."""
    need(jax.tree.structure(a) == jax.tree.structure(b))
    need(all(np.shape(x) == np.shape(y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)))


def a_key(key: Any) -> Any:
    """Return a typed key for a key of either form."""
    if not isinstance(key, jax.Array | np.ndarray):
        raise Illegal
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        need(key.shape == ())
        return key
    need(key.dtype == np.uint32 and key.shape == (2,))
    return jax.random.wrap_key_data(jnp.asarray(key))


def network(params: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return weights and biases that fit together."""
    need(isinstance(params, tuple | list) and len(params))
    layers = [(single(weight, 2), single(bias, 1)) for weight, bias in params]
    need(all(w.shape[1:] == b.shape for w, b in layers))
    return layers


def through(layers: Any, inputs: Any, activation: Any, *, ndim: int | None = 2) -> np.ndarray:
    """Return the outputs of a network in numpy."""
    hidden = single(inputs, ndim)
    for depth, (weight, bias) in enumerate(layers):
        if depth:
            hidden = numbers(activation(hidden))
        need(hidden.ndim and hidden.shape[-1] == len(weight))
        hidden = hidden @ weight + bias
    return hidden


def near(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Return whether two arrays agree in shape and, to a tolerance, in value."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return False
    with np.errstate(all="ignore"):
        a, b = a.astype(np.float64), b.astype(np.float64)
        # What is beyond float32 may be infinite in the one, and zero below it.
        close = np.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        return bool(np.all(close | ((np.abs(b) > 1e38) & ~(np.abs(a) < 1e37)) | np.isnan(b)))


def near_trees(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Return whether all leaves are near."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(near(x, y, tolerance) for x, y in pairs)


def gradient_of(fun: Callable[..., Any], vector: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """Return central differences of a function of a vector, in float64."""
    rows = step * np.eye(len(vector))
    return np.array([(fun(vector + row) - fun(vector - row)) / (2 * step) for row in rows])


def is_own(function: Any) -> bool:
    """Return whether a function is one of those that are legal here; raise if it is none at all."""
    need(callable(function))
    return getattr(function, "__module__", "") != hostile.__name__ or "watched" in repr(function)


# --- The public functions -------------------------------------------------------------------------------------------

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


BOOLEAN = (None, st.sampled_from(("True", "False", "0", "1", "np.True_")))
KEY = ("jax.random.key(0)", keys())
VECTOR = ("jnp.array([0.5, -1.0])", arrays((2,)))
ARGS = (None, st.one_of(things(), st.sampled_from(("[jnp.ones(2)]", "jnp.ones(2)", "(np.array([nan]),)",
        "(np.array([1, 2]),)", "('a',)", "(None,)", "(np.array([inf, 1.0]),)", "(object(),)"))))  # fmt: skip
LABEL = (None, things())


def trees(*shapes: tuple[int, ...]) -> Source:
    """Pytrees of arrays."""
    leaf = arrays(*shapes)
    two = st.tuples(leaf, leaf)
    nested = st.one_of(two.map("{{'a': {0[0]}, 'b': {0[1]}}}".format), two.map("({0[0]}, [{0[1]}, None])".format))
    return st.one_of(leaf, nested, st.sampled_from(("{'a': None}", "[[], {}]", "1.0", "[0.5, -1.0]", "5e-324")))


TREE = ("{'a': jnp.array([0.5, -1.0]), 'b': jnp.ones((1, 2))}", trees((2,), (1, 2)))


@call("tree.ravel", tree=TREE)
def _(a: Any, result: Any) -> bool:
    leaves = [numbers(leaf, kinds="fiub") for leaf in jax.tree.leaves(a.tree)]
    vector, unravel = result
    return near(vector, np.concatenate([*map(np.ravel, leaves), np.zeros(0)])) and near_trees(unravel(vector), a.tree)


@call("tree.size", tree=TREE)
def _(a: Any, result: Any) -> bool:
    return result == sum(numbers(leaf, kinds="fiubc").size for leaf in jax.tree.leaves(a.tree))


@call("tree.dot", a=TREE, b=TREE)
def _(a: Any, result: Any) -> bool:
    alike(a.a, a.b)
    pairs = zip(jax.tree.leaves(a.a), jax.tree.leaves(a.b), strict=True)
    return near(result, sum(np.sum(numbers(x, kinds="fiub") * numbers(y, kinds="fiub")) for x, y in pairs))


@call("tree.norm", a=TREE)
def _(a: Any, result: Any) -> bool:
    with np.errstate(all="ignore"):
        leaves = [numbers(leaf).ravel() for leaf in jax.tree.leaves(a.a)]
        return near(result, np.sqrt(sum(leaf @ leaf for leaf in leaves)))


@call("tree.random_like", key=KEY, tree=TREE)
def _(a: Any, result: Any) -> bool:
    floating(a.tree, finite=False)
    alike(a.tree, result)
    return near_trees(result, tree.random_like(a_key(a.key), a.tree))


@call("tree.is_traced", tree=TREE)
def _(a: Any, result: Any) -> bool:
    return result is False


@call("tree.require_key", key=KEY)
def _(a: Any, result: Any) -> bool:
    return a_key(a.key) is not None and result is None


@call("tree.require_floating", "params", tree=TREE)
def _(a: Any, result: Any) -> bool:
    return len(floating(a.tree)) > 0 and result is None


@call("display.table", title=("'a < b'", things()), rows=("[('x', 1)]", st.one_of(things(),
      st.sampled_from(("[()]", "[('<b>', '&')]", "['xy']", "[(1, 2), None]")))), header=LABEL, note=LABEL)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    seen: list[str] = []
    parser = html.parser.HTMLParser()
    parser.handle_data = seen.append  # type: ignore[method-assign]  # the whole parser that is needed
    parser.feed(result)
    text = "".join(seen)
    cells = [] if hasattr(a.rows, "__next__") else [cell for row in a.rows for cell in row]  # an iterator is used up
    return all(cell in text for cell in (a.title, a.note, *cells) if isinstance(cell, str))


SAMPLES = ("[1.0, 2.0, 4.0]", arrays((3,), (4, 2)))
DIGITS = (None, counts(0))


@call("intervals.mean_interval", samples=SAMPLES, axis=(None, counts(-1)))
def _(a: Any, result: Any) -> bool:
    values, axis = numbers(a.samples, kinds="fiub"), whole(a.axis, -9)
    need(values.shape[axis])
    if values.shape[axis] < 2:
        return near(result[0], values.mean(axis)) and bool(np.all(np.isinf(result[1])))
    error = scipy.stats.sem(values, axis=axis)
    half = scipy.stats.t(values.shape[axis] - 1).isf(0.025) * error
    return near(result[0], values.mean(axis)) and near(result[1], half)


@call("intervals.show", samples=SAMPLES, digits=DIGITS)
def _(a: Any, result: Any) -> bool:
    values, digits = numbers(a.samples, 1, kinds="fiub"), whole(a.digits, 0)
    need(values.size)
    return result.startswith(f"{values.mean():.{digits}g} ± ")


@call("intervals.change", samples=SAMPLES, digits=DIGITS)
def _(a: Any, result: Any) -> bool:
    values = numbers(a.samples, 1, kinds="fiub")
    values, _ = values[np.isfinite(values)], whole(a.digits, 0)
    if values.size < 2:
        return result.startswith(("not measured", "no difference seen"))
    low, high = (values.mean() + side * scipy.stats.t(len(values) - 1).isf(0.025) * scipy.stats.sem(values)
                 for side in (-1, 1))  # fmt: skip
    return result.startswith("higher" if low > 0 else "lower" if high < 0 else "no difference seen")


# --- mlp, losses, penalties, schedules, backpropagation

COUNTS = st.one_of(counts(), counts(), st.just("10**6"))  # two of which are too many numbers
SIZES = ("(3, 4, 2)", st.one_of(things(), st.lists(COUNTS, max_size=4).map(
    lambda sizes: f"({', '.join(sizes)},)" if sizes else "()")))  # fmt: skip
LAYERS = "(mlp.Layer(0.1 * jnp.ones((2, 3)), jnp.zeros(3)), mlp.Layer(jnp.ones((3, 1)), jnp.zeros(1)))"
ACTIVATION = (None, functions_of("jnp.tanh"))
INPUTS = ("jnp.array([[0.5, 1.0], [2.0, -1.0]])", arrays((2, 2), (2, 3)))


def layers() -> Source:
    """Params of a network that are mostly none."""
    weight, bias = arrays((2, 3)), arrays((3,))
    second = "mlp.Layer(jnp.ones((3, 1)), jnp.zeros(1))"
    return st.one_of(
        weight.map(lambda w: f"(mlp.Layer({w}, jnp.zeros(3)), {second})"),
        bias.map(lambda b: f"(mlp.Layer(jnp.ones((2, 3)), {b}), {second})"),
        st.sampled_from((f"({second},)", f"[{second}]", f"({second}, {second})", "(jnp.ones((2, 3)), jnp.zeros(3))",
                         "((jnp.ones((2, 3)), jnp.zeros(3)),)", "{'weight': jnp.ones((2, 3))}", "mlp.Layer(1.0, 2.0)",
                         "(mlp.Layer(jnp.ones((2, 3)), None),)", f"({second}, None)", "jnp.ones((2, 2))",
                         "mlp.Layer(jnp.ones((2, 3)), jnp.zeros(3))")),
        things(),
    )  # fmt: skip


PARAMS = (LAYERS, layers())


@call("mlp.init", key=KEY, sizes=SIZES, pieces=(None, counts()), dtype=(None, things()),
      weight_init=(None, functions_of("jax.nn.initializers.he_normal()")), bias_init=(None, functions()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    sizes, pieces = [whole(n, 1, 2**31) for n in a.sizes], whole(a.pieces)
    need(len(sizes) > 1)
    wide = [n * pieces for n in sizes[1:-1]] + sizes[-1:]
    network(result)
    shapes = [(w.shape, b.shape) for w, b in result]
    need(a.dtype is None or jnp.issubdtype(a.dtype, jnp.floating))
    return shapes == [((n, m), (m,)) for n, m in zip(sizes, wide, strict=False)]


@call("mlp.forward", "dropout rate", "activations", params=PARAMS, inputs=INPUTS, activation=ACTIVATION,
      dropout_rate=(None, reals()), key=(None, keys()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    rate = real(a.dropout_rate, 0, 1)
    outputs = through(network(a.params), a.inputs, a.activation, ndim=None)
    if rate:
        a_key(a.key)
        return outputs.shape == result.shape
    return near(result, outputs, 0.05)


@call("mlp.maxout", pieces=("2", counts()))
def _(a: Any, result: Any) -> bool:
    pieces = whole(a.pieces)
    if pieces > 10**6:
        return callable(result)
    values = np.random.default_rng(0).standard_normal((2, 3 * pieces)).astype(np.float32)
    return near(result(values), values.reshape(2, 3, pieces).max(-1))


@call("mlp.dropout", "dropout rate", key=KEY, values=VECTOR, rate=("0.5", reals()))
def _(a: Any, result: Any) -> bool:
    values, rate = numbers(a.values, kinds="f"), real(a.rate, 0, 1 - 1e-9)
    a_key(a.key)
    kept = near(0 * values, 0 * values) and np.isclose(result, values / (1 - rate), rtol=0.01, equal_nan=True)
    return bool(np.all(kept | (np.asarray(result) == 0) | ~np.isfinite(np.asarray(values, np.float32))))


@call("mlp.require_fit", "activations", "inputs", values=INPUTS, depth=("0", counts(0)),
      layer=("mlp.Layer(jnp.ones((2, 3)), jnp.zeros(3))", st.one_of(things(), arrays((2, 3)).map(
          "mlp.Layer({}, jnp.zeros(3))".format))))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    return np.shape(a.values)[-1] == np.shape(a.layer.weight)[0] and whole(a.depth, 0) >= 0


LOGITS = ("jnp.array([[0.5, 1.0, 0.0], [2.0, -1.0, 0.0]])", arrays((2, 3)))
CLASSES = ("jnp.array([2, 0])", st.one_of(arrays((2,)), st.sampled_from(("np.array([3, 0])", "[2, 0]",
           "np.array([-1, 0])", "np.array([0.0, 1.0])", "np.array([2, 0], np.uint8)", "np.array([2**40, 0])",
           "np.array([True, False])", "np.array([2**63], np.uint64)"))))  # fmt: skip


@call("losses.cross_entropy", logits=LOGITS, targets=CLASSES)
def _(a: Any, result: Any) -> bool:
    with np.errstate(all="ignore"):
        logits, targets = single(a.logits), integers(a.targets)
    need(targets.shape == logits.shape[:-1] and np.all((targets >= 0) & (targets < logits.shape[-1])))
    with np.errstate(all="ignore"):
        shifted = logits - logits.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return near(result, -np.take_along_axis(logs, targets[..., None], -1)[..., 0], 0.02)


@call("losses.squared_error", outputs=LOGITS, targets=("jnp.zeros((2, 3))", arrays((2, 3))))
def _(a: Any, result: Any) -> bool:
    outputs, targets = numbers(a.outputs), numbers(a.targets)
    need(outputs.shape == targets.shape and outputs.ndim)
    with np.errstate(all="ignore"):
        return near(result, 0.5 * ((outputs - targets) ** 2).sum(-1), 0.02)


WEIGHTS = (None, arrays((2,), (3,)))


@call("losses.mean", values=("jnp.array([1.0, 2.0])", arrays((2,))), weights=WEIGHTS)
def _(a: Any, result: Any) -> bool:
    values = numbers(a.values, kinds="fiub")
    weights = np.ones_like(values) if a.weights is None else numbers(a.weights, finite=True, kinds="fiub")
    need(values.size and values.shape == weights.shape and np.all(weights >= 0) and np.any(weights))
    with np.errstate(all="ignore"):
        return near(result, (weights * values).sum() / weights.sum(), 0.02)


@call("losses.accuracy", logits=LOGITS, targets=CLASSES)
def _(a: Any, result: Any) -> bool:
    logits, targets = numbers(a.logits), integers(a.targets)
    need(targets.shape == logits.shape[:-1] and np.all((targets >= 0) & (targets < logits.shape[-1])))
    return near(result, (logits.argmax(-1) == targets).astype(float))


for _name, _order in (("l1", 1), ("l2", 2)):

    @call(f"penalties.{_name}", params=TREE, strength=("0.5", reals()), biases=BOOLEAN)
    def _(a: Any, result: Any, order: int = _order) -> bool:
        leaves = [numbers(leaf, kinds="fiub") for leaf in jax.tree.leaves(a.params)]
        leaves, strength = [leaf for leaf in leaves if a.biases or leaf.ndim > 1], float(a.strength)
        need(strength >= 0)
        need(leaves)
        with np.errstate(all="ignore"):
            return near(result, strength / order * sum(np.sum(np.abs(leaf) ** order) for leaf in leaves), 0.02)


@call("penalties.selective_synaptic_plasticity", params=TREE, strength=("0.5", reals()), reference=TREE,
      importances=TREE)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    strength = real(a.strength, 0)
    alike(a.params, a.reference)
    alike(a.params, a.importances)
    parts = [floating(part, finite=False) for part in (a.params, a.reference, a.importances)]
    need(all(np.all(leaf >= 0) for leaf in parts[2]))
    with np.errstate(all="ignore"):
        return near(result, strength * sum(np.sum(b * (p - r) ** 2) for p, r, b in zip(*parts, strict=True)), 0.02)


SCHEDULE = ("optax.linear_schedule(0.8, 0.0, 4)", functions_of("optax.linear_schedule(0.8, 0.0, 4)"))


@call("schedules.warmup", schedule=SCHEDULE, steps=("4", counts(0)), start=(None, reals()))
def _(a: Any, result: Any) -> bool:
    steps, first = whole(a.steps, 0), real(a.start)
    if not is_own(a.schedule) or steps > 10**6:
        return callable(result)
    peak = real(a.schedule(0))
    expected = [first + (peak - first) * t / steps if t < steps else a.schedule(t - steps) for t in range(7)]
    return near([result(t) for t in range(7)], expected, 0.01)


@call("schedules.per_epoch", schedule=SCHEDULE, steps_per_epoch=("3", counts()))
def _(a: Any, result: Any) -> bool:
    steps = whole(a.steps_per_epoch)
    if not is_own(a.schedule):
        return callable(result)
    return near([result(t) for t in range(7)], [real(a.schedule(t // steps)) for t in range(7)])


@call("backpropagation.forward", "activations", params=PARAMS, inputs=INPUTS, activation=ACTIVATION)
def _(a: Any, result: Any) -> bool:
    return near(result.preactivations[-1], through(network(a.params), a.inputs, a.activation), 0.05)


@call(
    "backpropagation.backward",
    params=PARAMS,
    activation=ACTIVATION,
    derivative=(None, functions()),
    trace=(
        f"backpropagation.forward({LAYERS}, jnp.ones((2, 2)))",
        st.one_of(
            things(),
            st.sampled_from(
                (
                    "backpropagation.Trace((), ())",
                    f"backpropagation.forward({LAYERS}[1:], jnp.ones((2, 3)))",
                    f"backpropagation.forward({LAYERS}, jnp.ones((5, 2)))",
                    "backpropagation.Trace((1,), (jnp.ones((2, 1)),))",
                )
            ),
        ),
    ),
    output_delta=("jnp.ones((2, 1))", arrays((2, 1))),
)
def _(a: Any, result: Any) -> bool:
    weights, delta = (
        [(None, None), (numbers(a.params[1][0], 2, kinds="fiub"), None)],
        numbers(a.output_delta, 2, kinds="fiub"),
    )
    need(len(a.params) == 2 and callable(a.activation) and (a.derivative is None or callable(a.derivative)))
    z = numbers(a.trace.preactivations[0], 2)
    need(delta.shape == a.trace.preactivations[1].shape and z.shape[1] == len(weights[1][0]) and len(z) == len(delta))
    slope = 1 - np.tanh(z) ** 2 if a.derivative is None else numbers(a.derivative(z))
    need(slope.shape == z.shape)
    need(a.activation(z).shape == z.shape)
    need(near(a.activation(z), np.tanh(z)) or np.isnan(numbers(a.activation(z))).any())
    with np.errstate(all="ignore"):
        return near(result[0], (delta @ weights[1][0].T) * slope, 0.02)


LOSS = ("losses.squared_error", functions_of("losses.squared_error"))


@call("backpropagation.gradient", "output_delta", "values", params=PARAMS, inputs=INPUTS, loss=LOSS,
      targets=("jnp.zeros((2, 1))", arrays((2, 1))), activation=ACTIVATION, weights=WEIGHTS,
      derivative=(None, functions()), loss_derivative=(None, functions()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    layers_, x = network(a.params), numbers(a.inputs, 2)
    z, y = through(layers_, x, np.tanh), numbers(a.targets, kinds="fiub")
    need(y.shape == z.shape and callable(a.loss) and callable(a.activation))
    need(np.shape(a.loss(jnp.asarray(z, jnp.float32), jnp.asarray(y, jnp.float32))) == (len(x),))
    weights = np.ones(len(x)) if a.weights is None else numbers(a.weights, 1, finite=True, kinds="fiub")
    need(weights.shape == (len(x),) and np.all(weights >= 0) and np.any(weights))
    for given in (a.derivative, a.loss_derivative):
        need(given is None or callable(given))
    if a.derivative is not None or a.loss_derivative is not None:
        return [(w.shape, b.shape) for w, b in result] == [(w.shape, b.shape) for w, b in layers_]
    if np.isnan(result[0].weight).any() or np.shape(a.activation(z)) != z.shape:
        return True
    shapes = [(w.shape, b.shape) for w, b in layers_]
    delta = (weights / weights.sum())[:, None] * (z - y)
    last = numbers(a.activation(x @ layers_[0][0] + layers_[0][1])) if len(layers_) == 2 else x
    with np.errstate(all="ignore"):
        same_loss = "squared_error" in repr(a.loss) or "watched" in repr(a.loss)
        value = near(result[-1].weight, last.T @ delta, 0.05) or not same_loss
    return value and [(w.shape, b.shape) for w, b in result] == shapes


# --- datasets

NOISE = (None, reals())
CODING = (None, st.one_of(things(), st.tuples(reals(), reals()).map("({0[0]}, {0[1]})".format)))


def coded(bits: np.ndarray, coding: Any) -> np.ndarray:
    """Return bits as the numbers that stand for them."""
    low, high = coding
    need(real(low) != real(high))
    return np.where(bits, float(high), float(low))


@call("datasets.parity", num_bits=("2", st.one_of(counts(), st.integers(1, 6).map(repr))), coding=CODING)
def _(a: Any, result: Any) -> bool:
    bits = np.array(list(itertools.product((0, 1), repeat=whole(a.num_bits, 1, 20))))
    odd = bits.sum(1, keepdims=True) % 2
    return near(result.inputs, coded(bits, a.coding)) and near(result.targets, coded(odd, a.coding))


@call("datasets.xor", "parity", coding=CODING)
def _(a: Any, result: Any) -> bool:
    return near(result.targets[:, 0], coded(np.array([0, 1, 1, 0]), a.coding))


@call("datasets.sawtooth", depth=("2", counts()), points_per_piece=(None, counts()))
def _(a: Any, result: Any) -> bool:
    depth, points = whole(a.depth, 1, 20), whole(a.points_per_piece)
    x = np.arange(2**depth * points + 1) / (2**depth * points)
    y = x.copy()
    for _ in range(depth):
        y = 1 - np.abs(2 * y - 1)
    return near(result.inputs[:, 0], x) and near(result.targets[:, 0], y, 0.01)


@call("datasets.spirals", key=KEY, num_examples=("7", counts()), classes=(None, counts()),
      turns=(None, reals()), noise=NOISE)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    classes, noise, turns = whole(a.classes), real(a.noise, 0), real(a.turns)
    n = whole(a.num_examples, classes)
    inside = np.linalg.norm(result.inputs, axis=1) <= 1 + 10 * noise + 1e-3
    return near(result.targets, np.arange(n) % classes) and (bool(np.all(inside)) or abs(turns) > 1e30)


@call("datasets.teacher_student", key=KEY, num_examples=("4", COUNTS), num_inputs=("2", COUNTS),
      teacher=("lambda x: x[:, :1]", functions_of("lambda x: x[:, :1]")), noise=NOISE)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    n, d, noise = whole(a.num_examples), whole(a.num_inputs), real(a.noise, 0)
    labels = numbers(a.teacher(result.inputs), 2, finite=True, kinds="f")
    need(labels.shape[0] == n and labels.shape[1])
    return result.inputs.shape == (n, d) and (near(result.targets, labels, 10 * noise + 1e-4) or noise > 1)


TABLE = ("[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]", arrays((3, 2)))
TARGETS = (
    "[0, 1, 1]",
    st.one_of(
        arrays((3,), (3, 1)),
        st.sampled_from(
            (
                "[-1, 0, 1]",
                "[0, 1, 2**40]",
                "np.array([2**63, 0, 1], np.uint64)",
                "[0.5, nan, 1.0]",
                "[True, False, True]",
            )
        ),
    ),
)


def examples(inputs: Any, targets: Any, result: Any) -> bool:
    """Return whether Examples are the inputs and targets given; raise where these are illegal."""
    x, y = numbers(inputs, 2, finite=True), numbers(targets, finite=True)
    need(x.size and y.ndim and len(y) == len(x) and np.all(np.isfinite(x.astype(np.float32))))
    if np.asarray(targets).dtype.kind in "iu":
        need(y.ndim == 1 and np.all((y >= 0) & (y < 2**31)))
    else:
        y = y[:, None] if y.ndim == 1 else y
        need(y.ndim == 2 and y.size and np.all(np.isfinite(y.astype(np.float32))))
    return near(result.inputs, x) and near(result.targets, y) and result.inputs.dtype == jnp.result_type(float)


@call("datasets.as_examples", "data", inputs=TABLE, targets=TARGETS)
def _(a: Any, result: Any) -> bool:
    return examples(a.inputs, a.targets, result)


DATASET = ("datasets.Dataset(datasets.as_examples([[1.0, 7.0], [3.0, 7.0]], [0, 1]),"
           " datasets.as_examples([[5.0, 8.0]], [0]))")  # fmt: skip


@call("datasets.standardize", "train", "test", data=(DATASET, st.one_of(
    things(), arrays((2, 2)).map("datasets.Dataset(({}, [0, 1]), (np.ones((1, 2)), [0]))".format),
    arrays((2, 2)).map("datasets.Dataset((np.ones((2, 2)), [0, 1]), ({}, [0, 1]))".format))))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    (x, _), (x2, _) = a.data
    x, x2 = numbers(x, 2, finite=True), numbers(x2, 2, finite=True)
    need(x.size and x2.size and x.shape[1] == x2.shape[1])
    scale = np.where(np.ptp(x, 0) == 0, 1, x.std(0))
    with np.errstate(all="ignore"):
        return near(result.train.inputs, (x - x.mean(0)) / scale, 0.01) and near(
            result.test.inputs, (x2 - x.mean(0)) / scale, 0.01
        )


@call("datasets.stratified_split", targets=("np.array([0, 0, 0, 1, 1, 1])", arrays((6,))),
      test_size=("2", counts()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    targets = np.asarray(a.targets)
    need(targets.ndim == 1 and targets.dtype.kind in "iubfU" and targets.dtype != object)
    need(targets.dtype.kind in "iubU" or not np.any(np.isnan(targets)))
    size = whole(a.test_size, 1, len(targets) - 1)
    train, test = result
    share = size / len(targets)
    fair = all(abs(np.sum(targets[test] == c) - share * np.sum(targets == c)) < 1 for c in np.unique(targets))
    return fair and len(test) == size and sorted([*train, *test]) == list(range(len(targets)))


@call("datasets.load", name=("'iris'", st.one_of(things(), st.text(max_size=9).map(repr), st.sampled_from(
    ("'Digits'", "'digits '", "['iris']", "'wine'", "'diabetes'")))), weight=0.3)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    shapes = {"iris": (120, 4), "wine": (142, 13), "diabetes": (354, 10), "digits": (1500, 64)}
    return result.train.inputs.shape == shapes[a.name]


@call("datasets.mnist1d", key=KEY, num_examples=("50", st.one_of(counts(), st.just("20"))), weight=0.1)
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    n = whole(a.num_examples, 10)
    need(n % 10 == 0)
    return result.train.inputs.shape == (n * 4 // 5, 40)


# --- files


MAX_BYTES = (None, counts())


def in_file(content: Source) -> Source:
    """Return sources of files with some content, or of paths where there is none."""
    return st.one_of(content.map("file({})".format), content.map("file({})".format), paths())


def unexploded() -> None:
    """Raise Illegal if something was unpickled."""
    need(not hostile.Bomb.exploded)


@call("datasets.read_idx", "nowhere", "data", path=("file(idx(8, (3,), bytes(3)))", in_file(idx_files())),
      max_bytes=MAX_BYTES, weight=4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    content = pathlib.Path(a.path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    dtype = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}[content[2]]
    need(content[:2] == b"\0\0")
    axes_ = content[3]
    shape = np.frombuffer(content[4 : 4 + 4 * axes_], ">u4")
    body = np.frombuffer(content[4 + 4 * axes_ :], dtype).reshape(tuple(map(int, shape)))
    need(len(shape) == axes_ > 0 and body.size and 1 <= a.max_bytes >= body.nbytes)
    return result.shape == body.shape and near(result, body)


def folder(images: bytes, labels: bytes = b"\0\0\x08\x01\0\0\0\x01\x03") -> str:
    """Return a folder with four IDX files."""
    for part in ("train", "t10k"):
        file(images, f"{part}-images-idx3-ubyte")
        file(labels, f"{part}-labels-idx1-ubyte")
    return str(FILES)


NAMES |= {"folder": folder}


@call("datasets.load_folder", "nowhere", "train", "t10k", "data",
      path=("folder(idx(8, (1, 1, 2), bytes(2)))", st.one_of(idx_files().map("folder({})".format), paths(),
          idx_files().map("folder(idx(8, (1, 1, 2), bytes(2)), {})".format),
          st.integers(0, 3).map("folder(idx(8, (1, {0}, 2), bytes(2 * {0})))".format))),
      max_bytes=MAX_BYTES)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    raw = (FILES / "train-images-idx3-ubyte").read_bytes()
    labels = (FILES / "train-labels-idx1-ubyte").read_bytes()
    need(raw[:4] == b"\0\0\x08\x03" and labels[:4] == b"\0\0\x08\x01" and len(labels) > 8 and a.max_bytes >= 1)
    n, rows, columns = (int(k) for k in np.frombuffer(raw[4:16], ">u4"))
    pixels = np.frombuffer(raw[16:], np.uint8).reshape(n, rows * columns)
    return near(result.train.inputs, pixels / 255) and near(result.train.targets, list(labels[8:]))


@call("datasets.load_npz", "nowhere", "data", "train", "test", path=(f"file({hostile._NPZ})", in_file(npz_files())),
      scale=(None, reals()), max_bytes=MAX_BYTES, weight=4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    unexploded()
    with np.load(a.path, allow_pickle=False) as arrays_:
        for part, got in (("train", result.train), ("test", result.test)):
            x, y = arrays_[f"x_{part}"], arrays_[f"y_{part}"]
            scale = (255 if x.dtype == np.uint8 else 1) if a.scale is None else real(a.scale, 1e-300)
            with np.errstate(all="ignore"):
                if not examples((numbers(x) / scale).reshape(len(x), -1), y, got):
                    return False
    need(a.max_bytes >= 1)
    return True


# --- training, sweep, gradient_noise


DATA = ("(jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), jnp.array([1.0, 2.0, 3.0]))", st.one_of(
    things(), arrays((3, 2)).map("({}, jnp.ones(3))".format),
    arrays((3,)).map("(jnp.ones((3, 2)), {})".format),
    st.sampled_from(("(jnp.ones((3, 2)), jnp.ones(3), jnp.ones(3))", "(jnp.ones((3, 2)),)", "jnp.ones((2, 3))",
                     "{'inputs': jnp.ones((3, 2)), 'targets': jnp.ones(3)}"))))  # fmt: skip
OPTIMIZERS = st.one_of(
    things(),
    st.sampled_from(("optax.sgd", "optax.sgd(nan)", "optax.sgd(-0.1)", "optax.sgd(0.0)", "optax.sgd(inf)",
                     "optax.sgd(1e30)", "optax.adam(0.1)", "(len, len)", "raises", "optax.identity()",
                     "optax.sgd(raises)", "optax.GradientTransformation(raises, raises)",
                     "optax.GradientTransformation(returns_none, returns_none)")),
)  # fmt: skip
PARTS = {
    "key": KEY,
    "loss": ("fit", functions_of("fit")),
    "params": ("jnp.zeros(2)", trees((2,))),
    "data": DATA,
}


def pair(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets of equal length."""
    need(isinstance(data, tuple | list) and len(data) == 2)
    x, y = np.asarray(data[0]), np.asarray(data[1])
    need(x.ndim and y.ndim and len(x) == len(y) > 0 and x.dtype.kind in "fiub" and y.dtype.kind in "fiub")
    return x, y


@call("training.train", "learning rate", "criterion", "patience", "min improvement", **PARTS,
      optimizer=("optax.sgd(0.1)", OPTIMIZERS), batch_size=("3", counts()), epochs=("2", counts()),
      record=(None, functions_of("lambda state: state.params")), record_every=(None, counts()),
      early_stopping=(None, st.one_of(things(), functions().map(
          "training.EarlyStopping({}, (), 1)".format), counts().map(
          "training.EarlyStopping(square, (), {})".format), reals().map(
          "training.EarlyStopping(square, (), 2, {})".format), st.just("training.EarlyStopping(square, None, 1)"))),
      weight=0.5)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    x, y = pair(a.data)
    params, history = result
    a_key(a.key)
    floating(a.params)
    batch, epochs = whole(a.batch_size, 1, len(x)), whole(a.epochs, 1, 10**9)
    need(history.loss.shape == (epochs,) and jax.tree.structure(params) == jax.tree.structure(a.params))
    need(a.record is None or callable(a.record))
    need(a.record_every is None or (a.record is not None and whole(a.record_every) <= epochs * -(-len(x) // batch)))
    finite = all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
    if not finite or a.early_stopping is not None or batch < len(x):
        return finite or int(history.diverged_at) > 0 or a.early_stopping is not None
    rates = {"optax.sgd(0.1)": 0.1, "optax.sgd(-0.1)": -0.1, "optax.sgd(0.0)": 0.0}
    source = {repr(optimizer): rate for optimizer, rate in rates.items()}
    w = np.asarray(a.params, float)
    if w.shape != (2,) or x.shape[1:] != (2,) or y.ndim != 1 or a.optimizer is None or "fit" not in repr(a.loss):
        return True
    step = np.asarray(
        optax.tree.sub(a.optimizer.update(jnp.ones(2), a.optimizer.init(jnp.ones(2)), jnp.ones(2))[0], 0.0)
    )
    del source
    if not np.allclose(step, step[0]) or "adam" in repr(a.optimizer):
        return True
    for _ in range(epochs):
        w = w + step[0] * x.T @ (x @ w - y) / len(x)
    return near(params, w, 0.01)


STATE = "training.State(jnp.zeros(2), optax.sgd(0.1).init(jnp.zeros(2)), jnp.array(0), jax.random.key(0))"


@call("training.apply", optimizer=("optax.with_extra_args_support(optax.sgd(0.1))", OPTIMIZERS),
      state=(STATE, things()), value=("jnp.array(1.0)", arrays(())), gradient=VECTOR,
      value_fn=("square", functions()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    slope, updates = numbers(a.gradient), a.optimizer.update
    need(slope.shape == (2,) and callable(updates) and callable(a.value_fn) and np.shape(a.value) == ())
    need(jnp.issubdtype(jnp.asarray(a.value).dtype, jnp.floating))
    return result.step == 1 and (a.optimizer is None or np.shape(result.params) == (2,))


@call("training.order", key=KEY, epoch=("0", counts(0)), num_examples=("5", counts()))
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    whole(a.epoch, 0, 2**32 - 1)
    return sorted(result.tolist()) == list(range(whole(a.num_examples)))


@call("training.require_data", data=DATA)
def _(a: Any, result: Any) -> bool:
    return near_trees(result, tuple(a.data)) and len(pair(a.data)) == 2


@call("training.require_loss", "inputs", "data", loss=PARTS["loss"], params=PARTS["params"], key=PARTS["key"],
      inputs=("jnp.ones((3, 2))", arrays((3, 2))), targets=("jnp.ones(3)", arrays((3,))),
      batch_size=("3", counts()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    batch = whole(a.batch_size)
    floating(a.params)
    need(callable(a.loss) and np.asarray(a.inputs).dtype.kind in "fiub" and np.asarray(a.targets).dtype.kind in "fiub")
    need(np.ndim(a.inputs) and np.ndim(a.targets) and batch)
    return result is None


@call("training.widest_dtype", params=PARTS["params"])
def _(a: Any, result: Any) -> bool:
    floating(a.params, finite=False)
    return result == max((jnp.result_type(leaf) for leaf in jax.tree.leaves(a.params)), key=lambda d: d.itemsize)


def lists_of(values: Source) -> Source:
    """Sources of lists, duplicates among them."""
    return st.one_of(
        st.lists(values, max_size=3).map(lambda v: f"[{', '.join(v)}]"),
        values.map("[{0}, {0}]".format),
        things(),
    )


@call("sweep.run", "settings", "init", "updates", "data", "batch", key=KEY, loss=PARTS["loss"], data=DATA,
      init=("start", functions_of("start")), batch_sizes=("[3]", lists_of(counts())),
      learning_rates=("[0.1]", st.one_of(lists_of(reals()), st.sampled_from(("{3: [0.1]}", "{2: [0.1]}")))),
      seeds=("2", st.one_of(counts(), lists_of(counts(0)))), epochs=("2", counts()),
      updates=(None, st.one_of(counts(), st.just("{3: 2}"))),
      optimizer=(None, st.one_of(functions_of("optax.sgd"), st.just("optax.sgd(0.1)"))),
      settings=(None, st.one_of(things(), st.sampled_from(("{'momentum': [0.9]}", "{'seed': [1]}",
          "{'momentum': []}", "{'momentum': [nan]}", "{'nothing': [1.0]}", "{'momentum': 0.9}", "{1: [0.9]}")))),
      loss_settings=(None, st.one_of(things(), st.sampled_from(("{'key': [0.9]}", "{'loss': [1]}",
          "{'nothing': [1.0]}")))),
      record=(None, functions_of("lambda state: state.params")), records=(None, counts()),
      programs=(None, st.one_of(things(), st.just("'per batch size'"))), micro_batch=(None, counts()),
      lanes_at_once=(None, counts()), progress=(None, functions()), weight=0.5)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    x, y = pair(a.data)
    a_key(a.key)
    sizes = [whole(size, 1, len(x)) for size in a.batch_sizes]
    rates = a.learning_rates[3] if isinstance(a.learning_rates, dict) else a.learning_rates
    rates = [real(rate) for rate in rates]
    seeds = list(range(whole(a.seeds))) if np.ndim(a.seeds) == 0 else [whole(s, 0, 2**32 - 1) for s in a.seeds]
    need(len(seeds) and len(rates) and len(sizes) and (a.epochs is None) != (a.updates is None))
    need(a.progress is None or callable(a.progress))
    need(a.lanes_at_once is None or whole(a.lanes_at_once))
    for setting in (a.settings, a.loss_settings):
        need(setting is None or isinstance(setting, dict))
    shape = [len(sizes), len(rates), *(len(v) for v in (a.settings or {}).values()), len(seeds)]
    if list(result.diverged_at.shape) != shape or np.any(np.isnan(result.loss)):
        return False
    if sizes != [3] or a.init is not start or x.shape != (3, 2) or y.shape != (3,) or "fit" not in repr(a.loss):
        return True
    if a.settings or a.updates is not None or a.optimizer is not optax.sgd:
        return True
    for (i, rate), (j, seed) in itertools.product(enumerate(rates), enumerate(seeds)):
        w = np.asarray(start(jax.random.split(jax.random.fold_in(a_key(a.key), seed))[0]), float)
        with np.errstate(all="ignore"):
            for _ in range(whole(a.epochs)):
                w = w - rate * x.T @ (x @ w - y) / len(x)
        if result.diverged_at[0, i, j] == 0 and not near(result.params[0, i, j], w, 0.02):
            return False
    return True


EXAMPLES = ("(jnp.array([[1.0, 0.0], [2.0, 1.0], [0.0, 1.0]]),)", st.one_of(
    things(), arrays((3, 2)).map("({},)".format), arrays((3, 2)), st.just("()"),
    arrays((3, 2)).map("({}, jnp.ones(3))".format)))  # fmt: skip
MEAN = {"per_example": ("per_example", functions_of("per_example")), "params": VECTOR, "args": EXAMPLES}


def gradients(a: Any) -> np.ndarray:
    """Return the gradients of ½ (x p)² of each example, (n, 2)."""
    (p,), x = floating(a.params), numbers(a.args[0], 2, finite=True, kinds="fiub")
    need(isinstance(a.args, tuple) and len(a.args) == 1 and p.shape == (2,) and len(x))
    return x * (x @ p)[:, None]


@call("gradient_noise.exact", **MEAN, chunk_size=(None, counts()))
def _(a: Any, result: Any) -> bool:
    whole(a.chunk_size)
    if not is_own(a.per_example):
        return True
    g = gradients(a)
    mean = g.mean(0)
    with np.errstate(all="ignore"):
        return near(result.squared_gradient, mean @ mean, 0.01) and near(
            result.trace, ((g - mean) ** 2).sum(1).mean(), 0.01
        )


@call("gradient_noise.two_batches", "batch sizes", small=("jnp.array(5.0)", arrays(())),
      large=("jnp.array(4.5)", arrays(())), small_size=("1", counts()),
      large_size=("2", counts()), num_examples=(None, counts()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    n = np.inf if a.num_examples is None else whole(a.num_examples)
    large = whole(a.large_size, 1, n)
    small = whole(a.small_size, 1, large - 1)
    low, high = numbers(a.small, kinds="fiub"), numbers(a.large, kinds="fiub")
    c = [1 / b if n == np.inf else (n - b) / (b * (n - 1)) for b in (small, large)]
    with np.errstate(all="ignore"):
        return near(result.trace, (low - high) / (c[0] - c[1]), 0.05)


@call("gradient_noise.estimate", "batch sizes", key=KEY, **MEAN, small=("1", counts()), large=("2", counts()),
      num_pairs=("4", counts()), replace=BOOLEAN, weight=0.3)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    large = whole(a.large, 1, len(a.args[0]) if not a.replace else np.inf)
    whole(a.small, 1, large - 1)
    whole(a.num_pairs, 2)
    if not is_own(a.per_example):
        return True
    gradients(a)
    return bool(np.all(np.isfinite(result.value.trace)))


@call("gradient_noise.fit_tradeoff", batch_sizes=("[1, 4, 16, 64]", arrays((4,))),
      updates=("[90.0, 30.0, 15.0, 11.0]", arrays((4,))), reached=(None, arrays((4,))), weight=0.5)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    sizes, updates = (numbers(v, 1, finite=True, kinds="fiub") for v in (a.batch_sizes, a.updates))
    hit = np.ones(len(sizes), bool) if a.reached is None else np.asarray(a.reached)
    need(hit.dtype == bool and sizes.shape == updates.shape == hit.shape and np.all(sizes > 0) and np.all(updates > 0))
    return result.min_updates > 0 and result.min_examples > 0


# --- curvature


FACTORS = (1e-300, 1e-200, 1e-100, 1e-30, 1e-25, 1e-10, 1.0, 1e10, 1e25, 1e30, 1e100, 1e200, 1e300)
FUN = (
    "saddle",
    st.one_of(
        functions_of("saddle"),
        functions_of("saddle"),
        st.sampled_from([f"scaled({factor})" for factor in FACTORS]),
    ),
)
MATVEC = ("spread(1.0)", st.one_of(functions_of("spread(1.0)"), functions_of("spread(1.0)"),
          st.sampled_from([f"spread({factor})" for factor in FACTORS])))  # fmt: skip


def factor_of(function: Any, dtype: Any = np.float64) -> float:
    """Return what a function is multiplied by; raise Unknown where a dtype cannot hold it."""
    factor = getattr(function, "factor", 1.0)
    if not 1e-37 < factor < 1e37 and np.dtype(dtype).itemsize <= 4:
        raise Unknown
    return factor


def point(params: Any) -> np.ndarray:
    """Return params of two numbers."""
    (p,) = floating(params)
    need(p.shape == (2,))
    return p


def no_data(args: Any) -> None:
    """Raise Illegal unless args are a tuple of finite arrays."""
    need(isinstance(args, tuple) and all(np.asarray(x).dtype.kind in "fiub" for x in jax.tree.leaves(args)))
    need(all(np.all(np.isfinite(x)) for x in jax.tree.leaves(args)))


@call("curvature.hessian", fun=FUN, params=VECTOR, args=ARGS)
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    p = floating(a.params)
    if not is_own(a.fun):
        return True
    need(len(p) == 1 and p[0].shape == (2,))
    factor = factor_of(a.fun, jnp.result_type(a.params))
    return near(np.asarray(result(jnp.asarray([1.0, 3.0], jnp.result_type(a.params))), float) / factor, [2, -6])


@call("curvature.dense_hessian", "Hessian", fun=FUN, params=VECTOR, args=ARGS, max_bytes=(None, counts()))
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    need(a.max_bytes is None or whole(a.max_bytes, 96))
    p = floating(a.params)
    if not is_own(a.fun):
        return True
    need(len(p) == 1 and p[0].shape == (2,))
    return near(np.asarray(result) / factor_of(a.fun), [[2, 0], [0, -2]]) and result.dtype == np.float64


CHUNK = (None, counts())


def products(a: Any, matrix: np.ndarray, result: Any) -> bool:
    """Return whether a matvec is that of a matrix."""
    return near(result(jnp.asarray([1.0, 3.0], jnp.result_type(a.params))), matrix @ [1, 3], 0.02)


def shares(weights: Any, n: int) -> np.ndarray:
    """Return weights that add up to 1."""
    w = np.ones(n) if weights is None else numbers(weights, 1, finite=True, kinds="fiub")
    need(w.shape == (n,) and np.all(w >= 0) and np.any(w))
    return w / w.max() / (w / w.max()).sum()


@call("curvature.hessian_of_mean", **MEAN, weights=WEIGHTS, chunk_size=CHUNK)
def _(a: Any, result: Any) -> bool:
    need(a.chunk_size is None or whole(a.chunk_size))
    x = numbers(a.args[0], 2, finite=True, kinds="fiub")
    if not is_own(a.per_example):
        return True
    gradients(a)
    with np.errstate(all="ignore"):
        return products(a, x.T @ (shares(a.weights, len(x))[:, None] * x), result)


MODEL = {
    "model": ("linear", functions_of("linear")),
    "loss": ("half_square", functions_of("half_square")),
    "params": VECTOR,
    "args": ("(jnp.array([[1.0, 0.0], [2.0, 1.0]]), jnp.zeros(2))", EXAMPLES[1]),
    "weights": WEIGHTS,
    "chunk_size": CHUNK,
}
for _name in ("ggn", "fisher", "empirical_fisher"):
    _more: dict[str, Any] = {}
    if _name == "fisher":
        _more = {"sample": (None, functions_of("lambda key, z: z + jax.random.normal(key)")),
                     "key": (None, keys()), "num_samples": (None, counts())}  # fmt: skip

    @call(f"curvature.{_name}", **MODEL, **_more)
    def _(a: Any, result: Any, name: str = _name) -> bool:
        need(a.chunk_size is None or whole(a.chunk_size))
        x, y = (numbers(v, finite=True, kinds="fiub") for v in a.args)
        need(x.ndim == 2 and len(a.args) == 2 and callable(a.model) and callable(a.loss) and len(x) == len(y) > 0)
        if name == "fisher" and a.sample is not None:
            a_key(a.key)
            return whole(a.num_samples) > 0 and callable(a.sample)
        need(name != "fisher" or (a.key is None and a.num_samples == 1))
        if not is_own(a.model) or not is_own(a.loss):
            return True
        p = point(a.params)
        need(y.shape == (len(x),))
        residual = np.ones(len(x)) if name != "empirical_fisher" else (x @ p - y) ** 2
        with np.errstate(all="ignore"):
            return products(a, x.T @ ((shares(a.weights, len(x)) * residual)[:, None] * x), result)


@call("curvature.inertia", matrix=("np.array([[2.0, 1.0], [1.0, -3.0]])", st.one_of(
          arrays((2, 2)), st.lists(st.floats(), min_size=3, max_size=3).map(
              lambda v: f"np.array([[{v[0]}, {v[1]}], [{v[1]}, {v[2]}]])"),
          st.sampled_from(("np.array([[1.0, 2.0], [3.0, 4.0]])", "[[1, 2], [2, 1]]", "np.diag([1e308, -1e308, 1e-308])",
                           "np.full((2, 2), 1e308)", "np.diag([5e-324, -5e-324])")))),
      error=(None, st.one_of(reals(), arrays((2,), (2, 2)))), scale=(None, arrays((2,))), weight=2)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    matrix = numbers(a.matrix, 2, finite=True)
    need(matrix.size and matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, matrix.T))
    error = np.zeros(()) if a.error is None else numbers(a.error, finite=True, kinds="fiub")
    need(error.shape in ((), matrix.shape[:1], matrix.shape) and np.all(error >= 0))
    if a.scale is not None:
        scale = numbers(a.scale, 1, finite=True)
        need(scale.shape == matrix.shape[:1] and np.all(scale > 0))
    size = np.abs(matrix).max() or 1.0
    values = np.linalg.eigvalsh(matrix / size) * size
    allowed = error.max() * len(matrix) + 1e-12 * size
    low, high = np.sum(values < -allowed), np.sum(values > allowed)
    surely = result.negative <= len(matrix) - high and result.positive <= len(matrix) - low
    return bool(surely and sum(result[:3]) == len(matrix) and min(result[:3]) >= 0)


@call("curvature.eigenpairs", "smallest + largest", "called", matvec=MATVEC, params=VECTOR, key=KEY,
      smallest=("1", counts(0)), largest=("1", counts(0)), tolerance=(None, reals()),
      max_matvecs=(None, counts()), basis_size=(None, counts()), block_size=(None, counts()),
      hessian=(None, functions_of("lambda: 2 * jnp.eye(2)")), dense_limit=(None, st.one_of(counts(0),
      st.just("0"))), weight=0.5)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    p = floating(a.params)
    size = sum(leaf.size for leaf in p)
    count = whole(a.smallest, 0, size) + whole(a.largest, 0, size)
    need(1 <= count <= size and real(a.tolerance) > 0)
    need(a.dense_limit is None or whole(a.dense_limit, -np.inf) < np.inf)
    for number in (a.max_matvecs, a.basis_size, a.block_size):
        need(number is None or whole(number))
    need(a.hessian is None or callable(a.hessian))
    if not is_own(a.matvec) or (a.hessian is not None and not is_own(a.hessian)):
        return bool(np.all(np.isfinite(result.values)))
    true = np.sort([-1.0, 2.0] if [leaf.shape for leaf in p] == [(2,)] else 2 * np.ones(size))
    wanted = np.concatenate([true[: whole(a.smallest, 0)], true[size - whole(a.largest, 0) :]])
    values = np.asarray(result.values, float) / factor_of(a.matvec, result.values.dtype)
    return near(values, wanted, 1e-2) or not np.all(result.converged)


PROBES = (None, st.one_of(counts(), st.just("3")))
for _name in ("trace", "diagonal", "spectral_density"):
    _more = {} if _name != "spectral_density" else {"num_steps": (None, counts())}

    @call(f"curvature.{_name}", matvec=MATVEC, params=VECTOR, key=KEY, num_probes=PROBES, **_more, weight=0.5)
    def _(a: Any, result: Any, name: str = _name) -> bool:
        a_key(a.key)
        p = floating(a.params)
        probes = whole(a.num_probes)
        if not is_own(a.matvec):
            return True
        factor = factor_of(a.matvec, jnp.result_type(*jax.tree.leaves(a.params)))
        diagonal = [np.array([-1.0, 2.0]) if leaf.shape == (2,) else 2 * np.ones_like(leaf) for leaf in p]
        if name == "trace":
            return near(np.asarray(result.value, float) / factor, sum(np.sum(leaf) for leaf in diagonal), 0.01)
        if name == "diagonal":
            return near_trees([np.asarray(x, float) / factor for x in jax.tree.leaves(result.value)], diagonal, 0.01)
        mean = np.sum(np.asarray(result.nodes, float) / factor * np.asarray(result.weights, float))
        ends = np.ptp(np.asarray(result.nodes, float) / factor) if whole(a.num_steps) > 1 else None
        exact = np.concatenate([np.ravel(leaf) for leaf in diagonal])
        same = np.isclose(mean, exact.mean(), 0.02) and (ends is None or np.isclose(ends, np.ptp(exact), 0.02, 0.02))
        return bool(same) and near(result.weights.sum(), 1) and result.nodes.shape[0] == probes


@call("curvature.quadratic_model", fun=FUN, params=VECTOR, args=ARGS)
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    if not is_own(a.fun):
        return len(floating(a.params)) > 0
    point(a.params)
    factor = factor_of(a.fun, jnp.result_type(a.params))
    return near(np.asarray(result(jnp.asarray([3.0, 1.0], jnp.result_type(a.params))), float) / factor, 8, 0.05)


@call("curvature.taylor_remainder", fun=FUN, params=VECTOR, direction=VECTOR, steps=("jnp.array([0.1, 0.2])",
      arrays((2,))), args=ARGS)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    alike(a.params, a.direction)
    floating(a.params), floating(a.direction, finite=False)
    steps = numbers(a.steps, 1)
    need(np.all(np.isfinite(steps)) and np.all(steps != 0))
    return not is_own(a.fun) or bool(np.all(np.asarray(result.values) <= 0.1) or not np.all(np.abs(steps) < 10))


@call("curvature.log_log_slope", x=("jnp.array([1.0, 2.0, 4.0])", arrays((3,))),
      y=("jnp.array([1.0, 8.0, 64.0])", arrays((3,))), mask=(None, arrays((3,))))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    x, y = numbers(a.x, 1), numbers(a.y, 1)
    mask = np.ones(len(x), bool) if a.mask is None else numbers(a.mask, 1, finite=True, kinds="fiub") != 0
    need(x.shape == y.shape == mask.shape)
    with np.errstate(all="ignore"):
        u, v = np.log(x[mask]), np.log(y[mask])
        if len(u) < 2 or not np.all(np.isfinite(u)) or np.ptp(u) == 0 or not np.all(np.isfinite(v)):
            return bool(np.isnan(result)) or len(u) > 1
        return near(result, np.polyfit(u, v, 1)[0], 0.05)


@call("curvature.rounding_unit", fun=FUN, params=VECTOR, args=ARGS)
def _(a: Any, result: Any) -> bool:
    need(isinstance(a.args, tuple) and callable(a.fun))
    floating(a.params, finite=False)
    return result in (2.0**-53, 2.0**-24) or not is_own(a.fun)


DENSITY = "curvature.Density(nodes=jnp.array([[0.0, 1.0]]), weights=jnp.array([[0.5, 0.5]]))"


@call("curvature.Density.smooth", self=(DENSITY, st.just(DENSITY)), grid=("jnp.array([0.0, 1.0])", arrays((2,))),
      width=("1.0", reals()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    grid, width = numbers(a.grid, finite=True, kinds="f"), real(a.width)
    need(width > 0)
    with np.errstate(all="ignore"):
        expected = sum(scipy.stats.norm(node, width).pdf(grid) / 2 for node in (0.0, 1.0))
        return near(result.value, expected, 0.05) or not 1e-3 < width < 1e3


@call("curvature.Density.expectation", self=(DENSITY, st.just(DENSITY)), fun=("jnp.sin", functions_of("jnp.sin")))
def _(a: Any, result: Any) -> bool:
    return a.fun is not jnp.sin or near(result.value, np.sin(1) / 2)


# --- mlp_hessian, mlp_symmetry


NETWORK = {
    "params": PARAMS,
    "inputs": INPUTS,
    "targets": ("jnp.zeros((2, 1))", arrays((2, 1))),
    "loss": LOSS,
    "activation": ACTIVATION,
    "weights": WEIGHTS,
    "penalty": (None, functions_of("square")),
    "gauss_newton": BOOLEAN,
    "residual": BOOLEAN,
    "max_bytes": (None, counts()),
}


def mlp_loss(a: Any, vector: np.ndarray) -> float:
    """Return the loss at a vector of params of the shapes of a.params, in numpy."""
    made, first = [], 0
    for weight, bias in a.params:
        size = np.size(weight)
        made.append((vector[first : first + size].reshape(np.shape(weight)), vector[first + size :][: np.size(bias)]))
        first += size + np.size(bias)
    z = through(made, a.inputs, np.tanh)
    value = shares(a.weights, len(z)) @ (0.5 * ((z - numbers(a.targets, 2, kinds="fiub")) ** 2).sum(1))
    return float(value + (vector @ vector if a.penalty is not None else 0))


def mlp_matrix(a: Any) -> np.ndarray | None:
    """Return the Hessian by differences, or None where there is another activation, loss or penalty."""
    layers_ = network(a.params)
    for leaf in jax.tree.leaves((a.params, a.inputs, a.targets)):
        numbers(leaf, finite=True, kinds="fiub")
    need(callable(a.loss) and callable(a.activation) and (a.penalty is None or callable(a.penalty)))
    need(a.gauss_newton or a.residual)
    need(a.max_bytes is None or whole(a.max_bytes))
    through(layers_, a.inputs, a.activation)
    own = all(is_own(f) for f in (a.loss, a.activation, a.penalty or square))
    if not own or not (a.gauss_newton and a.residual):
        return None
    vector = np.concatenate([np.ravel(leaf) for layer in layers_ for leaf in layer])
    if np.abs(vector).max() > 3 or np.abs(numbers(a.inputs)).max() > 3 or np.abs(numbers(a.targets)).max() > 3:
        return None
    return gradient_of(lambda v: gradient_of(lambda u: mlp_loss(a, u), v), vector)


@call("mlp_hessian.dense", "hessian", "values", **NETWORK, weight=0.4)
def _(a: Any, result: Any) -> bool:
    matrix = mlp_matrix(a)
    return matrix is None or near(result, matrix, 0.01)


@call("mlp_hessian.blocks", "hessian", "values", layers=("(0, 1)", st.one_of(things(), st.tuples(
      counts(0), counts(0)).map("({0[0]}, {0[1]})".format))), **NETWORK, weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    matrix = mlp_matrix(a)
    ends = np.cumsum([0, *(np.size(w) + np.size(b) for w, b in a.params)])
    i, j = (whole(n, 0, len(a.params) - 1) for n in a.layers)
    return matrix is None or near(result, matrix[ends[i] : ends[i + 1], ends[j] : ends[j + 1]], 0.01)


WIDTH = ("4", counts())
PHI = ("jnp.tanh", functions_of("jax.nn.relu"))


def an_activation(function: Any, width: int = 4) -> bool:
    """Return whether an activation is one of ours; raise unless it makes units of pre-activations."""
    need(callable(function))
    shape = np.shape(function(jnp.ones((8, width))))
    need(len(shape) == 2 and shape[0] == 8 and shape[1] and width % shape[1] == 0)
    return is_own(function)


@call("mlp_symmetry.traits", activation=PHI, width=WIDTH)
def _(a: Any, result: Any) -> bool:
    if not an_activation(a.activation, whole(a.width)):
        return True
    return result.separate and (result.odd if a.activation is jnp.tanh else result.homogeneous)


@call("mlp_symmetry.corners", activation=PHI, weight=0.4)
def _(a: Any, result: Any) -> bool:
    need(callable(a.activation) and np.shape(a.activation(jnp.ones(5))) == (5,))
    return not is_own(a.activation) or result == (() if a.activation is jnp.tanh else (0.0,))


@call("mlp_symmetry.kinks", activation=PHI, inputs=(None, functions()), weight=0.4)
def _(a: Any, result: Any) -> bool:
    need(callable(a.activation) and callable(a.inputs))
    need(np.shape(a.activation(jnp.ones((5, 12))))[:1] == (5,))
    return callable(result)


NETWORK_FUN = "lambda p, x: jnp.sum(mlp.forward(p, x) ** 2)"
ON_NETWORK = {
    "fun": (NETWORK_FUN, functions_of(f"({NETWORK_FUN})")),
    "params": PARAMS,
    "args": ("(jnp.array([[0.5, 1.0], [2.0, -1.0]]),)", ARGS[1]),
    "activation": ("jnp.tanh", functions_of("jnp.tanh")),
}


def on_network(a: Any) -> bool:
    """Return whether the function is our own network; raise if something is illegal."""
    no_data(a.args)
    layers_ = network(a.params)
    need(all(np.all(np.isfinite(leaf)) for layer in layers_ for leaf in layer))
    own = all(an_activation(a.activation, len(bias)) for _, bias in layers_[:-1])
    need(callable(a.fun))
    return own and is_own(a.fun)


@call("mlp_symmetry.maps", **ON_NETWORK, weight=0.2)
def _(a: Any, result: Any) -> bool:
    return not on_network(a) or all(layer.permutations and layer.flips for layer in result.layers)


@call("mlp_symmetry.tangents", **ON_NETWORK, inputs=INPUTS, weight=0.2)
def _(a: Any, result: Any) -> bool:
    own = on_network(a)
    need(numbers(a.inputs, 2, finite=True).shape[1] == len(network(a.params)[0][0]))
    return not own or not any("rescaling" in name for name in result.names)


@call("mlp_symmetry.split_lines", **ON_NETWORK, tolerance=(None, reals()), weight=0.2)
def _(a: Any, result: Any) -> bool:
    real(a.tolerance, 0)
    on_network(a)
    return jax.tree.structure(result) == jax.tree.structure(a.params)


# --- interval, critical


@functools.cache
def power(order: int, sign: float, place: float = 0.0, factor: float = 1.0) -> Callable[..., Any]:
    """Return factor · ((x₀ − place)² + sign · x₁^order), whose critical point is (place, 0)."""

    def fun(x: Any, *args: Any) -> Any:
        return factor * ((x[0] - place) ** 2 + sign * x[1] ** order)

    return fun


def constant(value: Any) -> Callable[..., Any]:
    """Return a function of anything that returns one array, in float64 where that is on."""
    return lambda *args: jnp.asarray(value, jnp.result_type(float))


NAMES |= {"power": power, "constant": constant}
MATRICES = st.one_of(
    functions(),
    arrays((2, 2)).map("constant({})".format),
    st.sampled_from(("constant([[2.0, 0.0], [0.0, -2.0]])", "constant([[2.0, 0.0], [0.0, 2.0]])",
                     "constant([[2.0, 5.0], [-5.0, -2.0]])", "curvature.dense_hessian")),
)  # fmt: skip
SYMMETRIES = st.one_of(
    functions(),
    arrays((1, 2), (2, 2)).map("constant({})".format),
    st.sampled_from(("constant([[0.0, 1.0]])", "constant([[1.0, 0.0]])", "constant([[1.0, 0.0], [0.0, 1.0]])",
                     "lambda x: jnp.stack([jnp.array([-x[1], x[0]])])", "lambda x: jnp.zeros((0, 2))",
                     "lambda x: jnp.stack([x])", "lambda x: jnp.array([[0.0, x[1] ** 3]])",
                     "lambda x: jnp.array([[0.0, jnp.where(x[1] == 0, 1.0, 0.0)]])")),
)  # fmt: skip
# Functions with a critical point of known kind: order, sign, place, factor.
KNOWN = [
    f"power({order}, {sign}, {place}, {factor})"
    for order in (2, 4, 6, 8)
    for sign in (-1.0, 1.0)
    for place in (0.0, 1.0, 1e-6)
    for factor in (1.0, 1e-200, 1e-30, 1e30, 1e200)
]
KNOWN_POINT = st.sampled_from(sorted(KNOWN, key=lambda source: not source.endswith(" 1.0)")))


def truth(fun: Any) -> tuple[int, float, float, float] | None:
    """Return order, sign, place and factor of a function that `power` made."""
    return next((eval(source.removeprefix("power")) for source in KNOWN if evaluate(source) is fun), None)


def wrong_name(said: str, order: int, sign: float) -> bool:
    """Return whether a verdict contradicts what is known of (x₀ − c)² + sign · x₁^order."""
    if said.startswith(("minimum", "maximum")):
        return not (said == "minimum" and order == 2 and sign > 0)
    if said == "saddle":
        return not (order == 2 and sign < 0)
    if said == "degenerate saddle":
        return not (order > 2 and sign < 0)
    return said == "degenerate" and order == 2


AT = ("jnp.array([0.0, 0.0])", st.one_of(arrays((2,)), st.sampled_from((
    "jnp.array([1.0, 0.0])", "jnp.array([1e-9, 0.0])", "jnp.array([0.0, 1e-9])", "jnp.array([0.0, 1e-30])",
    "np.array([1e-6, 0.0])", "np.array([5e-324, 0.0])", "jnp.array([0.0, 1e-3])"))))  # fmt: skip
POINT_ARGS = (None, st.one_of(ARGS[1], st.just("()")))


@call("critical.classify", "gradient", "Hessian", "result", weight=2,
      fun=("power(2, -1.0, 0.0, 1.0)", st.one_of(functions(), KNOWN_POINT, KNOWN_POINT)), params=AT, args=POINT_ARGS,
      hessian=(None, MATRICES), symmetries=(None, SYMMETRIES), kinks=(None, st.one_of(functions(),
      arrays((2,)).map("constant({})".format))), key=(None, keys()), evidence=(None, st.one_of(
      things(), st.sampled_from(("'dense'", "'lanczos'", "'proved'")))))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    p = floating(a.params)
    need(a.key is None or a_key(a.key) is not None)
    need(all(f is None or callable(f) for f in (a.hessian, a.symmetries, a.kinks)))
    known = truth(a.fun)
    if known is None or len(p) != 1 or p[0].shape != (2,):
        # A function that returns NaN, or another one of those that misbehave and yet are functions.
        return result.kind in ("not critical", "undetermined", "nonsmooth", "degenerate") or is_own(a.fun)
    order, sign, place, _ = known
    if np.abs(p[0] - [place, 0]).max() > 1e-8 and result.kind not in ("not critical", "nonsmooth"):
        # Claims hold within `distance`: near is enough, and a quartic is nearly flat far around its point.
        return not wrong_name(result.kind, order, sign) or order > 2
    return not wrong_name(result.kind, order, sign)


@call(
    "critical.classify*",
    "gradient",
    "Hessian",
    weight=3,
    together=4,
    symmetries=(None, SYMMETRIES),
    fun=("power(4, -1.0, 0.0, 1.0)", KNOWN_POINT),
    evidence=(None, st.sampled_from(("'dense'", "'lanczos'", "'proved'"))),
    params=("jnp.zeros(2)", st.sampled_from(("jnp.zeros(2)", "jnp.array([1.0, 0.0])", "np.array([1e-6, 0.0])"))),
)
def _(a: Any, result: Any) -> bool:
    order, sign, place, _ = truth(a.fun) or (2, 1.0, 0.0, 1.0)
    if np.abs(np.asarray(a.params) - [place, 0]).max() > 0:
        return result.kind in ("not critical", "nonsmooth", "undetermined") or not wrong_name(result.kind, order, sign)
    return not wrong_name(result.kind, order, sign)


SEARCH = {
    "index": (None, counts(0)),
    "method": (None, st.one_of(functions(), st.sampled_from(("critical.newton_mr", "critical.levenberg_marquardt")))),
    "hessian": (None, MATRICES),
    "max_steps": (None, counts(huge=False)),
    "radius": (None, reals()),
}


def searched(a: Any) -> None:
    """Raise Illegal unless the settings of a search are legal."""
    no_data(a.args)
    whole(a.max_steps)
    need(a.radius is None or float(a.radius) > 0)
    need(a.index is None or whole(a.index, 0, 2) >= 0)
    need(a.index is None or a.method is None)
    need(all(f is None or callable(f) for f in (a.method, a.hessian)) and callable(a.fun))


@call("critical.find", "Hessian", fun=FUN, params=VECTOR, args=POINT_ARGS, **SEARCH, weight=1)
def _(a: Any, result: Any) -> bool:
    searched(a)
    if not is_own(a.fun):
        return len(floating(a.params)) > 0
    point(a.params)
    return near(result.params, [0, 0]) or not result.converged


@call("critical.find_many", "Hessian", "params", fun=FUN, starts=("jnp.array([[0.5, -1.0], [2.0, 1.0]])", arrays(
      (3, 2))), args=POINT_ARGS, **SEARCH, lanes=(None, counts()), weight=0.3)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    searched(a)
    need(a.lanes is None or whole(a.lanes))
    (starts,) = floating(a.starts, finite=False)
    if not is_own(a.fun):
        return True
    need(starts.ndim == 2 and starts.shape[1] == 2 and len(starts))
    return bool(np.all(np.isfinite(starts).all(1) | ~result.converged)) and near(
        result.params[result.converged], np.zeros((int(result.converged.sum()), 2))
    )


@call("critical.distinct", points=("critical.find_many(saddle, jnp.ones((2, 2)))", st.one_of(things(),
      st.just("critical.find(saddle, jnp.ones(2))"))), canonical=(None, functions_of("lambda p: p")),
      tolerance=(None, reals()), weight=0.3)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    need(a.tolerance is None or real(a.tolerance, 0, 1e300) >= 0)
    need(a.canonical is None or callable(a.canonical))
    return result.hits.sum() == 2


@call("critical.along_run", key=KEY, run=("jnp.arange(6.0).reshape(3, 2)", arrays((3, 2))),
      num_starts=("2", counts()), noise=("0.0", reals()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    n, noise = whole(a.num_starts), real(a.noise, 0)
    (run,) = floating(a.run)
    need(run.ndim and len(run))
    places = np.round(np.linspace(0, len(run) - 1, n)).astype(int)
    return near(result, run[places]) if noise == 0 else result.shape == run[places].shape


@call("critical.census", "starts", "Hessian", "params", fun=FUN, init=("start", functions_of("start")), key=KEY,
      num_starts=("4", counts()), args=POINT_ARGS, symmetries=(None, things()), tangents=(None, SYMMETRIES),
      hessian=(None, MATRICES), evidence=(None, things()), passes=("1", counts(huge=False)),
      complete_sum=(None, counts(0)), weight=0.2)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    a_key(a.key)
    whole(a.num_starts), whole(a.passes)
    need(
        a.evidence in (None, "dense", "lanczos", "proved")
        and (a.complete_sum is None or whole(a.complete_sum, -(10**9)))
    )
    need(callable(a.init) and callable(a.fun) and (a.tangents is None or callable(a.tangents)))
    if not (is_own(a.init) and is_own(a.fun)):
        return True
    return result.num_converged == 0 or {v.kind for v in result.verdicts} <= {"saddle", "nonsmooth", "undetermined"}


CERTIFICATE = "interval.certify(saddle, jnp.zeros(2))"


def holds(certificate: Any, fun: Any) -> bool:
    """Return whether what a certificate says of a function of `power`, or of the saddle, is true."""
    if not certificate.proved:
        return len(certificate.reason) > 10
    ours = fun is saddle or "watched" in repr(fun) or "jit" in repr(fun).lower()
    known = (2, -1.0, 0.0, 1.0) if ours else truth(fun)
    if known is None:
        return False
    order, sign, place, factor = known
    inside = np.all(np.abs(certificate.location - [place, 0]) <= certificate.radius)
    ends = sorted((2.0 * factor, 2.0 * sign * factor))
    around = [certificate.smallest[0] <= ends[0] <= certificate.smallest[1]]
    around += [
        certificate.largest[0] <= ends[1] <= certificate.largest[1],
        certificate.loss[0] <= 0 <= certificate.loss[1],
    ]
    return bool(order == 2 and certificate.null == 0 and certificate.index == (sign < 0) and inside and all(around))


@call("interval.certify", "Hessian", fun=("saddle", st.one_of(functions_of("saddle"), KNOWN_POINT)), params=AT,
      args=POINT_ARGS, symmetries=(None, SYMMETRIES), hessian=(None, MATRICES), reach=(None, reals()),
      bits=(None, counts()), wide=BOOLEAN, weight=1.5)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    floating(a.params)
    real(a.reach, 0)
    whole(a.bits, 2)
    need(callable(a.fun) and all(f is None or callable(f) for f in (a.symmetries, a.hessian)))
    return holds(result, a.fun)


FIELDS = (
    "proved",
    "reason",
    "size",
    "location",
    "displacement",
    "index",
    "null",
    "radius",
    "unique_radius",
    "smallest",
    "nearest",
    "largest",
    "loss",
    "precision",
    "assumptions",
    "data",
)
VALUES = st.one_of(
    reals(), counts(0), things(), st.sampled_from(("(0.0, 1.0)", "(nan, nan)", "(1.0, 0.0)",
        "np.array([1.0, 0.0])", "np.array([nan, 0.0])", "(-inf, inf)", "[0.0]", "'x'", "True", "False", "()")),
)  # fmt: skip


@functools.cache
def good_certificate() -> Any:
    """Return a theorem about the saddle."""
    return interval.certify(saddle, jnp.zeros(2))


def tampered(**fields: Any) -> Any:
    """Return that theorem with some of its fields replaced."""
    return dataclasses.replace(good_certificate(), **fields)


NAMES |= {"tampered": tampered}
TAMPERED = st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=2).map(
    lambda fields: f"tampered({', '.join(f'{name}={value}' for name, value in fields.items())})"
)


@call("interval.check", "Hessian", "args", certificate=("tampered()", st.one_of(TAMPERED, TAMPERED, things())),
      fun=("saddle", st.one_of(functions(), KNOWN_POINT)), params=("jnp.ones(2)", arrays((2,))), args=POINT_ARGS,
      symmetries=(None, SYMMETRIES))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    floating(a.params)
    need(callable(a.fun) and (a.symmetries is None or callable(a.symmetries)))
    old = a.certificate
    implied = not result.proved or (
        old.index == result.index
        and old.null == result.null
        and result.radius <= old.radius
        and old.unique_radius <= result.unique_radius
        and old.loss[0] <= result.loss[1]
        and old.loss[1] >= result.loss[0]
    )
    return holds(result, a.fun) and bool(implied)


def certificate_json(**fields: Any) -> bytes:
    """Return that theorem as JSON with some of its fields replaced; None removes one."""
    good_certificate().save(FILES / "good.json")
    values = json.loads((FILES / "good.json").read_text())
    (FILES / "good.json").unlink()
    values.update(fields)
    return json.dumps({name: value for name, value in values.items() if value != "absent"}).encode()


NAMES |= {"certificate_json": certificate_json}
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.text(max_size=4), st.just(10**400)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)
CHANGED_JSON = st.dictionaries(st.sampled_from((*FIELDS, "more")), st.one_of(JSON, st.just("absent")), max_size=2).map(
    lambda fields: f"certificate_json(**{fields!r})"
)


@call(
    "interval.load",
    "data",
    "nowhere",
    path=(
        "file(certificate_json())",
        in_file(
            st.one_of(
                CHANGED_JSON,
                CHANGED_JSON,
                damages("certificate_json()"),
                JSON.map(lambda value: f"{json.dumps(value)!r}.encode()"),
                st.sampled_from(("b'[' * 100_000", "b'\\xff\\xfe'", "b''", "b'{}'", "b'null'", "b'\\xef\\xbb\\xbf{}'")),
            )
        ),
    ),
    weight=3,
)
def _(a: Any, result: Any) -> bool:
    fields = json.loads(pathlib.Path(a.path).read_text())
    need(set(fields) == set(FIELDS) and isinstance(fields["proved"], bool) and isinstance(fields["reason"], str))
    location = numbers(fields["location"], 1, finite=True)
    need(isinstance(fields["size"], int) and fields["size"] == len(location))
    real(fields["displacement"], 0)
    for name in ("index", "null", "precision"):
        need(not fields["proved"] or isinstance(fields[name], int))
    for name in ("radius", "unique_radius"):
        need(not fields["proved"] or real(fields[name], 0) >= 0)
    for name in ("smallest", "nearest", "largest", "loss"):
        need(not fields["proved"] or (len(fields[name]) == 2 and real(fields[name][0]) <= real(fields[name][1])))
    need(isinstance(fields["assumptions"], list) and all(isinstance(x, str) for x in fields["assumptions"]))
    need(isinstance(fields["data"], str))
    return near(result.location, location) and isinstance(str(result), str)


@call(
    "interval.Certificate.save",
    self=("tampered()", st.just("tampered(index=None)")),
    path=(
        "str(FILES / 'written')",
        st.one_of(
            paths(),
            st.sampled_from(("FILES / 'written'", "FILES", "FILES / 'none' / 'written'", "FILES / ('w' * 250)")),
        ),
    ),
    weight=0.5,
)
def _(a: Any, result: Any) -> bool:
    read = interval.load(a.path)
    pathlib.Path(a.path).unlink()
    same = [name for name in FIELDS if name != "location"]
    return all(getattr(read, name) == getattr(a.self, name) for name in same) and near(read.location, a.self.location)


NAMES |= {"FILES": FILES}


# --- landscape, plots


OFFSETS = ("[0.0, 0.5, 1.0]", arrays((3,)))
ALONG = {"fun": FUN, "args": POINT_ARGS, "chunk_size": (None, counts())}


def values_on(a: Any, points: np.ndarray) -> np.ndarray | None:
    """Return the saddle at points (..., 2); None for another function."""
    no_data(a.args)
    whole(a.chunk_size)
    need(callable(a.fun))
    with np.errstate(all="ignore"):
        factor = factor_of(a.fun, np.float32)
        return factor * (points[..., 0] ** 2 - points[..., 1] ** 2) if is_own(a.fun) else None


@call("landscape.line", **ALONG, params=VECTOR, direction=VECTOR, offsets=OFFSETS)
def _(a: Any, result: Any) -> bool:
    t = numbers(a.offsets, 1, finite=True, kinds="fiub")
    expected = values_on(a, point(a.params) + t[:, None] * point(a.direction))
    return expected is None or near(result, expected, 0.05)


@call("landscape.interpolation", "direction", "offsets", **ALONG, start=VECTOR, end=VECTOR, fractions=OFFSETS)
def _(a: Any, result: Any) -> bool:
    t = numbers(a.fractions, 1, finite=True, kinds="fiub")[:, None]
    expected = values_on(a, (1 - t) * point(a.start) + t * point(a.end))
    return expected is None or near(result, expected, 0.05)


@call(
    "landscape.plane",
    **ALONG,
    params=VECTOR,
    first=VECTOR,
    second=VECTOR,
    first_offsets=OFFSETS,
    second_offsets=OFFSETS,
)
def _(a: Any, result: Any) -> bool:
    s, t = (numbers(v, 1, finite=True, kinds="fiub") for v in (a.first_offsets, a.second_offsets))
    points = point(a.params) + s[:, None, None] * point(a.first) + t[:, None] * point(a.second)
    expected = values_on(a, points)
    return expected is None or near(result, expected, 0.05)


@call("landscape.barrier", values=("[1.0, 5.0, 2.0]", arrays((3,))), fractions=("[0.0, 0.5, 1.0]", st.one_of(
      arrays((3,)), st.sampled_from(("[0.0, 2.0, 1.0]", "[0, 1]", "[0.0, nan, 1.0]", "[0.0, 0.3, 1.0]")))))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    values, t = numbers(a.values, 1), numbers(a.fractions, 1, finite=True)
    need(values.shape == t.shape and len(t) > 1 and t[0] == 0 and t[-1] == 1 and np.all(np.diff(t) >= 0))
    with np.errstate(all="ignore"):
        return near(result, np.max(values - ((1 - t) * values[0] + t * values[-1])), 0.01)


def _scaled(d: np.ndarray, w: np.ndarray, others: tuple[int, ...] | None) -> np.ndarray:
    length, wanted = (np.sqrt(np.sum(v**2, axis=others, keepdims=True)) for v in (d, w))
    return d * np.where(length > 0, wanted / np.where(length > 0, length, 1), 0)


MATRIX = ("jnp.array([[0.5, -1.0], [2.0, 3.0]])", trees((2, 2)))


@call("landscape.filter_normalized", direction=MATRIX, params=MATRIX, axis=(None, counts(-2)))
def _(a: Any, result: Any) -> bool:
    alike(a.direction, a.params)
    pairs = zip(*(map(single, floating(part, finite=False)) for part in (a.direction, a.params)), strict=True)
    expected = []
    for d, w in pairs:
        axis = whole(a.axis, -max(w.ndim, 1), max(w.ndim - 1, 0))
        others = tuple(i for i in range(w.ndim) if i != axis % w.ndim) if w.ndim else ()
        with np.errstate(all="ignore"):
            expected.append(_scaled(d, w, others) if w.ndim > 1 else 0 * np.ones_like(d))
    return near_trees(result, expected, 0.05)


@call("landscape.layer_normalized", direction=MATRIX, params=MATRIX)
def _(a: Any, result: Any) -> bool:
    alike(a.direction, a.params)
    pairs = zip(*(map(single, floating(part, finite=False)) for part in (a.direction, a.params)), strict=True)
    with np.errstate(all="ignore"):
        return near_trees(result, [_scaled(d, w, None) for d, w in pairs], 0.05)


@call(
    "landscape.principal_plane", trajectory=("jnp.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])", trees((3, 2), (4, 3)))
)
def _(a: Any, result: Any) -> bool:
    leaves = floating(a.trajectory)
    need(all(leaf.ndim for leaf in leaves) and len({len(leaf) for leaf in leaves}) == 1 and len(leaves[0]) > 2)
    rows = np.concatenate([(leaf - leaf[-1]).reshape(len(leaf), -1) for leaf in leaves], 1)
    need(rows.shape[1] > 1)
    squares = np.linalg.svd(rows, compute_uv=False) ** 2
    return near(result.explained, squares[:2] / (squares.sum() or 1), 0.02)


@call(
    "landscape.eigenvector_plane",
    "numbers",
    "eigenvectors",
    "matvec",
    fun=FUN,
    params=VECTOR,
    args=POINT_ARGS,
    key=KEY,
    hessian_matrix=(None, st.one_of(functions(), arrays((2, 2)).map("constant({})".format))),
    weight=0.2,
)
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    a_key(a.key)
    need(callable(a.fun) and (a.hessian_matrix is None or callable(a.hessian_matrix)))
    if not is_own(a.fun):
        return True
    point(a.params)
    return near(result.values / factor_of(a.fun), [-2, 2], 0.01) and near(np.abs(result.first), [0, 1], 0.01)


@call("landscape.match_units", "shapes", params=PARAMS, reference=PARAMS, activation=("jnp.tanh", ACTIVATION[1]),
      max_sweeps=(None, counts()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    ours, theirs = network(a.params), network(a.reference)
    need(all(np.isfinite(leaf).all() for layer in ours + theirs for leaf in layer))
    need([w.shape for w, _ in ours] == [w.shape for w, _ in theirs])
    whole(a.max_sweeps)
    own = all(an_activation(a.activation, len(bias)) for _, bias in ours[:-1])
    x = np.random.default_rng(0).standard_normal((5, len(ours[0][0])))
    return not own or near(through(network(result), x, np.tanh), through(ours, x, np.tanh), 0.01)


AXES = ("axes()", st.one_of(things(), st.just("axes(ncols=2)")))


def drawn(a: Any, result: Any, *series: np.ndarray) -> bool:
    """Return whether the axes given came back and can be drawn."""
    del series
    need(isinstance(a.axes, matplotlib.axes.Axes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result.figure.canvas.draw()
    return result is a.axes or isinstance(result, matplotlib.axes.Axes)


def rows_of(values: Any, *shape: int | None) -> np.ndarray:
    """Return numbers of a shape; None stands for any length."""
    array = numbers(values, len(shape), kinds="fiub")
    need(all(want in (None, got) for got, want in zip(array.shape, shape, strict=True)))
    return array


@call("plots.against_batch_size", axes=AXES, batch_sizes=("[8, 16]", arrays((2,))),
      samples=("[[1.0, 2.0], [2.0, 3.0]]", arrays((2, 2))), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    sizes = rows_of(a.batch_sizes, None)
    need(np.all((sizes > 0) & np.isfinite(sizes)))
    return drawn(a, result, rows_of(a.samples, len(sizes), None))


@call("plots.updates_to_target", axes=AXES, batch_sizes=("[8, 16]", arrays((2,))),
      updates=("[[50], [30]]", arrays((2, 1))), reached=("[[True], [False]]", arrays((2, 1))),
      min_updates=("10.0", reals()), min_examples=("320.0", reals()), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    sizes = rows_of(a.batch_sizes, None)
    need(np.all((sizes > 0) & np.isfinite(sizes)) and np.asarray(a.reached).dtype == bool)
    float(a.min_updates) + float(a.min_examples)
    return drawn(a, result, rows_of(a.updates, len(sizes), None), rows_of(a.reached, len(sizes), None))


@call("plots.heat_map", axes=AXES, rows=("[8, 16]", arrays((2,))), columns=("[0.1, 1.0]", arrays((2,))),
      values=("[[2.0, np.inf], [1.0, 3.0]]", arrays((2, 2))), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    return drawn(a, result, rows_of(a.values, len(rows_of(a.rows, None)), len(rows_of(a.columns, None))))


@call("plots.census_levels", axes=AXES, index=("[0, 1, 1]", arrays((3,))), loss=("[0.1, 0.2, 0.3]",
      arrays((3,))), copies=("[8, 8, 4]", arrays((3,))), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    integers(a.copies, 1), integers(a.index, 1)
    return drawn(a, result, rows_of(a.loss, len(a.index)), rows_of(a.copies, len(a.index)))


EDGES = st.one_of(things(), st.sampled_from(("[(2, 0, 9)]", "[(9, 0, 1)]", "[(2, None, None)]", "[(2, 0)]",
    "[(2, -1, 0)]", "[(2, 0.5, 1)]", "[]", "[('a', 0, 1)]", "[(2,)]")))  # fmt: skip


@call("plots.saddle_graph", axes=AXES, loss=("[0.1, 0.2, 0.3]", arrays((3,))), index=("[0, 0, 1]",
      arrays((3,))), edges=("[(2, 0, 1)]", EDGES), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    loss, index = rows_of(a.loss, None), integers(a.index, 1)
    need(len(loss) == len(index) and len(a.edges) >= 0)
    need(all(len(edge) == 3 and all(n is None or whole(n, 0, len(loss) - 1) >= 0 for n in edge) for edge in a.edges))
    return drawn(a, result)


@call("plots.loss_against_index", axes=AXES, index=("[0, 3]", arrays((2,))), loss=("[0.1, 0.2]",
      arrays((2,))), padded=(None, arrays((2,))), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    need(np.all(integers(a.index, 1) >= 0) and (a.padded is None or np.asarray(a.padded).dtype == bool))
    return drawn(a, result, rows_of(a.loss, len(a.index)))


@call("plots.eigenvalues", axes=AXES, values=("[-1.0, 1e-3, 2.0]", arrays((3,))),
      bound=(None, reals()), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    need(np.all(np.isfinite(rows_of(a.values, None))) and (a.bound is None or real(a.bound, 0) >= 0))
    return drawn(a, result)


@call("plots.spectral_density", axes=AXES, density=("None", st.one_of(things(), st.just(DENSITY))),
      values=("[0.0, 0.1, 2.0]", arrays((3,))), bins=(None, counts()), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    need(a.density is None or isinstance(a.density, curvature.Density))
    need(a.values is None or np.all(np.isfinite(numbers(a.values, kinds="fiub"))))
    return drawn(a, result) and whole(a.bins) > 0


@call("plots.training_curve", axes=AXES, steps=("[1, 2]", arrays((2,))), runs=("[[3.0, 1.0], [5.0, 1.0]]",
      arrays((2, 2))), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    return drawn(a, result, rows_of(a.runs, None, len(rows_of(a.steps, None))))


@call("plots.profile", axes=AXES, offsets=("[0.0, 1.0]", arrays((2,))), values=("[2.0, 3.0]", arrays((2,))),
      weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    return drawn(a, result, rows_of(a.values, len(rows_of(a.offsets, None))))


ON_GRID = {"first_offsets": ("[-1.0, 0.0, 1.0]", arrays((3,))), "second_offsets": ("[0.0, 1.0]", arrays((2,))),
               "values": ("[[0.0, 1.0], [2.0, 0.5], [1.0, 3.0]]", arrays((3, 2)))}  # fmt: skip


@call("plots.contours", axes=AXES, **ON_GRID, trajectory=(None, arrays((4, 2))), num_levels=(None, counts()),
      log=BOOLEAN, weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    x, y = rows_of(a.first_offsets, None), rows_of(a.second_offsets, None)
    need(np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(rows_of(a.values, len(x), len(y))).all())
    need(a.trajectory is None or len(rows_of(a.trajectory, None, 2)))
    need(whole(a.num_levels, 2) and (not a.log or np.min(a.values) > 0))
    return drawn(a, result)


@call("plots.surface", axes=("axes(subplot_kw={'projection': '3d'})", st.one_of(things(), st.just("axes()"))),
      **ON_GRID, weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    x, y = rows_of(a.first_offsets, None), rows_of(a.second_offsets, None)
    rows_of(a.values, len(x), len(y))
    return drawn(a, result)


@call("sweep.Result.table", self=("sweep.run(jax.random.key(0), fit, start, (jnp.ones((2, 2)), jnp.ones(2)),"
      " batch_sizes=[2, 2], learning_rates=[0.1, 0.1, 1e9], seeds=[3, 3], epochs=1)", st.just(
      "sweep.run(jax.random.key(0), fit, start, (jnp.ones((2, 2)), jnp.ones(2)), batch_sizes=[1, 2],"
      " learning_rates={1: [0.1], 2: [0.2]}, seeds=1, epochs=1)")), weight=0.02)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    return len(result) == a.self.diverged_at.size


# --- Running -------------------------------------------------------------------------------------------------------


def run_cases(
    cases: st.SearchStrategy[Case],
    number: int,
    seed: int,
    begun: Callable[[Case], bool],
    ended: Callable[[Case, Outcome], None],
) -> None:
    """Draw and judge cases; `begun` says whether one is to be run. Where many hang, the later ones have less time."""
    hangs = 0

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(cases)
    def one(case: Case) -> None:
        nonlocal hangs
        for path in FILES.iterdir():
            path.unlink()
        if not all(evaluates(source) for _, source in case.sources):
            hypothesis.reject()
        if begun(case):
            outcome = judge(CALLS[case.name], case, SECONDS if hangs < 3 else SLOW)
            hangs += outcome.kind == "hang"
            ended(case, outcome)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one()


def outcomes(name: str, argument: str, number: int, seed: int = 0) -> list[tuple[Case, Outcome]]:
    """Return cases of one function in which one argument is replaced, and how each ended. In this process."""
    found: list[tuple[Case, Outcome]] = []
    run_cases(CALLS[name].draw(argument), number, seed, lambda case: True, lambda *pair_: found.append(pair_))
    return found


def serve(pipe: Any) -> None:
    """Judge what the pipe asks for: a name, a number of cases, a seed, and cases not to run again."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # of the process; errors of cases are reported, not shown
    os.dup2(sys.stderr.fileno(), 2)
    jax.config.update("jax_traceback_filtering", "off")
    jnp.ones(2).block_until_ready()
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESSES, resource.RLIM_INFINITY))
    while True:
        name, number, seed, deadly = pipe.recv()

        def begun(case: Case, deadly: set = deadly) -> bool:
            if str(case) in deadly:
                return False
            pipe.send(("begun", case))
            return True

        run_cases(CALLS[name].draw(), number, seed, begun, lambda case, outcome: pipe.send(("ended", case, outcome)))
        gc.collect()
        if len(pathlib.Path("/proc/self/maps").read_bytes().splitlines()) > 15_000:
            jax.clear_caches()
        pipe.send(("done",))


class Worker:
    """A process that judges cases, and is started again when it dies."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("spawn")
        self.deadly: set[str] = set()
        self.start()

    def start(self) -> None:
        """Start the process."""
        self.pipe, theirs = self.context.Pipe()
        self.process = self.context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def judge(self, name: str, number: int, seed: int) -> Iterator[tuple[Case, Outcome]]:
        """Yield cases and outcomes."""
        left, case = number, None
        while left > 0:
            self.pipe.send((name, left, seed, self.deadly))
            try:
                while True:
                    if not self.pipe.poll(4 * SECONDS + 60):
                        self.process.kill()
                        raise EOFError("hang")
                    kind, *more = self.pipe.recv()
                    if kind == "done":
                        return
                    case = more[0]
                    if kind == "ended":
                        left -= 1
                        yield case, more[1]
            except (EOFError, ConnectionResetError) as error:
                self.process.join()
                left, seed = left - 1, seed + 1
                if case is not None:
                    self.deadly.add(str(case))
                    kind = "hang" if "hang" in str(error) else "crash"
                    yield case, Outcome(kind, f"exit code {self.process.exitcode}")
                self.start()


def defects(found: list[tuple[Case, Outcome]]) -> Iterator[tuple[int, Case, Outcome]]:
    """Yield each kind of defect with the number of its cases and the shortest of them, most serious first."""
    groups: dict[tuple, list[tuple[Case, Outcome]]] = collections.defaultdict(list)
    for case, outcome in found:
        what = (outcome.seen.split(":")[0],) if outcome.kind == "unclear" else case.changed
        groups[outcome.kind, case.name, outcome.where, what].append((case, outcome))
    order = ("wrong", "crash", "hang", "memory", "changed", "accepted", "slow", "unclear")
    for group in sorted(groups.values(), key=lambda g: (order.index(g[0][1].kind), g[0][0].name)):
        yield len(group), *min(group, key=lambda pair_: (len(pair_[0].changed), len(str(pair_[0]))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--only", default="", help="functions whose names contain this")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    chosen = {name: c for name, c in CALLS.items() if settings.only in name}
    share = settings.cases / sum(c.weight for c in chosen.values())
    found: list[tuple[Case, Outcome]] = []
    tallies: dict[str, collections.Counter] = {name: collections.Counter() for name in chosen}
    worker, began, seconds = Worker(), time.perf_counter(), collections.Counter()
    with tqdm.tqdm(total=settings.cases, unit="case") as bar:
        for name, call_ in chosen.items():
            bar.set_postfix_str(name)
            for case, outcome in worker.judge(name, max(1, round(share * call_.weight)), settings.seed):
                tallies[name][outcome.kind] += 1
                seconds[name] += outcome.seconds
                bar.update()
                if outcome.kind not in ("clear", "right"):
                    found.append((case, outcome))
    worker.process.kill()
    print(f"\n{'public function':42} {'cases':>6} {'clear':>6} {'right':>6} {'defects':>8} {'ms/case':>8}  of which")
    for name, counter in tallies.items():
        bad = {kind: counter[kind] for kind in OUTCOMES[2:] if counter[kind]}
        parts = ", ".join(f"{number} {kind}" for kind, number in bad.items())
        total = max(1, counter.total())
        print(f"{name:42} {counter.total():6} {counter['clear']:6} {counter['right']:6} {sum(bad.values()):8}"
              f" {1e3 * seconds[name] / total:8.1f}  {parts}")  # fmt: skip
    totals = sum(tallies.values(), collections.Counter())
    print(f"{'in all':42} {totals.total():6} {totals['clear']:6} {totals['right']:6} {len(found):8}")
    print(f"{time.perf_counter() - began:.0f} s\n")
    for number, case, outcome in defects(found):
        print(f"{outcome.kind} ({number} cases) {outcome.where}\n    {case}\n    {outcome.seen}")


if __name__ == "__main__":
    main()
