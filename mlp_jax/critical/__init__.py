"""Critical points of any function of any pytree: find them, and classify them.

- `find`, `find_many`: go to a critical point of any index, or of a chosen one; from many starts at once
- `levenberg_marquardt`, `newton_mr`: methods of `find` that descend the gradient norm, with matrices and without
- `along_run`: starts along a training run, with noise; `distinct`: the points found, each once
- `census`: the critical points of a small function, each once, with an estimate of how many were not seen
- `walk_folds`, `ladder`: more critical points, along branches in a parameter, and of neighbouring index
- `branches`: the branches in a parameter, for a bifurcation diagram
- `descents`, `network`: the gradient flow down from a saddle; the graph of minima and saddles that it joins
- `path`: from one minimum to another over the saddles between them, with the barriers
- `classify`: name a point, with the numbers that justify the name, or say why it has none
"""

from mlp_jax.critical.classification import classify
from mlp_jax.critical.counting import Census, census
from mlp_jax.critical.descents import Descents, descents
from mlp_jax.critical.duplicates import Distinct, distinct
from mlp_jax.critical.evidence.higher_order import HigherOrder
from mlp_jax.critical.finders import find, find_many
from mlp_jax.critical.folds import Branch, Branches, branches, walk_folds
from mlp_jax.critical.ladders import ladder
from mlp_jax.critical.networks import Edge, Merge, Network, network
from mlp_jax.critical.paths import Path, path
from mlp_jax.critical.point import Point
from mlp_jax.critical.search.contract import Reason
from mlp_jax.critical.search.levenberg_marquardt import levenberg_marquardt
from mlp_jax.critical.search.newton_mr import newton_mr
from mlp_jax.critical.starts import along_run
from mlp_jax.critical.verdict import Verdict

__all__ = [
    "Branch", "Branches", "Census", "Descents", "Distinct", "Edge", "HigherOrder", "Merge", "Network", "Path",
    "Point", "Reason", "Verdict", "along_run", "branches", "census", "classify", "descents", "distinct", "find",
    "find_many", "ladder", "levenberg_marquardt", "network", "newton_mr", "path", "walk_folds",
]  # fmt: skip
__dir__ = __all__.copy
