"""What was saved is what is restored, bit for bit; and nothing else is ever restored."""

import collections
import contextlib
import copy
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc

import flax.training.train_state
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

from mlp_jax import checkpoint, datasets, losses, mlp

EXTENDED = {
    "bfloat16": 16, "float8_e3m4": 8, "float8_e4m3": 8, "float8_e4m3b11fnuz": 8, "float8_e4m3fn": 8,
    "float8_e4m3fnuz": 8, "float8_e5m2": 8, "float8_e5m2fnuz": 8, "float8_e8m0fnu": 8, "float4_e2m1fn": 4,
    "int4": 4, "uint4": 4, "int2": 2, "uint2": 2,
}  # fmt: skip
EXTENDED = {name: bits for name, bits in EXTENDED.items() if hasattr(jnp, name)}
NUMBERS = {
    "bool": 1, "int8": 8, "int16": 16, "int32": 32, "int64": 64, "uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64,
    "float16": 16, "float32": 32, "float64": 64, "complex64": 64, "complex128": 128,
}  # fmt: skip
BITS = NUMBERS | EXTENDED
NUMPY_ONLY = [
    ">f4",
    ">i8",
    ">c16",
    ">U3",
    "<U5",
    "S3",
    "M8[ns]",
    ">m8[25s]",
    "longdouble",
    "float6_e2m3fn",
    "float6_e3m2fn",
]


def assert_same(got, expected):
    """Leaves of the same type, dtype, shape and bits."""
    assert type(got) is type(expected)
    if isinstance(expected, jax.Array) and jnp.issubdtype(expected.dtype, jax.dtypes.prng_key):
        assert got.dtype == expected.dtype
        assert jax.random.key_impl(got) == jax.random.key_impl(expected)
        got, expected = jax.random.key_data(got), jax.random.key_data(expected)
    if isinstance(expected, jax.Array | np.ndarray | np.generic):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        assert getattr(got, "weak_type", None) == getattr(expected, "weak_type", None)
        assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()
    elif isinstance(expected, complex):
        assert struct.pack("2d", got.real, got.imag) == struct.pack("2d", expected.real, expected.imag)
    elif isinstance(expected, float):
        assert struct.pack("d", got) == struct.pack("d", expected)
    else:
        assert got == expected


def assert_same_tree(got, expected):
    def is_none(node):
        return node is None

    assert jax.tree.structure(got, is_leaf=is_none) == jax.tree.structure(expected, is_leaf=is_none)
    jax.tree.map(assert_same, got, expected, is_leaf=is_none)


def through_file(state, like=None):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "state"
        checkpoint.save(path, state)
        return checkpoint.restore(path, state if like is None else like)


def dtype_of(name):
    return np.dtype(getattr(jnp, name, name))


def every_pattern(name):
    """All the bit patterns of a dtype of up to 16 bits, and 4,096 random ones of the others, as a numpy array."""
    dtype = dtype_of(name)
    if BITS[name] <= 16:
        return np.arange(2 ** BITS[name], dtype=f"u{dtype.itemsize}").view(dtype)
    return np.frombuffer(np.random.default_rng(0).bytes(4096 * dtype.itemsize), dtype)


# --- Leaves ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", BITS)
def test_every_bit_pattern_of_every_dtype_of_jax_comes_back(name):
    patterns = every_pattern(name)
    state = {
        "jax": jax.device_put(patterns),
        "jax scalar": jax.device_put(patterns[1:2].reshape(())),
        "jax empty": jax.device_put(patterns[:0].reshape(0, 3)),
        "numpy": patterns,
        "numpy 0-d": patterns[1:2].reshape(()),
        "numpy scalar": patterns[1],
        "numpy empty": patterns[:0].reshape(2, 0),
    }
    assert_same_tree(through_file(state), state)


@pytest.mark.parametrize("name", NUMPY_ONLY)
def test_dtypes_that_only_numpy_has_come_back(name):
    """Byte orders, text, times and long doubles."""
    dtype = dtype_of(name)
    count = 30
    if dtype.kind == "U":
        array = np.array(["a\u0fff", "", "\U0001f600"], dtype)
    else:
        array = np.frombuffer(np.random.default_rng(1).bytes(count * dtype.itemsize), dtype).reshape(5, 6)
    got = through_file([array, array[..., :0]])
    assert_same(got[0], array)
    assert_same(got[1], array[..., :0])
    assert got[0].dtype.str == array.dtype.str


def test_nan_payloads_and_negative_zeros_come_back():
    payload = struct.unpack("<d", bytes.fromhex("230100000000f87f"))[0]
    quiet = np.array([0x7FC00123, 0xFFC00001, 0x80000000, 0x00000001, 0x7F800001], np.uint32).view(np.float32)
    state = [payload, -0.0, complex(-0.0, payload), jnp.asarray(quiet), quiet]
    got = through_file(state)
    assert struct.pack("<d", got[0]) == bytes.fromhex("230100000000f87f")
    assert np.asarray(got[3]).view(np.uint32).tolist() == [0x7FC00123, 0xFFC00001, 0x80000000, 0x00000001, 0x7F800001]
    assert_same_tree(got, state)


