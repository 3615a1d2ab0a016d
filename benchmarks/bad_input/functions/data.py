"""The functions of `datasets`, those that read files among them."""

from __future__ import annotations

import gzip
import itertools
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from benchmarks import hostile_inputs as hostile
from benchmarks.bad_input.arguments import COUNTS, KEY, MAX_BYTES, in_file
from benchmarks.bad_input.calls import call
from benchmarks.bad_input.oracles import a_key, near, need, numbers, real, whole
from benchmarks.bad_input.sources import FILES, NAMES, file
from benchmarks.hostile_inputs import arrays, counts, functions_of, idx_files, npz_files, paths, reals, things

NOISE = (None, reals())
CODING = (None, st.one_of(things(), st.tuples(reals(), reals()).map("({0[0]}, {0[1]})".format)))


def coded(bits: np.ndarray, coding: Any) -> np.ndarray:
    """Return bits as the numbers that stand for them."""
    low, high = coding
    need(real(low) != real(high))
    return np.where(bits, float(high), float(low))


@call("datasets.parity", num_bits=("2", st.one_of(counts(), st.integers(1, 6).map(repr))), coding=CODING)
def _(a: Any, result: Any) -> bool:
    bits = np.array(list(itertools.product((0, 1), repeat=whole(a.num_bits, 1, 20))))
    odd = bits.sum(1, keepdims=True) % 2
    return near(result.inputs, coded(bits, a.coding)) and near(result.targets, coded(odd, a.coding))


@call("datasets.xor", "parity", coding=CODING)
def _(a: Any, result: Any) -> bool:
    return near(result.targets[:, 0], coded(np.array([0, 1, 1, 0]), a.coding))


@call("datasets.sawtooth", depth=("2", counts()), points_per_piece=(None, counts()))
def _(a: Any, result: Any) -> bool:
    depth, points = whole(a.depth, 1, 20), whole(a.points_per_piece)
    x = np.arange(2**depth * points + 1) / (2**depth * points)
    y = x.copy()
    for _ in range(depth):
        y = 1 - np.abs(2 * y - 1)
    return near(result.inputs[:, 0], x) and near(result.targets[:, 0], y, 0.01)


@call("datasets.spirals", key=KEY, num_examples=("7", counts()), classes=(None, counts()),
      turns=(None, reals()), noise=NOISE)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    classes, noise, turns = whole(a.classes), real(a.noise, 0), real(a.turns)
    n = whole(a.num_examples, classes)
    inside = np.linalg.norm(result.inputs, axis=1) <= 1 + 10 * noise + 1e-3
    return near(result.targets, np.arange(n) % classes) and (bool(np.all(inside)) or abs(turns) > 1e30)


@call("datasets.teacher_student", key=KEY, num_examples=("4", COUNTS), num_inputs=("2", COUNTS),
      teacher=("lambda x: x[:, :1]", functions_of("lambda x: x[:, :1]")), noise=NOISE)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    n, d, noise = whole(a.num_examples), whole(a.num_inputs), real(a.noise, 0)
    labels = numbers(a.teacher(result.inputs), 2, finite=True, kinds="f")
    need(labels.shape[0] == n and labels.shape[1])
    return result.inputs.shape == (n, d) and (near(result.targets, labels, 10 * noise + 1e-4) or noise > 1)


TABLE = ("[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]", arrays((3, 2)))
TARGETS = (
    "[0, 1, 1]",
    st.one_of(
        arrays((3,), (3, 1)),
        st.sampled_from(
            (
                "[-1, 0, 1]",
                "[0, 1, 2**40]",
                "np.array([2**63, 0, 1], np.uint64)",
                "[0.5, nan, 1.0]",
                "[True, False, True]",
            )
        ),
    ),
)


def examples(inputs: Any, targets: Any, result: Any) -> bool:
    """Return whether Examples are the inputs and targets given; raise where these are illegal."""
    x, y = numbers(inputs, 2, finite=True), numbers(targets, finite=True)
    need(x.size and y.ndim and len(y) == len(x) and np.all(np.isfinite(x.astype(np.float32))))
    if np.asarray(targets).dtype.kind in "iu":
        need(y.ndim == 1 and np.all((y >= 0) & (y < 2**31)))
    else:
        y = y[:, None] if y.ndim == 1 else y
        need(y.ndim == 2 and y.size and np.all(np.isfinite(y.astype(np.float32))))
    return near(result.inputs, x) and near(result.targets, y) and result.inputs.dtype == jnp.result_type(float)


@call("datasets.as_examples", "data", inputs=TABLE, targets=TARGETS)
def _(a: Any, result: Any) -> bool:
    return examples(a.inputs, a.targets, result)


DATASET = ("datasets.Dataset(datasets.as_examples([[1.0, 7.0], [3.0, 7.0]], [0, 1]),"
           " datasets.as_examples([[5.0, 8.0]], [0]))")  # fmt: skip


