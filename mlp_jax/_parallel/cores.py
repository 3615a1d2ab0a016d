"""Host-level work on every core: one thread per core, and one BLAS thread in each."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from threadpoolctl import ThreadpoolController

# Size of matrices up to which a second BLAS thread gains little; beside other work it costs a factor of up to 100.
_SMALL = 1000


def over_cores(work: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
    """Return `[work(item) for item in items]`, with as many items at a time as there are cores.

    For work that spends its time in LAPACK, JAX or other code that releases Python's lock.

    Examples
    --------
    >>> over_cores(lambda x: x**2, range(4))
    [0, 1, 4, 9]
    """
    with one_blas_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, items))  # re-raises the exceptions of the threads


class _Limit:
    """A limit of one BLAS thread in the process, until the last context that holds it ends.

    Of two limits of their own that overlap in time, the second would restore that of the first.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._limiter = _blas().limit(limits=1)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._limiter.restore_original_limits()


_one = _Limit()


def one_blas_thread() -> contextlib.AbstractContextManager[None]:
    """Return the context in which BLAS has one thread: threads of two calls on the same cores wait for each other."""
    return _one.hold()


def blas_threads_for(size: int) -> contextlib.AbstractContextManager[None]:
    """Return the context for LAPACK calls on matrices of this size, in which small ones have one BLAS thread."""
    return one_blas_thread() if size <= _SMALL else contextlib.nullcontext()


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")
