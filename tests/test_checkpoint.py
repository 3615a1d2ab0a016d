"""A state is restored bit for bit, and only into the structure of its own model.

Arrays on several devices are in several_devices/test_devices.py.
"""

import collections
import os
import pathlib
import re
import struct
import tempfile

import flax.training.train_state
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

from mlp_jax import checkpoint, mlp

NUMBERS = [np.dtype(code).name for code in "?bhiqBHIQefdFD"]
EXTENDED = ["bfloat16", "float8_e3m4", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "int4", "uint2"]
FEWER_BITS = {"bool": 1, "float4_e2m1fn": 4, "int4": 4, "uint2": 2}
NUMPY_ONLY = [">f4", ">i8", ">c16", "S3", "M8[ns]", ">m8[25s]", "longdouble", "float6_e2m3fn"]


def facts(leaf):
    """Type, dtype, shape and bits."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf.dtype, facts(jax.random.key_data(leaf))
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        weak = getattr(leaf, "weak_type", None)
        bits = np.asarray(leaf).tobytes()
        if isinstance(leaf, np.longdouble):  # of x86: 80 bits, and padding that numpy leaves as it found it
            bits = bits[:10]
        return type(leaf), leaf.dtype, leaf.dtype.str, leaf.shape, weak, bits
    return type(leaf), np.array(leaf).tobytes() if isinstance(leaf, float | complex) else leaf


def assert_same(got, expected):
    is_none = lambda node: node is None
    assert jax.tree.structure(got, is_leaf=is_none) == jax.tree.structure(expected, is_leaf=is_none)
    assert [facts(a) for a in jax.tree.leaves(got)] == [facts(a) for a in jax.tree.leaves(expected)]


def through_file(state, like=None):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "state"
        checkpoint.save(path, state)
        return checkpoint.restore(path, state if like is None else like)


def assert_comes_back(state):
    assert_same(through_file(state), state)


def dtype_of(name):
    return np.dtype(getattr(jnp, name, name))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [*NUMBERS, *EXTENDED, *NUMPY_ONLY])
def test_every_bit_pattern_of_every_dtype_comes_back(name):
    """All the patterns of up to 16 bits, and 4,096 random ones of more."""
    dtype = dtype_of(name)
    bits = FEWER_BITS.get(name, 8 * dtype.itemsize)
    random = np.frombuffer(np.random.default_rng(0).bytes(4096 * dtype.itemsize), dtype)
    patterns = np.arange(2**bits, dtype=f"u{dtype.itemsize}").view(dtype) if bits <= 16 else random
    arrays = [patterns, patterns[1:2].reshape(()), patterns[:0].reshape(0, 3)]
    assert_comes_back([*arrays, patterns[1], [] if name in NUMPY_ONLY else jax.device_put(arrays)])


def test_python_values_nan_payloads_and_negative_zeros_come_back():
    payload = struct.unpack("<d", bytes.fromhex("230100000000f87f"))[0]
    bits = np.array([0x7FC00123, 0xFFC00001, 0x80000000, 0x00000001, 0x7F800001], np.uint32).view(np.float32)
    numbers = [0, -1, 2**63, -(2**64), 1.5, payload, -0.0, 1e-320, complex(-0.0, float("-inf")), complex(0, payload)]
    texts = ["", "x\0é\n", "\0", "\ud800", np.array(["a\u0fff", "", "\U0001f600"])]
    assert_comes_back([*numbers, *texts, True, False, None, jnp.asarray(bits), bits])


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_a_restored_key_draws_what_the_saved_one_draws(implementation):
    key = jax.random.key(7, impl=implementation)
    state = {"one": key, "many": jax.random.split(key, (2, 3)), "none": jax.random.split(key, 3)[:0]}
    got = through_file(state)
    assert_same(got, state)
    np.testing.assert_array_equal(jax.random.bits(got["one"], (5,)), jax.random.bits(key, (5,)))


@pytest.mark.parametrize("x64", [False, True])
def test_weak_types_come_back_since_promotion_depends_on_them(x64):
    with jax.enable_x64(x64):
        state = [jnp.asarray(3), jnp.broadcast_to(jnp.asarray(0.1), (2, 3)), jnp.asarray(1j)]
        assert all(leaf.weak_type for leaf in state)
        assert_comes_back(state)
    with jax.enable_x64(True):  # of the type that it had, not of the default
        assert_comes_back(state)


def test_memory_layout_does_not_matter_and_what_is_restored_can_be_written_to():
    base = np.arange(24.0).reshape(2, 3, 4)
    views = [base.T, np.asfortranarray(base), base[:, ::-2, 1:3], np.broadcast_to(base[0], (5, 3, 4))]
    got = through_file(views)
    assert_same(got, views)
    got[1][0] = 5
    assert base[0, 0, 0] == 0


def test_what_cannot_be_saved_exactly_is_refused_by_name_and_leaves_the_state_before(tmp_path):
    path, donated = tmp_path / "state", jnp.ones(3)
    checkpoint.save(path, {"a": 1})
    donated.delete()
    for leaf in (object(), b"bytes", np.array([None]), np.zeros(2, "i4,f4")):
        with pytest.raises(TypeError, match=r"state\['x'\]\['y'\]: got .*expected"):
            checkpoint.save(path, {"a": 2, "x": {"y": leaf}})
        with pytest.raises(TypeError, match=r"like\['x'\]: got .*expected"):
            checkpoint.restore(path, {"x": leaf})
    with pytest.raises(RuntimeError, match="deleted"):
        checkpoint.save(path, donated)
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        checkpoint.save(path, jax.eval_shape(lambda: jnp.ones(3)))
    with pytest.raises(TypeError, match="traced array"):
        jax.jit(lambda x: checkpoint.save(path, x))(1.0)
    assert checkpoint.restore(path, {"a": 0}) == {"a": 1}
    assert os.listdir(tmp_path) == ["state"]


@st.composite
def arrays(draw):
    """Arrays of numpy or JAX of few dimensions, zero included."""
    dtype = dtype_of(draw(st.sampled_from([*NUMBERS, *EXTENDED, *NUMPY_ONLY[:3]])))
    shape = draw(st.lists(st.integers(0, 3), max_size=3).map(tuple))
    array = np.full(shape, draw(st.integers(0, 3))).astype(dtype)
    if not dtype.isnative or draw(st.booleans()):
        return array[()] if shape == () and draw(st.booleans()) else array
    return jax.device_put(array)


PYTHON = st.integers() | st.floats() | st.complex_numbers() | st.booleans() | st.text(st.characters()) | st.none()
KEYS = st.text(max_size=5) | st.sampled_from(["a.1", "['a']", "\n", "\0", "é"])


def containers(inner):
    lists, dicts = st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)
    return lists | lists.map(tuple) | dicts | dicts.map(collections.OrderedDict)


TREES = st.recursive(arrays() | PYTHON, containers, max_leaves=10)


@pytest.mark.usefixtures("x64")
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.tuples(TREES, TREES) | TREES.map(lambda tree: (tree, tree)))
def test_a_tree_comes_back_bit_for_bit_and_never_into_another(trees):
    """The oracle: JAX's own paths, and the dtypes and shapes of the leaves."""
    kind_of = lambda a: (a.dtype.str, a.dtype.name, a.shape) if hasattr(a, "dtype") else type(a)

    def signature(tree):
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is None)
        return [(path, kind_of(leaf)) for path, leaf in leaves]

    saved, other = map(signature, trees)
    try:
        got = through_file(*trees)
    except ValueError:
        assert saved != other
    else:
        assert_same(jax.tree.leaves(got), jax.tree.leaves(trees[0]))
        # A Python number and an array of shape () may stand for each other.
        assert saved == other or not all(isinstance(kind, tuple) for _, kind in saved + other)


