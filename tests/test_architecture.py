"""The floors of the house hold: import-linter's contracts in pyproject.toml."""

import pathlib
import subprocess
import sys


def test_a_room_imports_only_the_rooms_below_it():
    root = pathlib.Path(__file__).parent.parent
    command = [str(pathlib.Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
