"""Where an experiment's results land: settings and versions, tables and figures, and one page that shows them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import re
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import matplotlib.figure
import pandas as pd

from experiments._shared import one_page, pieces
from experiments._shared.questions import questions
from mlp_jax import checkpoint

_PACKAGES = ("mlp_jax", "jax", "jaxlib", "numpy", "scipy", "optax", "scikit-learn", "pandas", "matplotlib")
# Settings that say where and how a run goes on, not what it computes.
_WHERE = ("output", "resume")
T = TypeVar("T")


class RunFolder:
    """The folder of one run, which no other process may use meanwhile.

    A folder with anything in it is refused, never overwritten; unless its run was stopped and is to go on.

    Parameters
    ----------
    name
        The experiment's name.
    settings
        Its frozen dataclass of settings, written to settings.json with versions and machine.
    path
        Where; `runs/NAME-DATE-TIME` under the working directory when None.
    resume
        Whether to go on with the run that was stopped in `path`: what was `kept` there is not computed again.

    Raises
    ------
    FileExistsError
        The folder exists and is not empty, or its run is finished.
    FileNotFoundError
        There is no stopped run to go on with.
    BlockingIOError
        Another process uses the folder.
    ValueError
        The stopped run had other settings or versions: its results would not be those of one run.

    Examples
    --------
    >>> import tempfile
    >>> @dataclasses.dataclass(frozen=True)
    ... class Settings:
    ...     seed: int = 0
    >>> folder = RunFolder("example", Settings(), pathlib.Path(tempfile.mkdtemp()))
    >>> json.loads((folder.path / "settings.json").read_text())["settings"]
    {'seed': 0}
    >>> folder.kept("sum", lambda: 1 + 1)
    2
    >>> folder.table("squares", pd.DataFrame({"n": [1, 2], "n²": [1, 4]}))
    >>> folder.conclude("Found: squares.")  # doctest: +ELLIPSIS
    <BLANKLINE>
    Found: squares. 0 s; report.html, tables and figures in ...
    >>> sorted(file.name for file in folder.path.iterdir() if not file.name.startswith("."))
    ['pieces', 'report.html', 'settings.json', 'squares.csv']
    """

    def __init__(self, name: str, settings: Any, path: pathlib.Path | None = None, *, resume: bool = False) -> None:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        self.name = name
        self.path = pathlib.Path(path) if path is not None else pathlib.Path("runs") / f"{name}-{stamp}"
        self._began = time.perf_counter()
        self._tables: dict[str, pd.DataFrame] = {}
        self._figures: dict[str, bytes] = {}
        self._resumed = resume
        if not resume and self.path.exists() and (not self.path.is_dir() or _in_use(self.path)):
            raise FileExistsError(f"output: got {self.path}, which is not empty; name a new folder.")
        if resume and not (self.path / "settings.json").is_file():
            raise FileNotFoundError(f"output: got {self.path}, expected the folder of a run that was stopped.")
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(checkpoint.locked(self.path))
        self._facts: dict[str, Any] = {
            "experiment": name,
            "settings": {k: v for k, v in dataclasses.asdict(settings).items() if k not in _WHERE},
            "versions": _versions(),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
            "started": stamp,
        }
        if resume:
            self._require_same_run()
        self._write("settings.json", json.dumps(self._facts, indent=2, default=str).encode() + b"\n")

    def kept(self, name: str, compute: Callable[[], T]) -> T:
        """Return compute(), and keep it in the folder; where a stopped run has kept it, read it back instead.

        It passes through `pieces` either way (JAX arrays become numpy arrays), so that a resumed run goes on from the
        same bits. Give each piece of a run a name of its own.

        Warns
        -----
        UserWarning
            What was kept is damaged: it is computed again.

        Raises
        ------
        SystemExit
            The user stopped the run (Ctrl-C): with one line that says how to go on.
        """
        file = self.path / "pieces" / f"{re.sub(r'[^A-Za-z0-9_.=+-]+', '_', name)}.checkpoint"
        if self._resumed and file.exists():
            try:
                return pieces.from_text(checkpoint.restore(file, ""))
            except ValueError as error:
                warnings.warn(f"{name}: computed again, since what was kept is damaged. {error}", stacklevel=2)
        try:
            text = pieces.to_text(compute())
        except KeyboardInterrupt:
            message = f"Stopped. What is finished is kept; --resume --output {self.path} goes on."
            raise SystemExit(message) from None
        file.parent.mkdir(exist_ok=True)
        checkpoint.save(file, text, keep=0)
        return pieces.from_text(text)

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
        facts = {**self._facts, "seconds": f"{seconds:.0f}{' since it was resumed' if self._resumed else ''}"}
        report = one_page.page(
            self.name, questions().get(self.name, ""), conclusion, facts, self._tables, self._figures
        )
        self._write("report.html", report.encode())
        self._lock.close()
        print(f"\n{conclusion} {seconds:.0f} s; report.html, tables and figures in {self.path}")

    def _require_same_run(self) -> None:
        """Raise unless the stopped run has the experiment, settings and versions of this one, and is not finished."""
        if (self.path / "report.html").exists():
            raise FileExistsError(f"output: got {self.path}, whose run is finished; name a new folder.")
        before = json.loads((self.path / "settings.json").read_text())
        now = json.loads(json.dumps(self._facts, default=str))
        for part in ("experiment", "settings", "versions"):
            if before.get(part) != now[part]:
                raise ValueError(
                    f"resume: got {part} {now[part]}, expected those of the stopped run, {before.get(part)}."
                )
        self._facts["started"] = before["started"]

    def _write(self, name: str, content: bytes) -> None:
        partial = self.path / f".{name}.partial"
        partial.write_bytes(content)
        partial.replace(self.path / name)


def _in_use(folder: pathlib.Path) -> bool:
    """Return whether there is anything in a folder but the lock of a run that wrote nothing."""
    return any(file.name != ".lock" for file in folder.iterdir())


def _versions() -> dict[str, str]:
    installed = {d.metadata["Name"].lower().replace("-", "_"): d.version for d in importlib.metadata.distributions()}
    return {name: installed.get(name.replace("-", "_"), "not installed") for name in _PACKAGES}
