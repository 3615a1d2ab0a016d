"""Bad input at the public functions: refused by an error that names the argument, before anything is compiled.

Each case is a call written as source, one argument of it replaced, and judged by `benchmarks.bad_input`, whose oracles
are numpy: a clear error, or the right answer; nothing written, no memory taken, the configuration of JAX as it was.
"""

import contextlib

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import hostile_inputs
from benchmarks.bad_input import judging, oracles, sources
from benchmarks.bad_input.calls import CALLS, MODULES, Argument, Call
from benchmarks.bad_input.functions import proofs
from mlp_jax import critical, interval

# What is drawn mixes dtypes on purpose.
pytestmark = pytest.mark.implicit_promotion

few = settings(deadline=None, max_examples=20, derandomize=True, database=None)
many = settings(deadline=None, max_examples=100, derandomize=True, database=None)


@pytest.fixture(autouse=True, scope="module")
def whole_tracebacks():
    """Show the frames of JAX, by which an error raised on purpose is told from one that was not."""
    before = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    yield
    jax.config.update("jax_traceback_filtering", before)


def judge(name, /, **changed):
    """Return how a legal call ends with the sources of some arguments replaced."""
    return judging.judge(CALLS[name], CALLS[name].case(**changed))


def assert_handled(name, /, **changed):
    outcome = judge(name, **changed)
    assert outcome.kind in ("clear", "right"), (CALLS[name].case(**changed), outcome)


def assert_refused(name, /, **changed):
    outcome = judge(name, **changed)
    assert outcome.kind == "clear", (CALLS[name].case(**changed), outcome)


def pairs(table):
    """Return (function, argument) from lines of a function and its arguments."""
    return [(line.split()[0], argument) for line in table.strip().splitlines() for argument in line.split()[1:]]


# --- One kind of argument after the other -------------------------------------------------------------------------

KEYS = st.one_of(
    st.integers().map(repr),
    st.sampled_from(
        (
            "0.5", "'key'", "[0, 1]", "np.zeros(2, np.int32)", "np.zeros(3, np.uint32)", "jnp.zeros(2)",
            "jax.random.split(jax.random.key(0))", "np.random.default_rng(0)", "jax.random.PRNGKey", "()",
        )
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "argument"),
    pairs("""
    tree.random_like key
    _checks.key key
    mlp.init key
    mlp.dropout key
    datasets.spirals key
    datasets.teacher_student key
    datasets.mnist1d key
    training.train key
    sweep.run key
    gradient_noise.estimate key
    curvature.eigenpairs key
    curvature.trace key
    curvature.diagonal key
    curvature.spectral_density key
    critical.along_run key
    critical.census key
    critical.classify key
    landscape.eigenvector_plane key
    """),
)
@few
@given(source=KEYS)
def test_what_is_no_key_is_refused(name, argument, source):
    assert_refused(name, **{argument: source})


NOT_PARAMS = st.one_of(
    st.builds(
        "np.full({}, {})".format,
        st.lists(st.integers(0, 3), max_size=3).map(tuple),
        st.sampled_from(("nan", "inf", "-inf", "1", "True", "1j")),
    ),
    st.sampled_from(
        ("()", "{}", "None", "np.zeros((0,))", "[np.ones(2), np.array([nan])]", "{'a': np.arange(2)}", "1")
    ),
)


@pytest.mark.parametrize(
    ("name", "argument"),
    pairs("""
    _checks.floating tree
    training.train params
    gradient_noise.exact params
    gradient_noise.estimate params
    curvature.hessian params
    curvature.dense_hessian params
    curvature.hessian_of_mean params
    curvature.ggn params
    curvature.fisher params
    curvature.empirical_fisher params
    curvature.eigenpairs params
    curvature.trace params
    curvature.diagonal params
    curvature.spectral_density params
    curvature.quadratic_model params
    curvature.taylor_remainder params
    critical.classify params
    critical.find params
    interval.certify params
    landscape.line params direction
    landscape.plane params first second
    landscape.principal_plane trajectory
    landscape.eigenvector_plane params
    mlp_hessian.dense params
    mlp_symmetry.maps params
    mlp_symmetry.tangents params
    mlp_symmetry.split_lines params
    """),
)
@few
@given(source=NOT_PARAMS)
def test_params_that_are_not_finite_floating_numbers_are_refused(name, argument, source):
    assert_refused(name, **{argument: source})


