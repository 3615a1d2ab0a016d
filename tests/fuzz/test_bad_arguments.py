"""A bad argument gives a TypeError or ValueError that names the argument, the shape or the dtype.

No call hangs, and none changes the configuration of JAX.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from legal_calls import CALLS, EXAMPLES, KEY, LAYERS, within

from mlp_jax import critical

pytestmark = pytest.mark.implicit_promotion

few = settings(deadline=None, max_examples=8, derandomize=True, database=None)
nan, inf = np.nan, np.inf


def returns(value):
    """A function of any arguments that returns value(sum of the first array)."""
    return lambda *args, **settings: value(jnp.sum(jax.tree.leaves(args)[0]))


def square(x):
    return jnp.sum(x**2)


SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
THINGS = st.sampled_from(("text", b"", object(), [None], {"a": "b"}, len, range(3), np.array(["a"]), np.float32))
KEYS = st.one_of(
    st.integers(),
    st.sampled_from((0.5, "key", [0, 1], np.zeros(2, np.int32), np.zeros(3, np.uint32), jnp.zeros(2), ())),
    st.sampled_from((jax.random.split(KEY), np.random.default_rng(0), jax.random.PRNGKey)),
)
COUNTS = st.one_of(st.integers(max_value=0), st.floats(), st.text(max_size=3), st.sampled_from(([0.5], 1j, 2.0, True)))
NEGATIVE = st.sampled_from((nan, -1.0, "0.1", [0.1], 1j, np.ones(2)))
FLOATING = st.one_of(
    st.builds(np.full, SHAPES, st.sampled_from((nan, inf, -inf, 1, True, 1j))),
    st.sampled_from(((), {}, None, "x", np.zeros(0), [np.ones(2), np.array([nan])], {"a": np.arange(2)}, 1)),
)
STACKED = st.sampled_from((None, (), 1.0, np.arange(4).reshape(2, 2), np.ones((0, 2)), "x"))
NO_FUNCTIONS = st.sampled_from((None, "tanh", 1.0, np.ones(2), (), jnp.ones(2)))
FUNCTIONS = st.one_of(
    NO_FUNCTIONS,
    st.sampled_from(
        (lambda z: z * jnp.ones(5), lambda z: (z, z), lambda z: 1j * z, lambda z: z > 0, lambda z: None, lambda z: "z")
    ).map(returns),
)
HESSIANS = st.sampled_from((1.0, np.eye(2), "dense", lambda *args: jnp.ones((3, 3)), lambda *args: None))
ARGS = st.sampled_from((None, [np.ones(2)], np.ones(2), ("text",), (np.array([nan]),), (object(),), (np.array([inf]),)))
NETWORKS = st.sampled_from((
    (), LAYERS[::-1], LAYERS[:1] * 2, LAYERS[0], (LAYERS[0], None), (LAYERS[0]._replace(weight=np.ones(3)),),
    (LAYERS[0]._replace(bias=np.ones(2)), LAYERS[1]), (np.ones((2, 3)), np.zeros(3)), "layers", np.ones((2, 2)),
))  # fmt: skip
TABLES = st.sampled_from((np.ones((4, 3)), np.ones((2, 2, 2, 3)), "inputs", np.array(["a"]), None, np.ones((4, 0))))
WEIGHTS = st.lists(st.sampled_from((-1.0, 0.0, nan)), min_size=4, max_size=4).map(np.array) | st.sampled_from(
    (np.array([1, inf, 1, 1]), np.ones(3), np.ones((4, 1)), np.ones(()))
)
DATA = st.sampled_from((
    None, EXAMPLES[0], (*EXAMPLES, EXAMPLES[1]), (EXAMPLES[0], EXAMPLES[1][:2]), (EXAMPLES[0][:0], EXAMPLES[1][:0]),
    (np.array(["a"] * 4), EXAMPLES[1]), (1.0, 2.0), "digits",
))  # fmt: skip
BATCH_SIZES = st.sampled_from(([0], [5], [-1], [2.5], [], (), "2", None, [[2]]))
RATES = st.sampled_from(([nan], [inf], [], {3: [0.1]}, [[0.1]], "0.1", None))
SIZES = st.one_of(
    st.lists(st.integers(max_value=0), min_size=2, max_size=3),
    st.sampled_from(((), (3,), (2, 3.0), (2, "3"), 5, None, (2, nan), (2, None))),
)

ARGUMENTS = {
    "mlp.init": {"key": KEYS, "sizes": SIZES, "pieces": COUNTS},
    "mlp.forward": {"params": NETWORKS, "inputs": TABLES, "activation": st.sampled_from(("tanh", None, 1.0))},
    "training.train": {
        "key": KEYS, "loss": FUNCTIONS, "params": FLOATING, "data": DATA, "batch_size": st.one_of(COUNTS, st.just(5)),
        "epochs": COUNTS, "record_every": COUNTS,
    },
    "sweep.run": {
        "key": KEYS, "loss": FUNCTIONS, "init": NO_FUNCTIONS, "data": DATA, "batch_sizes": BATCH_SIZES,
        "learning_rates": RATES, "seeds": COUNTS, "epochs": COUNTS, "programs": THINGS,
    },
    "critical.find": {
        "fun": FUNCTIONS, "params": FLOATING, "args": ARGS, "index": st.sampled_from((-1, 3, 0.5, "0", nan)),
        "max_steps": COUNTS, "radius": st.sampled_from((0.0, -1.0, nan, "1", [1.0])),
    },
    "critical.find_many": {
        "fun": FUNCTIONS, "starts": STACKED, "args": ARGS, "max_steps": COUNTS,
    },
    "critical.classify": {
        "fun": FUNCTIONS, "params": FLOATING, "args": ARGS, "key": KEYS, "evidence": THINGS,
        "hessian": HESSIANS,
    },
    "critical.census": {"fun": FUNCTIONS, "key": KEYS, "num_starts": COUNTS, "args": ARGS, "passes": COUNTS},
    "critical.descents": {
        "fun": FUNCTIONS, "saddle": FLOATING, "key": KEYS, "args": ARGS, "number": COUNTS, "hessian": HESSIANS,
    },
    "critical.network": {
        "fun": FUNCTIONS, "points": STACKED, "key": KEYS, "args": ARGS, "number": COUNTS, "hessian": HESSIANS,
        "symmetries": THINGS,
    },
    "critical.path": {
        "fun": FUNCTIONS, "a": FLOATING, "b": FLOATING, "key": KEYS, "args": ARGS,
        "images": st.one_of(COUNTS, st.integers(max_value=4)), "hessian": HESSIANS,
    },
    "critical.branches": {
        "fun": FUNCTIONS, "points": STACKED, "args": ARGS, "parameter": st.sampled_from((-1, 1, 0.0, "0", None)),
        "low": NEGATIVE, "high": NEGATIVE, "max_steps": COUNTS, "hessian": HESSIANS,
        "canonical": NO_FUNCTIONS.filter(lambda value: value is not None),
    },
    "interval.certify": {"fun": FUNCTIONS, "params": FLOATING, "args": ARGS, "reach": NEGATIVE, "bits": COUNTS},
    "mlp_hessian.dense": {"params": NETWORKS, "inputs": TABLES, "weights": WEIGHTS, "loss": FUNCTIONS},
    "curvature.dense_hessian": {"fun": FUNCTIONS, "params": FLOATING, "args": ARGS, "max_bytes": COUNTS},
    "curvature.eigenpairs": {
        "matvec": FUNCTIONS, "params": FLOATING, "key": KEYS, "smallest": COUNTS.filter(lambda n: n not in (0, True)),
        "largest": st.integers(3), "tolerance": NEGATIVE, "max_matvecs": COUNTS, "block_size": COUNTS,
    },
}  # fmt: skip
CASES = [(name, argument) for name in ARGUMENTS for argument in ARGUMENTS[name]]


@pytest.mark.parametrize(("name", "argument"), CASES)
@few
@given(data=st.data())
def test_a_bad_argument_gives_an_error_that_says_which(name, argument, data):
    function, legal = CALLS[name]
    changed = legal | {argument: data.draw(ARGUMENTS[name][argument])}
    before = jax.config.jax_enable_x64
    with within(30), pytest.raises((TypeError, ValueError)) as caught:
        function(**changed)
    assert jax.config.jax_enable_x64 == before
    said = rf"\b{argument.removesuffix('s')}|shape|type|dimension|axis|axes|argument|finite|callable|object is not"
    assert re.search(said, str(caught.value), re.IGNORECASE), caught.value


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("critical.find", {"index": 0, "method": critical.newton_mr}),
        ("curvature.dense_hessian", {"fun": square, "params": np.ones(10**6)}),
        ("critical.classify", {"fun": square, "params": np.ones(10**6), "evidence": "dense"}),
        ("critical.find", {"fun": square, "params": np.ones(10**6), "method": critical.levenberg_marquardt}),
    ],
)
def test_conflicting_settings_and_sizes_beyond_memory_are_refused(name, changed):
    function, legal = CALLS[name]
    with within(30), pytest.raises((TypeError, ValueError, MemoryError), match=r"expected|needs"):
        function(**(legal | changed))
