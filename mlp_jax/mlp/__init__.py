"""The network as pure functions on a tuple of layers. Transformable.

- `init`, `forward`: initial parameters, with or without biases, and the outputs; `maxout`, `dropout`
- `split_unit`, `merge_units`, `remove_unit`, `add_unit`: another width, the same function

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
from mlp_jax.mlp.surgery import add_unit, merge_units, remove_unit, split_unit

__all__ = [
    "Layer", "add_unit", "dropout", "forward", "init", "maxout", "merge_units", "remove_unit", "split_unit",
]  # fmt: skip
__dir__ = __all__.copy
