"""A cache on disk of arrays that are slow to compute; verified when read. Host-level."""

import os
import pathlib
import warnings
from collections.abc import Callable, Mapping

import numpy as np

from mlp_jax import _files

Arrays = dict[str, np.ndarray]
Layout = Mapping[str, tuple[tuple[int, ...], str]]


def cache_folder() -> pathlib.Path:
    """Return mlp_jax in $XDG_CACHE_HOME, or in ~/.cache if that is not an absolute path, as XDG specifies."""
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else pathlib.Path.home() / ".cache") / "mlp_jax"


def read_or_build(filename: str, layout: Layout, build: Callable[[], Arrays]) -> Arrays:
    """Return the arrays cached in `filename`; if they are missing or damaged, build and cache them.

    `layout` has the shape and dtype of each array. The file name must include whatever changes the arrays, such as a
    package version. A file that is damaged or cannot be written is only a warning.
    """
    path = cache_folder() / filename
    try:
        arrays = _files.read_npz(path, list(layout))
        found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
        if found != dict(layout):
            raise ValueError(f"{path}: got {found}, expected {dict(layout)}.")
        return arrays
    except FileNotFoundError:
        pass  # not cached yet
    except (ValueError, OSError) as error:
        warnings.warn(f"The cached data cannot be used and is built again: {error}", stacklevel=2)
    arrays = build()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _files.write_npz(path, arrays)
    except OSError as error:
        warnings.warn(f"The data cannot be cached and will be built again next time: {error}", stacklevel=2)
    return arrays