INTEGERS = [0, -1, 127, 128, -128, -129, 255, 256, 2**63, -(2**64), 3**9999]
OTHERS = [True, False, None, "", "x\0é\n", "\ud800", 1.5, float("inf"), -0.0, 1e-320, complex(-0.0, float("-inf"))]


@pytest.mark.parametrize("value", INTEGERS + OTHERS, ids=lambda value: type(value).__name__)
def test_python_values_come_back_as_themselves(value):
    assert_same_tree(through_file({"value": value}), {"value": value})


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_a_restored_key_draws_what_the_saved_one_draws(implementation):
    key = jax.random.key(7, impl=implementation)
    state = {"one": key, "many": jax.random.split(key, (2, 3)), "none": jax.random.split(key, 3)[:0]}
    got = through_file(state)
    assert_same_tree(got, state)
    np.testing.assert_array_equal(jax.random.normal(got["one"], (5,)), jax.random.normal(key, (5,)))


@pytest.mark.parametrize("x64", [False, True])
def test_weak_types_come_back_since_promotion_depends_on_them(x64):
    with jax.enable_x64(x64):
        weak = {
            "int": jnp.asarray(3),
            "float": jnp.broadcast_to(jnp.asarray(0.1), (2, 3)),
            "complex": jnp.asarray(1j),
            "empty": jnp.broadcast_to(jnp.asarray(0.1), (0, 3)),
        }
        assert all(leaf.weak_type for leaf in weak.values())
        got = through_file(weak)
        assert_same_tree(got, weak)
        assert (got["float"] + jnp.zeros((), jnp.bfloat16)).dtype == jnp.bfloat16


def test_a_weak_type_is_restored_under_another_default_precision():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "state"
        saved = jnp.asarray(0.1)
        checkpoint.save(path, saved)
        with jax.enable_x64(True):
            assert_same(checkpoint.restore(path, saved), saved)


def test_restored_numpy_arrays_can_be_written_to():
    got = through_file(np.arange(3.0))
    got[0] = 5
    assert got.flags.owndata
    assert got[0] == 5


def test_memory_layout_does_not_matter():
    base = np.arange(24.0).reshape(2, 3, 4)
    views = [base.T, np.asfortranarray(base), base[:, ::-2, 1:3], np.broadcast_to(base[0], (5, 3, 4))]
    got = through_file(views)
    assert [array.tolist() for array in got] == [view.tolist() for view in views]
    assert_same_tree(got, views)


