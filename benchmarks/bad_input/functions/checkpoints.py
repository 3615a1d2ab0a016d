"""The functions of `checkpoint`."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import math
import os
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from benchmarks.bad_input.arguments import trees
from benchmarks.bad_input.calls import call
from benchmarks.bad_input.oracles import need, whole
from benchmarks.bad_input.sources import FILES, NAMES, file
from benchmarks.hostile_inputs import arrays, counts, damages, functions, keys, paths, reals, things
from mlp_jax import checkpoint

FIRST_LINE = b"mlp_jax checkpoint\n"


# --- Files that are none, or that say what they are told to say ----------------------------------------------------


@functools.cache
def good_checkpoint() -> bytes:
    """Return the file of {"w": two float32 of JAX, "step": 7}."""
    checkpoint.save(FILES / "good", {"w": jnp.array([0.5, -1.0]), "step": 7})
    content = (FILES / "good").read_bytes()
    (FILES / "good").unlink()
    return content


def checkpoint_bytes(body: bytes | None = None, leaf: dict | None = None, **fields: Any) -> bytes:
    """Return that file with another body, fields of its header or of its last leaf replaced, and the digest made anew.

    "absent" removes a field.
    """
    header, old = good_checkpoint()[len(FIRST_LINE) : -32].split(b"\n", 1)
    values = json.loads(header)
    values["leaves"][-1] = _given({**values["leaves"][-1], **(leaf or {})})
    content = FIRST_LINE + json.dumps(_given({**values, **fields})).encode() + b"\n" + (old if body is None else body)
    return content + hashlib.sha256(content).digest()


def _given(fields: dict) -> dict:
    return {name: value for name, value in fields.items() if not isinstance(value, str) or value != "absent"}


def signed(content: bytes) -> bytes:
    """Return a file that begins as a checkpoint and ends with the right digest."""
    return FIRST_LINE + content + hashlib.sha256(FIRST_LINE + content).digest()


def with_earlier(content: bytes) -> str:
    """Return the path of a file with this content, beside which an earlier checkpoint is whole."""
    file(good_checkpoint(), "data.1")
    return file(content)


def pipe() -> str:
    """Return the path of a pipe that nobody writes to."""
    path = FILES / "pipe"
    if not path.exists():
        os.mkfifo(path)
    return str(path)


# --- States that are none ------------------------------------------------------------------------------------------


def nested(depth: int) -> list:
    """Return lists in lists."""
    made: list = []
    for _ in range(depth):
        made = [made]
    return made


def deleted() -> jax.Array:
    """Return an array whose buffer is gone, as after donation."""
    array = jnp.ones(2)
    array.delete()
    return array


NAMES |= {f.__name__: f for f in (checkpoint_bytes, signed, with_earlier, pipe, nested, deleted)}
PATHS = st.one_of(paths(), st.sampled_from(("FILES", "FILES / 'none' / 'state'", "pipe()", "'/dev/null'", "'/dev/zero'",
    "FILES / ('w' * 250)", "FILES / 'written'", "file(b'', 'below') + '/state'")))  # fmt: skip
LEAVES = st.one_of(
    things(), arrays((2,)), reals(), counts(), keys(), functions(),
    st.sampled_from(("deleted()", "10**400", "'\\ud800'", "np.str_('a')", "np.datetime64('2020')", "slice(1, 2)",
                     "np.zeros(2, 'f4')[::-1]", "jnp.ones(2, jnp.int4)", "np.float64(1)")))  # fmt: skip
STATES = st.one_of(
    LEAVES,
    trees((2,)),
    LEAVES.map("{{'a': 1.0, 'b': ({}, None)}}".format),
    st.tuples(LEAVES, LEAVES).map("[{0[0]}, {{1: {0[1]}}}]".format),
    # No list that holds itself: when jaxlib has refused one, the process raises RecursionError at all that follows.
    st.sampled_from(("nested(10)", "{1: 0, 'a': 0}", "{1, 2}",
                     "optax.adam(0.1).init(jnp.zeros(2))", "optax.adam(0.1)", "{object(): 0.0, None: 1.0}",
                     "mlp.Layer(jnp.ones(2), None)", "{'a\\nb': 0, '\\ud800': 1}")),
)  # fmt: skip
GOOD = "{'w': jnp.array([0.5, -1.0]), 'step': 7}"
_JSON = st.one_of(st.none(), st.integers(-9, 9), st.floats(), st.text(max_size=4), st.just("absent"), st.just(10**30),
                  st.lists(st.integers(-1, 3), max_size=3), st.just([10**9, 10**9]), st.just([[]]))  # fmt: skip
_DTYPES = st.sampled_from(("float64", "float32", "object", "|O", "int4", "<U1", "<U99999999", "|V8", "complex64",
                           ">f4", "float0", "bool", "datetime64[s]", "threefry2x32", "rbg", "", "f4,f4"))  # fmt: skip
_LEAF = st.one_of(
    st.dictionaries(st.sampled_from(("path", "type", "dtype", "shape", "bytes", "weak", "data_shape")), _JSON,
                    min_size=1, max_size=2),
    st.builds(lambda dtype: {"dtype": dtype}, _DTYPES),
    st.builds(lambda kind, dtype: {"type": kind, "dtype": dtype, "data_shape": [2]}, st.sampled_from(
        ("jax", "numpy", "numpy scalar", "key", "int", "str", "NoneType", "object", "pickle")), _DTYPES),
)  # fmt: skip
TAMPERED = st.one_of(
    st.dictionaries(st.sampled_from(("format", "byteorder", "leaves", "more")), _JSON, min_size=1, max_size=2).map(
        lambda fields: f"checkpoint_bytes(**{fields!r})"
    ),
    _LEAF.map(lambda leaf: f"checkpoint_bytes(leaf={leaf!r})"),
    st.binary(max_size=20).map(lambda body: f"checkpoint_bytes({body!r})"),
    st.sampled_from(("signed(b'')", "signed(b'\\n')", "signed(b'{}\\n')", "signed(b'null\\n')",
                     "signed(b'[' * 100_000)", "signed(b'\\xff\\n')", "signed(b'{\"format\": 1}\\n')", "FIRST_LINE")),
)  # fmt: skip
NAMES |= {"FIRST_LINE": FIRST_LINE}
CONTENTS = st.one_of(TAMPERED, damages("checkpoint_bytes()"))
SAVED = st.one_of(
    CONTENTS.map("file({})".format), CONTENTS.map("file({})".format), CONTENTS.map("with_earlier({})".format), PATHS
)


# --- The oracle: the format, read without the library ----------------------------------------------------------------


KINDS = {"int": int, "float": float, "complex": complex, "bool": bool, "str": str, "NoneType": type(None)}


def parts(content: bytes) -> list[tuple[dict, bytes]] | None:
    """Return description and bytes of each leaf in a file that is whole; None for another."""
    if not content.startswith(FIRST_LINE) or hashlib.sha256(content[:-32]).digest() != content[-32:]:
        return None
    try:
        line, body = content[len(FIRST_LINE) : -32].split(b"\n", 1)
        header = json.loads(line)
        need(header["format"] == 1 and header["byteorder"] == sys.byteorder)
        sizes = [whole(leaf["bytes"], 0) for leaf in header["leaves"]]
        need(sum(sizes) == len(body) and all(is_described(leaf) for leaf in header["leaves"]))
    except Exception:
        return None
    ends = np.cumsum([0, *sizes])
    return [(leaf, body[a:b]) for leaf, a, b in zip(header["leaves"], ends[:-1], ends[1:], strict=True)]


def is_described(leaf: dict) -> bool:
    """Return whether the header says all of a leaf, in the types of the format."""
    if leaf["type"] in KINDS:
        return isinstance(leaf["path"], str)
    known = leaf["type"] in ("jax", "numpy", "numpy scalar", "key") and isinstance(leaf["dtype"], str)
    shapes = [leaf["shape"]] + ([leaf["data_shape"]] if leaf["type"] == "key" else [])
    return known and isinstance(leaf["path"], str) and all(type(n) is int and n >= 0 for s in shapes for n in s)


def flat(state: Any) -> list[tuple[str, Any]]:
    """Return the paths and leaves of a state, None among these."""
    found, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda node: node is None)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in found]


def array_of(leaf: Any) -> np.ndarray | None:
    """Return a leaf as an array of numpy; None for a Python one. Raise where it can be no leaf."""
    if type(leaf) in (int, float, complex, bool, str, type(None)):
        return None
    need(type(leaf) is np.ndarray or isinstance(leaf, jax.Array | np.generic))
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    need(array.dtype.kind in "biufcmM" or (array.dtype.kind in "SU" and not isinstance(leaf, np.generic))
         or jnp.issubdtype(array.dtype, jnp.number))  # fmt: skip
    return array


@call("checkpoint.save", path=("FILES / 'written'", PATHS), state=(GOOD, STATES), keep=(None, counts(0)), weight=2)
def _(a: Any, result: Any) -> bool:
    path = pathlib.Path(a.path)
    content = path.read_bytes()
    again = checkpoint.restore(path, a.state)
    path.unlink()
    need(type(a.keep) is int and a.keep >= 0)
    saved, given = parts(content), flat(a.state)
    if saved is None or [leaf["path"] for leaf, _ in saved] != [name for name, _ in given]:
        return False
    for (_, raw), (_, leaf), (_, back) in zip(saved, given, flat(again), strict=True):
        array = array_of(leaf)
        if array is not None and (not same_bytes(array, raw) or back.dtype != leaf.dtype or back.shape != leaf.shape):
            return False
        if array is None and (type(back) is not type(leaf) or repr(back) != repr(leaf)):
            return False
    return result is None


@call("checkpoint.restore", "state", "data", path=("file(checkpoint_bytes())", SAVED),
      like=(GOOD, st.one_of(STATES, st.sampled_from((
          "{'w': np.zeros(2, np.float32), 'step': jnp.array(0)}", "{'w': jnp.zeros(3), 'step': 7}",
          "{'w': jnp.zeros(2), 'step': 7.0}", "{'w': jnp.zeros(2), 'steps': 7}", "{'w': jnp.zeros(2)}",
          "[jnp.zeros(2), 7]", "{'w': jax.ShapeDtypeStruct((2,), jnp.float32), 'step': True}",
          "{'w': jnp.zeros(2), 'step': 7, 'x': None}", "{'w': jnp.zeros(2, int), 'step': 7}")))), weight=3)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    files = [pathlib.Path(a.path), pathlib.Path(f"{a.path}.1")]
    contents = [path.read_bytes() for path in files if path.is_file()]
    whole_ones = [found for found in map(parts, contents) if found is not None]
    need(whole_ones)
    saved, wanted = whole_ones[0], flat(a.like)
    need([leaf["path"] for leaf, _ in saved] == [name for name, _ in wanted])
    need(jax.tree.structure(result) == jax.tree.structure(a.like))
    for (leaf, raw), (_, like), (_, back) in zip(saved, wanted, flat(result), strict=True):
        if leaf["type"] in KINDS:
            need(type(like) is KINDS[leaf["type"]] or (np.shape(like) == () and np.asarray(like).dtype.kind in "biufc"))
            if type(back) is not KINDS[leaf["type"]] or not python_bytes(back, raw):
                return False
            continue
        array = array_of(back)
        need(array is not None and same_bytes(array, raw))
        need(np.shape(like) == back.shape == tuple(leaf["shape"]) and math.prod(back.shape) >= 0)
        need(np.dtype(type(like)).kind == back.dtype.kind if np.isscalar(like) else like.dtype == back.dtype)
    return True


def same_bytes(array: np.ndarray, raw: bytes) -> bool:
    """Return whether bytes are those of an array; a long double has some that mean nothing."""
    if array.dtype.char in "gG":
        return np.array_equal(np.frombuffer(raw, array.dtype).reshape(array.shape), array, equal_nan=True)
    return array.tobytes() == raw


def python_bytes(value: Any, raw: bytes) -> bool:
    """Return whether bytes stand for a number, text or None."""
    if isinstance(value, bool):
        return bool(raw[0]) == value
    if isinstance(value, int):
        return int.from_bytes(raw, "little", signed=True) == value
    if isinstance(value, float | complex):
        return np.array(value).tobytes() == raw
    return raw == (b"" if value is None else value.encode(errors="surrogatepass"))


@call("checkpoint.locked", folder=("FILES", PATHS), weight=0.5)
def _(a: Any, result: Any) -> bool:
    lock = pathlib.Path(a.folder) / ".lock"
    with checkpoint.locked(a.folder):
        try:
            with checkpoint.locked(a.folder):
                return False
        except BlockingIOError as error:
            refused = error.errno in (None, errno.EWOULDBLOCK)
    lock.unlink()
    return refused
