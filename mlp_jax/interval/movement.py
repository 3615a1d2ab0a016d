"""Primitives that only rearrange numbers, as functions of arrays: midpoints, radii, arbs or identities.

The simple ones are numpy views, or `take`. The others are applied by JAX itself to an array of positions, which gives
the origin of each number of the result: this covers every parameter of a gather.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.lax import GatherDimensionNumbers, GatherScatterMode

from mlp_jax.interval.ball import Refusal
from mlp_jax.interval.program import Equation

Move = Callable[..., np.ndarray]

_BY_POSITION = frozenset(("dynamic_slice", "dynamic_update_slice", "gather", "pad"))
# All primitives for which `moves` has functions.
MOVES = _BY_POSITION | {
    "broadcast_in_dim", "concatenate", "copy", "copy_p", "expand_dims", "reshape", "rev", "slice", "split", "squeeze",
    "stack", "stack_steps", "stop_gradient", "take_step", "tile", "transpose", "unstack",
}  # fmt: skip


def moves(equation: Equation, inputs: list[Any]) -> list[Move] | None:
    """Return one function of the operands for each output, or None if the primitive does more than move numbers."""
    name, params, shape = equation.name, equation.params, equation.avals[0].shape
    if name in ("copy", "copy_p", "stop_gradient"):
        return [lambda x: x]
    if name in ("squeeze", "expand_dims") or (name == "reshape" and params["dimensions"] is None):
        return [lambda x: x.reshape(shape)]
    if name == "transpose":
        return [lambda x: np.transpose(x, params["permutation"])]
    if name == "broadcast_in_dim":
        return [_broadcast(inputs[0].shape, shape, params["broadcast_dimensions"])]
    if name == "concatenate":
        return [lambda *parts: np.concatenate(parts, axis=params["dimension"])]
    if name == "stack":
        return [lambda *parts: np.stack(parts, axis=params["axis"])]
    if name == "unstack":
        return [_part(params["axis"], number) for number in range(len(equation.avals))]
    if name == "tile":
        return [lambda x: np.tile(x, params["reps"])]
    if name == "split":
        return _split(params["axis"], params["sizes"])
    if name == "slice":
        strides = params["strides"] or (1,) * len(shape)
        window = tuple(map(slice, params["start_indices"], params["limit_indices"], strides))
        return [lambda x: x[window]]
    if name == "rev":
        return [lambda x: np.flip(x, params["dimensions"])]
    if name == "take_step":
        return [lambda x: x[params["step"]]]
    if name == "stack_steps":
        return [lambda *steps: np.stack(steps)]
    if name in _BY_POSITION:
        return [_by_position(equation, inputs)]
    return None


def _broadcast(before: tuple[int, ...], after: tuple[int, ...], dimensions: tuple[int, ...]) -> Move:
    padded = [1] * len(after)
    for size, dimension in zip(before, dimensions, strict=True):
        padded[int(dimension)] = size
    return lambda x: np.broadcast_to(x.reshape(padded), after)


def _split(axis: int, sizes: tuple[int, ...]) -> list[Move]:
    ends = np.cumsum(sizes).tolist()
    return [_part(axis, slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


def _part(axis: int, chosen: int | slice) -> Move:
    window = (*(slice(None),) * axis, chosen)
    return lambda x: x[window]


def _by_position(equation: Equation, inputs: list[Any]) -> Move:
    """Return a function that moves numbers as JAX moves their positions in the concatenated operands."""
    name, params = equation.name, dict(equation.params)
    if name == "gather" and _takes(params, *inputs):
        (axis,) = params["dimension_numbers"].start_index_map
        return lambda x: np.take(x, inputs[1][..., 0], axis=axis)
    count = 2 if name in ("dynamic_update_slice", "pad") else 1
    sizes = [int(np.prod(x.shape)) for x in inputs[:count]]
    starts = np.cumsum([0, *sizes]).tolist()
    places = [
        np.arange(start, start + size).reshape(x.shape)
        for start, size, x in zip(starts, sizes, inputs[:count], strict=False)
    ]
    if name == "gather" and params["mode"] != GatherScatterMode.CLIP:
        params |= {"mode": GatherScatterMode.FILL_OR_DROP, "fill_value": -1}
    where = bind(equation.primitive, params, [*places, *inputs[count:]])[0]
    if where.size and where.min() < 0:
        raise Refusal(f"{name}: an index is out of bounds")
    return lambda *operands: np.concatenate([x.ravel() for x in operands[:count]])[where]


def _takes(params: dict[str, Any], operand: Any, indices: np.ndarray) -> bool:
    """Return whether a gather is `np.take` along one axis, within bounds: much faster than moving positions."""
    numbers, sizes, shape = params["dimension_numbers"], params["slice_sizes"], operand.shape
    if numbers.operand_batching_dims or len(numbers.start_index_map) != 1 or not indices.size:
        return False
    (axis,) = numbers.start_index_map
    after = indices.ndim - 1 + axis
    return (
        numbers.collapsed_slice_dims == (axis,)
        and sizes == (*shape[:axis], 1, *shape[axis + 1 :])
        and numbers.offset_dims == (*range(axis), *range(after, after + len(shape) - axis - 1))
        and bool(indices.min() >= 0 and indices.max() < shape[axis])
    )


def scatter_positions(equation: Equation, shape: tuple[int, ...], indices: np.ndarray, updates: Any) -> np.ndarray:
    """Return the flat position in the operand at which each update of a scatter lands; −1 for those dropped.

    A gather with the same dimension numbers reads what the scatter would write.
    """
    params, numbers = equation.params, equation.params["dimension_numbers"]
    window = iter(numbers.update_window_dims)
    every = tuple(range(len(shape)))
    if numbers.inserted_window_dims == numbers.scatter_dims_to_operand_dims == every:  # single entries
        places = np.moveaxis(indices, -1, 0)
        ends = np.reshape(shape, (-1,) + (1,) * (places.ndim - 1))
        inside = np.all((places >= 0) & (places < ends), axis=0)
        if np.all(inside):
            return np.ravel_multi_index(tuple(places), shape)
    alone = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    sizes = tuple(1 if d in alone else updates.shape[next(window)] for d in range(len(shape)))
    gathered = GatherDimensionNumbers(
        offset_dims=numbers.update_window_dims,
        collapsed_slice_dims=numbers.inserted_window_dims,
        start_index_map=numbers.scatter_dims_to_operand_dims,
        operand_batching_dims=numbers.operand_batching_dims,
        start_indices_batching_dims=numbers.scatter_indices_batching_dims,
    )
    mode = GatherScatterMode.CLIP if params["mode"] == GatherScatterMode.CLIP else GatherScatterMode.FILL_OR_DROP
    places = np.arange(int(np.prod(shape))).reshape(shape)
    with jax.enable_x64(True):
        return np.asarray(jax.lax.gather(places, indices, gathered, sizes, mode=mode, fill_value=-1))


def bind(primitive: Any, params: dict[str, Any], operands: list[np.ndarray]) -> list[np.ndarray]:
    """Apply a primitive to integer arrays, by numpy where it has the same function: JAX would compile it."""
    name = primitive.name
    if name in _OF_NUMPY and all(x.dtype.kind in "biu" for x in operands):
        return [np.asarray(_OF_NUMPY[name](*operands))]
    if name == "convert_element_type":
        return [operands[0].astype(params["new_dtype"])]
    if name == "iota":
        return [iota(params["shape"], params["dimension"], params["dtype"])]
    if name == "select_n" and operands[0].dtype == bool:
        return [np.where(operands[0], operands[2], operands[1])]
    with jax.enable_x64(True):
        results = primitive.bind(*operands, **params)
    return [np.asarray(r) for r in (results if primitive.multiple_results else [results])]


def iota(shape: tuple[int, ...], axis: int, dtype: Any) -> np.ndarray:
    """Return an array of its positions along an axis."""
    return np.broadcast_to(np.indices(shape, dtype=dtype, sparse=True)[axis], shape)


_OF_NUMPY: dict[str, Move] = {
    "add": np.add, "and": np.bitwise_and, "eq": np.equal, "ge": np.greater_equal, "gt": np.greater,
    "le": np.less_equal, "lt": np.less, "mul": np.multiply, "ne": np.not_equal, "or": np.bitwise_or, "sub": np.subtract,
}  # fmt: skip
