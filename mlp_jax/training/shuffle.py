"""The order in which a run visits its examples."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mlp_jax import _checks


def order(key: jax.Array, epoch: int | jax.Array, num_examples: int, *, replace: bool = False) -> jax.Array:
    """Return the order in which a run with this key visits its examples in an epoch, counted from 0. Transformable.

    It is a permutation of 0, …, num_examples − 1 (at most 2³⁰), int32, that depends neither on the batch size nor on
    the number of epochs; with `replace`, num_examples independent draws, so that an example may be visited more than
    once or not at all. The key of the loss of update t, from 0, is `fold_in(split(key)[1], t)`.

    It sorts random numbers of 64 bits whose lowest bits are replaced by the numbers of the examples. On a CPU, XLA
    sorts single numbers several times faster than the pairs that `jax.random.permutation` sorts. The probability that
    any two of n examples have the same random bits, and so keep their order, is below n³ 2⁻⁶⁴.

    Examples
    --------
    >>> sorted(order(jax.random.key(0), 0, 5).tolist())
    [0, 1, 2, 3, 4]
    """
    _checks.key(key)
    num_examples = _checks.integer(num_examples, "num_examples", 1, 2**30)
    position_bits = max(1, (num_examples - 1).bit_length())
    key = jax.random.fold_in(jax.random.split(key)[0], epoch)
    if replace:
        return jax.random.randint(key, (num_examples,), 0, num_examples, jnp.int32)
    bits = jax.random.bits(key, (2, num_examples), jnp.uint32)
    with jax.enable_x64(True):
        high, low = bits.astype(jnp.uint64)
        drawn = ((high << 32) | low) >> position_bits << position_bits
        ranked = jax.lax.sort(drawn | jnp.arange(num_examples, dtype=jnp.uint64), is_stable=False)
        return (ranked & (2**position_bits - 1)).astype(jnp.int32)
