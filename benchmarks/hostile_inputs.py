"""Inputs that a function must refuse or get right, drawn as Python source, so that each is its own reproduction.

Strategies of hypothesis; every value drawn is text for `value`. Knows nothing of this package.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

Source = st.SearchStrategy[str]

nan, inf = float("nan"), float("inf")


class Mischief(Exception):
    """What hostile functions raise: it should reach the caller as it is."""


# --- Functions that misbehave --------------------------------------------------------------------------------------


def raises(*args: Any, **settings: Any) -> Any:
    raise Mischief("the function that was given raises this")


def returns_none(*args: Any, **settings: Any) -> Any:
    return None


def returns_text(*args: Any, **settings: Any) -> Any:
    return "text"


def returns_object(*args: Any, **settings: Any) -> Any:
    return object()


def returns_zero(*args: Any, **settings: Any) -> Any:
    return 0


def returns_true(*args: Any, **settings: Any) -> Any:
    return jnp.array(True)


def returns_complex(*args: Any, **settings: Any) -> Any:
    return 1j * _total(args)


def returns_integer(*args: Any, **settings: Any) -> Any:
    return _total(args).astype(int)


def returns_nan(*args: Any, **settings: Any) -> Any:
    return nan * _total(args)


def returns_pair(*args: Any, **settings: Any) -> Any:
    return _total(args), _total(args)


def returns_dictionary(*args: Any, **settings: Any) -> Any:
    return {"value": _total(args)}


def returns_vector(*args: Any, **settings: Any) -> Any:
    return _total(args) * jnp.ones(7)


def returns_matrix(*args: Any, **settings: Any) -> Any:
    return _total(args) * jnp.ones((5, 7))


def returns_nothing_at_all(*args: Any, **settings: Any) -> Any:
    return jnp.zeros((0,))


def returns_generator(*args: Any, **settings: Any) -> Any:
    return (value for value in args)


def returns_function(*args: Any, **settings: Any) -> Any:
    return returns_none


def looks_at_values(*args: Any, **settings: Any) -> Any:
    return _total(args) if float(_total(args)) > 0 else -_total(args)


def uses_numpy(*args: Any, **settings: Any) -> Any:
    return np.sum(np.asarray(_total(args)))


def wants_no_arguments() -> Any:
    return jnp.zeros(())


def wants_nine_arguments(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any) -> Any:
    return jnp.zeros(())


def _total(args: tuple) -> jax.Array:
    """Sum of all floating numbers among the arguments."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(args) if not isinstance(x, str)]
    sums = [jnp.sum(x) for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.asarray(sum(sums, jnp.zeros(())))


SEEN: list[Any] = []


def with_side_effects(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function, which also keeps what it was given (tracers leak), and counts its calls."""

    def watched(*args: Any, **settings: Any) -> Any:
        SEEN.append((args, settings))
        del SEEN[:-10]
        return function(*args, **settings)

    return watched


def in_python(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a Python function, whose frames are seen in a traceback, that calls one of C."""

    def calls_what_was_given(*args: Any, **settings: Any) -> Any:
        return function(*args, **settings)

    return calls_what_was_given


_MISBEHAVING = (
    raises, returns_none, returns_text, returns_object, returns_zero, returns_true, returns_complex, returns_integer,
    returns_nan, returns_pair, returns_dictionary, returns_vector, returns_matrix, returns_nothing_at_all,
    returns_generator, returns_function, looks_at_values, uses_numpy, wants_no_arguments, wants_nine_arguments,
)  # fmt: skip


class Stubborn:
    """An object that raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


# Names that sources may use.
NAMES: dict[str, Any] = {
    **{function.__name__: function for function in _MISBEHAVING},
    "Stubborn": Stubborn,
    "datetime": datetime,
    "decimal": decimal,
    "fractions": fractions,
    "inf": inf,
    "jax": jax,
    "jnp": jnp,
    "nan": nan,
    "np": np,
    "with_side_effects": with_side_effects,
}


# --- Strategies ----------------------------------------------------------------------------------------------------

_THINGS = (
    "None", "'text'", "''", "b'bytes'", "object()", "Stubborn()", "[]", "()", "{}", "set()", "{1: 2}", "[None]", "len",
    "float", "lambda: 1", "range(3)", "iter([1.0])", "slice(3)", "Ellipsis", "NotImplemented", "1j", "np.nan",
    "datetime.date(2020, 1, 1)", "np.array('text')", "np.array(['a', 'b'])", "np.array([None, 1.0], object)",
    "np.array(['2020-01-01'], 'datetime64[D]')", "np.zeros(2, [('a', float)])", "np.ma.masked_array([1.0], [True])",
    "[[1.0], [2.0, 3.0]]", "jax.random.key(0)", "jax.ShapeDtypeStruct((2,), jnp.float32)", "np.float32", "'float32'",
    "Exception('text')", "np", "b''", "[1, 'a']", "{'a': object()}", "np.zeros((0,))", "jnp.zeros((2, 0))",
)  # fmt: skip


def things() -> Source:
    """Things of a wrong type for nearly any argument."""
    return st.sampled_from(_THINGS)


def counts(lowest: int = 1, *, huge: bool = True) -> Source:
    """Numbers for an argument that is an integer of `lowest` or more: mostly none of that kind."""
    forms = ["0.5", "1.5", "2.5", "nan", "inf", "-inf", "1j", "'1'", "'two'", "None", "True", "False", "np.array([1])",
             "np.array([1, 2])", "np.array(2)", "np.int8(2)", "np.uint64(1)", "np.float32(2)", "np.float64(1.5)",
             "jnp.array(2)", "jnp.array(1.5)", "fractions.Fraction(3, 2)", "fractions.Fraction(2)",
             "decimal.Decimal('NaN')", "[1]", "(1,)", "2.0", "np.nan", "-0.0", "b'1'"]  # fmt: skip
    large = ["10**12", "2**31", "2**32", "2**63", "2**64", "10**30", "1e12", "1e300", "-(2**63)", "-(10**30)"]
    below = st.integers(-100, lowest - 1).map(repr)
    return st.one_of(
        below,
        below,
        st.sampled_from(forms),
        st.sampled_from(large if huge else large[-2:]),
        st.floats(-10, 10).map(repr),
        things(),
    )


def reals() -> Source:
    """Numbers for an argument that is a real number, many of them out of any range."""
    forms = [
        "nan",
        "inf",
        "-inf",
        "1j",
        "0",
        "-1",
        "-0.0",
        "5e-324",
        "1e308",
        "-1e308",
        "10**400",
        "True",
        "'0.1'",
        "np.array(0.1)",
        "np.array([0.1])",
        "np.array([0.1, 0.2])",
        "jnp.array(0.1)",
        "np.float16(0.1)",
        "np.float32('nan')",
        "fractions.Fraction(1, 3)",
        "decimal.Decimal('0.1')",
        "decimal.Decimal('NaN')",
    ]
    return st.one_of(st.sampled_from(forms), st.floats().map(repr), st.floats(-2, 2).map(repr), things())


_FILLS = ("0.5", "-2.0", "0.0", "1e300", "1e-300", "nan", "inf", "1", "0", "-1", "True", "1j", "'a'", "None")
_DTYPES = (
    "float",
    "float",
    "float",
    "np.float32",
    "np.float16",
    "int",
    "np.uint8",
    "bool",
    "complex",
    "object",
    "'U1'",
    "'>f8'",
    "np.longdouble",
    "jnp.bfloat16",
)


def _full(shape: tuple[int, ...], fill: str, dtype: str) -> str:
    try:
        with np.errstate(all="raise"):
            np.full(shape, eval(fill, NAMES), eval(dtype, NAMES))
    except (TypeError, ValueError, OverflowError, FloatingPointError):
        return f"np.full({shape}, {fill})"
    return f"np.full({shape}, {fill}, {dtype})"


def arrays(*shapes: tuple[int, ...]) -> Source:
    """Arrays of any rank, length (0 too) and dtype, more often of the shapes given; and things that are none."""
    any_shape = st.lists(st.integers(0, 3), max_size=4).map(tuple)
    shape = st.one_of(any_shape, st.sampled_from(shapes)) if shapes else any_shape
    filled = st.builds(_full, shape, st.sampled_from(_FILLS), st.sampled_from(_DTYPES))
    traced = st.builds("jnp.full({}, {})".format, shape, st.sampled_from(_FILLS[:12]))
    return st.one_of(filled, filled, traced, things())


def keys() -> Source:
    """Keys, of which two are right: the older two-word form, and one of another generator."""
    forms = ["jax.random.PRNGKey(0)", "jax.random.key(0, impl='rbg')", "jax.random.split(jax.random.key(0))", "0", "-1",
             "2**40", "0.5", "nan", "np.zeros(2, np.int32)", "np.zeros(3, np.uint32)", "jnp.zeros((2, 2), np.uint32)",
             "np.uint32(3)", "jax.random.split(jax.random.key(0), 1)", "[0, 1]", "jax.random.PRNGKey", "jax.random",
             "np.random.default_rng(0)", "jnp.zeros(2)", "np.zeros(2, np.uint64)"]  # fmt: skip
    return st.one_of(st.sampled_from(forms), st.sampled_from(forms), st.integers(-9, 9).map(repr), things())


def functions() -> Source:
    """Functions that raise, return what they should not, or take other arguments; and things that are no functions."""
    return st.one_of(
        st.sampled_from([function.__name__ for function in _MISBEHAVING]),
        st.sampled_from([function.__name__ for function in _MISBEHAVING]),
        things(),
    )


def functions_of(right: str) -> Source:
    """As `functions`; and the right one, given by its source, with side effects or under jit."""
    return st.one_of(functions(), functions(), st.sampled_from([f"with_side_effects({right})", f"jax.jit({right})"]))


def paths() -> Source:
    """Paths at which there is no file that can be read."""
    forms = ["'/nowhere/at/all'", "'.'", "'/'", "''", "'\\0'", "3", "-1", "'a' * 5000", "b'/nowhere'",
             "'\\ud800'", "['/nowhere']"]  # fmt: skip
    return st.one_of(st.sampled_from(forms), st.text(max_size=8).map(lambda s: repr("/nowhere/" + s)), things())


# --- Files ---------------------------------------------------------------------------------------------------------


class Bomb:
    """An object that does something when it is unpickled."""

    exploded = 0

    def __reduce__(self) -> tuple:
        return _explode, ()


def _explode() -> int:
    Bomb.exploded += 1
    return 0


def idx(code: int, shape: tuple[int, ...], body: bytes, *, compressed: bool = False) -> bytes:
    """Return an IDX file that says what it is told to say."""
    header = bytes([0, 0, code & 255, len(shape) & 255]) + b"".join(struct.pack(">I", n & 0xFFFFFFFF) for n in shape)
    return gzip.compress(header + body, mtime=0) if compressed else header + body


def npz(**arrays_: Any) -> bytes:
    """Return an NPZ file; object arrays are pickled into it."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **arrays_)
    return stream.getvalue()


def npz_of_bytes(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """Return a zip file with these members as they are, each called NAME.npy."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def npy(header: str, body: bytes = b"", version: int = 1) -> bytes:
    """Return a file of numpy that says what it is told to say."""
    text = header.encode("latin1")
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + body


def damaged(content: bytes, *changes: tuple[int, int]) -> bytes:
    """Return the content with bytes replaced: (position, value) each, positions modulo the length."""
    copy = bytearray(content)
    for position, value in changes:
        copy[position % len(copy)] = value
    return bytes(copy)


def damages(*good: str) -> Source:
    """Sources of file contents made from good ones: cut short, continued, bytes replaced; and random bytes."""
    changes = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=3)
    base = st.sampled_from(good)
    return st.one_of(
        st.builds(lambda b, c: f"damaged({b}, {', '.join(map(str, c))})", base, changes),
        st.builds(lambda b, k: f"({b})[:{k}]", base, st.integers(0, 700)),
        st.builds(lambda b, k: f"({b})[{k}:]", base, st.integers(1, 100)),
        st.builds(lambda b, tail: f"{b} + {tail!r}", base, st.binary(min_size=1, max_size=4)),
        st.binary(max_size=60).map(repr),
        base,
    )


def idx_files() -> Source:
    """Sources of IDX files, most of them wrong."""
    code = st.sampled_from((8, 8, 9, 11, 12, 13, 14, 0, 10, 255))
    length = st.one_of(st.integers(0, 4), st.sampled_from((255, 2**16, 2**31, 2**32 - 1)))
    shape = st.one_of(st.lists(length, max_size=4), st.lists(st.just(1), min_size=60, max_size=255)).map(tuple)
    body = st.one_of(st.binary(max_size=40), st.integers(0, 64).map(bytes))
    made = st.builds(lambda c, s, b, z: f"idx({c}, {s}, {b!r}, compressed={z})", code, shape, body, st.booleans())
    good = "idx(8, (3, 2), bytes(range(6)))", "idx(14, (2,), bytes(16), compressed=True)", "idx(8, (2,), bytes(2))"
    return st.one_of(made, made, damages(*good))


_NPZ = "npz(x_train=np.ones((3, 2, 2)), y_train=np.arange(3), x_test=np.ones((1, 4)), y_test=np.arange(1))"


def npz_files() -> Source:
    """Sources of NPZ files: arrays of any kind (pickled objects too), damaged ones, headers that lie."""
    array = st.one_of(arrays((3, 2), (3,)), st.just("np.array([Bomb()], object)"))
    made = st.builds(
        "npz(x_train={}, y_train={}, x_test=np.ones((1, 2)), y_test=np.arange(1))".format, array, arrays((3,))
    )
    member = st.one_of(
        st.builds(
            lambda d, f, s, b, v: f'npy("{{{d!r}: {d!r}, }}", {b!r}, {v})' if f is None else
            f"npy({str({'descr': d, 'fortran_order': f, 'shape': s})!r}, {b!r}, {v})",
            st.sampled_from(("<f8", "|u1", ">i4", "|O", "<U9", "float64", "<f16", "<c16", "|V8")),
            st.sampled_from((True, False, None)),
            st.lists(st.sampled_from((0, 1, 2, 3, 10**9, 10**15, -1)), max_size=4).map(tuple),
            st.one_of(st.binary(max_size=30), st.integers(0, 80).map(bytes)),
            st.sampled_from((1, 2, 3, 9)),
        ),
        st.binary(max_size=40).map(repr),
        st.just("npy(' ' * 10**5)"),
    )  # fmt: skip
    lies = st.builds(
        lambda m, z: f"npz_of_bytes({z}, x_train={m}, y_train={m}, x_test={m}, y_test={m})",
        member, st.sampled_from((0, 8, 12)),
    )  # fmt: skip
    return st.one_of(made, lies, damages(_NPZ))


NAMES |= {f.__name__: f for f in (Bomb, idx, npz, npz_of_bytes, npy, damaged)}
