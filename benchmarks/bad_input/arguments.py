"""Arguments that several public functions take: the source of a legal value, and what may take its place."""

from __future__ import annotations

from hypothesis import strategies as st

from benchmarks.hostile_inputs import Source, arrays, counts, functions, functions_of, keys, paths, things

BOOLEAN = (None, st.sampled_from(("True", "False", "0", "1", "np.True_")))
KEY = ("jax.random.key(0)", keys())
VECTOR = ("jnp.array([0.5, -1.0])", arrays((2,)))
ARGS = (None, st.one_of(things(), st.sampled_from(("[jnp.ones(2)]", "jnp.ones(2)", "(np.array([nan]),)",
        "(np.array([1, 2]),)", "('a',)", "(None,)", "(np.array([inf, 1.0]),)", "(object(),)"))))  # fmt: skip
LABEL = (None, things())


def trees(*shapes: tuple[int, ...]) -> Source:
    """Pytrees of arrays."""
    leaf = arrays(*shapes)
    two = st.tuples(leaf, leaf)
    nested = st.one_of(two.map("{{'a': {0[0]}, 'b': {0[1]}}}".format), two.map("({0[0]}, [{0[1]}, None])".format))
    return st.one_of(leaf, nested, st.sampled_from(("{'a': None}", "[[], {}]", "1.0", "[0.5, -1.0]", "5e-324")))


TREE = ("{'a': jnp.array([0.5, -1.0]), 'b': jnp.ones((1, 2))}", trees((2,), (1, 2)))
COUNTS = st.one_of(counts(), counts(), st.just("10**6"))  # two of which are too many numbers
LAYERS = "(mlp.Layer(0.1 * jnp.ones((2, 3)), jnp.zeros(3)), mlp.Layer(jnp.ones((3, 1)), jnp.zeros(1)))"
ACTIVATION = (None, functions_of("jnp.tanh"))
INPUTS = ("jnp.array([[0.5, 1.0], [2.0, -1.0]])", arrays((2, 2), (2, 3)))


def layers() -> Source:
    """Params of a network that are mostly none."""
    weight, bias = arrays((2, 3)), arrays((3,))
    second = "mlp.Layer(jnp.ones((3, 1)), jnp.zeros(1))"
    return st.one_of(
        weight.map(lambda w: f"(mlp.Layer({w}, jnp.zeros(3)), {second})"),
        bias.map(lambda b: f"(mlp.Layer(jnp.ones((2, 3)), {b}), {second})"),
        st.sampled_from((f"({second},)", f"[{second}]", f"({second}, {second})", "(jnp.ones((2, 3)), jnp.zeros(3))",
                         "((jnp.ones((2, 3)), jnp.zeros(3)),)", "{'weight': jnp.ones((2, 3))}", "mlp.Layer(1.0, 2.0)",
                         "(mlp.Layer(jnp.ones((2, 3)), None),)", f"({second}, None)", "jnp.ones((2, 2))",
                         "mlp.Layer(jnp.ones((2, 3)), jnp.zeros(3))")),
        things(),
    )  # fmt: skip


PARAMS = (LAYERS, layers())
WEIGHTS = (None, arrays((2,), (3,)))
LOSS = ("losses.squared_error", functions_of("losses.squared_error"))
EXAMPLES = ("(jnp.array([[1.0, 0.0], [2.0, 1.0], [0.0, 1.0]]),)", st.one_of(
    things(), arrays((3, 2)).map("({},)".format), arrays((3, 2)), st.just("()"),
    arrays((3, 2)).map("({}, jnp.ones(3))".format)))  # fmt: skip
