"""The exact Hessian of an MLP loss by layer blocks: matrix products instead of P Hessian-vector products.

For one example, perturb the pre-activations of layer i by εᵢ. With δⱼ = ∂ℓ/∂zⱼ and Sᵢⱼ = ∂²ℓ/∂εᵢ∂εⱼ, the block of
weights (k, o) of layer i and (l, p) of layer j, i ≤ j, is

    H[(k, o), (l, p)] = Σₙ aᵢ[n, k] Sᵢⱼ[n, o, p] aⱼ[n, l]  +  [i < j] Σₙ aᵢ[n, k] (∂aⱼ[n, l]/∂εᵢ[n, o]) δⱼ[n, p]

where aᵢ is the input of layer i with a 1 appended for the bias. S comes from one backward recursion, of the size
of the widths and not of the parameters, so the cost is that of the products over n: about N·P²/2 multiply-adds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import curvature, mlp, tree
from mlp_jax.curvature import matrices, precision
from mlp_jax.mlp import Activation, Params

Chunk = tuple[jax.Array, jax.Array, jax.Array]  # inputs, targets, weights
Blocks = dict[str, tuple[jax.Array, ...]]
PerExample = Callable[[jax.Array, jax.Array], jax.Array]

# Examples a chunk: the products of a chunk stay in the cache, and memory does not grow with N.
_CHUNK = 512


def dense(
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    loss: PerExample,
    activation: Activation = jnp.tanh,
    weights: jax.Array | None = None,
    penalty: Callable[[Params], jax.Array] | None = None,
    max_bytes: int | None = None,
) -> jax.Array:
    """Return the Hessian of the mean loss of an MLP, plus that of a penalty, as a (P, P) float64 matrix.

    The same matrix as `curvature.dense_hessian` of `losses.mean(loss(mlp.forward(params, inputs), targets), weights)
    + penalty(params)`, in the order of `tree.ravel`, several times faster. Transformable; outside jit it computes
    in float64 whatever the caller's default, and a second call with the same functions and shapes compiles nothing.

    Parameters
    ----------
    params
        Tuple of Layer(weight (in, out), bias (out,)).
    inputs
        (N, in).
    targets
        (N,) or (N, out), as `loss` wants them.
    loss
        `(outputs (n, out), targets) -> (n,)`, each entry a function of its own row.
    activation
        An elementwise, twice differentiable function.
    weights
        (N,) non-negative; None counts all examples alike.
    penalty
        `params -> scalar`, or None.
    max_bytes
        Memory it may take; half of the machine's when None. It takes 3 · 8 P² bytes and a bounded chunk.

    Raises
    ------
    TypeError, ValueError
        Parameters that are not finite floating layers, shapes that do not fit, an activation that changes the shape.
    MemoryError
        The result would not fit; nothing has been computed then.

    Examples
    --------
    >>> from mlp_jax import losses
    >>> params = mlp.init(jax.random.key(0), (3, 4, 2))
    >>> x, y = jnp.ones((5, 3)), jnp.zeros(5, int)
    >>> dense(params, x, y, loss=losses.cross_entropy).shape
    (26, 26)
    """
    _require_network(params, inputs, targets, weights, activation)
    matrices.require_memory(tree.size(params), max_bytes)
    arrays = (params, jnp.asarray(inputs), jnp.asarray(targets), weights)
    if tree.is_traced(arrays):
        return _dense(*arrays, loss, activation, penalty)
    with jax.enable_x64(True):
        return _compiled_dense(*precision.promote(arrays), loss, activation, penalty)


def _require_network(
    params: Params, inputs: jax.Array, targets: jax.Array, weights: jax.Array | None, activation: Activation
) -> None:
    tree.require_floating(params)
    if jnp.ndim(inputs) != 2 or jnp.ndim(targets) < 1 or len(inputs) != len(targets) or len(inputs) == 0:
        raise ValueError(
            f"inputs, targets: got shapes {jnp.shape(inputs)} and {jnp.shape(targets)}, expected (N, in) and (N, ...)."
        )
    if weights is not None and jnp.shape(weights) != (len(inputs),):
        raise ValueError(f"weights: got shape {jnp.shape(weights)}, expected ({len(inputs)},).")
    for layer in params[:-1]:
        before = jax.ShapeDtypeStruct((1, layer.bias.shape[0]), layer.bias.dtype)
        after = jax.eval_shape(activation, before).shape
        if after != before.shape:
            raise ValueError(f"activation: got {after} from {before.shape}, expected an elementwise function.")
    jax.eval_shape(lambda p, x: mlp.forward(p, x, activation=activation), params, inputs)


def _dense(
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    weights: jax.Array | None,
    loss: PerExample,
    activation: Activation,
    penalty: Callable[[Params], jax.Array] | None,
) -> jax.Array:
    dtype = params[0].weight.dtype
    weights = jnp.ones(len(inputs), dtype) if weights is None else weights.astype(dtype)
    chunks = _cut((inputs.astype(dtype), targets, weights / jnp.sum(weights)))

    def sums(chunk: Chunk) -> Blocks:
        return _blocks(params, *chunk, loss=loss, activation=activation)

    def add(total: Blocks, chunk: Chunk) -> tuple[Blocks, None]:
        return jax.tree.map(jnp.add, total, sums(chunk)), None

    shapes = jax.eval_shape(sums, (chunks[0][0], chunks[1][0], chunks[2][0]))
    total, _ = jax.lax.scan(add, jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes), chunks)
    matrix = _assemble(params, total)
    if penalty is not None:
        matrix = matrix + curvature.dense_hessian(penalty, params)
    return matrix


_compiled_dense = functools.partial(jax.jit, static_argnums=(4, 5, 6))(_dense)


def _cut(arrays: Chunk) -> Chunk:
    """Cut examples into chunks of equal size; the last is padded with examples of weight 0."""
    num_examples = len(arrays[0])
    count = -(-num_examples // _CHUNK)
    rows = -(-num_examples // count)
    missing = count * rows - num_examples
    inputs, targets = (jnp.concatenate([a, jnp.repeat(a[:1], missing, axis=0)]) for a in arrays[:2])
    weights = jnp.pad(arrays[2], (0, missing))
    return (
        inputs.reshape(count, rows, -1),
        targets.reshape(count, rows, *targets.shape[1:]),
        weights.reshape(count, rows),
    )


def _blocks(
    params: Params, inputs: jax.Array, targets: jax.Array, weights: jax.Array, loss: PerExample, activation: Activation
) -> Blocks:
    """Return one chunk's sums over examples, for each pair of layers i ≤ j: see `_pair_sums`."""
    ins, slopes, bends, outputs = _forward(params, inputs, activation)

    def single(z: jax.Array, target: jax.Array) -> jax.Array:
        return loss(z[None], target[None])[0]

    delta = weights[:, None] * jax.vmap(jax.grad(single))(outputs, targets)
    # One row of blocks of S, from layer i to all j ≥ i, made from the row below it.
    row = {len(params) - 1: weights[:, None, None] * jax.vmap(jax.hessian(single))(outputs, targets)}
    deltas = {len(params) - 1: delta}
    sums: Blocks = {}
    for i in reversed(range(len(params))):
        if i < len(params) - 1:
            weight, slope, back = params[i + 1].weight, slopes[i], delta @ params[i + 1].weight.T
            row = {j: slope[:, :, None] * (weight @ block) for j, block in row.items()}
            row[i] = (row[i + 1] @ weight.T) * slope[:, None, :] + (back * bends[i])[:, :, None] * jnp.eye(
                back.shape[1], dtype=back.dtype
            )
            delta = deltas[i] = slope * back
        sums[f"{i},{i}"] = _own_sums(ins[i], row[i])
        reach = jnp.eye(params[i].bias.size, dtype=delta.dtype)  # ∂zⱼ₋₁/∂εᵢ
        for j in range(i + 1, len(params)):
            if j > i + 1:
                reach = reach @ params[j - 1].weight
            reach = reach * slopes[j - 1][:, None, :]
            sums[f"{i},{j}"] = _pair_sums(ins[i], ins[j], row[j], reach, deltas[j])
    return sums


