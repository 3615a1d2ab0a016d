"""Terms added to a loss: params -> scalar. Transformable."""

from __future__ import annotations

import jax

from mlp_jax import tree


def l2(params: tree.PyTree, strength: float) -> jax.Array:
    """Return (strength / 2) Σ θᵢ² over all leaves, biases included: weight decay as a penalty.

    Its gradient is strength · θ and its Hessian strength · I.

    Parameters
    ----------
    params
        Any pytree of floating arrays.
    strength
        Non-negative scalar; may be traced.

    Returns
    -------
    scalar

    Raises
    ------
    ValueError
        `strength` is negative.

    Examples
    --------
    >>> float(l2({"w": jnp.array([1.0, 2.0])}, 0.5))
    1.25
    """
    if not tree.is_traced(strength) and not strength >= 0:
        raise ValueError(f"strength: got {strength}, expected a number of 0 or more.")
    return 0.5 * strength * tree.dot(params, params)
