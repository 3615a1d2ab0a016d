"""The command line of an experiment: flags become settings, and an invalid setting is reported in one line."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import tyro


def start(name: str, run: Callable[[Any], Any], settings: type, description: str | None) -> None:
    """Run an experiment with settings from the command line, `python -m experiments.NAME --FLAG VALUE`.

    The fields of the dataclass `settings` become flags; `description` is shown by --help. An OSError or ValueError of
    `run` whose message begins with the name of a setting, `seed: got …`, is printed in one line, with exit status 2.
    Other errors keep their traceback.
    """
    chosen: Any = tyro.cli(settings, description=description, prog=f"python -m experiments.{name}")
    try:
        run(chosen)
    except (OSError, ValueError) as error:
        if str(error).partition(":")[0] not in {field.name for field in dataclasses.fields(settings)}:
            raise
        print(f"python -m experiments.{name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
