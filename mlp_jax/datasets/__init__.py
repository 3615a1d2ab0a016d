"""Data sets as checked arrays: by name, by formula, or from files.

Each is `Examples(inputs, targets)`, or a `Dataset(train, test)` of two. Inputs are (n, d) in the caller's default float
dtype; targets are class numbers, (n,) int32, or values, (n, out) floating. Nothing is downloaded.

- by name: `load`; seven sets from installed packages
- by formula: `xor`, `parity`, `sawtooth`, `spirals`, `teacher_student`, `mnist1d`
- from files: `load_folder`, `load_npz`, `read_idx`; without pickle, and up to a stated size
- your own arrays: `as_examples`, `stratified_split`, `standardize`
"""

from mlp_jax.datasets.examples import Dataset, Examples, as_examples, standardize, stratified_split
from mlp_jax.datasets.files import load_folder, load_npz, read_idx
from mlp_jax.datasets.packages import load, mnist1d
from mlp_jax.datasets.synthetic import parity, sawtooth, spirals, teacher_student, xor

__all__ = [
    "Dataset", "Examples", "as_examples", "load", "load_folder", "load_npz", "mnist1d", "parity", "read_idx",
    "sawtooth", "spirals", "standardize", "stratified_split", "teacher_student", "xor",
]  # fmt: skip
__dir__ = __all__.copy
