r"""Save and restore the whole state of a run: exact, atomic, verified, without pickle.

All functions are *host-level*. A checkpoint is one file, of four parts:

    mlp_jax checkpoint\n
    {"format": 1, "byteorder": "little", "leaves": [{"path": "['w']", "type": "jax", "dtype": ...}, ...]}\n
    the bytes of the leaves in that order, each in C order, with nothing between them
    SHA-256 of everything before it, 32 bytes

so that `head -n 2` shows what is inside. Later formats keep the first line, the key "format", and the last 32 bytes.
The file holds numbers only: the structure they are put into comes from the caller, and nothing in it is executed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import math
import os
import pathlib
import re
import struct
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, TextIO

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any
PathLike = str | os.PathLike[str]

_FIRST_LINE = b"mlp_jax checkpoint\n"
_FORMAT = 1
_DIGEST_SIZE = hashlib.sha256().digest_size
_CHUNK = 1 << 20
_DTYPE_NAME = re.compile(r"[a-z]+[a-z0-9_]*(\[\w+\])?|[<>|][SUiufcmM]\d+(\[\w+\])?")


class _Damaged(Exception):
    """The file is not what `save` wrote; says how."""


def save(path: PathLike, state: PyTree, *, keep: int = 2) -> None:
    """Save a pytree to one file, so that a crash at any moment leaves the old file or the new one, never less.

    The new file is written beside the old one, forced to disk, and renamed. The checkpoints of the calls before
    stay as `path.1` (the newest), `path.2`, ...; none of them is removed before the new one is in its place. Two
    processes that save to one path at the same time make no bad file, but one of them may get FileNotFoundError: see
    `locked`.

    Parameters
    ----------
    path
        The file; its folder exists. A symbolic link is replaced, not followed.
    state
        A pytree of numpy and JAX arrays and numpy scalars of any shape and of every dtype of numbers, times or text
        (JAX arrays that are sharded are gathered), typed random keys, and Python int, float, complex, bool, str, None.
    keep
        How many earlier checkpoints stay beside it: 0 or more.

    Raises
    ------
    TypeError
        A leaf is something else, or `state` is traced; `path` is none.
    ValueError
        `keep` is negative, no file can have this name, or a JAX array has parts on other hosts.
    RuntimeError
        A JAX array has been donated or deleted.
    OSError
        The file cannot be written (disk full, no permission, a folder in its place, ...): what was there is intact.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "state"
    >>> save(path, {"weights": jnp.arange(3.0), "step": 7})
    >>> restore(path, {"weights": jnp.zeros(3), "step": 0})
    {'step': 7, 'weights': Array([0., 1., 2.], dtype=float32)}
    """
    if type(keep) is not int or keep < 0:
        raise ValueError(f"keep: got {keep!r}, expected the number of earlier checkpoints to keep: 0, 1, 2, ...")
    path = pathlib.Path(path)
    header, contents = _encode(state)
    with _naming("path: the checkpoint cannot be written", path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if path.exists() and not path.is_file():  # a device would be replaced by the file
            raise FileExistsError(errno.EEXIST, "there is something that is no file", str(path))
        _remove_partial(path)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            _write(partial, header, contents)
            _rotate(path)
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        _force_names_to_disk(path.parent)
        for number, earlier in reversed(list(_earlier(path))):
            if number > keep:
                earlier.unlink()


def restore(path: PathLike, like: PyTree) -> PyTree:
    """Return the state that was saved last, in the structure of `like`.

    Every leaf comes back as it was saved, bit for bit: JAX arrays as JAX arrays of the same dtype (on the default
    device, not sharded), numpy arrays as numpy arrays (writable, C order), keys with their implementation. Where the
    file is damaged or missing, the newest earlier one that is whole is read instead, with a warning that says so.

    Parameters
    ----------
    path
        As given to `save`.
    like
        A state of the same model: gives the structure and the paths, shapes and dtypes to expect. Its values are not
        used, so that `jax.eval_shape` makes one without computing. Arrays of numpy and of JAX stand for each other,
        and so do a Python number and an array of shape () of its kind, since jit makes one of the other.

    Raises
    ------
    FileNotFoundError
        There is neither this file nor an earlier one.
    OSError
        The file cannot be read (no permission, a folder in its place, ...).
    ValueError
        No file can have this name; none of the files is whole; or the newest that is was saved from another model (the
        first difference is named), by a later version, on a machine of other byte order, or has 64-bit JAX arrays while
        x64 is off here.
    TypeError
        A leaf of `like` is nothing that `save` accepts; `path` is none.

    Warns
    -----
    UserWarning
        An earlier checkpoint was restored, since the newest was damaged.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "state"
    >>> save(path, {"weights": jnp.zeros(3)})
    >>> restore(path, {"weights": jnp.zeros(2)})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: ...: got a JAX array of float32 (3,) at state['weights'], expected a JAX array of float32 (2,).
    """
    path = pathlib.Path(path)
    named, structure = _flatten(like, "like")
    expected = [{"path": name, **_describe(leaf, f"like{name}")} for name, leaf in named]
    failures = []
    with _naming("path: the checkpoint cannot be read", path):
        for file in itertools.chain([path], (earlier for _, earlier in _earlier(path))):
            try:
                leaves = _read(file, expected)
            except FileNotFoundError:
                failures.append(f"{file} is missing")
            except _Damaged as error:
                failures.append(f"{file} {error}")
            else:
                if failures:
                    warnings.warn(f"{'; '.join(failures)}; restored {file} instead.", stacklevel=2)
                return jax.tree.unflatten(structure, leaves)
        if failures == [f"{path} is missing"]:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    raise ValueError(f"path: got no checkpoint that is whole: {'; '.join(failures)}.")


@contextlib.contextmanager
def locked(folder: PathLike) -> Iterator[None]:
    """Hold a folder for this process: a second `locked` on it is refused until this one ends.

    The operating system releases it when the process ends, however it ends. A process that is forked meanwhile holds it
    too. It is a lock on the file `.lock` in the folder, which stays.

    Raises
    ------
    TypeError, ValueError
        `folder` is no path, or none that a folder can have.
    BlockingIOError
        The folder is in use.
    OSError
        There is no such folder, or no permission to write into it.

    Examples
    --------
    >>> import tempfile
    >>> with locked(tempfile.mkdtemp()):
    ...     pass
    """
    with _opened(pathlib.Path(folder) / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"folder: got {folder}, which another run is using.") from None
        yield


def _opened(lock: pathlib.Path) -> TextIO:
    with _naming("folder: it cannot be locked", lock.parent):
        return lock.open("a")


@contextlib.contextmanager
def _naming(what: str, path: pathlib.Path) -> Iterator[None]:
    """Say in errors of the operating system what failed, and with which path."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{what}: {error.strerror}", str(path)) from None