def _forward(
    params: Params, inputs: jax.Array, activation: Activation
) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array], jax.Array]:
    """Return the inputs of each layer with a 1 appended, φ' and φ'' of each hidden layer, and the outputs."""

    def slope_of(z: jax.Array) -> jax.Array:
        return jax.jvp(activation, (z,), (jnp.ones_like(z),))[1]

    one = jnp.ones((len(inputs), 1), inputs.dtype)
    ins, slopes, bends = [jnp.concatenate([inputs, one], axis=1)], [], []
    z = mlp.forward(params[:1], inputs)
    for layer in params[1:]:
        slope, bend = jax.jvp(slope_of, (z,), (jnp.ones_like(z),))
        slopes.append(slope)
        bends.append(bend)
        ins.append(jnp.concatenate([activation(z), one], axis=1))
        z = ins[-1][:, :-1] @ layer.weight + layer.bias
    return ins, slopes, bends, z


def _own_sums(inputs: jax.Array, inner: jax.Array) -> tuple[jax.Array]:
    """Return Σₙ (a ⊗ a)ᵀ S for one layer, once for each unordered pair of inputs and of outputs."""
    k, l = _triangle(inputs.shape[1])  # noqa: E741
    o, p = _triangle(inner.shape[1])
    return ((inputs[:, k] * inputs[:, l]).T @ inner[:, o, p],)