def test_sharded_and_committed_arrays_are_gathered():
    program = """
import os, sys, tempfile
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, jax.numpy as jnp, numpy as np
from mlp_jax import checkpoint
from jax.sharding import NamedSharding, PartitionSpec
mesh = jax.make_mesh((4,), ("i",))
numbers = jnp.arange(32.0).reshape(8, 4)
state = {
    "sharded": jax.device_put(numbers, NamedSharding(mesh, PartitionSpec("i"))),
    "replicated": jax.device_put(numbers, NamedSharding(mesh, PartitionSpec())),
    "committed": jax.device_put(numbers, jax.devices()[3]),
    "keys": jax.device_put(jax.random.split(jax.random.key(0), 8), NamedSharding(mesh, PartitionSpec("i"))),
}
path = tempfile.mkdtemp() + "/state"
checkpoint.save(path, state)
got = checkpoint.restore(path, state)
for name in ("sharded", "replicated", "committed"):
    np.testing.assert_array_equal(got[name], np.arange(32.0).reshape(8, 4))
    assert got[name].devices() == {jax.devices()[0]}
np.testing.assert_array_equal(jax.random.key_data(got["keys"]), jax.random.key_data(state["keys"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Marked(float):
    pass


@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        (object(), "object"),
        (len, "builtin_function"),
        (b"bytes", "bytes"),
        (Marked(1), "Marked"),
        (np.array([None]), "dtype object"),
        (np.zeros(2, "i4,f4"), "dtype"),
        (np.zeros(2, jax.dtypes.float0), "dtype"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), "MaskedArray"),
        (np.str_("a\0"), "str_"),
        (jax.ShapeDtypeStruct((2,), np.float32), "ShapeDtypeStruct"),
        ({1, 2}, "set"),
    ],
)
def test_what_cannot_be_kept_exactly_is_refused_by_name(tmp_path, leaf, said):
    checkpoint.save(tmp_path / "state", {"a": 1})
    with pytest.raises(TypeError, match=rf"state\['x'\]\['y'\]: got .*{said}.*expected"):
        checkpoint.save(tmp_path / "state", {"a": 2, "x": {"y": leaf}})
    assert checkpoint.restore(tmp_path / "state", {"a": 0}) == {"a": 1}
    assert os.listdir(tmp_path) == ["state"]


def test_a_donated_array_leaves_the_state_before(tmp_path):
    checkpoint.save(tmp_path / "state", 1)
    donated = jnp.ones(3)
    donated.delete()
    with pytest.raises(RuntimeError, match=r"state\['w'\]: got an array that was deleted"):
        checkpoint.save(tmp_path / "state", {"w": donated})
    assert checkpoint.restore(tmp_path / "state", 0) == 1
    assert os.listdir(tmp_path) == ["state"]


def test_traced_values_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"state\['w'\]: got a traced value"):
        jax.jit(lambda x: checkpoint.save(tmp_path / "state", {"w": x}))(1.0)


# --- Trees -----------------------------------------------------------------------------------------------------------


@st.composite
def arrays(draw):
    """Arrays of numpy or JAX of any dtype and few dimensions, zero included, with random bits."""
    name = draw(st.sampled_from([*BITS, *NUMPY_ONLY[:3]]))
    dtype = dtype_of(name)
    shape = draw(st.lists(st.integers(0, 3), max_size=3).map(tuple))
    size = int(np.prod(shape))
    content = np.frombuffer(draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize)), np.uint8)
    if BITS.get(name, 8) < 8:
        content = content & np.uint8(2 ** BITS[name] - 1)
    array = content.view(dtype).reshape(shape) if size else np.zeros(shape, dtype)
    if name in NUMPY_ONLY or draw(st.booleans()):
        return array[()] if shape == () and draw(st.booleans()) else array
    return jax.device_put(array)


LEAVES = st.one_of(
    arrays(), st.integers(), st.floats(), st.complex_numbers(), st.booleans(), st.text(st.characters()), st.none()
)
KEYS = st.one_of(st.text(max_size=5), st.sampled_from(["a.1", "['a']", "\n", "\0", "é"]))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3).map(collections.OrderedDict),
    ),
    max_leaves=10,
)


@pytest.mark.usefixtures("x64")
@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(TREES)
def test_any_tree_comes_back(tree):
    assert_same_tree(through_file(tree), tree)


@pytest.mark.usefixtures("x64")
@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(TREES, TREES)
def test_a_tree_is_never_restored_into_another(saved, other):
    """The oracle: JAX's own paths, and the dtypes and shapes of the leaves."""

    def signature(tree):
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is None)
        return [(path, kind_of(leaf)) for path, leaf in leaves]

    def kind_of(leaf):
        if isinstance(leaf, np.ndarray | np.generic | jax.Array):
            return leaf.dtype.str, leaf.shape
        return type(leaf)

    if signature(saved) == signature(other):
        assert_same_tree(jax.tree.leaves(through_file(saved, other)), jax.tree.leaves(saved))
    elif all(isinstance(kind, tuple) for tree in (saved, other) for _, kind in signature(tree)):
        with pytest.raises(ValueError, match=r"state: got .*, expected"):
            through_file(saved, other)
    else:  # a Python number and an array of shape () may agree
        with contextlib.suppress(ValueError):
            got = through_file(saved, other)
            jax.tree.map(assert_same, jax.tree.leaves(got), jax.tree.leaves(saved))


class Pair(collections.namedtuple("Pair", "first second")):
    """A NamedTuple is a pytree."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Record:
    values: jax.Array
    count: int = dataclasses.field(metadata={"static": True}, default=0)


@jax.tree_util.register_pytree_node_class
class Opaque:
    """A custom node without names for its children, with data of its own that no file may change."""

    def __init__(self, child, function):
        self.child, self.function = child, function

    def tree_flatten(self):
        return (self.child,), self.function

    @classmethod
    def tree_unflatten(cls, function, children):
        return cls(*children, function)


def test_structure_comes_from_like_and_values_from_the_file():
    saved = Pair(Record(jnp.arange(3), count=1), Opaque(np.arange(2), len))
    like = Pair(Record(jnp.zeros(3, jnp.int32), count=2), Opaque(np.zeros(2, int), sum))
    got = through_file(saved, like)
    assert type(got) is Pair
    assert got.first.count == 2
    assert got.second.function is sum
    assert got.first.values.tolist() == [0, 1, 2]
    assert got.second.child.tolist() == [0, 1]


def test_shapes_without_values_are_enough():
    def new(key):
        return {"params": mlp.init(key, (3, 2)), "key": key, "keys": jax.random.split(key, 2)}

    state = new(jax.random.key(0))
    got = through_file(state, jax.eval_shape(new, jax.random.key(0)))
    assert_same_tree(got, state)


# --- Training states -------------------------------------------------------------------------------------------------


def adam_steps(params, opt_state, steps, first):
    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 1e-2, 4, 10))
    inputs, targets = (array[:32] for array in datasets.load("digits").train)

    def loss(params):
        return losses.mean(losses.cross_entropy(mlp.forward(params, jnp.asarray(inputs, jnp.float32)), targets))

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = optimizer.init(params) if opt_state is None else opt_state
    for _ in range(first, first + steps):
        params, opt_state = step(params, opt_state)
    return params, opt_state


@pytest.mark.implicit_promotion
def test_a_run_that_is_restored_half_way_ends_with_the_same_bits():
    params = mlp.init(jax.random.key(0), (64, 8, 10))
    half = adam_steps(params, None, 5, 0)
    restored = through_file(half, (params, adam_steps(params, None, 0, 0)[1]))
    assert_same_tree(restored, half)
    assert_same_tree(adam_steps(*restored, 5, 5), adam_steps(*half, 5, 5))


@pytest.mark.implicit_promotion
def test_a_flax_train_state_comes_back_into_a_new_one():
    """Its step begins as a Python int, and is an array once jit has seen it."""

    def new():
        params = mlp.init(jax.random.key(1), (4, 3))
        return flax.training.train_state.TrainState.create(
            apply_fn=mlp.forward, params=params, tx=optax.chain(optax.clip(1.0), optax.adam(0.1))
        )

    state = jax.jit(lambda s: s.apply_gradients(grads=s.params))(new())
    got = through_file(state, new())
    assert int(got.step) == 1
    assert_same(got.step, state.step)
    assert got.apply_fn is mlp.forward
    assert_same_tree(jax.tree.leaves(got), jax.tree.leaves(state))
    assert_same_tree(jax.tree.leaves(through_file(new(), state)), jax.tree.leaves(new()))


# --- The file --------------------------------------------------------------------------------------------------------


def sealed(header, content=b"", first=b"mlp_jax checkpoint\n"):
    """A whole file, written by hand from its description: the header may be anything."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    data = first + header + b"\n" + content
    return data + hashlib.sha256(data).digest()


