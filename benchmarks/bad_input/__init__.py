"""What do the public functions do with bad input? Each is called with hostile arguments, drawn by hypothesis.

A case is one call, written as source: a legal call in which one argument or two are replaced. It must end with a clear
error (raised on purpose by this package, naming the argument and what was got), or with an answer that is right by an
oracle in numpy. Anything else is a defect:

    unclear    an error from the inside of JAX, numpy or Python, or one that names no argument
    accepted   an answer to what should have been refused
    wrong      an answer that the oracle contradicts
    hang       no end within 20 s of processor time, or 5 minutes; slow: an error after more than 5 s
    memory     more than 1 GiB taken
    crash      the interpreter died
    changed    the configuration of JAX, numpy or Python, an argument, or a file is not what it was

    python -m benchmarks.bad_input [--cases 10000] [--only TEXT] [--seed 0] [--workers 2] [--minutes M]

Cases run in processes of their own, which are started again after a crash.

- `calls`: a public function with its arguments and its oracle; a case
- `arguments`, `sources`: what is drawn, as text, and the names that the text may use
- `oracles`: what is legal and what is right, in numpy
- `functions`: the public functions, one module for each part of the library
- `judging`: how one case ends; `running`: many cases in a child process; `__main__`: the table
"""

import os

# Before JAX is imported: cases compile much and run little.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import sklearn.datasets  # noqa: F401  # sets environment variables when it is first imported

from benchmarks.bad_input import functions  # noqa: F401  # registers the public functions
