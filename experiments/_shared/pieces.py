"""Results as text and back, bit for bit: what a run keeps of the pieces that it has finished.

Numbers, strings, None, lists, tuples, dicts, numpy arrays, tables, and the enumerations, dataclasses and NamedTuples of
this project. Reading builds only those: no module is imported, and nothing in the text is executed. JAX arrays come
back as numpy arrays.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import sys
from typing import Any

import jax
import numpy as np
import pandas as pd


def to_text(value: Any) -> str:
    """Return a value as JSON.

    Raises
    ------
    TypeError
        It holds something that `from_text` would not give back.

    Examples
    --------
    >>> from_text(to_text({"x": (1, float("inf"), None), 2: np.arange(3.0)}))
    {'x': (1, inf, None), 2: array([0., 1., 2.])}
    """
    return json.dumps(_encode(value))


def from_text(text: str) -> Any:
    """Return the value that `to_text` wrote.

    Raises
    ------
    ValueError
        The text is not of that form, or names a type that is not this project's.

    Examples
    --------
    >>> from_text('{"is": "record", "type": "os:system", "fields": {}}')
    Traceback (most recent call last):
    ...
    ValueError: type: got 'os:system', expected a dataclass, NamedTuple or Enum of mlp_jax or experiments in use.
    """
    return _decode(json.loads(text))


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, str) or type(value) in (bool, int, float):
        return value
    if isinstance(value, enum.Enum):
        return {"is": "enum", "type": _name(type(value)), "value": value.value}
    if isinstance(value, np.generic):
        return {"is": "scalar", "array": _encode(np.asarray(value))}
    if isinstance(value, np.ndarray | jax.Array):
        return _encode_array(np.asarray(value))
    if isinstance(value, pd.DataFrame):
        columns = [[_encode(name), str(column.dtype), _encode_column(column)] for name, column in value.items()]
        return {"is": "table", "columns": columns, "index": _encode_column(value.index.to_series())}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"is": "record", "type": _name(type(value)), "fields": fields}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        fields = {name: _encode(field) for name, field in zip(value._fields, value, strict=True)}
        return {"is": "record", "type": _name(type(value)), "fields": fields}
    if type(value) is tuple:
        return {"is": "tuple", "items": [_encode(item) for item in value]}
    if type(value) is list:
        return [_encode(item) for item in value]
    if type(value) is dict:
        return {"is": "dict", "items": [[_encode(k), _encode(v)] for k, v in value.items()]}
    raise TypeError(f"value: got a {type(value).__name__}, which cannot be kept as text.")


def _encode_array(array: np.ndarray) -> dict[str, Any]:
    if array.dtype.hasobject:
        raise TypeError("array: got one of Python objects, which cannot be kept as text.")
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"is": "array", "dtype": array.dtype.str, "shape": array.shape, "data": data}


def _encode_column(column: pd.Series) -> Any:
    if isinstance(column.dtype, np.dtype) and not column.dtype.hasobject:
        return _encode_array(column.to_numpy())
    return [None if value is pd.NA else _encode(value) for value in column.tolist()]


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value.get("is"):
        case "array":
            flat = np.frombuffer(base64.b64decode(value["data"]), np.dtype(value["dtype"]))
            return flat.reshape(value["shape"]).copy()
        case "scalar":
            return _decode(value["array"])[()]
        case "tuple":
            return tuple(_decode(item) for item in value["items"])
        case "dict":
            return {_decode(k): _decode(v) for k, v in value["items"]}
        case "enum":
            return _type(value["type"])(value["value"])
        case "record":
            return _type(value["type"])(**{name: _decode(field) for name, field in value["fields"].items()})
        case "table":
            index = _decode(value["index"])
            columns = {_decode(name): pd.Series(_decode(c), index, dtype) for name, dtype, c in value["columns"]}
            return pd.DataFrame(columns, index=index)
    raise ValueError(f"text: got an object marked {value.get('is')!r}, expected one that to_text writes.")


def _name(kind: type) -> str:
    module = kind.__module__
    if module == "__main__":  # python -m experiments.NAME: the same class by its importable name
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        module = spec.name if spec else module
    name = f"{module}:{kind.__qualname__}"
    _type(name)
    return name


def _type(name: str) -> Any:
    """Return a type of this project that is in use; nothing is imported."""
    module, _, qualified = name.partition(":")
    main = sys.modules["__main__"]
    if getattr(getattr(main, "__spec__", None), "name", None) == module:
        found = getattr(main, qualified, None)
    else:
        found = getattr(sys.modules.get(module), qualified, None)
    plain = isinstance(found, type) and (
        dataclasses.is_dataclass(found) or issubclass(found, enum.Enum) or hasattr(found, "_fields")
    )
    if module.partition(".")[0] not in ("mlp_jax", "experiments") or not plain:
        raise ValueError(
            f"type: got {name!r}, expected a dataclass, NamedTuple or Enum of mlp_jax or experiments in use."
        )
    return found