def header_of(*leaves, **changes):
    return {"format": 1, "byteorder": "little", "leaves": list(leaves), **changes}


EXAMPLE = (
    header_of(
        {"path": "['a'][0]", "type": "numpy", "dtype": "float32", "shape": [2, 1], "bytes": 8},
        {"path": "['a'][1]", "type": "int", "bytes": 2},
        {"path": "['b']", "type": "jax", "dtype": "bfloat16", "shape": [2], "bytes": 4},
        {"path": "['c']", "type": "str", "bytes": 3},
        {"path": "['d']", "type": "NoneType", "bytes": 0},
    ),
    bytes.fromhex("0000803f 000000c0  0001  803f c0ff") + "é!".encode(),
)
EXAMPLE_STATE = {
    "a": (np.array([[1.0], [-2.0]], np.float32), 256),
    "b": jnp.array([1.0, jnp.nan], jnp.bfloat16),
    "c": "é!",
    "d": None,
}


def test_a_file_written_by_hand_is_read(tmp_path):
    """Format 1 as it is described: a later version must still read this."""
    (tmp_path / "state").write_bytes(sealed(*EXAMPLE))
    got = checkpoint.restore(tmp_path / "state", EXAMPLE_STATE)
    assert got["b"].view(jnp.uint16).tolist() == [0x3F80, 0xFFC0]
    assert got["a"][0].tolist() == [[1.0], [-2.0]]
    assert (got["a"][1], got["c"], got["d"]) == (256, "é!", None)


def test_a_file_is_what_its_description_says(tmp_path):
    state = EXAMPLE_STATE | {"b": jnp.asarray(np.array([0x3F80, 0xFFC0], np.uint16).view(jnp.bfloat16))}
    checkpoint.save(tmp_path / "state", state)
    data = (tmp_path / "state").read_bytes()
    first, header, content = data[:-32].split(b"\n", 2)
    assert first == b"mlp_jax checkpoint"
    assert json.loads(header) == EXAMPLE[0]
    assert content == EXAMPLE[1]
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()


def test_the_same_state_makes_the_same_file(tmp_path):
    for name in ("one", "two"):
        checkpoint.save(tmp_path / name, {"key": jax.random.key(0), "w": jnp.ones(3)})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("saved", "like", "said"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, r"got the leaf state\['b'\], expected no more leaves"),
        ({"a": 1}, {"a": 1, "b": 2}, r"got no more leaves, expected the leaf state\['b'\]"),
        ({"a": 1, "c": 2}, {"a": 1, "b": 2}, r"got the leaf state\['c'\], expected the leaf state\['b'\]"),
        ((1, 2), Pair(1, 2), r"got the leaf state\[0\], expected the leaf state.first"),
        ([np.zeros(2)], [np.zeros(3)], r"got a numpy array of float64 \(2,\) at state\[0\], expected .* \(3,\)"),
        ([np.zeros(2)], [np.zeros(2, "f4")], r"float64 \(2,\) at state\[0\], expected a numpy array of float32"),
        ([np.zeros(2)], [np.zeros(2, ">f8")], r"float64 \(2,\) at state\[0\], expected a numpy array of >f8"),
        (
            np.zeros(2, "f4"),
            jnp.zeros(3),
            r"numpy array of float32 \(2,\) at state, expected a JAX array of float32 \(3,\)",
        ),
        ([1], ["1"], r"got a Python int at state\[0\], expected a Python str"),
        ([1], [1.0], r"got a Python int at state\[0\], expected a Python float"),
        ([True], [1], r"got a Python bool at state\[0\], expected a Python int"),
        ([1], [np.zeros(())], r"got a Python int at state\[0\], expected a numpy array of float64 \(\)"),
        ([np.zeros(1)], [1.0], r"got a numpy array of float64 \(1,\) at state\[0\], expected a Python float"),
        ([None], [1], r"got None at state\[0\], expected a Python int"),
        ([1], [None], r"got a Python int at state\[0\], expected None"),
        (
            [jax.random.key(0)],
            [jax.random.key(0, impl="rbg")],
            r"key of threefry2x32 \(\) at state\[0\], expected .* key of rbg \(\)",
        ),
        ([jax.random.key(0)], [jax.random.PRNGKey(0)], r"random key .* expected a JAX array of uint32 \(2,\)"),
    ],
)
def test_a_checkpoint_of_another_model_is_an_error_that_names_the_first_difference(tmp_path, saved, like, said):
    checkpoint.save(tmp_path / "state", like)  # never what is fallen back to
    checkpoint.save(tmp_path / "state", saved)
    with pytest.raises(ValueError, match=rf"state: .*{said}"):
        checkpoint.restore(tmp_path / "state", like)


