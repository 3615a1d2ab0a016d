"""Kill experiments with SIGKILL at random moments, resume them, and compare their tables bit for bit.

    python -m benchmarks.resume                 20 kills each of a sweep, a census and training runs: about 12 minutes
    python -m benchmarks.resume --kills 3 --only census

An experiment runs once without interruption. Then it is started, killed after a random time of up to that of the whole
run, and resumed until it finishes; this is repeated until it has been killed often enough. Every finished run must have
the tables of the first, byte for byte.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import tqdm

from benchmarks.side_by_side import machine


@dataclasses.dataclass(frozen=True)
class Case:
    """An experiment and its options."""

    experiment: str
    options: tuple[str, ...]


CASES = {
    "sweep": Case("learning_rates", ("--quick",)),
    "census": Case("saddles_and_width", ("--quick",)),
    "training": Case("edge_of_stability", ("--quick",)),
}


def command(case: Case, folder: pathlib.Path) -> list[str]:
    experiment = [sys.executable, "-m", f"experiments.{case.experiment}", *case.options]
    return [*experiment, "--output", str(folder), "--resume"]  # starts the run in a new folder


def is_killed(case: Case, folder: pathlib.Path, seconds: float) -> bool:
    """Start or resume a run; return whether it was killed after that many seconds."""
    process = subprocess.Popen(command(case, folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        errors = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return not (folder / "report.html").exists()  # a run with a report is finished and cannot be resumed
    if process.returncode:
        raise RuntimeError(f"{folder}: the run failed with {process.returncode}:\n{errors}")
    return False


def tables(folder: pathlib.Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.csv"))}


def survive(case: Case, kills: int, seed: int) -> dict[str, object]:
    """Return the number of kills, of finished runs, and of finished runs with the same tables."""
    draw, killed, finished, same = random.Random(seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        if is_killed(case, pathlib.Path(name) / "whole", 600):
            raise RuntimeError(f"{case.experiment}: took more than 600 s.")
        whole = time.perf_counter() - began
        wanted = tables(pathlib.Path(name) / "whole")
        with tqdm.tqdm(total=kills, unit="kill", desc=case.experiment, disable=None) as bar:
            while killed < kills:
                folder = pathlib.Path(name) / f"run_{finished}"
                while is_killed(case, folder, draw.uniform(0, whole)):
                    killed += 1
                    bar.update()
                finished += 1
                same += tables(folder) == wanted
    return {
        "experiment": case.experiment, "tables": len(wanted), "seconds": f"{whole:.0f}", "kills": killed,
        "runs finished": finished, "tables the same": same,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each kind, at least")
    parser.add_argument("--only", choices=CASES, action="append", help="these kinds only")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    chosen = parser.parse_args()
    print(machine())
    failed = False
    for kind in chosen.only or CASES:
        row = survive(CASES[kind], chosen.kills, chosen.seed)
        print(f"{kind}: " + ", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        failed |= row["runs finished"] != row["tables the same"] or not row["tables"]
    if failed:
        raise SystemExit("Some tables differ.")


if __name__ == "__main__":
    main()