def _pair_sums(
    left: jax.Array, right: jax.Array, inner: jax.Array, reach: jax.Array, delta: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return Σₙ (left ⊗ right)ᵀ S and Σₙ (left ⊗ δ)ᵀ ∂right/∂ε for two layers, flat in both index pairs."""
    through = _flat_product(left, delta).T @ reach.reshape(len(reach), -1)
    return _flat_product(left, right).T @ inner.reshape(len(inner), -1), through


def _flat_product(a: jax.Array, b: jax.Array) -> jax.Array:
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)


def _triangle(size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(size)


def _triangle_index(size: int) -> np.ndarray:
    """Return where the pair {k, l} stands in the upper triangle, as a symmetric (size, size) table."""
    table = np.zeros((size, size), dtype=np.int32)
    first, second = _triangle(size)
    table[first, second] = table[second, first] = np.arange(len(first))
    return table


def _assemble(params: Params, sums: Blocks) -> jax.Array:
    """Put the sums of all pairs of layers in their places in the matrix."""
    shapes = [(layer.weight.shape[0] + 1, layer.weight.shape[1]) for layer in params]
    rows = []
    for i in range(len(params)):
        row = [_block(shapes[i], shapes[j], sums[f"{min(i, j)},{max(i, j)}"], i, j) for j in range(len(params))]
        rows.append(jnp.concatenate(row, axis=1))
    return jnp.concatenate(rows, axis=0)


def _block(here: tuple[int, int], there: tuple[int, int], sums: tuple[jax.Array, ...], i: int, j: int) -> jax.Array:
    """Return the block of layers i and j as a matrix over their (in + 1) · out parameters."""
    if i > j:
        return _block(there, here, sums, j, i).T
    if i == j:
        table = sums[0][_triangle_index(here[0])][:, :, _triangle_index(here[1])]
    else:
        table = sums[0].reshape(here[0], there[0], here[1], there[1])
        through = sums[1].reshape(here[0], there[1], here[1], there[0] - 1).transpose(0, 3, 2, 1)
        table = table.at[:, :-1].add(through)
    return table.transpose(0, 2, 1, 3).reshape(here[0] * here[1], there[0] * there[1])