@pytest.mark.parametrize("number", [True, 1, 1.0, 1j], ids=str)
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint32", "float32", "bfloat16", "int4", "complex64"])
def test_a_python_number_stands_for_a_scalar_array_of_its_own_kind_only(number, dtype):
    kinds = {"bool": bool, "int8": int, "uint32": int, "float32": float, "bfloat16": float, "int4": int}
    array = jax.device_put(np.ones((), dtype_of(dtype)))
    if kinds.get(dtype, complex) is type(number):
        assert_same(through_file(array, number), array)
        assert_same(through_file(number, array), number)
    else:
        for saved, like in ((array, number), (number, array)):
            with pytest.raises(ValueError, match="at state, expected"):
                through_file(saved, like)


@pytest.mark.parametrize("header", [header_of(format=2), {"format": 3}, {"format": 2, "leaves": "elsewhere"}])
def test_a_file_of_a_later_version_is_an_error_and_not_damage(tmp_path, header):
    checkpoint.save(tmp_path / "state.1", 1)
    (tmp_path / "state").write_bytes(sealed(header))
    with pytest.raises(ValueError, match=r"got format [23], expected 1: a later version has written it"):
        checkpoint.restore(tmp_path / "state", 0)


def test_a_file_of_the_other_byte_order_is_an_error(tmp_path):
    (tmp_path / "state").write_bytes(sealed(header_of(byteorder="big")))
    with pytest.raises(ValueError, match="got byte order 'big', expected this machine's, 'little'"):
        checkpoint.restore(tmp_path / "state", ())


@pytest.mark.parametrize("value", [np.float64(0.1), np.int64(2**40), np.complex128(1j), np.uint64(2**63)])
def test_64_bits_of_jax_are_never_narrowed(tmp_path, value):
    with jax.enable_x64(True):
        saved = {"w": jnp.asarray(value)}
        checkpoint.save(tmp_path / "state", saved)
    with pytest.raises(ValueError, match=rf"JAX array of {value.dtype} \(\) at state\['w'\], expected x64 to be on"):
        checkpoint.restore(tmp_path / "state", saved)
    with jax.enable_x64(True):
        assert_same_tree(checkpoint.restore(tmp_path / "state", saved), saved)


def test_64_bits_of_numpy_need_no_x64():
    state = {"w": np.float64(0.1), "n": np.arange(3)}
    assert_same_tree(through_file(state), state)


# --- What is not a checkpoint ----------------------------------------------------------------------------------------

