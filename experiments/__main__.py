"""List the questions: `python -m experiments`."""

from __future__ import annotations

import sys

from experiments._shared.questions import questions

if __name__ == "__main__":
    listed = questions()
    width = max(map(len, listed))
    for name, question in listed.items():
        sys.stdout.write(f"python -m experiments.{name:<{width}}  {question}\n")
