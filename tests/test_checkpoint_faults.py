"""Killed processes, full disks, damaged files: the last finished state is restored, or the one before."""

import contextlib
import io
import multiprocessing
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
    np.testing.assert_equal(found, state(found["step"], len(found["bytes"]) // 2))
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


def kill(process):
    process.kill()
    process.join()


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
        kill(process)
        with contextlib.suppress(EOFError):
            while True:
                last = connection.recv()
        step, _ = restored(tmp_path / "state")
        assert last <= step <= last + 1
    require_going_on(tmp_path / "state", step + 1)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_process_that_is_killed_at_any_line_leaves_the_old_state_or_the_new_one(tmp_path, damaged):
    """What a kill before a line leaves is what the folder holds at that moment: it is copied before every line."""
    run, left = tmp_path / "run", []
    run.mkdir()
    for step in range(4):
        checkpoint.save(run / "state", state(step))
    if damaged:
        (run / "state").write_bytes(b"damaged")

    def trace(frame, event, _):
        if event == "line":
            left.append(shutil.copytree(run, tmp_path / f"{len(left)}") / "state")
        return trace if frame.f_code.co_filename == _files.__file__ else None

    sys.settrace(trace)
    try:
        checkpoint.save(run / "state", state(4))
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
        kill(process)
    assert len(steps) > 1


def hold(folder, connection):
    with checkpoint.locked(folder):
        connection.send("held")
        time.sleep(600)


def test_a_folder_is_held_by_one_run_at_a_time_until_it_ends(tmp_path):
    refused = lambda: pytest.raises(BlockingIOError, match=f"folder: got {tmp_path}, which another")
    process, connection = started(hold, tmp_path)
    connection.recv()
    with refused(), checkpoint.locked(tmp_path):
        pass
    kill(process)
    with pytest.raises(KeyError), checkpoint.locked(str(tmp_path)):
        raise KeyError
    with checkpoint.locked(tmp_path), refused(), checkpoint.locked(tmp_path):
        pass


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


def saved(path, size):
    """The bytes of the checkpoint of step 1, and beside it that of step 0."""
    for step in range(2):
        checkpoint.save(path, state(step, size))
    return path.read_bytes()


# Damage in a date or the like changes nothing; otherwise the checkpoint before is restored, with a warning.
BEFORE, HARMLESS = (0, 1), (1, 0)


@pytest.mark.parametrize("damage", [flip_bits, overwrite, exchange_blocks], ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_never_restored_as_something_else(tmp_path, damage):
    rng, path, found = random.Random(1), tmp_path / "state", []
    whole = saved(path, 4096)
    for _ in range(100):
        changed = bytearray(whole)
        damage(changed, rng)
        path.write_bytes(changed)
        found.append(restored(path))
    assert set(found) <= {BEFORE, HARMLESS}
    assert found.count(BEFORE) > 90


def test_a_change_of_any_byte_is_found_or_changes_nothing(tmp_path):
    data = saved(tmp_path / "state", 0)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        (tmp_path / "state").write_bytes(changed)
        assert restored(tmp_path / "state") in (BEFORE, HARMLESS)


def written(save, *arrays, **named):
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


def test_the_checkpoint_before_is_restored_for_a_file_that_is_cut_or_of_another_kind_or_missing(tmp_path):
    path = tmp_path / "state"
    data = saved(path, 0)
    checkpoint.save(tmp_path / "outer", np.frombuffer(data, np.uint8))
    inner = (tmp_path / "outer").read_bytes().partition(data)
    pickled, array = written(np.savez, header=np.array([print])), written(np.save, np.zeros(3))
    cut = [data[:size] for size in range(0, len(data), 3)]
    for content in (*cut, b"a text", pickled, array, inner[0] + inner[1], None):
        path.unlink() if content is None else path.write_bytes(content)
        assert restored(path) == BEFORE
    with pytest.warns(UserWarning, match=rf"{path}.* Restored {path}.1 instead"):
        checkpoint.restore(path, state(0))


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
