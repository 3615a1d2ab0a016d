"""The string method: a path between two points relaxes to a minimum-energy path (E, Ren & Vanden-Eijnden 2007)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mlp_jax import _compiled, tree
from mlp_jax.critical.search import of_pytrees
from mlp_jax.critical.search.of_pytrees import Settings
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Fun, PyTree

# Steps of a round; products that estimate the largest curvature at an image, and the factor by which it may grow.
_STEPS, _PRODUCTS, _SAFETY = 10, 6, 2.0


@_compiled.by_function(2)
@precision.whole_products
def relaxed(
    fun: Fun, settings: Settings, like: PyTree, args: tuple, images: jax.Array, rounds: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return (n, P) images after a number of rounds of ten steps, the first and the last fixed, and their values (n,).

    In a step every image descends the gradient by the inverse of the largest curvature, estimated once a round, at most
    by its distance from the next; then all are set at equal distances along the path.
    """
    function = of_pytrees.function_of(fun, settings, like, args)
    unravel = tree.ravel(like)[1]

    def curvature(image: jax.Array, gradient: jax.Array) -> jax.Array:
        _, product = jax.linearize(function.gradient, image)

        def unit(vector: jax.Array) -> jax.Array:
            size = jnp.linalg.norm(vector)
            return vector / jnp.where(size > 0, size, 1)

        begin = unit(gradient) + 0.5 / jnp.sqrt(1.0 * image.size)  # never zero
        return jnp.linalg.norm(jax.lax.fori_loop(0, _PRODUCTS, lambda _, vector: product(unit(vector)), begin))

    def step(images: jax.Array, curvatures: jax.Array) -> jax.Array:
        gradients = jax.vmap(function.gradient)(images)
        spacing = jnp.linalg.norm(images[1] - images[0])
        sizes = jnp.linalg.norm(gradients, axis=1)
        rates = jnp.minimum(1 / curvatures, spacing / jnp.where(sizes > 0, sizes, 1))
        moved = images - rates[:, None] * gradients
        return spread(moved.at[0].set(images[0]).at[-1].set(images[-1]))

    def several(_: int, images: jax.Array) -> jax.Array:
        curvatures = _SAFETY * jax.vmap(curvature)(images, jax.vmap(function.gradient)(images))
        return jax.lax.fori_loop(0, _STEPS, lambda _, images: step(images, curvatures), images)

    images = jax.lax.fori_loop(0, rounds, several, spread(images))
    return images, jax.vmap(lambda image: fun(unravel(image), *args))(images)


def spread(images: jax.Array) -> jax.Array:
    """Return as many points at equal distances along the path through images."""
    lengths = jnp.linalg.norm(jnp.diff(images, axis=0), axis=1)
    along = jnp.concatenate([jnp.zeros_like(lengths[:1]), jnp.cumsum(lengths)])
    places = jnp.linspace(0, along[-1], len(images), dtype=along.dtype)
    return jax.vmap(lambda column: jnp.interp(places, along, column), 1, 1)(images)
