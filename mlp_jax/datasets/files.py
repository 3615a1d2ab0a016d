"""Data from files: IDX (the format of MNIST), plain or gzipped, and NPZ. Host-level.

Nothing is unpickled, and the size that a file claims is compared with a limit before memory is allocated.
"""

from __future__ import annotations

import gzip
import math
import os
import pathlib
import struct
import zlib

import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, _files
from mlp_jax.datasets.examples import Dataset, as_examples, require_compatible

MAX_BYTES = 2**30  # twenty times the images of MNIST
_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
Path = str | os.PathLike[str]


def read_idx(path: Path, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Read one array from an IDX file, plain or gzipped (recognised by its first two bytes, not by its name).

    The format (LeCun, Cortes & Burges, "The MNIST database of handwritten digits"): two zero bytes, a byte for the
    type, a byte for the number of axes, four bytes for each axis, then the numbers in C order; all big-endian.

    The result has the shape and type of the file (uint8, int8, int16, int32, float32 or float64), in native byte order.
    It takes `max_bytes` at most, which is checked before anything is allocated. ValueError if the file is not IDX, is
    truncated or damaged, continues after the array, or exceeds `max_bytes`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "labels-idx1-ubyte")
    >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    >>> read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    max_bytes = _checks.integer(max_bytes, "max_bytes")
    with pathlib.Path(path).open("rb") as file:
        stream = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file
        try:
            zeros, code, axes = struct.unpack(">HBB", stream.read(4))
            shape = struct.unpack(f">{axes}I", stream.read(4 * axes))
            if zeros or code not in _IDX_DTYPES or not axes or 0 in shape:
                raise ValueError(f"got type {code:#x} and shape {shape} in the header")
            dtype = np.dtype(_IDX_DTYPES[code])
            size = math.prod(shape) * dtype.itemsize
            if size > max_bytes:
                raise ValueError(f"got {size} bytes for shape {shape} of {dtype}, above the limit of {max_bytes}")
            content = stream.read(size + 1)  # a byte more, so that reshape refuses a longer file
            return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))
        except (ValueError, EOFError, struct.error, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: expected one whole IDX file, but {error}.") from error


def load_folder(path: Path, *, max_bytes: int = MAX_BYTES) -> Dataset:
    """Load a folder with the four IDX files of MNIST, Fashion-MNIST or another set of their format.

    The files are train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte;
    a dot may replace the second hyphen, and .gz may follow. (MNIST: LeCun, Bottou, Bengio & Haffner 1998.
    Fashion-MNIST: Xiao, Rasul & Vollgraf 2017.) Inputs are (n, rows · columns), pixels divided by 255; targets are (n,)
    int32. max_bytes, errors: see `read_idx`; FileNotFoundError if a file is missing.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> for part in ("train", "t10k"):
    ...     images = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 255])
    ...     _ = pathlib.Path(folder, f"{part}-images-idx3-ubyte").write_bytes(images)
    ...     _ = pathlib.Path(folder, f"{part}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 9]))
    >>> data = load_folder(folder)
    >>> data.train.inputs.tolist(), data.test.targets.tolist()
    ([[0.0, 1.0]], [9])
    """
    arrays = []
    for stem, axes in (("train-images", 3), ("train-labels", 1), ("t10k-images", 3), ("t10k-labels", 1)):
        names = [f"{stem}{dot}idx{axes}-ubyte{suffix}" for dot in "-." for suffix in ("", ".gz")]
        files = [file for name in names if (file := pathlib.Path(path, name)).is_file()]
        if not files:
            raise FileNotFoundError(f"path: got {path} without a file for {stem}: one of {', '.join(names)}.")
        array = read_idx(files[0], max_bytes=max_bytes)
        if array.ndim != axes or array.dtype != np.uint8:
            raise ValueError(f"{files[0]}: got {array.dtype} of shape {array.shape}, expected uint8 with {axes} axes.")
        arrays.append(array)
    return _dataset(path, arrays, None)


def load_npz(path: Path, *, scale: float | None = None, max_bytes: int = MAX_BYTES) -> Dataset:
    """Load an NPZ file with the arrays x_train, y_train, x_test and y_test, such as the mnist.npz of Keras.

    Inputs are x reshaped to (n, d). Targets are (n,) int32 from integers (n,), or (n, out) in the default float dtype
    from floating point. Other arrays in the file are not read.

    Parameters
    ----------
    scale
        The divisor of x; by default 255 for bytes (images) and 1 for any other type.
    max_bytes
        Limit on the size of the four arrays together.

    Raises
    ------
    TypeError, ValueError
        The file is not NPZ, is truncated or damaged, lacks an array, exceeds `max_bytes`, holds anything but numbers,
        or its arrays do not fit together; or `scale` is not a positive finite number.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> x, y = np.array([[[0, 255]], [[51, 0]]], np.uint8), np.array([3, 1])
    >>> path = pathlib.Path(tempfile.mkdtemp(), "mnist.npz")
    >>> np.savez(path, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    >>> data = load_npz(path)
    >>> data.train.inputs.shape, data.test.inputs.tolist(), data.train.targets.tolist()
    ((2, 2), [[0.0, 1.0]], [3, 1])
    """
    scale = None if scale is None else float(_checks.positive(scale, "scale"))
    names, limit = ("x_train", "y_train", "x_test", "y_test"), _checks.integer(max_bytes, "max_bytes")
    return _dataset(path, list(_files.read_npz(pathlib.Path(path), names, limit).values()), scale)


def _dataset(path: Path, arrays: list[np.ndarray], scale: float | None) -> Dataset:
    parts = []
    for part, inputs, targets in zip(Dataset._fields, arrays[::2], arrays[1::2], strict=True):
        rows = inputs.reshape(len(inputs), -1)
        divisor = scale or (255.0 if rows.dtype == np.uint8 else 1.0)
        if divisor != 1.0:
            # Bytes are exact in the default dtype, and many; other numbers may need float64 until they are divided.
            dtype = np.dtype(jnp.result_type(float)) if rows.dtype == np.uint8 else np.dtype(np.float64)
            with np.errstate(over="ignore"):  # numbers that overflow are refused by as_examples
                rows = np.divide(rows, divisor, dtype=dtype)
        parts.append(as_examples(rows, targets, name=f"{path} {part}"))
    require_compatible(*parts, name=str(path))
    return Dataset(*parts)
