"""How much of one space of directions lies in another. Transformable."""

import jax
import jax.numpy as jnp

from mlp_jax import _checks, tree
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import PyTree


@precision.whole_products
def overlap(a: PyTree, b: PyTree) -> jax.Array:
    """Return the mean squared cosine of the principal angles between two spaces, from 0 to 1. Transformable.

    ‖AᵀB‖²_F / min(k, m), for orthonormal A (P, k) and B (P, m). For one vector g it is the share of ‖g‖² in the space
    of the other argument (Gur-Ari, Roberts & Dyer 2018, "Gradient descent happens in a tiny subspace"). The mean over
    random spaces of dimension k is k / P.

    Parameters
    ----------
    a, b
        Orthonormal vectors as in `Eigenpairs.vectors`: pytrees with a leading axis of k and of m. One of the two may be
        a pytree without that axis, of any length: a single vector, such as a gradient. NaN if it is zero.

    Raises
    ------
    TypeError, ValueError
        The pytrees differ in structure or shapes, their leading axes differ in length, or both are single vectors, as
        far as shapes show that.

    Examples
    --------
    >>> a, b = jnp.eye(4)[:2], jnp.eye(4)[1:4]
    >>> float(overlap(a, b)), float(overlap(b, jnp.array([3.0, 3.0, 3.0, 3.0])))
    (0.5, 0.75)
    """
    axes = [jnp.ndim(next(iter(jax.tree.leaves(each)), 0)) for each in (a, b)]
    rows, others = (_as_set(each) if axis < max(axes) else each for each, axis in zip((a, b), axes, strict=True))
    counts = [_checks.common_length(each, name) for each, name in ((rows, "a"), (others, "b"))]
    one, other = (jax.tree.map(lambda leaf: leaf[0], each) for each in (rows, others))
    _checks.like(one, other, "a", "b")
    if max(counts) > tree.size(one):
        raise ValueError(f"a, b: got {max(counts)} vectors of dimension {tree.size(one)}, expected one set or two.")
    products = jax.tree.map(lambda x, y: x.reshape(len(x), -1) @ y.reshape(len(y), -1).T, rows, others)
    cosines = jnp.asarray(sum(jax.tree.leaves(products)))
    return jnp.sum(cosines**2) / min(counts)


def _as_set(vector: PyTree) -> PyTree:
    norm = tree.norm(vector)
    return jax.tree.map(lambda leaf: (leaf / norm)[None], vector)