class Pair(collections.namedtuple("Pair", "first second")):
    """A NamedTuple is a pytree."""


def test_structure_comes_from_like_whose_values_are_not_needed_and_values_from_the_file():
    like = Pair(jnp.zeros(3, jnp.int32), jax.tree_util.Partial(sum, np.zeros(2, int)))
    got = through_file(Pair(jnp.arange(3), jax.tree_util.Partial(len, np.arange(2))), like)
    assert (type(got), got.second.func) == (Pair, sum)
    assert (got.first.tolist(), got.second.args[0].tolist()) == ([0, 1, 2], [0, 1])
    state = {"w": jnp.arange(3.0), "key": jax.random.key(0), "keys": jax.random.split(jax.random.key(1), 2)}
    assert_same(through_file(state, jax.eval_shape(lambda: state)), state)


@pytest.mark.implicit_promotion
def test_a_train_state_comes_back_into_a_new_one_and_goes_on_with_the_same_bits():
    """Its step begins as a Python int, and is an array once jit has seen it."""
    params, optimizer = {"w": jnp.ones((4, 3))}, optax.chain(optax.clip(1.0), optax.adam(0.1))
    new = flax.training.train_state.TrainState.create(apply_fn=mlp.forward, params=params, tx=optimizer)
    step = jax.jit(lambda s: s.apply_gradients(grads=jax.tree.map(jnp.sin, s.params)))
    state = step(new)
    got = through_file(state, new)
    assert (int(got.step), got.apply_fn) == (1, mlp.forward)
    for ours, theirs in ((got, state), (step(got), step(state)), (through_file(new, state), new)):
        assert_same(jax.tree.leaves(ours), jax.tree.leaves(theirs))


