"""The settings that experiments share."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The settings of every run; an experiment's `Settings` extends them."""

    quick: bool = False
    """Compute less: a check, within a minute or so, that everything runs."""
    seed: int = 0
    """Seed of all random numbers."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A new folder for the results; runs/NAME-DATE-TIME if not given."""
    resume: bool = False
    """Continue the interrupted run in the folder of --output."""
