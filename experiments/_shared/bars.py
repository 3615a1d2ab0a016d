"""A progress bar for the functions that take `progress=`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import tqdm


@contextlib.contextmanager
def bar(description: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar, and return the function progress(done, total) that moves it."""
    with tqdm.tqdm(desc=description, unit=unit, leave=False, disable=None) as shown:

        def progress(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield progress
