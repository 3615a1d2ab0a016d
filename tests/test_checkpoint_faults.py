"""Processes killed, disks full, no permission, files damaged: what was finished is restored, and nothing else."""

import contextlib
import errno
import multiprocessing
import os
import pathlib  # noqa: F401  # for the programs below
import random
import resource
import shutil
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from mlp_jax import _files, checkpoint

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["mlp_jax.checkpoint"])
NOBODY = 65534


def state(step, size=4096):
    """The state of a step: every byte of it follows from the step."""
    rng = np.random.default_rng(step)
    return {"step": step, "name": f"step {step}", "numbers": rng.standard_normal(7), "bytes": rng.bytes(size).hex()}


def restored(path):
    """The step that is restored, all of whose state is right, and how many warnings there were."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = checkpoint.restore(path, state(0))
    truth = state(found["step"], len(found["bytes"]) // 2)
    assert found["numbers"].tobytes() == truth["numbers"].tobytes()
    assert (found["name"], found["bytes"]) == (truth["name"], truth["bytes"])
    return found["step"], len(caught)


def require_going_on(path, step):
    """The next save works, and removes what an unfinished one has left."""
    checkpoint.save(path, state(step))
    assert restored(path) == (step, 0)
    assert not list(path.parent.glob("*.partial"))


def started(function, *arguments):
    """A process that runs function(*arguments, connection), and this end of the connection."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=function, args=(*arguments, theirs))
    process.start()
    theirs.close()
    return process, ours


# --- Processes that are killed ---------------------------------------------------------------------------------------


def save_for_ever(path, step, connection):
    while True:
        with contextlib.suppress(FileNotFoundError):  # another one saves to the same path
            checkpoint.save(path, state(step, 2**17))
            connection.send(step)
        step += 1


def test_a_process_that_is_killed_at_a_random_moment_leaves_its_last_state(tmp_path):
    rng, step = random.Random(1), -1
    for _ in range(6):
        process, connection = started(save_for_ever, tmp_path / "state", step + 1)
        last = connection.recv()
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        with contextlib.suppress(EOFError):
            while True:
                last = connection.recv()
        process.join()
        step, _ = restored(tmp_path / "state")
        assert last <= step <= last + 1
    require_going_on(tmp_path / "state", step + 1)


def save_until_line(path, last, connection):
    """Save, and end as by SIGKILL before a line of what touches the disk is executed."""
    seen = 0

    def trace(frame, event, _):
        nonlocal seen
        if frame.f_code not in (_files.write_npz.__code__, _files._rotate.__code__):
            return None
        if event == "line":
            if seen == last:
                os.kill(os.getpid(), 9)
            seen += 1
        return trace

    sys.settrace(trace)
    checkpoint.save(path, state(4))


@pytest.mark.parametrize("damaged", [False, True])
def test_a_process_that_is_killed_at_any_line_leaves_the_old_state_or_the_new_one(tmp_path, damaged):
    (tmp_path / "before").mkdir()
    for step in range(4):
        checkpoint.save(tmp_path / "before" / "state", state(step))
    if damaged:
        (tmp_path / "before" / "state").write_bytes(b"damaged")
    line, ended, new = 0, False, False
    while not ended:
        path = tmp_path / str(line) / "state"
        shutil.copytree(tmp_path / "before", path.parent)
        process, _ = started(save_until_line, path, line)
        process.join()
        ended = process.exitcode == 0
        step, _ = restored(path)
        assert step == 4 if new or ended else step in (2 if damaged else 3, 4)
        new = step == 4
        require_going_on(path, 5)
        line += 1 + damaged


def test_what_is_restored_while_others_save_is_whole(tmp_path):
    checkpoint.save(tmp_path / "state", state(0))
    writers = [started(save_for_ever, tmp_path / "state", 1000 * n) for n in range(2)]
    for _, connection in writers:
        connection.recv()
    steps = {restored(tmp_path / "state")[0] for _ in range(200)}
    for process, _ in writers:
        process.kill()
        process.join()
    assert len(steps) > 1


def hold(folder, connection):
    with checkpoint.locked(folder):
        connection.send("held")
        time.sleep(600)


def test_a_lock_ends_with_its_process(tmp_path):
    process, connection = started(hold, tmp_path)
    connection.recv()
    with pytest.raises(BlockingIOError, match=str(tmp_path)), checkpoint.locked(tmp_path):
        pass
    process.kill()
    process.join()
    with checkpoint.locked(tmp_path):
        pass


# --- Disks and permissions: each in a process of its own, told what to do by its name ---------------------------------


def require_refused(path, step, size, number):
    """A save raises OSError of this number and changes nothing in the folder."""
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(OSError) as refusal:  # noqa: PT011  # its number is compared below
        checkpoint.save(path, state(step, size))
    assert refusal.value.errno == number
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def in_a_process(function, path):
    process, connection = started(function, path)
    with contextlib.suppress(EOFError):
        connection.recv()
    process.join()
    assert process.exitcode == 0


def fill(path, number, room=2**20):
    checkpoint.save(path, state(0))
    rng = random.Random(1)
    for step in range(1, 6):
        require_refused(path, step, rng.randrange(room, 2 * room), number)
        assert restored(path) == (step - 1, 0)
        require_going_on(path, step)


def fill_under_limit(path, _):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))
    fill(path, errno.EFBIG, 2**16)