@pytest.mark.parametrize(
    ("name", "argument"),
    pairs("""
    mlp.init pieces
    mlp.maxout pieces
    schedules.per_epoch steps_per_epoch
    datasets.parity num_bits
    datasets.sawtooth depth points_per_piece
    datasets.spirals num_examples classes
    datasets.teacher_student num_examples num_inputs
    datasets.mnist1d num_examples
    datasets.stratified_split test_size
    datasets.read_idx max_bytes
    training.train batch_size epochs record_every
    sweep.run seeds epochs updates records micro_batch lanes_at_once
    gradient_noise.exact chunk_size
    gradient_noise.estimate num_pairs small large
    gradient_noise.two_batches small_size large_size
    curvature.hessian_of_mean chunk_size
    curvature.ggn chunk_size
    curvature.empirical_fisher chunk_size
    curvature.eigenpairs max_matvecs basis_size block_size
    curvature.trace num_probes
    curvature.diagonal num_probes
    curvature.spectral_density num_probes num_steps
    critical.find max_steps
    critical.find_many max_steps lanes
    critical.along_run num_starts
    critical.census num_starts passes
    landscape.line chunk_size
    landscape.plane chunk_size
    """),
)
@few
@given(number=st.integers(max_value=0))
def test_counts_below_one_are_refused(name, argument, number):
    assert_refused(name, **{argument: repr(number)})


@pytest.mark.parametrize(
    ("name", "argument"),
    pairs("""
    datasets.parity num_bits
    datasets.sawtooth depth points_per_piece
    datasets.spirals num_examples classes
    datasets.teacher_student num_examples num_inputs
    curvature.hessian_of_mean chunk_size
    curvature.ggn chunk_size
    curvature.empirical_fisher chunk_size
    curvature.eigenpairs smallest largest max_matvecs basis_size block_size
    curvature.trace num_probes
    curvature.diagonal num_probes
    curvature.spectral_density num_probes num_steps
    landscape.line chunk_size
    landscape.plane chunk_size
    """),
)
@few
@given(source=st.one_of(st.floats().map(repr), st.text(max_size=3).map(repr), st.just("[1]"), st.just("1j")))
def test_counts_that_are_no_whole_numbers_are_refused(name, argument, source):
    assert_refused(name, **{argument: source})


NO_FUNCTIONS = st.sampled_from(("None", "'tanh'", "1.0", "np.ones(2)", "()", "jnp.ones(2)"))
NO_LOSSES = st.sampled_from(("returns_vector", "returns_matrix", "returns_pair", "returns_zero", "returns_true",
                             "returns_complex", "returns_integer", "returns_nothing_at_all", "raises"))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "argument"),
    pairs("""
    curvature.hessian fun
    curvature.dense_hessian fun
    curvature.hessian_of_mean per_example
    curvature.ggn loss
    curvature.fisher loss
    curvature.empirical_fisher loss
    curvature.eigenpairs matvec
    curvature.trace matvec
    curvature.diagonal matvec
    curvature.spectral_density matvec
    curvature.quadratic_model fun
    curvature.taylor_remainder fun
    critical.classify fun
    critical.find fun
    critical.find_many fun
    interval.certify fun
    landscape.line fun
    landscape.plane fun
    landscape.eigenvector_plane fun
    """),
)
@few
@given(source=st.one_of(NO_FUNCTIONS, NO_LOSSES))
def test_what_is_no_function_or_returns_no_number_is_refused(name, argument, source):
    assert_refused(name, **{argument: source})


@pytest.mark.parametrize(
    ("name", "argument"),
    pairs("""
    curvature.hessian args
    curvature.dense_hessian args
    curvature.quadratic_model args
    curvature.taylor_remainder args
    critical.classify args
    critical.find args
    critical.find_many args
    interval.certify args
    landscape.line args
    landscape.plane args
    """),
)
@few
@given(source=st.sampled_from(("None", "[np.ones(2)]", "np.ones(2)", "('text',)", "(np.array([nan]),)", "(object(),)")))
def test_data_that_is_no_tuple_of_finite_arrays_is_refused(name, argument, source):
    assert_refused(name, **{argument: source})


WEIGHTS = st.one_of(
    st.lists(st.sampled_from((-1.0, 0.0)), min_size=2, max_size=2).map(lambda w: f"np.array({w})"),
    st.sampled_from(("np.array([nan, 1.0])", "np.array([1.0, inf])", "np.ones(3)", "np.ones((2, 1))", "np.ones(())")),
)


@pytest.mark.parametrize(
    ("name", "argument"),
    pairs("""
    losses.mean weights
    curvature.ggn weights
    curvature.fisher weights
    curvature.empirical_fisher weights
    mlp_hessian.dense weights
    mlp_hessian.blocks weights
    """),
)
@few
@given(source=WEIGHTS)
def test_weights_that_are_negative_or_all_zero_or_too_many_are_refused(name, argument, source):
    assert_refused(name, **{argument: source})