KEY = jax.random.key(0)
ONE = {"path": "", "type": "numpy", "dtype": "float64", "shape": [1], "bytes": 8}
NOT_CHECKPOINTS = {
    "empty": b"",
    "only a digest": hashlib.sha256(b"").digest(),
    "only a first line": b"mlp_jax checkpoint\n",
    "text": b"a text of some length that is not a checkpoint, and never was one, and never will be one",
    "another first line": sealed(header_of(ONE), bytes(8), b"MLP_jax checkpoint\n"),
    "no header": sealed(b""),
    "header of zeros": sealed(bytes(1000)),
    "a list": sealed([]),
    "a number": sealed(b"1"),
    "not finite": sealed(b"NaN"),
    "no format": sealed({"leaves": []}),
    "format 0": sealed(header_of(ONE, format=0), bytes(8)),
    "format true": sealed(header_of(ONE, format=True), bytes(8)),
    "format 1.0": sealed(header_of(ONE, format=1.0), bytes(8)),
    "endless number": sealed(b'{"format": ' + b"9" * 100_000 + b"}"),
    "deep lists": sealed(b"[" * 1_000_000),
    "deep dicts": sealed(b'{"leaves":' * 300_000),
    "deep and closed": sealed(b'{"format": 1, "leaves": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "not unicode": sealed(b'{"format": "\xff\xfe"}'),
    "no leaves": sealed({"format": 1, "byteorder": "little"}),
    "leaves of text": sealed(header_of("x", "y")),
    "too little": sealed(header_of(ONE), bytes(7)),
    "too much": sealed(header_of(ONE), bytes(9)),
    "petabytes": sealed(header_of(ONE | {"shape": [2**50], "bytes": 2**53}), bytes(8)),
    "bytes of petabytes": sealed(header_of(ONE | {"bytes": 2**53}), bytes(8)),
    "negative": sealed(header_of(ONE | {"shape": [-1], "bytes": -8}, ONE | {"bytes": 16}), bytes(8)),
    "shape true": sealed(header_of(ONE | {"shape": [True]}), bytes(8)),
    "shape of a float": sealed(header_of(ONE | {"shape": [1.0]}), bytes(8)),
    "shape of text": sealed(header_of(ONE | {"shape": "1"}), bytes(8)),
    "no shape": sealed(header_of({k: v for k, v in ONE.items() if k != "shape"}), bytes(8)),
    "type of a list": sealed(header_of(ONE | {"type": []}), bytes(8)),
    "type unknown": sealed(header_of(ONE | {"type": "pickle"}), bytes(8)),
    "path a number": sealed(header_of(ONE | {"path": 1}), bytes(8)),
    "key without its data's shape": sealed(header_of(ONE | {"type": "key"}), bytes(8)),
}


@pytest.mark.parametrize("data", NOT_CHECKPOINTS.values(), ids=NOT_CHECKPOINTS.keys())
def test_what_is_not_a_checkpoint_is_a_clear_error_quickly_and_in_little_memory(tmp_path, data):
    (tmp_path / "state").write_bytes(data)
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"got no checkpoint that is whole: .*/state ") as raised:
            checkpoint.restore(tmp_path / "state", np.zeros(1))
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(str(raised.value)) < 1000
    assert time.perf_counter() - start < 5
    assert peak < 2e7 + 30 * len(data)


@pytest.mark.parametrize(
    ("like", "leaf", "content"),
    [
        (1.0, {"type": "float"}, b"1234567"),
        (1j, {"type": "complex"}, b"1234567"),
        (True, {"type": "bool"}, b""),
        ("", {"type": "str"}, b"\xff"),
        (1, {"type": "numpy", "dtype": "object", "shape": []}, bytes(8)),
        (1, {"type": "numpy", "dtype": "i4,i4", "shape": []}, bytes(8)),
        (1, {"type": "numpy", "dtype": "(1000000000,)i8", "shape": []}, bytes(8)),
        (1, {"type": "numpy", "dtype": "{'names': []}", "shape": []}, bytes(8)),
        (1, {"type": "numpy", "dtype": "long", "shape": []}, bytes(8)),
        (1, {"type": "numpy", "dtype": "int65", "shape": []}, bytes(8)),
        (1, {"type": "numpy", "dtype": "<i4", "shape": []}, bytes(4)),
        (1, {"type": "numpy", "dtype": "int64", "shape": []}, bytes(4)),
        (
            np.broadcast_to(1.0, (2**30, 2**20)),
            {"type": "numpy", "dtype": "float64", "shape": [2**30, 2**20]},
            bytes(8),
        ),
        (KEY, {"type": "key", "dtype": "threefry2x32", "shape": [], "data_shape": [4]}, bytes(16)),
        (KEY, {"type": "key", "dtype": "threefry2x32", "shape": [], "data_shape": [3, 2]}, bytes(24)),
        (KEY, {"type": "key", "dtype": "threefry2x32", "shape": [], "data_shape": [2]}, bytes(4)),
        (KEY, {"type": "key", "dtype": "mine", "shape": [], "data_shape": [2]}, bytes(8)),
        (jnp.uint8(0), {"type": "jax", "dtype": "uint8", "shape": [], "weak": True}, bytes(1)),
    ],
)
def test_a_leaf_that_is_not_what_its_description_says_is_a_clear_error(tmp_path, like, leaf, content):
    (tmp_path / "state").write_bytes(sealed(header_of({"path": "", "bytes": len(content), **leaf}), content))
    with pytest.raises(ValueError, match="/state"):
        checkpoint.restore(tmp_path / "state", like)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=8,
)
ODD_SIZES = st.one_of(st.integers(-1, 9), st.integers(2**30, 2**70), JSON)
ODD_LEAVES = st.fixed_dictionaries(
    {},
    optional={
        "path": st.one_of(st.just(""), JSON),
        "type": st.one_of(st.sampled_from(["jax", "numpy", "numpy scalar", "key", "int", "str", "NoneType"]), JSON),
        "dtype": st.one_of(st.sampled_from(["float64", "int4", "threefry2x32", "object", "V8", "<U4"]), JSON),
        "shape": st.one_of(st.lists(ODD_SIZES, max_size=3), JSON),
        "bytes": ODD_SIZES,
        "weak": JSON,
        "data_shape": st.one_of(st.lists(ODD_SIZES, max_size=2), JSON),
    },
)
ODD_HEADERS = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"format": st.just(1), "byteorder": st.just("little"), "leaves": st.lists(ODD_LEAVES, max_size=3)}
    ),
)


