"""The command line of an experiment: settings from flags, and what is wrong with them in one line."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import tyro


def start(name: str, run: Callable[[Any], Any], settings: type, description: str | None) -> None:
    """Read the settings of `python -m experiments.NAME` from the command line, and run.

    The fields of the dataclass `settings` become flags; `description` is shown by --help. An OSError or ValueError of
    `run` whose message begins with the name of a setting, `seed: got …`, is printed in one line, with exit status 2.
    Any other error is a defect, and keeps its traceback.

    Examples
    --------
    >>> @dataclasses.dataclass(frozen=True)
    ... class Settings:
    ...     seed: int = 0
    >>> argv, sys.argv = sys.argv, ["example.py", "--seed", "1"]
    >>> start("example", print, Settings, "What is the seed?")
    Settings(seed=1)
    >>> sys.argv = argv
    """
    chosen: Any = tyro.cli(settings, description=description, prog=f"python -m experiments.{name}")
    try:
        run(chosen)
    except (OSError, ValueError) as error:
        if str(error).partition(":")[0] not in {field.name for field in dataclasses.fields(settings)}:
            raise
        print(f"python -m experiments.{name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