@few
@given(numbers=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=2))
def test_class_numbers_out_of_range_are_refused_and_others_right(numbers):
    assert_handled("losses.cross_entropy", targets=f"np.array({numbers}, np.int32)")


@pytest.mark.parametrize("source", ["[nan]", "[inf]", "[]", "{2: [0.1]}", "[[0.1]]"])
def test_learning_rates_that_are_none_are_refused(source):
    assert_refused("sweep.run", learning_rates=source)


@pytest.mark.parametrize("source", ["[0]", "[4]", "[-1]", "[2.5]", "[]", "()"])
def test_batch_sizes_outside_of_the_data_are_refused(source):
    assert_refused("sweep.run", batch_sizes=source)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("sweep.run", {"updates": "3"}),
        ("sweep.run", {"epochs": "None"}),
        ("sweep.run", {"programs": "'two'"}),
        ("sweep.run", {"settings": "{'seed': [1.0]}"}),
        ("sweep.run", {"settings": "{'momentum': []}"}),
        ("critical.find", {"index": "3"}),
        ("critical.find", {"index": "0", "method": "critical.newton_mr"}),
        ("critical.find", {"radius": "nan"}),
        ("critical.classify", {"evidence": "'likely'"}),
        ("curvature.inertia", {"matrix": "np.array([[1.0, 2.0], [3.0, 4.0]])"}),
        ("curvature.inertia", {"error": "nan"}),
        ("curvature.inertia", {"error": "-1.0"}),
        ("curvature.Density.smooth", {"width": "0.0"}),
        ("curvature.Density.smooth", {"width": "nan"}),
        ("penalties.l2", {"strength": "nan"}),
        ("penalties.l1", {"strength": "-1.0"}),
        ("mlp.dropout", {"rate": "1.0"}),
        ("mlp.dropout", {"rate": "nan"}),
        ("landscape.barrier", {"fractions": "[0.0, 0.5, 0.9]"}),
        ("gradient_noise.fit_tradeoff", {"updates": "[1.0, nan, 3.0, 4.0]"}),
        ("datasets.load", {"name": "'digit'"}),
        ("datasets.xor", {"coding": "(1.0, 1.0)"}),
        ("datasets.xor", {"coding": "(nan, 1.0)"}),
        ("datasets.load_npz", {"scale": "0.0"}),
        ("datasets.load_npz", {"scale": "nan"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_settings_out_of_range_are_refused(name, changed):
    assert_refused(name, **changed)


@pytest.mark.parametrize("source", ["optax.sgd(nan)", "optax.sgd(inf)", "optax.sgd(-0.1)", "optax.sgd(0.0)"])
def test_a_learning_rate_that_is_no_good_is_told_as_divergence_or_followed(source):
    assert judge("training.train", optimizer=source).kind == "right"


@few
@given(source=hostile_inputs.arrays((3, 2)))
def test_examples_are_the_numbers_given_or_refused(source):
    if source != "[[1.0], [2.0, 3.0]]":
        assert_handled("datasets.as_examples", inputs=source)


# --- Sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("datasets.parity", {"num_bits": "60"}),
        ("datasets.sawtooth", {"depth": "20", "points_per_piece": "10**9"}),
        ("curvature.dense_hessian", {"fun": "square", "params": "np.ones(10**6)"}),
        ("curvature.dense_hessian", {"max_bytes": "95"}),
        ("critical.classify", {"fun": "square", "params": "np.ones(10**6)", "evidence": "'dense'"}),
        ("critical.find", {"fun": "square", "params": "np.ones(10**6)", "method": "critical.levenberg_marquardt"}),
        ("datasets.read_idx", {"path": "file(idx(8, (2**31, 2**31), b''))"}),
        ("datasets.read_idx", {"path": "file(idx(14, (2**27,), b''))", "max_bytes": "2**29"}),
        ("datasets.read_idx", {"path": "file(idx(8, (1,) * 255, b'1'))"}),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_memory_is_taken(name, changed):
    assert_refused(name, **changed)


# --- Files ---------------------------------------------------------------------------------------------------------


@many
@given(content=hostile_inputs.idx_files())
def test_an_idx_file_is_read_as_it_is_or_refused(content):
    assert_handled("datasets.read_idx", path=f"file({content})")


@many
@given(content=hostile_inputs.npz_files())
def test_an_npz_file_is_read_as_it_is_or_refused(content):
    if sources.evaluates(content):
        assert_handled("datasets.load_npz", path=f"file({content})")
    assert hostile_inputs.Bomb.exploded == 0


@pytest.mark.parametrize("array", ["np.array([Bomb()], object)", "np.array([Bomb(), 1.0], object)"])
def test_objects_in_an_npz_file_are_refused_and_never_unpickled(array):
    content = f"npz(x_train={array}, y_train=np.arange(1), x_test=np.ones((1, 2)), y_test=np.arange(1))"
    assert_refused("datasets.load_npz", path=f"file({content})")
    assert hostile_inputs.Bomb.exploded == 0


@many
@given(
    fields=st.dictionaries(
        st.sampled_from(("index", "null", "radius", "unique_radius", "smallest", "nearest", "largest", "loss", "data")),
        st.sampled_from(("0", "1", "2", "1e-300", "0.5", "1e300", "(0.0, 1.0)", "(-2.0, 2.0)", "(5.0, 6.0)", "'data'")),
        min_size=1,
        max_size=2,
    )
)
def test_a_certificate_that_was_changed_is_never_confirmed_for_what_it_says(fields):
    tampered = proofs.tampered(**{name: sources.evaluate(source) for name, source in fields.items()})
    try:
        again = interval.check(tampered, sources.saddle, np.ones(2))
    except (TypeError, ValueError):
        return  # refused: fields of other types and ranges, see interval.load
    assert not again.proved or (again.index, again.null) == (tampered.index, tampered.null) == (1, 0)
    assert not again.proved or again.radius <= tampered.radius


# --- Verdicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize(
    "hessian", ["constant([[2.0, 0.0], [0.0, 2.0]])", "constant([[2.0, 5.0], [-5.0, -2.0]])", "returns_nan", "raises"]
)
def test_a_false_hessian_never_changes_a_name(order, sign, hessian):
    assert_handled("critical.classify", fun=f"power({order}, {sign}, 0.0, 1.0)", hessian=hessian)


@few
@given(places=st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
def test_kinks_that_are_none_never_make_a_saddle_a_minimum(places):
    fun = sources.power(2, -1.0, 0.0, 1.0)
    verdict = critical.classify(fun, np.zeros(2), kinks=lambda x: np.array(places))
    assert verdict.kind in ("saddle", "nonsmooth")


# --- The judge itself ----------------------------------------------------------------------------------------------


def planted(function, right=lambda a, result: result == 1, **changed):
    """Judge a function that is no public one."""

    class Planted(Call):
        function = staticmethod(lambda value: None)

    Planted.function = staticmethod(function)
    call = Planted("tree.size", {"value": Argument("1", st.nothing())}, right)
    return judging.judge(call, call.case(**changed), 0.2).kind


def test_the_judge_tells_wrong_answers_bare_errors_hangs_and_side_effects():
    def changes_configuration(value):
        jax.config.update("jax_numpy_rank_promotion", "warn")
        return 1

    def hangs(value):
        while True:
            pass

    assert planted(lambda value: 1) == "right"
    assert planted(lambda value: 2) == "wrong"
    assert planted(lambda value: 1, lambda a, result: oracles.need(False)) == "accepted"
    assert planted(hangs) == "hang"
    assert planted(lambda value: value.setfield(2, float) or 1, value="np.ones(1)") == "changed"
    assert planted(lambda value: np.asarray("one").astype(float)) == "unclear"
    assert planted(lambda value: contextlib.closing(2), lambda a, result: True, value="1") == "unclear"
    assert planted(lambda value: value(object()), value="jax.jit(len)") == "clear"
    before = jax.config.jax_numpy_rank_promotion
    try:
        assert planted(changes_configuration) == "changed"
    finally:
        jax.config.update("jax_numpy_rank_promotion", before)


def test_every_public_function_is_tried():
    tried = {name.rstrip("*") for name in CALLS}
    missing = [
        f"{module}.{name}"
        for module, found in MODULES.items()
        for name in getattr(found, "__all__", [n for n, v in vars(found).items() if _is_own(found, n, v)])
        if callable(getattr(found, name)) and not isinstance(getattr(found, name), type)
        if f"{module}.{name}" not in tried and not name.startswith("_")
    ]
    # What other modules share arrays out with: users call `mean`, and give a mesh to the functions that take one.
    inner = {"gather", "lay", "over_rows", "pad", "require_mesh", "split", "sum_over_rows", "to_host"}
    missing = [name for name in missing if name not in {f"devices.{each}" for each in inner}]
    # Methods of `find`, tried as its argument, and a type.
    assert sorted(missing) == ["critical.levenberg_marquardt", "critical.newton_mr", "training.Loss"]


def _is_own(module, name, value):
    return not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