# --- Leaves ----------------------------------------------------------------------------------------------------------


class _Codec(NamedTuple):
    to_bytes: Callable[[Any], bytes]
    from_bytes: Callable[[bytes], Any]


def _int_to_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


_PYTHON = {
    "int": _Codec(_int_to_bytes, lambda data: int.from_bytes(data, "little", signed=True)),
    "float": _Codec(lambda value: struct.pack("<d", value), lambda data: struct.unpack("<d", data)[0]),
    "complex": _Codec(lambda z: struct.pack("<2d", z.real, z.imag), lambda data: complex(*struct.unpack("<2d", data))),
    "bool": _Codec(lambda value: struct.pack("?", value), lambda data: struct.unpack("?", data)[0]),
    "str": _Codec(lambda text: text.encode(errors="surrogatepass"), lambda data: data.decode(errors="surrogatepass")),
    "NoneType": _Codec(lambda _: b"", lambda _: None),
}
_KINDS = {"bool": np.bool_, "int": np.integer, "float": np.floating, "complex": np.complexfloating}
_ARRAYS = {"jax": "JAX array", "numpy": "numpy array", "numpy scalar": "numpy scalar", "key": "random key"}


def _flatten(tree: PyTree, name: str) -> tuple[list[tuple[str, Any]], jax.tree_util.PyTreeDef]:
    try:
        leaves, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is None)
    except ValueError as error:  # keys of a dict that have no order
        raise TypeError(f"{name}: got a pytree that JAX cannot flatten ({error}), expected one that it can.") from error
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves], structure


