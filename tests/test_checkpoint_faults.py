"""Killed processes, full disks, damaged files: the last finished state is restored, or the one before."""

import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import sys
import time
import warnings

import numpy as np
import pytest

from mlp_jax import _files, checkpoint

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["mlp_jax.checkpoint"])


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
    """The next save works, and removes the files of unfinished ones."""
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


# --- Killed processes ------------------------------------------------------------------------------------------------


def save_for_ever(path, step, connection):
    while True:
        with contextlib.suppress(FileNotFoundError):  # another one saves to the same path
            checkpoint.save(path, state(step, 2**17))
            connection.send(step)
        step += 1


def test_a_process_that_is_killed_at_a_random_moment_leaves_its_last_state(tmp_path):
    rng, step = random.Random(1), -1
    for _ in range(4):
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


@pytest.mark.parametrize("damaged", [False, True])
def test_a_process_that_is_killed_at_any_line_leaves_the_old_state_or_the_new_one(tmp_path, damaged):
    """What a kill before a line leaves is what the folder holds at that moment: it is copied before every line."""
    (tmp_path / "run").mkdir()
    for step in range(4):
        checkpoint.save(tmp_path / "run" / "state", state(step))
    if damaged:
        (tmp_path / "run" / "state").write_bytes(b"damaged")
    left = []

    def trace(frame, event, _):
        if frame.f_code.co_filename != _files.__file__:
            return None
        if event == "line":
            left.append(shutil.copytree(tmp_path / "run", tmp_path / f"{len(left)}") / "state")
        return trace

    sys.settrace(trace)
    try:
        checkpoint.save(tmp_path / "run" / "state", state(4))
    finally:
        sys.settrace(None)
    steps = [restored(path)[0] for path in left]
    assert steps == sorted(steps)
    assert set(steps) == {2 if damaged else 3, 4}
    for path in left:
        require_going_on(path, 5)


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


# --- Full disks ------------------------------------------------------------------------------------------------------


def fill_under_limit(path, _):
    """A save that does not fit on the disk raises OSError and changes nothing in the folder."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))
    checkpoint.save(path, state(0))
    rng = random.Random(1)
    for step in range(1, 6):
        before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(path, state(step, rng.randrange(2**16, 2**17)))
        assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
        assert restored(path) == (step - 1, 0)
        require_going_on(path, step)


def test_a_write_that_fails_half_way_leaves_the_state_before(tmp_path):
    process, _ = started(fill_under_limit, tmp_path / "state")
    process.join()
    assert process.exitcode == 0


# --- Damaged files ---------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("damage", [flip_bits, overwrite, exchange_blocks], ids=lambda damage: damage.__name__)
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
