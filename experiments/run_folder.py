"""Where an experiment's results land: settings and versions, tables and figures, side by side."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
from typing import Any

import matplotlib.figure
import pandas as pd

_PACKAGES = ("mlp_jax", "jax", "jaxlib", "numpy", "scipy", "optax", "scikit-learn", "pandas", "matplotlib")


class RunFolder:
    """A new folder for one run; an existing folder with anything in it is refused, never overwritten.

    Parameters
    ----------
    name
        The experiment's name.
    settings
        Its frozen dataclass of settings, written to settings.json with versions and machine.
    path
        Where; `runs/NAME-DATE-TIME` under the working directory when None.

    Raises
    ------
    FileExistsError
        The folder exists and is not empty.

    Examples
    --------
    >>> import tempfile
    >>> @dataclasses.dataclass(frozen=True)
    ... class Settings:
    ...     seed: int = 0
    >>> folder = RunFolder("example", Settings(), pathlib.Path(tempfile.mkdtemp()))
    >>> json.loads((folder.path / "settings.json").read_text())["settings"]
    {'seed': 0}
    """

    def __init__(self, name: str, settings: Any, path: pathlib.Path | None = None) -> None:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        self.path = pathlib.Path(path) if path is not None else pathlib.Path("runs") / f"{name}-{stamp}"
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise FileExistsError(f"output: got {self.path}, which is not empty; name a new folder.")
        self.path.mkdir(parents=True, exist_ok=True)
        facts = {
            "experiment": name,
            "settings": dataclasses.asdict(settings),
            "versions": _versions(),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
            "started": stamp,
        }
        self._write("settings.json", json.dumps(facts, indent=2, default=str) + "\n")

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Write a tidy table as NAME.csv."""
        self._write(f"{name}.csv", frame.to_csv(index=False))

    def figure(self, name: str, figure: matplotlib.figure.Figure) -> None:
        """Write a figure as NAME.png."""
        figure.savefig(self.path / f"{name}.png", dpi=150, bbox_inches="tight")

    def _write(self, name: str, text: str) -> None:
        partial = self.path / f".{name}.partial"
        partial.write_text(text)
        partial.replace(self.path / name)


def _versions() -> dict[str, str]:
    installed = {d.metadata["Name"].lower().replace("-", "_"): d.version for d in importlib.metadata.distributions()}
    return {name: installed.get(name.replace("-", "_"), "not installed") for name in _PACKAGES}