@pytest.mark.parametrize(
    ("saved", "like", "said"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, "got int at state['b'], expected no leaf"),
        ({"a": 1}, {"a": 1, "b": 2}, "got no leaf at state, expected int at state['b']"),
        ({"a": 1, "c": 2}, {"a": 1, "b": 2}, "got int at state['c'], expected int at state['b']"),
        ((1, 2), Pair(1, 2), "got int at state[0], expected int at state.first"),
        ([np.zeros(2)], [np.zeros(3)], "got float64 (2,) at state[0], expected float64 (3,)"),
        ([np.zeros(2)], [np.zeros(2, ">f8")], "got float64 (2,) at state[0], expected >f8 (2,)"),
        (np.zeros(2, "f4"), jnp.zeros(3), "got float32 (2,) at state, expected float32 (3,)"),
        ([1], ["1"], "got int at state[0], expected str"),
        ([True], [1], "got bool at state[0], expected int"),
        ([1], [np.zeros(())], "got int at state[0], expected float64 ()"),
        ([np.zeros(1)], [1.0], "got float64 (1,) at state[0], expected float"),
        ([None], [1], "got NoneType at state[0], expected int"),
        ([jax.random.key(0)], [jax.random.key(0, impl="rbg")], "got key<fry> () at state[0], expected key<rbg> ()"),
        ([jax.random.key(0)], [jax.random.PRNGKey(0)], "got key<fry> () at state[0], expected uint32 (2,)"),
    ],
)
def test_a_checkpoint_of_another_model_is_an_error_that_names_the_first_difference(tmp_path, saved, like, said):
    checkpoint.save(tmp_path / "state", like)  # fits, but is not the newest
    checkpoint.save(tmp_path / "state", saved)
    with pytest.raises(ValueError, match=rf"state: {re.escape(said)}"):
        checkpoint.restore(tmp_path / "state", like)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [("bool", bool), ("int8", int), ("uint32", int), ("bfloat16", float), ("int4", int), ("complex64", complex)],
)
def test_a_python_number_stands_for_a_scalar_array_of_its_own_kind_only(dtype, kind):
    array = jax.device_put(np.ones((), dtype_of(dtype)))
    for number in (True, 1, 1.0, 1j):
        for saved, like in ((array, number), (number, array)):
            if kind is type(number):
                assert_same(through_file(saved, like), saved)
            else:
                with pytest.raises(ValueError, match="at state, expected"):
                    through_file(saved, like)


