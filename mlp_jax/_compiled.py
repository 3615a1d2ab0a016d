"""Caches of compiled programs and other results, which are dropped together with the functions they were made for.

`jax.jit(..., static_argnums=0)` and `functools.lru_cache` keep every function that they are given alive, with the data
of its closure. Here the functions are the first arguments, and are held weakly:

>>> @by_function()
... def gradient(fun, x):
...     return jax.grad(fun)(x)
>>> square = lambda x: x**2
>>> float(gradient(square, 3.0)), float(gradient(square, 4.0))  # the second call traces and compiles nothing
(6.0, 8.0)
>>> del square  # its program, and the data it closes over, go with it

`by_function(2)` takes two such arguments. Each is a function, a hashable value, or a tuple or NamedTuple of these, such
as settings with a `hessian` and a number, or an optax transformation. A program is dropped as soon as one of its
functions is. All other arguments are those of `jax.jit`, with its options.

`while_alive` is the same for a result that is not a compiled program, such as a jaxpr. The result must not hold the
functions; a function in it reads them through `weak`.
"""

import atexit
import functools
import types
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import jax

# Number of entries kept for functions that cannot be referenced weakly.
_HELD = 16


def by_function(num_static: int = 1, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator like `jax.jit`, with its `options`, whose first arguments are static and held weakly."""

    def decorator(implementation: Callable[..., Any]) -> Callable[..., Any]:
        @while_alive
        def program(*static: Any) -> Callable[..., Any]:
            get = weak(static)
            return jax.jit(lambda *args, **keywords: implementation(*get(), *args, **keywords), **options)

        @functools.wraps(implementation)
        def call(*args: Any, **keywords: Any) -> Any:
            return program(*args[:num_static])(*args[num_static:], **keywords)

        return call

    return decorator


def while_alive(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return `make` with its results cached until one of the functions among the arguments is dropped.

    Functions, and other objects without a hash of their own, are compared by identity, other arguments by value. The
    last 16 results for objects that cannot be referenced weakly are kept.

    Examples
    --------
    >>> jaxpr = while_alive(lambda fun, size: jax.make_jaxpr(fun)(jnp.zeros(size)))
    >>> jaxpr(jnp.sin, 3) is jaxpr(jnp.sin, 3), jaxpr(jnp.sin, 3) is jaxpr(jnp.sin, 2)
    (True, False)
    """
    results: dict[Any, Any] = {}
    held: deque[Any] = deque()
    atexit.register(results.clear)  # before parts of a key are gone

    @functools.wraps(make)
    def remembered(*static: Any) -> Any:
        leaves, structure = jax.tree.flatten(static, is_leaf=_by_identity)
        key = (structure, *map(_key, leaves))
        if key in results:
            return results[key][0]
        result = make(*static)
        references = [_reference(leaf, lambda _: results.pop(key, None)) for leaf in leaves]
        results[key] = result, references
        if any(_by_identity(leaf) and reference is None for leaf, reference in zip(leaves, references, strict=True)):
            held.append(key)
            if len(held) > _HELD:
                results.pop(held.popleft(), None)
        return result

    return remembered


def weak(value: Any) -> Callable[[], Any]:
    """Return a function that returns `value` and holds the functions in it weakly."""
    leaves, structure = jax.tree.flatten(value, is_leaf=_by_identity)
    getters = [_reference(leaf) or (lambda leaf=leaf: leaf) for leaf in leaves]
    return lambda: jax.tree.unflatten(structure, [get() for get in getters])


def _by_identity(value: Any) -> bool:
    return callable(value) or type(value).__hash__ is object.__hash__


def _key(leaf: Any) -> Any:
    """Return the part of a key for a leaf; of a bound method, which is new at each access, its object and function."""
    if _reference(leaf) is None:
        return leaf
    if isinstance(leaf, types.MethodType):
        return types.MethodType, id(leaf.__self__), id(leaf.__func__)
    return object, id(leaf)


def _reference(leaf: Any, callback: Callable[[Any], Any] | None = None) -> weakref.ref | None:
    """Return a weak reference to a leaf; None if it is compared by value or cannot be referenced weakly."""
    if not _by_identity(leaf):
        return None
    try:
        return weakref.WeakMethod(leaf, callback) if isinstance(leaf, types.MethodType) else weakref.ref(leaf, callback)
    except TypeError:
        return None
