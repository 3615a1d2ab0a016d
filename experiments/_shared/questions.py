"""The question of each experiment: the first line of its docstring."""

from __future__ import annotations

import ast
import pathlib


def questions() -> dict[str, str]:
    """Return the first docstring line of every experiment, by name, without importing any."""
    files = sorted(pathlib.Path(__file__).parent.parent.glob("[!_]*.py"))
    return {file.stem: (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0] for file in files}
