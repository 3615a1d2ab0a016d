"""All devices as a mesh, for experiments that run many searches or many trainings."""

from __future__ import annotations

import jax


def everywhere() -> jax.sharding.Mesh:
    """Return a mesh of all devices of all processes, along one axis."""
    return jax.make_mesh((jax.device_count(),), ("devices",))


def mesh() -> jax.sharding.Mesh | None:
    """Return `everywhere()`, or None if there is only one device."""
    return everywhere() if jax.device_count() > 1 else None
