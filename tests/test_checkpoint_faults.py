"""A sample of `python -m benchmarks.faults`, and every single byte of a small file."""

import pathlib

import numpy as np
import pytest

from benchmarks import faults
from mlp_jax import checkpoint


def require_survived(outcome):
    if not outcome.trials:
        pytest.skip(outcome.note)
    assert not outcome.failures, outcome.failures[:3]


def test_a_process_that_is_killed_at_a_random_moment_leaves_its_last_state(tmp_path):
    require_survived(faults.kills(tmp_path, 10, seed=1))


@pytest.mark.parametrize("damaged", [False, True])
def test_a_process_that_is_killed_at_any_line_leaves_the_old_state_or_the_new_one(tmp_path, damaged):
    require_survived(faults.crashes(tmp_path, stride=4, damaged=damaged))


def test_what_is_restored_while_others_save_is_whole(tmp_path):
    require_survived(faults.reading_while_writing(tmp_path, 300, writers=2))


def test_a_lock_ends_with_its_process(tmp_path):
    require_survived(faults.locks(tmp_path, 2))


def test_a_full_disk_leaves_the_state_before(tmp_path):
    require_survived(faults.full_disk(tmp_path, 5, seed=1))


def test_a_write_that_fails_half_way_leaves_the_state_before(tmp_path):
    require_survived(faults.file_size_limit(tmp_path, 10, seed=1))


def test_a_read_only_file_system_leaves_the_state_before(tmp_path):
    require_survived(faults.read_only(tmp_path, 2))


def test_a_folder_without_permission_leaves_the_state_before(tmp_path):
    require_survived(faults.no_permission(tmp_path, 2))


@pytest.mark.parametrize("damage", faults.DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_never_restored(tmp_path, damage):
    require_survived(faults.damaged(tmp_path, damage, 50, seed=1))


@pytest.fixture
def small(tmp_path):
    """A checkpoint of 300 bytes or so, and one before it."""
    path = tmp_path / "state"
    for step in (1, 2):
        checkpoint.save(path, {"step": step, "w": np.full(3, step)})
    return path, path.read_bytes()


def require_the_one_before(path: pathlib.Path):
    with pytest.warns(UserWarning, match=rf"{path} .*; restored {path}.1 instead"):
        got = checkpoint.restore(path, {"step": 0, "w": np.zeros(3, int)})
    assert got["step"] == 1
    assert got["w"].tolist() == [1, 1, 1]


def test_a_change_of_any_byte_is_found(small):
    path, data = small
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        require_the_one_before(path)


def test_a_file_that_ends_at_any_byte_is_found(small):
    path, data = small
    for size in range(len(data)):
        path.write_bytes(data[:size])
        require_the_one_before(path)


def test_a_file_that_is_gone_is_reported_and_the_one_before_restored(small):
    path, _ = small
    path.unlink()
    require_the_one_before(path)


def test_the_newest_whole_one_is_restored_past_damaged_ones_and_a_gap(tmp_path):
    path = tmp_path / "state"
    for step in range(6):
        checkpoint.save(path, step, keep=9)
    path.write_bytes(b"")
    (tmp_path / "state.1").write_bytes(b"damaged")
    (tmp_path / "state.2").unlink()
    with pytest.warns(UserWarning, match=r"state .*; .*state\.1 .*; restored .*state\.3 instead"):
        assert checkpoint.restore(path, 0) == 2
    for number in (3, 4, 5):
        (tmp_path / f"state.{number}").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"no checkpoint that is whole: .*state .*state\.1 .*state\.3 .*state\.5 "):
        checkpoint.restore(path, 0)
