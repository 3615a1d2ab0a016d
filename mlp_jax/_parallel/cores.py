"""Host-level work on every core: one thread a core, and one BLAS thread in each."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from threadpoolctl import ThreadpoolController


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


def one_blas_thread() -> Any:
    """Return the context in which BLAS has one thread: threads of two calls on the same cores wait for each other."""
    return _blas().limit(limits=1)


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")
