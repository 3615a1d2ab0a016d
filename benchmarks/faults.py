"""Which faults does a checkpoint survive? Processes killed, disks full, permissions taken away, files damaged.

A trial has survived where `restore` gives the state that was saved last, or, where its file is damaged, the one before;
no trial may give any other state, and none may leave an unfinished file that the next `save` does not remove. What a
state should hold is computed again from its step.

    python -m benchmarks.faults
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import json
import multiprocessing
import os
import pathlib
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mlp_jax import checkpoint

NOBODY = 65534
KIBI = 1024


@dataclasses.dataclass
class Outcome:
    """What became of the trials of one fault."""

    fault: str
    way: str
    trials: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    note: str = ""

    @contextlib.contextmanager
    def trial(self) -> Iterator[None]:
        """Count one trial, which fails where a check in it raises."""
        self.trials += 1
        try:
            yield
        except Exception as error:
            self.failures.append(f"trial {self.trials}: {type(error).__name__}: {error}")

    @property
    def survived(self) -> int:
        """How many trials did not fail."""
        return self.trials - len(self.failures)


class Broken(Exception):
    """A check of a trial has failed."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise Broken(message)


def processes() -> Any:
    """Return the context that starts processes with everything imported, in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlp_jax.checkpoint"])
    return context


def state(step: int, size: int = 4 * KIBI) -> dict[str, Any]:
    """Return the state of a step: every byte of it follows from the step."""
    rng = np.random.default_rng(step)
    return {"step": step, "name": f"step {step}", "numbers": rng.standard_normal(7), "bytes": rng.bytes(size).hex()}


def restored(path: pathlib.Path) -> tuple[int, list[str]]:
    """Return the step that `restore` gives, all of whose state is right, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = checkpoint.restore(path, state(0))
    truth = state(found["step"], len(found["bytes"]) // 2)
    same = found["numbers"].tobytes() == truth["numbers"].tobytes()
    require(same and all(found[k] == truth[k] for k in ("name", "bytes")), f"step {found['step']} is a wrong state")
    return found["step"], [str(warning.message) for warning in caught]


def require_going_on(path: pathlib.Path, step: int) -> None:
    """Check that the next `save` works and removes what an unfinished one has left."""
    checkpoint.save(path, state(step))
    require(restored(path) == (step, []), "the next save was not restored")
    require(not list(path.parent.glob("*.partial")), "an unfinished file was left")


# --- Processes that are killed ---------------------------------------------------------------------------------------


def _save_for_ever(path: pathlib.Path, first: int, size: int, connection: Any) -> None:
    step = first
    while True:
        checkpoint.save(path, state(step, size))
        connection.send_bytes(step.to_bytes(8, "little"))
        step += 1


def _completed(connection: Any) -> int:
    """Return the last step that a killed process has completed."""
    last = -1
    with contextlib.suppress(EOFError):
        while True:
            last = int.from_bytes(connection.recv_bytes(), "little")
    return last


def kills(folder: pathlib.Path, trials: int, seed: int, size: int = 128 * KIBI) -> Outcome:
    """Kill a process that saves in a loop, at random moments; the next one goes on from what is restored."""
    outcome = Outcome("SIGKILL of a process that saves in a loop", "at random moments")
    rng = random.Random(seed)
    path = folder / "state"
    step = -1
    unfinished = 0
    for _ in range(trials):
        with outcome.trial():
            ours, theirs = processes().Pipe(duplex=False)
            process = processes().Process(target=_save_for_ever, args=(path, step + 1, size, theirs))
            process.start()
            theirs.close()
            first = int.from_bytes(ours.recv_bytes(), "little")
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
            last = max(first, _completed(ours))
            process.join()
            unfinished += bool(list(folder.glob("*.partial")))
            step, _ = restored(path)
            require(last <= step <= last + 1, f"step {last} was saved last, and step {step} restored")
    with outcome.trial():
        require_going_on(path, step + 1)
    outcome.note = f"{unfinished} while writing; {step + 1} saves"
    return outcome


def _save_until_line(path: pathlib.Path, step: int, keep: int, last: int) -> None:
    """Save, and end as by SIGKILL before a line of `checkpoint` is executed."""
    seen = 0

    def trace(frame: types.FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename != checkpoint.__file__:
            return None
        if event == "line":
            if seen == last:
                os.kill(os.getpid(), 9)
            seen += 1
        return trace

    sys.settrace(trace)
    checkpoint.save(path, state(step), keep=keep)
    sys.settrace(None)


def crashes(folder: pathlib.Path, stride: int = 1, damaged: bool = False) -> Outcome:
    """Kill a process before every line of `save`: no state but the old or the new one, and no way back to the old.

    When `damaged`, the newest file is so beforehand, and only one earlier is kept: the old state is the one in it.
    """
    outcome = Outcome("SIGKILL before a line of `save`", "newest file damaged" if damaged else "every file whole")
    before, keep = folder / "before", 1 if damaged else 2
    before.mkdir()
    for step in range(4):
        checkpoint.save(before / "state", state(step), keep=keep)
    if damaged:
        (before / "state").write_bytes(b"damaged")
    old = 2 if damaged else 3
    new, missing, line, ended = False, 0, 0, False
    while not ended:
        with outcome.trial():
            here = folder / str(line)
            shutil.copytree(before, here)
            process = processes().Process(target=_save_until_line, args=(here / "state", 4, keep, line))
            process.start()
            process.join()
            ended = process.exitcode != -9
            require(process.exitcode in (0, -9), f"save ended with {process.exitcode}")
            missing += not (here / "state").exists()
            step, _ = restored(here / "state")
            require(step == 4 if new or ended else step in (old, 4), f"step {step} was restored")
            new = step == 4
            require_going_on(here / "state", 5)
        line += stride
    outcome.note = f"every {stride}th line; " * (stride > 1) + f"{missing} between two renames"
    return outcome


def reading_while_writing(folder: pathlib.Path, trials: int, writers: int = 1) -> Outcome:
    """Restore again and again while other processes save to the same path."""
    outcome = Outcome("restore while others save", f"{writers} at a time, not locked")
    path = folder / "state"
    checkpoint.save(path, state(0))
    running = [processes().Process(target=_save_in_spite, args=(path, 1000 * n)) for n in range(writers)]
    for process in running:
        process.start()
    steps = set()
    for _ in range(trials):
        with outcome.trial():
            steps.add(restored(path)[0])
    for process in running:
        process.kill()
        process.join()
    outcome.note = f"{len(steps)} different states"
    return outcome


def _save_in_spite(path: pathlib.Path, first: int) -> None:
    step = first
    while True:
        with contextlib.suppress(FileNotFoundError):  # what `save` says it may raise here
            checkpoint.save(path, state(step))
        step += 1


def _hold(folder: pathlib.Path, connection: Any) -> None:
    with checkpoint.locked(folder):
        connection.send_bytes(b"held")
        time.sleep(600)


def locks(folder: pathlib.Path, trials: int) -> Outcome:
    """A second process is refused; the lock of a killed one is free."""
    outcome = Outcome("second process on a folder", "`locked`, holder killed")
    for _ in range(trials):
        with outcome.trial():
            ours, theirs = processes().Pipe(duplex=False)
            process = processes().Process(target=_hold, args=(folder, theirs))
            process.start()
            ours.recv_bytes()
            refused = False
            try:
                with checkpoint.locked(folder):
                    pass
            except BlockingIOError as error:
                refused = str(folder) in str(error)
            process.kill()
            process.join()
            require(refused, "not refused")
            with checkpoint.locked(folder):
                pass
    return outcome


# --- Disks and permissions -------------------------------------------------------------------------------------------


def _refused(path: pathlib.Path, attempt: Callable[[], None], numbers: tuple[int, ...]) -> None:
    """Check that a `save` raises OSError of one of these numbers and changes nothing in the folder."""
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    try:
        attempt()
    except OSError as error:
        require(error.errno in numbers, f"got {error!r}")
    else:
        raise Broken("save succeeded")
    require({file.name: file.read_bytes() for file in path.parent.iterdir()} == before, "the folder was changed")


def _fill(path: pathlib.Path, room: int, trials: int, seed: int, number: int) -> Outcome:
    """Save states that fit and states that do not, where `room` bytes fit."""
    outcome = Outcome("", "")
    rng = random.Random(seed)
    checkpoint.save(path, state(0))
    for step in range(1, trials + 1):
        with outcome.trial():
            too_large = state(step, rng.randrange(room, 2 * room))
            _refused(path, lambda large=too_large: checkpoint.save(path, large), (number,))  # type: ignore[misc]
            require(restored(path) == (step - 1, []), "the state before was not restored")
            require_going_on(path, step)
    return outcome


def _fill_under_limit(path: pathlib.Path, room: int, trials: int, seed: int, connection: Any) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    connection.send(_fill(path, room, trials, seed, errno.EFBIG))


def file_size_limit(folder: pathlib.Path, trials: int, seed: int) -> Outcome:
    """Save more than a file may hold."""
    ours, theirs = processes().Pipe(duplex=False)
    process = processes().Process(target=_fill_under_limit, args=(folder / "state", 64 * KIBI, trials, seed, theirs))
    process.start()
    outcome = ours.recv()
    process.join()
    return dataclasses.replace(outcome, fault="write fails half-way (EFBIG)", way="RLIMIT_FSIZE")


def _mounted(fault: str, way: str, folder: pathlib.Path, what: str, trials: int, seed: int) -> Outcome:
    """Run `_inside` in a file system in memory that no other process sees; or say why that cannot be."""
    program = shutil.which("unshare")
    if program is None:
        return Outcome(fault, way, note="skipped: no unshare here")
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && shift && exec "$@"'
    python = [sys.executable, "-m", "benchmarks.faults", "--inside", str(folder), what, str(trials), str(seed)]
    command = [program, "--map-root-user", "--mount", "sh", "-c", script, "sh", str(folder), *python]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return Outcome(fault, way, note=f"skipped: {(done.stderr.strip().splitlines() or ['no mount'])[-1]}")
    return Outcome(**{**json.loads(done.stdout), "fault": fault, "way": way})


def full_disk(folder: pathlib.Path, trials: int, seed: int) -> Outcome:
    """Save more than the disk holds."""
    return _mounted("disk full (ENOSPC)", "tmpfs of 1 MiB", folder, "full", trials, seed)


def read_only(folder: pathlib.Path, trials: int) -> Outcome:
    """Save where the file system has become read-only."""
    return _mounted("read-only file system (EROFS)", "tmpfs, remounted", folder, "read-only", trials, 0)


def _inside(folder: pathlib.Path, what: str, trials: int, seed: int) -> Outcome:
    path = folder / "state"
    if what == "full":
        return _fill(path, 1 << 20, trials, seed, errno.ENOSPC)
    outcome = Outcome("", "")
    for step in range(trials):
        with outcome.trial():
            checkpoint.save(path, state(step))
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            _refused(path, lambda step=step: checkpoint.save(path, state(step + 1)), (errno.EROFS,))  # type: ignore[misc]
            require(restored(path) == (step, []), "the state before was not restored")
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    return outcome


def _save_without_permission(folder: pathlib.Path, step: int, connection: Any) -> None:
    os.chdir(folder)  # the folders above need not be open to others
    if os.geteuid() == 0:  # permissions bind everyone but root
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        _refused(pathlib.Path("state"), lambda: checkpoint.save("state", state(step)), (errno.EACCES,))
    except Exception as error:
        connection.send(str(error))
    else:
        connection.send("")


def no_permission(folder: pathlib.Path, trials: int) -> Outcome:
    """Save where this user may not write."""
    root = os.geteuid() == 0
    outcome = Outcome("no permission to write (EACCES)", "as nobody, in root's folder" if root else "mode 555")
    path = folder / "state"
    for step in range(trials):
        with outcome.trial():
            checkpoint.save(path, state(step))
            ours, theirs = processes().Pipe(duplex=False)
            process = processes().Process(target=_save_without_permission, args=(folder, step + 1, theirs))
            folder.chmod(0o555)
            try:
                process.start()
                message = ours.recv()
                process.join()
            finally:
                folder.chmod(0o755)
            require(not message, message)
            require(restored(path) == (step, []), "the state before was not restored")
    return outcome


# --- Files that are damaged ------------------------------------------------------------------------------------------


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for place in rng.sample(range(8 * len(data)), rng.choice((1, 1, 2, 8))):
        data[place // 8] ^= 1 << place % 8


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def overwrite(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    size = min(rng.randrange(1, 600), len(data) - start)
    data[start : start + size] = rng.randbytes(size)


def lose_block(data: bytearray, rng: random.Random) -> None:
    start = 512 * rng.randrange(len(data) // 512)
    data[start : start + 512] = bytes(512)


def exchange_blocks(data: bytearray, rng: random.Random) -> None:
    one, other = (512 * place for place in rng.sample(range(len(data) // 512), 2))
    data[one : one + 512], data[other : other + 512] = data[other : other + 512], data[one : one + 512]


def append(data: bytearray, rng: random.Random) -> None:
    data += rng.randbytes(rng.randrange(1, 600))


DAMAGES = (flip_bits, truncate, overwrite, lose_block, exchange_blocks, append)


def damaged(folder: pathlib.Path, damage: Callable[..., None], trials: int, seed: int) -> Outcome:
    """Damage the newest file, then the one before as well, at random places."""
    outcome = Outcome("damaged file", damage.__name__.replace("_", " "), note="and the one before: an error")
    rng = random.Random(seed)
    path, earlier = folder / "state", folder / "state.1"
    for step in range(2):
        checkpoint.save(path, state(step))
    whole, whole_earlier = path.read_bytes(), earlier.read_bytes()
    for _ in range(trials):
        with outcome.trial():
            path.write_bytes(_changed(whole, damage, rng))
            earlier.write_bytes(whole_earlier)
            step, said = restored(path)
            require(step == 0, f"step {step} was restored")
            require(len(said) == 1 and str(path) in said[0], f"got the warnings {said}")
            earlier.write_bytes(_changed(whole_earlier, damage, rng))
            require(_is_clear_error(path), "two damaged files made no clear error")
    return outcome


def _changed(data: bytes, damage: Callable[..., None], rng: random.Random) -> bytes:
    changed = bytearray(data)
    while changed == data:
        changed = bytearray(data)
        damage(changed, rng)
    return bytes(changed)


def _is_clear_error(path: pathlib.Path) -> bool:
    try:
        restored(path)
    except ValueError as error:
        return str(path) in str(error) and f"{path}.1" in str(error)
    return False


# --- The table -------------------------------------------------------------------------------------------------------


def outcomes(folder: pathlib.Path, seed: int) -> Iterator[Outcome]:
    """Yield the outcome of every fault, each tried in a folder of its own."""

    def new(name: str) -> pathlib.Path:
        (folder / name).mkdir()
        return folder / name

    yield kills(new("kills"), 200, seed)
    yield crashes(new("crashes"))
    yield crashes(new("crashes of damaged"), damaged=True)
    yield reading_while_writing(new("one writer"), 2000)
    yield reading_while_writing(new("three writers"), 2000, writers=3)
    yield locks(new("locks"), 20)
    yield full_disk(new("full"), 50, seed)
    yield file_size_limit(new("limit"), 50, seed)
    yield read_only(new("read-only"), 10)
    yield no_permission(new("permission"), 10)
    for damage in DAMAGES:
        yield damaged(new(damage.__name__), damage, 500, seed)


def main() -> None:
    """Print the table, and fail where a fault was not survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=pathlib.Path, help="on the disk to try; the default is the temporary one")
    parser.add_argument("--inside", nargs=4, metavar=("FOLDER", "WHAT", "TRIALS", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        folder, what, trials, seed = arguments.inside
        print(json.dumps(dataclasses.asdict(_inside(pathlib.Path(folder), what, int(trials), int(seed)))))
        return
    print(f"{platform.system()} {platform.release()}, Python {platform.python_version()}, seed {arguments.seed}")
    print(f"{'fault':42}{'way':30}{'trials':>7}{'survived':>10}{'seconds':>9}  note")
    failures = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        start = time.perf_counter()
        for outcome in outcomes(pathlib.Path(folder), arguments.seed):
            now = time.perf_counter()
            row = f"{outcome.fault:42}{outcome.way:30}{outcome.trials:7}{outcome.survived:10}{now - start:9.1f}"
            print(f"{row}  {outcome.note}", flush=True)
            failures += [f"{outcome.fault}, {outcome.way}: {failure}" for failure in outcome.failures]
            start = now
    if failures:
        raise SystemExit("\n".join(["Not survived:", *failures[:20]]))


if __name__ == "__main__":
    main()