def test_a_write_that_fails_half_way_leaves_the_state_before(tmp_path):
    in_a_process(fill_under_limit, tmp_path / "state")


def make_read_only(path):
    checkpoint.save(path, state(0))
    subprocess.run(["mount", "-o", "remount,ro", str(path.parent)], check=True)
    require_refused(path, 1, 4096, errno.EROFS)


@pytest.mark.parametrize("work", ["fill(path, errno.ENOSPC)", "make_read_only(path)"])
def test_a_disk_that_is_full_or_read_only_leaves_the_state_before(tmp_path, work):
    """In a file system in memory, of 1 MiB, that no other process sees."""
    program = f"from test_checkpoint_faults import *; path = pathlib.Path('state').absolute(); {work}"
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && cd "$1" && shift && exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    done = subprocess.run([*command, sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def save_without_permission(path, _):
    os.chdir(path.parent)  # the folders above need not be open to others
    if os.geteuid() == 0:  # permissions bind everyone but root
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    require_refused(path.relative_to(path.parent), 1, 4096, errno.EACCES)


def test_a_folder_without_permission_leaves_the_state_before(tmp_path):
    checkpoint.save(tmp_path / "state", state(0))
    tmp_path.chmod(0o555)
    try:
        in_a_process(save_without_permission, tmp_path / "state")
    finally:
        tmp_path.chmod(0o755)


# --- Files that are damaged ------------------------------------------------------------------------------------------


def flip_bits(data, rng):
    for place in rng.sample(range(8 * len(data)), rng.choice((1, 2, 8))):
        data[place // 8] ^= 1 << place % 8


def overwrite(data, rng):
    start = rng.randrange(len(data))
    size = min(rng.randrange(1, 600), len(data) - start)
    data[start : start + size] = rng.randbytes(size)


def exchange_blocks(data, rng):
    one, other = (512 * place for place in rng.sample(range(len(data) // 512), 2))
    data[one : one + 512], data[other : other + 512] = data[other : other + 512], data[one : one + 512]


def truncate(data, rng):
    del data[rng.randrange(len(data)) :]


@pytest.mark.parametrize(
    "damage", [flip_bits, overwrite, exchange_blocks, truncate], ids=lambda damage: damage.__name__
)
def test_a_damaged_file_is_never_restored_as_something_else(tmp_path, damage):
    """It is the same state where the damage is in a date or the like, and the one before otherwise."""
    rng, path = random.Random(1), tmp_path / "state"
    for step in range(2):
        checkpoint.save(path, state(step))
    whole, found = path.read_bytes(), []
    for _ in range(100):
        changed = bytearray(whole)
        damage(changed, rng)
        path.write_bytes(changed)
        found.append(restored(path))
    assert set(found) <= {(0, 1), (1, 0)}
    assert found.count((0, 1)) > 90


@pytest.fixture
def small(tmp_path):
    """A checkpoint of few bytes, and one before it."""
    path = tmp_path / "state"
    for step in (1, 2):
        checkpoint.save(path, np.full(3, step))
    return path, path.read_bytes()


def require_one_before(path):
    with pytest.warns(UserWarning, match=rf"{path}.* Restored {path}.1 instead"):
        assert checkpoint.restore(path, np.zeros(3, int)).tolist() == [1, 1, 1]


def test_a_change_of_any_byte_is_found_or_changes_nothing(small):
    path, data = small
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = checkpoint.restore(path, np.zeros(3, int))
        assert found.tolist() == ([1, 1, 1] if caught else [2, 2, 2])


def test_a_file_that_ends_at_any_byte_or_is_missing_is_reported_and_the_one_before_restored(small):
    path, data = small
    for size in range(0, len(data), 3):
        path.write_bytes(data[:size])
        require_one_before(path)
    path.unlink()
    require_one_before(path)


@pytest.mark.parametrize("kind", ["text", "pickle", "one array", "a checkpoint that it held"])
def test_another_file_is_not_restored_and_not_unpickled(small, kind):
    path, data = small
    if kind == "text":
        path.write_text("a text that never was a checkpoint")
    elif kind == "pickle":
        np.savez(path.with_name("made.npz"), header=np.array([print]))
        os.replace(path.with_name("made.npz"), path)
    elif kind == "one array":
        np.save(path.with_name("made.npy"), np.zeros(3, int))
        os.replace(path.with_name("made.npy"), path)
    else:
        checkpoint.save(path.with_name("outer"), np.frombuffer(data, np.uint8))
        outer = path.with_name("outer").read_bytes()
        path.write_bytes(outer[: outer.index(data) + len(data)])
    require_one_before(path)


def test_the_newest_whole_one_is_restored_past_damaged_ones_and_a_gap(tmp_path):
    path = tmp_path / "state"
    for step in range(6):
        checkpoint.save(path, step, keep=9)
    path.write_bytes(b"")
    (tmp_path / "state.1").write_bytes(b"damaged")
    (tmp_path / "state.2").unlink()
    with pytest.warns(UserWarning, match=r"state: .*state\.1: .* Restored .*state\.3 instead"):
        assert checkpoint.restore(path, 0) == 2
    for number in (3, 4, 5):
        (tmp_path / f"state.{number}").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"no file that is whole: .*state: .*state\.1: .*state\.3: .*state\.5: "):
        checkpoint.restore(path, 0)
