"""Host-level work on every core: one thread a core, and one BLAS thread in each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from threadpoolctl import ThreadpoolController


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_cores(work: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
    """Return `[work(item) for item in items]`, with as many items at a time as there are cores.

    For work that spends its time in LAPACK, JAX or other code that releases Python's lock. BLAS has one thread
    meanwhile, because threads of two calls on the same cores wait for each other.

    Examples
    --------
    >>> over_cores(lambda x: x**2, range(4))
    [0, 1, 4, 9]
    """
    with ThreadpoolController().limit(limits=1, user_api="blas"), ThreadPoolExecutor(num_cores()) as pool:
        return list(pool.map(work, items))