MEAN = {"per_example": ("per_example", functions_of("per_example")), "params": VECTOR, "args": EXAMPLES}
FACTORS = (1e-300, 1e-200, 1e-100, 1e-30, 1e-25, 1e-10, 1.0, 1e10, 1e25, 1e30, 1e100, 1e200, 1e300)
FUN = (
    "saddle",
    st.one_of(
        functions_of("saddle"),
        functions_of("saddle"),
        st.sampled_from([f"scaled({factor})" for factor in FACTORS]),
    ),
)
CHUNK = (None, counts())
ONE_DEVICE = "np.array(jax.devices()[:1])"
MESH = (None, st.one_of(things(), st.sampled_from((
    "jax.make_mesh((1,), ('devices',))", f"jax.sharding.Mesh({ONE_DEVICE}, ('other',))",
    f"jax.sharding.Mesh({ONE_DEVICE}.reshape(1, 1), ('a', 'b'))", f"jax.sharding.Mesh({ONE_DEVICE}[0], ())",
    f"jax.sharding.Mesh({ONE_DEVICE}[:0], ('devices',))", "jax.sharding.AbstractMesh((1,), ('devices',))",
    "jax.sharding.Mesh(np.array(['cpu:0'], object), ('devices',))",
    f"jax.sharding.Mesh(np.repeat({ONE_DEVICE}, 2), ('devices',))",
    "jax.sharding.NamedSharding(jax.make_mesh((1,), ('devices',)), jax.sharding.PartitionSpec())",
    "jax.sharding.PartitionSpec('devices')", "jax.sharding.SingleDeviceSharding(jax.devices()[0])",
    "jax.make_mesh", "jax.devices()", "jax.devices()[0]", ONE_DEVICE, "'devices'", "('devices',)", "'cpu'", "1", "True",
    "{'devices': 1}"))))  # fmt: skip
POINT_ARGS = (None, st.one_of(ARGS[1], st.just("()")))
MAX_BYTES = (None, counts())
MATRICES = st.one_of(
    functions(),
    arrays((2, 2)).map("constant({})".format),
    st.sampled_from(("constant([[2.0, 0.0], [0.0, -2.0]])", "constant([[2.0, 0.0], [0.0, 2.0]])",
                     "constant([[2.0, 5.0], [-5.0, -2.0]])", "curvature.dense_hessian")),
)  # fmt: skip
SYMMETRIES = st.one_of(
    functions(),
    arrays((1, 2), (2, 2)).map("constant({})".format),
    st.sampled_from(("constant([[0.0, 1.0]])", "constant([[1.0, 0.0]])", "constant([[1.0, 0.0], [0.0, 1.0]])",
                     "lambda x: jnp.stack([jnp.array([-x[1], x[0]])])", "lambda x: jnp.zeros((0, 2))",
                     "lambda x: jnp.stack([x])", "lambda x: jnp.array([[0.0, x[1] ** 3]])",
                     "lambda x: jnp.array([[0.0, jnp.where(x[1] == 0, 1.0, 0.0)]])")),
)  # fmt: skip


# Functions with a critical point of known kind: order, sign, place, factor.
KNOWN = [
    f"power({order}, {sign}, {place}, {factor})"
    for order in (2, 4, 6, 8)
    for sign in (-1.0, 1.0)
    for place in (0.0, 1.0, 1e-6)
    for factor in (1.0, 1e-200, 1e-30, 1e30, 1e200)
]
KNOWN_POINT = st.sampled_from(sorted(KNOWN, key=lambda source: not source.endswith(" 1.0)")))
AT = ("jnp.array([0.0, 0.0])", st.one_of(arrays((2,)), st.sampled_from((
    "jnp.array([1.0, 0.0])", "jnp.array([1e-9, 0.0])", "jnp.array([0.0, 1e-9])", "jnp.array([0.0, 1e-30])",
    "np.array([1e-6, 0.0])", "np.array([5e-324, 0.0])", "jnp.array([0.0, 1e-3])"))))  # fmt: skip
DENSITY = "curvature.Density(nodes=jnp.array([[0.0, 1.0]]), weights=jnp.array([[0.5, 0.5]]))"


def lists_of(values: Source) -> Source:
    """Sources of lists, duplicates among them."""
    return st.one_of(
        st.lists(values, max_size=3).map(lambda v: f"[{', '.join(v)}]"),
        values.map("[{0}, {0}]".format),
        things(),
    )


def in_file(content: Source) -> Source:
    """Return sources of files with some content, or of paths where there is none."""
    return st.one_of(content.map("file({})".format), content.map("file({})".format), paths())