def _describe(leaf: Any, where: str) -> dict[str, Any]:
    """Return type, dtype and shape of a leaf, without looking at its values; `where` it is, for errors."""
    kind = type(leaf)
    if kind.__module__ == "builtins" and kind.__name__ in _PYTHON:
        return {"type": kind.__name__}
    if isinstance(leaf, jax.core.Tracer):
        raise TypeError(f"{where}: got a traced value, expected to be called outside jit, vmap and grad.")
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return {"type": "key", "dtype": _implementation(leaf, where), "shape": list(leaf.shape)}
        return {"type": "jax", "dtype": _dtype_name(leaf.dtype, where), "shape": list(leaf.shape)}
    if kind is np.ndarray:
        return {"type": "numpy", "dtype": _dtype_name(leaf.dtype, where), "shape": list(leaf.shape)}
    if isinstance(leaf, np.generic) and leaf.dtype.kind not in "SU":
        return {"type": "numpy scalar", "dtype": _dtype_name(leaf.dtype, where), "shape": []}
    raise TypeError(f"{where}: got a {kind.__name__}, expected an array, a random key, a number, a str or None.")


def _dtype_name(dtype: np.dtype, where: str) -> str:
    """Return the name that `np.dtype` turns into this dtype, with the byte order only where it is not the machine's."""
    if dtype.kind in "SU":
        return dtype.str
    if dtype.kind in "bmM" or jnp.issubdtype(dtype, jnp.number):
        return dtype.name if np.dtype(dtype.name) == dtype else dtype.str
    raise TypeError(f"{where}: got dtype {dtype}, expected one of numbers, times or text.")


def _implementation(keys: jax.Array | jax.ShapeDtypeStruct, where: str) -> str:
    found: list[Any] = []
    jax.eval_shape(lambda keys: found.append(jax.random.key_impl(keys)), keys)  # a ShapeDtypeStruct does not tell
    if not isinstance(found[0], str):
        raise TypeError(f"{where}: got a random key of {found[0]}, expected one of a registered implementation.")
    return found[0]


def _host(leaf: Any, description: dict[str, Any], where: str) -> bytes | np.ndarray:
    """Return the contents of a leaf; adds to the description what else is needed to rebuild it."""
    kind = description["type"]
    if kind in _PYTHON:
        return _PYTHON[kind].to_bytes(leaf)
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise TypeError(f"{where}: got a ShapeDtypeStruct, which has no values; expected an array.")
    if isinstance(leaf, jax.Array) and leaf.is_deleted():
        raise RuntimeError(f"{where}: got an array that was deleted or donated, expected one that has its values.")
    if kind == "jax" and jax.typeof(leaf).weak_type:
        description["weak"] = True
    if kind == "key":
        leaf = jax.random.key_data(leaf)
        description["data_shape"] = list(leaf.shape)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        raise ValueError(f"{where}: got an array with parts on other hosts, expected all of it to be on this one.")
    array = np.asarray(leaf)
    if array.dtype != leaf.dtype:
        raise TypeError(f"{where}: got dtype {leaf.dtype}, which comes out of JAX as {array.dtype}.")
    return array


def _encode(state: PyTree) -> tuple[bytes, list[bytes | np.ndarray]]:
    descriptions, contents = [], []
    for name, leaf in _flatten(state, "state")[0]:
        description = _describe(leaf, f"state{name}")
        content = _host(leaf, description, f"state{name}")
        size = len(content) if isinstance(content, bytes) else content.nbytes
        descriptions.append({"path": name, **description, "bytes": size})
        contents.append(content)
    header = {"format": _FORMAT, "byteorder": sys.byteorder, "leaves": descriptions}
    return json.dumps(header).encode() + b"\n", contents


# --- Writing ---------------------------------------------------------------------------------------------------------


def _write(file: pathlib.Path, header: bytes, contents: list[bytes | np.ndarray]) -> None:
    """Write a whole checkpoint, and return when it is on disk."""
    digest = hashlib.sha256()
    with file.open("xb") as out:
        for part in itertools.chain([_FIRST_LINE, header], contents):
            data = part if isinstance(part, bytes) else np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
            digest.update(data)
            out.write(data)
        out.write(digest.digest())
        out.flush()
        os.fsync(out.fileno())


