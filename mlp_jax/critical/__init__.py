"""Critical points of any function of any pytree: find them, and classify them.

- `find`: descend the gradient norm to a critical point of any index
- `classify`: name it, with the numbers that justify the name, or say why it has none
"""

from mlp_jax.critical.finders import Point, find
from mlp_jax.critical.higher_order import HigherOrder
from mlp_jax.critical.searches import Reason
from mlp_jax.critical.verdict import Verdict
from mlp_jax.critical.verdicts import classify

__all__ = ["HigherOrder", "Point", "Reason", "Verdict", "classify", "find"]
