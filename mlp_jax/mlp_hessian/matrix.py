"""The public functions: checks, chunks of examples, and blocks put in their places."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mlp_jax import _checks, _compiled, _parallel, losses, mlp, tree
from mlp_jax.curvature import matrices, precision
from mlp_jax.mlp import Activations, Params
from mlp_jax.mlp_hessian import penalty_part, sums
from mlp_jax.mlp_hessian.penalty_part import Penalty
from mlp_jax.mlp_hessian.recursion import Examples, Pair, PerExample, Terms, differentiate
from mlp_jax.mlp_hessian.sums import Shape, Sums

Shapes = tuple[Shape, Shape | None]  # None for the block of a layer with itself

# Examples per chunk: enough that adding its sums to the total is cheap, few enough that its products stay in the
# cache, and fewer for wide layers, whose derivatives must fit in _CHUNK_BYTES.
_CHUNK = 512
_CHUNK_BYTES = 2**27


def dense(
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    loss: PerExample,
    activation: Activations = jnp.tanh,
    weights: jax.Array | None = None,
    penalty: Penalty | None = None,
    gauss_newton: bool = True,
    residual: bool = True,
    residual_connections: bool = False,
    max_bytes: int | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Return the Hessian of the mean loss of an MLP, plus that of a penalty, as a symmetric (P, P) float64 matrix.

    `curvature.dense_hessian` of `losses.mean(loss(mlp.forward(params, inputs), targets), weights) + penalty(params)`,
    several times faster. Transformable; outside jit it computes in float64 whatever the caller's default, and a second
    call with the same functions and shapes compiles nothing.

    With f the outputs and ℓ the loss of an example, H = G + R: the Gauss–Newton part G = mean of Jᵀ (∂²ℓ/∂f²) J
    (Schraudolph 2002, "Fast curvature matrix-vector products"), positive semidefinite where ℓ is convex in f, and
    the residual part R = mean of Σₖ (∂ℓ/∂fₖ) ∂²fₖ/∂θ². A penalty counts with G.

    Parameters
    ----------
    params
        Tuple of Layer(weight (in, out), bias (out,) or None).
    inputs
        (N, in).
    targets
        (N,) or (N, out), what `loss` takes.
    loss
        `(outputs (n, out), targets) -> (n,)`, each entry a function of its own row.
    activation
        Of `mlp.forward`. Twice differentiable, and applied row by row; faster if elementwise. With kinks (ReLU,
        maxout), the matrix is that of the smooth piece on which the point lies.
    weights
        (N,) non-negative; all equal if None.
    penalty
        `params -> scalar`, or None.
    gauss_newton, residual
        The parts to return; their sum by default.
    residual_connections
        `residual` of `mlp.forward`: whether hidden layers add their input.
    max_bytes
        Largest memory to use; half of the machine's if None. It uses a bounded chunk and at most 3 · 8 P² bytes, less
        than two thirds of that with one hidden layer.
    mesh
        A `jax.sharding.Mesh`: each device sums its own N / devices examples, and the sums, at most P² numbers (less
        than P² / 2 with one hidden layer), are added between devices once. Every device then has the whole matrix.
        None for one device.

    Raises
    ------
    TypeError, ValueError
        The params are not layers of finite floats, a number is not finite, shapes do not match, `losses.mean` refuses
        the weights, or no part is requested; also what `loss` raises.
    MemoryError
        The result would not fit; raised before anything is computed.

    Examples
    --------
    >>> from mlp_jax import losses
    >>> params = mlp.init(jax.random.key(0), (3, 4, 2))
    >>> x, y = np.ones((5, 3)), np.zeros(5, int)
    >>> dense(params, x, y, loss=losses.cross_entropy).shape
    (26, 26)
    """
    mlp.require_layers(params)
    terms = Terms(loss, mlp.each_layer(activation, params), penalty, gauss_newton, residual, residual_connections, mesh)
    matrices.require_memory(tree.size(params), max_bytes)
    return _compute(_dense, _compiled_dense, (params, inputs, targets, weights), terms)