@call("datasets.standardize", "train", "test", data=(DATASET, st.one_of(
    things(), arrays((2, 2)).map("datasets.Dataset(({}, [0, 1]), (np.ones((1, 2)), [0]))".format),
    arrays((2, 2)).map("datasets.Dataset((np.ones((2, 2)), [0, 1]), ({}, [0, 1]))".format))))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    (x, _), (x2, _) = a.data
    x, x2 = numbers(x, 2, finite=True), numbers(x2, 2, finite=True)
    need(x.size and x2.size and x.shape[1] == x2.shape[1])
    scale = np.where(np.ptp(x, 0) == 0, 1, x.std(0))
    with np.errstate(all="ignore"):
        return near(result.train.inputs, (x - x.mean(0)) / scale, 0.01) and near(
            result.test.inputs, (x2 - x.mean(0)) / scale, 0.01
        )


@call("datasets.stratified_split", targets=("np.array([0, 0, 0, 1, 1, 1])", arrays((6,))),
      test_size=("2", counts()))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    targets = np.asarray(a.targets)
    need(targets.ndim == 1 and targets.dtype.kind in "iubfU" and targets.dtype != object)
    need(targets.dtype.kind in "iubU" or not np.any(np.isnan(targets)))
    size = whole(a.test_size, 1, len(targets) - 1)
    train, test = result
    share = size / len(targets)
    fair = all(abs(np.sum(targets[test] == c) - share * np.sum(targets == c)) < 1 for c in np.unique(targets))
    return fair and len(test) == size and sorted([*train, *test]) == list(range(len(targets)))


@call("datasets.load", name=("'iris'", st.one_of(things(), st.text(max_size=9).map(repr), st.sampled_from(
    ("'Digits'", "'digits '", "['iris']", "'wine'", "'diabetes'")))), weight=0.3)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    shapes = {"iris": (120, 4), "wine": (142, 13), "diabetes": (354, 10), "digits": (1500, 64)}
    return result.train.inputs.shape == shapes[a.name]


@call("datasets.mnist1d", key=KEY, num_examples=("50", st.one_of(counts(), st.just("20"))), weight=0.1)
def _(a: Any, result: Any) -> bool:
    a_key(a.key)
    n = whole(a.num_examples, 10)
    need(n % 10 == 0)
    return result.train.inputs.shape == (n * 4 // 5, 40)


# --- files


def unexploded() -> None:
    """Raise Illegal if something was unpickled."""
    need(not hostile.Bomb.exploded)


@call("datasets.read_idx", "nowhere", "data", path=("file(idx(8, (3,), bytes(3)))", in_file(idx_files())),
      max_bytes=MAX_BYTES, weight=4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    content = pathlib.Path(a.path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    dtype = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}[content[2]]
    need(content[:2] == b"\0\0")
    axes_ = content[3]
    shape = np.frombuffer(content[4 : 4 + 4 * axes_], ">u4")
    body = np.frombuffer(content[4 + 4 * axes_ :], dtype).reshape(tuple(map(int, shape)))
    need(len(shape) == axes_ > 0 and body.size and 1 <= a.max_bytes >= body.nbytes)
    return result.shape == body.shape and near(result, body)


def folder(images: bytes, labels: bytes = b"\0\0\x08\x01\0\0\0\x01\x03") -> str:
    """Return a folder with four IDX files."""
    for part in ("train", "t10k"):
        file(images, f"{part}-images-idx3-ubyte")
        file(labels, f"{part}-labels-idx1-ubyte")
    return str(FILES)


NAMES |= {"folder": folder}


@call("datasets.load_folder", "nowhere", "train", "t10k", "data",
      path=("folder(idx(8, (1, 1, 2), bytes(2)))", st.one_of(idx_files().map("folder({})".format), paths(),
          idx_files().map("folder(idx(8, (1, 1, 2), bytes(2)), {})".format),
          st.integers(0, 3).map("folder(idx(8, (1, {0}, 2), bytes(2 * {0})))".format))),
      max_bytes=MAX_BYTES)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    raw = (FILES / "train-images-idx3-ubyte").read_bytes()
    labels = (FILES / "train-labels-idx1-ubyte").read_bytes()
    need(raw[:4] == b"\0\0\x08\x03" and labels[:4] == b"\0\0\x08\x01" and len(labels) > 8 and a.max_bytes >= 1)
    n, rows, columns = (int(k) for k in np.frombuffer(raw[4:16], ">u4"))
    pixels = np.frombuffer(raw[16:], np.uint8).reshape(n, rows * columns)
    return near(result.train.inputs, pixels / 255) and near(result.train.targets, list(labels[8:]))


@call("datasets.load_npz", "nowhere", "data", "train", "test", path=(f"file({hostile._NPZ})", in_file(npz_files())),
      scale=(None, reals()), max_bytes=MAX_BYTES, weight=4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    unexploded()
    with np.load(a.path, allow_pickle=False) as arrays_:
        for part, got in (("train", result.train), ("test", result.test)):
            x, y = arrays_[f"x_{part}"], arrays_[f"y_{part}"]
            scale = (255 if x.dtype == np.uint8 else 1) if a.scale is None else real(a.scale, 1e-300)
            with np.errstate(all="ignore"):
                if not examples((numbers(x) / scale).reshape(len(x), -1), y, got):
                    return False
    need(a.max_bytes >= 1)
    return True
