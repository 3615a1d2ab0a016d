"""Save the finished pieces of a run as .npz files and load them, bit for bit.

A piece may hold numbers, strings, None, lists, tuples, dicts, arrays, tables, and the enumerations, dataclasses and
NamedTuples of this project. The file holds the arrays and, as JSON, the structure. Loading builds only those types: no
module is imported, and nothing in the file is executed.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import pathlib
import sys
from typing import Any

import jax
import numpy as np
import pandas as pd

from mlp_jax import _files


def save(file: pathlib.Path, value: Any) -> None:
    """Write a value atomically; TypeError if it holds a type that `load` cannot return."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_encode(value, arrays))
    _files.write_npz(file, {"value": np.frombuffer(text.encode(), np.uint8), **arrays})


def load(file: pathlib.Path) -> Any:
    """Return the value that `save` wrote, with numpy arrays for JAX arrays.

    ValueError if the file is damaged, or names a type from outside this project.
    """
    arrays = _files.read_npz(file)
    return _decode(json.loads(arrays["value"].tobytes()), arrays)


def _encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if value is None or type(value) in (str, bool, int, float):
        return value
    if type(value) is list:
        return [_encode(item, arrays) for item in value]
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        array, name = np.asarray(value, order="C"), f"{len(arrays)}"
        if array.dtype.hasobject:
            raise TypeError("array: got one of Python objects, which cannot be kept.")
        arrays[name] = array
        return {"is": "scalar" if isinstance(value, np.generic) else "array", "of": name}
    kind, parts = _take_apart(value)
    return {"is": kind, "of": _encode(parts, arrays)}


def _decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    kind, parts = value["is"], _decode(value["of"], arrays)
    if kind in ("array", "scalar"):
        return arrays[parts] if kind == "array" else arrays[parts][()]
    return _put_together(kind, parts)


def _take_apart(value: Any) -> tuple[str, list]:
    """Return the kind of a value and the list of its parts."""
    if type(value) is tuple:
        return "tuple", list(value)
    if type(value) is dict:
        return "dict", [list(value), list(value.values())]
    if isinstance(value, pd.DataFrame):
        columns = [_plain(value.iloc[:, n]) for n in range(value.shape[1])]
        return "table", [list(value), [str(dtype) for dtype in value.dtypes], columns, _plain(value.index.to_series())]
    if isinstance(value, enum.Enum):
        return _name(type(value)), [value.value]
    if (names := _fields(type(value))) is not None:
        return _name(type(value)), [getattr(value, name) for name in names]
    raise TypeError(f"value: got a {type(value).__name__}, which cannot be kept.")


def _put_together(kind: str, parts: list) -> Any:
    if kind == "tuple":
        return tuple(parts)
    if kind == "dict":
        return dict(zip(*parts, strict=True))
    if kind == "table":
        names, dtypes, columns, index = parts
        series = [pd.Series(column, index, dtype) for column, dtype in zip(columns, dtypes, strict=True)]
        return pd.DataFrame(dict(zip(names, series, strict=True)), index=index)
    found = _type(kind)
    names = _fields(found)
    return found(*parts) if names is None else found(**dict(zip(names, parts, strict=True)))


def _plain(column: pd.Series) -> Any:
    """Return a column as an array, or as a list if it holds Python objects or missing integers."""
    if isinstance(column.dtype, np.dtype) and not column.dtype.hasobject:
        return column.to_numpy()
    return [None if value is pd.NA else value for value in column.tolist()]


def _fields(kind: type) -> list[str] | None:
    """Return the field names of a dataclass or NamedTuple, else None."""
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return list(kind._fields) if hasattr(kind, "_fields") else None


def _name(kind: type) -> str:
    module = kind.__module__
    if module == "__main__":  # python -m experiments.NAME: the same class by its importable name
        module = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", module)
    name = f"{module}:{kind.__qualname__}"
    _type(name)
    return name


def _type(name: str) -> Any:
    """Return a type of this project from a module that is already imported."""
    module, _, qualified = name.partition(":")
    main = sys.modules["__main__"]
    is_main = getattr(getattr(main, "__spec__", None), "name", None) == module
    found = getattr(main if is_main else sys.modules.get(module), qualified, None)
    is_data = isinstance(found, type) and (issubclass(found, enum.Enum) or _fields(found) is not None)
    if module.partition(".")[0] not in ("mlp_jax", "experiments") or not is_data:
        raise ValueError(f"type: got {name!r}, expected a dataclass, NamedTuple or Enum of mlp_jax or experiments.")
    return found