def blocks(
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    layers: tuple[int, int],
    loss: PerExample,
    activation: Activations = jnp.tanh,
    weights: jax.Array | None = None,
    penalty: Penalty | None = None,
    gauss_newton: bool = True,
    residual: bool = True,
    residual_connections: bool = False,
    max_bytes: int | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Return the block of one pair of layers of the matrix that `dense` returns, without computing the rest.

    H[i, j] = ∂²/∂θᵢ∂θⱼ, (Pᵢ, Pⱼ), where θᵢ are the weight, then the bias, of layer i.
    Transformable. It uses 3 · 8 PᵢPⱼ bytes and a bounded chunk. Other parameters and errors: see `dense`.

    Parameters
    ----------
    layers
        (i, j), each from 0 to the number of layers − 1; (i, i) is the block of a layer with itself.

    Examples
    --------
    >>> from mlp_jax import losses
    >>> params = mlp.init(jax.random.key(0), (3, 4, 2))
    >>> blocks(params, np.ones((5, 3)), np.zeros(5, int), layers=(0, 1), loss=losses.cross_entropy).shape
    (16, 10)
    """
    mlp.require_layers(params)
    terms = Terms(loss, mlp.each_layer(activation, params), penalty, gauss_newton, residual, residual_connections, mesh)
    first, second = (_checks.integer(i, "layers", 0, len(params) - 1) for i in layers)
    matrices.require_memory(tree.size(params[first]), max_bytes, num_columns=tree.size(params[second]))
    pair = min(first, second), max(first, second)
    result = _compute(_block, _compiled_block, (params, inputs, targets, weights), terms, pair)
    return result if pair == (first, second) else result.T


def enclosable(
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    loss: PerExample,
    activation: Activations = jnp.tanh,
    weights: jax.Array | None = None,
    penalty: Penalty | None = None,
    residual_connections: bool = False,
) -> jax.Array:
    """Return what `dense` returns, by a program that ball arithmetic evaluates quickly.

    For `enclosure=` of `interval.certify` and `critical.classify`: the blocks are put in their places without loops,
    for which `dense` takes less memory. Parameters and errors: see `dense`.

    Examples
    --------
    >>> import functools
    >>> from mlp_jax import interval, losses
    >>> params = mlp.init(jax.random.key(0), (1, 1, 1))
    >>> x, y = jnp.zeros((1, 1)), jnp.zeros((1, 1))
    >>> penalty = lambda params: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    >>> loss = lambda p, x, y: jnp.mean(losses.squared_error(mlp.forward(p, x), y)) + penalty(p)
    >>> hessian = functools.partial(enclosable, loss=losses.squared_error, penalty=penalty)
    >>> interval.certify(loss, jax.tree.map(jnp.zeros_like, params), (x, y), enclosure=hessian).index
    0
    """
    mlp.require_layers(params)
    terms = Terms(loss, mlp.each_layer(activation, params), penalty, True, True, residual_connections, None)
    return _compute(_whole, _compiled_whole, (params, inputs, targets, weights), terms)


@precision.whole_products
def _compute(
    function: Callable[..., jax.Array], compiled: Callable[..., jax.Array], arrays: tuple, terms: Terms, *pair: Pair
) -> jax.Array:
    """Check the arguments; call `function` under a transformation, `compiled` in float64 otherwise."""
    if not terms.gauss_newton and not terms.residual:
        raise ValueError("gauss_newton, residual: got False for both, expected at least one part of the Hessian.")
    if terms.mesh is not None:
        _parallel.require_mesh(terms.mesh)
    params, inputs, targets, weights = arrays
    if _checks.is_traced(arrays):
        return function(terms, *pair, *_prepare(params, inputs, targets, weights, terms))
    with jax.enable_x64(True):
        return compiled(terms, *pair, *_prepare(precision.promote(params), inputs, targets, weights, terms))


def _prepare(params: Params, inputs: Any, targets: Any, weights: Any, terms: Terms) -> tuple[Params, Any, Any, Any]:
    """Return the arrays in the dtype of params; raise unless they match. Compiles nothing."""
    _checks.params(params)
    dtype = params[0].weight.dtype
    inputs = jnp.asarray(_checks.numbers(inputs, "inputs", "(N, in)", finite=True)).astype(dtype)
    targets = jnp.asarray(_checks.numbers(targets, "targets", finite=True))
    if inputs.shape[:1] != targets.shape[:1] or len(inputs) == 0:
        got = f"{inputs.shape} and {targets.shape}"
        raise ValueError(f"inputs, targets: got shapes {got}, expected (N, in) and (N, ...).")
    if jnp.issubdtype(targets.dtype, jnp.floating):
        targets = targets.astype(dtype)
    if weights is not None:
        weights = jnp.asarray(_checks.numbers(weights, "weights")).astype(dtype)
        if weights.shape != inputs.shape[:1]:
            raise ValueError(f"weights: got shape {weights.shape}, expected ({len(inputs)},).")
        losses.mean(weights, weights)
    forward = functools.partial(mlp.forward, activation=terms.activation, residual=terms.connections)
    outputs = jax.eval_shape(forward, params, inputs)
    # The targets are not abstract, so that a loss can check their range.
    values = jax.eval_shape(lambda z: terms.loss(z, targets), outputs)
    if getattr(values, "shape", None) != (len(inputs),) or not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"loss: got {values}, expected ({len(inputs)},) floating-point losses.")
    if terms.penalty is not None:
        precision.require_scalar_function(terms.penalty, params, (), "penalty")
    return params, inputs, targets, weights


def _dense(terms: Terms, params: Params, inputs: jax.Array, targets: jax.Array, weights: jax.Array | None) -> jax.Array:
    pairs = tuple(itertools.combinations_with_replacement(range(len(params)), 2))
    totals = _totals(params, (inputs, targets, _shares(inputs, weights)), pairs, terms)
    starts = np.cumsum([0, *(tree.size(layer) for layer in params)])
    matrix = jnp.zeros((starts[-1], starts[-1]), inputs.dtype)
    for pair in pairs:
        matrix = _place(matrix, totals[pair], _shapes(params, pair), (starts[pair[0]], starts[pair[1]]))
    if terms.penalty is not None and terms.gauss_newton:
        matrix = penalty_part.add(matrix, terms.penalty, params)
    return matrix


def _place(matrix: jax.Array, total: Sums, shapes: Shapes, corner: tuple[int, int]) -> jax.Array:
    """Write a block and its transpose into the matrix, some rows at a time to save memory."""
    (num_inputs, num_outputs), there = shapes

    def write(k: jax.Array, result: jax.Array) -> jax.Array:
        rows, at = sums.rows(total, *shapes, k), corner[0] + k * num_outputs
        result = jax.lax.dynamic_update_slice(result, rows, (at, corner[1]))
        return result if there is None else jax.lax.dynamic_update_slice(result, rows.T, (corner[1], at))

    return jax.lax.fori_loop(0, num_inputs, write, matrix)


def _whole(terms: Terms, params: Params, inputs: jax.Array, targets: jax.Array, weights: jax.Array | None) -> jax.Array:
    count = range(len(params))
    pairs = tuple(itertools.combinations_with_replacement(count, 2))
    totals = _totals(params, (inputs, targets, _shares(inputs, weights)), pairs, terms)
    found = {}
    for pair in pairs:
        shapes = _shapes(params, pair)
        rows = functools.partial(sums.rows, totals[pair], *shapes)
        found[pair] = jax.vmap(rows)(jnp.arange(shapes[0][0])).reshape(-1, tree.size(params[pair[1]]))
    whole = jnp.block([[found[i, j] if i <= j else found[j, i].T for j in count] for i in count])
    return whole if terms.penalty is None else penalty_part.add_rows(whole, terms.penalty, params)


def _block(
    terms: Terms, pair: Pair, params: Params, inputs: jax.Array, targets: jax.Array, weights: jax.Array | None
) -> jax.Array:
    totals = _totals(params, (inputs, targets, _shares(inputs, weights)), (pair,), terms)
    shapes = _shapes(params, pair)
    rows = jax.lax.map(lambda k: sums.rows(totals[pair], *shapes, k), jnp.arange(shapes[0][0]))
    block = rows.reshape(tree.size(params[pair[0]]), tree.size(params[pair[1]]))
    if terms.penalty is not None and terms.gauss_newton:
        block = penalty_part.add(block, terms.penalty, params, pair)
    return block


_compiled_dense = _compiled.by_function()(_dense)
_compiled_whole = _compiled.by_function()(_whole)
_compiled_block = _compiled.by_function(2)(_block)


def _shares(inputs: jax.Array, weights: jax.Array | None) -> jax.Array:
    weights = jnp.ones(len(inputs), inputs.dtype) if weights is None else weights
    return weights / jnp.sum(weights)


def _totals(params: Params, examples: Examples, pairs: tuple[Pair, ...], terms: Terms) -> dict[Pair, Sums]:
    """Return the sums over all examples, of all devices."""
    if terms.mesh is None:
        return _sums_here(params, examples, pairs, terms)

    def mine(rows: Examples, params: Params) -> list[Sums]:
        return [*_sums_here(params, rows, pairs, terms).values()]

    inputs, targets, weights = _parallel.pad(examples, terms.mesh)
    weights = jnp.where(jnp.arange(len(weights)) < len(examples[0]), weights, 0)
    totals = _parallel.sum_over_rows(mine, terms.mesh, (inputs, targets, weights), (params,))
    return dict(zip(pairs, totals, strict=True))


def _sums_here(params: Params, examples: Examples, pairs: tuple[Pair, ...], terms: Terms) -> dict[Pair, Sums]:
    """Return the sums over the examples of one device, computed chunk by chunk."""
    chunks = _cut(examples, _chunk_size(params))

    def chunk_sums(chunk: Examples) -> dict[Pair, Sums]:
        derivatives = differentiate(params, chunk, terms)
        return {pair: sums.pair_sums(derivatives, pair) for pair in pairs}

    def add(total: dict[Pair, Sums], chunk: Examples) -> tuple[dict[Pair, Sums], None]:
        return jax.tree.map(jnp.add, total, chunk_sums(chunk)), None

    shapes = jax.eval_shape(chunk_sums, jax.tree.map(lambda a: a[0], chunks))
    total, _ = jax.lax.scan(add, jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes), chunks)
    return total


def _chunk_size(params: Params) -> int:
    per_example = params[0].weight.dtype.itemsize * sum(layer.shape[1] for layer in params) ** 2
    return max(32, min(max(_CHUNK, tree.size(params) // 8), _CHUNK_BYTES // per_example))


def _cut(examples: Examples, size: int) -> Examples:
    """Cut examples into chunks of equal size; the last is padded with examples of weight 0."""
    inputs, targets, weights = examples
    count = -(-len(inputs) // size)
    rows = -(-len(inputs) // count)
    missing = count * rows - len(inputs)
    inputs, targets = (jnp.concatenate([a, jnp.repeat(a[:1], missing, axis=0)]) for a in (inputs, targets))
    weights = jnp.pad(weights, (0, missing))
    inputs, targets, weights = (a.reshape(count, rows, *a.shape[1:]) for a in (inputs, targets, weights))
    return inputs, targets, weights


def _shapes(params: Params, pair: Pair) -> Shapes:
    here, there = (params[i].shape for i in pair)
    return here, None if pair[0] == pair[1] else there