@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(ODD_HEADERS, st.binary(max_size=20), st.sampled_from([np.zeros(1), 0, "", KEY, []]))
def test_no_header_makes_anything_but_a_state_like_the_one_expected_or_a_clear_error(header, content, like):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "state"
        path.write_bytes(sealed(header, content))
        with contextlib.suppress(ValueError):
            got = checkpoint.restore(path, like)
            assert jax.tree.structure(got) == jax.tree.structure(like)
            jax.tree.map(lambda a, b: np.testing.assert_equal(np.shape(a), np.shape(b)), got, like)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_a_clear_error(data, with_first_line):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "state"
        path.write_bytes(b"mlp_jax checkpoint\n" * with_first_line + data)
        with pytest.raises(ValueError, match="no checkpoint that is whole"):
            checkpoint.restore(path, {"w": np.zeros(3)})


def test_nothing_is_unpickled(tmp_path):
    """A numpy file of objects, and a pickle, are refused as any other file is."""
    np.save(tmp_path / "objects.npy", np.array([print]), allow_pickle=True)
    with pytest.raises(ValueError, match="no checkpoint that is whole"):
        checkpoint.restore(tmp_path / "objects.npy", 0)
    assert not {"pickle", "marshal", "eval", "exec", "compile"} & set(vars(checkpoint))


# --- Files around it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1, 2, 5])
def test_the_last_keep_checkpoints_before_stay_beside(tmp_path, keep):
    for step in range(8):
        checkpoint.save(tmp_path / "state", step, keep=keep)
    names = ["state", *(f"state.{n}" for n in range(1, keep + 1))]
    assert sorted(os.listdir(tmp_path)) == names
    assert [checkpoint.restore(tmp_path / name, 0) for name in names] == list(range(7, 6 - keep, -1))


def test_keeping_fewer_removes_the_oldest(tmp_path):
    for step in range(6):
        checkpoint.save(tmp_path / "state", step, keep=5)
    checkpoint.save(tmp_path / "state", 6, keep=1)
    assert sorted(os.listdir(tmp_path)) == ["state", "state.1"]
    assert checkpoint.restore(tmp_path / "state.1", 0) == 5


def test_other_files_are_left_alone(tmp_path):
    others = ["state.2024", "state.1.txt", "state.partial", "other.1", "state.x.partial", "astate", "state.npz"]
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    for step in range(5):
        checkpoint.save(tmp_path / "state", step, keep=1)
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "state", "state.1"])
    assert all((tmp_path / name).read_bytes() == b"mine" for name in others)


@pytest.mark.parametrize("keep", [-1, 1.0, True, None, "2"])
def test_keep_is_a_number_of_files(tmp_path, keep):
    with pytest.raises(ValueError, match="keep: got"):
        checkpoint.save(tmp_path / "state", 1, keep=keep)


def test_a_path_may_be_text_or_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save("state", 1)
    checkpoint.save(str(tmp_path / "state"), 2)
    assert checkpoint.restore("state", 0) == 2
    assert sorted(os.listdir(tmp_path)) == ["state", "state.1"]


def test_names_with_odd_characters_are_names_like_any_other(tmp_path):
    path = tmp_path / "lr=0.1 [*?]\n.é"
    for step in range(3):
        checkpoint.save(path, step, keep=1)
    assert checkpoint.restore(path, 0) == 2
    assert len(os.listdir(tmp_path)) == 2


def test_where_nothing_was_saved_there_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="state"):
        checkpoint.restore(tmp_path / "state", 0)
    with pytest.raises(FileNotFoundError):
        checkpoint.save(tmp_path / "missing" / "state", 0)


def test_a_folder_in_its_place_is_an_error(tmp_path):
    (tmp_path / "state").mkdir()
    with pytest.raises(IsADirectoryError):
        checkpoint.save(tmp_path / "state", 0)
    with pytest.raises(IsADirectoryError):
        checkpoint.restore(tmp_path / "state", 0)
    assert os.listdir(tmp_path) == ["state"]


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "state")
    with pytest.raises(FileExistsError):
        checkpoint.save(tmp_path / "state", 0)
    assert (tmp_path / "state").is_fifo()
    assert os.listdir(tmp_path) == ["state"]


