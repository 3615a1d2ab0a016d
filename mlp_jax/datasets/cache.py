"""Arrays that are slow to make, kept in a file: written whole or not at all, and verified when read. Host-level."""

from __future__ import annotations

import os
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Mapping

import numpy as np

from mlp_jax.datasets.files import read_npz

Arrays = dict[str, np.ndarray]
Layout = Mapping[str, tuple[tuple[int, ...], str]]


def cache_folder() -> pathlib.Path:
    """Return the folder for kept files: mlp_jax in $XDG_CACHE_HOME, or in ~/.cache where that is not an absolute path.

    The XDG base directory specification asks for relative paths to be ignored.

    Examples
    --------
    >>> cache_folder().name
    'mlp_jax'
    """
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else pathlib.Path.home() / ".cache") / "mlp_jax"


def read_or_build(filename: str, layout: Layout, build: Callable[[], Arrays]) -> Arrays:
    """Return the arrays kept in `filename`; where there are none, or damaged ones, build them and keep them.

    Parameters
    ----------
    filename
        A name inside `cache_folder()`. It must change with whatever changes the arrays, such as a package version.
    layout
        Shape and dtype of each array, by name: a file with any other is damaged.
    build
        Makes the arrays.

    Warns
    -----
    UserWarning
        The file is damaged (it is built again), or cannot be written (the arrays are returned all the same).

    Examples
    --------
    >>> import tempfile, unittest.mock
    >>> with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.dict(os.environ, XDG_CACHE_HOME=folder):
    ...     read_or_build("a.npz", {"a": ((2,), "float64")}, lambda: {"a": np.ones(2)})
    {'a': array([1., 1.])}
    """
    path = cache_folder() / filename
    try:
        return _read(path, layout)
    except FileNotFoundError:
        pass  # not made yet
    except (ValueError, OSError) as error:
        warnings.warn(f"The cached data cannot be used and is built again: {error}", stacklevel=2)
    arrays = build()
    try:
        _write_atomically(path, arrays)
    except OSError as error:
        warnings.warn(f"The data cannot be cached and will be built again next time: {error}", stacklevel=2)
    return arrays


def _read(path: pathlib.Path, layout: Layout) -> Arrays:
    arrays = read_npz(path, list(layout))
    found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    if found != dict(layout):
        raise ValueError(f"{path}: got {found}, expected {dict(layout)}.")
    return arrays


def _write_atomically(path: pathlib.Path, arrays: Arrays) -> None:
    """Write beside the file and rename, so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # the stubs mix up arrays and allow_pickle
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise
