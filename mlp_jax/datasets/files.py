"""Data from files: IDX (the format of MNIST), plain or gzipped, and NPZ. Host-level.

A file is not trusted. Nothing is unpickled; the size that a header claims is compared with a limit before memory is
taken; no more is read, or decompressed, than the header says and one byte to see that the file ends there.
"""

from __future__ import annotations

import gzip
import math
import os
import pathlib
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Protocol

import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks
from mlp_jax.datasets.examples import Dataset, as_examples, require_compatible

MAX_BYTES = 2**30
"""Default limit on the bytes that one file may unpack to: 1 GiB, twenty times the images of MNIST."""

_CHUNK = 2**20
_MOST_AXES = 64  # of a numpy array
_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_NPY_DTYPE = re.compile(r"[<>|=]?(?:[iu][1248]|f[248])")
_NPY_FIELD = re.compile(r"'(descr|fortran_order|shape)'\s*:\s*('[^']*'|True|False|\([\dL,\s]*\))")
_NPY_LONGEST_HEADER = 10_000  # bytes; numpy's own limit
_NPZ_NAMES = ("x_train", "y_train", "x_test", "y_test")

Path = str | os.PathLike[str]


class _Readable(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


def _require_file(path: Path) -> pathlib.Path:
    file = pathlib.Path(path)
    if not _is_file(file):
        raise FileNotFoundError(f"path: got {_checks.describe(str(file))}, where there is no file, expected a file.")
    return file


def _is_file(file: pathlib.Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name that is too long, a folder that may not be searched
        return False


def _read_up_to(stream: _Readable, count: int) -> bytearray:
    """Read `count` bytes, or fewer where the stream ends; memory grows with what is there, not with `count`."""
    content = bytearray()
    while len(content) < count:
        chunk = stream.read(min(_CHUNK, count - len(content)))
        if not chunk:
            break
        content += chunk
    return content


def _read_header(stream: _Readable, count: int, where: str) -> bytes:
    header = bytes(_read_up_to(stream, count))
    if len(header) < count:
        raise ValueError(f"{where}: got {len(header)} bytes where a header continues, expected {count}.")
    return header


def _read_array(
    stream: _Readable, dtype: np.dtype, shape: tuple[int, ...], where: str, max_bytes: int, fortran: bool = False
) -> np.ndarray:
    """Read the rest of a stream as exactly one array, in native byte order."""
    if not 1 <= len(shape) <= _MOST_AXES or min(shape) < 1:
        raise ValueError(f"{where}: got shape {shape} in the header, expected 1 to {_MOST_AXES} axes of 1 or more.")
    count = math.prod(shape) * dtype.itemsize
    if count > max_bytes:
        raise ValueError(
            f"{where}: got {count} bytes for shape {shape} of {dtype}, expected at most {max_bytes} bytes."
        )
    content = _read_up_to(stream, count + 1)
    if len(content) != count:
        got = "more" if len(content) > count else str(len(content))
        raise ValueError(f"{where}: got {got} bytes after the header, expected {count} for shape {shape} of {dtype}.")
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def read_idx(path: Path, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Read one array from an IDX file, plain or gzipped (told by its first two bytes, not by its name).

    The format (LeCun, Cortes & Burges, "The MNIST database of handwritten digits"): two zero bytes, a byte for the
    type, a byte for the number of axes, each axis as four bytes, then the numbers in C order; all big-endian.

    Parameters
    ----------
    path
        The file.
    max_bytes
        The most that the array may take, checked against the header before anything is allocated.

    Returns
    -------
    numpy array of the file's shape and type (uint8, int8, int16, int32, float32 or float64), native byte order

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is not IDX, is truncated or damaged, goes on after the array, or exceeds `max_bytes`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "labels-idx1-ubyte")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    file = _require_file(path)
    max_bytes = _checks.integer(max_bytes, "max_bytes")
    with file.open("rb") as raw:
        if raw.peek(2)[:2] != b"\x1f\x8b":
            return _parse_idx(raw, str(file), max_bytes)
        try:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                return _parse_idx(unpacked, str(file), max_bytes)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{file}: got damaged gzip data ({error}), expected one whole IDX file.") from error


def _parse_idx(stream: _Readable, where: str, max_bytes: int) -> np.ndarray:
    magic = _read_header(stream, 4, where)
    if magic[:2] != b"\0\0" or magic[2] not in _IDX_DTYPES:
        raise ValueError(
            f"{where}: got first bytes {magic.hex(' ')}, expected an IDX file:"
            f" 00 00, a type among {', '.join(f'{code:02x}' for code in _IDX_DTYPES)}, the number of axes."
        )
    shape = struct.unpack(f">{magic[3]}I", _read_header(stream, 4 * magic[3], where))
    return _read_array(stream, np.dtype(_IDX_DTYPES[magic[2]]), shape, where, max_bytes)


def load_folder(path: Path, *, max_bytes: int = MAX_BYTES) -> Dataset:
    """Load a folder that holds the four IDX files of MNIST, Fashion-MNIST or another set in their form.

    The files are train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte;
    with or without .gz (the plain one is read where both are there), and also as train-images.idx3-ubyte and so on.
    (MNIST: LeCun, Bottou, Bengio & Haffner 1998. Fashion-MNIST: Xiao, Rasul & Vollgraf 2017.)

    Parameters
    ----------
    path
        The folder.
    max_bytes
        The most that the array of one file may take; the images in float32 take four times that of their file.

    Returns
    -------
    Dataset
        Inputs (n, rows · columns) in the default float dtype, pixels divided by 255; targets (n,) int32.

    Raises
    ------
    FileNotFoundError
        One of the four files is missing.
    ValueError
        A file is not as `read_idx` expects, or the four do not fit together.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in ("train", "t10k"):
    ...         images = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 255])
    ...         _ = pathlib.Path(folder, f"{part}-images-idx3-ubyte").write_bytes(images)
    ...         _ = pathlib.Path(folder, f"{part}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 9]))
    ...     data = load_folder(folder)
    >>> data.train.inputs.tolist(), data.test.targets.tolist()
    ([[0.0, 1.0]], [9])
    """
    folder, max_bytes = pathlib.Path(path), _checks.integer(max_bytes, "max_bytes")
    parts = []
    for prefix in ("train", "t10k"):
        images = _read_part(folder, f"{prefix}-images", 3, max_bytes)
        labels = _read_part(folder, f"{prefix}-labels", 1, max_bytes)
        name = f"{folder} {prefix}"
        parts.append(as_examples(_as_inputs(images, None), labels, name=name))
    require_compatible(*parts, name=str(folder))
    return Dataset(*parts)


def _read_part(folder: pathlib.Path, stem: str, axes: int, max_bytes: int) -> np.ndarray:
    names = [f"{stem}{dot}idx{axes}-ubyte{suffix}" for dot in "-." for suffix in ("", ".gz")]
    for name in names:
        if _is_file(folder / name):
            array = read_idx(folder / name, max_bytes=max_bytes)
            if array.ndim != axes or array.dtype != np.uint8:
                raise ValueError(
                    f"{folder / name}: got {array.dtype} of shape {array.shape}, expected uint8 with {axes} axes."
                )
            return array
    where = _checks.describe(str(folder))
    raise FileNotFoundError(f"path: got {where} without a file for {stem}, expected one of {', '.join(names)} in it.")


def _as_inputs(values: np.ndarray, scale: float | None) -> np.ndarray:
    """Return (n, …) as rows (n, d) divided by `scale`, which for bytes is 255 unless it is given."""
    rows = values.reshape(len(values), -1)
    if scale is None:
        scale = 255.0 if values.dtype == np.uint8 else 1.0
    if scale == 1.0:
        return rows
    # Bytes are exact in the default dtype, and large; other numbers may need float64 until they are divided.
    dtype = np.dtype(jnp.result_type(float)) if rows.dtype == np.uint8 else np.dtype(np.float64)
    with np.errstate(over="ignore"):  # what becomes infinite is refused with the examples
        return np.divide(rows, scale, dtype=dtype)


def load_npz(path: Path, *, scale: float | None = None, max_bytes: int = MAX_BYTES) -> Dataset:
    """Load an NPZ file that holds x_train, y_train, x_test and y_test, as the mnist.npz of Keras does.

    Parameters
    ----------
    path
        The file; other arrays in it are not read.
    scale
        What x is divided by. None is 255 for bytes (images) and 1 for any other type.
    max_bytes
        The most that the four arrays may take together, checked before anything is allocated.

    Returns
    -------
    Dataset
        Inputs (n, d) in the default float dtype, the axes of x after the first made one. Targets (n,) int32 from
        integers (n,), or (n, out) in the default float dtype from floating point.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    TypeError
        An array is not of a type that `as_examples` takes.
    ValueError
        The file is not NPZ, is truncated or damaged, lacks an array, exceeds `max_bytes`, holds Python objects, or its
        arrays do not fit together; or `scale` is not a positive finite number.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> x, y = np.array([[[0, 255]], [[51, 0]]], np.uint8), np.array([3, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "mnist.npz")
    ...     np.savez(path, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    ...     data = load_npz(path)
    >>> data.train.inputs.shape, data.test.inputs.tolist(), data.train.targets.tolist()
    ((2, 2), [[0.0, 1.0]], [3, 1])
    """
    scale = None if scale is None else float(_checks.positive(scale, "scale"))
    arrays = read_npz(path, _NPZ_NAMES, max_bytes=max_bytes)
    parts = []
    for part in ("train", "test"):
        inputs = _as_inputs(arrays[f"x_{part}"], scale)
        parts.append(as_examples(inputs, arrays[f"y_{part}"], name=f"{path} {part}"))
    require_compatible(*parts, name=str(path))
    return Dataset(*parts)


def read_npz(path: Path, names: Sequence[str], *, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Read the named arrays of numbers from an NPZ file, with its checksums verified.

    numpy's own reader takes the size from the header as it stands; this one compares it with a limit first, accepts
    only integers and floating point, and reads every array to its end, where the checksum is.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is not NPZ, is truncated or damaged, lacks an array, exceeds `max_bytes`, or holds Python objects.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(pathlib.Path(folder, "a.npz"), first=np.arange(3.0), second=np.ones(2))
    ...     read_npz(pathlib.Path(folder, "a.npz"), ["first"])
    {'first': array([0., 1., 2.])}
    """
    file = _require_file(path)
    max_bytes = _checks.integer(max_bytes, "max_bytes")
    with file.open("rb") as raw:
        try:
            with zipfile.ZipFile(raw) as archive:
                members = {name: _find_member(archive, name, file) for name in names}
                total = sum(member.file_size for member in members.values())
                if total > max_bytes:
                    raise ValueError(f"{file}: got arrays of {total} bytes, expected at most {max_bytes} bytes.")
                return {name: _read_member(archive, member, file) for name, member in members.items()}
        # What zipfile raises on damaged bytes is not documented; these are what it is seen to raise.
        # The file is open already, so an OSError here is a position that a damaged directory points to.
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError) as error:
            raise ValueError(f"{file}: got damaged data ({error}), expected a whole NPZ file.") from error
        except (RuntimeError, OverflowError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: got a zip archive that cannot be read ({error}), expected NPZ.") from error


def _find_member(archive: zipfile.ZipFile, name: str, file: pathlib.Path) -> zipfile.ZipInfo:
    present = archive.namelist()
    if f"{name}.npy" not in present:
        shown = ", ".join(present[:8]) or "none"
        raise ValueError(f"{file}: got the arrays {shown}, expected {name}.npy among them.")
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{file}, {name}: got zip compression type {member.compress_type}, expected 0 or 8.")
    return member


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, file: pathlib.Path) -> np.ndarray:
    where = f"{file}, {member.filename}"
    with archive.open(member) as stream:
        dtype, fortran, shape = _parse_npy_header(stream, where)
        return _read_array(stream, dtype, shape, where, member.file_size, fortran)


def _parse_npy_header(stream: _Readable, where: str) -> tuple[np.dtype, bool, tuple[int, ...]]:
    magic = _read_header(stream, 8, where)
    if magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
        raise ValueError(f"{where}: got first bytes {magic.hex(' ')}, expected a numpy array of version 1 to 3.")
    length = int.from_bytes(_read_header(stream, 2 if magic[6] == 1 else 4, where), "little")
    if length > _NPY_LONGEST_HEADER:
        raise ValueError(f"{where}: got a header of {length} bytes, expected at most {_NPY_LONGEST_HEADER}.")
    text = _read_header(stream, length, where).decode("latin1")
    fields = dict(_NPY_FIELD.findall(text))
    descr = fields.get("descr", "").strip("'")
    if len(fields) != 3 or not _NPY_DTYPE.fullmatch(descr) or not fields["shape"].startswith("("):
        raise ValueError(f"{where}: got the header {text.strip()[:100]!r}, expected an array of integers or floats.")
    shape = tuple(int(axis) for axis in re.findall(r"\d{1,20}", fields["shape"]))
    return np.dtype(descr), fields["fortran_order"] == "True", shape
