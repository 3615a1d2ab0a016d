"""List the questions: `python -m experiments`."""

from __future__ import annotations

import sys

from experiments._shared.questions import questions


def main() -> None:
    """Print one line an experiment."""
    listed = questions()
    width = max((len(name) for name in listed), default=0)
    for name, question in listed.items():
        sys.stdout.write(f"python -m experiments.{name:<{width}}  {question}\n")


if __name__ == "__main__":
    main()