def _numbered(path: pathlib.Path, number: int) -> pathlib.Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _earlier(path: pathlib.Path) -> Iterator[tuple[int, pathlib.Path]]:
    """Yield the earlier checkpoints and their numbers, newest first; an interrupted rotation leaves a gap of one."""
    last = 0
    for number in itertools.count(1):
        if _numbered(path, number).is_file():
            last = number
            yield number, _numbered(path, number)
        elif number > last + 1:
            return


def _rotate(path: pathlib.Path) -> None:
    """Rename path to path.1, path.1 to path.2, ..., from the end, so that nothing is overwritten."""
    count = next(number for number in itertools.count() if not _numbered(path, number).is_file())
    for number in range(count, 0, -1):
        os.replace(_numbered(path, number - 1), _numbered(path, number))


def _remove_partial(path: pathlib.Path) -> None:
    """Remove what a killed process has left of an unfinished checkpoint."""
    pattern = re.compile(re.escape(path.name) + r"\.[0-9a-f]{32}\.partial")
    for name in os.listdir(path.parent):
        if pattern.fullmatch(name):
            path.with_name(name).unlink(missing_ok=True)


def _force_names_to_disk(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- Reading ---------------------------------------------------------------------------------------------------------


def _read(path: pathlib.Path, expected: list[dict[str, Any]]) -> list[Any]:
    """Return the leaves in a file, or raise: _Damaged, or ValueError where it is whole but not what is expected."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise _Damaged("is no file")  # to open a pipe would wait for what is never written
    try:
        with path.open("rb") as file:
            size = _verify(file)
            file.seek(len(_FIRST_LINE))
            saved = _header(file.readline(size), path)
            if file.tell() + sum(leaf["bytes"] for leaf in saved) != size:
                raise _Damaged("holds more or fewer bytes than its header says")
            _require_same_model(saved, expected, path)
            return [_load(file, leaf, path) for leaf in saved]
    except OSError as error:
        if error.errno == errno.EIO:  # what a failing disk answers
            raise _Damaged(f"cannot be read ({error.strerror})") from None
        raise


def _verify(file: BinaryIO) -> int:
    """Return how many bytes come before the digest, which agrees with them."""
    size = os.fstat(file.fileno()).st_size - _DIGEST_SIZE
    if size < len(_FIRST_LINE) or file.read(len(_FIRST_LINE)) != _FIRST_LINE:
        raise _Damaged("does not begin as a checkpoint")
    digest = hashlib.sha256(_FIRST_LINE)
    left = size - len(_FIRST_LINE)
    while left:
        data = file.read(min(left, _CHUNK))
        if not data:
            raise _Damaged("became shorter while it was read")
        digest.update(data)
        left -= len(data)
    if file.read(_DIGEST_SIZE) != digest.digest():
        raise _Damaged("is damaged: its SHA-256 is not that of its contents")
    return size


def _header(line: bytes, path: pathlib.Path) -> list[dict[str, Any]]:
    """Return the descriptions of the leaves, of which every field has been checked."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        raise _Damaged("has a header that is not JSON") from None
    if not isinstance(header, dict) or type(header.get("format")) is not int:
        raise _Damaged("has a header without a format")
    if header["format"] > _FORMAT:
        raise ValueError(f"{path}: got format {header['format']}, expected {_FORMAT}: a later version has written it.")
    if header["format"] != _FORMAT or not isinstance(header.get("leaves"), list):
        raise _Damaged("has a header without leaves")
    if header.get("byteorder") != sys.byteorder:
        order = header.get("byteorder")
        raise ValueError(f"{path}: got byte order {order!r}, expected this machine's, {sys.byteorder!r}.")
    if not all(_is_description(leaf) for leaf in header["leaves"]):
        raise _Damaged("has a header that describes a leaf in no way that this version knows")
    return header["leaves"]


def _is_description(leaf: Any) -> bool:
    if not isinstance(leaf, dict) or not _is_size(leaf.get("bytes")):
        return False
    if not isinstance(leaf.get("path"), str) or not isinstance(leaf.get("type"), str):
        return False
    if leaf["type"] in _PYTHON:
        return True
    if leaf["type"] not in _ARRAYS or not isinstance(leaf.get("dtype"), str) or not _is_shape(leaf.get("shape")):
        return False
    return leaf["type"] != "key" or _is_shape(leaf.get("data_shape"))


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(_is_size(n) for n in value)


def _require_same_model(saved: list[dict[str, Any]], expected: list[dict[str, Any]], path: pathlib.Path) -> None:
    for got, wanted in itertools.zip_longest(saved, expected):
        if got is None or wanted is None or got["path"] != wanted["path"]:
            names = [f"the leaf state{leaf['path']}" if leaf else "no more leaves" for leaf in (got, wanted)]
            raise ValueError(f"{path}: got {names[0]}, expected {names[1]}.")
    for got, wanted in zip(saved, expected, strict=True):
        if not _agree(got, wanted) and not _agree(wanted, got):
            raise ValueError(f"{path}: got {_text(got)} at state{got['path']}, expected {_text(wanted)}.")


def _agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    types = {one["type"], other["type"]}
    if types <= {"jax", "numpy", "numpy scalar"} or types == {"key"}:
        return (one["dtype"], one["shape"]) == (other["dtype"], other["shape"])
    if one["type"] in _KINDS and other["type"] in _ARRAYS and other["type"] != "key":
        return other["shape"] == [] and jnp.issubdtype(_dtype(other["dtype"]), _KINDS[one["type"]])
    return len(types) == 1


def _text(leaf: dict[str, Any]) -> str:
    if leaf["type"] in _PYTHON:
        return {"NoneType": "None"}.get(leaf["type"], f"a Python {leaf['type']}")
    return f"a {_ARRAYS[leaf['type']]} of {leaf['dtype']} {tuple(leaf['shape'])}"


def _dtype(name: str) -> np.dtype:
    """Return the dtype of a name in a header: only of a name that `_dtype_name` gives."""
    try:
        if _DTYPE_NAME.fullmatch(name) and _dtype_name(np.dtype(name), "") == name:
            return np.dtype(name)
    except (TypeError, ValueError):
        pass
    raise _Damaged(f"has a leaf of dtype {name!r}, which is not known here")


def _load(file: BinaryIO, leaf: dict[str, Any], path: pathlib.Path) -> Any:
    kind = leaf["type"]
    try:
        if kind in _PYTHON:
            return _PYTHON[kind].from_bytes(file.read(leaf["bytes"]))
        if kind == "key":
            return _load_key(file, leaf)
        array = _load_array(file, _dtype(leaf["dtype"]), leaf["shape"], leaf["bytes"])
    except (TypeError, ValueError, struct.error) as error:
        raise _Damaged(f"has at state{leaf['path']} what is not {_text(leaf)}: {error}") from None
    if kind == "numpy scalar":
        return array[()]
    if kind == "numpy":
        return array
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        got = f"{_text(leaf)} at state{leaf['path']}"
        raise ValueError(f"{path}: got {got}, expected x64 to be on: restore within `with jax.enable_x64(True)`.")
    return _weak(array) if leaf.get("weak") else jax.device_put(array)  # jnp.asarray compiles for every shape


def _load_array(file: BinaryIO, dtype: np.dtype, shape: list[int], size: int) -> np.ndarray:
    if math.prod(shape) * dtype.itemsize != size:  # before anything of that size is allocated
        raise ValueError(f"it has {size} bytes")
    array = np.empty(shape, dtype)
    if size and file.readinto(array.reshape(-1).view(np.uint8)) != size:  # type: ignore[attr-defined]
        raise ValueError("the file became shorter while it was read")
    return array


def _load_key(file: BinaryIO, leaf: dict[str, Any]) -> jax.Array:
    data = _load_array(file, np.dtype(np.uint32), leaf["data_shape"], leaf["bytes"])
    key = jax.random.wrap_key_data(jax.device_put(data), impl=leaf["dtype"])
    if list(key.shape) != leaf["shape"]:
        raise ValueError(f"its data have shape {data.shape}")
    return key


def _weak(array: np.ndarray) -> jax.Array:
    """Return a JAX array of weak type: it begins as a Python number, and writing into it does not change its type."""
    with jax.enable_x64(array.dtype in (np.int64, np.float64, np.complex128)):
        zeros = jnp.broadcast_to(jnp.asarray(array.dtype.type(0).item()), array.shape)
        if zeros.dtype != array.dtype:
            raise _Damaged(f"has a weak type of {array.dtype}, which no Python number has")
        return zeros.at[...].set(jax.device_put(array))
