"""All devices as a mesh, for experiments whose main work is many searches or many runs."""

from __future__ import annotations

import jax


def mesh() -> jax.sharding.Mesh | None:
    """Return all devices along one axis; None where there is only one, and nothing to share.

    Examples
    --------
    >>> found = mesh()
    >>> found is None or found.size == jax.device_count() > 1
    True
    """
    number = jax.device_count()
    return jax.make_mesh((number,), ("devices",)) if number > 1 else None
