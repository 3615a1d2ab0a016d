"""List the questions: `python -m experiments`."""

from __future__ import annotations

import ast
import pathlib
import sys


def questions() -> dict[str, str]:
    """Return the first docstring line of every experiment, by name, without importing any."""
    found = {}
    for file in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        module = ast.parse(file.read_text())
        has_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body)
        if has_main and file.stem != "__main__":
            found[file.stem] = (ast.get_docstring(module) or "").partition("\n")[0]
    return found


def main() -> None:
    """Print one line an experiment."""
    listed = questions()
    width = max((len(name) for name in listed), default=0)
    for name, question in listed.items():
        sys.stdout.write(f"python -m experiments.{name:<{width}}  {question}\n")


if __name__ == "__main__":
    main()
