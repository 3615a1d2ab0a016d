"""How one case ends: with a clear error, with the right answer, or with a defect."""

from __future__ import annotations

import contextlib
import inspect
import linecache
import os
import pathlib
import random
import resource
import signal
import time
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np

import mlp_jax
from benchmarks import hostile_inputs as hostile
from benchmarks.bad_input import sources
from benchmarks.bad_input.calls import Call, Case
from benchmarks.bad_input.oracles import Unknown
from benchmarks.bad_input.sources import FILES, evaluate

SECONDS, SLOW = 20, 5.0  # of processor time
LONGEST = 300  # seconds, after which a process is taken to wait for something that never comes
MEMORY, ADDRESSES = 2**30, 5 * 2**30  # bytes a case may take; bytes of addresses beyond those at the start
OUTCOMES = ("clear", "right", "unclear", "accepted", "wrong", "slow", "hang", "memory", "crash", "changed")
_JITTED = type(jax.jit(lambda: 0))
LIBRARY = str(pathlib.Path(mlp_jax.__file__).parent)


class Hang(BaseException):
    """The alarm."""


class Outcome(NamedTuple):
    """One of OUTCOMES, what was seen, and where it came from."""

    kind: str
    seen: str = ""
    where: str = ""
    seconds: float = 0.0


def judge(call: Call, case: Case, allowed: float = SECONDS) -> Outcome:
    """Run a case and say how it ended, with an alarm after the seconds of processor time allowed."""
    arguments = {name: evaluate(source) for name, source in case.sources}
    kept, before, peak = _copies(arguments), configuration(), _peak()
    began = time.process_time()
    outcome = _run(call, case, arguments, allowed)
    seconds = time.process_time() - began
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
            if isinstance(result, contextlib.AbstractContextManager):
                with result:  # which is when it says what is wrong
                    pass
            jax.block_until_ready([x for x in jax.tree.leaves(result) if isinstance(x, jax.Array)])
    except Hang as error:
        return Outcome("hang", f"after {allowed} s", where_raised(error))
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        clear = is_clear(error, call) or _is_of_what_was_given(call, arguments)
        return Outcome("clear" if clear else "unclear", text, where_raised(error))
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
    inside = next((i for i, (file, _, _) in enumerate(frames) if file.startswith(LIBRARY)), len(frames))
    beyond = frames[inside + 1 :]
    if any(file in (hostile.__file__, sources.__file__, "<string>") for file, _, _ in beyond):
        return True  # raised by, or below, a function that was given
    if not isinstance(error, (TypeError, ValueError, ImportError, MemoryError, OSError, RuntimeError)):
        return False
    file, line, _ = frames[-1]
    if not file.startswith(LIBRARY) or not linecache.getline(file, line).strip().startswith("raise"):
        return False
    message = _plain(str(error))
    return len(message) > 20 and any(_plain(name) in message for name in (*call.arguments, *call.names))


def _is_of_what_was_given(call: Call, arguments: dict[str, Any]) -> bool:
    """Return whether a function of C that was given raises by itself: a Python function around it has a frame.

    What `jax.jit` returns is one too.
    """
    in_c = {n: f for n, f in arguments.items() if isinstance(f, type | types.BuiltinFunctionType | _JITTED)}
    try:
        with contextlib.suppress(Hang), alarm(SECONDS):
            call.function(**arguments | {name: hostile.in_python(function) for name, function in in_c.items()})
    except Exception as error:
        frames = [name for _, _, name in _frames(error)]
        return "calls_what_was_given" in frames
    return False


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
    """Raise Hang in the block after some seconds of processor time: how busy the machine is does not matter."""

    def ring(number: int, frame: Any) -> None:
        raise Hang

    old = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, allowed)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)


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