def test_a_folder_in_the_place_of_an_earlier_one_leaves_the_newest_intact(tmp_path):
    checkpoint.save(tmp_path / "state", 1)
    (tmp_path / "state.1").mkdir()
    with pytest.raises(IsADirectoryError):
        checkpoint.save(tmp_path / "state", 2)
    assert sorted(os.listdir(tmp_path)) == ["state", "state.1"]
    assert checkpoint.restore(tmp_path / "state", 0) == 1


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (3, TypeError, "path: got 3, expected a str or"),
        (b"state", TypeError, "path: got b'state', expected"),
        ("state\0", ValueError, "path: got .*, expected a name that a file can have"),
        ("\ud800", ValueError, "path: got .*, expected a name that a file can have"),
        ("w" * 5000, OSError, "path: the checkpoint cannot be (written|read): File name too long"),
        ("file/state", NotADirectoryError, "path: the checkpoint cannot be (written|read): Not a directory"),
        (".", IsADirectoryError, "path: the checkpoint cannot be (written|read): Is a directory"),
        ("none/state", FileNotFoundError, "path: the checkpoint cannot be (written|read): No such file"),
    ],
)
def test_a_path_that_no_checkpoint_can_have_is_refused_by_name(tmp_path, monkeypatch, path, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(error, match=message):
        checkpoint.save(path, 1)
    with pytest.raises(error, match=message):
        checkpoint.restore(path, 1)
    if path != ".":
        with pytest.raises((error, FileNotFoundError), match=r"folder: "), checkpoint.locked(path):
            pass
    assert os.listdir(tmp_path) == ["file"]


def test_a_pipe_is_no_checkpoint_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "state")
    held = os.open(tmp_path / "state", os.O_RDWR)  # so that to open it ends: this test fails, and does not hang
    with pytest.raises(ValueError, match=r"path: got no checkpoint that is whole: .*/state is no file"):
        checkpoint.restore(tmp_path / "state", 1)
    checkpoint.save(tmp_path / "other", 1)
    os.replace(tmp_path / "other", tmp_path / "state.1")
    with pytest.warns(UserWarning, match=r"state is no file; restored .*state\.1 instead"):
        assert checkpoint.restore(tmp_path / "state", 0) == 1
    os.close(held)


def test_keys_of_a_dict_that_have_no_order_are_refused_by_name(tmp_path):
    with pytest.raises(TypeError, match="state: got a pytree that JAX cannot flatten"):
        checkpoint.save(tmp_path / "state", {1: 0.0, "a": 0.0})
    checkpoint.save(tmp_path / "state", 1)
    with pytest.raises(TypeError, match="like: got a pytree that JAX cannot flatten"):
        checkpoint.restore(tmp_path / "state", {1: 0.0, "a": 0.0})
    with pytest.raises(TypeError, match=r"like\['w'\]: got a set, expected"):
        checkpoint.restore(tmp_path / "state", {"w": {1}})


def test_the_state_may_change_after_it_is_saved(tmp_path):
    array = np.zeros(3)
    checkpoint.save(tmp_path / "state", array)
    array[:] = 1
    like = copy.copy(array)
    assert checkpoint.restore(tmp_path / "state", like).tolist() == [0, 0, 0]
    assert like.tolist() == [1, 1, 1]


def test_a_disk_that_fails_to_read_is_damage(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "state", 1)
    checkpoint.save(tmp_path / "state", 2)
    verify = checkpoint._verify

    def fails(file):
        if file.name.endswith("state"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return verify(file)

    monkeypatch.setattr(checkpoint, "_verify", fails)
    with pytest.warns(UserWarning, match=r"state cannot be read .*; restored .*state\.1 instead"):
        assert checkpoint.restore(tmp_path / "state", 0) == 1


def test_what_is_written_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """The order that a crash of the machine needs: contents, then names, then the folder, then removals."""
    for step in range(3):
        checkpoint.save(tmp_path / "state", step)
    done = []

    def record(module, name, describe):
        original = getattr(module, name)

        def recorded(*args, **kwargs):
            done.append((name, *describe(*args)))
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, recorded)

    def name_of(descriptor):
        file = pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return ["folder" if file == tmp_path else file.suffix, file.stat().st_size if file != tmp_path else 0]

    record(os, "fsync", name_of)
    record(os, "replace", lambda a, b: [pathlib.Path(a).suffix, pathlib.Path(b).suffix])
    record(pathlib.Path, "unlink", lambda path: [path.suffix])
    checkpoint.save(tmp_path / "state", 3)
    assert done == [
        ("fsync", ".partial", (tmp_path / "state").stat().st_size),
        ("replace", ".2", ".3"),
        ("replace", ".1", ".2"),
        ("replace", "", ".1"),
        ("replace", ".partial", ""),
        ("fsync", "folder", 0),
        ("unlink", ".3"),
    ]


# --- Locks -----------------------------------------------------------------------------------------------------------


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path):
    refused = pytest.raises(BlockingIOError, match=f"folder: got {tmp_path}, which another")
    with checkpoint.locked(tmp_path), refused, checkpoint.locked(tmp_path):
        pass
    with checkpoint.locked(str(tmp_path)):
        pass


def test_a_lock_is_released_by_an_error(tmp_path):
    with pytest.raises(KeyError), checkpoint.locked(tmp_path):
        raise KeyError
    with checkpoint.locked(tmp_path):
        pass
