"""The folder of a run: settings and versions, tables, figures, and a report of all of them on one page."""

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
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import matplotlib.animation
import matplotlib.figure
import pandas as pd
import PIL.Image
import PIL.ImageSequence

from experiments._shared import one_page, pieces
from experiments._shared.questions import questions
from mlp_jax import _files, checkpoint

_PACKAGES = ("mlp_jax", "jax", "jaxlib", "numpy", "scipy", "optax", "scikit-learn", "pandas", "matplotlib")
# Settings that do not change what a run computes.
_WHERE = ("output", "resume")
T = TypeVar("T")


class RunFolder:
    """The folder of one run, locked against other processes.

    A folder that is not empty is never overwritten; it is refused unless `resume` continues its interrupted run.

    Parameters
    ----------
    name
        The experiment's name.
    settings
        Its frozen dataclass of settings, written to settings.json with versions and machine.
    path
        A folder. If None, `runs/NAME-DATE-TIME` under the working directory, numbered if that exists.
    resume
        Whether to continue the run in `path`: pieces `kept` there are not computed again. In an empty folder the run
        starts, so that a requeued job script can always pass it.

    Raises
    ------
    FileExistsError
        The folder holds other files, or a finished run.
    BlockingIOError
        Another process is using the folder.
    ValueError
        The interrupted run had other settings or versions, or `resume` is given without a folder.

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
        self.name = name
        self._began = time.perf_counter()
        self._tables: dict[str, pd.DataFrame] = {}
        self._figures: dict[str, bytes] = {}
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        if path is None and resume:
            raise ValueError("output: got none with --resume, expected the folder of the interrupted run.")
        self.path = _new_folder(f"{name}-{stamp}") if path is None else pathlib.Path(path)
        self._resumed = resume and (self.path / "settings.json").is_file()
        if not self._resumed and self.path.exists() and (not self.path.is_dir() or _in_use(self.path)):
            raise FileExistsError(f"output: got {self.path}, which is not empty; name a new folder.")
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = contextlib.ExitStack()
        try:
            self._lock.enter_context(checkpoint.locked(self.path))
        except BlockingIOError:
            raise BlockingIOError(f"output: got {self.path}, which another run is using.") from None
        self._facts: dict[str, Any] = {
            "experiment": name,
            "settings": {k: v for k, v in dataclasses.asdict(settings).items() if k not in _WHERE},
            "versions": _versions(),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
            "started": stamp,
        }
        if self._resumed:
            self._require_same_run()
        self._write("settings.json", json.dumps(self._facts, indent=2, default=str).encode() + b"\n")

    def kept(self, name: str, compute: Callable[[], T]) -> T:
        """Return compute() and save it under a name unique in the run; a resumed run loads it instead.

        The value is always loaded from its file (JAX arrays become numpy arrays), so that a resumed run has the same
        bits. A damaged piece is computed again, with a UserWarning. Ctrl-C raises SystemExit, with a line that says
        how to continue.
        """
        file = self.path / "pieces" / f"{re.sub(r'[^A-Za-z0-9_.=+-]+', '_', name)}.npz"
        if self._resumed and file.exists():
            try:
                return pieces.load(file)
            except ValueError as error:
                warnings.warn(f"{name}: computed again, because its file is damaged. {error}", stacklevel=2)
        try:
            value = compute()
        except KeyboardInterrupt:
            message = f"Stopped. Finished pieces are kept; continue with --resume --output {self.path}"
            raise SystemExit(message) from None
        file.parent.mkdir(exist_ok=True)
        pieces.save(file, value)
        return pieces.load(file)

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Write a tidy table as NAME.csv."""
        self._tables[name] = frame
        self._write(f"{name}.csv", frame.to_csv(index=False).encode())

    def figure(self, name: str, figure: matplotlib.figure.Figure) -> None:
        """Write a figure as NAME.png."""
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=150, bbox_inches="tight")
        self._drawn(f"{name}.png", drawn.getvalue())

    def animation(self, name: str, animation: matplotlib.animation.Animation) -> None:
        """Write an animation as NAME.gif, in the colours of its last frame."""
        with tempfile.TemporaryDirectory() as place:
            file = pathlib.Path(place, "drawn.gif")
            animation.save(file, writer="pillow", dpi=80)
            with PIL.Image.open(file) as drawn:
                frames = [frame.convert("RGB") for frame in PIL.ImageSequence.Iterator(drawn)]
            palette = frames[-1].quantize(128, PIL.Image.Quantize.MAXCOVERAGE, kmeans=1)
            small = [frame.quantize(palette=palette, dither=PIL.Image.Dither.NONE) for frame in frames]
            small[0].save(file, save_all=True, append_images=small[1:], duration=60, loop=0, optimize=True)
            self._drawn(f"{name}.gif", file.read_bytes())

    def conclude(self, conclusion: str) -> None:
        """Print the conclusion with seconds and folder, and write report.html, the whole run on one page."""
        seconds = time.perf_counter() - self._began
        facts = {**self._facts, "seconds": f"{seconds:.0f}{' since it was resumed' if self._resumed else ''}"}
        question = questions().get(self.name, "")
        report = one_page.page(self.name, question, conclusion, facts, self._tables, self._figures)
        self._write("report.html", report.encode())
        self._lock.close()
        print(f"\n{conclusion} {seconds:.0f} s; report.html, tables and figures in {self.path}")

    def _require_same_run(self) -> None:
        """Raise unless the interrupted run is unfinished and has this experiment, settings and versions."""
        if (self.path / "report.html").exists():
            raise FileExistsError(f"output: got {self.path}, whose run is finished; name a new folder.")
        before = json.loads((self.path / "settings.json").read_text())
        now = json.loads(json.dumps(self._facts, default=str))
        for part in ("experiment", "settings", "versions"):
            if before.get(part) != now[part]:
                raise ValueError(f"resume: got {part} {now[part]}, expected {before.get(part)} of the interrupted run.")
        self._facts["started"] = before["started"]

    def _drawn(self, name: str, content: bytes) -> None:
        self._figures[name] = content
        self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        _files.write(self.path / name, lambda file: file.write(content))


def _new_folder(name: str) -> pathlib.Path:
    """Make and return a folder in `runs`, numbered if the name exists."""
    number, folder = 1, pathlib.Path("runs", name)
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = pathlib.Path("runs", f"{name}-{number}")


def _in_use(folder: pathlib.Path) -> bool:
    """Return whether a folder has more than the files of a run that was killed before it wrote its settings."""
    return any(not re.fullmatch(r"\.lock|settings\.json\..*\.partial", file.name) for file in folder.iterdir())


def _versions() -> dict[str, str]:
    installed = {d.metadata["Name"].lower().replace("-", "_"): d.version for d in importlib.metadata.distributions()}
    return {name: installed.get(name.replace("-", "_"), "not installed") for name in _PACKAGES}
