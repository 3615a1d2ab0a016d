"""The question that each experiment answers: the first line of its docstring."""

from __future__ import annotations

import ast
import pathlib


def questions() -> dict[str, str]:
    """Return the first docstring line of every experiment, by name, without importing any.

    Examples
    --------
    >>> questions()["taylor"].endswith("?")
    True
    """
    found = {}
    for file in sorted(pathlib.Path(__file__).parent.parent.glob("*.py")):
        module = ast.parse(file.read_text())
        has_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body)
        if has_main and file.stem != "__main__":
            found[file.stem] = (ast.get_docstring(module) or "").partition("\n")[0]
    return found
