"""The settings that experiments share."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """How much a run computes, from which seed, and where it writes; an experiment's `Settings` extends it.

    Examples
    --------
    >>> RunSettings(seed=1)
    RunSettings(quick=False, seed=1, output=None, resume=False)
    """

    quick: bool = False
    """Compute less, to see within a minute or so that everything runs."""
    seed: int = 0
    """Seed of all random numbers."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A new folder for the results; runs/NAME-DATE-TIME when not given."""
    resume: bool = False
    """Go on with the run that was stopped in the folder of --output."""
