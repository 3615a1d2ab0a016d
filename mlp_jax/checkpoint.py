"""Save and restore the whole state of a run: exact, atomic, verified, without pickle. Host-level.

A checkpoint is a .npz file: array `n` is leaf n of the state, and `header` is JSON that describes the leaves. The
caller gives the structure of the state; nothing in the file is executed.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from mlp_jax import _checks, _files

__all__ = ["locked", "restore", "save"]
__dir__ = __all__.copy

_FORMAT = 2
_flatten = functools.partial(tree_flatten_with_path, is_leaf=lambda node: node is None)
_IN_HEADER = ("int", "bool", "str", "NoneType")
_NUMBERS = {"bool": np.bool_, "int": np.integer, "float": np.floating, "complex": np.complexfloating}


def save(path: str | os.PathLike[str], state: Any, *, keep: int = 1) -> None:
    """Save a pytree to one file; a crash at any moment leaves the old file or the new one.

    The new file is written beside `path`, forced to disk, and renamed. Earlier checkpoints stay as `path.1` (the
    newest), `path.2`, ... If two processes save to one path at the same time, one may get an OSError: see `locked`.

    Parameters
    ----------
    state
        A pytree of arrays (sharded ones are gathered) and numpy scalars of any dtype of numbers, times or text, typed
        random keys, and Python int, float, complex, bool, str, None.
    keep
        Number of earlier checkpoints that stay, 0 or more.

    Raises
    ------
    TypeError, ValueError
        A leaf is of another type, or has no values (traced, or only a shape).
    OSError
        The file cannot be written (disk full, no permission, no such folder); existing files are intact.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> save(pathlib.Path(tempfile.mkdtemp(), "state"), {"weights": jnp.arange(3.0), "step": 7})
    """
    _files.write_npz(pathlib.Path(path), _encode(state), keep=_checks.integer(keep, "keep", 0))


def restore(path: str | os.PathLike[str], like: Any) -> Any:
    """Return the state that was saved last, bit for bit, in the structure of `like`.

    JAX arrays come back as JAX arrays on the default device, numpy arrays as numpy arrays. If the file is damaged or
    missing, the newest whole earlier one is read instead, with a UserWarning.

    Parameters
    ----------
    like
        A state of the same model, for its structure, shapes and dtypes; `jax.eval_shape` can make one. A numpy array
        may stand for a JAX array, a Python number for an array of shape () of its kind, and vice versa, since jit
        turns one into the other.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no file, or none is whole. ValueError also if the newest whole one is of another model (the first
        difference is named) or format, or has 64-bit JAX arrays while x64 is off.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "state"
    >>> save(path, {"weights": jnp.arange(3.0), "step": 7})
    >>> restore(path, {"weights": jnp.zeros(3), "step": 0})
    {'step': 7, 'weights': Array([0., 1., 2.], dtype=float32)}
    """
    leaves, structure = _flatten(like)
    expected = [(keystr(place), _describe(leaf, "like", place)[1]) for place, leaf in leaves]
    return jax.tree.unflatten(structure, _decode(*_files.read_newest(pathlib.Path(path)), expected))


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Lock a folder for this process: a second `locked` on it raises BlockingIOError until this one ends.

    The lock is on the file `.lock` in the folder. The operating system releases it however the process ends.

    Examples
    --------
    >>> import tempfile
    >>> with locked(tempfile.mkdtemp()):
    ...     pass
    """
    with (pathlib.Path(folder) / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"folder: got {folder}, which another run is using.") from None
        yield


def _describe(leaf: Any, name: str, place: Any) -> tuple[str, str]:
    """Return the kind of a leaf, and what must agree: its Python type, or dtype and shape."""
    kind = type(leaf)
    dtype: Any = getattr(leaf, "dtype", None)
    if kind.__module__ == "builtins" and kind.__name__ in (*_IN_HEADER, *_NUMBERS):
        return kind.__name__, kind.__name__
    of_jax, is_key = isinstance(leaf, jax.Array | jax.ShapeDtypeStruct), jnp.issubdtype(dtype, jax.dtypes.prng_key)
    known = is_key or jnp.issubdtype(dtype, jnp.number) or getattr(dtype, "kind", "O") in "bmMSU"
    if not known or not (of_jax or kind is np.ndarray or isinstance(leaf, np.generic)):
        raise TypeError(f"{name}{keystr(place)}: got {_checks.describe(leaf)}, expected numbers, text, keys or None.")
    name = "key" if is_key else "jax" if of_jax else "numpy" if kind is np.ndarray else "numpy scalar"
    return name, f"{dtype} {leaf.shape}"


def _encode(state: Any) -> dict[str, np.ndarray]:
    leaves: list[tuple] = []
    arrays = {}
    for place, leaf in _flatten(state)[0]:
        kind, text = _describe(leaf, "state", place)
        more = leaf if kind in _IN_HEADER else jax.typeof(leaf).weak_type if kind == "jax" else None
        if kind == "key":
            more, leaf = jax.random.key_impl(leaf), jax.random.key_data(leaf)
        if kind not in _IN_HEADER:
            array = np.asarray(leaf, order="C")  # bfloat16 and the like, which .npz lacks, as unsigned integers
            arrays[str(len(leaves))] = array.view(f"u{array.itemsize}") if array.dtype.isbuiltin == 2 else array
        leaves.append((keystr(place), kind, text, more))
    return {"header": np.frombuffer(json.dumps({"format": _FORMAT, "leaves": leaves}).encode(), np.uint8), **arrays}


def _decode(file: pathlib.Path, arrays: dict[str, np.ndarray], expected: list[tuple[str, str]]) -> list[Any]:
    """Return the leaves in a file; raise ValueError unless they are those expected."""
    header = json.loads(arrays["header"].tobytes()) if "header" in arrays else {}
    if header.get("format") != _FORMAT:
        raise ValueError(f"{file}: got format {header.get('format')}, expected a checkpoint of format {_FORMAT}.")
    saved = [(path, text) for path, _, text, _ in header["leaves"]]
    for (place, got), (wanted_place, wanted) in itertools.zip_longest(saved, expected, fillvalue=("", "no leaf")):
        if place != wanted_place or not (got == wanted or _stands_for(got, wanted) or _stands_for(wanted, got)):
            raise ValueError(f"{file}: got {got} at state{place}, expected {wanted} at state{wanted_place}.")
    return [_leaf(f"{file}: state{path}", arrays.get(str(n)), *w) for n, (path, *w) in enumerate(header["leaves"])]


def _stands_for(number: str, array: str) -> bool:
    """Return whether `number` names a Python number and `array` an array of shape () of its kind."""
    known = number in _NUMBERS and array.endswith(" ()") and not array.startswith("key")
    return known and jnp.issubdtype(np.dtype(array.split()[0]), _NUMBERS[number])


def _leaf(where: str, array: Any, kind: str, text: str, more: Any) -> Any:
    if kind in _IN_HEADER or kind in _NUMBERS:
        return more if kind in _IN_HEADER else array.item()
    if kind == "key":
        return jax.random.wrap_key_data(jax.device_put(array), impl=more)
    array = array.view(text.split()[0])
    if kind != "jax":
        return array if kind == "numpy" else array[()]
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise ValueError(f"{where}: got {text}, expected x64 to be on: restore within `with jax.enable_x64(True)`.")
    if not more:
        return jax.device_put(array)
    with jax.enable_x64(array.dtype in (np.int64, np.float64, np.complex128)):
        weak = jax.lax.full(array.shape, array.dtype.type(0).item())  # a Python number makes a weak type
        return weak.at[...].set(jax.device_put(array))