def test_64_bits_of_jax_are_never_narrowed(tmp_path):
    for value in (np.float64(0.1), np.int64(2**40)):
        with jax.enable_x64(True):
            saved = {"w": jnp.asarray(value)}
            checkpoint.save(tmp_path / "state", saved)
        with pytest.raises(ValueError, match=rf"state\['w'\]: got {value.dtype} \(\), expected x64 to be on"):
            checkpoint.restore(tmp_path / "state", saved)
        assert_comes_back([value, np.arange(3)])  # numpy needs no x64


def test_another_format_is_an_error_and_not_damage(tmp_path):
    checkpoint.save(tmp_path / "state.1", 1)
    np.savez(tmp_path / "made.npz", header=np.frombuffer(b'{"format": 3}', np.uint8), names=["header"])
    os.replace(tmp_path / "made.npz", tmp_path / "state")
    with pytest.raises(ValueError, match="state: got format 3, expected a checkpoint of format 2"):
        checkpoint.restore(tmp_path / "state", 0)


def test_the_same_state_makes_the_same_file_and_numpy_reads_it(tmp_path):
    for name in ("one", "two"):
        checkpoint.save(tmp_path / name, {"key": jax.random.key(0), "w": jnp.ones(3)})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with np.load(tmp_path / "one", allow_pickle=False) as found:
        assert found["1"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_the_last_keep_checkpoints_before_stay_beside(tmp_path, keep):
    for step in range(6):
        checkpoint.save(tmp_path / "state", step, keep=5)
    checkpoint.save(tmp_path / "state", 6, keep=keep)
    names = ["state", *(f"state.{n}" for n in range(1, keep + 1))]
    assert sorted(os.listdir(tmp_path)) == names
    assert [checkpoint.restore(tmp_path / name, 0) for name in names] == list(range(6, 5 - keep, -1))
    with pytest.raises(ValueError, match="keep: got -1, expected an integer of 0 or more"):
        checkpoint.save(tmp_path / "state", 7, keep=-1)


@pytest.mark.parametrize("name", ["state", "lr=0.1 [*?]\n.é"])
def test_other_files_are_left_alone_and_a_path_may_be_relative_and_have_odd_characters(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    others = [f"{name}{end}" for end in (".2024", ".1.txt", ".partial", ".x.partial", "a", ".npz")]
    for other in others:
        (tmp_path / other).write_bytes(b"mine")
    (tmp_path / f"{name}.{'0' * 32}.partial").touch()  # of a process that was killed
    for step in range(3):
        checkpoint.save(name, step)
    assert checkpoint.restore(tmp_path / name, 0) == 2
    assert sorted(os.listdir(tmp_path)) == sorted([*others, name, f"{name}.1"])
    assert all((tmp_path / other).read_bytes() == b"mine" for other in others)


def test_a_folder_that_is_missing_or_in_the_place_of_a_file_is_an_error_that_changes_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        checkpoint.save(tmp_path / "missing" / "state", 0)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        checkpoint.save(tmp_path / "folder", 0)
    for name in ("nothing", "folder"):
        with pytest.raises(FileNotFoundError, match=name):
            checkpoint.restore(tmp_path / name, 0)
    checkpoint.save(tmp_path / "state", 1)
    (tmp_path / "state.1").mkdir()
    with pytest.raises(IsADirectoryError):
        checkpoint.save(tmp_path / "state", 2)
    assert sorted(os.listdir(tmp_path)) == ["folder", "state", "state.1"]
    assert checkpoint.restore(tmp_path / "state", 0) == 1
