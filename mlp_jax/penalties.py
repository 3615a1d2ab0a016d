"""Penalties to add to a loss: params -> scalar. Transformable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, tree
from mlp_jax.tree import PyTree

__all__ = ["l1", "l2", "selective_synaptic_plasticity"]
__dir__ = __all__.copy


def l1(params: PyTree, strength: float, *, biases: bool = True) -> jax.Array:
    """Return strength · Σ |θᵢ|, whose minima have parameters of exactly 0.

    Its gradient is strength · sign(θ), taken as 0 at θᵢ = 0, where the penalty has a kink (Tibshirani 1996).

    Parameters
    ----------
    params
        Any pytree of floating arrays.
    strength
        Non-negative scalar; may be traced.
    biases
        False leaves out the leaves with fewer than two axes: biases, and the scales of a normalisation layer.

    Raises
    ------
    TypeError, ValueError
        `params` are not floating; `strength` is negative or not a finite number; no leaf is left to penalise.

    Examples
    --------
    >>> params = {"weight": jnp.array([[1.0, -2.0]]), "bias": jnp.array([4.0])}
    >>> float(l1(params, 0.5)), float(l1(params, 0.5, biases=False))
    (3.5, 1.5)
    """
    strength = _checks.not_negative(strength, "strength")
    # The derivative of jnp.abs at 0 is 1 in JAX, and would move parameters off 0.
    return strength * jnp.asarray(sum(jnp.sum(leaf * jnp.sign(leaf)) for leaf in _penalised(params, biases)))


def l2(params: PyTree, strength: float, *, biases: bool = True) -> jax.Array:
    """Return (strength / 2) Σ θᵢ²: weight decay as a penalty.

    Its gradient is strength · θ and its Hessian strength · I. params, strength, biases and errors: see `l1`.

    Examples
    --------
    >>> float(l2({"w": jnp.array([1.0, 2.0])}, 0.5))
    1.25
    >>> params = {"weight": jnp.array([[1.0, 2.0]]), "bias": jnp.array([4.0])}
    >>> float(l2(params, 0.5, biases=False))
    1.25
    """
    strength = _checks.not_negative(strength, "strength")
    leaves = _penalised(params, biases)
    return 0.5 * strength * tree.dot(leaves, leaves)


def selective_synaptic_plasticity(
    params: PyTree, strength: float, *, reference: PyTree, importances: PyTree
) -> jax.Array:
    """Return strength · Σ bᵢ (θᵢ − θ*ᵢ)², which keeps parameters near their values after an earlier task.

    Also known as elastic weight consolidation (Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in
    neural networks", who write λ/2 for `strength`). A parameter of importance 0 is free. Importances are usually the
    diagonal of the Fisher matrix or of the Hessian of the earlier loss at θ*; with the latter and a strength of ½,
    this is the diagonal part of the second-order expansion of that loss.

    params, strength, errors: see `l1`; reference: θ*, the parameters after the earlier task; importances: b, of 0 or
    more. Both have the structure and shapes of params; ValueError otherwise.

    Examples
    --------
    >>> theta, reference = jnp.array([1.0, 2.0]), jnp.zeros(2)
    >>> float(selective_synaptic_plasticity(theta, 10.0, reference=reference, importances=jnp.array([1.0, 0.0])))
    10.0
    """
    strength = _checks.not_negative(strength, "strength")
    for name, part in (("params", params), ("reference", reference), ("importances", importances)):
        _checks.leaves(part, name, floating=True)
        _checks.like(part, params, name)
    known = [leaf for leaf in jax.tree.leaves(importances) if not _checks.is_traced(leaf)]
    # numpy, because jnp operations on captured arrays are staged inside jit.
    if bad := sum(int(np.sum(~(np.asarray(leaf, np.float64) >= 0))) for leaf in known):
        raise ValueError(f"importances: got {bad} numbers that are negative or NaN, expected numbers of 0 or more.")
    distances = jax.tree.map(lambda theta, center: (theta - center) ** 2, params, reference)
    return strength * tree.dot(importances, distances)


def _penalised(params: PyTree, biases: bool) -> list[jax.Array]:
    _checks.leaves(params, "params", floating=True)
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
    kept = [leaf for leaf in leaves if biases or leaf.ndim >= 2]
    if not kept:
        raise ValueError(f"params: got {len(leaves)} leaves and biases={biases}, expected at least one to penalise.")
    return kept
