"""Where an experiment's results land: settings and versions, tables and figures, and one page that shows them."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import time
from typing import Any

import matplotlib.figure
import pandas as pd

from experiments import one_page
from experiments.questions import questions

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
    >>> folder.table("squares", pd.DataFrame({"n": [1, 2], "n²": [1, 4]}))
    >>> folder.conclude("Found: squares.")  # doctest: +ELLIPSIS
    <BLANKLINE>
    Found: squares. 0 s; report.html, tables and figures in ...
    >>> sorted(file.name for file in folder.path.iterdir())
    ['report.html', 'settings.json', 'squares.csv']
    """

    def __init__(self, name: str, settings: Any, path: pathlib.Path | None = None) -> None:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        self.path = pathlib.Path(path) if path is not None else pathlib.Path("runs") / f"{name}-{stamp}"
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise FileExistsError(f"output: got {self.path}, which is not empty; name a new folder.")
        self.path.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._began = time.perf_counter()
        self._tables: dict[str, pd.DataFrame] = {}
        self._figures: dict[str, bytes] = {}
        self._facts: dict[str, Any] = {
            "experiment": name,
            "settings": dataclasses.asdict(settings),
            "versions": _versions(),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
            "started": stamp,
        }
        self._write("settings.json", json.dumps(self._facts, indent=2, default=str).encode() + b"\n")

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Write a tidy table as NAME.csv."""
        self._tables[name] = frame
        self._write(f"{name}.csv", frame.to_csv(index=False).encode())

    def figure(self, name: str, figure: matplotlib.figure.Figure) -> None:
        """Write a figure as NAME.png."""
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=150, bbox_inches="tight")
        self._figures[name] = drawn.getvalue()
        self._write(f"{name}.png", drawn.getvalue())

    def conclude(self, conclusion: str) -> None:
        """Print the conclusion, with seconds and folder, and write report.html: all of the run on one page."""
        seconds = time.perf_counter() - self._began
        facts = {**self._facts, "seconds": f"{seconds:.0f}"}
        report = one_page.page(
            self.name, questions().get(self.name, ""), conclusion, facts, self._tables, self._figures
        )
        self._write("report.html", report.encode())
        print(f"\n{conclusion} {seconds:.0f} s; report.html, tables and figures in {self.path}")

    def _write(self, name: str, content: bytes) -> None:
        partial = self.path / f".{name}.partial"
        partial.write_bytes(content)
        partial.replace(self.path / name)


def _versions() -> dict[str, str]:
    installed = {d.metadata["Name"].lower().replace("-", "_"): d.version for d in importlib.metadata.distributions()}
    return {name: installed.get(name.replace("-", "_"), "not installed") for name in _PACKAGES}
