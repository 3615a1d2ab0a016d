"""Drawing cases and judging them, in a process of their own that is started again after a crash."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import resource
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
from hypothesis import strategies as st

from benchmarks.bad_input.calls import CALLS, Case
from benchmarks.bad_input.judging import ADDRESSES, LONGEST, SECONDS, SLOW, Outcome, judge
from benchmarks.bad_input.sources import FILES, evaluates


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

        def ended(case: Case, outcome: Outcome) -> None:
            pipe.send(("ended", case, outcome))

        try:
            run_cases(CALLS[name].draw(), number, seed, begun, ended)
        except Exception:
            pipe.send(("failed", traceback.format_exc()))
            return
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
                    if not multiprocessing.connection.wait([self.pipe, self.process.sentinel], LONGEST):
                        self.process.kill()
                        raise EOFError("hang")
                    if not self.pipe.poll():
                        raise EOFError("crash")
                    kind, *more = self.pipe.recv()
                    if kind == "done":
                        return
                    if kind == "failed":  # not the library: the benchmark itself
                        raise RuntimeError(more[0])
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
