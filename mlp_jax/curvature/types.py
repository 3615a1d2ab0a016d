"""Names of the functions and trees that several packages pass around."""

from collections.abc import Callable
from typing import Any

import jax

from mlp_jax.tree import PyTree

__all__ = ["Channels", "Fun", "HessianMatrix", "Matvec", "Progress", "PyTree", "Tangents"]

# (params, *args) -> scalar.
Fun = Callable[..., jax.Array]
# v -> H v, both pytrees like params.
Matvec = Callable[[PyTree], PyTree]
# (params, *args) -> (P, P) matrix, in the order of `tree.ravel`.
HessianMatrix = Callable[..., jax.Array]
# params -> tangent vectors there: a pytree like params with a leading axis k.
Tangents = Callable[[PyTree], PyTree]
# (done, total) -> anything: called while a long computation goes on, such as the update of a progress bar.
Progress = Callable[[int, int], Any]
# (fun, params, args) -> words about the way to infinity on which params are, empty if there is none.
Channels = Callable[..., str]
