"""The network as pure functions on a tuple of layers: init, forward, maxout and dropout. Transformable.

Activations are functions on arrays: `jnp.tanh`, `jax.nn.relu`, `jax.nn.sigmoid`, `maxout(pieces)`. The outputs of
the network are logits; `jax.nn.softmax(logits)` gives the class probabilities.
"""

from mlp_jax.mlp.network import (  # noqa: F401
    Activation,
    Activations,
    Layer,
    Params,
    PerLayer,
    dropout,
    each_layer,
    forward,
    init,
    maxout,
    require_layers,
)

__all__ = ["Layer", "dropout", "forward", "init", "maxout"]
__dir__ = __all__.copy
