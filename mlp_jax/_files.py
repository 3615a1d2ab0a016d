"""Files written whole or not at all, and .npz files that are verified when read. Host-level."""

import glob
import io
import itertools
import os
import pathlib
import uuid
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np


def write(path: pathlib.Path, save: Callable[[BinaryIO], Any], *, keep: int = 0) -> None:
    """Call save(file) on a file beside `path`, force it to disk, and rename it to `path`; `keep` earlier files stay.

    They are path.1, the newest, path.2, ...; none is removed before the new one is in its place.
    """
    for left in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 32}.partial"):
        left.unlink(missing_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        if keep:
            _rotate(path)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    for number in itertools.takewhile(lambda n: _numbered(path, n).is_file(), itertools.count(keep + 1)):
        _numbered(path, number).unlink()


def write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray], *, keep: int = 0) -> None:
    """Write arrays to a .npz file, with their names, as `write` does."""
    contents = {**arrays, "names": np.array(list(arrays), str)}
    write(path, lambda file: np.savez(file, allow_pickle=False, **contents), keep=keep)


def _numbered(path: pathlib.Path, number: int) -> pathlib.Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _rotate(path: pathlib.Path) -> None:
    """Rename path to path.1, path.1 to path.2, ..., from the end, so that nothing is overwritten."""
    count = next(number for number in itertools.count() if not _numbered(path, number).is_file())
    for number in range(count, 0, -1):
        os.replace(_numbered(path, number - 1), _numbered(path, number))


def read_newest(path: pathlib.Path) -> tuple[pathlib.Path, dict[str, np.ndarray]]:
    """Return the first of path, path.1, ... that is whole, and its arrays; warn if it is not `path`."""
    failures: list[Exception] = []
    for number in itertools.count():
        file = _numbered(path, number)
        try:
            arrays = read_npz(file)
        except (FileNotFoundError, ValueError) as error:
            # A process that was killed while it renamed the files leaves a gap of one.
            if not file.is_file() and number and not _numbered(path, number + 1).is_file():
                break
            failures.append(error)
            continue
        if failures:
            warnings.warn(f"{' '.join(map(str, failures))} Restored {file} instead.", stacklevel=3)
        return file, arrays
    damaged = any(isinstance(error, ValueError) for error in failures)
    if not damaged and path.is_file():  # it was missing while another process renamed it
        return read_newest(path)
    message = f"path: got no file that is whole: {' '.join(map(str, failures))}"
    raise ValueError(message) if damaged else FileNotFoundError(message)


def read_npz(path: pathlib.Path, names: Sequence[str] = (), max_bytes: float = float("inf")) -> dict[str, np.ndarray]:
    """Return arrays of a .npz file by name, or all that `write_npz` wrote, after comparing them with their checksums.

    FileNotFoundError if there is no file. ValueError if it is damaged, is not .npz, lacks an array, unpacks to more
    than `max_bytes`, or has Python objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"path: got {path}, where there is no file.")
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _read(archive, names, max_bytes)
        except Exception as error:  # zipfile raises errors of many types for damaged bytes
            raise ValueError(f"{path}: expected a whole .npz file of numbers, but {error}.") from error


def _read(archive: zipfile.ZipFile, names: Sequence[str], max_bytes: float) -> dict[str, np.ndarray]:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if min(info.header_offset for info in members.values()):
        raise ValueError("it begins with something else")  # part of a larger file that contained this one

    def load(name: str) -> np.ndarray:  # all bytes are read, since the checksum comes after them
        return np.lib.format.read_array(io.BytesIO(archive.read(members[name])), allow_pickle=False)

    wanted = names or load("names").tolist()  # the directory of an archive has no checksum
    if missing := set(wanted) - set(members):
        raise ValueError(f"got the arrays {', '.join(members)}, without {', '.join(sorted(missing))}")
    if (total := sum(members[name].file_size for name in wanted)) > max_bytes:
        raise ValueError(f"got {total} bytes of arrays, above the limit of {max_bytes}")
    return {name: load(name) for name in wanted}
