"""All devices as a mesh, for experiments whose main work is many searches or many runs."""

from __future__ import annotations

import jax


def everywhere() -> jax.sharding.Mesh:
    """Return all devices of all processes along one axis.

    Examples
    --------
    >>> everywhere().size == jax.device_count()
    True
    """
    return jax.make_mesh((jax.device_count(),), ("devices",))


def mesh() -> jax.sharding.Mesh | None:
    """Return `everywhere`; None where there is only one, and nothing to share.

    Examples
    --------
    >>> found = mesh()
    >>> found is None or found.size == jax.device_count() > 1
    True
    """
    return everywhere() if jax.device_count() > 1 else None
